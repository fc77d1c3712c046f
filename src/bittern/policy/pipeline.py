"""
How many requests to keep outstanding at one peer.

Too few and the line stands idle for a round trip again and again; too many and
a slow peer hoards blocks that others could send sooner. The aim is what the
peer sends in three seconds, as in libtorrent, plus what is on the way; never
more than the peer takes (``reqq``, BEP 10).

Rates are measured over *rounds*. A round begins with all that is outstanding
and ends when as many blocks have arrived, so it lasts a round trip at least and
its rate never exceeds what the line carries, however the blocks are bunched. At
the end of a round the target follows the rate but at most doubles, because a
remote limiter often lets a burst pass at first. When a round drags on, the rate
is lowered, and follows the round while it lasts.

The data path calls ``blocks_received`` and ``set_outstanding`` once per wake-up,
about 0.5 microseconds each.

Invariant: 1 <= ``target`` <= ``reqq_limit``; at least 2 where the limit allows.

Sources: BEP 3 (pipelining), BEP 10 (reqq).
"""

from __future__ import annotations

from math import ceil

QUEUE_TIME = 3.0
"""Seconds' worth of blocks asked for ahead; libtorrent's ``request_queue_time``."""

DEFAULT_REQQ = 250
"""What a peer that says nothing takes; the number that most clients have used."""

MAX_REQQ = 2_000
"""Limit: H14. The most that we believe; libtorrent's own default."""

INITIAL_TARGET = 4
MIN_TARGET = 2
"""One block being sent and one waiting, however slow the peer."""

CROWD = 48
"""Blocks of one wake-up that show that they have waited for us, and not we for them."""

CROWD_TARGET = 512
"""
Blocks to ask all such peers for together; 8 MiB. More would lie in socket buffers until they have
left the processor's cache, and come no sooner.
"""

PATIENCE = 1.0
"""Seconds of a round, round trips aside, after which a rate below the old one is believed."""


class Pipeline:
    """
    The depth of one peer's request queue.

    ``target``, ``rate`` and ``delay`` are for reading.

    Args:
        now: instant of creation.
        reqq_limit: requests that the peer takes at once; cut to 1..2,000.
    """

    __slots__ = (
        "_drags",
        "_first",
        "_is_waiting",
        "_outstanding",
        "_reqq_limit",
        "_round_at",
        "_round_blocks",
        "_round_left",
        "delay",
        "rate",
        "target",
    )

    def __init__(self, *, now: float, reqq_limit: int = DEFAULT_REQQ) -> None:
        self._reqq_limit = max(1, min(reqq_limit, MAX_REQQ))
        self.target: int = min(INITIAL_TARGET, self._reqq_limit)
        """Requests to keep outstanding, blocks."""
        self.rate: float = 0.0
        """Blocks per second while something was outstanding; 0.0 until the first round ends."""
        self.delay: float = 0.0
        """Round trip, as the first block after silence shows it; at most ``QUEUE_TIME``."""
        self._first: tuple[float, int] | None = None
        """Time to the first wake-up of a round after silence, and its blocks."""
        self._drags = False
        """This round has taken longer than the rate says."""
        self._is_waiting = False
        self._outstanding = 0
        self._round_at = now
        self._round_left = 0
        self._round_blocks = 0

    @property
    def reqq_limit(self) -> int:
        """Requests that the peer takes at once; assigning cuts to 1..2,000 (H14)."""
        return self._reqq_limit

    @reqq_limit.setter
    def reqq_limit(self, value: int) -> None:
        self._reqq_limit = max(1, min(value, MAX_REQQ))
        self.target = min(self.target, self._reqq_limit)

    def blocks_received(self, num_blocks: int, *, now: float) -> None:
        """Note what a wake-up brought; then ask again up to ``target``."""
        self._round_blocks += num_blocks
        self._round_left -= num_blocks
        elapsed = now - self._round_at
        if self._is_waiting:
            self._is_waiting = False
            self._first = elapsed, num_blocks
        if self._round_left <= 0:
            self._end_round(max(elapsed, 1e-6))
        elif elapsed > PATIENCE + 2 * self.delay:
            # Once it has been lowered it follows both ways: who has only paused is soon known.
            self._drags = self._drags or self._round_blocks < self.rate * elapsed
            if self._drags:
                self._follow(elapsed, 1.0)

    def set_outstanding(self, num_blocks: int, *, now: float) -> None:
        """
        Note how many requests are outstanding, after sending or dropping some.

        With none the clock stands still: the rate does not fall.
        """
        if not self._outstanding:
            self._round_left = 0
            self._is_waiting = True
        if self._round_left <= 0:
            self._round_at = now
            self._round_left = num_blocks
            self._round_blocks = 0
            self._drags = False
        elif num_blocks < self._round_left:
            self._round_left = num_blocks  # some were rejected or taken back
        self._outstanding = num_blocks

    def _end_round(self, elapsed: float) -> None:
        rate = self._round_blocks / elapsed
        if self._first is not None and rate:
            until, num_blocks = self._first
            self.delay = min(max(0.0, until - num_blocks / rate), QUEUE_TIME)
            self._first = None
        is_faster = rate >= self.rate
        self._follow(elapsed, 1.0 if is_faster else max(0.25, min(1.0, elapsed)))

    def thin_out(self, num_peers: int) -> None:
        """
        Ask for less, as blocks arrive faster than we take them; to be called after such a wake-up.

        Args:
            num_peers: that send at the same time, this one included; >= 1.
        """
        on_the_way = ceil(2 * self.delay * self.rate)
        share = max(CROWD, CROWD_TARGET // num_peers)
        self.target = min(self.target, max(share, on_the_way))

    def _follow(self, elapsed: float, weight: float) -> None:
        """Move the rate towards that of the round, and the target after it."""
        self.rate += (self._round_blocks / elapsed - self.rate) * weight
        wanted = ceil(self.rate * (QUEUE_TIME + self.delay))
        wanted = min(wanted, 2 * self.target)
        self.target = min(max(wanted, MIN_TARGET), self._reqq_limit)

    def __repr__(self) -> str:
        return f"<Pipeline {self._outstanding}/{self.target}, {self.rate:.0f} blocks/s>"
