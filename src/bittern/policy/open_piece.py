"""
One piece in progress, and one peer's part in such pieces: what ``policy.pieces`` keeps books of.

States of a block: free, requested, received.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Protocol

FREE, REQUESTED, RECEIVED = 0, 1, 2


class Hasher(Protocol):
    """What ``storage.hashing`` makes for a piece: fed in order, asked once."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take the next bytes of the piece."""


class PeerShare:
    """
    One peer's part in the pieces in progress.

    Args:
        key: the peer's address; outlives the connection in the record of who sent what.
        prefers_rows: see below.
    """

    __slots__ = (
        "assigned",
        "delay",
        "expected_wait",
        "hastened_round",
        "key",
        "last_index",
        "prefers_rows",
        "queue",
        "rate",
        "searched_round",
        "silent_for",
    )

    def __init__(self, key: Hashable, *, prefers_rows: bool = False) -> None:
        self.key: Hashable = key
        self.prefers_rows: bool = prefers_rows
        """It is asked for long runs of bytes, so the next piece follows the last one if it can."""
        self.assigned: list[OpenPiece] = []
        """Pieces this peer is working through, with blocks still free."""
        self.rate: float = 0.0
        """Bytes per second it sends when it owes something; kept up to date by the owner of the
        connection. Neither a short stop nor having been asked for nothing makes it low."""
        self.last_index: int = -1
        """The last piece that was opened for it; the next one should follow."""
        self.expected_wait: float = 0.0
        """Seconds until its outstanding requests will be there at that rate, if it goes on after
        another ``silent_for``."""
        self.queue: Mapping[int, int] = {}
        """Its outstanding requests as ``proto.outgoing`` keeps them: ``index << 32 | begin`` to
        lengths, oldest first; empty where nobody knows their order."""
        self.silent_for: float = 0.0
        """Seconds for which it has sent nothing of what it owed, if its pace does not explain them;
        until it sends something, whatever has been taken back meanwhile."""
        self.delay: float = 0.0
        """Seconds from a request to its block, when nothing else is asked for."""
        self.searched_round: int = -1
        """Round in which no slow block was left that this peer could be asked for too."""
        self.hastened_round: int = -1
        """The same of the first piece in sequential order alone."""


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

    def __init__(
        self, index: int, num_blocks: int, hasher: Hasher, asked: PeerShare | None = None
    ) -> None:
        """Open a piece, all of its blocks free, or all requested of one peer."""
        self.index: int = index
        self.num_blocks: int = num_blocks
        self.states: bytearray = bytearray(
            bytes((FREE if asked is None else REQUESTED,)) * num_blocks
        )
        self.num_free: int = num_blocks if asked is None else 0
        self.num_received: int = 0
        self.num_unwritten: int = 0
        """Write jobs of this piece that have been handed to the storage worker."""
        self.senders: list[Hashable | None] = [None] * num_blocks
        self.askers: list[PeerShare | None] = [asked] * num_blocks
        """Who was asked for each requested block first; the owner may have changed since."""
        self.hasher: Hasher = hasher
        self.num_hashed: int = 0
        """Blocks from the start of the piece that ``hasher`` has seen."""
        self.owner: PeerShare | None = asked
        self.is_exclusive: bool = False
        """Kept for one peer, to find out who sent bad blocks (H4)."""

    @property
    def is_complete(self) -> bool:
        """True when every block is there and handed to the operating system."""
        return self.num_received == self.num_blocks and not self.num_unwritten

    def waited_for(self) -> list[PeerShare]:
        """Return who was asked first for blocks that have not come."""
        return [
            asker
            for state, asker in zip(self.states, self.askers, strict=True)
            if state == REQUESTED and asker is not None
        ]

    def received_blocks(self) -> list[int]:
        """Return the numbers of the blocks that are there."""
        return [number for number, state in enumerate(self.states) if state == RECEIVED]

    def __repr__(self) -> str:
        return f"<OpenPiece {self.index}: {self.num_received}/{self.num_blocks}>"
