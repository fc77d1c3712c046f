"""engine.hashes.exchange: hash messages of torrents with and without a v2 half (Limit: H10)."""

from __future__ import annotations

import pytest

from bittern.codec import wire
from bittern.codec.info import Version
from bittern.codec.wire import HashRange, MessageId
from bittern.engine import events
from tests.engine.hash_peers import V2, connect_v2, mend_lost_piece
from tests.engine.scene import GIVEN, Scene, in_scene

RANGE = HashRange(bytes(32), 0, 0, 2, 0)
MESSAGES = {
    "request": wire.encode_hash_request(RANGE),
    "hashes": wire.encode_hashes(RANGE, [bytes(64)]),
    "reject": wire.encode_hash_request(RANGE, MessageId.HASH_REJECT),
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
@in_scene(version=Version.V1)
async def test_a_v1_torrent_has_no_hashes_whatever_the_handshake_says(
    scene: Scene, message: bytes
) -> None:
    """Limit: H10: refused even if the bit was set. Other messages are not meant."""
    node = await scene.node(is_seed=True)
    assert V2.has_v2
    peer = await connect_v2(scene, node)
    peer.send(wire.encode_index(MessageId.SUGGEST_PIECE, 0))
    peer.send(message)
    await peer.expect_closed(timeout=1)


@pytest.mark.parametrize("version", [Version.V2, Version.HYBRID])
@in_scene(version=GIVEN)
async def test_hashes_that_nobody_asked_for_change_nothing(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    node = await scene.node()
    peer = await connect_v2(scene, node)
    peer.send(MESSAGES["hashes"] + MESSAGES["reject"])
    peer.send(MESSAGES["request"])
    await peer.expect(MessageId.HASH_REJECT)
    node.torrent.add_peers([seed.endpoint], "user")
    await node.complete()
    assert node.has_content()
    assert not peer.is_closed


@pytest.mark.parametrize("message_id", [MessageId.HASH_REQUEST, MessageId.HASH_REJECT])
@pytest.mark.parametrize("length", [48, 50, 81, 2**31, 2**32 - 1])
@in_scene(version=Version.V2)
async def test_wrong_lengths_close(scene: Scene, message_id: int, length: int) -> None:
    """Limit: H1."""
    node = await scene.node(is_seed=True)
    peer = await connect_v2(scene, node)
    peer.send_message(message_id, bytes(60), length=length)
    await peer.expect_closed(timeout=1)


@pytest.mark.parametrize("num_bytes", [0, 31, 33, 32 * (8192 + 33)])
@in_scene(version=Version.V2)
async def test_hashes_of_wrong_lengths_close(scene: Scene, num_bytes: int) -> None:
    """Limit: H1."""
    node = await scene.node(is_seed=True)
    peer = await connect_v2(scene, node)
    peer.send_message(MessageId.HASHES, bytes(48 + num_bytes))
    await peer.expect_closed(timeout=1)


@in_scene(version=Version.V1)
async def test_the_bit_on_a_v1_magnet(scene: Scene) -> None:
    """Limit: H10. What the link does not tell, the metadata does: then such a peer is closed."""
    node = await scene.node(source=scene.link)
    peer = await connect_v2(scene, node)
    peer.send(MESSAGES["request"])
    await peer.expect(MessageId.HASH_REJECT)
    peer.send(MESSAGES["hashes"] + MESSAGES["reject"])
    seed = await scene.node(is_seed=True)
    node.torrent.add_peers([seed.endpoint], "user")
    await node.complete()
    assert not peer.is_closed
    peer.send(MESSAGES["request"])
    await peer.expect_closed(timeout=1)


@in_scene(version=Version.V2)
async def test_a_lost_piece_is_mended_by_hashes(scene: Scene) -> None:
    """It is found bad at its first upload."""
    _, watch = await mend_lost_piece(scene)
    assert watch.of(events.PieceDamaged) == [events.PieceDamaged(2, 1, 4)]
