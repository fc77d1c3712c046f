"""
How many peers have each piece, for all pieces at once.

Counts are *bit-sliced*: plane k is a set of pieces (an ``int`` in the order of
``core.bitfield``) that holds bit k of every piece's count. A peer that joins is
one ripple-carry add over all pieces together, one that leaves is a borrow, and
the rarest of a set fall out of one walk over the planes. Ten planes count 1,023
peers. Seeds are one counter beside the planes.

Invariants: the last plane is never 0; every count is exact and never negative.
"""

from __future__ import annotations

from bittern.core.errors import MisuseError


class Availability:
    """
    How many peers have each piece, bit-sliced.

    The count of a piece is what the planes say plus ``num_seeds``. Only that sum
    is a promise: a seed may stand in the planes and a leecher that completed may
    leave as a seed, and the sum stays exact.

    Args:
        num_pieces: >= 0.
    """

    __slots__ = ("full", "num_pieces", "num_seeds", "planes", "top")

    def __init__(self, num_pieces: int) -> None:
        self.num_pieces: int = num_pieces
        self.top: int = ((num_pieces + 7) & ~7) - 1
        self.full: int = ((1 << num_pieces) - 1) << (-num_pieces % 8)
        """The set of all pieces."""
        self.num_seeds: int = 0
        self.planes: list[int] = []
        """Plane k holds bit k of every count; the last one is never 0."""

    def add(self, bits: int) -> None:
        """Count one more peer for every piece in ``bits``. O(planes), about 2 for one piece."""
        if bits == self.full:
            self.num_seeds += 1
            return
        planes = self.planes
        for k, plane in enumerate(planes):
            if not bits:
                return
            planes[k] = plane ^ bits
            bits &= plane
        if bits:
            planes.append(bits)

    def remove(self, bits: int) -> None:
        """
        Count one peer less for every piece in ``bits``.

        Raises:
            MisuseError: a piece in ``bits`` was counted for no peer; nothing has changed.
        """
        if bits == self.full and self.num_seeds:
            self.num_seeds -= 1
            return
        if self._borrow(bits):
            return
        if not self.num_seeds:
            raise MisuseError("a piece is taken from availability that nobody had")
        # A seed lost a piece (BEP 54): from now on it is counted in the planes.
        self.num_seeds -= 1
        carry = self.full
        for k, plane in enumerate(self.planes):
            self.planes[k] = plane ^ carry
            carry &= plane
        if carry:
            self.planes.append(carry)
        self._borrow(bits)

    def _borrow(self, bits: int) -> bool:
        planes = self.planes
        changed = []
        for plane in planes:
            if not bits:
                break
            plane ^= bits
            changed.append(plane)
            bits &= plane  # where the plane was 0 it is 1 now: borrow from the next
        if bits:
            return False
        planes[: len(changed)] = changed
        while planes and not planes[-1]:
            planes.pop()
        return True

    def count(self, index: int) -> int:
        """Return how many peers have piece ``index``; not range-checked."""
        shift = self.top - index
        found = self.num_seeds
        for k, plane in enumerate(self.planes):
            found += (plane >> shift & 1) << k
        return found

    def rarest(self, bits: int) -> int:
        """Return the pieces of ``bits`` that the fewest peers have. O(planes)."""
        for plane in reversed(self.planes):
            common = bits & plane
            if common != bits:
                bits ^= common
        return bits

    def distributed_copies(self, ours: int = 0) -> float:
        """
        Return how many whole copies the swarm holds, ``ours`` included.

        The whole part is the count of the rarest piece, the fraction the share
        of pieces that are less rare. 0.0 for a torrent without pieces.
        """
        if not self.num_pieces:
            return 0.0
        planes = []
        for plane in self.planes:
            planes.append(plane ^ ours)
            ours &= plane
        planes.append(ours)
        rare, copies = self.full, 0
        for plane in reversed(planes):
            common = rare & plane
            copies *= 2
            if common == rare:
                copies += 1
            else:
                rare ^= common
        return self.num_seeds + copies + 1 - rare.bit_count() / self.num_pieces
