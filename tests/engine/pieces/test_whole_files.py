"""engine.pieces.whole_files: what is wanted out of files that come from their first byte on."""

from __future__ import annotations

import random

from bittern.codec.file_list import FileEntry
from bittern.core.geometry import Geometry
from bittern.engine.pieces.whole_files import WholeFiles
from bittern.policy.open_piece import PeerShare
from bittern.policy.picker import Picker
from bittern.policy.pieces import Pieces
from bittern.storage.layout import Layout

PIECE = 32_768


class Nothing:
    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Hash nothing."""


class Torrent:
    """As much of one as a walk sees; pieces are given as their indices."""

    def __init__(self, lengths: list[int], *, have: set[int], is_v2: bool = False) -> None:
        files, offset, short = [], 0, {}
        for number, length in enumerate(lengths):
            files.append(FileEntry((str(number),), length, offset))
            offset += length
            if is_v2 and offset % PIECE:
                short[offset // PIECE] = offset % PIECE
                offset += PIECE - offset % PIECE
        self.geometry = (
            Geometry(PIECE, offset // PIECE, short, sum(lengths), has_gaps=True)
            if is_v2
            else Geometry.contiguous(PIECE, offset, offset)
        )
        self.picker = Picker(self.geometry.num_pieces, random.Random(1))
        self.picker.set_have(self.bits(*have))
        self.pieces = Pieces(self.geometry, self.picker, lambda _: Nothing(), {})
        self.layout = Layout(files, self.geometry)
        self.walk = WholeFiles(self.layout, self.geometry, self.picker, self.pieces)

    def bits(self, *indices: int) -> int:
        return sum(1 << (self.picker.top - index) for index in indices)

    @property
    def all(self) -> int:
        return self.bits(*range(self.geometry.num_pieces))


def test_a_walk_begins_with_the_file_of_the_first_piece_that_is_free() -> None:
    # Pieces:      0  1    2         3    4
    # Files:      [0      ][1          ][2    ]
    torrent = Torrent([70_000, 60_000, 20_000], have={0, 1})
    walk = torrent.walk
    assert walk.begin(torrent.all) == 2 * PIECE
    assert walk.position == 0
    assert walk.begin(torrent.all & ~torrent.bits(2)) == 3 * PIECE - 70_000
    assert walk.position == 70_000
    assert walk.begin(torrent.bits(4)) == 4 * PIECE - 130_000
    assert walk.begin(torrent.bits(0, 1)) is None


def test_what_others_are_at_is_not_claimable_until_they_let_go() -> None:
    torrent = Torrent([4 * PIECE], have={3})
    other = PeerShare("other")
    torrent.pieces.plan(other, torrent.bits(1), 1)
    assert torrent.walk.claimable(torrent.all) == torrent.bits(0, 2)
    torrent.pieces.abandon(other)
    assert torrent.walk.claimable(torrent.all) == torrent.bits(0, 1, 2)


def test_a_piece_in_progress_that_is_not_wanted_any_more_is_not_claimable() -> None:
    torrent = Torrent([4 * PIECE], have={3})
    torrent.pieces.restore(1, [0])
    assert torrent.walk.claimable(torrent.all) == torrent.bits(0, 1, 2)
    torrent.picker.set_priorities([4, 0, 4, 4])
    assert torrent.walk.claimable(torrent.all) == torrent.bits(0, 2)
    other = PeerShare("other")
    assert torrent.pieces.plan(other, torrent.bits(1), 9) == []


def test_claimed_pieces_come_as_blocks_and_the_others_pass() -> None:
    torrent = Torrent([2 * PIECE + 20_000], have=set())
    walk, data = torrent.walk, random.Random(2).randbytes(2 * PIECE + 20_000)
    assert walk.begin(torrent.all) == 0
    assert (walk.next_piece(), walk.room()) == (0, PIECE)
    assert walk.feed(data[:10_000]) == []
    assert (walk.next_piece(), walk.room()) == (None, PIECE - 10_000)
    assert walk.feed(data[10_000:PIECE]) == []
    assert walk.num_skipped == PIECE
    walk.claim(1)
    assert walk.piece == 1
    blocks = walk.feed(data[PIECE : 2 * PIECE])
    assert [(i, b, bytes(d)) for i, b, d in blocks] == [
        (1, 0, data[PIECE : PIECE + 16_384]),
        (1, 16_384, data[PIECE + 16_384 : 2 * PIECE]),
    ]
    assert walk.piece is None
    assert walk.room() == 20_000
    walk.claim(2)
    assert [(i, b, len(d)) for i, b, d in walk.feed(data[2 * PIECE :])] == [
        (2, 0, 16_384),
        (2, 16_384, 20_000 - 16_384),
    ]
    assert walk.piece is None
    assert walk.num_skipped == PIECE


def test_a_claimed_piece_comes_in_parts() -> None:
    torrent = Torrent([2 * PIECE], have=set())
    walk, data = torrent.walk, random.Random(2).randbytes(PIECE)
    walk.begin(torrent.all)
    walk.claim(0)
    blocks = []
    for at in range(0, PIECE, 10_000):
        assert walk.piece == 0
        assert walk.room() == PIECE - at
        blocks += [(i, b, bytes(d)) for i, b, d in walk.feed(data[at : at + 10_000])]
    assert blocks == [(0, 0, data[:16_384]), (0, 16_384, data[16_384:])]
    assert (walk.piece, walk.next_piece(), walk.num_skipped) == (None, 1, 0)


def test_behind_the_end_of_a_v2_file_comes_a_gap() -> None:
    torrent = Torrent([PIECE + 100, PIECE], have={0}, is_v2=True)
    walk = torrent.walk
    assert walk.begin(torrent.all) == PIECE
    walk.feed(bytes(PIECE))
    walk.claim(1)
    assert walk.room() == 100
    assert [len(data) for _, _, data in walk.feed(bytes(100))] == [100]
    assert walk.piece is None
    assert walk.room() == PIECE - 100
    walk.feed(bytes(PIECE - 100))
    assert walk.next_piece() == 2


def test_a_piece_that_begins_in_padding_begins_there() -> None:
    """Padding is not fetched, so there is no file to begin with."""
    geometry = Geometry.contiguous(PIECE, 3 * PIECE, PIECE)
    files = [
        FileEntry(("a",), 100, 0),
        FileEntry((".pad", "x"), 2 * PIECE - 100, 100, is_pad=True),
        FileEntry(("b",), PIECE, 2 * PIECE),
    ]
    picker = Picker(3, random.Random(1))
    pieces = Pieces(geometry, picker, lambda _: Nothing(), {})
    walk = WholeFiles(Layout(files, geometry), geometry, picker, pieces)
    assert walk.begin(1 << (picker.top - 1)) == 0
    assert walk.position == PIECE
