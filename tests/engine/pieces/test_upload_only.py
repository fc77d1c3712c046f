"""engine.pieces.upload_only: what peers are told of our wants, and whom we part from (BEP 21)."""

from __future__ import annotations

import asyncio

import pytest

from bittern.codec import wire
from bittern.codec.extension import ExtendedHandshake, decode_extended_handshake
from bittern.codec.wire import MessageId
from bittern.engine import events
from bittern.engine.events import TorrentState
from bittern.testing.peer import ExpectationFailed, ScriptedPeer
from tests.engine.scene import (
    PIECE_LENGTH,
    Scene,
    Stranger,
    Watch,
    in_scene,
    until,
)

FILES = {"a": 8 * PIECE_LENGTH, "b": 300_000}
FIRST = frozenset({0})
SPEAKS = ExtendedHandshake(extensions={"upload_only": 9})


async def told(peer: ScriptedPeer) -> bool | None:
    """Return what the next extended message says, be it a handshake or a message of its own."""
    payload = (await peer.expect(MessageId.EXTENDED)).payload
    if payload[0]:
        assert (payload[0], len(payload)) == (9, 2)
        return payload[1] != 0
    return decode_extended_handshake(payload[1:]).is_upload_only


@pytest.mark.parametrize("extended", [ExtendedHandshake(), SPEAKS])
@in_scene(files=FILES)
async def test_who_wants_something_again_says_so(scene: Scene, extended: ExtendedHandshake) -> None:
    """By libtorrent's message to those who know it, by one more handshake to the others."""
    seed = await scene.node(is_seed=True)
    node = await scene.node(peers=[seed], torrent={"files": FIRST})
    leecher = await scene.scripted(node, bitfield=wire.HAVE_NONE, extended=extended)
    assert await told(leecher) is False
    await node.complete()
    assert await told(leecher) is True
    seed.torrent.change(max_upload_rate=1_000)
    node.torrent.change(files=None)
    assert await told(leecher) is False
    node.torrent.change(files=FIRST)
    assert await told(leecher) is True
    node.torrent.change(priorities={0: 7})
    with pytest.raises(ExpectationFailed):
        await leecher.expect(MessageId.EXTENDED, timeout=3)


@in_scene()
async def test_who_has_lost_a_piece_says_that_it_downloads_again(scene: Scene) -> None:
    node = await scene.node(damaged=[2 * PIECE_LENGTH], torrent={"skip_check": True})
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE, extended=SPEAKS)
    assert await told(peer) is True
    peer.send(wire.INTERESTED)
    await peer.expect(MessageId.UNCHOKE)
    peer.send(wire.encode_request(2, 0, 5))
    assert await told(peer) is False


@in_scene(files=FILES)
async def test_who_was_parted_from_is_dialled_at_once_when_more_is_wanted(scene: Scene) -> None:
    """Also when the connection was short, and again and again."""
    stranger = Stranger(scene)
    node = await scene.node(torrent={"files": FIRST})
    node.torrent.add_peers([stranger.endpoint], "tracker", "10.0.0.99")
    peer = await stranger.accept()
    await scene.greet(peer, bitfield=wire.HAVE_ALL + wire.UNCHOKE)
    scene.spawn(peer.serve(scene.block, also=[MessageId.NOT_INTERESTED]))
    await node.complete()
    await peer.expect_closed(timeout=1)
    for _ in range(5):
        with pytest.raises(ExpectationFailed):
            await stranger.accept(timeout=5)
        node.torrent.change(files=None)
        peer = await stranger.accept(timeout=2)
        await scene.greet(peer, bitfield=wire.HAVE_ALL)
        await peer.expect(MessageId.INTERESTED)
        node.torrent.change(files=FIRST)
        await peer.expect_closed(timeout=1)


@in_scene(files=FILES)
async def test_who_says_that_it_wants_nothing_any_more_is_parted_from(scene: Scene) -> None:
    node = await scene.node(is_seed=True)
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE)
    ours = decode_extended_handshake((await peer.expect(MessageId.EXTENDED)).payload[1:])
    peer.send(wire.encode_extended(ours.extensions["upload_only"], b"\1"))
    await peer.expect_closed(timeout=1)


@in_scene()
async def test_a_super_seed_does_not_say_that_it_wants_nothing(scene: Scene) -> None:
    """Interop: libtorrent would leave whenever it has all that it was shown."""
    node = await scene.node(is_seed=True, torrent={"super_seeding": True})
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE, extended=SPEAKS)
    assert await told(peer) is False
    node.torrent.change(super_seeding=False)
    assert await told(peer) is True
    node.torrent.change(super_seeding=True)
    assert await told(peer) is False
    seed = await scene.scripted(node, bitfield=wire.HAVE_ALL)
    await seed.expect_closed(timeout=1)


@in_scene(files=FILES)
async def test_more_that_is_wanted_while_files_get_their_names_is_fetched(scene: Scene) -> None:
    """All pieces of the first choice are there, and the torrent is not yet called complete."""
    seed = await scene.node(is_seed=True)
    node = await scene.node(
        peers=[seed], torrent={"files": FIRST}, part_suffix=".part", worker_delay=3.0
    )
    watch = Watch(node.torrent)
    await until(lambda: not node.torrent.num_left)
    assert node.torrent.state is TorrentState.DOWNLOADING
    node.torrent.change(files=None, max_download_rate=50_000)
    await asyncio.sleep(4)
    await node.complete()
    assert node.has_content()
    await asyncio.sleep(0)
    assert len(watch.of(events.TorrentCompleted)) == 1


@in_scene()
async def test_a_seed_is_not_dialled_again_while_files_are_given_their_names(scene: Scene) -> None:
    """Which takes long on a slow disk; it was dialled ten times a second meanwhile."""
    seed = await scene.node(is_seed=True)
    node = await scene.node(peers=[seed], worker_delay=20.0)
    watch = Watch(node.torrent)
    await until(lambda: node.swarm.picker.is_complete, within=600)
    assert node.torrent.state is TorrentState.DOWNLOADING
    watch.seen.clear()
    await asyncio.sleep(15)
    assert node.torrent.state is TorrentState.DOWNLOADING
    assert len(watch.of(events.PeerDialled)) <= 1
    await node.complete()
