"""proto.block_cutter: blocks out of bytes that come in lots of any size."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.proto.block_cutter import BlockCutter

PIECE_LENGTH = 40_000
"""Two blocks and a half."""
LENGTH = 3 * PIECE_LENGTH + 17_000
GEOMETRY = Geometry.contiguous(PIECE_LENGTH, LENGTH, LENGTH)
DATA = random.Random(1).randbytes(LENGTH)


def naive(offset: int, stop: int) -> list[tuple[int, int, bytes]]:
    """Return the blocks that are whole between two positions."""
    blocks = []
    for index in range(GEOMETRY.num_pieces):
        for begin in range(0, GEOMETRY.length_of(index), BLOCK_LENGTH):
            start = index * PIECE_LENGTH + begin
            end = start + GEOMETRY.block_length(index, begin)
            if start >= offset and end <= stop:
                blocks.append((index, begin, DATA[start:end]))
    return blocks


@pytest.mark.parametrize("lot", [1, 1_000, BLOCK_LENGTH, 50_000, LENGTH])
@pytest.mark.parametrize("offset", [0, BLOCK_LENGTH, PIECE_LENGTH, 3 * PIECE_LENGTH + BLOCK_LENGTH])
def test_every_block_comes_once_and_whole(offset: int, lot: int) -> None:
    if lot == 1:
        offset = 3 * PIECE_LENGTH  # byte by byte is slow: the last piece will do
    cutter = BlockCutter(GEOMETRY, offset)
    found = []
    for at in range(offset, LENGTH, lot):
        found += [
            (i, b, bytes(data)) for i, b, data in cutter.feed(DATA[at : min(at + lot, LENGTH)])
        ]
    assert found == naive(offset, LENGTH)
    assert cutter.position == 4 * PIECE_LENGTH


@given(st.lists(st.integers(0, 60_000), max_size=12))
def test_any_division_into_lots_gives_the_same(lengths: list[int]) -> None:
    cutter, at, found = BlockCutter(GEOMETRY, 0), 0, []
    for length in lengths:
        part = DATA[at : at + length]
        found += [(i, b, bytes(data)) for i, b, data in cutter.feed(part)]
        at += len(part)
        assert found == naive(0, at)
        # The block that is not whole begins behind the last one that is.
        after = sum(len(data) for _, _, data in found)
        assert cutter.position == (after if after < LENGTH else 4 * PIECE_LENGTH)


def test_a_piece_that_ends_with_a_block_has_no_empty_one_behind_it() -> None:
    geometry = Geometry.contiguous(2 * BLOCK_LENGTH, 4 * BLOCK_LENGTH, 4 * BLOCK_LENGTH)
    blocks = BlockCutter(geometry, 0).feed(DATA[: 4 * BLOCK_LENGTH])
    assert [(i, b, len(data)) for i, b, data in blocks] == [
        (index, begin, BLOCK_LENGTH) for index in (0, 1) for begin in (0, BLOCK_LENGTH)
    ]


def test_whole_blocks_are_not_copied() -> None:
    data = DATA[: 2 * BLOCK_LENGTH]
    blocks = BlockCutter(GEOMETRY, 0).feed(data)
    assert [block.obj is data for _, _, block in blocks] == [True, True]


def test_what_is_left_of_a_lot_does_not_depend_on_it_any_more() -> None:
    buffer = bytearray(DATA[:20_000])
    cutter = BlockCutter(GEOMETRY, 0)
    cutter.feed(memoryview(buffer))
    buffer[:] = bytes(20_000)
    [(_, begin, block)] = cutter.feed(DATA[20_000:35_000])
    assert begin == BLOCK_LENGTH
    assert block == DATA[BLOCK_LENGTH : 2 * BLOCK_LENGTH]


def test_a_run_goes_on_behind_the_gap_of_a_v2_file() -> None:
    """The caller feeds no gap; the next piece begins where it begins."""
    geometry = Geometry(32_768, 2, {0: 20_000}, 40_000, has_gaps=True)
    cutter = BlockCutter(geometry, 0)
    blocks = cutter.feed(DATA[:20_000])
    assert [(i, b, len(data)) for i, b, data in blocks] == [(0, 0, 16_384), (0, 16_384, 3_616)]
    assert cutter.position == 32_768
