from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from bittern.cli.report import Report
from bittern.cli.transfer import Goal
from bittern.core.endpoint import Endpoint
from bittern.engine import events
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.session import Session
from tests.cli.support import (
    ALONE,
    PIECE_LENGTH,
    Program,
    content,
    folder_torrent,
    single_file_torrent,
    write,
)

DATA = content(4 * PIECE_LENGTH + 5)
TORRENT = single_file_torrent(b"cat.mp4", DATA)


@pytest.fixture(autouse=True)
def _here(home: Path) -> None:
    write(home / "cat.torrent", TORRENT)
    write(home / "data/cat.mp4", DATA)


def download(port: int, output: Path) -> None:
    """Download from a seed on loopback; blocks."""

    async def main() -> None:
        config = SessionConfig(
            listen_host="127.0.0.1", listen_port=0, enable_dht=False, enable_lsd=False
        )
        async with Session(config) as session:
            peers = (Endpoint("127.0.0.1", port),)
            torrent = await session.add(TORRENT, TorrentConfig(output=output, peers=peers))
            await asyncio.wait_for(torrent.wait_complete(), 10)

    asyncio.run(main())


@pytest.mark.parametrize("extra", [[], ["--skip-check"], ["--super-seeding"]])
def test_a_downloader_gets_it_all_and_the_ratio_ends_it(
    bittern: Program,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    extra: list[str],
) -> None:
    ports: list[int] = []
    leech: list[threading.Thread] = []

    class Eavesdropper:
        """Stands for stdout, and starts a downloader when the seed says that it seeds."""

        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

        def write(self, text: str) -> None:
            self._stream.write(text)
            for line in text.splitlines():
                self._heard(json.loads(line))

        def _heard(self, record: dict[str, Any]) -> None:
            if record["type"] == "listening":
                ports.append(record["port"])
            if record.get("state") == "seeding" and not leech:
                port = ports[0]
                leech.append(threading.Thread(target=download, args=(port, tmp_path / "out")))
                leech[0].start()

    monkeypatch.setattr(sys, "stdout", Eavesdropper(sys.stdout))
    line = "seed cat.torrent --data data --seed-ratio 1 --jsonl --timeout 10"
    ran = bittern(*line.split(), *extra, *ALONE)
    leech[0].join(10)
    assert ran.code == 0, ran.err
    assert (tmp_path / "out/cat.mp4").read_bytes() == DATA
    result = json.loads(ran.out.splitlines()[-1])
    assert result["type"] == "result"
    assert result["uploaded"] == len(DATA)
    assert result["downloaded"] == 0


@pytest.mark.parametrize("is_taken", [False, True])
def test_with_v_it_says_which_port_others_reach_it_at(bittern: Program, is_taken: bool) -> None:
    """The one asked for may be taken."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        if is_taken:
            other.listen()
        else:
            other.close()
        line = f"seed cat.torrent --data data --seed-time 0 -v --port {port}"
        ran = bittern(*line.split(), *(each for each in ALONE if each not in ("--port", "0")))
    assert ran.code == 0, ran.err
    told = int(ran.out.splitlines()[0].rpartition("  listening on port ")[2])
    assert (told == port) is not is_taken
    warning = f"warning: port {port} is taken; {told} instead"
    assert ran.err.splitlines() == ([f"bittern: {warning}"] if is_taken else [])


@pytest.mark.parametrize("place", ["data", "data/cat.mp4", "data/renamed.mp4"])
def test_data_is_named_by_its_folder_or_itself(
    bittern: Program, tmp_path: Path, place: str
) -> None:
    if "renamed" in place:
        (tmp_path / "data/cat.mp4").rename(tmp_path / place)
    ran = bittern("seed", "cat.torrent", "--data", place, "--seed-time", "0", *ALONE)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[0] == "complete"
    assert ran.out.splitlines()[-1].endswith(", 0 B uploaded")
    ran = bittern("seed", "cat.torrent", "--data", place, "--seed-time", "0", "--json", *ALONE)
    [file] = ran.json["files"]
    assert file["path"] == ("renamed.mp4" if "renamed" in place else "cat.mp4")


@pytest.mark.skipif(os.name == "nt", reason="has no other names to give")
@pytest.mark.parametrize(("place", "top"), [("data", "cats_"), ("data/my cats", "my cats")])
def test_data_may_have_the_names_that_another_volume_gave_it(
    bittern: Program, tmp_path: Path, place: str, top: str
) -> None:
    """As what comes from a stick, or from Windows."""
    odd = [((b"a?",), DATA), ((b"d*", b"A?"), b"defg"), ((b"plain",), b"x")]
    write(tmp_path / "cats.torrent", folder_torrent(b"cats?", odd))
    for name, data in (("a_", DATA), ("d_/A_", b"defg"), ("plain", b"x")):
        write(tmp_path / "data" / top / name, data)
    ran = bittern("seed", "cats.torrent", "--data", place, "--seed-time", "0", "--json", *ALONE)
    assert ran.code == 0, ran.err
    paths = [file["path"] for file in ran.json["files"]]
    assert paths == [f"{top}/a_", f"{top}/d_/A_", f"{top}/plain"]
    # Somebody gives them the names that they have here.
    (tmp_path / "data" / top / "a_").rename(tmp_path / "data" / top / "a?")
    (tmp_path / "data" / top / "d_/A_").rename(tmp_path / "data" / top / "d_/A?")
    (tmp_path / "data" / top / "d_").rename(tmp_path / "data" / top / "d*")
    if place == "data":
        (tmp_path / "data" / top).rename(tmp_path / "data/cats?")
    ran = bittern("seed", "cats.torrent", "--data", place, "--seed-time", "0", *ALONE)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("cat.torrent --data gone", 3, "gone: no such file or folder"),
        ("gone.torrent --data data", 3, "gone.torrent: no such file"),
        ("cat.torrent", 2, "--data"),
        ("magnet:?xt=urn:btih:" + "ab" * 20 + " --data data", 2, "needs the .torrent file"),
        ("cat.torrent --data empty", 6, "only 0 of 5 pieces are here and good"),
    ],
)
def test_what_cannot_be_seeded_is_one_line(
    bittern: Program, tmp_path: Path, line: str, code: int, text: str
) -> None:
    (tmp_path / "empty").mkdir()
    ran = bittern("seed", *line.split(), *ALONE)
    assert ran.code == code
    assert text in ran.error
    assert list((tmp_path / "empty").iterdir()) == []


def test_bad_data_is_code_6_and_stays_as_it_is(bittern: Program, tmp_path: Path) -> None:
    damaged = bytearray(DATA)
    damaged[PIECE_LENGTH] ^= 1
    path = write(tmp_path / "data/cat.mp4", bytes(damaged))
    ran = bittern("seed", "cat.torrent", "--data", "data", *ALONE)
    assert ran.code == 6
    assert ran.err.splitlines()[-1] == (
        "bittern: cat.mp4: only 4 of 5 pieces are here and good; bittern get fetches the rest"
    )
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it(
    bittern: Program, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    class Impatient(Report):
        def event(self, torrent: str, name: str, event: events.Event) -> None:
            super().event(torrent, name, event)
            if event == events.StateChanged(events.TorrentState.SEEDING):
                os.kill(os.getpid(), number)

    monkeypatch.setattr("bittern.cli.seed.Report", Impatient)
    ran = bittern("seed", "cat.torrent", "--data", "data", *ALONE)
    assert ran.code == code
    assert ran.err == ("" if code == 0 else "bittern: interrupted\n")


@pytest.mark.slow
def test_a_timeout_ends_it_as_planned(bittern: Program) -> None:
    ran = bittern("seed", "cat.torrent", "--data", "data", "--timeout", "0.5s", *ALONE)
    assert ran.code == 0
    assert ran.err == ""


def two_torrents(home: Path) -> dict[str, bytes]:
    """Write torrents to a folder of their own, beside cat.mp4, and return them by file."""
    other = content(3 * PIECE_LENGTH)
    write(home / "data/dog.mp4", other)
    torrents = {"cat": TORRENT, "dog": single_file_torrent(b"dog.mp4", other)}
    for name, torrent in torrents.items():
        write(home / f"torrents/{name}.torrent", torrent)
    return torrents


@pytest.mark.parametrize("named", [["torrents"], ["torrents/cat.torrent", "torrents/dog.torrent"]])
def test_several_are_seeded_at_once(bittern: Program, home: Path, named: list[str]) -> None:
    two_torrents(home)
    write(home / "torrents/notes.txt", b"no torrent")
    line = ["--data", "data", "--seed-time", "0"]
    ran = bittern("seed", *named, *line, *ALONE)
    assert (ran.code, ran.err) == (0, "")
    assert sorted(ran.out.splitlines()[:2]) == ["cat.mp4: complete", "dog.mp4: complete"]
    ran = bittern("seed", *named, *line, "--json", *ALONE)
    assert [each["name"] for each in json.loads(ran.out)] == ["cat.mp4", "dog.mp4"]


def test_one_that_lacks_data_is_told_at_once_and_the_others_are_seeded(
    bittern: Program, home: Path
) -> None:
    two_torrents(home)
    write(home / "data/cat.mp4", DATA[:-5] + b"spoilt"[:5])
    line = ["seed", "torrents", "--data", "data", "--seed-time", "0.3", "--jsonl"]
    ran = bittern(*line, *ALONE)
    assert ran.code == 6
    assert ran.err == (
        "bittern: cat.mp4: only 4 of 5 pieces are here and good; bittern get fetches the rest\n"
    )
    told = [json.loads(line) for line in ran.out.splitlines()]
    kinds = [(each["type"], each.get("name")) for each in told]
    assert kinds.index(("failed", "cat.mp4")) < kinds.index(("result", "dog.mp4"))


def test_of_a_folder_what_cannot_be_used_is_told_and_the_others_are_seeded(
    bittern: Program, home: Path
) -> None:
    two_torrents(home)
    write(home / "torrents/bad.torrent", b"d4:infoe")
    write(home / "torrents/cat again.torrent", TORRENT)
    ran = bittern("seed", "torrents", "--data", "data", "--seed-time", "0", *ALONE)
    assert ran.code == 1
    first, second = ran.err.splitlines()
    assert first.startswith("bittern: torrents/bad.torrent: ")
    assert second == (
        "bittern: torrents/cat.torrent: the same torrent as torrents/cat again.torrent"
    )
    assert sorted(ran.out.splitlines()[:2]) == ["cat.mp4: complete", "dog.mp4: complete"]
    for name in ("cat", "cat again", "dog"):
        (home / f"torrents/{name}.torrent").unlink()
    ran = bittern("seed", "torrents", "--data", "data", *ALONE)
    assert (ran.code, ran.out) == (1, "")


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("--data data", 2, "nothing to seed: name a .torrent file"),
        ("data --data data", 3, "data: no .torrent files in the folder"),
        ("cat.torrent cat.torrent --data data", 2, "cat.torrent: the same torrent as cat.torrent"),
    ],
)
def test_what_cannot_be_seeded(bittern: Program, line: str, code: int, text: str) -> None:
    ran = bittern("seed", *line.split(), *ALONE)
    assert (ran.code, ran.error) == (code, text)


def test_who_seeds_for_ever_is_not_measured_all_the_time(
    bittern: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times a second for each of thousands."""
    asked: list[Goal] = []
    is_reached = Goal.is_reached

    def ask(goal: Goal, *args: Any, **options: Any) -> bool:
        asked.append(goal)
        return is_reached(goal, *args, **options)

    monkeypatch.setattr(Goal, "is_reached", ask)
    ran = bittern(*["seed", "cat.torrent", "--data", "data", "--timeout", "1"], *ALONE)
    assert (ran.code, asked) == (0, [])
    ran = bittern(*["seed", "cat.torrent", "--data", "data", "--seed-time", "0"], *ALONE)
    assert (ran.code, len(asked)) == (0, 1)
