"""
Which tracker to announce to, with which event, and when.

Trackers stand in tiers. Each tier is shuffled once, a tracker that answered moves
to the front of its tier, and an announce walks all tiers in order until one
tracker answers (BEP 12). That is the default here as in libtorrent; with
``announce_to_all_tiers`` every tier is walked on its own, which finds more peers
where tiers are used for trackers that know different peers, at the price of as
many times the load. Either way a walk is called a *lane* below.

A lane waits for the tracker that it asks, but not for long: one that has not answered
for ``PATIENCE`` is *slow*, and lets the next one in as one that fails does, while its
own announce goes on. So several may be under way in a lane, all of them slow but the
last, and each answer is taken when it comes:

- the lane goes by the first tracker in its order that works, whichever answered first;
- in its tier a slow one goes behind the one that has answered before it;
- a tracker whose last answer was good is never slow: there are peers, so there is no
  haste, and one that always takes its time would cost the next one an announce each time;
- in a private torrent none is slow: there only a failure lets the next one in (BEP 27);
- ``MAX_UNDER_WAY`` at once are enough.

Time in which an announce stands in a line of ours does not count, unless that line does
not move (``asked``, ``stalled``).

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
heard ``started`` while the torrent was incomplete: to all that work, one after the
other. ``stopped`` goes to all that heard ``started``, or may have.

IPv4 and IPv6 announces to a tracker that has both (BEP 7) are one announce here:
the caller makes both and reports success if either was answered. The families
share one fate, since they share the tracker, and one schedule keeps them together.

Limits: F11 (backoff, gap). Sources: BEP 3 (events), BEP 7, BEP 12, BEP 27, BEP 31.
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
PATIENCE = 5.0
"""
Seconds that a lane waits for one tracker before it lets the next one in.

A tracker that works answers within two or three, a lookup of its name and a packet lost on
the way included; that one is dead is certain after half a minute only, and a person waits.
Where libtorrent walks tiers it waits 10 s; qBittorrent and Transmission ask all tiers at once.
"""
MAX_UNDER_WAY = 6
"""
Limit: F11. Announces under way at once in one lane, as some may hang for long.

``PATIENCE`` alone keeps a list of a hundred dead trackers to twelve a minute.
"""


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
        "is_asked",
        "is_backing_off",
        "is_refused",
        "lane",
        "next_at",
        "num_failures",
        "owes_completed_at",
        "retry_at",
        "slow_at",
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
        self.owes_completed_at = math.inf  # since when; infinite for owing nothing
        self.event: Event | None = None  # of the announce under way
        self.is_asked = False  # that has left, so that the tracker may have heard it
        self.slow_at = math.inf  # from when that holds up nobody
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
        is_hearing = self.event is not None and self.is_asked
        return (self.has_started or is_hearing) and not self.is_refused

    @property
    def owes_completed(self) -> bool:
        """True when it has not heard that the download finished, and should."""
        return self.owes_completed_at < math.inf

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
        self.current = self.find_working()  # who is gone by: the first that works

    def trackers(self) -> Iterator[_Tracker]:
        for tier in self.tiers:
            yield from tier

    def find_working(self) -> _Tracker | None:
        """Return the first that works."""
        return next((tracker for tracker in self.trackers() if tracker.is_working), None)

    def free_at(self, *, is_patient: bool) -> float:
        """Return from when nothing under way holds it up; infinite for not before a result."""
        trackers = list(self.trackers())
        slow_at = [tracker.slow_at for tracker in trackers if tracker.event is not None]
        if not slow_at:
            return -math.inf
        has_next = len(slow_at) < min(len(trackers), MAX_UNDER_WAY) and not is_patient
        return max(slow_at) if has_next else math.inf

    def find_owing(self) -> _Tracker | None:
        """Return the first that is to be told "completed" now."""
        return next(
            (
                tracker
                for tracker in self.trackers()
                if tracker.owes_completed and tracker.is_working and tracker.event is None
            ),
            None,
        )

    def choose(self, now: float) -> _Tracker | None:
        """Return who is next, or None and set ``due_at`` to when somebody is."""
        resting = []
        for tracker in self.trackers():
            if tracker.event is not None:
                continue  # it is slow, or nobody would be chosen
            ready_at = tracker.ready_at()
            if ready_at <= now:
                return tracker
            resting.append(ready_at)
            if not tracker.num_failures:
                resting = [ready_at]  # BEP 12: it works, so nobody else is let in
                break
        self.due_at = min(resting, default=math.inf)
        return None

    def timer(self, *, is_patient: bool) -> float:
        """Return when something may be due, infinite for not before a result."""
        owing = self.find_owing()
        due_at = self.due_at if owing is None else min(self.due_at, owing.owes_completed_at)
        return max(due_at, self.free_at(is_patient=is_patient))

    def promote(self, tracker: _Tracker) -> None:
        """Move who has answered to the front of its tier, but for one that was quicker."""
        for tier in self.tiers:
            if tracker in tier:
                tier.remove(tracker)
                place = tier.index(self.current) + 1 if self.current in tier else 0
                tier.insert(place, tracker)


class AnnounceScheduler:
    """
    The announces of one torrent, as described in the module's text.

    Args:
        tiers: announce URLs by tier; of equal ones the first counts.
        rng: shuffles tiers and spreads retries.
        announce_to_all_tiers: walk every tier on its own instead of all as one.

    Attributes:
        is_patient: no tracker is ever slow, as for private torrents; may change at any time.

    Nothing is due before ``start``. Each decision of ``due`` must be followed by ``asked``
    when its announce leaves, and after that, or instead, by one call of ``succeeded`` or
    ``failed``.
    """

    __slots__ = ("_is_started", "_lanes", "_leaving", "_rng", "_to_all_tiers", "is_patient")

    def __init__(
        self,
        tiers: Sequence[Sequence[str]],
        rng: random.Random,
        *,
        announce_to_all_tiers: bool = False,
    ) -> None:
        self.is_patient: bool = False
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
        ours = {tracker.url: tracker for tracker in self._all()}
        known = self._leaving | ours
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
            if lane.current is not None:
                lane.due_at = lane.current.next_at
        return [
            AnnounceDecision(url, Event.STOPPED)
            for url, tracker in ours.items()
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
        for tracker in (*self._all(), *self._leaving.values()):
            if tracker.has_started or tracker.event is not None:
                tracker.owes_completed_at = now
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
            tracker.slow_at -= seconds
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
        """
        Return the announces to make now, at most one for each lane.

        They count as under way from here on, and hold up their lane until there is a result, or
        until they are slow.
        """
        decisions = []
        for lane in self._lanes if self._is_started else ():
            if now < lane.free_at(is_patient=self.is_patient):
                continue
            tracker = lane.find_owing()
            if tracker is None and now >= lane.due_at:
                tracker = lane.choose(now)
            if tracker is None:
                continue
            event = tracker.next_event()
            if event is Event.STARTED:
                tracker.owes_completed_at = math.inf  # this announce already says what is left
            tracker.event = event
            tracker.is_asked = False
            tracker.slow_at = math.inf
            tracker.announced_at = now
            decisions.append(AnnounceDecision(tracker.url, event))
        return decisions

    def next_timer(self) -> float | None:
        """Return the instant of the next ``due``, or None while nothing is planned."""
        if not self._is_started:
            return None
        timers = (lane.timer(is_patient=self.is_patient) for lane in self._lanes)
        at = min(timers, default=math.inf)
        return None if at == math.inf else at

    def asked(self, url: str, *, now: float) -> bool:
        """
        Note that the announce under way to ``url`` leaves now: patience with it begins to run out.

        Returns:
            False if it is not to leave, because the tracker has been taken away meanwhile. Then it
            is no longer under way.
        """
        tracker = self._under_way(url)
        if tracker is None:
            return False
        tracker.is_asked = True
        if not tracker.is_working:
            tracker.slow_at = min(tracker.slow_at, now + PATIENCE)
        return True

    def stalled(self, url: str, *, now: float) -> None:
        """Note that the announce to ``url`` stands in a line that does not move: it is slow."""
        tracker = self._find(url)
        if tracker is not None and not tracker.is_working:
            tracker.slow_at = now

    def succeeded(self, url: str, answer: AnnounceAnswer, *, now: float) -> None:
        """Take note of an answer; the tracker moves to the front of its tier."""
        tracker = self._under_way(url)
        if tracker is None:
            return
        if tracker.event is Event.COMPLETED:
            tracker.owes_completed_at = math.inf
        tracker.event = None
        tracker.num_failures = 0
        tracker.has_started = True
        tracker.allowed_at = now + answer.min_interval
        tracker.next_at = now + answer.interval
        lane = tracker.lane
        lane.promote(tracker)
        lane.current = lane.find_working()
        if lane.current is tracker:
            lane.due_at = tracker.next_at

    def failed(self, url: str, *, now: float, retry_after: float | None = None) -> None:
        """
        Take note of a failure; the lane turns to its next tracker, unless one works meanwhile.

        Args:
            url: who failed.
            now: monotonic seconds.
            retry_after: seconds the tracker asked us to wait, ``inf`` for ever.
        """
        tracker = self._under_way(url)
        if tracker is None:
            return
        tracker.event = None
        tracker.num_failures += 1
        tracker.is_backing_off = retry_after is None
        if retry_after is None:
            longest = min(MAX_BACKOFF, 2 * MIN_BACKOFF * 2.0 ** min(tracker.num_failures - 1, 10))
            retry_after = self._rng.uniform(longest / 2, longest)
        tracker.is_refused = retry_after == math.inf
        tracker.retry_at = now + max(retry_after, MIN_BACKOFF)
        lane = tracker.lane
        if lane.current is None or lane.current is tracker:
            lane.current = lane.find_working()
            lane.due_at = now

    def _find(self, url: str) -> _Tracker | None:
        return next((tracker for tracker in self._all() if tracker.url == url), None)

    def _under_way(self, url: str) -> _Tracker | None:
        """Return whom an announce is under way to; None, and it is over, if nobody cares."""
        tracker = self._find(url)
        if tracker is None or not self._is_started:
            self._leaving.pop(url, None)
            return None
        if tracker.event is None:
            raise MisuseError(f"no announce under way to {url}")
        return tracker

    # --- view --------------------------------------------------------------------------------

    def slow(self, *, now: float) -> set[str]:
        """Return whom we have had no more patience with, and who has not answered since."""
        return {each.url for each in self._all() if each.event is not None and each.slow_at <= now}

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
