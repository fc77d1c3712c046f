"""
Pieces in progress: which blocks are free, asked for and there, and who sent what.

A peer is given whole pieces where possible: that keeps the blocks in order, so
that their hash can be fed as they pass, and it shows at once who sent a bad
piece. Others join a piece only when its owner left or is slow, or when nothing
else is left to ask for (endgame).

States of a block: free, requested, received. Invariants: ``num_free`` and
``num_received`` equal the counts of the states; a requested block has somebody
who was asked for it; a piece is in ``open`` exactly as long as the picker counts
it as open; a piece with free blocks is joinable or some peer works through it;
a piece kept for one peer is joinable only while it has no owner.

Sources: BEP 3 (strict priority, endgame), BEP 47 (padding); threats.md H4, H5.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bittern.core.bitfield import lowest_index
from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.policy.open_piece import FREE, RECEIVED, REQUESTED, Hasher, OpenPiece, PeerShare
from bittern.policy.picker import Picker

SLOW_PIECE_SECONDS = 20.0
"""Limit: H5. A piece whose owner needs longer for the rest of it is shared with others."""
SEQUENTIAL_PIECE_SECONDS = 3.0
"""The same where pieces are wanted in their order: what lies behind one that is late is no use.
As long as what a peer is asked for ahead takes (``policy.pipeline``)."""
SEQUENTIAL_WAIT = 6.0
"""Seconds a block of the first piece of all that are wanted in order may be expected to take
before a second peer is asked for it too; twice what a block waits at a peer that keeps its pace."""
KEPT_PIECE_SECONDS = 8.0
"""Limit: H4, H5. A piece that failed is kept for one peer, unless a block of it takes longer."""
ENDGAME_WAIT = 0.5
"""Seconds a block is expected to take before a second peer is asked for it too."""
SILENCE = 0.5
"""Seconds beyond a round trip and its pace for which a peer that has stopped sends nothing."""
MAX_ENDGAME_ASKERS = 3
"""Peers that have sent nothing so far and are asked for one block at the same time, not counting
those that are late: a few who promise and never serve would keep the last blocks from others."""

EXTENT_LENGTH = 4 << 20
"""Bytes over which a peer is given pieces in a row, where they are equally rare: long runs of
requests are cheaper on both sides; libtorrent's extents have the same length."""

BLOCK_SHIFT = BLOCK_LENGTH.bit_length() - 1

Run = tuple[int, int, int]
"""Index, begin, end: adjacent blocks of one piece to be requested."""
ReceivedBlock = tuple[int, int, memoryview]


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


class Places:
    """Where blocks stand among what peers were asked for; good for one look at all pieces."""

    def __init__(self) -> None:
        self._places: dict[PeerShare, dict[int, int]] = {}

    def wait(self, share: PeerShare, key: int) -> float:
        """Return the seconds until a peer brings a block, at its pace, after those before it."""
        if not share.rate:
            return share.expected_wait
        if (places := self._places.get(share)) is None:
            places = {each: place for place, each in enumerate(share.queue, 1)}
            self._places[share] = places
        place = places.get(key)
        if place is None:
            return share.expected_wait
        # Who has stopped is expected to send nothing for as long again.
        return share.silent_for + place * BLOCK_LENGTH / share.rate


def _wait_of(piece: OpenPiece) -> float:
    """Return how long the latest of those who were asked first will need for all that they owe."""
    return max((peer.expected_wait for peer in set(piece.waited_for())), default=0.0)


class Pieces:
    """
    All pieces in progress of one torrent.

    Args:
        geometry: of the torrent.
        picker: chooses new pieces; told of every piece opened, closed or had.
        start_hash: makes the hasher of a piece.
        pad_blocks: by index of a piece, numbers of its blocks that lie wholly in padding
            and are never asked for (BEP 47).
    """

    def __init__(
        self,
        geometry: Geometry,
        picker: Picker,
        start_hash: Callable[[int], Hasher],
        pad_blocks: Mapping[int, Sequence[int]],
    ) -> None:
        self.open: dict[int, OpenPiece] = {}
        self.joinable: int = 0
        """Open pieces that any peer may go on with, as bits in the order of the picker."""
        self.newly_opened: list[int] = []
        """Pieces opened since the owner last emptied this list."""
        self.is_shared = False
        """Others lack pieces too: each takes any of the rarest, since those who take them in rows
        follow each other, and a seed sends the same row to all of them."""
        self._geometry = geometry
        self._extent = max(1, EXTENT_LENGTH // geometry.piece_length)
        self._blocks_per_piece = -(-geometry.piece_length // BLOCK_LENGTH)
        self._num_pieces = geometry.num_pieces
        self._picker = picker
        self._start_hash = start_hash
        self._pad_blocks = pad_blocks
        self._askers: dict[int, list[PeerShare]] = {}
        """In the endgame: ``index << 32 | begin`` to those who were asked for that block."""
        self._exclusive: set[int] = set()
        self._late_head: OpenPiece | None = None
        """In sequential order the first piece of all, when a block of it is long in coming."""
        self._by_wait: list[OpenPiece] | None = None
        """In the endgame: the order in which pieces are looked at for late blocks, in this round;
        some may have been closed since."""
        self._round = 0
        """Counts calls of ``share_slow_pieces``; nobody becomes slow between two of them."""

    # --- asking --------------------------------------------------------------------------

    def plan(self, share: PeerShare, peer_bits: int, budget: int) -> list[Run]:
        """
        Choose the next blocks to ask one peer for, and count them as requested.

        Args:
            share: of that peer.
            peer_bits: pieces that it has and would give us; unwanted ones stay as they are.
            budget: blocks it can still take, >= 0.

        Returns:
            Runs in sending order; fewer blocks than ``budget`` when the peer has
            no more that we want.
        """
        runs: list[Run] = []
        top, peer_bits = self._picker.top, peer_bits & self._picker.wanted
        if self._late_head is not None and peer_bits >> (top - self._late_head.index) & 1:
            budget -= self._hasten(self._late_head, share, budget, runs)
        while share.assigned and budget > 0:
            piece = share.assigned[0]
            if piece.num_free:
                if not peer_bits >> (top - piece.index) & 1:
                    self._leave(piece, share)
                    self._offer(piece)
                    continue
                budget -= self._take(piece, share, budget, runs)
            if not piece.num_free:
                share.assigned.pop(0)
        while budget > 0:
            if waiting := peer_bits & self.joinable:
                found = [self.open[lowest_index(waiting, top)]]
                self.joinable &= ~(1 << (top - found[0].index))
            else:
                found = self._open_row(share, peer_bits, budget)
                if not found:
                    self._plan_endgame(share, peer_bits, budget, runs)
                    break
            for piece in found:
                if not piece.num_free:
                    runs.append((piece.index, 0, self._geometry.length_of(piece.index)))
                    budget -= piece.num_blocks
                    continue
                piece.owner = share
                budget -= self._take(piece, share, budget, runs)
                if piece.num_free:
                    share.assigned.append(piece)
        return runs

    def _open_row(self, share: PeerShare, peer_bits: int, budget: int) -> list[OpenPiece]:
        """
        Open as many new pieces in a row as ``budget`` blocks fill, or at least begin.

        Those that it fills are requested of the peer at once.
        """
        following, extent = share.last_index + 1, 1 if self.is_shared else self._extent
        is_within = following < self._num_pieces and (share.prefers_rows or following % extent)
        row = self._picker.pick_row(
            peer_bits,
            preferred=following if is_within and not self._picker.sequential else None,
            extent=extent,
            limit=-(-budget // self._blocks_per_piece),
        )
        if row:
            share.last_index = row[-1]
            self._picker.mark_open(row[0], len(row))
            self.newly_opened += row
        filled = row[: budget // self._blocks_per_piece]
        pieces = [self._start(index, share) for index in filled]
        return pieces + [self._start(index) for index in row[len(filled) :]]

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
        self._count_free(piece, -taken)
        return taken

    def _count_free(self, piece: OpenPiece, change: int) -> None:
        piece.num_free += change
        if not piece.num_free and self.joinable:
            self.joinable &= ~(1 << (self._picker.top - piece.index))

    def open_piece(self, index: int) -> OpenPiece:
        """Open a piece that is neither open nor had."""
        self._picker.mark_open(index)
        self.newly_opened.append(index)
        return self._start(index)

    def _start(self, index: int, asked: PeerShare | None = None) -> OpenPiece:
        """Open a piece, requested of one peer as a whole unless it has padding."""
        padding = self._pad_blocks.get(index)
        num_blocks, hasher = self._geometry.num_blocks(index), self._start_hash(index)
        piece = OpenPiece(index, num_blocks, hasher, None if padding else asked)
        if padding:
            self._mark_present(piece, padding)
        piece.is_exclusive = index in self._exclusive
        self.open[index] = piece
        return piece

    def restore(self, index: int, blocks: Iterable[int]) -> OpenPiece:
        """Open a piece of which an earlier run has left some blocks on disk."""
        piece = self.open_piece(index)
        self._mark_present(piece, blocks)
        self._offer(piece)
        return piece

    def _mark_present(self, piece: OpenPiece, blocks: Iterable[int]) -> None:
        """Count blocks as received, all but one at most: it takes a block to finish a piece."""
        for number in blocks:
            is_free = 0 <= number < piece.num_blocks and piece.states[number] == FREE
            if is_free and piece.num_free > 1:
                piece.states[number] = RECEIVED
                piece.num_received += 1
                piece.num_free -= 1

    def _plan_endgame(self, share: PeerShare, peer_bits: int, budget: int, runs: list[Run]) -> None:
        """Join any open piece; failing that, ask a second peer for what is long in coming."""
        top = self._picker.top
        for piece in self.open.values():
            if piece.num_free and not piece.is_exclusive and peer_bits >> (top - piece.index) & 1:
                budget -= self._take(piece, share, budget, runs)
                if budget <= 0:
                    return
        if share.searched_round == self._round:
            return
        # Who lets us wait longest is helped first, and with what it was asked for last.
        if self._by_wait is None:
            self._by_wait = sorted(self.open.values(), key=_wait_of)[::-1]
        places = Places()
        for piece in self._by_wait:
            is_open = self.open.get(piece.index) is piece
            if is_open and not piece.is_exclusive and peer_bits >> (top - piece.index) & 1:
                budget -= self._duplicate(piece, share, budget, runs, places)
                if budget <= 0:
                    return
        share.searched_round = self._round

    def _hasten(self, head: OpenPiece, share: PeerShare, budget: int, runs: list[Run]) -> int:
        """Ask for what is long in coming of the first piece of all, before anything else."""
        if head.is_exclusive or self._picker.is_endgame or share.hastened_round == self._round:
            return 0
        asked = 0
        if head.num_free:
            asked = self._take(head, share, budget, runs)
        if asked < budget:
            asked += self._duplicate(head, share, budget - asked, runs, Places())
        if asked < budget:
            share.hastened_round = self._round
        return asked

    def _duplicate(
        self, piece: OpenPiece, share: PeerShare, budget: int, runs: list[Run], places: Places
    ) -> int:
        """Ask ``share`` too for blocks that are long in coming from elsewhere, the last first."""
        asked = 0
        length = self._geometry.length_of(piece.index)
        own_time = BLOCK_LENGTH / share.rate if share.rate else 0.0
        number = piece.states.rfind(REQUESTED)
        while number >= 0 and asked < budget:
            first = piece.askers[number]
            if first is not None and first is not share:
                key = piece.index << 32 | number << BLOCK_SHIFT
                # Late with the last of what it owes, it may still bring this block sooner than
                # ``share`` would, or before a cancel has reached it.
                soon = 2 * share.expected_wait + share.silent_for + own_time
                soon = max(ENDGAME_WAIT, soon + share.delay + first.delay)
                is_late = first.expected_wait > soon and places.wait(first, key) > soon
                if is_late and self._is_left(key, share, soon, places):
                    self._askers.setdefault(key, [first]).append(share)
                    share.expected_wait += own_time
                    begin = number << BLOCK_SHIFT
                    runs.append((piece.index, begin, min(length, begin + BLOCK_LENGTH)))
                    asked += 1
            number = piece.states.rfind(REQUESTED, 0, number)
        return asked

    def _is_left(self, key: int, share: PeerShare, soon: float, places: Places) -> bool:
        """Tell whether of those who were asked for a block after the first none will bring it."""
        others = self._askers.get(key, ())[1:]
        # A third copy only delays other blocks, unless it comes in half the time of the second.
        in_time = [asker.rate for asker in others if places.wait(asker, key) <= 2 * soon]
        return share not in others and len(in_time) < MAX_ENDGAME_ASKERS and not any(in_time)

    # --- receiving -----------------------------------------------------------------------

    def receive(
        self, share: PeerShare, blocks: Sequence[ReceivedBlock], *, hashes: bool = True
    ) -> Received:
        """
        Take a batch of blocks from one peer.

        The payloads are referred to by ``writes`` of the result, which the caller
        must carry out before its receive buffer is used again.

        Args:
            share: of the peer.
            blocks: that it sent.
            hashes: hash each block that is the next of its piece here and now, while it is
                in the processor's cache; otherwise the piece is to be read back.
        """
        result = Received()
        open_pieces, piece_length = self.open, self._geometry.piece_length
        key, askers = share.key, self._askers
        run: list[memoryview] = []
        run_pieces: list[OpenPiece] = []
        piece: OpenPiece | None = None
        run_end = last_index = -1
        for index, begin, data in blocks:
            if index != last_index:
                last_index = index
                piece = open_pieces.get(index)
            number = begin >> BLOCK_SHIFT
            if piece is None or (state := piece.states[number]) == RECEIVED:
                result.num_wasted += len(data)
                continue
            if state == FREE:
                self._count_free(piece, -1)  # Late: given up before it came.
            elif askers or piece.askers[number] is not share:
                self._settle(piece, number, share, result)
            piece.states[number] = RECEIVED
            piece.senders[number] = key
            piece.num_received += 1
            if hashes and number == piece.num_hashed:
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
        return result

    def is_awaited(self, index: int, begin: int) -> bool:
        """Tell whether a block has been asked for, or is to be, and has not come."""
        piece = self.open.get(index)
        return piece is not None and piece.states[begin >> BLOCK_SHIFT] != RECEIVED

    def _settle(self, piece: OpenPiece, number: int, share: PeerShare, result: Received) -> None:
        """Take a block's requests back from all but ``share``, which may have brought it late."""
        begin = number << BLOCK_SHIFT
        for asker in self._askers.pop(piece.index << 32 | begin, (piece.askers[number],)):
            if asker is not None and asker is not share:
                result.cancels.append((asker, piece.index, begin))

    # --- giving back ---------------------------------------------------------------------

    def release(self, share: PeerShare, requests: Iterable[tuple[int, int, int]]) -> None:
        """
        Free blocks whose requests were rejected, dropped, or have gone with the peer.

        The peer is out of their pieces then; they are offered to everybody.
        """
        touched: dict[OpenPiece, None] = {}
        for index, begin, _ in requests:
            piece = self.open.get(index)
            if piece is not None and self._unask(piece, begin, share):
                touched[piece] = None
        for piece in touched:
            self._leave(piece, share)
            self._offer(piece)

    def _unask(self, piece: OpenPiece, begin: int, share: PeerShare) -> bool:
        """Forget that ``share`` was asked for a block; True when that has made it free."""
        number = begin >> BLOCK_SHIFT
        if piece.states[number] != REQUESTED:
            return False
        key = piece.index << 32 | begin
        askers = self._askers.get(key)
        if askers is not None and share in askers:
            askers.remove(share)
            piece.askers[number] = askers[0]
            if len(askers) == 1:
                del self._askers[key]
            return False
        if piece.askers[number] is not share:
            return False
        piece.states[number] = FREE
        piece.num_free += 1
        return True

    def abandon(self, share: PeerShare) -> None:
        """Offer the pieces of a peer that chokes us, fell silent or left to the others."""
        for piece in share.assigned[:]:
            self._leave(piece, share)
            self._offer(piece)

    @staticmethod
    def _leave(piece: OpenPiece, share: PeerShare) -> None:
        if piece.owner is share:
            piece.owner = None
        if piece in share.assigned:
            share.assigned.remove(piece)

    def _offer(self, piece: OpenPiece) -> None:
        """Find somebody for the free blocks of a piece; one that is closed has none."""
        if not piece.num_free:
            return
        owner = piece.owner
        if not piece.is_exclusive or owner is None:
            self.joinable |= 1 << (self._picker.top - piece.index)
        elif piece not in owner.assigned:
            owner.assigned.append(piece)

    def share_slow_pieces(self) -> None:
        """
        Offer pieces whose owners will take long for the rest.

        To be called about once a second, when ``rate`` and ``expected_wait`` of
        all shares have been brought up to date.
        """
        self._round += 1
        self._by_wait = None
        is_sequential = self._picker.sequential
        patience = SEQUENTIAL_PIECE_SECONDS if is_sequential else SLOW_PIECE_SECONDS
        self._late_head = self._find_late_head() if is_sequential else None
        for piece in self.open.values():
            owner = piece.owner
            if piece.is_exclusive:
                # Finding a liar must not depend on the pace of one peer, who may be the liar: be
                # it the owner, or one that owes a block since it was the owner.
                debtors = piece.waited_for() + ([] if owner is None else [owner])
                if all(peer.expected_wait <= KEPT_PIECE_SECONDS for peer in debtors):
                    continue
                piece.is_exclusive = False
            if owner is None:
                continue
            if piece.num_free * BLOCK_LENGTH > owner.rate * (patience - owner.silent_for):
                self._offer(piece)

    def _find_late_head(self) -> OpenPiece | None:
        index = self._picker.first_open()
        head = None if index is None else self.open.get(index)
        if head is None:  # None is open, or it is being mended, for which nobody is asked.
            return None
        is_late = any(peer.expected_wait > SEQUENTIAL_WAIT for peer in head.waited_for())
        return head if is_late else None

    # --- the end of a piece --------------------------------------------------------------

    def close_good(self, pieces: Iterable[OpenPiece]) -> None:
        """Take out pieces that match their hashes: we have them."""
        first, end = 0, 0
        for piece in pieces:
            self._close(piece)
            self._exclusive.discard(piece.index)
            # Pieces come in rows; a row costs the picker what one piece does.
            if piece.index != end:
                self._picker.mark_have(first, end - first)
                first = piece.index
            end = piece.index + 1
        self._picker.mark_have(first, end - first)

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

    def reopen(self, piece: OpenPiece, bad: Iterable[int]) -> None:
        """
        Free the bad blocks of a piece that has all of its blocks, and let anybody fetch them.

        The others are kept; the piece is read back and hashed once it is whole again.
        """
        for number in bad:
            self._unreceive(piece, number)
        self._hash_anew(piece)
        piece.owner = None
        piece.is_exclusive = False
        self._offer(piece)

    def distrust(self, sender: Hashable) -> None:
        """
        Free what a banned peer has sent of pieces in progress, and let others fetch that.

        One bad block among them would make the piece fail, with senders to choose from (H4).
        To be called when the peer has left its pieces. Those with writes under way are left
        alone, so that no older write can come after a newer one.
        """
        for piece in self.open.values():
            if piece.num_unwritten or sender not in piece.senders:
                continue
            if piece.num_received == piece.num_blocks:
                continue  # being hashed
            for number, each in enumerate(piece.senders):
                if each == sender:
                    self._unreceive(piece, number)
            self._hash_anew(piece)
            self._offer(piece)

    @staticmethod
    def _unreceive(piece: OpenPiece, number: int) -> None:
        piece.states[number] = FREE
        piece.senders[number] = None
        piece.num_free += 1
        piece.num_received -= 1

    def _hash_anew(self, piece: OpenPiece) -> None:
        """Forget what a hash has seen: the piece is read back once it is whole."""
        piece.hasher = self._start_hash(piece.index)
        piece.num_hashed = 0

    def _close(self, piece: OpenPiece) -> None:
        self.open.pop(piece.index, None)
        if piece is self._late_head:
            self._late_head = None
        if self.joinable:
            self.joinable &= ~(1 << (self._picker.top - piece.index))
        if self._askers:
            for key in [key for key in self._askers if key >> 32 == piece.index]:
                del self._askers[key]
        if piece.owner is not None and piece in piece.owner.assigned:
            piece.owner.assigned.remove(piece)
