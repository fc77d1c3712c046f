from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from bittern.core.errors import DiskFull, StorageError
from bittern.storage.copying import COPY_LENGTH
from bittern.storage.relocate import move_files, prune_folders
from bittern.storage.rooted import FilePath, RootedTree
from bittern.storage.system import OsCalls
from tests.storage.faults import FailingCalls, ShortCalls, open_descriptors
from tests.storage.places import noise

MOVES: list[tuple[FilePath, FilePath]] = [
    (("t", "a"), ("t", "a")),
    (("t", "d", "b"), ("u", "e", "b2")),
    (("t", "d", "c"), ("u", "c")),
]
CONTENTS = {("t", "a"): noise(5000), ("t", "d", "b"): b"", ("t", "d", "c"): noise(100, 2)}


def fill(folder: Path, calls: OsCalls) -> tuple[RootedTree, RootedTree]:
    for path, content in CONTENTS.items():
        place = folder.joinpath("from", *path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return RootedTree(folder / "from", calls), RootedTree(folder / "to", calls)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


BEFORE = {"/".join(path): content for path, content in CONTENTS.items()}
AFTER = {"/".join(new): CONTENTS[old] for old, new in MOVES}


def other_volume(calls: OsCalls) -> OsCalls:
    """Make renames fail as between volumes."""

    def rename(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    calls.rename = rename
    return calls


@pytest.mark.parametrize("crosses", [False, True])
@pytest.mark.parametrize("portable", [False, True])
def test_files_arrive_and_leave_nothing_behind(
    crosses: bool, portable: bool, tmp_path: Path
) -> None:
    calls = OsCalls(portable=portable)
    source, target = fill(tmp_path, other_volume(calls) if crosses else calls)
    (tmp_path / "from/t/a").chmod(0o751)
    before = open_descriptors()
    move_files(source, target, MOVES, calls)
    prune_folders(source, [old for old, _ in MOVES])
    assert contents(tmp_path / "to") == AFTER
    assert list((tmp_path / "from").iterdir()) == []
    assert stat.S_IMODE((tmp_path / "to/t/a").stat().st_mode) == 0o751
    assert open_descriptors() == before


def test_within_one_folder_only_what_changes_its_name_moves(tmp_path: Path) -> None:
    calls = OsCalls()
    source, _ = fill(tmp_path, calls)
    move_files(source, RootedTree(source.root, calls), MOVES, calls)
    assert contents(tmp_path / "from") == AFTER


@pytest.mark.parametrize("crosses", [False, True])
def test_nothing_is_overwritten_and_nothing_moves_then(crosses: bool, tmp_path: Path) -> None:
    calls = OsCalls()
    source, target = fill(tmp_path, other_volume(calls) if crosses else calls)
    (tmp_path / "to" / "u").mkdir(parents=True)
    (tmp_path / "to" / "u" / "c").write_bytes(b"mine")
    with pytest.raises(StorageError, match="something is there already"):
        move_files(source, target, MOVES, calls)
    assert contents(tmp_path / "from") == BEFORE
    assert contents(tmp_path / "to") == {"u/c": b"mine"}


@pytest.mark.parametrize("crosses", [False, True])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_each_call_in_turn_fails_and_everything_is_here_or_there(
    crosses: bool, number: int, tmp_path: Path
) -> None:
    before = open_descriptors()
    for fail_at in range(10_000):
        folder = tmp_path / str(fail_at)
        calls = FailingCalls()
        source, target = fill(folder, other_volume(calls) if crosses else calls)
        calls.arm(fail_at, number)
        try:
            move_files(source, target, MOVES, calls)
        except StorageError:
            assert contents(folder / "from") == BEFORE
            assert contents(folder / "to") == {}
        else:
            assert contents(folder / "to") == AFTER
            if calls.num_calls <= fail_at:
                break
        assert open_descriptors() == before
    assert fail_at > 20


def test_a_move_that_cannot_be_undone_says_where_things_are(tmp_path: Path) -> None:
    calls = OsCalls()
    source, target = fill(tmp_path, calls)
    real = calls.rename
    count = iter(range(10))

    def rename(*args: object, **options: object) -> None:
        if next(count):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(*args, **options)

    calls.rename = rename
    with pytest.raises(StorageError, match="files moved before stay in"):
        move_files(source, target, MOVES, calls)
    assert contents(tmp_path / "to") == {"t/a": CONTENTS["t", "a"]}


def test_copies_that_cannot_be_taken_back_are_told_of(tmp_path: Path) -> None:
    calls = FailingCalls(names={"unlink"})
    source, target = fill(tmp_path, other_volume(calls))
    calls.arm(0, errno.EACCES, keeps_failing=True)
    with pytest.raises(StorageError, match=r"permission denied; copies stay in .*to"):
        move_files(source, target, MOVES, calls)
    assert contents(tmp_path / "from") == BEFORE
    assert contents(tmp_path / "to") == AFTER


def test_an_original_that_cannot_be_removed_stays_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is moved is whole in the new place, and nowhere else."""
    calls = FailingCalls(names={"unlink"})
    source, target = fill(tmp_path, other_volume(calls))
    calls.arm(1, errno.EACCES)
    move_files(source, target, MOVES, calls)
    assert contents(tmp_path / "to") == AFTER
    assert contents(tmp_path / "from") == {"t/d/b": b""}
    assert "what was copied from there stays: permission denied" in caplog.text


def test_a_full_volume_leaves_no_copies(tmp_path: Path) -> None:
    calls = FailingCalls(names={"pwritev"})
    source, target = fill(tmp_path, other_volume(calls))
    calls.arm(1, errno.ENOSPC)
    with pytest.raises(DiskFull):
        move_files(source, target, MOVES, calls)
    assert contents(tmp_path / "from") == BEFORE
    assert list((tmp_path / "to").iterdir()) == []


def test_a_disk_that_cannot_read_the_original_is_the_one_that_is_blamed(tmp_path: Path) -> None:
    calls = FailingCalls(names={"preadv"})
    source, target = fill(tmp_path, other_volume(calls))
    calls.arm(0, errno.EIO)
    with pytest.raises(StorageError) as caught:
        move_files(source, target, MOVES, calls)
    assert caught.value.path == str(tmp_path / "from/t/a")
    assert contents(tmp_path / "from") == BEFORE


def test_holes_stay_holes_and_short_writes_are_completed(tmp_path: Path) -> None:
    calls = other_volume(ShortCalls(300_000))
    source, target = RootedTree(tmp_path / "from", calls), RootedTree(tmp_path / "to", calls)
    (tmp_path / "from").mkdir()
    with (tmp_path / "from/f").open("wb") as file:
        file.write(noise(1000))
        file.seek(8 * COPY_LENGTH)
        file.write(noise(1000, 2))
        file.truncate(10 * COPY_LENGTH)
    expected = (tmp_path / "from/f").read_bytes()
    move_files(source, target, [(("f",), ("f",))], calls)
    assert (tmp_path / "to/f").read_bytes() == expected
    assert (tmp_path / "to/f").stat().st_blocks * 512 < 4 * COPY_LENGTH


def test_pruning_keeps_what_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/mine").write_text("")
    prune_folders(RootedTree(tmp_path, OsCalls()), [("a", "b", "c", "f"), ("x", "y")])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "mine"]


def test_a_file_that_appears_meanwhile_is_left_alone(tmp_path: Path) -> None:
    calls = other_volume(OsCalls())
    source, target = fill(tmp_path, calls)
    real = calls.open

    def open_late(path: object, flags: int, *rest: object, **options: object) -> int:
        if path == "c" and flags & os.O_EXCL:
            (tmp_path / "to/u/c").write_bytes(b"mine")
        return real(path, flags, *rest, **options)

    calls.open = open_late
    with pytest.raises(StorageError, match="file exists"):
        move_files(source, target, MOVES, calls)
    assert contents(tmp_path / "from") == BEFORE
    assert contents(tmp_path / "to") == {"u/c": b"mine"}
