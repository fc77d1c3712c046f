"""The demo as a whole, and what it says when the outcome is another one."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bittern.cli import demo as demo_module
from bittern.cli.demo import FILE_LENGTH, _compare, _make_torrents, _Stage, make_content
from bittern.cli.exits import CommandFailed
from bittern.cli.narrator import Narrator
from bittern.codec.metainfo import decode_metainfo
from tests.cli.support import Program, write


def test_the_content_is_made_from_a_number_and_says_so() -> None:
    content = make_content(0, 1000)
    assert len(content) == 1000
    assert content.startswith(
        b"Not a video: 1000 bytes made by `bittern demo` from the number 0.\n"
    )
    assert make_content(0, 1000) == content
    assert make_content(1, 1000)[100:200] != content[100:200]
    assert FILE_LENGTH == 10_485_760


@pytest.mark.slow
def test_four_processes_move_a_file_and_every_step_is_told(
    bittern: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    ran = bittern("demo")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    digest = hashlib.sha256(make_content(0)).hexdigest()
    for text in (
        f"SHA-256           {digest}",
        "info.pieces       800 bytes, 40 SHA-1s of 20 bytes",
        "HTTP              http://127.0.0.1:",
        "UDP               udp://127.0.0.1:",
        "40 of 40 pieces are checked",
        "announce to       http://127.0.0.1:",
        "announce to       udp://127.0.0.1:",
        "downloader -> seed: handshake",
        "seed -> downloader: handshake",
        '"BitTorrent protocol"',
        "downloader -> seed: interested",
        "seed -> downloader: unchoke",
        "downloader -> seed: request",
        "seed -> downloader: piece",
        "40 verified",
        "message 4: have",
        "message 5: bitfield",
        "Everything that was wanted is there and verified.",
        f"sent              10485760 bytes, SHA-256 {digest}",
        f"arrived           10485760 bytes, SHA-256 {digest}",
        f"arrived too       10485760 bytes, SHA-256 {digest}",
    ):
        assert text in ran.out, text
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def stage(tmp_path: Path) -> _Stage:
    stage = _Stage(tmp_path, Narrator(io.StringIO()))
    write(stage.original, make_content(0, 1 << 20))
    return stage


def test_one_torrent_is_written_with_its_trackers_in_either_order(stage: _Stage) -> None:
    metainfo = _make_torrents(stage, ("http://a/announce", "udp://b:1/announce"))
    seed = decode_metainfo((stage.folder / "seed.torrent").read_bytes())
    download = decode_metainfo((stage.folder / "download.torrent").read_bytes())
    assert seed.info.raw == download.info.raw == metainfo.info.raw
    assert (
        seed.trackers
        == tuple(reversed(download.trackers))
        == (
            ("http://a/announce",),
            ("udp://b:1/announce",),
        )
    )


@pytest.mark.parametrize(("copy", "equal"), [(make_content(0, 1 << 20), True), (b"other", False)])
def test_the_files_are_really_compared(stage: _Stage, copy: bytes, equal: bool) -> None:
    metainfo = _make_torrents(stage, ("http://a/announce", "udp://b:1/announce"))
    with pytest.raises(CommandFailed, match="not there"):
        _compare(stage, metainfo, 1.0)
    for path in stage.copies:
        write(path, make_content(0, 1 << 20))
    write(stage.copies[1], copy)
    outcome = _compare(stage, metainfo, 1.0)
    assert outcome["equal"] is equal
    assert outcome["sha256_arrived"][1] == hashlib.sha256(copy).hexdigest()


@pytest.mark.parametrize(("equal", "code"), [(True, 0), (False, 6)])
def test_the_exit_code_is_the_comparison(
    bittern: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, equal: bool, code: int
) -> None:
    played: list[tuple[_Stage, int]] = []

    async def perform(stage: _Stage, number: int) -> dict[str, Any]:
        played.append((stage, number))
        stage.narrator.say("hello")
        return {"equal": equal}

    monkeypatch.setattr(demo_module, "_perform", perform)
    ran = bittern("demo", "--json", "--number", "7", "--keep", tmp_path / "kept")
    assert ran.code == code
    assert ran.json == {"equal": equal}
    assert played[0][0].folder == tmp_path / "kept"
    assert played[0][1] == 7
    assert bittern("demo", "-q").out == ""
    assert bittern("demo").out == "   hello\n"
    assert not played[2][0].folder.exists()


def test_a_signal_ends_the_demo_and_cleans_up(
    bittern: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []

    async def perform(stage: _Stage, number: int) -> dict[str, Any]:
        folders.append(stage.folder)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(demo_module, "_perform", perform)
    ran = bittern("demo")
    assert ran.code == 130
    assert not folders[0].exists()


def test_an_actor_that_fails_is_one_line(bittern: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    async def perform(stage: _Stage, number: int) -> dict[str, Any]:
        raise CommandFailed("the seed ended with code 1: no way")

    monkeypatch.setattr(demo_module, "_perform", perform)
    ran = bittern("demo")
    assert ran.code == 1
    assert ran.error == "the seed ended with code 1: no way"


@pytest.mark.slow
def test_the_document_tells_of_the_file_that_the_demo_makes(tmp_path: Path) -> None:
    """docs/how-a-torrent-works.md shows hashes that are the same in every run."""
    stage = _Stage(tmp_path, Narrator(io.StringIO()))
    content = make_content(0)
    write(stage.original, content)
    info = _make_torrents(stage, ("http://a/announce", "udp://b:1/announce")).info
    text = (Path(__file__).parents[2] / "docs/how-a-torrent-works.md").read_text("utf-8")
    assert text.count(hashlib.sha256(content).hexdigest()) == 4
    assert str(info.info_hash) in text
    assert info.info_hash is not None
    assert text.count(info.info_hash.hex(" ")) == 2
    assert info.piece_hash(0).hex() in text
    assert info.piece_hash(1).hex() in text
    (index,) = re.findall(r"message 7: piece\n.*  piece (\d+)\n", text)
    block = content[int(index) * info.piece_length :]
    assert f"{block[:20].hex(' ')}  the block" in text
    assert f"{block[20:40].hex(' ')} ..." in text
