"""
What one torrent knows of peers: the endpoints, and while it runs the sources that name them.

Endpoints outlive a run, so that a torrent that is paused and resumed begins with whom it
knew, or the best of them; a torrent at rest that knows nobody has neither.

Limit: H8. Source: BEP 12 (trackers), BEP 9 (``x.pe``).
"""

from __future__ import annotations

from collections.abc import Iterable

from bittern.core.endpoint import Endpoint
from bittern.engine.config import TorrentConfig
from bittern.engine.services import Services
from bittern.engine.source_status import SourceStatus
from bittern.engine.sources.base import DiscoveringTorrent
from bittern.engine.sources.discovery import (
    NOT_FOR_PRIVATE,
    Discovery,
    SessionSources,
    hinted_peers,
    tiers_of,
    web_seeds_of,
)
from bittern.engine.sources.trackers import TrackerStatus
from bittern.policy.candidates import Candidates, Source


class PeerFinder:
    """
    The one described in the module's text.

    Args:
        torrent: to find peers for.
        services: of the session.
    """

    __slots__ = ("_candidates", "_discovery", "_services", "_torrent")

    def __init__(self, torrent: DiscoveringTorrent, services: Services) -> None:
        self._torrent = torrent
        self._services = services
        self._candidates: Candidates | None = None
        self._discovery: Discovery | None = None

    @property
    def candidates(self) -> Candidates:
        """Known endpoints; made when first wanted, since a torrent at rest needs none."""
        if self._candidates is None:
            services = self._services
            self._candidates = Candidates(
                services.rng,
                now=services.loop.time(),
                bans=services.bans,
                allow_multiple_per_address=services.config.allow_multiple_per_address,
            )
            for endpoint in services.external.values():
                self._candidates.set_external(endpoint)
        return self._candidates

    def add(self, endpoints: Iterable[Endpoint], source: str, from_host: str | None) -> int:
        """Take note of endpoints, named by ``from_host``; how many of them are new."""
        if self._torrent.is_private and source in NOT_FOR_PRIVATE:
            return 0  # what a source still had to tell that was left a moment ago
        now = self._services.loop.time()
        return self.candidates.add(endpoints, Source(source), now=now, from_host=from_host)

    def start(self, common: SessionSources, config: TorrentConfig) -> None:
        """Ask all sources from now on, and begin with whom the user or a link names."""
        self.candidates.is_paused = False
        self._torrent.add_peers(config.peers, "user")
        self._torrent.add_peers((*config.hinted_peers, *hinted_peers(self._torrent.shelf)), "link")
        if len(self.candidates):  # the dialer looks at every torrent that runs
            self._services.request_dial()
        if self._discovery is None:
            shelf = self._torrent.shelf
            self._discovery = Discovery(
                self._torrent,
                self._services,
                common,
                tiers=tiers_of(shelf, config),
                web_seeds=web_seeds_of(shelf, config),
                enable_web_seeds=(
                    self._services.config.enable_web_seeds and config.enable_web_seeds
                ),
            )
            self._discovery.start(shelf.name)

    def metadata_known(self) -> None:
        """Go on with what it has told; a private torrent has fewer sources (BEP 27)."""
        if self._discovery is not None:
            self._discovery.metadata_known()

    def set_trackers(self, config: TorrentConfig) -> None:
        """Go by the trackers of changed settings."""
        if self._discovery is not None:
            self._discovery.set_tiers(tiers_of(self._torrent.shelf, config))

    def set_web_seeds(self, config: TorrentConfig) -> None:
        """Go by the web seeds of changed settings; the swarm has been told of them."""
        if self._discovery is not None:
            self._discovery.set_web_seeds(web_seeds_of(self._torrent.shelf, config))

    def completed(self) -> None:
        """Say that the download has finished."""
        self.candidates.is_seeding = True
        if self._discovery is not None:
            self._discovery.completed()

    def ask_now(self) -> None:
        """Ask all sources again, as soon as their rules allow."""
        if self._discovery is not None:
            self._discovery.ask_now()

    def trackers(self) -> list[TrackerStatus]:
        """Return the state of every tracker; none while the torrent does not run."""
        return [] if self._discovery is None else self._discovery.trackers()

    async def scrape(self) -> list[TrackerStatus]:
        """Ask every tracker for the counts of the swarm, and return their states."""
        if self._discovery is not None:
            await self._discovery.scrape()
        return self.trackers()

    def statuses(self) -> list[SourceStatus]:
        """Return the state of every source; none while the torrent does not run."""
        return [] if self._discovery is None else self._discovery.statuses()

    async def stop(self) -> None:
        """Ask nobody any more; goodbye is said where it is due, within ``stop_timeout``."""
        discovery, self._discovery = self._discovery, None
        if discovery is not None:
            self.candidates.is_paused = True
            await discovery.stop()

    def let_go(self) -> None:
        """Take no memory for nobody."""
        if not len(self.candidates):
            self._candidates = None
