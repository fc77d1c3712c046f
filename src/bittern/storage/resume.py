"""
What a session must find again: its torrents, what they have, what was being written.

A state folder holds:

=====================  ======================================================
``resume.db``          SQLite, write-ahead log: records, states, open pieces
``resume.previous.db`` a copy of it, made at each clean end
``torrents/``          see ``kept_torrents``
``reserve``            16 MiB that are given up when the disk is full (F1)
``lock``               see ``statelock``
=====================  ======================================================

The order that makes it safe (Limit: F7, F8) is the caller's to keep:

1. ``mark_open`` before the first write into a piece;
2. write; hash; ``Storage.sync``;
3. ``commit_have`` with what was verified before that sync began; one durable step for as many
   torrents as have something to keep.

Then, whatever kills us: a piece in ``have`` was on stable storage, and a piece
that is complete but was not committed is among the *suspects*, which are
hashed at the next start instead of fetched. Nothing else is.

Every record carries a checksum over its key and content. A record that is
torn, foreign or nonsense costs its torrent a recheck and nobody else anything
(Limit: F9). Records are kept twice; when SQLite itself gives up on the file,
what can be read is saved and the rest taken from the copy.

Calls block: make them in the storage worker, in one lane.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bittern.core.bitfield import Bitfield
from bittern.core.errors import DiskFull, StorageError
from bittern.core.ids import InfoHash
from bittern.storage.abandoned import LOOK_INTERVAL, is_abandoned
from bittern.storage.base import FileStamp
from bittern.storage.kept_torrents import KeptTorrents
from bittern.storage.resume_db import ResumeDatabase
from bittern.storage.resume_rows import (
    Resumed,
    ResumeRecord,
    TorrentState,
    decode_record,
    decode_state,
    encode_record,
    encode_state,
    seal,
    unseal,
)
from bittern.storage.statelock import StateLock

__all__ = ["Checkpoint", "ResumeRecord", "ResumeStore", "Resumed"]

_COPIES: Final = (0, 1)
_OF_KEY: Final = "copy IN (0, 1) AND key=?"
"""Both copies of a record, by their primary key: by ``key`` alone all records would be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """
    What one torrent has.

    Args:
        info_hash: of the torrent.
        have: pieces whose data was verified, and synced since; suspects only once they
            have been hashed.
        downloaded: see TorrentState, as the rest.
        uploaded: see there.
        stamps: see there.
        is_settled: nothing is being written, and all suspects have been hashed, or are
            among ``unchecked``: none stays one.
        unchecked: see TorrentState.
        record: see ``save``: kept with what it is about, or neither is.
    """

    info_hash: InfoHash
    have: Bitfield
    downloaded: int = 0
    uploaded: int = 0
    stamps: tuple[FileStamp | None, ...] = ()
    is_settled: bool = False
    unchecked: Bitfield | None = None
    record: ResumeRecord | None = None


class ResumeStore:
    """
    The resume data of one session.

    Args:
        folder: the state folder; made, for its owner only, if it is missing.
        clock: seconds since 1970.

    Raises:
        StorageError: another process uses the folder (Limit: F18), it was made by a newer
            version (Limit: F20), or it cannot be used.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._clock = clock
        self._lock = StateLock(folder)
        try:
            self.torrents: KeptTorrents = KeptTorrents(folder / "torrents", self._make_room)
            self._database = ResumeDatabase(folder)
            try:
                self.was_clean: bool = self._begin()
                """True when the session before ended with ``close(clean=True)``."""
            except BaseException:
                with contextlib.suppress(StorageError):
                    self._database.close(keep_copy=False)
                raise
        except BaseException:
            self._lock.release()
            raise
        self._is_closed = False

    @property
    def problems(self) -> list[str]:
        """What had to be mended or left out so far, one line each, for the log."""
        return self._database.problems

    def _begin(self) -> bool:
        """Note that a session runs; return whether the one before ended cleanly."""
        with self._database.transaction(durable=True) as run:
            found = run.execute("SELECT value FROM marks WHERE name='clean'").fetchone()
            was_clean = not self._database.was_mended and (found is None or found[0] == 1)
            if not was_clean:
                self._suspect(run)
            run.execute("INSERT OR REPLACE INTO marks VALUES ('clean', 0)")
        return was_clean

    def _suspect(self, run: sqlite3.Connection) -> None:
        """
        Make suspects of what the session before wrote last.

        They stay so until they are settled, however many sessions that takes: a torrent
        may rest all the while.
        """
        run.execute("UPDATE open_pieces SET is_suspect=1")
        for key, *row in run.execute("SELECT key, body, checksum FROM states").fetchall():
            with contextlib.suppress(ValueError):
                recent = decode_state(unseal(key, tuple(row))).recent
                rows = [(key, piece) for piece in recent]
                run.executemany("INSERT OR REPLACE INTO open_pieces VALUES (?, ?, 1)", rows)

    # --- loading -------------------------------------------------------------------------

    def load(self, info_hash: InfoHash) -> Resumed | None:
        """Return one torrent; None if it is not there or unusable, see ``problems``."""
        with self._database.transaction(durable=False) as run:
            return self._load(run, info_hash)

    def _load(self, run: sqlite3.Connection, key: InfoHash) -> Resumed | None:
        record = self._load_record(run, key)
        if record is None:
            return None
        row = run.execute("SELECT body, checksum FROM states WHERE key=?", (key,)).fetchone()
        if row is None:
            return Resumed(record=record)
        try:
            state = decode_state(unseal(key, row))
        except ValueError as error:
            self.problems.append(f"{key}: the stored state is unusable ({error})")
            return Resumed(record=record)
        suspects = self._suspects(run, key, state.have.num_pieces)
        return Resumed(
            record=record,
            have=state.have,
            suspects=suspects,
            downloaded=state.downloaded,
            uploaded=state.uploaded,
            stamps=state.stamps,
            is_settled=state.is_settled and not suspects.bits & ~state.recent.bits,
            unchecked=state.unchecked,
        )

    def _load_record(self, run: sqlite3.Connection, key: InfoHash) -> ResumeRecord | None:
        problem = ""
        for row in _record_rows(run, key):
            try:
                return decode_record(key, unseal(key, row))
            except ValueError as error:
                problem = str(error)
        if problem:
            self.problems.append(f"{key}: the record is unusable ({problem}) and was left out")
        return None

    def _suspects(self, run: sqlite3.Connection, key: bytes, num_pieces: int) -> Bitfield:
        suspects = Bitfield(num_pieces)
        for (piece,) in run.execute(
            "SELECT piece FROM open_pieces WHERE key=? AND is_suspect", (key,)
        ):
            if isinstance(piece, int) and 0 <= piece < num_pieces:
                suspects.add(piece)
        return suspects

    # --- saving --------------------------------------------------------------------------

    def save(self, record: ResumeRecord, metainfo: bytes | None = None) -> None:
        """
        Keep a new or changed torrent, durably; what it has is not touched.

        Follow it with ``commit_have``, of nothing if the download begins from nothing: a
        torrent without a state must be checked as a whole.

        Args:
            record: replaces the one of the same info hash.
            metainfo: the .torrent file; None leaves what is there.

        Raises:
            DiskFull: no room even without the reserve.
            StorageError: it was not saved.
        """
        if metainfo is not None:
            self.torrents.save(record.info_hash, metainfo)
        self._run(lambda connection: _write_record(connection, record), durable=True)

    def mark_open(self, info_hash: InfoHash, pieces: Iterable[int]) -> None:
        """
        Note that pieces are about to be written; before the first write into any of them.

        Many at a time cost little more than one. A piece stays open until ``commit_have``
        has it. The note survives the process, and needs no more: what a power cut undoes
        was not in ``have`` either.

        Raises:
            StorageError: it was not noted; do not write.
        """
        rows = [(bytes(info_hash), piece) for piece in pieces]
        self._run(
            lambda run: run.executemany("INSERT OR IGNORE INTO open_pieces VALUES (?, ?, 0)", rows),
            durable=False,
        )

    def commit_have(self, checkpoints: Iterable[Checkpoint]) -> None:
        """
        Keep, durably, what torrents have (Limit: F8); all of it, or none.

        One step of the disk, however many they are.

        Args:
            checkpoints: later ones of a torrent replace earlier ones.

        Raises:
            StorageError: nothing was kept; the last checkpoints hold.
        """
        found = list(checkpoints)

        def run(connection: sqlite3.Connection) -> None:
            for checkpoint in found:
                _write_checkpoint(connection, checkpoint)

        self._run(run, durable=True)

    def forget(self, hashes: Iterable[InfoHash]) -> None:
        """
        Drop all that is kept of torrents; nothing happens where there is nothing.

        Raises:
            StorageError: some of it is still there.
        """
        gone = list(hashes)
        keys = [(bytes(info_hash),) for info_hash in gone]

        def run(connection: sqlite3.Connection) -> None:
            for where in (
                f"records WHERE {_OF_KEY}",
                "states WHERE key=?",
                "open_pieces WHERE key=?",
            ):
                connection.executemany(f"DELETE FROM {where}", keys)  # noqa: S608 - ours

        self._run(run, durable=True)
        for info_hash in gone:
            self.torrents.forget(info_hash)

    def _forget_abandoned(self) -> None:
        """Drop what nobody will come back to, once a month; see ``abandoned``."""
        now = self._clock()
        with self._database.transaction(durable=False) as run:
            last = run.execute("SELECT value FROM marks WHERE name='looked_at'").fetchone()
            # Columns of SQLite take values of any type, so damage can make one of another.
            looked_at = None if last is None else last[0]
            if isinstance(looked_at, int) and 0 <= now - looked_at < LOOK_INTERVAL:
                return
            keys = [key for (key,) in run.execute("SELECT DISTINCT key FROM records").fetchall()]
            hashes = [
                InfoHash(key)
                for key in keys
                if isinstance(key, bytes) and len(key) == InfoHash.SIZE
            ]
            records = [self._load_record(run, info_hash) for info_hash in hashes]
        known = [record for record in records if record is not None]
        self.forget(record.info_hash for record in known if is_abandoned(record, now=now))
        self.torrents.forget_lost_aliases()
        mark = "INSERT OR REPLACE INTO marks VALUES ('looked_at', ?)"
        self._run(lambda run: run.execute(mark, (int(now),)), durable=False)

    def close(self, *, clean: bool = True) -> None:
        """
        End the session. Idempotent; the folder is free for others in any case.

        Args:
            clean: all data is synced and committed, so nothing needs to be looked at next
                time. False leaves it to the next session to hash the suspects.

        Raises:
            StorageError: the end was not noted: the next session takes this one for unclean.
        """
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if clean:
                with contextlib.suppress(StorageError):
                    self._forget_abandoned()
                self._run(self._end, durable=True)
        finally:
            try:
                self._database.close(keep_copy=clean)
            finally:
                self._lock.release()

    @staticmethod
    def _end(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM open_pieces WHERE NOT is_suspect")
        connection.execute("INSERT OR REPLACE INTO marks VALUES ('clean', 1)")

    # --- helpers -------------------------------------------------------------------------

    def _run(self, job: Callable[[sqlite3.Connection], object], *, durable: bool) -> None:
        try:
            with self._database.transaction(durable=durable) as connection:
                job(connection)
        except DiskFull:
            # Limit: F1. What the reserve is for.
            if not self._make_room():
                raise
            with self._database.transaction(durable=durable) as connection:
                job(connection)

    def _make_room(self) -> bool:
        return self._database.give_up_reserve()

    def __repr__(self) -> str:
        return f"<ResumeStore {str(self.folder)!r}>"


def _write_record(connection: sqlite3.Connection, record: ResumeRecord) -> None:
    key = bytes(record.info_hash)
    row = seal(key, encode_record(record))
    # Thousands of torrents that start again as they were are not synced.
    if _record_rows(connection, key) != [row] * len(_COPIES):
        connection.executemany(
            "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)",
            [(copy, key, *row) for copy in _COPIES],
        )


def _write_checkpoint(connection: sqlite3.Connection, checkpoint: Checkpoint) -> None:
    if checkpoint.record is not None:
        _write_record(connection, checkpoint.record)
    key, have = bytes(checkpoint.info_hash), checkpoint.have
    stored = connection.execute("SELECT body, checksum FROM states WHERE key=?", (key,)).fetchone()
    state = TorrentState(
        have=have,
        recent=Bitfield(have.num_pieces, have.bits & ~_stored_bits(key, stored)),
        downloaded=checkpoint.downloaded,
        uploaded=checkpoint.uploaded,
        stamps=checkpoint.stamps,
        is_settled=checkpoint.is_settled,
        unchecked=checkpoint.unchecked,
    )
    row = seal(key, encode_state(state))
    if stored != row:
        connection.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", (key, *row))
    open_pieces = connection.execute("SELECT piece FROM open_pieces WHERE key=?", (key,)).fetchall()
    closed = [(key, piece) for (piece,) in open_pieces if checkpoint.is_settled or piece in have]
    connection.executemany("DELETE FROM open_pieces WHERE key=? AND piece=?", closed)


def _stored_bits(key: bytes, row: tuple[object, ...] | None) -> int:
    """Return the pieces that the row of a state names; none if there is no good row."""
    if row is None:
        return 0
    try:
        return decode_state(unseal(key, row)).have.bits
    except ValueError:
        return 0


def _record_rows(run: sqlite3.Connection, key: bytes) -> list[tuple[object, ...]]:
    """Return the copies of a record."""
    query = f"SELECT body, checksum FROM records WHERE {_OF_KEY} ORDER BY copy"  # noqa: S608 - ours
    return run.execute(query, (key,)).fetchall()
