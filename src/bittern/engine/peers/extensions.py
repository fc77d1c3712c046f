"""
Messages that are not about blocks: metadata for others, peer exchange, v2 hashes.

Sources: BEP 9, BEP 11, BEP 27 (no exchange for private torrents), BEP 52; threats.md H7, H8,
H10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bittern.codec.extension import (
    MetadataMessage,
    MetadataMessageType,
    PexFlag,
    decode_metadata_message,
    decode_pex,
    encode_metadata_message,
    encode_pex,
)
from bittern.core.endpoint import Endpoint
from bittern.core.errors import PeerViolation, WireDecodeError
from bittern.engine.events import Event, PeersFound
from bittern.engine.peers.connection import PeerConnection
from bittern.engine.peers.roster import Roster, exchange_flags
from bittern.policy.candidates import Source
from bittern.proto import peer_events
from bittern.proto.extended import UT_METADATA, UT_PEX
from bittern.proto.metadata import MetadataServer
from bittern.proto.peer_events import PeerEvent


class HashMessages(Protocol):
    """Who acts on the hash messages of a torrent that has a v2 half: ``HashExchange``."""

    def peer_opened(self, peer: PeerConnection) -> None:
        """Hear of a connection whose handshake is done."""

    def peer_event(self, peer: PeerConnection, event: PeerEvent, *, now: float) -> None:
        """Act on a hash message; other events are none of its business."""

    def forget(self, peer: PeerConnection) -> None:
        """Drop what is kept of a connection that is gone."""

    def piece_lost(self, index: int) -> None:
        """Hear that a piece we had is damaged on disk."""

    def tick(self, *, now: float) -> None:
        """Do what is due; called about once a second."""

    def stop(self) -> None:
        """Take no further part."""


class Extensions:
    """
    The extension messages of one torrent's connections.

    Args:
        roster: the connections; its candidates take what peers name.
        does_pex: False where the user says so; a private torrent never does.
        report: tells the outside.
    """

    def __init__(
        self,
        roster: Roster,
        *,
        does_pex: bool,
        report: Callable[[Event], None],
    ) -> None:
        self._roster = roster
        metadata = roster.raw_info
        self._server = None if metadata is None else MetadataServer(metadata)
        self._wanted: dict[PeerConnection, dict[int, None]] = {}
        """Pieces of metadata that peers have asked for and had no room for yet."""
        self._does_pex = does_pex and not roster.is_private
        self._report = report
        self.hashes: HashMessages | None = None
        """None for a torrent without a v2 half, and while the metadata is unknown."""

    def peer_opened(self, peer: PeerConnection) -> None:
        """Hear of a connection whose handshake is done."""
        if self.hashes is not None:
            self.hashes.peer_opened(peer)

    def peer_event(self, peer: PeerConnection, event: PeerEvent, *, now: float) -> None:
        """Act on a hash message; other events are none of its business."""
        if self.hashes is not None:
            self.hashes.peer_event(peer, event, now=now)
        else:
            _refuse_hashes(peer, event)

    def received(self, peer: PeerConnection, name: str, payload: bytes, *, now: float) -> None:
        """Act on a message; a peer that breaks the rules is closed."""
        try:
            if name == UT_PEX and self._does_pex:
                self._read_pex(peer, payload, now)
            elif name == UT_METADATA:
                message = decode_metadata_message(payload)
                if message is not None and message.kind is MetadataMessageType.REQUEST:
                    self._serve(peer, message.piece, now)
        except (WireDecodeError, PeerViolation) as error:
            peer.close(str(error), was_violation=True)

    def _serve(self, peer: PeerConnection, piece: int, now: float) -> None:
        server = None if self._roster.is_private else self._server
        if server is not None and server.admits(peer, piece, now=now):
            self._wanted.setdefault(peer, {})[piece] = None
            self._send_wanted(peer, server)
        else:
            reject = MetadataMessage(MetadataMessageType.REJECT, piece)
            peer.protocol.send_extension(UT_METADATA, encode_metadata_message(reject))

    def _send_wanted(self, peer: PeerConnection, server: MetadataServer) -> None:
        """
        Send the metadata that a peer waits for, as much as it has room for; the rest later.

        Interop: WebTorrent and anacrolix/torrent ask for all pieces at once, and never again.
        """
        wanted, protocol = self._wanted[peer], peer.protocol
        for piece in list(wanted):
            data = MetadataMessage(
                MetadataMessageType.DATA, piece, server.length, server.piece(piece)
            )
            message = encode_metadata_message(data)
            while not protocol.send_extension(UT_METADATA, message):
                if UT_METADATA not in protocol.remote_extensions:
                    break  # it has not said under which number, or does not want any more
                if not peer.flush():
                    return
            del wanted[piece]
        del self._wanted[peer]

    def _read_pex(self, peer: PeerConnection, payload: bytes, now: float) -> None:
        if not self._roster.exchange.state(peer).may_read(now=now):
            return
        message = decode_pex(payload)
        candidates, host = self._roster.candidates, peer.endpoint.host
        num_new = 0
        for is_seed in (False, True):
            endpoints = [e for e, f in message.added if bool(f & PexFlag.UPLOAD_ONLY) is is_seed]
            num_new += candidates.add(
                endpoints, Source.PEX, now=now, from_host=host, is_seed=is_seed
            )
        if num_new:
            self._report(PeersFound("pex", num_new))

    def tick(self, *, now: float) -> None:
        """Do what is due: tell peers of peers where a minute has passed (BEP 11)."""
        if self.hashes is not None:
            self.hashes.tick(now=now)
        for peer in list(self._wanted):
            if self._server is not None and peer.flush():
                self._send_wanted(peer, self._server)
                peer.flush()
        if not self._does_pex:
            return
        current: dict[Endpoint, PexFlag] = {}
        for peer in self._roster.peers:
            if peer.is_open and peer.listen_endpoint is not None:
                current[peer.listen_endpoint] = exchange_flags(peer)
        for peer in list(self._roster.peers):
            if not peer.is_open or UT_PEX not in peer.protocol.remote_extensions:
                continue
            others = {e: f for e, f in current.items() if e != peer.listen_endpoint}
            book = self._roster.exchange
            message = book.state(peer).next_message(others, now=now, recent=book.recent)
            if message is not None:
                peer.protocol.send_extension(UT_PEX, encode_pex(message))
                peer.flush()

    def forget(self, peer: PeerConnection) -> None:
        """Drop what is kept of a connection that is gone."""
        if self.hashes is not None:
            self.hashes.forget(peer)
        self._wanted.pop(peer, None)
        if self._server is not None:
            self._server.forget(peer)

    def piece_lost(self, index: int) -> None:
        """Hear that a piece we had is damaged on disk."""
        if self.hashes is not None:
            self.hashes.piece_lost(index)

    def stop(self) -> None:
        """Take no further part."""
        if self.hashes is not None:
            self.hashes.stop()


def _refuse_hashes(peer: PeerConnection, event: PeerEvent) -> None:
    """Close a peer that sends hash messages for a torrent that has no v2 half (H10)."""
    if isinstance(
        event,
        peer_events.HashesRequested | peer_events.HashesReceived | peer_events.HashesRejected,
    ):
        peer.close("speaks of v2 hashes, and the torrent has none", was_violation=True)
