"""
Sessions on simulated hosts, in virtual time, around one torrent of random bytes.

A test under ``@in_scene()`` is a coroutine that is handed one. Chance comes from the loop, storage
jobs run on it, files are real ones below the test's folder.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import os
import random
import shutil
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from bittern.codec import wire
from bittern.codec.extension import ExtendedHandshake, encode_extended_handshake
from bittern.codec.info import Version
from bittern.codec.metainfo import Metainfo, decode_metainfo
from bittern.codec.wire import MessageId, Reserved
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.events import Event
from bittern.engine.peers.roster import Roster
from bittern.engine.pieces.swarm import Swarm
from bittern.engine.session import Session
from bittern.engine.sources.local_peers import Multicast
from bittern.engine.torrent import Torrent
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.storage.system import OsCalls
from bittern.testing.disk import CachedCalls, SimWorker
from bittern.testing.host import SimHost
from bittern.testing.loop import VirtualLoop
from bittern.testing.network import Link, SimNetwork
from bittern.testing.peer import DEFAULT_TIMEOUT, ExpectationFailed, ScriptedListener, ScriptedPeer
from tests.virtual_time import AsyncTest, Test, simulated, stand_in

_T = TypeVar("_T")

PORT = 6881
PIECE_LENGTH = 65_536
BLOCK_LENGTH = 16_384
NUM_PIECES = 16
NAME = "content"
SINGLE = {"": (NUM_PIECES - 1) * PIECE_LENGTH + 1_000}
"""One file of 16 pieces, the last one short."""
FAST = Reserved(has_fast=True, has_extensions=True)


@functools.lru_cache(maxsize=4)
def noise(*lengths: int) -> tuple[bytes, ...]:
    """Return random bytes, for the same lengths always the same: megabytes take their time."""
    rng = random.Random(1)
    return tuple(map(rng.randbytes, lengths))


def damage(path: Path, *offsets: int, keeps_times: bool = False) -> None:
    """Change one byte of a file at each offset."""
    before = path.stat()
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))
    if keeps_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@dataclass
class Node:
    """A session on its host, with the scene's torrent."""

    scene: Scene
    host: SimHost
    session: Session
    torrent: Torrent
    folder: Path

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        return Endpoint(self.host.addresses[0], PORT)

    @property
    def swarm(self) -> Swarm:
        """What moves its pieces; only while it is awake."""
        assert self.torrent.swarm is not None
        return self.torrent.swarm

    @property
    def roster(self) -> Roster:
        """Its connections; only while it is awake."""
        assert self.torrent.roster is not None
        return self.torrent.roster

    def has_content(self) -> bool:
        """Tell whether its files are the torrent's, byte for byte."""
        root = self.folder / NAME
        return all(
            (root / name if name else root).read_bytes() == data
            for name, data in self.scene.files.items()
        )

    async def complete(self, within: float = 300.0) -> None:
        """Wait until it has everything it wants."""
        async with asyncio.timeout(within):
            await self.torrent.wait_complete()

    async def close(self) -> None:
        """End its session."""
        self.scene.sessions.remove(self.session)
        await self.session.__aexit__(None, None, None)


class Dialled(Protocol):
    """Whatever can be dialled."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""


class Scene:
    """
    Hosts, and what they share. At its end scripted peers are closed, and then the sessions.

    Args:
        loop: of ``simulate``.
        folder: for all files.
        files: lengths by path below the torrent's folder; one with the path "" is the torrent.
        piece_length: of the torrent.
        link: between all hosts.
        is_traced: the network keeps what happens.
        options: of the torrent, as for ``CreateOptions``.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        folder: Path,
        *,
        files: Mapping[str, int] = SINGLE,
        piece_length: int = PIECE_LENGTH,
        link: Link | None = None,
        is_traced: bool = True,
        **options: Any,
    ) -> None:
        self.loop = loop
        self.folder = folder
        self.network = SimNetwork(loop, link=link or Link(delay=0.02), is_traced=is_traced)
        self.sessions: list[Session] = []
        self.at_end: list[Callable[[], object]] = []
        """What is to be called at its end, before the sessions end."""
        self.files = dict(zip(files, noise(*files.values()), strict=True))
        self.data = b"".join(self.files.values())
        self.write_content(folder / "source")
        self.raw = create_torrent(
            folder / "source" / NAME,
            options=CreateOptions(piece_length=piece_length, **{"version": Version.V1, **options}),
            num_threads=1,
        )

    @property
    def metainfo(self) -> Metainfo:
        return decode_metainfo(self.raw)

    @property
    def info_hash(self) -> InfoHash:
        return self.metainfo.info.wire_hash

    @property
    def link(self) -> str:
        """A magnet link with all hashes of the torrent and nothing else."""
        info = self.metainfo.info
        known = {"btih": info.info_hash, "btmh": info.info_hash_v2}
        return self.link_by(*(kind for kind, known_hash in known.items() if known_hash))

    def link_by(self, *kinds: str) -> str:
        """Return a magnet link with the torrent's hashes of these kinds: btih, btmh."""
        info = self.metainfo.info
        topics = {"btih": f"btih:{info.info_hash}", "btmh": f"btmh:1220{info.info_hash_v2}"}
        return "magnet:?" + "&".join(f"xt=urn:{topics[kind]}" for kind in kinds)

    @property
    def state_dir(self) -> Path:
        """A folder for the state of one session."""
        return self.folder / "state"

    def folder_of(self, host: SimHost) -> Path:
        """Return where the files of a host's session are."""
        return self.folder / host.addresses[0]

    def write_content(self, folder: Path) -> None:
        """Put the torrent's files below a folder."""
        root = folder / NAME
        for name, data in self.files.items():
            path = root / name if name else root
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def add_host(self, address: str | None = None, **options: Any) -> SimHost:
        """Add a machine with the next address, or a given one."""
        number = len(self.network.hosts) + 1
        return self.network.add_host(
            address or f"10.0.{number // 200}.{number % 200 + 1}", **options
        )

    def spawn(self, program: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run a program beside the test, until the scene ends."""
        task = self.loop.create_task(program)
        self.at_end.append(task.cancel)
        return task

    async def session(
        self,
        host: SimHost,
        *,
        os_calls: OsCalls | None = None,
        worker_delay: float = 0.0,
        make: type[Session] = Session,
        multicast: Multicast | None = None,
        **config: Any,
    ) -> Session:
        """Run a session; the scene ends it."""
        settings: dict[str, Any] = {
            "listen_host": host.addresses[0],
            "listen_port": PORT,
            "enable_trackers": False,
            "enable_dht": False,
            "enable_lsd": multicast is not None,
            "hashing_threads": 1,
        }
        if multicast is not None:
            make = type("Neighbour", (make,), {"_open_multicast": lambda _self: multicast})
        made = make(
            SessionConfig(**{**settings, **config}),
            network=host,
            rng=random.Random(self.loop.random.random()),
            random_bytes=self.loop.random.randbytes,
            worker=SimWorker(self.loop, delay=worker_delay),
            os_calls=os_calls or CachedCalls(),
            clock=self.loop.time,
        )
        await made.__aenter__()
        self.sessions.append(made)
        handles = made._services.handles
        self.loop.leak_checks.append(
            lambda: [f"{len(handles)} files of {made!r}"] if len(handles) else []
        )
        return made

    async def node(
        self,
        *,
        is_seed: bool = False,
        damaged: Collection[int] = (),
        peers: Iterable[Dialled | Endpoint] = (),
        host: SimHost | None = None,
        source: Any = None,
        torrent: Mapping[str, Any] | None = None,
        **session: Any,
    ) -> Node:
        """
        Run a session with the torrent.

        Args:
            is_seed: its files are there.
            damaged: they are there, but for a byte at each of these offsets of the one file.
            peers: that the user names.
            host: where it runs; None for a host of its own.
            source: what is added; None for the torrent file.
            torrent: of ``TorrentConfig``.
            session: of ``session``.
        """
        host = host or self.add_host()
        folder = self.folder_of(host)
        folder.mkdir(parents=True, exist_ok=True)
        if is_seed or damaged:
            self.write_content(folder)
        if damaged:
            damage(folder / NAME, *damaged)
        made = await self.session(host, **session)
        endpoints = tuple(map(endpoint_of, peers))
        added = await made.add(
            self.raw if source is None else source,
            TorrentConfig(output=folder, peers=endpoints, **(torrent or {})),
        )
        return Node(self, host, made, added, folder)

    def piece(self, index: int) -> bytes:
        """Return the right bytes of a piece."""
        return self.data[index * PIECE_LENGTH : (index + 1) * PIECE_LENGTH]

    def block(self, index: int, begin: int, length: int) -> bytes:
        """Return the right bytes of a block."""
        return self.data[index * PIECE_LENGTH + begin :][:length]

    async def scripted(
        self,
        node: Node,
        host: SimHost | None = None,
        *,
        reserved: Reserved = FAST,
        peer_id: bytes | None = None,
        bitfield: bytes | None = None,
        extended: ExtendedHandshake | None = None,
    ) -> ScriptedPeer:
        """Connect a scripted peer and go through the handshake."""
        peer = await self.connect(node, host)
        await self.greet(
            peer, reserved=reserved, peer_id=peer_id, bitfield=bitfield, extended=extended
        )
        return peer

    async def unchoked(self, node: Node, **said: Any) -> ScriptedPeer:
        """Connect a scripted peer that wants everything, as ``scripted``, and see it unchoked."""
        peer = await self.scripted(node, **{"bitfield": wire.HAVE_NONE, **said})
        peer.send(wire.INTERESTED)
        await peer.expect(MessageId.UNCHOKE)
        return peer

    async def add_and_knock(self, node: Node, host: SimHost | None = None) -> ScriptedPeer:
        """Connect a scripted peer and send its handshake."""
        peer = await self.connect(node, host)
        peer.send_handshake(self.info_hash, b"-SC0000-" + self.loop.random.randbytes(12), FAST)
        return peer

    async def connect(
        self, place: SimHost | Dialled | Endpoint, host: SimHost | None = None
    ) -> ScriptedPeer:
        """Connect a scripted peer, from a new host unless one is given, and say nothing yet."""
        peer = await ScriptedPeer.connect(host or self.add_host(), endpoint_of(place))
        self.at_end.append(peer.close)
        return peer

    async def greet(
        self,
        peer: ScriptedPeer,
        *,
        reserved: Reserved = FAST,
        peer_id: bytes | None = None,
        bitfield: bytes | None = None,
        extended: ExtendedHandshake | None = None,
    ) -> None:
        """Exchange handshakes and say what a peer has."""
        made_up = b"-SC0000-" + self.loop.random.randbytes(12)
        peer.send_handshake(self.info_hash, peer_id or made_up, reserved)
        await peer.expect_handshake()
        if bitfield is not None:
            peer.send(bitfield)
        if extended is not None:
            peer.send(wire.encode_extended(0, encode_extended_handshake(extended)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for close in self.at_end:
            close()
        for session in self.sessions:
            await session.__aexit__(None, None, None)


GIVEN: Any = object()
"""As an option of ``in_scene``: what the test is parametrized with under the option's name."""


def in_scene(**options: Any) -> Callable[[AsyncTest], Test]:
    """
    Run a test in a scene of its own, in virtual time.

    The test is a coroutine function. Its parameters are ``scene``, fixtures, and what it is
    parametrized with; the folder of the scene is its ``tmp_path``.

    Args:
        options: of ``Scene``.
    """
    given = [name for name, value in options.items() if value is GIVEN]

    def decorate(test: AsyncTest) -> Test:
        wanted = inspect.signature(test).parameters

        async def play(*, loop: VirtualLoop, tmp_path: Path, **arguments: Any) -> None:
            found = {name: arguments[name] for name in given}
            async with Scene(loop, tmp_path, **{**options, **found}) as scene:
                offered = {**arguments, "tmp_path": tmp_path, "scene": scene}
                await test(**{name: offered[name] for name in wanted})

        needs = {"loop", "tmp_path", *given}
        return simulated(stand_in(play, test, without={"scene"}, needs=needs))

    return decorate


def endpoint_of(place: SimHost | Dialled | Endpoint) -> Endpoint:
    """Return where a place is dialled; a host at the port of all sessions."""
    if isinstance(place, SimHost):
        return Endpoint(place.addresses[0], PORT)
    return place if isinstance(place, Endpoint) else place.endpoint


class Stranger:
    """
    A machine without a session, where nodes may call.

    Args:
        scene: closes what is open at its end.
        host: an existing one.
    """

    def __init__(self, scene: Scene, host: SimHost | None = None) -> None:
        self.scene = scene
        self.host = host or scene.add_host()
        self.endpoint = endpoint_of(self.host)
        self.peers: list[ScriptedPeer] = []
        """Who called so far."""
        self._listener = ScriptedListener(self.host, self.host.addresses[0], PORT)
        scene.at_end.append(self.close)

    async def accept(self, *, timeout: float = DEFAULT_TIMEOUT) -> ScriptedPeer:
        """Wait for the next connection; ``ExpectationFailed`` if none comes in time."""
        peer = await self._listener.accept(timeout=timeout)
        self.peers.append(peer)
        self.scene.at_end.append(peer.close)
        return peer

    def play(self, script: Callable[[ScriptedPeer], Coroutine[Any, Any, object]]) -> None:
        """Follow a script with each node that calls, up to the first thing that is not in it."""
        self.scene.spawn(self._play(script))

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()

    async def _play(self, script: Callable[[ScriptedPeer], Coroutine[Any, Any, object]]) -> None:
        while True:
            self.scene.spawn(_follow(script, await self.accept(timeout=math.inf)))


async def _follow(
    script: Callable[[ScriptedPeer], Coroutine[Any, Any, object]], peer: ScriptedPeer
) -> None:
    try:
        await script(peer)
    except ExpectationFailed:
        peer.close()


class Watch:
    """Collects the events of a torrent from now on."""

    def __init__(self, torrent: Torrent, *, trace: bool = False) -> None:
        self._events = torrent.events(trace=trace)
        self.seen: list[Event] = []
        self.task = asyncio.ensure_future(self._collect())

    async def _collect(self) -> None:
        async for event in self._events:
            self.seen.append(event)

    def of(self, kind: type) -> list[Any]:
        """Return the events of a kind."""
        return [event for event in self.seen if isinstance(event, kind)]


def snapshot(*folders: Path) -> list[tuple[Path, Path]]:
    """Copy folders as a kill would leave them, to be put back with ``restore``."""
    copies = []
    for folder in folders:
        copy = folder.with_name(folder.name + ".killed")
        shutil.copytree(folder, copy)
        copies.append((copy, folder))
    return copies


def restore(copies: list[tuple[Path, Path]]) -> None:
    """Put folders back as they were when copied."""
    for copy, folder in copies:
        shutil.rmtree(folder)
        copy.rename(folder)


async def until(is_so: Callable[[], bool], *, within: float = 60.0) -> None:
    """Wait until something is so, looking every few virtual milliseconds."""
    async with asyncio.timeout(within):
        while not is_so():  # noqa: ASYNC110  # it is the state of a program that knows no test
            await asyncio.sleep(0.01)
