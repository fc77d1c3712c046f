"""
What a source of peers is to its torrent.

A *source* brings endpoints to one torrent: its trackers, the DHT, peer exchange,
the local network, the user, and those who connect to us. ``engine.sources.discovery``
holds a list of ``PeerSource``; each tells by ``SourceStatus`` what was asked, what
came back, and when it is tried next, or why it is silent. A source that can be
asked reports ``events.SourceChanged`` when that changes.

What serves all torrents of a session (a DHT node, a socket for the local network)
is a ``SharedSource``: it stands in ``SessionSources.shared`` and makes the
``PeerSource`` of each torrent that may use it. Private torrents never reach it.

Sources: BEP 12 (trackers), BEP 27 (private torrents hear of peers from their own
trackers only).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Protocol

from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine.events import Event
from bittern.engine.ledger import Ledger
from bittern.engine.peers.roster import Roster
from bittern.engine.pieces.swarm import Swarm
from bittern.engine.shelf import Shelf
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.policy.candidates import Candidates


class DiscoveringTorrent(Protocol):
    """What the sources ask of a torrent."""

    shelf: Shelf
    """What it is called and made of."""
    ledger: Ledger
    """What it has, and what was moved."""

    @property
    def all_hashes(self) -> tuple[InfoHash, ...]:
        """The 20-byte hashes to look for and announce; two for a hybrid torrent."""

    @property
    def is_private(self) -> bool:
        """True when only its own trackers may name peers (BEP 27)."""

    @property
    def is_complete(self) -> bool:
        """True when everything wanted is there."""

    @property
    def num_downloaded(self) -> int:
        """Bytes of blocks received."""

    @property
    def num_uploaded(self) -> int:
        """Bytes of blocks sent."""

    @property
    def candidates(self) -> Candidates:
        """The endpoints known so far."""

    @property
    def roster(self) -> Roster | None:
        """The connections; None while there can be none."""

    @property
    def swarm(self) -> Swarm | None:
        """The part that moves pieces, while it runs."""

    def add_peers(
        self, endpoints: Iterable[Endpoint], source: str, from_host: str | None = None
    ) -> None:
        """Take peers that a source named."""

    def report(self, event: Event) -> None:
        """Tell the outside."""


class PeerSource(Protocol):
    """One source of peers of one running torrent."""

    def start(self, name: str) -> None:
        """Begin to ask; ``name`` is the torrent's, for the names of tasks. Once only."""

    def completed(self) -> None:
        """Hear that the download has finished."""

    def ask_now(self) -> None:
        """Ask again as soon as the source's rules allow."""

    def statuses(self) -> list[SourceStatus]:
        """Return how it stands; several where it asks several parties."""

    async def stop(self) -> None:
        """End, saying goodbye where it is due, within ``stop_timeout``."""


class SharedSource(Protocol):
    """What a session uses for all its torrents, such as its DHT node."""

    @property
    def kind(self) -> SourceKind:
        """What sort it is."""

    def join(self, torrent: DiscoveringTorrent) -> PeerSource:
        """Return the source of one torrent, not yet started; never asked for a private one."""

    def missed(self, seconds: float) -> None:
        """Ask again soon, after time that the loop has not counted or in another network."""


class SwitchedOff:
    """
    Stands for a source that is not used, so that it can say why.

    Args:
        kind: what sort it would be.
        reason: for people.
    """

    __slots__ = ("_kind", "_reason")

    def __init__(self, kind: SourceKind, reason: str) -> None:
        self._kind = kind
        self._reason = reason

    def start(self, name: str) -> None:
        """Do nothing."""

    def completed(self) -> None:
        """Do nothing."""

    def ask_now(self) -> None:
        """Do nothing."""

    def statuses(self) -> list[SourceStatus]:
        """Return the reason."""
        return [SourceStatus(kind=self._kind, state=SourceState.OFF, message=self._reason)]

    async def stop(self) -> None:
        """Do nothing."""


PRIVATE = "the torrent is private: only its trackers may name peers"


@cache  # one text, however many torrents it stands for
def switched_off_by(setting: str) -> str:
    """Return the reason of a source that a setting switches off."""
    return f"switched off by the setting {setting}"
