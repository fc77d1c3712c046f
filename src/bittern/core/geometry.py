"""
Piece and block arithmetic of one torrent, the same for v1, v2 and hybrid.

Pieces lie in one *piece space* of ``num_pieces * piece_length`` positions. v1
lays its files end to end in it, v2 starts each file at a multiple of the piece
length, a hybrid does both by padding. What differs is only which pieces are
shorter than ``piece_length``: the last of a v1 torrent, the last of each file
of a v2 torrent. Where files lie in the space is the business of
``storage.layout``, which hash a piece has that of the metainfo.

Sources: BEP 3 (pieces), BEP 52 (alignment of files to pieces).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import NewType

PieceIndex = NewType("PieceIndex", int)
"""A piece index that has been checked against its torrent."""

BLOCK_LENGTH = 16_384
"""Bytes of a block as we request it (BEP 3: all current implementations use 2^14)."""

MAX_REQUEST_LENGTH = 262_144
"""Limit: H2. The longest request that we serve; older clients ask for up to 128 KiB."""


class Geometry:
    """
    Sizes of the pieces and blocks of one torrent.

    Args:
        piece_length: nominal bytes of a piece, >= 1.
        num_pieces: >= 0.
        short_pieces: lengths of the pieces that are shorter than
            ``piece_length``, by index.
        total_length: bytes of the torrent's files without padding; what a
            person calls its size.
        has_gaps: behind the end of each file lies nothing up to the next piece, as in v2.
        padding: bytes of padding in each piece that has some (BEP 47).
    """

    __slots__ = (
        "has_gaps",
        "num_pieces",
        "padding",
        "piece_length",
        "short_pieces",
        "total_length",
    )

    def __init__(
        self,
        piece_length: int,
        num_pieces: int,
        short_pieces: Mapping[int, int],
        total_length: int,
        *,
        has_gaps: bool = False,
        padding: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self.has_gaps: bool = has_gaps
        self.padding: Mapping[int, int] = MappingProxyType(dict(padding))
        self.piece_length: int = piece_length
        self.num_pieces: int = num_pieces
        self.short_pieces: Mapping[int, int] = MappingProxyType(dict(short_pieces))
        self.total_length: int = total_length

    @classmethod
    def contiguous(
        cls,
        piece_length: int,
        space_length: int,
        total_length: int,
        padding: Mapping[int, int] = MappingProxyType({}),
    ) -> Geometry:
        """Geometry of a v1 or hybrid torrent: ``space_length`` bytes end to end, pads included."""
        num_pieces = -(-space_length // piece_length)
        tail = space_length % piece_length
        short = {num_pieces - 1: tail} if tail else {}
        return cls(piece_length, num_pieces, short, total_length, padding=padding)

    def check_index(self, index: int) -> PieceIndex:
        """Return ``index`` as a piece index of this torrent; IndexError if it is none."""
        if not 0 <= index < self.num_pieces:
            raise IndexError(f"piece {index} of {self.num_pieces}")
        return PieceIndex(index)

    def length_of(self, index: int) -> int:
        """Return the bytes of piece ``index``."""
        return self.short_pieces.get(index, self.piece_length)

    def total_of(self, bits: int) -> int:
        """
        Return the bytes of a set of pieces, given as the ``bits`` of a ``Bitfield``.

        Padding is not counted: nobody wants it, and it may be more than all files together. A set
        that is nothing else has one byte, so that a tracker does not take us for a seed.
        """
        total = bits.bit_count() * self.piece_length
        # Bytes, as shifting the number anew for each file costs files times pieces.
        wire = bits.to_bytes((self.num_pieces + 7) // 8, "big")
        for index, length in self.short_pieces.items():
            if wire[index >> 3] & 0x80 >> (index & 7):
                total -= self.piece_length - length
        for index, length in self.padding.items():
            if wire[index >> 3] & 0x80 >> (index & 7):
                total -= length
        return max(total, int(bits > 0))

    def offset_of(self, index: int) -> int:
        """Return the position of piece ``index`` in the piece space."""
        return index * self.piece_length

    def num_blocks(self, index: int) -> int:
        """Return how many 16 KiB blocks piece ``index`` has; the last may be shorter."""
        return -(-self.short_pieces.get(index, self.piece_length) // BLOCK_LENGTH)

    def block_length(self, index: int, begin: int) -> int:
        """Return the bytes of the block of piece ``index`` that starts at ``begin``."""
        return min(BLOCK_LENGTH, self.short_pieces.get(index, self.piece_length) - begin)

    def is_valid_request(self, index: int, begin: int, length: int) -> bool:
        """
        Tell whether a peer may ask for this: inside the piece, 1 to 262,144 bytes.

        Interop: of v2 torrents, libtorrent before 2.0.9 asks for blocks of full length also where
        a file ends, and takes the padding that a hybrid would have there.
        """
        return (
            0 <= index < self.num_pieces
            and 0 < length <= MAX_REQUEST_LENGTH
            and begin >= 0
            and begin + length <= (self.piece_length if self.has_gaps else self.length_of(index))
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Geometry):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash((self.piece_length, self.num_pieces, self.total_length))

    def __reduce__(self) -> tuple[object, ...]:
        # Read-only mappings can be neither copied nor pickled.
        sizes = (self.piece_length, self.num_pieces, dict(self.short_pieces), self.total_length)
        return partial(Geometry, has_gaps=self.has_gaps, padding=dict(self.padding)), sizes

    def __repr__(self) -> str:
        return f"<Geometry {self.num_pieces} x {self.piece_length}, {self.total_length} bytes>"
