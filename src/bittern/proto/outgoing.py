"""
The requests that we sent to one peer, from sending to the block or its refusal.

A request *waits* until its block comes, the peer rejects it, or we give it up.
One that was given up is remembered for a while, because its block may already
be on the way; such a *late* block is as good as any other.

Sources: BEP 3 (request, piece, cancel, choke), BEP 6 (reject).
"""

from __future__ import annotations

from bittern.codec import wire
from bittern.core.errors import PeerViolation
from bittern.core.geometry import BLOCK_LENGTH
from bittern.proto.peer_events import ReceivedBlock, Request

MAX_LATE_REQUESTS = 4_000
"""Requests given up whose blocks are still taken when they arrive; the oldest are forgotten."""
MAX_UNEXPECTED_BLOCKS = 500
"""
Blocks never asked for before the connection is closed.

Deviates from BEP 6, which closes at the first: a peer may have lost count of
cancelled requests. What it costs us is 8 MiB in the life of a connection.
"""


def request_key(index: int, begin: int) -> int:
    """Return the key of a request: one number hashes faster than a pair."""
    return index << 32 | begin


class OutgoingRequests:
    """
    Our requests to one peer.

    ``waiting`` maps ``index << 32 | begin`` to the length, oldest first. The data
    path adds to it and takes from it directly; it is one object for ever.
    """

    __slots__ = ("_late", "_late_length", "_num_unexpected", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[int, int] = {}
        self._late_length = 0
        self._late: dict[int, int] = {}
        self._num_unexpected = 0

    def take_batch(self, view: memoryview, at: int) -> list[ReceivedBlock]:
        """
        Take whole blocks that all answer waiting requests.

        A fast peer sends dozens in one wake-up; together, 63 of them cost a quarter less.

        Args:
            view: what was received.
            at: where a message starts.

        Returns:
            The blocks, their payloads in ``view``; none, and nothing is taken, when the first
            of them is to be looked at by itself.
        """
        indices, begins, payloads = wire.decode_block_batch(view, at)
        waiting = self.waiting
        keys = [index << 32 | begin for index, begin in zip(indices, begins, strict=True)]
        lengths = list(map(waiting.get, keys))
        count = len(keys)
        if lengths.count(BLOCK_LENGTH) < count:
            count = next(n for n, length in enumerate(lengths) if length != BLOCK_LENGTH)
            del keys[count:]
        if len(set(keys)) < count:
            return []
        for key in keys:
            del waiting[key]
        return list(zip(indices[:count], begins[:count], payloads[:count], strict=True))

    def accept(self, index: int, begin: int, length: int, asked: int) -> bool:
        """
        Judge a block that is not simply the answer to a waiting request.

        Args:
            index: of the piece.
            begin: of the block.
            length: of the block; bytes.
            asked: length of the request that the caller has taken out of
                ``waiting`` for it; 0 for none. When it differs, the request
                waits again, so that it can be given up with the others.

        Returns:
            True for a late block; False for one to be thrown away.

        Raises:
            PeerViolation: a block of a wrong length, or one too many that nobody asked for.
            WireDecodeError: longer than any block of ours.
        """
        key = request_key(index, begin)
        if asked:
            self.waiting[key] = asked
            raise PeerViolation(f"sends {length} bytes for a block of {asked}")
        if self._late.pop(key, 0) == length:
            self._late_length += length
            return True
        wire.check_length(wire.MessageId.PIECE, length + 9, num_pieces=None)
        self._num_unexpected += 1
        if self._num_unexpected > MAX_UNEXPECTED_BLOCKS:
            raise PeerViolation("sends blocks that nobody asked for")
        return False

    def reject(self, request: Request) -> bool:
        """
        Take out what the peer will not serve; False when it was not waiting.

        A block that was given up and asked for again may be rejected twice; the first
        answers the first request (BEP 6).
        """
        index, begin, length = request
        key = request_key(index, begin)
        if self._late.pop(key, 0) != length and self.waiting.get(key) == length:
            del self.waiting[key]
            return True
        return False

    def take_late_length(self) -> int:
        """Return the bytes of late blocks that have come since this was last asked."""
        length, self._late_length = self._late_length, 0
        return length

    def give_up(self, index: int, begin: int) -> int:
        """Take a request back and return its length; 0 when it was not waiting."""
        key = request_key(index, begin)
        length = self.waiting.pop(key, 0)
        if length:
            self._remember(key, length)
        return length

    def give_up_all(self) -> list[Request]:
        """Take back and return all requests, oldest first."""
        given_up = [(key >> 32, key & 0xFFFFFFFF, length) for key, length in self.waiting.items()]
        for key, length in self.waiting.items():
            self._remember(key, length)
        self.waiting.clear()
        return given_up

    def give_up_piece(self, index: int) -> list[Request]:
        """Take back and return the requests for one piece."""
        keys = [key for key in self.waiting if key >> 32 == index]
        return [(index, key & 0xFFFFFFFF, self.give_up(index, key & 0xFFFFFFFF)) for key in keys]

    def _remember(self, key: int, length: int) -> None:
        self._late[key] = length
        if len(self._late) > MAX_LATE_REQUESTS:
            del self._late[next(iter(self._late))]
