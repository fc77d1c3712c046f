"""
What a session lends to its torrents themselves, beside what all their parts get.

One value, so that a torrent asks for nothing global and can be moved to
another session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bittern.engine.peers.range_reader import HttpOpener
from bittern.engine.peers.roster import Roster
from bittern.engine.pieces.swarm import Swarm
from bittern.engine.pieces.upload import SendBuffer
from bittern.engine.services import Services
from bittern.engine.sources.discovery import SessionSources
from bittern.engine.store.journal import Journal
from bittern.engine.store.reuse import Donor, Lender
from bittern.policy.candidates import Candidates
from bittern.storage.file_paths import Folding
from bittern.storage.handles import HandleCache
from bittern.storage.system import OsCalls


class ActiveTorrent(Protocol):
    """What the session looks after of a torrent that runs."""

    @property
    def roster(self) -> Roster | None:
        """Its connections; None while it can have none."""

    @property
    def swarm(self) -> Swarm | None:
        """What moves its pieces, if they move."""

    @property
    def candidates(self) -> Candidates:
        """The endpoints known to it."""

    @property
    def num_connections(self) -> int:
        """Connections, those in handshake too."""

    def tick(self, *, now: float) -> None:
        """Do what is due; called about once a second."""


@dataclass(slots=True, kw_only=True)
class TorrentServices(Services):
    """The session's means as its torrents see them."""

    http: Callable[[], HttpOpener]
    """What web seeds are asked with; made when it is first needed."""
    sources: SessionSources
    """Who may name peers to every torrent."""
    send_buffer: SendBuffer
    handles: HandleCache
    os_calls: OsCalls
    journal: Journal | None
    """None when nothing is kept beyond the session."""
    active: dict[ActiveTorrent, None]
    """The torrents that run, in the order in which they began; only they need looking after."""
    torrents: Callable[[], Sequence[Donor]]
    """All torrents of the session; a new one may take files that another has."""
    file_completed: Callable[[Lender, int], None]
    """Hears of a file that a torrent has completed: others may lack it."""
    hashes_learned: Callable[[object], None]
    """Hears of a torrent that goes by more hashes than it did; ConfigError if one is taken."""
    folding: dict[Path, Folding] = field(default_factory=dict)
    """By output folder, which names fall together there."""
