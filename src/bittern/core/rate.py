"""
Token bucket and rate meter, both driven by a ``now`` that the caller passes in.

Neither asks the clock. All rates are bytes per second, all instants monotonic
seconds.
"""

from __future__ import annotations

import math

_ROUNDING = 1e-6
"""Bytes; what ``ready_at`` promises must not fail for a rounding error."""
_MIN_ELAPSED = 0.001
"""Seconds; a rate over less than this would say nothing."""


class TokenBucket:
    """
    A rate limit that can be borrowed against.

    ``take`` may be called for more than is there: the level goes below zero
    and the caller waits until it is positive again. That keeps the long-run
    rate exact whatever the size of single transfers.

    Args:
        rate: bytes per second; None or inf for no limit.
        burst: the most that can be saved up, bytes; default a tenth of a second's worth,
            and in any case one byte, or nothing would ever pass.
        now: instant of creation.
    """

    __slots__ = ("_burst", "_level", "_updated_at", "rate")

    def __init__(self, rate: float | None, *, now: float, burst: float | None = None) -> None:
        self.rate: float = math.inf if rate is None else rate
        self._burst = max(1.0, burst if burst is not None else self.rate / 10)
        self._level = 0.0
        self._updated_at = now

    @property
    def is_unlimited(self) -> bool:
        """True when there is no limit to keep."""
        return self.rate == math.inf

    def available(self, *, now: float) -> int:
        """Return how many bytes may pass at once; 0 while in debt."""
        self._refill(now)
        return 0 if self._level <= 0 else int(self._level + _ROUNDING)

    def take(self, num_bytes: int, *, now: float) -> None:
        """Count ``num_bytes`` that passed, even beyond what was available."""
        if self.rate == math.inf:
            return
        self._refill(now)
        self._level -= num_bytes

    def ready_at(self, num_bytes: int, *, now: float) -> float:
        """Return the instant at which ``num_bytes`` (cut to the burst) will be available."""
        if self.rate == math.inf:
            return now
        self._refill(now)
        lack = min(num_bytes, self._burst) - self._level
        if lack <= 0:
            return now
        return math.inf if self.rate == 0 else now + lack / self.rate

    def _refill(self, now: float) -> None:
        if self.rate == math.inf:
            self._level = 1 << 62
            return
        if now > self._updated_at:
            self._level = min(self._burst, self._level + (now - self._updated_at) * self.rate)
            self._updated_at = now


class RateMeter:
    """
    A smoothed transfer rate, with the total beside it.

    ``add`` only counts, so that the data path pays one addition; ``update`` is
    called once a second or so by the owner's tick and folds the count into an
    exponential average. The average begins with the first byte, so that a peer
    that starts after a long wait is told right at once, and each measurement
    weighs as much as the time it spans.

    Args:
        time_constant: seconds after which a change has reached 63 %.
    """

    __slots__ = ("_counted", "_sum", "_time_constant", "_updated_at", "_weight", "rate", "total")

    def __init__(self, *, now: float, time_constant: float = 4.0) -> None:
        self.rate: float = 0.0
        self.total: int = 0
        self._counted = 0
        self._sum = 0.0
        self._weight = 0.0
        self._updated_at = now
        self._time_constant = time_constant

    def add(self, num_bytes: int) -> None:
        """Count bytes that passed."""
        self.total += num_bytes

    def update(self, *, now: float) -> float:
        """Fold what was counted since the last call into the rate and return it."""
        elapsed = now - self._updated_at
        if elapsed < _MIN_ELAPSED:
            return self.rate
        self._updated_at = now
        if self.total:
            gain = -math.expm1(-elapsed / self._time_constant)
            recent = (self.total - self._counted) / elapsed
            self._sum += (recent - self._sum) * gain
            self._weight += (1 - self._weight) * gain
            self._counted = self.total
            self.rate = self._sum / self._weight
        return self.rate
