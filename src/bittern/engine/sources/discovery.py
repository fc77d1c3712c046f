"""
Where a torrent's peers come from: a list of sources, each running by itself.

Each brings endpoints to the torrent's candidates; a dead one costs nothing but its
own waiting, and one that is not used is there as well, to say why.

Sources: BEP 12 (trackers), BEP 27 (private torrents hear of peers from their own
trackers only).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bittern.core.endpoint import Endpoint, is_local
from bittern.engine.config import TorrentConfig
from bittern.engine.pieces.web_seeds import read_url
from bittern.engine.services import Services
from bittern.engine.shelf import Shelf
from bittern.engine.source_status import SourceKind, SourceStatus
from bittern.engine.sources.announces import Announces
from bittern.engine.sources.base import (
    PRIVATE,
    DiscoveringTorrent,
    PeerSource,
    SharedSource,
    SwitchedOff,
    switched_off_by,
)
from bittern.engine.sources.passive import ExchangedPeers, GivenPeers, IncomingPeers
from bittern.engine.sources.tracker_client import TrackerClient
from bittern.engine.sources.tracker_source import TrackerSource
from bittern.engine.sources.trackers import TrackerStatus
from bittern.engine.sources.web_seed_source import WebSeedSource
from bittern.policy.candidates import Source
from bittern.policy.peer_book import NEIGHBOURS

_SHARED = {
    SourceKind.DHT: "enable_dht",
    SourceKind.LSD: "enable_lsd",
    SourceKind.ZEROCONF: "enable_zeroconf",
}
"""The setting of each source that belongs to the session."""

NOT_FOR_PRIVATE = (Source.DHT, Source.PEX, *NEIGHBOURS)
"""Who may name no peers of a private torrent (BEP 27)."""


@dataclass(slots=True)
class SessionSources:
    """What the torrents of a session find peers by in common."""

    tracker_client: TrackerClient | None
    """None when trackers are switched off."""
    announces: Announces
    """When each torrent announces to its trackers."""
    shared: list[SharedSource] = field(default_factory=list)
    """The session's own sources of peers, which every torrent may use that is not private."""


class Discovery:
    """
    The sources of peers of one running torrent.

    Args:
        torrent: takes the peers.
        services: of the session.
        common: what all torrents of the session share.
        tiers: announce URLs by tier.
        web_seeds: URLs of web seeds.
        enable_web_seeds: False when the user wants none.
    """

    __slots__ = (
        "_common",
        "_given",
        "_hashes",
        "_incoming",
        "_is_restricted",
        "_others",
        "_services",
        "_torrent",
        "_trackers",
        "_web_seeds",
    )

    def __init__(
        self,
        torrent: DiscoveringTorrent,
        services: Services,
        common: SessionSources,
        *,
        tiers: Sequence[Sequence[str]],
        web_seeds: Sequence[str] = (),
        enable_web_seeds: bool = True,
    ) -> None:
        self._torrent = torrent
        self._services = services
        self._common = common
        self._trackers = TrackerSource(
            torrent, services, common.tracker_client, common.announces, tiers
        )
        self._given = GivenPeers(torrent)
        self._incoming = IncomingPeers(
            torrent, port=services.listen_port, is_enabled=services.config.enable_incoming
        )
        self._web_seeds = WebSeedSource(torrent, services, web_seeds, is_enabled=enable_web_seeds)
        self._others = self._make_others()
        self._is_restricted = torrent.is_private
        self._hashes = torrent.all_hashes

    def _make_others(self) -> tuple[PeerSource, ...]:
        """Return the sources that a private torrent has not, or what stands for them."""
        config, torrent = self._services.config, self._torrent
        sources: list[PeerSource] = []
        shared = {source.kind: source for source in self._common.shared}
        for kind, setting in _SHARED.items():
            if torrent.is_private:
                sources.append(SwitchedOff(kind, PRIVATE))
            elif not getattr(config, setting):
                sources.append(SwitchedOff(kind, switched_off_by(setting)))
            elif kind in shared:
                sources.append(shared[kind].join(torrent))
        if torrent.is_private:
            sources.append(SwitchedOff(SourceKind.PEX, PRIVATE))
        elif not config.enable_pex:
            sources.append(SwitchedOff(SourceKind.PEX, switched_off_by("enable_pex")))
        else:
            sources.append(ExchangedPeers(torrent))
        return tuple(sources)

    @property
    def _sources(self) -> list[PeerSource]:
        return [self._given, self._trackers, self._web_seeds, *self._others, self._incoming]

    def start(self, name: str) -> None:
        """Begin to ask; ``name`` is the torrent's, for the names of tasks."""
        for source in self._sources:
            source.start(name)

    def completed(self) -> None:
        """Say that the download has finished."""
        for source in self._sources:
            source.completed()

    def ask_now(self) -> None:
        """Ask all sources again, as soon as their rules allow."""
        for source in self._sources:
            source.ask_now()

    def statuses(self) -> list[SourceStatus]:
        """Return the state of every source."""
        return [status for source in self._sources for status in source.statuses()]

    def trackers(self) -> list[TrackerStatus]:
        """Return the state of every tracker."""
        return self._trackers.trackers()

    async def scrape(self) -> None:
        """Ask every tracker for the counts of the swarm."""
        await self._trackers.scrape()

    def set_tiers(self, tiers: Sequence[Sequence[str]]) -> None:
        """Announce to these trackers from now on."""
        self._trackers.set_tiers(tiers)

    def set_web_seeds(self, urls: Sequence[str]) -> None:
        """Have these web seeds from now on."""
        self._web_seeds.set_urls(urls)

    def metadata_known(self) -> None:
        """
        Go on with what the metadata has told.

        A private torrent has no source but its trackers (BEP 27); a hybrid goes by its other hash
        as well (BEP 52).
        """
        if self._hashes != self._torrent.all_hashes:
            self._hashes = self._torrent.all_hashes
            self._trackers.set_hashes(self._hashes)
            self.ask_now()
        if self._torrent.is_private and not self._is_restricted:
            self._is_restricted = True
            others, self._others = self._others, self._make_others()
            self._services.spawn(_stop_all(others), "leave sources of a private torrent")
            self._part_from_strangers()

    def _part_from_strangers(self) -> None:
        """Forget whom other sources have named, and close connections that came of it."""
        named = set(self._torrent.candidates.forget_from(NOT_FOR_PRIVATE))
        roster = self._torrent.roster
        for peer in [] if roster is None else list(roster.peers):
            if peer.listen_endpoint in named:
                peer.close("the torrent is private, and no tracker of it named this peer")

    async def stop(self) -> None:
        """Say goodbye where it is due, within ``stop_timeout``."""
        # Only trackers are waited for: last, so that they hold up nobody.
        await _stop_all([each for each in self._sources if each is not self._trackers])
        await self._trackers.stop()


async def _stop_all(sources: Sequence[PeerSource]) -> None:
    """Stop sources that have nothing to wait for: no task for each, of thousands of torrents."""
    for source in sources:
        await source.stop()


def tiers_of(shelf: Shelf, config: TorrentConfig) -> tuple[tuple[str, ...], ...]:
    """Return the tiers of announce URLs of a torrent, those of its settings last."""
    if shelf.has_metainfo:
        own = shelf.metainfo().trackers
    else:
        own = () if shelf.magnet is None else tuple((url,) for url in shelf.magnet.trackers)
    return (*own, *config.trackers)


def web_seeds_of(shelf: Shelf, config: TorrentConfig) -> tuple[str, ...]:
    """Return the URLs of the web seeds of a torrent, each once, those of its settings first."""
    known = shelf.metainfo() if shelf.has_metainfo else shelf.magnet
    urls = (*config.web_seeds, *(() if known is None else known.web_seeds))
    return tuple(dict.fromkeys(read_url(url)[0] for url in urls))


def hinted_peers(shelf: Shelf) -> list[Endpoint]:
    """
    Return the peers that a magnet link names by their address (``x.pe``, BEP 9).

    Limit: P14. A link must not make us knock at the reader's own network, so local addresses
    are left out; so are names, which whoever wants them looks up.
    """
    found = []
    for host, port in () if shelf.magnet is None else shelf.magnet.peers:
        try:
            endpoint = Endpoint.make(host, port)
        except ValueError:
            continue
        if not is_local(endpoint.host):
            found.append(endpoint)
    return found
