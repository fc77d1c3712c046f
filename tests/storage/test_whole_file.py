"""Files that are replaced as a whole."""

from __future__ import annotations

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
