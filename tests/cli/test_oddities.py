"""What a maker of a torrent is told about what went into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bittern.cli.oddities import (
    EMPTY,
    FOLLOWED,
    LEADS_NOWHERE,
    NO_FILE,
    RENAMED,
    warn_of_oddities,
)
from bittern.codec.metainfo import decode_metainfo
from bittern.storage.creator import create_torrent
from tests.cli.support import Program

pytestmark = pytest.mark.skipif(os.name != "posix", reason="names and things of Unix")


def make(folder: Path, *names: str) -> Path:
    root = folder / "site"
    for name in ("plain", *names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
    return root


def warnings(ran_err: str) -> list[str]:
    prefix = "bittern: warning: "
    return [line.removeprefix(prefix) for line in ran_err.splitlines() if line.startswith(prefix)]


def test_plain_things_need_no_word(bittern: Program, tmp_path: Path) -> None:
    root = make(tmp_path, "deep/er/file", "\N{GRINNING FACE}")
    ran = bittern("create", root, "-o", tmp_path)
    assert (ran.code, warnings(ran.err)) == (0, [])
    ran = bittern("create", root / "plain", "-o", tmp_path)
    assert (ran.code, warnings(ran.err)) == (0, [])


def test_names_that_others_store_differently(bittern: Program, tmp_path: Path) -> None:
    names = [f"{number}\n" for number in range(5)]
    ran = bittern("create", make(tmp_path, *names), "-o", tmp_path)
    assert ran.code == 0
    assert warnings(ran.err) == [
        *(f"site/{number}\\x0a: {RENAMED}" for number in range(3)),
        f"and 2 more: {RENAMED}",
    ]
    ran = bittern("create", make(tmp_path, "\x1b") / "\x1b", "-o", tmp_path)
    assert warnings(ran.err) == [f"\\x1b: {RENAMED}"]


def test_what_is_left_out_or_followed(bittern: Program, tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / "empty").mkdir()
    (root / "dead").symlink_to("nowhere")
    (root / "link").symlink_to("plain")
    os.mkfifo(root / "pipe")
    ran = bittern("create", root, "-o", tmp_path)
    assert ran.code == 0
    assert set(warnings(ran.err)) == {
        f"{root}/empty: {EMPTY}",
        f"{root}/dead: {LEADS_NOWHERE}",
        f"{root}/link: {FOLLOWED}",
        f"{root}/pipe: {NO_FILE}",
    }
    ran = bittern("create", root, "-o", tmp_path, "--keep-symlinks")
    assert set(warnings(ran.err)) == {f"{root}/empty: {EMPTY}", f"{root}/pipe: {NO_FILE}"}


def test_what_goes_while_it_is_looked_for_is_nothing_odd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path)
    info = decode_metainfo(create_torrent(root)).info
    (root / "pipe").symlink_to("nowhere")
    (root / "lock").symlink_to("nowhere")
    really_walk = os.walk

    def walk(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for listed in really_walk(path):
            (root / "lock").unlink()
            yield listed

    monkeypatch.setattr(os, "walk", walk)
    warn_of_oddities(root, info, keeps_links=False)
    assert warnings(capsys.readouterr().err) == [f"{root}/pipe: {LEADS_NOWHERE}"]
