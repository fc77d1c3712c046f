"""storage.file_paths: whose rules for names hold on this machine."""

from __future__ import annotations

import sys

import pytest

from bittern.codec.metainfo import decode_metainfo
from bittern.storage.file_paths import Folding, current_os, paths_of, usual_folding
from tests.cli.support import folder_torrent, single_file_torrent

SINGLE = decode_metainfo(single_file_torrent(b"cat.mp4", b"abc")).info
FOLDER = decode_metainfo(
    folder_torrent(b"cats", [((b"a", b"one"), b"abc"), ((b"A", b"ONE"), b"defg"), ((b"n",), b"")])
).info


def test_paths_are_below_the_torrents_own_folder() -> None:
    assert paths_of(SINGLE) == [("cat.mp4",)]
    assert paths_of(FOLDER, Folding(False, False)) == [
        ("cats", "a", "one"),
        ("cats", "A", "ONE"),
        ("cats", "n"),
    ]


def test_where_names_fall_together_files_are_kept_apart() -> None:
    assert paths_of(FOLDER, Folding(True, False)) == [
        ("cats", "a", "one"),
        ("cats", "a", "ONE (1)"),
        ("cats", "n"),
    ]


def test_a_volume_with_the_rules_of_windows_has_them_everywhere() -> None:
    odd = folder_torrent(b"cats?", [((b"a:b",), b"abc"), ((b"a_b",), b"d"), ((b"con.",), b"e")])
    info = decode_metainfo(odd).info
    assert paths_of(info, Folding(True, False, refuses=True)) == [
        ("cats_", "a_b"),
        ("cats_", "a_b (1)"),
        ("cats_", "_con_"),
    ]


@pytest.mark.parametrize(
    ("platform", "expected", "folding"),
    [
        ("linux", "posix", Folding(False, False)),
        ("freebsd14", "posix", Folding(False, False)),
        ("darwin", "darwin", Folding(True, True)),
        ("win32", "windows", Folding(True, False)),
    ],
)
def test_the_rules_follow_the_platform(
    platform: str, expected: str, folding: Folding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert current_os() == expected
    assert usual_folding(current_os()) == folding
    assert paths_of(FOLDER) == paths_of(FOLDER, folding)
