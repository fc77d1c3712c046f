"""
The announces of one torrent: its part of ``engine.sources.announces`` over ``policy.announcing``.

Between two announces this is one small object and an entry in the session's heap. When
something is due, it asks the schedule what, and the session runs those announces side by
side. A dead tracker costs a task that waits, never the torrent; ``stop`` waits for
trackers at most as long as it is told. What a tracker says reaches the torrent through
``Surroundings``.

Sources: BEP 3, BEP 7, BEP 12, BEP 24, BEP 31, BEP 52 (a hybrid torrent announces both hashes).
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from bittern.core.announce import AnnounceAnswer, AnnounceRequest, Event, ScrapeEntry
from bittern.core.endpoint import Endpoint, is_dialable
from bittern.core.errors import TrackerFailure, TrackerUnreachable
from bittern.core.ids import InfoHash, PeerId
from bittern.engine import events
from bittern.engine.sources.announces import Announces, Plan
from bittern.engine.sources.tracker_client import TrackerClient
from bittern.policy.announcing import AnnounceDecision, AnnounceScheduler, TrackerState

STOP_TIMEOUT = 5.0
"""Limit: F19. Seconds that all "stopped" announces together may take."""
LATE_TIMEOUT = 1.0
"""
Limit: F19. The same for a torrent whose turn comes when the time of its session is over, and
for a tracker that has been silent for long already.
"""
NUM_WANT = 200
"""Peers asked for; libtorrent's default, and the most that trackers give (T3)."""
NO_PORT = 1
"""Named while nobody can connect to us: trackers refuse 0, and nobody listens there."""
MAX_SCRAPES = 10
"""Trackers scraped at once for one torrent."""
SOURCE = "tracker"
"""How peers from here are labelled."""

News: TypeAlias = events.TrackerAsked | events.TrackerAnnounced | events.TrackerFailed
"""What an announcer tells."""


class Surroundings(Protocol):
    """What the announcer asks of its torrent."""

    @property
    def is_private(self) -> bool:
        """True when trackers are to be asked strictly one after the other (BEP 27)."""

    def stats(self) -> tuple[int, int, int]:
        """Return bytes uploaded, downloaded, and left, wanted or not."""

    @property
    def wants_nothing(self) -> bool:
        """True when it downloads nothing more; with bytes left it is a partial seed (BEP 21)."""

    def add_peers(self, endpoints: Sequence[Endpoint], source: str, from_host: str) -> None:
        """Take peers that a tracker at the address ``from_host`` named."""

    def address_told(self, host: str) -> None:
        """Hear our own address as a tracker sees it (BEP 24)."""

    def report(self, event: News) -> None:
        """Hear what happened, for people."""


@dataclass(frozen=True, slots=True)
class TrackerStatus:
    """
    One tracker, for display.

    Args:
        url: as the torrent, or the user, gives it.
        tier: which group of trackers it is in, 0 for the first (BEP 12).
        state: how it stands.
        num_failures: announces in a row that failed.
        next_at: loop time of the next announce, None while none is planned.
        last_asked_at: loop time of the last announce.
        last_at: loop time of the last answer or failure.
        num_seeds, num_leechers, num_downloaded: the swarm as the tracker sees it.
        num_peers: how many it named in its last answer, None while it has not answered.
        num_found: how many in all its answers.
        message: its warning, or why the last announce failed.
    """

    url: str
    tier: int
    state: TrackerState
    num_failures: int = 0
    next_at: float | None = None
    last_asked_at: float | None = None
    last_at: float | None = None
    num_seeds: int | None = None
    num_leechers: int | None = None
    num_downloaded: int | None = None
    num_peers: int | None = None
    num_found: int = 0
    message: str | None = None


@dataclass(slots=True)
class _Memory:
    """What was heard from one tracker."""

    tracker_id: bytes = b""
    last_asked_at: float | None = None
    last_at: float | None = None
    counts: ScrapeEntry = dataclasses.field(default_factory=ScrapeEntry)
    num_peers: int | None = None
    num_found: int = 0
    message: str | None = None


class TrackerAnnouncer:
    """
    Keeps one torrent known to its trackers.

    Args:
        tiers: announce URLs by tier.
        client: the session's.
        announces: the session's.
        surroundings: the torrent.
        info_hashes: what to announce; two for a hybrid torrent.
        peer_id: our own.
        port: tells where we take connections now.
        rng: for the order of trackers, spreading retries, and the announce key.
        announce_to_all_tiers: see ``policy.announcing``.

    Attributes:
        info_hashes: as given; may be replaced.
        is_running: between ``start`` and ``stop``.
        plan: kept by ``Announces``.
    """

    __slots__ = (
        "_announces",
        "_client",
        "_key",
        "_memory",
        "_named_port",
        "_peer_id",
        "_port",
        "_schedule",
        "_surroundings",
        "_tasks",
        "info_hashes",
        "is_running",
        "plan",
    )

    def __init__(
        self,
        tiers: Sequence[Sequence[str]],
        *,
        client: TrackerClient,
        announces: Announces,
        surroundings: Surroundings,
        info_hashes: Sequence[InfoHash],
        peer_id: PeerId,
        port: Callable[[], int],
        rng: random.Random,
        announce_to_all_tiers: bool = False,
    ) -> None:
        self.is_running: bool = False
        self.plan: Plan | None = None
        self._client = client
        self._announces = announces
        self._surroundings = surroundings
        self.info_hashes: tuple[InfoHash, ...] = tuple(info_hashes)
        self._peer_id = peer_id
        self._port = port
        self._named_port = NO_PORT
        self._key = rng.getrandbits(32)
        self._schedule = AnnounceScheduler(
            self._kept_once(tiers), rng, announce_to_all_tiers=announce_to_all_tiers
        )
        self._memory: dict[str, _Memory] = {}
        self._tasks: tuple[tuple[asyncio.Task[None], AnnounceDecision], ...] = ()

    # --- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to announce; every tracker hears ``started`` first. Once only."""
        self.is_running = True
        self._schedule.start(now=_now())
        self.go_on()

    def go_on(self) -> None:
        """Do what is due, and say when to go on."""
        if self.is_running:
            self._schedule.is_patient = self._surroundings.is_private
            for decision in self._schedule.due(now=_now()):
                self._announces.submit(self, decision)
            self._announces.wake_at(self, self._schedule.next_timer())

    async def stop(self, *, timeout: float = STOP_TIMEOUT) -> None:
        """
        End, and tell the trackers, all at once, for at most ``timeout`` seconds.

        Returns when they know, or when the time is up, or that of the session, after which a
        torrent still has ``LATE_TIMEOUT``; what is under way then is dropped. One that is silent
        has no more than that. One whose line we only stood in knows nothing of us. Idempotent.
        """
        slow = self._schedule.slow(now=_now())
        decisions = self._schedule.stop()
        self.is_running = False
        self._announces.wake_at(self, None)
        completing = {}
        for task, decision in self._tasks:
            if decision.event is Event.COMPLETED:
                completing[decision.url] = task  # dropped, it could be counted twice or never
            else:
                task.cancel()
        if decisions:
            by_url: dict[str, list[AnnounceDecision]] = {}
            for decision in decisions:
                by_url.setdefault(decision.url, []).append(decision)
            late_at = _now() + LATE_TIMEOUT
            ends_at = min(_now() + timeout, max(self._announces.ends_at, late_at))
            await asyncio.gather(
                *(
                    self._say_goodbye(
                        each,
                        completing.get(url),
                        ends_at=min(ends_at, late_at) if url in slow else ends_at,
                    )
                    for url, each in by_url.items()
                )
            )

    # --- verbs -------------------------------------------------------------------------------

    def completed(self) -> None:
        """Say that the download finished."""
        self._schedule.complete(now=_now())
        self.go_on()

    def announce_now(self) -> None:
        """Announce as soon as the trackers' minimum intervals allow."""
        self._schedule.request(now=_now())
        self.go_on()

    def missed(self, seconds: float) -> None:
        """Announce soon, and reckon with time that the loop has not counted."""
        self._schedule.missed(seconds, now=_now())
        self._announces.wake_at(self, self._schedule.next_timer())

    def set_tiers(self, tiers: Sequence[Sequence[str]]) -> None:
        """Replace the trackers; those that stay keep their state, the others are told by and by."""
        for decision in self._schedule.set_tiers(self._kept_once(tiers), now=_now()):
            self._announces.submit(self._make_farewell(decision), decision)
        kept = {tracker.url for tracker in self._schedule.trackers()}
        kept |= {decision.url for _, decision in self._tasks}  # they may come back
        self._memory = {url: memory for url, memory in self._memory.items() if url in kept}
        self.go_on()

    def _make_farewell(self, decision: AnnounceDecision) -> _Farewell:
        url = decision.url

        def under_way() -> list[asyncio.Task[None]]:
            return [task for task, each in self._tasks if each.url == url]

        def is_ours() -> bool:
            return any(each.url == url for each in self._schedule.trackers())

        return _Farewell(self._client, self._requests(decision), under_way, is_ours)

    async def scrape(self) -> dict[str, ScrapeEntry]:
        """
        Ask every tracker for the counts of the swarm.

        Returns:
            By URL; trackers that did not answer are absent. Counts of a hybrid torrent's
            two swarms are those of the larger.
        """
        places = asyncio.Semaphore(MAX_SCRAPES)

        async def one(url: str) -> tuple[str, ScrapeEntry] | None:
            async with places:
                try:
                    found = await self._client.scrape(url, self.info_hashes)
                except (TrackerFailure, TrackerUnreachable):
                    return None
            return (url, _largest(list(found.values()))) if found else None

        urls = [tracker.url for tracker in self._schedule.trackers()]
        entries = dict(filter(None, await asyncio.gather(*map(one, urls))))
        for url, entry in entries.items():
            self._memory.setdefault(url, _Memory()).counts = entry
        return entries

    def trackers(self) -> list[TrackerStatus]:
        """Return every tracker by tier, in the order in which it would be asked."""
        statuses = []
        for tracker in self._schedule.trackers():
            memory = self._memory.get(tracker.url, _Memory())
            statuses.append(
                TrackerStatus(
                    url=tracker.url,
                    tier=tracker.tier,
                    state=tracker.state,
                    num_failures=tracker.num_failures,
                    next_at=tracker.next_at,
                    last_asked_at=memory.last_asked_at,
                    last_at=memory.last_at,
                    num_seeds=memory.counts.num_seeds,
                    num_leechers=memory.counts.num_leechers,
                    num_downloaded=memory.counts.num_downloaded,
                    num_peers=memory.num_peers,
                    num_found=memory.num_found,
                    message=memory.message,
                )
            )
        return statuses

    # --- inside ------------------------------------------------------------------------------

    def _kept_once(self, tiers: Sequence[Sequence[str]]) -> list[list[str]]:
        return [[self._announces.once(str(url)) for url in tier] for tier in tiers]

    def _requests(self, decision: AnnounceDecision) -> list[AnnounceRequest]:
        uploaded, downloaded, left = self._surroundings.stats()
        memory, event = self._memory.get(decision.url), decision.event
        if event is Event.NONE and left and self._surroundings.wants_nothing:
            event = Event.PAUSED  # BEP 21: in every announce of a partial seed
        if event is not Event.STOPPED:
            # A tracker knows us by it, also when the session has closed its port and says goodbye.
            self._named_port = self._port() or NO_PORT
        return [
            AnnounceRequest(
                info_hash=info_hash,
                peer_id=self._peer_id,
                port=self._named_port,
                uploaded=uploaded,
                downloaded=downloaded,
                left=left,
                event=event,
                key=self._key,
                numwant=0 if event is Event.STOPPED else NUM_WANT,
                tracker_id=b"" if memory is None else memory.tracker_id,
            )
            for info_hash in self.info_hashes
        ]

    def stalled(self, decision: AnnounceDecision) -> None:
        """Turn to another tracker, since this one's line does not move; called by ``Announces``."""
        self._schedule.stalled(decision.url, now=_now())
        self.go_on()

    def takes_turn(self, decision: AnnounceDecision) -> bool:
        """Return False if the tracker was taken away meanwhile; called by ``Announces``."""
        is_wanted = self._schedule.asked(decision.url, now=_now())
        self._announces.wake_at(self, self._schedule.next_timer())
        return is_wanted

    async def announce(self, decision: AnnounceDecision) -> None:
        """
        Make one announce and take its answer; called by ``Announces``.

        Raises:
            TrackerFailure, TrackerUnreachable: see ``announce_failed``.
        """
        task = asyncio.current_task()
        assert task is not None
        self._tasks = (*self._tasks, (task, decision))
        try:
            self._memory.setdefault(decision.url, _Memory()).last_asked_at = _now()
            self._surroundings.report(events.TrackerAsked(decision.url, decision.event.value))
            answer = await self._client.announce(
                decision.url, self._requests(decision), answered=self._take_peers
            )
        finally:
            self._tasks = tuple(each for each in self._tasks if each[0] is not task)
        self._succeeded(decision, answer, _now())
        self.go_on()

    def _take_peers(self, answer: AnnounceAnswer, host: str) -> None:
        if answer.external_host is not None:
            self._surroundings.address_told(answer.external_host)
        peers = [peer for peer in answer.peers if is_dialable(peer)]
        if peers and self.is_running:
            self._surroundings.add_peers(peers, SOURCE, host)

    def _succeeded(self, decision: AnnounceDecision, answer: AnnounceAnswer, now: float) -> None:
        memory = self._memory.setdefault(decision.url, _Memory())
        memory.last_at = now
        memory.tracker_id = answer.tracker_id or memory.tracker_id
        memory.counts = ScrapeEntry(
            answer.num_seeds,
            memory.counts.num_downloaded
            if answer.num_downloaded is None
            else answer.num_downloaded,
            answer.num_leechers,
        )
        memory.num_peers = len(answer.peers)
        memory.num_found += len(answer.peers)
        memory.message = answer.warning
        self._schedule.succeeded(decision.url, answer, now=now)
        self._surroundings.report(
            events.TrackerAnnounced(
                url=decision.url,
                event=decision.event.value,
                num_peers=len(answer.peers),
                num_seeds=answer.num_seeds,
                num_leechers=answer.num_leechers,
                interval=answer.interval,
            )
        )

    def announce_failed(
        self, decision: AnnounceDecision, error: TrackerFailure | TrackerUnreachable
    ) -> None:
        """Take note of a failure and go on to the next tracker; called by ``Announces``."""
        if not self.is_running:
            return
        now, url = _now(), decision.url
        text = error.reason if isinstance(error, TrackerFailure) else str(error)
        reason = self._announces.once(text)
        retry_after = error.retry_after if isinstance(error, TrackerFailure) else None
        self._schedule.failed(url, now=now, retry_after=retry_after)
        memory = self._memory.setdefault(url, _Memory())
        memory.last_at = now
        memory.message = reason
        retry_at = next((t.next_at for t in self._schedule.trackers() if t.url == url), None)
        is_refusal = isinstance(error, TrackerFailure) and not error.is_ours
        self._surroundings.report(events.TrackerFailed(url, reason, retry_at, is_refusal))
        self.go_on()

    async def _say_goodbye(
        self,
        decisions: Sequence[AnnounceDecision],
        completing: asyncio.Task[None] | None,
        *,
        ends_at: float,
    ) -> None:
        """Tell one tracker what it has to know, one after the other, until ``ends_at``."""
        try:
            async with asyncio.timeout_at(ends_at):
                if completing is not None:
                    await asyncio.wait((completing,))
                    decisions = decisions[-1:]
                for decision in decisions:
                    await self._client.announce(decision.url, self._requests(decision))
        except (TrackerFailure, TrackerUnreachable):
            pass
        except TimeoutError:
            if completing is not None:
                completing.cancel()


class _Farewell:
    """
    Tells a tracker that was taken away that we have left; an ``Announcer`` for that alone.

    Args:
        client: the session's.
        requests: what to say.
        under_way: returns the announces to it that have to end before.
        is_ours: tells whether it has come back meanwhile.
    """

    __slots__ = ("_client", "_is_ours", "_requests", "_under_way", "is_running", "plan")

    def __init__(
        self,
        client: TrackerClient,
        requests: Sequence[AnnounceRequest],
        under_way: Callable[[], list[asyncio.Task[None]]],
        is_ours: Callable[[], bool],
    ) -> None:
        self.plan: Plan | None = None
        self.is_running: bool = True
        self._client = client
        self._requests = requests
        self._under_way = under_way
        self._is_ours = is_ours

    def go_on(self) -> None:
        """Do nothing."""

    def missed(self, seconds: float) -> None:
        """Do nothing."""

    def stalled(self, decision: AnnounceDecision) -> None:
        """Do nothing."""

    def takes_turn(self, decision: AnnounceDecision) -> bool:  # noqa: ARG002 - as every announcer
        """Return False if it has come back meanwhile."""
        return not self._is_ours()

    async def announce(self, decision: AnnounceDecision) -> None:
        """Say it, unless that becomes untrue while we wait."""
        if under_way := self._under_way():  # it stood in line before us
            await asyncio.wait(under_way)
        if not self._is_ours():
            await self._client.announce(decision.url, self._requests)

    def announce_failed(
        self, decision: AnnounceDecision, error: TrackerFailure | TrackerUnreachable
    ) -> None:
        """Do nothing: it forgets us by itself."""


def _largest(entries: Sequence[ScrapeEntry]) -> ScrapeEntry:
    return max(entries, key=lambda entry: (entry.num_seeds or 0) + (entry.num_leechers or 0))


def _now() -> float:
    return asyncio.get_running_loop().time()
