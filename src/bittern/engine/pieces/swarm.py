"""
One torrent awake: its peers, and the decisions about them carried out.

Owns the picker, the choke rounds and the assembly of pieces of one torrent.
Exists only while the torrent runs; what must outlive that is in
``engine.torrent``, what connections need in any case in ``engine.peers.roster``.

Everything happens on one event loop, in callbacks of streams and in ``tick``,
which the session calls about once a second; a swarm has no task and no timer
of its own.

Sources: BEP 3, BEP 6, BEP 10, BEP 16, BEP 21; threats.md H4, H5, H9.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Protocol

from bittern.codec import wire
from bittern.codec.wire import Handshake
from bittern.core.bitfield import Bitfield
from bittern.core.endpoint import Endpoint
from bittern.core.errors import Inconsistent, PeerViolation, StorageError
from bittern.core.geometry import BLOCK_LENGTH
from bittern.core.ids import InfoHash
from bittern.engine import events
from bittern.engine.config import TorrentConfig
from bittern.engine.limits import RateGate, make_bucket
from bittern.engine.listeners import Listeners
from bittern.engine.peers.connection import PeerConnection
from bittern.engine.peers.extensions import Extensions
from bittern.engine.peers.roster import Roster
from bittern.engine.pieces.allowed_fast import grants
from bittern.engine.pieces.assembly import Assembly
from bittern.engine.pieces.choking import ChokeRounds
from bittern.engine.pieces.have_news import HaveNews
from bittern.engine.pieces.super_seeding import SuperSeeding
from bittern.engine.pieces.upload_only import UploadOnly
from bittern.engine.pieces.web_seeds import WebSeeds
from bittern.engine.services import Services
from bittern.net.stream import Stream
from bittern.policy.open_piece import PeerShare
from bittern.policy.picker import Picker
from bittern.policy.pieces import BLOCK_SHIFT, SILENCE, Run
from bittern.policy.pipeline import CROWD
from bittern.proto import peer_events
from bittern.proto.peer_events import PeerEvent, ReceivedBlock, Request


class SwarmOwner(Protocol):
    """What a swarm asks of its torrent."""

    listeners: Listeners
    """Whoever ``report`` tells; nothing is made for nobody."""

    def report(self, event: events.Event) -> None:
        """Tell the outside."""

    def pieces_opened(self, pieces: list[int]) -> None:
        """Hear of pieces that will be written from now on."""

    def swarm_completed(self) -> None:
        """Hear that everything wanted is there."""

    def swarm_failed(self, error: StorageError | Inconsistent) -> None:
        """Hear that our disk failed, or that the torrent contradicts itself."""

    def piece_lost(self, index: int) -> None:
        """Hear that a piece we had is not on disk any more."""

    def peer_opened(self, peer: PeerConnection) -> None:
        """Hear of a peer that finished its handshake."""


class Swarm:
    """
    The one described in the module's text.

    Args:
        owner: the torrent.
        services: of the session.
        config: of the torrent.
        info_hash: the 20 bytes that name the torrent in handshakes.
        picker: knows what we have and want.
        roster: the torrent's connections; may have some already.
    """

    def __init__(
        self,
        owner: SwarmOwner,
        services: Services,
        config: TorrentConfig,
        *,
        info_hash: InfoHash,
        picker: Picker,
        roster: Roster,
    ) -> None:
        now = services.loop.time()
        self._owner = owner
        self._services = services
        self._info_hash = info_hash
        self.picker = picker
        self.roster = roster
        roster.adopter = self
        self.peers: dict[PeerConnection, None] = roster.peers
        self.extensions: Extensions = Extensions(
            roster, does_pex=services.config.enable_pex, report=owner.report
        )
        self.assembly: Assembly
        self.web_seeds: WebSeeds = WebSeeds(services, self, owner.report)
        """Those of the torrent; none while they are switched off (BEP 19)."""
        self.choking: ChokeRounds = ChokeRounds(
            services,
            config.upload_slots or services.config.upload_slots,
            self.peers,
            report=owner.report,
        )
        self._super_seeding = SuperSeeding(picker, self.peers, is_on=config.super_seeding)
        self._upload_only = UploadOnly(picker, roster, self._super_seeding)
        self.download_gate: RateGate = RateGate(
            make_bucket(config.max_download_rate, now=now), services.download_limit
        )
        self.upload_gate: RateGate = RateGate(
            make_bucket(config.max_upload_rate, now=now), services.upload_limit
        )
        self.num_downloaded: int = 0
        self.num_uploaded: int = 0
        self.num_wasted: int = 0
        self._news = HaveNews(self.peers, loop=services.loop)
        self._counted: dict[PeerConnection, int] = {}
        """What the picker was told of each peer; ``protocol.remote`` may be ahead of it."""
        self._is_stopped = False

    def attach(self, assembly: Assembly) -> None:
        """Take the assembly, which needs the swarm as its owner."""
        self.assembly = assembly

    # --- connections come and go ---------------------------------------------------------

    def adopt(
        self, stream: Stream, endpoint: Endpoint, *, is_outgoing: bool, info_hash: InfoHash
    ) -> PeerConnection:
        """Make a peer of a stream; the caller starts it."""
        return self.roster.adopt(
            stream,
            endpoint,
            is_outgoing=is_outgoing,
            owner=self,
            geometry=self.assembly.geometry,
            info_hash=info_hash,
        )

    def take_over(self, peer: PeerConnection) -> None:
        """Go on with a connection that was made before the metadata was known."""
        now = self._services.loop.time()
        peer.owner = self
        try:
            peer.protocol.learn_geometry(self.assembly.geometry)
        except PeerViolation as error:
            peer.close(str(error), was_violation=True)
            return
        if not peer.is_open:
            return
        for index in Bitfield(self.picker.num_pieces, self.picker.have):
            peer.protocol.send_have(index)
        self._upload_only.greet(peer)
        self._owner.peer_opened(peer)
        for event in peer.protocol.events():
            self.peer_event(peer, event, now=now)
        self._look_anew(peer)

    def _look_anew(self, peer: PeerConnection) -> None:
        """Find out whether a peer has something for us, tell it, and ask for that."""
        remote = peer.protocol.remote
        if remote is not None:
            peer.protocol.set_interested(self.picker.is_interesting(remote.bits))
            self.fill_pipeline(peer, now=self._services.loop.time())
            peer.flush()

    def peer_lost(self, peer: PeerConnection, reason: str, *, was_violation: bool) -> None:
        """Give back what the peer was working on and forget it."""
        protocol = peer.protocol
        self._give_back(peer, protocol.drop_outstanding())
        self.download_gate.forget(peer.fill)
        self.upload_gate.forget(peer.serve)
        # A peer that is closed between two events of one batch has said more than was counted.
        if counted := self._counted.pop(peer, 0):
            self.picker.remove_peer(counted)
        self.choking.forget(peer)
        self._super_seeding.forget(peer)
        self.extensions.forget(peer)
        self.roster.lost(peer, reason, was_violation=was_violation)

    def ban(self, addresses: Iterable[Hashable], is_proven: bool = False) -> None:
        """Ban the senders of bad blocks; a good address is forgiven once (H4), if in doubt."""
        for address in addresses:
            if self.web_seeds.accuse(address):
                continue
            good = 0 if is_proven else self.assembly.suspects.num_good(address)
            if self.roster.ban(str(address), "sent corrupt data", num_good_pieces=good):
                self.assembly.distrust(address)

    # --- what connections tell -----------------------------------------------------------

    def blocks_received(
        self, peer: PeerConnection, blocks: list[ReceivedBlock], *, now: float
    ) -> None:
        """Hand blocks to the assembly and count them."""
        num_bytes = sum([len(data) for _, _, data in blocks])
        peer.last_block_at = now
        peer.down.total += num_bytes
        peer.pipeline.blocks_received(len(blocks), now=now)
        if (share := peer.share).rate:
            # Not only once a second: at the end others are asked for what seems to be late.
            share.silent_for = 0.0
            share.expected_wait = (len(peer.protocol.outstanding) << BLOCK_SHIFT) / share.rate
            if not peer.protocol.outstanding:
                share.searched_round = -1  # Now it would be quick with more than a while ago.
        if len(blocks) >= CROWD:
            others = sum(1 for each in self.peers if each is not peer and each.protocol.outstanding)
            peer.pipeline.thin_out(others + 1)
        # What was taken back, and its limit with it, comes after all.
        self.download_gate.take(peer.protocol.outgoing.take_late_length())
        self.receive(share, blocks, num_bytes)

    def receive(self, share: PeerShare, blocks: list[ReceivedBlock], num_bytes: int) -> None:
        """Take blocks of a peer or a web seed, ``num_bytes`` in all."""
        self.num_downloaded += num_bytes
        result = self.assembly.receive(share, blocks)
        self.num_wasted += result.num_wasted
        for asker, index, begin in result.cancels:
            for other in self.peers:
                if other.share is asker:
                    other.protocol.cancel(index, begin)
                    other.flush()

    def peer_event(self, peer: PeerConnection, event: PeerEvent, *, now: float) -> None:
        """Act on anything but blocks."""
        match event:
            case peer_events.HandshakeReceived(handshake):
                self._open(peer, handshake, now)
            case peer_events.BitfieldReceived(bitfield):
                self.picker.add_peer(bitfield.bits)
                if not bitfield.is_full:
                    self.assembly.pieces.is_shared = True
                self._counted[peer] = self._counted.get(peer, 0) | bitfield.bits
                self._super_seeding.bitfield_seen(peer, bitfield.bits)
                self._availability_changed(peer)
                self._grant_allowed_fast(peer, bitfield)
            case peer_events.HavesReceived(pieces):
                self.picker.add_have(pieces.bits)
                self._counted[peer] = self._counted.get(peer, 0) | pieces.bits
                self._super_seeding.pieces_seen(peer, pieces)
                self._availability_changed(peer)
            case peer_events.DontHaveReceived(index):
                mask = 1 << (self.picker.top - index)
                self.picker.remove_have(mask)
                self._counted[peer] &= ~mask
            case peer_events.Choked(dropped):
                self._give_back(peer, dropped)
            case peer_events.Unchoked():
                # What was asked for before stays late: who chokes and unchokes without end and
                # serves nothing would never be snubbed.
                peer.refused = 0
            case peer_events.InterestChanged(is_interested):
                self.choking.interest_changed(peer, is_interested, now=now)
            case peer_events.RequestRejected(request):
                self._rejected(peer, request)
            case peer_events.UnexpectedBlockReceived(length):
                self.num_wasted += length
            case peer_events.PortReceived(port):
                self.roster.port_received(peer, port)
            case peer_events.ExtendedHandshakeReceived(handshake):
                self.roster.extended(peer, handshake, now=now)
                self._upload_only.part_if_useless(peer)
            case peer_events.ExtensionReceived(name, payload):
                self.extensions.received(peer, name, payload, now=now)
            case _:
                self.extensions.peer_event(peer, event, now=now)

    def _open(self, peer: PeerConnection, handshake: Handshake, now: float) -> None:
        if not self.roster.opened(peer, handshake, now=now):
            return
        if not self._super_seeding.greet(peer):
            peer.protocol.send_bitfield(Bitfield(self.picker.num_pieces, self.picker.have))
        self._upload_only.greet(peer)
        self.roster.send_port(peer)
        self._owner.peer_opened(peer)
        self.extensions.peer_opened(peer)

    def _availability_changed(self, peer: PeerConnection) -> None:
        remote = peer.protocol.remote
        assert remote is not None
        if not peer.protocol.am_interested and self.picker.is_interesting(remote.bits):
            peer.protocol.set_interested(True)
        elif remote.is_full:
            self._upload_only.part_if_useless(peer)

    def _grant_allowed_fast(self, peer: PeerConnection, remote: Bitfield) -> None:
        """Let a newcomer begin while it is choked (BEP 6)."""
        if not self._super_seeding.is_on:
            have = Bitfield(self.picker.num_pieces, self.picker.have)
            peer.protocol.send_allowed_fast(
                grants(self._info_hash, peer.endpoint, have, remote, num_peers=len(self.peers))
            )

    def _give_back(self, peer: PeerConnection, dropped: Sequence[Request]) -> None:
        self._release(peer, dropped)
        self.download_gate.take(-sum(length for _, _, length in dropped))

    def _release(self, peer: PeerConnection, dropped: Sequence[Request]) -> None:
        pieces = self.assembly.pieces
        pieces.release(peer.share, dropped)
        pieces.abandon(peer.share)
        now = self._services.loop.time()
        peer.pipeline.set_outstanding(len(peer.protocol.outstanding), now=now)

    def _rejected(self, peer: PeerConnection, request: Request) -> None:
        self._give_back(peer, [request])
        if not peer.protocol.peer_choking:
            peer.refused |= 1 << (self.picker.top - request[0])
        else:
            peer.protocol.remote_allowed_fast.pop(request[0], None)

    # --- asking --------------------------------------------------------------------------

    def fill_pipeline(self, peer: PeerConnection, *, now: float) -> None:
        """Ask a peer for as many blocks as its pipeline has room for."""
        protocol, picker = peer.protocol, self.picker
        remote = protocol.remote
        if remote is None or not protocol.am_interested or self._is_stopped:
            return
        bits = remote.bits
        if peer.refused:
            bits &= ~peer.refused
        if protocol.peer_choking:
            # A grant is for pieces anywhere; who wants them in order waits for its turn.
            if not protocol.remote_allowed_fast or picker.sequential:
                return
            top = picker.top
            bits &= sum(1 << (top - index) for index in protocol.remote_allowed_fast)
        target, num_outstanding = peer.pipeline.target, len(protocol.outstanding)
        space = target - num_outstanding
        # Ask in batches: a message per block would cost a wake-up per block on the other side.
        if space <= 0 or (num_outstanding and space * 4 < target):
            return
        gate, allowed = self.download_gate, space
        if not gate.is_unlimited:
            if (available := gate.available()) <= 0:
                gate.wait(peer.fill)
                return
            allowed = min(space, -(-available // BLOCK_LENGTH))
        runs = self.plan(peer.share, bits, allowed)
        if runs:
            if allowed < space:
                # Not only when a block comes: what the limit allows until then would be lost.
                gate.wait(peer.fill)
            if not num_outstanding:
                peer.last_block_at = now
            protocol.request_runs(runs)
            gate.take(sum([end - begin for _, begin, end in runs]))
            peer.pipeline.set_outstanding(len(protocol.outstanding), now=now)
        elif not num_outstanding and not picker.is_interesting(remote.bits):
            protocol.set_interested(False)

    def plan(self, share: PeerShare, bits: int, num_blocks: int) -> list[Run]:
        """Choose blocks to ask for, of the pieces in ``bits``, and count them as requested."""
        pieces = self.assembly.pieces
        runs = pieces.plan(share, bits, num_blocks)
        if opened := pieces.newly_opened:
            self._owner.pieces_opened(list(opened))
            opened.clear()
        return runs

    def ask_all(self) -> None:
        """Ask every peer for as much as it has room for."""
        now = self._services.loop.time()
        for peer in list(self.peers):
            if not peer.is_closed:
                self.fill_pipeline(peer, now=now)
                peer.flush()

    # --- serving -------------------------------------------------------------------------

    def next_run(self, peer: PeerConnection) -> list[Request]:
        """Take a run of the peer's requests, sized to what it takes and to the limits."""
        length = min(peer.run_length, self.assembly.send_length)
        gate = self.upload_gate
        if not gate.is_unlimited:
            if (available := gate.available()) <= 0:
                gate.wait(peer.serve)
                return []
            length = min(length, available)
        self._super_seeding.refuse_hidden(peer)
        incoming = peer.protocol.incoming
        requests, num_bytes = incoming.take(length)
        if not self.picker.is_seed:
            while requests and not (requests := self._refuse_missing(peer, requests)):
                requests, _ = incoming.take(length)
            num_bytes = sum(length for _, _, length in requests)
        gate.take(num_bytes)
        self.num_uploaded += num_bytes
        return requests

    def _refuse_missing(self, peer: PeerConnection, requests: list[Request]) -> list[Request]:
        """Reject requests for pieces that we do not have, and return the others (F5)."""
        top, have = self.picker.top, self.picker.have
        missing = {index for index, _, _ in requests if not have >> (top - index) & 1}
        if not missing:
            return requests
        for request in requests:
            if request[0] in missing:
                peer.protocol.reject(request)
        return [request for request in requests if request[0] not in missing]

    def load_run(self, peer: PeerConnection, requests: list[Request]) -> memoryview | None:
        """Read a run from storage, or arrange for it to be read."""
        return self.assembly.load_run(peer, requests)

    # --- what the assembly tells ---------------------------------------------------------

    def pieces_verified(self, pieces: Sequence[int]) -> None:
        """Tell the peers and the outside of new pieces."""
        picker = self.picker
        self._news.add(pieces)
        if self._owner.listeners:
            first, num_pieces = picker.num_have - len(pieces) + 1, picker.num_pieces
            for num_have, index in enumerate(pieces, first):
                self._owner.report(events.PieceVerified(index, num_have, num_pieces))
        if self._upload_only.has_completed():
            self._services.loop.call_soon(self._completed)

    def _completed(self) -> None:
        if self._is_stopped or not self.assembly.is_finished(then=self._completed):
            return
        if not self.picker.is_complete:
            return  # While files were given their names, more has been asked for, or a piece lost.
        self._owner.swarm_completed()
        for peer in list(self.peers):
            peer.protocol.set_interested(False)
            peer.flush()
        self._upload_only.update()

    def piece_failed(self, index: int, guilty: set[Hashable]) -> None:
        """Report a bad piece and punish whoever surely sent it."""
        self._owner.report(events.PieceFailed(index))
        self.web_seeds.piece_failed(index, guilty)
        self.peers_guilty(guilty)

    def peers_guilty(self, guilty: set[Hashable], *, is_proven: bool = False) -> None:
        """Ban, but not from within a callback of the very stream that would be closed."""
        if guilty:
            self._services.loop.call_soon(self.ban, guilty, is_proven)

    def piece_lost(self, index: int) -> None:
        """Tell peers that we do not have a piece after all (BEP 54), and fetch it again."""
        self.extensions.piece_lost(index)
        self._owner.piece_lost(index)
        for peer in list(self.peers):
            for request in peer.protocol.incoming.drop_piece(index):
                peer.protocol.reject(request)
            peer.protocol.send_dont_have(index)
            remote = peer.protocol.remote
            if remote is not None and self.picker.is_interesting(remote.bits):
                peer.protocol.set_interested(True)
            peer.flush()
        self._upload_only.update()

    def not_sent(self, num_bytes: int) -> None:
        """Take back what was counted as sent: its piece is lost."""
        self.num_uploaded -= num_bytes
        self.upload_gate.take(-num_bytes)

    def file_completed(self, index: int) -> None:
        """Report a complete file."""
        entry = self.assembly.layout.files[index]
        self._owner.report(events.FileCompleted(index, "/".join(entry.path)))

    def storage_failed(self, error: StorageError) -> None:
        """Stop everything: without storage there is nothing to do."""
        self._services.loop.call_soon(self._owner.swarm_failed, error)

    def torrent_inconsistent(self, error: Inconsistent) -> None:
        """Stop: no peer can give us bytes that both halves of the torrent accept."""
        self._services.loop.call_soon(self._owner.swarm_failed, error)

    # --- time ----------------------------------------------------------------------------

    def tick(self, *, now: float) -> None:
        """Do what is due; called about once a second."""
        self.roster.tick(now=now)
        self.extensions.tick(now=now)
        self._news.tell_seeds()
        pieces = self.assembly.pieces
        pieces.is_shared = False
        for peer in self.peers:
            self._judge_pace(peer, now)
            remote = peer.protocol.remote
            pieces.is_shared |= remote is not None and not remote.is_full
        self.web_seeds.tick(now=now)
        pieces.share_slow_pieces()
        self.choking.tick(now=now, is_seeding=self.picker.is_complete)
        self.ask_all()
        if self.roster.has_room:
            self._services.request_dial()

    def _judge_pace(self, peer: PeerConnection, now: float) -> None:
        """Estimate when what a peer owes us will be there; take it back from one that snubs us."""
        share, protocol = peer.share, peer.protocol
        # The meter falls while nothing is asked for, and the rate of a round right after a stop.
        share.rate = max(peer.down.rate, peer.pipeline.rate * BLOCK_LENGTH)
        share.delay = peer.pipeline.delay
        num_bytes = len(protocol.outstanding) << BLOCK_SHIFT
        silent_for = now - peer.last_block_at
        if num_bytes and share.rate:
            usual = share.delay + BLOCK_LENGTH / share.rate
            if silent_for > usual + SILENCE:
                share.silent_for = max(share.silent_for, silent_for)
        if not num_bytes:
            share.expected_wait = 0.0
        elif silent_for > self._services.config.snub_timeout:
            # BEP 3: snubbed. Its blocks go to others; what still comes is taken, and until
            # then it is asked for a single block.
            self._give_back(peer, protocol.drop_outstanding())
            peer.pipeline.target = 1
            peer.snub_total = peer.down.total
        else:
            expected = num_bytes / share.rate if share.rate else silent_for
            share.expected_wait = share.silent_for + expected

    # --- settings and the end ------------------------------------------------------------

    def withdraw_requests(self) -> None:
        """Take back all that was asked for (BEP 3: cancel); what comes all the same is taken."""
        for peer in self.peers:
            dropped = peer.protocol.drop_outstanding()
            self._release(peer, dropped)
            peer.protocol.send_message(b"".join([wire.encode_cancel(*each) for each in dropped]))
            peer.flush()

    def set_super_seeding(self, is_on: bool) -> None:
        """Begin or end to show pieces one by one (BEP 16)."""
        self._super_seeding.turn(is_on)
        self._upload_only.update()

    def set_wanted(self, priorities: Sequence[int]) -> None:
        """Set the priority of each piece, 0 for unwanted, and look at every peer anew."""
        self.picker.set_priorities(priorities)
        for peer in self.peers:
            self._look_anew(peer)
        self._upload_only.update()

    def stop(self) -> None:
        """Close every connection; idempotent."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self.assembly.stop()
        self.extensions.stop()
        self.roster.close()
        self.web_seeds.stop()
        self.choking.stop()
        self.download_gate.close()
        self.upload_gate.close()
