"""
Ranges of files read from a web server, as fast as limit and disk allow.

One request at a time over a connection that is kept alive. What an answer claims is
checked before its body is read, and no byte more is taken than was asked for. A
download limit holds where the bytes are read, since a request per grant would be
many: what is not read waits at the sender, but for a buffer or two.

Where a redirect has led is asked directly for some minutes, so that mirrors by way of a
dispatcher cost one round trip a request and not two. The rules of redirects go with it, and
whatever goes wrong there is asked of the server itself once more.

Sources: BEP 19; threats.md N6 (``net.access``), N8, F16.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from bittern.codec.info import Info
from bittern.codec.url import normalise_url
from bittern.codec.web_seed import check_answer, file_url, format_range
from bittern.core.errors import FetchError, WebSeedError, WebSeedUseless
from bittern.core.geometry import BLOCK_LENGTH
from bittern.engine.limits import RateGate
from bittern.net.access import Access
from bittern.policy.web_seeds import WebSeedRecord

READ_TIMEOUT = 20.0
"""Limit: N8. Seconds without a byte after which a server counts as gone; libtorrent's figure."""

REDIRECT_LIFETIME = 300.0
"""Seconds for which the target of a redirect is asked directly; aria2 does so for a download."""
MAX_REDIRECTS_KEPT = 16
"""Files of which the target is known."""

_ANY_LENGTH = 1 << 62
"""A body is cut by what was asked for, so that too much of it is told from a broken connection."""

Receive = Callable[[bytes], bool]
"""Takes bytes as they come; False to read no further."""


class HttpBody(Protocol):
    """An answer whose body is read as it comes."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case."""

    @property
    def url(self) -> str:
        """What answered, where redirects have led; normalised."""

    @property
    def came_from_public(self) -> bool:
        """True when some hop was at a public address."""

    async def read(self, limit: int | None = None) -> bytes:
        """Return the next part of the body, empty at its end; FetchError if it breaks off."""


class HttpOpener(Protocol):
    """What asks for documents; ``net.http.HttpClient`` or a fake."""

    def open(
        self,
        url: str,
        *,
        access: Access,
        max_length: int,
        headers: Mapping[str, str] | None = None,
        keep_alive: bool = False,
        read_timeout: float = READ_TIMEOUT,
    ) -> AbstractAsyncContextManager[HttpBody]:
        """Ask, follow redirects, and let the caller read the body; FetchError on failure."""


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a file is asked for."""

    url: str
    access: Access
    until: float = math.inf


class RangeReader:
    """
    The one described in the module's text, of one web seed.

    Args:
        record: of the web seed.
        info: of the torrent.
        http: makes the requests.
        gate: the torrent's limit.
        loop: gives the time.
        counted: hears of every lot of bytes.

    Attributes:
        file_index: the file that was asked for last.
    """

    __slots__ = (
        "_can_read",
        "_counted",
        "_gate",
        "_http",
        "_info",
        "_loop",
        "_moved",
        "_record",
        "_turn",
        "file_index",
    )

    def __init__(
        self,
        record: WebSeedRecord,
        info: Info,
        *,
        http: HttpOpener,
        gate: RateGate,
        loop: asyncio.AbstractEventLoop,
        counted: Callable[[int], None],
    ) -> None:
        self.file_index: int = 0
        self._record = record
        self._info = info
        self._http = http
        self._gate = gate
        self._loop = loop
        self._counted = counted
        self._moved: dict[int, _Target] = {}
        """By index of a file, where a redirect has led lately; the newest last."""
        self._turn: asyncio.Future[None] | None = None
        self._can_read = asyncio.Event()
        self._can_read.set()

    @property
    def is_held_back(self) -> bool:
        """True while it is we who do not read."""
        return self._turn is not None or not self._can_read.is_set()

    def set_reading(self, can_read: bool) -> None:
        """Read on, or wait for the disk (Limit: F16)."""
        if can_read:
            self._can_read.set()
        else:
            self._can_read.clear()

    def stop(self) -> None:
        """Wait for no turn any more."""
        self._gate.forget(self._my_turn)

    async def fetch(self, index: int, start: int, stop: int, receive: Receive) -> bool:
        """
        Fetch a range of a file.

        Args:
            index: of the file.
            start: first byte.
            stop: the byte after the last one.
            receive: takes the bytes as they come.

        Returns:
            False when the server sends whole files only, and the range is none; nothing was
            received then.

        Raises:
            WebSeedError, FetchError: it did not come, or not as asked for; what was received
                of it stands.
        """
        self.file_index = index
        moved = self._moved.get(index)
        if moved is not None and self._loop.time() < moved.until:
            num_before = self._record.num_bytes
            try:
                return await self._fetch_from(moved, index, start, stop, receive)
            except (WebSeedError, FetchError):
                # The server may send us elsewhere now. What came already is not asked for twice.
                self._moved.pop(index, None)
                if self._record.num_bytes > num_before:
                    raise
        record = self._record
        access = Access.ANY if record.is_trusted else Access.WEB_SEED
        own = _Target(file_url(record.url, self._info, index), access)
        return await self._fetch_from(own, index, start, stop, receive)

    async def _fetch_from(
        self, target: _Target, index: int, start: int, stop: int, receive: Receive
    ) -> bool:
        record, length = self._record, self._info.files[index].length
        record.asked(now=self._loop.time())
        # Limit: N8. A compressed body could not be cut by length.
        headers = {"Accept-Encoding": "identity"}
        if record.takes_ranges:
            headers["Range"] = format_range(start, stop)
        async with self._http.open(
            target.url,
            access=target.access,
            max_length=_ANY_LENGTH,
            headers=headers,
            keep_alive=True,
            read_timeout=READ_TIMEOUT,
        ) as body:
            is_range = check_answer(
                body.status, body.headers, start=start, stop=stop, length=length
            )
            if not is_range and stop - start != length:
                record.takes_ranges = False
                return False
            self._note_move(target, index, body)
            await self._read(body, stop - start, receive)
        return True

    def _note_move(self, target: _Target, index: int, body: HttpBody) -> None:
        """Remember where a good answer came from, if it was not who was asked."""
        # Limit: N6. What a URL has of name and password is shown to its own server alone.
        is_own = target.until == math.inf and body.url == normalise_url(target.url)
        if is_own or target.until < math.inf or "@" in target.url + body.url:
            return
        access = Access.PUBLIC if body.came_from_public else target.access
        self._moved.pop(index, None)
        self._moved[index] = _Target(body.url, access, self._loop.time() + REDIRECT_LIFETIME)
        if len(self._moved) > MAX_REDIRECTS_KEPT:
            del self._moved[next(iter(self._moved))]

    async def _read(self, body: HttpBody, left: int, receive: Receive) -> None:
        while left:
            num_charged = await self._wait_for_turn()
            data = await body.read(None if self._gate.is_unlimited else BLOCK_LENGTH)
            self._gate.take(len(data) - num_charged)
            if not data:
                raise WebSeedError("connection was closed in the middle of a file")
            if len(data) > left:
                break
            left -= len(data)
            self._counted(len(data))
            if not receive(data):
                return
        if left or await body.read():
            raise WebSeedUseless("sends more than it was asked for")

    async def _wait_for_turn(self) -> int:
        """Wait until bytes may be read; return for how many the limit was charged already."""
        await self._can_read.wait()
        if self._gate.is_unlimited or self._gate.available() > 0:
            return 0
        self._turn = self._loop.create_future()
        self._gate.wait(self._my_turn)
        try:
            await self._turn
        finally:
            self._turn = None
        return BLOCK_LENGTH

    def _my_turn(self) -> None:
        """Take a turn, charged at once, so that others who wait see what is left."""
        if self._turn is not None and not self._turn.done():
            self._gate.take(BLOCK_LENGTH)
            self._turn.set_result(None)
