"""
Where a torrent's data lies, from what a person typed after ``--data``.

The path may be the folder that holds the torrent's file or folder, or that
file or folder itself, whatever it is called now.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bittern.cli.exits import CommandFailed, ExitCode
from bittern.codec.info import Info
from bittern.storage.file_paths import Folding, current_os, paths_of, usual_folding

_RULES: tuple[Folding | None, ...] = (
    None,
    Folding(case=True, normalisation=False),
    Folding(case=True, normalisation=False, refuses=True),
    Folding(case=True, normalisation=True),
    Folding(case=False, normalisation=False, refuses=True),
    Folding(case=False, normalisation=False),
)


@dataclass(frozen=True, slots=True)
class DataPlace:
    """
    A place of data.

    Args:
        output: the folder that holds the torrent's own file or folder.
        data_path: the file or folder itself, when its name is not the torrent's.
        folding: how the names of the files were chosen; None for as is usual here.
    """

    output: Path
    data_path: Path | None = None
    folding: Folding | None = None

    def renames(self, info: Info) -> dict[int, str]:
        """
        Return the paths of files, by index, that other rules would give another name.

        Also of those that are called as is usual here, where Windows refuses that: where names are
        given, nobody goes on with those that were found in an earlier run. What falls together on
        a volume is left to who asks the volume.
        """
        refusing = usual_folding(current_os())._replace(refuses=True)
        others = refusing if self.folding is None else None
        top = None if self.data_path is None else self.data_path.name
        return {
            index: "/".join(path if top is None else (top, *path[1:]))
            for index, (path, other) in enumerate(
                zip(paths_of(info, self.folding), paths_of(info, others), strict=True)
            )
            if path != other
        }


def find_data(info: Info, path: Path) -> DataPlace:
    """
    Find the data of a torrent at or below ``path``.

    A folder is taken both ways where both are possible, and the way that finds more
    files of the right length wins. So do the names of the files that were chosen on another
    volume, or by another system, where files have not the names that they would have here.

    Raises:
        CommandFailed: ``path`` is not there, or is a file for a torrent with a folder.
    """
    if not path.exists():
        raise CommandFailed(f"{path}: no such file or folder", ExitCode.NOT_FOUND)
    if not path.is_dir():
        if not info.is_single_file:
            raise CommandFailed(f"{path}: a file, but the torrent holds a folder")
        return _named(path, next(stored for stored in paths_of(info) if stored)[0])
    best, most = DataPlace(path), -1
    everything = sum(
        entry.length + 1
        for entry in info.files
        if not entry.is_pad and entry.symlink_target is None
    )
    for folding in _RULES:
        place, found = _find_in(info, path, folding)
        if found > most:
            best, most = place, found
        if most == everything:
            break
    return best


def _find_in(info: Info, path: Path, folding: Folding | None) -> tuple[DataPlace, int]:
    """Return where the data is by some rules for names, and how much of it is there."""
    paths = paths_of(info, folding)
    inside = _matching_length(info, paths, path)
    if info.is_single_file:
        return DataPlace(path, folding=folding), inside
    as_folder = _matching_length(info, [stored[1:] for stored in paths], path)
    if as_folder > inside:
        name = next((stored[0] for stored in paths if stored), info.name)
        return replace(_named(path, name), folding=folding), as_folder
    return DataPlace(path, folding=folding), inside


def _named(path: Path, name: str) -> DataPlace:
    """Return the place of a file or folder that should be called ``name``, or that a link is to."""
    # Below its folder nothing is reached over links; this one the user names.
    whole = Path(os.path.realpath(path)) if path.is_symlink() else path.absolute()
    return DataPlace(whole.parent, None if whole.name == name else whole)


def _matching_length(info: Info, paths: Sequence[tuple[str, ...]], folder: Path) -> int:
    """Count the files, weighed by length, that are there in the right length."""
    found = 0
    for entry, stored in zip(info.files, paths, strict=True):
        if stored and entry.symlink_target is None and _length(folder, stored) == entry.length:
            found += entry.length + 1
    return found


def is_whole(info: Info, folder: Path, wanted: frozenset[int] | None) -> bool:
    """
    Tell whether every file is in its place below a folder, in the right length.

    Args:
        info: of the torrent.
        folder: where its file or folder would be.
        wanted: the files that count, by index; None for all.
    """
    return all(
        _length(folder, stored) == entry.length
        for index, (entry, stored) in enumerate(zip(info.files, paths_of(info), strict=True))
        if stored and entry.symlink_target is None and (wanted is None or index in wanted)
    )


def _length(folder: Path, stored: tuple[str, ...]) -> int | None:
    try:
        return folder.joinpath(*stored).stat().st_size
    except (OSError, UnicodeEncodeError):  # storage says which and why
        return None
