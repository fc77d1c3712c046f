"""Which records a state folder lets go of."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from bittern.core.bitfield import Bitfield
from bittern.core.ids import InfoHash
from bittern.storage.abandoned import KEPT_FOR, LOOK_INTERVAL, is_abandoned
from bittern.storage.resume import Checkpoint, ResumeRecord, ResumeStore

NOW = 1e9
LONG_AGO = NOW - KEPT_FOR
HASH, ALIAS, OTHER = (InfoHash(bytes([number]) * 20) for number in (1, 2, 3))


def record(folder: Path, *names: str, opened_at: float = LONG_AGO) -> ResumeRecord:
    return ResumeRecord(
        info_hash=HASH,
        name="name",
        save_path=str(folder),
        paths=(*(tuple(name.split("/")) for name in names), ()),
        opened_at=opened_at,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with something in it that is not the torrent's."""
    found = tmp_path / "downloads"
    found.mkdir()
    (found / "other").write_bytes(b"x")
    return found


def test_what_is_gone_and_forgotten_is_abandoned(folder: Path) -> None:
    assert is_abandoned(record(folder, "top/a", "top/b"), now=NOW)


def test_whoever_was_opened_since_is_not(folder: Path) -> None:
    assert not is_abandoned(record(folder, "top/a", opened_at=LONG_AGO + 1), now=NOW)


@pytest.mark.parametrize("left", ["top/b", "top/stranger", "top", "top.part", "link"])
def test_whatever_is_left_keeps_the_record(folder: Path, left: str) -> None:
    path = folder / left
    path.parent.mkdir(exist_ok=True)
    if left == "link":
        path.symlink_to("nowhere")
    else:
        path.write_bytes(b"")
    assert not is_abandoned(record(folder, "top/a", "top/b", "link"), now=NOW)


@pytest.mark.parametrize("kind", ["missing", "empty", "a file", "impossible"])
def test_a_disk_that_may_not_be_there_keeps_the_record(tmp_path: Path, kind: str) -> None:
    """Limit: F6. A place to mount is empty, or missing, without its disk."""
    place = tmp_path / ("mount\0" if kind == "impossible" else "mount")
    if kind == "empty":
        place.mkdir()
    elif kind == "a file":
        place.write_bytes(b"")
    assert not is_abandoned(record(place, "top/a"), now=NOW)


def test_a_torrent_whose_files_nobody_knows_is_kept(folder: Path) -> None:
    assert not is_abandoned(record(folder), now=NOW)
    unknown = ResumeRecord(info_hash=HASH, name="n", save_path=str(folder))
    assert not is_abandoned(unknown, now=NOW)


def fill(store: ResumeStore, folder: Path, *, opened_at: float = LONG_AGO) -> None:
    store.save(record(folder, "top/a", opened_at=opened_at), b"torrent")
    store.torrents.save(HASH, b"torrent", alias=ALIAS)
    store.commit_have([Checkpoint(info_hash=HASH, have=Bitfield(9))])
    store.mark_open(HASH, [3])


def test_a_state_folder_lets_go_of_it_at_a_clean_end(tmp_path: Path, folder: Path) -> None:
    """All of it, and of nothing else."""
    state = tmp_path / "state"
    store = ResumeStore(state, clock=lambda: NOW)
    fill(store, folder)
    kept = ResumeRecord(info_hash=OTHER, name="n", save_path=str(folder), paths=(("other",),))
    store.save(kept, b"other")
    store.close()
    assert [path.name for path in (state / "torrents").iterdir()] == [f"{OTHER}.torrent"]
    store = ResumeStore(state)
    assert store.load(HASH) is None
    assert (found := store.load(OTHER))
    assert found.record == kept
    with store._database.transaction(durable=False) as run:
        for table in ("records", "states", "open_pieces"):
            assert not run.execute(f"SELECT * FROM {table} WHERE key=?", (HASH,)).fetchall()
    store.close()


def test_an_unclean_end_lets_go_of_nothing(tmp_path: Path, folder: Path) -> None:
    store = ResumeStore(tmp_path / "state", clock=lambda: NOW)
    fill(store, folder)
    store.close(clean=False)
    store = ResumeStore(tmp_path / "state", clock=lambda: NOW)
    assert store.load(HASH)
    store.close(clean=False)


@pytest.mark.parametrize("later", [LOOK_INTERVAL - 1, LOOK_INTERVAL, -5.0])
def test_all_records_are_looked_at_once_a_month(tmp_path: Path, folder: Path, later: float) -> None:
    """Or when the clock was put back."""
    state = tmp_path / "state"
    ResumeStore(state, clock=lambda: NOW).close()
    store = ResumeStore(state, clock=lambda: NOW + later)
    fill(store, folder, opened_at=LONG_AGO - 10)
    store.close()
    store = ResumeStore(state, clock=lambda: NOW)
    assert (store.load(HASH) is None) is (later != LOOK_INTERVAL - 1)
    store.close()


def test_a_failure_to_let_go_does_not_spoil_the_end(tmp_path: Path, folder: Path) -> None:
    store = ResumeStore(tmp_path / "state", clock=lambda: NOW)
    fill(store, folder)
    path = store.torrents.path_of(HASH)
    path.unlink()
    path.mkdir()
    store.close()
    path.rmdir()
    store = ResumeStore(tmp_path / "state", clock=lambda: NOW)
    assert store.was_clean
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT OR REPLACE INTO marks VALUES ('looked_at', 'x')",
        "INSERT OR REPLACE INTO marks VALUES ('looked_at', NULL)",
        "UPDATE records SET key=5 WHERE copy=1",
    ],
)
def test_values_of_another_type_keep_no_run_from_ending(statement: str, folder: Path) -> None:
    """Limit: F9. SQLite finds nothing wrong with them."""
    state = folder / "state"
    ResumeStore(state).close()
    store = ResumeStore(state, clock=lambda: NOW)
    store.save(record(folder, "top/a"))
    store.close(clean=False)
    with contextlib.closing(sqlite3.connect(state / "resume.db")) as run, run:
        assert run.execute(statement).rowcount
    ResumeStore(state, clock=lambda: NOW).close()
    store = ResumeStore(state)
    assert store.was_clean
    assert store.load(HASH) is None
    store.close()
