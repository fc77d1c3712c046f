"""storage.dht_state: one file, replaced as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from bittern.core.errors import StorageError
from bittern.storage.dht_state import MAX_LENGTH, NAME, read_dht_state, write_dht_state


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert read_dht_state(folder) is None
    write_dht_state(folder, b"one")
    write_dht_state(folder, b"other")
    assert read_dht_state(folder) == b"other"
    assert [path.name for path in folder.iterdir()] == [NAME]
    assert (folder / NAME).stat().st_mode & 0o077 == 0


def test_what_is_too_long_or_no_file_is_nothing(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"x" * (MAX_LENGTH + 1))
    assert read_dht_state(tmp_path) is None
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).mkdir()
    assert read_dht_state(tmp_path) is None


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_dht_state(tmp_path / "file" / "state", b"x")
