from __future__ import annotations

import errno
import os
import random
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.file_list import FileEntry
from bittern.codec.info import Version
from bittern.codec.info_builder import encode_info
from bittern.codec.merkle import HASH_LENGTH, piece_level, root_of
from bittern.codec.metainfo import decode_metainfo, encode_metainfo
from bittern.core.bitfield import Bitfield
from bittern.core.errors import DiskFull, StorageError
from bittern.core.geometry import BLOCK_LENGTH
from bittern.core.ids import InfoHash
from bittern.storage import resume_db
from bittern.storage.base import FileStamp
from bittern.storage.creator import choose_piece_length
from bittern.storage.resume import Checkpoint, Resumed, ResumeRecord, ResumeStore
from bittern.storage.resume_db import SCHEMA_VERSION


def key(number: int) -> InfoHash:
    return InfoHash(bytes([number]) * 20)


def record(number: int = 1, **changes: object) -> ResumeRecord:
    values: dict[str, object] = {
        "info_hash": key(number),
        "name": f"torrent {number}",
        "save_path": "/data",
        "paths": (("top", "a"), (), ("top", "b \udc80")),
        "added_at": 1000.0 + number,
        "options": {"sequential": True, "files": [0, 2], "limits": {"up": 5}, "x": None},
    }
    return ResumeRecord(**(values | changes))  # type: ignore[arg-type]


def bits(*pieces: int, total: int = 20) -> Bitfield:
    return Bitfield.of(total, pieces)


def commit(store: ResumeStore, info_hash: InfoHash, have: Bitfield, **values: Any) -> None:
    store.commit_have([Checkpoint(info_hash=info_hash, have=have, **values)])


def load_all(store: ResumeStore) -> list[Resumed]:
    """Every torrent that is there and usable, in the order of info hashes."""
    with store._database.transaction(durable=False) as run:
        keys = [row[0] for row in run.execute("SELECT DISTINCT key FROM records")]
    hashes = [InfoHash(each) for each in keys if isinstance(each, bytes) and len(each) == 20]
    return [each for info_hash in sorted(hashes) if (each := store.load(info_hash)) is not None]


def abandon(store: ResumeStore) -> None:
    """End as a killed process does, as far as files go."""
    store._database._connection.close()
    store._lock.release()


# --- what comes back ---------------------------------------------------------------------


def test_everything_comes_back_after_a_clean_end(tmp_path: Path) -> None:
    store = ResumeStore(tmp_path / "state")
    store.save(record(), b"d4:infod4:name1:aee")
    stamps = (FileStamp(5, 7, 9), None)
    commit(store, key(1), bits(0, 3), downloaded=10, uploaded=20, stamps=stamps)
    store.close()
    assert not (tmp_path / "state" / "reserve").exists(), "it is for the time of a session"
    store = ResumeStore(tmp_path / "state")
    assert store.was_clean
    assert store.problems == []
    (found,) = load_all(store)
    assert found.record == record()
    assert found.have == bits(0, 3)
    assert found.suspects == bits()
    assert (found.downloaded, found.uploaded) == (10, 20)
    assert found.stamps == stamps
    assert store.torrents.load(key(1)) == b"d4:infod4:name1:aee"
    store.close()


def test_how_far_a_check_has_come(tmp_path: Path) -> None:
    """Until somebody says that it is over; what it has found last is suspect as ever (F8)."""
    store = started(tmp_path)
    store.mark_open(key(1), [5, 6])
    commit(store, key(1), bits(0, 1), unchecked=bits(5, 6, 7), is_settled=True)
    commit(store, key(1), bits(0, 1, 2), unchecked=bits(5, 6), is_settled=True)
    for clean, suspects in ((True, []), (False, [2])):
        store = reopened(store, clean=clean)
        found = store.load(key(1))
        assert found is not None
        assert (found.have, found.unchecked) == (bits(0, 1, 2), bits(5, 6))
        assert suspects_of(store) == suspects
    commit(store, key(1), bits(0, 1, 2))
    found = store.load(key(1))
    assert found is not None
    assert found.unchecked is None
    store.close()


def test_a_record_is_kept_with_what_it_is_about_or_neither_is(tmp_path: Path) -> None:
    """Limit: F9. Else what is known of one place could be taken for what is in another."""
    store = started(tmp_path)
    moved = record(save_path="/elsewhere")
    for table in ("states", "records"):
        with store._database.transaction(durable=True) as run:
            run.execute(
                f"CREATE TEMP TRIGGER no BEFORE INSERT ON main.{table} "
                "BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        with pytest.raises(StorageError):
            commit(store, key(1), bits(3), record=moved)
        found = store.load(key(1))
        assert found is not None
        assert (found.record, found.have) == (record(), bits())
        with store._database.transaction(durable=True) as run:
            run.execute("DROP TRIGGER no")
    commit(store, key(1), bits(3), record=moved)
    found = store.load(key(1))
    assert found is not None
    assert (found.record, found.have) == (moved, bits(3))
    store.close()


def test_what_is_kept_already_is_not_written_again(tmp_path: Path) -> None:
    """R22: a start of thousands of torrents must not wait for the disk thousands of times."""
    store = ResumeStore(tmp_path)
    log = tmp_path / "resume.db-wal"

    def keep(found: Bitfield, **options: Any) -> bool:
        before = log.read_bytes()
        store.save(record(), b"metainfo")
        commit(store, key(1), found, downloaded=5, **options)
        return log.read_bytes() != before

    assert keep(bits(1))
    assert keep(bits(1)), "it is not recent any more"
    assert not keep(bits(1))
    store.mark_open(key(1), [2])
    assert not keep(bits(1))
    assert keep(bits(1), is_settled=True), "what was open is not"
    assert keep(bits(1, 2))
    assert keep(bits(1, 2), uploaded=7)
    store.close()


def test_one_torrent_is_found_without_reading_all_others(tmp_path: Path) -> None:
    """R22: with ten thousand torrents, ten thousand starts must not read each other's records."""
    store = ResumeStore(tmp_path)
    connection = store._database._connection
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    store.save(record())
    commit(store, key(1), bits(1))
    store.mark_open(key(1), [2])
    assert store.load(key(1)) is not None
    store.forget([key(1)])
    connection.set_trace_callback(None)
    asked = [each for each in statements if "key=" in each]
    assert len(asked) >= 9
    for statement in asked:
        for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
            assert not step.startswith(b"SCAN"), statement
    store.close()


def test_a_damaged_copy_of_what_is_kept_is_mended(tmp_path: Path) -> None:
    """Limit: F9."""
    store = ResumeStore(tmp_path)
    store.save(record())
    damage = "UPDATE records SET body=x'00' WHERE copy=?"
    for copy in (0, 1):
        with store._database.transaction(durable=True) as run:
            run.execute(damage, (copy,))
        store.save(record())
        with store._database.transaction(durable=True) as run:
            run.execute(damage, (1 - copy,))
        found = store.load(key(1))
        assert found is not None
        assert found.record == record()
    store.close()


def test_a_torrent_without_state_has_to_be_checked(tmp_path: Path) -> None:
    store = ResumeStore(tmp_path)
    store.save(record(paths=None))
    found = store.load(key(1))
    assert found is not None
    assert found.have is None
    assert found.suspects is None
    assert found.record.paths is None
    assert store.torrents.load(key(1)) is None
    store.close()


def test_a_changed_record_keeps_the_state_and_the_metainfo(tmp_path: Path) -> None:
    store = ResumeStore(tmp_path)
    store.save(record(), b"one")
    commit(store, key(1), bits(4))
    store.save(record(save_path="/elsewhere"))
    found = store.load(key(1))
    assert found is not None
    assert found.record.save_path == "/elsewhere"
    assert found.have == bits(4)
    store.save(record(), b"two")
    assert store.torrents.load(key(1)) == b"two"
    store.close()


def test_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    store = ResumeStore(tmp_path)
    for number in (1, 2):
        store.save(record(number), b"x")
        commit(store, key(number), bits(1))
        store.mark_open(key(number), [2])
    store.forget([key(1)])
    store.forget([key(1)])
    store.forget([key(9)])
    assert [found.record.info_hash for found in load_all(store)] == [key(2)]
    assert store.load(key(1)) is None
    assert store.torrents.load(key(1)) is None
    abandon(store)
    store = ResumeStore(tmp_path)
    assert [found.record.info_hash for found in load_all(store)] == [key(2)]
    store.close()


def test_a_torrent_without_pieces(tmp_path: Path) -> None:
    store = ResumeStore(tmp_path)
    store.save(record())
    commit(store, key(1), Bitfield(0))
    found = store.load(key(1))
    assert found is not None
    assert found.have == Bitfield(0)
    assert found.suspects == Bitfield(0)
    store.close()


def test_what_must_survive_a_power_cut_is_synced_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F8. A sync takes a turn of the disk: not for each piece that is begun."""
    synced: list[bool] = []
    real = resume_db.ResumeDatabase.transaction

    def transaction(self: resume_db.ResumeDatabase, *, durable: bool) -> Any:
        synced.append(durable)
        return real(self, durable=durable)

    monkeypatch.setattr(resume_db.ResumeDatabase, "transaction", transaction)
    store = ResumeStore(tmp_path)
    assert any(synced), "that it was begun, or its unclean end would not be known"
    synced.clear()
    store.save(record())
    commit(store, key(1), bits(3))
    store.forget([key(1)])
    assert synced == [True] * 3
    synced.clear()
    store.mark_open(key(1), [4])
    store.load(key(1))
    assert synced == [False] * 2
    store.close()
    assert synced[-1], "the end"


# --- suspects ----------------------------------------------------------------------------


def test_suspects_that_no_torrent_has_are_left_out(tmp_path: Path) -> None:
    """As a damaged file may name them."""
    store = started(tmp_path)
    with store._database.transaction(durable=True) as run:
        for piece in (0, 19, 20, -1, "x", b"3", None, 1.5):
            run.execute("INSERT OR IGNORE INTO open_pieces VALUES (?, ?, 1)", (key(1), piece))
    assert suspects_of(store) == [0, 19]
    store.close()


def reopened(store: ResumeStore, *, clean: bool) -> ResumeStore:
    if clean:
        store.close()
    else:
        abandon(store)
    return ResumeStore(store.folder)


def suspects_of(store: ResumeStore) -> list[int]:
    found = store.load(key(1))
    assert found is not None
    assert found.suspects is not None
    return list(found.suspects)


def started(folder: Path) -> ResumeStore:
    store = ResumeStore(folder)
    store.save(record())
    commit(store, key(1), bits())
    return store


def test_open_pieces_are_suspects_after_an_unclean_end_only(tmp_path: Path) -> None:
    """Limit: F7."""
    for clean, expected in ((True, []), (False, [3, 4, 5])):
        store = started(tmp_path / str(clean))
        store.mark_open(key(1), [3, 4])
        store.mark_open(key(1), [4, 5])
        assert suspects_of(store) == []
        store = reopened(store, clean=clean)
        assert store.was_clean is clean
        assert suspects_of(store) == expected
        store.close()


def test_committed_pieces_are_open_no_more(tmp_path: Path) -> None:
    store = started(tmp_path)
    store.mark_open(key(1), range(8))
    commit(store, key(1), bits(0, 1, 2))
    commit(store, key(1), bits(0, 1, 2, 3))
    store = reopened(store, clean=False)
    found = store.load(key(1))
    assert found is not None
    assert found.have == bits(0, 1, 2, 3)
    # 3 came with the last checkpoint (F8); 4 to 7 were never committed.
    assert suspects_of(store) == [3, 4, 5, 6, 7]
    store.close()


def test_suspects_stay_until_they_are_settled_however_sessions_end(tmp_path: Path) -> None:
    store = started(tmp_path)
    store.mark_open(key(1), [3, 4, 5])
    store = reopened(store, clean=False)
    store = reopened(store, clean=True)
    assert suspects_of(store) == [3, 4, 5]
    store = reopened(store, clean=False)
    assert suspects_of(store) == [3, 4, 5]
    commit(store, key(1), bits(3), is_settled=True)
    assert suspects_of(store) == []
    store = reopened(store, clean=True)
    assert suspects_of(store) == []
    store.close()


def test_a_torrent_is_settled_until_something_may_be_written(tmp_path: Path) -> None:
    """Whoever else ran when a session was killed."""
    store = started(tmp_path)

    def is_settled() -> bool:
        found = store.load(key(1))
        assert found is not None
        return found.is_settled

    commit(store, key(1), bits(0, 1))
    assert not is_settled()
    commit(store, key(1), bits(0, 1, 2), is_settled=True)
    store = reopened(store, clean=False)
    assert suspects_of(store) == [2]
    assert is_settled()
    store.mark_open(key(1), [5])
    store = reopened(store, clean=False)
    assert not is_settled()
    store.close()


def test_a_piece_committed_one_by_one_leaves_the_suspects(tmp_path: Path) -> None:
    store = started(tmp_path)
    store.mark_open(key(1), [3, 4])
    store = reopened(store, clean=False)
    commit(store, key(1), bits(3))
    assert suspects_of(store) == [4]
    store.close()


def test_pieces_beyond_the_torrent_are_no_suspects(tmp_path: Path) -> None:
    store = started(tmp_path)
    store.mark_open(key(1), [19, 20, -1, 1 << 40])
    store = reopened(store, clean=False)
    assert suspects_of(store) == [19]
    store.close()


def test_an_end_that_is_said_to_be_unclean(tmp_path: Path) -> None:
    store = started(tmp_path)
    store.mark_open(key(1), [3])
    store.close(clean=False)
    store.close()
    store = ResumeStore(tmp_path)
    assert not store.was_clean
    assert suspects_of(store) == [3]
    store.close()


# --- access ------------------------------------------------------------------------------


def test_the_state_is_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = ResumeStore(tmp_path / "a" / "state")
        store.save(record(), b"x")
        commit(store, key(1), bits(1))
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in [store.folder, *store.folder.rglob("*")]
        }
        store.close()
        modes |= {path.name: stat.S_IMODE(path.stat().st_mode) for path in store.folder.rglob("*")}
    finally:
        os.umask(before)
    assert modes.pop("state") == 0o700
    assert modes.pop("torrents") == 0o700
    assert {"resume.db", "resume.db-wal", "resume.previous.db", "lock", "reserve"} < set(modes)
    assert set(modes.values()) == {0o600}


def test_a_second_instance_is_told_who_is_there(tmp_path: Path) -> None:
    store = ResumeStore(tmp_path)
    with pytest.raises(StorageError, match=f"in use by another bittern, process {os.getpid()}"):
        ResumeStore(tmp_path)
    store.close()
    ResumeStore(tmp_path).close()


def test_a_folder_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        ResumeStore(tmp_path / "file" / "state")
    assert str(tmp_path / "file") in str(caught.value)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "torrents").write_text("")
    with pytest.raises(StorageError, match="torrents"):
        ResumeStore(tmp_path / "state")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "resume.db").mkdir()
    with pytest.raises(StorageError, match=r"resume\.db"):
        ResumeStore(tmp_path / "other")


def test_metainfo_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    store = started(tmp_path)
    (tmp_path / "torrents" / f"{key(1)}.torrent").mkdir()
    with pytest.raises(StorageError, match="torrents"):
        store.torrents.load(key(1))
    with pytest.raises(StorageError):
        store.save(record(), b"x")
    with pytest.raises(StorageError):
        store.forget([key(1)])
    assert repr(store) == f"<ResumeStore {str(tmp_path)!r}>"
    store.close()


# --- formats -----------------------------------------------------------------------------


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Limit: F20."""
    started(tmp_path).close()
    with sqlite3.connect(tmp_path / "resume.db") as connection:
        connection.execute("UPDATE marks SET value=7 WHERE name='version'")
        connection.execute("PRAGMA user_version=7")
    connection.close()
    before = (tmp_path / "resume.db").read_bytes()
    for _ in range(2):
        with pytest.raises(StorageError, match=r"newer bittern \(format 7, this one knows 1\)"):
            ResumeStore(tmp_path)
    assert (tmp_path / "resume.db").read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE marks SET value=7 WHERE name='version'",
        "DELETE FROM marks WHERE name='version'",
        "PRAGMA user_version=7",
        "PRAGMA application_id=1",
        "PRAGMA user_version=-5",
    ],
)
def test_one_damaged_mark_is_no_newer_format(statement: str, tmp_path: Path) -> None:
    started(tmp_path).close()
    with sqlite3.connect(tmp_path / "resume.db") as connection:
        connection.execute(statement)
    connection.close()
    store = ResumeStore(tmp_path)
    assert len(load_all(store)) == 1
    store.close()


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "resume.db") as connection:
        connection.execute("CREATE TABLE records (a)")
    connection.close()
    with pytest.raises(StorageError, match="not a resume store"):
        ResumeStore(tmp_path)
    with sqlite3.connect(tmp_path / "resume.db") as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (0,)
    connection.close()


def test_the_schema_has_the_version_it_is_tested_with() -> None:
    """A change of the tables needs a new number, a migration, and a fixture of the old one."""
    assert SCHEMA_VERSION == 1


# --- damage ------------------------------------------------------------------------------


def damage(folder: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(folder / "resume.db") as connection:
        assert connection.execute(statement, values).rowcount
    connection.close()


def two_torrents(folder: Path) -> None:
    store = ResumeStore(folder)
    for number in (1, 2):
        store.save(record(number), b"x")
        commit(store, key(number), bits(number))
    store.close()


_STATE_OF = "SELECT body, checksum FROM states WHERE key=?"


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("UPDATE states SET body=substr(body, 1, 5) WHERE key=?", [bytes(key(1))]),
        ("UPDATE states SET body=NULL WHERE key=?", [bytes(key(1))]),
        ("UPDATE states SET body='text' WHERE key=?", [bytes(key(1))]),
        ("UPDATE states SET checksum=x'00' WHERE key=?", [bytes(key(1))]),
        (
            f"UPDATE states SET (body, checksum)=({_STATE_OF}) WHERE key=?",
            [bytes(key(2)), bytes(key(1))],
        ),
    ],
    ids=["torn", "null", "text", "checksum", "foreign"],
)
def test_a_damaged_state_costs_its_torrent_a_check(
    statement: str, values: list[object], tmp_path: Path
) -> None:
    """Limit: F9."""
    two_torrents(tmp_path)
    damage(tmp_path, statement, *values)
    store = ResumeStore(tmp_path)
    first, second = load_all(store)
    assert first.have is None
    [problem] = store.problems
    assert str(key(1)) in problem
    assert second.have == bits(2)
    commit(store, key(1), bits(7))
    again = store.load(key(1))
    assert again is not None
    assert again.have == bits(7)
    store.close()


def test_a_damaged_state_does_not_disturb_an_unclean_start(tmp_path: Path) -> None:
    two_torrents(tmp_path)
    damage(tmp_path, "UPDATE states SET body=x'00' WHERE key=?", bytes(key(1)))
    damage(tmp_path, "UPDATE marks SET value=0 WHERE name='clean'")
    store = ResumeStore(tmp_path)
    first, second = load_all(store)
    assert first.have is None
    assert second.suspects == bits(2)
    store.close()


@pytest.mark.parametrize("copy", [0, 1])
def test_one_damaged_copy_of_a_record_costs_nothing(copy: int, tmp_path: Path) -> None:
    two_torrents(tmp_path)
    damage(tmp_path, "UPDATE records SET body=x'00' WHERE copy=?", copy)
    store = ResumeStore(tmp_path)
    assert [found.record for found in load_all(store)] == [record(1), record(2)]
    assert store.problems == []
    store.close()


def test_a_record_damaged_twice_is_left_out_and_said_so(tmp_path: Path) -> None:
    two_torrents(tmp_path)
    damage(tmp_path, "UPDATE records SET checksum=x'00' WHERE key=?", bytes(key(1)))
    store = ResumeStore(tmp_path)
    assert [found.record for found in load_all(store)] == [record(2)]
    assert len(store.problems) == 1
    assert str(key(1)) in store.problems[0]
    assert store.load(key(1)) is None
    store.close()


def test_a_torrent_that_was_never_there_is_no_problem(tmp_path: Path) -> None:
    store = ResumeStore(tmp_path)
    assert store.load(key(1)) is None
    assert store.problems == []
    store.close()


@pytest.mark.parametrize("start", [0, 4096])
def test_a_broken_file_is_mended_from_what_is_left(start: int, tmp_path: Path) -> None:
    two_torrents(tmp_path)
    path = tmp_path / "resume.db"
    content = bytearray(path.read_bytes())
    content[start : start + 3000] = random.Random(1).randbytes(3000)
    path.write_bytes(content)
    store = ResumeStore(tmp_path)
    assert not store.was_clean
    assert "damaged" in store.problems[0]
    assert [found.record for found in load_all(store)] == [record(1), record(2)]
    assert (tmp_path / "resume.damaged.db").exists()
    assert store.torrents.load(key(1)) == b"x"
    commit(store, key(1), bits(5), is_settled=True)
    store.close()
    store = ResumeStore(tmp_path)
    assert store.problems == []
    assert store.was_clean
    found = store.load(key(1))
    assert found is not None
    assert found.have == bits(5)
    store.close()


def test_a_broken_file_without_a_copy_leaves_an_empty_store(tmp_path: Path) -> None:
    two_torrents(tmp_path)
    (tmp_path / "resume.previous.db").unlink()
    (tmp_path / "resume.db").write_bytes(b"no database at all" * 1000)
    store = ResumeStore(tmp_path)
    assert load_all(store) == []
    assert store.torrents.load(key(1)) == b"x"
    store.save(record())
    store.close()


def flip_and_load(folder: Path, whole: bytes, dice: random.Random) -> None:
    """Flip one or two bytes and look: nothing but the damaged may suffer, and nothing lie."""
    content = bytearray(whole)
    for _ in range(dice.choice([1, 2])):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    (folder / "resume.db").write_bytes(content)
    store = ResumeStore(folder)
    try:
        found = {each.record.info_hash: each for each in load_all(store)}
        for info_hash, each in found.items():
            assert each.record == record(info_hash[0])
            assert each.have is None or each.have == bits(info_hash[0])
        assert len(found) == 8 or store.problems
        num_unknown = sum(each.have is None for each in found.values())
        assert store._database.was_mended or num_unknown + (8 - len(found)) <= 2
        commit(store, key(1), bits(5))
    finally:
        store.close()


def flip_many(folder: Path, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # It is no part of this, and in a file system in memory most of the cost.
    monkeypatch.setattr(resume_db, "RESERVE_LENGTH", 4096)
    store = ResumeStore(folder)
    for number in range(8):
        store.save(record(number))
        commit(store, key(number), bits(number))
    store.close()
    previous = (folder / "resume.previous.db").read_bytes()
    whole = (folder / "resume.db").read_bytes()
    for seed in range(rounds):
        (folder / "resume.previous.db").write_bytes(previous)
        flip_and_load(folder, whole, random.Random(seed))


@pytest.mark.slow
def test_flipped_bytes_never_stop_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R13, reduced."""
    flip_many(tmp_path, 60, monkeypatch)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_flipped_bytes_never_stop_a_start_ten_thousand_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R13."""
    flip_many(tmp_path, 10_000, monkeypatch)


# --- no room -----------------------------------------------------------------------------


def limit_pages(store: ResumeStore, spare: int) -> None:
    connection = store._database._connection
    used = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={used + spare}")


def test_without_room_the_reserve_goes_and_then_an_error_says_so(tmp_path: Path) -> None:
    """Limit: F1."""
    store = started(tmp_path)
    assert (tmp_path / "reserve").stat().st_size == 16 << 20
    limit_pages(store, 2)
    with pytest.raises(DiskFull, match="no room"):
        commit(store, key(1), Bitfield.full(2_000_000))
    assert not (tmp_path / "reserve").exists()
    with pytest.raises(DiskFull):
        commit(store, key(1), Bitfield.full(2_000_000))
    found = store.load(key(1))
    assert found is not None
    assert found.have == bits()
    limit_pages(store, 10_000)
    commit(store, key(1), Bitfield.full(2_000_000))
    store.close()


def test_the_room_of_the_reserve_is_used(tmp_path: Path) -> None:
    store = started(tmp_path)
    limit_pages(store, 2)
    give_up = store._database.give_up_reserve

    def give_up_and_have_room() -> bool:
        limit_pages(store, 10_000)
        return give_up()

    store._database.give_up_reserve = give_up_and_have_room  # type: ignore[method-assign]
    commit(store, key(1), Bitfield.full(2_000_000))
    del store._database.give_up_reserve
    store.close()


def test_metainfo_is_written_with_the_room_of_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = started(tmp_path)
    real = os.fsync
    failures = [OSError(errno.ENOSPC, "full")]

    def fsync(fd: int) -> None:
        if failures:
            raise failures.pop()
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    store.save(record(), b"x" * 1000)
    assert store.torrents.load(key(1)) == b"x" * 1000
    assert not (tmp_path / "reserve").exists()
    failures.append(OSError(errno.ENOSPC, "full"))
    with pytest.raises(DiskFull):
        store.save(record(), b"y" * 1000)
    assert store.torrents.load(key(1)) == b"x" * 1000
    assert [path.name for path in (tmp_path / "torrents").iterdir()] == [f"{key(1)}.torrent"]
    store.close()


def test_a_start_that_fails_leaves_everything_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the same process, as once there is room again."""
    started(tmp_path).close()

    def fail(_: ResumeStore) -> bool:
        raise DiskFull("no room for the resume store")

    with monkeypatch.context() as patched:
        patched.setattr(ResumeStore, "_begin", fail)
        with pytest.raises(DiskFull) as failure:
            ResumeStore(tmp_path)
    assert failure.traceback  # what a caller that looks at it keeps alive
    store = ResumeStore(tmp_path)
    assert store.problems == []
    found = store.load(key(1))
    assert found is not None
    assert found.have == bits()
    store.close()


def test_the_reserve_is_given_back_at_the_end(tmp_path: Path) -> None:
    started(tmp_path).close()
    assert not (tmp_path / "reserve").exists()


def test_a_failure_at_the_end_frees_the_folder_and_counts_as_unclean(tmp_path: Path) -> None:
    store = started(tmp_path)
    store._database._connection.execute("DROP TABLE marks")
    with pytest.raises(StorageError, match="resume store failed"):
        store.close()
    store = ResumeStore(tmp_path)
    store.close()


def test_a_copy_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    store = started(tmp_path)
    (tmp_path / "resume.previous.tmp").mkdir()
    with pytest.raises(StorageError):
        store.close()
    ResumeStore(tmp_path).close(clean=False)


# --- killed ------------------------------------------------------------------------------


def run_and_kill(folder: Path, delay: float) -> tuple[set[int], set[int]]:
    """Kill a writing process after ``delay``; return the pieces it said it wrote and committed."""
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("resume_victim.py")), str(folder)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(delay)
    finally:
        child.kill()
        said = child.stdout.read().split(b"\n")[:-1]
        child.stdout.close()
        child.wait()
    written = {int(line[1:]) for line in said if line.startswith(b"w")}
    committed = {int(line[1:]) for line in said if line.startswith(b"c")}
    return written, committed


def check_promises(folder: Path, written: set[int], committed: set[int]) -> int:
    """Check the promises against the data on disk, recover, and return how much is there."""
    from tests.storage.resume_victim import KEY, NUM_PIECES, PIECE_LENGTH, piece_content

    data = (folder / "data").read_bytes()
    good = {
        index
        for index in range(NUM_PIECES)
        if data[index * PIECE_LENGTH : (index + 1) * PIECE_LENGTH] == piece_content(index)
    }
    assert written <= good
    store = ResumeStore(folder / "state")
    assert not store.was_clean
    assert store.problems == []
    found = store.load(InfoHash(KEY))
    assert found is not None
    assert found.have is not None
    assert found.suspects is not None
    assert committed <= set(found.have), "a committed piece is lost"
    assert set(found.have) <= good, "a piece is claimed that is not there"
    assert good <= set(found.have) | set(found.suspects), "a whole piece would be fetched again"
    assert len(found.suspects) <= 64, "more is hashed than was at risk"
    recovered = Bitfield.of(NUM_PIECES, set(found.have) | (set(found.suspects) & good))
    commit(store, InfoHash(KEY), recovered, is_settled=True)
    store.close()
    return len(good)


def kill_many(folder: Path, rounds: int, seed: int) -> None:
    from tests.storage.resume_victim import NUM_PIECES

    dice = random.Random(seed)
    totals = [NUM_PIECES]
    for number in range(rounds):
        if totals[-1] == NUM_PIECES:
            # Who has nothing left to write loses nothing, however often he is killed.
            download = folder / str(number)
        written, committed = run_and_kill(download, dice.uniform(0.0, 0.12))
        totals.append(check_promises(download, written, committed))
    num_at_work = sum(0 < total < NUM_PIECES for total in totals)
    assert num_at_work >= rounds / 3, f"it was at work {num_at_work} times of {rounds}"


@pytest.mark.slow
def test_killed_at_random_moments_nothing_complete_is_lost(tmp_path: Path) -> None:
    """Limit: F7, and R9 reduced."""
    kill_many(tmp_path, 6, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_a_thousand_times(tmp_path: Path) -> None:
    """R9."""
    for seed in range(20):
        kill_many(tmp_path / str(seed), 50, seed)


@pytest.mark.slow
@pytest.mark.parametrize("version", [Version.V2, Version.HYBRID])
def test_two_tebibytes_take_less_than_ten_megabytes(tmp_path: Path, version: Version) -> None:
    """Of v2 the piece layers are kept and no hash of a block; half of it is there, and stamped."""
    length = 2 << 40
    piece_length = choose_piece_length(length)
    num_pieces = length // piece_length
    layer = random.Random(1).randbytes(num_pieces * HASH_LENGTH)
    root = root_of(layer, piece_level(piece_length))
    entry = FileEntry(("content",), length, 0, pieces_root=root)
    raw = encode_info(
        [entry],
        name="content",
        version=version,
        piece_length=piece_length,
        is_single_file=True,
        pieces=b"" if version is Version.V2 else random.Random(2).randbytes(20 * num_pieces),
    )
    torrent = encode_metainfo(raw, piece_layers={root: layer})
    info = decode_metainfo(torrent).info
    assert info.geometry.num_pieces == num_pieces
    have = Bitfield(num_pieces, random.Random(3).getrandbits(num_pieces))
    blocks = list(range(0, piece_length // BLOCK_LENGTH, 2))
    partial = {str(index): blocks for index in range(200)}
    store = ResumeStore(tmp_path)
    key = info.wire_hash
    if info.info_hash_v2 is not None:
        # As from a magnet link of v2 alone.
        store.torrents.save(key, encode_metainfo(raw), alias=info.info_hash_v2.truncated)
    store.save(record(1, info_hash=key, options={"partial": partial}), torrent)
    store.mark_open(key, range(1000))
    commit(store, key, have, stamps=(FileStamp(length, 1, 1),))
    store.close()
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "reserve"]
    assert {"resume.db", "resume.previous.db", f"{key}.torrent"} <= {path.name for path in kept}
    assert sum(path.stat().st_size for path in kept) < 10_000_000
    store = ResumeStore(tmp_path)
    found = store.load(key)
    assert found is not None
    assert found.have == have
    assert decode_metainfo(store.torrents.load(key) or b"").piece_layers == {root: layer}
    store.close()
