"""
Pieces in progress: which blocks are free, asked for and there, and who sent what.

A peer is given whole pieces where possible: that keeps the blocks in order, so
that their hash can be fed as they pass, and it shows at once who sent a bad
piece. Others join a piece only when its owner left or is slow, or when nothing
else is left to ask for (endgame).

States of a block: free, requested, received. Invariants: ``num_free`` and
``num_received`` equal the counts of the states; a piece is in ``open`` exactly
as long as the picker counts it as open; ``joinable`` holds only open pieces
with free blocks that are not kept for one peer.

Sources: BEP 3 (strict priority, endgame).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.policy.picker import Picker

FREE, REQUESTED, RECEIVED = 0, 1, 2

SLOW_PIECE_SECONDS = 20.0
"""A piece whose owner needs longer than this for the rest of it is shared with others."""
ENDGAME_WAIT = 1.0
"""Seconds a block is expected to take before a second peer is asked for it too."""
MAX_ENDGAME_ASKERS = 3
"""Peers that are asked for one block at the same time, at the very most."""

EXTENT_LENGTH = 4 << 20
"""Bytes over which a peer is given pieces in a row, where they are equally rare: long runs of
requests are cheaper on both sides; libtorrent's extents have the same length."""

BLOCK_SHIFT = BLOCK_LENGTH.bit_length() - 1

Run = tuple[int, int, int]
"""Index, begin, end: adjacent blocks of one piece to be requested."""
ReceivedBlock = tuple[int, int, memoryview]


class Hasher(Protocol):
    """What ``storage.hashing`` makes for a piece: fed in order, asked once."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take the next bytes of the piece."""


class PeerShare:
    """
    One peer's part in the pieces in progress.

    Args:
        key: the peer's address; outlives the connection in the record of who sent what.
    """

    __slots__ = ("assigned", "expected_wait", "key", "last_index", "rate")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.assigned: list[OpenPiece] = []
        """Pieces this peer is working through, with blocks still free."""
        self.rate = 0.0
        """Bytes per second it lately sent; kept up to date by the owner of the connection."""
        self.last_index = -1
        """The last piece that was opened for it; the next one should follow."""
        self.expected_wait = 0.0
        """Seconds until its outstanding requests will be there at that rate."""


class OpenPiece:
    """One piece in progress."""

    __slots__ = (
        "askers",
        "hasher",
        "index",
        "is_exclusive",
        "num_blocks",
        "num_free",
        "num_hashed",
        "num_received",
        "num_unwritten",
        "owner",
        "senders",
        "states",
    )

    def __init__(self, index: int, num_blocks: int, hasher: Hasher) -> None:
        self.index = index
        self.num_blocks = num_blocks
        self.states = bytearray(num_blocks)
        self.num_free = num_blocks
        self.num_received = 0
        self.num_unwritten = 0
        """Write jobs of this piece that have been handed to the storage worker."""
        self.senders: list[Hashable | None] = [None] * num_blocks
        self.askers: list[PeerShare | None] = [None] * num_blocks
        """Of whom each requested block was asked first; the owner may have changed since."""
        self.hasher = hasher
        self.num_hashed = 0
        """Blocks from the start of the piece that ``hasher`` has seen."""
        self.owner: PeerShare | None = None
        self.is_exclusive = False
        """Kept for one peer, to find out who sent bad blocks (H4)."""

    @property
    def is_complete(self) -> bool:
        """True when every block is there and handed to the operating system."""
        return self.num_received == self.num_blocks and not self.num_unwritten

    def received_blocks(self) -> list[int]:
        """Return the numbers of the blocks that are there."""
        return [number for number, state in enumerate(self.states) if state == RECEIVED]

    def __repr__(self) -> str:
        return f"<OpenPiece {self.index}: {self.num_received}/{self.num_blocks}>"


@dataclass(slots=True)
class Received:
    """What became of a batch of blocks."""

    writes: list[tuple[int, list[memoryview], list[OpenPiece]]] = field(default_factory=list)
    """Position in the piece space, adjacent buffers, and the pieces that they belong to."""
    finished: list[OpenPiece] = field(default_factory=list)
    """Pieces of which the last block is in this batch."""
    cancels: list[tuple[PeerShare, int, int]] = field(default_factory=list)
    """Share, index, begin of requests that are now superfluous."""
    num_wasted: int = 0
    """Bytes that were there already or that nobody wants any more."""


class Pieces:
    """
    All pieces in progress of one torrent.

    Args:
        geometry: of the torrent.
        picker: chooses new pieces; told of every piece opened, closed or had.
        start_hash: makes the hasher of a piece.
        pad_blocks: numbers of the blocks of a piece that lie wholly in padding
            and are never asked for (BEP 47).
    """

    def __init__(
        self,
        geometry: Geometry,
        picker: Picker,
        start_hash: Callable[[int], Hasher],
        pad_blocks: Callable[[int], Sequence[int]] = lambda _: (),
    ) -> None:
        self.open: dict[int, OpenPiece] = {}
        self.joinable: dict[int, OpenPiece] = {}
        self.newly_opened: list[int] = []
        """Pieces opened since the owner last emptied this list."""
        self._geometry = geometry
        self._extent = max(1, EXTENT_LENGTH // geometry.piece_length)
        self._num_pieces = geometry.num_pieces
        self._picker = picker
        self._start_hash = start_hash
        self._pad_blocks = pad_blocks
        self._askers: dict[int, list[PeerShare]] = {}
        """In the endgame: ``index << 32 | begin`` to those who were asked for that block."""
        self._exclusive: set[int] = set()

    # --- asking --------------------------------------------------------------------------

    def plan(self, share: PeerShare, peer_bits: int, budget: int) -> list[Run]:
        """
        Choose the next blocks to ask one peer for, and count them as requested.

        Args:
            share: of that peer.
            peer_bits: pieces that it has and would give us.
            budget: blocks it can still take, >= 0.

        Returns:
            Runs in sending order; fewer blocks than ``budget`` when the peer has
            no more that we want.
        """
        runs: list[Run] = []
        while share.assigned and budget > 0:
            piece = share.assigned[0]
            budget -= self._take(piece, share, budget, runs)
            if not piece.num_free:
                share.assigned.pop(0)
        while budget > 0:
            found = self._joinable_for(peer_bits) or self._open_new(share, peer_bits)
            if found is None:
                break
            budget = self._assign(found, share, budget, runs)
        if budget > 0:
            self._plan_endgame(share, peer_bits, budget, runs)
        return runs

    def _assign(self, piece: OpenPiece, share: PeerShare, budget: int, runs: list[Run]) -> int:
        piece.owner = share
        self.joinable.pop(piece.index, None)
        budget -= self._take(piece, share, budget, runs)
        if piece.num_free:
            share.assigned.append(piece)
        return budget

    def _take(self, piece: OpenPiece, share: PeerShare, budget: int, runs: list[Run]) -> int:
        """Mark up to ``budget`` free blocks as requested; return how many."""
        states, taken = piece.states, 0
        length = self._geometry.length_of(piece.index)
        at = states.find(FREE)
        while at >= 0 and taken < budget:
            stop = min(piece.num_blocks, at + budget - taken)
            if piece.num_free < piece.num_blocks:
                used = (states.find(REQUESTED, at, stop), states.find(RECEIVED, at, stop))
                stop = min((end for end in used if end >= 0), default=stop)
            states[at:stop] = bytes((REQUESTED,)) * (stop - at)
            piece.askers[at:stop] = [share] * (stop - at)
            taken += stop - at
            runs.append((piece.index, at << BLOCK_SHIFT, min(length, stop << BLOCK_SHIFT)))
            at = states.find(FREE, stop)
        piece.num_free -= taken
        if not piece.num_free:
            self.joinable.pop(piece.index, None)
        return taken

    def _joinable_for(self, peer_bits: int) -> OpenPiece | None:
        """Return an open piece that waits for somebody and that the peer has."""
        top = self._picker.top
        for index, piece in self.joinable.items():
            if peer_bits >> (top - index) & 1:
                return piece
        return None

    def _open_new(self, share: PeerShare, peer_bits: int) -> OpenPiece | None:
        following = share.last_index + 1
        preferred = following if following % self._extent and following < self._num_pieces else None
        index = self._picker.pick(peer_bits, preferred=preferred)
        if index is None:
            return None
        share.last_index = index
        return self.open_piece(index)

    def open_piece(self, index: int) -> OpenPiece:
        """Open a piece that is neither open nor had."""
        piece = OpenPiece(index, self._geometry.num_blocks(index), self._start_hash(index))
        for number in self._pad_blocks(index):
            piece.states[number] = RECEIVED
            piece.num_received += 1
            piece.num_free -= 1
        piece.is_exclusive = index in self._exclusive
        self.open[index] = piece
        self._picker.mark_open(index)
        self.newly_opened.append(index)
        return piece

    def restore(self, index: int, blocks: Iterable[int]) -> OpenPiece:
        """Open a piece of which an earlier run has left some blocks on disk."""
        piece = self.open_piece(index)
        for number in blocks:
            if 0 <= number < piece.num_blocks and piece.states[number] == FREE:
                piece.states[number] = RECEIVED
                piece.num_received += 1
                piece.num_free -= 1
        self._offer(piece)
        return piece

    def _plan_endgame(self, share: PeerShare, peer_bits: int, budget: int, runs: list[Run]) -> None:
        """Join any open piece; failing that, ask a second peer for what is long in coming."""
        top = self._picker.top
        mine = [
            piece
            for index, piece in self.open.items()
            if peer_bits >> (top - index) & 1 and not piece.is_exclusive
        ]
        for piece in mine:
            if budget <= 0:
                return
            if piece.num_free and piece.owner is not share:
                budget -= self._take(piece, share, budget, runs)
        for piece in mine:
            if budget <= 0:
                return
            budget -= self._duplicate(piece, share, budget, runs)

    def _duplicate(self, piece: OpenPiece, share: PeerShare, budget: int, runs: list[Run]) -> int:
        """Ask ``share`` too for blocks that are long in coming from elsewhere, the last first."""
        asked = 0
        length = self._geometry.length_of(piece.index)
        patience = max(ENDGAME_WAIT, 2 * share.expected_wait)
        number = piece.states.rfind(REQUESTED)
        while number >= 0 and asked < budget:
            first = piece.askers[number]
            if first is not None and first is not share and first.expected_wait > patience:
                begin = number << BLOCK_SHIFT
                askers = self._askers.setdefault(piece.index << 32 | begin, [first])
                if share not in askers and len(askers) < MAX_ENDGAME_ASKERS:
                    askers.append(share)
                    runs.append((piece.index, begin, min(length, begin + BLOCK_LENGTH)))
                    asked += 1
            number = piece.states.rfind(REQUESTED, 0, number)
        return asked

    # --- receiving -----------------------------------------------------------------------

    def receive(self, share: PeerShare, blocks: Sequence[ReceivedBlock]) -> Received:
        """
        Take a batch of blocks from one peer.

        Each block that is the next of its piece is hashed here and now, while
        it is in the processor's cache. The payloads are referred to by
        ``writes`` of the result, which the caller must carry out before its
        receive buffer is used again.
        """
        result = Received()
        open_pieces, piece_length = self.open, self._geometry.piece_length
        key, askers = share.key, self._askers
        run: list[memoryview] = []
        run_end = -1
        run_pieces: list[OpenPiece] = []
        for index, begin, data in blocks:
            piece = open_pieces.get(index)
            number = begin >> BLOCK_SHIFT
            if piece is None or piece.states[number] == RECEIVED:
                result.num_wasted += len(data)
                continue
            if piece.states[number] == FREE:
                piece.num_free -= 1
            piece.states[number] = RECEIVED
            piece.senders[number] = key
            piece.num_received += 1
            if number == piece.num_hashed:
                piece.hasher.update(data)
                piece.num_hashed = number + 1
            offset = index * piece_length + begin
            if offset != run_end:
                run, run_pieces = [data], [piece]
                result.writes.append((offset, run, run_pieces))
            else:
                run.append(data)
                if piece is not run_pieces[-1]:
                    run_pieces.append(piece)
            run_end = offset + len(data)
            if piece.num_received == piece.num_blocks:
                result.finished.append(piece)
            if askers:
                self._settle(index << 32 | begin, share, result)
        return result

    def _settle(self, key: int, share: PeerShare, result: Received) -> None:
        for asker in self._askers.pop(key, ()):
            if asker is not share:
                result.cancels.append((asker, key >> 32, key & 0xFFFFFFFF))

    # --- giving back ---------------------------------------------------------------------

    def release(self, share: PeerShare, requests: Iterable[tuple[int, int, int]]) -> None:
        """Free blocks whose requests were rejected, dropped, or have gone with the peer."""
        for index, begin, _ in requests:
            piece = self.open.get(index)
            if piece is None:
                continue
            number = begin >> BLOCK_SHIFT
            key = index << 32 | begin
            askers = self._askers.get(key)
            if askers is not None:
                if share in askers:
                    askers.remove(share)
                if askers:
                    piece.askers[number] = askers[0]
                    continue
                del self._askers[key]
            if piece.states[number] == REQUESTED:
                piece.states[number] = FREE
                piece.num_free += 1
            self._offer(piece)

    def abandon(self, share: PeerShare) -> None:
        """Offer the pieces of a peer that chokes us, fell silent or left to the others."""
        assigned, share.assigned = share.assigned, []
        for piece in assigned:
            if piece.owner is share:
                piece.owner = None
            self._offer(piece)

    def _offer(self, piece: OpenPiece) -> None:
        if piece.num_free:
            self.joinable[piece.index] = piece

    def share_slow_pieces(self) -> None:
        """Offer pieces whose owners will take long for the rest; called about once a second."""
        for piece in self.open.values():
            owner = piece.owner
            if owner is None or not piece.num_free or piece.is_exclusive:
                continue
            if piece.num_free * BLOCK_LENGTH > owner.rate * SLOW_PIECE_SECONDS:
                self.joinable[piece.index] = piece

    # --- the end of a piece --------------------------------------------------------------

    def close_good(self, piece: OpenPiece) -> None:
        """Take out a piece that matches its hash: we have it."""
        self._close(piece)
        self._exclusive.discard(piece.index)
        self._picker.mark_have(piece.index)

    def close_bad(self, piece: OpenPiece, *, exclusive: bool) -> None:
        """
        Take out a piece that does not match its hash; it is missing again.

        Args:
            piece: the piece.
            exclusive: let only one peer fetch it next time (H4).
        """
        self._close(piece)
        if exclusive:
            self._exclusive.add(piece.index)
        self._picker.mark_closed(piece.index)

    def _close(self, piece: OpenPiece) -> None:
        self.open.pop(piece.index, None)
        self.joinable.pop(piece.index, None)
        if self._askers:
            for key in [key for key in self._askers if key >> 32 == piece.index]:
                del self._askers[key]
        if piece.owner is not None and piece in piece.owner.assigned:
            piece.owner.assigned.remove(piece)
