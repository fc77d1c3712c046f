"""
What one peer has: bitfield, haves and losses, before and after the metadata is known.

Until the metadata is there, no bitfield can be checked and no index is known to
be too high. What came until then is kept as bits, so that a peer that names
every possible piece costs us 256 KiB and one that names few next to nothing.

Invariant: events, applied in order to an empty set, give ``bitfield``; each adds
what it names, none of which was there before.

Limit: H6. Sources: BEP 3 (bitfield, have), BEP 6 (have all, have none), BEP 9
(metadata from peers), BEP 54 (don't have).
"""

from __future__ import annotations

from collections.abc import Sequence

from bittern.core.bitfield import FEW_INDICES, Bitfield
from bittern.core.errors import PeerViolation, WireDecodeError
from bittern.proto.incoming import WindowCounter
from bittern.proto.peer_events import BitfieldReceived, HavesReceived

MAX_PIECES = 2_097_152
"""Limit: H1, H6. Pieces that a torrent can have at all."""
MAX_REPEATS = 10_000
"""Limit: H6. Messages of a minute that repeat what is known, or take it back."""
MAX_HAVES_OF_BITFIELD = 1_000
"""New pieces in a later bitfield that are told as haves; more are shorter as a bitfield."""


class EarlyPieces:
    """
    The pieces of one peer before the metadata.

    Invariant: ``_bits`` has a bit for every piece that differs from ``_has_all``.
    """

    __slots__ = ("_bitfield_length", "_bits", "_has_all", "has_spoken")

    def __init__(self) -> None:
        self._bits = bytearray()
        self._bitfield_length: int | None = None
        self._has_all = False
        self.has_spoken: bool = False
        """True once the peer has said anything about its pieces."""

    def add_bitfield(self, payload: bytes | memoryview) -> None:
        """Take a bitfield, also a later one; PeerViolation when two differ in length."""
        length = len(payload)
        if self._bitfield_length not in (None, length):
            raise PeerViolation("sends bitfields of different lengths")
        self._bitfield_length = length
        self.has_spoken = True
        bits = int.from_bytes(self._bits[:length].ljust(length, b"\0"), "big")
        named = int.from_bytes(payload, "big")
        bits = bits & ~named if self._has_all else bits | named
        self._bits[:length] = bits.to_bytes(length, "big")

    def set_all(self) -> None:
        """Take a have all, whatever was said before."""
        self._bits.clear()
        self._has_all = True
        self.has_spoken = True

    def add(self, index: int) -> None:
        """Note a piece that the peer has; PeerViolation if no torrent has so many."""
        if index >= MAX_PIECES:
            raise PeerViolation(f"has piece {index}")
        self.has_spoken = True
        self._mark(index, is_different=not self._has_all)

    def discard(self, index: int) -> None:
        """Note a piece that the peer has lost."""
        if index < MAX_PIECES:
            self._mark(index, is_different=self._has_all)

    def _mark(self, index: int, *, is_different: bool) -> None:
        at, mask = index >> 3, 0x80 >> (index & 7)
        if is_different:
            if at >= len(self._bits):
                self._bits += bytes(at + 1 - len(self._bits))
            self._bits[at] |= mask
        elif at < len(self._bits):
            self._bits[at] &= ~mask

    def resolve(self, num_pieces: int) -> Bitfield:
        """
        Return the set, now that the number of pieces is known.

        Raises:
            WireDecodeError: the bitfield had another length, or a piece does not exist.
        """
        length = (num_pieces + 7) // 8
        if self._bitfield_length not in (None, length):
            raise WireDecodeError(
                f"bitfield of {self._bitfield_length} bytes for {num_pieces} pieces", limit=length
            )
        bits = bytes(self._bits).rstrip(b"\0").ljust(length, b"\0")
        if len(bits) > length:
            raise WireDecodeError(f"piece {8 * len(bits) - 8} or more of {num_pieces}")
        made = Bitfield.from_wire(bits, num_pieces)
        if self._has_all:
            made.bits ^= Bitfield.full(num_pieces).bits
        return made


class RemotePieces:
    """
    The pieces of one peer.

    ``bitfield`` is what it has; None while the metadata is unknown.

    Args:
        num_pieces: of the torrent; None while the metadata is unknown.
    """

    __slots__ = ("_early", "_is_start", "_repeats", "bitfield")

    def __init__(self, num_pieces: int | None) -> None:
        self.bitfield = None if num_pieces is None else Bitfield(num_pieces)
        self._early = EarlyPieces()
        self._is_start = True
        self._repeats = WindowCounter()

    def end_start(self) -> None:
        """Note a message after which no first bitfield can come any more."""
        self._is_start = False

    def receive_haves(self, indices: Sequence[int], *, now: float) -> Sequence[HavesReceived]:
        """
        Take haves that came one after the other.

        Raises:
            PeerViolation: one of the pieces does not exist, or the peer repeats itself without
                end; then none is taken.
        """
        self._is_start = False
        if self.bitfield is None:
            for index in indices:
                self._early.add(index)
            return ()
        num_pieces = self.bitfield.num_pieces
        if (highest := max(indices)) >= num_pieces:
            raise PeerViolation(f"has piece {highest} of {num_pieces}")
        new = self._new_of(indices, self.bitfield)
        for _ in range(len(indices) - len(new)):
            self._count_repeat(now)
        self.bitfield.bits |= Bitfield.of(num_pieces, new).bits
        return (HavesReceived(num_pieces, new),) if new else ()

    @staticmethod
    def _new_of(indices: Sequence[int], known: Bitfield) -> tuple[int, ...]:
        """Return those that are not known, each once."""
        if len(indices) <= FEW_INDICES:
            return tuple([index for index in dict.fromkeys(indices) if index not in known])
        wire = known.to_wire()
        return tuple([i for i in dict.fromkeys(indices) if not wire[i >> 3] & 0x80 >> (i & 7)])

    def receive_lost(self, index: int, *, now: float) -> bool:
        """Take a don't-have; True when the peer had the piece (BEP 54)."""
        self._count_repeat(now)
        if self.bitfield is None:
            self._early.discard(index)
            return False
        if index not in self.bitfield:
            return False
        self.bitfield.discard(index)
        return True

    def receive_all(self, *, now: float) -> Sequence[BitfieldReceived | HavesReceived]:
        """
        Take a have all, the first message or a later one.

        Interop: aria2 sends one instead of many have messages when it has become complete.

        Deviates from BEP 6, which knows it only right after the handshake.

        Raises:
            PeerViolation: the peer repeats itself without end.
        """
        is_first, self._is_start = self._is_start, False
        if not is_first:
            self._count_repeat(now)
        if self.bitfield is None:
            self._early.set_all()
            return ()
        return self._add(Bitfield.full(self.bitfield.num_pieces), self.bitfield, is_first=is_first)

    def receive_none(self) -> Sequence[BitfieldReceived]:
        """Take a have none; PeerViolation unless it comes first (BEP 6)."""
        if not self._is_start:
            raise PeerViolation("have none is not the first message")
        self._is_start = False
        if self.bitfield is None:
            self._early.has_spoken = True
            return ()
        return (BitfieldReceived(self.bitfield.copy()),)

    def receive_bitfield(
        self, payload: bytes | memoryview, *, now: float
    ) -> Sequence[BitfieldReceived | HavesReceived]:
        """
        Take a bitfield, the first one or a later one.

        Interop: aria2 sends a bitfield anew instead of many have messages.

        Raises:
            WireDecodeError: its length or its spare bits are wrong.
            PeerViolation: the peer repeats itself without end.
        """
        is_first, self._is_start = self._is_start, False
        if not is_first:
            self._count_repeat(now)
        if self.bitfield is None:
            self._early.add_bitfield(payload)
            return ()
        named = Bitfield.from_wire(payload, self.bitfield.num_pieces)
        return self._add(named, self.bitfield, is_first=is_first)

    @staticmethod
    def _add(
        named: Bitfield, known: Bitfield, *, is_first: bool
    ) -> Sequence[BitfieldReceived | HavesReceived]:
        """Add what a bitfield names to what is known; return what that tells."""
        new = known.missing_from(named)
        known.bits |= new.bits
        if is_first or len(new) > MAX_HAVES_OF_BITFIELD:
            return (BitfieldReceived(new),)
        return (HavesReceived(known.num_pieces, tuple(new)),) if new else ()

    def learn_num_pieces(self, num_pieces: int) -> Sequence[BitfieldReceived]:
        """
        Make sense of what came before the metadata.

        Raises:
            WireDecodeError: it does not fit the number of pieces.
        """
        early, self._early = self._early, EarlyPieces()
        self.bitfield = early.resolve(num_pieces)
        return (BitfieldReceived(self.bitfield.copy()),) if early.has_spoken else ()

    def _count_repeat(self, now: float) -> None:
        if self._repeats.add(now=now) > MAX_REPEATS:
            raise PeerViolation("repeats what it has")
