"""
How large the network is, and whose word on it cannot be true.

A node knows its own surroundings better than anything else, so asked for an id beside
its own it names its eight nearest neighbours. How far the eighth lies tells how many
nodes the network has (eight in so much of the id space), and everybody should come to
the same figure within a factor of two or so. Who names only accomplices names a thin
choice; who makes nodes up names them too near. Both stand out from what most say, as
long as most are honest.

Limit: N2. In a small network (``MIN_JUDGED_NODES``) everybody knows everybody, eight
names say nothing, and nobody is judged.
"""

from __future__ import annotations

from collections import deque

from bittern.codec.krpc_message import NODE_ID_LENGTH
from bittern.dht.limits import BUCKET_SIZE

_SPACE = 1 << 160
_NUM_SIZES = 32
"""Claims that the estimate rests on."""
_MIN_SIZES = 8
_RANK = 0.75
"""
Share of the claims below the estimate. Accomplices, who know few nodes, are more than
those who make nodes up, so it stays true with 75 % of the former or 25 % of the latter.
"""
_MAX_SIZE = 1 << 30
"""Claims above that are no network; they do not count."""
_MIN_JUDGED_NODES = 50
_MAX_THIN = 3
"""
Times fewer nodes than estimated that a claim may stand for. A node that knows all its
neighbours is there by chance once in a million, one that knows half of them once in ten.
"""
_MAX_DENSE = 20
"""Times more nodes than estimated; chance does not reach that."""


def claimed_size(target: bytes, nodes: bytes, info_length: int) -> int:
    """
    Return how many nodes the network has if those named are the nearest to a target.

    Args:
        target: 20 bytes.
        nodes: compact node infos, at most eight are read.
        info_length: bytes of one.

    Returns:
        0 when none is named.
    """
    number = int.from_bytes(target, "big")
    end = min(len(nodes), BUCKET_SIZE * info_length)
    ids = {nodes[at : at + NODE_ID_LENGTH] for at in range(0, end, info_length)}
    if not ids:
        return 0
    farthest = max(int.from_bytes(node_id, "big") ^ number for node_id in ids)
    return len(ids) * _SPACE // (farthest + 1)


class Trust:
    """What nodes and lookups say about the size of the network."""

    def __init__(self) -> None:
        self._sizes: deque[int] = deque(maxlen=_NUM_SIZES)
        self._tested_by = 0

    def __repr__(self) -> str:
        return f"<Trust, {len(self._sizes)} claims>"

    def note_size(self, size: int) -> None:
        """Take what an answer with eight names, or the eight nearest of a lookup, stand for."""
        if size <= _MAX_SIZE:
            self._sizes.append(size)

    @property
    def is_settled(self) -> bool:
        """Tell whether enough has been heard to judge by."""
        return len(self._sizes) >= _MIN_SIZES

    def take_growth(self) -> bool:
        """
        Tell whether the estimate has grown by half since this was last true.

        Then some who passed before have to be tested again.
        """
        size = self.estimate_nodes(0) if self.is_settled else 0
        if 2 * size < max(1, 3 * self._tested_by):
            return False
        self._tested_by = size
        return True

    def estimate_nodes(self, ours: int) -> int:
        """
        Return how many nodes the network probably has.

        Args:
            ours: what our own table says, for as long as few others have said anything.
        """
        if not self._sizes:
            return ours
        size = sorted(self._sizes)[int(_RANK * len(self._sizes))]
        return size if self.is_settled else max(ours, size)

    def is_credible(self, size: int) -> bool:
        """Tell whether a node may be honest whose neighbours stand for a network of ``size``."""
        if not self.is_settled:
            return True
        estimate = self.estimate_nodes(0)
        if estimate < _MIN_JUDGED_NODES:
            return True
        return estimate <= _MAX_THIN * size and size <= _MAX_DENSE * estimate
