"""
Putting a file from elsewhere into a torrent's place: as a copy, a clone or a second name.

A clone (reflink) takes no room and no time where the file system can share
blocks; a hard link is the very same file under a second name, so whoever
changes one changes the other. Both are made only where nothing of value is in
the way, and where they cannot be had the file is copied instead.

The caller has verified the source. What is written here survives the process,
not yet the machine: it counts once ``Storage.sync`` has returned.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from pathlib import Path

from bittern.core.errors import DiskFull, StorageError
from bittern.storage.base import FileStamp, close_file, storage_error
from bittern.storage.copying import copy_content
from bittern.storage.rooted import FilePath, RootedTree
from bittern.storage.system import OsCalls, readable_flags


class ReuseHow(enum.Enum):
    """How a file that is somewhere else already gets its second place."""

    COPY = "copy"
    REFLINK = "reflink"
    HARDLINK = "hardlink"


def stamp_of(path: Path, calls: OsCalls) -> FileStamp | None:
    """Return the stamp of a regular file; None for anything else, links included."""
    try:
        found = calls.stat(path, follow_symlinks=False)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return FileStamp(found.st_size, found.st_mtime_ns, found.st_ino)


def open_source(path: Path, calls: OsCalls) -> int:
    """
    Open a regular file to read; links are not followed.

    Raises:
        StorageError: it cannot be opened, or is no regular file.
    """
    try:
        fd = calls.open(path, readable_flags())
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        if not stat.S_ISREG(calls.fstat(fd).st_mode):
            raise StorageError("not a regular file", path=str(path))
    except BaseException:
        calls.close(fd)
        raise
    return fd


def adopt_file(
    tree: RootedTree,
    path: FilePath,
    source: Path,
    how: ReuseHow,
    calls: OsCalls,
    *,
    stamp: FileStamp,
) -> ReuseHow | None:
    """
    Give the content of ``source`` a place below ``tree``.

    Args:
        tree: of the torrent.
        path: the place; what is there already is written over, not replaced.
        source: a regular file.
        how: what is wanted.
        calls: the operating system.
        stamp: of ``source`` when its content was verified.

    Returns:
        How it was done: COPY where nothing better could be had. None when the source is
        not, or no longer, what it was; the place may hold anything then.

    Raises:
        StorageError: the place cannot be written.
    """
    if stamp_of(source, calls) != stamp:
        return None
    if how is ReuseHow.HARDLINK and _link(tree, path, source):
        if stamp_of(source, calls) == stamp:
            return how
        # Never leave a name behind through which we would write into somebody's file.
        tree.unlink(path)
        return None
    made = _fill(tree, path, source, how, calls)
    return made if stamp_of(source, calls) == stamp else None


def _link(tree: RootedTree, path: FilePath, source: Path) -> bool:
    found = tree.stat(path)
    if found is not None:
        if found.st_size:
            return False
        tree.unlink(path)
    try:
        tree.hard_link(path, source)
    except DiskFull:
        raise
    except StorageError:
        return False  # another volume, a file system without links, or the source is gone
    return True


def _fill(
    tree: RootedTree, path: FilePath, source: Path, how: ReuseHow, calls: OsCalls
) -> ReuseHow | None:
    """Clone or copy the source; None where it cannot be read."""
    try:
        reader = open_source(source, calls)
    except StorageError:
        return None
    try:
        writer = tree.open_file(path, writable=True, create=True)
        try:
            if how is ReuseHow.REFLINK and _clone(writer, reader, calls):
                return ReuseHow.REFLINK
            return ReuseHow.COPY if copy_content(reader, writer, calls) is None else None
        except OSError as error:
            raise storage_error(error, tree.full_path(path)) from error
        finally:
            close_file(calls.close, writer, tree.full_path(path))
    finally:
        close_file(calls.close, reader, source)


def _clone(writer: int, reader: int, calls: OsCalls) -> bool:
    try:
        calls.clone(writer, reader)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        return False
    return True


def is_same_file(one: Path, other: Path) -> bool:
    """Tell whether two paths are one file; False where either is missing."""
    try:
        return os.path.samefile(one, other)  # noqa: PTH121 - both may be missing
    except OSError:
        return False
