"""Torrents and peers in numbers, as the outside sees them."""

from __future__ import annotations

from dataclasses import dataclass

from bittern.core.endpoint import Endpoint
from bittern.engine.events import TorrentState
from bittern.engine.peer import PeerConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class TorrentStats:
    """
    A torrent at one instant.

    Lengths are bytes, rates bytes per second, ``progress`` is the part of what
    is wanted, 0 to 1, ``eta`` seconds or None, ``availability`` the number of
    distributed copies among the peers.
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
    wasted: int
    download_rate: float
    upload_rate: float
    num_peers: int
    num_seeds: int
    num_connecting: int
    num_known_peers: int
    peers_seen: int
    availability: float
    eta: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInfo:
    """One connected peer at one instant; rates are bytes per second."""

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
    )
