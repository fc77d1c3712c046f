"""
The .torrent files of a state folder, each named by its torrent's info hash.

They are there so that nobody has to be asked again for what was here once: the
metadata of a magnet link, piece layers, all that a torrent at rest has put away.
One is kept as soon as its info dictionary is verified, with the piece layers that
are known by then. A hybrid that was added by its v2 hash alone is found under that
too: ``HASH.alias`` holds the name of its file.

What is read back is as good as the disk: compare the info hash after decoding.

Limits: P6, F9.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bittern.core.ids import InfoHash
from bittern.storage.base import storage_error
from bittern.storage.whole_file import write_whole

MAX_METAINFO_LENGTH: Final = 64 << 20
"""Limit: P6. Bytes of a .torrent file that is kept; a longer one could not be read back."""

_NAME: Final = re.compile(rb"[0-9a-f]{40}\.torrent")


class KeptTorrents:
    """
    The one described in the module's text.

    Args:
        folder: where they are; made, for its owner only, if it is missing.
        make_room: called when the disk is full; True when there is more room now.

    Raises:
        StorageError: the folder cannot be made.
    """

    def __init__(self, folder: Path, make_room: Callable[[], bool]) -> None:
        self._folder = folder
        self._make_room = make_room
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise storage_error(error, folder) from error

    def path_of(self, info_hash: InfoHash) -> Path:
        """Return where the .torrent file of a torrent is kept, if it is."""
        return self._folder / f"{info_hash}.torrent"

    def _alias_path(self, info_hash: InfoHash) -> Path:
        return self._folder / f"{info_hash}.alias"

    def load(self, info_hash: InfoHash) -> bytes | None:
        """
        Return the .torrent file as it was saved; None if there is none, or one that is too long.

        Args:
            info_hash: the torrent's wire hash, or an alias.

        Raises:
            StorageError: it is there and cannot be read.
        """
        path = self.path_of(info_hash)
        if not path.exists():
            path = self._folder / self._read_alias(info_hash)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_METAINFO_LENGTH + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, path) from error
        return data if len(data) <= MAX_METAINFO_LENGTH else None

    def _read_alias(self, info_hash: InfoHash) -> str:
        path = self._alias_path(info_hash)
        try:
            with path.open("rb") as file:
                name = file.read(100)
        except OSError:
            name = b""
        return name.decode() if _NAME.fullmatch(name) else self.path_of(info_hash).name

    def save(self, info_hash: InfoHash, metainfo: bytes, *, alias: InfoHash | None = None) -> None:
        """
        Keep a .torrent file, durably.

        Nothing happens when it is kept already, or is longer than one may be.

        Args:
            info_hash: the torrent's wire hash.
            metainfo: the file.
            alias: another of its hashes, under which it is looked for.

        Raises:
            StorageError: it was not kept; an older one is still there.
        """
        path = self.path_of(info_hash)
        if len(metainfo) > MAX_METAINFO_LENGTH:
            return
        self._write(path, metainfo)
        if alias is not None and alias != info_hash:
            self._write(self._alias_path(alias), path.name.encode())

    def _write(self, path: Path, data: bytes) -> None:
        if _has_content(path, data):
            return
        try:
            try:
                write_whole(path, data)
            except OSError:
                if not self._make_room():
                    raise
                write_whole(path, data)
        except OSError as error:
            raise storage_error(error, path) from error

    def forget(self, info_hash: InfoHash) -> None:
        """Remove what is kept under a hash; StorageError if it is still there."""
        for path in (self.path_of(info_hash), self._alias_path(info_hash)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error(error, path) from error

    def forget_lost_aliases(self) -> None:
        """Remove aliases of files that are not there any more; StorageError if that fails."""
        try:
            for path in self._folder.glob("*.alias"):
                if not (self._folder / path.read_text("ascii", "replace")[:100]).is_file():
                    path.unlink()
        except OSError as error:
            raise storage_error(error, self._folder) from error


def _has_content(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False
