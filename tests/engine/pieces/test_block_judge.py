"""engine.pieces.block_judge: bad blocks and their senders, exactly (BEP 52; Limit: H4)."""

from __future__ import annotations

import random
from collections.abc import Collection, Hashable
from pathlib import Path

import pytest

from bittern.codec.info import Version
from bittern.codec.merkle import block_hashes
from bittern.core.geometry import BLOCK_LENGTH
from bittern.engine import events
from bittern.engine.pieces import block_judge
from bittern.engine.pieces.block_judge import BlockJudge, BlocksDone
from bittern.policy.open_piece import OpenPiece, PeerShare
from bittern.policy.picker import Picker
from bittern.policy.pieces import Pieces
from bittern.storage.hashing import PieceHashes
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.engine.hash_peers import BlockPeer, HashPeer
from tests.engine.scene import GIVEN, NUM_PIECES, Scene, Watch, in_scene, until
from tests.virtual_time import simulated

BLOCKS = 4
"""Of a piece."""


@pytest.mark.parametrize("version", [Version.V2, Version.HYBRID])
@pytest.mark.parametrize("seed", range(4))
@in_scene(files={"": 12 << 20}, version=GIVEN)
async def test_a_poisoner_is_banned_at_its_first_bad_block(scene: Scene, seed: int) -> None:
    """One block in a hundred is bad; honest peers are not banned, and keep what they gave."""
    dice = random.Random(seed)
    first = dice.randrange(1, 100)
    poisoner = BlockPeer(scene, lambda number, _, __: number % 100 == first)
    seeds = [await scene.node(is_seed=True) for _ in range(2)]
    node = await scene.node(peers=[poisoner.endpoint, *seeds])
    watch = Watch(node.torrent)
    await node.complete()
    assert node.has_content()
    assert [event.endpoint for event in watch.of(events.PeerBanned)] == [poisoner.endpoint]
    assert len(poisoner.bad) == 1
    assert poisoner.num_served >= first
    assert watch.of(events.PieceFailed) == [events.PieceFailed(poisoner.bad[0][0])]
    # Nothing but that block was fetched again.
    stats = node.torrent.stats()
    assert stats.downloaded - stats.wasted <= (12 << 20) + BLOCK_LENGTH


@in_scene(files={"": 12 << 20}, version=Version.V2)
async def test_a_peer_that_did_good_before_is_banned_all_the_same(scene: Scene) -> None:
    """v1 forgives an address once that delivered eight good pieces; a hash leaves no doubt."""
    poisoner = BlockPeer(scene, lambda number, _, __: number == 300)
    seed = await scene.node(is_seed=True, max_upload_rate=100_000.0)
    node = await scene.node(peers=[poisoner.endpoint, seed])
    watch = Watch(node.torrent)
    await until(lambda: bool(watch.of(events.PeerBanned)))
    assert poisoner.num_served >= 300
    assert node.torrent.stats().num_have > 8


@in_scene(version=Version.V2)
async def test_without_anybody_to_ask_it_goes_as_with_v1(scene: Scene) -> None:
    """The hashes are refused; the liar alone sent the piece, the honest one completes it."""
    poisoner = BlockPeer(scene, lambda number, _, __: number == 5)
    honest = BlockPeer(scene, lambda *_: False)
    refusing = HashPeer(scene, lambda _: None)
    node = await scene.node(peers=[poisoner.endpoint, honest.endpoint, refusing.endpoint])
    watch = Watch(node.torrent)
    await node.complete()
    assert node.has_content()
    assert [event.endpoint for event in watch.of(events.PeerBanned)] == [poisoner.endpoint]


class Court:
    """A judge, the pieces of a torrent in memory, and a peer that gives hashes when told to."""

    def __init__(self, tmp_path: Path, loop: VirtualLoop, version: Version = Version.V2) -> None:
        scene = Scene(loop, tmp_path, version=version)
        self.data = scene.data
        metainfo = scene.metainfo
        self.geometry = metainfo.info.geometry
        self.hashes = PieceHashes(metainfo.info, metainfo.piece_layers)
        self.picker = Picker(NUM_PIECES, random.Random(1))
        self.pieces = Pieces(self.geometry, self.picker, self.hashes.start, {})
        self.log: list[tuple[object, ...]] = []
        self.asked: dict[int, tuple[BlocksDone, Collection[Hashable]]] = {}
        self.has_peers = True
        self.judge = BlockJudge(
            self.hashes,
            self.pieces,
            self.fetch,
            piece_failed=lambda index: self.log.append(("failed", index)),
            guilty=lambda guilty: self.log.append(("guilty", guilty)),
            undecided=lambda piece: self.log.append(("undecided", piece.index)),
        )

    def fetch(self, index: int, done: BlocksDone, *, avoid: Collection[Hashable] = ()) -> bool:
        if self.has_peers:
            self.asked[index] = done, avoid
        return self.has_peers

    def leaves(self, index: int) -> bytes:
        return block_hashes(self.data[index * BLOCKS * BLOCK_LENGTH :][: BLOCKS * BLOCK_LENGTH])

    def answer(self, index: int, *, is_known: bool = True) -> None:
        self.asked.pop(index)[0](self.leaves(index) if is_known else None)

    def block(self, index: int, number: int, *, is_bad: bool = False) -> memoryview:
        at = (index * BLOCKS + number) * BLOCK_LENGTH
        length = self.geometry.block_length(index, number * BLOCK_LENGTH)
        data = bytearray(self.data[at : at + length])
        if is_bad:
            data[-1] ^= 1
        return memoryview(data)

    def piece(self, index: int, senders: str, bad: str = "") -> OpenPiece:
        """Return an open piece of which each block came from one of ``senders``."""
        piece = self.pieces.open_piece(index)
        for number, sender in enumerate(senders):
            share = PeerShare(sender)
            self.pieces.plan(share, 1 << (self.picker.top - index), 1)
            data = self.block(index, number, is_bad=str(number) in bad)
            self.pieces.receive(share, [(index, number * BLOCK_LENGTH, data)])
        assert piece.is_complete
        return piece


@pytest.fixture
def court(tmp_path: Path, simulate: Simulate) -> Court:
    async def main(loop: VirtualLoop) -> Court:
        return Court(tmp_path, loop)

    return simulate(main)


def test_those_who_sent_bad_blocks_and_nobody_else(court: Court) -> None:
    piece = court.piece(3, "abcb", bad="13")
    assert court.judge.take(piece)
    assert court.asked[3][1] == {"a", "b", "c"}
    assert court.log == []
    assert list(court.judge.waiting) == [3]
    court.answer(3)
    assert court.log == [("failed", 3), ("guilty", {"b"})]
    assert not court.judge.waiting
    assert piece.received_blocks() == [0, 2]
    assert piece.senders == ["a", None, "c", None]
    # Whoever comes next is asked for the bad ones alone.
    share = PeerShare("d")
    runs = court.pieces.plan(share, 1 << (court.picker.top - 3), 9)
    assert runs == [(3, BLOCK_LENGTH, 2 * BLOCK_LENGTH), (3, 3 * BLOCK_LENGTH, 4 * BLOCK_LENGTH)]


def test_a_sole_sender_is_guilty_before_the_hashes_come(court: Court) -> None:
    assert court.judge.take(court.piece(3, "aaaa", bad="2"))
    assert court.log == [("guilty", {"a"})]
    court.answer(3)
    assert court.log[1:] == [("failed", 3), ("guilty", {"a"})]


def test_each_block_of_a_known_piece_is_checked_as_it_arrives(court: Court) -> None:
    piece = court.piece(3, "abcb", bad="13")
    court.judge.take(piece)
    court.answer(3)
    court.log.clear()
    share = PeerShare("d")
    court.pieces.plan(share, 1 << (court.picker.top - 3), 9)
    good = (3, BLOCK_LENGTH, court.block(3, 1))
    bad = (3, 3 * BLOCK_LENGTH, court.block(3, 3, is_bad=True))
    elsewhere = (7, 0, court.block(7, 0, is_bad=True))
    assert court.judge.sift(share, [good, bad, elsewhere]) == ([good, elsewhere], BLOCK_LENGTH)
    assert court.log == [("guilty", {"d"})]
    assert court.judge.sift(share, [good]) == ([good], 0)
    court.pieces.receive(share, [good])
    runs = court.pieces.plan(PeerShare("e"), 1 << (court.picker.top - 3), 9)
    assert runs == [(3, 3 * BLOCK_LENGTH, 4 * BLOCK_LENGTH)]
    court.judge.piece_passed(3)
    court.judge.piece_passed(4)
    assert not court.judge.known


@simulated
async def test_the_padding_of_a_hybrid_has_no_hash(loop: VirtualLoop, tmp_path: Path) -> None:
    """The last block of a file is checked up to its end, what comes after is not v2's."""
    scene = Scene(loop, tmp_path, files={"a": 20_000, "b": 70_000}, version=Version.HYBRID)
    info = scene.metainfo.info
    hashes = PieceHashes(info, scene.metainfo.piece_layers)
    pieces = Pieces(info.geometry, Picker(3, random.Random(1)), hashes.start, {})
    accused: list[set[Hashable]] = []
    judge = BlockJudge(
        hashes,
        pieces,
        lambda *_, **__: False,
        piece_failed=lambda _: None,
        guilty=accused.append,
        undecided=lambda _: None,
    )
    judge.known[0] = block_hashes(scene.files["a"])
    share = PeerShare("a")
    tail = scene.files["a"][BLOCK_LENGTH:]
    padded = memoryview(tail + bytes(2 * BLOCK_LENGTH - 20_000))
    pad = memoryview(bytes(BLOCK_LENGTH))
    blocks = [(0, BLOCK_LENGTH, padded), (0, 2 * BLOCK_LENGTH, pad)]
    assert judge.sift(share, blocks) == (blocks, 0)
    wrong = [(0, BLOCK_LENGTH, memoryview(bytes(BLOCK_LENGTH)))]
    assert judge.sift(share, wrong) == ([], BLOCK_LENGTH)
    assert accused == [{"a"}]


def test_what_cannot_be_found_out_is_handed_back(
    court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert court.judge.take(court.piece(1, "abab", bad="0"))
    court.answer(1, is_known=False)
    assert court.log == [("undecided", 1)]
    court.has_peers = False
    assert not court.judge.take(court.piece(2, "abab", bad="0"))
    court.has_peers = True
    monkeypatch.setattr(block_judge, "MAX_CASES", 0)
    assert not court.judge.take(court.piece(3, "abab", bad="0"))


def test_a_piece_that_is_gone_when_the_hashes_come(court: Court) -> None:
    piece = court.piece(1, "abab", bad="0")
    court.judge.take(piece)
    court.pieces.close_bad(piece, exclusive=False)
    court.answer(1)
    assert court.log == []


def test_our_own_disk_is_nobody_elses_fault(court: Court) -> None:
    """Every block was right when it came, yet the piece read back is wrong."""
    piece = court.piece(3, "abcb", bad="13")
    court.judge.take(piece)
    court.answer(3)
    court.log.clear()
    share = PeerShare("d")
    court.pieces.plan(share, 1 << (court.picker.top - 3), 9)
    for number in (1, 3):
        court.pieces.receive(share, [(3, number * BLOCK_LENGTH, court.block(3, number))])
    for number in range(BLOCKS):
        piece.hasher.update(court.block(3, number, is_bad=number == 2))
    assert court.judge.take(piece)
    assert court.log == [("failed", 3)]
    assert piece.received_blocks() == [0, 1, 3]


@simulated
async def test_a_v1_torrent_has_nothing_to_judge_by(loop: VirtualLoop, tmp_path: Path) -> None:
    court = Court(tmp_path, loop, Version.V1)
    assert not court.judge.take(court.piece(3, "abcb", bad="1"))
