"""
The connections of one torrent: who may connect, who is there, who is silent.

Serves the torrent while it fetches its metadata and while it moves pieces; what
peers are for is the business of their owner.

Sources: BEP 10 (extended handshake), BEP 20 (client names), BEP 21; threats.md
H5 (silent peers), H15 (one connection per address).
"""

from __future__ import annotations

import ipaddress
from typing import Protocol

from bittern.codec.extension import ExtendedHandshake, PexFlag
from bittern.codec.wire import Handshake, Reserved, encode_port
from bittern.core.endpoint import Endpoint, network_of
from bittern.core.geometry import Geometry
from bittern.core.ids import InfoHash
from bittern.engine import events
from bittern.engine.config import TorrentConfig
from bittern.engine.peers.connection import PeerConnection, PeerOwner
from bittern.engine.peers.greetings import Greetings
from bittern.engine.services import Services
from bittern.engine.shelf import Shelf
from bittern.net.stream import Stream
from bittern.policy.candidates import Candidates
from bittern.proto.extended import LOCAL_EXTENSIONS, UT_HOLEPUNCH, UT_METADATA, UT_PEX
from bittern.proto.incoming import MAX_INCOMING_REQUESTS
from bittern.proto.peer import PeerProtocol
from bittern.proto.pex import ExchangeBook


class RosterOwner(Protocol):
    """What a roster asks of its torrent."""

    def report(self, event: events.Event) -> None:
        """Tell the outside."""

    @property
    def is_tracing(self) -> bool:
        """True while single messages are reported."""


class Adopter(Protocol):
    """Who makes peers of streams: whatever the torrent is at work on."""

    def adopt(
        self, stream: Stream, endpoint: Endpoint, *, is_outgoing: bool, info_hash: InfoHash
    ) -> PeerConnection:
        """Make a peer of a stream, greeted with that hash; the caller starts it."""


class Roster:
    """
    The connections described in the module's text.

    Args:
        owner: the torrent.
        services: of the session.
        config: of the torrent.
        shelf: knows the hashes that handshakes may name; metadata may bring another (BEP 52).
        candidates: known endpoints.
    """

    def __init__(
        self,
        owner: RosterOwner,
        services: Services,
        config: TorrentConfig,
        shelf: Shelf,
        candidates: Candidates,
    ) -> None:
        self._owner = owner
        self._services = services
        self._shelf = shelf
        self.candidates = candidates
        self.max_connections: int = (
            config.max_connections or services.config.max_connections_per_torrent
        )
        self.greetings: Greetings = Greetings(shelf)
        self.adopter: Adopter | None = None
        """The swarm, or whoever takes its place."""
        self.peers: dict[PeerConnection, None] = {}
        """Connections in order of arrival, those in handshake too."""
        self.exchange: ExchangeBook = ExchangeBook()
        """What each was told of the others (BEP 11)."""
        self.parting: PeerConnection | None = None
        """The connection that is being closed because neither side wants anything (BEP 21)."""

    @property
    def _reserved(self) -> Reserved:
        return reserved_bits(self._shelf, self._services)

    @property
    def is_private(self) -> bool:
        """True when only trackers may name peers (BEP 27)."""
        return self._shelf.is_private

    @property
    def raw_info(self) -> bytes | None:
        """The info dictionary for peers that ask for it (BEP 9); None while it is unknown."""
        return self._shelf.metainfo().info.raw if self._shelf.has_metainfo else None

    @property
    def has_room(self) -> bool:
        """True when there is room for one more connection."""
        return len(self.peers) < self.max_connections

    def may_add(self, endpoint: Endpoint, *, is_incoming: bool = False) -> bool:
        """
        Tell whether a connection to or from ``endpoint`` is within the limits (H15).

        An incoming one may cross one that we have just made: ``opened`` decides between them.
        """
        if not self.has_room or not self._services.may_connect():
            return False
        if self._services.config.allow_multiple_per_address or is_loopback(endpoint.host):
            return all(peer.endpoint != endpoint for peer in self.peers)
        address = network_of(endpoint.host)
        return all(
            peer.address != address or (is_incoming and peer.is_outgoing and self._is_fresh(peer))
            for peer in self.peers
        )

    def _is_fresh(self, peer: PeerConnection) -> bool:
        age = self._services.loop.time() - peer.connected_at
        return age < self._services.config.handshake_timeout

    # --- coming --------------------------------------------------------------------------

    def next_to_dial(self, *, now: float) -> Endpoint | None:
        """Return an endpoint to connect to now, counted as being tried."""
        while self.has_room and self.adopter is not None:
            found = self.candidates.next_to_dial(1, now=now)
            if not found:
                return None
            if self.may_add(found[0]):
                self._owner.report(events.PeerDialled(found[0]))
                return found[0]
            self.candidates.disconnected(found[0], now=now)
        return None

    def dialled(self, endpoint: Endpoint, stream: Stream) -> None:
        """Take a connection that we made."""
        now = self._services.loop.time()
        if self.adopter is None:
            # We have stopped, perhaps only to move files: that says nothing about the peer.
            stream.close()
            self.candidates.let_go(endpoint, now=now)
            return
        if not self.may_add(endpoint):
            stream.close()
            self.candidates.disconnected(endpoint, now=now)
            return
        info_hash = self.greetings.hash_for(endpoint)
        self.adopter.adopt(stream, endpoint, is_outgoing=True, info_hash=info_hash).start()

    def dial_failed(self, endpoint: Endpoint, reason: str) -> None:
        """Hear that an endpoint could not be reached, and why."""
        now = self._services.loop.time()
        retry_at = self.candidates.failed(endpoint, now=now, reason=reason)
        self._owner.report(events.PeerUnreachable(endpoint, reason, retry_at))

    def accept(self, stream: Stream, named: InfoHash, reserved: Reserved) -> PeerConnection | None:
        """
        Make a peer of an incoming stream, not yet started; None to refuse it.

        Args:
            stream: the newcomer.
            named: the hash in its handshake.
            reserved: what it announces there.
        """
        remote, now = stream.remote, self._services.loop.time()
        if self.adopter is None or not self.may_add(remote, is_incoming=True):
            return None
        if self.candidates.is_banned(remote.host, now=now):
            return None
        info_hash = self.greetings.answer_to(named, reserved)
        return self.adopter.adopt(stream, remote, is_outgoing=False, info_hash=info_hash)

    def adopt(
        self,
        stream: Stream,
        endpoint: Endpoint,
        *,
        is_outgoing: bool,
        owner: PeerOwner,
        geometry: Geometry | None,
        info_hash: InfoHash,
    ) -> PeerConnection:
        """Make a peer of a stream, greeted with ``info_hash``; the caller starts it."""
        protocol = PeerProtocol(
            info_hashes=(info_hash, *self._shelf.all_hashes),
            peer_id=self._services.peer_id,
            reserved=self._reserved,
            geometry=geometry,
        )
        peer = PeerConnection(
            stream,
            protocol,
            owner,
            endpoint=endpoint,
            is_outgoing=is_outgoing,
            loop=self._services.loop,
        )
        if self._owner.is_tracing:
            peer.enable_trace(self._owner.report)
        self.peers[peer] = None
        return peer

    # --- being there ---------------------------------------------------------------------

    def opened(self, peer: PeerConnection, handshake: Handshake, *, now: float) -> bool:
        """Take note of a handshake; False when the connection is one too many and closed."""
        for other in list(self.peers):
            known = other.protocol.handshakes.remote
            if other is not peer and known is not None and known.peer_id == handshake.peer_id:
                extra = self._one_too_many(peer, other, handshake.peer_id)
                self._note_other_family(extra, other if extra is peer else peer)
                extra.close("a second connection of the same peer")
                if extra is peer:
                    return False
        peer.is_open = True
        peer.client = client_name(handshake.peer_id)
        if peer.listen_endpoint is not None:
            self.candidates.connected(peer.listen_endpoint, now=now)
        self._owner.report(
            events.PeerConnected(
                peer.endpoint, peer.is_outgoing, bytes(handshake.peer_id), peer.client
            )
        )
        return True

    def _note_other_family(self, extra: PeerConnection, kept: PeerConnection) -> None:
        """Let others hear of a peer's second address, of the family that we do not use (BEP 11)."""
        endpoint = extra.listen_endpoint
        if endpoint is not None and endpoint.is_ipv6 is not kept.endpoint.is_ipv6:
            self.exchange.recent.note(endpoint, exchange_flags(kept))

    def _one_too_many(
        self, new: PeerConnection, old: PeerConnection, peer_id: bytes
    ) -> PeerConnection:
        """
        Return which of two connections of one peer to close: the new one, unless they crossed.

        Two peers that dial each other at once would otherwise each refuse the other's connection
        and have none. Both keep the one that the greater peer id made.
        """
        have_crossed = new.is_outgoing is not old.is_outgoing and self._is_fresh(old)
        if not have_crossed or new.address != old.address:
            return new
        keep_outgoing = self._services.peer_id > peer_id
        return new if new.is_outgoing is not keep_outgoing else old

    def send_extended_handshake(self, peer: PeerConnection, *, is_upload_only: bool) -> None:
        """Tell a peer our extensions; may be repeated when something has changed."""
        names, raw_info = dict(LOCAL_EXTENSIONS), self.raw_info
        if self.is_private or not self._services.config.enable_pex:
            del names[UT_PEX]
        if self.is_private:
            # Interop: nor does libtorrent serve the metadata of private torrents.
            del names[UT_METADATA]
            raw_info = None
        peer.protocol.send_extended_handshake(
            ExtendedHandshake(
                extensions=names,
                client=self._services.config.client_name,
                listen_port=self._services.listen_port() or None,
                request_queue=MAX_INCOMING_REQUESTS,
                metadata_length=None if raw_info is None else len(raw_info),
                is_upload_only=is_upload_only,
                your_host=peer.endpoint.host,
            )
        )

    def send_port(self, peer: PeerConnection) -> None:
        """Tell a peer that has a DHT node where ours is (BEP 5), unless private (BEP 27)."""
        remote, port = peer.protocol.handshakes.remote, self._services.dht_port()
        has_both = self._reserved.has_dht and remote is not None and remote.reserved.has_dht
        if port and has_both and not self.is_private:
            peer.protocol.send_message(encode_port(port))

    def port_received(self, peer: PeerConnection, port: int) -> None:
        """Take note of a peer's DHT node."""
        if port and not self.is_private:
            self._services.dht_node_seen(peer.endpoint.host, port)

    def extended(self, peer: PeerConnection, handshake: ExtendedHandshake, *, now: float) -> None:
        """Take note of what a peer has said of itself so far, in one or more handshakes."""
        if handshake.request_queue is not None:
            peer.pipeline.reqq_limit = handshake.request_queue
        if handshake.client:
            peer.client = handshake.client
        peer.is_upload_only = bool(handshake.is_upload_only)
        peer.prefers_encryption = bool(handshake.prefers_encryption)
        # The first port stays: one connection stands for one candidate.
        if handshake.listen_port is not None and peer.listen_endpoint is None:
            peer.listen_endpoint = Endpoint(peer.endpoint.host, handshake.listen_port)
            self.candidates.connected(peer.listen_endpoint, now=now)

    def lost(self, peer: PeerConnection, reason: str, *, was_violation: bool) -> None:
        """Forget a connection that is gone."""
        self.peers.pop(peer, None)
        self.exchange.forget(peer)
        now = self._services.loop.time()
        if peer.listen_endpoint is not None:
            is_ours = peer is self.parting or self.greetings.is_wanted_again(peer)
            if self.adopter is None or is_ours:
                # We stop, part or begin anew: that says nothing about the peer.
                self.candidates.let_go(peer.listen_endpoint, now=now)
            elif peer.protocol.handshakes.is_ourselves:
                # Trackers name us, too. We are no peer that is known and cannot be reached.
                self.candidates.mark_self(peer.listen_endpoint)
                self._owner.report(events.PeerUnreachable(peer.endpoint, reason, None))
            elif peer.is_open and not was_violation:
                self.candidates.disconnected(peer.listen_endpoint, now=now, reason=reason)
            elif not (peer.is_open or was_violation) and self.greetings.has_other(peer.endpoint):
                self.candidates.let_go(peer.listen_endpoint, now=now)
            else:
                retry_at = self.candidates.failed(peer.listen_endpoint, now=now, reason=reason)
                if not peer.is_open:
                    self._owner.report(events.PeerUnreachable(peer.endpoint, reason, retry_at))
        if peer.is_open:
            self._owner.report(events.PeerDisconnected(peer.endpoint, reason))
        self._services.request_dial()

    def ban(self, address: str, reason: str, *, num_good_pieces: int = 0) -> bool:
        """
        Close all connections of an address and take none for a while (H4).

        Args:
            address: as ``core.endpoint.network_of`` gives it.
            reason: for people.
            num_good_pieces: what speaks for it; enough of them forgive the first time.

        Returns:
            True when it is banned now.
        """
        now = self._services.loop.time()
        self.candidates.ban(address, now=now, num_good_pieces=num_good_pieces, reason=reason)
        if not self.candidates.is_banned(address, now=now):
            return False
        for peer in [peer for peer in self.peers if peer.address == address]:
            self._owner.report(events.PeerBanned(peer.endpoint, reason))
            peer.close(f"banned: {reason}", was_violation=True)
        return True

    def tick(self, *, now: float) -> None:
        """Close who is silent, keep alive who is not; called about once a second."""
        config, is_deaf = self._services.config, self._services.disk.is_congested
        for peer in list(self.peers):
            if is_deaf:
                # Limit: F16. What it sends waits unread: nobody is silent or late for that.
                peer.last_received_at = peer.last_block_at = now
            peer.down.update(now=now)
            peer.up.update(now=now)
            if not peer.is_open:
                if now - peer.connected_at > config.handshake_timeout:
                    peer.close("no handshake")
            elif now - peer.last_received_at > config.idle_timeout:
                peer.close("silent")
            elif now - peer.last_sent_at > config.keep_alive_interval:
                peer.keep_alive()

    def close(self) -> None:
        """Close all connections and take no more."""
        self.adopter = None
        for peer in list(self.peers):
            peer.close("torrent stopped")


def is_loopback(host: str) -> bool:
    """Tell whether an address is this machine's own."""
    return ipaddress.ip_address(host).is_loopback


def exchange_flags(peer: PeerConnection) -> PexFlag:
    """Return what peer exchange says of a peer (BEP 11)."""
    flags = PexFlag.OUTGOING if peer.is_outgoing else PexFlag.NONE
    remote = peer.protocol.remote
    if peer.is_upload_only or (remote is not None and remote.is_full):
        flags |= PexFlag.UPLOAD_ONLY
    if peer.prefers_encryption:
        flags |= PexFlag.ENCRYPTION
    if UT_HOLEPUNCH in peer.protocol.remote_extensions:
        flags |= PexFlag.HOLEPUNCH
    return flags


def client_name(peer_id: bytes) -> str:
    """Return what a peer id says of its client, as ``qB5200`` (BEP 20); "" when nothing."""
    if peer_id[:1] == b"-" and peer_id[7:8] == b"-" and peer_id[1:7].isalnum():
        return peer_id[1:7].decode("ascii")
    return ""


def reserved_bits(shelf: Shelf, services: Services) -> Reserved:
    """
    Return what handshakes of a torrent announce.

    A hybrid has the v2 bit on both its hashes (BEP 52), a private torrent no DHT (BEP 27).
    """
    return Reserved(
        has_dht=services.dht_port() != 0 and not shelf.is_private,
        has_v2=shelf.info_hash_v2 is not None,
    )
