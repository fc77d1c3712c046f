from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from bittern.cli import verify as verify_module
from bittern.codec.bencode import encode
from bittern.codec.metainfo import encode_metainfo
from bittern.core.errors import Inconsistent, StorageError
from tests.cli.support import (
    PIECE_LENGTH,
    Program,
    content,
    folder_torrent,
    hash_pieces,
    single_file_torrent,
    write,
)

DATA = content(10 * PIECE_LENGTH + 100)
FILES = [
    ((b"a", b"one"), content(3 * PIECE_LENGTH + 7, 1)),
    ((b"two",), content(2 * PIECE_LENGTH, 2)),
    ((b"none",), b""),
]


@pytest.fixture
def single(tmp_path: Path) -> Path:
    write(tmp_path / "data/cat.mp4", DATA)
    return write(tmp_path / "cat.torrent", single_file_torrent(b"cat.mp4", DATA))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path, data in FILES:
        write((tmp_path / "data/cats").joinpath(*(part.decode() for part in path)), data)
    return write(tmp_path / "cats.torrent", folder_torrent(b"cats", FILES))


def test_complete_data_is_code_0(bittern: Program, single: Path, tmp_path: Path) -> None:
    ran = bittern("verify", single, "--data", tmp_path / "data")
    assert ran.code == 0
    assert ran.out == "cat.mp4: complete, 11 pieces, 160.1 KiB\n"
    assert ran.err == ""


def test_a_link_to_the_folder_is_followed(bittern: Program, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data/cats")
    assert bittern("verify", folder, "--data", tmp_path / "link").code == 0


@pytest.mark.parametrize("place", ["data", "data/cats"])
def test_a_folder_is_found_both_ways(
    bittern: Program, folder: Path, tmp_path: Path, place: str
) -> None:
    ran = bittern("verify", folder, "--data", tmp_path / place, "--json")
    assert ran.code == 0
    assert ran.json == {"num_pieces": 6, "num_good": 6, "bad_pieces": [], "missing_files": []}
    assert ran.err == ""


@pytest.mark.parametrize("place", ["data/renamed.mp4", "data/renamed"])
def test_renamed_data_is_found_by_its_own_path(
    bittern: Program, single: Path, folder: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "data/cat.mp4").rename(tmp_path / "data/renamed.mp4")
    (tmp_path / "data/cats").rename(tmp_path / "data/renamed")
    torrent = single if place.endswith("mp4") else folder
    assert bittern("verify", torrent, "--data", tmp_path / place).code == 0


def test_bad_pieces_are_code_6(bittern: Program, single: Path, tmp_path: Path) -> None:
    damaged = bytearray(DATA)
    damaged[PIECE_LENGTH] ^= 1
    damaged[-1] ^= 1
    path = write(tmp_path / "data/cat.mp4", bytes(damaged))
    ran = bittern("verify", single, "--data", path, "--json")
    assert ran.code == 6
    assert ran.json == {
        "num_pieces": 11,
        "num_good": 9,
        "bad_pieces": [1, 10],
        "missing_files": [],
    }
    ran = bittern("verify", single, "--data", path)
    assert ran.code == 6
    assert ran.out == "cat.mp4: not complete, 9 of 11 pieces are good\n"


def test_missing_and_short_files_are_named(bittern: Program, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data/cats/two").unlink()
    write(tmp_path / "data/cats/a/one", FILES[0][1][: PIECE_LENGTH + 1])
    ran = bittern("verify", folder, "--data", tmp_path / "data", "--json")
    assert ran.code == 6
    assert ran.json == {
        "num_pieces": 6,
        "num_good": 1,
        "bad_pieces": [1, 2, 3, 4, 5],
        "missing_files": ["cats/two"],
    }
    assert bittern("verify", folder, "--data", tmp_path / "data").out.splitlines() == [
        "missing: cats/two",
        "too short: cats/a/one",
        "cats: not complete, 1 of 6 pieces are good",
    ]


def test_a_missing_empty_file_is_not_complete(
    bittern: Program, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "data/cats/none").unlink()
    ran = bittern("verify", folder, "--data", tmp_path / "data", "--json")
    assert ran.code == 6
    assert ran.json["num_good"] == 6
    assert ran.json["missing_files"] == ["cats/none"]


def test_many_missing_files_are_counted(bittern: Program, tmp_path: Path) -> None:
    files = [((b"%03d" % index,), b"x") for index in range(25)]
    torrent = write(tmp_path / "a.torrent", folder_torrent(b"many", files))
    lines = bittern("verify", torrent, "--data", tmp_path).out.splitlines()
    assert len(lines) == 22
    assert lines[20] == "missing: 5 more files"


def test_extra_bytes_and_extra_files_do_no_harm(
    bittern: Program, folder: Path, tmp_path: Path
) -> None:
    write(tmp_path / "data/cats/two", FILES[1][1] + b"more")
    write(tmp_path / "data/cats/three", b"extra")
    assert bittern("verify", folder, "--data", tmp_path / "data").code == 0


def test_verifying_changes_nothing(bittern: Program, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data/cats/two").unlink()
    before = sorted(tmp_path.rglob("*"))
    bittern("verify", folder, "--data", tmp_path / "data")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("torrent", "data", "code", "text"),
    [
        ("cat.torrent", "gone", 3, "gone: no such file or folder"),
        ("gone.torrent", "data", 3, "gone.torrent: no such file"),
        ("data/cat.mp4", "data", 1, "data/cat.mp4: not a torrent"),
    ],
)
def test_what_is_not_there_is_said(
    bittern: Program, single: Path, tmp_path: Path, torrent: str, data: str, code: int, text: str
) -> None:
    ran = bittern("verify", tmp_path / torrent, "--data", tmp_path / data)
    assert ran.code == code
    assert text in ran.error


def test_a_file_where_a_folder_is_expected(bittern: Program, folder: Path, tmp_path: Path) -> None:
    ran = bittern("verify", folder, "--data", write(tmp_path / "file", b"x"))
    assert ran.code == 1
    assert "the torrent holds a folder" in ran.error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageError("permission denied", path="/x", errno=13), 8),
        (StorageError("input/output error", path="/x", errno=5), 1),
        (Inconsistent(3, "v1"), 6),
        (KeyboardInterrupt(), 130),
    ],
    ids=repr,
)
def test_a_failing_disk_is_one_line(
    bittern: Program,
    single: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(verify_module, "check_pieces", fail)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    ran = bittern("verify", single, "--data", tmp_path / "data")
    assert ran.code == code
    assert ran.out == ""
    assert ran.error


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("json", "quiet"), [(False, False), (True, False), (False, True)])
def test_progress_goes_to_the_terminal_that_is_not_the_result(
    single: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    json: bool,
    quiet: bool,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("bittern.cli.display.LiveDisplay.interval", 0.0)
    stdout, stderr = (io.StringIO(), _Terminal()) if json else (_Terminal(), io.StringIO())
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)
    code = verify_module.verify(str(single), data=tmp_path / "data", json=json, quiet=quiet)
    assert code == 0
    drawn = (stderr if json else stdout).getvalue()
    assert ("verifying" in drawn) is not quiet
    assert ("\x1b[?25h" in drawn) is not quiet
    if json:
        assert stdout.getvalue().startswith("{")
    elif quiet:
        assert drawn == ""


def test_every_piece_length_and_padding_are_hashed(bittern: Program, tmp_path: Path) -> None:
    first, second = content(5, 1), content(9, 2)
    padded = first + bytes(PIECE_LENGTH - 5) + second
    info = encode(
        {
            b"name": b"d",
            b"files": [
                {b"path": [b"a"], b"length": 5},
                {b"path": [b".pad", b"1"], b"length": PIECE_LENGTH - 5, b"attr": b"p"},
                {b"path": [b"b"], b"length": 9},
            ],
            b"piece length": PIECE_LENGTH,
            b"pieces": hash_pieces(padded),
        }
    )
    torrent = write(tmp_path / "d.torrent", encode_metainfo(info))
    write(tmp_path / "d/a", first)
    write(tmp_path / "d/b", second)
    ran = bittern("verify", torrent, "--data", tmp_path, "--json")
    assert ran.json == {"num_pieces": 2, "num_good": 2, "bad_pieces": [], "missing_files": []}
