from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from bittern import __version__
from bittern.cli.display import Meter
from bittern.cli.exits import ExitCode
from bittern.codec.magnet import parse_magnet
from bittern.codec.metainfo import Metainfo, decode_metainfo
from tests.cli.support import Program, content, write


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a file and a folder beside it."""
    write(tmp_path / "data/cat.mp4", content(100_000))
    write(tmp_path / "data/cats/one", content(40_000, 1))
    write(tmp_path / "data/cats/sub/two", content(3, 2))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def read(path: Path) -> Metainfo:
    return decode_metainfo(path.read_bytes())


def test_a_file_becomes_a_hybrid_torrent_in_the_current_folder(
    bittern: Program, here: Path
) -> None:
    ran = bittern("create", "../data/cat.mp4")
    assert ran.code == 0
    assert ran.err == ""
    made = read(here / "cat.mp4.torrent")
    assert made.name == "cat.mp4"
    assert made.info.version.value == "hybrid"
    assert made.info.geometry.total_length == 100_000
    assert made.created_by == f"bittern/{__version__}"
    assert made.creation_date is None
    lines = ran.out.splitlines()
    assert lines[0] == "wrote cat.mp4.torrent: 7 pieces of 16.0 KiB, 97.7 KiB"
    assert lines[1] == f"info hash     {made.info.info_hash}"
    assert lines[2] == f"info hash v2  {made.info.info_hash_v2}"
    assert parse_magnet(lines[3].removeprefix("magnet        ")).info_hash == made.info.info_hash
    assert sorted(path.name for path in here.iterdir()) == ["cat.mp4.torrent"]


def test_what_was_created_verifies(bittern: Program, here: Path) -> None:
    for option in ("--v1", "--v2", "--hybrid"):
        assert bittern("create", "../data/cats", option).code == 0
        ran = bittern("verify", "cats.torrent", "--data", "../data", "--json")
        assert ran.code == 0
        assert ran.json["num_good"] == ran.json["num_pieces"] > 0


@pytest.mark.parametrize(
    ("options", "version"),
    [
        ([], "hybrid"),
        (["--v1"], "1"),
        (["--v2"], "2"),
        (["--hybrid"], "hybrid"),
        (["--v1", "--v2"], "hybrid"),
        (["--v1", "--hybrid"], "hybrid"),
    ],
)
def test_versions(bittern: Program, here: Path, options: list[str], version: str) -> None:
    assert bittern("create", "../data/cat.mp4", *options, "--json").json["version"] == version


def test_every_option_arrives_in_the_torrent(
    bittern: Program, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    line = """create ../data/cats -o out.torrent --tracker http://a/x,udp://b:1 --tracker wss://c
        --web-seed http://w/ --node dht.example:6881 --private --comment hello --source TRK
        --name kittens --piece-length 32Ki --json"""
    ran = bittern(*line.split())
    assert ran.code == 0, ran.err
    made = read(here / "out.torrent")
    assert made.trackers == (("http://a/x", "udp://b:1"), ("wss://c",))
    assert made.web_seeds == ("http://w/",)
    assert made.nodes == (("dht.example", 6881),)
    assert made.info.is_private
    assert made.comment == "hello"
    assert made.info.source == "TRK"
    assert made.name == "kittens"
    assert made.info.piece_length == 32768
    assert made.creation_date == 1_700_000_000
    value = ran.json
    assert value["path"] == "out.torrent"
    assert value["info_hash"] == str(made.info.info_hash)
    assert value["magnet"].startswith("magnet:?xt=urn:btih:" + value["info_hash"])
    assert value["trackers"] == [["http://a/x", "udp://b:1"], ["wss://c"]]


def test_links_are_kept_if_asked(bittern: Program, here: Path) -> None:
    (here.parent / "data/cats/link").symlink_to("one")
    value = bittern("create", "../data/cats", "--keep-symlinks", "--json").json
    links = [entry for entry in value["files"] if "symlink_target" in entry]
    assert [link["path"] for link in links] == ["cats/link"]
    assert links[0]["symlink_target"] == "one"


def test_the_same_data_gives_the_same_bytes(
    bittern: Program, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for clock, name in enumerate(("a.torrent", "b.torrent")):
        monkeypatch.setattr("time.time", lambda clock=clock: 1_800_000_000.0 + clock)
        assert bittern("create", "../data/cats", "-q", "-o", name).code == 0
        made.append((here / name).read_bytes())
    assert made[0] == made[1]
    assert b"creation date" not in made[0]


@pytest.mark.parametrize(
    ("option", "fixed", "written"),
    [
        ("", "", None),
        ("", "soon", None),
        ("", "1700000000", 1_700_000_000),
        ("--date", "", 1_800_000_000),
        ("--date", "soon", 1_800_000_000),
        ("--date", "1700000000", 1_700_000_000),
        ("--no-date", "1700000000", None),
    ],
)
def test_a_date_on_request(
    bittern: Program,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    fixed: str,
    written: int | None,
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", fixed)
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.5)
    ran = bittern("create", "../data/cat.mp4", "--json", *option.split())
    assert ran.json["creation_date"] == written


def test_a_folder_as_output_takes_the_torrent(bittern: Program, here: Path) -> None:
    (here / "torrents").mkdir()
    assert bittern("create", "../data/cats", "-o", "torrents").code == 0
    assert (here / "torrents/cats.torrent").exists()


def test_the_current_folder_has_a_name(
    bittern: Program, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here.parent / "data/cats")
    assert bittern("create", ".", "-o", here).code == 0
    assert read(here / "cats.torrent").name == "cats"


def test_an_older_torrent_is_replaced(bittern: Program, here: Path) -> None:
    write(here / "cat.mp4.torrent", b"old")
    assert bittern("create", "../data/cat.mp4").code == 0
    assert read(here / "cat.mp4.torrent").name == "cat.mp4"


def test_quiet_says_nothing(bittern: Program, here: Path) -> None:
    ran = bittern("create", "../data/cat.mp4", "-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_standard_output_takes_the_bytes(
    bittern: Program, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw))
    assert bittern("create", "../data/cat.mp4", "-o", "-").code == 0
    assert decode_metainfo(raw.getvalue()).name == "cat.mp4"
    assert list(here.iterdir()) == []


def test_a_private_torrent_without_a_tracker_is_warned_of(bittern: Program, here: Path) -> None:
    ran = bittern("create", "../data/cat.mp4", "--private")
    assert ran.code == 0
    assert ran.error == "warning: a private torrent without a tracker finds no peers"


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("gone", 3, "no such file"),
        ("../data/cat.mp4 -o gone/x.torrent", 3, "gone: no such folder"),
        ("../data/cat.mp4 -o ../data/cat.mp4", 8, "exists and is no .torrent"),
        ("../data/cat.mp4 --piece-length 5", 2, "piece length 5"),
        ("../data/cat.mp4 --piece-length 1Gi", 2, "piece length"),
        ("../data/cat.mp4 --piece-length x", 2, "'x' is not a size"),
        ("../data/cat.mp4 --tracker ftp://x/", 2, "'ftp://x/' is no tracker URL"),
        ("../data/cat.mp4 --tracker http://x/,", 2, "'' is no tracker URL"),
        ("../data/cat.mp4 --web-seed udp://x/", 2, "'udp://x/' is no web seed URL"),
        ("../data/cat.mp4 -o - --json", 2, "both want stdout"),
        ("empty", 1, "all files are empty"),
    ],
)
def test_what_cannot_be_is_refused(
    bittern: Program, here: Path, line: str, code: int, text: str
) -> None:
    write(here / "empty", b"")
    ran = bittern("create", *line.split())
    assert ran.code == code
    assert text in ran.error
    assert ran.out == ""
    assert sorted(path.name for path in here.iterdir()) == ["empty"]


def test_a_folder_that_may_not_be_written_is_refused_before_hashing(
    bittern: Program, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root
    ran = bittern("create", "../data/cat.mp4")
    assert ran.code == 5
    assert ran.error == f"{here}: not writable"


def test_an_interrupt_leaves_nothing(
    bittern: Program, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(meter: object, done: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Meter, "count", interrupt)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    ran = bittern("create", "../data/cat.mp4")
    assert ran.code == 130
    assert ran.error == "interrupted"
    assert list(here.iterdir()) == []


def test_a_full_disk_leaves_the_old_file(
    bittern: Program, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = write(here / "a.torrent", b"old")

    def fail(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    ran = bittern("create", "../data/cat.mp4", "-o", "a.torrent")
    assert ran.code is ExitCode.DISK
    assert ran.error == "a.torrent: no space left on device"
    assert [path.name for path in here.iterdir()] == ["a.torrent"]
    assert target.read_bytes() == b"old"


def test_a_link_gives_the_torrent_and_its_file_the_name(bittern: Program, here: Path) -> None:
    (here / "kittens").symlink_to(here.parent / "data/cats")
    assert bittern("create", "kittens").code == 0
    assert read(here / "kittens.torrent").name == "kittens"


@pytest.mark.parametrize("length", [240, 255])
def test_a_long_name_is_shortened_for_the_torrent_file(
    length: int, bittern: Program, here: Path
) -> None:
    name = "n" * (length - 4) + ".mp4"
    write(here / name, content(20_000))
    assert bittern("create", name, "-q").code == 0
    [path] = here.glob("*.torrent")
    assert path.name.startswith("n" * 220)
    assert read(path).name == name
    assert len(list(here.iterdir())) == 2


def test_a_date_that_is_none_is_refused_before_hashing(
    bittern: Program, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "9" * 24)
    ran = bittern("create", "../data/cat.mp4")
    assert ran.code == 2
    assert ran.error == f"SOURCE_DATE_EPOCH: {'9' * 24} is no date"
    assert list(here.iterdir()) == []
