"""
Asks peers for hashes of v2 files: piece layers that are missing, blocks of a piece.

Serves the torrent while it fetches its metadata and while it moves pieces. Which
part of what is asked of whom is decided in ``proto.hashes``; here are the
connections, the deadlines and what becomes of a liar.

Sources: BEP 52 (hash request); threats.md H4, H10.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field

from bittern.codec import wire
from bittern.codec.merkle import height_of, num_blocks
from bittern.codec.wire import HashRange
from bittern.core.errors import Inconsistent
from bittern.engine.peers.connection import PeerConnection
from bittern.engine.peers.roster import Roster
from bittern.engine.pieces.block_judge import BlocksDone
from bittern.engine.services import Services
from bittern.proto.hashes import HashFetch, Span
from bittern.storage.hashing import PieceHashes

BLOCKS_TIMEOUT = 10.0
"""Seconds until the hashes of a piece's blocks are done without, after the time to read it."""


@dataclass(slots=True)
class _Blocks:
    """The hashes of one piece's blocks on their way."""

    index: int
    deadline: float
    avoid: Collection[Hashable]
    done: list[BlocksDone] = field(default_factory=list)


class HashSeeker:
    """
    The one described in the module's text.

    Args:
        services: of the session.
        roster: the connections; whoever lies is banned there.
        hashes: of the torrent; piece layers that arrive are added to it.
        layers_done: called once no piece layer is missing any more, if one was.
        inconsistent: hears of a layer that contradicts pieces which are good by v1 (P13).
        is_holder: tells whether a peer has a piece, so that it must have the hashes too (BEP 52).
    """

    def __init__(
        self,
        services: Services,
        roster: Roster,
        hashes: PieceHashes,
        *,
        layers_done: Callable[[], None],
        inconsistent: Callable[[Inconsistent], None],
        is_holder: Callable[[PeerConnection, int], bool] = lambda _, __: True,
    ) -> None:
        self._services = services
        self._roster = roster
        self._hashes = hashes
        self._layers_done = layers_done
        self._inconsistent = inconsistent
        self._is_holder = is_holder
        self._fetch = HashFetch()
        self._missing: set[bytes] = set()
        """Roots of the files whose piece layer is being fetched."""
        self._blocks: dict[tuple[bytes, int], _Blocks] = {}
        self._is_asking_soon = False
        self._is_stopped = False

    # --- what is wanted ------------------------------------------------------------------

    def fetch_layers(self) -> None:
        """Fetch the piece layer of every file that lacks one."""
        now, hashes = self._services.loop.time(), self._hashes
        for entry in hashes.missing_layers():
            root, leaves = entry.pieces_root, num_blocks(entry.length)
            assert root is not None
            num_pieces = -(-entry.length // hashes.piece_length)
            span = Span(root, leaves, hashes.level, 0, num_pieces, height_of(leaves), root)
            self._fetch.want(root, span, now=now)
            self._missing.add(root)
        if self._missing and not self.askable():
            self._roster.greetings.begin_anew(self._roster.peers)
        self._ask(now)

    def fetch_block_hashes(
        self, index: int, done: BlocksDone, *, avoid: Collection[Hashable] = ()
    ) -> bool:
        """
        Fetch the SHA-256 of every block of one piece, each proven against the piece's hash.

        They are as good as the metainfo: ``storage.hashing.differing_blocks`` of them and of what
        is on disk tells exactly which blocks are bad, so that a repair fetches those alone and an
        accusation meets their senders only. Asking costs the peer a read of the piece and us 32
        bytes a block, so ask only for a piece that is known to be bad.

        Args:
            index: of the piece; its hash must be known (``PieceHashes.is_known``).
            done: called once, from the event loop, not before this returns: with the hashes end to
                end, or with None when nobody gave them in time (``BLOCKS_TIMEOUT``) or all refused.
            avoid: addresses of peers (``PeerConnection.address``) to ask only when others will
                not answer. They cannot lie about hashes; they can keep us waiting.

        Returns:
            False when nobody who could be asked is connected; ``done`` is not called then.
        """
        hashes = self._hashes
        if not self.askable():
            return False
        entry, number = hashes.place_of(index)
        root, leaves = entry.pieces_root, num_blocks(entry.length)
        assert root is not None
        now = self._services.loop.time()
        waiting = self._blocks.get((root, number))
        if waiting is not None:
            waiting.done.append(done)
            return True
        is_small = entry.length <= hashes.piece_length
        level = height_of(leaves) if is_small else hashes.level
        if not level:
            # The piece is one block: its hash is the block's.
            self._services.loop.call_soon(self._call, done, hashes.piece_hash(index))
            return True
        length, known = hashes.plan_run(index, 1).v2_length, hashes.piece_hash(index)
        span = Span(root, leaves, 0, number << level, num_blocks(length), level, known, length)
        deadline = now + span.reading_time + BLOCKS_TIMEOUT
        self._blocks[root, number] = _Blocks(index, deadline, avoid, [done])
        self._fetch.want((root, number), span, now=now)
        self._ask(now)
        return True

    # --- asking --------------------------------------------------------------------------

    @property
    def num_layers_missing(self) -> int:
        """Files whose piece layer is being fetched."""
        return len(self._missing)

    def askable(self) -> list[PeerConnection]:
        """Return the connected peers that speak v2."""
        v2_hash = self._roster.greetings.v2_hash
        return [
            peer
            for peer in self._roster.peers
            if peer.is_open and not peer.is_closed and peer.protocol.handshakes.has_v2(v2_hash)
        ]

    def _ask(self, now: float) -> None:
        if self._fetch and not self._is_stopped:
            for peer in self.askable():
                self._ask_one(peer, now)

    def _ask_one(self, peer: PeerConnection, now: float) -> None:
        def is_preferred(key: Hashable) -> bool:
            if not isinstance(key, tuple):
                return True
            blocks = self._blocks[key]
            return peer.address not in blocks.avoid and self._is_holder(peer, blocks.index)

        requests = self._fetch.next_requests(peer, now=now, is_preferred=is_preferred)
        for wanted in requests:
            peer.protocol.send_message(wire.encode_hash_request(wanted))
        if requests:
            peer.flush()

    # --- what connections tell -----------------------------------------------------------

    def peer_opened(self, peer: PeerConnection) -> None:
        """Ask a newcomer, if there is something to ask."""
        if self._fetch and peer.protocol.handshakes.has_v2(self._roster.greetings.v2_hash):
            self._ask_one(peer, self._services.loop.time())

    def hashes_received(
        self, peer: PeerConnection, what: HashRange, hashes: bytes, *, now: float
    ) -> None:
        """Take hashes; a peer whose hashes lead elsewhere is banned."""
        answer = self._fetch.hashes_received(peer, what, hashes, now=now)
        if answer.is_lie:
            # Not from within a callback of the very stream that will be closed.
            self._services.loop.call_soon(self._roster.ban, peer.address, "sent wrong hashes")
            self._ask(now)
            return
        if isinstance(answer.key, tuple):
            self._finish(answer.key, answer.hashes)
        elif isinstance(answer.key, bytes):
            try:
                is_good = self._hashes.add_piece_layer(answer.key, answer.hashes)
                assert is_good, "every part was proven against the root"
            except Inconsistent as error:
                self._inconsistent(error)
            self._layer_there(answer.key)
        if self._fetch and not peer.is_closed:
            self._ask_one(peer, now)

    def _layer_there(self, root: bytes) -> None:
        self._missing.discard(root)
        self._fetch.drop(root)
        if not self._missing:
            self._layers_done()

    def rejected(self, peer: PeerConnection, wanted: HashRange, *, now: float) -> None:
        """Ask others for what a peer will not send."""
        if self._fetch.rejected(peer, wanted, now=now):
            self._ask_others()

    def _give_up_hopeless(self) -> None:
        askable = self.askable()
        for key in list(self._blocks):
            if not askable or self._fetch.is_hopeless(key, askable):
                self._finish(key, None)

    def _finish(self, key: tuple[bytes, int], hashes: bytes | None) -> None:
        self._fetch.drop(key)
        for done in self._blocks.pop(key).done:
            self._services.loop.call_soon(self._call, done, hashes)

    def _call(self, done: BlocksDone, hashes: bytes | None) -> None:
        if not self._is_stopped:
            done(hashes)

    def forget(self, peer: PeerConnection) -> None:
        """Ask others for what a peer that has gone was asked for."""
        self._fetch.forget(peer)
        if self._fetch:
            self._ask_others()

    def _ask_others(self) -> None:
        """Find somebody for what has become free, once for all that this wake-up brings."""
        if not self._is_asking_soon:
            self._is_asking_soon = True
            self._services.loop.call_soon(self._ask_now)

    def _ask_now(self) -> None:
        self._is_asking_soon = False
        if not self._is_stopped:
            self._give_up_hopeless()
            self._ask(self._services.loop.time())

    def tick(self, *, now: float) -> None:
        """Do what is due; called about once a second."""
        if not self._fetch:
            return
        self._fetch.handle_timer(now=now)
        self._take_made_layers()
        for key, blocks in list(self._blocks.items()):
            if now >= blocks.deadline:
                self._finish(key, None)
        self._ask(now)

    def _take_made_layers(self) -> None:
        """Look for layers of a hybrid that its data has brought, piece by piece."""
        for root in self._missing.intersection(self._hashes.piece_layers):
            self._layer_there(root)

    def stop(self) -> None:
        """Call nobody any more."""
        if not self._is_stopped:
            self._take_made_layers()
        self._is_stopped = True
