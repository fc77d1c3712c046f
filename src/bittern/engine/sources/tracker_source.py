"""
The trackers of a torrent as one of its sources of peers.

Sources: BEP 12; BEP 21 (partial seeds).
"""

from __future__ import annotations

from collections.abc import Sequence

from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine.events import SourceChanged
from bittern.engine.services import Services
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.engine.sources.announces import Announces
from bittern.engine.sources.base import DiscoveringTorrent, switched_off_by
from bittern.engine.sources.tracker_client import TrackerClient
from bittern.engine.sources.trackers import News, TrackerAnnouncer, TrackerStatus
from bittern.policy.announcing import TrackerState

STATES = {
    TrackerState.UNTRIED: SourceState.WAITING,
    TrackerState.ANNOUNCING: SourceState.ASKING,
    TrackerState.WORKING: SourceState.WORKING,
    TrackerState.FAILING: SourceState.FAILING,
    TrackerState.REFUSED: SourceState.FAILING,
}


class TrackerSource:
    """
    The trackers of one running torrent.

    Args:
        torrent: takes the peers.
        services: of the session.
        client: talks to trackers; None when they are switched off.
        announces: of all torrents of the session.
        tiers: announce URLs by tier; may be none.
    """

    __slots__ = (
        "_announcer",
        "_announces",
        "_client",
        "_is_running",
        "_reason",
        "_services",
        "_torrent",
    )

    def __init__(
        self,
        torrent: DiscoveringTorrent,
        services: Services,
        client: TrackerClient | None,
        announces: Announces,
        tiers: Sequence[Sequence[str]],
    ) -> None:
        self._services = services
        self._torrent = torrent
        self._client = client
        self._announces = announces
        self._reason = ""
        self._is_running = False
        self._announcer: TrackerAnnouncer | None = None
        if client is None:
            self._reason = switched_off_by("enable_trackers")
        elif any(tiers):
            self._announcer = self._make_announcer(client, tiers)
        else:
            self._reason = "the torrent names no tracker"

    def _make_announcer(
        self, client: TrackerClient, tiers: Sequence[Sequence[str]]
    ) -> TrackerAnnouncer:
        services = self._services
        return TrackerAnnouncer(
            tiers,
            client=client,
            announces=self._announces,
            surroundings=self,
            info_hashes=self._torrent.all_hashes,
            peer_id=services.peer_id,
            port=services.listen_port,
            rng=services.rng,
            announce_to_all_tiers=services.config.announce_to_all_tiers,
        )

    def start(self, name: str) -> None:  # noqa: ARG002  # as every source
        """Begin to announce."""
        self._is_running = True
        if self._announcer is not None:
            self._announcer.start()

    def completed(self) -> None:
        """Say that the download has finished, unless it is one of some files only (BEP 21)."""
        if self._announcer is not None and not self._torrent.ledger.missing:
            self._announcer.completed()

    def ask_now(self) -> None:
        """Announce as soon as the trackers' minimum intervals allow."""
        if self._announcer is not None:
            self._announcer.announce_now()

    def set_tiers(self, tiers: Sequence[Sequence[str]]) -> None:
        """Announce to these trackers from now on; those that stay keep their state."""
        if self._announcer is not None:
            self._announcer.set_tiers(tiers)
        elif self._client is not None and any(tiers):
            self._announcer = self._make_announcer(self._client, tiers)
            if self._is_running:
                self._announcer.start()

    def set_hashes(self, info_hashes: Sequence[InfoHash]) -> None:
        """Announce these hashes from now on."""
        if self._announcer is not None:
            self._announcer.info_hashes = tuple(info_hashes)

    def trackers(self) -> list[TrackerStatus]:
        """Return the state of every tracker."""
        return [] if self._announcer is None else self._announcer.trackers()

    async def scrape(self) -> None:
        """Ask every tracker for the counts of the swarm."""
        if self._announcer is not None:
            await self._announcer.scrape()

    def statuses(self) -> list[SourceStatus]:
        """Return one status for each tracker, or why there is none."""
        if self._announcer is None:
            return [
                SourceStatus(kind=SourceKind.TRACKER, state=SourceState.OFF, message=self._reason)
            ]
        return [status_of(tracker) for tracker in self._announcer.trackers()]

    # --- what the announcer asks and tells -----------------------------------------------

    def add_peers(self, endpoints: Sequence[Endpoint], source: str, from_host: str) -> None:
        """Pass on what a tracker named."""
        self._torrent.add_peers(endpoints, source, from_host)

    def address_told(self, host: str) -> None:
        """Pass on where a tracker sees us."""
        self._services.address_told(host)

    @property
    def is_private(self) -> bool:
        """True when trackers are to be asked strictly one after the other (BEP 27)."""
        return self._torrent.is_private

    def stats(self) -> tuple[int, int, int]:
        """Return bytes uploaded, downloaded, and left; unknown metadata counts as 1 byte."""
        torrent, shelf = self._torrent, self._torrent.shelf
        # Who is not a seed must not be counted as one, and must be told of seeds.
        left = shelf.length_of(torrent.ledger.missing) if shelf.has_metainfo else 1
        return torrent.num_uploaded, torrent.num_downloaded, left

    @property
    def wants_nothing(self) -> bool:
        """True when all that was chosen is there."""
        return self._torrent.is_complete

    def report(self, event: News) -> None:
        """Pass the announcer's news on, and say with them how the tracker stands now."""
        self._torrent.report(event)
        for tracker in self.trackers():
            if tracker.url == event.url:
                self._torrent.report(SourceChanged(status_of(tracker)))

    async def stop(self) -> None:
        """Tell the trackers that we leave, within ``stop_timeout``."""
        if self._announcer is not None:
            await self._announcer.stop(timeout=self._services.config.stop_timeout)


def status_of(tracker: TrackerStatus) -> SourceStatus:
    """Return a tracker as a source."""
    message = tracker.message
    if tracker.state is TrackerState.UNTRIED:
        message = "asked only when the trackers before it do not answer"
    return SourceStatus(
        kind=SourceKind.TRACKER,
        name=tracker.url,
        state=STATES[tracker.state],
        last_asked_at=tracker.last_asked_at,
        last_answer_at=tracker.last_at,
        num_peers=tracker.num_peers,
        num_found=tracker.num_found,
        message=message,
        next_at=tracker.next_at,
    )
