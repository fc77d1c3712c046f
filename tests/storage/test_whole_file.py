"""Files that are replaced as a whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bittern.storage.whole_file import write_whole


def test_write_whole_replaces_and_keeps_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "f", b"one")
    write_whole(tmp_path / "f", b"two")
    assert (tmp_path / "f").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "missing" / "f", b"x")


def test_the_new_content_is_on_disk_before_it_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F8. And the name is, when the call returns."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(fd: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    def note_replace(self: Path, target: Path) -> Path:
        steps.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_whole(tmp_path / "f", b"one")
    assert steps == ["file", "name", "folder"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_fails_leaves_the_old_content_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F1."""

    def fail(*_: object) -> None:
        raise OSError(28, "no space left on device")

    write_whole(tmp_path / "f", b"old")
    monkeypatch.setattr(os if step == "fsync" else Path, step, fail)
    with pytest.raises(OSError, match="no space"):
        write_whole(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_it_is_for_its_owner_only(tmp_path: Path) -> None:
    """It may be a key (``storage.key_file``)."""
    before = os.umask(0)
    try:
        write_whole(tmp_path / "f", b"secret")
    finally:
        os.umask(before)
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


def test_a_system_without_descriptors_of_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows, where names are durable or not as it pleases."""
    monkeypatch.delattr(os, "O_DIRECTORY", raising=False)
    write_whole(tmp_path / "f", b"one")
    assert (tmp_path / "f").read_bytes() == b"one"
