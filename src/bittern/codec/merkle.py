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

Source: BEP 52 (pieces root, piece layers, hash request, hashes).
"""

from __future__ import annotations

import hashlib

from bittern.core.geometry import BLOCK_LENGTH

HASH_LENGTH = 32
_PAIR = 2 * HASH_LENGTH
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
    return -(-length // BLOCK_LENGTH)


def height_of(count: int) -> int:
    """Return the levels between ``count`` >= 1 hashes, filled to a power of two, and the root."""
    return (count - 1).bit_length()


def block_hashes(data: bytes | bytearray | memoryview) -> bytes:
    """Return the leaves for ``data``, which starts at a block's start: O(len(data))."""
    view = memoryview(data)
    sha256 = hashlib.sha256
    return b"".join(
        [sha256(view[at : at + BLOCK_LENGTH]).digest() for at in range(0, len(view), BLOCK_LENGTH)]
    )


def parent_layer(layer: bytes, level: int) -> bytes:
    """
    Return the layer above ``layer``.

    Args:
        layer: one hash or more.
        level: the level of ``layer``, which says what stands in for a missing last hash.
    """
    if len(layer) % _PAIR:
        layer += PAD_HASHES[level]
    sha256 = hashlib.sha256
    return b"".join([sha256(layer[at : at + _PAIR]).digest() for at in range(0, len(layer), _PAIR)])


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
    return (piece_length // BLOCK_LENGTH).bit_length() - 1


def piece_layer_of(leaves: bytes, piece_length: int) -> bytes:
    """Return the ``piece layers`` value of a file longer than ``piece_length``."""
    return layer_above(leaves, 0, piece_level(piece_length))


def is_piece_layer(layer: bytes, *, root: bytes, length: int, piece_length: int) -> bool:
    """
    Tell whether ``layer`` is the piece layer of the file with this root and length.

    Source: BEP 52: a torrent with another one is not valid. One SHA-256 per piece.
    """
    if len(layer) != -(-length // piece_length) * HASH_LENGTH:
        return False
    return root_of(layer, piece_level(piece_length)) == root
