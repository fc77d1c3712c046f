"""The .torrent files of a state folder (Limits: P6, F9)."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from bittern.core.errors import DiskFull, StorageError
from bittern.core.ids import InfoHash
from bittern.storage import kept_torrents
from bittern.storage.kept_torrents import KeptTorrents
from bittern.storage.whole_file import write_whole


def key(number: int) -> InfoHash:
    return InfoHash(bytes([number]) * 20)


def make(folder: Path) -> KeptTorrents:
    return KeptTorrents(folder, lambda: False)


def test_what_is_kept_comes_back_until_it_is_forgotten(tmp_path: Path) -> None:
    kept = make(tmp_path / "torrents")
    assert kept.load(key(1)) is None
    kept.save(key(1), b"one")
    assert make(tmp_path / "torrents").load(key(1)) == b"one"
    assert kept.path_of(key(1)).read_bytes() == b"one"
    kept.forget(key(1))
    kept.forget(key(1))
    assert kept.load(key(1)) is None


def test_it_is_written_only_where_something_is_new(tmp_path: Path) -> None:
    kept = make(tmp_path)
    kept.save(key(1), b"one")
    before = kept.path_of(key(1)).stat().st_ino
    kept.save(key(1), b"one")
    assert kept.path_of(key(1)).stat().st_ino == before
    kept.save(key(1), b"two")
    assert kept.load(key(1)) == b"two"


def test_one_that_is_too_long_is_not_kept_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = make(tmp_path)
    monkeypatch.setattr(kept_torrents, "MAX_METAINFO_LENGTH", 3)
    kept.save(key(1), b"two")
    kept.save(key(1), b"four")
    assert kept.load(key(1)) == b"two"
    kept.path_of(key(1)).write_bytes(b"four")
    assert kept.load(key(1)) is None


def test_it_is_found_under_an_alias(tmp_path: Path) -> None:
    kept = make(tmp_path)
    kept.save(key(1), b"one", alias=key(1))
    assert [path.suffix for path in tmp_path.iterdir()] == [".torrent"]
    kept.save(key(1), b"two", alias=key(2))
    assert kept.load(key(1)) == kept.load(key(2)) == b"two"
    for damaged in (b"", b"../secret", f"{key(3)}.torrent".encode(), bytes(1000)):
        (tmp_path / f"{key(2)}.alias").write_bytes(damaged)
        assert kept.load(key(2)) is None
    kept.forget(key(2))
    kept.forget(key(1))
    assert list(tmp_path.iterdir()) == []


def test_what_the_disk_refuses_is_said_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        make(tmp_path / "file")
    with pytest.raises(StorageError, match="missing"):
        make(tmp_path / "missing" / "torrents")
    kept = make(tmp_path)
    kept.path_of(key(1)).mkdir()
    with pytest.raises(StorageError, match=str(key(1))):
        kept.load(key(1))
    with pytest.raises(StorageError, match=str(key(1))):
        kept.save(key(1), b"x")
    with pytest.raises(StorageError, match=str(key(1))):
        kept.forget(key(1))


def test_room_is_made_once_for_a_file_that_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room: list[bool] = []

    def write(path: Path, data: bytes) -> None:
        if not room:
            raise OSError(errno.ENOSPC, "no space left")
        write_whole(path, data)

    def make_room() -> bool:
        room.append(True)
        return True

    monkeypatch.setattr(kept_torrents, "write_whole", write)
    with pytest.raises(DiskFull):
        make(tmp_path).save(key(1), b"x")
    kept = KeptTorrents(tmp_path, make_room)
    kept.save(key(1), b"x")
    assert room == [True]
    assert kept.load(key(1)) == b"x"
