"""
A torrent's bytes in memory, with the same promises as files on disk.

For tests, for simulations, and for content that is looked at once. Memory is
taken as bytes are written; reading what was never written within a file's
present length gives zeros, as in a sparse file.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from bittern.core.errors import DiskFull, FileVanished, MisuseError
from bittern.storage.base import Buffer, FileStamp
from bittern.storage.layout import NOT_STORED, Layout


class MemoryStorage:
    """
    ``Storage`` in memory.

    Args:
        layout: where the bytes of the piece space lie.
        capacity: bytes of all files together above which a write raises DiskFull; None
            for no limit. May be changed at any time.
    """

    def __init__(self, layout: Layout, *, capacity: int | None = None) -> None:
        self.layout = layout
        self.capacity = capacity
        self.files: dict[int, bytearray] = {}
        """Content by file index; there is no entry for a file that does not exist."""
        self._has_root = False
        self._num_changes = 0
        self._changed_at: dict[int, int] = {}

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write adjacent buffers; see ``Storage.write``."""
        for span, parts in self.layout.split(offset, buffers):
            if span.file_index != NOT_STORED:
                self._write_file(span.file_index, span.file_offset, parts)

    def _write_file(self, index: int, position: int, parts: list[memoryview]) -> None:
        if not self._has_root:
            raise FileVanished("file or folder is missing", errno=errno.ENOENT)
        data = self.files.setdefault(index, bytearray())
        for part in parts:
            grown = position + len(part) - len(data)
            if grown > 0:
                used = sum(map(len, self.files.values()))
                if self.capacity is not None and used + grown > self.capacity:
                    raise DiskFull("no room on the volume", errno=errno.ENOSPC)
                data.extend(bytes(grown))
            data[position : position + len(part)] = part
            position += len(part)
        self._num_changes += 1
        self._changed_at[index] = self._num_changes

    def read_into(
        self,
        offset: int,
        buffers: Sequence[memoryview],
        *,
        nowait: bool = False,  # noqa: ARG002 - part of the contract
    ) -> bool:
        """Fill adjacent buffers; see ``Storage.read_into``. Memory never makes one wait."""
        for span, parts in self.layout.split(offset, buffers):
            if span.file_index == NOT_STORED:
                for part in parts:
                    part[:] = bytes(len(part))
                continue
            data = self.files.get(span.file_index)
            if data is None:
                raise FileVanished("file or folder is missing", errno=errno.ENOENT)
            if len(data) < span.file_offset + span.length:
                raise FileVanished("the file is too short")
            position = span.file_offset
            for part in parts:
                part[:] = data[position : position + len(part)]
                position += len(part)
        return True

    def prepare(self, wanted: Collection[int] | None = None) -> None:
        """Make empty files; see ``Storage.prepare``."""
        self._has_root = True
        for index, entry in enumerate(self.layout.files):
            is_wanted = wanted is None or index in wanted
            if is_wanted and not entry.length and self.layout.is_stored(index):
                self.files.setdefault(index, bytearray())

    def sync(self) -> None:
        """Do nothing: memory has nothing more stable behind it."""

    def mark_unsynced(self, indices: Iterable[int]) -> None:
        """Do nothing, as ``sync``."""

    def finish_file(self, index: int) -> None:
        """Cut a file to its length; see ``Storage.finish_file``."""
        if not self.layout.is_stored(index):
            return
        if index not in self.files:
            raise FileVanished("file or folder is missing", errno=errno.ENOENT)
        del self.files[index][self.layout.files[index].length :]

    def stat_file(self, index: int) -> FileStamp | None:
        """Return length, a count of changes as the time, and the index as the inode."""
        data = self.files.get(index)
        if data is None:
            return None
        return FileStamp(len(data), self._changed_at.get(index, 0), index)

    def move(
        self,
        root: Path,  # noqa: ARG002 - part of the contract
        paths: Sequence[tuple[str, ...]] | None = None,
    ) -> None:
        """Do nothing: there are no places in memory. Wrong ``paths`` are refused all the same."""
        if paths is not None and len(paths) != len(self.layout.files):
            raise MisuseError(f"{len(paths)} paths for {len(self.layout.files)} files")
        self._has_root = True

    def delete(self) -> None:
        """Forget all files."""
        self.files.clear()

    def close(self) -> None:
        """Do nothing; the bytes stay as long as the object."""

    def __repr__(self) -> str:
        return f"<MemoryStorage {len(self.files)} of {len(self.layout.files)} files>"
