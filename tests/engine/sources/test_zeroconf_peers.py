"""engine.sources.zeroconf_peers: neighbours as services, in virtual time (BEP 26)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine import events
from bittern.engine.session import Session
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.engine.sources.base import PRIVATE
from bittern.engine.sources.zeroconf_peers import (
    MAX_ADVERTISED,
    MAX_PER_ROUND,
    REFRESH_INTERVAL,
    ZeroconfDiscovery,
    ZeroconfSource,
)
from bittern.policy.local_limits import MAX_BURST_OF_ONE
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.engine.scene import PORT, Scene, Watch
from tests.engine.sources.test_local_peers import FakeTorrent

SEARCHED = InfoHash(b"s" * 20)
OTHER = InfoHash(b"o" * 20)
NEIGHBOUR = Endpoint("10.0.0.77", 7000)

Heard = Callable[[Endpoint, tuple[InfoHash, ...]], object]


class Lan:
    """One local network: who tells of what somebody wants is heard, and who asks is answered."""

    def __init__(self) -> None:
        self.members: list[FakeServices] = []


class FakeServices:
    """One machine's place on it; an ``engine.sources.zeroconf_peers.ServiceNetwork``."""

    def __init__(self, lan: Lan, host: str = "10.0.0.1") -> None:
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


class Ear:
    """A discovery with its network, and torrents that take part."""

    def __init__(self, loop: VirtualLoop, *, port: int = PORT) -> None:
        self.network = FakeServices(Lan())
        self.tasks: list[asyncio.Task[None]] = []
        self.discovery = ZeroconfDiscovery(
            self.network,
            loop=loop,
            port=lambda: port,
            spawn=lambda job, name: self.tasks.append(loop.create_task(job)),
        )

    async def join(self, torrent: FakeTorrent) -> ZeroconfSource:
        if not self.network.is_open:
            await self.discovery.open()
        source = self.discovery.join(torrent)
        source.start("name")
        return source

    async def close(self) -> None:
        await self.discovery.close(within=1.0)
        await asyncio.gather(*self.tasks)


def using(network: FakeServices) -> type[Session]:
    """Return a session whose machine is on a network."""
    return type("Neighbour", (Session,), {"_open_services": lambda _self: network})


# --- sessions --------------------------------------------------------------------------------


def test_neighbours_find_each_other_and_say_goodbye(tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            lan = Lan()

            async def add(**options: Any) -> Any:
                host = scene.add_host()
                make = using(FakeServices(lan, host.addresses[0]))
                return await scene.node(host=host, make=make, enable_zeroconf=True, **options)

            await add(is_seed=True)
            await asyncio.sleep(30)
            leecher = await add()
            watch = Watch(leecher.torrent)
            await leecher.complete(within=30)
            assert leecher.has_content()
            assert events.PeersFound("zeroconf", 1) in watch.seen
            (status,) = (
                each for each in leecher.torrent.sources() if each.kind is SourceKind.ZEROCONF
            )
            assert (status.state, status.num_found) == (SourceState.WORKING, 1)
            seed, mine = lan.members
            assert [asked for _, _, asked in seed.told] == [[]], "a seed looks for nobody"
            assert mine.told == [(PORT, [scene.info_hash], [scene.info_hash])]
        for member in lan.members:
            assert member.withdrawn == [([scene.info_hash], False)]
            assert not member.is_open

    simulate(main)


def test_a_private_torrent_takes_no_part(tmp_path: Path, simulate: Simulate) -> None:
    """BEP 27."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, is_private=True) as scene:
            network = FakeServices(Lan())
            node = await scene.node(make=using(network), enable_zeroconf=True)
            await asyncio.sleep(100)
            reasons = {status.kind: status.message for status in node.torrent.sources()}
            assert reasons[SourceKind.ZEROCONF] == PRIVATE
            assert network.is_open
        assert not network.told
        assert not network.withdrawn

    simulate(main)


def test_a_magnet_link_that_turns_out_to_be_private_is_withdrawn_without_a_word(
    tmp_path: Path, simulate: Simulate
) -> None:
    """BEP 27."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, is_private=True) as scene:
            network = FakeServices(Lan())
            link = f"magnet:?xt=urn:btih:{scene.info_hash}"
            node = await scene.node(make=using(network), enable_zeroconf=True, source=link)
            await asyncio.sleep(1)
            assert network.advertised == {scene.info_hash}
            seed = await scene.node(is_seed=True)
            seed.torrent.shelf.is_private = False  # so that it serves the metadata
            node.torrent.add_peers([seed.endpoint], "user")
            await node.complete()
            await asyncio.sleep(400)
            assert len(network.told) == 1
            assert network.withdrawn == [([scene.info_hash], True)]
            assert not network.is_wanted(scene.info_hash)
            reasons = {status.kind: status.message for status in node.torrent.sources()}
            assert reasons[SourceKind.ZEROCONF] == PRIVATE

    simulate(main)


def test_it_is_off_unless_asked_for(tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            network = FakeServices(Lan())
            node = await scene.node(make=using(network))
            reasons = {status.kind: status.message for status in node.torrent.sources()}
            assert reasons[SourceKind.ZEROCONF] == "switched off by the setting enable_zeroconf"
            assert not network.is_open

    simulate(main)


# --- the discovery alone ---------------------------------------------------------------------


def test_how_it_stands(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop)
        torrent = FakeTorrent(SEARCHED)
        source = await ear.join(torrent)
        began = loop.time()
        assert source.statuses() == [
            SourceStatus(
                kind=SourceKind.ZEROCONF,
                state=SourceState.WAITING,
                message="no neighbour has advertised this torrent yet",
                next_at=began + 0.5,
            )
        ]
        await asyncio.sleep(1)
        assert ear.network.told == [(PORT, [SEARCHED], [SEARCHED])]
        assert torrent.last_status.state is SourceState.WAITING
        ear.network.heard(NEIGHBOUR, (SEARCHED, OTHER))
        assert torrent.found == [(NEIGHBOUR, "zeroconf", NEIGHBOUR.host)]
        assert torrent.last_status == SourceStatus(
            kind=SourceKind.ZEROCONF,
            state=SourceState.WORKING,
            last_asked_at=began + 0.5,
            last_answer_at=loop.time(),
            num_peers=1,
            num_found=1,
            next_at=began + 60.5,
        )
        torrent.is_complete = True
        source.completed()
        await asyncio.sleep(60)
        assert ear.network.told[1:] == [(PORT, [SEARCHED], [])]
        await ear.close()

    simulate(main)


def test_it_says_so_when_nobody_can_hear_or_nothing_is_advertised(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop, port=0)
        torrent = FakeTorrent(SEARCHED)
        await ear.join(torrent)
        await asyncio.sleep(1)
        assert ear.network.told == [(0, [], [SEARCHED])]
        assert "not advertised" in str(torrent.last_status.message)
        ear.network.is_up = False
        await asyncio.sleep(60)
        assert torrent.last_status.state is SourceState.FAILING
        assert torrent.last_status.message == "no network interface takes multicast DNS"
        await ear.close()

    simulate(main)


def test_all_is_told_anew_after_the_interfaces_have_changed(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop)
        await ear.join(FakeTorrent(SEARCHED))
        await asyncio.sleep(100)
        assert len(ear.network.told) == 2
        ear.network.is_renewed = True
        await asyncio.sleep(REFRESH_INTERVAL)
        assert len(ear.network.told) == 3
        await ear.close()

    simulate(main)


def test_a_flood_is_not_listened_to(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop)
        torrent = FakeTorrent(SEARCHED)
        await ear.join(torrent)
        for port in range(1, 101):
            ear.network.heard(Endpoint(NEIGHBOUR.host, port), (SEARCHED,))
        assert len(torrent.found) == MAX_BURST_OF_ONE
        assert ear.discovery.num_ignored == 100 - MAX_BURST_OF_ONE
        await ear.close()

    simulate(main)


def test_many_torrents_take_turns_and_not_all_are_advertised(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop)
        torrents = [
            FakeTorrent(InfoHash(number.to_bytes(20, "big")))
            for number in range(MAX_ADVERTISED + 1)
        ]
        sources = [await ear.join(torrent) for torrent in torrents]
        await asyncio.sleep(60 * (MAX_ADVERTISED // MAX_PER_ROUND) + 1)
        assert [len(asked) for _, _, asked in ear.network.told][:4] == [MAX_PER_ROUND] * 4
        assert len(ear.network.advertised) == MAX_ADVERTISED
        (left,) = (each for each in torrents if each.all_hashes[0] not in ear.network.advertised)
        assert "too many" in str(left.last_status.message)
        # One that goes leaves its place to it.
        await sources[0].stop()
        await asyncio.sleep(600)
        assert left.all_hashes[0] in ear.network.advertised
        assert len(ear.network.advertised) == MAX_ADVERTISED
        await ear.close()

    simulate(main)


def test_a_hash_that_is_learnt_takes_part_and_one_that_is_gone_does_not(
    simulate: Simulate,
) -> None:
    """BEP 52."""

    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop)
        torrent = FakeTorrent(SEARCHED)
        source = await ear.join(torrent)
        torrent.all_hashes = (SEARCHED, OTHER)
        source.ask_now()
        await asyncio.sleep(1)
        assert ear.network.advertised == {SEARCHED, OTHER}
        await source.stop()
        assert ear.network.withdrawn == [([SEARCHED, OTHER], False)]
        source.ask_now()
        await asyncio.sleep(400)
        assert len(ear.network.told) == 1
        ear.network.heard(NEIGHBOUR, (SEARCHED,))
        assert not torrent.found
        await ear.close()

    simulate(main)


def test_a_torrent_that_has_just_become_private_is_neither_told_of_nor_heard_of(
    simulate: Simulate,
) -> None:
    """BEP 27: also in the moment before its source is stopped."""

    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop)
        torrent = FakeTorrent(SEARCHED)
        await ear.join(torrent)
        torrent.is_private = True
        ear.network.heard(NEIGHBOUR, (SEARCHED,))
        await asyncio.sleep(100)
        assert not torrent.found
        assert not ear.network.told
        await ear.close()

    simulate(main)


def test_a_network_that_does_not_close_is_not_waited_for_for_ever(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        ear = Ear(loop)
        await ear.join(FakeTorrent(SEARCHED))
        ear.network.closing = asyncio.Event()
        began = loop.time()
        await ear.close()
        assert loop.time() - began == 1.0
        await asyncio.sleep(100)
        assert not ear.network.told

    simulate(main)
