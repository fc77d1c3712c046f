"""
The session's resume data, from the event loop.

All calls of the store are made in one lane of the storage worker, as it
demands. Notes of opened pieces are gathered over one turn of the loop, so that
a fast download does not pay a transaction per piece. Checkpoints that come while
others are written wait for those, and make one durable step together.

Source: threats.md F7, F8.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from bittern.codec.magnet import Magnet
from bittern.codec.metainfo import Metainfo, decode_metainfo, format_metainfo
from bittern.core.errors import MetainfoError, StorageError
from bittern.core.ids import InfoHash
from bittern.engine.store.disk import Disk
from bittern.storage.resume import Checkpoint, Resumed, ResumeRecord, ResumeStore

log: logging.Logger = logging.getLogger(__name__)


class Journal:
    """
    Resume data of all torrents of one session; made by ``open``.

    A failure to note something costs a recheck at the next start, so it is logged
    and stops nothing.
    """

    def __init__(self, disk: Disk, store: ResumeStore) -> None:
        self._disk = disk
        self._store = store
        self._opened: dict[InfoHash, set[int]] = {}
        self._is_noting = False
        self._checkpoints: list[tuple[Checkpoint, asyncio.Future[None]]] = []
        self._is_committing = False

    @classmethod
    async def open(cls, disk: Disk, folder: Path) -> Journal:
        """
        Open the store in a state folder.

        Raises:
            StorageError: another session uses it, or it cannot be used at all.
        """
        opened: list[ResumeStore] = []
        try:
            await disk.run(lambda: opened.append(ResumeStore(folder)), lane=folder)
        except asyncio.CancelledError:
            # It is opened all the same, and would keep everybody out of the folder.
            disk.submit(lambda: _give_back(opened), lambda *_: None, lane=folder)
            raise
        journal = cls(disk, opened[0])
        journal._tell_problems()
        return journal

    def _tell_problems(self) -> None:
        problems = self._store.problems
        while problems:
            log.warning("resume data: %s", problems.pop(0))

    async def find(self, info_hash: InfoHash) -> Resumed | None:
        """Return what is known of a torrent from earlier sessions."""
        found = await self._disk.run(lambda: self._store.load(info_hash), lane=self)
        self._tell_problems()
        return found

    async def find_metainfo(self, link: Magnet) -> Metainfo | None:
        """
        Return what is kept of the torrent of a magnet link from earlier sessions.

        Returns:
            Metainfo with the hashes that the link names, maybe without some piece layers; those
            that are there have been checked. None when nobody knows it, or it is damaged.
        """
        return await self._disk.run(lambda: self._find_metainfo(link), lane=self)

    def _find_metainfo(self, link: Magnet) -> Metainfo | None:
        if link.wire_hash is None:
            return None
        try:
            raw = self._store.torrents.load(link.wire_hash)
            found = None if raw is None else decode_metainfo(raw, may_lack_layers=True)
        except (StorageError, MetainfoError) as error:
            log.warning("the metadata kept of %s is fetched anew: %s", link.wire_hash, error)
            return None
        if found is None or (
            link.info_hash not in (None, found.info.info_hash)
            or link.info_hash_v2 not in (None, found.info.info_hash_v2)
        ):
            return None
        return found

    def keep_metainfo(self, link: Magnet, metainfo: Metainfo) -> None:
        """Keep metainfo that has come for a magnet link, whether it has all piece layers or not."""
        wire_hash, alias = metainfo.info.wire_hash, link.wire_hash

        def keep() -> None:
            self._store.torrents.save(wire_hash, format_metainfo(metainfo), alias=alias)

        def done(_: None, error: BaseException | None) -> None:
            if error is not None:
                log.warning("metadata of %s: %s", wire_hash, error)

        self._disk.submit(keep, done, lane=self)

    def metainfo_path(self, info_hash: InfoHash) -> Path:
        """Return where the .torrent file of a saved torrent is."""
        return self._store.torrents.path_of(info_hash)

    async def save(self, record: ResumeRecord, metainfo: bytes | None = None) -> None:
        """Keep a torrent; StorageError if that failed."""
        await self._disk.run(lambda: self._store.save(record, metainfo), lane=self)

    def pieces_opened(self, info_hash: InfoHash, pieces: Iterable[int]) -> None:
        """Note pieces that have been asked for, before their first block arrives."""
        self._opened.setdefault(info_hash, set()).update(pieces)
        if not self._is_noting:
            self._is_noting = True
            self._note_opened()

    def _note_opened(self) -> None:
        opened, self._opened = self._opened, {}

        def note() -> None:
            for info_hash, pieces in opened.items():
                self._store.mark_open(info_hash, sorted(pieces))

        def done(_: None, error: BaseException | None) -> None:
            if error is not None:
                log.warning("resume data: %s", error)
            if self._opened:
                self._note_opened()
            else:
                self._is_noting = False

        self._disk.submit(note, done, lane=self)

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Keep what a torrent has, after its data was synced; StorageError if that failed."""
        done = asyncio.get_running_loop().create_future()
        self._checkpoints.append((checkpoint, done))
        if not self._is_committing:
            self._is_committing = True
            self._commit_all()
        await done

    def _commit_all(self) -> None:
        batch, self._checkpoints = self._checkpoints, []

        def commit() -> None:
            self._store.commit_have([checkpoint for checkpoint, _waiting in batch])

        def done(_: None, error: BaseException | None) -> None:
            for _checkpoint, waiting in batch:
                if waiting.done():
                    continue  # nobody waits any more
                if error is None:
                    waiting.set_result(None)
                else:
                    waiting.set_exception(error)
            if self._checkpoints:
                self._commit_all()
            else:
                self._is_committing = False

        self._disk.submit(commit, done, lane=self)

    async def forget(self, hashes: Iterable[InfoHash]) -> None:
        """Drop all that is kept of a torrent, under whichever of its hashes."""
        names = list(hashes)
        try:
            await self._disk.run(lambda: self._store.forget(names), lane=self)
        except StorageError as error:
            log.warning("resume data: %s", error)

    async def close(self) -> None:
        """End cleanly; the next session trusts what is kept, or looks again if that fails."""
        try:
            await self._disk.run(lambda: self._store.close(clean=True), lane=self)
        except StorageError as error:
            log.warning("resume data: %s", error)


def _give_back(opened: list[ResumeStore]) -> None:
    """Close a store that nobody took; what the session before it left is still to be looked at."""
    for store in opened:
        store.close(clean=False)
