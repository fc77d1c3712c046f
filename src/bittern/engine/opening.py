"""
What ``Session.add`` takes, and how it becomes metainfo or a magnet link.

A torrent is named by the path of a .torrent file, its content, an http(s) URL of
one, a magnet link, or an info hash. Whatever comes from outside is read with a
limit, and a URL through the one guarded client (``net.http``).

Limit: P6. Sources: BEP 3, BEP 9 (magnet links), BEP 52 (v2 info hashes).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bittern.codec.magnet import Magnet, magnet_of_hash, parse_magnet
from bittern.codec.metainfo import Metainfo, decode_metainfo
from bittern.core.errors import ConfigError, FetchError, MetainfoError
from bittern.net.access import Access
from bittern.net.http import HttpResponse

MAX_TORRENT_FILE_LENGTH = 64 << 20
"""Limit: P6. Bytes of a .torrent file, also of one behind a URL, after decompression."""
FETCH_TIMEOUT = 60.0
"""Seconds for the whole of a document behind a URL."""

Source = str | Path | bytes | Metainfo | Magnet
"""What names a torrent."""


class Fetcher(Protocol):
    """What fetches documents; ``net.http.HttpClient`` is one."""

    async def fetch(
        self, url: str, *, access: Access, max_length: int, timeout: float
    ) -> HttpResponse:
        """Return the whole answer."""


async def open_source(source: Source, fetcher: Callable[[], Fetcher]) -> Metainfo | Magnet:
    """
    Read what names a torrent.

    Args:
        source: a string is a magnet link, a URL, an info hash or else a path.
        fetcher: gives what fetches a URL, and is called for one only. Whoever wrote it
            may mean his own network, so no address is refused but those that are nobody's.

    Raises:
        MetainfoError, MagnetError: it is unusable; the text says what and where.
        FetchError: a URL could not be read; ``status`` is the server's, where one answered.
        ConfigError: it is of no such kind.
    """
    match source:
        case Metainfo() | Magnet():
            return source
        case bytes():
            return decode_metainfo(source)
        case str():
            if source[:7].lower() == "magnet:":
                return parse_magnet(source)
            if source[:8].lower().startswith(("http://", "https://")):
                return await fetch_metainfo(source, fetcher())
            link = magnet_of_hash(source)
            if link is not None:
                return link
            if not source:
                raise MetainfoError("an empty text names no torrent")
        case os.PathLike():
            pass
        case _:
            raise ConfigError(f"a torrent is named by a path, text or bytes, not {source!r}")
    data = read_torrent_file(Path(source))
    try:
        return decode_metainfo(data)
    except MetainfoError as error:
        raise MetainfoError(f"{os.fspath(source)}: {error}") from error


def read_torrent_file(path: Path) -> bytes:
    """
    Read a .torrent file, refusing one that is too large before it is read.

    Raises:
        MetainfoError: missing, unreadable or over 64 MiB; the text names the file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TORRENT_FILE_LENGTH + 1)
    except OSError as error:
        raise MetainfoError(f"{path}: {os.strerror(error.errno or 0).lower()}") from error
    if len(data) > MAX_TORRENT_FILE_LENGTH:
        raise MetainfoError(f"{path}: over {MAX_TORRENT_FILE_LENGTH} bytes, no .torrent file")
    return data


async def fetch_metainfo(url: str, fetcher: Fetcher) -> Metainfo:
    """
    Fetch and decode a .torrent file.

    Raises:
        FetchError: it could not be had; the text begins with the URL.
        MetainfoError: what came is no torrent.
    """
    try:
        response = await fetcher.fetch(
            url, access=Access.ANY, max_length=MAX_TORRENT_FILE_LENGTH, timeout=FETCH_TIMEOUT
        )
    except FetchError as error:
        raise FetchError(f"{url}: {error}", status=error.status) from error
    if response.status != 200:
        reason = f"{url}: the server answered {response.status}"
        raise FetchError(reason, status=response.status)
    try:
        return decode_metainfo(response.body)
    except MetainfoError as error:
        raise MetainfoError(f"{url}: the document is no torrent: {error}") from error
