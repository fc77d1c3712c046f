"""
What each piece must hash to, and hashing it while it passes.

v1 pieces are one SHA-1, and the object that is fed is hashlib's own: nothing
of ours runs per block. v2 pieces are the top of a small tree over the SHA-256
of their blocks; its leaves are kept, so that a bad block can be named when the
leaves of the file are known. Hybrid pieces are both at once.

Hashes stay the byte strings of the metainfo; nothing is made per piece until
it is asked for.

Sources: BEP 3 (pieces), BEP 52 (pieces root, piece layers, upgrade path).
Limit: P13.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from bittern.codec.merkle import (
    HASH_LENGTH,
    block_hashes,
    is_piece_layer,
    layer_above,
    piece_level,
    root_of,
)
from bittern.codec.metainfo import FileEntry, Info
from bittern.core.errors import Inconsistent, MisuseError
from bittern.core.geometry import BLOCK_LENGTH
from bittern.storage.base import Buffer

SHA1_LENGTH: Final = 20
"""Bytes of a v1 hash."""


class Hasher(Protocol):
    """A piece being hashed: fed with all of its bytes, in order, then given to ``is_good``."""

    def update(self, data: Buffer, /) -> None:
        """Take the next bytes of the piece."""


class BlockHasher:
    """
    The leaves of one v2 piece.

    Args:
        length: bytes of the piece that belong to the file; what comes after is the pad of
            a hybrid, which v2 does not know, and is not looked at.
    """

    __slots__ = ("_leaves", "_partial", "_partial_length", "_remaining")

    def __init__(self, length: int) -> None:
        self._remaining = length
        self._leaves: list[bytes] = []
        self._partial: hashlib._Hash | None = None
        self._partial_length = 0

    def update(self, data: Buffer, /) -> None:
        """Take the next bytes; whole aligned blocks take the short way."""
        length = len(data)
        if length == BLOCK_LENGTH <= self._remaining and not self._partial_length:
            self._leaves.append(hashlib.sha256(data).digest())
            self._remaining -= BLOCK_LENGTH
            return
        view = memoryview(data)[: self._remaining]
        self._remaining -= len(view)
        at = 0
        if self._partial_length:
            at = min(BLOCK_LENGTH - self._partial_length, len(view))
            self._fill(view[:at])
        whole_end = at + (len(view) - at) // BLOCK_LENGTH * BLOCK_LENGTH
        sha256 = hashlib.sha256
        self._leaves += [
            sha256(view[begin : begin + BLOCK_LENGTH]).digest()
            for begin in range(at, whole_end, BLOCK_LENGTH)
        ]
        if whole_end < len(view):
            self._fill(view[whole_end:])

    def _fill(self, data: memoryview) -> None:
        if self._partial is None:
            self._partial = hashlib.sha256()
        self._partial.update(data)
        self._partial_length += len(data)
        if self._partial_length == BLOCK_LENGTH:
            self._leaves.append(self._partial.digest())
            self._partial = None
            self._partial_length = 0

    def leaves(self) -> bytes:
        """Return the SHA-256 of each block so far end to end, of an incomplete last one too."""
        hashes = b"".join(self._leaves)
        return hashes if self._partial is None else hashes + self._partial.digest()


class HybridHasher:
    """Both hashes of a piece of a hybrid torrent."""

    __slots__ = ("blocks", "sha1")

    def __init__(self, length: int) -> None:
        self.sha1 = hashlib.sha1()
        self.blocks: BlockHasher = BlockHasher(length)

    def update(self, data: Buffer, /) -> None:
        """Take the next bytes, of pads too: v1 counts them."""
        self.sha1.update(data)
        self.blocks.update(data)


class RunPlan(NamedTuple):
    """How to hash pieces without ``PieceHashes.start``."""

    num_pieces: int
    """Adjacent pieces, in v2 all of one file."""
    has_v1: bool
    v2_length: int
    """Bytes of them that v2 counts; 0 for a v1 torrent."""
    v2_level: int | None
    """Level of the tree that holds the pieces' hashes; None for the root of the file."""


class PieceHashes:
    """
    The hashes of all pieces of one torrent.

    Args:
        info: of the torrent.
        piece_layers: by pieces root, as in ``Metainfo``. Where it lacks one, because the
            info dictionary came from a peer, ``add_piece_layer`` brings it later.
    """

    def __init__(self, info: Info, piece_layers: Mapping[bytes, bytes]) -> None:
        self._pieces = info.pieces
        self._geometry = info.geometry
        self._piece_length = info.piece_length
        self._level = piece_level(info.piece_length) if info.has_v2 else 0
        self._has_v1 = info.has_v1
        self._has_v2 = info.has_v2
        self._layers = dict(piece_layers)
        self._noted: dict[bytes, dict[int, bytes]] = {}
        """By root, the hashes of good pieces, until a file's are all there and make its layer."""
        self._zeros: dict[tuple[int, int | None], bytes] = {}
        self._files: list[FileEntry] = []
        self._first_pieces: list[int] = []
        if info.has_v2:
            self._files = [entry for entry in info.files if entry.pieces_root is not None]
            self._first_pieces = [entry.offset // info.piece_length for entry in self._files]
        self._last_place: tuple[range, FileEntry] | None = None
        """The file that ``place_of`` last named, mostly that of the next piece, and its pieces."""
        self._by_root: dict[bytes, FileEntry] = {}
        for entry in self._files:
            assert entry.pieces_root is not None
            self._by_root.setdefault(entry.pieces_root, entry)

    def start(self, index: int) -> Hasher:
        """Return what takes the bytes of piece ``index``, all of them, in order."""
        if not self._has_v2:
            return hashlib.sha1()
        entry, number = self.place_of(index)
        length = min(entry.length - number * self._piece_length, self._piece_length)
        return HybridHasher(length) if self._has_v1 else BlockHasher(length)

    def plan_run(self, first: int, count: int) -> RunPlan:
        """Say how to hash ``count`` pieces from ``first`` on, or as many as may go together."""
        if not self._has_v2:
            return RunPlan(count, True, 0, None)
        entry, number = self.place_of(first)
        rest = entry.length - number * self._piece_length
        count = min(count, -(-rest // self._piece_length))
        is_small = entry.length <= self._piece_length
        return RunPlan(
            count,
            self._has_v1,
            min(count * self._piece_length, rest),
            None if is_small else self._level,
        )

    def is_good(self, index: int, hasher: Hasher) -> bool:
        """
        Tell whether what ``hasher`` was fed is piece ``index``.

        Args:
            index: of the piece.
            hasher: from ``start`` with the same index.

        Raises:
            Inconsistent: good by one hash and bad by the other, in a hybrid.
            MisuseError: the hash is not known yet, see ``is_known``.
        """
        if isinstance(hasher, HybridHasher):
            return self.is_match(index, hasher.sha1.digest(), self.top_of(index, hasher.blocks))
        if isinstance(hasher, BlockHasher):
            return self.is_match(index, None, self.top_of(index, hasher))
        digest: bytes = hasher.digest()  # type: ignore[attr-defined]  # hashlib's own object
        return digest == self._v1_hash(index)

    def is_match(self, index: int, v1: bytes | None, v2: bytes | None) -> bool:
        """
        Tell whether these are the hashes of piece ``index``.

        Args:
            index: of the piece.
            v1: SHA-1 of the piece; None for a v2 torrent.
            v2: the hash that ``plan_run`` describes; None for a v1 torrent.

        Raises:
            Inconsistent: one is right and the other wrong.
            MisuseError: of a v2 torrent, the hash is not known yet, see ``is_known``.
        """
        is_good_v1 = v1 is None or v1 == self._v1_hash(index)
        if v1 is not None and not self.is_known(index):
            # A hybrid from a magnet link: its v1 hash says enough until the layer comes.
            if is_good_v1 and v2 is not None:
                self.note(index, v2)
            return is_good_v1
        is_good_v2 = v2 is None or v2 == self.piece_hash(index)
        if v1 is not None and v2 is not None and is_good_v1 is not is_good_v2:
            raise Inconsistent(index, "v1" if is_good_v1 else "v2")
        return is_good_v1 and is_good_v2

    def are_good(self, first: int, count: int, v1: bytes, v2: bytes) -> bool:
        """
        Tell whether a run of pieces is all good; if not, ask ``is_match`` about each.

        Args:
            first: of a run that ``plan_run`` describes.
            count: of pieces.
            v1: their SHA-1 end to end; empty for a v2 torrent.
            v2: their v2 hashes end to end; empty for a v1 torrent.
        """
        if v1 and v1 != self._pieces[first * SHA1_LENGTH : (first + count) * SHA1_LENGTH]:
            return False
        if not self._has_v2:
            return True
        entry, number = self.place_of(first)
        if entry.length <= self._piece_length:
            return v2 == entry.pieces_root
        layer = self._layers.get(entry.pieces_root or b"", b"")
        return v2 == layer[number * HASH_LENGTH : (number + count) * HASH_LENGTH]

    def hash_of_zeros(self, index: int) -> bytes:
        """Return the v2 hash that piece ``index`` has where nothing was written to it yet."""
        plan = self.plan_run(index, 1)
        key = plan.v2_length, plan.v2_level
        known = self._zeros.get(key)
        if known is None:
            leaves = block_hashes(bytes(plan.v2_length))
            level = plan.v2_level
            known = root_of(leaves) if level is None else layer_above(leaves, 0, level)
            if plan.v2_length == self._piece_length:
                self._zeros[key] = known
        return known

    def note(self, index: int, v2: bytes) -> None:
        """
        Keep the hash of a good piece of a hybrid of which v2 knows none yet.

        Those of all pieces of a file make its layer.

        Raises:
            Inconsistent: they make another one than its root stands for.
        """
        entry, number = self.place_of(index)
        root = entry.pieces_root
        if root is None or self.is_known(index):
            return
        noted = self._noted.setdefault(root, {})
        noted[number] = v2
        if len(noted) == -(-entry.length // self._piece_length):
            del self._noted[root]
            if not self.add_piece_layer(root, b"".join(noted[n] for n in range(len(noted)))):
                raise Inconsistent(index, "v1")

    def is_known(self, index: int) -> bool:
        """Tell whether everything needed to judge piece ``index`` is there."""
        if not self._has_v2:
            return True
        entry, _ = self.place_of(index)
        return entry.length <= self._piece_length or entry.pieces_root in self._layers

    def can_judge(self, index: int) -> bool:
        """Tell whether piece ``index`` can be judged: a hybrid's by its v1 hash alone."""
        return self._has_v1 or self.is_known(index)

    def missing_layers(self) -> list[FileEntry]:
        """Return the files whose piece layer is still to be fetched, each root once."""
        found: dict[bytes, FileEntry] = {}
        for entry in self._files:
            root = entry.pieces_root
            assert root is not None
            if entry.length > self._piece_length and root not in self._layers:
                found.setdefault(root, entry)
        return list(found.values())

    def add_piece_layer(self, root: bytes, layer: bytes) -> bool:
        """
        Take a piece layer, 32 bytes per piece; False if it is not that of a file of ours.

        Raises:
            Inconsistent: a piece that is good by v1 has another hash in it; it is taken anyway.
        """
        entry = self._by_root.get(root)
        if entry is None or entry.length <= self._piece_length:
            return False
        if not is_piece_layer(
            layer, root=root, length=entry.length, piece_length=self._piece_length
        ):
            return False
        self._layers[root] = layer
        for number, noted in self._noted.pop(root, {}).items():
            if noted != layer[number * HASH_LENGTH : (number + 1) * HASH_LENGTH]:
                raise Inconsistent(entry.offset // self._piece_length + number, "v1")
        return True

    def file_of(self, root: bytes) -> FileEntry | None:
        """Return the file with this root, one of several that are equal; None without one."""
        return self._by_root.get(root)

    @property
    def has_v2(self) -> bool:
        """True for v2 and hybrid torrents."""
        return self._has_v2

    @property
    def piece_length(self) -> int:
        """Bytes of a piece."""
        return self._piece_length

    @property
    def level(self) -> int:
        """The level of the hashes of pieces in the trees of files."""
        return self._level

    @property
    def piece_layers(self) -> Mapping[bytes, bytes]:
        """The piece layers known so far, by root."""
        return self._layers

    def _v1_hash(self, index: int) -> bytes:
        return self._pieces[index * SHA1_LENGTH : (index + 1) * SHA1_LENGTH]

    def piece_hash(self, index: int) -> bytes:
        """
        Return the v2 hash of piece ``index``: of its file's layer, or the file's root.

        Raises:
            MisuseError: it is not known yet, see ``is_known``.
        """
        entry, number = self.place_of(index)
        root = entry.pieces_root
        assert root is not None
        if entry.length <= self._piece_length:
            return root
        layer = self._layers.get(root)
        if layer is None:
            raise MisuseError(f"piece {index} is judged before its hash is known")
        return layer[number * HASH_LENGTH : (number + 1) * HASH_LENGTH]

    def top_of(self, index: int, blocks: BlockHasher) -> bytes:
        """Return the v2 hash of piece ``index`` if it has these blocks."""
        leaves = blocks.leaves()
        if not leaves or self.place_of(index)[0].length <= self._piece_length:
            return root_of(leaves)
        return layer_above(leaves, 0, self._level)

    def place_of(self, index: int) -> tuple[FileEntry, int]:
        """Return the file that a v2 piece belongs to and its number among that file's pieces."""
        last = self._last_place  # Read and replaced whole: several threads hash at a time.
        if last is None or index not in last[0]:
            at = bisect_right(self._first_pieces, self._geometry.check_index(index)) - 1
            first, entry = self._first_pieces[at], self._files[at]
            pieces = range(first, first + -(-entry.length // self._piece_length))
            self._last_place = last = pieces, entry
        return last[1], index - last[0].start


def leaves_of(hasher: Hasher) -> bytes | None:
    """Return the SHA-256 of each block that a piece's hasher was fed; None for v1."""
    if isinstance(hasher, HybridHasher):
        hasher = hasher.blocks
    return hasher.leaves() if isinstance(hasher, BlockHasher) else None


def differing_blocks(leaves: bytes, expected: bytes) -> list[int]:
    """
    Return the numbers of the blocks whose SHA-256 is not the expected one (Limit: H4).

    Args:
        leaves: of a piece, as from ``BlockHasher.leaves``.
        expected: the same as the file's tree has them, proven against its root.
    """
    count = max(len(leaves), len(expected)) // HASH_LENGTH
    return [
        number
        for number in range(count)
        if leaves[number * HASH_LENGTH : (number + 1) * HASH_LENGTH]
        != expected[number * HASH_LENGTH : (number + 1) * HASH_LENGTH]
    ]


def is_good_row(hashes: PieceHashes, first: int, hashers: Sequence[Hasher]) -> bool:
    """
    Tell whether pieces of a v1 torrent, from ``first`` on, are all good; if not, ask about each.

    Many small pieces at once cost half of what they do one by one.
    """
    if hashes.has_v2:
        return False
    v1 = b"".join([hasher.digest() for hasher in hashers])  # type: ignore[attr-defined]
    return hashes.are_good(first, len(hashers), v1, b"")
