"""Web servers of a scene: files by URL, told as they are or with one of the lies of a test."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from bittern.core.errors import FetchError
from bittern.engine.peers.range_reader import HttpOpener
from bittern.engine.session import Session
from bittern.net.access import Access
from tests.engine.scene import NAME, Scene

BASE = "http://web.example/"
LOT = 50_000
"""Bytes of one read: no multiple of a block."""


@dataclass
class Answer:
    """What a server says; ``error`` is raised once the body has been read."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: str = ""


@dataclass
class Request:
    """What it was asked."""

    url: str
    headers: Mapping[str, str]
    access: Access
    max_length: int
    at: float

    @property
    def range(self) -> tuple[int, int] | None:
        """First byte and the one after the last; None for the whole file."""
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        return None if match is None else (int(match[1]), int(match[2]) + 1)


class Web:
    """
    All servers that a session can reach; an ``HttpOpener``.

    Args:
        files: by URL.
        rate: bytes per second of each connection.
        has_ranges: whether they know ranges.
    """

    def __init__(
        self, files: Mapping[str, bytes], *, rate: float = 10e6, has_ranges: bool = True
    ) -> None:
        self.files = dict(files)
        self.rate = rate
        self.has_ranges = has_ranges
        self.requests: list[Request] = []
        self.num_open = 0
        self.most_open = 0
        self.num_bytes = 0
        self.redirects: dict[str, str] = {}
        """Where a URL sends who asks for it."""
        self.public: set[str] = set()
        """URLs of servers at public addresses."""
        self.lie: Callable[[Request, Answer], Answer | None] = lambda _request, _answer: None
        """May change or replace an answer."""

    @classmethod
    def of(cls, scene: Scene, base: str = BASE, **options: float) -> Web:
        """Serve the files of a scene's torrent below ``base``."""
        return cls(
            {
                base + NAME + (f"/{name}" if name else ""): data
                for name, data in scene.files.items()
            },
            **options,  # type: ignore[arg-type]
        )

    @property
    def session(self) -> type[Session]:
        """A session that reaches these servers, to be made in a scene."""
        web: HttpOpener = self
        return type("Surfer", (Session,), {"_http": lambda _self: web})

    def paths(self) -> list[str]:
        """Return the URLs asked for, each once."""
        return list(dict.fromkeys(request.url for request in self.requests))

    @contextlib.asynccontextmanager
    async def open(
        self,
        url: str,
        *,
        access: Access,
        max_length: int,
        headers: Mapping[str, str] | None = None,
        keep_alive: bool = False,
        read_timeout: float = 20.0,
    ) -> AsyncIterator[_Body]:
        assert keep_alive
        now = asyncio.get_running_loop().time()
        request = Request(url, dict(headers or {}), access, max_length, now)
        self.requests.append(request)
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        try:
            await asyncio.sleep(0.01)
            answer = self._answer(request)
            changed = self.lie(request, answer)
            hops = [url]
            while (target := self.redirects.get(hops[-1])) is not None:
                hops.append(target)
            yield _Body(self, changed or answer, read_timeout, hops)
        finally:
            self.num_open -= 1

    def _answer(self, request: Request) -> Answer:
        url = request.url
        while (target := self.redirects.get(url)) is not None:
            url = target
        data = self.files.get(url)
        if data is None:
            return Answer(404)
        if request.range is None or not self.has_ranges:
            return Answer(200, {"content-length": str(len(data))}, data)
        start, stop = request.range
        headers = {
            "content-range": f"bytes {start}-{stop - 1}/{len(data)}",
            "content-length": str(stop - start),
        }
        return Answer(206, headers, data[start:stop])


class _Body:
    def __init__(self, web: Web, answer: Answer, read_timeout: float, hops: list[str]) -> None:
        self.url = hops[-1]
        self.came_from_public = any(hop in web.public for hop in hops)
        self.status = answer.status
        self.headers = answer.headers
        self._web = web
        self._answer = answer
        self._rest = answer.body
        self._read_timeout = read_timeout

    async def read(self, limit: int | None = None) -> bytes:
        length = LOT if limit is None else min(limit, LOT)
        data, self._rest = self._rest[:length], self._rest[length:]
        if not data and self._answer.error:
            raise FetchError(self._answer.error)
        if data:
            await asyncio.sleep(min(len(data) / self._web.rate, 1e6))
            self._web.num_bytes += len(data)
        return data
