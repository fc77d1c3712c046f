"""The way in and out; only what needs a real process starts one."""

from __future__ import annotations

import errno
import io
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bittern.cli import app, main
from bittern.cli.exits import CommandFailed, ExitCode, Terminated
from bittern.core.errors import DiskFull
from tests.cli.support import Program, content, single_file_torrent, write


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Make every verb raise the error in this list."""
    errors: list[BaseException] = []

    def call(arguments: Sequence[str]) -> int:
        raise errors[0]

    monkeypatch.setattr(app, "call", call)
    return errors


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CommandFailed("no\nway", ExitCode.MISMATCH), 6, "no\\x0away"),
        (DiskFull("disk full", path="/x"), 5, "disk full: '/x'"),
        (FileNotFoundError(2, "No such file or directory", "a\x1b"), 3, None),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(), 7, "stopped"),
        (MemoryError(), 1, "out of memory"),
        (ZeroDivisionError("oops"), 1, None),
    ],
    ids=repr,
)
def test_every_error_is_one_line_and_a_code(
    bittern: Program,
    failing: list[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    line: str | None,
) -> None:
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    failing.append(error)
    ran = bittern("get", "x")
    assert ran.code == code
    assert ran.out == ""
    assert "\x1b" not in ran.err
    if line is not None:
        assert ran.error == line


def test_a_bug_says_how_to_see_more(bittern: Program, failing: list[BaseException]) -> None:
    failing.append(KeyError("missing"))
    error = bittern("get", "x").error
    assert error.startswith("internal error: KeyError")
    assert "BITTERN_DEBUG=1" in error


def test_debugging_shows_the_traceback(
    bittern: Program, failing: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITTERN_DEBUG", "1")
    failing.append(CommandFailed("no"))
    err = bittern("get", "x").err
    assert "Traceback" in err
    assert err.endswith("bittern: no\n")


@pytest.mark.parametrize(("raised", "code"), [(3, 3), (None, 0), ("text", 1)])
def test_an_exit_from_within_keeps_its_code(
    bittern: Program, failing: list[BaseException], raised: object, code: int
) -> None:
    failing.append(SystemExit(raised))
    assert bittern("get", "x").code == code


def test_after_an_interrupt_the_next_signal_kills(
    bittern: Program, failing: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers: dict[int, object] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    failing.append(KeyboardInterrupt())
    bittern("get", "x")
    assert handlers == {signal.SIGINT: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}


def test_outside_the_main_thread_signals_stay(
    bittern: Program, failing: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int, handler: object) -> None:
        raise ValueError("signal only works in main thread")

    monkeypatch.setattr(signal, "signal", refuse)
    failing.append(KeyboardInterrupt())
    assert bittern("get", "x").code == 130


def test_sigterm_unwinds(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, object] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    main.watch_signals()
    handler = handlers[signal.SIGTERM]
    assert callable(handler)
    with pytest.raises(Terminated):
        handler(signal.SIGTERM, None)


class _Gone(io.StringIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error

    def flush(self) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "code", "complaint"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
        (OSError(errno.ENOSPC, "No space left"), 5, "bittern: standard output: no space left\n"),
    ],
)
def test_a_reader_that_has_gone_is_no_error_to_talk_about(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: OSError, code: int, complaint: str
) -> None:
    path = write(tmp_path / "a.torrent", single_file_torrent(b"a", b"x"))
    monkeypatch.setattr(sys, "stdout", _Gone(error))
    monkeypatch.setattr(sys, "stderr", stderr := io.StringIO())
    assert main.run(["info", str(path)]) == code
    assert stderr.getvalue() == complaint


@pytest.mark.parametrize(
    ("arguments", "plain"),
    [
        (["info", "a"], True),
        (["info", "a", "--json"], True),
        (["info", "--json", "a"], True),
        (["info", "-"], True),
        (["info"], False),
        (["info", "--json"], False),
        (["info", "--json", "--json", "a"], False),
        (["info", "a", "b"], False),
        (["info", "--help"], False),
        (["info", "-h"], False),
        (["verify", "a"], False),
        ([], False),
    ],
)
def test_the_short_way_is_taken_only_where_nothing_needs_parsing(
    arguments: list[str], plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main._is_plain_info(arguments) is plain
    monkeypatch.setenv("BITTERN_JSON", "1")
    assert main._is_plain_info(arguments) is False


def test_standard_input_may_be_a_torrent(bittern: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    data = single_file_torrent(b"piped", content(100))
    for arguments in (("info", "-"), ("info", "-", "--json")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        ran = bittern(*arguments)
        assert ran.code == 0
        assert "piped" in ran.out
    monkeypatch.setenv("BITTERN_JSON", "1")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert bittern("info", "-").json["name"] == "piped"
