"""
How long to wait for an answer, from how long answers have taken lately.

As TCP estimates its time-out: a smoothed round trip and four times its mean deviation. On
a quick network a silent node then costs a lookup a fraction of what it costs on a slow
one. Until the first answer, and where answers take long, the fixed limits hold.

Source: RFC 6298, sections 2 and 3.
"""

from __future__ import annotations

from bittern.dht.limits import (
    FIRST_SLOW_TIMEOUT,
    MIN_PATIENCE,
    MIN_SLOW_TIMEOUT,
    PATIENCE_FACTOR,
    QUERY_TIMEOUT,
    SLOW_TIMEOUT,
)

_MEAN_WEIGHT = 1 / 8
_DEVIATION_WEIGHT = 1 / 4
_NUM_DEVIATIONS = 4


class Patience:
    """
    Two times, in seconds, that follow the answers.

    Attributes:
        slow: after it a node is slow, and another one is asked beside it.
        end: after it a lookup does without the node's answer.
    """

    __slots__ = ("_deviation", "_mean", "end", "slow")

    def __init__(self) -> None:
        self._mean = 0.0
        self._deviation = 0.0
        self.slow: float = FIRST_SLOW_TIMEOUT
        self.end: float = QUERY_TIMEOUT

    def note(self, seconds: float) -> None:
        """Take the time that one answer took."""
        if not self._mean:
            self._mean, self._deviation = seconds, seconds / 2
        else:
            difference = seconds - self._mean
            self._deviation += (abs(difference) - self._deviation) * _DEVIATION_WEIGHT
            self._mean += difference * _MEAN_WEIGHT
        expected = self._mean + _NUM_DEVIATIONS * self._deviation
        self.slow = min(max(expected, MIN_SLOW_TIMEOUT), SLOW_TIMEOUT)
        self.end = min(max(PATIENCE_FACTOR * expected, MIN_PATIENCE), QUERY_TIMEOUT)
