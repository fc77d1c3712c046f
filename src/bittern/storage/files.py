"""
A torrent's files on disk, with positioned reads and writes.

The paths are made safe before (``names``); here every folder on the way is
opened without following links (``rooted``), few files are open at a time
(``handles``), and every call of the system can be replaced (``system``).

Reads never map files into memory: a file that is cut short while we seed gives
a FileVanished, never a signal (Limit: F5). On Linux ``nowait`` reads use
``RWF_NOWAIT`` and serve only what is in the page cache. Where system or file
system lack that, reads are done in place as long as they prove to be quick.

Files are sparse unless ``preallocate`` is set, and have a suffix until they are
complete if one is given.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from bittern.core.errors import DiskFull, FileVanished, MisuseError, StorageError, UnsafePath
from bittern.storage.adopt import ReuseHow, adopt_file
from bittern.storage.base import (
    Buffer,
    FilePlace,
    FileStamp,
    close_file,
    file_place,
    skip,
    storage_error,
)
from bittern.storage.handles import Handle, HandleCache
from bittern.storage.layout import NOT_STORED, Layout
from bittern.storage.links import make_links, remove_links
from bittern.storage.names import check_component, part_paths
from bittern.storage.relocate import move_files, prune_folders
from bittern.storage.rooted import FilePath, RootedTree
from bittern.storage.system import MAX_BUFFERS, OsCalls, bytes_on_disk

log: logging.Logger = logging.getLogger(__name__)

SLOW_READ: Final = 0.02
"""Seconds; a read in place that takes longer has waited for a disk."""

SLOW_PAUSE: Final = 10.0
"""Seconds for which no read is done in place after a slow one."""

SYNCS_READABLE: Final = os.name == "posix"
"""A file can be synced by whoever may read it; Windows wants to see that we may write."""

_NO_NOWAIT: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class FileStorage:
    """
    ``Storage`` in files.

    Args:
        layout: where the bytes of the piece space lie.
        root: the output folder; need not exist yet, see ``prepare``.
        paths: by index, below ``root``, as from ``names.safe_paths``.
        part_suffix: added to the names of files until ``finish_file``; None for none.
        preallocate: reserve room for the whole of each wanted file in ``prepare``.
        handles: the session's open files; None for a cache of one's own.
        os_calls: the operating system; replaced by tests.
        clock: seconds, to tell quick reads from slow ones.

    Raises:
        UnsafePath: a path has a component that is no plain name, or two files share one.
    """

    def __init__(
        self,
        layout: Layout,
        root: Path | str,
        paths: Sequence[FilePath],
        *,
        part_suffix: str | None = None,
        preallocate: bool = False,
        handles: HandleCache | None = None,
        os_calls: OsCalls | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.layout = layout
        self._calls = os_calls or OsCalls()
        self._clock = clock
        self._part_suffix = part_suffix
        self._preallocate = preallocate
        self._handles = HandleCache() if handles is None else handles
        self._owner = self._handles.new_owner()
        self._tree = RootedTree(
            Path(root).absolute(), self._calls, lambda: self._handles.make_room(self._close)
        )
        self._stored = [i for i in range(len(layout.files)) if layout.is_stored(i)]
        self._set_paths(paths)
        # Bound once: these two and the lookups before them are the data path.
        self._pwritev = self._calls.pwritev
        self._preadv = self._calls.preadv
        self._nowait_flag = self._calls.nowait_flag
        self._slow_until = 0.0
        self._dirty: set[int] = set()
        self._unsynced_folders: set[FilePath] = set()

    def _set_paths(self, paths: Sequence[FilePath]) -> None:
        if len(paths) != len(self.layout.files):
            raise MisuseError(f"{len(paths)} paths for {len(self.layout.files)} files")
        used: set[FilePath] = set()
        for index, path in enumerate(paths):
            if not path and not self.layout.is_stored(index):
                continue
            for component in path:
                check_component(component)
            if not path or path in used:
                raise UnsafePath("no path, or one that two files share", path="/".join(path))
            used.add(path)
        self.paths: list[FilePath] = list(paths)
        """Final paths of the files below the root, by index."""
        suffix = self._part_suffix
        self._part_paths = None if suffix is None else part_paths(paths, suffix)
        self._final: set[int] = set()

    @property
    def root(self) -> Path:
        """The output folder."""
        return self._tree.root

    def path_of(self, index: int) -> Path:
        """Return where file ``index`` is now, or would be."""
        return self._tree.full_path(self._current(index))

    # --- the data path -------------------------------------------------------------------

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write adjacent buffers; see ``Storage.write``. One ``pwritev`` inside one file."""
        length = sum(map(len, buffers))
        index, position, room = self.layout.locate(offset)
        if length <= room and len(buffers) <= MAX_BUFFERS:
            if index != NOT_STORED and length:
                self._write_file(index, position, buffers, length)
            return
        for span, parts in self.layout.split(offset, buffers):
            if span.file_index == NOT_STORED:
                continue
            position = span.file_offset
            for at in range(0, len(parts), MAX_BUFFERS):
                batch = parts[at : at + MAX_BUFFERS]
                length = sum(map(len, batch))
                self._write_file(span.file_index, position, batch, length)
                position += length

    def read_into(
        self, offset: int, buffers: Sequence[memoryview], *, nowait: bool = False
    ) -> bool:
        """Fill adjacent buffers; see ``Storage.read_into``. One ``preadv`` inside one file."""
        length = sum(map(len, buffers))
        index, position, room = self.layout.locate(offset)
        if length <= room and len(buffers) <= MAX_BUFFERS and index != NOT_STORED and length:
            return self._read_file(index, position, buffers, length, nowait)
        for span, parts in self.layout.split(offset, buffers):
            if span.file_index == NOT_STORED:
                for part in parts:
                    part[:] = bytes(len(part))
                continue
            position = span.file_offset
            for at in range(0, len(parts), MAX_BUFFERS):
                batch = parts[at : at + MAX_BUFFERS]
                length = sum(map(len, batch))
                if not self._read_file(span.file_index, position, batch, length, nowait):
                    return False
                position += length
        return True

    def _write_file(
        self, index: int, position: int, buffers: Sequence[Buffer], length: int
    ) -> None:
        handle = self._handles.find((self._owner, index), True) or self._open(index, True)
        try:
            done = self._pwritev(handle.fd, buffers, position)
            while done < length:
                # The rest of a short write fails with the reason, as ENOSPC.
                more = self._pwritev(handle.fd, skip(buffers, done), position + done)
                if not more:
                    raise StorageError("the system takes no more", path=str(self.path_of(index)))
                done += more
        except OSError as error:
            raise storage_error(error, self.path_of(index)) from error
        finally:
            self._handles.release(handle, self._close)
        # After the write: ``sync`` clears the mark before it syncs, so no write goes unnoticed.
        self._dirty.add(index)

    def _read_file(
        self, index: int, position: int, buffers: Sequence[memoryview], length: int, nowait: bool
    ) -> bool:
        handle = self._handles.find((self._owner, index), False)
        if handle is None:
            if nowait:
                return False
            handle = self._open(index, False)
        try:
            if nowait:
                return self._read_quickly(handle.fd, position, buffers) == length
            done = self._preadv(handle.fd, buffers, position)
            while done < length:
                more = self._preadv(handle.fd, skip(buffers, done), position + done)
                if not more:
                    raise FileVanished("the file is too short", path=str(self.path_of(index)))
                done += more
            return True
        except OSError as error:
            raise storage_error(error, self.path_of(index)) from error
        finally:
            self._handles.release(handle, self._close)

    def _read_quickly(self, fd: int, position: int, buffers: Sequence[memoryview]) -> int:
        if self._nowait_flag:
            try:
                return self._preadv(fd, buffers, position, self._nowait_flag)
            except BlockingIOError:
                return -1
            except OSError as error:
                if error.errno not in _NO_NOWAIT:
                    raise
                # This file system cannot tell. Asked once per root: the answer stays.
                self._nowait_flag = 0
        started_at = self._clock()
        if started_at < self._slow_until:
            return -1
        done = self._preadv(fd, buffers, position)
        ended_at = self._clock()
        if ended_at - started_at > SLOW_READ:
            self._slow_until = ended_at + SLOW_PAUSE
        return done

    def place_of(self, offset: int, length: int) -> FilePlace | None:
        """Tell where bytes lie; see ``Placed.place_of``."""
        index, position, room = self.layout.locate(offset)
        if index == NOT_STORED or length > room or self._calls.is_replaced:
            return None
        handle = self._handles.find((self._owner, index), False) or self._open(index, False)
        try:
            return file_place(self.path_of(index), position, self._calls.fstat(handle.fd))
        except OSError as error:
            raise storage_error(error, self.path_of(index)) from error
        finally:
            self._handles.release(handle, self._close)

    # --- opening -------------------------------------------------------------------------

    def _open(self, index: int, writable: bool, *, create: bool | None = None) -> Handle:
        path = self._current(index)
        fd = self._open_path(path, writable, writable if create is None else create)
        return self._handles.add((self._owner, index), fd, writable, self._close)

    def _open_path(self, path: FilePath, writable: bool, create: bool) -> int:
        try:
            return self._tree.open_file(path, writable=writable)
        except FileVanished:
            if not create:
                raise
        fd = self._tree.open_file(path, writable=writable, create=True)
        self._names_changed(path)
        return fd

    def _place(self, index: int, *, is_final: bool) -> FilePath:
        if self._part_paths is None or is_final:
            return self.paths[index]
        return self._part_paths[index]

    def _current(self, index: int) -> FilePath:
        if self._part_paths is None or index in self._final:
            return self.paths[index]
        if self._tree.stat(self.paths[index]) is not None:
            self._final.add(index)
        return self._place(index, is_final=index in self._final)

    def _names_changed(self, path: FilePath) -> None:
        for depth in range(len(path)):
            self._unsynced_folders.add(path[:depth])

    # --- the rest, in the worker ---------------------------------------------------------

    def prepare(self, wanted: Collection[int] | None = None) -> None:
        """Make empty files, reserve room; see ``Storage.prepare``."""
        self._tree.make_root()
        kept = [index for index in self._stored if wanted is None or index in wanted]
        if self._preallocate:
            self._reserve([index for index in kept if self.layout.files[index].length])
        for index in kept:
            if not self.layout.files[index].length:
                self._make_empty(index)

    def _make_empty(self, index: int) -> None:
        path = self._current(index)
        is_missing = self._tree.stat(path) is None
        if is_missing:
            self._handles.release(self._open(index, True), self._close)
        if is_missing or path != self.paths[index]:  # it may have been made and not named
            self.finish_file(index)
            # There is nothing to come back to.
            self._handles.drop((self._owner, index), self._close)

    def _reserve(self, indices: Sequence[int]) -> None:
        shorter: list[int] = []
        needed = 0
        for index in indices:
            length = self.layout.files[index].length
            found = self._tree.stat(self._current(index))
            if found is None or found.st_size < length:
                shorter.append(index)
                needed += length - (0 if found is None else min(length, bytes_on_disk(found)))
        if not shorter:
            return
        try:
            free = self._calls.free_bytes(self.root)
        except OSError as error:
            raise storage_error(error, self.root) from error
        # First all of it: a system that runs out half way leaves the disk full, and of nothing.
        if needed > free:
            text = f"{needed} bytes are to be reserved, {free} are free"
            raise DiskFull(text, path=str(self.root), errno=errno.ENOSPC)
        for index in shorter:
            self._allocate(index)

    def _allocate(self, index: int) -> None:
        handle = self._open(index, True)
        try:
            self._calls.allocate(handle.fd, 0, self.layout.files[index].length)
        except OSError as error:
            raise storage_error(error, self.path_of(index)) from error
        finally:
            self._handles.release(handle, self._close)

    def sync(self) -> None:
        """Sync the data of changed files, then the folders with new names in them."""
        failed: StorageError | None = None
        for index in list(self._dirty):
            self._dirty.discard(index)
            try:
                self._sync_file(index)
            except StorageError as error:
                failed = failed or error
                if not isinstance(error, FileVanished):
                    # The system may have left off in the middle: what is left is still to be done.
                    self._dirty.add(index)
        for folder in sorted(self._unsynced_folders, key=len, reverse=True):
            self._unsynced_folders.discard(folder)
            try:
                self._tree.sync_folder(folder)
            except StorageError as error:
                self._unsynced_folders.add(folder)
                failed = failed or error
        if failed is not None:
            raise failed

    def mark_unsynced(self, indices: Iterable[int]) -> None:
        """Sync these files next time as well; see ``Storage.mark_unsynced``."""
        for index in indices:
            path = self._current(index)
            if self._tree.stat(path) is not None:
                self._dirty.add(index)
                self._names_changed(path)

    def _sync_file(self, index: int) -> None:
        key = (self._owner, index)
        # Who wrote to it may have been another process, and it can only be read by now.
        writable = not SYNCS_READABLE
        handle = self._handles.find(key, writable) or self._open(index, writable, create=False)
        try:
            self._calls.fdatasync(handle.fd)
        except OSError as error:
            # Limit: F3. The cache may hold what the disk does not: the next reader must see that.
            with contextlib.suppress(OSError):
                self._calls.drop_cache(handle.fd)
            raise storage_error(error, self.path_of(index)) from error
        finally:
            self._handles.release(handle, self._close)

    def finish_file(self, index: int) -> None:
        """Cut to length, set the mode, drop the suffix; see ``Storage.finish_file``."""
        if not self.layout.is_stored(index):
            return
        path = self._current(index)
        found = self._tree.stat(path)
        if found is None:
            raise FileVanished("file or folder is missing", path=str(self.path_of(index)))
        entry = self.layout.files[index]
        mode = stat.S_IMODE(found.st_mode)
        # BEP 47: whoever may read a program may run it.
        wanted_mode = mode | (mode & 0o444) >> 2 if entry.is_executable else mode
        if found.st_size > entry.length or wanted_mode != mode:
            self._trim(index, entry.length, wanted_mode)
        if path != self.paths[index]:
            # Windows renames no open files.
            self._handles.drop((self._owner, index), self._close)
            self._tree.rename(path, self._tree, self.paths[index])
            self._final.add(index)
            self._names_changed(path)

    def name_whole(self, lengths: Sequence[int]) -> None:
        """
        Finish the files that are whole and still have their suffix.

        Args:
            lengths: by index, how many bytes of each file are verified.

        Raises:
            StorageError: one cannot be renamed.
        """
        for index in self._stored:
            if lengths[index] < self.layout.files[index].length:
                continue
            path = self._current(index)
            if path != self.paths[index] and self._tree.stat(path) is not None:
                self.finish_file(index)

    def _trim(self, index: int, length: int, mode: int) -> None:
        handle = self._handles.find((self._owner, index), True)
        handle = handle or self._open(index, True, create=False)
        try:
            self._calls.ftruncate(handle.fd, length)
            self._calls.fchmod(handle.fd, mode)
        except OSError as error:
            raise storage_error(error, self.path_of(index)) from error
        finally:
            self._handles.release(handle, self._close)

    def adopt(
        self, index: int, source: Path, how: ReuseHow, *, stamp: FileStamp
    ) -> ReuseHow | None:
        """
        Take a verified file from elsewhere as file ``index``; see ``adopt.adopt_file``.

        Nobody may read or write the file meanwhile.
        """
        path = self._current(index)
        self._handles.drop((self._owner, index), self._close)
        made = adopt_file(self._tree, path, source, how, self._calls, stamp=stamp)
        self._dirty.add(index)
        self._names_changed(path)
        return made

    def make_links(self) -> list[int]:
        """
        Make the symbolic links of the torrent that are harmless (Limit: P11).

        For a torrent that is complete, and only if a person asked for links.

        Returns:
            Indices of the links made. Left out are those that ``plan_links`` leaves out, those
            whose file is not there under its final name, and where something is in the way.

        Raises:
            StorageError: a link cannot be made, as on a file system that has none.
        """
        made = make_links(self._tree, self.layout.files, self.paths)
        for index in made:
            self._names_changed(self.paths[index])
        return made

    def _remove_links(self) -> list[FilePath]:
        return remove_links(self._tree, self.layout.files, self.paths)

    def stat_file(self, index: int) -> FileStamp | None:
        """Return length, time and inode of a file as it is now."""
        if not self.layout.is_stored(index):
            return None
        found = self._tree.stat(self._current(index))
        if found is None:
            return None
        return FileStamp(found.st_size, found.st_mtime_ns, found.st_ino)

    def move(self, root: Path, paths: Sequence[FilePath] | None = None) -> None:
        """Rename all files, or copy them to another volume; see ``Storage.move``."""
        self.close()
        target = FileStorage(
            self.layout,
            root,
            self.paths if paths is None else paths,
            part_suffix=self._part_suffix,
            handles=self._handles,
            os_calls=self._calls,
        )
        moves: list[tuple[FilePath, FilePath]] = []
        for index in self._stored:
            path = self._current(index)
            if self._tree.stat(path) is not None:
                moves.append((path, target._place(index, is_final=path == self.paths[index])))
        move_files(self._tree, target._tree, moves, self._calls)
        tree, self._tree = self._tree, target._tree
        before = self.paths
        self._set_paths(target.paths)
        self._unsynced_folders.clear()
        self._nowait_flag = self._calls.nowait_flag
        for _, new in moves:
            self._names_changed(new)
        links: list[FilePath] = []
        try:
            links = remove_links(tree, self.layout.files, before)
            if links:
                self.make_links()
        except StorageError as error:  # the files have moved, whatever becomes of these
            log.warning("links of %s: %s", self.root, error)
        prune_folders(tree, [old for old, _ in moves] + links)

    def delete(self) -> None:
        """Remove files, also incomplete ones, and folders that are empty then."""
        self.close()
        mine = [self.paths[index] for index in self._stored]
        if self._part_paths is not None:
            mine += [self._part_paths[index] for index in self._stored]
        for path in mine:
            self._tree.unlink(path)
        prune_folders(self._tree, mine + self._remove_links())
        self._final.clear()
        self._dirty.clear()
        self._unsynced_folders.clear()

    def close(self) -> None:
        """Close all files of this torrent; see ``Storage.close``."""
        self._handles.drop_owner(self._owner, self._close)

    def _close(self, fd: int) -> None:
        close_file(self._calls.close, fd, self.root)

    def __repr__(self) -> str:
        return f"<FileStorage {len(self.paths)} files in {self.root}>"
