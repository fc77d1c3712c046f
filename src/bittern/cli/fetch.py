"""A .torrent file behind a URL that a person typed."""

from __future__ import annotations

from bittern.cli.source import MAX_TORRENT_LENGTH
from bittern.codec.metainfo import Metainfo, decode_metainfo
from bittern.core.errors import FetchError, MetainfoError
from bittern.engine.config import SessionConfig
from bittern.net.access import Access
from bittern.net.dns import Resolver
from bittern.net.http import HttpClient

FETCH_TIMEOUT = 60.0
"""Seconds for the whole document."""


async def fetch_metainfo(url: str) -> Metainfo:
    """
    Fetch and decode a .torrent file.

    Args:
        url: http or https. Whoever typed it may mean his own network, so no address is
            refused but those that are nobody's.

    Raises:
        FetchError: it could not be had; ``status`` is the server's, where one answered.
        MetainfoError: what came is no torrent.

    Limit: P6.
    """
    client = HttpClient(resolver=Resolver(), user_agent=SessionConfig().client_name)
    try:
        response = await client.fetch(
            url, access=Access.ANY, max_length=MAX_TORRENT_LENGTH, timeout=FETCH_TIMEOUT
        )
    finally:
        await client.close()
    if response.status != 200:
        raise FetchError(f"the server answered {response.status}", status=response.status)
    try:
        return decode_metainfo(response.body)
    except MetainfoError as error:
        raise MetainfoError(f"the document is no torrent: {error}") from error
