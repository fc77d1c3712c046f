"""
Requests of peers for hashes, from arrival to being answered.

Peers take turns. A peer may have so many requests waiting, and gets so many
answers a second, by their length: a torrent of many files has many short layers.
What is beyond is refused, and a peer that goes on asking all the same breaks the
protocol.

Sources: BEP 52 (hash request); threats.md H10.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from bittern.codec.merkle import MAX_REQUEST_HASHES, MAX_SERVED_HASHES
from bittern.codec.wire import HashRange
from bittern.core.errors import PeerViolation
from bittern.core.rate import TokenBucket
from bittern.proto.incoming import WindowCounter

MAX_WAITING = 50
"""Limit: H10. Requests of one peer that wait for an answer."""
MAX_RATE = 100
"""Limit: H10. Answers of 512 hashes to one peer in a second, and at once after a pause."""
UNITS = 16
"""Parts of such an answer in which answers are counted: the shortest, of 32 hashes, is one."""
MAX_REFUSED = 1_000
"""Limit: H2, H10. Requests refused within a minute before the connection is closed."""


class _Asker:
    """One peer's requests."""

    __slots__ = ("bucket", "refused", "waiting")

    def __init__(self, now: float) -> None:
        self.waiting: dict[HashRange, None] = {}
        self.bucket = TokenBucket(MAX_RATE * UNITS, now=now, burst=MAX_RATE * UNITS)
        self.bucket.take(-MAX_RATE * UNITS, now=now)
        self.refused = WindowCounter()


class HashRequests:
    """The requests for hashes that the peers of one torrent have sent."""

    def __init__(self) -> None:
        self._askers: dict[Hashable, _Asker] = {}
        self._turns: deque[Hashable] = deque()
        """Peers with requests waiting, in the order in which they are answered."""

    def __len__(self) -> int:
        return sum(len(asker.waiting) for asker in self._askers.values())

    def admit(self, peer: Hashable, wanted: HashRange, *, now: float) -> bool:
        """
        Take a request; a repeated one counts once.

        Returns:
            False when it must be refused: too many are waiting.

        Raises:
            PeerViolation: the peer does not heed refusals.
        """
        asker = self._askers.get(peer)
        if asker is None:
            asker = self._askers[peer] = _Asker(now)
        if wanted in asker.waiting:
            return True
        if len(asker.waiting) >= MAX_WAITING:
            self.refused(peer, now=now)
            return False
        if not asker.waiting:
            self._turns.append(peer)
        asker.waiting[wanted] = None
        return True

    def refused(self, peer: Hashable, *, now: float) -> None:
        """Count a request that got no hashes; PeerViolation when there are too many."""
        asker = self._askers.get(peer)
        if asker is not None and asker.refused.add(now=now) > MAX_REFUSED:
            raise PeerViolation("asks for hashes without end")

    def take(self, *, now: float) -> tuple[Hashable, HashRange] | None:
        """Take out the request to be answered next; None when all must wait."""
        for _ in range(len(self._turns)):
            peer = self._turns.popleft()
            asker = self._askers[peer]
            if not asker.bucket.available(now=now):
                self._turns.append(peer)
                continue
            wanted = next(iter(asker.waiting))
            del asker.waiting[wanted]
            length = min(wanted.length, MAX_SERVED_HASHES)
            asker.bucket.take(max(1, -(-length * UNITS // MAX_REQUEST_HASHES)), now=now)
            if asker.waiting:
                self._turns.append(peer)
            return peer, wanted
        return None

    def next_at(self, *, now: float) -> float | None:
        """Return when ``take`` should be called again; None when nothing waits."""
        return min(
            (self._askers[peer].bucket.ready_at(1, now=now) for peer in self._turns), default=None
        )

    def forget(self, peer: Hashable) -> None:
        """Drop a peer that has left."""
        asker = self._askers.pop(peer, None)
        if asker is not None and asker.waiting:
            self._turns.remove(peer)
