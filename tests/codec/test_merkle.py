"""Hash trees against a tree of plain lists, and proofs from every place to every root."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.merkle import (
    HASH_LENGTH,
    PAD_HASHES,
    HashTree,
    ancestor_of,
    block_hashes,
    full_proof_layers,
    has_zero_hash,
    height_of,
    is_hash_request,
    is_piece_layer,
    is_proof,
    layer_above,
    num_blocks,
    num_uncles,
    parent_layer,
    piece_layer_of,
    piece_level,
    root_of,
)

BLOCK = 16_384


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _levels(leaves: list[bytes]) -> list[list[bytes]]:
    """Every level of the whole tree, filled up to a power of two, as BEP 52 describes it."""
    level = leaves + [bytes(32)] * ((1 << (len(leaves) - 1).bit_length()) - len(leaves))
    levels = [level]
    while len(level) > 1:
        level = [_sha256(level[at] + level[at + 1]) for at in range(0, len(level), 2)]
        levels.append(level)
    return levels


def _leaves(count: int) -> list[bytes]:
    return [_sha256(b"%d" % number) for number in range(count)]


def test_pad_hashes_are_roots_of_zeros() -> None:
    assert PAD_HASHES[0] == bytes(32)
    for level in range(6):
        assert _levels([bytes(32)] * (1 << level))[-1] == [PAD_HASHES[level]]


@pytest.mark.parametrize(
    ("count", "height"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4)]
)
def test_height(count: int, height: int) -> None:
    assert height_of(count) == height


def test_blocks_are_hashed_apart() -> None:
    data = random.Random(1).randbytes(2 * BLOCK + 5)
    expected = [_sha256(data[:BLOCK]), _sha256(data[BLOCK : 2 * BLOCK]), _sha256(data[2 * BLOCK :])]
    for given_data in (data, bytearray(data), memoryview(data)):
        assert block_hashes(given_data) == b"".join(expected)
    assert num_blocks(len(data)) == 3
    assert block_hashes(b"") == b""


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 31, 33])
class TestLayers:
    def test_root(self, count: int) -> None:
        leaves = _leaves(count)
        assert root_of(b"".join(leaves)) == _levels(leaves)[-1][0]

    def test_each_layer_is_the_real_part_of_the_level(self, count: int) -> None:
        leaves = _leaves(count)
        levels = _levels(leaves)
        for target, level in enumerate(levels):
            num_real = -(-count >> target)
            layer = layer_above(b"".join(leaves), 0, target)
            assert layer == b"".join(level[:num_real])
            assert root_of(layer, target) == levels[-1][0]

    def test_a_tree_answers_like_the_whole_tree(self, count: int) -> None:
        leaves = _leaves(count)
        levels = _levels(leaves)
        tree = HashTree(b"".join(leaves))
        assert tree.root == levels[-1][0]
        assert tree.num_hashes == len(leaves)
        assert tree.top_level == len(levels) - 1
        for number, level in enumerate(levels):
            assert tree.nodes(number, 0, len(level)) == b"".join(level)
        for index in range(len(levels[0])):
            uncles = [level[(index >> n) ^ 1] for n, level in enumerate(levels[:-1])]
            assert tree.uncles(0, index, len(uncles)) == b"".join(uncles)

    def test_every_request_is_answered_with_a_proof(self, count: int) -> None:
        leaves = _leaves(count)
        levels = _levels(leaves)
        height = len(levels) - 1
        for base in range(height):
            tree = HashTree(layer_above(b"".join(leaves), 0, base), base)
            for bits in range(1, height - base + 1):
                length = 1 << bits
                proof_layers = full_proof_layers(base, count)
                for index in range(0, len(levels[base]), length):
                    assert is_hash_request(base, index, length, proof_layers, num_leaves=count)
                    message = tree.proof(base, index, length, proof_layers)
                    hashes = message[: length * HASH_LENGTH]
                    uncles = message[length * HASH_LENGTH :]
                    assert hashes == b"".join(levels[base][index : index + length])
                    assert len(uncles) == num_uncles(length, proof_layers) * HASH_LENGTH
                    assert is_proof(
                        hashes,
                        uncles,
                        level=base,
                        index=index,
                        num_leaves=count,
                        root=levels[-1][0],
                    )


def test_a_shorter_proof_leads_to_the_node_below_the_root() -> None:
    levels = _levels(_leaves(16))
    tree = HashTree(b"".join(levels[0]))
    message = tree.proof(0, 4, 2, 2)
    assert len(message) == 4 * HASH_LENGTH
    found = ancestor_of(message[:64], message[64:], level=0, index=4)
    assert found == levels[3][0]


def test_lowest_proof_layers_are_left_out_of_a_message() -> None:
    """BEP 52: the first log2(length) - 1 of them, which still count."""
    assert [num_uncles(2, layers) for layers in range(4)] == [0, 1, 2, 3]
    assert [num_uncles(8, layers) for layers in range(6)] == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize("length", [5 * BLOCK, 8 * BLOCK, 3 * BLOCK + 1, 9 * BLOCK])
def test_proofs_of_leaves_join_the_tree_of_a_piece_and_that_of_the_pieces(length: int) -> None:
    data = random.Random(length).randbytes(length)
    piece_length = 4 * BLOCK
    leaves = block_hashes(data)
    layer = piece_layer_of(leaves, piece_length)
    upper = HashTree(layer, piece_level(piece_length))
    count = num_blocks(length)
    for piece in range(-(-length // piece_length)):
        part = leaves[piece * 4 * HASH_LENGTH : (piece + 1) * 4 * HASH_LENGTH]
        lower = HashTree(part, top_level=piece_level(piece_length))
        assert lower.root == upper.nodes(2, piece, 1)
        hashes = lower.nodes(0, 2, 2)
        uncles = lower.uncles(1, 1, 1) + upper.uncles(2, piece, upper.top_level - 2)
        assert is_proof(
            hashes,
            uncles,
            level=0,
            index=piece * 4 + 2,
            num_leaves=count,
            root=root_of(leaves),
        )


class TestRefusedProofs:
    COUNT = 11
    LEVELS = _levels(_leaves(COUNT))
    TREE = HashTree(b"".join(LEVELS[0][:COUNT]))
    ROOT = LEVELS[-1][0]

    def _check(self, hashes: bytes, uncles: bytes, index: int = 8, count: int = COUNT) -> bool:
        return is_proof(hashes, uncles, level=0, index=index, num_leaves=count, root=self.ROOT)

    def test_any_changed_byte(self) -> None:
        message = self.TREE.proof(0, 8, 4, full_proof_layers(0, self.COUNT))
        assert self._check(message[:128], message[128:])
        for at in range(len(message)):
            bad = bytearray(message)
            bad[at] ^= 1
            assert not self._check(bytes(bad[:128]), bytes(bad[128:]))

    def test_another_place(self) -> None:
        message = self.TREE.proof(0, 8, 4, 3)
        assert not self._check(message[:128], message[128:], index=4)

    def test_too_few_or_too_many_uncles(self) -> None:
        message = self.TREE.proof(0, 8, 4, 3)
        assert not self._check(message[:128], message[128:-32])
        assert not self._check(message[:128], message[128:] + bytes(32))

    def test_zero_hash_where_there_is_data(self) -> None:
        """The tree is right, but the file claims to be one block longer."""
        message = self.TREE.proof(0, 8, 4, 3)
        assert not self._check(message[:128], message[128:], count=self.COUNT + 1)

    def test_a_hash_where_there_is_no_data(self) -> None:
        message = self.TREE.proof(0, 8, 4, 3)
        assert not self._check(message[:128], message[128:], count=self.COUNT - 1)


REQUESTS: list[tuple[tuple[int, int, int, int], bool]] = [
    ((0, 0, 2, 3), True),
    ((0, 0, 16, 0), True),
    ((0, 8, 8, 3), True),
    ((3, 0, 2, 0), True),
    ((0, 0, 2, 4), False),
    ((0, 0, 2, -1), False),
    ((0, 0, 1, 3), False),
    ((0, 0, 0, 3), False),
    ((0, 0, 3, 3), False),
    ((0, 0, 32, 0), False),
    ((0, 1, 2, 3), False),
    ((0, 16, 2, 3), False),
    ((0, -2, 2, 3), False),
    ((-1, 0, 2, 3), False),
    ((4, 0, 2, 0), False),
    ((5, 0, 2, 0), False),
    ((1 << 40, 0, 2, 0), False),
    ((0, 1 << 40, 2, 0), False),
]


@pytest.mark.parametrize(("request_fields", "is_good"), REQUESTS)
def test_requests_must_fit_the_tree(
    request_fields: tuple[int, int, int, int], is_good: bool
) -> None:
    assert is_hash_request(*request_fields, num_leaves=11) is is_good


def test_requests_have_a_highest_length() -> None:
    """Limit: H10: libtorrent takes and makes requests for all blocks of a piece of 128 MiB."""
    assert is_hash_request(0, 8192, 8192, 0, num_leaves=30_000)
    assert not is_hash_request(0, 0, 16_384, 0, num_leaves=30_000)


@pytest.mark.parametrize(
    ("piece_length", "level"), [(BLOCK, 0), (2 * BLOCK, 1), (64 * BLOCK, 6), (512 << 20, 15)]
)
def test_level_of_the_piece_layer(piece_length: int, level: int) -> None:
    assert piece_level(piece_length) == level


class TestPieceLayers:
    DATA = random.Random(3).randbytes(9 * BLOCK + 1)
    LEAVES = block_hashes(DATA)

    @pytest.mark.parametrize("piece_length", [BLOCK, 2 * BLOCK, 4 * BLOCK])
    def test_layer_belongs_to_the_root(self, piece_length: int) -> None:
        layer = piece_layer_of(self.LEAVES, piece_length)
        root = root_of(self.LEAVES)
        length = len(self.DATA)
        assert is_piece_layer(layer, root=root, length=length, piece_length=piece_length)
        for bad in (layer[:-32], layer + bytes(32), layer[:-1] + b"\x00", b"", layer[32:]):
            assert not is_piece_layer(bad, root=root, length=length, piece_length=piece_length)

    def test_a_parent_of_an_odd_layer_takes_the_pad_of_its_level(self) -> None:
        one = _sha256(b"")
        assert parent_layer(one, 3) == _sha256(one + PAD_HASHES[3])


@given(st.integers(1, 40), st.data())
def test_partial_trees_compose(count: int, data: st.DataObject) -> None:
    leaves = b"".join(_leaves(count))
    middle = data.draw(st.integers(0, height_of(count)))
    assert HashTree(layer_above(leaves, 0, middle), middle).root == root_of(leaves)


def test_zeros_are_a_hash_only_in_its_place() -> None:
    """A run of zeros across two hashes is none, and may hide one behind it."""
    across = b"x" * 16 + bytes(32) + b"x" * 16
    assert not has_zero_hash(across)
    assert has_zero_hash(across + bytes(32))
    assert not has_zero_hash(b"")
