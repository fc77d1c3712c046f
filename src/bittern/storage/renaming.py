"""
Names that a person gives to files of a torrent, in place of those that it brings.

What a stranger calls a file is made safe (``storage.names``); what a person asks for is taken as
it is or refused, with what would be safe in its place. So no later rule changes it. A path is
its elements joined by ``/``, below the output folder, on every system.

Limit: P8, P9, P10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from bittern.core.errors import ConfigError
from bittern.storage.file_paths import Folding, current_os
from bittern.storage.names import MAX_DEPTH, display_name, fold_name, sanitise

FilePath: TypeAlias = tuple[str, ...]


def parse_path(text: str) -> FilePath:
    """
    Return the elements of a path that a person gives.

    Raises:
        ConfigError: one of them is no safe name on this machine, or there are too many.
    """
    path = tuple(text.split("/"))
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"a path of {len(path)} elements, limit {MAX_DEPTH}")
    for name in path:
        safe = sanitise(name, current_os())
        if name != safe:
            shown, safe = display_name(name), display_name(safe)
            raise ConfigError(f"{shown!r} is no safe name for a file; {safe!r} would be one")
    return path


def renamed_paths(
    paths: Sequence[FilePath], renames: Mapping[int, str], folding: Folding
) -> list[FilePath]:
    """
    Return the paths of a torrent's files with some replaced.

    Args:
        paths: below the output folder, by index; () for what has no place on disk.
        renames: by index of a file, its new path.
        folding: which names the volume takes for the same.

    Raises:
        ConfigError: a path is unsafe, its file has no place on disk, or it is on the volume that
            of another file, or a folder of another, or leads through another as if that were one.
    """
    changed = list(paths)
    for index, text in renames.items():
        if not 0 <= index < len(paths) or not paths[index]:
            raise ConfigError(f"file {index} has no place on disk, so it has no name")
        changed[index] = parse_path(text)
    if not renames:  # those of the torrent itself were chosen apart
        return changed
    folded = [
        tuple(fold_name(name, folding.case, folding.normalisation) for name in path)
        for path in changed
    ]
    folders = {path[:depth] for path in folded for depth in range(1, len(path))}
    numbers: dict[FilePath, int] = {}
    for index, path in enumerate(folded):
        if path and (numbers.setdefault(path, index) != index or path in folders):
            name = display_name("/".join(changed[index]))
            raise ConfigError(f"{name!r} is the path of another file of this torrent, or a folder")
    return changed
