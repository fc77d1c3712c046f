"""
A folder that follows a mutable torrent (BEP 46): always at the newest version.

``look`` asks the DHT what is the newest, ``update`` fetches it. The next version is put
together in a hidden folder inside the output, out of what is there already: files with
an equal v2 root are taken as they are, files of the same name lend their old content, so
that only pieces that changed come over the network. Everything is verified. Then the
files are renamed into place (``storage.update``), and ``serve`` seeds them.

What is kept, below the output:

    .bittern/TARGET/current.torrent   the version that the folder is at
    .bittern/TARGET/next/HASH/        a version that is being put together
    .bittern/TARGET/next/HASH.torrent its metainfo, once it is known

The newest version that was ever seen is kept in the state folder, so that nobody can take
the folder back to an older one; ``keep_alive`` puts it into the DHT anew, so that a key
outlives the absence of its publisher.

Sources: BEP 44, BEP 46, BEP 52 (a root names a file, whatever torrent it is in).
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bittern.codec.bencode import decode_with_spans
from bittern.codec.info import Info, decode_info
from bittern.codec.magnet import Magnet
from bittern.codec.metainfo import Metainfo, decode_metainfo, encode_metainfo
from bittern.codec.torrent_record import TorrentRecord, Version, decode_record
from bittern.core.endpoint import Endpoint
from bittern.core.errors import (
    BencodeDecodeError,
    KrpcDecodeError,
    MagnetError,
    MetainfoError,
    NotPublished,
    UnsafePath,
)
from bittern.core.ids import InfoHash
from bittern.dht.items import mutable_target
from bittern.engine.config import TorrentConfig
from bittern.engine.mutable import (
    ENOUGH_COPIES,
    PUT_INTERVAL,
    is_sound,
    no_dht,
    put_again,
    resolve,
)
from bittern.engine.opening import MAX_TORRENT_FILE_LENGTH
from bittern.engine.session import Session
from bittern.engine.stats import TorrentStats
from bittern.engine.torrent import Torrent
from bittern.storage.adopt import ReuseHow
from bittern.storage.base import storage_error
from bittern.storage.file_paths import paths_of
from bittern.storage.rooted import FilePath, RootedTree
from bittern.storage.system import OsCalls
from bittern.storage.update import promote_files, stage_files
from bittern.storage.versions import read_version, write_version
from bittern.storage.volume import probe_folding
from bittern.storage.whole_file import write_whole

PRIVATE_FOLDER: Final = ".bittern"
MAX_ABANDONED: Final = 3
"""Versions that were begun and are outdated whose files are kept, for newer ones to take."""
MAX_HANDED_ON: Final = 100
"""Peers of the metadata that the torrent of the files begins with; sources name it more."""


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest version: as it is signed, and what it says."""

    version: Version
    record: TorrentRecord


@dataclass(frozen=True, slots=True)
class Update:
    """What an update took: bytes of blocks received, and of those received in vain."""

    downloaded: int
    wasted: int


class Follower:
    """
    One folder and the key that it follows.

    Args:
        session: fetches; its DHT is asked.
        link: has the public key, and hints.
        output: the folder.
        state_dir: where the newest version is remembered; None remembers nothing.
        config: settings of the torrents, such as peers.
        torrent_added: told of every torrent that is added to the session for this.
    """

    def __init__(
        self,
        session: Session,
        link: Magnet,
        output: Path,
        *,
        state_dir: Path | None = None,
        config: TorrentConfig | None = None,
        torrent_added: Callable[[Torrent], object] = lambda _: None,
    ) -> None:
        if link.public_key is None:
            raise MagnetError("magnet link: no public key")
        self._session = session
        self._link = link
        self._public_key = link.public_key
        self._target = mutable_target(link.public_key, link.salt)
        self._output = output.absolute()
        self._state_dir = state_dir
        self._config = config or TorrentConfig()
        self._torrent_added = torrent_added
        self._private = self._output / PRIVATE_FOLDER / self._target.hex()
        self._put_at = float("-inf")
        self._num_copies = 0
        self._serving: Torrent | None = None
        self._known: list[Endpoint] = []
        """Peers of the torrent whose metadata came last."""
        self.current: Metainfo | None = read_torrent(self._private / "current.torrent")
        """The version that the folder is at, as far as we know."""
        self.newest: Newest | None = self._remembered()
        """The newest version that was ever seen."""

    @property
    def is_current(self) -> bool:
        """True when the folder is at the newest version."""
        return (
            self.newest is not None
            and self.current is not None
            and is_named(self.current.info, self.newest.record)
        )

    @property
    def is_connected(self) -> bool:
        """True when the DHT has somebody to ask."""
        dht = self._session.dht
        return dht is not None and dht.num_nodes > 0

    # --- what is the newest ------------------------------------------------------------------

    async def look(self) -> bool:
        """
        Ask the DHT what is the newest version; true if it is not the one known before.

        Raises:
            ConfigError: the DHT is switched off, or has no socket.
            NotPublished, DhtUnreachable: nothing is known, here or there.
            KrpcDecodeError: what is there names no torrent.
            StorageError: it cannot be remembered.
        """
        dht = self._session.dht
        if dht is None:
            raise no_dht(is_enabled=self._session.config.enable_dht)
        known = self.newest
        self._num_copies = 0
        try:
            found = await resolve(dht, self._public_key, self._link.salt)
        except NotPublished:
            if known is None:
                raise
        else:
            if known is None or found.version.seq >= known.version.seq:
                self._num_copies = found.num_copies
            if known is None or found.version.seq > known.version.seq:
                self.newest = Newest(found.version, found.record)
                self._remember(found.version)
        return self.newest is not known and (
            known is None or self.newest is None or self.newest.record != known.record
        )

    async def keep_alive(self) -> None:
        """Put the newest version anew if the last look found few copies, at most once an hour."""
        now = asyncio.get_running_loop().time()
        dht, newest = self._session.dht, self.newest
        if dht is None or newest is None or self._num_copies > ENOUGH_COPIES:
            return
        if now >= self._put_at + PUT_INTERVAL:
            self._put_at = now
            await put_again(dht, newest.version)

    def _remembered(self) -> Newest | None:
        if self._state_dir is None:
            return None
        version = read_version(self._state_dir, self._target)
        if version is None or not is_sound(version, self._public_key, self._link.salt):
            return None
        try:
            return Newest(version, decode_record(version.value))
        except KrpcDecodeError:
            return None

    def _remember(self, version: Version) -> None:
        if self._state_dir is not None:
            write_version(self._state_dir, self._target, version)

    # --- getting there -----------------------------------------------------------------------

    async def update(self) -> Update:
        """
        Bring the folder to the newest version; cancelled, it goes on there the next time.

        Raises:
            StorageError, MetainfoError, Inconsistent: as ``Torrent.wait_complete``.
        """
        assert self.newest is not None
        record = self.newest.record
        stage = self._private / "next" / record.info_hash.hex()
        metainfo = await self._fetch_metainfo(record, stage)
        # They may come faster than their files do, and the disk would fill up.
        await self._session.forget(await self._session.run_job(lambda: drop_abandoned(stage)))
        info = metainfo.info
        paths, old_paths = await self._session.run_job(lambda: self._prepare(info, stage))
        config = replace(
            self._config,
            output=stage,
            files=None,
            reuse_from=tuple(self._donors(paths, old_paths, stage)),
            reuse_how=ReuseHow.HARDLINK,
        )
        torrent = await self._session.add(metainfo, replace(config, paused=True))
        try:
            self._torrent_added(torrent)
            # The DHT may be a while to name them again, or name others, such as ourselves.
            torrent.add_peers(self._known, "resume")
            await torrent.resume()
            earlier = torrent.stats()
            await torrent.wait_complete()
            done = moved_since(earlier, torrent.stats())
            known = torrent.metainfo or metainfo
        finally:
            await self._session.remove(torrent, keep_state=True)
        await self.stop_serving()
        before, gone = self.current, await self._session.run_job(self._under_way)
        await self._session.run_job(lambda: self._promote(known, stage, paths, old_paths))
        self.current = known
        # Versions come without end; one that comes back is hashed again.
        gone |= set(before.info.all_hashes if before is not None else ())
        await self._session.forget(gone.difference(known.info.all_hashes))
        return done

    async def serve(self, *, is_fresh: bool = False) -> Torrent:
        """
        Seed what is in the folder; what was damaged meanwhile is fetched again.

        Args:
            is_fresh: it was verified a moment ago, so it is not hashed now.
        """
        assert self.current is not None
        await self.stop_serving()
        config = replace(self._config, output=self._output, files=None, skip_check=is_fresh)
        torrent = self._serving = await self._session.add(
            self.current, replace(config, paused=True)
        )
        self._torrent_added(torrent)
        await torrent.resume()
        return torrent

    async def stop_serving(self) -> None:
        """Stop seeding; idempotent."""
        serving, self._serving = self._serving, None
        if serving is not None:
            await self._session.remove(serving, keep_state=True)

    async def _fetch_metainfo(self, record: TorrentRecord, stage: Path) -> Metainfo:
        """Return the metainfo of a version, from peers unless an earlier run had it."""
        self._known = []
        kept = stage.with_name(stage.name + ".torrent")
        found = read_torrent(kept)
        if found is not None and is_named(found.info, record):
            return found
        # No file is wanted yet: first it must be known what can be reused.
        config = replace(self._config, output=stage, files=frozenset(), paused=True)
        torrent = await self._session.add(record.magnet(self._link), config)
        try:
            self._torrent_added(torrent)
            await torrent.resume()
            await torrent.wait_complete()
            metainfo = torrent.metainfo
            # Of those that have answered we have parted with some, as seeds: we want no files yet.
            known = [each for each in torrent.candidates.entries() if not each.failures]
            known.sort(key=lambda each: each.connected_at is None and not each.is_seed)
            self._known = [each.endpoint for each in known[:MAX_HANDED_ON]]
        finally:
            await self._session.remove(torrent, keep_state=True)
        assert metainfo is not None
        await self._session.run_job(lambda: write_torrent(kept, metainfo))
        return metainfo

    def _prepare(self, info: Info, stage: Path) -> tuple[list[FilePath], list[FilePath]]:
        """Make the stage and give it what files of the same name have now; in the worker."""
        calls = OsCalls()
        folder, place = RootedTree(self._output, calls), RootedTree(stage, calls)
        folder.make_root()
        place.make_root()
        paths = self._paths_of(info)
        if any(path[0] == PRIVATE_FOLDER for path in paths):
            raise UnsafePath("a file would be among our own", path=PRIVATE_FOLDER)
        old = {} if self.current is None else self._paths_of(self.current.info)
        changed = [path for path, root in paths.items() if root is None or old.get(path) != root]
        stage_files(folder, place, changed, calls)
        return list(paths), list(old)

    def _under_way(self) -> set[InfoHash]:
        """Return the hashes of versions that were begun, this one and those that were abandoned."""
        found = set()
        for path in (self._private / "next").iterdir():
            with suppress(ValueError):  # not of ours
                found.add(InfoHash.parse(path.stem))
        return found

    def _promote(
        self, metainfo: Metainfo, stage: Path, paths: list[FilePath], old_paths: list[FilePath]
    ) -> None:
        calls = OsCalls()
        promote_files(RootedTree(stage, calls), RootedTree(self._output, calls), paths, old_paths)
        write_torrent(self._private / "current.torrent", metainfo)
        shutil.rmtree(self._private / "next", ignore_errors=True)

    def _paths_of(self, info: Info) -> dict[FilePath, bytes | None]:
        """Return the paths of a version's files below the output, and their v2 roots."""
        paths = paths_of(info, probe_folding(self._output))
        return {
            path: entry.pieces_root
            for path, entry in zip(paths, info.files, strict=True)
            if path and entry.symlink_target is None
        }

    def _donors(self, paths: list[FilePath], old_paths: list[FilePath], stage: Path) -> list[Path]:
        """Return where files of the next version may be: the present one, abandoned ones."""
        tops = dict.fromkeys(self._output / path[0] for path in (*old_paths, *paths))
        others = [
            path for path in stage.parent.iterdir() if path.is_dir() and path.name != stage.name
        ]
        return [path for path in (*tops, *others) if path.exists()]


def drop_abandoned(stage: Path) -> set[InfoHash]:
    """Remove what was begun beside a stage, but for the latest; return the versions removed."""
    others = [path for path in stage.parent.glob("*.torrent") if path.stem != stage.name]
    others.sort(key=lambda path: path.stat().st_mtime)
    gone = set()
    for path in others[:-MAX_ABANDONED]:
        with suppress(ValueError, OSError):
            gone.add(InfoHash.parse(path.stem))  # which fails if it is not of ours
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink()
    return gone


def moved_since(earlier: TorrentStats, now: TorrentStats) -> Update:
    """Return what was received between two looks; a torrent's totals include earlier runs."""
    return Update(now.downloaded - earlier.downloaded, now.wasted - earlier.wasted)


def is_named(info: Info, record: TorrentRecord) -> bool:
    """Tell whether a record means this torrent."""
    if record.info_hash_v2 is not None and record.info_hash_v2 != info.info_hash_v2:
        return False
    return record.v1 is None or record.v1 == info.info_hash


def read_torrent(path: Path) -> Metainfo | None:
    """
    Return metainfo that was kept; None if there is none that can be used.

    A hybrid that came from peers may lack its piece layers, and do without them.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TORRENT_FILE_LENGTH)
    except OSError:
        return None
    try:
        return decode_metainfo(data)
    except MetainfoError:
        pass
    try:
        start, end = decode_with_spans(data).spans[b"info"]
        return Metainfo(decode_info(data[start:end]))
    except (BencodeDecodeError, MetainfoError, KeyError):
        return None


def write_torrent(path: Path, metainfo: Metainfo) -> None:
    """Keep metainfo; StorageError if it cannot be written."""
    layers = metainfo.piece_layers or None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, encode_metainfo(metainfo.info.raw, piece_layers=layers))
    except OSError as error:
        raise storage_error(error, path) from error
