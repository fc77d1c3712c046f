"""
The requests that one peer sent us, from arrival to being served.

Keeps to the limits on what a peer may queue and on what it may ask for while
it is choked. Knows nothing of messages: ``admit`` returning False means that
the caller should reject.

Sources: BEP 3 (request, cancel, choke), BEP 6 (reject, allowed fast).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from bittern.codec import wire
from bittern.core.errors import PeerViolation
from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.proto.peer_events import Request

MAX_INCOMING_REQUESTS = 500
"""Limit: H2. Requests we queue for one peer, advertised as ``reqq``; Transmission's figure."""
MAX_REFUSED_REQUESTS = 1_000
"""Limit: H2. Requests beyond the queue within a minute before the connection is closed."""
MAX_CHOKED_REQUESTS = 100
"""Limit: H3. Requests of a choked peer, after the grace, before the connection is closed."""
CHOKE_GRACE = 2.0
"""Limit: H3. Seconds after a choke in which requests may still be on their way."""
ALLOWED_FAST_FACTOR = 3
"""Limit: H9. Times the bytes of its allowed fast set that a choked peer gets."""
LIMIT_WINDOW = 60.0
"""Seconds over which abuse is counted."""


class WindowCounter:
    """Counts something within windows of a minute."""

    __slots__ = ("_count", "_started_at")

    def __init__(self) -> None:
        self._count = 0
        self._started_at = float("-inf")

    def add(self, *, now: float) -> int:
        """Count one more and return the count of this window."""
        if now - self._started_at > LIMIT_WINDOW:
            self._started_at = now
            self._count = 0
        self._count += 1
        return self._count


class IncomingRequests:
    """
    Requests of one peer, oldest first, without duplicates.

    ``waiting`` is one object for ever, which the data path looks at directly.
    """

    __slots__ = (
        "_allowed_fast",
        "_choked_at",
        "_fast_length_left",
        "_num_choked",
        "_refused",
        "waiting",
    )

    def __init__(self) -> None:
        self.waiting: dict[Request, int] = {}
        """Requests to their lengths."""
        self._allowed_fast: frozenset[int] = frozenset()
        self._fast_length_left = 0
        self._choked_at = float("-inf")
        self._num_choked = 0
        self._refused = WindowCounter()

    def __len__(self) -> int:
        return len(self.waiting)

    def __contains__(self, request: Request) -> bool:
        return request in self.waiting

    def __iter__(self) -> Iterator[Request]:
        """Iterate over a snapshot, oldest first."""
        return iter(list(self.waiting))

    def admit(self, request: Request, *, is_choked: bool, now: float) -> bool:
        """
        Queue a request that names existing bytes.

        Args:
            request: checked against the torrent's geometry by the caller.
            is_choked: whether we choke the peer.
            now: monotonic seconds.

        Returns:
            False when the request is to be rejected; True also for a repeated one.

        Raises:
            PeerViolation: the peer goes on although it was told to stop.
        """
        if is_choked and not self._spend_allowed_fast(request):
            if now - self._choked_at > CHOKE_GRACE:
                self._num_choked += 1
                if self._num_choked > MAX_CHOKED_REQUESTS:
                    raise PeerViolation("goes on requesting while choked")
            return False
        if request not in self.waiting:
            if len(self.waiting) >= MAX_INCOMING_REQUESTS:
                if self._refused.add(now=now) > MAX_REFUSED_REQUESTS:
                    raise PeerViolation("requests more than it was told to")
                return False
            self.waiting[request] = request[2]
        return True

    def admit_usual(self, view: memoryview, at: int, geometry: Geometry) -> int:
        """
        Queue the requests of a peer that is not choked, one after the other, while all is usual.

        A fast peer asks for whole blocks of whole pieces, hundreds in one wake-up; a loop
        that knows of nothing else costs a fourth.

        Args:
            view: what has arrived; any bytes.
            at: where a message starts.
            geometry: of the torrent.

        Returns:
            Where the first message starts that is to be looked at by itself.
        """
        waiting = self.waiting
        room = MAX_INCOMING_REQUESTS - len(waiting)
        num_whole = min(room, (len(view) - at) // wire.REQUEST_LENGTH)
        messages = view[at : at + num_whole * wire.REQUEST_LENGTH]
        num_pieces, short_pieces = geometry.num_pieces, geometry.short_pieces
        last_begin = geometry.piece_length - BLOCK_LENGTH
        num_usual = 0
        for prefix, kind, index, begin, length in wire.REQUEST_MESSAGE.iter_unpack(messages):
            if (
                kind != 6
                or prefix != 13
                or length != BLOCK_LENGTH
                or begin > last_begin
                or index >= num_pieces
                or index in short_pieces
            ):
                break
            waiting[index, begin, length] = length
            num_usual += 1
        return at + num_usual * wire.REQUEST_LENGTH

    def _spend_allowed_fast(self, request: Request) -> bool:
        index, _, length = request
        if index not in self._allowed_fast or length > self._fast_length_left:
            return False
        self._fast_length_left -= length
        return True

    @property
    def has_allowed_fast(self) -> bool:
        """True when pieces have been granted."""
        return bool(self._allowed_fast)

    def allow_fast(self, indices: Iterable[int], geometry: Geometry | None) -> None:
        """Let the peer ask for these pieces while choked, three times their bytes in all (H9)."""
        self._allowed_fast = frozenset(indices)
        if geometry is not None:
            length = sum(geometry.length_of(index) for index in self._allowed_fast)
            self._fast_length_left = ALLOWED_FAST_FACTOR * length

    def cancel(self, request: Request) -> bool:
        """Take a request out; False when it was not waiting."""
        if request not in self.waiting:
            return False
        del self.waiting[request]
        return True

    def choke(self, *, now: float) -> list[Request]:
        """Drop and return what a peer may not have once it is choked."""
        self._choked_at = now
        self._num_choked = 0
        dropped = [request for request in self.waiting if request[0] not in self._allowed_fast]
        for request in dropped:
            del self.waiting[request]
        return dropped

    def take(self, max_length: int) -> tuple[list[Request], int]:
        """
        Take requests, oldest first, to be served now.

        Args:
            max_length: bytes of blocks; the first request is taken in any case.

        Returns:
            At most ``max_length`` bytes, and as many requests as that has blocks of
            16 KiB, none when none waits; and the bytes.
        """
        waiting = self.waiting
        limit = max(1, max_length // BLOCK_LENGTH)
        taken = list(islice(waiting, limit))
        length = sum(islice(waiting.values(), limit))
        while length > max_length and len(taken) > 1:
            length -= taken.pop()[2]
        if len(taken) == len(waiting):
            waiting.clear()
        else:
            for request in taken:
                del waiting[request]
        return taken, length

    def drop_piece(self, index: int) -> list[Request]:
        """Drop and return the waiting requests for one piece, because we lost it."""
        dropped = [request for request in self.waiting if request[0] == index]
        for request in dropped:
            del self.waiting[request]
        return dropped
