"""Moving a torrent's content to another folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bittern.engine.awake import locate
from bittern.engine.config import TorrentConfig
from bittern.engine.shelf import Shelf
from bittern.engine.torrent_services import TorrentServices


async def move_content(
    services: TorrentServices, shelf: Shelf, config: TorrentConfig, output: Path
) -> TorrentConfig:
    """
    Move what a torrent has on disk, by renaming or else by copying; nothing is overwritten.

    Args:
        services: of the session.
        shelf: of the torrent, which must not be at work.
        config: says where it is.
        output: the folder that is to hold its file or folder; made if it is missing.

    Returns:
        The settings with the new place. The journal knows it as well, so that nothing is hashed
        again after a rename.

    Raises:
        StorageError: nothing was moved, or the text says what is left where.
    """
    moved = replace(
        config,
        output=output,
        data_path=None if config.data_path is None else output / config.data_path.name,
    )
    if not shelf.has_metainfo:
        return moved
    metainfo = shelf.metainfo()
    old = await locate(services, metainfo, config)
    new = await locate(services, metainfo, moved)
    root = new.storage.root
    await services.disk.run(lambda: old.storage.move(root, new.paths))
    journal = services.journal
    known = None if journal is None else await journal.find(metainfo.info.wire_hash)
    if journal is not None and known is not None:
        record = replace(known.record, save_path=str(root), paths=tuple(new.paths))
        await journal.save(record)
    return moved
