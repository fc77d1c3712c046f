"""engine.sources.dht: peers of all torrents, and none of private ones (BEP 5, BEP 27)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from bittern.codec import wire
from bittern.codec.info import Version
from bittern.codec.metainfo import Metainfo
from bittern.core.endpoint import Endpoint
from bittern.core.errors import StorageError
from bittern.engine import events
from bittern.engine.config import TorrentConfig
from bittern.engine.events import TorrentState
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.engine.sources import dht as dht_source
from bittern.engine.sources.base import PRIVATE
from bittern.engine.sources.dht import SAVE_INTERVAL
from bittern.engine.torrent import Torrent
from bittern.policy.dht_rounds import ANNOUNCE_INTERVAL
from bittern.policy.port_limits import MAX_NODES
from bittern.storage.dht_state import NAME, read_dht_state, write_dht_state
from bittern.storage.statelock import StateLock
from tests.engine.dht_place import Nodes
from tests.engine.hash_peers import HashPeer
from tests.engine.scene import FAST, GIVEN, Node, Scene, Watch, in_scene, until
from tests.engine.scene import NAME as CONTENT


def status(torrent: Torrent) -> SourceStatus:
    (found,) = (each for each in torrent.sources() if each.kind is SourceKind.DHT)
    return found


def num_known(node: Node) -> int:
    assert node.session.dht is not None
    return node.session.dht.num_nodes


def magnet(scene: Scene) -> str:
    return scene.link


@in_scene()
async def test_a_magnet_link_alone_becomes_files(scene: Scene) -> None:
    nodes = Nodes(scene)
    for _ in range(3):
        await nodes.add()
    await scene.node(is_seed=True, **nodes.options())
    await asyncio.sleep(5)
    leech = await scene.node(source=magnet(scene), **nodes.options())
    watch = Watch(leech.torrent)
    await leech.complete(60)
    assert leech.has_content()
    assert watch.of(events.PeersFound)[0].source == "dht"
    assert scene.loop.time() < 20


@pytest.mark.parametrize("version", list(Version))
@in_scene(version=GIVEN)
async def test_all_hashes_are_announced(scene: Scene, version: Version) -> None:
    nodes = Nodes(scene)
    await nodes.add()
    dht = await nodes.add()
    seed = await scene.node(is_seed=True, **nodes.options())
    await asyncio.sleep(10)
    hashes = seed.torrent.all_hashes
    assert len(hashes) == (2 if version is Version.HYBRID else 1)
    for info_hash in hashes:
        found = [peer async for peer in dht.get_peers(info_hash)]
        assert found == [seed.endpoint]
        assert (await dht.scrape(info_hash)).num_seeds == pytest.approx(1, abs=0.1)


@in_scene(files={"a": 100_000, "b": 200_000})
async def test_bep33_a_partial_seed_is_no_seed(scene: Scene) -> None:
    nodes = Nodes(scene)
    await nodes.add()
    dht = await nodes.add()
    seed = await scene.node(is_seed=True)
    part = await scene.node(peers=[seed], torrent={"files": frozenset({0})}, **nodes.options())
    await part.complete(within=30)
    await asyncio.sleep(ANNOUNCE_INTERVAL + 10)
    [info_hash] = part.torrent.all_hashes
    assert (await dht.scrape(info_hash)).num_seeds == 0


@in_scene()
async def test_it_is_announced_again_every_quarter_of_an_hour(scene: Scene) -> None:
    nodes = Nodes(scene)
    await nodes.add()
    await scene.node(is_seed=True, **nodes.options())
    await asyncio.sleep(4 * ANNOUNCE_INTERVAL)
    announces = [data for data, _ in nodes.sockets[0].received if b"announce_peer" in data]
    assert 4 <= len(announces) <= 5
    assert all(b"12:implied_porti1e" in data for data in announces)
    assert all(b"4:seedi1e" in data for data in announces)


@in_scene()
async def test_after_an_absence_nodes_are_asked_and_torrents_announced(scene: Scene) -> None:
    nodes = Nodes(scene)
    await nodes.add()
    seed = await scene.node(is_seed=True, **nodes.options())
    await asyncio.sleep(60)
    received = nodes.sockets[0].received
    received.clear()
    await asyncio.sleep(5)
    assert not [data for data, _ in received if b"announce_peer" in data]
    received.clear()
    seed.session._services.sources.shared[0].missed(3600)
    await asyncio.sleep(5)
    assert len([data for data, _ in received if b"announce_peer" in data]) == 1
    assert [data for data, _ in received if b"find_node" in data]


@in_scene(is_private=True, nodes=(("10.0.0.99", 6881),))
async def test_a_private_torrent_never_appears(scene: Scene) -> None:
    nodes = Nodes(scene)
    await nodes.add()
    seed = await scene.node(is_seed=True, **nodes.options())
    leech = await scene.node(peers=[seed], **nodes.options(dht_bootstrap=()))
    await leech.complete(60)
    await asyncio.sleep(2 * ANNOUNCE_INTERVAL)
    assert status(seed.torrent).state is SourceState.OFF
    assert status(seed.torrent).message == PRIVATE
    asked = b"".join(data for data, _ in nodes.sockets[0].received)
    assert bytes(scene.info_hash) not in asked
    # Neither nodes of its peers nor those that its file names are used.
    assert num_known(leech) == 0
    assert not any(target.host == "10.0.0.99" for _, target in scene.network.datagram_lengths)


@in_scene(is_private=True)
async def test_a_magnet_that_turns_out_to_be_private_leaves(scene: Scene) -> None:
    nodes = Nodes(scene)
    await nodes.add()
    seed = await scene.node(is_seed=True)
    # Ours does not give the metadata of a private torrent.
    giver = HashPeer(scene, lambda _: None, reserved=FAST)
    peers = [seed.endpoint, giver.endpoint]
    leech = await scene.node(source=magnet(scene), peers=peers, **nodes.options())
    await leech.complete(60)
    assert status(leech.torrent).message == PRIVATE
    await asyncio.sleep(60)
    nodes.sockets[0].received.clear()
    await asyncio.sleep(2 * ANNOUNCE_INTERVAL)
    asked = b"".join(data for data, _ in nodes.sockets[0].received)
    assert bytes(scene.info_hash) not in asked


@in_scene(is_private=True)
async def test_it_leaves_before_what_is_on_disk_is_checked(scene: Scene) -> None:
    """Which takes hours. BEP 27."""
    nodes = Nodes(scene)
    await nodes.add()
    seed = await scene.node(is_seed=True)
    seed.torrent.shelf.is_private = False  # so that it serves the metadata
    leech = await scene.node(
        source=magnet(scene), peers=[seed], worker_delay=400, **nodes.options()
    )
    (leech.folder / CONTENT).write_bytes(bytes(len(scene.data)))
    await until(lambda: leech.torrent.state is TorrentState.CHECKING, within=900)
    received = nodes.sockets[0].received
    received.clear()
    await asyncio.sleep(ANNOUNCE_INTERVAL)
    assert leech.torrent.state is TorrentState.CHECKING
    assert status(leech.torrent).message == PRIVATE
    assert bytes(scene.info_hash) not in b"".join(data for data, _ in received)


@in_scene()
async def test_peers_tell_each_other_their_nodes(scene: Scene) -> None:
    nodes = Nodes(scene)
    seed = await scene.node(is_seed=True, **nodes.options())
    leech = await scene.node(peers=[seed], max_download_rate=20_000, **nodes.options())
    plain = await scene.node(peers=[seed], max_download_rate=20_000)
    await asyncio.sleep(10)
    assert num_known(seed) == num_known(leech) == 1
    assert plain.session.dht is None
    reserved = {
        peer.protocol.handshakes.remote.reserved.has_dht
        for peer in seed.torrent.roster.peers  # type: ignore[union-attr]
        if peer.protocol.handshakes.remote is not None
    }
    assert reserved == {True, False}


@in_scene()
async def test_n2_a_peer_that_names_many_nodes(scene: Scene) -> None:
    """BEP 5: a peer has one; the others would fill what waits to be examined."""
    node = await scene.node(**Nodes(scene).options())
    peer = await scene.scripted(node, reserved=replace(FAST, has_dht=True))
    for port in range(1, 600):
        peer.send(wire.encode_port(port))
    await asyncio.sleep(300)
    host = peer.stream.local.host
    asked = {to for _, to in scene.network.datagram_lengths if to.host == host}
    assert asked == {Endpoint(host, port) for port in range(1, MAX_NODES + 1)}


@in_scene(nodes=(("10.0.0.2", 6881),))
async def test_nodes_that_a_torrent_names_are_asked(scene: Scene) -> None:
    """BEP 5: a trackerless torrent names nodes instead of trackers."""
    nodes = Nodes(scene)
    await nodes.add()
    assert nodes.endpoints == [Endpoint("10.0.0.2", 6881)]
    seed = await scene.node(is_seed=True, **nodes.options(dht_bootstrap=()))
    leech = await scene.node(**nodes.options(dht_bootstrap=()))
    await leech.complete(120)
    assert num_known(seed) >= 1


@in_scene()
async def test_what_stands_in_a_status(scene: Scene) -> None:
    nodes = Nodes(scene)
    lonely = await scene.node(**nodes.options())
    watch = Watch(lonely.torrent)
    await asyncio.sleep(3)
    found = status(lonely.torrent)
    assert found.state is SourceState.FAILING
    assert found.message == "no DHT node is known yet"
    assert found.next_at is not None
    assert found.next_at - scene.loop.time() < 10
    changes = watch.of(events.SourceChanged)
    assert {each.source.kind for each in changes} == {SourceKind.DHT}

    await nodes.add()
    assert lonely.session.dht is not None
    lonely.session.dht.add_nodes(nodes.endpoints)
    seed = await scene.node(is_seed=True, **nodes.options())
    await lonely.complete(120)
    found = status(lonely.torrent)
    assert found.state is SourceState.WORKING
    assert found.message is None
    assert found.num_found >= 1
    assert found.last_asked_at is not None
    assert found.last_answer_at is not None
    assert found.last_asked_at <= found.last_answer_at

    nodes.close()
    await seed.close()
    lonely.torrent.announce_now()
    await asyncio.sleep(0.5)
    assert status(lonely.torrent).state is SourceState.ASKING
    await asyncio.sleep(10)
    assert status(lonely.torrent).message == "no DHT node answered"


@in_scene()
async def test_the_routing_table_outlives_the_session(scene: Scene) -> None:
    nodes = Nodes(scene)
    await nodes.add()
    host = scene.add_host()
    state = scene.state_dir
    first = await scene.node(host=host, state_dir=state, **nodes.options())
    assert first.session.dht is not None
    own_id = first.session.dht.shells[0].node.table.own_id
    await asyncio.sleep(SAVE_INTERVAL + 1)
    assert (state / NAME).exists()
    (state / NAME).unlink()
    await first.close()
    saved = read_dht_state(state)
    assert saved is not None
    assert bytes(own_id) in saved
    session = await scene.session(host, state_dir=state, **nodes.options(dht_bootstrap=()))
    await asyncio.sleep(5)
    assert session.dht is not None
    assert session.dht.num_nodes == 1
    assert session.dht.shells[0].node.table.own_id == own_id


@in_scene()
async def test_the_table_is_kept_while_the_state_folder_is_ours(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F18. Another run may begin, and read it, as soon as the lock is free."""
    nodes = Nodes(scene)
    await nodes.add()
    node = await scene.node(state_dir=scene.state_dir, **nodes.options())
    await asyncio.sleep(5)
    locked: list[bool] = []

    def write(folder: Path, data: bytes) -> None:
        try:
            StateLock(folder).release()
        except StorageError:
            locked.append(True)
        else:
            locked.append(False)
        write_dht_state(folder, data)

    monkeypatch.setattr(dht_source, "write_dht_state", write)
    await node.close()
    assert locked == [True], "once, under the lock"
    assert read_dht_state(scene.state_dir)


@in_scene()
async def test_torrents_at_rest_cost_no_task(scene: Scene, tmp_path: Path) -> None:
    nodes = Nodes(scene)
    await nodes.add()
    dht = await nodes.add()
    seed = await scene.node(is_seed=True, state_dir=scene.state_dir, **nodes.options())
    before = len(asyncio.all_tasks())
    others: list[Metainfo] = []
    for number in range(12):
        other = Scene(scene.loop, tmp_path / f"more{number}", files={"": 1_000 + number})
        other.write_content(tmp_path / f"o{number}")
        others.append(other.metainfo)
        await seed.session.add(other.raw, TorrentConfig(output=tmp_path / f"o{number}"))
    await asyncio.sleep(120)
    assert all(torrent.is_resting for torrent in seed.session.torrents)
    assert len(asyncio.all_tasks()) <= before
    for metainfo in others:
        peers = [peer async for peer in dht.get_peers(metainfo.info.wire_hash)]
        assert peers == [seed.endpoint]


@in_scene()
async def test_without_a_port_nothing_is_announced(scene: Scene) -> None:
    nodes = Nodes(scene)
    await nodes.add()
    seed = await scene.node(is_seed=True, **nodes.options())
    leech = await scene.node(**nodes.options(enable_incoming=False))
    await leech.complete(60)
    await asyncio.sleep(10)
    announced = {
        source.host for data, source in nodes.sockets[0].received if b"announce_peer" in data
    }
    assert announced == {seed.endpoint.host}


@in_scene()
async def test_a_paused_torrent_is_not_looked_up(scene: Scene) -> None:
    nodes = Nodes(scene)
    await nodes.add()
    leech = await scene.node(**nodes.options())
    await leech.torrent.pause()
    assert leech.torrent.state is TorrentState.PAUSED
    await asyncio.sleep(10)
    nodes.sockets[0].received.clear()
    await asyncio.sleep(2 * ANNOUNCE_INTERVAL)
    asked = b"".join(data for data, _ in nodes.sockets[0].received)
    assert bytes(scene.info_hash) not in asked
    await leech.torrent.resume()
    await asyncio.sleep(5)
    asked = b"".join(data for data, _ in nodes.sockets[0].received)
    assert bytes(scene.info_hash) in asked


@in_scene()
async def test_a_table_that_cannot_be_kept_is_a_warning(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """Limit: F3. It is tried again the next time."""
    nodes = Nodes(scene)
    await nodes.add()
    state = scene.state_dir
    node = await scene.node(is_seed=True, state_dir=state, **nodes.options())
    (state / NAME).mkdir()
    await asyncio.sleep(SAVE_INTERVAL + 60)
    assert num_known(node) > 0
    assert "the DHT's routing table is not kept" in caplog.text
    assert node.torrent.state is TorrentState.SEEDING
    (state / NAME).rmdir()
    await asyncio.sleep(SAVE_INTERVAL)
    assert read_dht_state(state)
