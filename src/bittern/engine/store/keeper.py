"""
What one torrent has on disk: found out at the start, kept safe while it runs.

Verified means that the hash matched what was handed to the operating system;
kept means that a sync came after that and the journal knows. Between the two
lies one checkpoint, every half minute or 64 MiB.

Source: threats.md F5, F7, F8, F9.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from bittern.core.bitfield import Bitfield
from bittern.core.errors import ConfigError, StorageError
from bittern.core.geometry import Geometry
from bittern.core.ids import InfoHash
from bittern.engine.services import Services
from bittern.engine.store.content import Content
from bittern.engine.store.journal import Journal
from bittern.storage.base import FileStamp
from bittern.storage.checker import check_pieces
from bittern.storage.renaming import parse_path
from bittern.storage.resume import Checkpoint, Resumed, ResumeRecord
from bittern.storage.resume_rows import Json

log: logging.Logger = logging.getLogger(__name__)

PROGRESS_INTERVAL = 0.1
"""Seconds between two reports of a check: each wakes the loop, and the threads that hash wait."""
_RENAMES = "renames"
"""Option of a record: by index, the paths of files that a person has named."""
_PARTIAL = "partial"
"""Option of a record: blocks of pieces that were in progress at a clean end."""


@dataclass(frozen=True, slots=True)
class Found:
    """
    What is on disk.

    ``have`` are good pieces, ``unverified`` those of them that were not hashed
    in this session, both as bits; ``partial`` the blocks of pieces in progress;
    the totals are those of earlier sessions; of ``damaged`` pieces some blocks may be good.
    """

    have: int
    unverified: int
    partial: Mapping[int, list[int]] = field(default_factory=dict)
    downloaded: int = 0
    uploaded: int = 0
    damaged: tuple[int, ...] = ()


class Keeper:
    """
    The one described in the module's text.

    Args:
        services: of the session.
        journal: None for a session that keeps nothing.
        info_hash: the torrent's wire hash.
        content: of the torrent.
        geometry: of the torrent.
        record: as it is to be kept.
        metainfo: the .torrent file, kept beside the record.
    """

    def __init__(
        self,
        services: Services,
        journal: Journal | None,
        *,
        info_hash: InfoHash,
        content: Content,
        geometry: Geometry,
        record: ResumeRecord,
        metainfo: bytes,
    ) -> None:
        self._services = services
        self._journal = journal
        self._info_hash = info_hash
        self._content = content
        self._geometry = geometry
        self._record = record
        self._metainfo = metainfo
        self._new_metainfo: bytes | None = None
        """A .torrent file that is not kept yet."""
        self._kept = Bitfield(geometry.num_pieces)
        self._on_trust = 0
        """Pieces that a person alone vouches for, as bits. The journal must not say that they are
        there, nor that they are not: while there are any, it is told nothing."""
        self.piece_is_bad: Callable[[int], object] = lambda _: None
        """Hears of a piece that the disk has lost although it was verified (F3)."""
        self._has_failed = False
        """A sync has failed: what is verified from then on, or was not kept by then, is hashed
        once more before it is kept, since the disk may have dropped any of it (F3)."""
        self._was_cut_short = False
        """Hashing was stopped before its end."""
        self._is_busy = False
        self._next_at = services.loop.time() + services.config.checkpoint_interval

    # --- the start -----------------------------------------------------------------------

    async def find(
        self,
        *,
        skip_check: bool,
        force_check: bool,
        progress: Callable[[int], None],
        is_stopped: Callable[[], bool],
    ) -> Found:
        """
        Find out what is on disk: from the journal where it can be trusted, else by hashing.

        Args:
            skip_check: take everything for there, unverified; the journal hears of none of it
                until all has been hashed, as before an upload.
            force_check: trust nothing.
            progress: told on the loop how many pieces have been hashed.
            is_stopped: asked from threads; True ends hashing early.

        Raises:
            StorageError: a file is there but cannot be read.
            Inconsistent: the halves of a hybrid want different bytes.
        """
        resumed = None if self._journal is None else await self._journal.find(self._info_hash)
        downloaded = 0 if resumed is None else resumed.downloaded
        uploaded = 0 if resumed is None else resumed.uploaded
        if resumed is not None:
            self._record = replace(self._record, added_at=resumed.record.added_at)
            await self._services.disk.run(lambda: self._mark_unsynced(resumed))
        is_trusted = False
        if skip_check:
            full = Bitfield.full(self._geometry.num_pieces).bits
            self._on_trust = full & ~await self._proven(resumed)
            found = Found(full, full, {}, downloaded, uploaded)
        elif resumed is not None and not force_check and await self._is_credible(resumed):
            found, is_trusted = await self._trust(resumed, progress, is_stopped), True
        else:
            have, damaged = await self._hash(None, progress, is_stopped)
            found = Found(have, 0, {}, downloaded, uploaded, damaged)
        if self._journal is not None:
            if self._on_trust and resumed is not None and resumed.have is not None:
                # It was about other files, or about these as they were once.
                await self._journal.forget([self._info_hash])
            await self._journal.save(self._record, self._metainfo)
            if self._was_cut_short:
                # That says nothing of the rest, so the journal keeps what it had.
                self._journal = None
            elif is_trusted:
                # A checkpoint will say what has become of suspects, when thousands of torrents
                # start not one by one; until then they are suspects, and no less is known.
                self._kept.bits = found.unverified
            elif not self._on_trust:
                await self._sync(found.have, found.downloaded, found.uploaded, is_settled=True)
        return found

    def _mark_unsynced(self, resumed: Resumed) -> None:
        """Have files synced that a process before us was writing to when it was killed (F8)."""
        if resumed.have is not None and resumed.suspects:
            num_pieces, layout = self._geometry.num_pieces, self._content.layout
            written = resumed.have.missing_from(resumed.suspects)
            self._content.storage.mark_unsynced(
                index
                for piece in written
                if piece < num_pieces
                for index in layout.files_of_piece(piece)
            )

    async def _is_credible(self, resumed: Resumed) -> bool:
        """Tell whether files are where and as they were at the last checkpoint (F5, F9)."""
        have, record = resumed.have, resumed.record
        if have is None or have.num_pieces != self._geometry.num_pieces:
            return False
        if record.save_path != self._record.save_path or record.paths != self._record.paths:
            return False
        stamps = await self._services.disk.run(self._stamps)
        if have and len(resumed.stamps) != len(stamps):
            return False
        if resumed.suspects:
            # It ended without saying so: times may be newer, but nothing may be missing.
            return all(
                then is None or (now is not None and now.length >= then.length)
                for then, now in zip(resumed.stamps, stamps, strict=False)
            )
        return all(then == now for then, now in zip(resumed.stamps, stamps, strict=False))

    async def _proven(self, resumed: Resumed | None) -> int:
        """Return, as bits, what the journal knows of these very files, wherever they are now."""
        have = None if resumed is None else resumed.have
        if resumed is None or have is None or have.num_pieces != self._geometry.num_pieces:
            return 0
        stamps = await self._services.disk.run(self._stamps)
        return 0 if resumed.suspects or tuple(stamps) != resumed.stamps else have.bits

    async def _trust(
        self, resumed: Resumed, progress: Callable[[int], None], is_stopped: Callable[[], bool]
    ) -> Found:
        assert resumed.have is not None
        suspects = resumed.suspects or Bitfield(self._geometry.num_pieces)
        trusted = resumed.have.bits & ~suspects.bits
        hashed, damaged = await self._hash(suspects, progress, is_stopped) if suspects else (0, ())
        partial = {} if suspects else _read_partial(resumed.record, self._geometry)
        return Found(
            trusted | hashed, trusted, partial, resumed.downloaded, resumed.uploaded, damaged
        )

    async def _hash(
        self,
        pieces: Bitfield | None,
        progress: Callable[[int], None],
        is_stopped: Callable[[], bool],
    ) -> tuple[int, tuple[int, ...]]:
        """Return the good pieces, as bits, and the damaged ones."""
        loop, content = self._services.loop, self._content
        num_wanted = self._geometry.num_pieces if pieces is None else len(pieces)
        told_at = -math.inf

        def progressed(num_checked: int) -> None:
            nonlocal told_at
            now = loop.time()
            if now < told_at + PROGRESS_INTERVAL and num_checked < num_wanted:
                return
            told_at = now
            if not loop.is_closed():
                loop.call_soon_threadsafe(progress, num_checked)

        def check() -> tuple[int, tuple[int, ...], int]:
            if not content.is_started:
                return 0, (), num_wanted
            result = check_pieces(
                content.storage,
                content.layout,
                self._geometry,
                content.hashes,
                pieces=pieces,
                num_threads=self._services.config.hashing_threads,
                progress=progressed,
                is_stopped=is_stopped,
            )
            return result.have.bits, result.damaged, result.num_checked

        have, damaged, num_checked = await self._services.disk.run(check)
        self._was_cut_short = num_checked < num_wanted
        return have, damaged

    # --- while it runs -------------------------------------------------------------------

    def pieces_opened(self, pieces: list[int]) -> None:
        """Note pieces before their first block arrives."""
        if self._journal is not None:
            self._journal.pieces_opened(self._info_hash, pieces)

    def hashed_all_but(self, unverified: int) -> None:
        """Hear which pieces, as bits, have still not been hashed in this session."""
        self._on_trust &= unverified

    def tick(self, have: int, *, downloaded: int, uploaded: int, now: float) -> None:
        """Make a checkpoint when one is due and something is new."""
        if self._journal is None or self._is_busy or self._on_trust:
            return
        num_new = (have & ~self._kept.bits).bit_count()
        is_much = num_new * self._geometry.piece_length >= self._services.config.checkpoint_length
        if have != self._kept.bits and (is_much or now >= self._next_at):
            self._is_busy = True
            self._services.spawn(
                self._checkpoint(have, downloaded, uploaded), f"checkpoint {self._info_hash}"
            )

    async def _checkpoint(self, have: int, downloaded: int, uploaded: int) -> None:
        try:
            await self._sync(have, downloaded, uploaded, is_settled=False)
        except StorageError as error:
            # The last checkpoint holds: what came after it is hashed again next time (F3).
            log.warning("checkpoint of %s: %s", self._info_hash, error)
        finally:
            self._is_busy = False
            loop = self._services.loop
            self._next_at = loop.time() + self._services.config.checkpoint_interval

    async def _sync(self, have: int, downloaded: int, uploaded: int, *, is_settled: bool) -> None:
        storage = self._content.storage
        try:
            await self._services.disk.run(storage.sync, lane=storage)
        except StorageError:
            self._has_failed = True
            raise
        if self._has_failed:
            have = await self._hash_again(have, tells=not is_settled)
        before, self._kept.bits = self._kept.bits, have
        try:
            await self._commit(downloaded, uploaded, is_settled=is_settled)
        except StorageError:
            # The journal does not know of them, so the next checkpoint tries again.
            self._kept.bits = before
            raise

    async def _hash_again(self, have: int, *, tells: bool) -> int:
        """Return ``have`` without the pieces, not kept yet, that are not on disk after all."""
        content = self._content
        new = Bitfield(self._geometry.num_pieces, have & ~self._kept.bits)

        def check() -> int:
            return check_pieces(
                content.storage,
                content.layout,
                self._geometry,
                content.hashes,
                pieces=new,
                num_threads=self._services.config.hashing_threads,
            ).have.bits

        lost = new.bits & ~await self._services.disk.run(check, lane=content.storage)
        for index in Bitfield(self._geometry.num_pieces, lost if tells else 0):
            self.piece_is_bad(index)
        return have & ~lost

    async def _commit(self, downloaded: int, uploaded: int, *, is_settled: bool) -> None:
        assert self._journal is not None
        stamps = await self._services.disk.run(self._stamps)
        checkpoint = Checkpoint(
            info_hash=self._info_hash,
            have=self._kept.copy(),
            downloaded=downloaded,
            uploaded=uploaded,
            stamps=tuple(stamps),
            is_settled=is_settled,
        )
        await self._journal.commit(checkpoint)

    def _stamps(self) -> list[FileStamp | None]:
        storage = self._content.storage
        return [
            None if entry.is_pad else storage.stat_file(index)
            for index, entry in enumerate(self._content.layout.files)
        ]

    def keep_metainfo(self, metainfo: bytes) -> None:
        """Keep a .torrent file that has become whole."""
        self._new_metainfo = metainfo
        if self._journal is not None:
            self._services.spawn(self._save(metainfo), f"metainfo of {self._info_hash}")

    async def _save(self, metainfo: bytes) -> None:
        assert self._journal is not None
        try:
            await self._journal.save(self._record, metainfo)
        except StorageError as error:
            log.warning("metainfo of %s: %s", self._info_hash, error)
        else:
            self._new_metainfo = None

    async def finish(
        self, have: int, partial: Mapping[int, list[int]], *, downloaded: int, uploaded: int
    ) -> None:
        """Keep everything at a clean end, blocks of pieces in progress too."""
        if self._journal is None:
            return
        try:
            options = dict(self._record.options)
            if not self._on_trust:
                await self._sync(have, downloaded, uploaded, is_settled=True)
                if partial and not self._has_failed:
                    options[_PARTIAL] = {str(k): v for k, v in partial.items()}
            await self._journal.save(replace(self._record, options=options), self._new_metainfo)
        except StorageError as error:
            log.warning("last checkpoint of %s: %s", self._info_hash, error)


def make_record(
    info_hash: InfoHash,
    name: str,
    root: Path,
    paths: list[tuple[str, ...]],
    added_at: float,
    renames: Mapping[int, str] = MappingProxyType({}),
) -> ResumeRecord:
    """Return the record of a torrent whose files are below ``root``, some under other names."""
    return ResumeRecord(
        info_hash=info_hash,
        name=name,
        save_path=str(root),
        paths=tuple(paths),
        added_at=added_at,
        options=with_renames({}, renames),
    )


def with_renames(options: Mapping[str, Json], renames: Mapping[int, str]) -> dict[str, Json]:
    """Return a record's options with the names that a person has given to files."""
    others = {name: value for name, value in options.items() if name != _RENAMES}
    kept = {str(index): path for index, path in renames.items()}
    return {**others, _RENAMES: kept} if kept else others


def read_renames(record: ResumeRecord) -> dict[int, str]:
    """Return the names that a record has for files; none where they are no safe names."""
    stored = record.options.get(_RENAMES)
    found: dict[int, str] = {}
    for text, path in stored.items() if isinstance(stored, Mapping) else ():
        if not (text.isascii() and text.isdigit() and len(text) < 8 and isinstance(path, str)):
            return {}
        try:
            parse_path(path)
        except ConfigError:
            return {}
        found[int(text)] = path
    return found


def _read_partial(record: ResumeRecord, geometry: Geometry) -> dict[int, list[int]]:
    """Return the blocks that a record names, without those that do not exist."""
    stored = record.options.get(_PARTIAL)
    if not isinstance(stored, Mapping):
        return {}
    found: dict[int, list[int]] = {}
    for text, numbers in stored.items():
        if not (text.isascii() and text.isdigit() and len(text) < 8) or not isinstance(
            numbers, list | tuple
        ):
            continue
        index = int(text)
        if index < geometry.num_pieces:
            limit = geometry.num_blocks(index)
            found[index] = [n for n in numbers if isinstance(n, int) and 0 <= n < limit]
    return found
