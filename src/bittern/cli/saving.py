"""
How a .torrent file is written, and ``--save-torrent``: that of what a magnet link led to.

The latter is written as soon as everything that belongs into it is known; of v2 torrents that
includes the piece layers, which come from peers after the metadata.

Sources: BEP 9, BEP 52.
"""

from __future__ import annotations

import os
from pathlib import Path

from bittern.cli.exits import CommandFailed, ExitCode
from bittern.codec.metainfo import Metainfo, format_metainfo
from bittern.storage.file_paths import current_os, paths_of
from bittern.storage.hashing import PieceHashes
from bittern.storage.names import sanitise


class TorrentSaver:
    """
    Writes one .torrent file, once.

    Args:
        place: the file, or a folder that is there, in which it gets the torrent's name.
    """

    def __init__(self, place: Path) -> None:
        self.path: Path | None = None
        """Where it was written; None before."""
        self._place = place

    def offer(self, metainfo: Metainfo | None) -> bool:
        """
        Write the file if that was not done yet and everything is known; True if so now.

        Raises:
            OSError: it cannot be written; names it.
        """
        if self.path is not None or metainfo is None:
            return False
        if PieceHashes(metainfo.info, metainfo.piece_layers).missing_layers():
            return False
        path = self._place
        if path.is_dir():
            (first, *_) = next(each for each in paths_of(metainfo.info) if each)
            path /= sanitise(f"{first}.torrent", current_os())
        write_atomically(path, format_metainfo(metainfo))
        self.path = path
        return True


def write_atomically(target: Path, data: bytes) -> None:
    """
    Write a file so that nobody ever sees half of it.

    Raises:
        OSError: it cannot be written; names it, and nothing is left behind.
    """
    part = target.with_name(f".bittern.{os.getpid()}.part")  # its own may be as long as can be
    try:
        try:
            part.unlink(missing_ok=True)
            with part.open("xb") as file:  # and not through a link that somebody has put there
                file.write(data)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error


def check_place(place: Path | None, num_sources: int) -> None:
    """
    Refuse a place that cannot be written to, before anything is downloaded.

    Raises:
        CommandFailed: one file for several torrents, its folder is not there, or something
            that is no .torrent would be replaced, a device among others.
    """
    if place is None or place.is_dir():
        return
    if num_sources > 1:
        raise CommandFailed("--save-torrent: name a folder for several torrents", ExitCode.USAGE)
    if not place.absolute().parent.is_dir():
        raise CommandFailed(f"{place.parent}: no such folder", ExitCode.NOT_FOUND)
    if place.exists() and place.suffix.lower() != ".torrent":
        raise CommandFailed(f"{place}: exists and is no .torrent", ExitCode.NOT_ALLOWED)
