"""
What becomes of a v2 piece that does not match: its bad blocks are named, the others are kept.

In the ordinary case no hash of a block is ever asked for: pieces are judged by
their own. When one is bad, the hashes of its blocks are fetched, from peers that
had no part in it where there are any; they are proven, so they tell exactly
which blocks are bad, and whoever sent those is guilty and nobody else. Only the
bad blocks are fetched again, and now each is checked as it arrives.

Where nobody gives the hashes in time, the piece goes the way of v1 pieces
(``policy.suspects``).

Sources: BEP 52 (hash request); threats.md H4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Protocol

from bittern.codec.merkle import HASH_LENGTH
from bittern.policy.open_piece import OpenPiece, PeerShare
from bittern.policy.pieces import BLOCK_SHIFT, Pieces
from bittern.proto.peer_events import ReceivedBlock
from bittern.storage.hashing import PieceHashes, differing_blocks, leaves_of

MAX_CASES = 64
"""Limit: H4. Pieces that wait for the hashes of their blocks; more go the way of v1 pieces."""

BlocksDone = Callable[[bytes | None], None]
"""Takes the hashes of a piece's blocks, end to end; None when nobody gave them in time."""


class FetchBlockHashes(Protocol):
    """``HashSeeker.fetch_block_hashes``."""

    def __call__(self, index: int, done: BlocksDone, *, avoid: Collection[Hashable] = ()) -> bool:
        """Fetch the hashes of the blocks of a piece; False when there is nobody to ask."""


class BlockJudge:
    """
    The one described in the module's text.

    Args:
        hashes: of the torrent.
        pieces: those in progress.
        fetch: asks peers for the hashes of a piece's blocks.
        piece_failed: hears of a bad piece.
        guilty: hears who surely sent bad blocks.
        undecided: takes a piece back that remains bad and unexplained.
    """

    def __init__(
        self,
        hashes: PieceHashes,
        pieces: Pieces,
        fetch: FetchBlockHashes,
        *,
        piece_failed: Callable[[int], None],
        guilty: Callable[[set[Hashable]], None],
        undecided: Callable[[OpenPiece], None],
    ) -> None:
        self._hashes = hashes
        self._pieces = pieces
        self._fetch = fetch
        self._piece_failed = piece_failed
        self._guilty = guilty
        self._undecided = undecided
        self.known: dict[int, bytes] = {}
        """The hashes of the blocks of pieces in progress, where they are known, end to end."""
        self.waiting: dict[int, OpenPiece] = {}
        """Bad pieces whose block hashes are being fetched."""

    def take(self, piece: OpenPiece) -> bool:
        """
        Find out which blocks of a bad piece are bad.

        Returns:
            False when that cannot be done; the piece is the caller's then.
        """
        index = piece.index
        leaves = leaves_of(piece.hasher)
        if leaves is None or not self._hashes.is_known(index) or len(self.waiting) >= MAX_CASES:
            return False
        if index in self.known:
            # Every block was right when it arrived, so our own disk is to blame.
            self._decide(piece, leaves, self.known[index], is_blamed=False)
            return True
        senders = {sender for sender in piece.senders if sender is not None}

        def done(expected: bytes | None) -> None:
            del self.waiting[index]
            if self._pieces.open.get(index) is piece:
                self._decide(piece, leaves, expected)

        if not self._fetch(index, done, avoid=senders):
            return False
        self.waiting[index] = piece
        if len(senders) == 1 and None not in piece.senders:
            # Whatever the hashes will say, it was the only one who sent anything.
            self._guilty(senders)
        return True

    def _decide(
        self, piece: OpenPiece, leaves: bytes, expected: bytes | None, *, is_blamed: bool = True
    ) -> None:
        bad = [] if expected is None else differing_blocks(leaves, expected)
        if expected is None or not bad:
            self.known.pop(piece.index, None)
            self._undecided(piece)
            return
        guilty = {piece.senders[number] for number in bad}
        self.known[piece.index] = expected
        self._pieces.reopen(piece, bad)
        self._piece_failed(piece.index)
        if is_blamed:
            self._guilty({sender for sender in guilty if sender is not None})

    def sift(
        self, share: PeerShare, blocks: Sequence[ReceivedBlock]
    ) -> tuple[Sequence[ReceivedBlock], int]:
        """
        Leave out blocks that are certainly bad; their sender is guilty at once.

        Returns:
            The others, and the bytes left out.
        """
        good: list[ReceivedBlock] = []
        bad: list[ReceivedBlock] = []
        for block in blocks:
            index, begin, data = block
            expected = self.known.get(index)
            is_right = expected is None or self._is_right(index, begin, data, expected)
            (good if is_right else bad).append(block)
        if not bad:
            return blocks, 0
        self._pieces.release(share, [(index, begin, len(data)) for index, begin, data in bad])
        self._guilty({share.key})
        return good, sum(len(data) for _, _, data in bad)

    def _is_right(self, index: int, begin: int, data: memoryview, expected: bytes) -> bool:
        at = (begin >> BLOCK_SHIFT) * HASH_LENGTH
        # What lies behind the end of a file is padding, of which v2 knows nothing.
        length = self._hashes.plan_run(index, 1).v2_length - begin
        return length <= 0 or (
            hashlib.sha256(data[:length]).digest() == expected[at : at + HASH_LENGTH]
        )

    def piece_passed(self, index: int) -> None:
        """Forget the hashes of a piece that is good now."""
        self.known.pop(index, None)
