"""
What a session has of the network beside its peer connections.

One UDP socket for each address family, shared by UDP trackers and the DHT and at our TCP
port where that is free; one resolver; one HTTP client; the local discoveries. Each is made
when it is first needed, and closed here.

Sources: BEP 5, BEP 14, BEP 15, BEP 26.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from bittern.dht.limits import WELL_KNOWN_ROUTERS
from bittern.engine.config import SessionConfig
from bittern.engine.peers.roster import is_loopback
from bittern.engine.sources.dht import DhtSource
from bittern.engine.sources.local_peers import LocalDiscovery, Multicast
from bittern.engine.sources.tracker_client import TrackerClient
from bittern.engine.sources.zeroconf_peers import ServiceNetwork, ZeroconfDiscovery
from bittern.engine.store.disk import Disk
from bittern.net.dht import Dht
from bittern.net.dns import Resolver
from bittern.net.http import HttpClient
from bittern.net.udp import DHT_BYTES, TRACKER_BYTES, Datagrams, ReceiveDatagram, UdpSocket
from bittern.net.udp_tracker import UdpTrackers
from bittern.storage.dht_state import read_dht_state

log: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")


class SharedDatagrams(Datagrams, Protocol):
    """A datagram socket that several can use; real or simulated."""

    def add_receiver(
        self,
        first_bytes: Iterable[int],
        receive: ReceiveDatagram,
        *,
        batch_ended: Callable[[], object] | None = None,
    ) -> None:
        """Hand datagrams that start with one of the bytes to ``receive``."""

    def close(self) -> None:
        """Close; idempotent."""


class Gateway:
    """
    The means described in the module's text; belongs to one session.

    Args:
        config: of the session.
        port: tells our TCP port.
        open_sockets: opens the UDP sockets at that port, one for each address.
    """

    def __init__(
        self,
        config: SessionConfig,
        *,
        port: Callable[[], int],
        open_sockets: Callable[[tuple[str, ...], int], Sequence[SharedDatagrams]],
    ) -> None:
        self.dht: DhtSource | None = None
        self.local: LocalDiscovery | None = None
        self.zeroconf: ZeroconfDiscovery | None = None
        self._config = config
        self._port = port
        self._open_sockets = open_sockets
        self._sockets: Sequence[SharedDatagrams] | None = None
        self._resolver: Resolver | None = None
        self._http: HttpClient | None = None
        self._udp_trackers: UdpTrackers | None = None

    @property
    def sockets(self) -> Sequence[SharedDatagrams]:
        """The UDP sockets."""
        if self._sockets is None:
            self._sockets = self._open_sockets(self._config.listen_hosts, self._port())
        return self._sockets

    @property
    def resolver(self) -> Resolver:
        """Looks up host names."""
        if self._resolver is None:
            self._resolver = Resolver()
        return self._resolver

    @property
    def http(self) -> HttpClient:
        """Fetches documents."""
        if self._http is None:
            hosts = [host for host in self._config.listen_hosts if _is_one_address(host)]
            self._http = HttpClient(
                resolver=self.resolver,
                user_agent=self._config.client_name,
                # Trackers take the address that an announce comes from for ours.
                bind_hosts=tuple(_one_of_each_family(hosts, lambda host: host)),
            )
        return self._http

    @property
    def dht_port(self) -> int:
        """The port of our DHT node; 0 when there is none."""
        return 0 if self.dht is None else self.dht.port

    def dht_node_seen(self, host: str, port: int) -> None:
        """Hear of a peer's DHT node (BEP 5)."""
        if self.dht is not None:
            self.dht.node_seen(host, port)

    def make_tracker_client(self) -> TrackerClient:
        """Return what talks to trackers."""
        sockets = _one_of_each_family(self.sockets, lambda socket: socket.endpoint.host)
        udp = self._udp_trackers = UdpTrackers(sockets)
        for socket in sockets:
            socket.add_receiver(TRACKER_BYTES, udp.receive)
        return TrackerClient(http=self.http, udp=udp, resolver=self.resolver)

    async def open_dht(
        self,
        *,
        rng: random.Random,
        random_bytes: Callable[[int], bytes],
        spawn: Callable[[Coroutine[object, object, None], str], None],
        disk: Disk,
        address_learned: Callable[[str], object],
    ) -> DhtSource | None:
        """Start a DHT node on each socket; None where there is no socket."""
        if not self.sockets:
            return None
        config = self._config
        folder = config.state_dir
        state = None if folder is None else await disk.run(partial(read_dht_state, folder))
        is_usual = config.dht_bootstrap == WELL_KNOWN_ROUTERS
        dht = Dht(
            self.sockets,
            nodes=() if is_usual else config.dht_bootstrap,
            routers=WELL_KNOWN_ROUTERS if is_usual else (),
            resolver=self.resolver,
            state=state,
            rng=rng,
            random_bytes=random_bytes,
            address_learned=address_learned,
        )
        for socket, shell in zip(self.sockets, dht.shells, strict=True):
            socket.add_receiver(DHT_BYTES, shell.receive, batch_ended=shell.flush)
            if (known := shell.node.status.host) is not None:  # from an earlier run
                address_learned(known)
        self.dht = DhtSource(
            dht,
            loop=asyncio.get_running_loop(),
            rng=rng,
            port=self._port,
            spawn=spawn,
            disk=disk,
            folder=folder,
        )
        self.dht.start()
        return self.dht

    def open_local(
        self, network: Multicast, *, rng: random.Random, cookie: bytes
    ) -> LocalDiscovery:
        """
        Make the local discovery.

        Args:
            network: the multicast groups.
            rng: chance.
            cookie: what we know our own announces by.
        """
        loop = asyncio.get_running_loop()
        self.local = LocalDiscovery(network, loop=loop, rng=rng, cookie=cookie, port=self._port)
        return self.local

    async def open_zeroconf(
        self,
        network: ServiceNetwork,
        *,
        spawn: Callable[[Coroutine[object, object, None], str], None],
    ) -> ZeroconfDiscovery:
        """Start advertising and looking for services of the local network (BEP 26)."""
        loop = asyncio.get_running_loop()
        self.zeroconf = ZeroconfDiscovery(network, loop=loop, port=self._port, spawn=spawn)
        await self.zeroconf.open()
        return self.zeroconf

    async def leave_dht(self) -> None:
        """Write the routing table to the state folder and leave the DHT. Idempotent."""
        if self.dht is not None:
            await self.dht.close()

    async def close(self) -> None:
        """Close all of it. Idempotent."""
        if self.local is not None:
            self.local.close()
        if self.zeroconf is not None:
            await self.zeroconf.close(within=self._config.stop_timeout)
        await self.leave_dht()
        if self._http is not None:
            await self._http.close()
        if self._resolver is not None:
            await self._resolver.close()
        if self._udp_trackers is not None:
            self._udp_trackers.close()
        for socket in self._sockets or ():
            socket.close()


def _is_one_address(host: str) -> bool:
    """Tell whether a host to listen at is an address and not a name or a wildcard."""
    try:
        return not ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _one_of_each_family(places: Iterable[T], host_of: Callable[[T], str]) -> list[T]:
    """
    Return the first place of each family that leads beyond this machine, or else the first.

    A tracker takes where an announce comes from for where we are, so it comes from one place.
    """
    chosen: dict[bool, T] = {}
    for place in sorted(places, key=lambda place: is_loopback(host_of(place))):
        chosen.setdefault(":" in host_of(place), place)
    return list(chosen.values())


def open_udp_sockets(hosts: Sequence[str], port: int) -> list[UdpSocket]:
    """Open a UDP socket on each address, at our TCP port where it is free, else at any."""
    sockets = []
    for address in hosts or ("0.0.0.0", "::"):  # noqa: S104  # as configured
        for candidate in dict.fromkeys((port, 0)):
            try:
                sockets.append(UdpSocket.open(address, candidate))
                break
            except OSError as error:
                log.info("no UDP on %s port %d: %s", address, candidate, error)
    return sockets
