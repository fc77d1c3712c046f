"""Versions of mutable torrents on disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bittern.codec.torrent_record import Version
from bittern.core.errors import StorageError
from bittern.storage.versions import read_version, write_version

VERSION = Version(b"k" * 32, b"salt", 7, b"s" * 64, b"d2:ih20:" + b"h" * 20 + b"e")
NEWER = Version(b"k" * 32, b"salt", 8, b"t" * 64, b"d2:ih20:" + b"i" * 20 + b"e")
TARGET = b"\x01" * 20


def test_the_newest_is_read_back(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    assert read_version(state_dir, TARGET) is None
    for version in (VERSION, NEWER):
        write_version(state_dir, TARGET, version)
        assert read_version(state_dir, TARGET) == version
    assert read_version(state_dir, b"\x02" * 20) is None
    [path] = (state_dir / "mutable").iterdir()
    assert path.name == TARGET.hex()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("data", [b"", b"de", b"x" * 10_000])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, data: bytes) -> None:
    write_version(tmp_path, TARGET, VERSION)
    (tmp_path / "mutable" / TARGET.hex()).write_bytes(data)
    assert read_version(tmp_path, TARGET) is None
    write_version(tmp_path, TARGET, NEWER)
    assert read_version(tmp_path, TARGET) == NEWER


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="not a directory"):
        write_version(tmp_path / "file", TARGET, VERSION)
