"""
Pieces whose hash is finished in the storage worker, several in one job.

A piece of which some blocks did not pass its hash in order, or all of which
arrived faster than the event loop could hash them, is read back once it is
whole. Reading back costs a copy of what is still in the page cache, and frees
the loop from half of its work on a fast line. Waking a thread costs more than
hashing a small piece, so whatever piles up while a job runs makes up the next.

docs/design/README.md has the whole way of a block.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator

from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.engine.store.disk import Disk
from bittern.policy.open_piece import OpenPiece
from bittern.storage.base import Storage
from bittern.storage.hashing import Hasher

READ_LENGTH = 262_144
"""Bytes read at once: fits, with what else is in use, into a core's own cache."""
MAX_WAITING = 16 << 20
"""Bytes that may wait to be hashed before the loop hashes by itself again, and so slows down."""

Part = tuple[Hasher, int, int]
"""A hasher, and where in the piece space the bytes lie that it is to be fed."""


class HashQueue:
    """
    The one described in the module's text.

    Args:
        storage: of the torrent.
        geometry: of the torrent.
        disk: of the session.
        hashed: told, on the event loop, of the pieces of a job, whose hashes are ready.
        failed: told instead of an error of the storage; nothing is hashed any more.
    """

    def __init__(
        self,
        storage: Storage,
        geometry: Geometry,
        disk: Disk,
        *,
        hashed: Callable[[list[OpenPiece]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._storage = storage
        self._geometry = geometry
        self._disk = disk
        self._hashed = hashed
        self._failed = failed
        self._waiting: list[tuple[OpenPiece, Part]] = []
        self._num_bytes = 0
        self._is_running = False
        self._is_stopped = False
        self._buffer: memoryview | None = None
        """Kept while jobs follow each other; fresh memory costs a tenth of a job."""

    @property
    def has_room(self) -> bool:
        """False when the worker does not keep up, or has no core beside the loop's own."""
        return self._disk.is_parallel and self._num_bytes < MAX_WAITING

    @property
    def is_busy(self) -> bool:
        """True while pieces wait or are hashed."""
        return self._is_running

    def add(self, pieces: Iterable[OpenPiece]) -> None:
        """Finish the hashes of pieces that are whole and with the operating system."""
        for piece in pieces:
            start = piece.num_hashed * BLOCK_LENGTH
            offset = self._geometry.offset_of(piece.index) + start
            length = self._geometry.length_of(piece.index) - start
            self._waiting.append((piece, (piece.hasher, offset, length)))
            self._num_bytes += length
        if self._waiting and not self._is_running:
            self._start()

    def stop(self) -> None:
        """Tell nothing more; idempotent."""
        self._is_stopped = True
        self._waiting.clear()

    def _start(self) -> None:
        waiting, self._waiting = self._waiting, []
        parts = [part for _, part in waiting]
        self._is_running = True
        kept = self._buffer

        def hash_parts() -> memoryview:
            buffer = make_buffer() if kept is None else kept
            feed_parts(self._storage, parts, buffer)
            return buffer

        def done(buffer: memoryview | None, error: BaseException | None) -> None:
            self._is_running = False
            self._num_bytes -= sum(length for _, _, length in parts)
            if self._is_stopped:
                return
            if error is not None:
                self._failed(error)
                return
            # First the next job: the thread would else wait for what this one leads to.
            self._buffer = buffer if self._waiting else None
            if self._waiting:
                self._start()
            self._hashed([piece for piece, _ in waiting])

        self._disk.submit(hash_parts, done)


def make_buffer() -> memoryview:
    """Return a buffer for ``feed_parts``; it begins on a page, which makes copying quicker."""
    return memoryview(mmap.mmap(-1, READ_LENGTH))


def feed_parts(storage: Storage, parts: Iterable[Part], buffer: memoryview) -> None:
    """
    Read runs of the piece space and feed them to their hashers; for the worker.

    Args:
        storage: what to read.
        parts: in the order in which they are read.
        buffer: ``READ_LENGTH`` bytes, used by nobody else meanwhile.

    Raises:
        StorageError: what was written cannot be read.
    """
    for offset, batch in _batches(parts):
        length = sum(part_length for _, part_length in batch)
        storage.read_into(offset, [buffer[:length]])
        at = 0
        for hasher, part_length in batch:
            hasher.update(buffer[at : at + part_length])
            at += part_length


def _batches(parts: Iterable[Part]) -> Iterator[tuple[int, list[tuple[Hasher, int]]]]:
    """Cut parts into reads of at most ``READ_LENGTH``; neighbours share one."""
    start, end = 0, 0
    batch: list[tuple[Hasher, int]] = []
    for hasher, offset, length in parts:
        while length > 0:
            if batch and (offset != end or end - start == READ_LENGTH):
                yield start, batch
                batch = []
            if not batch:
                start = end = offset
            taken = min(length, READ_LENGTH - (end - start))
            batch.append((hasher, taken))
            end += taken
            offset += taken
            length -= taken
    if batch:
        yield start, batch
