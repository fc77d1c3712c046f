"""
Files and folders below one root, reached without ever passing a symbolic link.

A path is a tuple of components below the root. Where the system has calls
relative to a folder handle, each folder on the way is opened relative to the
one before it and links are refused by the open itself, so that nobody can
swap a folder for a link between a check and its use. Elsewhere (Windows) each
step is looked at before it is taken.

The root itself may be reached over links: that is the user's own affair. It is
made only on request, and remembered with its device number and the place of its
volume: when that is unmounted, its empty mount point is not mistaken for it.

Limit: P8, second check. Limit: F6.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bittern.core.errors import FileVanished, StorageError, UnsafePath
from bittern.storage.base import storage_error
from bittern.storage.mounts import is_mounted, volume_missing, volume_of
from bittern.storage.system import OsCalls, readable_flags, writable_flags

FilePath = tuple[str, ...]

_FOLDER_FLAGS: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_FILE_MODE: Final = 0o666
_LINK_ERRORS: Final = frozenset({errno.ELOOP, errno.EMLINK})
_LINK_TAGS: Final = frozenset({0xA0000003, 0xA000000C})
"""IO_REPARSE_TAG_MOUNT_POINT and IO_REPARSE_TAG_SYMLINK."""
_NO_FOLDER_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})


class RootedTree:
    """
    The folder that holds a torrent's files.

    Args:
        root: the folder, absolute.
        calls: the operating system.
        make_room: called when no descriptor is left (F13); closes some, or returns False.

    All methods raise StorageError; UnsafePath when a link, or something that is no
    file or folder, is in the way; VolumeMissing when what the root was on is not mounted any more;
    FileVanished when the root or the file is not there all the same.
    """

    def __init__(
        self, root: Path, calls: OsCalls, make_room: Callable[[], bool] = lambda: False
    ) -> None:
        self.root = root
        self._calls = calls
        self._make_room = make_room
        self._device: int | None = None
        self._volume: Path | None = None

    def full_path(self, path: FilePath) -> Path:
        """Return the path from the file system's own root, for messages."""
        return self.root.joinpath(*path)

    def make_root(self) -> None:
        """Make the root where it is missing, and take what is there now for the right one."""
        try:
            self._calls.makedirs(self.root, exist_ok=True)
            found = self._calls.stat(self.root)
            if found.st_dev != self._device:
                self._remember(found)
        except OSError as error:
            raise storage_error(error, self.root) from error

    def open_file(
        self, path: FilePath, *, writable: bool, create: bool = False, exclusive: bool = False
    ) -> int:
        """
        Open a regular file.

        Args:
            path: below the root.
            writable: open it to read and write.
            create: make it, and its folders, where missing.
            exclusive: with ``create``, fail if anything is there already.

        Returns:
            A descriptor, which the caller closes.
        """
        flags = writable_flags() if writable else readable_flags()
        flags |= (os.O_CREAT if create else 0) | (os.O_EXCL if exclusive else 0)
        with self._enter(path[:-1], create=create) as (handle, base), self._errors(path):
            name = base + path[-1]
            try:
                if not _NOFOLLOW or handle is None:
                    self._refuse_link(name, path)
                fd = self._open(name, flags, handle)
            except OSError as error:
                if error.errno in _LINK_ERRORS:
                    raise _unsafe("a symbolic link is in the way", self.full_path(path)) from error
                if error.errno in (errno.EISDIR, errno.ENXIO):
                    raise _unsafe("not a regular file", self.full_path(path)) from error
                raise
            try:
                if not stat.S_ISREG(self._calls.fstat(fd).st_mode):
                    raise _unsafe("not a regular file", self.full_path(path))
            except BaseException:
                self._calls.close(fd)
                raise
            return fd

    def stat(self, path: FilePath) -> os.stat_result | None:
        """Return what is known of a regular file; None if there is none, or something else."""
        try:
            with self._enter(path[:-1]) as (handle, base), self._errors(path):
                found = self._lstat(base + path[-1], handle)
        except (FileVanished, UnsafePath):
            return None
        return found if stat.S_ISREG(found.st_mode) else None

    def exists(self, path: FilePath) -> bool:
        """Tell whether anything at all has this name."""
        try:
            with self._enter(path[:-1]) as (handle, base), self._errors(path):
                self._lstat(base + path[-1], handle)
        except FileVanished:
            return False
        return True

    def rename(
        self, path: FilePath, to_tree: RootedTree, to_path: FilePath, *, replaces: bool = False
    ) -> None:
        """
        Give a file another place on the same volume.

        Args:
            path: of the file.
            to_tree: where it goes.
            to_path: its place there.
            replaces: a file that is there already goes, in one step where the system can.

        Raises:
            StorageError: something is there already, or the place is on another volume
                (``errno`` EXDEV).
        """
        # Files of a torrent have one owner, so looking before the rename is enough.
        if replaces and not self._calls.has_dir_fd:
            to_tree.unlink(to_path)  # Windows renames over nothing
        if not replaces and to_tree.exists(to_path):
            raise StorageError("something is there already", path=str(to_tree.full_path(to_path)))
        with (
            self._enter(path[:-1]) as (handle, base),
            to_tree._enter(to_path[:-1], create=True) as (to_handle, to_base),
            self._errors(path),
        ):
            self._calls.rename(
                base + path[-1], to_base + to_path[-1], src_dir_fd=handle, dst_dir_fd=to_handle
            )

    def link(self, path: FilePath, target: str) -> None:
        """Make a symbolic link with the text ``target``; the caller knows that it is harmless."""
        with self._enter(path[:-1], create=True) as (handle, base), self._errors(path):
            self._calls.symlink(target, base + path[-1], dir_fd=handle)

    def hard_link(self, path: FilePath, source: Path) -> None:
        """Give a regular file another name here; nothing may have that name yet."""
        with self._enter(path[:-1], create=True) as (handle, base), self._errors(path):
            self._calls.link(source, base + path[-1], dst_dir_fd=handle, follow_symlinks=False)

    def read_link(self, path: FilePath) -> str | None:
        """Return the text of a symbolic link; None for anything else, or nothing."""
        try:
            with self._enter(path[:-1]) as (handle, base):
                return self._calls.readlink(base + path[-1], dir_fd=handle)
        except (OSError, FileVanished, UnsafePath):
            return None

    def unlink(self, path: FilePath) -> bool:
        """Remove a file; False if there is none. Folders stay, links are not followed."""
        try:
            with self._enter(path[:-1]) as (handle, base), self._errors(path):
                name = base + path[-1]
                if stat.S_ISDIR(self._lstat(name, handle).st_mode):
                    return False
                self._calls.unlink(name, dir_fd=handle)
        except (FileVanished, UnsafePath):
            return False
        return True

    def remove_folder(self, path: FilePath) -> bool:
        """Remove a folder if it is there and empty; tell whether it was."""
        try:
            with self._enter(path[:-1]) as (handle, base):
                self._calls.rmdir(base + path[-1], dir_fd=handle)
        except (OSError, StorageError):
            return False
        return True

    def sync_folder(self, path: FilePath) -> None:
        """Bring the names in a folder to stable storage, where the system can."""
        with self._enter(path) as (handle, _), self._errors(path):
            if handle is None:
                return
            try:
                self._calls.fsync(handle)
            except OSError as error:
                if error.errno not in _NO_FOLDER_SYNC:
                    raise

    @contextlib.contextmanager
    def _errors(self, path: FilePath) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error(error, self.full_path(path)) from error
        except UnicodeEncodeError as error:
            # An old locale; what it can write depends on it, not on the volume.
            old = f"the locale's encoding ({error.encoding})"
            reason = f"{old} cannot write this name, PYTHONUTF8=1 in the environment can"
            raise StorageError(reason, path=str(self.full_path(path))) from error

    @contextlib.contextmanager
    def _enter(
        self, folders: FilePath, *, create: bool = False
    ) -> Iterator[tuple[int | None, str]]:
        """Yield a handle of a folder and "", or None and the prefix of names in it."""
        if not self._calls.has_dir_fd:
            yield None, self._walk_by_name(folders, create)
            return
        handle = self._open_root()
        try:
            for depth, name in enumerate(folders, 1):
                parent = handle
                handle = self._open_folder(name, parent, folders[:depth], create)
                self._calls.close(parent)
            yield handle, ""
        finally:
            self._calls.close(handle)

    def _open(self, name: str, flags: int, folder: int | None) -> int:
        while True:
            try:
                return self._calls.open(name, flags, _FILE_MODE, dir_fd=folder)
            except OSError as error:
                # Limit: F13. Somebody else took the descriptors: give back what is idle.
                if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._make_room():
                    raise

    def _open_root(self) -> int:
        with self._root_errors():
            handle = self._open(str(self.root), _FOLDER_FLAGS, None)
            try:
                self._check_device(self._calls.fstat(handle))
            except BaseException:
                self._calls.close(handle)
                raise
            return handle

    @contextlib.contextmanager
    def _root_errors(self) -> Iterator[None]:
        with self._errors(()):
            try:
                yield
            except OSError as error:
                if self._volume is not None and not is_mounted(self._volume):
                    raise volume_missing(self._volume) from error
                raise

    def _remember(self, found: os.stat_result) -> None:
        self._device = found.st_dev
        self._volume = volume_of(self.root)

    def _check_device(self, found: os.stat_result) -> None:
        if self._volume is None:
            self._remember(found)
        elif self._device != found.st_dev:
            raise volume_missing(self._volume)

    def _open_folder(self, name: str, parent: int, path: FilePath, create: bool) -> int:
        with self._errors(path):
            try:
                return self._open(name, _FOLDER_FLAGS | _NOFOLLOW, parent)
            except FileNotFoundError:
                if not create:
                    raise
                with contextlib.suppress(FileExistsError):
                    self._calls.mkdir(name, dir_fd=parent)
                return self._open(name, _FOLDER_FLAGS | _NOFOLLOW, parent)
            except OSError as error:
                if error.errno in _LINK_ERRORS or error.errno == errno.ENOTDIR:
                    raise _unsafe("not a plain folder", self.full_path(path)) from error
                raise

    def _walk_by_name(self, folders: FilePath, create: bool) -> str:
        with self._root_errors():
            self._check_device(self._calls.stat(self.root))
        path = str(self.root)
        for depth, name in enumerate(folders, 1):
            path = os.path.join(path, name)  # noqa: PTH118 - text, as the calls take it
            with self._errors(folders[:depth]):
                try:
                    found = self._calls.stat(path, follow_symlinks=False)
                except FileNotFoundError:
                    if not create:
                        raise
                    with contextlib.suppress(FileExistsError):
                        self._calls.mkdir(path)
                    found = self._calls.stat(path, follow_symlinks=False)
                if not stat.S_ISDIR(found.st_mode) or _is_junction(found):
                    raise _unsafe("not a plain folder", self.full_path(folders[:depth]))
        return os.path.join(path, "")  # noqa: PTH118

    def _lstat(self, name: str, handle: int | None) -> os.stat_result:
        return self._calls.stat(name, dir_fd=handle, follow_symlinks=False)

    def _refuse_link(self, name: str, path: FilePath) -> None:
        try:
            found = self._calls.stat(name, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISLNK(found.st_mode) or _is_junction(found):
            raise _unsafe("a symbolic link is in the way", self.full_path(path))


def _is_junction(found: os.stat_result) -> bool:
    # Windows has two kinds of links to folders; other reparse points are placeholders.
    return getattr(found, "st_reparse_tag", 0) in _LINK_TAGS


def _unsafe(reason: str, path: Path) -> UnsafePath:
    return UnsafePath(reason, path=str(path))
