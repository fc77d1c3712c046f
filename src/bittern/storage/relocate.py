"""
Move files between folders, by renaming or by copying, all or none.

Renames are undone in reverse order when one of them fails. Between volumes
everything is copied and synced first, then the originals go; a failure before
that removes the copies. Nothing is ever overwritten.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from typing import Final

from bittern.core.errors import StorageError
from bittern.storage.base import skip, storage_error
from bittern.storage.rooted import FilePath, RootedTree
from bittern.storage.system import OsCalls

COPY_LENGTH: Final = 1 << 20
"""Bytes per read when a file is copied."""


def move_files(
    source: RootedTree,
    target: RootedTree,
    moves: Sequence[tuple[FilePath, FilePath]],
    calls: OsCalls,
) -> None:
    """
    Move files from ``source`` to ``target``.

    Args:
        source: where they are.
        target: where they go; its root is made if it is missing.
        moves: (old path, new path) of regular files that exist.
        calls: the operating system.

    Raises:
        StorageError: nothing was moved, or the text says what is left where.
    """
    target.make_root()
    if source.root == target.root:
        moves = [(old, new) for old, new in moves if old != new]
    for _, new in moves:
        if target.exists(new):
            raise StorageError("something is there already", path=str(target.full_path(new)))
    try:
        _rename_all(source, target, moves)
    except StorageError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_all(source, target, moves, calls)


def prune_folders(tree: RootedTree, paths: Iterable[FilePath]) -> None:
    """Remove the folders above ``paths`` that are empty, the root excepted."""
    folders = {path[:depth] for path in paths for depth in range(1, len(path))}
    for folder in sorted(folders, key=len, reverse=True):
        tree.remove_folder(folder)


def _rename_all(
    source: RootedTree, target: RootedTree, moves: Sequence[tuple[FilePath, FilePath]]
) -> None:
    done: list[tuple[FilePath, FilePath]] = []
    try:
        for old, new in moves:
            source.rename(old, target, new)
            done.append((old, new))
    except StorageError as error:
        for old, new in reversed(done):
            try:
                target.rename(new, source, old)
            except StorageError as second:
                raise StorageError(
                    f"{error.reason}; files moved before stay in {target.root}",
                    path=error.path,
                ) from second
        prune_folders(target, [new for _, new in moves])
        raise


def _copy_all(
    source: RootedTree,
    target: RootedTree,
    moves: Sequence[tuple[FilePath, FilePath]],
    calls: OsCalls,
) -> None:
    made: list[FilePath] = []
    try:
        for old, new in moves:
            reader = source.open_file(old, writable=False)
            try:
                made.append(new)
                writer = target.open_file(new, writable=True, create=True, exclusive=True)
                try:
                    _copy(reader, writer, calls)
                except OSError as error:
                    raise storage_error(error, target.full_path(new)) from error
                finally:
                    calls.close(writer)
            finally:
                calls.close(reader)
        folders = {new[:depth] for new in made for depth in range(len(new))}
        for folder in sorted(folders, key=len, reverse=True):
            target.sync_folder(folder)
    except StorageError as error:
        if error.errno == errno.EEXIST:
            made.pop()  # somebody else's, as of a moment ago
        for new in made:
            target.unlink(new)
        prune_folders(target, made)
        raise
    for old, _ in moves:
        source.unlink(old)


def _copy(reader: int, writer: int, calls: OsCalls) -> None:
    """Copy content and mode and sync it; runs of zeros stay holes."""
    buffer = memoryview(bytearray(COPY_LENGTH))
    zeros = bytes(COPY_LENGTH)
    position = 0
    while length := calls.preadv(reader, [buffer], position):
        part = buffer[:length]
        if part != zeros[:length]:
            done = 0
            while done < length:
                done += calls.pwritev(writer, skip([part], done), position + done)
        position += length
    found = calls.fstat(reader)
    calls.ftruncate(writer, position)
    calls.fchmod(writer, found.st_mode & 0o777)
    calls.fdatasync(writer)
