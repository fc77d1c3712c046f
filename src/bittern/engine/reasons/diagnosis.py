"""
Why is nothing happening? What is known of a torrent at one instant, and what it means.

Values: everything that can keep a torrent from moving, as ``engine.reasons.examination``
has found it, and the sentences that ``engine.reasons.explain`` makes of it.

Instants are loop time (``loop.time()``), as in ``engine.source_status``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bittern.engine.events import TorrentState
from bittern.engine.reason import Reason
from bittern.engine.source_status import SourceStatus
from bittern.policy.survey import CandidateSurvey


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSurvey:
    """
    The connections of one torrent at one instant.

    Args:
        num_half_open: outgoing attempts under way in the whole session.
        num_handshaking: connected, but not through the handshake.
        num_open: through it; those below are among them.
        num_useful: have something we need and let us ask for it.
        num_choking: have something we need but choke us.
        num_snubbing: owe us blocks and have sent none for ``snub_timeout``.
        num_needless: have nothing that we need.
        num_offering_metadata: say that they have the metadata, while we have not.
        num_offering_hashes: speak v2, while piece layers are missing that only they can give.
        num_web_seeds: being asked now; none of those above.
        num_interested: want something that we have.
        num_unchoked: of those, the ones that we let ask.
    """

    num_half_open: int = 0
    num_handshaking: int = 0
    num_open: int = 0
    num_useful: int = 0
    num_choking: int = 0
    num_snubbing: int = 0
    num_needless: int = 0
    num_offering_metadata: int = 0
    num_offering_hashes: int = 0
    num_web_seeds: int = 0
    num_interested: int = 0
    num_unchoked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSurvey:
    """
    How the disk stands.

    Args:
        error: why the torrent was stopped, None if it was not.
        is_full: the error is that there is no room.
        is_missing: the error is that the volume is not mounted.
        retry_at: when it is tried again by itself, None if it is not.
        is_slow: writes have lately taken long.
        is_congested: so much waits to be written that nothing is read from peers.
        num_queued: bytes that wait to be written, of the whole session.
    """

    error: str | None = None
    is_full: bool = False
    is_missing: bool = False
    retry_at: float | None = None
    is_slow: bool = False
    is_congested: bool = False
    num_queued: int = 0


@dataclass(frozen=True, slots=True)
class Limit:
    """
    A limit that is set.

    Args:
        name: of the setting.
        value: of the setting.
        is_reached: it holds us back now.
    """

    name: str
    value: float
    is_reached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """
    A torrent at one instant, and why it does what it does.

    Args:
        at: loop time of all this.
        state: of the torrent.
        waits_for: what has to come for it to go on, one phrase; empty if it goes on.
        reasons: the answer, the most important first.
        download_rate, upload_rate: bytes per second.
        sources: who may name peers, each with what was asked and what came back.
        candidates: the endpoints that were named.
        connections: those that became connections.
        storage: the disk.
        limits: rates, connections and attempts that are limited.
        num_checked: pieces hashed so far, while checking.
        num_pieces: of the torrent, 0 while the metadata is unknown.
        num_layers_missing: files whose piece layer must come before anything is downloaded.
        num_missing: wanted pieces that are not here.
        num_unavailable: of those, the ones that no connected peer has.
        availability: distributed copies among the peers and us; below 1 somebody must come
            who has the rest.
    """

    at: float
    state: TorrentState
    waits_for: str = ""
    reasons: tuple[Reason, ...] = ()
    download_rate: float = 0.0
    upload_rate: float = 0.0
    sources: tuple[SourceStatus, ...] = ()
    candidates: CandidateSurvey = field(default_factory=CandidateSurvey)
    connections: ConnectionSurvey = field(default_factory=ConnectionSurvey)
    storage: StorageSurvey = field(default_factory=StorageSurvey)
    limits: tuple[Limit, ...] = ()
    num_checked: int = 0
    num_pieces: int = 0
    num_layers_missing: int = 0
    num_missing: int = 0
    num_unavailable: int = 0
    availability: float = 0.0

    @property
    def is_moving(self) -> bool:
        """True while bytes arrive, or leave when nothing is wanted any more."""
        if self.state is TorrentState.SEEDING:
            return self.upload_rate > 0
        return self.download_rate > 0

    def __str__(self) -> str:
        return "\n".join(map(str, self.reasons))
