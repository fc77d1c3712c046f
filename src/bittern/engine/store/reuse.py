"""
Files that a new torrent can take from other torrents of the session, or from given folders.

Here it is found out where such files might be; verifying and taking them is the
business of ``storage.reuse``. Whoever wants one version of a collection to follow
another gives the folder of the old one as ``TorrentConfig.reuse_from``, or keeps
both in one session: unchanged files are taken, only the others are fetched. A torrent
that is at work already hears of each file that another one completes.

Which files are likely the same, their fingerprints tell (``codec.fingerprints``): the roots of
v2, and in v1 the hashes of the pieces inside a file where both torrents cut it alike.

Source: BEP 52 (a root names a file, whatever torrent it is in).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Set
from pathlib import Path
from typing import Protocol

from bittern.codec.fingerprints import fingerprints
from bittern.codec.info import Info
from bittern.codec.metainfo import Metainfo
from bittern.core.bitfield import Bitfield
from bittern.core.errors import BitTorrentError
from bittern.engine.config import TorrentConfig
from bittern.engine.shelf import Shelf
from bittern.engine.store.content import Content
from bittern.engine.store.disk import Disk
from bittern.storage.reuse import Reuse, ReuseResult

Locate = Callable[[Metainfo, TorrentConfig], Awaitable[Content]]
"""Works out where a torrent's files are."""


class Donor(Protocol):
    """What is read of another torrent of the session."""

    shelf: Shelf
    config: TorrentConfig

    @property
    def have_bits(self) -> int:
        """The pieces it has, as bits of a ``Bitfield``."""


class Lender(Protocol):
    """What is read of a torrent that has just completed a file."""

    shelf: Shelf

    def path_of(self, index: int) -> Path | None:
        """Return where a file is; None when it is not at work."""


class Taker(Protocol):
    """A torrent that may lack a file which another one has."""

    shelf: Shelf
    config: TorrentConfig

    @property
    def is_complete(self) -> bool:
        """True when it lacks nothing."""

    def take_file(self, names: Set[bytes], path: Path) -> None:
        """Take what it lacks of the files with one of some fingerprints."""


def offer_file(lender: Lender, index: int, takers: Iterable[Taker]) -> None:
    """
    Tell of a complete file those that may want it.

    Args:
        lender: whose file it is.
        index: of the file.
        takers: the torrents of the session.
    """
    names = frozenset(fingerprints(lender.shelf.metainfo().info, index))
    path = lender.path_of(index)
    if not names or path is None:
        return
    us: object = lender
    marks = Shelf.marks_of(names)
    for taker in takers:
        if taker is us or taker.is_complete or not taker.config.reuse_session:
            continue
        if taker.shelf.may_hold(marks):
            taker.take_file(names, path)


async def reuse_files(
    have: int,
    content: Content,
    info: Info,
    config: TorrentConfig,
    reuse: Reuse,
    *,
    disk: Disk,
    donors: Iterable[Donor],
    locate: Locate,
) -> ReuseResult:
    """
    Take what a torrent lacks from elsewhere, as far as its settings allow.

    Args:
        have: what is there already, as bits of a ``Bitfield``.
        content: of the torrent.
        info: of the torrent.
        config: of the torrent: ``reuse_from``, ``reuse_session``, ``files``.
        reuse: made for the torrent.
        disk: of the session.
        donors: the other torrents of the session; read only if something is lacking.
        locate: works out where their files are.

    Returns:
        What is there now, and the files taken.

    Raises:
        StorageError: our own side cannot be written.
        Inconsistent: the halves of a hybrid want different bytes (P13).
    """
    lacking = reuse.lacking(have, config.files)
    if not lacking:
        return ReuseResult((), have)
    others = list(donors) if config.reuse_session else []
    known = await _find_in_session(lacking, info, others, disk, locate)
    if not known and not config.reuse_from:
        return ReuseResult((), have)

    def take() -> ReuseResult:
        content.storage.prepare(())
        return reuse.take(have, wanted=config.files, folders=config.reuse_from, known=known)

    return await disk.run(take)


async def _find_in_session(
    lacking: Iterable[int],
    info: Info,
    donors: Iterable[Donor],
    disk: Disk,
    locate: Locate,
) -> dict[int, list[Path]]:
    """Return where complete files are that may be lacking ones, by index of the latter."""
    wanted: dict[bytes, list[int]] = {}
    for index in lacking:
        for name in fingerprints(info, index):
            wanted.setdefault(name, []).append(index)
    known: dict[int, list[Path]] = {}
    marks = Shelf.marks_of(wanted)
    for donor in donors if wanted else ():
        if not donor.have_bits or not donor.shelf.may_hold(marks):
            continue
        try:
            metainfo = await disk.run(donor.shelf.metainfo)
            place = await locate(metainfo, donor.config)
        except BitTorrentError:
            continue  # its files or its metainfo are gone: that is its own affair
        have = Bitfield(metainfo.info.geometry.num_pieces, donor.have_bits)
        for number in range(len(metainfo.info.files)):
            shared = [name for name in fingerprints(metainfo.info, number) if name in wanted]
            if shared and all(piece in have for piece in place.layout.pieces_of_file(number)):
                path = place.storage.path_of(number)
                for index in dict.fromkeys(index for name in shared for index in wanted[name]):
                    known.setdefault(index, []).append(path)
    return known
