"""engine.sources.local_peers: neighbours find each other by multicast, in virtual time (BEP 14)."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from bittern.codec.info import Version
from bittern.codec.lsd import GROUP_V4, GROUP_V6, LsdAnnounce, decode_lsd, encode_lsd
from bittern.codec.magnet import parse_magnet
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine import events
from bittern.engine.config import TorrentConfig
from bittern.engine.events import Event, SourceChanged
from bittern.engine.peers.roster import Roster
from bittern.engine.shelf import Shelf
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.engine.sources.local_peers import REFRESH_INTERVAL, LocalDiscovery, LocalSource
from bittern.policy.candidates import Candidates
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.engine.scene import PORT, Node, Scene, Watch, until

SEARCHED = InfoHash(b"s" * 20)
OTHER = InfoHash(b"o" * 20)
NEIGHBOUR = Endpoint("10.0.0.77", 6771)


class Lan:
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

    def __init__(self, lan: Lan, host: str) -> None:
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


class FakeTorrent:
    """As much of a torrent as a source sees."""

    num_downloaded = num_uploaded = 0
    num_left = 1
    is_complete = False
    roster: Roster | None = None
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


class Ear:
    """A discovery with its network, and torrents that take part."""

    def __init__(self, loop: VirtualLoop, *, port: int = PORT) -> None:
        self.lan = Lan(loop)
        self.plug = self.lan.plug("10.0.0.1")
        self.port = port
        self.discovery = LocalDiscovery(
            self.plug,
            loop=loop,
            rng=random.Random(2),
            cookie=b"\x01" * 8,
            port=lambda: self.port,
        )

    def join(self, torrent: FakeTorrent) -> LocalSource:
        source = self.discovery.join(torrent)
        source.start("name")
        return source

    def hear(self, announce: LsdAnnounce | bytes, source: Endpoint = NEIGHBOUR) -> None:
        data = announce if isinstance(announce, bytes) else encode_lsd(announce, GROUP_V4)
        assert self.plug.receive is not None
        self.plug.receive(data, source)


# --- sessions --------------------------------------------------------------------------------


def test_neighbours_find_each_other_with_nothing_configured(
    tmp_path: Path, simulate: Simulate
) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            lan = Lan(loop)

            async def add(*, is_seed: bool) -> Node:
                host = scene.add_host()
                return await scene.node(
                    host=host, is_seed=is_seed, multicast=lan.plug(host.addresses[0])
                )

            await add(is_seed=True)
            await asyncio.sleep(30)
            leecher = await add(is_seed=False)
            watch = Watch(leecher.torrent)
            await leecher.complete(within=30)
            assert leecher.has_content()
            await asyncio.sleep(40)
            assert events.PeersFound("lsd", 1) in watch.seen, "the seed's second announce"
            assert set(lan.announced()) == {(scene.info_hash,)}
            assert {announce.port for _, _, announce in lan.sent} == {PORT}

    simulate(main)


def test_a_private_torrent_takes_no_part(tmp_path: Path, simulate: Simulate) -> None:
    """BEP 27."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, is_private=True) as scene:
            lan = Lan(loop)
            host = scene.add_host()
            plug = lan.plug(host.addresses[0])
            node = await scene.node(host=host, multicast=plug)
            public = Scene(loop, tmp_path / "public", files={"": 100})
            await node.session.add(public.raw, TorrentConfig(output=tmp_path / "public" / "out"))
            assert plug.receive is not None
            announce = LsdAnnounce(7000, (scene.info_hash, public.info_hash))
            plug.receive(encode_lsd(announce, GROUP_V4), Endpoint("10.0.0.99", 6771))
            await asyncio.sleep(1000)
            assert len(lan.announced()) >= 3
            assert set(lan.announced()) == {(public.info_hash,)}
            assert not len(node.torrent.candidates)

    simulate(main)


def test_a_magnet_that_turns_out_to_be_private_falls_silent(
    tmp_path: Path, simulate: Simulate
) -> None:
    """BEP 27. What was found before is forgotten, too."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, is_private=True) as scene:
            lan = Lan(loop)
            host = scene.add_host()
            plug = lan.plug(host.addresses[0])
            link = f"magnet:?xt=urn:btih:{scene.info_hash}"
            node = await scene.node(host=host, multicast=plug, source=link)
            await asyncio.sleep(5)
            seed = await scene.node(is_seed=True)
            seed.torrent.shelf.is_private = False  # so that it serves the metadata
            elsewhere = Endpoint("10.0.0.99", 7000)
            assert plug.receive is not None
            for endpoint in (elsewhere, seed.endpoint):
                data = encode_lsd(LsdAnnounce(endpoint.port, (scene.info_hash,)), GROUP_V4)
                plug.receive(data, Endpoint(endpoint.host, 6771))
            watch = Watch(node.torrent)
            await until(lambda: bool(watch.of(events.MetadataReceived)))
            await asyncio.sleep(5)
            assert elsewhere not in node.torrent.candidates
            assert seed.endpoint not in node.torrent.candidates
            assert node.torrent.num_connections == 0
            await asyncio.sleep(1000)
            assert len(lan.announced()) == 1

    simulate(main)


def test_a_resting_seed_wakes_for_a_new_neighbour_and_not_for_one_it_knows(
    tmp_path: Path, simulate: Simulate
) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            lan = Lan(loop)
            host = scene.add_host()
            seed = await scene.node(
                host=host,
                is_seed=True,
                multicast=lan.plug(host.addresses[0]),
                state_dir=tmp_path / "state",
                rest_after=5.0,
            )
            await asyncio.sleep(30)
            assert seed.torrent.is_resting
            num_announces = len(lan.announced())
            await asyncio.sleep(400)
            assert seed.torrent.is_resting
            assert len(lan.announced()) > num_announces
            # One that announces itself but takes no connections that it did not ask for.
            quiet = Endpoint("10.0.0.99", 7000)

            def announce() -> None:
                data = encode_lsd(LsdAnnounce(quiet.port, (scene.info_hash,)), GROUP_V4)
                lan.deliver(quiet.host, GROUP_V4, data)

            announce()
            await until(lambda: not seed.torrent.is_resting)
            await until(lambda: seed.torrent.is_resting)
            assert scene.network.attempts[quiet] == 1
            announce()
            await asyncio.sleep(1)
            assert seed.torrent.is_resting

    simulate(main)


def test_who_leaves_the_swarm_announces_no_more(tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            lan = Lan(loop)
            host = scene.add_host()
            plug = lan.plug(host.addresses[0])
            node = await scene.node(host=host, multicast=plug)
            await asyncio.sleep(5)
            await node.torrent.pause()
            await asyncio.sleep(1000)
            assert len(lan.announced()) == 1
            await node.torrent.resume()
            await asyncio.sleep(5)
            assert len(lan.announced()) == 2
            await node.close()
            assert plug.receive is None

    simulate(main)


def test_both_hashes_of_a_hybrid_torrent_are_announced(tmp_path: Path, simulate: Simulate) -> None:
    """BEP 52."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, version=Version.HYBRID) as scene:
            lan = Lan(loop)
            host = scene.add_host()
            node = await scene.node(host=host, multicast=lan.plug(host.addresses[0]))
            await asyncio.sleep(5)
            assert [set(hashes) for hashes in lan.announced()] == [set(node.torrent.all_hashes)]
            assert len(node.torrent.all_hashes) == 2

    simulate(main)


# --- rules -----------------------------------------------------------------------------------


def test_bep14_a_thousand_torrents_send_one_datagram_a_minute(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop)
        hashes = [InfoHash(number.to_bytes(20, "big")) for number in range(1000)]
        sources = [ear.join(FakeTorrent(each)) for each in hashes]
        await asyncio.sleep(3600)
        for group in (GROUP_V4, GROUP_V6):
            instants = [at for at, sent_to, _ in ear.lan.sent if sent_to == group]
            assert 59 <= len(instants) <= 61
            assert all(b - a >= 60 for a, b in itertools.pairwise(instants))
        assert set(hashes) == {each for hashes in ear.lan.announced() for each in hashes}
        await asyncio.gather(*(source.stop() for source in sources))
        ear.discovery.close()

    simulate(main)


def test_what_neighbours_announce_reaches_the_torrents_it_is_about(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop)
        mine, other = FakeTorrent(SEARCHED, InfoHash(b"2" * 20)), FakeTorrent(OTHER)
        sources = [ear.join(mine), ear.join(other)]
        await asyncio.sleep(1)
        ear.hear(LsdAnnounce(7000, (InfoHash(b"x" * 20), *mine.all_hashes), "theirs"))
        found = (Endpoint(NEIGHBOUR.host, 7000), "lsd", NEIGHBOUR.host)
        assert mine.found == [found], "once, however many of its hashes are named"
        assert other.found == []
        ear.hear(LsdAnnounce(7001, (SEARCHED, OTHER)))
        assert [endpoint.port for endpoint, _, _ in mine.found] == [7000, 7001]
        assert [endpoint.port for endpoint, _, _ in other.found] == [7001]
        # Our own datagrams come back, and the sender is recognised by the cookie.
        assert len(ear.lan.sent) == 2
        for source in sources:
            await source.stop()
        ear.hear(LsdAnnounce(7002, (SEARCHED,)))
        assert len(mine.found) == 2
        ear.discovery.close()

    simulate(main)


def test_n9_garbage_and_floods_cost_nothing(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop)
        torrent = FakeTorrent(SEARCHED)
        ear.join(torrent)
        ear.hear(b"\xff" * 100)
        assert ear.discovery.num_bad == 1
        for number in range(1000):
            ear.hear(LsdAnnounce(1 + number, (SEARCHED,)), Endpoint("10.0.0.66", 6771))
        ear.hear(LsdAnnounce(7000, (SEARCHED,)))
        assert len(torrent.found) <= 11
        assert torrent.found[-1][0] == Endpoint(NEIGHBOUR.host, 7000)
        assert ear.discovery.num_ignored >= 990
        ear.discovery.close()
        ear.discovery.close()

    simulate(main)


def test_who_takes_no_connections_only_listens(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop, port=0)
        torrent = FakeTorrent(SEARCHED)
        source = ear.join(torrent)
        await asyncio.sleep(1000)
        assert not ear.lan.sent
        assert source.statuses()[0].next_at is None
        ear.hear(LsdAnnounce(7000, (SEARCHED,)))
        assert len(torrent.found) == 1
        ear.port = PORT
        source.ask_now()
        await asyncio.sleep(5)
        assert len(ear.lan.announced()) == 1
        ear.discovery.close()

    simulate(main)


def test_when_an_interface_comes_up_everything_is_announced_on_it(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop)
        ear.plug.is_up = False
        torrent = FakeTorrent(SEARCHED)
        source = ear.join(torrent)
        await asyncio.sleep(200)
        assert not ear.lan.sent
        assert (torrent.last_status.state, torrent.last_status.message) == (
            SourceState.FAILING,
            "no network interface takes multicast",
        )
        ear.plug.is_up = True
        began = loop.time()
        await until(lambda: bool(ear.lan.sent), within=REFRESH_INTERVAL + 61)
        assert torrent.last_status.state is SourceState.WAITING
        assert loop.time() - began <= REFRESH_INTERVAL + 61
        await source.stop()
        ear.discovery.close()

    simulate(main)


def test_how_it_stands(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop)
        torrent = FakeTorrent(SEARCHED)
        source = ear.join(torrent)
        began = loop.time()
        assert source.statuses() == [
            SourceStatus(
                kind=SourceKind.LSD,
                state=SourceState.WAITING,
                message="no neighbour has announced this torrent yet",
                next_at=began + 0.5,
            )
        ]
        await asyncio.sleep(1)
        assert torrent.last_status.last_asked_at == began + 0.5
        assert torrent.last_status.next_at == began + 60.5
        source.completed()
        ear.hear(LsdAnnounce(7000, (SEARCHED,)))
        assert torrent.last_status == SourceStatus(
            kind=SourceKind.LSD,
            state=SourceState.WORKING,
            last_asked_at=began + 0.5,
            last_answer_at=loop.time(),
            num_peers=1,
            num_found=1,
            next_at=began + 60.5,
        )
        ear.discovery.close()

    simulate(main)


def test_a_torrent_that_has_just_become_private_is_neither_announced_nor_heard_of(
    simulate: Simulate,
) -> None:
    """BEP 27: also in the moment before its source is stopped."""

    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop)
        torrent = FakeTorrent(SEARCHED)
        ear.join(torrent)
        torrent.is_private = True
        ear.hear(LsdAnnounce(7000, (SEARCHED,)))
        await asyncio.sleep(100)
        assert not torrent.found
        assert not ear.lan.sent
        ear.discovery.close()

    simulate(main)
