"""
Move files between folders, by renaming or by copying, all or none.

Renames are undone in reverse order when one of them fails. Between volumes
everything is copied and synced first, then the originals go; a failure before
the first has gone removes the copies, and one that cannot go after it stays
behind. Nothing is ever overwritten.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Sequence

from bittern.core.errors import StorageError
from bittern.storage.base import close_file, storage_error
from bittern.storage.copying import copy_content
from bittern.storage.rooted import FilePath, RootedTree
from bittern.storage.system import OsCalls

log: logging.Logger = logging.getLogger(__name__)


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
        failed: StorageError | None = None
        for old, new in reversed(done):
            try:
                target.rename(new, source, old)
            except StorageError as second:
                failed = second
        prune_folders(target, [new for _, new in moves])
        if failed is not None:
            raise StorageError(
                f"{error.reason}; files moved before stay in {target.root}", path=error.path
            ) from failed
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
                    problem = _copy(reader, writer, calls)
                except OSError as error:
                    raise storage_error(error, target.full_path(new)) from error
                finally:
                    close_file(calls.close, writer, target.full_path(new))
            finally:
                close_file(calls.close, reader, source.full_path(old))
            if problem is not None:
                raise storage_error(problem, source.full_path(old)) from problem
        folders = {new[:depth] for new in made for depth in range(len(new))}
        for folder in sorted(folders, key=len, reverse=True):
            target.sync_folder(folder)
        _remove_originals(source, [old for old, _ in moves])
    except StorageError as error:
        if error.errno == errno.EEXIST:
            made.pop()  # somebody else's, as of a moment ago
        _remove_copies(target, made, error)
        raise


def _remove_originals(source: RootedTree, paths: Sequence[FilePath]) -> None:
    """Remove what was copied. If the first stays, as in a folder for readers, nothing is moved."""
    for number, path in enumerate(paths):
        try:
            source.unlink(path)
        except StorageError as error:
            if not number:
                raise
            log.warning("what was copied from there stays: %s", error)


def _remove_copies(target: RootedTree, paths: Sequence[FilePath], reason: StorageError) -> None:
    """
    Take copies back, each that can be.

    Raises:
        StorageError: some stay; says so besides why they are of no use.
    """
    failed: StorageError | None = None
    for path in paths:
        try:
            target.unlink(path)
        except StorageError as error:
            failed = error
    prune_folders(target, paths)
    if failed is not None:
        raise StorageError(
            f"{reason.reason}; copies stay in {target.root}", path=reason.path, errno=reason.errno
        ) from failed


def _copy(reader: int, writer: int, calls: OsCalls) -> OSError | None:
    """Copy content and mode and sync it; returns why the original could not be read."""
    problem = copy_content(reader, writer, calls)
    if problem is None:
        calls.fchmod(writer, calls.fstat(reader).st_mode & 0o777)
        calls.fdatasync(writer)
    return problem
