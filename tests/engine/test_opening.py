"""engine.opening: whatever names a torrent, and what is said when it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bittern.codec.magnet import Magnet, parse_magnet
from bittern.codec.metainfo import Metainfo, decode_metainfo
from bittern.core.errors import ConfigError, FetchError, MagnetError, MetainfoError
from bittern.engine.opening import (
    MAX_TORRENT_FILE_LENGTH,
    Source,
    open_source,
    read_torrent_file,
)
from bittern.net.access import Access
from bittern.net.http import HttpResponse
from tests.cli.support import single_file_torrent

RAW = single_file_torrent(b"a", b"x" * 1000)
HASH = decode_metainfo(RAW).info.wire_hash
URL = "http://torrents.example/a.torrent"


class FakeFetcher:
    """The web, as one page."""

    def __init__(self, status: int = 200, body: bytes = RAW) -> None:
        self.answer = HttpResponse(status, {}, body, URL)
        self.asked: list[tuple[str, Access, int]] = []

    async def fetch(
        self, url: str, *, access: Access, max_length: int, timeout: float
    ) -> HttpResponse:
        assert timeout > 0
        self.asked.append((url, access, max_length))
        return self.answer


@pytest.mark.parametrize("form", ["path", "text", "bytes", "metainfo", "url", "upper url"])
async def test_the_metainfo_in_any_form(form: str, tmp_path: Path) -> None:
    path = tmp_path / "x.torrent"
    path.write_bytes(RAW)
    sources: dict[str, Source] = {
        "path": path,
        "text": str(path),
        "bytes": RAW,
        "metainfo": decode_metainfo(RAW),
        "url": URL,
        "upper url": URL.replace("http", "HTTP"),
    }
    fetcher = FakeFetcher()
    found = await open_source(sources[form], lambda: fetcher)
    assert isinstance(found, Metainfo)
    assert found.info.wire_hash == HASH
    urls = [sources[form]] if "url" in form else []
    assert fetcher.asked == [(url, Access.ANY, MAX_TORRENT_FILE_LENGTH) for url in urls]


@pytest.mark.parametrize("form", ["link", "upper link", "magnet", "hash", "v2 hash"])
async def test_a_magnet_in_any_form(form: str) -> None:
    link = f"magnet:?xt=urn:btih:{HASH}"
    sources: dict[str, Source] = {
        "link": link,
        "upper link": link.replace("magnet", "MAGNET"),
        "magnet": parse_magnet(link),
        "hash": str(HASH),
        "v2 hash": "c" * 64,
    }
    found = await open_source(sources[form], FakeFetcher)
    assert isinstance(found, Magnet)
    if form == "v2 hash":
        assert bytes(found.info_hash_v2 or b"") == b"\xcc" * 32
    else:
        assert found.info_hash == HASH


@pytest.mark.parametrize(
    ("source", "kind", "text"),
    [
        ("magnet:?xt=nothing", MagnetError, "no BitTorrent info hash"),
        (b"junk", MetainfoError, "not a torrent"),
        (Path("not/there"), MetainfoError, "no such file or directory"),
        ("a.torrent", MetainfoError, "no such file or directory"),
        ("", MetainfoError, "an empty text names no torrent"),
        (5, ConfigError, "a torrent is named by a path, text or bytes, not 5"),
    ],
)
async def test_what_names_nothing(source: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        await open_source(source, FakeFetcher)


class NoFetcher(FakeFetcher):
    """Reaches nobody."""

    async def fetch(self, *args: Any, **options: Any) -> HttpResponse:
        raise FetchError("connection refused")


async def test_what_cannot_be_fetched() -> None:
    with pytest.raises(FetchError, match=f"^{URL}: the server answered 404$") as caught:
        await open_source(URL, lambda: FakeFetcher(404, b"gone"))
    assert caught.value.status == 404
    with pytest.raises(MetainfoError, match=f"^{URL}: the document is no torrent: "):
        await open_source(URL, lambda: FakeFetcher(body=b"<html>"))
    with pytest.raises(FetchError, match=f"^{URL}: connection refused$"):
        await open_source(URL, NoFetcher)


@pytest.mark.parametrize("form", [str, Path])
async def test_a_file_that_is_no_torrent_is_named(form: type, tmp_path: Path) -> None:
    path = tmp_path / "a.torrent"
    path.write_bytes(b"de")
    with pytest.raises(MetainfoError, match=f"^{path}: not a torrent: 'info' is missing$"):
        await open_source(form(path), FakeFetcher)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """Limit: P6."""
    path = tmp_path / "huge.torrent"
    with path.open("wb") as file:
        file.truncate(MAX_TORRENT_FILE_LENGTH + 1)
    with pytest.raises(MetainfoError, match="over 67108864"):
        read_torrent_file(path)
    with pytest.raises(MetainfoError, match="directory"):
        read_torrent_file(tmp_path)
