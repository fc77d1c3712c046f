"""storage.mounts: whether the volume that holds a torrent's files is there. Limit: F6."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bittern.storage.base import FileStamp
from bittern.storage.mounts import are_elsewhere, is_mount_point, is_mounted, volume_of
from tests.storage.places import Mounts


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> Mounts:
    return Mounts(monkeypatch)


def test_a_mount_point_is_told_by_the_folder_above_it(tmp_path: Path) -> None:
    assert is_mount_point(tmp_path.anchor)
    for place in (tmp_path, tmp_path / "missing", tmp_path / "a\0b"):
        assert not is_mount_point(str(place))
    assert is_mount_point("/proc") is Path("/proc/self").exists()


def test_a_folder_is_on_the_volume_that_is_mounted_next_above_it(
    mounts: Mounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usb, nested = tmp_path / "usb", tmp_path / "usb/a/nested"
    nested.mkdir(parents=True)
    assert volume_of(usb) == Path(usb.anchor)
    mounts |= {usb, nested}
    assert volume_of(usb) == volume_of(usb / "a") == volume_of(usb / "still/to/be/made") == usb
    assert volume_of(nested / "b") == nested
    monkeypatch.chdir(usb)
    assert volume_of(Path("a")) == usb


def test_a_link_is_on_the_volume_that_it_leads_to(mounts: Mounts, tmp_path: Path) -> None:
    """Also one that leads to nothing, as its volume is not there."""
    usb = tmp_path / "usb"
    usb.mkdir()
    mounts.add(usb)
    (tmp_path / "link").symlink_to(usb / "data")
    assert volume_of(tmp_path / "link/sub") == usb


def test_a_volume_is_there_while_something_is_mounted(mounts: Mounts, tmp_path: Path) -> None:
    assert is_mounted(Path(tmp_path.anchor))
    assert not is_mounted(tmp_path)
    mounts.add(tmp_path)
    assert is_mounted(tmp_path)
    mounts.add(tmp_path / "E:")
    assert not is_mounted(tmp_path / "E:"), "each letter is a drive, whether there is one or not"


@pytest.mark.parametrize(
    ("number", "is_there"), [(errno.ENODEV, False), (errno.EIO, False), (errno.EACCES, True)]
)
def test_a_volume_that_cannot_be_mounted_on_demand_is_missing(
    mounts: Mounts, number: int, is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place of an automounter is a mount point by itself; looking into it mounts the volume."""
    mounts.add(tmp_path)

    def scandir(path: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    assert is_mounted(tmp_path) is is_there


@pytest.mark.parametrize(
    ("lengths", "stamped", "suffix", "expected"),
    [
        ({}, (5, 3), None, True),
        ({"a": 5, "b/c": 3}, (5, 3), None, False),
        ({"a": 9, "b/c": 3}, (5, 3), None, False),
        ({"a": 5}, (5, 3), None, True),
        ({"a": 4, "b/c": 3}, (5, 3), None, True),
        ({"a": 5}, (5, None), None, False),
        ({}, (0, None), None, False),
        ({}, (), None, False),
        ({"a.part": 5, "b/c": 3}, (5, 3), ".part", False),
        ({"a.part": 5, "b/c": 3}, (5, 3), None, True),
        ({"a": 5}, (5, 3), ".part", True),
    ],
)
def test_files_are_here_when_all_are_that_were_and_as_long(
    lengths: dict[str, int],
    stamped: tuple[int | None, ...],
    suffix: str | None,
    expected: bool,
    tmp_path: Path,
) -> None:
    for name, length in lengths.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(length))
    stamps = [None if length is None else FileStamp(length, 1, 1) for length in stamped]
    paths = [("a",), ("b", "c")]
    assert are_elsewhere(tmp_path, paths, stamps, part_suffix=suffix) is expected


def test_a_path_that_no_file_can_have_is_not_there(tmp_path: Path) -> None:
    assert are_elsewhere(tmp_path, [("a\0b",)], [FileStamp(1, 1, 1)], part_suffix=None)
