"""
How much of what the local network says is listened to.

Anybody on it can send announces, under any address. A second's worth is bounded
for all together, and for each address to a part of that, so that one that floods
does not drown the others.

Invariant: at most ``MAX_SOURCES`` addresses are remembered, the oldest go first.

Source: threats.md N9.
"""

from __future__ import annotations

from bittern.core.rate import TokenBucket

MAX_RATE = 10.0
"""Limit: N9. Announces read a second; Transmission's figure."""
MAX_BURST = 20.0
MAX_RATE_OF_ONE = 2.0
"""The same from one address; BEP 14 wants one a minute."""
MAX_BURST_OF_ONE = 10.0
MAX_SOURCES = 256


class LocalLimits:
    """
    The limits described in the module's text.

    Args:
        now: instant of creation.
    """

    __slots__ = ("_all", "_sources")

    def __init__(self, *, now: float) -> None:
        self._all = _full(MAX_RATE, MAX_BURST, now)
        self._sources: dict[str, TokenBucket] = {}

    def may_read(self, host: str, *, now: float) -> bool:
        """Count a datagram from an address and tell whether to read it."""
        bucket = self._sources.pop(host, None)
        if bucket is None:
            bucket = _full(MAX_RATE_OF_ONE, MAX_BURST_OF_ONE, now)
            if len(self._sources) >= MAX_SOURCES:
                del self._sources[next(iter(self._sources))]
        self._sources[host] = bucket
        if not bucket.available(now=now) or not self._all.available(now=now):
            return False
        bucket.take(1, now=now)
        self._all.take(1, now=now)
        return True

    def __len__(self) -> int:
        return len(self._sources)


def _full(rate: float, burst: float, now: float) -> TokenBucket:
    """Return a bucket that has saved up its burst."""
    bucket = TokenBucket(rate, now=now, burst=burst)
    bucket.take(-int(burst), now=now)
    return bucket
