"""
Blocks from storage into piece messages, a run at a time.

One buffer per session is filled again and again: headers are written first,
then one scatter read puts the blocks of a run into the gaps between them, and
what the socket does not take at once is copied by the connection.

Source: BEP 3 (piece message). docs/design/README.md has the whole way of a block.
"""

from __future__ import annotations

from collections.abc import Sequence

from bittern.codec.wire import PIECE_HEADER, PIECE_HEADER_LENGTH, MessageId
from bittern.core.geometry import BLOCK_LENGTH, MAX_REQUEST_LENGTH
from bittern.proto.peer_events import Request
from bittern.storage.base import Storage

MAX_REQUESTS = 1_000
"""More requests than anybody may queue, each with a header."""
_STRIDE = PIECE_HEADER_LENGTH + BLOCK_LENGTH


class SendBuffer:
    """
    The buffer described in the module's text.

    Args:
        length: bytes of blocks that one run may have, >= 262,144.
    """

    __slots__ = ("_gaps", "_view", "length")

    def __init__(self, length: int) -> None:
        self.length: int = max(length, MAX_REQUEST_LENGTH)
        num_blocks = -(-self.length // BLOCK_LENGTH)
        room = num_blocks * _STRIDE + MAX_REQUEST_LENGTH + MAX_REQUESTS * PIECE_HEADER_LENGTH
        self._view = memoryview(bytearray(room))
        self._gaps = [
            self._view[at + PIECE_HEADER_LENGTH : at + _STRIDE]
            for at in range(0, num_blocks * _STRIDE, _STRIDE)
        ]

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
        view, pack_into, kind = self._view, PIECE_HEADER.pack_into, int(MessageId.PIECE)
        at = 0
        start = end = -1
        gaps: list[memoryview] = []
        for number, (index, begin, length) in enumerate(requests):
            pack_into(view, at, 9 + length, kind, index, begin)
            at += PIECE_HEADER_LENGTH + length
            offset = index * piece_length + begin
            if offset != end:
                if gaps and not storage.read_into(start, gaps, nowait=nowait):
                    return None
                gaps, start = [], offset
            end = offset + length
            if length == BLOCK_LENGTH and at == (number + 1) * _STRIDE and number < len(self._gaps):
                gaps.append(self._gaps[number])
            else:
                gaps.append(view[at - length : at])
        if gaps and not storage.read_into(start, gaps, nowait=nowait):
            return None
        return view[:at]


def read_requests(storage: Storage, piece_length: int, requests: Sequence[Request]) -> memoryview:
    """Do the same with a buffer of its own and without hurry, for the storage worker."""
    data = SendBuffer(sum(length for _, _, length in requests)).fill(
        storage, piece_length, requests, nowait=False
    )
    assert data is not None
    return data
