"""
Looks at a torrent to say why it does what it does, or nothing.

``diagnose`` looks at everything that can keep a torrent from moving: its sources
of peers, the endpoints they named, its connections, the disk, the limits, and the
pieces that nobody has. ``engine.reasons.explain`` makes sentences of it, the most
important first. Nothing here decides or changes anything.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from bittern.core.errors import BitTorrentError, DiskFull, VolumeMissing
from bittern.engine.metadata import MetadataPhase
from bittern.engine.peers.connection import PeerConnection
from bittern.engine.pieces.swarm import Swarm
from bittern.engine.reasons.diagnosis import ConnectionSurvey, Diagnosis, Limit, StorageSurvey
from bittern.engine.reasons.explain import explain, what_it_waits_for
from bittern.engine.services import Services
from bittern.engine.source_status import SourceStatus
from bittern.engine.stats import MeasuredTorrent
from bittern.policy.survey import survey


class ExaminedTorrent(MeasuredTorrent, Protocol):
    """What is read of a torrent beside its numbers."""

    @property
    def error(self) -> BitTorrentError | None:
        """Why it was stopped, None if it was not."""

    @property
    def metadata_phase(self) -> MetadataPhase | None:
        """What fetches the metadata, while it is unknown."""

    def sources(self) -> list[SourceStatus]:
        """Return the state of every source of peers."""


def diagnose(torrent: ExaminedTorrent, services: Services, *, retry_at: float | None) -> Diagnosis:
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
    missing = torrent.ledger.wanted & ~torrent.ledger.have
    found = Diagnosis(
        at=now,
        state=torrent.state,
        download_rate=sum(peer.down.rate for peer in peers)
        + (0.0 if swarm is None else swarm.web_seeds.rate),
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
        num_unavailable=(missing & ~_had_by(peers, swarm)).bit_count(),
        availability=0.0 if swarm is None else swarm.picker.distributed_copies(),
    )
    return replace(found, reasons=tuple(explain(found)), waits_for=what_it_waits_for(found))


def _had_by(peers: list[PeerConnection], swarm: Swarm | None) -> int:
    """Return the pieces that at least one peer or web seed has."""
    bits = 0 if swarm is None else swarm.web_seeds.bits
    for peer in peers:
        if peer.is_open and peer.protocol.remote is not None:
            bits |= peer.protocol.remote.bits
    return bits


def _look_at_connections(
    torrent: ExaminedTorrent, services: Services, peers: list[PeerConnection], missing: int
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
    phase, swarm = torrent.metadata_phase, torrent.swarm
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
        num_web_seeds=0 if swarm is None else swarm.web_seeds.num_active,
        num_interested=interested,
        num_unchoked=unchoked,
    )


def _look_at_storage(
    torrent: ExaminedTorrent, services: Services, retry_at: float | None
) -> StorageSurvey:
    disk, swarm = services.disk, torrent.swarm
    return StorageSurvey(
        error=None if torrent.error is None else str(torrent.error),
        is_full=isinstance(torrent.error, DiskFull),
        is_missing=isinstance(torrent.error, VolumeMissing),
        retry_at=retry_at,
        is_slow=swarm is not None and swarm.assembly.is_slow,
        is_congested=disk.is_congested,
        num_queued=disk.num_queued,
    )


def _limits(torrent: ExaminedTorrent, services: Services, num_peers: int) -> list[Limit]:
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
