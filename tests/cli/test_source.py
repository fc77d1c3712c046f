from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from bittern.cli import source as source_module
from bittern.cli.exits import CommandFailed, ExitCode
from bittern.cli.source import (
    SourceKind,
    kind_of,
    load_info_hash,
    load_magnet,
    load_metainfo,
    read_torrent,
)
from bittern.codec.bencode import Encodable, encode
from tests.cli.support import Program, single_file_torrent, write

HASH = "0123456789abcdef0123456789ABCDEF01234567"


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("-", SourceKind.FILE),
        ("/dev/stdin", SourceKind.FILE),
        (os.devnull, SourceKind.FILE),
        ("magnet:?xt=urn:btih:" + HASH, SourceKind.MAGNET),
        ("MAGNET:?", SourceKind.MAGNET),
        ("http://example.org/a.torrent", SourceKind.URL),
        ("HTTPS://example.org/", SourceKind.URL),
        (HASH, SourceKind.INFO_HASH),
        (
            HASH[:32]
            .upper()
            .replace("0", "A")
            .replace("1", "B")
            .replace("8", "C")
            .replace("9", "D"),
            SourceKind.INFO_HASH,
        ),
        (HASH + HASH[:24], SourceKind.INFO_HASH),
        ("1220" + HASH + HASH[:24], SourceKind.INFO_HASH),
    ],
)
def test_a_source_is_known_by_its_form(source: str, kind: SourceKind) -> None:
    assert kind_of(source) is kind


@pytest.mark.parametrize("source", ["", "nowhere.torrent", "ftp://x/y", HASH[:39], "udp://t:1"])
def test_what_is_nothing_else_is_a_missing_file(source: str) -> None:
    with pytest.raises(CommandFailed, match="no such file") as caught:
        kind_of(source)
    assert caught.value.code is ExitCode.NOT_FOUND


def test_a_file_wins_over_what_its_name_looks_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / HASH, b"")
    assert kind_of(HASH) is SourceKind.FILE


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "MAX_TORRENT_LENGTH", 10)
    assert read_torrent(str(write(tmp_path / "a", bytes(10)))) == bytes(10)
    with pytest.raises(CommandFailed, match="b: larger than 10 bytes"):
        read_torrent(str(write(tmp_path / "b", bytes(11))))


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.torrent", b"d4:infoi1ee")
    with pytest.raises(CommandFailed, match=r"bad\.torrent: info: no dictionary") as caught:
        load_metainfo(str(path))
    assert caught.value.code is ExitCode.ERROR


def test_a_good_file_is_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "good.torrent", single_file_torrent(b"x", b"abc"))
    assert load_metainfo(str(path)).name == "x"


def info(**values: Encodable | None) -> bytes:
    """Return a torrent whose info dictionary has these values over good ones."""
    good: dict[bytes, Encodable | None] = {
        b"name": b"x",
        b"length": 3,
        b"piece length": 16384,
        b"pieces": bytes(20),
    }
    good.update({key.replace("_", " ").encode(): value for key, value in values.items()})
    return encode({b"info": {k: v for k, v in good.items() if v is not None}})


GOOD = info()

BAD = [
    ("empty", b""),
    ("no bencoding", b"\x7fELF\x02\x01\x01"),
    ("html", b"<!DOCTYPE html><title>404</title>"),
    ("a number", b"i42e"),
    ("a list", b"le"),
    ("empty dictionary", b"de"),
    ("truncated", GOOD[:-1]),
    ("cut in half", GOOD[: len(GOOD) // 2]),
    ("trailing bytes", GOOD + b"x"),
    ("twice", GOOD + GOOD),
    ("info is a string", b"d4:info3:abce"),
    ("nested lists", b"d4:info" + b"l" * 1_000_000),
    ("nested dictionaries", b"d4:info" + b"d1:a" * 100_000),
    ("giant string", b"d4:info9999999999:x"),
    ("huge length prefix", b"d" + b"9" * 5000 + b":x"),
    ("huge integer", b"d4:infod6:lengthi" + b"9" * 5000 + b"eee"),
    ("negative zero", b"d4:infod6:lengthi-0eee"),
    ("duplicate keys", b"d4:infode4:infodee"),
    ("no name", info(name=None)),
    ("name is a number", info(name=7)),
    ("no length", info(length=None)),
    ("negative length", info(length=-1)),
    ("absurd length", info(length=1 << 62)),
    ("no piece length", info(piece_length=None)),
    ("zero piece length", info(piece_length=0)),
    ("absurd piece length", info(piece_length=1 << 40)),
    ("no pieces", info(pieces=None)),
    ("pieces too short", info(pieces=bytes(19))),
    ("pieces too many", info(pieces=bytes(40))),
    ("absurd number of pieces", info(length=1 << 40, piece_length=1, pieces=b"")),
    ("both kinds of files", info(files=[{b"length": 3, b"path": [b"a"]}])),
    ("no files", info(length=None, files=[])),
    ("a file without a path", info(length=None, files=[{b"length": 3}])),
    ("v2 of the future", info(meta_version=3)),
    ("file tree of nonsense", info(meta_version=2, file_tree=[1], pieces=None, length=None)),
    ("escape codes", b"d4:infod4:name8:\x1b[2J\x1b[31ee"),
]


@pytest.mark.parametrize(
    "data",
    [
        *(pytest.param(data, id=name) for name, data in BAD),
        pytest.param(
            b"d4:infol" + b"le" * 2_100_000 + b"ee", id="object bomb", marks=pytest.mark.slow
        ),
    ],
)
def test_a_hostile_torrent_is_one_clear_line(bittern: Program, tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / "bad.torrent", data)
    ran = bittern("info", path, "--json")
    assert ran.code == 1
    assert ran.out == ""
    assert ran.error.startswith(f"{path}: ")
    assert ran.error.isprintable()
    assert len(ran.error) < len(str(path)) + 200
    assert "internal error" not in ran.error


@pytest.mark.parametrize(
    ("source", "code", "text"),
    [
        ("{tmp}", 1, "a folder, not a .torrent file"),
        ("{tmp}/missing.torrent", 3, "no such file"),
        ("{tmp}/a.torrent/b", 3, "no such file"),
        ("/dev/zero", 1, "larger than"),
        ("http://example.org/a.torrent", 2, "without a network"),
        (HASH, 2, "without a network"),
        ("x" * 5000, 3, "no such file"),
    ],
)
def test_what_is_no_torrent_file_is_refused(
    bittern: Program, tmp_path: Path, source: str, code: int, text: str
) -> None:
    write(tmp_path / "a.torrent", GOOD)
    ran = bittern("info", source.format(tmp=tmp_path))
    assert ran.code == code
    assert text in ran.error


def test_a_file_that_may_not_be_read_is_not_allowed(
    bittern: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "secret.torrent", GOOD)

    def refuse(name: str, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", name)

    monkeypatch.setattr(source_module, "open", refuse, raising=False)  # the tests may run as root
    ran = bittern("info", path)
    assert ran.code == 8
    assert ran.error == f"{path}: permission denied"


def test_a_dangling_link_is_not_found(bittern: Program, tmp_path: Path) -> None:
    link = tmp_path / "link.torrent"
    link.symlink_to(tmp_path / "gone")
    ran = bittern("info", link)
    assert ran.code == 3
    assert ran.error == f"{link}: no such file or directory"


def test_links_and_hashes_are_read_or_refused_in_one_line() -> None:
    wanted = load_info_hash(HASH)
    assert load_magnet("magnet:?xt=urn:btih:" + HASH).info_hash == wanted.info_hash
    with pytest.raises(CommandFailed):
        load_magnet("magnet:?dn=nothing")
    with pytest.raises(CommandFailed, match="not an info hash") as caught:
        load_info_hash(HASH[:-1])
    assert caught.value.code is ExitCode.USAGE


def test_standard_input_is_a_torrent_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class Input:
        buffer = io.BytesIO(GOOD)

    monkeypatch.setattr("sys.stdin", Input())
    assert load_metainfo("-").name == "x"
