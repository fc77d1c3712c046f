"""
Recheck: read pieces back and tell which are good.

Hashing and reading both release the interpreter lock, so a few threads, each
with its own buffer and its own pieces, use all cores: as long as what is
hashed at a time is long. Small pieces and the blocks of v2 are not, and go to
a process per thread (``hash_process``); where that cannot be had, or dies, the
threads do it themselves.

A piece that reaches into a file which is missing or too short is bad without
being read, so a torrent of which nothing is there costs one look per file.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bittern.core.bitfield import Bitfield
from bittern.core.errors import FileVanished, MisuseError, StorageError
from bittern.core.geometry import Geometry
from bittern.storage.base import Readable
from bittern.storage.hash_process import HashProcess
from bittern.storage.hashing import (
    BlockHasher,
    Hasher,
    HybridHasher,
    PieceHashes,
    differing_blocks,
)
from bittern.storage.layout import Layout
from bittern.storage.process_judge import ProcessJudge
from bittern.storage.worker import run_in_threads

_log = logging.getLogger(__name__)

READ_LENGTH: Final = 512 << 10
"""Bytes per read: small enough to be hashed while still in the core's cache."""

BATCH_LENGTH: Final = 4 << 20
"""Bytes of adjacent pieces that a thread takes at a time, at least one piece."""

SMALL_PIECE: Final = 64 << 10
"""Pieces shorter than this are hashed in processes: measured, two threads gain nothing there."""

MIN_PROCESS_LENGTH: Final = 64 << 20
"""Bytes per thread below which starting a process takes longer than it saves."""

_GOOD: Final = ord("1")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """
    What a check found.

    Args:
        have: the good pieces.
        num_checked: pieces judged; less than asked for when the check was stopped.
        missing_files: indices of files that are not there or too short.
        unreadable: pieces that the disk would not give (EIO), in rising order; not in ``have``.
    """

    have: Bitfield
    num_checked: int
    missing_files: tuple[int, ...]
    unreadable: tuple[int, ...]


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
        num_threads: None for one per core.
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
    check = _Check(storage, geometry, hashes, progress, is_stopped)
    if len(to_read) < len(wanted):
        check.count(len(wanted) - len(to_read))
    check.batches = iter(_batches(to_read, max(1, BATCH_LENGTH // geometry.piece_length)))
    num_threads = num_threads or os.cpu_count() or 1
    num_threads = max(1, min(num_threads, len(to_read)))
    is_fine_grained = hashes.has_v2 or geometry.piece_length < SMALL_PIECE
    is_worth_it = len(to_read) * geometry.piece_length >= num_threads * MIN_PROCESS_LENGTH
    if num_threads > 1 and is_fine_grained and is_worth_it:
        run_in_threads(check.work_with_process, num_threads)
    else:
        run_in_threads(check.work, num_threads)
    spare = -geometry.num_pieces % 8
    bits = int(check.marks, 2) << spare if geometry.num_pieces else 0
    return CheckResult(
        Bitfield(geometry.num_pieces, bits),
        check.num_checked,
        tuple(missing),
        tuple(sorted(check.unreadable)),
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
    feed(storage, hasher, geometry.offset_of(index), geometry.length_of(index))
    blocks = hasher.blocks if isinstance(hasher, HybridHasher) else hasher
    if not isinstance(blocks, BlockHasher):
        raise MisuseError("a v1 torrent has no hashes of blocks")
    return differing_blocks(blocks.leaves(), expected)


def feed(
    storage: Readable, hasher: Hasher, offset: int, length: int, buffer: memoryview | None = None
) -> None:
    """
    Read a run of the piece space in steps and give it to a hash.

    Args:
        storage: of the torrent.
        hasher: takes the bytes.
        offset: where the run begins.
        length: of the run.
        buffer: what to read into, a step at a time; None for a new one.

    Raises:
        StorageError: it cannot be read.
    """
    if buffer is None:
        buffer = memoryview(bytearray(min(length, READ_LENGTH)))
    step = len(buffer)
    end = offset + length
    while offset < end:
        part = buffer if end - offset >= step else buffer[: end - offset]
        storage.read_into(offset, (part,))
        hasher.update(part)
        offset += step


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


def _batches(pieces: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for at in range(0, len(pieces), size):
        yield pieces[at : at + size]


class _Check:
    """What the threads of one check share."""

    def __init__(
        self,
        storage: Readable,
        geometry: Geometry,
        hashes: PieceHashes,
        progress: Callable[[int], None],
        is_stopped: Callable[[], bool],
    ) -> None:
        self._storage = storage
        self._geometry = geometry
        self._hashes = hashes
        self._progress = progress
        self._is_stopped = is_stopped
        self._lock = threading.Lock()
        self._local = threading.local()
        self._has_failed = False
        self.batches: Iterator[Sequence[int]] = iter(())
        self.num_checked = 0
        self.unreadable: list[int] = []
        self.marks = bytearray(b"0") * geometry.num_pieces
        """A digit per piece: together the bitfield as a binary number."""

    def work(self, first: Sequence[int] = ()) -> None:
        """Judge ``first``, then take batches until there are none; runs in several threads."""
        try:
            self._judge_all(first)
            while batch := self._take():
                self._judge_all(batch)
        except BaseException:
            self._has_failed = True
            raise

    def work_with_process(self) -> None:
        """Do the same with a process that hashes; without one, do it here."""
        try:
            process = HashProcess()
        except OSError as error:
            _log.info("no hashing process, threads hash instead: %s", error)
            self.work()
            return
        judge = ProcessJudge(
            self._storage,
            self._geometry,
            self._hashes,
            process,
            judged=self._judged,
            judge_alone=lambda index: self._judge_all([index]),
        )
        try:
            try:
                while batch := self._take():
                    judge.judge(batch)
                judge.finish()
            finally:
                process.close()
        except OSError as error:
            _log.warning("a hashing process failed, threads go on: %s", error)
            self.work(list(judge.unjudged))
        except BaseException:
            self._has_failed = True
            raise

    def _judge_all(self, pieces: Sequence[int]) -> None:
        buffer = self._buffer()
        for index in pieces:
            self._judge(index, buffer)
        if pieces:
            self.count(len(pieces))

    def _judged(self, index: int, is_good: bool) -> None:
        if is_good:
            self.marks[index] = _GOOD
        self.count(1)

    def _buffer(self) -> memoryview:
        """Return the calling thread's own buffer."""
        if not hasattr(self._local, "buffer"):
            length = min(READ_LENGTH, self._geometry.piece_length)
            self._local.buffer = memoryview(bytearray(length))
        buffer: memoryview = self._local.buffer
        return buffer

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

    def _judge(self, index: int, buffer: memoryview) -> None:
        geometry = self._geometry
        hasher = self._hashes.start(index)
        try:
            feed(
                self._storage, hasher, geometry.offset_of(index), geometry.length_of(index), buffer
            )
        except FileVanished:
            return
        except StorageError as error:
            # Limit: F2. One bad sector costs a piece, not the check.
            if error.errno != errno.EIO:
                raise
            self.unreadable.append(index)
            return
        if self._hashes.is_good(index, hasher):
            self.marks[index] = _GOOD
