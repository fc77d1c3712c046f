"""
A folder from one version of a torrent to the next.

The next version is put together beside the folder, on the same volume, and takes its
place only when it is complete and verified:

1. ``stage_files`` gives it the old content of files whose names it has too, so that
   only the pieces that changed are fetched. Everything is hashed before it counts.
2. ``promote_files`` renames its files into place, one after the other, and removes those
   of the old version that the new one does not have. Files of others are left alone.

A crash between two renames leaves some files old and some new; the rest of the new ones
are still beside the folder, and the next run goes on.

Limit: P8. Links are never followed, on either side.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from bittern.core.errors import StorageError
from bittern.storage.adopt import ReuseHow, adopt_file, stamp_of
from bittern.storage.relocate import prune_folders
from bittern.storage.rooted import FilePath, RootedTree
from bittern.storage.system import OsCalls


def stage_files(
    folder: RootedTree, stage: RootedTree, paths: Iterable[FilePath], calls: OsCalls
) -> int:
    """
    Give files of the next version the content that they have now, as clones where possible.

    Args:
        folder: where the present version is.
        stage: where the next one is put together; its root is there. What it has already
            is left alone: an earlier run was interrupted.
        paths: of the files that may have changed.
        calls: the operating system.

    Returns:
        How many files were given.

    Raises:
        StorageError: the stage cannot be written.
    """
    count = 0
    for path in paths:
        if stage.exists(path) or folder.stat(path) is None:
            continue
        source = folder.full_path(path)
        stamp = stamp_of(source, calls)
        if stamp is not None and adopt_file(
            stage, path, source, ReuseHow.REFLINK, calls, stamp=stamp
        ):
            count += 1
    return count


def promote_files(
    stage: RootedTree,
    folder: RootedTree,
    paths: Collection[FilePath],
    old_paths: Iterable[FilePath],
) -> None:
    """
    Put the next version in the place of the present one.

    Args:
        stage: where it is.
        folder: where it goes, on the same volume; its root is there.
        paths: of its files; those that are not in the stage are in place already.
        old_paths: of the present version's files.

    Raises:
        StorageError: a file cannot be moved, or something that is no file of the present
            version is in its way; call it again once that is mended.
    """
    kept = set(paths)
    gone = [path for path in old_paths if path not in kept]
    for path in gone:
        folder.unlink(path)
    prune_folders(folder, gone)
    moved = [path for path in paths if stage.stat(path) is not None]
    for path in moved:
        if folder.stat(path) is None and folder.exists(path):
            raise StorageError("something else is in the way", path=str(folder.full_path(path)))
        stage.rename(path, folder, path, replaces=True)
        stage.unlink(path)  # still there where both were one file under two names
    prune_folders(stage, paths)
    for parent in sorted({path[:-1] for path in moved}):
        folder.sync_folder(parent)
