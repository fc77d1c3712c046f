"""
Answers peers that ask for hashes of v2 files.

Hashes of pieces come from memory. Hashes of blocks are kept by nobody and are
computed from the piece, in the worker: only of pieces that we have, one request
at a time, and only so many bytes a second, whoever asks. What a peer asks of one
piece waits until data may be read again; others are answered meanwhile, if they need
none. A piece that turns out to be bad is lost, and the request refused.

Sources: BEP 52 (hash request, hashes, hash reject); threats.md H10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bittern.codec import wire
from bittern.codec.merkle import HashTree
from bittern.codec.wire import HashRange, MessageId
from bittern.core.errors import PeerViolation, StorageError, VolumeMissing
from bittern.core.rate import TokenBucket
from bittern.engine.limits import RateGate
from bittern.engine.peers.connection import PeerConnection
from bittern.engine.services import Services
from bittern.policy.picker import Picker
from bittern.proto.hash_requests import MAX_WAITING, HashRequests
from bittern.storage.base import Storage
from bittern.storage.hash_trees import MAX_READ_LENGTH, HashTrees, read_piece_tree
from bittern.storage.hashing import PieceHashes

READ_RATE = 16 << 20
"""Limit: H10. Bytes a second that are read and hashed to answer, and twice as many at once."""
MAX_POSTPONED = 8
"""
Limit: H10. Peers of which requests, for one piece each, wait until it may be read.

Interop: libtorrent never asks again for the hashes of a piece's blocks once it was refused.
"""
MAX_REMEMBERED = 1 << 15
"""
Hashes of blocks that are remembered: many ask for those of the same bad piece.

As many as the longest piece has, 512 MiB, because its hashes are asked for in many parts. With
the trees above them they take 2 MiB.
"""


class HashServer:
    """
    The one described in the module's text.

    Args:
        services: of the session.
        hashes: of the torrent.
        storage: of the torrent.
        picker: knows which pieces we have.
        upload_gate: counts what is sent.
        piece_lost: hears of a piece that is not as it should be.
    """

    def __init__(
        self,
        services: Services,
        hashes: PieceHashes,
        storage: Storage,
        picker: Picker,
        upload_gate: RateGate,
        *,
        piece_lost: Callable[[int], None],
    ) -> None:
        now = services.loop.time()
        self._services = services
        self._hashes = hashes
        self._storage = storage
        self._picker = picker
        self._gate = upload_gate
        self._piece_lost = piece_lost
        self._trees = HashTrees(hashes)
        self._queue = HashRequests()
        self._budget = TokenBucket(READ_RATE, now=now, burst=2 * READ_RATE)
        self._budget.take(-2 * READ_RATE, now=now)
        self._remembered: dict[int, HashTree] = {}
        self._postponed: dict[PeerConnection, list[HashRange]] = {}
        """Requests that wait to be read for, by peer; those of one are all for the same pieces."""
        self._is_busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopped = False

    def requested(self, peer: PeerConnection, wanted: HashRange, *, now: float) -> None:
        """Take a request; it is answered at once where that is possible."""
        try:
            is_admitted = self._queue.admit(peer, wanted, now=now)
        except PeerViolation as error:
            peer.close(str(error), was_violation=True)
            return
        if is_admitted:
            self._pump()
        else:
            _reject(peer, wanted)

    def forget(self, peer: PeerConnection) -> None:
        """Drop the requests of a peer that has gone."""
        self._queue.forget(peer)
        self._postponed.pop(peer, None)

    def stop(self) -> None:
        """Answer nobody any more."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()

    # --- answering -----------------------------------------------------------------------

    def _pump(self) -> None:
        """Answer what may be answered now."""
        while not self._is_busy and not self._is_stopped:
            now = self._services.loop.time()
            is_asked = len(self._queue) or self._postponed
            if is_asked and not self._gate.is_unlimited and not self._gate.available():
                self._gate.wait(self._pump)
                return
            if (postponed := self._take_postponed(now)) is not None:
                self._answer(*postponed, now, is_its_turn=True)
                continue
            found = self._queue.take(now=now)
            if found is None:
                self._wait(self._next_at(now))
                return
            peer, wanted = found
            assert isinstance(peer, PeerConnection)
            self._answer(peer, wanted, now, is_its_turn=not self._postponed)

    def _take_postponed(self, now: float) -> tuple[PeerConnection, HashRange] | None:
        """Take out the first request that waited to be read for, or one that no longer has to."""
        is_first = True
        for peer, waiting in self._postponed.items():
            unread = self._unread(self._trees.needed(waiting[0]) or range(0))
            if not unread or (is_first and self._may_read(unread, now)):
                wanted = waiting.pop(0)
                if not waiting:
                    del self._postponed[peer]
                return peer, wanted
            is_first = False
        return None

    def _next_at(self, now: float) -> float | None:
        """Return when something can be answered again; None when nothing waits."""
        at = self._queue.next_at(now=now)
        for waiting in self._postponed.values():
            unread = self._unread(self._trees.needed(waiting[0]) or range(0))
            length = min(self._length_of(unread), MAX_READ_LENGTH)
            ready_at = self._budget.ready_at(length, now=now)
            return ready_at if at is None else min(at, ready_at)
        return at

    def _wait(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = self._services.loop.call_at(at, self._pump)

    def _answer(
        self, peer: PeerConnection, wanted: HashRange, now: float, *, is_its_turn: bool
    ) -> None:
        """Answer a request, or let it wait if it is not its turn to be read for."""
        needed = self._trees.needed(wanted)
        # Limit: H2, H10. Answers are long: who asks and does not read gets none.
        if needed is None or not self._has(needed) or not peer.protocol.has_room:
            self._refuse(peer, wanted, now)
            return
        unknown = self._unread(needed)
        if unknown and not (is_its_turn and self._may_read(unknown, now)):
            self._postpone(peer, wanted, needed, now)
            return
        self._budget.take(self._length_of(unknown), now=now)
        if not unknown and not self._trees.is_slow(wanted):
            trees = {index: self._remembered[index] for index in needed}
            self._send(peer, wanted, self._trees.answer(wanted, trees))
            return
        self._is_busy = True
        known = {index: self._remembered[index] for index in needed if index not in unknown}

        def work() -> tuple[dict[int, HashTree | None], bytes]:
            read = {index: read_piece_tree(self._storage, self._hashes, index) for index in unknown}
            good = known | {index: tree for index, tree in read.items() if tree is not None}
            answer = self._trees.answer(wanted, good) if len(good) == len(needed) else b""
            return read, answer

        def done(
            result: tuple[dict[int, HashTree | None], bytes] | None, error: BaseException | None
        ) -> None:
            self._is_busy = False
            if self._is_stopped:
                return
            bug = None if isinstance(error, StorageError) else error
            read, answer = (dict.fromkeys(unknown), b"") if result is None else result
            # Limit: F6. On a volume that is not mounted nothing is lost yet.
            if bug is None and not isinstance(error, VolumeMissing):
                self._remember(read)
            if answer:
                self._send(peer, wanted, answer)
            else:
                self._refuse(peer, wanted, self._services.loop.time())
            self._pump()
            if bug is not None:
                raise bug

        self._services.disk.submit(work, done)

    def _has(self, pieces: range) -> bool:
        top, have = self._picker.top, self._picker.have
        return all(have >> (top - index) & 1 for index in pieces)

    def _unread(self, pieces: range) -> list[int]:
        return [index for index in pieces if index not in self._remembered]

    def _length_of(self, pieces: list[int]) -> int:
        return sum(self._hashes.plan_run(index, 1).v2_length for index in pieces)

    def _may_read(self, pieces: list[int], now: float) -> bool:
        """Tell whether pieces may be read now; a long one is on credit."""
        length = min(self._length_of(pieces), MAX_READ_LENGTH)
        return self._budget.available(now=now) >= length

    def _postpone(self, peer: PeerConnection, wanted: HashRange, needed: range, now: float) -> None:
        """Let a request wait to be read for, with others of its peer for the same pieces."""
        waiting = self._postponed.get(peer)
        if waiting is None:
            has_place = len(self._postponed) < MAX_POSTPONED
        else:
            has_place = len(waiting) < MAX_WAITING and self._trees.needed(waiting[0]) == needed
        if has_place:
            self._postponed.setdefault(peer, []).append(wanted)
        else:
            self._refuse(peer, wanted, now)

    def _remember(self, read: dict[int, HashTree | None]) -> None:
        for index, tree in read.items():
            if tree is None:
                self._piece_lost(index)
            else:
                self._remembered[index] = tree
        while sum(tree.num_hashes for tree in self._remembered.values()) > MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def _send(self, peer: PeerConnection, wanted: HashRange, hashes: bytes) -> None:
        if not peer.is_closed:
            message = wire.encode_hashes(wanted, (hashes,))
            self._gate.take(len(message))
            peer.protocol.send_message(message)
            peer.flush()

    def _refuse(self, peer: PeerConnection, wanted: HashRange, now: float) -> None:
        if peer.is_closed:
            return
        _reject(peer, wanted)
        try:
            self._queue.refused(peer, now=now)
        except PeerViolation as error:
            peer.close(str(error), was_violation=True)


def _reject(peer: PeerConnection, wanted: HashRange) -> None:
    peer.protocol.send_message(wire.encode_hash_request(wanted, MessageId.HASH_REJECT))
    peer.flush()
