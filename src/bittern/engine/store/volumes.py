"""
The volume that a torrent's files are on, and what becomes of a torrent without it.

Where the journal knows of files on a volume that is not mounted now, nothing is made or fetched in
their place: the torrent is in error until the volume is there, or a person has what is here checked
all the same (``Torrent.recheck``), which fetches the rest anew. Files that are missing on a volume
that is there were removed, and are fetched.

Source: threats.md F6.
"""

from __future__ import annotations

from pathlib import Path

from bittern.core.errors import BitTorrentError, VolumeMissing
from bittern.core.ids import InfoHash
from bittern.engine.store.disk import Disk
from bittern.engine.store.journal import Journal
from bittern.engine.store.records import read_volume
from bittern.storage.mounts import are_elsewhere, is_mounted, volume_missing, volume_of
from bittern.storage.resume import Resumed


async def look_up(
    disk: Disk,
    journal: Journal | None,
    info_hash: InfoHash,
    root: Path,
    *,
    part_suffix: str | None,
    is_forced: bool = False,
) -> tuple[Resumed | None, Path]:
    """
    Find out what the journal knows of a torrent, and which volume its folder is on now.

    Args:
        disk: of the session.
        journal: None for a session that keeps nothing.
        info_hash: the torrent's wire hash.
        root: the folder that its files are to be below; the journal may know of another.
        part_suffix: see ``SessionConfig``.
        is_forced: go on without a volume that is missing.

    Raises:
        VolumeMissing: the files were on a volume that is not mounted, and are not here without it.
    """
    known = None if journal is None else await journal.find(info_hash)

    def look() -> Path:
        if known is not None and not is_forced:
            _check(known, root, part_suffix)
        return volume_of(root)

    return known, await disk.run(look)


def _check(known: Resumed, root: Path, part_suffix: str | None) -> None:
    record, volume = known.record, read_volume(known.record)
    if volume is None or record.save_path != str(root) or is_mounted(volume):
        return
    if are_elsewhere(root, record.paths or (), known.stamps, part_suffix=part_suffix):
        raise volume_missing(volume)


async def is_mended(disk: Disk, error: BitTorrentError | None) -> bool:
    """Tell whether it is worth a try to go on after an error: not while its volume is missing."""
    if not isinstance(error, VolumeMissing) or error.path is None:
        return True
    volume = Path(error.path)
    # One after the other: a server that does not answer is to keep one thread, not all.
    return await disk.run(lambda: is_mounted(volume), lane=error.path)
