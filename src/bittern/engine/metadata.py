"""
A torrent of which only the info hash is known: fetch the info dictionary from peers.

Takes the place of the swarm until then, and hands its connections over. For a
v2 torrent the piece layers, which are no part of the info dictionary, are
fetched as well: without them no piece could be judged. A hybrid has its v1
hashes and begins at once. What has come meanwhile is told now and then, so that
it can be kept for a run that follows.

Sources: BEP 9 (ut_metadata), BEP 52 (hash request); threats.md H7, H10.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha1, sha256
from types import MappingProxyType
from typing import Protocol

from bittern.codec import wire
from bittern.codec.extension import (
    MetadataMessage,
    MetadataMessageType,
    decode_metadata_message,
    encode_metadata_message,
)
from bittern.codec.file_list import FileEntry
from bittern.codec.info import Info, decode_info
from bittern.codec.magnet import Magnet
from bittern.codec.metainfo import Metainfo
from bittern.core.endpoint import Endpoint
from bittern.core.errors import ConfigError, MetainfoError, WireDecodeError
from bittern.core.ids import InfoHash, InfoHashV2
from bittern.engine import events
from bittern.engine.config import TorrentConfig
from bittern.engine.hashes.seeker import HashSeeker
from bittern.engine.ledger import Ledger
from bittern.engine.peers.connection import PeerConnection
from bittern.engine.peers.extensions import Extensions
from bittern.engine.peers.roster import Roster
from bittern.engine.services import Services
from bittern.engine.shelf import Shelf
from bittern.engine.store.content import check_choice
from bittern.engine.store.journal import Journal
from bittern.net.stream import Stream
from bittern.proto import peer_events
from bittern.proto.extended import UT_METADATA
from bittern.proto.metadata import MetadataFetch
from bittern.proto.peer_events import PeerEvent, ReceivedBlock, Request
from bittern.storage.hashing import PieceHashes

KEEP_INTERVAL = 30.0
"""Seconds between two times that piece layers which have come are told to be kept."""


class MetadataOwner(Protocol):
    """What the phase asks of its torrent."""

    def report(self, event: events.Event) -> None:
        """Tell the outside."""

    def metadata_received(self, raw: bytes, piece_layers: Mapping[bytes, bytes]) -> None:
        """Take the info dictionary, which matches the hash, and for v2 the piece layers."""

    def peer_opened(self, peer: PeerConnection) -> None:
        """Hear of a peer that finished its handshake."""


class LearningTorrent(Protocol):
    """What is told to a torrent when its metadata has come."""

    config: TorrentConfig
    shelf: Shelf
    ledger: Ledger

    def report(self, event: events.Event) -> None:
        """Tell the outside."""


class MetadataPhase:
    """
    The owner of a torrent's connections while the metadata is unknown.

    Args:
        shelf: knows the hashes that are looked for.
        journal: keeps what has come; None when nothing is kept.
        known: what an earlier run has kept, where piece layers are still missing.
    """

    def __init__(
        self,
        owner: MetadataOwner,
        services: Services,
        roster: Roster,
        shelf: Shelf,
        journal: Journal | None,
        known: Metainfo | None,
    ) -> None:
        self._owner = owner
        self._services = services
        self.roster = roster
        roster.adopter = self
        self._shelf = shelf
        self._journal = journal
        self.fetch: MetadataFetch = MetadataFetch(matcher(shelf.info_hash, shelf.info_hash_v2))
        self._extensions = Extensions(
            roster, does_pex=services.config.enable_pex, report=owner.report
        )
        self._is_over = False
        self._hashes: PieceHashes | None = None
        self._seeker: HashSeeker | None = None
        """While piece layers are missing."""
        self._num_kept = -1
        """Piece layers that are kept; -1 while not even the info dictionary is."""
        self._keep_at = 0.0
        if known is not None:
            self.fetch.metadata = known.info.raw
            self._num_kept = len(known.piece_layers)
            self._finish(known.info.raw, known.piece_layers)

    def adopt(
        self, stream: Stream, endpoint: Endpoint, *, is_outgoing: bool, info_hash: InfoHash
    ) -> PeerConnection:
        """Make a peer of a stream; the caller starts it."""
        return self.roster.adopt(
            stream,
            endpoint,
            is_outgoing=is_outgoing,
            owner=self,
            geometry=None,
            info_hash=info_hash,
        )

    def peer_event(self, peer: PeerConnection, event: PeerEvent, *, now: float) -> None:
        """Act on what helps to get the metadata; the rest waits in the connection."""
        match event:
            case peer_events.HandshakeReceived(handshake):
                if self.roster.opened(peer, handshake, now=now):
                    # BEP 6: one of bitfield, have all, have none comes first.
                    # Interop: to others a keep-alive says that no bitfield comes, as in a swarm.
                    has_fast = peer.protocol.handshakes.has_fast
                    peer.protocol.send_message(wire.HAVE_NONE if has_fast else wire.KEEP_ALIVE)
                    self.roster.send_extended_handshake(peer, is_upload_only=False)
                    self.roster.send_port(peer)
                    self._owner.peer_opened(peer)
                    if self._seeker is not None:
                        self._seeker.peer_opened(peer)
            case peer_events.ExtendedHandshakeReceived(handshake):
                self.roster.extended(peer, handshake, now=now)
                has_metadata = UT_METADATA in peer.protocol.remote_extensions
                if handshake.metadata_length is not None and has_metadata:
                    self.fetch.claim(peer, handshake.metadata_length)
                    # Who has this has pieces, or will: its unchoke need not wait for the answer.
                    peer.protocol.set_interested(True)
                    self._ask(peer, now)
                elif not has_metadata:
                    self.fetch.forget(peer)
            case peer_events.ExtensionReceived(name, payload) if name == UT_METADATA:
                self._metadata_message(peer, payload, now)
            case peer_events.ExtensionReceived(name, payload) if not self._shelf.is_private:
                self._extensions.received(peer, name, payload, now=now)
            case peer_events.PortReceived(port):
                self.roster.port_received(peer, port)
            case peer_events.HashesRequested(wanted):
                # BEP 52: each request is answered; we have nothing yet.
                reject = wire.encode_hash_request(wanted, wire.MessageId.HASH_REJECT)
                peer.protocol.send_message(reject)
            case peer_events.HashesReceived(what, hashes) if self._seeker is not None:
                self._seeker.hashes_received(peer, what, hashes, now=now)
            case peer_events.HashesRejected(wanted) if self._seeker is not None:
                self._seeker.rejected(peer, wanted, now=now)
            case _:
                pass

    def _metadata_message(self, peer: PeerConnection, payload: bytes, now: float) -> None:
        try:
            message = decode_metadata_message(payload)
        except WireDecodeError as error:
            peer.close(str(error), was_violation=True)
            return
        if message is None:
            return
        if message.kind is MetadataMessageType.REQUEST:
            self._send(peer, MetadataMessage(MetadataMessageType.REJECT, message.piece))
            return
        if message.kind is MetadataMessageType.REJECT:
            self.fetch.rejected(peer, message.piece)
        else:
            for liar in self.fetch.data_received(peer, message.piece, message.data, now=now):
                assert isinstance(liar, PeerConnection)
                self._services.loop.call_soon(self.roster.ban, liar.address, "sent wrong metadata")
        if self.fetch.metadata is not None:
            self._finish(self.fetch.metadata)
        else:
            self._ask(peer, now)

    def _finish(
        self, raw: bytes, piece_layers: Mapping[bytes, bytes] = MappingProxyType({})
    ) -> None:
        if self._is_over or self._hashes is not None:
            return
        try:
            info = decode_info(raw)
        except MetainfoError:
            self._hand_over(raw)  # The torrent finds the same and says so.
            return
        self._hashes = PieceHashes(info, piece_layers)
        self._keep()
        if is_enough(info, piece_layers) or self.roster.greetings.v2_hash is None:
            self._hand_over(raw)
            return
        self._seeker = HashSeeker(
            self._services,
            self.roster,
            self._hashes,
            layers_done=lambda: self._hand_over(raw),
            inconsistent=lambda _: None,
        )
        self._seeker.fetch_layers()

    def _keep(self) -> None:
        """Keep what has come, if something is new."""
        raw, hashes, link = self.fetch.metadata, self._hashes, self._shelf.magnet
        if self._journal is None or raw is None or hashes is None or link is None:
            return
        if len(hashes.piece_layers) > self._num_kept:
            self._num_kept = len(hashes.piece_layers)
            self._keep_at = self._services.loop.time() + KEEP_INTERVAL
            self._journal.keep_metainfo(link, metainfo_from(link, raw, dict(hashes.piece_layers)))

    def _hand_over(self, raw: bytes) -> None:
        if not self._is_over:
            self._is_over = True
            self.roster.adopter = None  # the check of what is on disk begins: no more of them
            layers = {} if self._hashes is None else self._hashes.piece_layers
            self._keep()
            self._services.loop.call_soon(self._owner.metadata_received, raw, layers)

    def _ask(self, peer: PeerConnection, now: float) -> None:
        for piece in self.fetch.next_requests(peer, now=now):
            self._send(peer, MetadataMessage(MetadataMessageType.REQUEST, piece))

    @staticmethod
    def _send(peer: PeerConnection, message: MetadataMessage) -> None:
        peer.protocol.send_extension(UT_METADATA, encode_metadata_message(message))

    @property
    def num_layers_missing(self) -> int:
        """Files whose piece layer is being fetched, once the metadata is there (BEP 52)."""
        return 0 if self._seeker is None else self._seeker.num_layers_missing

    @property
    def num_offering_hashes(self) -> int:
        """Connected peers that can give them."""
        return 0 if self._seeker is None else len(self._seeker.askable())

    def tick(self, *, now: float) -> None:
        """Do what is due; called about once a second, and until what is on disk is checked."""
        self.roster.tick(now=now)
        if self._is_over:
            return
        self._extensions.tick(now=now)
        self.fetch.handle_timer(now=now)
        if self._seeker is not None:
            self._seeker.tick(now=now)
            if now >= self._keep_at:
                self._keep()
        for peer in list(self.roster.peers):
            self._ask(peer, now)
            peer.flush()
        if self.roster.has_room:
            self._services.request_dial()

    def peer_lost(self, peer: PeerConnection, reason: str, *, was_violation: bool) -> None:
        """Forget a connection that is gone."""
        self.fetch.forget(peer)
        if self._seeker is not None:
            self._seeker.forget(peer)
        self._extensions.forget(peer)
        self.roster.lost(peer, reason, was_violation=was_violation)

    def stop(self) -> None:
        """Close every connection; idempotent."""
        self._keep()
        self._is_over = True
        if self._seeker is not None:
            self._seeker.stop()
        self.roster.close()

    # Blocks do not move yet; a connection that brings some gave no reason to.

    def blocks_received(
        self, peer: PeerConnection, blocks: list[ReceivedBlock], *, now: float
    ) -> None:
        """Take no blocks: none were asked for."""

    def fill_pipeline(self, peer: PeerConnection, *, now: float) -> None:
        """Ask for nothing yet."""

    def next_run(self, peer: PeerConnection) -> list[Request]:  # noqa: ARG002  # contract
        """Serve nothing yet."""
        return []

    def load_run(
        self,
        peer: PeerConnection,  # noqa: ARG002  # contract
        requests: list[Request],  # noqa: ARG002  # contract
    ) -> memoryview | None:
        """Serve nothing yet."""
        return None


async def find_kept(journal: Journal | None, shelf: Shelf) -> Metainfo | None:
    """Return what an earlier run has kept of a magnet link; None too when the metadata is known."""
    if journal is None or shelf.magnet is None or shelf.has_metainfo:
        return None
    return await journal.find_metainfo(shelf.magnet)


def is_enough(info: Info, piece_layers: Mapping[bytes, bytes]) -> bool:
    """Tell whether a torrent can begin: every piece has a hash of one version at least."""
    return info.has_v1 or not PieceHashes(info, piece_layers).missing_layers()


def matcher(v1: InfoHash | None, v2: InfoHashV2 | None) -> Callable[[bytes], bool]:
    """Return what tells whether bytes have all of the info hashes that are given."""

    def matches(raw: bytes) -> bool:
        return (v1 is None or sha1(raw, usedforsecurity=False).digest() == v1) and (
            v2 is None or sha256(raw).digest() == v2
        )

    return matches


def metainfo_from(
    magnet: Magnet, raw: bytes, piece_layers: Mapping[bytes, bytes] = MappingProxyType({})
) -> Metainfo:
    """
    Return metainfo of an info dictionary and what the magnet link knows.

    Raises:
        MetainfoError: the dictionary is unusable.
    """
    return Metainfo(
        info=decode_info(raw),
        piece_layers=piece_layers,
        trackers=tuple((url,) for url in magnet.trackers),
        web_seeds=magnet.web_seeds,
    )


def learn(
    torrent: LearningTorrent,
    raw: bytes,
    piece_layers: Mapping[bytes, bytes],
    hashes_learned: Callable[[object], None],
) -> None:
    """
    Make of a torrent that was added by a link one of which the metadata is known.

    Args:
        torrent: its settings take the files that the link selects.
        raw: the info dictionary.
        piece_layers: of v2, as far as they have come.
        hashes_learned: hears of the torrent if it goes by another hash as well.

    Raises:
        MetainfoError: the info dictionary is unusable.
        ConfigError: it lacks a file that was chosen, or another torrent goes by its hash.
    """
    shelf, config, known = torrent.shelf, torrent.config, torrent.shelf.all_hashes
    magnet = shelf.magnet
    assert magnet is not None
    shelf.put(metainfo_from(magnet, raw, piece_layers))
    if shelf.all_hashes != known:
        try:
            hashes_learned(torrent)
        except ConfigError:
            torrent.shelf = Shelf(magnet)  # Its files are the other one's: it knows of none.
            raise
    torrent.ledger.learn(shelf.num_pieces)
    torrent.report(events.MetadataReceived(shelf.name, len(raw)))
    # Last: whoever has chosen what is not there can choose again.
    info = shelf.metainfo().info
    chosen = config.files
    if chosen is None:
        chosen = selection_of(magnet, info.files)
    torrent.config = check_choice(replace(config, files=chosen), info)


def selection_of(magnet: Magnet, files: Sequence[FileEntry]) -> frozenset[int] | None:
    """Return the files that a link selects and the torrent has (BEP 53), no padding; None: all."""
    if not magnet.select_only:
        return None
    return frozenset(
        index
        for low, high in magnet.select_only
        for index in range(low, min(high, len(files) - 1) + 1)
        if not files[index].is_pad
    )
