"""engine.pieces.have_news: who hears of new pieces, when, and in how many messages."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bittern.codec import wire
from bittern.codec.wire import MessageId
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.engine.scene import NUM_PIECES, Scene

ALL_BUT_FIRST = wire.encode_bitfield(b"\x7f" + b"\xff" * (NUM_PIECES // 8 - 1))


def test_leechers_hear_at_once_and_seeds_once_a_second(tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            node = await scene.node()
            leecher = await scene.scripted(node, bitfield=ALL_BUT_FIRST)
            seed = await scene.scripted(node, bitfield=wire.HAVE_ALL)
            await asyncio.sleep(0.5)
            assert node.torrent.swarm is not None
            for index in (3, 1, 2):
                node.torrent.swarm.pieces_verified([index])
            began_at = loop.time()
            haves = [await leecher.expect(MessageId.HAVE) for _ in range(3)]
            assert [int.from_bytes(have.payload) for have in haves] == [3, 1, 2]
            assert loop.time() - began_at < 0.1
            haves = [await seed.expect(MessageId.HAVE) for _ in range(3)]
            assert [int.from_bytes(have.payload) for have in haves] == [3, 1, 2]
            assert 0.3 < loop.time() - began_at < 1.1
            leecher.close()
            seed.close()

    simulate(main)
