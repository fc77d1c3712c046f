"""
Symbolic links of a torrent: which of them may be made, and with what text.

Links are not made unless a person asks for it. Then only a link to a regular
file of the same torrent is: its text is worked out from our own safe paths,
never taken from the torrent, so it cannot lead anywhere else. Links to folders,
to other links, to nothing and to the outside are left out.

Source: BEP 47 (symlinks). Limit: P11.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from bittern.storage.rooted import FilePath, RootedTree


class LinkedFile(Protocol):
    """What is read of a file entry."""

    @property
    def path(self) -> tuple[str, ...]:
        """Elements below the torrent's folder, as the torrent has them."""

    @property
    def is_pad(self) -> bool:
        """True for padding."""

    @property
    def symlink_target(self) -> tuple[str, ...] | None:
        """Elements below the torrent's folder; None for what is no link."""


class Link(NamedTuple):
    """A link that may be made: the index of the file it leads to, and its text."""

    target: int
    text: str


def plan_links(files: Sequence[LinkedFile], paths: Sequence[FilePath]) -> dict[int, Link]:
    """
    Return the links that may be made, by index.

    Args:
        files: of the torrent.
        paths: where they are below the output folder, by index.
    """
    links = [index for index, entry in enumerate(files) if entry.symlink_target is not None]
    if not links:
        return {}
    targets = {
        entry.path: index
        for index, entry in enumerate(files)
        if entry.symlink_target is None and not entry.is_pad
    }
    found = {}
    for index in links:
        target = targets.get(files[index].symlink_target or ())
        if target is not None and paths[index]:
            found[index] = Link(target, _relative(paths[index][:-1], paths[target]))
    return found


def make_links(
    tree: RootedTree, files: Sequence[LinkedFile], paths: Sequence[FilePath]
) -> list[int]:
    """
    Make the links whose file is there and whose own place is free; return their indices.

    Raises:
        StorageError: one cannot be made.
    """
    made = []
    for index, link in plan_links(files, paths).items():
        if tree.stat(paths[link.target]) is not None and not tree.exists(paths[index]):
            tree.link(paths[index], link.text)
            made.append(index)
    return made


def remove_links(
    tree: RootedTree, files: Sequence[LinkedFile], paths: Sequence[FilePath]
) -> list[FilePath]:
    """Remove the links that ``make_links`` made and return where they were."""
    return [
        paths[index]
        for index, link in plan_links(files, paths).items()
        if tree.read_link(paths[index]) == link.text and tree.unlink(paths[index])
    ]


def _relative(folder: FilePath, path: FilePath) -> str:
    """Return ``path`` as seen from ``folder``."""
    shared = 0
    while shared < min(len(folder), len(path) - 1) and folder[shared] == path[shared]:
        shared += 1
    return "/".join([".."] * (len(folder) - shared) + list(path[shared:]))
