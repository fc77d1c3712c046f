"""engine.hashes.seeker: layers and block hashes from peers, honest and not (BEP 52; Limit: H10)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bittern.codec import wire
from bittern.codec.info import Version
from bittern.codec.metainfo import decode_metainfo
from bittern.codec.wire import HashRange
from bittern.core.errors import Inconsistent
from bittern.engine import events
from bittern.engine.events import TorrentState
from bittern.engine.hashes.exchange import HashExchange
from bittern.engine.hashes.seeker import BLOCKS_TIMEOUT, HashSeeker
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.engine.hash_peers import Files, HashPeer, contradict, node_of_v1_link
from tests.engine.scene import FAST, GIVEN, PIECE_LENGTH, Node, Scene, Watch, in_scene, until
from tests.engine.test_metadata import FILES


@pytest.mark.parametrize(
    ("version", "topic"),
    [
        (Version.V2, "both"),
        (Version.HYBRID, "both"),
        (Version.HYBRID, "btih"),
        (Version.HYBRID, "btmh"),
    ],
)
@in_scene(files=FILES, version=GIVEN)
async def test_from_a_link_to_a_whole_torrent_file(scene: Scene, topic: str) -> None:
    """The .torrent file that is kept has the layers, so it makes a seed."""
    seed = await scene.node(is_seed=True)
    link = scene.link if topic == "both" else scene.link_by(topic)
    leecher = await scene.node(peers=[seed], source=link, state_dir=scene.state_dir, rest_after=2.0)
    await leecher.complete(within=20)
    assert leecher.has_content()
    await until(lambda: has_layers(leecher))
    [kept] = (scene.state_dir).rglob("*.torrent")
    await until(lambda: len(decode_metainfo(kept.read_bytes()).piece_layers) == len(FILES))
    assert scene.network.attempts[seed.endpoint] <= 2


@in_scene(files=FILES, version=Version.HYBRID)
async def test_a_hybrid_known_by_its_v1_hash_gets_layers_from_peers_and_gives_them(
    scene: Scene,
) -> None:
    """Long before its data could bring them; the peer hears only now that we speak v2."""
    seed = await scene.node(is_seed=True, max_upload_rate=20_000)
    link = scene.link_by("btih")
    leecher = await scene.node(peers=[seed], source=link)
    watch = Watch(leecher.torrent)
    await until(lambda: has_layers(leecher), within=10)
    assert not leecher.torrent.have_bits
    assert leecher.torrent.num_connections == 1
    assert scene.network.attempts[seed.endpoint] == 2
    third = await scene.node(peers=[leecher], source=scene.link_by("btmh"))
    await until(lambda: has_layers(third), within=10)
    await leecher.complete(within=60)
    await third.complete(within=60)
    assert leecher.has_content()
    assert third.has_content()
    assert not watch.of(events.PeerBanned)
    assert leecher.torrent.stats().wasted == 0


@in_scene(files=FILES, version=Version.HYBRID)
async def test_layers_that_the_data_brings_are_kept_at_once(scene: Scene) -> None:
    """A hybrid found by its v1 hash, from a seed that speaks no v2; the session ends at once."""
    seed = await scene.node(is_seed=True)
    link = scene.link_by("btih")
    leecher = await scene.node(peers=[seed], source=link, state_dir=scene.state_dir)
    await leecher.complete(within=20)
    await leecher.close()
    [kept] = (scene.state_dir).rglob("*.torrent")
    assert decode_metainfo(kept.read_bytes()).piece_layers == scene.metainfo.piece_layers


async def magnet_node(scene: Scene, *peers: HashPeer) -> Node:
    return await scene.node(source=scene.link, peers=[peer.endpoint for peer in peers])


def has_layers(node: Node) -> bool:
    found = node.torrent.metainfo
    return found is not None and found.piece_layers == node.scene.metainfo.piece_layers


def layers_there(node: Node) -> bool:
    return node.torrent.state is TorrentState.DOWNLOADING


@in_scene(files=FILES, version=Version.V2)
async def test_a_liar_is_banned_and_another_gives_the_layers(scene: Scene) -> None:
    files = Files(scene)
    liar = HashPeer(scene, lambda wanted: bytes(len(files.answer(wanted))))
    node = await magnet_node(scene, liar)
    watch = Watch(node.torrent)
    await until(lambda: bool(watch.of(events.PeerBanned)))
    assert node.torrent.state is TorrentState.METADATA
    phase = node.torrent.metadata_phase
    assert phase is not None
    assert phase.num_layers_missing == len(FILES)
    honest = HashPeer(scene, files.answer, does_metadata=False)
    node.torrent.add_peers([honest.endpoint], "user")
    await until(lambda: layers_there(node))
    assert has_layers(node)
    assert [event.endpoint for event in watch.of(events.PeerBanned)] == [liar.endpoint]
    assert len(liar.peers) == 1


@in_scene(files=FILES, version=Version.V2)
async def test_who_refuses_or_is_silent_costs_time_and_not_the_download(scene: Scene) -> None:
    files = Files(scene)
    refusing = HashPeer(scene, lambda _: None)
    silent = HashPeer(scene, lambda _: b"")
    node = await magnet_node(scene, refusing, silent)
    await until(lambda: bool(refusing.asked and silent.asked))
    honest = HashPeer(scene, files.answer)
    node.torrent.add_peers([honest.endpoint], "user")
    began = scene.loop.time()
    await until(lambda: layers_there(node))
    assert scene.loop.time() - began < 12
    assert has_layers(node)


@in_scene(files=FILES, version=Version.V2)
async def test_a_peer_that_leaves_is_replaced(scene: Scene) -> None:
    files = Files(scene)
    silent = HashPeer(scene, lambda _: b"")
    node = await magnet_node(scene, silent)
    await until(lambda: bool(silent.asked))
    honest = HashPeer(scene, files.answer)
    node.torrent.add_peers([honest.endpoint], "user")
    await until(lambda: len(honest.peers) == 1)
    began = scene.loop.time()
    for peer in list(node.torrent.roster.peers if node.torrent.roster else ()):
        if peer.endpoint == silent.endpoint:
            peer.close("test")
    await until(lambda: layers_there(node))
    assert scene.loop.time() - began < 2


@in_scene(files=FILES, version=Version.HYBRID)
async def test_nobody_without_v2_is_asked(scene: Scene) -> None:
    """A hybrid begins with its v1 hashes; a v1 peer does not know what a hash request is."""
    old = HashPeer(scene, lambda _: None, reserved=FAST)
    node = await magnet_node(scene, old)
    await until(lambda: layers_there(node))
    new = HashPeer(scene, Files(scene).answer)
    node.torrent.add_peers([new.endpoint], "user")
    await until(lambda: has_layers(node))
    assert not old.asked
    assert len(new.asked) == len(FILES)


def seeker_of(node: Node) -> HashSeeker:
    swarm = node.swarm
    exchange = swarm.extensions.hashes
    assert isinstance(exchange, HashExchange)
    return exchange.seeker


@in_scene(version=Version.V2)
async def test_the_hashes_of_a_pieces_blocks(scene: Scene) -> None:
    """Of a piece in the middle, of a short last one; asked for twice they are fetched once."""
    files = Files(scene)
    leaves = next(iter(files.trees.values())).nodes(0, 0, 61)
    honest = HashPeer(scene, files.answer)
    node = await scene.node(peers=[honest.endpoint])
    await until(lambda: node.torrent.num_connections == 1 and bool(len(honest.peers)))
    await asyncio.sleep(1)
    found: dict[str, bytes | None] = {}
    fetch = seeker_of(node).fetch_block_hashes
    assert fetch(3, lambda hashes: found.update(one=hashes))
    assert fetch(3, lambda hashes: found.update(two=hashes))
    assert fetch(15, lambda hashes: found.update(last=hashes))
    assert not found
    await until(lambda: len(found) == 3)
    assert found["one"] == found["two"] == leaves[12 * 32 : 16 * 32]
    assert found["last"] == leaves[60 * 32 :]
    root = next(iter(files.trees))
    assert honest.asked == [HashRange(root, 0, 12, 4, 1), HashRange(root, 0, 60, 2, 1)]


@in_scene(version=Version.V2, piece_length=16_384)
async def test_a_piece_of_one_block_needs_nobody(scene: Scene) -> None:
    files = Files(scene)
    peer = HashPeer(scene, lambda _: None)
    node = await scene.node(peers=[peer.endpoint])
    seeker = seeker_of(node)
    assert not seeker.fetch_block_hashes(5, lambda _: None), "nobody is connected yet"
    await until(lambda: seeker.fetch_block_hashes(5, lambda _: None))
    found: list[bytes | None] = []
    assert seeker.fetch_block_hashes(5, found.append)
    await until(lambda: bool(found))
    assert found == [next(iter(files.trees.values())).nodes(0, 5, 1)]
    assert not peer.asked


@pytest.mark.parametrize("is_silent", [True, False])
@in_scene(version=Version.V2)
async def test_hashes_that_nobody_gives(scene: Scene, is_silent: bool) -> None:
    peer = HashPeer(scene, lambda _: b"" if is_silent else None)
    node = await scene.node(peers=[peer.endpoint])
    found: list[bytes | None] = []
    await until(lambda: seeker_of(node).fetch_block_hashes(5, found.append))
    began = scene.loop.time()
    await until(lambda: bool(found))
    assert found == [None]
    waited = scene.loop.time() - began
    assert BLOCKS_TIMEOUT <= waited < BLOCKS_TIMEOUT + 2 if is_silent else waited < 1
    # The wait ends at once with the last peer, too.
    assert seeker_of(node).fetch_block_hashes(6, found.append)
    assert node.torrent.roster is not None
    for other in list(node.torrent.roster.peers):
        other.close("test")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await until(lambda: len(found) == 2, within=0.5)


@in_scene(version=Version.V2)
async def test_suspects_are_asked_last(scene: Scene) -> None:
    files = Files(scene)
    suspect, other = HashPeer(scene, files.answer), HashPeer(scene, files.answer)
    node = await scene.node(peers=[suspect.endpoint, other.endpoint])
    await asyncio.sleep(2)
    found: list[bytes | None] = []
    avoid = {suspect.host.addresses[0]}
    assert seeker_of(node).fetch_block_hashes(1, found.append, avoid=avoid)
    await until(lambda: bool(found))
    assert (len(suspect.asked), len(other.asked)) == (0, 1)
    avoid.add(other.host.addresses[0])
    assert seeker_of(node).fetch_block_hashes(2, found.append, avoid=avoid)
    await until(lambda: len(found) == 2)
    assert None not in found
    assert PIECE_LENGTH == 4 * 16_384


@in_scene(version=Version.V2)
async def test_after_the_end_nobody_is_called(scene: Scene) -> None:
    peer = HashPeer(scene, lambda _: b"")
    node = await scene.node(peers=[peer.endpoint])
    found: list[bytes | None] = []
    await until(lambda: seeker_of(node).fetch_block_hashes(5, found.append))
    await node.close()
    await asyncio.sleep(30)
    assert not found


@in_scene(version=Version.V2, piece_length=16_384)
async def test_a_callback_that_is_due_at_the_end_is_not_called(scene: Scene) -> None:
    """Neither with what is known already, nor as the last peer goes."""
    peer = HashPeer(scene, lambda _: b"")
    node = await scene.node(peers=[peer.endpoint])
    found: list[bytes | None] = []
    await until(lambda: bool(seeker_of(node).askable()))
    seeker = seeker_of(node)
    assert seeker.fetch_block_hashes(5, found.append)
    seeker.stop()
    await asyncio.sleep(30)
    assert not found


def test_layers_that_came_before_the_end_are_told_of_once(
    tmp_path: Path, simulate: Simulate
) -> None:
    """As data makes them, they are noticed once a second, and at the end."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, files=FILES, version=Version.HYBRID) as scene:
            old = HashPeer(scene, lambda _: None, reserved=FAST)
            node = await magnet_node(scene, old)
            await until(lambda: layers_there(node))
            seeker = seeker_of(node)
            num_done = 0

            def done() -> None:
                nonlocal num_done
                num_done += 1

            seeker._layers_done = done
            assert seeker.num_layers_missing == len(FILES)
            for root, layer in scene.metainfo.piece_layers.items():
                assert seeker._hashes.add_piece_layer(root, layer)
            seeker.stop()
            assert (seeker.num_layers_missing, num_done) == (0, 1)
            seeker.stop()
            assert num_done == 1

    simulate(main)


@in_scene(version=Version.V2)
async def test_who_refuses_is_replaced_by_who_gives(scene: Scene) -> None:
    """No wait for a time-out; other pieces go on."""
    files = Files(scene)
    refusing = HashPeer(scene, lambda _: None)
    honest = HashPeer(scene, files.answer)
    node = await scene.node(peers=[refusing.endpoint, honest.endpoint])
    await until(lambda: len(seeker_of(node).askable()) == 2)
    found: list[bytes | None] = []
    reserve = {honest.host.addresses[0]}
    began = scene.loop.time()
    for index in (1, 2):
        assert seeker_of(node).fetch_block_hashes(index, found.append, avoid=reserve)
    await until(lambda: len(found) == 2)
    assert None not in found
    assert len(refusing.asked) == len(honest.asked) == 2
    assert scene.loop.time() - began < BLOCKS_TIMEOUT


@in_scene(version=Version.V2)
async def test_hashes_that_come_too_late_are_ignored(scene: Scene) -> None:
    """Right ones and wrong ones: nobody is waiting, so they cannot hurt, and nobody is banned."""
    files = Files(scene)
    late = HashPeer(scene, lambda _: b"")
    node = await scene.node(peers=[late.endpoint])
    watch = Watch(node.torrent)
    found: list[bytes | None] = []
    await until(lambda: seeker_of(node).fetch_block_hashes(5, found.append))
    await until(lambda: bool(found))
    [wanted], [peer] = late.asked, late.peers
    right = files.answer(wanted)
    for hashes in (right, bytes(len(right))):
        peer.send(wire.encode_hashes(wanted, [hashes]))
    await asyncio.sleep(1)
    assert found == [None]
    assert not watch.of(events.PeerBanned)
    assert node.torrent.num_connections == 1


@in_scene(version=Version.HYBRID)
async def test_a_layer_from_a_peer_that_contradicts_what_is_there(scene: Scene) -> None:
    """Pieces were good by v1 when a peer brought the layer, which is that of the root."""
    other = contradict(scene)
    node = await node_of_v1_link(
        scene,
        damaged=[3 * PIECE_LENGTH],
    )
    await until(lambda: node.torrent.state is TorrentState.DOWNLOADING)
    assert node.torrent.stats().num_have == 15
    scene.files = {"": other}
    new = HashPeer(scene, Files(scene).answer)
    node.torrent.add_peers([new.endpoint], "user")
    await until(lambda: node.torrent.state is TorrentState.ERROR)
    assert isinstance(node.torrent.error, Inconsistent)
    assert new.asked
