"""
What is wanted out of whole files as they pass, from a web seed that knows no ranges.

Such a server sends a file from its first byte to its last, whatever was asked for.
So a ``WholeFiles`` claims each piece when its first byte comes, unless somebody else
is at it, and lets the others pass. Where a piece goes on in the next file, that file
follows.

Source: BEP 19.
"""

from __future__ import annotations

from bittern.core.bitfield import lowest_index
from bittern.core.geometry import Geometry
from bittern.policy.picker import Picker
from bittern.policy.pieces import Pieces
from bittern.proto.block_cutter import BlockCutter
from bittern.proto.peer_events import ReceivedBlock
from bittern.storage.layout import NOT_STORED, Layout


class WholeFiles:
    """
    The one described in the module's text, for one walk through adjacent files.

    Args:
        layout: of the torrent.
        geometry: of the same.
        picker: knows what is missing.
        pieces: those in progress.

    Attributes:
        position: in the piece space, of the next byte.
        piece: index of the piece that is being received; None while bytes only pass.
        num_skipped: bytes that passed.
    """

    __slots__ = (
        "_cutter",
        "_geometry",
        "_layout",
        "_picker",
        "_pieces",
        "num_skipped",
        "piece",
        "position",
    )

    def __init__(self, layout: Layout, geometry: Geometry, picker: Picker, pieces: Pieces) -> None:
        self.position: int = 0
        self.piece: int | None = None
        self.num_skipped: int = 0
        self._layout = layout
        self._geometry = geometry
        self._picker = picker
        self._pieces = pieces
        self._cutter: BlockCutter | None = None

    def claimable(self, bits: int) -> int:
        """Return those pieces of ``bits`` that are wanted and that nobody is at."""
        return bits & self._picker.missing & (~self._picker.open | self._pieces.joinable)

    def begin(self, bits: int) -> int | None:
        """
        Go to the start of the file in which the first claimable piece of ``bits`` begins.

        Returns:
            The bytes that will pass before that piece; None when there is no such piece.
        """
        pool = self.claimable(bits)
        if not pool:
            return None
        offset = self._geometry.offset_of(lowest_index(pool, self._picker.top))
        owner, within, _ = self._layout.locate(offset)
        if owner == NOT_STORED:
            within = 0
        self.position = offset - within
        return within

    def room(self) -> int:
        """Return how many bytes there are up to the next border between pieces."""
        index, begin = divmod(self.position, self._geometry.piece_length)
        length = self._geometry.length_of(index)
        # Behind the end of a v2 file lies nothing up to the next piece.
        return length - begin if begin < length else self._geometry.piece_length - begin

    def next_piece(self) -> int | None:
        """Return the piece that begins here; None in the middle of one."""
        index, begin = divmod(self.position, self._geometry.piece_length)
        return None if begin else index

    def claim(self, index: int) -> None:
        """Receive the piece that begins here."""
        self.piece = index
        self._cutter = BlockCutter(self._geometry, self.position)

    def feed(self, data: bytes | memoryview) -> list[ReceivedBlock]:
        """
        Take the next bytes, at most as many as there is ``room``.

        Returns:
            Whole blocks of the claimed piece.
        """
        self.position += len(data)
        if self._cutter is None:
            self.num_skipped += len(data)
            return []
        blocks = self._cutter.feed(data)
        index, begin = divmod(self.position, self._geometry.piece_length)
        if index != self.piece or begin >= self._geometry.length_of(index):
            self.piece = self._cutter = None
        return blocks
