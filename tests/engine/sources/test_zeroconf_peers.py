"""engine.sources.zeroconf_peers: neighbours as services, in virtual time (BEP 26)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bittern.core.ids import InfoHash
from bittern.engine import events
from bittern.engine.session import Session
from bittern.engine.source_status import SourceKind, SourceState
from bittern.engine.sources.base import PRIVATE
from bittern.engine.sources.neighbours import REFRESH_INTERVAL
from bittern.engine.sources.zeroconf_peers import MAX_ADVERTISED, MAX_PER_ROUND
from bittern.testing.loop import VirtualLoop
from tests.engine.scene import PORT, Scene, Watch, in_scene
from tests.engine.sources.local_scene import (
    OTHER,
    SEARCHED,
    FakeServices,
    FakeTorrent,
    ServiceEar,
    ServiceLan,
)
from tests.virtual_time import simulated


def using(network: FakeServices) -> type[Session]:
    """Return a session whose machine is on a network."""
    return type("Neighbour", (Session,), {"_open_services": lambda _self: network})


# --- sessions --------------------------------------------------------------------------------


@simulated
async def test_neighbours_find_each_other_and_say_goodbye(
    loop: VirtualLoop, tmp_path: Path
) -> None:
    async with Scene(loop, tmp_path) as scene:
        lan = ServiceLan()

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
        (status,) = (each for each in leecher.torrent.sources() if each.kind is SourceKind.ZEROCONF)
        assert (status.state, status.num_found) == (SourceState.WORKING, 1)
        seed, mine = lan.members
        assert [asked for _, _, asked in seed.told] == [[]], "a seed looks for nobody"
        assert mine.told == [(PORT, [scene.info_hash], [scene.info_hash])]
    for member in lan.members:
        assert member.withdrawn == [([scene.info_hash], False)]
        assert not member.is_open


@simulated
async def test_a_private_torrent_takes_no_part(loop: VirtualLoop, tmp_path: Path) -> None:
    """BEP 27."""
    async with Scene(loop, tmp_path, is_private=True) as scene:
        network = FakeServices(ServiceLan())
        node = await scene.node(make=using(network), enable_zeroconf=True)
        await asyncio.sleep(100)
        reasons = {status.kind: status.message for status in node.torrent.sources()}
        assert reasons[SourceKind.ZEROCONF] == PRIVATE
        assert network.is_open
    assert not network.told
    assert not network.withdrawn


@in_scene(is_private=True)
async def test_a_magnet_link_that_turns_out_to_be_private_is_withdrawn_without_a_word(
    scene: Scene,
) -> None:
    """BEP 27."""
    network = FakeServices(ServiceLan())
    link = scene.link
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


@in_scene()
async def test_it_is_off_unless_asked_for(scene: Scene) -> None:
    network = FakeServices(ServiceLan())
    node = await scene.node(make=using(network))
    reasons = {status.kind: status.message for status in node.torrent.sources()}
    assert reasons[SourceKind.ZEROCONF] == "switched off by the setting enable_zeroconf"
    assert not network.is_open


# --- the discovery alone ---------------------------------------------------------------------


@simulated
async def test_nobody_is_looked_for_once_everything_is_there(loop: VirtualLoop) -> None:
    ear = ServiceEar(loop)
    torrent = FakeTorrent(SEARCHED)
    source = await ear.join(torrent)
    await asyncio.sleep(1)
    assert ear.network.told == [(PORT, [SEARCHED], [SEARCHED])]
    torrent.is_complete = True
    source.completed()
    await asyncio.sleep(60)
    assert ear.network.told[1:] == [(PORT, [SEARCHED], [])]
    await ear.close()


@simulated
async def test_who_goes_is_withdrawn_under_all_its_hashes(loop: VirtualLoop) -> None:
    ear = ServiceEar(loop)
    source = await ear.join(FakeTorrent(SEARCHED, OTHER))
    await asyncio.sleep(1)
    assert ear.network.advertised == {SEARCHED, OTHER}
    await source.stop()
    assert ear.network.withdrawn == [([SEARCHED, OTHER], False)]
    await ear.close()


@simulated
async def test_it_says_so_when_nobody_can_hear_or_nothing_is_advertised(loop: VirtualLoop) -> None:
    ear = ServiceEar(loop, port=0)
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


@simulated
async def test_all_is_told_anew_after_the_interfaces_have_changed(loop: VirtualLoop) -> None:
    ear = ServiceEar(loop)
    await ear.join(FakeTorrent(SEARCHED))
    await asyncio.sleep(100)
    assert len(ear.network.told) == 2
    ear.network.is_renewed = True
    await asyncio.sleep(REFRESH_INTERVAL)
    assert len(ear.network.told) == 3
    await ear.close()


@simulated
async def test_after_an_absence_all_is_told_anew(loop: VirtualLoop) -> None:
    ear = ServiceEar(loop)
    await ear.join(FakeTorrent(SEARCHED))
    await asyncio.sleep(200)
    assert len(ear.network.told) == 2
    ear.discovery.missed(3600)
    await asyncio.sleep(2)
    assert len(ear.network.told) == 3
    await ear.close()


@simulated
async def test_many_torrents_take_turns_and_not_all_are_advertised(loop: VirtualLoop) -> None:
    ear = ServiceEar(loop)
    torrents = [
        FakeTorrent(InfoHash(number.to_bytes(20, "big"))) for number in range(MAX_ADVERTISED + 1)
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


@simulated
async def test_a_network_that_does_not_close_is_not_waited_for_for_ever(loop: VirtualLoop) -> None:
    ear = ServiceEar(loop)
    await ear.join(FakeTorrent(SEARCHED))
    ear.network.closing = asyncio.Event()
    began = loop.time()
    await ear.close()
    assert loop.time() - began == 1.0
    await asyncio.sleep(100)
    assert not ear.network.told


@simulated
async def test_who_asks_anew_is_told_of_soon_and_who_takes_no_part_is_not(
    loop: VirtualLoop,
) -> None:
    ear = ServiceEar(loop)
    source = await ear.join(FakeTorrent(SEARCHED))
    await asyncio.sleep(150)
    assert len(ear.network.told) == 2
    source.ask_now()
    await asyncio.sleep(10)
    assert ear.network.told[2:] == [(PORT, [SEARCHED], [SEARCHED])]
    await source.stop()
    source.ask_now()
    await source.stop()
    await asyncio.sleep(400)
    assert len(ear.network.told) == 3
    assert ear.network.withdrawn == [([SEARCHED], False)]
    await ear.close()
