"""
Where the bytes of the piece space lie: from positions to files and back.

The space is cut into segments, each a run of one file, of padding (BEP 47) or
of a gap behind the last byte of a v2 file (BEP 52). Segments touch one
another and cover the whole space, so finding a position is one ``bisect``.
Padding and gaps belong to ``NOT_STORED``. Empty files have no segment and
shift nothing: files are known by their index everywhere (Limit: P12).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from bittern.core.bitfield import Bitfield
from bittern.core.errors import MisuseError
from bittern.core.geometry import Geometry
from bittern.storage.base import Buffer

NOT_STORED: Final = -1
"""File index of padding and gaps: reads give zeros, writes are dropped."""


class PlacedFile(Protocol):
    """What the layout, and storage through it, reads of a file entry."""

    @property
    def path(self) -> tuple[str, ...]:
        """Elements as the torrent has them; only to find the targets of links."""

    @property
    def length(self) -> int:
        """Bytes of the file; 0 for a symbolic link."""

    @property
    def offset(self) -> int:
        """Position of its first byte in the piece space."""

    @property
    def is_pad(self) -> bool:
        """True for padding (BEP 47)."""

    @property
    def is_executable(self) -> bool:
        """True for a program (BEP 47)."""

    @property
    def symlink_target(self) -> tuple[str, ...] | None:
        """Where a symbolic link points (BEP 47); None for all else."""


class Span(NamedTuple):
    """A run of bytes inside one file, or inside padding (index ``NOT_STORED``)."""

    file_index: int
    file_offset: int
    length: int


class Layout:
    """
    The map of one torrent's piece space.

    Args:
        files: by index, in rising order of ``offset``.
        geometry: of the same torrent.

    Raises:
        MisuseError: files overlap, are out of order or leave the space; metainfo
            that was checked never does that.
    """

    __slots__ = ("_ends", "_geometry", "_owners", "_starts", "end", "files")

    def __init__(self, files: Sequence[PlacedFile], geometry: Geometry) -> None:
        self.files: Sequence[PlacedFile] = files
        self._geometry = geometry
        self.end: int = geometry.num_pieces * geometry.piece_length
        """Length of the piece space."""
        starts: list[int] = []
        owners: list[int] = []
        at = 0
        for index, entry in enumerate(files):
            if not entry.length:
                continue
            if entry.offset < at:
                raise MisuseError(f"file {index} begins at {entry.offset}, before {at}")
            if entry.offset > at:
                starts.append(at)
                owners.append(NOT_STORED)
            starts.append(entry.offset)
            owners.append(NOT_STORED if entry.is_pad else index)
            at = entry.offset + entry.length
        if at > self.end:
            raise MisuseError(f"files end at {at}, the piece space at {self.end}")
        if at < self.end:
            starts.append(at)
            owners.append(NOT_STORED)
        self._owners = owners
        self._starts = starts
        self._ends = [*starts[1:], self.end]

    def locate(self, offset: int) -> tuple[int, int, int]:
        """
        Return (file index, position in the file, bytes up to the end of the segment).

        Raises:
            MisuseError: ``offset`` is not in the piece space.

        O(log files); the fast path of reading and writing.
        """
        if not 0 <= offset < self.end:
            raise MisuseError(f"position {offset} of a piece space of {self.end}")
        at = bisect_right(self._starts, offset) - 1
        return self._owners[at], offset - self._starts[at], self._ends[at] - offset

    def spans(self, offset: int, length: int) -> list[Span]:
        """
        Cut a run of the piece space into runs of single files, in order.

        Raises:
            MisuseError: the run leaves the piece space.
        """
        if offset < 0 or length < 0 or offset + length > self.end:
            raise MisuseError(f"{length} bytes at {offset} of a piece space of {self.end}")
        found: list[Span] = []
        at = bisect_right(self._starts, offset) - 1
        while length:
            take = min(length, self._ends[at] - offset)
            found.append(Span(self._owners[at], offset - self._starts[at], take))
            offset += take
            length -= take
            at += 1
        return found

    def split(
        self, offset: int, buffers: Sequence[Buffer]
    ) -> Iterator[tuple[Span, list[memoryview]]]:
        """
        Cut ``buffers``, which lie end to end at ``offset``, along file borders.

        Raises:
            MisuseError: the run leaves the piece space.
        """
        rest = [memoryview(buffer) for buffer in reversed(buffers) if len(buffer)]
        for span in self.spans(offset, sum(map(len, rest))):
            wanted = span.length
            parts: list[memoryview] = []
            while wanted:
                head = rest.pop()
                if len(head) > wanted:
                    rest.append(head[wanted:])
                    head = head[:wanted]
                parts.append(head)
                wanted -= len(head)
            yield span, parts

    def is_stored(self, index: int) -> bool:
        """Tell whether the file has a place on disk: no padding, no link (Limit: P11, P12)."""
        entry = self.files[index]
        return not entry.is_pad and entry.symlink_target is None

    def pieces_of_file(self, index: int) -> range:
        """Return the pieces that hold bytes of file ``index``; empty for an empty file."""
        entry = self.files[index]
        if not entry.length:
            return range(0)
        piece_length = self._geometry.piece_length
        last = (entry.offset + entry.length - 1) // piece_length
        return range(entry.offset // piece_length, last + 1)

    def files_of_piece(self, index: int) -> list[int]:
        """Return the files, pads left out, that have bytes in piece ``index``, in order."""
        start = self._geometry.offset_of(self._geometry.check_index(index))
        low = bisect_right(self._starts, start) - 1
        high = bisect_left(self._starts, start + self._geometry.piece_length)
        return [owner for owner in self._owners[low:high] if owner != NOT_STORED]

    def verified_lengths(self, have: Bitfield) -> list[int]:
        """Return for each file, pads too, how many of its bytes lie in pieces of ``have``."""
        piece_length = self._geometry.piece_length
        # before[i] is the number of pieces in ``have`` below i, for sums over ranges.
        before = [0] * (have.num_pieces + 1)
        for index in have:
            before[index + 1] = 1
        for index in range(have.num_pieces):
            before[index + 1] += before[index]
        lengths = []
        for index, entry in enumerate(self.files):
            pieces = self.pieces_of_file(index)
            if not pieces:
                lengths.append(0)
                continue
            first, last = pieces[0], pieces[-1]
            total = (before[last + 1] - before[first]) * piece_length
            if first in have:
                total -= entry.offset - first * piece_length
            if last in have:
                total -= (last + 1) * piece_length - (entry.offset + entry.length)
            lengths.append(total)
        return lengths

    def __repr__(self) -> str:
        return f"<Layout {len(self.files)} files, {len(self._starts)} segments>"
