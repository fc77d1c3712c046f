"""
Whether the volume that holds a torrent's files is there.

A disk that is not connected, or a share that was not mounted, leaves its mount point behind, an
empty folder of another volume, or nothing. What was on it is not gone, and must not be fetched
anew into that folder (Limit: F6). So it is remembered where the volume was mounted, and files that
are missing are taken for removed only while something is mounted there.

Numbers tell less: those of devices change from boot to boot with USB, networks and containers,
those of folders with FAT and FUSE, and the root of a volume has the same on most.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bittern.core.errors import VolumeMissing
from bittern.storage.base import FileStamp
from bittern.storage.names import part_paths


def volume_of(folder: Path) -> Path:
    """Return where the volume is mounted that a folder is on, or will be once it is made."""
    place = os.path.realpath(folder)  # of a link to nothing, where it leads
    while not is_mount_point(place):
        place = os.path.dirname(place)  # noqa: PTH120 - text, as each start of a torrent asks
    return Path(place)


def is_mounted(volume: Path) -> bool:
    """Tell whether a volume is mounted at ``volume``, whichever it is."""
    if not is_mount_point(str(volume)):
        return False
    try:
        # Windows takes every letter for a drive; and this mounts what is mounted on demand.
        with os.scandir(volume):
            return True
    except PermissionError:  # nobody may list it, or there is no medium in the drive
        return os.path.isdir(volume)  # noqa: PTH112 - no error
    except OSError:
        return False


def is_mount_point(place: str) -> bool:
    """Tell whether a path without links is that of the root of a volume, or of all."""
    parent = os.path.dirname(place)  # noqa: PTH120
    if sys.platform == "win32" or parent == place:
        return os.path.ismount(place) or parent == place
    try:
        return os.lstat(place).st_dev != os.lstat(parent).st_dev
    except (OSError, ValueError):
        return False


def volume_missing(volume: Path) -> VolumeMissing:
    """Return the error that says that nothing is mounted at ``volume``."""
    return VolumeMissing("the volume that holds its files is not mounted", path=str(volume))


def are_elsewhere(
    root: Path,
    paths: Sequence[tuple[str, ...]],
    stamps: Sequence[FileStamp | None],
    *,
    part_suffix: str | None,
) -> bool:
    """
    Tell whether files are not, or not all, below the folder that a volume made them be in once.

    They are there without it if somebody has copied them to where it was mounted.

    Args:
        root: the folder.
        paths: of the files below it, by index.
        stamps: as they were then, by index.
        part_suffix: what files may have at the end of their names that are not complete.

    Returns:
        False as well if there never was anything in them.
    """
    incomplete = paths if part_suffix is None else part_paths(paths, part_suffix)
    return any(
        stamp.length > max(_length(root, path), _length(root, part))
        for path, part, stamp in zip(paths, incomplete, stamps, strict=False)
        if stamp is not None
    )


def _length(root: Path, path: tuple[str, ...]) -> int:
    try:
        return root.joinpath(*path).stat().st_size
    except (OSError, ValueError):
        return 0
