"""engine.pieces.have_news: who hears of new pieces, when, and in how many messages."""

from __future__ import annotations

import asyncio

from bittern.codec import wire
from bittern.codec.wire import MessageId
from tests.engine.scene import NUM_PIECES, Scene, in_scene

ALL_BUT_FIRST = wire.encode_bitfield(b"\x7f" + b"\xff" * (NUM_PIECES // 8 - 1))


@in_scene()
async def test_leechers_hear_at_once_and_seeds_once_a_second(scene: Scene) -> None:
    node = await scene.node()
    leecher = await scene.scripted(node, bitfield=ALL_BUT_FIRST)
    seed = await scene.scripted(node, bitfield=wire.HAVE_ALL)
    await asyncio.sleep(0.5)
    assert node.torrent.swarm is not None
    for index in (3, 1, 2):
        node.torrent.swarm.pieces_verified([index])
    began_at = scene.loop.time()
    haves = [await leecher.expect(MessageId.HAVE) for _ in range(3)]
    assert [int.from_bytes(have.payload) for have in haves] == [3, 1, 2]
    assert scene.loop.time() - began_at < 0.1
    haves = [await seed.expect(MessageId.HAVE) for _ in range(3)]
    assert [int.from_bytes(have.payload) for have in haves] == [3, 1, 2]
    assert 0.3 < scene.loop.time() - began_at < 1.1
    # Each is told of once, however many seconds pass.
    await asyncio.sleep(3)
    node.torrent.swarm.pieces_verified([4])
    for peer in (leecher, seed):
        have = await peer.expect(MessageId.HAVE)
        assert int.from_bytes(have.payload) == 4
