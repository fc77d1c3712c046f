"""
URLs as other people wrote them, brought into the one form that is sent.

Torrents, magnet links and redirects hold URLs with spaces, foreign letters and
worse. ``normalise_url`` gives an ASCII URL that nothing downstream needs to read
again with other rules, or refuses.

Sources: RFC 3986, RFC 3490 (host names in IDNA form).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import quote, urlsplit, urlunsplit

from bittern.core.errors import ConfigError, DecodeError

MAX_URL_LENGTH = 4_096
"""Longest URL that we ask for."""

_KEEP = "%/:=&?~!$,;'@()*+[]-._"
"""Characters of a given URL that stay: reserved ones, and escapes already made."""
_EXAMPLE = "http://tracker.example/announce"
_HOST = re.compile(r"[0-9A-Za-z.:_%-]+")


def check_urls(name: str, urls: object) -> None:
    """Refuse a setting that is no collection of URLs: ConfigError. One text is none."""
    if not _are_urls(urls):
        raise ConfigError(f"{name} must be a tuple of URLs, not {urls!r}")


def check_tiers(name: str, tiers: object) -> None:
    """Refuse a setting that is no collection of tiers of URLs: ConfigError."""
    if not (isinstance(tiers, tuple | list) and all(map(_are_urls, tiers))):
        raise ConfigError(
            f"{name} must be tiers, each a tuple of URLs, as (({_EXAMPLE!r},),), not {tiers!r}"
        )


def _are_urls(urls: object) -> bool:
    return isinstance(urls, tuple | list) and all(
        isinstance(url, str) and "://" in url for url in urls
    )


def normalise_url(url: str, *, schemes: Collection[str] = ("http", "https")) -> str:
    """
    Return ``url`` as ASCII without fragment, its host in lower case and IDNA form.

    Escapes are left as they are, since ``%2F`` and ``/`` differ.

    Raises:
        DecodeError: not an absolute URL of one of ``schemes`` with a usable host.
    """
    if len(url) > MAX_URL_LENGTH:
        raise DecodeError("URL is too long", limit=MAX_URL_LENGTH)
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
        host = host.encode("ascii" if ":" in host else "idna").decode()
        user, at, _ = parts.netloc.rpartition("@")
        user = quote(user, safe=_KEEP)
        path, query = quote(parts.path, safe=_KEEP), quote(parts.query, safe=_KEEP)
    except ValueError as error:  # UnicodeError is one
        raise DecodeError(f"malformed URL: {error}") from None
    if parts.scheme not in schemes:
        raise DecodeError(f"URL has scheme {parts.scheme[:20]!r}")
    if not _HOST.fullmatch(host):
        raise DecodeError("URL has no usable host")
    if port == 0:
        raise DecodeError("URL has port 0")  # or some would read it as none, the usual one
    netloc = user + at + (f"[{host}]" if ":" in host else host)
    if port is not None:
        netloc += f":{port}"
    return urlunsplit((parts.scheme, netloc, path, query, ""))
