"""Piece and block arithmetic against a naive list of bytes."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.bitfield import Bitfield
from bittern.core.geometry import BLOCK_LENGTH, MAX_REQUEST_LENGTH, Geometry
from tests.strategies import bitfields, geometries

B = BLOCK_LENGTH

CONTIGUOUS = [
    # piece length, bytes in the space, lengths of the pieces
    (B, 0, []),
    (B, 1, [1]),
    (B, B - 1, [B - 1]),
    (B, B, [B]),
    (B, B + 1, [B, 1]),
    (4 * B, 9 * B + 5, [4 * B, 4 * B, B + 5]),
    (7, 20, [7, 7, 6]),
    (1, 3, [1, 1, 1]),
]


@pytest.mark.parametrize(("piece_length", "length", "lengths"), CONTIGUOUS)
def test_pieces_of_a_contiguous_torrent(piece_length: int, length: int, lengths: list[int]) -> None:
    geometry = Geometry.contiguous(piece_length, length, length - 1)
    assert geometry.num_pieces == len(lengths)
    assert [geometry.length_of(index) for index in range(len(lengths))] == lengths
    assert geometry.total_length == length - 1
    assert geometry.short_pieces == {
        index: found for index, found in enumerate(lengths) if found != piece_length
    }


def test_short_pieces_in_the_middle() -> None:
    """Two v2 files of one and a half pieces each."""
    geometry = Geometry(2 * B, 4, {1: B, 3: B + 1}, 6 * B + 1)
    assert [geometry.length_of(index) for index in range(4)] == [2 * B, B, 2 * B, B + 1]
    assert [geometry.offset_of(index) for index in range(4)] == [0, 2 * B, 4 * B, 6 * B]
    assert [geometry.num_blocks(index) for index in range(4)] == [2, 1, 2, 2]
    assert geometry.num_blocks(0) == 2
    assert geometry.block_length(1, 0) == B
    assert geometry.block_length(3, B) == 1


def test_short_pieces_are_copied_and_read_only() -> None:
    given_ones = {0: 5}
    geometry = Geometry(10, 1, given_ones, 5)
    given_ones[0] = 7
    assert geometry.length_of(0) == 5
    with pytest.raises(TypeError):
        geometry.short_pieces[0] = 7  # type: ignore[index]


@given(geometries())
def test_blocks_tile_every_piece(geometry: Geometry) -> None:
    total = 0
    for index in range(geometry.num_pieces):
        length = geometry.length_of(index)
        assert 0 < length <= geometry.piece_length
        assert geometry.offset_of(index) == index * geometry.piece_length
        begins = range(0, length, B)
        assert geometry.num_blocks(index) == len(begins)
        lengths = [geometry.block_length(index, begin) for begin in begins]
        assert sum(lengths) == length
        assert all(found == B for found in lengths[:-1])
        assert 0 < lengths[-1] <= B
        total += length
    assert total == geometry.total_length


@given(geometries(), st.integers(-3, 200), st.integers(-3, 1 << 21), st.integers(-3, 1 << 19))
def test_valid_requests_lie_inside_a_piece(
    geometry: Geometry, index: int, begin: int, length: int
) -> None:
    expected = (
        index in range(geometry.num_pieces)
        and begin >= 0
        and 1 <= length <= MAX_REQUEST_LENGTH
        and begin + length <= geometry.length_of(index)
    )
    assert geometry.is_valid_request(index, begin, length) is expected


@pytest.mark.parametrize(
    ("index", "begin", "length", "is_valid"),
    [
        (0, 0, 1, True),
        (0, 0, MAX_REQUEST_LENGTH, True),
        (0, 0, MAX_REQUEST_LENGTH + 1, False),
        (0, 0, 0, False),
        (0, 0, -1, False),
        (0, -1, 1, False),
        (0, 524_287, 1, True),
        (0, 524_287, 2, False),
        (0, 524_288, 1, False),
        (1, 0, 100, True),
        (1, 1, 100, False),
        (1, 100, 1, False),
        (2, 0, 1, False),
        (-1, 0, 1, False),
        (1 << 32, 0, 1, False),
        (0, (1 << 32) - 1, 1, False),
    ],
)
def test_requests_at_the_edges(index: int, begin: int, length: int, is_valid: bool) -> None:
    geometry = Geometry.contiguous(524_288, 524_388, 524_388)
    assert geometry.is_valid_request(index, begin, length) is is_valid


@pytest.mark.parametrize(("index", "is_inside"), [(0, True), (1, True), (2, False), (-1, False)])
def test_only_checked_indices_become_piece_indices(index: int, is_inside: bool) -> None:
    geometry = Geometry.contiguous(10, 20, 20)
    if is_inside:
        assert geometry.check_index(index) == index
    else:
        with pytest.raises(IndexError, match=f"piece {index} of 2"):
            geometry.check_index(index)


@given(geometries(), st.data())
def test_the_bytes_of_a_set_of_pieces(geometry: Geometry, data: st.DataObject) -> None:
    field = data.draw(bitfields(geometry.num_pieces))
    assert geometry.total_of(field.bits) == sum(geometry.length_of(index) for index in field)


def test_padding_is_not_counted() -> None:
    geometry = Geometry.contiguous(10, 35, 12, {0: 9, 1: 4, 2: 10})
    assert [geometry.length_of(index) for index in range(4)] == [10, 10, 10, 5]
    for field, length in ("1111", 12), ("1000", 1), ("1100", 7), ("0101", 11), ("0000", 0):
        assert geometry.total_of(int(field + "0000", 2)) == length
    many = Geometry.contiguous(10, 300, 60, dict.fromkeys(range(3, 27), 10))
    for index in range(30):
        expected = 1 if 3 <= index < 27 else 10
        assert many.total_of(Bitfield.of(30, [index]).bits) == expected
    assert geometry.total_of(0b0010_0000) == 1, "what is missing is never nothing"


def test_showing() -> None:
    assert repr(Geometry.contiguous(10, 25, 24)) == "<Geometry 3 x 10, 24 bytes>"


def test_v2_padding_may_be_asked_for() -> None:
    """libtorrent before 2.0.9 does."""
    geometry = Geometry(4 * B, 3, {0: 5, 2: B + 1}, 9 * B, has_gaps=True)
    assert geometry.is_valid_request(0, 0, B)
    assert geometry.is_valid_request(0, 3 * B, B)
    assert not geometry.is_valid_request(0, 3 * B, B + 1)
    assert geometry.is_valid_request(2, B, B)
    assert not geometry.is_valid_request(3, 0, B)


def test_it_is_a_value() -> None:
    one = Geometry(4, 3, {2: 1}, 9, has_gaps=True, padding={1: 2})
    assert one == Geometry(4, 3, {2: 1}, 9, has_gaps=True, padding={1: 2})
    assert one == copy.deepcopy(one) == pickle.loads(pickle.dumps(one))
    assert hash(one) == hash(copy.copy(one))
    assert one != Geometry(4, 3, {2: 1}, 9, has_gaps=True)
    assert one != Geometry(4, 3, {2: 2}, 9, has_gaps=True, padding={1: 2})
    assert one != (4, 3)
