"""
Whatever peers say, in whatever order: nothing raises, nothing is left behind, no byte is wrong.

Visitors say whole messages, some of them damaged, and answer some of what they are asked, some of
it wrongly. Then an honest seed comes, and the download must end as if they had not been there.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from bittern.codec import wire
from bittern.codec.extension import (
    ExtendedHandshake,
    MetadataMessage,
    MetadataMessageType,
    PexFlag,
    PexMessage,
    encode_dont_have,
    encode_extended_handshake,
    encode_metadata_message,
    encode_pex,
)
from bittern.codec.info import Version
from bittern.codec.wire import HashRange, MessageId, Reserved
from bittern.core.endpoint import Endpoint
from bittern.testing.peer import ExpectationFailed, ScriptedPeer
from tests.codec.fuzzing import mutate, num_runs
from tests.engine.scene import BLOCK_LENGTH, GIVEN, NUM_PIECES, Scene, in_scene

MAX_VISITS = 500
"""However many inputs are wanted of a decoder: a visit takes a hundred times as long."""


def handshake(**said: Any) -> bytes:
    names = {"ut_metadata": 3, "ut_pex": 4, "lt_donthave": 5, "upload_only": 6}
    return wire.encode_extended(
        0, encode_extended_handshake(ExtendedHandshake(names, "fuzz", **said))
    )


def messages(scene: Scene) -> list[bytes]:
    """What a visitor may say; the last pieces are not there."""
    indices = (0, 1, NUM_PIECES - 1, NUM_PIECES)
    blocks = [(index, begin) for index in indices for begin in (0, 3 * BLOCK_LENGTH)]
    info = scene.metainfo.info
    root = info.files[0].pieces_root or bytes(32)
    hashes = HashRange(root, 0, 0, 4, 2)
    data = MetadataMessage(MetadataMessageType.DATA, 0, len(info.raw), info.raw)
    peers = PexMessage(((Endpoint("5.6.7.8", 9), PexFlag.OUTGOING),), (Endpoint("5.6.7.8", 9),))
    return [
        wire.KEEP_ALIVE,
        wire.CHOKE,
        wire.UNCHOKE,
        wire.INTERESTED,
        wire.NOT_INTERESTED,
        wire.HAVE_ALL,
        wire.HAVE_NONE,
        wire.encode_bitfield(b"\xff\xff"),
        wire.encode_bitfield(b"\x80\x00"),
        wire.encode_port(6881),
        handshake(),
        handshake(metadata_length=len(info.raw), listen_port=6881),
        handshake(metadata_length=20_000, is_upload_only=True),
        wire.encode_hash_request(hashes),
        wire.encode_hash_request(hashes, MessageId.HASH_REJECT),
        wire.encode_hashes(hashes, [bytes(32)] * 6),
        *(wire.encode_have(index) for index in indices),
        *(wire.encode_index(MessageId.ALLOWED_FAST, index) for index in indices),
        *(wire.encode_index(MessageId.SUGGEST_PIECE, index) for index in indices),
        *(wire.encode_request(*block, BLOCK_LENGTH) for block in blocks),
        *(wire.encode_cancel(*block, BLOCK_LENGTH) for block in blocks),
        *(wire.encode_reject(*block, BLOCK_LENGTH) for block in blocks),
        *(wire.encode_extended(3, encode_dont_have(index)) for index in indices),
        *(wire.encode_extended(4, bytes([number])) for number in (0, 1)),
        wire.encode_extended(2, encode_pex(peers)),
        wire.encode_extended(1, encode_metadata_message(data)),
        *(
            wire.encode_extended(1, encode_metadata_message(MetadataMessage(kind, 0)))
            for kind in (MetadataMessageType.REQUEST, MetadataMessageType.REJECT)
        ),
    ]


async def answer(scene: Scene, peer: ScriptedPeer, rng: random.Random) -> None:
    """Answer the requests for blocks that have come, most of them rightly."""
    while True:
        try:
            message = await peer.expect(MessageId.REQUEST, timeout=0.001)
        except ExpectationFailed:
            return
        index, begin, length = message.numbers
        block = scene.block(index, begin, length)
        peer.send(wire.encode_piece(index, begin, rng.choice((block, block, bytes(length)))))


async def visit(scene: Scene, peer: ScriptedPeer, rng: random.Random) -> None:
    """Say some messages, and go."""
    known = messages(scene)
    for _ in range(rng.randrange(15)):
        said = rng.choice(known)
        peer.send(mutate(said, rng) if rng.random() < 0.1 else said)
        await asyncio.sleep(rng.choice((0.0, 0.05, 1.0)))
        await answer(scene, peer, rng)
        if peer.is_closed:
            break
    peer.close()


@pytest.mark.slow
@pytest.mark.parametrize("version", list(Version))
@pytest.mark.parametrize("role", ["seed", "leecher", "link"])
@in_scene(version=GIVEN, is_traced=False)
async def test_fuzz_of_what_peers_say(scene: Scene, role: str, version: Version) -> None:
    rng = scene.loop.random
    node = await scene.node(is_seed=role == "seed", source=scene.link if role == "link" else None)
    for number in range(min(num_runs(15), MAX_VISITS)):
        reserved = Reserved(
            has_fast=rng.random() < 0.8, has_extensions=rng.random() < 0.8, has_v2=number % 2 == 0
        )
        peer = await scene.scripted(node, reserved=reserved)
        await visit(scene, peer, rng)
        assert node.torrent.error is None
        assert node.torrent.num_left >= 0
    seed = await scene.node(is_seed=True)
    node.torrent.add_peers([seed.endpoint], "user")
    await node.complete()
    assert node.has_content()
