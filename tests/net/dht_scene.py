"""A simulated network of hosts that each run a DHT shell, for the tests of the shell's parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from bittern.core.endpoint import Endpoint
from bittern.core.errors import ResolveError
from bittern.dht.limits import DhtConfig, HostPort
from bittern.net.dht import Dht
from bittern.net.dht_node import NodeShell
from bittern.net.dns import literal_address
from bittern.testing.datagrams import SimDatagrams
from bittern.testing.host import SimHost
from bittern.testing.loop import VirtualLoop
from bittern.testing.network import Link, SimNetwork
from tests.virtual_time import AsyncTest, Test, simulated, stand_in

PORT = 6881
LINK = Link(delay=0.02)
SETTLE_TIME = 30.0
"""Seconds after which the nodes of a small network know each other."""


class Names:
    """Resolves a table of names; a name that is not in it has no address."""

    def __init__(self, loop: VirtualLoop, table: dict[str, Sequence[str]], delay: float = 0.0):
        self.asked: list[str] = []
        self._loop = loop
        self._table = table
        self._delay = delay

    async def resolve(self, host: str) -> tuple[str, ...]:
        self.asked.append(host)
        address = literal_address(host)
        if address is not None:
            return (address,)
        await asyncio.sleep(self._delay)
        found = self._table.get(host, ())
        if not found:
            raise ResolveError(host, "no address")
        return tuple(found)


def feed(shell: NodeShell, data: bytes | memoryview, source: Endpoint) -> None:
    """Hand over a datagram that is a batch of its own."""
    shell.receive(data, source)
    shell.flush()


class _Inlet:
    """Stands between a socket and the shell that is made after it."""

    shell: NodeShell | None = None

    def receive(self, data: memoryview, source: Endpoint) -> None:
        if self.shell is not None:
            feed(self.shell, data, source)


class DhtScene:
    """Hosts on one network, the n-th with addresses ``10.0.n.1`` and ``fd00::n``."""

    def __init__(self, loop: VirtualLoop, *, link: Link = LINK) -> None:
        self.loop = loop
        self.network = SimNetwork(loop, link=link)
        self.names = Names(loop, {})
        self.hosts: list[SimHost] = []
        self.dhts: list[Dht] = []
        self.sockets: list[list[SimDatagrams]] = []

    def add_host(self) -> SimHost:
        number = len(self.hosts) + 1
        host = self.network.add_host(f"10.0.{number}.1", f"fd00::{number:x}")
        self.hosts.append(host)
        return host

    def add(
        self,
        *,
        nodes: Sequence[HostPort] = (),
        routers: Sequence[HostPort] = (),
        families: str = "4",
        state: bytes | None = None,
        names: Names | None = None,
        config: DhtConfig | None = None,
    ) -> Dht:
        """Add a host with a DHT that nobody has started yet."""
        host = self.add_host()
        addresses = [each for each in host.addresses if ("6" if ":" in each else "4") in families]
        inlets = [_Inlet() for _ in addresses]
        sockets = [
            host.open_datagrams(address, PORT, inlet.receive)
            for address, inlet in zip(addresses, inlets, strict=True)
        ]
        dht = Dht(
            sockets,
            nodes=nodes,
            routers=routers,
            resolver=names or self.names,
            state=state,
            config=config,
            rng=self.loop.random,
            random_bytes=self.loop.random.randbytes,
        )
        for shell, inlet in zip(dht.shells, inlets, strict=True):
            inlet.shell = shell
        self.dhts.append(dht)
        self.sockets.append(sockets)
        return dht

    async def add_network(self, count: int, *, families: str = "4") -> list[Dht]:
        """Add so many, each started from the first; and wait until all have joined."""
        made: list[Dht] = []
        for _ in range(count):
            nodes = [(e.host, e.port) for e in self.endpoints(made[0])] if made else []
            made.append(self.add(nodes=nodes, families=families))
            await made[-1].bootstrap()
        await asyncio.sleep(SETTLE_TIME)
        return made

    @staticmethod
    def endpoints(dht: Dht) -> list[Endpoint]:
        return [shell.socket.endpoint for shell in dht.shells]

    def close(self) -> None:
        for dht in self.dhts:
            dht.close()
        for sockets in self.sockets:
            for socket in sockets:
                socket.close()


def in_dht_scene(**options: Any) -> Callable[[AsyncTest], Test]:
    """
    Run a test in virtual time with a network of its own, which is closed at its end.

    The test is a coroutine function; its parameters are ``scene``, fixtures, and what it is
    parametrized with.

    Args:
        options: of ``DhtScene``.
    """

    def decorate(test: AsyncTest) -> Test:
        async def play(*, loop: VirtualLoop, **arguments: Any) -> None:
            scene = DhtScene(loop, **options)
            try:
                await test(scene=scene, **arguments)
            finally:
                scene.close()

        return simulated(stand_in(play, test, without={"scene"}, needs={"loop"}))

    return decorate
