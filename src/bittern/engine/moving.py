"""Moving a torrent's content to another folder, and giving its files other names."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from bittern.core.errors import ConfigError, StorageError
from bittern.core.ids import InfoHash
from bittern.engine.awake import locate, look_for, root_of
from bittern.engine.config import TorrentConfig
from bittern.engine.shelf import Shelf
from bittern.engine.store.content import Content, check_choice
from bittern.engine.store.disk import Disk
from bittern.engine.store.journal import Journal
from bittern.engine.store.records import read_renames, with_renames, with_volume
from bittern.engine.torrent_services import TorrentServices
from bittern.engine.undisturbed import undisturbed
from bittern.storage.mounts import volume_of

log: logging.Logger = logging.getLogger(__name__)


class MovedTorrent(Protocol):
    """What is read of a torrent whose content moves, and told to it."""

    config: TorrentConfig
    shelf: Shelf


def in_folder(config: TorrentConfig, output: Path) -> TorrentConfig:
    """Return settings with the content in another folder."""
    data_path = None if config.data_path is None else output / config.data_path.name
    return replace(config, output=output, data_path=data_path)


def placed(config: TorrentConfig, moved: TorrentConfig) -> TorrentConfig:
    """Return settings, which may have changed meanwhile, with the place that others have."""
    return replace(config, output=moved.output, data_path=moved.data_path, renames=moved.renames)


def under_name(shelf: Shelf, config: TorrentConfig, index: int, path: str) -> TorrentConfig:
    """
    Return settings with a file under another name.

    Raises:
        ConfigError: there is no such file, or none is known yet; the name is not safe.
    """
    if not shelf.has_metainfo:
        raise ConfigError("the files of this torrent are not known yet")
    changed = replace(config, renames={**config.renames, index: path})
    return check_choice(changed, shelf.metainfo().info)


async def move(
    services: TorrentServices,
    torrent: MovedTorrent,
    change: Callable[[TorrentConfig], TorrentConfig],
) -> None:
    """
    Move what a torrent has on disk, by renaming or else by copying; nothing is overwritten.

    A job that moves files cannot be called back, so whoever is cancelled while he waits for this
    is so when it is over.

    Args:
        services: of the session.
        torrent: must not be at work. Its settings say where it is, and then where it has come to;
            the journal knows that as well, so that nothing is hashed again after a rename.
        change: makes settings that say where it is to be of those that say where it is; folders
            are made where they are missing.

    Raises:
        ConfigError: a name is that of another file; nothing was moved.
        StorageError: nothing was moved, or the text says what is left where; VolumeMissing, while
            the volume is not mounted that it is on.
    """

    async def carry_out() -> None:
        moved = await _move(services, torrent.shelf, torrent.config, change)
        torrent.config = placed(torrent.config, moved)

    await undisturbed(carry_out())


async def _move(
    services: TorrentServices,
    shelf: Shelf,
    config: TorrentConfig,
    change: Callable[[TorrentConfig], TorrentConfig],
) -> TorrentConfig:
    config = await with_kept_names(services, shelf, config)
    moved = change(config)
    if not shelf.has_metainfo:
        return moved
    metainfo = shelf.metainfo()
    await look_for(services, metainfo, config)
    old = await locate(services, metainfo, config)
    new = await locate(services, metainfo, moved)
    root = new.storage.root
    await services.disk.run(lambda: old.storage.move(root, new.paths))
    if services.journal is not None:
        try:
            await _note_place(services.disk, services.journal, metainfo.info.wire_hash, new, moved)
        except StorageError as error:  # the files are there; what is known of them is not found
            log.warning("the new place of %s: %s", shelf.name, error)
    return moved


async def _note_place(
    disk: Disk, journal: Journal, info_hash: InfoHash, content: Content, config: TorrentConfig
) -> None:
    """Keep where a torrent's files are now, if it is known at all."""
    known = await journal.find(info_hash)
    if known is not None:
        root, paths = content.storage.root, tuple(content.paths)
        options = with_renames(known.record.options, config.renames)
        options = with_volume(options, await disk.run(lambda: volume_of(root)))
        record = replace(known.record, save_path=str(root), paths=paths, options=options)
        await journal.save(record)


async def with_kept_names(
    services: TorrentServices, shelf: Shelf, config: TorrentConfig
) -> TorrentConfig:
    """Return settings with the names that files were given in an earlier run, in this place."""
    journal = services.journal
    if journal is None or config.renames or not shelf.has_metainfo:
        return config
    known = await journal.find(shelf.metainfo().info.wire_hash)
    if known is None or not (renames := read_renames(known.record)):
        return config
    is_there = known.record.save_path == str(root_of(config))
    return replace(config, renames=renames) if is_there else config


async def delete_content(services: TorrentServices, shelf: Shelf, config: TorrentConfig) -> None:
    """Remove the files of a torrent that is not at work, and nothing else."""
    if shelf.has_metainfo:
        config = await with_kept_names(services, shelf, config)
        content = await locate(services, shelf.metainfo(), config)
        await services.disk.run(content.storage.delete)
