"""
What is known of one web seed, and when it may be asked for how much.

A server that fails is left alone for half a minute, twice as long each further time,
up to an hour, with chance so that not all clients come back together; for as long as
it asks with ``Retry-After``; for a few seconds only if it had sent something since its
last failure. A file that it does not have is not asked for again. Bad pieces are not
asked of it again, and after three of them it is out for good (Limit: N8).

Pure: time comes in as ``now``, chance as ``rng``. Sets of pieces are the ``bits`` of a
``Bitfield``.

Source: BEP 19.
"""

from __future__ import annotations

import random

from bittern.core.errors import WebSeedError, WebSeedLacksFile, WebSeedUseless

MAX_BAD_PIECES = 3
"""Limit: N8. Pieces that did not match, for which nobody else is to blame."""
FIRST_WAIT = 30.0
"""Seconds after the first failure; libtorrent's ``urlseed_wait_retry``."""
LONGEST_WAIT = 3_600.0
"""Limit: F11."""
WAIT_AFTER_PROGRESS = 5.0
"""Seconds after a failure of a server that had sent something."""
MAX_RETRY_AFTER = 86_400.0
"""Longest ``Retry-After`` that is believed; seconds."""

CORRUPT = "sent corrupt data"

FIRST_LENGTH = 1 << 18
"""Bytes asked for at first."""
MAX_LENGTH = 32 << 20
"""Bytes asked for at once, at most: what others cannot be asked for meanwhile."""
ENDGAME_LENGTH = 1 << 16
ENDGAME_SECONDS = 0.5
"""Bytes and seconds, of which the larger counts, of what others were asked for too."""
SECONDS_AT_ONCE = 3.0
"""Seconds that a request should take: then a round trip between two of them costs little."""


class WebSeedRecord:
    """
    One web seed of one torrent; outlives the swarm, for as long as the torrent is in the session.

    Attributes:
        url: normalised, what others know it by.
        is_trusted: the user wrote the URL, so it may lead anywhere.
        is_out: it is not asked again in this session.
        takes_ranges: False once it has answered a range with a whole file.
        reason: why it failed last, or is out; empty when its last answer was good.
        refused: pieces that it is not asked for.
        next_at: when it may be asked again.
        last_asked_at, last_answer_at: as in ``SourceStatus``.
        num_bytes: that it has sent.
        num_skipped: of these, the ones that we had no use for.
    """

    __slots__ = (
        "_length",
        "_num_bad",
        "_num_failures",
        "_reached_bytes",
        "is_out",
        "is_trusted",
        "last_answer_at",
        "last_asked_at",
        "next_at",
        "num_bytes",
        "num_skipped",
        "reason",
        "refused",
        "takes_ranges",
        "url",
    )

    def __init__(self, url: str, *, is_trusted: bool) -> None:
        self.url: str = url
        self.is_trusted: bool = is_trusted
        self.is_out: bool = False
        self.takes_ranges: bool = True
        self.reason: str = ""
        self.refused: int = 0
        self.next_at: float | None = None
        self.last_asked_at: float | None = None
        self.last_answer_at: float | None = None
        self.num_bytes: int = 0
        self.num_skipped: int = 0
        self._length = FIRST_LENGTH
        self._num_bad = 0
        self._num_failures = 0
        self._reached_bytes = 0

    def may_be_asked(self, *, now: float) -> bool:
        """Tell whether nothing speaks against a request now."""
        return not self.is_out and (self.next_at is None or self.next_at <= now)

    def request_length(self, rate: float, *, is_endgame: bool = False) -> int:
        """
        Return how many bytes to ask for next.

        Args:
            rate: bytes per second that it lately sent.
            is_endgame: others were asked for all that is missing; what it is asked for is then
                the last of that, and little enough that they meet half way.
        """
        if is_endgame:
            return max(ENDGAME_LENGTH, int(rate * ENDGAME_SECONDS))
        wanted = int(rate * SECONDS_AT_ONCE)
        self._length = max(FIRST_LENGTH, min(wanted, 2 * self._length, MAX_LENGTH))
        return self._length

    def asked(self, *, now: float) -> None:
        """Note that a request is made."""
        self.last_asked_at = now
        self.next_at = None

    def succeeded(self, *, now: float) -> None:
        """Note that it gave all that it was asked for."""
        self.last_answer_at = now
        self.reason = CORRUPT if self._num_bad else ""
        self._num_failures = 0

    def failed(
        self, error: WebSeedError, *, now: float, rng: random.Random, pieces: int = 0
    ) -> None:
        """
        Note that it did not.

        Args:
            error: says what that speaks against.
            now: monotonic seconds.
            rng: spreads retries.
            pieces: those of the file that was asked for.
        """
        self.last_answer_at = now
        self.reason = error.reason
        match error:
            case WebSeedUseless():
                self.is_out = True
            case WebSeedLacksFile():
                self.refused |= pieces
            case _:
                self.next_at = now + self._wait(error.retry_after, rng)

    def _wait(self, retry_after: float | None, rng: random.Random) -> float:
        has_sent = self.num_bytes > self._reached_bytes
        self._reached_bytes = self.num_bytes
        if retry_after is not None:
            return min(max(1.0, retry_after), MAX_RETRY_AFTER)
        if has_sent:
            self._num_failures = 0
            return rng.uniform(WAIT_AFTER_PROGRESS, 2 * WAIT_AFTER_PROGRESS)
        wait = min(FIRST_WAIT * 2**self._num_failures, LONGEST_WAIT)
        self._num_failures = min(self._num_failures + 1, 16)
        return rng.uniform(wait / 2, wait)

    def accused(self) -> None:
        """Note that it alone is to blame for a piece that did not match."""
        self._num_bad += 1
        self.reason = CORRUPT
        if self._num_bad >= MAX_BAD_PIECES:
            self.is_out = True
