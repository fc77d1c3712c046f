"""
The announces of one torrent: an owner task over ``policy.announcing``.

``run`` is the task: it asks the schedule what is due, makes those announces side by
side, and sleeps until the next is. A dead tracker costs a task that waits, never the
torrent; ``stop`` waits for trackers at most as long as it is told. What a tracker
says reaches the torrent through ``Surroundings``.

Sources: BEP 3, BEP 7, BEP 12, BEP 31, BEP 52 (a hybrid torrent announces both hashes).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bittern.core.announce import AnnounceAnswer, AnnounceRequest, Event, ScrapeEntry
from bittern.core.endpoint import Endpoint, is_dialable
from bittern.core.errors import TrackerFailure, TrackerUnreachable
from bittern.core.ids import InfoHash, PeerId
from bittern.engine import events
from bittern.engine.tracker_client import TrackerClient
from bittern.policy.announcing import AnnounceDecision, AnnounceScheduler, TrackerState

STOP_TIMEOUT = 5.0
"""Limit: F19. Seconds that all "stopped" announces together may take."""
NUM_WANT = 200
"""Peers asked for; libtorrent's default, and the most that trackers give (T3)."""
MAX_SCRAPES = 10
"""Trackers scraped at once for one torrent."""
SOURCE = "tracker"
"""How peers from here are labelled."""


class Surroundings(Protocol):
    """What the announcer asks of its torrent."""

    def stats(self) -> tuple[int, int, int]:
        """Return bytes uploaded, downloaded, and left."""

    def add_peers(self, endpoints: Sequence[Endpoint], source: str, from_host: str) -> None:
        """Take peers that a tracker at the address ``from_host`` named."""

    def report(self, event: events.Event) -> None:
        """Hear what happened, for people."""


@dataclass(frozen=True, slots=True)
class TrackerStatus:
    """
    One tracker, for display.

    Args:
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
        surroundings: the torrent.
        info_hashes: what to announce; two for a hybrid torrent.
        peer_id: our own.
        port: tells where we take connections now.
        rng: for the order of trackers, spreading retries, and the announce key.
        announce_to_all_tiers: see ``policy.announcing``.

    Create ``run()`` as a task; ``stop`` ends it, cancelling it skips the goodbyes.

    Attributes:
        external_host: our own address as a tracker saw it last (BEP 24).
    """

    def __init__(
        self,
        tiers: Sequence[Sequence[str]],
        *,
        client: TrackerClient,
        surroundings: Surroundings,
        info_hashes: Sequence[InfoHash],
        peer_id: PeerId,
        port: Callable[[], int],
        rng: random.Random,
        announce_to_all_tiers: bool = False,
    ) -> None:
        self.external_host: str | None = None
        self._client = client
        self._surroundings = surroundings
        self._info_hashes = tuple(info_hashes)
        self._peer_id = peer_id
        self._port = port
        self._key = rng.getrandbits(32)
        self._schedule = AnnounceScheduler(tiers, rng, announce_to_all_tiers=announce_to_all_tiers)
        self._memory: dict[str, _Memory] = {}
        self._woken = asyncio.Event()
        self._ended = asyncio.Event()
        self._is_running = False
        self._is_stopping = False

    # --- life --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Announce until stopped; every tracker hears ``started`` first. Once only."""
        loop = asyncio.get_running_loop()
        if self._is_stopping:
            return
        self._is_running = True
        self._schedule.start(now=loop.time())
        try:
            async with asyncio.TaskGroup() as group:
                tasks: set[asyncio.Task[None]] = set()
                while not self._is_stopping:
                    for decision in self._schedule.due(now=loop.time()):
                        task = group.create_task(
                            self._announce(decision), name=f"announce {decision.url[:60]}"
                        )
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                    await self._sleep_until(self._schedule.next_timer())
                for task in tasks:
                    task.cancel()
        finally:
            self._is_running = False
            self._ended.set()

    async def stop(self, *, timeout: float = STOP_TIMEOUT) -> None:
        """
        End ``run`` and tell the trackers, all at once, for at most ``timeout`` seconds.

        Returns when they know, or when the time is up; what is still under way then is
        dropped. Idempotent.
        """
        decisions = self._schedule.stop()
        self._is_stopping = True
        self._woken.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                if self._is_running:
                    await self._ended.wait()
                await asyncio.gather(*map(self._say_stopped, decisions))

    # --- verbs -------------------------------------------------------------------------------

    def completed(self) -> None:
        """Say that the download finished."""
        self._schedule.complete(now=asyncio.get_running_loop().time())
        self._woken.set()

    def announce_now(self) -> None:
        """Announce as soon as the trackers' minimum intervals allow."""
        self._schedule.request(now=asyncio.get_running_loop().time())
        self._woken.set()

    def set_tiers(self, tiers: Sequence[Sequence[str]]) -> None:
        """Replace the trackers; those that stay keep their state."""
        self._schedule.set_tiers(tiers, now=asyncio.get_running_loop().time())
        kept = {tracker.url for tracker in self._schedule.trackers()}
        self._memory = {url: memory for url, memory in self._memory.items() if url in kept}
        self._woken.set()

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
                    found = await self._client.scrape(url, self._info_hashes)
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

    async def _sleep_until(self, at: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(at):
                await self._woken.wait()
        self._woken.clear()

    def _requests(self, decision: AnnounceDecision) -> list[AnnounceRequest]:
        uploaded, downloaded, left = self._surroundings.stats()
        memory = self._memory.get(decision.url)
        return [
            AnnounceRequest(
                info_hash=info_hash,
                peer_id=self._peer_id,
                port=self._port(),
                uploaded=uploaded,
                downloaded=downloaded,
                left=left,
                event=decision.event,
                key=self._key,
                numwant=0 if decision.event is Event.STOPPED else NUM_WANT,
                tracker_id=b"" if memory is None else memory.tracker_id,
            )
            for info_hash in self._info_hashes
        ]

    async def _announce(self, decision: AnnounceDecision) -> None:
        loop = asyncio.get_running_loop()
        url = decision.url
        self._memory.setdefault(url, _Memory()).last_asked_at = loop.time()
        self._surroundings.report(events.TrackerAsked(url, decision.event.value))
        try:
            answer = await self._client.announce(
                url, self._requests(decision), answered=self._take_peers
            )
        except (TrackerFailure, TrackerUnreachable) as error:
            self._failed(url, error, loop.time())
        else:
            self._succeeded(decision, answer, loop.time())
        self._woken.set()

    def _take_peers(self, answer: AnnounceAnswer, host: str) -> None:
        if answer.external_host is not None:
            self.external_host = answer.external_host
        peers = [peer for peer in answer.peers if is_dialable(peer)]
        if peers and not self._is_stopping:
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

    def _failed(self, url: str, error: TrackerFailure | TrackerUnreachable, now: float) -> None:
        reason = error.reason if isinstance(error, TrackerFailure) else str(error)
        retry_after = error.retry_after if isinstance(error, TrackerFailure) else None
        self._schedule.failed(url, now=now, retry_after=retry_after)
        memory = self._memory.setdefault(url, _Memory())
        memory.last_at = now
        memory.message = reason
        retry_at = next((t.next_at for t in self._schedule.trackers() if t.url == url), None)
        self._surroundings.report(events.TrackerFailed(url, reason, retry_at))

    async def _say_stopped(self, decision: AnnounceDecision) -> None:
        with contextlib.suppress(TrackerFailure, TrackerUnreachable):
            await self._client.announce(decision.url, self._requests(decision))


def _largest(entries: Sequence[ScrapeEntry]) -> ScrapeEntry:
    return max(entries, key=lambda entry: (entry.num_seeds or 0) + (entry.num_leechers or 0))
