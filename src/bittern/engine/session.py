"""
The whole client: torrents, sockets, limits, one event loop.

``async with Session(config) as session`` starts it, leaving the block stops it
cleanly: peers are closed, data is synced, trackers are told, within
``stop_timeout``. Tasks run under one TaskGroup; each is wrapped by the
supervisor here, the only place that catches every exception, so that a bug
ends the task it is in and is logged, never the session (Limit: F17).

Source: threats.md F13, F17, F19.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import TypeVar, Unpack

from bittern.codec.lsd import PORT
from bittern.codec.magnet import Magnet
from bittern.core.endpoint import Endpoint, is_local
from bittern.core.errors import ConfigError, MetainfoError
from bittern.core.ids import InfoHash, PeerId
from bittern.engine.absence import Absence, Machine, Unmoved
from bittern.engine.changes import SessionChanges, change_session, download_rate, slow_down
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.descriptors import divide_descriptors, raise_descriptor_limit
from bittern.engine.gateway import Gateway, SharedDatagrams, open_udp_sockets
from bittern.engine.limits import SharedLimit, make_bucket
from bittern.engine.mutable import no_dht, resolve_magnet
from bittern.engine.opening import Source, open_source
from bittern.engine.peers.acceptor import Acceptor
from bittern.engine.peers.dialer import Dialer
from bittern.engine.peers.range_reader import HttpOpener
from bittern.engine.peers.roster import Roster
from bittern.engine.pieces.upload import SendBuffer
from bittern.engine.removals import Removals
from bittern.engine.sources.announces import Announces
from bittern.engine.sources.discovery import SessionSources
from bittern.engine.sources.local_peers import COOKIE_LENGTH, GROUPS, Multicast
from bittern.engine.sources.tracker_client import TrackerClient
from bittern.engine.sources.zeroconf_peers import ServiceNetwork
from bittern.engine.store.disk import Disk
from bittern.engine.store.journal import Journal
from bittern.engine.store.reuse import offer_file
from bittern.engine.torrent import Torrent
from bittern.engine.torrent_services import TorrentServices
from bittern.engine.undisturbed import undisturbed
from bittern.net.dht import Dht
from bittern.net.machine import LocalMachine
from bittern.net.multicast import LocalNetwork
from bittern.net.stream import Network
from bittern.net.tcp import TcpNetwork, check_loop
from bittern.net.zeroconf import MulticastDns
from bittern.policy.bans import Bans
from bittern.storage.handles import HandleCache
from bittern.storage.system import OsCalls
from bittern.storage.worker import Worker

log: logging.Logger = logging.getLogger(__name__)

TICK_INTERVAL = 1.0
_LOOPBACK = ("127.", "::1", "localhost")
"""How hosts begin from where nobody beyond this machine is in reach."""

T = TypeVar("T")


def _settings(given: T | None, kind: type[T]) -> T:
    """Return settings as they are given, or the defaults; ConfigError for what is none."""
    if given is not None and not isinstance(given, kind):
        raise ConfigError(f"config must be a {kind.__name__}, not {given!r}")
    return kind() if given is None else given


class Session:
    """
    A BitTorrent client in one event loop.

    Args:
        config: settings; the default suits a desktop.
        network: where streams come from; TCP unless a test says otherwise.
        rng: chance; seeded by tests.
        random_bytes: unpredictable bytes for ids and keys; tests draw them from a seed.
        worker: runs storage jobs; threads of our own unless a simulation brings another.
        os_calls: the operating system under the files; tests make it fail.
        clock: seconds, to tell a slow disk from a quick one.

    Attributes:
        config: the settings that hold; ``change`` changes them.
        torrents: those of the session, in the order in which they were added.

    Raises:
        ConfigError: ``config`` is no ``SessionConfig``; a session is entered twice.
        StorageError: on entering: the state folder is another session's, or cannot be used.

    Example::

        async with bittern.Session() as session:
            torrent = await session.add("ubuntu.torrent", TorrentConfig(output=Path("iso")))
            await torrent.wait_complete()
    """

    def __init__(
        self,
        config: SessionConfig | None = None,
        *,
        network: Network | None = None,
        rng: random.Random | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        worker: Worker | None = None,
        os_calls: OsCalls | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.config: SessionConfig = _settings(config, SessionConfig)
        self.torrents: list[Torrent] = []
        self._network = network
        self._rng = rng or random.Random()
        self._random_bytes = random_bytes
        self._worker_and_clock = worker, clock
        self._os_calls = os_calls or OsCalls()
        self._by_hash: dict[InfoHash, Torrent] = {}
        self._group: asyncio.TaskGroup | None = None
        self._ends: AsyncExitStack[bool | None] | None = None
        """What the end of the block ends; None unless it is open."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._removals = Removals()

    # --- life ----------------------------------------------------------------------------

    async def __aenter__(self) -> Session:
        if self._group is not None:
            raise ConfigError("a session can be entered only once")
        self._group = asyncio.TaskGroup()
        # What is open is closed again, last first, also when the rest cannot be opened.
        async with AsyncExitStack() as ends:
            await self._open(ends, self._group)
            self._ends = ends.pop_all()
        return self

    async def _open(self, ends: AsyncExitStack[bool | None], group: asyncio.TaskGroup) -> None:
        loop = self._loop = asyncio.get_running_loop()
        config = self.config = divide_descriptors(self.config, raise_descriptor_limit())
        if self._network is None:
            check_loop(loop)
        network = self._network or TcpNetwork(
            receive_buffer_length=config.receive_buffer_length, source_hosts=config.listen_hosts
        )
        given_worker, clock = self._worker_and_clock
        self._disk = Disk(
            given_worker or Worker(),
            loop,
            max_queue=config.max_write_queue,
            congestion_changed=self._congestion_changed,
            clock=clock,
        )
        ends.push_async_callback(self._disk.close)
        self._gateway = Gateway(config, port=lambda: self.port, open_sockets=self._open_udp_sockets)
        ends.push_async_callback(self._gateway.close)
        journal = None
        if config.state_dir is not None:
            journal = await Journal.open(self._disk, config.state_dir)
            ends.push_async_callback(journal.close)
        # Before the journal lets go of the state folder: the routing table is kept there, too.
        ends.push_async_callback(self._gateway.leave_dht)
        await group.__aenter__()
        ends.push_async_callback(self._end_tasks, group)
        self._announces = Announces(loop, self._spawn)
        ends.callback(self._announces.close)
        ends.push_async_callback(self._end_torrents)
        self._dialer = Dialer(network, config, loop, rosters=self._rosters, spawn=self._spawn)
        ends.callback(self._dialer.close)
        self._acceptor = Acceptor(network, config, loop, find=self._find, rouse=self._rouse)
        ends.callback(self._acceptor.close)
        self._acceptor.listen()
        self._services = self._make_services(journal)
        await self._start_shared_sources()
        self._tick_handle = loop.call_later(TICK_INTERVAL, self._tick, self._make_absence())
        ends.callback(lambda: self._tick_handle.cancel())

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ends, self._ends = self._ends, None
        if ends is not None:
            # Also when that is cancelled: sockets, threads and the journal need it all.
            await undisturbed(ends.aclose())

    def _check_open(self) -> None:
        if self._ends is None:
            when = "not open yet" if self._group is None else "closed"
            raise ConfigError(f"the session is {when}: it is open inside its 'async with' block")

    async def _end_torrents(self) -> None:
        # All at once: dead trackers must not be waited for one torrent after the other.
        self._announces.ends_at = self._loop.time() + self.config.stop_timeout
        torrents = list(self.torrents)
        self._removals.at_end.extend(torrents)
        ends = await asyncio.gather(
            *(self._remove(torrent, keep_state=True) for torrent in torrents),
            return_exceptions=True,
        )
        await self._removals.end()
        for error in ends:
            if error is not None:
                raise error

    async def _end_tasks(self, group: asyncio.TaskGroup) -> None:
        for task in list(self._tasks):
            task.cancel()
        await group.__aexit__(None, None, None)

    def _make_services(self, journal: Journal | None) -> TorrentServices:
        loop, config, gateway = self._loop, self.config, self._gateway
        now = loop.time()
        return TorrentServices(
            loop=loop,
            config=config,
            rng=self._rng,
            disk=self._disk,
            send_buffer=SendBuffer(config.send_buffer_length),
            handles=HandleCache(config.max_open_files),
            os_calls=self._os_calls,
            peer_id=PeerId.generate(config.client_prefix, self._random_bytes),
            download_limit=SharedLimit(make_bucket(config.max_download_rate, now=now), loop=loop),
            upload_limit=SharedLimit(make_bucket(config.max_upload_rate, now=now), loop=loop),
            http=self._http,
            sources=SessionSources(
                self._make_tracker_client() if config.enable_trackers else None, self._announces
            ),
            listen_port=lambda: self._acceptor.port,
            request_dial=self._dialer.request,
            may_connect=self._may_connect,
            num_connections=self._num_connections,
            num_half_open=lambda: self._dialer.num_half_open,
            journal=journal,
            active={},
            torrents=lambda: self.torrents,
            bans=Bans(),
            external={},
            address_told=self._address_told,
            spawn=self._spawn,
            dht_port=lambda: gateway.dht_port,
            dht_node_seen=gateway.dht_node_seen,
            file_completed=lambda lender, index: offer_file(lender, index, self.torrents),
            hashes_learned=self._register,
        )

    def _make_absence(self) -> Absence:
        sources = self._services.sources
        return Absence(
            self._find_machine(),
            rng=self._rng,
            now=self._loop.time(),
            peers=lambda: (peer for roster in self._rosters() for peer in roster.peers),
            idle_timeout=lambda: self.config.idle_timeout,
            sources=lambda: (sources.announces, *sources.shared),
        )

    def _find_machine(self) -> Machine:
        """Return what we run on; a simulated machine never sleeps, unless its test says so."""
        if self._network is not None:
            return Unmoved(self._loop)
        hosts = self.config.listen_hosts
        is_local = bool(hosts) and all(host.startswith(_LOOPBACK) for host in hosts)
        return LocalMachine(is_local=is_local)

    def _make_tracker_client(self) -> TrackerClient:
        return self._gateway.make_tracker_client()

    def _http(self) -> HttpOpener:
        """Return what web seeds are asked with; a test brings its own."""
        return self._gateway.http

    def _open_udp_sockets(self, hosts: tuple[str, ...], port: int) -> Sequence[SharedDatagrams]:
        """Open the sockets of UDP trackers and the DHT; a test's network brings its own."""
        return open_udp_sockets(hosts, port)

    async def _start_shared_sources(self) -> None:
        """Start what all torrents that are not private find peers by."""
        if self.config.enable_dht:
            dht = await self._gateway.open_dht(
                rng=self._rng,
                random_bytes=self._random_bytes,
                spawn=self._spawn,
                disk=self._disk,
                address_learned=self._address_learned,
            )
            if dht is not None:
                self._services.sources.shared.append(dht)
        self._join_local_network()
        services = self._open_services() if self.config.enable_zeroconf else None
        if services is not None:
            self._services.sources.shared.append(
                await self._gateway.open_zeroconf(services, spawn=self._spawn)
            )

    def _open_multicast(self) -> Multicast | None:
        """Return the local network; a simulated machine has none but what its test brings."""
        if self._network is not None:
            return None
        return LocalNetwork(GROUPS, PORT, listen_hosts=self.config.listen_hosts)

    def _open_services(self) -> ServiceNetwork | None:
        """Return where services are advertised; the same holds for a simulated machine."""
        if self._network is not None:
            return None
        return MulticastDns(self._services.peer_id, listen_hosts=self.config.listen_hosts)

    def _join_local_network(self) -> None:
        """Make the local discovery (BEP 14)."""
        network = self._open_multicast() if self.config.enable_lsd else None
        if network is not None:
            self._services.sources.shared.append(
                self._gateway.open_local(
                    network, rng=self._rng, cookie=self._random_bytes(COOKIE_LENGTH)
                )
            )

    def _spawn(self, job: Coroutine[object, object, None], name: str) -> None:
        """Run a task under the supervisor."""
        assert self._group is not None
        task = self._group.create_task(self._supervise(job, name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step would never await the job.
        task.add_done_callback(lambda _task: job.close())

    async def _supervise(self, job: Coroutine[object, object, None], name: str) -> None:
        try:
            await job
        except Exception:
            # A bug of ours: the task it is in ends, and the log says where.
            log.exception("task %r failed", name)

    # --- torrents ------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port that peers reach us at; 0 when we do not listen."""
        return 0 if self._group is None else self._acceptor.port

    @property
    def dht(self) -> Dht | None:
        """Our nodes in the DHT; None while it is switched off, or the session not open."""
        source = None if self._group is None else self._gateway.dht
        return None if source is None else source.dht

    async def add(self, source: Source, config: TorrentConfig | None = None) -> Torrent:
        """
        Add a torrent and start it; if it is just being removed, once that is done.

        Args:
            source: path of a .torrent file, its content, an http(s) URL of one, a magnet
                link, a v1 or v2 info hash in hexadecimal, a v1 one in base32, or any of them
                already read.
            config: settings of this torrent.

        Returns:
            The torrent, checked and joined to its swarm.

        Raises:
            MetainfoError, MagnetError: the source is unusable.
            FetchError: a URL could not be read; ``status`` is the server's.
            ConfigError: it is in this session already, the settings do not fit it, or the session
                is not open, as with all that needs it to be.
            NotPublished, DhtUnreachable: the link has no hash but a public key (BEP 46), and
                the DHT does not tell what is the newest torrent under it.
        """
        self._check_open()
        settings = _settings(config, TorrentConfig)
        found = await open_source(source, lambda: self._gateway.http)
        if isinstance(found, Magnet) and found.wire_hash is None:
            found = await self.resolve(found)
        torrent = Torrent(self._services, found, settings)
        await self._removals.wait_for(torrent.all_hashes)
        self._check_open()  # it may have ended meanwhile, and would never stop this torrent
        self._register(torrent)
        self.torrents.append(torrent)
        if not torrent.config.paused:
            await torrent.start()
        return torrent

    def _register(self, torrent: object) -> None:
        """Let connections find a torrent under all of its hashes (BEP 52)."""
        assert isinstance(torrent, Torrent)
        for info_hash in torrent.all_hashes:
            if self._by_hash.get(info_hash, torrent) is not torrent:
                raise ConfigError(f"{info_hash} is in this session already")
        self._by_hash.update(dict.fromkeys(torrent.all_hashes, torrent))

    def _unregister(self, torrent: Torrent) -> set[InfoHash]:
        """Let go of the hashes of a torrent, and return them."""
        ours = {key for key in torrent.all_hashes if self._by_hash.get(key) is torrent}
        for info_hash in ours:
            del self._by_hash[info_hash]
        return ours

    async def resolve(self, magnet: Magnet) -> Magnet:
        """
        Return a link to the torrent that is the newest under a link's public key (BEP 46).

        Raises:
            ConfigError: the DHT is switched off, or has no socket.
            NotPublished: nobody has an item of that key.
            DhtUnreachable: nobody could be asked.
            KrpcDecodeError: what is there names no torrent.
        """
        self._check_open()
        if self.dht is None:
            raise no_dht(is_enabled=self.config.enable_dht)
        return await resolve_magnet(self.dht, magnet)

    async def remove(
        self, torrent: Torrent, *, delete_data: bool = False, keep_state: bool = False
    ) -> None:
        """
        Stop a torrent and forget it; also when this is cancelled, which counts once it is done.

        Args:
            torrent: one of this session.
            delete_data: delete its files as well.
            keep_state: leave what the state folder knows of it, so that it goes on from there
                when it is added again.

        Raises:
            ConfigError: it is another session's; this one has ended, and forgets nothing more; it
                was removed before and added again, in the same place, so its files are in use.
            StorageError: its files cannot be deleted; it has stopped. What is known of it and
                cannot be dropped is a warning in the log.
        """
        if self._group is None or torrent._services is not self._services:
            raise ConfigError(f"torrent {torrent.all_hashes[0]} is another session's")
        is_forgotten = self._services.journal is not None and not keep_state
        if self._removals.are_over and (delete_data or is_forgotten):
            self._check_open()
        if delete_data:
            self._removals.check_unused(torrent, self.torrents)
        job = self._remove(torrent, delete_data=delete_data, keep_state=keep_state)
        await self._removals.carry_out(torrent, job)

    async def _remove(
        self, torrent: Torrent, *, delete_data: bool = False, keep_state: bool = False
    ) -> None:
        ours = self._unregister(torrent)
        if torrent in self.torrents:
            self.torrents.remove(torrent)
        await torrent.stop()
        ours |= self._unregister(torrent)  # It may have learnt of another one before it ended.
        if self._ends is not None or not keep_state:
            with suppress(MetainfoError):  # What is kept of it may be gone soon.
                torrent.shelf.take()
        try:
            if delete_data:
                await torrent.delete_data()
        finally:
            if not keep_state:
                await self._forget(ours - self._by_hash.keys())

    async def forget(self, hashes: Iterable[InfoHash]) -> None:
        """
        Drop what the state folder knows of torrents that are not in this session (any more).

        Of one that is just being removed, once that is done.
        """
        names = list(hashes)
        await self._removals.wait_for(names)  # they may still keep something
        if gone := [each for each in names if each not in self._by_hash]:
            self._check_open()
            await self._forget(gone)

    async def _forget(self, gone: Iterable[InfoHash]) -> None:
        if self._services.journal is not None:
            await self._services.journal.forget(gone)

    def change(self, **settings: Unpack[SessionChanges]) -> None:
        """
        Change settings, also while the session runs; ``config`` tells what holds.

        Raises:
            ConfigError: a value is outside its range; nothing changes.

        Example::

            session.change(max_download_rate=2_000_000, max_upload_rate=None)
        """
        config = self.config = change_session(self.config, settings)
        if self._group is None:
            return
        config = self.config = divide_descriptors(config, raise_descriptor_limit())
        services = self._services
        services.config = config
        swarms = [torrent.swarm for torrent in self.torrents if torrent.swarm is not None]
        rates = [(swarm, download_rate(swarm)) for swarm in swarms]
        services.download_limit.set_rate(config.max_download_rate)
        services.upload_limit.set_rate(config.max_upload_rate)
        for swarm, rate_before in rates:
            slow_down(swarm, rate_before)
        for torrent in self.torrents:
            torrent.apply_settings(torrent.config)

    async def run_job(self, job: Callable[[], T]) -> T:
        """Run something that blocks in the session's storage worker and return its result."""
        self._check_open()
        return await self._disk.run(job)

    # --- what the parts ask --------------------------------------------------------------

    def _find(self, info_hash: InfoHash) -> Roster | None:
        torrent = self._by_hash.get(info_hash)
        return None if torrent is None else torrent.roster

    def _rouse(self, info_hash: InfoHash) -> bool:
        torrent = self._by_hash.get(info_hash)
        return torrent is not None and torrent.rouse()

    def _rosters(self) -> list[Roster]:
        active = self._services.active
        rosters = [torrent.roster for torrent in active if torrent.roster is not None]
        self._rng.shuffle(rosters)
        return rosters

    def _may_connect(self) -> bool:
        return self._num_connections() < self.config.max_connections

    def _num_connections(self) -> int:
        return sum(torrent.num_connections for torrent in self._services.active)

    def _address_learned(self, host: str) -> None:
        """Take note of how the outside sees us (BEP 42); whom to dial first goes by it (BEP 40)."""
        if self.port:
            endpoint = Endpoint(host, self.port)
            self._services.external[endpoint.is_ipv6] = endpoint
            for torrent in self._services.active:
                torrent.candidates.set_external(endpoint)

    def _address_told(self, host: str) -> None:
        """
        Take a tracker's word for how the outside sees us (BEP 24) while there is no better one.

        The nodes of the DHT have agreed on theirs, which replaces it. The first tracker is
        believed, so that one that lies cannot do it again and again; one in our own network
        does not see us from outside.
        """
        if (":" in host) not in self._services.external and not is_local(host):
            self._address_learned(host)

    def _congestion_changed(self, is_congested: bool) -> None:
        for torrent in self._services.active:
            for peer in torrent.swarm.peers if torrent.swarm else ():
                if not is_congested:
                    peer.stream.resume_reading()
                elif peer.is_open:  # the others are paused once they are, or they would time out
                    peer.stream.pause_reading()
            if torrent.swarm is not None:
                torrent.swarm.web_seeds.set_reading(not is_congested)

    def _tick(self, absence: Absence) -> None:
        self._tick_handle = self._loop.call_later(TICK_INTERVAL, self._tick, absence)
        now = self._loop.time()
        absence.tick(now=now)
        for torrent in list(self._services.active):
            try:
                torrent.tick(now=now)
            except Exception as error:  # a bug in one must not keep the others waiting (Limit: F17)
                self._loop.call_exception_handler(
                    {"message": f"a tick of {torrent!r} failed", "exception": error}
                )
