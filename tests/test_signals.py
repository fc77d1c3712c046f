"""
Ctrl-C and SIGTERM, to real processes with real work: state saved, trackers told, in time (F19).

The plain cases are in ``test_bittern.py``; here somebody depends on what was left behind.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.cli.support import PIECE_LENGTH, SeedingThread, content, single_file_torrent, write
from tests.test_bittern import read_until, silent_tracker, start

__all__ = ["silent_tracker"]

DATA = content(64 * PIECE_LENGTH)
ALONE = ("--bind", "127.0.0.1", "--port", "0", "--no-dht", "--no-lsd", "--no-pex", "--jsonl")
CLEAN_STOP = 5.0
"""Limit: F19. Seconds a clean stop may take; half a second more for the process to end."""


class Tracker(http.server.BaseHTTPRequestHandler):
    """Answers every announce and remembers its events."""

    heard: list[str]

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.heard.append(query.get("event", [""])[0])
        body = b"d8:intervali1800e5:peers0:e"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@contextlib.contextmanager
def tracker() -> Iterator[tuple[str, list[str]]]:
    """Run a tracker and give its URL and the events it heard."""
    heard: list[str] = []
    handler = type("Tracker", (Tracker,), {"heard": heard})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/announce", heard
        server.shutdown()
        thread.join()


def get(folder: Path, *arguments: object) -> subprocess.Popen[bytes]:
    return start(
        "get",
        *map(str, arguments),
        "-o",
        str(folder / "out"),
        *ALONE,
        BITTERN_STATE_DIR=str(folder / "state"),
    )


def results(out: bytes) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in out.splitlines()]
    return [record for record in records if record["type"] == "result"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 7)])
def test_a_stopped_download_goes_on_where_it_was(tmp_path: Path, number: int, code: int) -> None:
    """The live tracker hears that we leave, a dead one is not waited for."""
    write(tmp_path / "seed/movie", DATA)
    with tracker() as (url, heard):
        torrent = single_file_torrent(b"movie", DATA, trackers=[(url,)])
        path = write(tmp_path / "movie.torrent", torrent)
        slow = {"max_upload_rate": 16.0 * PIECE_LENGTH}
        with SeedingThread(torrent, tmp_path / "seed", **slow) as seed:
            process = get(tmp_path, path, "--peer", seed.address)
            read_until(process, "tracker_announced")
            for _ in range(8):
                read_until(process, "piece_verified")
            process.send_signal(number)
            begun = time.monotonic()
            out, _ = process.communicate(timeout=20)
            assert time.monotonic() - begun < CLEAN_STOP + 0.5
        assert process.returncode == code
        assert heard == ["started", "stopped"]
        first = results(out)[0]["downloaded"]
        assert 8 * PIECE_LENGTH <= first < len(DATA)
        with SeedingThread(torrent, tmp_path / "seed") as seed:
            process = get(tmp_path, path, "--peer", seed.address)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert (tmp_path / "out/movie").read_bytes() == DATA
        # Nothing that had arrived was fetched again, but for what was on its way.
        assert first + results(out)[0]["downloaded"] <= len(DATA) + 2 * PIECE_LENGTH
        assert heard[2:] == ["started", "completed", "stopped"]


@pytest.mark.slow
def test_many_torrents_with_dead_trackers(tmp_path: Path, silent_tracker: str) -> None:
    """Their goodbyes are said side by side, and cut off together."""
    paths = []
    for number in range(60):
        torrent = single_file_torrent(b"%d" % number, b"x" * 100, trackers=[(silent_tracker,)])
        paths.append(write(tmp_path / f"{number}.torrent", torrent))
    process = get(tmp_path, *paths)
    read_until(process, "tracker_asked")
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - begun < CLEAN_STOP + 1.0
    assert process.returncode == 7
    assert err == b"bittern: not finished; the same command goes on from here\n"
    assert len(results(out)) == len(paths)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks a pipe of Linux whether it is full")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_who_does_not_read_what_it_writes_cannot_keep_it_alive(loop: str) -> None:
    """Not by one signal for longer than a clean stop takes, and not at all by two."""
    code = (
        "import os, sys\n"
        f"if {loop!r} == 'asyncio': sys.modules['uvloop'] = None\n"
        "from bittern.cli.loop import run_loop\n"
        "async def work(stop):\n"
        "    while True: os.write(1, bytes(4096))\n"
        "run_loop(work)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    try:
        end = time.monotonic() + 10
        while not is_full(process.stdout):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)  # two of a kind at the same time are one
        assert process.wait(CLEAN_STOP - 1) == 7
    finally:
        process.kill()
        process.communicate()


def is_full(pipe: IO[bytes]) -> bool:
    """Tell whether a pipe takes no more."""
    import array
    import fcntl
    import termios

    num_unread = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, num_unread)
    return num_unread[0] >= fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
