"""
Why is nothing happening? What is known of a torrent at one instant, and what it means.

``diagnose`` looks at everything that can keep a torrent from moving: its sources
of peers, the endpoints they named, its connections, the disk, the limits, and the
pieces that nobody has. ``engine.reasons.explain`` makes sentences of it, the most
important first. Nothing here decides or changes anything.

Instants are loop time (``loop.time()``), as in ``engine.source_status``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bittern.core.errors import DiskFull
from bittern.engine.events import TorrentState
from bittern.engine.reason import Reason
from bittern.engine.reasons.explain import explain, what_it_waits_for
from bittern.engine.source_status import SourceStatus
from bittern.policy.survey import CandidateSurvey, survey

if TYPE_CHECKING:
    from bittern.engine.peers.connection import PeerConnection
    from bittern.engine.services import Services
    from bittern.engine.torrent import Torrent


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
    num_interested: int = 0
    num_unchoked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSurvey:
    """
    How the disk stands.

    Args:
        error: why the torrent was stopped, None if it was not.
        is_full: the error is that there is no room.
        retry_at: when it is tried again by itself, None if it is not.
        is_slow: writes have lately taken long.
        is_congested: so much waits to be written that nothing is read from peers.
        num_queued: bytes that wait to be written, of the whole session.
    """

    error: str | None = None
    is_full: bool = False
    retry_at: float | None = None
    is_slow: bool = False
    is_congested: bool = False
    num_queued: int = 0


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that is set; ``name`` is the setting's, ``is_reached`` that it holds us back now."""

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


def diagnose(torrent: Torrent, services: Services, *, retry_at: float | None) -> Diagnosis:
    """
    Look at a torrent.

    Args:
        torrent: in any state.
        services: of its session.
        retry_at: when it starts again by itself after an error.

    O(known endpoints + connections).
    """
    now = services.loop.time()
    roster, swarm, phase = torrent.roster, torrent.swarm, torrent.metadata_phase
    peers = [] if roster is None else list(roster.peers)
    missing = torrent.wanted_bits & ~torrent.have_bits
    found = Diagnosis(
        at=now,
        state=torrent.state,
        download_rate=sum(peer.down.rate for peer in peers),
        upload_rate=sum(peer.up.rate for peer in peers),
        sources=tuple(torrent.sources()),
        candidates=survey(torrent.candidates, now=now),
        connections=_look_at_connections(torrent, services, peers, missing),
        storage=_look_at_storage(torrent, services, retry_at),
        limits=tuple(_limits(torrent, services, len(peers))),
        num_checked=torrent.num_checked,
        num_pieces=torrent.shelf.num_pieces,
        num_layers_missing=0 if phase is None else phase.num_layers_missing,
        num_missing=missing.bit_count(),
        num_unavailable=(missing & ~_had_by(peers)).bit_count(),
        availability=0.0 if swarm is None else swarm.picker.distributed_copies(),
    )
    return replace(found, reasons=tuple(explain(found)), waits_for=what_it_waits_for(found))


def _had_by(peers: list[PeerConnection]) -> int:
    """Return the pieces that at least one peer has."""
    bits = 0
    for peer in peers:
        if peer.is_open and peer.protocol.remote is not None:
            bits |= peer.protocol.remote.bits
    return bits


def _look_at_connections(
    torrent: Torrent, services: Services, peers: list[PeerConnection], missing: int
) -> ConnectionSurvey:
    useful = choking = snubbing = needless = interested = unchoked = 0
    open_peers = [peer for peer in peers if peer.is_open]
    for peer in open_peers:
        protocol = peer.protocol
        bits = 0 if protocol.remote is None else protocol.remote.bits & missing & ~peer.refused
        if not bits:
            needless += 1
        elif protocol.peer_choking and not protocol.remote_allowed_fast:
            choking += 1
        elif peer.is_snubbing:
            snubbing += 1
        else:
            useful += 1
        interested += protocol.peer_interested
        unchoked += protocol.peer_interested and not protocol.am_choking
    phase = torrent.metadata_phase
    return ConnectionSurvey(
        num_half_open=services.num_half_open(),
        num_handshaking=len(peers) - len(open_peers),
        num_open=len(open_peers),
        num_useful=useful,
        num_choking=choking,
        num_snubbing=snubbing,
        num_needless=needless,
        num_offering_metadata=0 if phase is None else phase.fetch.num_claims,
        num_offering_hashes=0 if phase is None else phase.num_offering_hashes,
        num_interested=interested,
        num_unchoked=unchoked,
    )


def _look_at_storage(torrent: Torrent, services: Services, retry_at: float | None) -> StorageSurvey:
    disk, swarm = services.disk, torrent.swarm
    return StorageSurvey(
        error=None if torrent.error is None else str(torrent.error),
        is_full=isinstance(torrent.error, DiskFull),
        retry_at=retry_at,
        is_slow=swarm is not None and swarm.assembly.is_slow,
        is_congested=disk.is_congested,
        num_queued=disk.num_queued,
    )


def _limits(torrent: Torrent, services: Services, num_peers: int) -> list[Limit]:
    config, roster, swarm = services.config, torrent.roster, torrent.swarm
    limits = []
    if swarm is not None:
        for name, gate in (
            ("max_download_rate", swarm.download_gate),
            ("max_upload_rate", swarm.upload_gate),
        ):
            if gate.rate is not None:
                limits.append(Limit(name, gate.rate, gate.num_waiting > 0))
    most = config.max_connections
    limits.append(Limit("max_connections", most, services.num_connections() >= most))
    if roster is not None:
        most = roster.max_connections
        limits.append(Limit("max_connections_per_torrent", most, num_peers >= most))
    most = config.max_half_open
    limits.append(Limit("max_half_open", most, services.num_half_open() >= most))
    return limits
