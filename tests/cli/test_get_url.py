"""``get URL`` against small HTTP servers on loopback."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bittern.engine import opening
from tests.cli.support import ALONE, Program, content, single_file_torrent, write

pytestmark = pytest.mark.usefixtures("home")

DATA = content(100)
ANSWERS: dict[str, tuple[int, bytes]] = {
    "/cat.torrent": (200, single_file_torrent(b"cat", DATA)),
    "/page": (200, b"<html>not here</html>"),
    "/large": (200, bytes(2000)),
    "/mirror/cat": (200, DATA),
    "/secret": (403, b""),
    "/broken": (500, b""),
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = ANSWERS.get(self.path, (404, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_torrent_is_fetched_by_its_url(bittern: Program, server: str, tmp_path: Path) -> None:
    write(tmp_path / "cat", DATA)
    ran = bittern("get", f"{server}/cat.torrent", "--json", *ALONE)
    assert ran.code == 0, ran.err
    assert ran.json["name"] == "cat"


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("/gone", 3, "the server answered 404"),
        ("/secret", 8, "the server answered 403"),
        ("/broken", 1, "the server answered 500"),
        ("/page", 1, "the document is no torrent"),
        ("/large", 4, ""),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    bittern: Program,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    code: int,
    text: str,
) -> None:
    monkeypatch.setattr(opening, "MAX_TORRENT_FILE_LENGTH", 1000)
    ran = bittern("get", server + path, *ALONE)
    assert ran.code == code
    assert ran.error.startswith(f"{server}{path}: ")
    assert text in ran.error
    assert ran.out == ""


def test_a_server_that_is_not_there_is_code_4(bittern: Program) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ran = bittern("get", f"http://127.0.0.1:{port}/cat.torrent", *ALONE)
    assert ran.code == 4
    assert ran.error


@pytest.mark.slow
def test_a_torrent_is_downloaded_from_a_web_server(
    bittern: Program, server: str, tmp_path: Path
) -> None:
    ran = bittern("get", f"{server}/cat.torrent", "--web-seed", f"{server}/mirror/", "-v", *ALONE)
    assert ran.code == 0, ran.err
    assert (tmp_path / "cat").read_bytes() == DATA
    assert f"web seed {server}: has sent 100 B" in ran.out


@pytest.mark.slow
def test_web_servers_can_be_left_alone(bittern: Program, server: str, tmp_path: Path) -> None:
    options = ("--web-seed", f"{server}/mirror/", "--no-web-seed", "--timeout", "0.5s")
    ran = bittern("get", f"{server}/cat.torrent", *options, *ALONE)
    assert ran.code == 4
    assert "web seed: off (switched off by --no-web-seed)" in ran.err


@pytest.mark.slow
def test_a_web_server_that_fails_is_told_of(bittern: Program, server: str) -> None:
    options = ("--web-seed", f"{server}/broken", "--timeout", "0.5s")
    ran = bittern("get", f"{server}/cat.torrent", *options, *ALONE)
    assert ran.code == 4
    assert f"web seed {server}: failed (HTTP status 500); tried again in" in ran.err


@pytest.mark.parametrize("url", ["ftp://h/", "mirror", "http://"])
def test_a_web_seed_that_is_none_is_wrong_usage(url: str, bittern: Program) -> None:
    ran = bittern("get", "cat.torrent", "--web-seed", url, *ALONE)
    assert ran.code == 2
    assert "web seed" in ran.err
