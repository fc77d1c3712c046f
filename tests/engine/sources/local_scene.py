"""Local networks of the tests, their discoveries, and as much of a torrent as a source sees."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping

from bittern.codec.lsd import GROUP_V4, LsdAnnounce, decode_lsd, encode_lsd
from bittern.codec.magnet import parse_magnet
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine.events import Event, SourceChanged
from bittern.engine.ledger import Ledger
from bittern.engine.peers.roster import Roster
from bittern.engine.pieces.swarm import Swarm
from bittern.engine.shelf import Shelf
from bittern.engine.source_status import SourceKind, SourceStatus
from bittern.engine.sources.local_peers import LocalDiscovery
from bittern.engine.sources.neighbours import NeighbourSource
from bittern.engine.sources.zeroconf_peers import ZeroconfDiscovery
from bittern.policy.candidates import Candidates
from bittern.testing.loop import VirtualLoop
from tests.engine.scene import PORT

SEARCHED = InfoHash(b"s" * 20)
OTHER = InfoHash(b"o" * 20)
NEIGHBOUR = Endpoint("10.0.0.77", 7000)

Heard = Callable[[Endpoint, tuple[InfoHash, ...]], object]


class FakeTorrent:
    """As much of a torrent as a source sees."""

    num_downloaded = num_uploaded = 0
    ledger = Ledger(0)
    is_complete = False
    roster: Roster | None = None
    swarm: Swarm | None = None
    shelf = Shelf(parse_magnet("magnet:?xt=urn:btih:" + "a" * 40))

    def __init__(self, *hashes: InfoHash, is_private: bool = False) -> None:
        self.all_hashes = hashes
        self.is_private = is_private
        self.candidates = Candidates(random.Random(1), now=0.0)
        self.found: list[tuple[Endpoint, str, str | None]] = []
        self.reported: list[Event] = []

    def add_peers(
        self, endpoints: Iterable[Endpoint], source: str, from_host: str | None = None
    ) -> None:
        self.found += [(endpoint, source, from_host) for endpoint in endpoints]

    def report(self, event: Event) -> None:
        self.reported.append(event)

    @property
    def last_status(self) -> SourceStatus:
        event = self.reported[-1]
        assert isinstance(event, SourceChanged)
        return event.source


class MulticastLan:
    """One local network: what is sent on it reaches everybody there, the sender too."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.sent: list[tuple[float, str, LsdAnnounce]] = []
        self.plugs: list[Plug] = []

    def plug(self, host: str) -> Plug:
        made = Plug(self, host)
        self.plugs.append(made)
        return made

    def deliver(self, host: str, group: str, data: bytes) -> None:
        self.sent.append((self.loop.time(), group, decode_lsd(data)))
        for plug in self.plugs:
            if plug.receive is not None and plug.is_up:
                self.loop.call_later(0.001, plug.receive, data, Endpoint(host, 6771))

    def announced(self, group: str = GROUP_V4) -> list[tuple[InfoHash, ...]]:
        return [announce.info_hashes for _, sent_to, announce in self.sent if sent_to == group]


class Plug:
    """One machine's place on it; an ``engine.sources.local_peers.Multicast``."""

    def __init__(self, lan: MulticastLan, host: str) -> None:
        self.host = host
        self.is_up = True
        self.receive: Callable[[bytes, Endpoint], object] | None = None
        self._lan = lan
        self._was_up = True

    def open(self, receive: Callable[[bytes, Endpoint], object]) -> None:
        self.receive = receive
        self._was_up = self.is_up

    def refresh(self) -> bool:
        is_new = self.is_up and not self._was_up
        self._was_up = self.is_up
        return is_new

    def send(self, datagrams: Mapping[str, bytes]) -> int:
        if not self.is_up:
            return 0
        for group, data in datagrams.items():
            self._lan.deliver(self.host, group, data)
        return len(datagrams)

    def close(self) -> None:
        self.receive = None


class MulticastEar:
    """A discovery by multicast with its network, and torrents that take part."""

    kind = SourceKind.LSD
    silence = "no neighbour has announced this torrent yet"

    def __init__(self, loop: VirtualLoop, *, port: int = PORT) -> None:
        self.lan = MulticastLan(loop)
        self.plug = self.lan.plug("10.0.0.1")
        self.port = port
        self.discovery = LocalDiscovery(
            self.plug,
            loop=loop,
            rng=random.Random(2),
            cookie=b"\x01" * 8,
            port=lambda: self.port,
        )

    @property
    def told(self) -> list[set[InfoHash]]:
        """What the network was told of, by round."""
        return [set(info_hashes) for info_hashes in self.lan.announced()]

    async def join(self, torrent: FakeTorrent) -> NeighbourSource:
        """Let a torrent take part."""
        source = self.discovery.join(torrent)
        source.start("name")
        return source

    def receive(self, data: bytes, sender: Endpoint) -> None:
        """Let a datagram arrive."""
        assert self.plug.receive is not None
        self.plug.receive(data, sender)

    def hear(self, neighbour: Endpoint, *info_hashes: InfoHash) -> None:
        """Let a neighbour name torrents."""
        announce = LsdAnnounce(neighbour.port, info_hashes, "theirs")
        self.receive(encode_lsd(announce, GROUP_V4), Endpoint(neighbour.host, 6771))

    async def close(self) -> None:
        """Leave the network."""
        self.discovery.close()


class ServiceLan:
    """One local network: who tells of what somebody wants is heard, and who asks is answered."""

    def __init__(self) -> None:
        self.members: list[FakeServices] = []


class FakeServices:
    """One machine's place on it; an ``engine.sources.zeroconf_peers.ServiceNetwork``."""

    def __init__(self, lan: ServiceLan, host: str = "10.0.0.1") -> None:
        self.lan = lan
        self.host = host
        self.is_up = True
        self.is_renewed = False
        self.is_open = False
        self.closing: asyncio.Event | None = None
        self.port = 0
        self.advertised: set[InfoHash] = set()
        self.told: list[tuple[int, list[InfoHash], list[InfoHash]]] = []
        self.withdrawn: list[tuple[list[InfoHash], bool]] = []

    async def open(self, is_wanted: Callable[[InfoHash], bool], heard: Heard) -> None:
        self.is_wanted, self.heard = is_wanted, heard
        self.is_open = True
        self.lan.members.append(self)

    async def refresh(self) -> bool:
        renewed, self.is_renewed = self.is_renewed, False
        return renewed

    def tell(self, port: int, advertised: Iterable[InfoHash], asked: Iterable[InfoHash]) -> int:
        named, asked = list(advertised), list(asked)
        self.told.append((port, named, asked))
        self.port = port
        self.advertised.update(named)
        for other in self.lan.members:
            if other is not self and self.is_up:
                self._pass(other, named)
                other._pass(self, [each for each in asked if each in other.advertised])
        return int(self.is_up)

    def _pass(self, other: FakeServices, info_hashes: Iterable[InfoHash]) -> None:
        if wanted := tuple(each for each in info_hashes if other.is_wanted(each)):
            other.heard(Endpoint(self.host, self.port), wanted)

    def withdraw(self, info_hashes: Iterable[InfoHash], *, is_silent: bool) -> None:
        self.withdrawn.append((list(info_hashes), is_silent))
        self.advertised.difference_update(info_hashes)

    async def close(self) -> None:
        if self.closing is not None:
            await self.closing.wait()
        self.is_open = False


class ServiceEar:
    """A discovery by services with its network, and torrents that take part."""

    kind = SourceKind.ZEROCONF
    silence = "no neighbour has advertised this torrent yet"

    def __init__(self, loop: VirtualLoop, *, port: int = PORT) -> None:
        self.network = FakeServices(ServiceLan())
        self.tasks: list[asyncio.Task[None]] = []
        self.discovery = ZeroconfDiscovery(
            self.network,
            loop=loop,
            port=lambda: port,
            spawn=lambda job, name: self.tasks.append(loop.create_task(job)),
        )

    @property
    def told(self) -> list[set[InfoHash]]:
        """What the network was told of, by round."""
        return [set(named) for _, named, _ in self.network.told]

    async def join(self, torrent: FakeTorrent) -> NeighbourSource:
        """Let a torrent take part."""
        if not self.network.is_open:
            await self.discovery.open()
        source = self.discovery.join(torrent)
        source.start("name")
        return source

    def hear(self, neighbour: Endpoint, *info_hashes: InfoHash) -> None:
        """Let a neighbour name torrents."""
        self.network.heard(neighbour, info_hashes)

    async def close(self) -> None:
        """Leave the network."""
        await self.discovery.close(within=1.0)
        await asyncio.gather(*self.tasks)
