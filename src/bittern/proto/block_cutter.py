"""
Blocks out of a run of bytes of the piece space, as HTTP brings them.

HTTP knows nothing of blocks: its bytes come in lots of any size and cross borders
of blocks, pieces and files. ``BlockCutter`` is fed the bytes of a run in order,
padding included, and hands out each block once it is whole. It copies only what a
lot leaves of a block, so it holds one block at most.

Source: BEP 19.
"""

from __future__ import annotations

from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.proto.peer_events import ReceivedBlock


class BlockCutter:
    """
    The one described in the module's text.

    Args:
        geometry: of the torrent.
        offset: position in the piece space of the first byte, the start of a block.
    """

    __slots__ = ("_begin", "_geometry", "_index", "_length", "_partial", "_piece_length")

    def __init__(self, geometry: Geometry, offset: int) -> None:
        self._geometry = geometry
        self._index, self._begin = divmod(offset, geometry.piece_length)
        self._partial = bytearray()
        self._piece_length = geometry.length_of(self._index)
        self._length = min(BLOCK_LENGTH, self._piece_length - self._begin)

    @property
    def position(self) -> int:
        """Where in the piece space the block begins that is not whole yet."""
        return self._index * self._geometry.piece_length + self._begin

    def feed(self, data: bytes | memoryview) -> list[ReceivedBlock]:
        """
        Take the next bytes.

        Returns:
            The blocks that they complete, as index, begin and payload; the payloads refer to
            ``data``.
        """
        view = memoryview(data)
        blocks: list[ReceivedBlock] = []
        at, end = 0, len(view)
        if self._partial:
            at = min(self._length - len(self._partial), end)
            self._partial += view[:at]
            if len(self._partial) < self._length:
                return blocks
            whole, self._partial = self._partial, bytearray()
            blocks.append((self._index, self._begin, memoryview(whole)))
            self._advance()
        while end - at >= self._length:
            stop = at + self._length
            blocks.append((self._index, self._begin, view[at:stop]))
            at = stop
            self._advance()
        if at < end:
            self._partial += view[at:]
        return blocks

    def _advance(self) -> None:
        self._begin += BLOCK_LENGTH
        if self._begin >= self._piece_length:
            self._index, self._begin = self._index + 1, 0
            self._piece_length = self._geometry.length_of(self._index)
        self._length = min(BLOCK_LENGTH, self._piece_length - self._begin)
