"""
What a power failure leaves of a disk.

``CrashingCalls`` works on real files, keeps book of what was changed and not
yet synced, and ``crash`` then takes a part of that back: of each file's
unsynced writes any may be lost, in any combination, or torn at a multiple of
512 bytes; unsynced new names, renames and removals survive as they do with a
journal: those before some moment. Synced things never change, and the output
folder itself, made by ``makedirs``, is taken for synced.

That is what the promises of ``fsync`` allow, and more than most file systems
do. Linux only, since folders are known by ``/proc/self/fd``; files should be
small, they are kept in memory while they have unsynced changes.

Source: threats.md F8.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bittern.storage.base import Buffer
from bittern.testing.disk import FaultyCalls

SECTOR_LENGTH = 512
"""A disk writes whole sectors; a torn write ends at a multiple of this."""


@dataclass(slots=True)
class _DirtyFile:
    """A file with unsynced changes: what is safe, and what came since."""

    path: Path
    safe: bytes
    changes: list[tuple[int, bytes | None]] = field(default_factory=list)
    """(offset, bytes written) or (new length, None)."""


@dataclass(frozen=True, slots=True)
class _NameChange:
    """An unsynced change of names, and how to take it back."""

    folders: frozenset[Path]
    undo: Callable[[], object]


class CrashingCalls(FaultyCalls):
    """
    An operating system whose machine may lose its power.

    Args:
        rng: decides what survives.
        room: as for ``FaultyCalls``.
    """

    def __init__(self, rng: random.Random, *, room: int | None = None) -> None:
        self._rng = rng
        self._dirty: dict[int, _DirtyFile] = {}
        self._names: list[_NameChange] = []
        super().__init__(portable=False, room=room)
        self.open: Callable[..., int] = self._watching_open(self.open)
        self.pwritev: Callable[[int, Sequence[Buffer], int], int] = self._watching_pwritev(
            self.pwritev
        )
        self.ftruncate: Callable[[int, int], None] = self._watching_ftruncate(self.ftruncate)
        self.fdatasync: Callable[[int], None] = self._watching_sync(self.fdatasync)
        self.fsync: Callable[[int], None] = self._watching_sync(self.fsync)
        self.mkdir: Callable[..., None] = self._watching_mkdir(self.mkdir)
        self.rename: Callable[..., None] = self._watching_rename(self.rename)
        self.unlink: Callable[..., None] = self._watching_unlink(self.unlink)

    @property
    def num_unsynced(self) -> int:
        """Changes that a crash may take back."""
        return len(self._names) + sum(len(file.changes) for file in self._dirty.values())

    def crash(self) -> None:
        """Take back a part of what is not synced. Open files are the caller's to close."""
        for file in self._dirty.values():
            # Written through the inode's present name: names change only after contents.
            if file.path.exists():
                file.path.write_bytes(self._survivor(file))
        kept = self._rng.randint(0, len(self._names))
        for change in reversed(self._names[kept:]):
            try:
                change.undo()
            except OSError:
                # Something synced lies in a folder that is not: the folder is there then.
                continue
        self._dirty.clear()
        self._names.clear()

    def _survivor(self, file: _DirtyFile) -> bytes:
        content = bytearray(file.safe)
        kept_share = self._rng.random()
        for offset, data in file.changes:
            if self._rng.random() >= kept_share:
                continue
            if data is None:
                _set_length(content, offset)
                continue
            if self._rng.random() < 0.25:
                data = data[: self._rng.randint(0, len(data) // SECTOR_LENGTH) * SECTOR_LENGTH]
            if data:
                _set_length(content, max(len(content), offset + len(data)))
                content[offset : offset + len(data)] = data
        return bytes(content)

    # --- contents ------------------------------------------------------------------------

    def _dirty_file(self, fd: int) -> _DirtyFile:
        inode = os.fstat(fd).st_ino
        file = self._dirty.get(inode)
        if file is None:
            path = _path_of(fd)
            file = self._dirty[inode] = _DirtyFile(path, path.read_bytes())
        return file

    def _watching_pwritev(
        self, pwritev: Callable[[int, Sequence[Buffer], int], int]
    ) -> Callable[[int, Sequence[Buffer], int], int]:
        def write(fd: int, buffers: Sequence[Buffer], offset: int) -> int:
            file = self._dirty_file(fd)
            written = pwritev(fd, buffers, offset)
            file.changes.append((offset, b"".join(buffers)[:written]))
            return written

        return write

    def _watching_ftruncate(
        self, ftruncate: Callable[[int, int], None]
    ) -> Callable[[int, int], None]:
        def truncate(fd: int, length: int) -> None:
            file = self._dirty_file(fd)
            ftruncate(fd, length)
            file.changes.append((length, None))

        return truncate

    def _watching_sync(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def sync_it(fd: int) -> None:
            sync(fd)
            path = _path_of(fd)
            self._dirty.pop(os.fstat(fd).st_ino, None)
            self._names = [change for change in self._names if path not in change.folders]

        return sync_it

    # --- names ---------------------------------------------------------------------------

    def _note_names(self, undo: Callable[[], object], *paths: Path) -> None:
        self._names.append(_NameChange(frozenset(path.parent for path in paths), undo))

    def _watching_open(self, open_file: Callable[..., int]) -> Callable[..., int]:
        def open_it(name: Any, flags: int, *args: Any, dir_fd: int | None = None) -> int:
            path = _full_path(name, dir_fd)
            is_new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
            fd = open_file(name, flags, *args, dir_fd=dir_fd)
            if is_new:
                self._note_names(path.unlink, path)
            return fd

        return open_it

    def _watching_mkdir(self, mkdir: Callable[..., None]) -> Callable[..., None]:
        def make_it(name: Any, *args: Any, dir_fd: int | None = None) -> None:
            mkdir(name, *args, dir_fd=dir_fd)
            path = _full_path(name, dir_fd)
            self._note_names(path.rmdir, path)

        return make_it

    def _watching_rename(self, rename: Callable[..., None]) -> Callable[..., None]:
        def rename_it(
            old: Any, new: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
        ) -> None:
            source, target = _full_path(old, src_dir_fd), _full_path(new, dst_dir_fd)
            rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            self._move_dirty(source, target)
            self._note_names(lambda: target.rename(source), source, target)

        return rename_it

    def _move_dirty(self, source: Path, target: Path) -> None:
        for file in self._dirty.values():
            if file.path == source:
                file.path = target

    def _watching_unlink(self, unlink: Callable[..., None]) -> Callable[..., None]:
        def unlink_it(name: Any, *, dir_fd: int | None = None) -> None:
            path = _full_path(name, dir_fd)
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
            inode = os.lstat(path).st_ino
            unlink(name, dir_fd=dir_fd)
            dirty = self._dirty.pop(inode, None)
            if content is not None:
                safe = content if dirty is None else self._survivor(dirty)
                self._note_names(lambda: path.write_bytes(safe), path)

        return unlink_it


def _set_length(content: bytearray, length: int) -> None:
    del content[length:]
    content.extend(bytes(length - len(content)))


def _path_of(fd: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115  # a magic link


def _full_path(name: Any, dir_fd: int | None) -> Path:
    return Path(os.fspath(name)) if dir_fd is None else _path_of(dir_fd) / os.fspath(name)
