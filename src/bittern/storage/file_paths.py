"""
The paths of a torrent's files on this machine.

``storage.names`` knows the rules; here it is said which of them hold: those of the
system that we run on, and of the volume that the files are on. Imports little, since
``bittern info`` shows paths too. Limit: P10.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from bittern.codec.info import Info
from bittern.storage.names import TargetOs, safe_paths


class Folding(NamedTuple):
    """Which names a volume takes for the same, and which for none; ``storage.volume`` asks it."""

    case: bool
    """``A`` and ``a``."""
    normalisation: bool
    """Composed and decomposed letters."""
    refuses: bool = False
    """It refuses ``a?`` and ``a:b`` on every system, as the volumes of Windows do."""


def current_os() -> TargetOs:
    """Return whose rules for names apply on this machine."""
    if sys.platform == "win32":
        return "windows"
    return "darwin" if sys.platform == "darwin" else "posix"


def usual_folding(target_os: TargetOs) -> Folding:
    """Return what the volumes of a system usually take for the same name."""
    return Folding(target_os != "posix", target_os == "darwin")


def paths_of(info: Info, folding: Folding | None = None) -> list[tuple[str, ...]]:
    """
    Return the path of every file of a torrent below its output folder.

    Args:
        info: of the torrent.
        folding: of the volume; None for what this system's usually have.

    Returns:
        One path per file, by index; ``()`` for a pad, which has no place on disk.
    """
    target_os = current_os()
    folds = folding or usual_folding(target_os)
    if folds.refuses:
        target_os = "windows"
    return safe_paths(
        info.name,
        info.files,
        target_os,
        folds.case,
        folds_normalisation=folds.normalisation,
        is_single_file=info.is_single_file,
    )
