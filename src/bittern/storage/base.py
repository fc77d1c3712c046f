"""
What the engine asks of a place that keeps a torrent's bytes.

Offsets are positions in the piece space of ``core.geometry``:
``index * piece_length + begin``. All calls are synchronous. ``write`` and
``read_into`` with ``nowait`` are made on the event loop, the rest belongs into
the storage worker; both may happen at once from different threads, but never
two writes to overlapping places.

Padding, and the gaps between the files of a v2 torrent, are not stored: reads
there give zeros, writes are dropped (BEP 47, BEP 52).

Every implementation keeps the promises that ``tests/storage/conformance.py``
checks. An operating system's error becomes one of the storage errors in
``storage_error``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from bittern.core.errors import DiskFull, FileVanished, StorageError, UnsafePath

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes; a memoryview is one of single bytes, so that ``len`` counts bytes."""


class FileStamp(NamedTuple):
    """What tells that a file was changed behind our back (Limit: F5)."""

    length: int
    modified_ns: int
    inode: int


class FilePlace(NamedTuple):
    """Where bytes lie, for a process that opens the file by itself and checks that it is that."""

    path: str
    position: int
    """In the file, of the first byte."""
    device: int
    inode: int


def file_place(path: str | Path, position: int, status: os.stat_result) -> FilePlace:
    """Return the place of a byte of an open file with this status."""
    return FilePlace(str(path), position, status.st_dev, status.st_ino)


@runtime_checkable
class Placed(Protocol):
    """What keeps bytes in files that other processes can read."""

    def place_of(self, offset: int, length: int) -> FilePlace | None:
        """
        Tell where ``length`` bytes of the piece space lie, from ``offset`` on.

        Returns:
            None when they are not in one file, or when reading must go by way of us.

        Raises:
            StorageError: the file cannot be opened.
        """


class Readable(Protocol):
    """What can be hashed: a torrent's storage, or files elsewhere that may hold the same bytes."""

    def read_into(
        self, offset: int, buffers: Sequence[memoryview], *, nowait: bool = False
    ) -> bool:
        """
        Fill ``buffers`` with the bytes that begin at ``offset``.

        Args:
            offset: in the piece space.
            buffers: writable, filled one after the other; never more than asked.
            nowait: do it only if it is quick, without waiting for a disk.

        Returns:
            True when all are filled. False, with ``nowait`` only: it would take long, the
            content of ``buffers`` is undefined, read again in the worker without ``nowait``.

        Raises:
            FileVanished: a file is missing or too short.
            MisuseError: the run leaves the piece space.
        """

    def stat_file(self, index: int) -> FileStamp | None:
        """Return what is known of a file without opening it; None if there is none."""


class Storage(Readable, Protocol):
    """
    One torrent's bytes at rest.

    Any call may raise a StorageError: DiskFull, FileVanished, UnsafePath, or the
    class itself with ``errno`` set. A failed call may have done a part of its work
    and may be repeated; ``sync`` is the exception, see there.
    """

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """
        Write ``buffers`` end to end, beginning at ``offset``.

        The bytes are with the operating system when this returns, so they survive the
        end of the process, not yet that of the machine. Files and folders are made as
        needed, the torrent's output folder itself is not.

        Raises:
            MisuseError: the run leaves the piece space.
            FileVanished: the output folder is not there (any more).
            VolumeMissing: nor is the volume that it was on.
        """

    def prepare(self, wanted: Collection[int] | None = None) -> None:
        """
        Make what must exist before the first write, and reserve room where configured.

        Args:
            wanted: indices of the files to prepare; None for all. Others come into being
                when a piece that reaches into them is written.
        """

    def sync(self) -> None:
        """
        Bring what was written before this call to stable storage.

        After an error nothing written since the last success may be taken for stored, not
        even if a second call succeeds: hash it again (Limit: F3).
        """

    def mark_unsynced(self, indices: Iterable[int]) -> None:
        """
        Have the next ``sync`` take these files for changed, as far as they are there.

        A process before us may have written to them and been killed: what it wrote is with
        the operating system, so it is read back, and yet not on stable storage (Limit: F8).
        """

    def finish_file(self, index: int) -> None:
        """
        Give a complete file its final name, length and mode.

        Call it when all pieces of the file are verified; calling it again does nothing.
        """

    def move(self, root: Path, paths: Sequence[tuple[str, ...]] | None = None) -> None:
        """
        Move all files below another output folder, or to other names.

        Args:
            root: the new output folder; made if it is missing.
            paths: new paths by index; None keeps them. See ``names.safe_paths`` for a volume
                with other rules.

        Nothing that exists is overwritten. After an error everything is where it was,
        except for what the text says. Nobody may read or write meanwhile.
        """

    def delete(self) -> None:
        """Remove the torrent's files and the folders that are empty then; nothing else."""

    def close(self) -> None:
        """
        Let go of all handles. Idempotent; a later call opens what it needs again.

        Raises:
            StorageError: the first that could not be closed in order; it is let go of, as all are.
        """


_REASONS = {
    errno.ENOSPC: "no room on the volume",
    errno.EDQUOT: "quota exceeded",
    errno.ENOENT: "file or folder is missing",
    errno.ELOOP: "a symbolic link is in the way",
    errno.EFBIG: "the file is too large for this file system, or for ulimit -f",
    errno.EROFS: "the volume is read-only",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files on this machine",
    errno.EIO: "the disk reports an error",
}
_CLASSES: dict[int, type[StorageError]] = {
    errno.ENOSPC: DiskFull,
    errno.EDQUOT: DiskFull,
    errno.ENOENT: FileVanished,
    errno.ESTALE: FileVanished,
    errno.ENXIO: FileVanished,
    errno.ENODEV: FileVanished,
    errno.ELOOP: UnsafePath,
}


def storage_error(error: OSError, path: str | Path) -> StorageError:
    """Return the storage error that stands for ``error``; raise it ``from`` that."""
    number = error.errno or errno.EIO
    reason = _REASONS.get(number) or os.strerror(number).lower()
    return _CLASSES.get(number, StorageError)(reason, path=str(path), errno=number)


def close_file(close: Callable[[int], None], fd: int, path: str | Path) -> None:
    """
    Close a file; it is no longer open in any case.

    Raises:
        StorageError: the system tells only now what became of a write, as NFS does.
    """
    try:
        close(fd)
    except OSError as error:
        raise storage_error(error, path) from error


def skip(buffers: Sequence[Buffer], length: int) -> list[memoryview]:
    """Return what is left of ``buffers`` after their first ``length`` bytes."""
    rest: list[memoryview] = []
    for buffer in buffers:
        if length < len(buffer):
            rest.append(memoryview(buffer)[length:])
        length = max(0, length - len(buffer))
    return rest
