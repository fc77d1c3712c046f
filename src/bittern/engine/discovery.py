"""
Where a torrent's peers come from: trackers now, the DHT and the local network beside them.

Each source runs by itself and brings endpoints to the torrent's candidates; a
dead one costs nothing but its own waiting.

Sources: BEP 12 (trackers), BEP 27 (private torrents hear of peers from their
own trackers only).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine.config import TorrentConfig
from bittern.engine.events import Event
from bittern.engine.services import Services
from bittern.engine.shelf import Shelf
from bittern.engine.trackers import TrackerAnnouncer, TrackerStatus


class DiscoveringTorrent(Protocol):
    """What the sources ask of a torrent."""

    @property
    def num_downloaded(self) -> int:
        """Bytes of blocks received."""

    @property
    def num_uploaded(self) -> int:
        """Bytes of blocks sent."""

    @property
    def num_left(self) -> int:
        """Bytes still wanted."""

    def add_peers(
        self, endpoints: Sequence[Endpoint], source: str, from_host: str | None = None
    ) -> None:
        """Take peers that a source named."""

    def report(self, event: Event) -> None:
        """Tell the outside."""


class _TrackerSurroundings:
    """A torrent as its announcer sees it."""

    def __init__(self, torrent: DiscoveringTorrent) -> None:
        self._torrent = torrent
        self.add_peers = torrent.add_peers
        self.report = torrent.report

    def stats(self) -> tuple[int, int, int]:
        torrent = self._torrent
        return torrent.num_uploaded, torrent.num_downloaded, torrent.num_left


class Discovery:
    """
    The sources of peers of one running torrent.

    Args:
        torrent: takes the peers.
        services: of the session.
        tiers: announce URLs by tier.
        info_hashes: the 20-byte hashes to look for and announce.
    """

    def __init__(
        self,
        torrent: DiscoveringTorrent,
        services: Services,
        *,
        tiers: Sequence[Sequence[str]],
        info_hashes: Sequence[InfoHash],
    ) -> None:
        self._services = services
        self._announcer: TrackerAnnouncer | None = None
        if services.tracker_client is not None and any(tiers):
            self._announcer = TrackerAnnouncer(
                tiers,
                client=services.tracker_client,
                surroundings=_TrackerSurroundings(torrent),
                info_hashes=info_hashes,
                peer_id=services.peer_id,
                port=services.listen_port,
                rng=services.rng,
                announce_to_all_tiers=services.config.announce_to_all_tiers,
            )

    def start(self, name: str) -> None:
        """Begin to ask; ``name`` is the torrent's, for the names of tasks."""
        if self._announcer is not None:
            self._services.spawn(self._announcer.run(), f"trackers of {name}")

    def completed(self) -> None:
        """Say that the download has finished."""
        if self._announcer is not None:
            self._announcer.completed()

    def ask_now(self) -> None:
        """Ask all sources again, as soon as their rules allow."""
        if self._announcer is not None:
            self._announcer.announce_now()

    def trackers(self) -> list[TrackerStatus]:
        """Return the state of every tracker."""
        return [] if self._announcer is None else self._announcer.trackers()

    async def stop(self) -> None:
        """Say goodbye where it is due, within ``stop_timeout``."""
        if self._announcer is not None:
            await self._announcer.stop(timeout=self._services.config.stop_timeout)


def tiers_of(shelf: Shelf, config: TorrentConfig) -> tuple[tuple[str, ...], ...]:
    """Return the tiers of announce URLs of a torrent, those of its settings last."""
    if shelf.has_metainfo:
        own = shelf.metainfo().trackers
    else:
        own = () if shelf.magnet is None else tuple((url,) for url in shelf.magnet.trackers)
    return (*own, *config.trackers)
