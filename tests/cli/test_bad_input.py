"""
Bad input end to end: one clear line, the right exit code, nothing hangs, nothing escapes.

The whole zoo of torrents goes through the program inside this process; a few of each sort,
hostile trackers and hostile peers meet a real process.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bittern as package
from bittern.codec import wire
from bittern.codec.bencode import encode
from bittern.codec.metainfo import decode_metainfo
from tests.cli.support import (
    PIECE_LENGTH,
    Program,
    Ran,
    SeedingThread,
    content,
    folder_torrent,
    single_file_torrent,
    write,
)
from tests.codec.zoo.cases import ZOO, Case

SRC = Path(package.__file__).parents[1]
ALONE = ("--bind", "127.0.0.1", "--port", "0", "--no-dht", "--no-lsd", "--no-pex")
REFUSED = [case for case in ZOO if case.refusal is not None]
ACCEPTED = [case for case in ZOO if case.refusal is None]
PATIENCE = 30.0
"""Seconds after which a program counts as hanging."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, deep enough that leaving it would be seen."""
    folder = tmp_path / "one/two/three"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BITTERN_STATE_DIR", str(tmp_path / "state"))
    return folder


def tree(root: Path, *, without: Path) -> list[str]:
    """Return everything below a folder, but for one part of it and the state of sessions."""
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if without not in (path, *path.parents) and root / "state" not in (path, *path.parents)
    )


def is_printable(text: str) -> bool:
    """Tell whether nothing in a text can move a cursor or hide something."""
    return all(char.isprintable() or char == "\n" for char in text)


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """Run the program as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "bittern", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SRC)},
    )


def finish(process: subprocess.Popen[bytes]) -> Ran:
    """Wait for it; one that hangs is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it hangs: {out!r} {err!r}") from None
    return Ran(process.returncode, out.decode(), err.decode())


# --- torrents --------------------------------------------------------------------------------


def check_refusal(bittern: Program, here: Path, tmp_path: Path, case: Case, verb: str) -> None:
    """Show a bad torrent to a verb: one line, code 1, and nothing is touched."""
    write(here / "bad.torrent", case.data)
    (here / "data").mkdir()
    options = {"verify": ["--data", "data"], "get": ["-o", "data", *ALONE, "--no-tracker"]}
    before = tree(tmp_path, without=here / "none")
    ran = bittern(verb, "bad.torrent", *options.get(verb, []))
    assert ran.code == 1
    assert ran.out == ""
    assert ran.error.startswith("bad.torrent: ")
    assert is_printable(ran.err)
    assert len(ran.error) < 300
    assert case.refusal is not None
    assert tree(tmp_path, without=here / "none") == before


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_bad_torrent_is_one_line(
    bittern: Program, here: Path, tmp_path: Path, case: Case
) -> None:
    check_refusal(bittern, here, tmp_path, case, "info")


@pytest.mark.parametrize("case", REFUSED[::16], ids=lambda case: case.name)
@pytest.mark.parametrize("verb", ["verify", "get", "magnet"])
def test_a_bad_torrent_is_one_line_to_other_verbs(
    bittern: Program, here: Path, tmp_path: Path, case: Case, verb: str
) -> None:
    check_refusal(bittern, here, tmp_path, case, verb)


@pytest.mark.soak
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
@pytest.mark.parametrize("verb", ["verify", "get", "magnet"])
def test_every_bad_torrent_is_one_line_to_other_verbs(
    bittern: Program, here: Path, tmp_path: Path, case: Case, verb: str
) -> None:
    check_refusal(bittern, here, tmp_path, case, verb)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_an_odd_but_good_torrent_is_shown_and_verified_without_writing(
    bittern: Program, here: Path, tmp_path: Path, case: Case
) -> None:
    write(here / "odd.torrent", case.data)
    (here / "data").mkdir()
    before = tree(tmp_path, without=here / "none")
    ran = bittern("info", "odd.torrent")
    assert (ran.code, ran.err) == (0, "")
    assert is_printable(ran.out)
    ran = bittern("verify", "odd.torrent", "--data", "data", "--json")
    assert ran.code in (0, 3, 6), ran.err
    assert ran.code != 0 or not ran.json["bad_pieces"]
    assert tree(tmp_path, without=here / "none") == before


def check_odd_download(bittern: Program, here: Path, tmp_path: Path, case: Case) -> None:
    """Download a good torrent from nobody: it ends in time and stays in its folder."""
    write(here / "odd.torrent", case.data)
    before = tree(tmp_path, without=here / "out")
    begun = time.monotonic()
    ran = bittern("get", "odd.torrent", "-o", "out", "--timeout", "0.05s", *ALONE, "--no-tracker")
    assert time.monotonic() - begun < 10
    # 7 where the machine is so busy that the time was up while the folder was looked at.
    assert ran.code in (0, 1, 4, 7, 8), ran.err
    assert ran.code != 1 or len(ran.errors) == 1
    assert is_printable(ran.out)
    assert is_printable(ran.err)
    assert tree(tmp_path, without=here / "out") == before


@pytest.mark.slow
@pytest.mark.parametrize("case", ACCEPTED[::12], ids=lambda case: case.name)
def test_an_odd_but_good_torrent_stays_in_its_folder(
    bittern: Program, here: Path, tmp_path: Path, case: Case
) -> None:
    check_odd_download(bittern, here, tmp_path, case)


@pytest.mark.soak
@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_every_odd_but_good_torrent_stays_in_its_folder(
    bittern: Program, here: Path, tmp_path: Path, case: Case
) -> None:
    check_odd_download(bittern, here, tmp_path, case)


HOSTILE_PATHS: list[tuple[bytes, ...]] = [
    (b"..", b"..", b"escaped"),
    (b"/etc/escaped",),
    (b"..",),
    (b".", b"here"),
    (b"a/../../escaped",),
    (b"a\\..\\..\\escaped",),
    (b"C:\\escaped",),
    (b"\\\\server\\share",),
    (b"", b"empty"),
    (b"nul\x00byte",),
    (b"\x1b]0;title\x07\x1b[2J",),
    (b"line\nbreak",),
    ("\u202egpj.exe".encode(),),
    (b"x" * 300,),
    (b"\xff\xfe",),
    (b"CON",),
    (b"~", b".ssh", b"authorized_keys"),
    (b"same",),
    (b"same",),
    (b"same", b"below a file"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", [b"..", b"/", b"../../escaped", b".", b"/tmp/escaped"])
def test_hostile_paths_are_made_inside_the_folder(here: Path, tmp_path: Path, name: bytes) -> None:
    """P8, P9, P10. All files are empty, so the torrent is complete when they are made."""
    torrent = folder_torrent(name, [(path, b"") for path in HOSTILE_PATHS])
    write(here / "hostile.torrent", torrent)
    before = tree(tmp_path, without=here / "out")
    ran = finish(start("get", "hostile.torrent", "-o", "out", "--json", *ALONE, "--no-tracker"))
    assert ran.code == 0, ran.err
    assert tree(tmp_path, without=here / "out") == before
    files = [path for path in (here / "out").rglob("*") if path.is_file()]
    assert len(files) == len(HOSTILE_PATHS)
    assert all(path.resolve().is_relative_to(here / "out") for path in files)
    assert len(ran.json["files"]) == len(HOSTILE_PATHS)
    shown = finish(start("info", "hostile.torrent"))
    assert shown.code == 0
    assert is_printable(shown.out)


@pytest.mark.slow
def test_a_link_in_the_folder_is_not_followed(here: Path, tmp_path: Path) -> None:
    """P8, P11. Somebody has put a symbolic link where the torrent's folder goes."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (here / "out").mkdir()
    (here / "out/movie").symlink_to(outside)
    write(here / "a.torrent", folder_torrent(b"movie", [((b"a",), b""), ((b"b",), b"x" * 10)]))
    ran = finish(start("get", "a.torrent", "-o", "out", "--timeout", "2s", *ALONE, "--no-tracker"))
    assert ran.code == 8, ran.err
    assert len(ran.errors) == 1
    assert list(outside.iterdir()) == []


ABSURD: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 1),
    "text": (b"this is no torrent\n", 1),
    "web page": (b"<!DOCTYPE html><html><body>404</body></html>", 1),
    "many lists": (b"l" * 1_000_000, 1),
    "many dictionaries": (b"d1:a" * 300_000, 1),
    "long integer": (b"d4:infoi" + b"9" * 1_000_000 + b"ee", 1),
    "empty lists": (b"l" + b"le" * 2_500_000 + b"e", 1),
    "length that lies": (b"d4:info9223372036854775807:", 1),
    "zeros": (bytes(1_000_000), 1),
}


@pytest.mark.slow
def test_absurd_files_are_refused_quickly_by_a_real_process(here: Path) -> None:
    """P1 to P4."""
    begun = time.monotonic()
    running = {}
    for name, (data, _) in ABSURD.items():
        path = write(here / f"{name}.torrent", data)
        running[name] = start("info", path)
    for name, process in running.items():
        ran = finish(process)
        assert ran.code == ABSURD[name][1], name
        assert ran.out == ""
        assert ran.error.startswith(f"{here}/{name}.torrent: "), name
        assert len(ran.error) < 300
    assert time.monotonic() - begun < PATIENCE


@pytest.mark.slow
def test_a_huge_file_and_an_endless_one_are_not_read(here: Path) -> None:
    """P6."""
    with (here / "huge.torrent").open("wb") as file:
        file.truncate(10 << 30)
    running = [start("info", "huge.torrent"), start("info", "/dev/zero")]
    for process, name in zip(running, ("huge.torrent", "/dev/zero"), strict=True):
        ran = finish(process)
        assert ran.code == 1
        assert ran.error == f"{name}: larger than 67108864 bytes, not a .torrent file"


# --- trackers --------------------------------------------------------------------------------

ESCAPES = b"\x1b[2J\x1b]0;title\x07\r\n\x9b5A"


def http_answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@functools.cache
def http_trackers() -> dict[str, tuple[bytes, str]]:
    """What each sends, and what a person must read of it; nothing where it may be an answer."""
    return {
        "hangs-up": (b"", "failed: "),
        "garbage": (b"\x00\xff" * 500, "failed: "),
        "page": (http_answer(b"<html>" + ESCAPES), "failed: "),
        "error": (http_answer(ESCAPES, status="500 " + "x" * 200), "failed: "),
        "loop": (http_answer(b"", "Location: /loop/announce", status="302 Found"), "failed: "),
        "file": (http_answer(b"", "Location: file:///etc/passwd", status="302 Found"), "failed: "),
        "bomb": (
            http_answer(zlib.compress(bytes(200 << 20)), "Content-Encoding: deflate"),
            "failed: ",
        ),
        "long": (http_answer(b"d8:intervali60e5:peers" + b"9" * (8 << 20)), "failed: "),
        "headers": (http_answer(b"de", *(f"X-{n}: {'y' * 1000}" for n in range(2000))), "failed: "),
        "cut": (http_answer(b"d8:interval"), "failed: "),
        "deep": (http_answer(b"d5:peers" + b"l" * 100_000), "failed: "),
        "list": (http_answer(b"le"), "failed: "),
        "refuses": (
            http_answer(encode({b"failure reason": b"go away" + ESCAPES})),
            "refused: go away",
        ),
        "odd-peers": (http_answer(b"d8:intervali60e5:peers5:12345e"), ""),
        "negative": (http_answer(b"d8:intervali-5e5:peers0:e"), ""),
        "forever": (http_answer(b"d8:intervali9223372036854775807e5:peers0:e"), ""),
    }


class Connections(socketserver.BaseRequestHandler):
    """Reads the first line of a request and sends what is in the table for its path."""

    def handle(self) -> None:
        request = self.request.recv(4096)
        name = request.split(b" ")[1].split(b"/")[1].decode()
        with contextlib.suppress(OSError):
            self.request.sendall(http_trackers()[name][0])


@contextlib.contextmanager
def serving(handler: type[socketserver.BaseRequestHandler], host: str) -> Iterator[int]:
    """Run a TCP server in threads and give its port."""
    with socketserver.ThreadingTCPServer((host, 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
def test_hostile_http_trackers(here: Path) -> None:
    """
    T1 to T5, N6, P15: each costs its torrent one line, whatever it sends.

    Each has a server of its own, since one that fails often is not asked for other torrents.
    """
    with contextlib.ExitStack() as stack:
        for name in http_trackers():
            port = stack.enter_context(serving(Connections, "127.0.0.1"))
            url = f"http://127.0.0.1:{port}/{name}/announce"
            torrent = single_file_torrent(name.encode(), b"x" * 1000, trackers=[(url,)])
            write(here / f"{name}.torrent", torrent)
        names = [f"{name}.torrent" for name in http_trackers()]
        ran = finish(start("get", *names, "-o", "out", "-v", "--timeout", "4s", *ALONE))
    assert ran.code in (4, 7)
    assert is_printable(ran.out)
    assert is_printable(ran.err)
    for name, (_, text) in http_trackers().items():
        told = [line for line in ran.out.splitlines() if f"  {name}: tracker http" in line]
        assert len(told) == 1, (name, ran.out)
        assert text in told[0]
        assert len(told[0]) < 200
        assert "info_hash" not in told[0]


@pytest.mark.slow
def test_hostile_udp_trackers(here: Path) -> None:
    """T1: what is no answer to our question is none."""
    answers: dict[str, Callable[[bytes], bytes]] = {
        "garbage": lambda asked: os.urandom(1000),
        "short": lambda asked: asked[12:15],
        "other": lambda asked: bytes(4) + bytes(4) + os.urandom(8),
        "huge": lambda asked: bytes(4) + asked[12:16] + bytes(60_000),
        "refuses": lambda asked: b"\0\0\0\3" + asked[12:16] + b"go away" + ESCAPES,
        "silent": lambda asked: b"",
    }
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            server.bind(("127.0.0.1", 0))
            server.settimeout(0.1)
            url = f"udp://127.0.0.1:{server.getsockname()[1]}/announce"
            torrent = single_file_torrent(name.encode(), b"x" * 1000, trackers=[(url,)])
            write(here / f"{name}.torrent", torrent)
            stack.enter_context(answering(server, answer))
        names = [f"{name}.torrent" for name in answers]
        ran = finish(start("get", *names, "-o", "out", "-v", "--timeout", "3s", *ALONE))
    assert ran.code == 7, ran.err  # one was reached
    assert is_printable(ran.out)
    assert is_printable(ran.err)
    told = [line for line in ran.out.splitlines() if " refused: " in line or " failed: " in line]
    assert any("  refuses: tracker udp://" in line and "refused: go away" in line for line in told)
    assert not any("  silent: " in line for line in told)
    assert ran.errors[0] == "not finished; the same command goes on from here"
    assert ran.errors[1].startswith("refuses: tracker udp://127.0.0.1:")
    assert any(line.startswith("silent: tracker udp://127.0.0.1:") for line in ran.errors)


@contextlib.contextmanager
def answering(server: socket.socket, answer: Callable[[bytes], bytes]) -> Iterator[None]:
    """Answer datagrams in a thread."""
    has_ended = threading.Event()

    def run() -> None:
        while not has_ended.is_set():
            try:
                data, address = server.recvfrom(4096)
            except TimeoutError:
                continue
            server.sendto(answer(data), address)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()


# --- peers -----------------------------------------------------------------------------------

DATA = content(20 * PIECE_LENGTH)
TORRENT = single_file_torrent(b"movie", DATA)
INFO_HASH = decode_metainfo(TORRENT).info.wire_hash
HELLO = wire.encode_handshake(
    INFO_HASH, b"-XX0000-hostilehosti", wire.Reserved(has_fast=True, has_extensions=True)
)
SEED = wire.HAVE_ALL + wire.UNCHOKE

HOSTILE_PEERS: dict[str, bytes | None] = {
    "hangs up": b"",
    "silent": None,
    "garbage": bytes(range(256)) * 16,
    "a web server": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "another torrent": HELLO[:28] + bytes(20) + HELLO[48:],
    "endless message": HELLO + b"\xff\xff\xff\xff" + bytes(5000),
    "bitfield too long": HELLO + wire.encode_bitfield(bytes(100)),
    "bits behind the end": HELLO + wire.encode_bitfield(b"\xff" * 3),
    "a piece that is not there": HELLO + wire.HAVE_NONE + wire.encode_have(1 << 31),
    "bomb": HELLO + wire.encode_extended(0, b"l" * 200_000),
    "flood": HELLO + SEED + wire.encode_piece(0, 0, bytes(16_384)) * 200,
    "never unchokes": HELLO + wire.HAVE_ALL,
    "liar": HELLO + SEED,
}
"""What each sends at once; ``silent`` and ``never unchokes`` stay, and the liar answers."""


def handler_of(name: str, first: bytes | None) -> type[socketserver.BaseRequestHandler]:
    """Return a peer of the table."""

    class Peer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                if first is not None:
                    # One peer id each, or they would count as one peer.
                    own = b"-XX0000-" + name[:12].ljust(12).encode()
                    self.request.sendall(first.replace(HELLO[48:], own, 1))
                if first == b"":
                    return
                received = bytearray()
                while data := self.request.recv(65_536):
                    received += data
                    if name == "liar":
                        self.lie(received)

        def lie(self, received: bytearray) -> None:
            for match in re.finditer(b"\0\0\0\x0d\6(.{12})", bytes(received), re.DOTALL):
                index, begin, length = struct.unpack(">III", match[1])
                self.request.sendall(wire.encode_piece(index, begin, os.urandom(length)))
            del received[:-16]

    return Peer


@contextlib.contextmanager
def hostile_peers() -> Iterator[list[str]]:
    """Run them all, each at an address of its own, and give what to write behind ``get``."""
    with contextlib.ExitStack() as stack:
        options: list[str] = []
        for number, (name, first) in enumerate(HOSTILE_PEERS.items(), start=2):
            host = f"127.0.0.{number}"
            port = stack.enter_context(serving(handler_of(name, first), host))
            options += ["--peer", f"{host}:{port}"]
        yield options


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is at hand on Linux")
def test_hostile_peers_beside_an_honest_one(here: Path) -> None:
    """H1 to H5: the file is right, and nobody is waited for."""
    write(here / "a.torrent", TORRENT)
    write(here / "seed/movie", DATA)
    with hostile_peers() as options, SeedingThread(TORRENT, here / "seed") as seed:
        options += ["--peer", seed.address]
        ran = finish(start("get", "a.torrent", "-o", "out", *options, *ALONE, "--no-tracker"))
    assert ran.code == 0, ran.err
    assert ran.err == ""
    assert (here / "out/movie").read_bytes() == DATA


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is at hand on Linux")
def test_hostile_peers_alone(here: Path) -> None:
    """Nothing of what they send is kept as good, and it is said what each did."""
    write(here / "a.torrent", TORRENT)
    with hostile_peers() as options:
        ran = finish(
            start(
                "get", "a.torrent", "-o", "out", "-v", "--timeout", "4s", *options, *ALONE,
                "--no-tracker",
            )
        )  # fmt: skip
    assert ran.code == 7, ran.err
    assert ran.errors[0] == "not finished; the same command goes on from here"
    assert len(ran.errors) > 1
    assert is_printable(ran.out)
    assert "banned 127.0.0." in ran.out
    assert "verified" not in ran.out
    shown = finish(start("verify", "a.torrent", "--data", "out", "--json"))
    assert shown.code == 6
    assert shown.json["num_good"] == 0
