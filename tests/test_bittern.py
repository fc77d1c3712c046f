"""The program as a process: what it imports, and how it meets signals and closed pipes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bittern
from bittern import __version__
from tests.cli.support import folder_torrent, single_file_torrent, write

SRC = Path(bittern.__file__).parents[1]


def start(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "bittern", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SRC)} | environment,
    )


@pytest.mark.slow
def test_the_version_is_printed_before_anything_is_imported() -> None:
    code = (
        "import sys; sys.argv = ['bittern', '--version']; import bittern.__main__ as m; m.main();"
        "print(*sorted(n for n in sys.modules if n.partition('.')[0] in"
        " ('bittern', 'cyclopts', 'rich', 'asyncio', 'aiohttp')))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(SRC)},
    )
    assert done.stdout.splitlines() == [f"bittern {__version__}", "bittern bittern.__main__"]


def interrupted(*, at: str, first: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run a program that gets Ctrl-C when it imports a module, or when Python ends."""
    code = (
        "import atexit, os, signal, sys; sys.argv = ['bittern', 'info', '/nowhere']\n"
        "del sys.modules['signal']\n"  # that it is imported once more
        f"{first}\n"
        "def interrupt(): os.kill(os.getpid(), signal.SIGINT)\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {at!r}: interrupt()\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"if {at!r} == 'end': atexit.register(interrupt)\n"
        "import bittern.__main__ as m\n"
        "m.main()"
    )
    return subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        check=False,
        env={"PYTHONPATH": str(SRC)},
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
@pytest.mark.parametrize("at", ["signal", "bittern.cli.main", "bittern.cli.exits"])
def test_ctrl_c_while_the_program_is_loaded_is_quiet(at: str) -> None:
    done = interrupted(at=at)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
def test_ctrl_c_is_not_lost_where_an_import_swallows_exceptions() -> None:
    swallow = (
        "def swallow(event, arguments):\n"
        "    if event == 'import' and arguments[0] == 'bittern.cli.exits':\n"
        "        try: os.kill(os.getpid(), signal.SIGINT)\n"
        "        except KeyboardInterrupt: pass\n"
        "sys.addaudithook(swallow)"
    )
    done = interrupted(at="", first=swallow)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
@pytest.mark.parametrize("at", ["signal", "bittern.cli.main", "end"])
def test_who_ignores_ctrl_c_does_so_from_the_first_moment_to_the_last(at: str) -> None:
    """As in the background of a shell without job control."""
    done = interrupted(at=at, first="signal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr == b"bittern: /nowhere: no such file\n"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
def test_ctrl_c_when_all_is_done_is_quiet() -> None:
    """A shell says 130 of a program that a signal has ended."""
    done = interrupted(at="end")
    assert (done.returncode, done.stdout) == (-signal.SIGINT, b"")
    assert done.stderr == b"bittern: /nowhere: no such file\n"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="descriptors of Unix")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_streams_may_be_closed(closed: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.torrent", single_file_torrent(b"a", b"x"))
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec '{sys.executable}' -m bittern info '{path}' {closed}"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(SRC)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("info hash" in done.stdout) is closed.startswith("2")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="descriptors of Unix")
def test_nothing_comes_from_a_closed_stdin() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec '{sys.executable}' -m bittern info - <&-"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(SRC)},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("bittern: -: not a torrent: ")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full")
@pytest.mark.parametrize(
    ("line", "unbuffered"),
    [
        *((line, "") for line in ("--version", "--help", "", "dht", "get -h", "create a -o -")),
        *((line, "1") for line in ("--version", "create a -o -")),
    ],
)
def test_a_full_disk_behind_stdout_is_named(line: str, unbuffered: str, tmp_path: Path) -> None:
    write(tmp_path / "a", b"x")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bittern", *line.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": unbuffered},
        )
    assert done.stderr == "bittern: standard output: no space left on device\n"
    assert done.returncode == 5


@pytest.mark.slow
def test_info_imports_nothing_heavy(tmp_path: Path) -> None:
    path = write(tmp_path / "a.torrent", single_file_torrent(b"a", b"x"))
    code = (
        f"import sys; sys.argv = ['bittern', 'info', {str(path)!r}]\n"
        "import bittern.__main__ as m\n"
        "try: m.main()\n"
        "except SystemExit as error: print(error.code)\n"
        "print(*sorted(set(sys.modules) & {'asyncio', 'aiohttp', 'cyclopts', 'rich', 'socket'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(SRC)},
    )
    assert done.stdout.splitlines()[-2:] == ["0", ""]


@pytest.mark.slow
def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    files = [f"{index:06d}" for index in range(5000)]
    data = folder_torrent(b"many", [((name.encode(),), b"x") for name in files])
    process = start("info", str(write(tmp_path / "many.torrent", data)))
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"name       many\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 1


@pytest.mark.slow
@pytest.mark.parametrize("num_lines", [1, 4, 12])
def test_a_seed_whose_reader_has_gone_ends_quietly(tmp_path: Path, num_lines: int) -> None:
    """It went on for ever and told nobody, and then ended with a traceback for each torrent."""
    for number in range(2):
        content = b"x" * (100 + number)
        write(tmp_path / f"data/{number}", content)
        write(tmp_path / f"t/{number}.torrent", single_file_torrent(b"%d" % number, content))
    alone = ["--jsonl", "--bind", "127.0.0.1", "--port", "0", "--no-dht", "--no-lsd"]
    data, state = str(tmp_path / "data"), str(tmp_path / "state")
    process = start("seed", str(tmp_path / "t"), "--data", data, "--state-dir", state, *alone)
    assert process.stdout is not None
    for _ in range(num_lines):
        process.stdout.readline()
    process.stdout.close()
    try:
        assert process.wait(10) == 1
    finally:
        process.kill()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.stdin is not None
    process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, 130, b"bittern: interrupted\n"), (signal.SIGTERM, 7, b"bittern: stopped\n")],
)
def test_a_signal_while_reading_is_one_line(number: int, code: int, line: bytes) -> None:
    ready = (
        "import sys, threading, time\n"
        "sys.argv = ['bittern', 'info', '-']\n"
        "from bittern.cli import main, source\n"
        "read = source.read_torrent\n"
        "def announce(path):\n"
        "    print('ready', flush=True)\n"
        "    return read(path)\n"
        "source.read_torrent = announce\n"
        "from bittern.__main__ import main; main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", ready],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SRC)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    try:
        process.wait(10)
    finally:
        process.kill()
    _, err = process.communicate()
    assert process.returncode == code
    assert err == line


def read_until(process: subprocess.Popen[bytes], kind: str) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        record: dict[str, Any] = json.loads(line)
        if record["type"] == kind:
            return record
    raise AssertionError(f"{kind} was never told: {process.communicate()[1]!r}")


@pytest.fixture
def silent_tracker() -> Iterator[str]:
    """The URL of a UDP tracker that takes everything and answers nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        yield f"udp://127.0.0.1:{server.getsockname()[1]}/announce"


def begin_download(tmp_path: Path, **extra: Any) -> subprocess.Popen[bytes]:
    torrent = write(tmp_path / "a.torrent", single_file_torrent(b"a", b"x" * 1000, **extra))
    line = "--jsonl --bind 127.0.0.1 --port 0 --no-dht --no-lsd"
    process = start(
        "get",
        str(torrent),
        "-o",
        str(tmp_path),
        *line.split(),
        BITTERN_STATE_DIR=str(tmp_path / "s"),
    )
    read_until(process, "state_changed")
    return process


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, b"bittern: interrupted\n"),
        (signal.SIGTERM, 7, b"bittern: not finished; the same command goes on from here\n"),
        (signal.SIGHUP, 7, b"bittern: not finished; the same command goes on from here\n"),
    ],
)
@pytest.mark.usefixtures("hangups")
def test_the_first_signal_stops_a_download_cleanly(
    tmp_path: Path, number: int, code: int, line: bytes
) -> None:
    process = begin_download(tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert err == line
    assert json.loads(out.splitlines()[-1])["type"] == "result"


@pytest.mark.slow
def test_a_dead_tracker_does_not_hold_up_the_stop(tmp_path: Path, silent_tracker: str) -> None:
    process = begin_download(tmp_path, trackers=[[silent_tracker]])
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert time.monotonic() - begun < 5.5


@pytest.mark.slow
def test_the_second_signal_ends_at_once(tmp_path: Path, silent_tracker: str) -> None:
    process = begin_download(tmp_path, trackers=[[silent_tracker]])
    process.send_signal(signal.SIGINT)
    read_until(process, "stopping")
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert time.monotonic() - begun < 2


def test_every_public_name_is_there_and_no_other() -> None:
    """Loaded on first use (PEP 562), and then found without a search."""
    for name in bittern.__all__:
        assert getattr(bittern, name) is getattr(bittern, name)
        assert name in dir(bittern)
    assert bittern.events is sys.modules["bittern.engine.events"]
    with pytest.raises(AttributeError, match="no attribute 'Torrents'"):
        bittern.Torrents  # noqa: B018  # that is the test
