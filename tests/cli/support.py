"""Torrents and command lines for the tests of the command line."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bittern.cli.main import run
from bittern.codec.bencode import Encodable, encode
from bittern.codec.metainfo import encode_metainfo
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.session import Session

PIECE_LENGTH = 16_384
ALONE = ("--bind", "127.0.0.1", "--port", "0", "--no-dht", "--no-lsd", "--no-pex", "--no-tracker")
"""Options of a run that talks to nobody but whom it is told."""


@dataclass(frozen=True)
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def errors(self) -> list[str]:
        """The lines on stderr, after checking that each is the program's own."""
        lines = self.err.splitlines()
        assert all(line.startswith("bittern: ") for line in lines), self.err
        return [line.removeprefix("bittern: ") for line in lines]

    @property
    def error(self) -> str:
        """The one line on stderr, after checking that it is one."""
        assert self.err.startswith("bittern: "), self.err
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("bittern: ").rstrip("\n")


class Program:
    """Runs command lines in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Ran:
        self._capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        return Ran(code, out, err)


def content(length: int, seed: int = 0) -> bytes:
    """Return bytes that differ from place to place and from seed to seed."""
    block = hashlib.sha256(b"%d" % seed).digest()
    parts = []
    for _ in range(-(-length // 32)):
        parts.append(block)
        block = hashlib.sha256(block).digest()
    return b"".join(parts)[:length]


def hash_pieces(data: bytes, piece_length: int = PIECE_LENGTH) -> bytes:
    return b"".join(
        hashlib.sha1(data[at : at + piece_length]).digest()
        for at in range(0, len(data), piece_length)
    )


def single_file_torrent(name: bytes, data: bytes, **extra: Any) -> bytes:
    """Return the .torrent of one v1 file."""
    info: dict[bytes, Encodable] = {
        b"name": name,
        b"length": len(data),
        b"piece length": PIECE_LENGTH,
        b"pieces": hash_pieces(data),
    }
    return encode_metainfo(encode(info), **extra)


def folder_torrent(
    name: bytes, files: Sequence[tuple[tuple[bytes, ...], bytes]], **extra: Any
) -> bytes:
    """Return the .torrent of a v1 folder."""
    info: dict[bytes, Encodable] = {
        b"name": name,
        b"files": [{b"path": list(path), b"length": len(data)} for path, data in files],
        b"piece length": PIECE_LENGTH,
        b"pieces": hash_pieces(b"".join(data for _, data in files)),
    }
    return encode_metainfo(encode(info), **extra)


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


class SeedingThread:
    """A seed, or a peer with something missing, in a thread and an event loop of its own."""

    def __init__(self, torrent: bytes, output: Path, **settings: Any) -> None:
        self._torrent = torrent
        self._output = output
        self._settings = settings
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    def __enter__(self) -> SeedingThread:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._main())

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        config = SessionConfig(
            listen_host="127.0.0.1",
            listen_port=0,
            enable_dht=False,
            enable_lsd=False,
            enable_pex=False,
            enable_trackers=False,
            **self._settings,
        )
        async with Session(config) as session:
            await session.add(self._torrent, TorrentConfig(output=self._output))
            self.port = session.port
            self._ready.set()
            await self._stop.wait()


class _Refusing(http.server.BaseHTTPRequestHandler):
    """A tracker that wants nobody."""

    def do_GET(self) -> None:
        body = b"d14:failure reason14:not registerede"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@contextmanager
def refusing_tracker() -> Iterator[str]:
    """Run a tracker that refuses; its address, ``http://`` included."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
