"""engine.pieces.super_seeding: pieces shown a few at a time, from beginning to end (BEP 16)."""

from __future__ import annotations

import asyncio

import pytest

from bittern.codec import wire
from bittern.codec.wire import MessageId
from bittern.core.bitfield import Bitfield
from bittern.testing.peer import ExpectationFailed, ScriptedPeer
from tests.engine.scene import BLOCK_LENGTH, NUM_PIECES, PIECE_LENGTH, Scene, in_scene


@in_scene()
async def test_a_super_seed_shows_few_pieces_at_a_time(scene: Scene) -> None:
    """BEP 16."""
    seed = await scene.node(is_seed=True, torrent={"super_seeding": True})
    one = await scene.scripted(seed, bitfield=wire.HAVE_NONE)
    two = await scene.scripted(seed, bitfield=wire.HAVE_NONE)
    assert (await one.receive()).message_id == MessageId.HAVE_NONE
    first, *rest = [(await peer.expect(MessageId.HAVE)).numbers[0] for peer in (one, one, two, two)]
    assert len({first, *rest}) == 4, "each is shown other pieces"
    one.send(wire.INTERESTED)
    await one.expect(MessageId.UNCHOKE)
    one.send(wire.encode_request(first, 0, BLOCK_LENGTH))
    await one.expect(MessageId.PIECE)
    hidden = next(n for n in range(NUM_PIECES) if n not in (first, *rest))
    one.send(wire.encode_request(hidden, 0, BLOCK_LENGTH if hidden < 15 else 1_000))
    assert (await one.expect(MessageId.REJECT_REQUEST)).numbers[0] == hidden
    one.send(wire.encode_have(first))
    await no_have(one)
    two.send(wire.encode_have(first))
    third = (await one.expect(MessageId.HAVE)).numbers[0]
    assert third not in (first, *rest), "another once the first was passed on"
    await no_have(two)


@in_scene()
async def test_who_brings_pieces_along_is_shown_what_it_lacks(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, torrent={"super_seeding": True})
    lacking = {NUM_PIECES - 2, NUM_PIECES - 1}
    brought = Bitfield.of(NUM_PIECES, set(range(NUM_PIECES)) - lacking)
    peer = await scene.scripted(seed, bitfield=wire.encode_bitfield(brought.to_wire()))
    told: set[int] = set()
    while not lacking <= told:
        told.add((await peer.expect(MessageId.HAVE)).numbers[0])
    await no_have(peer)


async def no_have(peer: ScriptedPeer) -> None:
    with pytest.raises(ExpectationFailed):
        await peer.expect(MessageId.HAVE, timeout=3)


@pytest.mark.slow
@in_scene()
async def test_a_super_seed_sends_little_more_than_one_copy(scene: Scene) -> None:
    seed = await scene.node(
        is_seed=True,
        torrent={"super_seeding": True},
        host=scene.add_host(upload_rate=100_000),
    )
    nodes = [seed]
    for _ in range(4):
        nodes.append(await scene.node(peers=nodes))
    await asyncio.gather(*(node.complete() for node in nodes))
    assert all(node.has_content() for node in nodes)
    assert seed.torrent.num_uploaded < 2 * len(scene.data)


@in_scene()
async def test_whoever_came_before_super_seeding_goes_on_being_served(scene: Scene) -> None:
    """It was told of everything; who comes later is shown piece by piece, until that ends."""
    seed = await scene.node(is_seed=True, max_upload_rate=100_000)
    early = await scene.unchoked(seed)
    seed.torrent.change(super_seeding=True)
    seed.torrent.change(super_seeding=True)
    early.send(wire.encode_request(9, 0, BLOCK_LENGTH))
    await early.expect(MessageId.PIECE)
    late = await scene.scripted(seed, bitfield=wire.HAVE_NONE)
    late.send(wire.INTERESTED)
    told = {(await late.expect(MessageId.HAVE)).numbers[0] for _ in range(2)}
    hidden = next(index for index in range(NUM_PIECES) if index not in told)
    await late.expect(MessageId.UNCHOKE)
    late.send(wire.encode_request(hidden, 0, BLOCK_LENGTH))
    await late.expect(MessageId.REJECT_REQUEST)
    seed.torrent.change(super_seeding=False)
    while len(told) < NUM_PIECES:
        told.add((await late.expect(MessageId.HAVE)).numbers[0])
    late.send(wire.encode_request(hidden, 0, BLOCK_LENGTH))
    await late.expect(MessageId.PIECE)


@in_scene()
async def test_who_is_complete_is_forgotten_by_a_super_seed(scene: Scene) -> None:
    """BEP 16: what it had is no copy in the swarm any more."""
    node = await scene.node(is_seed=True, torrent={"super_seeding": True})
    seeder = node.swarm._super_seeding._seeder
    assert seeder is not None
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE)
    await peer.expect(MessageId.HAVE)
    peer.send(b"".join(wire.encode_have(index) for index in range(NUM_PIECES)))
    await peer.expect_closed(timeout=1)
    assert repr(seeder) == "<SuperSeeder 0 peers, 0 pieces out>"
    assert seeder.num_copies == 0


@in_scene()
async def test_what_was_lost_is_not_announced_when_super_seeding_ends(scene: Scene) -> None:
    node = await scene.node(
        damaged=[2 * PIECE_LENGTH], torrent={"super_seeding": True, "skip_check": True}
    )
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE)
    shown = (await peer.expect(MessageId.HAVE)).numbers[0]
    node.swarm.assembly.piece_is_bad(2)
    node.torrent.change(super_seeding=False)
    found = {shown}
    while len(found) < NUM_PIECES - (shown != 2):
        found.add((await peer.expect(MessageId.HAVE)).numbers[0])
    with pytest.raises(ExpectationFailed):
        await peer.expect(MessageId.HAVE, timeout=1)
