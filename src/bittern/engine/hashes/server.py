"""
Answers peers that ask for hashes of v2 files.

Hashes of pieces come from memory. Hashes of blocks are kept by nobody and are
computed from the piece, in the worker: only of pieces that we have, one request
at a time, and only so many bytes a second, whoever asks. A piece that turns out
to be bad is lost, and the request refused.

Sources: BEP 52 (hash request, hashes, hash reject); threats.md H10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bittern.codec import wire
from bittern.codec.merkle import HashTree
from bittern.codec.wire import HashRange, MessageId
from bittern.core.errors import PeerViolation, StorageError
from bittern.core.rate import TokenBucket
from bittern.engine.limits import RateGate
from bittern.engine.peers.connection import PeerConnection
from bittern.engine.services import Services
from bittern.policy.picker import Picker
from bittern.proto.hash_requests import HashRequests
from bittern.storage.base import Storage
from bittern.storage.hash_trees import MAX_READ_LENGTH, HashTrees, read_piece_tree
from bittern.storage.hashing import PieceHashes

READ_RATE = 16 << 20
"""Limit: H10. Bytes a second that are read and hashed to answer, and twice as many at once."""
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
            if len(self._queue) and not self._gate.is_unlimited and not self._gate.available():
                self._gate.wait(self._pump)
                return
            found = self._queue.take(now=now)
            if found is None:
                self._wait(self._queue.next_at(now=now))
                return
            peer, wanted = found
            assert isinstance(peer, PeerConnection)
            self._answer(peer, wanted, now)

    def _wait(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = self._services.loop.call_at(at, self._pump)

    def _answer(self, peer: PeerConnection, wanted: HashRange, now: float) -> None:
        needed = self._trees.needed(wanted)
        if needed is None or not self._may_read(needed, now):
            self._refuse(peer, wanted, now)
            return
        unknown = [index for index in needed if index not in self._remembered]
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
            if error is not None and not isinstance(error, StorageError):
                raise error
            read, answer = (dict.fromkeys(unknown), b"") if result is None else result
            self._remember(read)
            if answer:
                self._send(peer, wanted, answer)
            else:
                self._refuse(peer, wanted, self._services.loop.time())
            self._pump()

        self._services.disk.submit(work, done)

    def _may_read(self, needed: range, now: float) -> bool:
        """Tell whether we have the pieces and may read them now, and count them as read."""
        top, have = self._picker.top, self._picker.have
        if not all(have >> (top - index) & 1 for index in needed):
            return False
        unknown = [index for index in needed if index not in self._remembered]
        length = sum(self._hashes.plan_run(index, 1).v2_length for index in unknown)
        if length and self._budget.available(now=now) < min(length, MAX_READ_LENGTH):
            return False
        self._budget.take(length, now=now)
        return True

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
