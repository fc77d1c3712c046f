"""
Rate limits of a session and its torrents, shared fairly by waiting peers.

A ``RateGate`` is one direction of one torrent: it takes from the torrent's own
bucket and from the session's. A peer that may not go on now leaves a callback
and is called again in turn, torrent by torrent and within it peer by peer, so
that a limit is divided and not won. While somebody waits, nobody who comes
along goes first.

Downloads are limited where blocks are asked for, not where they are read: what
was asked for arrives a round trip later, and neither the kernel's buffers nor
the peer's queue fill up with data that we refuse to read.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from bittern.core.rate import TokenBucket

WAKE_INTERVAL = 0.02
"""Seconds between two rounds of waiting peers; a limit is kept in steps of this."""
BURST_SECONDS = 0.1
"""What a limit may save up, in seconds of its rate."""
MIN_BURST = 16_384
"""But at least one block, or nothing would ever be sent."""


def make_bucket(rate: float | None, *, now: float) -> TokenBucket:
    """Return the bucket of a limit in bytes per second, None for no limit."""
    burst = None if rate is None else max(MIN_BURST, rate * BURST_SECONDS)
    return TokenBucket(rate, now=now, burst=burst)


def _changed(bucket: TokenBucket, rate: float | None, now: float) -> TokenBucket:
    is_same = bucket.rate == (math.inf if rate is None else rate)
    return bucket if is_same else make_bucket(rate, now=now)


class SharedLimit:
    """
    One direction of the session: its bucket, and the gates that have somebody waiting.

    Args:
        bucket: the session's.
        loop: gives the time and the timer.
    """

    __slots__ = ("_gates", "_timer", "bucket", "is_serving", "loop")

    def __init__(self, bucket: TokenBucket, *, loop: asyncio.AbstractEventLoop) -> None:
        self.bucket: TokenBucket = bucket
        self.loop: asyncio.AbstractEventLoop = loop
        self.is_serving: bool = False
        """True while those who waited have their turns."""
        self._gates: dict[RateGate, None] = {}
        """In the order in which they have their turns."""
        self._timer: asyncio.TimerHandle | None = None

    def set_rate(self, rate: float | None) -> None:
        """Change the session's limit, in bytes per second; with a new one nothing is owed."""
        self.bucket = _changed(self.bucket, rate, self.loop.time())

    @property
    def has_waiters(self) -> bool:
        """True while somebody waits."""
        return bool(self._gates)

    def join(self, gate: RateGate) -> None:
        """Give a gate its place, the last one, unless it has one."""
        self._gates.setdefault(gate)
        if self._timer is None:
            self._timer = self.loop.call_later(WAKE_INTERVAL, self._wake)

    def leave(self, gate: RateGate) -> None:
        """Drop a gate where nobody waits any more."""
        self._gates.pop(gate, None)
        if not self._gates and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._timer = None
        turns = deque((gate, gate.num_waiting) for gate in self._gates)
        self.is_serving = True
        try:
            while turns and self.bucket.available(now=self.loop.time()):
                gate, num_left = turns.popleft()
                if num_left and gate.serve_next():
                    # The next round begins with somebody else.
                    if self._gates.pop(gate, self) is None:
                        self._gates[gate] = None
                    turns.append((gate, num_left - 1))
        finally:
            self.is_serving = False
        for gate in [gate for gate in self._gates if not gate.num_waiting]:
            del self._gates[gate]
        if self._gates and self._timer is None:
            self._timer = self.loop.call_later(WAKE_INTERVAL, self._wake)


class RateGate:
    """
    One direction of one torrent.

    Args:
        bucket: the torrent's own.
        shared: the session's; both must have tokens.
    """

    __slots__ = ("_bucket", "_shared", "_waiting", "_waiting_set")

    def __init__(self, bucket: TokenBucket, shared: SharedLimit) -> None:
        self._bucket = bucket
        self._shared = shared
        self._waiting: deque[Callable[[], None]] = deque()
        self._waiting_set: set[Callable[[], None]] = set()

    @property
    def is_unlimited(self) -> bool:
        """True when nothing has to be asked or counted."""
        return self._bucket.is_unlimited and self._shared.bucket.is_unlimited

    @property
    def num_waiting(self) -> int:
        """Callbacks that wait."""
        return len(self._waiting)

    @property
    def rate(self) -> float | None:
        """The limit that counts, in bytes per second; None for none."""
        rate = min(self._bucket.rate, self._shared.bucket.rate)
        return None if rate == math.inf else rate

    def set_rate(self, rate: float | None) -> None:
        """Change the torrent's own limit, in bytes per second; with a new one nothing is owed."""
        self._bucket = _changed(self._bucket, rate, self._shared.loop.time())

    def available(self) -> int:
        """Return the bytes that may pass at once; 0 means to wait."""
        shared = self._shared
        if not shared.is_serving and (
            self._waiting or (shared.has_waiters and not shared.bucket.is_unlimited)
        ):
            return 0
        return self._room()

    def _room(self) -> int:
        now = self._shared.loop.time()
        return min(self._bucket.available(now=now), self._shared.bucket.available(now=now))

    def take(self, num_bytes: int) -> None:
        """Count bytes that pass; negative for bytes that did not come after all."""
        if self.is_unlimited:
            return
        now = self._shared.loop.time()
        self._bucket.take(num_bytes, now=now)
        self._shared.bucket.take(num_bytes, now=now)

    def wait(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when it is its turn; to wait twice gives no second turn."""
        if callback not in self._waiting_set:
            self._waiting_set.add(callback)
            self._waiting.append(callback)
            self._shared.join(self)

    def serve_next(self) -> bool:
        """Call who waits longest, if there is room; False if not."""
        if not self._waiting or not self._room():
            return False
        callback = self._waiting.popleft()
        self._waiting_set.discard(callback)
        callback()
        return True

    def forget(self, callback: Callable[[], None]) -> None:
        """Drop a callback, because its peer is gone."""
        if callback in self._waiting_set:
            self._waiting_set.discard(callback)
            self._waiting.remove(callback)
            if not self._waiting and not self._shared.is_serving:
                self._shared.leave(self)

    def close(self) -> None:
        """Drop all callbacks."""
        self._waiting.clear()
        self._waiting_set.clear()
        self._shared.leave(self)
