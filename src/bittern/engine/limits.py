"""
Rate limits of a session and its torrents, shared fairly by waiting peers.

A ``RateGate`` is one direction of one torrent: it takes from the torrent's own
bucket and from the session's. A peer that may not go on now leaves a callback
and is called again in turn, so that a limit is divided and not won.

Downloads are limited where blocks are asked for, not where they are read: what
was asked for arrives a round trip later, and neither the kernel's buffers nor
the peer's queue fill up with data that we refuse to read.
"""

from __future__ import annotations

import asyncio
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


class RateGate:
    """
    One direction of one torrent.

    Args:
        buckets: all of them must have tokens; the first is the torrent's own.
        loop: gives the time and the timer.
    """

    __slots__ = ("_buckets", "_is_unlimited", "_loop", "_timer", "_waiting", "_waiting_set")

    def __init__(self, *buckets: TokenBucket, loop: asyncio.AbstractEventLoop) -> None:
        self._buckets = list(buckets)
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._waiting_set: set[Callable[[], None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_unlimited = all(bucket.is_unlimited for bucket in self._buckets)

    @property
    def is_unlimited(self) -> bool:
        """True when nothing has to be asked or counted."""
        return self._is_unlimited

    def set_bucket(self, position: int, bucket: TokenBucket) -> None:
        """Change one of the limits."""
        self._buckets[position] = bucket
        self._is_unlimited = all(bucket.is_unlimited for bucket in self._buckets)

    def available(self) -> int:
        """Return the bytes that may pass at once; 0 means to wait."""
        now = self._loop.time()
        return min(bucket.available(now=now) for bucket in self._buckets)

    def take(self, num_bytes: int) -> None:
        """Count bytes that pass; negative for bytes that did not come after all."""
        if not self._is_unlimited:
            now = self._loop.time()
            for bucket in self._buckets:
                bucket.take(num_bytes, now=now)

    def wait(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when it is its turn; to wait twice gives no second turn."""
        if callback in self._waiting_set:
            return
        self._waiting_set.add(callback)
        self._waiting.append(callback)
        if self._timer is None:
            self._timer = self._loop.call_later(WAKE_INTERVAL, self._wake)

    def _wake(self) -> None:
        self._timer = None
        for _ in range(len(self._waiting)):
            if not self.available():
                break
            callback = self._waiting.popleft()
            self._waiting_set.discard(callback)
            callback()
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_later(WAKE_INTERVAL, self._wake)

    def forget(self, callback: Callable[[], None]) -> None:
        """Drop a callback, because its peer is gone."""
        if callback in self._waiting_set:
            self._waiting_set.discard(callback)
            self._waiting.remove(callback)

    def close(self) -> None:
        """Drop all callbacks and the timer."""
        self._waiting.clear()
        self._waiting_set.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
