from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.bencode import Encodable, encode
from bittern.codec.info import Info, decode_info
from bittern.codec.merkle import block_hashes, piece_layer_of, root_of
from bittern.core.errors import Inconsistent, MisuseError
from bittern.core.geometry import BLOCK_LENGTH
from bittern.storage.hashing import (
    BlockHasher,
    Hasher,
    HybridHasher,
    PieceHashes,
    differing_blocks,
    is_good_row,
    leaves_of,
)
from tests.storage.places import noise

PIECE = 4 * BLOCK_LENGTH


class Torrent:
    """Metainfo of files ``f0``, ``f1``.. with known content, in any version."""

    def __init__(
        self,
        version: str,
        contents: Sequence[bytes],
        *,
        piece_length: int = PIECE,
        v1_contents: Sequence[bytes] | None = None,
    ) -> None:
        info: dict[bytes, Encodable] = {b"name": b"t", b"piece length": piece_length}
        self.layers: dict[bytes, bytes] = {}
        space = bytearray()
        listed: list[Encodable] = []
        for number, content in enumerate(contents):
            v1_content = v1_contents[number] if v1_contents else content
            if version != "1" and content and len(space) % piece_length:
                pad = -len(space) % piece_length
                space += bytes(pad)
                path: list[Encodable] = [b".pad", b"%d" % pad]
                listed.append({b"attr": b"p", b"length": pad, b"path": path})
            space += v1_content
            listed.append({b"length": len(content), b"path": [b"f%d" % number]})
        if version != "2":
            info[b"files"] = listed
            info[b"pieces"] = b"".join(
                hashlib.sha1(space[at : at + piece_length]).digest()
                for at in range(0, len(space), piece_length)
            )
        if version != "1":
            info[b"meta version"] = 2
            info[b"file tree"] = {
                b"f%d" % number: {b"": self._leaf(content, piece_length)}
                for number, content in enumerate(contents)
            }
        self.info: Info = decode_info(encode(info))
        self.space = bytes(space)

    def _leaf(self, content: bytes, piece_length: int) -> dict[bytes, Encodable]:
        if not content:
            return {b"length": 0}
        leaves = block_hashes(content)
        root = root_of(leaves)
        if len(content) > piece_length:
            self.layers[root] = piece_layer_of(leaves, piece_length)
        return {b"length": len(content), b"pieces root": root}

    def hashes(self) -> PieceHashes:
        return PieceHashes(self.info, self.layers)

    def piece(self, index: int) -> bytes:
        start = self.info.geometry.offset_of(index)
        return self.space[start : start + self.info.geometry.length_of(index)]


SIZES = [
    1,
    BLOCK_LENGTH - 1,
    BLOCK_LENGTH,
    BLOCK_LENGTH + 1,
    PIECE - 1,
    PIECE,
    PIECE + 1,
    3 * PIECE,
    3 * PIECE + BLOCK_LENGTH + 5,
]


def whole(data: bytes, hasher: Hasher) -> None:
    hasher.update(data)


def in_blocks(data: bytes, hasher: Hasher) -> None:
    view = memoryview(data)
    for at in range(0, len(data), BLOCK_LENGTH):
        hasher.update(view[at : at + BLOCK_LENGTH])


def in_odd_steps(data: bytes, hasher: Hasher) -> None:
    for at in range(0, len(data), 10_007):
        hasher.update(bytearray(data[at : at + 10_007]))


@pytest.mark.parametrize("feed", [whole, in_blocks, in_odd_steps])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("version", ["1", "2", "hybrid"])
def test_right_bytes_are_good_and_one_wrong_bit_is_bad(
    version: str, size: int, feed: Callable[[bytes, Hasher], None]
) -> None:
    torrent = Torrent(version, [noise(700, 5), noise(size), b"", noise(size, 2)])
    hashes = torrent.hashes()
    for index in range(torrent.info.geometry.num_pieces):
        assert hashes.is_known(index)
        data = torrent.piece(index)
        hasher = hashes.start(index)
        feed(data, hasher)
        assert hashes.is_good(index, hasher)
        for at in (0, len(data) // 2, len(data) - 1):
            if version == "hybrid" and not any(data[at:]):
                continue  # padding, which only v1 counts: see below
            wrong = bytearray(data)
            wrong[at] ^= 1
            hasher = hashes.start(index)
            feed(bytes(wrong), hasher)
            assert not hashes.is_good(index, hasher)


@pytest.mark.parametrize("version", ["1", "2", "hybrid"])
def test_a_piece_that_was_not_fed_is_bad(version: str) -> None:
    hashes = Torrent(version, [noise(PIECE)]).hashes()
    assert not hashes.is_good(0, hashes.start(0))


def test_v1_pieces_are_fed_to_hashlib_itself() -> None:
    hasher = Torrent("1", [noise(PIECE)]).hashes().start(0)
    assert type(hasher) is type(hashlib.sha1())


@pytest.mark.parametrize("version", ["1", "2", "hybrid"])
def test_a_row_of_v1_pieces_is_good_if_all_are(version: str) -> None:
    torrent = Torrent(version, [noise(3 * PIECE + 1)])
    hashes = torrent.hashes()
    hashers = [hashes.start(index) for index in range(4)]
    for index, hasher in enumerate(hashers):
        hasher.update(torrent.space[index * PIECE : (index + 1) * PIECE])
    assert is_good_row(hashes, 0, hashers) is (version == "1")
    assert is_good_row(hashes, 1, hashers[1:3]) is (version == "1")
    assert not is_good_row(hashes, 0, hashers[1:])
    assert not is_good_row(hashes, 0, [*hashers[:3], hashes.start(3)])


def test_halves_that_disagree_are_said_so() -> None:
    """Limit: P13: good in one and bad in the other is nobody's fault but the torrent's."""
    right, other = noise(3 * PIECE), noise(3 * PIECE, 2)
    hashes = Torrent("hybrid", [right], v1_contents=[right[:PIECE] + other[PIECE:]]).hashes()
    first = hashes.start(0)
    first.update(right[:PIECE])
    assert hashes.is_good(0, first)
    for content in (right, other):
        hasher = hashes.start(1)
        hasher.update(content[PIECE : 2 * PIECE])
        with pytest.raises(Inconsistent, match=r"piece 1 matches its v. hash and not its v."):
            hashes.is_good(1, hasher)
    hasher = hashes.start(1)
    hasher.update(bytes(PIECE))
    assert not hashes.is_good(1, hasher)


def test_padding_of_a_hybrid_counts_for_v1_only() -> None:
    torrent = Torrent("hybrid", [noise(100), noise(50)])
    hashes = torrent.hashes()
    hasher = hashes.start(0)
    assert isinstance(hasher, HybridHasher)
    hasher.update(torrent.piece(0)[:-1] + b"\1")
    assert hasher.blocks.leaves() == block_hashes(noise(100))
    with pytest.raises(Inconsistent):
        hashes.is_good(0, hasher)


def test_layers_that_come_later() -> None:
    """As after a magnet link."""
    torrent = Torrent("2", [noise(3 * PIECE), noise(3 * PIECE), noise(10), noise(2 * PIECE, 3)])
    hashes = PieceHashes(torrent.info, {})
    roots = [entry.pieces_root for entry in hashes.missing_layers()]
    assert roots == [torrent.info.files[0].pieces_root, torrent.info.files[3].pieces_root]
    assert [hashes.is_known(index) for index in range(9)] == [False] * 6 + [True] + [False] * 2
    hasher = hashes.start(0)
    hasher.update(torrent.piece(0))
    with pytest.raises(MisuseError, match="piece 0"):
        hashes.is_good(0, hasher)
    (first, layer), (second, other) = torrent.layers.items()
    assert not hashes.add_piece_layer(first, other)
    assert not hashes.add_piece_layer(first, layer[:-32])
    assert not hashes.add_piece_layer(bytes(32), layer)
    small = torrent.info.files[2].pieces_root
    assert small is not None
    assert not hashes.add_piece_layer(small, small)
    assert hashes.add_piece_layer(first, layer)
    assert [entry.pieces_root for entry in hashes.missing_layers()] == [second]
    assert hashes.is_good(0, hasher)
    assert hashes.add_piece_layer(second, other)
    assert hashes.missing_layers() == []
    assert hashes.piece_layers == torrent.layers


def test_v1_needs_no_layers() -> None:
    hashes = Torrent("1", [noise(3 * PIECE)]).hashes()
    assert hashes.missing_layers() == []
    assert hashes.piece_layers == {}


@pytest.mark.parametrize("version", ["2", "hybrid"])
@pytest.mark.parametrize("index", [-1, 3])
def test_pieces_are_checked(version: str, index: int) -> None:
    with pytest.raises(IndexError):
        Torrent(version, [noise(3 * PIECE)]).hashes().start(index)


@given(
    st.integers(0, 3 * BLOCK_LENGTH),
    st.lists(st.integers(0, 2 * BLOCK_LENGTH), max_size=8),
    st.integers(0, 100),
)
def test_leaves_do_not_depend_on_the_steps(length: int, steps: list[int], extra: int) -> None:
    content = noise(length)
    hasher = BlockHasher(length)
    at = 0
    for step in steps:
        hasher.update(content[at : at + step])
        at += step
    hasher.update(content[at:])
    hasher.update(bytes(extra))
    assert hasher.leaves() == block_hashes(content)
    assert hasher.leaves() == block_hashes(content)


def test_leaves_of_every_kind_of_hasher() -> None:
    data = noise(40_000)
    blocks, hybrid = BlockHasher(40_000), HybridHasher(40_000)
    blocks.update(data)
    hybrid.update(data + bytes(100))
    assert leaves_of(blocks) == leaves_of(hybrid) == block_hashes(data)
    assert leaves_of(hashlib.sha1(data)) is None


def test_differing_blocks_are_named() -> None:
    right = noise(5 * BLOCK_LENGTH)
    wrong = bytearray(right)
    wrong[0] ^= 1
    wrong[3 * BLOCK_LENGTH + 7] ^= 1
    leaves = block_hashes(right)
    assert differing_blocks(leaves, leaves) == []
    assert differing_blocks(block_hashes(bytes(wrong)), leaves) == [0, 3]
    assert differing_blocks(leaves[:-64], leaves) == [3, 4]
    assert differing_blocks(b"", b"") == []


def test_plans_say_what_to_hash_in_one_go() -> None:
    contents = [noise(2 * PIECE + 5), noise(10, 2)]
    v1, v2, hybrid = (Torrent(version, contents).hashes() for version in ("1", "2", "hybrid"))
    assert v1.plan_run(0, 3) == (3, True, 0, None)
    assert [v2.plan_run(index, 1) for index in range(4)] == [
        (1, False, PIECE, 2),
        (1, False, PIECE, 2),
        (1, False, 5, 2),
        (1, False, 10, None),
    ]
    assert v2.plan_run(0, 4) == (3, False, 2 * PIECE + 5, 2)
    assert hybrid.plan_run(1, 2) == (2, True, PIECE + 5, 2)
    assert hybrid.plan_run(2, 2) == (1, True, 5, 2)


@pytest.mark.parametrize("version", ["1", "2", "hybrid"])
def test_a_run_is_good_when_all_of_it_is(version: str) -> None:
    torrent = Torrent(version, [noise(3 * PIECE + 5), noise(10, 2)])
    hashes, num_pieces = torrent.hashes(), torrent.info.geometry.num_pieces
    pieces = [torrent.piece(index) for index in range(num_pieces)]
    v1 = b"".join(hashlib.sha1(piece).digest() for piece in pieces) if version != "2" else b""
    v2 = b"".join(torrent.layers.values()) if version != "1" else b""
    count = num_pieces if version == "1" else 4
    v1 = v1[: count * 20]
    assert hashes.are_good(0, count, v1, v2)
    assert hashes.are_good(1, 2, v1[20:60], v2[32:96])
    assert not hashes.are_good(0, 2, v1[20:60], v2[:64] if version == "hybrid" else v2[32:96])
    if version != "1":
        assert not hashes.are_good(0, 2, v1[:40], v2[32:96])
        assert hashes.are_good(4, 1, b"", root_of(block_hashes(noise(10, 2))))
        # A layer that is not known yet makes nothing good.
        assert not PieceHashes(torrent.info, {}).are_good(0, count, v1, v2)


def judge(torrent: Torrent, hashes: PieceHashes, index: int) -> bool:
    hasher = hashes.start(index)
    hasher.update(torrent.piece(index))
    return hashes.is_good(index, hasher)


def test_threads_that_hash_side_by_side_find_the_places_of_their_own_pieces() -> None:
    torrent = Torrent("2", [noise(PIECE * count, count) for count in (1, 3, 2)])
    hashes = torrent.hashes()
    files = [entry for entry in torrent.info.files if entry.pieces_root is not None]
    expected = [
        (entry, at) for entry, count in zip(files, (1, 3, 2), strict=True) for at in range(count)
    ]
    wrong: list[int] = []

    def ask(first: int) -> None:
        for number in range(20_000):
            index = (first + number) % len(expected)
            if hashes.place_of(index) != expected[index]:
                wrong.append(index)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_the_good_pieces_of_a_hybrid_make_the_layer_that_nobody_sent() -> None:
    torrent = Torrent("hybrid", [noise(2 * PIECE + 5), noise(10, 2)])
    hashes = PieceHashes(torrent.info, {})
    assert not hashes.is_known(0)
    assert hashes.can_judge(0)
    wrong = hashes.start(1)
    wrong.update(noise(PIECE, 9))
    assert not hashes.is_good(1, wrong)
    for index in (2, 0, 2, 3):
        assert judge(torrent, hashes, index)
        assert hashes.piece_layers == {}
    assert judge(torrent, hashes, 1)
    assert hashes.piece_layers == torrent.layers
    assert hashes.missing_layers() == []
    # What is known is not noted again.
    hashes.note(0, bytes(32))
    assert hashes.piece_layers == torrent.layers


def test_v2_pieces_cannot_be_judged_before_their_layer_comes() -> None:
    hashes = PieceHashes(Torrent("2", [noise(2 * PIECE), noise(10)]).info, {})
    assert [hashes.can_judge(index) for index in range(3)] == [False, False, True]


def test_good_pieces_that_make_another_layer_than_the_root_stands_for_are_said_so() -> None:
    """Limit: P13: its v1 half is that of other content."""
    right, other = noise(2 * PIECE), noise(2 * PIECE, 2)
    torrent = Torrent("hybrid", [right], v1_contents=[other])
    hashes = PieceHashes(torrent.info, {})
    assert judge(torrent, hashes, 0)
    with pytest.raises(Inconsistent, match="piece 1 matches its v1 hash"):
        judge(torrent, hashes, 1)


def test_a_layer_that_contradicts_good_pieces_is_said_so_and_taken() -> None:
    right, other = noise(2 * PIECE), noise(2 * PIECE, 2)
    torrent = Torrent("hybrid", [right], v1_contents=[right[:PIECE] + other[PIECE:]])
    hashes = PieceHashes(torrent.info, {})
    assert judge(torrent, hashes, 1)
    [(root, layer)] = torrent.layers.items()
    with pytest.raises(Inconsistent, match="piece 1 matches its v1 hash"):
        hashes.add_piece_layer(root, layer)
    assert hashes.piece_layers == torrent.layers
    assert judge(torrent, hashes, 0)


def test_a_layer_that_agrees_with_the_good_pieces_is_taken() -> None:
    """It comes from a peer while a hybrid is judged by v1."""
    torrent = Torrent("hybrid", [noise(4 * PIECE + 5), noise(3 * PIECE, 2)])
    hashes = PieceHashes(torrent.info, {})
    for index in (0, 2, 4, 6):
        assert judge(torrent, hashes, index)
    for root, layer in torrent.layers.items():
        assert hashes.add_piece_layer(root, layer)
    assert hashes.piece_layers == torrent.layers
    assert all(judge(torrent, hashes, index) for index in range(8))


def test_the_hash_of_a_piece_that_was_never_written() -> None:
    contents = [bytes(2 * PIECE), bytes(PIECE + 5), bytes(10)]
    torrent = Torrent("2", contents)
    hashes = torrent.hashes()
    for _ in range(2):
        for index in range(torrent.info.geometry.num_pieces):
            assert hashes.hash_of_zeros(index) == hashes.piece_hash(index)
    assert Torrent("2", [noise(PIECE)]).hashes().hash_of_zeros(0) == root_of(
        block_hashes(bytes(PIECE))
    )


def test_files_are_found_by_their_root() -> None:
    torrent = Torrent("2", [noise(2 * PIECE), noise(10, 2), noise(10, 2)])
    hashes = torrent.hashes()
    first, second, _ = torrent.info.files
    assert first.pieces_root is not None
    assert second.pieces_root is not None
    assert hashes.file_of(first.pieces_root) == first
    assert hashes.file_of(second.pieces_root) == second
    assert hashes.file_of(bytes(32)) is None
    assert (hashes.piece_length, hashes.level) == (PIECE, 2)
