"""cli.saving: the .torrent file of what a magnet link led to."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bittern.cli.exits import CommandFailed
from bittern.cli.saving import TorrentSaver, check_place, write_atomically
from bittern.codec.info import Version
from bittern.codec.metainfo import Metainfo, decode_metainfo
from bittern.storage.creator import CreateOptions, create_torrent


def make(folder: Path, version: Version, name: str = "content") -> Metainfo:
    path = folder / "source" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * 100_000)
    options = CreateOptions(
        version=version, piece_length=16_384, trackers=(("http://tracker.example/announce",),)
    )
    return decode_metainfo(create_torrent(path, options=options, num_threads=1))


@pytest.mark.parametrize("version", list(Version))
def test_a_file_is_written_once_everything_is_known(version: Version, tmp_path: Path) -> None:
    metainfo = make(tmp_path, version)
    saver = TorrentSaver(tmp_path / "saved.torrent")
    assert not saver.offer(None)
    incomplete = replace(metainfo, piece_layers={})
    assert saver.offer(incomplete) is (version is Version.V1)
    saver.offer(metainfo)
    assert not saver.offer(metainfo)
    assert saver.path == tmp_path / "saved.torrent"
    found = decode_metainfo(saver.path.read_bytes())
    assert (found.info.raw, found.trackers) == (metainfo.info.raw, metainfo.trackers)
    if version is not Version.V1:
        assert dict(found.piece_layers) == dict(metainfo.piece_layers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved.torrent", "source"]


def test_a_folder_gets_a_file_with_the_name_of_the_torrent(tmp_path: Path) -> None:
    """The name comes from strangers, so it is made safe."""
    raw = make(tmp_path, Version.V1, "a").info.raw.replace(b"4:name1:a", b"4:name7:../evil")
    metainfo = decode_metainfo(b"d4:info" + raw + b"e")
    (tmp_path / "in").mkdir()
    saver = TorrentSaver(tmp_path / "in")
    assert saver.offer(metainfo)
    assert saver.path is not None
    assert saver.path.resolve().parent == (tmp_path / "in").resolve()
    assert saver.path.name.endswith("evil.torrent")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_nothing_is_written_through_a_link_that_somebody_has_put_there(tmp_path: Path) -> None:
    (tmp_path / f".bittern.{os.getpid()}.part").symlink_to(tmp_path / "elsewhere")
    write_atomically(tmp_path / "a.torrent", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.torrent"]
    assert not (tmp_path / "a.torrent").is_symlink()


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    saver = TorrentSaver(tmp_path / "gone" / "saved.torrent")
    with pytest.raises(FileNotFoundError):
        saver.offer(make(tmp_path, Version.V1))
    assert saver.path is None


def test_places_are_checked_before_anything_begins(tmp_path: Path) -> None:
    check_place(None, 5)
    check_place(tmp_path, 5)
    check_place(tmp_path / "new.torrent", 1)
    with pytest.raises(CommandFailed, match="name a folder"):
        check_place(tmp_path / "new.torrent", 2)
    with pytest.raises(CommandFailed, match="no such folder"):
        check_place(tmp_path / "no" / "new.torrent", 1)
    for name in ("old.torrent", "old.TORRENT", "notes.txt"):
        (tmp_path / name).write_bytes(b"old")
    check_place(tmp_path / "old.torrent", 1)
    check_place(tmp_path / "old.TORRENT", 1)
    for place in (tmp_path / "notes.txt", Path("/dev/null")):
        with pytest.raises(CommandFailed, match="exists and is no") as refused:
            check_place(place, 1)
        assert refused.value.code == 8


def test_a_long_name_is_shortened_for_the_torrent_file(tmp_path: Path) -> None:
    metainfo = make(tmp_path, Version.V1, "n" * 255)
    (tmp_path / "in").mkdir()
    saver = TorrentSaver(tmp_path / "in")
    assert saver.offer(metainfo)
    [path] = (tmp_path / "in").iterdir()
    assert path == saver.path
    assert path.name.startswith("n" * 200)
    assert path.suffix == ".torrent"
