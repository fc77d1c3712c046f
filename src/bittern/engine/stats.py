"""Torrents and peers in numbers, as the outside sees them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from bittern.codec.info import Info
from bittern.core.bitfield import Bitfield
from bittern.core.endpoint import Endpoint
from bittern.engine.events import TorrentState
from bittern.engine.ledger import Ledger
from bittern.engine.peers.connection import PeerConnection
from bittern.engine.peers.roster import Roster
from bittern.engine.pieces.swarm import Swarm
from bittern.engine.shelf import Shelf
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.policy.candidates import Candidates
from bittern.storage.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class TorrentStats:
    """
    A torrent at one instant; all lengths are 0 before the metadata is known.

    Args:
        state: what it is doing.
        progress: the part of what is wanted that is here, 0 to 1.
        num_pieces: of the torrent.
        num_have: of these, the ones that are here and verified.
        num_checked: pieces hashed so far, while checking.
        total_length: bytes of the torrent, without padding.
        wanted_length: bytes of the files that are wanted.
        left: bytes of these that are still missing.
        downloaded, uploaded: bytes of blocks, in this and earlier runs.
        earlier_downloaded, earlier_uploaded: of these, in earlier runs.
        wasted: bytes that came twice or did not match.
        download_rate, upload_rate: bytes per second, lately.
        num_peers: connections through their handshake.
        num_seeds: of these, the peers that have everything.
        num_web_seeds: being asked now.
        num_connecting: connections in their handshake.
        num_known_peers: endpoints that are known.
        peers_seen: addresses that we were connected to in this run.
        availability: distributed copies among the peers; below 1 somebody must come who has the
            rest.
        eta: seconds until it is complete at the present rate, 0 when it is; None while unknown.
    """

    state: TorrentState
    progress: float
    num_pieces: int
    num_have: int
    num_checked: int
    total_length: int
    wanted_length: int
    left: int
    downloaded: int
    uploaded: int
    earlier_downloaded: int
    earlier_uploaded: int
    wasted: int
    download_rate: float
    upload_rate: float
    num_peers: int
    num_seeds: int
    num_web_seeds: int
    num_connecting: int
    num_known_peers: int
    peers_seen: int
    availability: float
    eta: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInfo:
    """
    One connected peer at one instant.

    Args:
        endpoint: its address and port, not necessarily that at which it accepts connections.
        client: the name it gives itself, or what its peer id says.
        is_outgoing: we connected to it.
        progress: the part of all pieces that it has, 0 to 1.
        download_rate, upload_rate: bytes per second, from and to it, lately.
        downloaded, uploaded: bytes of blocks over this connection.
        am_choking: we do not serve it now.
        am_interested: it has something that we want.
        peer_choking: it does not serve us now.
        peer_interested: we have something that it wants.
        num_outstanding: blocks that we have asked it for and that have not come.
    """

    endpoint: Endpoint
    client: str
    is_outgoing: bool
    progress: float
    download_rate: float
    upload_rate: float
    downloaded: int
    uploaded: int
    am_choking: bool
    am_interested: bool
    peer_choking: bool
    peer_interested: bool
    num_outstanding: int
    is_snubbing: bool = False
    """It owes us blocks and has sent none for ``snub_timeout`` (BEP 3)."""
    is_upload_only: bool = False
    """It says that it wants nothing (BEP 21)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSeedInfo:
    """One web seed at one instant (BEP 19)."""

    url: str
    """Normalised; as it was given if that cannot be done."""
    state: SourceState
    """``ASKING`` until the first byte of an answer, then ``WORKING``; ``WAITING`` in reserve."""
    message: str
    """Why it waits or fails; empty when there is nothing to say."""
    download_rate: float
    """Bytes per second."""
    downloaded: int
    """Bytes that it has sent in this session."""
    next_at: float | None
    """When it is asked again after a failure, on the event loop's clock; None if not, or now."""


class MeasuredTorrent(Protocol):
    """What is read of a torrent to measure it."""

    @property
    def state(self) -> TorrentState:
        """What it is doing."""

    @property
    def shelf(self) -> Shelf:
        """What it is called and made of."""

    @property
    def ledger(self) -> Ledger:
        """What is there, what is wanted, what was moved."""

    @property
    def candidates(self) -> Candidates:
        """The endpoints known so far."""

    @property
    def roster(self) -> Roster | None:
        """The connections, while there can be any."""

    @property
    def swarm(self) -> Swarm | None:
        """What moves pieces, while they move."""

    @property
    def num_checked(self) -> int:
        """Pieces hashed so far, while checking."""


def measure(torrent: MeasuredTorrent) -> TorrentStats:
    """Return the numbers of a torrent; lengths are 0 before the metadata is known."""
    swarm, roster, shelf, ledger = torrent.swarm, torrent.roster, torrent.shelf, torrent.ledger
    peers = [] if roster is None else [peer for peer in roster.peers if peer.is_open]
    wanted, have = ledger.wanted, ledger.have
    left = shelf.length_of(wanted & ~have)
    wanted_length = shelf.length_of(wanted)
    down = sum(peer.down.rate for peer in peers) + (swarm.web_seeds.rate if swarm else 0.0)
    return TorrentStats(
        state=torrent.state,
        progress=1 - left / wanted_length if wanted_length else float(shelf.num_pieces > 0),
        num_pieces=shelf.num_pieces,
        num_have=have.bit_count(),
        num_checked=torrent.num_checked,
        total_length=shelf.total_length,
        wanted_length=wanted_length,
        left=left,
        downloaded=ledger.num_downloaded,
        uploaded=ledger.num_uploaded,
        earlier_downloaded=ledger.earlier[0],
        earlier_uploaded=ledger.earlier[1],
        wasted=ledger.num_wasted,
        download_rate=down,
        upload_rate=sum(peer.up.rate for peer in peers),
        num_peers=len(peers),
        num_seeds=sum(
            peer.protocol.remote is not None and peer.protocol.remote.is_full for peer in peers
        ),
        num_web_seeds=swarm.web_seeds.num_active if swarm else 0,
        num_connecting=0 if roster is None else len(roster.peers) - len(peers),
        num_known_peers=len(torrent.candidates),
        peers_seen=ledger.num_seen,
        availability=0.0 if swarm is None else swarm.picker.distributed_copies(),
        eta=_eta(left, down) if shelf.num_pieces else None,
    )


def _eta(left: int, rate: float) -> float | None:
    if not left:
        return 0.0
    return left / rate if rate > 0 else None


def describe_peer(peer: PeerConnection) -> PeerInfo:
    """Return the numbers of one connection."""
    protocol, remote = peer.protocol, peer.protocol.remote
    num_pieces = remote.num_pieces if remote is not None else 0
    return PeerInfo(
        endpoint=peer.endpoint,
        client=peer.client,
        is_outgoing=peer.is_outgoing,
        progress=len(remote) / num_pieces if remote is not None and num_pieces else 0.0,
        download_rate=peer.down.rate,
        upload_rate=peer.up.rate,
        downloaded=peer.down.total,
        uploaded=peer.up.total,
        am_choking=protocol.am_choking,
        am_interested=protocol.am_interested,
        peer_choking=protocol.peer_choking,
        peer_interested=protocol.peer_interested,
        num_outstanding=len(protocol.outstanding),
        is_snubbing=peer.is_snubbing,
        is_upload_only=peer.is_upload_only,
    )


def describe_peers(roster: Roster | None) -> list[PeerInfo]:
    """Return the numbers of all connections that have finished their handshake."""
    return [] if roster is None else [describe_peer(peer) for peer in roster.peers if peer.is_open]


def describe_web_seeds(sources: Iterable[SourceStatus], swarm: Swarm | None) -> list[WebSeedInfo]:
    """
    Return how each web seed of a torrent stands.

    Args:
        sources: the state of each source; those that are web seeds by name are taken.
        swarm: tells their rates, while there is one.
    """
    return [
        WebSeedInfo(
            url=source.name,
            state=source.state,
            message=source.message or "",
            download_rate=0.0 if swarm is None else swarm.web_seeds.rate_of(source.name),
            downloaded=source.num_bytes,
            next_at=source.next_at,
        )
        for source in sources
        if source.kind is SourceKind.WEB_SEED and source.name
    ]


def file_progress(info: Info, have_bits: int) -> list[int]:
    """Return, by index, the verified bytes of each file; the pieces are bits of a ``Bitfield``."""
    have = Bitfield(info.geometry.num_pieces, have_bits)
    return Layout(info.files, info.geometry).verified_lengths(have)
