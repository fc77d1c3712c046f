"""engine.hashes.server: what is answered, what it may cost, who is refused (Limit: H10)."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from bittern.codec import wire
from bittern.codec.info import Version
from bittern.codec.wire import HashRange, MessageId
from bittern.core.errors import VolumeMissing
from bittern.engine import events
from bittern.engine.hashes import server as hash_server
from bittern.proto import hash_requests
from bittern.storage import hash_trees
from bittern.testing.peer import ScriptedPeer
from tests.engine.hash_peers import ask, connect_to_node, connect_v2
from tests.engine.scene import (
    GIVEN,
    NAME,
    NUM_PIECES,
    PIECE_LENGTH,
    Scene,
    Watch,
    damage,
    in_scene,
    until,
)


@pytest.mark.parametrize("version", [Version.V2, Version.HYBRID])
@in_scene(version=GIVEN)
async def test_layers_blocks_and_what_lies_between(scene: Scene) -> None:
    files, root, _, peer = await connect_to_node(scene, is_seed=True)
    for wanted in (
        HashRange(root, 2, 0, 16, 3),
        HashRange(root, 2, 14, 2, 3),
        HashRange(root, 0, 12, 4, 5),
        HashRange(root, 0, 60, 2, 1),
        HashRange(root, 1, 0, 32, 0),
        HashRange(root, 5, 0, 2, 0),
    ):
        assert await ask(peer, wanted) == files.answer(wanted)
    for bad in (
        HashRange(bytes(32), 2, 0, 16, 3),
        HashRange(root, 2, 0, 16, 4),
        HashRange(root, 0, 2**32 - 2, 2, 0),
        HashRange(root, 0, 0, 1024, 0),
    ):
        assert await ask(peer, bad) is None
    assert not peer.is_closed


@in_scene(version=Version.V2, files={"": 17 << 20}, piece_length=16 << 20)
async def test_all_blocks_of_a_long_piece_at_once_and_in_parts(scene: Scene) -> None:
    """1,024 of them, as libtorrent asks; then parts, which cost no reading any more."""
    files, root, node, peer = await connect_to_node(scene, is_seed=True)
    whole = HashRange(root, 0, 0, 1024, 10)
    assert await ask(peer, whole) == files.answer(whole)
    (node.folder / NAME).unlink()
    for part in (HashRange(root, 0, 0, 512, 9), HashRange(root, 0, 512, 512, 9)):
        assert await ask(peer, part) == files.answer(part)


@in_scene(version=Version.V2)
async def test_what_we_do_not_have_is_refused_and_layers_are_given(scene: Scene) -> None:
    files, root, _, peer = await connect_to_node(scene)
    assert await ask(peer, HashRange(root, 0, 0, 4, 0)) is None
    layer = HashRange(root, 2, 0, 16, 3)
    assert await ask(peer, layer) == files.answer(layer)


@in_scene(version=Version.V2)
async def test_a_piece_that_went_bad_is_lost_and_not_vouched_for(scene: Scene) -> None:
    _, root, node, peer = await connect_to_node(scene, is_seed=True)
    watch = Watch(node.torrent)
    damage(node.folder / NAME, PIECE_LENGTH + 5)
    assert await ask(peer, HashRange(root, 0, 4, 4, 0)) is None
    await until(lambda: watch.of(events.PieceLost) == [events.PieceLost(1)])
    assert node.torrent.stats().num_have == NUM_PIECES - 1
    os.truncate(node.folder / NAME, 0)
    assert await ask(peer, HashRange(root, 0, 8, 4, 0)) is None
    await until(lambda: events.PieceLost(2) in watch.of(events.PieceLost))


@in_scene(version=Version.V2)
async def test_reading_is_limited_and_remembered(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for ever more blocks waits with one request; who asks for the same costs nothing."""
    monkeypatch.setattr(hash_server, "READ_RATE", PIECE_LENGTH)
    files, root, _, peer = await connect_to_node(scene, is_seed=True)
    requests = [HashRange(root, 0, 4 * number, 4, 1) for number in range(NUM_PIECES - 1)]
    peer.send(b"".join(map(wire.encode_hash_request, requests[:6])))
    answers: dict[HashRange, bytes | None] = {}
    for _ in range(5):
        answers.update([await read_answer(peer)])
    assert scene.loop.time() < 0.5
    assert list(answers) == [*requests[:2], *requests[3:6]]
    assert [answers[wanted] for wanted in requests[:2]] == [
        files.answer(wanted) for wanted in requests[:2]
    ]
    assert [answers[wanted] for wanted in requests[3:6]] == [None] * 3
    for _ in range(10):
        assert await ask(peer, requests[0]) == files.answer(requests[0])
        assert scene.loop.time() < 1
        await asyncio.sleep(0.01)
    assert await read_answer(peer) == (requests[2], files.answer(requests[2]))
    assert 1 <= scene.loop.time() < 1.2
    assert await ask(peer, requests[9]) == files.answer(requests[9])
    assert 2 <= scene.loop.time() < 2.2


async def read_answer(peer: ScriptedPeer) -> tuple[HashRange, bytes | None]:
    message = await peer.expect(MessageId.HASHES, MessageId.HASH_REJECT)
    is_good = message.message_id == MessageId.HASHES
    return wire.decode_hash_range(message.payload), message.payload[48:] if is_good else None


@in_scene(version=Version.V2)
async def test_peers_wait_in_turn_for_what_must_be_read(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many; who asks for what was read meanwhile goes ahead, who has left is skipped."""
    monkeypatch.setattr(hash_server, "READ_RATE", PIECE_LENGTH)
    monkeypatch.setattr(hash_server, "MAX_POSTPONED", 4)
    files, root, node, first = await connect_to_node(scene, is_seed=True)
    requests = [HashRange(root, 0, 4 * number, 4, 1) for number in range(8)]
    for wanted in requests[:2]:
        assert await ask(first, wanted) == files.answer(wanted)
    peers = [await connect_v2(scene, node) for _ in range(5)]
    began_at = scene.loop.time()
    for peer, number in zip(peers, (2, 3, 4, 2, 5), strict=True):
        peer.send(wire.encode_hash_request(requests[number]))
        await asyncio.sleep(0.01)
    assert await read_answer(peers[4]) == (requests[5], None), "four wait"
    peers[1].close()
    more = HashRange(root, 0, 10, 2, 1)
    peers[0].send(wire.encode_hash_request(more))
    assert await read_answer(peers[0]) == (requests[2], files.answer(requests[2]))
    assert await read_answer(peers[0]) == (more, files.answer(more))
    assert await read_answer(peers[3]) == (requests[2], files.answer(requests[2]))
    assert scene.loop.time() < began_at + 1.2
    assert await read_answer(peers[2]) == (requests[4], files.answer(requests[4]))
    assert began_at + 1.5 < scene.loop.time() < began_at + 2.2


@in_scene(version=Version.V2)
async def test_memory_for_block_hashes_is_bounded(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hash_server, "MAX_REMEMBERED", 9)
    files, root, _, peer = await connect_to_node(scene, is_seed=True)
    for _ in range(2):
        for wanted in (HashRange(root, 0, 0, 16, 0), HashRange(root, 0, 16, 16, 0)):
            assert await ask(peer, wanted) == files.answer(wanted)


@in_scene(version=Version.V2)
async def test_a_flood_is_refused_and_then_closed_and_others_are_served(scene: Scene) -> None:
    files, root, node, flood = await connect_to_node(scene, is_seed=True)
    modest = await connect_v2(scene, node)
    layer = HashRange(root, 2, 0, 16, 3)
    flood.send(
        b"".join(
            wire.encode_hash_request(replace(layer, index=0, proof_layers=number % 4))
            for number in range(150)
        )
    )
    assert await ask(modest, layer) == files.answer(layer)
    for number in range(3_000):
        flood.send(wire.encode_hash_request(replace(layer, index=2 * number)))
    await flood.expect_closed(timeout=60)
    assert await ask(modest, layer) == files.answer(layer)


@in_scene(version=Version.V2, files={"": 1024 << 14}, piece_length=1 << 14)
async def test_who_asks_and_does_not_read_is_refused(scene: Scene) -> None:
    """Answers are hundreds of times as long as requests: they must not pile up."""
    files, root, _, peer = await connect_to_node(scene, is_seed=True)
    layer = HashRange(root, 0, 0, 1024, 0)
    peer.stream.pause_reading()
    for _ in range(200):
        peer.send(wire.encode_hash_request(layer))
        await asyncio.sleep(0.1)
    peer.stream.resume_reading()
    answers = [(await read_answer(peer))[1] for _ in range(200)]
    num_answered = sum(answer is not None for answer in answers)
    assert 32 <= num_answered < 100
    assert peer.num_received < 3 << 20
    assert await ask(peer, layer) == files.answer(layer), "it reads again"


def all_requests(root: bytes) -> list[HashRange]:
    """More than a hundred requests that differ and that 16 pieces answer from memory."""
    return [
        HashRange(root, level, index, length, proof_layers)
        for level in (2, 3, 4)
        for length in (2, 4, 8, 16)
        for index in range(0, 16 >> (level - 2), length)
        for proof_layers in range(6 - level)
        if index + length <= 16 >> (level - 2)
    ]


@in_scene(version=Version.V2)
async def test_answers_a_second_and_requests_that_wait_are_limited(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hash_requests, "MAX_RATE", 1)
    files, root, node, peer = await connect_to_node(scene, is_seed=True)
    requests, began = all_requests(root), scene.loop.time()
    num_at_once, num_waiting = hash_requests.UNITS, hash_requests.MAX_WAITING
    assert len(requests) > num_at_once + num_waiting
    peer.send(b"".join(map(wire.encode_hash_request, requests)))
    answered: list[HashRange] = []
    rejected: list[HashRange] = []
    while len(answered) + len(rejected) < len(requests):
        message = await peer.expect(MessageId.HASHES, MessageId.HASH_REJECT)
        wanted = wire.decode_hash_range(message.payload)
        if message.message_id == MessageId.HASH_REJECT:
            rejected.append(wanted)
        else:
            assert message.payload[48:] == files.answer(wanted)
            answered.append(wanted)
    assert answered == requests[: num_at_once + num_waiting]
    assert rejected == requests[num_at_once + num_waiting :]
    assert 0 <= scene.loop.time() - began - num_waiting / num_at_once < 0.5
    # Whoever does not heed refusals is closed, and a torrent may end with some waiting.
    for _ in range(1 + 1100 // (len(requests) - num_waiting)):
        peer.send(b"".join(map(wire.encode_hash_request, requests)))
    await peer.expect_closed(timeout=10)
    other = await connect_v2(scene, node)
    other.send(b"".join(map(wire.encode_hash_request, requests)))
    await other.expect(MessageId.HASH_REJECT)
    await node.close()


@in_scene(version=Version.V2)
async def test_answers_count_against_the_upload_limit(scene: Scene) -> None:
    files, root, _, peer = await connect_to_node(scene, is_seed=True, max_upload_rate=2_000.0)
    layer, began = HashRange(root, 2, 0, 16, 3), scene.loop.time()
    for _ in range(60):
        assert await ask(peer, layer) == files.answer(layer)
    sent = 60 * (53 + 16 * 32)
    assert scene.loop.time() - began > (sent - 16_384) / 2_000 * 0.9


@in_scene(version=Version.V2)
async def test_a_peer_that_leaves_while_its_answer_is_made(scene: Scene) -> None:
    files, root, node, leaving = await connect_to_node(scene, is_seed=True, worker_delay=1.0)
    staying = await connect_v2(scene, node)
    blocks = HashRange(root, 0, 0, 4, 0)
    leaving.send(wire.encode_hash_request(blocks))
    leaving.send(wire.encode_hash_request(replace(blocks, index=4)))
    await asyncio.sleep(0.5)
    leaving.close()
    assert await ask(staying, blocks) == files.answer(blocks)
    damage(node.folder / NAME, 4 * PIECE_LENGTH)
    leaving = await connect_v2(scene, node)
    leaving.send(wire.encode_hash_request(replace(blocks, index=16)))
    await asyncio.sleep(0.5)
    leaving.close()
    await until(lambda: node.torrent.stats().num_have == NUM_PIECES - 1)
    # And the torrent may end meanwhile.
    staying.send(wire.encode_hash_request(replace(blocks, index=8)))
    await asyncio.sleep(0.5)
    await node.close()


@in_scene(version=Version.V2)
async def test_a_bug_while_an_answer_is_made_refuses_it_and_is_not_hidden(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F17. No piece is taken for lost, and others are answered."""

    def buggy(*_: object) -> None:
        raise ZeroDivisionError

    files, root, node, peer = await connect_to_node(scene, is_seed=True)
    monkeypatch.setattr(hash_server, "read_piece_tree", buggy)
    blocks = HashRange(root, 0, 0, 4, 0)
    assert await ask(peer, blocks) is None
    assert "ZeroDivisionError" in scene.loop.failures.pop()
    monkeypatch.undo()
    assert await ask(peer, blocks) == files.answer(blocks)
    assert node.torrent.stats().num_have == NUM_PIECES


@in_scene(version=Version.V2)
async def test_on_a_volume_that_is_not_mounted_no_piece_is_lost(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F6."""

    def missing(*_: object) -> None:
        raise VolumeMissing("not mounted", path=str(scene.folder))

    files, root, node, peer = await connect_to_node(scene, is_seed=True)
    monkeypatch.setattr(hash_server, "read_piece_tree", missing)
    blocks = HashRange(root, 0, 0, 4, 0)
    assert await ask(peer, blocks) is None
    monkeypatch.undo()
    assert node.torrent.stats().num_have == NUM_PIECES
    assert await ask(peer, blocks) == files.answer(blocks)


@in_scene(version=Version.V2)
async def test_a_large_tree_is_made_in_the_worker(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hash_trees, "LARGE_LAYER", 100)
    files, root, _, peer = await connect_to_node(scene, is_seed=True, worker_delay=0.5)
    layer = HashRange(root, 2, 0, 16, 3)
    for least, most in ((0.5, 0.7), (0.0, 0.2)):
        began = scene.loop.time()
        assert await ask(peer, layer) == files.answer(layer)
        assert least <= scene.loop.time() - began < most


@in_scene(version=Version.V2)
async def test_requests_while_the_metadata_is_unknown_are_rejected(scene: Scene) -> None:
    """BEP 52: a request is answered, one way or the other."""
    link = scene.link_by("btmh")
    node = await scene.node(source=link)
    peer = await connect_v2(scene, node)
    assert await ask(peer, HashRange(bytes(32), 0, 0, 2, 0)) is None
