"""storage.donors: finding files by length, and reading them as a torrent's bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bittern.core.errors import FileVanished, StorageError
from bittern.storage import donors as module
from bittern.storage.donors import DonorStorage, find_by_length, is_readable
from bittern.storage.system import OsCalls
from bittern.testing.disk import FaultyCalls
from tests.storage.places import contiguous, noise


def test_files_are_found_by_length_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a", "d/c", "d/e/f"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (5 if name != "d/c" else 6))
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    found = find_by_length([tmp_path], {1, 5, 6, 7})  # a link has the length of what it says
    assert found == {
        5: [tmp_path / "a", tmp_path / "b", tmp_path / "d/e/f"],
        6: [tmp_path / "d/c"],
    }
    assert find_by_length([tmp_path / "b", tmp_path / "missing"], {5}) == {5: [tmp_path / "b"]}


def test_a_folder_of_too_many_files_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 3)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in range(4):
            (tmp_path / folder / str(name)).write_bytes(b"x")
    assert len(find_by_length([tmp_path], {1})[1]) == 4


def test_a_folder_that_cannot_be_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scandir(place: str) -> object:
        raise PermissionError(13, "no", place)

    monkeypatch.setattr(os, "scandir", scandir)
    assert find_by_length([tmp_path], {1}) == {}


def test_a_place_that_may_not_be_looked_at_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"x")
    real = Path.is_file

    def is_file(path: Path) -> bool:
        if path.name == "secret":
            raise PermissionError(13, "no", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    found = find_by_length([tmp_path / "secret", tmp_path], {1})
    assert found == {1: [tmp_path / "a"]}


def test_donors_stand_in_the_place_of_files(tmp_path: Path) -> None:
    data = noise(200)
    layout = contiguous(100, 30, 70, pads=[1])
    (tmp_path / "one").write_bytes(data[:100])
    (tmp_path / "two").write_bytes(data[130:])
    view = DonorStorage(layout, {0: tmp_path / "one", 2: tmp_path / "two"}, OsCalls())
    buffers = [memoryview(bytearray(b"x" * 50)) for _ in range(4)]  # as after another read
    assert view.read_into(0, buffers)
    assert b"".join(buffers) == data[:100] + bytes(30) + data[130:]
    assert view.read_into(0, buffers[:1])  # from an open file
    stamp = view.stat_file(0)
    assert stamp is not None
    assert stamp.length == 100
    assert view.stat_file(1) is None
    view.close()


def test_where_there_is_no_donor_nothing_can_be_read(tmp_path: Path) -> None:
    layout = contiguous(100, 100)
    (tmp_path / "short").write_bytes(b"x" * 50)
    view = DonorStorage(layout, {0: tmp_path / "short"}, OsCalls())
    with pytest.raises(FileVanished, match="too short"):
        view.read_into(0, [memoryview(bytearray(100))])
    with pytest.raises(FileVanished, match="no file to take it from"):
        view.read_into(100, [memoryview(bytearray(100))])
    view.close()


def test_a_bad_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 100)
    calls = FaultyCalls()
    view = DonorStorage(contiguous(100), {0: tmp_path / "one"}, calls)
    calls.fail_call(0, names={"preadv"}, for_good=True)
    with pytest.raises(StorageError):
        view.read_into(0, [memoryview(bytearray(100))])
    view.close()


def test_readable_is_a_regular_file_of_the_length(tmp_path: Path) -> None:
    calls = FaultyCalls()
    path = tmp_path / "one"
    path.write_bytes(b"x" * 100)
    assert is_readable(path, 100, calls)
    assert not is_readable(path, 99, calls)
    assert not is_readable(tmp_path, 100, calls)
    calls.fail_call(0, names={"open"}, for_good=True)
    assert not is_readable(path, 100, calls)


def test_donors_have_places_for_other_processes(tmp_path: Path) -> None:
    layout = contiguous(100, 30, 70, pads=[1])
    (tmp_path / "one").write_bytes(noise(100))
    status = (tmp_path / "one").stat()
    calls = OsCalls()
    view = DonorStorage(layout, {0: tmp_path / "one"}, calls)
    assert view.place_of(20, 80) == (str(tmp_path / "one"), 20, status.st_dev, status.st_ino)
    assert view.place_of(20, 81) is None
    assert view.place_of(100, 10) is None
    assert view.place_of(130, 10) is None

    def fail(_fd: int) -> os.stat_result:
        raise OSError(5, "bad")

    calls.fstat = fail
    with pytest.raises(StorageError) as caught:
        view.place_of(20, 80)
    assert caught.value.path == str(tmp_path / "one")
    view.close()
    watched = DonorStorage(layout, {0: tmp_path / "one"}, FaultyCalls())
    assert watched.place_of(20, 80) is None
