"""
Which tracker to announce to, with which event, and when.

Trackers stand in tiers. Each tier is shuffled once, a tracker that answered moves
to the front of its tier, and an announce walks all tiers in order until one
tracker answers (BEP 12). That is the default here as in libtorrent; with
``announce_to_all_tiers`` every tier is walked on its own, which finds more peers
where tiers are used for trackers that know different peers, at the price of as
many times the load. Either way a walk is called a *lane* below, and a lane has at
most one announce under way.

Rules of time, for one torrent and tracker:

- after an answer the lane rests for the answer's interval;
- a regular or requested announce waits for ``min interval`` and never comes within
  ``MIN_GAP`` of the one before; events (started, completed, stopped) wait for
  neither;
- after a failure the tracker rests, twice as long each time, at random between half
  and the whole of 60 s ... 60 min, and the lane turns to its next tracker at once;
- a tracker that says "retry in" is taken at its word, and one that says "never" is
  not asked again until the torrent is started anew (BEP 31).

``started`` is what each tracker hears first, whenever that is, since trackers of
different tiers do not know of one another. ``completed`` goes to trackers that
heard ``started`` while the torrent was incomplete, ``stopped`` to all that heard
``started``.

IPv4 and IPv6 announces to a tracker that has both (BEP 7) are one announce here:
the caller makes both and reports success if either was answered. The families
share one fate, since they share the tracker, and one schedule keeps them together.

Limits: F11 (backoff, gap). Sources: BEP 3 (events), BEP 7, BEP 12, BEP 31.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bittern.core.announce import AnnounceAnswer, Event
from bittern.core.errors import MisuseError

MIN_GAP = 60.0
"""Limit: F11. Seconds between two announces of one torrent to one tracker, but for events."""
MIN_BACKOFF = 30.0
"""Limit: F11. Shortest rest after a failure; seconds."""
MAX_BACKOFF = 3_600.0
"""Limit: F11. Longest; seconds."""


class TrackerState(enum.Enum):
    """How we stand with one tracker."""

    UNTRIED = "untried"
    """Not asked yet: an earlier one of its lane answers."""
    ANNOUNCING = "announcing"
    WORKING = "working"
    """Its last answer was good."""
    FAILING = "failing"
    """Its last announce failed; it rests."""
    REFUSED = "refused"
    """It said "never" (BEP 31)."""


@dataclass(frozen=True, slots=True)
class AnnounceDecision:
    """Announce ``event`` to the tracker ``url`` now."""

    url: str
    event: Event


@dataclass(frozen=True, slots=True)
class TrackerSchedule:
    """One tracker for display; ``next_at`` is None where nothing is planned."""

    url: str
    tier: int
    state: TrackerState
    num_failures: int
    next_at: float | None


class _Tracker:
    """What is known about one tracker."""

    __slots__ = (
        "allowed_at",
        "announced_at",
        "event",
        "has_started",
        "is_backing_off",
        "is_refused",
        "lane",
        "next_at",
        "num_failures",
        "owes_completed",
        "retry_at",
        "tier",
        "url",
    )

    def __init__(self, url: str, tier: int) -> None:
        self.url = url
        self.tier = tier
        self.lane: _Lane
        self.reset()

    def reset(self) -> None:
        """Go back to the state before the first announce."""
        self.num_failures = 0
        self.is_refused = False
        self.is_backing_off = False  # it rests as long as we think fit, not as long as it said
        self.has_started = False
        self.owes_completed = False
        self.event: Event | None = None  # of the announce under way
        self.announced_at = -math.inf
        self.allowed_at = -math.inf
        self.retry_at = -math.inf
        self.next_at = -math.inf

    @property
    def is_working(self) -> bool:
        """True when its last answer was good."""
        return self.has_started and not self.num_failures

    @property
    def may_know_us(self) -> bool:
        """True when it has heard of us, or is just being told."""
        return (self.has_started or self.event is not None) and not self.is_refused

    def next_event(self) -> Event:
        if not self.has_started:
            return Event.STARTED
        return Event.COMPLETED if self.owes_completed else Event.NONE

    def ready_at(self) -> float:
        """Return the instant from which it may be announced to."""
        if self.is_refused:
            return math.inf
        at = self.retry_at if self.num_failures else self.allowed_at
        if self.next_event() is Event.NONE:
            return max(at, self.announced_at + MIN_GAP)
        return at if self.num_failures else -math.inf

    def state(self) -> TrackerState:
        if self.event is not None:
            return TrackerState.ANNOUNCING
        if self.is_refused:
            return TrackerState.REFUSED
        if self.num_failures:
            return TrackerState.FAILING
        return TrackerState.WORKING if self.is_working else TrackerState.UNTRIED


class _Lane:
    """A walk through some tiers."""

    __slots__ = ("current", "due_at", "tiers")

    def __init__(self, tiers: list[list[_Tracker]], due_at: float) -> None:
        self.tiers = tiers
        self.due_at = due_at
        self.current: _Tracker | None = None  # the one that answered last

    def trackers(self) -> Iterator[_Tracker]:
        for tier in self.tiers:
            yield from tier

    @property
    def is_busy(self) -> bool:
        """True while an announce is under way; two may be when trackers have been replaced."""
        return any(tracker.event is not None for tracker in self.trackers())

    def choose(self, now: float) -> _Tracker | None:
        """Return who is next, or None and set ``due_at`` to when somebody is."""
        current = self.current
        if current is not None and current.owes_completed and current.ready_at() <= now:
            return current  # the one that counted our "started" must count this too
        resting = []
        for tracker in self.trackers():
            ready_at = tracker.ready_at()
            if ready_at <= now:
                return tracker
            resting.append(ready_at)
            if not tracker.num_failures:
                resting = [ready_at]  # BEP 12: only a failure lets the next one in
                break
        self.due_at = min(resting, default=math.inf)
        return None


class AnnounceScheduler:
    """
    The announces of one torrent, as described in the module's text.

    Args:
        tiers: announce URLs by tier; of equal ones the first counts.
        rng: shuffles tiers and spreads retries.
        announce_to_all_tiers: walk every tier on its own instead of all as one.

    Nothing is due before ``start``. Each decision of ``due`` must be followed by one
    call of ``succeeded`` or ``failed``.
    """

    __slots__ = ("_is_started", "_lanes", "_leaving", "_rng", "_to_all_tiers")

    def __init__(
        self,
        tiers: Sequence[Sequence[str]],
        rng: random.Random,
        *,
        announce_to_all_tiers: bool = False,
    ) -> None:
        self._rng = rng
        self._to_all_tiers = announce_to_all_tiers
        self._is_started = False
        self._lanes: tuple[_Lane, ...] = ()
        self._leaving: dict[str, _Tracker] = {}
        """Trackers that are no longer ours, and whose answer is still to come."""
        self.set_tiers(tiers, now=-math.inf)

    def __repr__(self) -> str:
        states = [tracker.state().value for tracker in self._all()]
        return f"<AnnounceScheduler {' '.join(states) or 'no trackers'}>"

    def _all(self) -> Iterator[_Tracker]:
        for lane in self._lanes:
            yield from lane.trackers()

    # --- verbs -------------------------------------------------------------------------------

    def set_tiers(self, tiers: Sequence[Sequence[str]], *, now: float) -> list[AnnounceDecision]:
        """
        Replace the trackers; those that stay keep their state.

        Results of announces under way to trackers that went are ignored, unless they come back
        before that.

        Returns:
            Whom to tell ``stopped``: those that went and may know us. Results need not be
            reported.
        """
        known = self._leaving | {tracker.url: tracker for tracker in self._all()}
        taken: set[str] = set()
        grouped: list[list[_Tracker]] = []
        for tier in tiers:
            group = []
            for url in tier:
                if url not in taken:
                    taken.add(url)
                    tracker = known.get(url) or _Tracker(url, len(grouped))
                    tracker.tier = len(grouped)
                    group.append(tracker)
            if group:
                self._rng.shuffle(group)
                # BEP 12: who has answered stands in front, also in a list that was changed.
                group.sort(key=lambda tracker: not tracker.is_working)
                grouped.append(group)
        self._leaving = {
            url: tracker
            for url, tracker in known.items()
            if url not in taken and tracker.event is not None
        }
        self._lanes = (
            tuple(_Lane([group], now) for group in grouped)
            if self._to_all_tiers
            else (_Lane(grouped, now),)
        )
        for lane in self._lanes:
            for tracker in lane.trackers():
                tracker.lane = lane
                if lane.current is None and tracker.is_working:
                    lane.current = tracker
                    lane.due_at = tracker.next_at
        return [
            AnnounceDecision(url, Event.STOPPED)
            for url, tracker in known.items()
            if url not in taken and self._is_started and tracker.may_know_us
        ]

    def start(self, *, now: float) -> None:
        """Begin, or begin anew after ``stop``: every tracker hears ``started`` first."""
        self._is_started = True
        self._leaving = {}
        for tracker in self._all():
            tracker.reset()
        for lane in self._lanes:
            lane.current = None
            lane.due_at = now

    def complete(self, *, now: float) -> None:
        """Note that the download finished: trackers that know us hear ``completed``."""
        for tracker in self._all():
            if tracker.has_started or tracker.event is not None:
                tracker.owes_completed = True
        self.request(now=now)

    def request(self, *, now: float) -> None:
        """Announce as soon as the trackers' minimum intervals allow."""
        for lane in self._lanes:
            lane.due_at = min(lane.due_at, now)

    def missed(self, seconds: float, *, now: float) -> None:
        """
        Announce as soon as the rules allow, because we were away or are somewhere else now.

        Args:
            seconds: that have passed without ``now`` having moved.
            now: monotonic seconds.

        What failed for want of a network has not failed often: it rests no longer than once.
        """
        for tracker in self._all():
            tracker.announced_at -= seconds
            tracker.allowed_at -= seconds
            tracker.next_at -= seconds
            tracker.retry_at -= seconds
            if tracker.is_backing_off:
                tracker.retry_at = min(tracker.retry_at, tracker.announced_at + MIN_GAP)
        self.request(now=now)

    def stop(self) -> list[AnnounceDecision]:
        """
        End; nothing is due any more.

        Returns:
            Whom to tell ``stopped``: everyone who may know us. One that has not heard of
            our completion yet, since it has just happened, is told ``completed`` before:
            those of one tracker in this order. Results need not be reported, and those
            of announces under way are ignored.
        """
        was_started, self._is_started = self._is_started, False
        decisions = []
        for tracker in self._all():
            if was_started and tracker.may_know_us:
                if tracker.owes_completed:
                    decisions.append(AnnounceDecision(tracker.url, Event.COMPLETED))
                decisions.append(AnnounceDecision(tracker.url, Event.STOPPED))
        return decisions

    # --- decisions and results ---------------------------------------------------------------

    def due(self, *, now: float) -> list[AnnounceDecision]:
        """Return the announces to make now; they count as under way from here on."""
        decisions = []
        for lane in self._lanes if self._is_started else ():
            if now < lane.due_at or lane.is_busy:
                continue
            tracker = lane.choose(now)
            if tracker is None:
                continue
            event = tracker.next_event()
            if event is Event.STARTED:
                tracker.owes_completed = False  # this announce already says what is left
            tracker.event = event
            tracker.announced_at = now
            decisions.append(AnnounceDecision(tracker.url, event))
        return decisions

    def next_timer(self) -> float | None:
        """Return the instant of the next ``due``, or None while nothing is planned."""
        if not self._is_started:
            return None
        at = min((lane.due_at for lane in self._lanes if not lane.is_busy), default=math.inf)
        return None if at == math.inf else at

    def succeeded(self, url: str, answer: AnnounceAnswer, *, now: float) -> None:
        """Take note of an answer; the tracker moves to the front of its tier."""
        tracker, event = self._end(url)
        if tracker is None:
            return
        tracker.num_failures = 0
        tracker.has_started = True
        if event is Event.COMPLETED:
            tracker.owes_completed = False
        tracker.allowed_at = now + answer.min_interval
        lane = tracker.lane
        lane.current = tracker
        for tier in lane.tiers:
            if tracker in tier:
                tier.remove(tracker)
                tier.insert(0, tracker)
        lane.due_at = tracker.next_at = now if tracker.owes_completed else now + answer.interval

    def failed(self, url: str, *, now: float, retry_after: float | None = None) -> None:
        """
        Take note of a failure; the lane turns to its next tracker.

        Args:
            url: who failed.
            now: monotonic seconds.
            retry_after: seconds the tracker asked us to wait, ``inf`` for ever.
        """
        tracker, _ = self._end(url)
        if tracker is None:
            return
        tracker.num_failures += 1
        tracker.is_backing_off = retry_after is None
        if retry_after is None:
            longest = min(MAX_BACKOFF, 2 * MIN_BACKOFF * 2.0 ** min(tracker.num_failures - 1, 10))
            retry_after = self._rng.uniform(longest / 2, longest)
        tracker.is_refused = retry_after == math.inf
        tracker.retry_at = now + max(retry_after, MIN_BACKOFF)
        lane = tracker.lane
        if lane.current is tracker:
            lane.current = None
        lane.due_at = now

    def _end(self, url: str) -> tuple[_Tracker | None, Event | None]:
        """Take the announce under way to ``url`` off its lane; None if nobody wants to know."""
        tracker = next((each for each in self._all() if each.url == url), None)
        if tracker is None or not self._is_started:
            self._leaving.pop(url, None)
            return None, None
        event, tracker.event = tracker.event, None
        if event is None:
            raise MisuseError(f"no announce under way to {url}")
        return tracker, event

    # --- view --------------------------------------------------------------------------------

    def trackers(self) -> list[TrackerSchedule]:
        """Return every tracker by tier, in the order in which it would be asked."""
        return [
            TrackerSchedule(
                tracker.url,
                tracker.tier,
                tracker.state(),
                tracker.num_failures,
                self._next_at(lane, tracker),
            )
            for lane in self._lanes
            for tracker in lane.trackers()
        ]

    def _next_at(self, lane: _Lane, tracker: _Tracker) -> float | None:
        if not self._is_started or tracker.event is not None or tracker.is_refused:
            return None
        if tracker is lane.current:
            return lane.due_at
        return tracker.retry_at if tracker.num_failures else None
