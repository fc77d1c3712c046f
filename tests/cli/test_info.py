from __future__ import annotations

from pathlib import Path

import pytest

from bittern.cli.info import _date_text
from bittern.codec.bencode import Encodable, encode
from bittern.codec.metainfo import encode_metainfo
from tests.cli.support import Program, content, folder_torrent, single_file_torrent, write

CONTRACT = [
    "name",
    "version",
    "info_hash",
    "info_hash_v2",
    "piece_length",
    "num_pieces",
    "total_length",
    "private",
    "trackers",
    "web_seeds",
    "comment",
    "created_by",
    "creation_date",
    "files",
]


def test_json_has_what_the_contract_names(bittern: Program, tmp_path: Path) -> None:
    data = single_file_torrent(
        b"cat.mp4",
        content(40_000),
        trackers=[["http://a/announce", "udp://b:1"], ["http://c/"]],
        web_seeds=["http://d/"],
        nodes=[("e.example", 6881)],
        comment="hi",
        created_by="me",
        creation_date=1_700_000_000,
    )
    ran = bittern("info", write(tmp_path / "a.torrent", data), "--json")
    assert ran.code == 0
    assert ran.err == ""
    value = ran.json
    assert set(CONTRACT) <= set(value)
    info_hash = value.pop("info_hash")
    assert len(bytes.fromhex(info_hash)) == 20
    assert value == {
        "name": "cat.mp4",
        "version": "1",
        "info_hash_v2": None,
        "piece_length": 16384,
        "num_pieces": 3,
        "total_length": 40_000,
        "private": False,
        "source": None,
        "trackers": [["http://a/announce", "udp://b:1"], ["http://c/"]],
        "web_seeds": ["http://d/"],
        "http_seeds": [],
        "nodes": ["e.example:6881"],
        "comment": "hi",
        "created_by": "me",
        "creation_date": 1_700_000_000,
        "files": [{"path": "cat.mp4", "length": 40_000, "index": 0}],
    }


def test_people_get_a_table(bittern: Program, tmp_path: Path) -> None:
    data = folder_torrent(
        b"cats",
        [((b"a", b"one"), b"abc"), ((b"two",), content(20_000))],
        trackers=[["udp://t.example:6969"]],
        web_seeds=["http://w/"],
        nodes=[("n", 1)],
        comment="two\nlines",
        creation_date=0,
    )
    ran = bittern("info", write(tmp_path / "a.torrent", data))
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "name        cats"
    assert lines[2].startswith("info hash   ")
    assert lines[3:] == [
        "size        20003 bytes (19.5 KiB)",
        "pieces      2 of 16384 bytes (16.0 KiB)",
        "comment     two\\x0alines",
        "created at  1970-01-01 00:00:00 UTC",
        "tracker     udp://t.example:6969",
        "web seed    http://w/",
        "DHT node    n:1",
        "",
        "2 files",
        "0         3 B  cats/a/one",
        "1    19.5 KiB  cats/two",
    ]


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_hostile_names_are_shown_safely(bittern: Program, tmp_path: Path, json: list[str]) -> None:
    data = folder_torrent(
        b"\x1b[2Jfolder\x07",
        [
            ((b"..", b"..", b"etc", b"passwd"), b"x"),
            (("exe.\u202egpj".encode(),), b"y"),
            ((b"\xff\xfe\x7f",), b"z"),
        ],
        comment="\x1b]0;title\x07\x7f",
        created_by="\u009b31m",
    )
    ran = bittern("info", write(tmp_path / "a.torrent", data), *json)
    assert ran.code == 0
    assert all(char.isprintable() or char == "\n" for char in ran.out)
    assert "../" not in ran.out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0, "1970-01-01 00:00:00 UTC"),
        (-1, "1969-12-31 23:59:59 UTC"),
        (253_402_300_799, "9999-12-31 23:59:59 UTC"),
        (253_402_300_800, "253402300800"),
        (1 << 62, "4611686018427387904"),
    ],
)
def test_a_date_beyond_the_calendar_stays_a_number(seconds: int | None, text: str) -> None:
    assert _date_text(seconds) == text


def test_padding_is_left_out_and_indices_stay(bittern: Program, tmp_path: Path) -> None:
    info = encode(
        {
            b"name": b"d",
            b"files": [
                {b"path": [b"a"], b"length": 3, b"attr": b"x"},
                {b"path": [b".pad", b"16381"], b"length": 16381, b"attr": b"p"},
                {b"path": [b"b"], b"length": 5, b"attr": b"h"},
                {b"path": [b"c"], b"length": 0, b"attr": b"l", b"symlink path": [b"a"]},
            ],
            b"piece length": 16384,
            b"pieces": bytes(40),
            b"private": 1,
            b"source": b"TRK",
        }
    )
    path = write(tmp_path / "a.torrent", encode_metainfo(info))
    value = bittern("info", path, "--json").json
    assert value["total_length"] == 8
    assert value["private"] is True
    assert value["source"] == "TRK"
    assert value["files"] == [
        {"path": "d/a", "length": 3, "index": 0, "executable": True},
        {"path": "d/b", "length": 5, "index": 2, "hidden": True},
        {"path": "d/c", "length": 0, "index": 3, "symlink_target": "a"},
    ]
    text = bittern("info", path).out
    assert "private    yes" in text
    assert "3 files" in text
    assert "d/c -> a" in text
    assert "pad" not in text


MAGNETS = [
    (
        (
            f"magnet:?xt=urn:btih:{'ab' * 20}&dn=cat+video&xl=10485760&tr=udp%3A%2F%2Ft%3A1"
            "&tr=http%3A%2F%2Fu%2F&ws=http%3A%2F%2Fw%2F&x.pe=[::1]:5"
        ),
        {
            "name": "cat video",
            "version": "1",
            "info_hash": "ab" * 20,
            "info_hash_v2": None,
            "total_length": 10_485_760,
            "trackers": [["udp://t:1"], ["http://u/"]],
            "web_seeds": ["http://w/"],
            "peers": ["[::1]:5"],
            "files": [],
        },
        [
            "name       cat video",
            "version    1",
            "info hash  " + "ab" * 20,
            "size       10485760 bytes (10.0 MiB)",
        ],
    ),
    (
        f"magnet:?xt=urn:btmh:1220{'cd' * 32}",
        {"version": "2", "info_hash": None, "info_hash_v2": "cd" * 32, "total_length": None},
        ["version       2", "info hash v2  " + "cd" * 32],
    ),
    (
        f"magnet:?xt=urn:btmh:1220{'cd' * 32}&xt=urn:btih:{'ab' * 20}",
        {"version": "hybrid"},
        ["version       hybrid"],
    ),
    (
        f"magnet:?xs=urn:btpk:{'ef' * 32}&s=6e",
        {"version": None, "info_hash": None},
        ["public key  " + "ef" * 32, "salt        6e"],
    ),
]


@pytest.mark.parametrize(("link", "values", "lines"), MAGNETS)
def test_a_magnet_link_shows_what_it_says(
    bittern: Program, link: str, values: dict[str, object], lines: list[str]
) -> None:
    ran = bittern("info", link, "--json")
    assert ran.code == 0
    assert set(CONTRACT) <= set(ran.json)
    assert values.items() <= ran.json.items()
    assert bittern("info", link).out.splitlines()[: len(lines)] == lines


@pytest.mark.parametrize(
    "link",
    [
        "magnet:?",
        "magnet:?xt=urn:btih:abc",
        "magnet:?dn=x\x1b",
        "magnet:?xt=urn:btmh:1114" + "0" * 64,
    ],
)
def test_a_bad_magnet_link_is_one_line(bittern: Program, link: str) -> None:
    ran = bittern("info", link)
    assert ran.code == 1
    assert ran.error.startswith("magnet link")


def test_what_needs_a_network_is_not_shown(bittern: Program) -> None:
    for source in ("http://localhost/a.torrent", "a" * 40):
        ran = bittern("info", source)
        assert ran.code == 2
        assert "without a network" in ran.error


def test_an_executable_file_says_so(bittern: Program, tmp_path: Path) -> None:
    """BEP 47."""
    files: list[Encodable] = [
        {b"attr": b"x", b"length": 3, b"path": [b"run"]},
        {b"length": 4, b"path": [b"text"]},
    ]
    info: Encodable = {
        b"files": files, b"name": b"cats", b"piece length": 16_384, b"pieces": bytes(20),
    }  # fmt: skip
    ran = bittern("info", "--json", write(tmp_path / "cats.torrent", encode({b"info": info})))
    assert [each.get("executable") for each in ran.json["files"]] == [True, None]
