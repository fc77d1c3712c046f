"""
Hash trees of BEP 52: layers, piece layers, roots, proofs.

The leaves of a file's tree are the SHA-256 of its blocks of 16 KiB, the last
one shorter. Their number is filled up to a power of two with hashes of zero
bytes, and a node above is the SHA-256 of its two children. A *layer* is here
the hashes of one level end to end, 32 bytes each, without those that only
cover what lies beyond the end of the file; what is missing at its end is the
*pad hash* of the level. Level 0 is the leaves.

A proof is the *uncle* hashes that lead from a run of hashes to the root, lowest
first.

Processes that hash import this module and wait for it: it imports next to nothing.

Source: BEP 52 (pieces root, piece layers, hash request, hashes).
"""

from __future__ import annotations

import hashlib
from struct import iter_unpack

LEAF_LENGTH = 16_384
"""Bytes that a leaf stands for (BEP 52), as many as a block of ``core.geometry`` has."""
HASH_LENGTH = 32
MIN_REQUEST_HASHES = 2
MAX_REQUEST_HASHES = 512
"""Hashes that one request of ours asks for; more SHOULD NOT be (BEP 52)."""
MAX_SERVED_HASHES = 8192
"""
Limit: H10. Hashes that one request may ask us for.

Interop: libtorrent asks for all blocks of a piece at once, and takes as many: pieces of 128 MiB.
"""

_PAIR = "64s"
"""Two hashes; ``iter_unpack`` cuts a layer faster than slices do."""
_ZERO = bytes(HASH_LENGTH)


def _pad_hashes() -> tuple[bytes, ...]:
    hashes = [_ZERO]
    for _ in range(40):
        hashes.append(hashlib.sha256(hashes[-1] * 2).digest())
    return tuple(hashes)


PAD_HASHES = _pad_hashes()
"""Per level, the root of a tree of that height whose leaves are all zeros."""


def num_blocks(length: int) -> int:
    """Return the blocks of a file of ``length`` bytes."""
    return -(-length // LEAF_LENGTH)


def height_of(count: int) -> int:
    """Return the levels between ``count`` >= 1 hashes, filled to a power of two, and the root."""
    return (count - 1).bit_length()


def block_hashes(data: bytes | bytearray | memoryview) -> bytes:
    """Return the leaves for ``data``, which starts at a block's start: O(len(data))."""
    view = memoryview(data)
    sha256 = hashlib.sha256
    return b"".join(
        [sha256(view[at : at + LEAF_LENGTH]).digest() for at in range(0, len(view), LEAF_LENGTH)]
    )


def parent_layer(layer: bytes, level: int) -> bytes:
    """
    Return the layer above ``layer``.

    Args:
        layer: one hash or more.
        level: the level of ``layer``, which says what stands in for a missing last hash.
    """
    if len(layer) % (2 * HASH_LENGTH):
        layer += PAD_HASHES[level]
    sha256 = hashlib.sha256
    return b"".join([sha256(pair).digest() for (pair,) in iter_unpack(_PAIR, layer)])


def layer_above(layer: bytes, level: int, target_level: int) -> bytes:
    """Return the layer at ``target_level`` >= ``level`` above ``layer``."""
    for current in range(level, target_level):
        layer = parent_layer(layer, current)
    return layer


def root_of(layer: bytes, level: int = 0) -> bytes:
    """Return the 32-byte root above ``layer``, one hash or more at ``level``."""
    while len(layer) > HASH_LENGTH:
        layer = parent_layer(layer, level)
        level += 1
    return layer


def piece_level(piece_length: int) -> int:
    """Return the level on which one hash covers a piece; 0 for pieces of 16 KiB."""
    return (piece_length // LEAF_LENGTH).bit_length() - 1


def piece_layer_of(leaves: bytes, piece_length: int) -> bytes:
    """Return the ``piece layers`` value of a file longer than ``piece_length``."""
    return layer_above(leaves, 0, piece_level(piece_length))


def has_zero_hash(layer: bytes) -> bool:
    """Tell whether one of the hashes of a layer is all zeros, so that it can be of no data."""
    at = layer.find(_ZERO)
    while at >= 0:
        if not at % HASH_LENGTH:
            return True
        at = layer.find(_ZERO, at + 1)
    return False


def is_piece_layer(layer: bytes, *, root: bytes, length: int, piece_length: int) -> bool:
    """
    Tell whether ``layer`` is the piece layer of the file with this root and length.

    Source: BEP 52: a torrent with another one is not valid. One SHA-256 per piece. Limit: P13:
    the hash of a piece is never all zeros, whatever root it leads to.
    """
    if len(layer) != -(-length // piece_length) * HASH_LENGTH or has_zero_hash(layer):
        return False
    return root_of(layer, piece_level(piece_length)) == root


class HashTree:
    """
    The layers of a file's tree from one level up, or those of one piece of it.

    Takes about twice the bytes of ``layer``. Indices count from the start of ``layer``.

    Args:
        layer: one hash or more, without those that only cover what lies beyond the end.
        level: of ``layer``.
        top_level: of the root; None for as low as it can be. A piece of a file that has
            several needs it: its tree is as high as a piece, also where it is shorter.
    """

    __slots__ = ("_layers", "level", "root")

    def __init__(self, layer: bytes, level: int = 0, *, top_level: int | None = None) -> None:
        if top_level is None:
            top_level = level + height_of(len(layer) // HASH_LENGTH)
        self.level: int = level
        self._layers = [layer]
        for current in range(level, top_level):
            self._layers.append(parent_layer(self._layers[-1], current))
        self.root: bytes = self._layers[-1]

    @property
    def num_hashes(self) -> int:
        """Hashes of its lowest layer."""
        return len(self._layers[0]) // HASH_LENGTH

    @property
    def top_level(self) -> int:
        """The level of the root."""
        return self.level + len(self._layers) - 1

    def nodes(self, level: int, index: int, count: int) -> bytes:
        """Return ``count`` hashes of a level from ``index``, pad hashes where it has ended."""
        layer = self._layers[level - self.level]
        found = layer[index * HASH_LENGTH : (index + count) * HASH_LENGTH]
        return found + PAD_HASHES[level] * (count - len(found) // HASH_LENGTH)

    def uncles(self, level: int, index: int, count: int) -> bytes:
        """Return the siblings of a node and of its ancestors, ``count`` in all, lowest first."""
        return b"".join([self.nodes(level + step, (index >> step) ^ 1, 1) for step in range(count)])

    def proof(self, level: int, index: int, length: int, proof_layers: int) -> bytes:
        """
        Return what a ``hashes`` message carries.

        Args:
            level: the base layer of the request.
            index: of the first hash, a multiple of ``length``.
            length: hashes asked for, a power of two.
            proof_layers: as in the request, so that the lowest ones are left out here.

        Source: BEP 52. The request is one for which ``is_hash_request`` holds.
        """
        height = height_of(length)
        uncles = self.uncles(level + height, index >> height, num_uncles(length, proof_layers))
        return self.nodes(level, index, length) + uncles


def num_uncles(length: int, proof_layers: int) -> int:
    """Return how many uncle hashes follow ``length`` hashes in a message (BEP 52)."""
    return max(proof_layers - height_of(length) + 1, 0)


def full_proof_layers(level: int, num_leaves: int) -> int:
    """Return the proof layers to ask for so that a proof from ``level`` ends at the root."""
    return max(height_of(num_leaves) - level - 1, 0)


def is_hash_request(
    level: int, index: int, length: int, proof_layers: int, *, num_leaves: int
) -> bool:
    """
    Tell whether a hash request fits the tree of a file with so many blocks.

    Source: BEP 52: a power of two of hashes, 2 or more, at a multiple of that. Limit: H10.
    """
    width = 1 << max(height_of(num_leaves) - level, 0)
    return (
        level >= 0
        and MIN_REQUEST_HASHES <= length <= MAX_SERVED_HASHES
        and not length & (length - 1)
        and index >= 0
        and not index % length
        and index + length <= width
        and 0 <= proof_layers <= full_proof_layers(level, num_leaves)
    )


def ancestor_of(hashes: bytes, uncles: bytes, *, level: int, index: int) -> bytes:
    """
    Compute where a proof leads.

    Args:
        hashes: a power of two of hashes.
        uncles: the uncle hashes, lowest first.
        level: of ``hashes``.
        index: of the first of them, a multiple of their number.

    Returns:
        The node above the last uncle, to be compared with a known one; without uncles the
        node above ``hashes``.
    """
    node = root_of(hashes, level)
    place = index >> height_of(len(hashes) // HASH_LENGTH)
    for at in range(0, len(uncles), HASH_LENGTH):
        uncle = uncles[at : at + HASH_LENGTH]
        pair = uncle + node if place & 1 else node + uncle
        node = hashlib.sha256(pair).digest()
        place >>= 1
    return node


def is_proof(
    hashes: bytes,
    uncles: bytes,
    *,
    level: int,
    index: int,
    num_leaves: int,
    root: bytes,
    top_level: int | None = None,
) -> bool:
    """
    Tell whether hashes from a peer belong to the file with this root.

    Args:
        hashes: a power of two of hashes.
        uncles: all that lead to the root, lowest first.
        level: of ``hashes``.
        index: of the first of them.
        num_leaves: blocks of the file.
        root: the file's ``pieces root``, or a node of its tree that is known to be right.
        top_level: the level of that node; None for the file's root.

    Source: BEP 52. Limit: P13: a hash that covers data is never all zeros, one that covers
    none is the pad hash.
    """
    count = len(hashes) // HASH_LENGTH
    height = height_of(num_leaves) if top_level is None else top_level
    if len(uncles) != (height - level - height_of(count)) * HASH_LENGTH:
        return False
    num_real = min(max(-(-num_leaves >> level) - index, 0), count)
    real = hashes[: num_real * HASH_LENGTH]
    if hashes[len(real) :] != PAD_HASHES[level] * (count - num_real):
        return False
    if has_zero_hash(real):
        return False
    return ancestor_of(hashes, uncles, level=level, index=index) == root
