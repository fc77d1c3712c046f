"""
What one torrent has on disk: found out at the start, kept safe while it runs.

Verified means that the hash matched what was handed to the operating system;
kept means that a sync came after that and the journal knows. Between the two
lies one checkpoint, every half minute or 64 MiB.

Source: threats.md F5, F7, F8, F9.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bittern.core.bitfield import Bitfield
from bittern.core.errors import StorageError
from bittern.core.geometry import Geometry
from bittern.core.ids import InfoHash
from bittern.engine.services import Services
from bittern.engine.store.check import Check, Checked
from bittern.engine.store.content import Content
from bittern.engine.store.journal import Journal
from bittern.engine.store.records import read_partial, with_partial
from bittern.storage.abandoned import OPENED_STEP
from bittern.storage.base import FileStamp
from bittern.storage.checker import check_pieces
from bittern.storage.resume import Checkpoint, Resumed, ResumeRecord

log: logging.Logger = logging.getLogger(__name__)


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
    is_whole: bool = True
    """False when hashing was stopped: pieces that are missing in ``have`` may be good."""
    can_go_on: bool = False
    """The journal knows how far hashing had come when it was stopped."""


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
        self._is_saved = False
        self._kept = Bitfield(geometry.num_pieces)
        self._on_trust = 0
        """Pieces that a person alone vouches for, as bits. The journal must not say that they are
        there, nor that they are not: while there are any, it is told nothing."""
        self.piece_is_bad: Callable[[int], object] = lambda _: None
        """Hears of a piece that the disk has lost although it was verified (F3)."""
        self._has_failed = False
        """A sync has failed: what is verified from then on, or was not kept by then, is hashed
        once more before it is kept, since the disk may have dropped any of it (F3)."""
        self._is_busy = False
        self._next_at = services.loop.time() + services.config.checkpoint_interval

    # --- the start -----------------------------------------------------------------------

    async def find(
        self,
        resumed: Resumed | None,
        *,
        skip_check: bool,
        force_check: bool,
        progress: Callable[[int], None],
        is_stopped: Callable[[], bool],
    ) -> Found:
        """
        Find out what is on disk: from the journal where it can be trusted, else by hashing.

        Args:
            resumed: what the journal knows of it.
            skip_check: take everything for there, unverified; the journal hears of none of it
                until all has been hashed, as before an upload.
            force_check: trust nothing.
            progress: told on the loop how many pieces have been hashed.
            is_stopped: asked from threads; True ends hashing early.

        Raises:
            StorageError: a file is there but cannot be read.
            Inconsistent: the halves of a hybrid want different bytes.
        """
        downloaded = 0 if resumed is None else resumed.downloaded
        uploaded = 0 if resumed is None else resumed.uploaded
        if resumed is not None:
            added_at, opened_at = resumed.record.added_at, resumed.record.opened_at
            if self._record.opened_at - opened_at >= OPENED_STEP:
                opened_at = self._record.opened_at
            self._record = replace(self._record, added_at=added_at, opened_at=opened_at)
            await self._services.disk.run(lambda: self._mark_unsynced(resumed))
        full = Bitfield.full(self._geometry.num_pieces)
        known = Found(0, 0, {}, downloaded, uploaded)
        if skip_check:
            self._on_trust = full.bits & ~await self._proven(resumed)
            if self._on_trust and resumed is not None and resumed.have is not None:
                await self._forget()
            found = replace(known, have=full.bits, unverified=full.bits)
        elif resumed is not None and not force_check and await self._is_credible(resumed):
            found = await self._trust(resumed, progress, is_stopped)
        else:
            found = await self._hash(full, known, progress, is_stopped, is_told=False)
        if self._journal is not None:
            if found.is_whole or found.can_go_on:
                await self._journal.save(self._record, self._metainfo)
                self._is_saved = True
            if not found.is_whole:
                self._journal = None  # it has heard how far the check has come, if that could be
        return found

    async def _forget(self) -> None:
        """Drop what the journal says of other files, or of these as they were once."""
        if self._journal is not None:
            await self._journal.forget([self._info_hash])

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
        if (have or resumed.unchecked) and len(resumed.stamps) != len(stamps):
            return False
        if not self._may_hold(have, stamps):
            return False
        if resumed.suspects and not resumed.unchecked:
            # It ended without saying so: times may be newer, but nothing may be missing. While
            # it was being checked nothing was written, nor by a session that had other torrents.
            return all(
                then is None
                or then == now
                or (not resumed.is_settled and now is not None and now.length >= then.length)
                for then, now in zip(resumed.stamps, stamps, strict=False)
            )
        return all(then == now for then, now in zip(resumed.stamps, stamps, strict=False))

    def _may_hold(self, have: Bitfield, stamps: Sequence[FileStamp | None]) -> bool:
        """
        Tell whether files are there, and long enough for the pieces that they are said to hold.

        One that somebody has removed or cut while we ran had no other stamp at the end.
        """
        layout, piece_length = self._content.layout, self._geometry.piece_length
        for index, entry in enumerate(layout.files):
            stamp = stamps[index]
            length = 0 if stamp is None else stamp.length
            if length >= entry.length or not layout.is_stored(index):
                continue
            pieces = layout.pieces_of_file(index)
            bits = have.bits >> (have.top - pieces[-1]) & (1 << len(pieces)) - 1
            if bits:
                last = pieces[-1] + 1 - (bits & -bits).bit_length()
                if length < min(entry.length, (last + 1) * piece_length - entry.offset):
                    return False
        return True

    async def _proven(self, resumed: Resumed | None) -> int:
        """Return, as bits, what the journal knows of these very files, wherever they are now."""
        have = None if resumed is None else resumed.have
        if resumed is None or have is None or have.num_pieces != self._geometry.num_pieces:
            return 0
        stamps = await self._services.disk.run(self._stamps)
        is_same = not resumed.suspects and stamps == resumed.stamps and self._may_hold(have, stamps)
        return have.bits if is_same else 0

    async def _trust(
        self, resumed: Resumed, progress: Callable[[int], None], is_stopped: Callable[[], bool]
    ) -> Found:
        assert resumed.have is not None
        doubtful = Bitfield(self._geometry.num_pieces)
        for pieces in (resumed.suspects, resumed.unchecked):
            doubtful.bits |= pieces.bits if pieces else 0
        if resumed.unchecked and self._content.hashes.has_v2:
            # What the check found bad before it was cut short: blocks of it may be good (BEP 52).
            doubtful.bits |= Bitfield.full(self._geometry.num_pieces).bits & ~resumed.have.bits
        trusted = self._kept.bits = resumed.have.bits & ~doubtful.bits
        partial = {} if doubtful else read_partial(resumed.record, self._geometry)
        known = Found(trusted, trusted, partial, resumed.downloaded, resumed.uploaded)
        if not doubtful:
            return known
        # A checkpoint will say what has become of suspects: thousands of torrents that start
        # have it together. Until then they are suspects, and no less is known.
        is_told = not resumed.unchecked
        num_before = 0 if is_told else self._geometry.num_pieces - len(doubtful)
        return await self._hash(
            doubtful, known, progress, is_stopped, is_told=is_told, num_before=num_before
        )

    async def _hash(
        self,
        pieces: Bitfield,
        known: Found,
        progress: Callable[[int], None],
        is_stopped: Callable[[], bool],
        *,
        is_told: bool,
        num_before: int = 0,
    ) -> Found:
        """
        Hash pieces; the journal hears of it now and then, and when it is stopped.

        Args:
            pieces: to be hashed.
            known: what is known of the others.
            progress: see ``find``.
            is_stopped: see ``find``.
            is_told: there is no need to tell the journal at the end.
            num_before: pieces that the check has seen when it was cut short.
        """
        content = self._content
        # From before the first piece is read: whoever changes a file meanwhile changes its stamp.
        stamps, is_started = await self._services.disk.run(
            lambda: (self._stamps(), content.is_started)
        )

        async def keep(checked: Checked) -> None:
            have, rest = known.have | checked.have, checked.rest or None
            found = self._checkpoint_of(have, known.downloaded, known.uploaded)
            if self._journal is not None:
                record = self._record
                await self._keep(replace(found, stamps=stamps, unchecked=rest, record=record))

        async def note(checked: Checked) -> bool:
            try:
                await keep(checked)
            except StorageError as error:
                log.warning("progress of the check of %s: %s", self._info_hash, error)
                return False
            return self._journal is not None

        check = Check(
            self._services,
            content,
            self._geometry,
            progress=progress,
            is_stopped=is_stopped,
            note=note,
        )
        nothing = Checked(0, (), Bitfield(0))
        checked = await check.run(pieces, num_before=num_before) if is_started else nothing
        if not checked.rest and (checked.was_noted or not is_told):
            await keep(checked)
        return replace(
            known,
            have=known.have | checked.have,
            damaged=checked.damaged,
            is_whole=not checked.rest,
            can_go_on=bool(checked.rest) and checked.was_noted,
        )

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
            found = self._checkpoint_of(have, downloaded, uploaded)
            await self._keep(replace(found, is_settled=False))
        except StorageError as error:
            # The last checkpoint holds: what came after it is hashed again next time (F3).
            log.warning("checkpoint of %s: %s", self._info_hash, error)
        finally:
            self._is_busy = False
            loop = self._services.loop
            self._next_at = loop.time() + self._services.config.checkpoint_interval

    def _checkpoint_of(self, have: int, downloaded: int, uploaded: int) -> Checkpoint:
        """Return a checkpoint while nothing is being written."""
        return Checkpoint(
            info_hash=self._info_hash,
            have=Bitfield(self._geometry.num_pieces, have),
            downloaded=downloaded,
            uploaded=uploaded,
            is_settled=True,
        )

    async def _keep(self, checkpoint: Checkpoint) -> None:
        """Sync, then tell the journal; stamps are those of that moment where there are none."""
        storage = self._content.storage
        try:
            await self._services.disk.run(storage.sync, lane=storage)
        except StorageError:
            self._has_failed = True
            raise
        have = checkpoint.have.bits
        if self._has_failed:
            have = await self._hash_again(have, tells=not checkpoint.is_settled)
        before, self._kept.bits = self._kept.bits, have
        try:
            assert self._journal is not None
            stamps = checkpoint.stamps or await self._services.disk.run(self._stamps)
            await self._journal.commit(replace(checkpoint, have=self._kept.copy(), stamps=stamps))
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

    def _stamps(self) -> tuple[FileStamp | None, ...]:
        storage = self._content.storage
        return tuple(
            None if entry.is_pad else storage.stat_file(index)
            for index, entry in enumerate(self._content.layout.files)
        )

    @property
    def has_kept_metainfo(self) -> bool:
        """True when the state folder has all that is known of the metainfo."""
        return self._is_saved and self._new_metainfo is None

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
            record = self._record
            if not self._on_trust:
                if partial and not self._has_failed:
                    record = with_partial(record, partial)
                found = self._checkpoint_of(have, downloaded, uploaded)
                await self._keep(replace(found, record=record))
            await self._journal.save(record, self._new_metainfo)
        except StorageError as error:
            log.warning("last checkpoint of %s: %s", self._info_hash, error)
