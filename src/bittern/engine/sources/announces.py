"""
When each torrent of a session announces: one heap, one timer, few tasks.

A torrent at rest has no task and no timer of its own, only an entry in the heap
here. What is due becomes a task, at most ``MAX_PER_TRACKER`` at a time for one
tracker; the rest waits in line as plain entries, so that ten thousand torrents
of one tracker are ten thousand rows and ten tasks.

A tracker that is dead must not hold up its line, since behind it a torrent may
have other trackers: after ``MAX_SILENCES`` announces in a row without any answer,
whoever stands in line is told that the tracker is silent, backs off as if it had
asked itself, and goes on to its next tracker. Only every ``PROBE_INTERVAL`` one
more asks in earnest. One answer ends that.

That a tracker is dead is known after half a minute. A line in which nobody has begun or
been answered for ``PATIENCE`` is *stalled*: whoever stands in it hears so, keeps the place, and
may turn to another tracker meanwhile.

Limits: F11. Source: BEP 3, BEP 12.
"""

from __future__ import annotations

import asyncio
import copy
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Final, Protocol

from bittern.core.errors import TrackerFailure, TrackerUnreachable
from bittern.policy.announcing import PATIENCE, AnnounceDecision

MAX_PER_TRACKER: Final = 10
"""Limit: F11. Announces under way to one tracker at once."""
MAX_SILENCES: Final = 3
"""Limit: F11. Announces without an answer after which a tracker's line is sent home."""
PROBE_INTERVAL: Final = 5.0
"""Limit: F11. Seconds from one announce to a silent tracker to the next."""
MAX_LINES: Final = 1000
"""Trackers of which silence is remembered."""
MAX_TEXTS: Final = 1000
"""Texts of which each is kept once in memory, however many torrents have it; the latest stay."""
BATCH: Final = 100
"""Entries handled in one turn of the loop, so that nothing else waits for thousands."""

Spawn = Callable[[Coroutine[object, object, None], str], None]


class Plan:
    """
    Who wants to be woken, and at what instant.

    One that counts no longer stays in the heap until its instant comes, which may be hours, but
    knows nobody any more: the torrent may have left its session.
    """

    __slots__ = ("announcer", "at")

    def __init__(self, at: float, announcer: Announcer) -> None:
        self.at = at
        self.announcer: Announcer | None = announcer


class Announcer(Protocol):
    """Who announces for one torrent."""

    plan: Plan | None
    """When it wants to be woken, None for never; set by ``Announces`` alone."""
    is_running: bool
    """False once it wants nothing any more; for good."""

    def go_on(self) -> None:
        """Do what is due; called when it wanted to be woken."""

    def missed(self, seconds: float) -> None:
        """Want to announce soon, after time that the loop has not counted."""

    def stalled(self, decision: AnnounceDecision) -> None:
        """Hear that an announce stands in a line that does not move."""

    def takes_turn(self, decision: AnnounceDecision) -> bool:
        """Hear that it is an announce's turn; False if it is not wanted any more."""

    async def announce(self, decision: AnnounceDecision) -> None:
        """Announce, take the answer or raise what failed; TrackerFailure, TrackerUnreachable."""

    def announce_failed(
        self, decision: AnnounceDecision, error: TrackerFailure | TrackerUnreachable
    ) -> None:
        """Hear that an announce failed, or was not worth trying."""


class _Line:
    """One tracker's announces."""

    __slots__ = (
        "last_error",
        "moved_at",
        "num_running",
        "num_silences",
        "num_told",
        "probe_at",
        "waiting",
        "watch",
    )

    def __init__(self) -> None:
        self.num_running = 0
        self.moved_at = -math.inf
        """When one began or was answered."""
        self.num_silences = 0
        self.probe_at = -math.inf
        """When a silent tracker may be asked again."""
        self.last_error: TrackerFailure | TrackerUnreachable
        self.waiting: deque[tuple[Announcer, AnnounceDecision]] = deque()
        self.num_told = 0
        """The first so many of them know that the line is stalled."""
        self.watch: asyncio.Handle | None = None
        """Looks whether it is."""

    @property
    def is_silent(self) -> bool:
        """True when the tracker is taken for dead."""
        return self.num_silences >= MAX_SILENCES

    def has_room(self, now: float) -> bool:
        """Tell whether one more may announce."""
        if self.is_silent:
            return now >= self.probe_at
        return self.num_running < MAX_PER_TRACKER

    def next_waiting(self) -> tuple[Announcer, AnnounceDecision]:
        """Return who stands first, and take him out."""
        first = self.waiting.popleft()
        self.num_told = max(0, self.num_told - 1)
        if not self.waiting:
            self.clear()
        return first

    def clear(self) -> None:
        """Have nobody wait, and nobody look after those who do. Idempotent."""
        self.waiting.clear()
        self.num_told = 0
        if self.watch is not None:
            self.watch.cancel()
            self.watch = None


class Announces:
    """
    The announces of all torrents of one session.

    Args:
        loop: of the session.
        spawn: runs a coroutine as a task of the session, under a name.

    Attributes:
        ends_at: when torrents stop to wait for their trackers to hear "stopped"; infinite until
            the session ends, so that thousands have one time and not each its own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, spawn: Spawn) -> None:
        self.ends_at: float = math.inf
        self._loop = loop
        self._spawn = spawn
        self._heap: list[tuple[float, int, Plan]] = []
        """Plans without an announcer are stale."""
        self._num_stale = 0
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        """What it is set to: uvloop's handles cannot always tell."""
        self._is_ringing = False
        self._lines: dict[str, _Line] = {}
        self._texts: dict[str, str] = {}

    # --- instants ------------------------------------------------------------------------

    def wake_at(self, announcer: Announcer, at: float | None) -> None:
        """Call ``announcer.go_on`` at an instant instead of the one before; None for never."""
        plan = announcer.plan
        if at == (None if plan is None else plan.at):
            return
        if plan is not None:
            plan.announcer = announcer.plan = None
            self._num_stale += 1
            if self._num_stale > 64 + len(self._heap) // 2:
                self._sweep()
        if at is not None:
            announcer.plan = plan = Plan(at, announcer)
            heapq.heappush(self._heap, (at, next(self._numbers), plan))
        if not self._is_ringing:
            self._arm()

    def missed(self, seconds: float) -> None:
        """Let all announce as soon as their trackers allow, after time that was not counted."""
        waiting = [plan.announcer for _, _, plan in self._heap]
        self._is_ringing = True
        try:
            for announcer in waiting:
                if announcer is not None:
                    announcer.missed(seconds)
        finally:
            self._is_ringing = False
            self._arm()

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if entry[2].announcer is not None]
        heapq.heapify(self._heap)
        self._num_stale = 0

    def _arm(self) -> None:
        """Set the timer to the first entry that counts."""
        heap = self._heap
        while heap and heap[0][2].announcer is None:
            heapq.heappop(heap)
            self._num_stale -= 1
        if self._timer is not None:
            if heap and self._timer_at == heap[0][0]:
                return
            self._timer.cancel()
            self._timer = None
        if heap:
            self._timer_at = heap[0][0]
            self._timer = self._loop.call_at(self._timer_at, self._ring)

    def _ring(self) -> None:
        # The instant that was asked for: timers may fire a rounding error early.
        now = max(self._loop.time(), self._timer_at)
        self._timer = None
        self._is_ringing = True
        try:
            for _ in range(BATCH):
                if not self._heap or self._heap[0][0] > now:
                    break
                announcer = heapq.heappop(self._heap)[2].announcer
                if announcer is None:
                    self._num_stale -= 1
                else:
                    announcer.plan = None
                    announcer.go_on()
        finally:
            self._is_ringing = False
            self._arm()

    # --- what they have in common ----------------------------------------------------------

    def once(self, text: str) -> str:
        """
        Return the same text, which ten thousand torrents may have in common: a URL, a refusal.

        Not interned: CPython 3.12 keeps every string that ever was.
        """
        known = self._texts[text] = self._texts.pop(text, text)
        if len(self._texts) > MAX_TEXTS:
            del self._texts[next(iter(self._texts))]
        return known

    # --- announces -----------------------------------------------------------------------

    def submit(self, announcer: Announcer, decision: AnnounceDecision) -> None:
        """Announce as soon as the tracker's line allows; the announcer hears how it went."""
        line = self._line_of(decision.url)
        if line.has_room(self._loop.time()):
            self._begin(line, announcer, decision)
            return
        line.waiting.append((announcer, decision))
        if not line.is_silent:
            self._watch(line)
        elif len(line.waiting) == 1:
            self._loop.call_soon(self._send_home, line)

    def _line_of(self, url: str) -> _Line:
        tracker = _tracker_of(url)
        line = self._lines.get(tracker)
        if line is None:
            if len(self._lines) >= MAX_LINES:
                self._lines = {
                    key: each
                    for key, each in self._lines.items()
                    if each.num_running or each.waiting
                }
            line = self._lines[tracker] = _Line()
        return line

    def _begin(self, line: _Line, announcer: Announcer, decision: AnnounceDecision) -> None:
        line.num_running += 1
        line.moved_at = self._loop.time()
        line.probe_at = line.moved_at + PROBE_INTERVAL
        self._spawn(self._announce(line, announcer, decision), f"announce {decision.url[:60]}")

    async def _announce(
        self, line: _Line, announcer: Announcer, decision: AnnounceDecision
    ) -> None:
        try:
            if not announcer.is_running or not announcer.takes_turn(decision):
                return  # its torrent has stopped meanwhile, which says nothing of the tracker
            await announcer.announce(decision)
            line.num_silences = 0
            line.moved_at = self._loop.time()
        except (TrackerFailure, TrackerUnreachable) as error:
            is_silent = isinstance(error, TrackerUnreachable) and error.is_silent
            line.num_silences = line.num_silences + 1 if is_silent else 0
            if not is_silent:
                line.moved_at = self._loop.time()
            line.last_error = copy.copy(error)  # without a traceback, which keeps the torrent
            announcer.announce_failed(decision, error)
        finally:
            line.num_running -= 1
            self._go_on(line)

    def _go_on(self, line: _Line) -> None:
        """Let in as many as there is room for, or send home those who wait in vain."""
        if line.is_silent:
            self._send_home(line)
            return
        while line.waiting and line.has_room(self._loop.time()):
            announcer, decision = line.next_waiting()
            if announcer.is_running:
                self._begin(line, announcer, decision)

    def _send_home(self, line: _Line) -> None:
        for _ in range(BATCH):
            if not line.waiting or not line.is_silent:
                return
            announcer, decision = line.next_waiting()
            if announcer.is_running:
                announcer.announce_failed(decision, line.last_error)
        self._loop.call_soon(self._send_home, line)

    def _watch(self, line: _Line) -> None:
        """See to it that those who wait hear when their line is stalled."""
        if line.watch is None and line.num_told < len(line.waiting):
            at = line.moved_at + PATIENCE
            line.watch = self._loop.call_at(at, self._look_whether_stalled, line, at)

    def _look_whether_stalled(self, line: _Line, at: float) -> None:
        line.watch = None
        if line.moved_at + PATIENCE <= at:  # it has not moved since
            for _ in range(BATCH):
                if line.num_told >= len(line.waiting):
                    break
                announcer, decision = line.waiting[line.num_told]
                line.num_told += 1
                if announcer.is_running:
                    announcer.stalled(decision)
        self._watch(line)

    def close(self) -> None:
        """Wake nobody any more and empty the lines. Idempotent."""
        self._heap.clear()
        for line in self._lines.values():
            line.clear()
        self._arm()

    def __repr__(self) -> str:
        running = sum(line.num_running for line in self._lines.values())
        waiting = sum(len(line.waiting) for line in self._lines.values())
        return f"<Announces {len(self._heap)} planned, {running} under way, {waiting} in line>"


def _tracker_of(url: str) -> str:
    """Return the scheme, host and port of a URL: who has to answer."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.partition('/')[0]}".lower()
