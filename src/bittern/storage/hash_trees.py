"""
Answers to requests for hashes: which of them we can give, and what they need.

Piece layers are in memory, so a request for hashes of pieces or above is
answered at once. Hashes below that are not kept by anybody: they are computed
from the pieces, for which the caller has to read them. The trees of the files
asked for last are kept, as they take as long to make as a hash per piece.

Source: BEP 52 (hash request, hashes). Limit: H10: a request makes us read one
piece, or 16 MiB of several, at the most, whoever asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bittern.codec.merkle import (
    HASH_LENGTH,
    MIN_REQUEST_HASHES,
    PAD_HASHES,
    HashTree,
    height_of,
    is_hash_request,
    num_blocks,
    num_uncles,
)
from bittern.codec.wire import HashRange
from bittern.storage.base import Storage
from bittern.storage.hashing import BlockHasher, PieceHashes

MAX_READ_LENGTH: Final = 16 << 20
"""
Limit: H10. Bytes that are read and hashed for one request, if it is for blocks of several pieces.

Those of one piece can only be proven by all of it, and BEP 52 forbids to refuse them.
"""
READ_LENGTH: Final = 1 << 20
"""Bytes that are read and hashed at a time."""
MAX_TREES: Final = 8
"""Files whose trees are kept, if they are small."""
LARGE_LAYER: Final = 1 << 20
"""Bytes of a piece layer whose tree takes long to make, about 25 ms, and room to keep."""


class HashTrees:
    """
    The trees of one torrent's files.

    Args:
        hashes: of the torrent.
    """

    def __init__(self, hashes: PieceHashes) -> None:
        self._hashes = hashes
        self._trees: dict[bytes, HashTree] = {}

    def needed(self, wanted: HashRange) -> range | None:
        """
        Tell what an answer takes.

        Args:
            wanted: as it came from a peer.

        Returns:
            The indices of the pieces of which ``answer`` must be given the trees, none for a
            request that the piece layer answers; None when there is no answer.
        """
        entry = self._hashes.file_of(wanted.pieces_root)
        if entry is None:
            return None
        leaves = num_blocks(entry.length)
        index, length = wanted.index, wanted.length
        if length == 1:
            # Interop: libtorrent asks for a single hash where a layer of 512n + 1 ends.
            index, length = index & ~1, MIN_REQUEST_HASHES
        if not is_hash_request(
            wanted.base_layer, index, length, wanted.proof_layers, num_leaves=leaves
        ):
            return None
        piece_length = self._hashes.piece_length
        is_small = entry.length <= piece_length
        if not is_small and wanted.pieces_root not in self._hashes.piece_layers:
            return None
        level = height_of(leaves) if is_small else self._hashes.level
        if wanted.base_layer >= level:
            return range(0)
        first = (wanted.index << wanted.base_layer) >> level
        last = ((wanted.index + wanted.length << wanted.base_layer) - 1) >> level
        num_pieces = -(-entry.length // piece_length)
        if first >= num_pieces:
            return None
        last = min(last, num_pieces - 1)
        if last > first and (last - first + 1) * piece_length > MAX_READ_LENGTH:
            return None
        offset = entry.offset // piece_length
        return range(offset + first, offset + last + 1)

    def is_slow(self, wanted: HashRange) -> bool:
        """Tell whether the answer to a request takes long to make, so that a worker should."""
        root = wanted.pieces_root
        return (
            root not in self._trees and len(self._hashes.piece_layers.get(root, b"")) > LARGE_LAYER
        )

    def answer(self, wanted: HashRange, pieces: Mapping[int, HashTree]) -> bytes:
        """
        Return what a ``hashes`` message carries.

        Args:
            wanted: a request for which ``needed`` gave pieces, or none.
            pieces: the trees of those pieces, by index, from ``read_piece_tree``.
        """
        entry = self._hashes.file_of(wanted.pieces_root)
        assert entry is not None
        if not pieces:
            return self._tree(wanted.pieces_root).proof(
                wanted.base_layer, wanted.index, wanted.length, wanted.proof_layers
            )
        base, length = wanted.base_layer, wanted.length
        trees = [pieces[index] for index in sorted(pieces)]
        level = trees[0].top_level
        width = 1 << (level - base)
        height = height_of(length)
        count = num_uncles(length, wanted.proof_layers)
        if length > width:
            found = b"".join([tree.nodes(base, 0, width) for tree in trees])
            found += PAD_HASHES[base] * (length - len(found) // HASH_LENGTH)
            below = b""
        else:
            found = trees[0].nodes(base, wanted.index % width, length)
            below = trees[0].uncles(
                base + height,
                wanted.index % width >> height,
                min(count, level - base - height),
            )
        num_above = count - len(below) // HASH_LENGTH
        if not num_above:
            return found + below
        bottom = max(level, base + height)
        place = wanted.index >> (bottom - base)
        return found + below + self._tree(wanted.pieces_root).uncles(bottom, place, num_above)

    def _tree(self, root: bytes) -> HashTree:
        """Return the tree over a file's piece layer."""
        tree = self._trees.pop(root, None)
        layer = self._hashes.piece_layers[root]
        if tree is None:
            if len(layer) > LARGE_LAYER:
                self._trees.clear()
            elif len(self._trees) >= MAX_TREES:
                del self._trees[next(iter(self._trees))]
            tree = HashTree(layer, self._hashes.level)
        self._trees[root] = tree
        return tree


def read_piece_tree(storage: Storage, hashes: PieceHashes, index: int) -> HashTree | None:
    """
    Make the tree over the blocks of a v2 piece as it stands in storage; for the worker.

    Returns:
        The tree, whose root is the hash of the piece; None when the piece is not good.

    Raises:
        StorageError: it cannot be read.
    """
    leaves = _read_blocks(storage, hashes, index).leaves()
    tree = HashTree(leaves, top_level=hashes.plan_run(index, 1).v2_level)
    return tree if tree.root == hashes.piece_hash(index) else None


def read_piece_hash(storage: Storage, hashes: PieceHashes, index: int) -> bytes:
    """Return the v2 hash of a piece as it stands in storage, for the worker; StorageError."""
    return hashes.top_of(index, _read_blocks(storage, hashes, index))


def _read_blocks(storage: Storage, hashes: PieceHashes, index: int) -> BlockHasher:
    length = hashes.plan_run(index, 1).v2_length
    blocks = BlockHasher(length)
    offset = index * hashes.piece_length
    buffer = memoryview(bytearray(min(length, READ_LENGTH)))
    while length > 0:
        part = buffer[: min(length, len(buffer))]
        storage.read_into(offset, [part])
        blocks.update(part)
        offset += len(part)
        length -= len(part)
    return blocks
