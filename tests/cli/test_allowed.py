"""cli.allowed: a tracker's list of info hashes, which is read again on SIGHUP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pytest

from bittern.cli.allowed import Allowed, read_allowed
from bittern.cli.exits import CommandFailed
from bittern.cli.loop import cancel
from bittern.cli.options import ReportOptions
from bittern.cli.report import Report
from tests.cli.support import write

if sys.platform != "win32":
    import fcntl
    import termios

SRC = Path(__file__).parents[2] / "src"
HASHES = tuple(bytes([number]) * 20 for number in range(4))


def list_of(*hashes: bytes) -> bytes:
    return "".join(f"{each.hex()}\n" for each in hashes).encode()


def test_a_list_of_allowed_hashes(tmp_path: Path) -> None:
    text = f"# ours\n\n{'ab' * 20}\n  {'CD' * 32}  \n"
    assert read_allowed(write(tmp_path / "list", text.encode())) == {b"\xab" * 20, b"\xcd" * 20}


def test_a_list_that_cannot_be_read_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Allowed(tmp_path / "gone")
    with pytest.raises(CommandFailed, match="line 2: "):
        Allowed(write(tmp_path / "bad", list_of(HASHES[0]) + b"nonsense\n"))


class Told(Report):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(ReportOptions())
        self.notes: asyncio.Queue[tuple[str, dict[str, object]]] = asyncio.Queue()

    def note(self, kind: str, text: str, **fields: object) -> None:
        assert bool(text) is (kind == "allowed"), "errors go to stderr"
        self.notes.put_nowait((kind, fields))


async def test_it_is_read_again_when_asked_unless_it_is_bad_or_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "list", list_of(*HASHES[:2]))
    allowed, told = Allowed(path), Told()
    keeping = asyncio.ensure_future(allowed.keep(told))

    async def ask() -> tuple[list[bool], str, dict[str, object]]:
        allowed.ask()
        kind, fields = await asyncio.wait_for(told.notes.get(), 10)
        return [each in allowed for each in HASHES], kind, fields

    write(path, list_of(*HASHES[1:]))
    assert [each in allowed for each in HASHES] == [True, True, False, False]
    found = await ask()
    assert found == ([False, True, True, True], "allowed", {"num_allowed": 3})
    write(path, list_of(HASHES[0]) + b"nonsense\n")
    hashes, kind, bad = await ask()
    assert (hashes, kind) == ([False, True, True, True], "allow_failed")
    assert str(bad["reason"]).startswith(f"{path}: line 2: ")
    path.unlink()
    hashes, kind, gone = await ask()
    assert (hashes, kind) == ([False, True, True, True], "allow_failed")
    assert gone["reason"] == f"{path}: no such file or directory"
    write(path, list_of(HASHES[0]))
    assert await ask() == ([True, False, False, False], "allowed", {"num_allowed": 1})
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert capsys.readouterr().err == "".join(
        f"bittern: warning: {each['reason']}; the list stays as it was\n" for each in (bad, gone)
    )


async def test_it_is_read_again_where_the_system_starts_no_more_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "list", list_of(HASHES[0]))
    allowed, told = Allowed(path), Told()

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    write(path, list_of(HASHES[1]))
    allowed.ask()
    keeping = asyncio.ensure_future(allowed.keep(told))
    hearing = asyncio.ensure_future(told.notes.get())
    await asyncio.wait((keeping, hearing), return_when=asyncio.FIRST_COMPLETED)
    await cancel(keeping)
    assert hearing.result() == ("allowed", {"num_allowed": 1})
    assert [each in allowed for each in HASHES[:2]] == [False, True]


# --- the program ------------------------------------------------------------------------------

has_hangups = pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP")


class Running:
    """A tracker with a list, a process of its own, which is ended at the end."""

    def __init__(self, path: Path, *, ignores_hangup: bool = False, terminal: int | None = None):
        def prepare() -> None:
            if ignores_hangup:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
            if terminal is not None:
                fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

        line = "-m bittern tracker --http 127.0.0.1:0 --jsonl --allow"
        self.process = subprocess.Popen(
            [sys.executable, *line.split(), str(path)],
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(SRC)},
            start_new_session=True,
            preexec_fn=prepare,
        )

    def __enter__(self) -> Self:
        self.url = self.read("listening")["http"][0]
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def read(self, kind: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told: dict[str, Any] = json.loads(line)
            if told["type"] == kind:
                return told
        raise AssertionError(f"{kind} was never told")

    def serves(self, info_hash: bytes) -> bool:
        query = f"info_hash={quote(info_hash)}&peer_id={'a' * 20}&port=1&left=0&compact=1"
        with urllib.request.urlopen(f"{self.url}?{query}") as answer:
            return b"not registered" not in answer.read()


@has_hangups
@pytest.mark.slow
@pytest.mark.parametrize("ignores_hangup", [False, True])
def test_sighup_has_it_read_again(tmp_path: Path, ignores_hangup: bool) -> None:
    """Under nohup, too."""
    path = write(tmp_path / "list", list_of(HASHES[0]))
    with Running(path, ignores_hangup=ignores_hangup) as running:
        assert [running.serves(each) for each in HASHES[:2]] == [True, False]
        write(path, list_of(HASHES[1]))
        running.process.send_signal(signal.SIGHUP)
        assert running.read("allowed")["num_allowed"] == 1
        assert [running.serves(each) for each in HASHES[:2]] == [False, True]
        write(path, b"nonsense")
        running.process.send_signal(signal.SIGHUP)
        assert "line 1" in running.read("allow_failed")["reason"]
        assert [running.serves(each) for each in HASHES[:2]] == [False, True]
        running.process.send_signal(signal.SIGTERM)
        assert running.read("result")["num_torrents"] == 2
        assert running.process.wait(10) == 0


@has_hangups
@pytest.mark.slow
@pytest.mark.parametrize("ignores_hangup", [False, True])
@pytest.mark.usefixtures("hangups")
def test_a_terminal_that_is_closed_ends_it_unless_nohup_started_it(
    tmp_path: Path, ignores_hangup: bool
) -> None:
    path = write(tmp_path / "list", list_of(HASHES[0]))
    ours, theirs = os.openpty()
    with Running(path, ignores_hangup=ignores_hangup, terminal=theirs) as running:
        os.close(theirs)
        running.process.send_signal(signal.SIGHUP)
        assert running.read("allowed")["num_allowed"] == 1
        os.close(ours)
        if ignores_hangup:
            assert running.read("allowed")["num_allowed"] == 1
            assert running.serves(HASHES[0])
        else:
            running.read("result")
            assert running.process.wait(10) == 0
