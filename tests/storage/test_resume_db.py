from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path

import pytest

from bittern.core.errors import DiskFull, StorageError
from bittern.storage import resume_db
from bittern.storage.resume_db import RESERVE_LENGTH, ResumeDatabase
from bittern.storage.resume_rows import seal

KEY = b"k" * 20


def put(database: ResumeDatabase, body: bytes = b"body") -> None:
    with database.transaction(durable=True) as run:
        run.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", (KEY, *seal(KEY, body)))


def bodies(database: ResumeDatabase) -> list[bytes]:
    with database.transaction(durable=False) as run:
        return [row[0] for row in run.execute("SELECT body FROM states")]


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    database = ResumeDatabase(tmp_path)
    put(database, b"old")

    def fail(error: Exception | None) -> None:
        with database.transaction(durable=True) as run:
            run.execute("DELETE FROM states")
            if error is not None:
                raise error
            run.execute("nonsense")

    with pytest.raises(ValueError, match="mine"):
        fail(ValueError("mine"))
    with pytest.raises(StorageError, match="resume store failed"):
        fail(None)
    assert bodies(database) == [b"old"]
    database.close(keep_copy=False)


def test_durable_transactions_are_synced_and_others_are_not(tmp_path: Path) -> None:
    database = ResumeDatabase(tmp_path)
    for durable, expected in ((True, 2), (False, 1)):
        with database.transaction(durable=durable) as run:
            assert run.execute("PRAGMA synchronous").fetchone() == (expected,)
    assert database._connection.execute("PRAGMA journal_mode").fetchone() == (b"wal",)
    database.close(keep_copy=False)


def test_what_was_committed_survives_without_an_orderly_end(tmp_path: Path) -> None:
    database = ResumeDatabase(tmp_path)
    put(database)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    database.close(keep_copy=False)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    database = ResumeDatabase(tmp_path)
    assert bodies(database) == [b"body"]
    assert database.problems == []
    database.close(keep_copy=False)


def test_a_torn_log_costs_the_torn_transaction_only(tmp_path: Path) -> None:
    """Limit: F8: cut the log anywhere and what was committed before the cut is there."""
    database = ResumeDatabase(tmp_path)
    states = []
    for number in range(6):
        put(database, b"%d" % number)
        states.append((tmp_path / "resume.db-wal").read_bytes())
    main = (tmp_path / "resume.db").read_bytes()
    database.close(keep_copy=False)
    whole = states[-1]
    for cut in range(0, len(whole), 1024):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / "resume.db").write_bytes(main)
        (folder / "resume.db-wal").write_bytes(whole[:cut] + b"\xee" * min(700, len(whole) - cut))
        torn = ResumeDatabase(folder)
        num_whole = sum(len(state) <= cut for state in states)
        found = bodies(torn)
        assert found == ([b"%d" % (num_whole - 1)] if num_whole else []), cut
        torn.close(keep_copy=False)


def test_mending_takes_sound_rows_of_the_file_and_records_of_the_copy(tmp_path: Path) -> None:
    database = ResumeDatabase(tmp_path)
    put(database)
    with database.transaction(durable=True) as run:
        run.execute("INSERT INTO records VALUES (0, ?, ?, ?)", (KEY, *seal(KEY, b"record")))
        run.execute("INSERT INTO open_pieces VALUES (?, 5, 0)", (KEY,))
        run.execute("INSERT INTO states VALUES (x'00', x'01', x'02')")
    database.close(keep_copy=True)
    connection = sqlite3.connect(tmp_path / "resume.db")
    connection.execute("DELETE FROM records")
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute(
        "UPDATE sqlite_master SET sql=replace(sql, 'value', 'other') WHERE name='marks'"
    )
    connection.commit()
    connection.close()
    database = ResumeDatabase(tmp_path)
    assert database.was_mended
    assert bodies(database) == [b"body"]
    with database.transaction(durable=False) as run:
        assert run.execute("SELECT copy, body FROM records").fetchall() == [(0, b"record")]
        assert run.execute("SELECT piece FROM open_pieces").fetchall() == [(5,)]
    database.close(keep_copy=False)


def test_a_damaged_file_that_cannot_be_put_aside_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "resume.db").write_bytes(b"x" * 10_000)
    (tmp_path / "resume.damaged.db").mkdir()
    with pytest.raises(StorageError, match=r"resume\.db"):
        ResumeDatabase(tmp_path)


def test_a_header_that_allows_reading_only_is_damage(tmp_path: Path) -> None:
    database = ResumeDatabase(tmp_path)
    put(database)
    database.close(keep_copy=False)
    content = bytearray((tmp_path / "resume.db").read_bytes())
    content[18] = 0x12
    (tmp_path / "resume.db").write_bytes(content)
    database = ResumeDatabase(tmp_path)
    assert database.was_mended
    assert bodies(database) == [b"body"]
    database.close(keep_copy=False)


def test_the_reserve_is_given_up_once(tmp_path: Path) -> None:
    database = ResumeDatabase(tmp_path)
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= RESERVE_LENGTH
    assert database.give_up_reserve()
    assert not database.give_up_reserve()
    database.close(keep_copy=False)


def test_the_reserve_without_preallocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(resume_db, "RESERVE_LENGTH", 5000)
    database = ResumeDatabase(tmp_path)
    assert (tmp_path / "reserve").read_bytes() == bytes(5000)
    database.close(keep_copy=False)


def test_a_start_without_room_for_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ext4 has given until then, all that was left, is given back."""

    def fail(fd: int, *_: object) -> None:
        os.write(fd, bytes(5000))
        raise OSError(28, "full")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    database = ResumeDatabase(tmp_path)
    assert not (tmp_path / "reserve").exists()
    put(database)
    database.close(keep_copy=False)


def test_where_little_room_is_left_torrents_have_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reserve").write_bytes(b"of a session that was killed")
    monkeypatch.setattr(resume_db, "MIN_FREE", 1 << 62)
    database = ResumeDatabase(tmp_path)
    assert not (tmp_path / "reserve").exists()
    database.close(keep_copy=False)


def test_no_room_is_a_full_disk(tmp_path: Path) -> None:
    database = ResumeDatabase(tmp_path)
    database._connection.execute("PRAGMA max_page_count=1")
    with pytest.raises(DiskFull):
        put(database, bytes(1_000_000))
    database.close(keep_copy=False)


def test_a_copy_that_fails_in_sqlite_is_reported(tmp_path: Path) -> None:
    database = ResumeDatabase(tmp_path)

    def fail() -> None:
        raise sqlite3.OperationalError("no")

    database._copy = fail  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="no"):
        database.close(keep_copy=True)
    ResumeDatabase(tmp_path).close(keep_copy=False)


def test_the_tables_belong_to_the_version() -> None:
    """
    What was made must stay readable.

    Whoever changes the tables raises ``SCHEMA_VERSION``, makes a copy of an older file before
    changing it, and adds a file of the old version to the tests (Limit: F20).
    """
    text = "; ".join(" ".join(statement.split()) for statement in resume_db._SCHEMA.values())
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert (resume_db.SCHEMA_VERSION, digest) == (1, "ad494d93a9f77d75")


def test_other_white_space_in_the_tables_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ResumeDatabase(tmp_path).close(keep_copy=False)
    marks = resume_db._SCHEMA["marks"].replace(" (", "\n  (")
    monkeypatch.setitem(resume_db._SCHEMA, "marks", marks)
    database = ResumeDatabase(tmp_path)
    assert not database.was_mended
    database.close(keep_copy=False)


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "resume.db").mkdir()
    with pytest.raises(StorageError, match=r"resume\.db"):
        ResumeDatabase(tmp_path)


def test_a_sound_file_that_somebody_holds_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup, or a curious person; the file is no more damaged than before."""
    monkeypatch.setattr(resume_db, "LOCK_WAIT", 0.1)
    database = ResumeDatabase(tmp_path)
    put(database)
    database.close(keep_copy=False)
    holder = sqlite3.connect(tmp_path / "resume.db", isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError, match="locked"):
        ResumeDatabase(tmp_path)
    holder.close()
    assert not (tmp_path / "resume.damaged.db").exists()
    database = ResumeDatabase(tmp_path)
    assert not database.was_mended
    assert bodies(database) == [b"body"]
    database.close(keep_copy=False)


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_foreign_and_newer_files_are_refused(tmp_path: Path) -> None:
    change(tmp_path / "resume.db", "CREATE TABLE other (a)")
    with pytest.raises(StorageError, match="not a resume store"):
        ResumeDatabase(tmp_path)
    (tmp_path / "resume.db").unlink()
    ResumeDatabase(tmp_path).close(keep_copy=False)
    change(
        tmp_path / "resume.db",
        "UPDATE marks SET value=9 WHERE name='version'",
        "PRAGMA user_version=9",
    )
    with pytest.raises(StorageError, match="newer bittern"):
        ResumeDatabase(tmp_path)


def test_pages_in_disorder_are_damage(tmp_path: Path) -> None:
    database = ResumeDatabase(tmp_path)
    with database.transaction(durable=True) as run:
        for key in (b"a" * 20, b"b" * 20):
            run.execute("INSERT INTO states VALUES (?, ?, ?)", (key, *seal(key, b"body")))
    database.close(keep_copy=False)
    content = (tmp_path / "resume.db").read_bytes()
    swapped = content.replace(b"a" * 20, b"?" * 20)
    swapped = swapped.replace(b"b" * 20, b"a" * 20).replace(b"?" * 20, b"b" * 20)
    (tmp_path / "resume.db").write_bytes(swapped)
    database = ResumeDatabase(tmp_path)
    assert database.was_mended
    assert bodies(database) == []
    database.close(keep_copy=False)


@pytest.mark.parametrize(
    ("before", "after"), [(", checksum BLOB", ""), ("checksum BLOB", "checksum BLOB, more BLOB")]
)
def test_tables_of_other_columns_are_damage(before: str, after: str, tmp_path: Path) -> None:
    """Limit: F9. One byte of a table's description can take a column away."""
    database = ResumeDatabase(tmp_path)
    put(database)
    with database.transaction(durable=True) as run:
        run.execute("INSERT INTO records VALUES (0, ?, ?, ?)", (KEY, *seal(KEY, b"record")))
    database.close(keep_copy=False)
    change(
        tmp_path / "resume.db",
        "PRAGMA writable_schema=ON",
        f"UPDATE sqlite_master SET sql=replace(sql, '{before}', '{after}') WHERE name='states'",
    )
    database = ResumeDatabase(tmp_path)
    assert database.was_mended
    with database.transaction(durable=False) as run:
        assert run.execute("SELECT body FROM records").fetchall() == [(b"record",)]
    database.close(keep_copy=False)


def test_a_new_file_that_fails_while_mending_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "resume.db").write_bytes(b"x" * 10_000)
    monkeypatch.setitem(resume_db._SCHEMA, "marks", "nonsense")
    with pytest.raises(StorageError, match="resume store failed"):
        ResumeDatabase(tmp_path)


def test_a_copy_that_fails_in_the_file_system_is_reported(tmp_path: Path) -> None:
    database = ResumeDatabase(tmp_path)
    (tmp_path / "resume.previous.tmp").mkdir()
    with pytest.raises(StorageError, match="previous"):
        database.close(keep_copy=True)
