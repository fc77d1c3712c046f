"""
What a maker of a torrent should know about what went into it, and what did not.

A torrent holds files with names that every system can have. What else a folder holds is left
out or becomes something else, and nobody should find that out when the torrent is seeded.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bittern.cli.output import complain
from bittern.codec.info import Info
from bittern.storage.file_paths import paths_of

RENAMED = "stored under another name; rename it, or it cannot be seeded"
FOLLOWED = "a link; it was followed, but is not when seeding"
LEADS_NOWHERE = "a link that leads nowhere; left out"
NO_FILE = "neither a file nor a folder; left out"
EMPTY = "an empty folder; left out"

MAX_EXAMPLES = 3
"""Lines of one kind; the others are counted."""


def warn_of_oddities(path: Path, info: Info, *, keeps_links: bool) -> None:
    """
    Complain about names and things below a path that a torrent cannot have as they are.

    Args:
        path: what the torrent was made of.
        info: of the torrent.
        keeps_links: links were put into it as links.
    """
    found: dict[str, list[str]] = {}
    for name, what in (*_odd_names(info), *_odd_things(path, keeps_links=keeps_links)):
        found.setdefault(what, []).append(name)
    for what, names in found.items():
        for name in names[:MAX_EXAMPLES]:
            complain(f"warning: {name}: {what}")
        if len(names) > MAX_EXAMPLES:
            complain(f"warning: and {len(names) - MAX_EXAMPLES} more: {what}")


def _odd_names(info: Info) -> Iterator[tuple[str, str]]:
    """Find names that are not safe everywhere, so that ours is looked for under another one."""
    for entry, safe in zip(info.files, paths_of(info), strict=True):
        raw = (info.name,) if info.is_single_file else (info.name, *entry.path)
        if safe and safe != raw:
            yield "/".join(raw), RENAMED


def _odd_things(path: Path, *, keeps_links: bool) -> Iterator[tuple[str, str]]:
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            found = Path(folder, name)
            try:
                mode = found.lstat().st_mode
            except OSError:
                continue  # it has gone meanwhile
            if stat.S_ISLNK(mode):
                if not keeps_links:
                    yield str(found), FOLLOWED if found.exists() else LEADS_NOWHERE
            elif not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                yield str(found), NO_FILE
        if not (folders or files):
            yield folder, EMPTY
