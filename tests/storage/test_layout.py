from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.bitfield import Bitfield
from bittern.core.errors import MisuseError
from bittern.core.geometry import Geometry
from bittern.storage.layout import NOT_STORED, Layout
from tests.storage.places import Place, aligned, contiguous, layouts


def naive_map(layout: Layout) -> list[tuple[int, int]]:
    """For each position of the piece space the file and the position in it."""
    found = [(NOT_STORED, 0)] * layout.end
    for index, entry in enumerate(layout.files):
        if not entry.is_pad:
            for at in range(entry.length):
                found[entry.offset + at] = (index, at)
    return found


@given(layouts(), st.data())
def test_spans_against_a_map_of_every_byte(layout: Layout, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, layout.end))
    length = data.draw(st.integers(0, layout.end - offset))
    spans = layout.spans(offset, length)
    assert sum(span.length for span in spans) == length
    assert all(span.length > 0 for span in spans)
    flat = [
        (index, begin + at) if index != NOT_STORED else (NOT_STORED, 0)
        for index, begin, count in spans
        for at in range(count)
    ]
    assert flat == naive_map(layout)[offset : offset + length]


@given(layouts(), st.data())
def test_locate_against_a_map_of_every_byte(layout: Layout, data: st.DataObject) -> None:
    if not layout.end:
        return
    offset = data.draw(st.integers(0, layout.end - 1))
    where = naive_map(layout)
    index, position, room = layout.locate(offset)
    assert index == where[offset][0]
    assert index == NOT_STORED or position == where[offset][1]
    assert room > 0
    assert {place[0] for place in where[offset : offset + room]} == {index}


@given(layouts(), st.lists(st.integers(0, 50), max_size=9), st.data())
def test_split_keeps_every_byte(layout: Layout, sizes: list[int], data: st.DataObject) -> None:
    while sum(sizes) > layout.end:
        sizes.pop()
    offset = data.draw(st.integers(0, layout.end - sum(sizes)))
    content = bytes(number % 251 for number in range(sum(sizes)))
    buffers = []
    at = 0
    for size in sizes:
        buffers.append(content[at : at + size])
        at += size
    found = list(layout.split(offset, buffers))
    assert [span for span, _ in found] == layout.spans(offset, len(content))
    assert b"".join(b"".join(parts) for _, parts in found) == content
    assert all(sum(map(len, parts)) == span.length for span, parts in found)


@given(layouts())
def test_pieces_and_files_against_a_map_of_every_byte(layout: Layout) -> None:
    where = naive_map(layout)
    piece_length = layout.end // max(1, len(where)) and layout._geometry.piece_length
    for index, entry in enumerate(layout.files):
        expected = sorted(
            {at // piece_length for at in range(entry.offset, entry.offset + entry.length)}
        )
        assert list(layout.pieces_of_file(index)) == expected
    for piece in range(layout.end // piece_length if layout.end else 0):
        owners = {index for index, _ in where[piece * piece_length : (piece + 1) * piece_length]}
        assert layout.files_of_piece(piece) == sorted(owners - {NOT_STORED})


@given(layouts(), st.data())
def test_verified_lengths_against_counting(layout: Layout, data: st.DataObject) -> None:
    num_pieces = layout.end // layout._geometry.piece_length
    have = Bitfield.of(
        num_pieces, data.draw(st.sets(st.integers(0, num_pieces - 1))) if num_pieces else ()
    )
    expected = [
        sum(
            (entry.offset + at) // layout._geometry.piece_length in have
            for at in range(entry.length)
        )
        for entry in layout.files
    ]
    assert layout.verified_lengths(have) == expected


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (0, 129), (129, 0), (64, 65)])
def test_runs_outside_the_space_are_misuse(offset: int, length: int) -> None:
    with pytest.raises(MisuseError):
        contiguous(100, 28).spans(offset, length)


@pytest.mark.parametrize("offset", [-1, 128, 1 << 60])
def test_positions_outside_the_space_are_misuse(offset: int) -> None:
    with pytest.raises(MisuseError, match="piece space of 128"):
        contiguous(100, 28).locate(offset)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([Place(10, 0), Place(10, 5)], "file 1 begins at 5, before 10"),
        ([Place(10, 64), Place(10, 0)], "file 1 begins at 0"),
        ([Place(200, 0)], "files end at 200, the piece space at 128"),
    ],
)
def test_impossible_files_are_misuse(places: list[Place], message: str) -> None:
    with pytest.raises(MisuseError, match=message):
        Layout(places, Geometry(64, 2, {}, 128))


def test_pads_and_links_are_not_stored() -> None:
    geometry = Geometry.contiguous(64, 64, 10)
    places = [Place(10), Place(54, 10, is_pad=True), Place(0, 64, symlink_target=("f",))]
    layout = Layout(places, geometry)
    assert [layout.is_stored(index) for index in range(3)] == [True, False, False]
    assert layout.spans(0, 64) == [(0, 0, 10), (NOT_STORED, 0, 54)]


def test_a_torrent_of_empty_files_has_an_empty_space() -> None:
    layout = aligned(0, 0)
    assert layout.end == 0
    assert layout.spans(0, 0) == []
    assert layout.verified_lengths(Bitfield(0)) == [0, 0]
    assert repr(layout) == "<Layout 2 files, 0 segments>"


def test_pieces_are_checked() -> None:
    with pytest.raises(IndexError):
        contiguous(100).files_of_piece(2)


def test_twenty_thousand_files_are_found_in_microseconds() -> None:
    layout = contiguous(*range(1, 20_001), piece_length=1 << 14)
    began = time.process_time()
    for offset in range(0, layout.end, layout.end // 5000):
        layout.locate(offset)
    assert time.process_time() - began < 0.2
