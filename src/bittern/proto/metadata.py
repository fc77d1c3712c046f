"""
The info dictionary from peers, and to them, as bookkeeping without I/O.

Fetching trusts nobody: the announced size is one peer's word, so an assembly is
kept per claimed size, grows only with pieces that arrive, and at most two sizes
are tried at a time. When an assembly does not match the info hash its senders
are not blamed yet; the size is fetched again from one peer alone, and a peer
that fails alone is guilty. Sizes take turns, so that many liars who agree
cannot keep out the one honest peer.

Sources: BEP 9; threats.md H7.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from bittern.codec.extension import MAX_METADATA_LENGTH, METADATA_PIECE_LENGTH

MAX_SIZES = 2
"""Limit: H7. Claimed sizes that are being assembled at the same time."""
MAX_OUTSTANDING = 2
"""Limit: H7. Requests under way to one peer."""
REQUEST_TIMEOUT = 8.0
"""Seconds until a request counts as refused."""
STALL_TIMEOUT = 10.0
"""Seconds without a piece after which another size gets its turn."""
MAX_SERVED_QUEUE = 64
"""Limit: H7. Requests of one peer that are answered within a window."""
SERVED_WINDOW = 10.0
"""Seconds of that window."""


@dataclass(slots=True)
class _Assembly:
    """Pieces of one claimed size."""

    length: int
    started_at: float
    progress_at: float
    pieces: dict[int, bytes] = field(default_factory=dict)
    senders: dict[int, Hashable] = field(default_factory=dict)
    asked: dict[int, tuple[Hashable, float]] = field(default_factory=dict)
    only: Hashable | None = None
    """When set, nobody else is asked."""

    @property
    def num_pieces(self) -> int:
        return -(-self.length // METADATA_PIECE_LENGTH)

    def length_of(self, piece: int) -> int:
        return min(METADATA_PIECE_LENGTH, self.length - piece * METADATA_PIECE_LENGTH)


class MetadataFetch:
    """
    Fetches one info dictionary from many peers.

    Args:
        matches: tells whether bytes have the info hash that is looked for.
    """

    def __init__(self, matches: Callable[[bytes], bool]) -> None:
        self._matches = matches
        self._claims: dict[Hashable, int] = {}
        self._assemblies: dict[int, _Assembly] = {}
        self._failed: dict[int, int] = {}
        """How often each size has failed or stalled; those that failed less go first."""
        self._refusals: dict[Hashable, int] = {}
        self._alone: set[int] = set()
        """Sizes that are fetched from one peer at a time after a mismatch."""
        self.metadata: bytes | None = None
        """The info dictionary once it is complete and matches."""

    def claim(self, peer: Hashable, length: int) -> None:
        """Note the size that a peer announced; out of range is ignored."""
        if 0 < length <= MAX_METADATA_LENGTH:
            self._claims[peer] = length

    def forget(self, peer: Hashable) -> None:
        """Drop a peer that has left or was banned."""
        self._claims.pop(peer, None)
        self._refusals.pop(peer, None)
        for assembly in self._assemblies.values():
            for piece in [p for p, (who, _) in assembly.asked.items() if who == peer]:
                del assembly.asked[piece]
            if assembly.only == peer:
                self._restart(assembly)

    @staticmethod
    def _restart(assembly: _Assembly) -> None:
        assembly.only = None
        assembly.pieces.clear()
        assembly.senders.clear()
        assembly.asked.clear()

    def next_requests(self, peer: Hashable, *, now: float) -> list[int]:
        """Return the pieces to ask a peer for now, counted as asked."""
        length = self._claims.get(peer)
        if self.metadata is not None or length is None:
            return []
        assembly = self._assembly_of(length, now)
        if assembly is None:
            return []
        if length in self._alone and assembly.only is None:
            assembly.only = peer
        if assembly.only is not None and assembly.only != peer:
            return []
        num_asked = sum(who == peer for who, _ in assembly.asked.values())
        wanted: list[int] = []
        for piece in range(assembly.num_pieces):
            if num_asked + len(wanted) >= MAX_OUTSTANDING:
                break
            if piece not in assembly.pieces and piece not in assembly.asked:
                assembly.asked[piece] = (peer, now)
                wanted.append(piece)
        return wanted

    def _assembly_of(self, length: int, now: float) -> _Assembly | None:
        assembly = self._assemblies.get(length)
        if assembly is not None:
            return assembly
        if len(self._assemblies) >= MAX_SIZES:
            return None
        least = min(self._failed.get(size, 0) for size in self._claims.values())
        waiting = {
            size
            for size in self._claims.values()
            if size not in self._assemblies and self._failed.get(size, 0) <= least
        }
        if waiting and length not in waiting:
            return None
        assembly = self._assemblies[length] = _Assembly(length, now, now)
        return assembly

    def data_received(
        self, peer: Hashable, piece: int, data: bytes, *, now: float
    ) -> set[Hashable]:
        """
        Take a piece.

        Returns:
            Peers that are now known to have lied: those that sent a whole wrong
            dictionary alone, or a piece of a wrong length.
        """
        length = self._claims.get(peer)
        assembly = None if length is None else self._assemblies.get(length)
        if assembly is None or assembly.asked.get(piece, (None, 0.0))[0] != peer:
            return set()
        del assembly.asked[piece]
        if len(data) != assembly.length_of(piece):
            return {peer}
        assembly.pieces[piece] = data
        assembly.senders[piece] = peer
        assembly.progress_at = now
        if len(assembly.pieces) < assembly.num_pieces:
            return set()
        whole = b"".join(assembly.pieces[number] for number in range(assembly.num_pieces))
        if self._matches(whole):
            self.metadata = whole
            self._assemblies.clear()
            return set()
        return self._mismatched(assembly)

    def _mismatched(self, assembly: _Assembly) -> set[Hashable]:
        senders = set(assembly.senders.values())
        self._drop(assembly)
        self._alone.add(assembly.length)
        return senders if len(senders) == 1 else set()

    def _drop(self, assembly: _Assembly) -> None:
        self._assemblies.pop(assembly.length, None)
        self._failed[assembly.length] = self._failed.get(assembly.length, 0) + 1

    def rejected(self, peer: Hashable, piece: int) -> None:
        """Note that a peer will not send a piece; it may have metadata only in part."""
        length = self._claims.get(peer)
        assembly = None if length is None else self._assemblies.get(length)
        if assembly is not None and assembly.asked.get(piece, (None, 0.0))[0] == peer:
            del assembly.asked[piece]
            self._refuse(peer, assembly)

    def _refuse(self, peer: Hashable, assembly: _Assembly) -> None:
        self._refusals[peer] = self._refusals.get(peer, 0) + 1
        if self._refusals[peer] >= MAX_OUTSTANDING:
            # It said that it had this; let it claim again before it is asked again.
            self._claims.pop(peer, None)
            if assembly.only == peer:
                self._restart(assembly)

    def handle_timer(self, *, now: float) -> None:
        """Give up requests that are overdue and sizes that do not get on; about once a second."""
        for assembly in list(self._assemblies.values()):
            for piece, (peer, asked_at) in list(assembly.asked.items()):
                if now - asked_at > REQUEST_TIMEOUT:
                    del assembly.asked[piece]
                    self._refuse(peer, assembly)
            has_claims = assembly.length in self._claims.values()
            if not has_claims or now - assembly.progress_at > STALL_TIMEOUT:
                self._drop(assembly)

    @property
    def progress(self) -> tuple[int, int]:
        """Pieces there and pieces in all, of the assembly that is furthest; (0, 0) without one."""
        best = max(
            self._assemblies.values(), key=lambda a: len(a.pieces) / a.num_pieces, default=None
        )
        return (0, 0) if best is None else (len(best.pieces), best.num_pieces)


class MetadataServer:
    """
    Serves the info dictionary of one torrent to its peers.

    Args:
        metadata: the raw info dictionary.
    """

    def __init__(self, metadata: bytes) -> None:
        self._metadata = metadata
        self._served: dict[Hashable, tuple[float, int]] = {}

    @property
    def length(self) -> int:
        """Bytes of the info dictionary."""
        return len(self._metadata)

    def piece(self, peer: Hashable, number: int, *, now: float) -> bytes | None:
        """Return a piece; None when it does not exist or the peer asks too often (H7)."""
        started_at, count = self._served.get(peer, (now, 0))
        if now - started_at > SERVED_WINDOW:
            started_at, count = now, 0
        # Whoever fetches a large dictionary at an honest pace must never be refused.
        allowed = max(MAX_SERVED_QUEUE, 2 * -(-self.length // METADATA_PIECE_LENGTH))
        self._served[peer] = (started_at, count + 1)
        start = number * METADATA_PIECE_LENGTH
        if count >= allowed or start >= self.length:
            return None
        return self._metadata[start : start + METADATA_PIECE_LENGTH]

    def forget(self, peer: Hashable) -> None:
        """Drop a peer that has left."""
        self._served.pop(peer, None)
