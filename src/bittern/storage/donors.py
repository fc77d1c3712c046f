"""
Files elsewhere that may be those of a torrent: finding them, and reading them as its bytes.

A *donor* is a file that is to be a torrent's file ``index``. ``DonorStorage``
shows the piece space as it would be if each donor were in its place, so that
the same hashing that checks a torrent checks them, pads and neighbours
included.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bittern.core.errors import FileVanished, StorageError
from bittern.storage.adopt import open_source, stamp_of
from bittern.storage.base import FilePlace, FileStamp, close_file, file_place, storage_error
from bittern.storage.handles import Handle, HandleCache
from bittern.storage.layout import NOT_STORED, Layout
from bittern.storage.system import OsCalls

MAX_FILES: Final = 1_000_000
"""Files that are looked at below the given folders; a wrong folder must not take for ever."""

MAX_DONORS: Final = 16
"""Files of the right length that are tried for one file of a torrent, those of its name first."""


def find_by_length(folders: Iterable[Path], lengths: Collection[int]) -> dict[int, list[Path]]:
    """
    Find regular files of certain lengths.

    Links are not followed, and what cannot be read is left out.

    Args:
        folders: looked through with all that is below; a file stands for itself.
        lengths: those wanted.

    Returns:
        Paths by length, in the order of their names.
    """
    wanted = frozenset(lengths)
    found: dict[int, list[Path]] = {}
    num_seen = 0
    for folder in folders:
        pending = [str(folder)]
        with contextlib.suppress(OSError):
            if folder.is_file() and (length := folder.stat().st_size) in wanted:
                found.setdefault(length, []).append(folder)
        while pending:
            place = pending.pop()
            try:
                entries = sorted(os.scandir(place), key=lambda entry: entry.name)
            except OSError:
                continue
            folders_in_it = []
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders_in_it.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        num_seen += 1
                        length = entry.stat(follow_symlinks=False).st_size
                        if length in wanted:
                            found.setdefault(length, []).append(Path(entry.path))
            if num_seen > MAX_FILES:
                return found
            pending += reversed(folders_in_it)
    return found


class DonorStorage:
    """
    A torrent's bytes as donors have them; for reading only.

    Args:
        layout: of the torrent.
        donors: paths by index of the file that each may be.
        calls: the operating system.
    """

    def __init__(self, layout: Layout, donors: Mapping[int, Path], calls: OsCalls) -> None:
        self._layout = layout
        self._donors = donors
        self._calls = calls
        self._handles = HandleCache()
        self._owner = self._handles.new_owner()

    def stat_file(self, index: int) -> FileStamp | None:
        """Return the stamp of a donor; None where there is none."""
        path = self._donors.get(index)
        return None if path is None else stamp_of(path, self._calls)

    def read_into(
        self,
        offset: int,
        buffers: Sequence[memoryview],
        *,
        nowait: bool = False,  # noqa: ARG002 - contract
    ) -> bool:
        """Fill adjacent buffers; FileVanished where a file has no donor."""
        for span, parts in self._layout.split(offset, buffers):
            if span.file_index == NOT_STORED:
                for part in parts:
                    part[:] = bytes(len(part))
                continue
            handle = self._handle(span.file_index)
            position = span.file_offset
            try:
                for part in parts:
                    self._fill(handle.fd, part, position, span.file_index)
                    position += len(part)
            finally:
                self._handles.release(handle, self._close)
        return True

    def place_of(self, offset: int, length: int) -> FilePlace | None:
        """Tell where bytes lie; see ``base.Placed``."""
        index, position, room = self._layout.locate(offset)
        path = self._donors.get(index)
        if path is None or length > room or self._calls.is_replaced:
            return None
        handle = self._handle(index)
        try:
            return file_place(path, position, self._calls.fstat(handle.fd))
        except OSError as error:
            raise storage_error(error, path) from error
        finally:
            self._handles.release(handle, self._close)

    def _handle(self, index: int) -> Handle:
        key = (self._owner, index)
        found = self._handles.find(key, False)
        if found is not None:
            return found
        path = self._donors.get(index)
        if path is None:
            raise FileVanished("there is no file to take it from")
        fd = open_source(path, self._calls)
        return self._handles.add(key, fd, False, self._close)

    def _fill(self, fd: int, part: memoryview, position: int, index: int) -> None:
        path = self._donors[index]
        done = 0
        while done < len(part):
            try:
                count = self._calls.preadv(fd, [part[done:]], position + done)
            except OSError as error:
                raise storage_error(error, path) from error
            if not count:
                raise FileVanished("the file is too short", path=str(path))
            done += count

    def close(self) -> None:
        """Close all donors."""
        self._handles.drop_owner(self._owner, self._close)

    def _close(self, fd: int) -> None:
        with contextlib.suppress(OSError):  # it was only read
            self._calls.close(fd)


def is_readable(path: Path, length: int, calls: OsCalls) -> bool:
    """Tell whether ``path`` is a regular file of this length that we may read."""
    stamp = stamp_of(path, calls)
    if stamp is None or stamp.length != length:
        return False
    try:
        close_file(calls.close, open_source(path, calls), path)
    except StorageError:
        return False
    return True
