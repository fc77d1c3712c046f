"""
Files of a torrent, and the v1 forms in which an info dictionary lists them.

Names are kept as they stand in the torrent: they may hold anything, also
``..``, slashes and control characters, and making them safe is the business of
``storage.names``. Nothing is lost: bytes that are no UTF-8 become lone
surrogates (``surrogateescape``), so that two different names stay different.
The ``encoding`` key is not heeded, since it lies outside the hashed part: the
same torrent would get other names through a magnet link.

Source: BEP 3 (``length``, ``files``), BEP 47 (attributes, pads, symlinks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bittern.codec.bencode import Value
from bittern.core.errors import MetainfoError

MAX_TOTAL_LENGTH = (1 << 48) - 1
"""Limit: P7. Bytes of all files with pads, as in libtorrent."""

MAX_PATH_DEPTH = 100
"""Limit: P1. Elements of one path, as in libtorrent."""

_BITCOMET_PAD = "_____padding_file_"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """
    One file of a torrent.

    Args:
        path: elements below the torrent's own folder, as the torrent has them: unsafe.
            A single-file torrent has one element, its name.
        length: bytes, >= 0; 0 for a symlink.
        offset: position of its first byte in the piece space.
        is_pad: zeros that only fill a piece up; never on disk (BEP 47).
        is_executable: marked with ``x`` (BEP 47).
        is_hidden: marked with ``h`` (BEP 47).
        symlink_target: where a symlink leads, elements below the torrent's folder, as the
            torrent has them; empty when it does not say; None for what is no symlink.
        pieces_root: 32 bytes, the root of the hash tree; None in v1, for pads and for
            empty files (BEP 52).
        sha1: 20 bytes that the creator says are the SHA-1 of the file: a hint (BEP 47).
        mtime: seconds since 1970 that the creator says the file was last changed at.
    """

    path: tuple[str, ...]
    length: int
    offset: int
    is_pad: bool = False
    is_executable: bool = False
    is_hidden: bool = False
    symlink_target: tuple[str, ...] | None = None
    pieces_root: bytes | None = None
    sha1: bytes | None = None
    mtime: int | None = None

    def placed(self, offset: int, pieces_root: bytes | None) -> FileEntry:
        """Copy with another place and root: a third of the time of ``dataclasses.replace``."""
        return FileEntry(
            self.path,
            self.length,
            offset,
            self.is_pad,
            self.is_executable,
            self.is_hidden,
            self.symlink_target,
            pieces_root,
            self.sha1,
            self.mtime,
        )


def last_index(files: Sequence[FileEntry]) -> int:
    """Return the index of the last file that is no padding; 0 without any."""
    return max((index for index, entry in enumerate(files) if not entry.is_pad), default=0)


def text_from(raw: bytes) -> str:
    """Return a name as text, without loss: bytes that are no UTF-8 become lone surrogates."""
    return raw.decode("utf-8", "surrogateescape")


def text_to(text: str) -> bytes:
    """Return the bytes that ``text_from`` made ``text`` of."""
    return text.encode("utf-8", "surrogateescape")


def read_name(info: dict[bytes, Value]) -> str | None:
    """Return the torrent's name, ``name.utf-8`` before ``name``; None when there is none."""
    preferred = info.get(b"name.utf-8")
    if isinstance(preferred, bytes):
        try:
            return preferred.decode()
        except UnicodeDecodeError:
            pass
    plain = info.get(b"name")
    return text_from(plain) if isinstance(plain, bytes) else None


def read_file_list(value: Value) -> tuple[FileEntry, ...]:
    """
    Read the ``files`` of a v1 info dictionary.

    Raises:
        MetainfoError: no list of file dictionaries, or a limit was exceeded.

    Source: BEP 3, BEP 47.
    """
    if not isinstance(value, list):
        raise MetainfoError("info: 'files' is no list")
    if not value:
        raise MetainfoError("info: 'files' is empty")
    files = []
    offset = 0
    for index, item in enumerate(value):
        try:
            entry = _read_file(item, offset)
        except MetainfoError as error:
            raise MetainfoError(f"files[{index}]: {error}") from None
        files.append(entry)
        offset += entry.length
        if offset > MAX_TOTAL_LENGTH:
            raise MetainfoError(f"files[{index}]: the files are longer than 2^48 - 1 bytes")
    return tuple(files)


def read_single_file(info: dict[bytes, Value], name: str) -> FileEntry:
    """
    Read the file of an info dictionary that has ``length`` instead of ``files``.

    Raises:
        MetainfoError: no usable length.
    """
    try:
        return read_attributes(info, (name,), 0)
    except MetainfoError as error:
        raise MetainfoError(f"info: {error}") from None


def _read_file(item: Value, offset: int) -> FileEntry:
    if not isinstance(item, dict):
        raise MetainfoError("no dictionary")
    path = None
    if b"path.utf-8" in item:
        path = _read_path(item[b"path.utf-8"], is_strict=True)
    if not path:
        path = _read_path(item.get(b"path"), is_strict=False)
    entry = read_attributes(item, path or (), offset)
    if path:
        return replace(entry, is_pad=True) if is_named_pad(entry) else entry
    if entry.is_pad:  # BEP 47: clients should not require the path of a pad
        return FileEntry((".pad", str(entry.length)), entry.length, offset, is_pad=True)
    if path is not None:
        raise MetainfoError("'path' is empty")
    raise MetainfoError(
        "'path' is missing" if b"path" not in item else "'path' is no list of strings"
    )


def is_named_pad(entry: FileEntry) -> bool:
    """
    Tell whether a file has the name of a pad.

    Interop: BitComet marks pads of v1 lists in no other way, and once wrote them to disk: such a
    file of a v2 tree is one like any other.
    """
    return bool(entry.path) and entry.path[-1].startswith(_BITCOMET_PAD)


def _read_path(value: Value | None, *, is_strict: bool) -> tuple[str, ...] | None:
    """Return path elements as text; None when that is no path or, if strict, no UTF-8."""
    if not isinstance(value, list):
        return None
    if len(value) > MAX_PATH_DEPTH:
        raise MetainfoError(f"path has more than {MAX_PATH_DEPTH} elements")
    errors = "strict" if is_strict else "surrogateescape"
    try:
        return tuple([element.decode("utf-8", errors) for element in value])  # type: ignore[union-attr]
    except (AttributeError, UnicodeDecodeError):
        return None  # an element that is no string has no decode


def read_attributes(item: dict[bytes, Value], path: tuple[str, ...], offset: int) -> FileEntry:
    """
    Read length, ``attr`` and hints of one file dictionary, v1 or v2.

    Raises:
        MetainfoError: no usable length; the text lacks the place.

    Source: BEP 47.
    """
    length = item.get(b"length")
    attr = item.get(b"attr")
    target = None
    if attr is None or not isinstance(attr, bytes):
        attr = b""
    elif b"l" in attr:
        value = item.get(b"symlink path")
        target = _read_path(value, is_strict=False) or ()
        if value and isinstance(value, list) and not target:
            raise MetainfoError("'symlink path' is no list of strings")
        if length is None:
            length = 0  # BEP 47: it may be left out
        elif length != 0:
            raise MetainfoError("a symlink has a length")
    if not isinstance(length, int):
        raise MetainfoError("'length' is missing" if length is None else "'length' is no integer")
    if length < 0:
        raise MetainfoError("'length' is negative")
    if length > MAX_TOTAL_LENGTH:
        raise MetainfoError("'length' is above 2^48 - 1")
    sha1 = item.get(b"sha1")
    mtime = item.get(b"mtime")
    return FileEntry(
        path,
        length,
        offset,
        b"p" in attr,
        b"x" in attr,
        b"h" in attr,
        target,
        None,
        sha1 if isinstance(sha1, bytes) and len(sha1) == 20 else None,
        mtime if isinstance(mtime, int) else None,
    )
