from __future__ import annotations

from pathlib import Path

import pytest

from bittern.cli.magnet import ranges_of
from bittern.codec.magnet import parse_magnet
from bittern.codec.metainfo import decode_metainfo
from tests.cli.support import Program, folder_torrent, single_file_torrent, write

DATA = single_file_torrent(
    b"cat video.mp4",
    b"abc",
    trackers=[["http://a/announce?k=1&l=2", "udp://b:1"], ["http://c/"]],
    web_seeds=["http://w/x y"],
)


def test_the_link_says_all_that_the_torrent_does(bittern: Program, tmp_path: Path) -> None:
    ran = bittern("magnet", write(tmp_path / "a.torrent", DATA))
    assert ran.code == 0
    assert ran.out.count("\n") == 1
    magnet = parse_magnet(ran.out)
    assert magnet.info_hash == decode_metainfo(DATA).info.info_hash
    assert magnet.name == "cat video.mp4"
    assert magnet.trackers == ("http://a/announce?k=1&l=2", "udp://b:1", "http://c/")
    assert magnet.web_seeds == ("http://w/x y",)
    assert magnet.exact_length == 3
    assert magnet.peers == ()
    assert magnet.select_only == ()


def test_peers_files_and_no_trackers(bittern: Program, tmp_path: Path) -> None:
    data = folder_torrent(b"d", [((b"%d" % i,), b"x") for i in range(9)], trackers=[["udp://t:1"]])
    path = write(tmp_path / "a.torrent", data)
    ran = bittern(
        "magnet",
        path,
        "--files",
        "0,3-5",
        "--peer",
        "1.2.3.4:5",
        "--peer",
        "[::1]:6",
        "--no-tracker",
    )
    magnet = parse_magnet(ran.out)
    assert magnet.select_only == ((0, 0), (3, 5))
    assert magnet.peers == (("1.2.3.4", 5), ("::1", 6))
    assert magnet.trackers == ()


def test_json_has_the_link_and_the_hashes(bittern: Program, tmp_path: Path) -> None:
    path = write(tmp_path / "a.torrent", DATA)
    value = bittern("magnet", path, "--json").json
    assert value == {
        "magnet": bittern("magnet", path).out.strip(),
        "name": "cat video.mp4",
        "info_hash": str(decode_metainfo(DATA).info.info_hash),
        "info_hash_v2": None,
    }


@pytest.mark.parametrize(("data", "code"), [(b"x", 1), (None, 3)])
def test_what_is_no_torrent_is_one_line(
    bittern: Program, tmp_path: Path, data: bytes | None, code: int
) -> None:
    path = tmp_path / "a.torrent"
    if data is not None:
        write(path, data)
    ran = bittern("magnet", path)
    assert ran.code == code
    assert ran.error.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("indices", "ranges"),
    [((), ()), ({4}, ((4, 4),)), ({1, 2, 3, 7, 9, 10}, ((1, 3), (7, 7), (9, 10)))],
)
def test_indices_become_ranges(indices: set[int], ranges: tuple[tuple[int, int], ...]) -> None:
    assert ranges_of(frozenset(indices)) == ranges


def test_a_file_that_is_not_there_is_refused(bittern: Program, tmp_path: Path) -> None:
    ran = bittern("magnet", write(tmp_path / "a.torrent", DATA), "--files", "0-1")
    assert (ran.code, ran.error) == (2, "there is no file 1: the last one is 0")
