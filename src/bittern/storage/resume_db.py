"""
The SQLite file of the resume store: opening, saving what can be saved, running statements.

The write-ahead log makes each transaction whole or absent, whatever kills the
process. ``durable`` transactions are on stable storage when they return;
others may be undone by a power cut, never reordered. The file is held
exclusively, so the log works on network file systems too.

A file that SQLite cannot read is put aside, and a new one is made from the
rows that can still be got out of it and from the copy of the last clean end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeGuard

from bittern.core.errors import DiskFull, StorageError
from bittern.storage.base import storage_error
from bittern.storage.resume_rows import unseal

SCHEMA_VERSION: Final = 1
"""Limit: F20. Raised with every change of the tables; an older file is copied, then changed."""

MIN_FREE: Final = 64 << 20
"""Limit: F1. Bytes free with which a reserve is made; with fewer, torrents need them more."""

RESERVE_LENGTH: Final = 16 << 20
"""Limit: F1. Bytes that are given up when the disk is full, so that state can still be saved."""

LOCK_WAIT: float = 5.0
"""Seconds that somebody else may hold the file, as a backup does, before it is an error."""

_APPLICATION_ID: Final = 0x62745273  # "btRs"
_SCHEMA: Final = {
    "records": """CREATE TABLE records (
        copy INTEGER, key BLOB, body BLOB, checksum BLOB, PRIMARY KEY (copy, key)
    ) WITHOUT ROWID""",
    "states": """CREATE TABLE states (
        key BLOB PRIMARY KEY, body BLOB, checksum BLOB
    ) WITHOUT ROWID""",
    "open_pieces": """CREATE TABLE open_pieces (
        key BLOB, piece INTEGER, is_suspect INTEGER, PRIMARY KEY (key, piece)
    ) WITHOUT ROWID""",
    "marks": "CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID",
}
# The module cannot even say what is wrong when a name in the message is damaged.
_DAMAGE: Final = (sqlite3.DatabaseError, UnicodeDecodeError)
_TABLES: Final = {"records": 4, "states": 3, "open_pieces": 3}
"""Those whose rows are worth saving, and how many columns each has."""
_HINDRANCES: Final = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)
"""What keeps us from a file that may be perfectly sound; the low byte of an error's code."""


class ResumeDatabase:
    """
    One open file.

    Args:
        folder: the state folder, locked by the caller.

    Raises:
        DiskFull: there is no room to open it.
        StorageError: the file was made by a newer version or another program, or cannot
            be opened at all: somebody holds it, or reading fails. It is left as it is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "resume.db"
        self._previous = folder / "resume.previous.db"
        self._reserve = folder / "reserve"
        self._lock = threading.RLock()
        self.problems: list[str] = []
        """What had to be mended, for the log."""
        self.was_mended: bool = False
        """True when rows may be missing: the session before did not end cleanly."""
        try:
            self._connection = self._open(self._path)
            try:
                self._check_readable(self._connection)
            except BaseException:
                self._connection.close()
                raise
        except _DAMAGE as error:
            if _is_hindrance(error):
                raise _translated(error, self._path) from error
            self._mend(error)
        self._fill_reserve()

    # --- opening -------------------------------------------------------------------------

    def _open(self, path: Path) -> sqlite3.Connection:
        try:
            # Before SQLite makes it, so that it and its log are for the owner only.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise storage_error(error, path) from error
        connection = sqlite3.connect(
            path, timeout=LOCK_WAIT, isolation_level=None, check_same_thread=False
        )
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.text_factory = bytes
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if tables:
            self._check_origin(connection, tables)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA mmap_size=0")
        connection.execute("PRAGMA journal_size_limit=1048576")
        if not tables:
            with self._transaction_on(connection):
                for statement in _SCHEMA.values():
                    connection.execute(statement)
                connection.execute("INSERT INTO marks VALUES ('version', ?)", (SCHEMA_VERSION,))
                connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _check_origin(self, connection: sqlite3.Connection, tables: set[bytes]) -> None:
        # Everything is said twice, so that a damaged byte is not taken for a newer version.
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        if application != _APPLICATION_ID and b"marks" not in tables:
            raise StorageError("not a resume store of bittern", path=str(self._path))
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        found = connection.execute("SELECT value FROM marks WHERE name='version'").fetchone()
        versions = [version] if found is None else [version, found[0]]
        if all(isinstance(each, int) and each > SCHEMA_VERSION for each in versions):
            raise StorageError(
                f"made by a newer bittern (format {version}, this one knows {SCHEMA_VERSION})",
                path=str(self._path),
            )

    def _check_readable(self, connection: sqlite3.Connection) -> None:
        rows = connection.execute("SELECT sql FROM sqlite_master").fetchall()
        found = sorted(b" ".join(row[0].split()) for row in rows if row[0] is not None)
        if found != sorted(" ".join(statement.split()).encode() for statement in _SCHEMA.values()):
            raise sqlite3.DatabaseError("the tables are not those that were made")
        with self._path.open("rb") as file:
            # 1 or 2; SQLite takes anything above for a format that it may only read.
            if file.read(20)[18:19] not in (b"", b"\1", b"\2"):
                raise sqlite3.DatabaseError("the header is damaged")
        for (verdict,) in connection.execute("PRAGMA integrity_check(1)"):
            if verdict != b"ok":
                raise sqlite3.DatabaseError(verdict.decode("ascii", "replace"))

    def _mend(self, error: Exception) -> None:
        """Put the damaged file aside and make a new one of what can be read."""
        self.problems.append(f"the resume store was damaged ({error}) and has been mended")
        self.was_mended = True
        rows = _rows_of(self._path)
        # The copy is older. Who is known only from there must check what he has.
        rows += [(table, row) for table, row in _rows_of(self._previous) if table == "records"]
        aside = self._path.with_name("resume.damaged.db")
        try:
            for suffix in ("", "-wal", "-shm"):
                found = self._path.with_name(self._path.name + suffix)
                if found.exists():
                    found.replace(aside.with_name(aside.name + suffix))
        except OSError as problem:
            raise storage_error(problem, self._path) from problem
        try:
            self._connection = self._open(self._path)
        except sqlite3.Error as problem:
            raise _translated(problem, self._path) from problem
        with self.transaction(durable=True) as connection:
            for table, row in rows:
                places = ",".join("?" * len(row))
                connection.execute(
                    f"INSERT OR IGNORE INTO {table} VALUES ({places})",  # noqa: S608 - our names
                    row,
                )

    # --- running -------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """
        Run statements that all happen or none; they may be run twice, see DiskFull.

        Raises:
            DiskFull: there is no room even without the reserve. Nothing happened. When there
                was a reserve it is gone now, and the caller may try once more.
            StorageError: the database failed otherwise; nothing happened.
        """
        with self._lock:
            connection = self._connection
            try:
                # A PRAGMA inside a transaction would be ignored.
                connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                with self._transaction_on(connection):
                    yield connection
            except sqlite3.Error as error:
                raise _translated(error, self._path) from error

    @staticmethod
    @contextlib.contextmanager
    def _transaction_on(connection: sqlite3.Connection) -> Iterator[None]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def give_up_reserve(self) -> bool:
        """Free the reserved room; False if it was free already."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    def _fill_reserve(self) -> None:
        # Best effort: without room for the reserve there is still no reason not to start.
        self.give_up_reserve()
        try:
            if shutil.disk_usage(self._folder).free < MIN_FREE:
                return
            with self._reserve.open("wb") as file:
                self._reserve.chmod(0o600)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, RESERVE_LENGTH)
                else:
                    file.write(bytes(RESERVE_LENGTH))
        except OSError:
            # What it has got by now may be all that was left (ext4).
            self.give_up_reserve()

    def close(self, *, keep_copy: bool) -> None:
        """Close the file; ``keep_copy`` makes the copy to mend it from."""
        with self._lock:
            try:
                if keep_copy:
                    self._copy()
            except sqlite3.Error as error:
                raise _translated(error, self._previous) from error
            except OSError as error:
                raise storage_error(error, self._previous) from error
            finally:
                self._connection.close()
                self.give_up_reserve()

    def _copy(self) -> None:
        fresh = self._previous.with_name("resume.previous.tmp")
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as target:
            target.execute("PRAGMA synchronous=FULL")
            self._connection.backup(target)
        fresh.replace(self._previous)


def _rows_of(path: Path) -> list[tuple[str, tuple[object, ...]]]:
    """Return the sound rows that can still be read, looked for from both ends of each table."""
    found: dict[tuple[str, tuple[object, ...]], None] = {}
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.text_factory = bytes
        for table in _TABLES:
            for order in ("ASC", "DESC"):
                with contextlib.suppress(*_DAMAGE):
                    for row in connection.execute(
                        f"SELECT * FROM {table} ORDER BY 1 {order}, 2 {order}"  # noqa: S608
                    ):
                        if _is_sound(table, row):
                            found[table, row] = None
    return list(found)


def _is_sound(table: str, row: tuple[object, ...]) -> bool:
    if len(row) != _TABLES[table]:  # what is damaged is the table's own description
        return False
    if table == "open_pieces":
        return isinstance(row[0], bytes)
    *_, key, body, checksum = row
    try:
        unseal(key, (body, checksum))
    except ValueError:
        return False
    return True


def _is_hindrance(error: Exception) -> TypeGuard[sqlite3.Error]:
    """Tell whether an error says nothing of what is in the file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _HINDRANCES


def _translated(error: sqlite3.Error, path: Path) -> StorageError:
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        return DiskFull("no room for the resume store", path=str(path))
    return StorageError(f"the resume store failed ({error})", path=str(path))
