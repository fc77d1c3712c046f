"""
Recheck: read pieces back and tell which are good.

Hashing and reading both release the interpreter lock, so a few threads, each
with its own buffer and its own runs of adjacent pieces, use all cores
(``run_hashing``), and where there is much to hash some of them have processes that
do it (``lanes``). A run is compared with what the torrent says in one go; only
a run that holds something bad is looked at piece by piece.

A piece that reaches into a file which is missing or too short is bad without
being read, so a torrent of which nothing is there costs one look per file.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bittern.codec.merkle import HASH_LENGTH
from bittern.core.bitfield import Bitfield
from bittern.core.errors import FileVanished, MisuseError, StorageError
from bittern.core.geometry import Geometry
from bittern.storage.base import Readable
from bittern.storage.hashing import (
    SHA1_LENGTH,
    BlockHasher,
    HybridHasher,
    PieceHashes,
    differing_blocks,
)
from bittern.storage.lanes import Lane, Lanes
from bittern.storage.layout import Layout
from bittern.storage.run_hashing import BUFFER_LENGTH
from bittern.storage.system import num_processors
from bittern.storage.worker import run_in_threads

BATCH_LENGTH: Final = 4 << 20
"""Bytes of pieces that a thread takes at a time, at least one piece."""

_GOOD: Final = b"1"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """
    What a check found.

    Args:
        have: the good pieces.
        unchecked: pieces that were asked for and not judged, since the check was stopped.
        missing_files: indices of files that are not there or too short.
        damaged: v2 pieces that were read, are bad and are not mere zeros, in rising order: some
            of their blocks may be good.
    """

    have: Bitfield
    unchecked: Bitfield
    missing_files: tuple[int, ...]
    damaged: tuple[int, ...] = ()


def check_pieces(
    storage: Readable,
    layout: Layout,
    geometry: Geometry,
    hashes: PieceHashes,
    *,
    pieces: Iterable[int] | None = None,
    num_threads: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> CheckResult:
    """
    Hash pieces as they stand in storage; blocks until done.

    Args:
        storage: of the torrent.
        layout: of the torrent.
        geometry: of the torrent.
        hashes: of the torrent; all that is asked for must be known.
        pieces: indices, best in rising order; None for all.
        num_threads: None for one per processor.
        progress: told how many pieces are judged so far, in rising order, from whichever
            thread judged the last.
        is_stopped: asked before each batch of pieces; True ends the check early.

    Raises:
        StorageError: a file cannot be opened or read for another reason than that it is
            missing, short or damaged.
        Inconsistent: the halves of a hybrid want different bytes.
    """
    wanted = range(geometry.num_pieces) if pieces is None else list(pieces)
    missing, lost = _find_missing(storage, layout, geometry)
    to_read = [index for index in wanted if not lost[index]] if missing else wanted
    num_threads = num_threads or num_processors()
    lanes = Lanes(
        geometry.piece_length,
        num_threads=num_threads,
        length=len(to_read) * geometry.piece_length,
        has_v2=hashes.has_v2,
    )
    check = _Check(storage, geometry, hashes, lanes, progress, is_stopped)
    num_lost = len(wanted) - len(to_read)
    if num_lost:
        check.count(num_lost)
    size = max(1, BATCH_LENGTH // geometry.piece_length)
    check.batches = iter([to_read[at : at + size] for at in range(0, len(to_read), size)])
    run_in_threads(check.work, max(1, min(num_threads, -(-len(to_read) // size))))
    spare = -geometry.num_pieces % 8
    bits = int(check.marks, 2) << spare if geometry.num_pieces else 0
    return CheckResult(
        Bitfield(geometry.num_pieces, bits),
        # A batch that was taken is judged to its end, and they are taken in order.
        Bitfield.of(geometry.num_pieces, to_read[check.num_checked - num_lost :]),
        tuple(missing),
        tuple(sorted(check.damaged)),
    )


def check_blocks(
    storage: Readable, geometry: Geometry, hashes: PieceHashes, index: int, expected: bytes
) -> list[int]:
    """
    Tell which blocks of a v2 piece are bad.

    Args:
        storage: of the torrent.
        geometry: of the torrent.
        hashes: of the torrent, v2 or hybrid.
        index: of the piece.
        expected: the SHA-256 of its blocks end to end, proven against the file's root.

    Returns:
        Numbers of blocks within the piece, in rising order.

    Raises:
        StorageError: the piece cannot be read.
        MisuseError: a v1 torrent, which has no hashes of blocks.
    """
    hasher = hashes.start(index)
    end = geometry.offset_of(index) + geometry.length_of(index)
    buffer = memoryview(bytearray(min(geometry.piece_length, BUFFER_LENGTH)))
    for at in range(geometry.offset_of(index), end, len(buffer)):
        part = buffer[: end - at]
        storage.read_into(at, (part,))
        hasher.update(part)
    blocks = hasher.blocks if isinstance(hasher, HybridHasher) else hasher
    if not isinstance(blocks, BlockHasher):
        raise MisuseError("a v1 torrent has no hashes of blocks")
    return differing_blocks(blocks.leaves(), expected)


def _find_missing(
    storage: Readable, layout: Layout, geometry: Geometry
) -> tuple[list[int], bytearray]:
    """Return the files that lack bytes, and a mark for each piece that reaches into the lack."""
    missing = []
    lost = bytearray(geometry.num_pieces)
    for index, entry in enumerate(layout.files):
        if not layout.is_stored(index):
            continue
        stamp = storage.stat_file(index)
        if stamp is not None and stamp.length >= entry.length:
            continue
        missing.append(index)
        if entry.length:
            present = 0 if stamp is None else stamp.length
            first = (entry.offset + present) // geometry.piece_length
            last = (entry.offset + entry.length - 1) // geometry.piece_length
            lost[first : last + 1] = b"\1" * (last + 1 - first)
    return missing, lost


class _Check:
    """What the threads of one check share."""

    def __init__(
        self,
        storage: Readable,
        geometry: Geometry,
        hashes: PieceHashes,
        lanes: Lanes,
        progress: Callable[[int], None],
        is_stopped: Callable[[], bool],
    ) -> None:
        self._storage = storage
        self._geometry = geometry
        self._hashes = hashes
        self._lanes = lanes
        self._progress = progress
        self._is_stopped = is_stopped
        self._lock = threading.Lock()
        self._has_failed = False
        self.batches: Iterator[Sequence[int]] = iter(())
        self.num_checked = 0
        self.damaged: list[int] = []
        self.marks = bytearray(b"0") * geometry.num_pieces
        """A digit per piece: together the bitfield as a binary number."""

    def work(self) -> None:
        """Take batches until there are none; runs in several threads."""
        try:
            with self._lanes.open(self._read, self._storage) as lane:
                while batch := self._take():
                    for first, count in self._runs(batch):
                        self._judge(lane, first, count)
                    self.count(len(batch))
        except BaseException:
            self._has_failed = True
            raise

    def count(self, num_pieces: int) -> None:
        """Count judged pieces and tell the caller."""
        with self._lock:
            self.num_checked += num_pieces
            self._progress(self.num_checked)

    def _take(self) -> Sequence[int] | None:
        with self._lock:
            if self._has_failed or self._is_stopped():
                return None
            return next(self.batches, None)

    def _runs(self, pieces: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Cut into runs of adjacent pieces that are hashed together: first and number."""
        longest = self._lanes.longest_run
        at = 0
        while at < len(pieces):
            first = pieces[at]
            most = self._hashes.plan_run(first, min(longest, len(pieces) - at)).num_pieces
            count = 1
            while count < most and pieces[at + count] == first + count:
                count += 1
            yield first, count
            at += count

    def _judge(self, lane: Lane, first: int, count: int, *, is_retry: bool = False) -> None:
        """Judge a run; one that cannot be read, piece by piece."""
        plan = self._hashes.plan_run(first, count)
        start = self._geometry.offset_of(first)
        last = first + count - 1
        length = self._geometry.offset_of(last) + self._geometry.length_of(last) - start
        try:
            v1, v2 = (lane.hash_here if is_retry else lane.hash)(
                start,
                v1_length=length if plan.has_v1 else 0,
                v2_length=plan.v2_length,
                level=plan.v2_level,
            )
        except StorageError as error:
            if count > 1:
                for index in range(first, first + count):
                    self._judge(lane, index, 1, is_retry=True)
            # Limit: F2. One bad sector costs a piece, not the check.
            elif not isinstance(error, FileVanished) and error.errno != errno.EIO:
                raise
            return
        self._compare(first, count, v1, v2)

    def _read(self, offset: int, view: memoryview) -> None:
        self._storage.read_into(offset, (view,))

    def _compare(self, first: int, count: int, v1: bytes, v2: bytes) -> None:
        hashes = self._hashes
        if hashes.are_good(first, count, v1, v2):
            self.marks[first : first + count] = _GOOD * count
            return
        for number in range(count):
            own_v1 = v1[number * SHA1_LENGTH :][:SHA1_LENGTH] or None
            own_v2 = v2[number * HASH_LENGTH :][:HASH_LENGTH] or None
            if hashes.is_match(first + number, own_v1, own_v2):
                self.marks[first + number : first + number + 1] = _GOOD
            elif own_v2 is not None and own_v2 != hashes.hash_of_zeros(first + number):
                self.damaged.append(first + number)
