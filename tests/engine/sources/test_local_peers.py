"""engine.sources.local_peers: neighbours find each other by multicast, in virtual time (BEP 14)."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

from bittern.codec.info import Version
from bittern.codec.lsd import GROUP_V4, GROUP_V6, LsdAnnounce, encode_lsd
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine import events
from bittern.engine.config import TorrentConfig
from bittern.engine.source_status import SourceState
from bittern.engine.sources.neighbours import REFRESH_INTERVAL
from bittern.testing.loop import VirtualLoop
from tests.engine.scene import PORT, Node, Scene, Watch, in_scene, until
from tests.engine.sources.local_scene import (
    NEIGHBOUR,
    SEARCHED,
    FakeTorrent,
    MulticastEar,
    MulticastLan,
)
from tests.virtual_time import simulated

# --- sessions --------------------------------------------------------------------------------


@in_scene()
async def test_neighbours_find_each_other_with_nothing_configured(scene: Scene) -> None:
    lan = MulticastLan(scene.loop)

    async def add(*, is_seed: bool) -> Node:
        host = scene.add_host()
        return await scene.node(host=host, is_seed=is_seed, multicast=lan.plug(host.addresses[0]))

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


@in_scene(is_private=True)
async def test_a_private_torrent_takes_no_part(scene: Scene, tmp_path: Path) -> None:
    """BEP 27."""
    lan = MulticastLan(scene.loop)
    host = scene.add_host()
    plug = lan.plug(host.addresses[0])
    node = await scene.node(host=host, multicast=plug)
    public = Scene(scene.loop, tmp_path / "public", files={"": 100})
    await node.session.add(public.raw, TorrentConfig(output=tmp_path / "public" / "out"))
    assert plug.receive is not None
    announce = LsdAnnounce(7000, (scene.info_hash, public.info_hash))
    plug.receive(encode_lsd(announce, GROUP_V4), Endpoint("10.0.0.99", 6771))
    await asyncio.sleep(1000)
    assert len(lan.announced()) >= 3
    assert set(lan.announced()) == {(public.info_hash,)}
    assert not len(node.torrent.candidates)


@in_scene(is_private=True)
async def test_a_magnet_that_turns_out_to_be_private_falls_silent(scene: Scene) -> None:
    """BEP 27. What was found before is forgotten, too."""
    lan = MulticastLan(scene.loop)
    host = scene.add_host()
    plug = lan.plug(host.addresses[0])
    link = scene.link
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


@in_scene()
async def test_a_resting_seed_wakes_for_a_new_neighbour_and_not_for_one_it_knows(
    scene: Scene,
) -> None:
    lan = MulticastLan(scene.loop)
    host = scene.add_host()
    seed = await scene.node(
        host=host,
        is_seed=True,
        multicast=lan.plug(host.addresses[0]),
        state_dir=scene.state_dir,
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


@in_scene()
async def test_who_leaves_the_swarm_announces_no_more(scene: Scene) -> None:
    lan = MulticastLan(scene.loop)
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


@in_scene(version=Version.HYBRID)
async def test_both_hashes_of_a_hybrid_torrent_are_announced(scene: Scene) -> None:
    """BEP 52."""
    lan = MulticastLan(scene.loop)
    host = scene.add_host()
    node = await scene.node(host=host, multicast=lan.plug(host.addresses[0]))
    await asyncio.sleep(5)
    assert [set(hashes) for hashes in lan.announced()] == [set(node.torrent.all_hashes)]
    assert len(node.torrent.all_hashes) == 2


# --- rules -----------------------------------------------------------------------------------


@simulated
async def test_bep14_a_thousand_torrents_send_one_datagram_a_minute(loop: VirtualLoop) -> None:
    ear = MulticastEar(loop)
    hashes = [InfoHash(number.to_bytes(20, "big")) for number in range(1000)]
    sources = [await ear.join(FakeTorrent(each)) for each in hashes]
    await asyncio.sleep(3600)
    for group in (GROUP_V4, GROUP_V6):
        instants = [at for at, sent_to, _ in ear.lan.sent if sent_to == group]
        assert 59 <= len(instants) <= 61
        assert all(b - a >= 60 for a, b in itertools.pairwise(instants))
    assert set(hashes) == {each for hashes in ear.lan.announced() for each in hashes}
    await asyncio.gather(*(source.stop() for source in sources))
    await ear.close()


@simulated
async def test_our_own_announces_come_back_and_are_known_by_their_cookie(loop: VirtualLoop) -> None:
    ear = MulticastEar(loop)
    torrent = FakeTorrent(SEARCHED)
    await ear.join(torrent)
    await asyncio.sleep(1)
    assert len(ear.lan.sent) == 2
    assert not torrent.found
    await ear.close()


@simulated
async def test_n9_garbage_and_floods_cost_nothing(loop: VirtualLoop) -> None:
    ear = MulticastEar(loop)
    torrent = FakeTorrent(SEARCHED)
    await ear.join(torrent)
    ear.receive(b"\xff" * 100, NEIGHBOUR)
    assert ear.discovery.num_bad == 1
    for number in range(1000):
        ear.hear(Endpoint("10.0.0.66", 1 + number), SEARCHED)
    ear.hear(NEIGHBOUR, SEARCHED)
    assert len(torrent.found) <= 11
    assert torrent.found[-1][0] == NEIGHBOUR
    assert ear.discovery.neighbourhood.num_ignored >= 990
    await ear.close()
    await ear.close()


@simulated
async def test_who_takes_no_connections_only_listens(loop: VirtualLoop) -> None:
    ear = MulticastEar(loop, port=0)
    torrent = FakeTorrent(SEARCHED)
    source = await ear.join(torrent)
    await asyncio.sleep(1000)
    assert not ear.lan.sent
    assert source.statuses()[0].next_at is None
    ear.hear(NEIGHBOUR, SEARCHED)
    assert len(torrent.found) == 1
    ear.port = PORT
    source.ask_now()
    await asyncio.sleep(5)
    assert len(ear.lan.announced()) == 1
    await ear.close()


@simulated
async def test_after_an_absence_everything_is_announced_again(loop: VirtualLoop) -> None:
    ear = MulticastEar(loop)
    source = await ear.join(FakeTorrent(SEARCHED))
    await asyncio.sleep(200)
    num_sent = len(ear.lan.announced())
    ear.discovery.missed(3600)
    await asyncio.sleep(2)
    assert len(ear.lan.announced()) == num_sent + 1
    await source.stop()
    await ear.close()


@simulated
async def test_when_an_interface_comes_up_everything_is_announced_on_it(loop: VirtualLoop) -> None:
    ear = MulticastEar(loop)
    ear.plug.is_up = False
    torrent = FakeTorrent(SEARCHED)
    source = await ear.join(torrent)
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
    await ear.close()
