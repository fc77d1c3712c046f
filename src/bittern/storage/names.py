r"""
Safe names: what a torrent calls its files, turned into what we call them on disk.

One pure function, ``sanitise``, serves every source of names: .torrent files,
metadata from peers, file trees of v2, resume data, renaming. It maps one
component to one component, so a layout never shifts and never climbs out of
its folder. ``safe_paths`` applies it to a whole torrent and keeps apart what
would fall together on the volume. Both are deterministic: the same torrent,
rules and volume give the same paths, whatever happened before.

What is done to a component:

===========================  ==============================================
what                         becomes
===========================  ==============================================
empty, ``.``, ``..``         ``_``
``/`` and ``\``               ``_`` each, on every system
control characters           ``_`` each (C0, DEL, C1)
bidirectional, zero width    dropped: they only change what one sees
lone surrogates              ``_`` each (bytes that were no UTF-8)
``:``                        ``_`` on darwin and windows
``< > " | ? *``              ``_`` each on windows
trailing dots and spaces     ``_`` each on windows
``CON``, ``NUL``, ``COM1``.. ``_`` put in front, on windows, any extension
more than 255 UTF-8 bytes    cut to 240, extension kept
===========================  ==============================================

Sources: BEP 3 (path), BEP 52 (sanitising is ours to do), BEP 47 (pads).
Limit: P8, P9, P10.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from typing import Final, Literal, Protocol

from bittern.core.errors import UnsafePath

TargetOs = Literal["posix", "darwin", "windows"]
"""Whose rules a name must obey; "posix" is Linux and the BSDs."""

MAX_NAME_LENGTH: Final = 255
"""UTF-8 bytes of one component that every common file system takes."""

CUT_LENGTH: Final = 240
"""Limit: P9. What a longer component is cut to, as in libtorrent; leaves room for suffixes."""

MAX_DEPTH: Final = 101
"""Limit: P1. Components of one path, the torrent's name included, as the metainfo allows."""

_MAX_EXTENSION_LENGTH: Final = 16

_NUMBER_LENGTH: Final = 11
"""Bytes that names are cut by to make room for a number: eight digits, and what is around them."""

# Invisible characters and those that change the direction of writing; no letter needs them.
_INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_CONTROL: Final = "\x00-\x1f\x7f-\x9f\u2028\u2029/\\\\\ud800-\udfff"
_FORBIDDEN: Final[dict[TargetOs, re.Pattern[str]]] = {
    "posix": re.compile(f"[{_CONTROL}]"),
    "darwin": re.compile(f"[{_CONTROL}:]"),
    "windows": re.compile(f'[{_CONTROL}:<>"|?*]'),
}
_LEADING_OUT: Final = frozenset("/\0")
_LEADING_OUT_ON_WINDOWS: Final = frozenset("/\\:\0")
_TRAILING: Final = re.compile("[. ]+$")
_DEVICES: Final = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CLOCK$", "CONIN$", "CONOUT$"]
    + [port + digit for port in ("COM", "LPT") for digit in "0123456789\u00b9\u00b2\u00b3"]
)
_ESCAPED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class NamedFile(Protocol):
    """What ``safe_paths`` reads of a file entry."""

    @property
    def path(self) -> tuple[str, ...]:
        """Components as the torrent has them, without the torrent's name."""

    @property
    def is_pad(self) -> bool:
        """True for padding (BEP 47), which is never stored."""


def sanitise(component: str, target_os: TargetOs) -> str:
    """
    Turn one component of an untrusted path into one that is safe to use.

    Args:
        component: any text at all.
        target_os: whose rules apply; not necessarily this machine's.

    Returns:
        A name of 1 to 255 UTF-8 bytes that is no ``.`` or ``..``, holds no separator
        and no invisible or control character. Safe names come back unchanged, so
        applying it twice changes nothing more.
    """
    if not component.isascii():
        component = _INVISIBLE.sub("", component)
    name = _FORBIDDEN[target_os].sub("_", component)
    if target_os == "windows" and name.partition(".")[0].rstrip(" ").upper() in _DEVICES:
        name = "_" + name
    if len(name) > MAX_NAME_LENGTH // 4 and len(name.encode()) > MAX_NAME_LENGTH:
        stem, extension = _split_extension(name)
        name = _head(stem, CUT_LENGTH - len(extension.encode())) + extension
    if target_os == "windows":
        name = _TRAILING.sub(lambda found: "_" * len(found[0]), name)
    return "_" if name in ("", ".", "..") else name


def check_component(component: str, *, on_windows: bool = os.name == "nt") -> None:
    """
    Refuse a component that could lead out of its folder.

    This is the check for names that a person chose or that were sanitised
    before: it changes nothing.

    Raises:
        UnsafePath: empty, ``.``, ``..``, or with a separator, a NUL or, on Windows, a
            drive or stream (``:``) in it.
    """
    forbidden = _LEADING_OUT_ON_WINDOWS if on_windows else _LEADING_OUT
    if component in ("", ".", "..") or not forbidden.isdisjoint(component):
        raise UnsafePath("not a plain file name", path=component)


def safe_paths(
    info_name: str,
    files: Sequence[NamedFile],
    target_os: TargetOs,
    folds_case: bool,
    *,
    folds_normalisation: bool | None = None,
    is_single_file: bool = False,
) -> list[tuple[str, ...]]:
    """
    Choose the paths of all files of a torrent below its output folder.

    Two files never get one path, and no path is both a file and a folder: what
    comes later in the torrent gets a number, as ``name (1).ext``. Folders that
    fall together on the volume are merged.

    Args:
        info_name: the torrent's name; first component of every path.
        files: the torrent's files in order.
        target_os: whose names are allowed.
        folds_case: the volume takes ``A`` and ``a`` for one name.
        folds_normalisation: the volume takes composed and decomposed letters for one
            name; None for "as macOS does when it folds case".
        is_single_file: the only file is called ``info_name`` and has no folder.

    Returns:
        One path per file, by index; ``()`` for a pad, which has no place on disk.

    Raises:
        UnsafePath: a path has more than ``MAX_DEPTH`` components.

    O(components of all paths), whatever the names.
    """
    if folds_normalisation is None:
        folds_normalisation = folds_case and target_os == "darwin"
    if is_single_file:
        return [() if entry.is_pad else (sanitise(info_name, target_os),) for entry in files]
    chooser = _Chooser(target_os, folds_case, folds_normalisation)
    return [
        () if entry.is_pad else chooser.choose((info_name, *(entry.path or ("",))))
        for entry in files
    ]


class _Chooser:
    """
    The names given out so far, as a tree of folders.

    A folder is a number; 0 is the one that holds everything. ``_taken`` maps
    (folder, folded name) to the folder of that name, or to ``_FILE``.
    """

    _FILE = -1

    def __init__(self, target_os: TargetOs, folds_case: bool, folds_normalisation: bool) -> None:
        self._target_os: TargetOs = target_os
        self._folds_case = folds_case
        self._folds_normalisation = folds_normalisation
        self._taken: dict[tuple[int, str], int] = {}
        self._renamed: dict[tuple[int, str], int] = {}
        self._counters: dict[tuple[int, str], int] = {}
        self._names = [""]
        # Files of one folder mostly follow one another.
        self._last_raw: tuple[str, ...] = ()
        self._last_folder = 0
        self._last_safe: tuple[str, ...] = ()

    def choose(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """Return a path for a file that nothing else has."""
        if len(path) > MAX_DEPTH:
            raise UnsafePath(f"path of {len(path)} components, limit {MAX_DEPTH}")
        if path[:-1] != self._last_raw:
            self._enter(path[:-1])
        name = sanitise(path[-1], self._target_os)
        key = (self._last_folder, self._fold(name))
        if key in self._taken:
            name, key = self._numbered(self._last_folder, name)
        self._taken[key] = self._FILE
        return (*self._last_safe, name)

    def _enter(self, raw: tuple[str, ...]) -> None:
        folder = 0
        safe = []
        for raw_name in raw:
            folder = self._folder_in(folder, raw_name)
            safe.append(self._names[folder])
        self._last_raw, self._last_folder, self._last_safe = raw, folder, tuple(safe)

    def _folder_in(self, parent: int, raw_name: str) -> int:
        name = sanitise(raw_name, self._target_os)
        key = (parent, self._fold(name))
        known = self._taken.get(key)
        if known is not None and known != self._FILE:
            return known
        if known == self._FILE:
            # A file has the name already: every mention of this folder gets the same other one.
            if (parent, raw_name) in self._renamed:
                return self._renamed[parent, raw_name]
            self._renamed[parent, raw_name] = len(self._names)
            name, key = self._numbered(parent, name)
        self._taken[key] = len(self._names)
        self._names.append(name)
        return self._taken[key]

    def _numbered(self, folder: int, name: str) -> tuple[str, tuple[int, str]]:
        stem, extension = _split_extension(name)
        stem = _head(stem, MAX_NAME_LENGTH - _NUMBER_LENGTH - len(extension.encode()))
        # One counter for all names that are cut to the same, so each of them costs one step.
        counter = folder, self._fold(stem + extension)
        number = self._counters.get(counter, 0)
        while True:
            number += 1
            tried = f"{stem} ({number}){extension}"
            tried_key = (folder, self._fold(tried))
            if tried_key not in self._taken:
                self._counters[counter] = number
                return tried, tried_key

    def _fold(self, name: str) -> str:
        return fold_name(name, self._folds_case, self._folds_normalisation)


def fold_name(name: str, folds_case: bool, folds_normalisation: bool) -> str:
    """Return what all names have in common that a volume takes for the same (P10)."""
    if name.isascii():
        return name.lower() if folds_case else name
    if folds_normalisation:
        name = unicodedata.normalize("NFD", name)
    if folds_case:
        name = name.casefold()
        if folds_normalisation:
            name = unicodedata.normalize("NFD", name)
    return name


def _split_extension(name: str) -> tuple[str, str]:
    stem, dot, extension = name.rpartition(".")
    if not stem.strip(".") or len(extension.encode()) > _MAX_EXTENSION_LENGTH:
        return name, ""
    return stem, dot + extension


def _head(text: str, length: int) -> str:
    """Return as much of ``text`` as fits into ``length`` UTF-8 bytes, whole characters only."""
    data = text.encode(errors="surrogatepass")
    return text if len(data) <= length else data[:length].decode(errors="ignore")


def part_paths(paths: Sequence[tuple[str, ...]], suffix: str) -> list[tuple[str, ...]]:
    """
    Choose the paths that files have until they are complete; case tells no two of them apart.

    Args:
        paths: the final ones, by index, ``()`` for what is not stored.
        suffix: as ``.part``; followed by a number where the result would be the path of
            another file, or of a folder.

    O(components of all paths), whatever the names.
    """
    folders: dict[tuple[int, str], int] = {}
    numbers = [_folder_number(path[:-1], folders) for path in paths]
    taken = {
        (number, path[-1].casefold()) for number, path in zip(numbers, paths, strict=True) if path
    }
    taken |= folders.keys()
    counters: dict[tuple[int, str], int] = {}
    room = MAX_NAME_LENGTH - len(suffix.encode())
    chosen: list[tuple[str, ...]] = []
    for folder, path in zip(numbers, paths, strict=True):
        if not path:
            chosen.append(())
            continue
        name = _head(path[-1], room) + suffix
        if (folder, name.casefold()) in taken:
            stem = _head(path[-1], room - _NUMBER_LENGTH)
            counter = folder, stem.casefold()
            number = counters.get(counter, 0)
            while (folder, name.casefold()) in taken:
                number += 1
                name = f"{stem}{suffix}{number}"
            counters[counter] = number
        taken.add((folder, name.casefold()))
        chosen.append((*path[:-1], name))
    return chosen


def _folder_number(path: tuple[str, ...], folders: dict[tuple[int, str], int]) -> int:
    """Return the number of a folder, 0 for the outermost; ``folders`` is a tree and grows."""
    number = 0
    for part in path:
        number = folders.setdefault((number, part.casefold()), len(folders) + 1)
    return number


def display_name(text: str) -> str:
    r"""
    Return ``text`` with everything escaped that could deceive or steer a terminal.

    Control characters, invisible and direction-changing ones, line separators and
    lone surrogates become ``\x1b``, ``\u202e`` and the like; all else stays, so
    it is for people, not for reading back. Limit: P9, W11.
    """
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return "".join(
        _escape(char)
        if unicodedata.category(char) in _ESCAPED_CATEGORIES or _INVISIBLE.match(char)
        else char
        for char in text
    )


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
