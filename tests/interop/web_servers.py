"""Web servers that nobody wrote for BitTorrent: nginx, and Python's own, which knows no ranges."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Self

from tests.interop.place import Place
from tests.interop.process import Program
from tests.interop.web import request

_NGINX_PLACES = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
_NGINX = """
daemon off;
pid {root}/nginx.pid;
error_log stderr warn;
user root;
events {{ worker_connections 64; }}
http {{
    log_format short '$status $body_bytes_sent "$http_range" $connection "$request_uri"';
    access_log {root}/access.log short;
    types {{ }}
    default_type application/octet-stream;
    gzip on;
    gzip_types *;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ root {folder}; }}
        location /away/ {{
            if ($request_uri ~ ^/away/(.*)$) {{ return 302 http://127.0.0.1:{port}/$1; }}
        }}
        location /slow/ {{ alias {folder}/; limit_rate 100k; }}
        location /busy/ {{ add_header Retry-After 3600 always; return 503; }}
    }}
}}
"""


class WebServer:
    """
    A server of one folder on loopback.

    Args:
        folder: what it serves.
        root: for its own files.
    """

    has_ranges = True

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.root = root
        self.port = Place().free_port()
        root.mkdir(parents=True, exist_ok=True)
        self._program: Program | None = None

    @classmethod
    def missing(cls) -> str | None:
        """Return why it cannot be run here, or None."""
        return None

    @property
    def url(self) -> str:
        """Where its folder is."""
        return f"http://127.0.0.1:{self.port}/"

    def command(self) -> list[str]:
        """Return the program and its arguments."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        program = self._program = await Program.start(
            self.command(), place=Place(), log=self.root / "log"
        )

        async def is_there() -> bool:
            await request(Place(), "GET", "127.0.0.1", self.port, "/nothing")
            return True

        await program.poll(is_there, what="it answers", timeout=20)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._program is not None:
            await self._program.stop()


class Nginx(WebServer):
    """
    nginx, with compression on, as many have it, and its whole log kept.

    Below ``away/`` it redirects to its root, below ``slow/`` it sends 100 KiB a second, below
    ``busy/`` it has no time for an hour.
    """

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("nginx", path=_NGINX_PLACES) is None:
            return "nginx is not installed; tests/interop/setup.sh does it"
        return None

    def command(self) -> list[str]:
        config = self.root / "nginx.conf"
        config.write_text(_NGINX.format(root=self.root, port=self.port, folder=self.folder))
        program = shutil.which("nginx", path=_NGINX_PLACES) or "nginx"
        return [program, "-e", "stderr", "-p", str(self.root), "-c", str(config)]

    def log(self) -> list[list[str]]:
        """Return what it has answered: status, bytes, range, connection, path."""
        lines = (self.root / "access.log").read_text().splitlines()
        return [line.split(" ", 4) for line in lines if "/nothing" not in line]

    def num_sent(self) -> int:
        """Return the bytes of bodies that it has sent."""
        return sum(int(count) for _, count, *_ in self.log())


class PythonServer(WebServer):
    """``python -m http.server``: HTTP/1.0, no ranges, a connection for each request."""

    has_ranges = False

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "http.server", str(self.port)),
            *("--bind", "127.0.0.1", "--directory", str(self.folder)),
        ]
