"""
Blocks from storage into piece messages, a run at a time.

One buffer per session is filled again and again: headers are written first,
then one scatter read puts the blocks of a run into the gaps between them, and
what the socket does not take at once is copied by the connection.

Nearly all requests are for whole blocks of 16 KiB, so their headers stand at
the same places in every run, and only index and begin change.

Source: BEP 3 (piece message). docs/design/README.md has the whole way of a block.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

from bittern.codec.wire import PIECE_HEADER, PIECE_HEADER_LENGTH, MessageId
from bittern.core.geometry import BLOCK_LENGTH, MAX_REQUEST_LENGTH
from bittern.proto.peer_events import Request
from bittern.storage.base import Storage

MAX_REQUESTS = 1_000
"""More requests than anybody may queue, each with a header."""
_STRIDE = PIECE_HEADER_LENGTH + BLOCK_LENGTH
_INDEX_AND_BEGIN = struct.Struct(">II")
"""The end of a header."""


class SendBuffer:
    """
    The buffer described in the module's text.

    Args:
        length: bytes of blocks that one run may have, >= 262,144.
    """

    __slots__ = ("_any_view", "_gaps", "_places", "_view", "length")

    def __init__(self, length: int) -> None:
        self.length: int = max(length, MAX_REQUEST_LENGTH)
        end = -(-self.length // BLOCK_LENGTH) * _STRIDE
        self._view = view = memoryview(bytearray(end))
        """For whole blocks: headers that are complete but for index and begin, and gaps."""
        for at in range(0, end, _STRIDE):
            PIECE_HEADER.pack_into(view, at, 9 + BLOCK_LENGTH, MessageId.PIECE, 0, 0)
        gaps_at = range(PIECE_HEADER_LENGTH, end, _STRIDE)
        self._gaps = [view[at : at + BLOCK_LENGTH] for at in gaps_at]
        self._places = [at - _INDEX_AND_BEGIN.size for at in gaps_at]
        room = self.length + MAX_REQUEST_LENGTH + MAX_REQUESTS * PIECE_HEADER_LENGTH
        self._any_view = memoryview(bytearray(room))
        """For all else; takes no memory until it is written to."""

    def fill(
        self, storage: Storage, piece_length: int, requests: Sequence[Request], *, nowait: bool
    ) -> memoryview | None:
        """
        Read requested blocks and return them as piece messages.

        Args:
            storage: of the torrent.
            piece_length: nominal, of the torrent.
            requests: at most ``length`` bytes and one request more; adjacent ones are
                read together.
            nowait: give up when a block is not in the page cache.

        Returns:
            The messages, valid until the next call; None when it would block.

        Raises:
            StorageError: the data cannot be read, or is shorter than it was.
        """
        view, pack_into = self._view, _INDEX_AND_BEGIN.pack_into
        reads: list[tuple[int, int]] = []  # where each begins: here, in the piece space
        end = -1
        for place, (index, begin, length) in zip(self._places, requests, strict=False):
            if length != BLOCK_LENGTH:
                return _fill(self._any_view, storage, piece_length, requests, nowait)
            pack_into(view, place, index, begin)
            offset = index * piece_length + begin
            if offset != end:
                reads.append((place, offset))
            end = offset + BLOCK_LENGTH
        stop = len(requests) * _STRIDE
        if stop > len(view):
            return _fill(self._any_view, storage, piece_length, requests, nowait)
        for (first, offset), (last, _) in pairwise([*reads, (stop, 0)]):
            gaps = self._gaps[first // _STRIDE : last // _STRIDE]
            if not storage.read_into(offset, gaps, nowait=nowait):
                return None
        return view[:stop]


def read_requests(storage: Storage, piece_length: int, requests: Sequence[Request]) -> memoryview:
    """Do the same with a buffer of its own and without hurry, for the storage worker."""
    length = sum(PIECE_HEADER_LENGTH + length for _, _, length in requests)
    data = _fill(memoryview(bytearray(length)), storage, piece_length, requests, nowait=False)
    assert data is not None
    return data


def _fill(
    view: memoryview, storage: Storage, piece_length: int, requests: Sequence[Request], nowait: bool
) -> memoryview | None:
    """Do the same with requests of any lengths in any buffer that holds them."""
    pack_into, kind = PIECE_HEADER.pack_into, int(MessageId.PIECE)
    at = 0
    start = end = -1
    gaps: list[memoryview] = []
    for index, begin, length in requests:
        pack_into(view, at, 9 + length, kind, index, begin)
        at += PIECE_HEADER_LENGTH + length
        offset = index * piece_length + begin
        if offset != end:
            if gaps and not storage.read_into(start, gaps, nowait=nowait):
                return None
            gaps, start = [], offset
        end = offset + length
        gaps.append(view[at - length : at])
    if gaps and not storage.read_into(start, gaps, nowait=nowait):
        return None
    return view[:at]
