"""
Finding the files that a new torrent is to hold.

Every regular file below a folder is taken, hidden ones too, and the order is
that of the paths as lists of bytes, whatever order the file system has: it is
also the order of a v2 file tree. Empty folders, sockets, pipes and devices
leave no trace.

Links are followed by default, so that the torrent holds what a reader of the
folder would see; a link that leads nowhere is left out, a loop is refused. Or
they are kept as links (BEP 47), and then they must lead to a place inside the
folder.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from bittern.codec.file_list import FileEntry
from bittern.core.errors import FileVanished, StorageError, UnsafePath

_MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class SourceFile:
    """
    A file to be put into a torrent.

    Args:
        entry: what the torrent says about it; its offset is 0.
        os_path: where it is.
        modified_ns: nanoseconds of its last change when it was found.
    """

    entry: FileEntry
    os_path: str
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Content:
    """
    What a torrent is to hold.

    Args:
        name: of the file or folder.
        is_single_file: it is one file and no folder.
        files: one at least, in the order of a file tree.
    """

    name: str
    is_single_file: bool
    files: tuple[SourceFile, ...]

    @property
    def total_length(self) -> int:
        """Bytes of all files."""
        return sum(file.entry.length for file in self.files)


def storage_error(error: OSError, path: str) -> StorageError:
    """Return our error for one of the operating system's."""
    reason = (error.strerror or str(error)).lower()
    if isinstance(error, FileNotFoundError):
        return FileVanished(reason, path=path, errno=error.errno)
    return StorageError(reason, path=path, errno=error.errno)


def scan(path: str | os.PathLike[str], *, keep_symlinks: bool = False) -> Content:
    """
    Find the files for a torrent of ``path``, a file or a folder.

    Args:
        path: may itself be a link, which is followed; its last element is the name.
        keep_symlinks: put links below it into the torrent as links.

    Raises:
        StorageError: nothing there, not readable, no files, or a loop of links.
        UnsafePath: a link to be kept leads outside.
    """
    root = os.path.abspath(path)  # noqa: PTH100  # Path.absolute keeps the dots
    name = os.path.basename(root)  # noqa: PTH119
    try:
        status = os.stat(root)  # noqa: PTH116
        if stat.S_ISREG(status.st_mode):
            return Content(name, True, (_describe(root, (name,), status),))
        if not stat.S_ISDIR(status.st_mode):
            raise StorageError("neither a file nor a folder", path=root)
        if not name:
            raise StorageError("the root folder has no name for a torrent", path=root)
        files = _walk(root, status, keep_symlinks)
    except OSError as error:
        raise storage_error(error, str(error.filename or root)) from error
    if not files:
        raise StorageError("no files in the folder", path=root)
    files.sort(key=lambda file: [os.fsencode(element) for element in file.entry.path])
    return Content(name, False, tuple(files))


def _walk(root: str, status: os.stat_result, keep_symlinks: bool) -> list[SourceFile]:
    files: list[SourceFile] = []
    above = frozenset([(status.st_dev, status.st_ino)])
    pending: list[tuple[str, tuple[str, ...], frozenset[tuple[int, int]]]] = [(root, (), above)]
    while pending:
        folder, elements, above = pending.pop()
        if len(elements) >= _MAX_DEPTH:
            raise StorageError(f"folders more than {_MAX_DEPTH} deep", path=folder)
        with os.scandir(folder) as entries:
            for found in entries:
                path = (*elements, found.name)
                if keep_symlinks and found.is_symlink():
                    files.append(_describe_link(root, found, path))
                    continue
                try:
                    status = found.stat()
                except FileNotFoundError:
                    if found.is_symlink():
                        continue
                    raise
                if stat.S_ISDIR(status.st_mode):
                    key = (status.st_dev, status.st_ino)
                    if key in above:
                        raise StorageError("a loop of links", path=found.path)
                    pending.append((found.path, path, above | {key}))
                elif stat.S_ISREG(status.st_mode):
                    files.append(_describe(found.path, path, status))
    return files


def _describe(os_path: str, path: tuple[str, ...], status: os.stat_result) -> SourceFile:
    entry = FileEntry(
        path,
        status.st_size,
        0,
        is_executable=_is_executable(status.st_mode),
        is_hidden=_is_hidden(status),
    )
    return SourceFile(entry, os_path, status.st_mtime_ns)


def _is_executable(mode: int) -> bool:
    return os.name == "posix" and bool(mode & stat.S_IXUSR)


def _is_hidden(status: os.stat_result) -> bool:
    """Tell whether the file system marks a file as hidden; a leading dot is just a name."""
    attributes = getattr(status, "st_file_attributes", 0)  # Windows
    flags = getattr(status, "st_flags", 0)  # macOS, BSD
    return bool(attributes & stat.FILE_ATTRIBUTE_HIDDEN or flags & 0x8000)


def _describe_link(root: str, found: os.DirEntry[str], path: tuple[str, ...]) -> SourceFile:
    """Describe a link by where it leads, relative to ``root`` (BEP 47)."""
    target = os.readlink(found.path)  # noqa: PTH115
    folder = os.path.dirname(found.path)  # noqa: PTH120
    try:
        relative = os.path.relpath(os.path.join(folder, target), root)  # noqa: PTH118
    except ValueError:  # Windows: to another drive
        relative = os.pardir
    elements = tuple(relative.split(os.sep))  # noqa: PTH206  # keeps lone surrogates as they are
    if elements[0] in (os.pardir, os.curdir):
        raise UnsafePath("a link leads outside the folder", path=found.path)
    # Interop: libtorrent marks links as executable, since their mode says so.
    mode = found.stat(follow_symlinks=False).st_mode
    entry = FileEntry(path, 0, 0, is_executable=_is_executable(mode), symlink_target=elements)
    return SourceFile(entry, found.path, 0)
