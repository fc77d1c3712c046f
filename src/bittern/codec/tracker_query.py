"""
URLs that ask an HTTP tracker, and how a tracker reads them.

Parameters are those of BEP 3 with ``key`` (BEP 7) and ``compact`` (BEP 23). Raw
bytes are percent-encoded octet by octet; a tracker's own query string (a passkey)
stays in front. Reading is strict: what our own tracker cannot understand it
refuses, and the text of the error can be sent back as the failure reason.

Sources: BEP 3 (announce), BEP 7 (key), BEP 21 (paused), BEP 48 (scrape).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote_to_bytes, urlsplit, urlunsplit

from bittern.codec.url import normalise_url
from bittern.core.announce import (
    MAX_ANSWER_PEERS,
    MAX_TRACKER_ID_LENGTH,
    AnnounceRequest,
    Event,
)
from bittern.core.errors import DecodeError, TrackerDecodeError
from bittern.core.ids import InfoHash, PeerId

MAX_SCRAPE_HASHES = 74
"""Limit: T3. Swarms in one scrape, the figure BEP 15 gives for UDP."""
MAX_FIELDS = 80
"""Parameters of one query."""

_MAX_NUMBER = (1 << 63) - 1
_UNKNOWN_LEFT = _MAX_NUMBER
_ANNOUNCE = re.compile(r"/announce(?![A-Za-z])")
_EVENTS = {event.value: event for event in Event}


def tracker_url(url: str) -> str:
    """
    Return a tracker's URL in the form that is sent.

    Raises:
        TrackerDecodeError: not an absolute http, https or udp URL with a host.
    """
    try:
        return normalise_url(url, schemes=("http", "https", "udp"))
    except DecodeError as error:
        raise TrackerDecodeError(error.reason, limit=error.limit) from None


def announce_url(url: str, request: AnnounceRequest) -> str:
    """
    Return the URL that makes an announce.

    Args:
        url: the tracker's announce URL; its own query string (a passkey) stays in front.
        request: what to announce.

    Raises:
        TrackerDecodeError: ``url`` is unusable.

    Source: BEP 3; ``key`` BEP 7; ``compact`` BEP 23.
    """
    fields = [
        ("info_hash", quote(bytes(request.info_hash), safe="")),
        ("peer_id", quote(bytes(request.peer_id), safe="")),
        ("port", str(request.port)),
        ("uploaded", str(request.uploaded)),
        ("downloaded", str(request.downloaded)),
        ("left", str(request.left)),
        ("compact", "1"),
        ("no_peer_id", "1"),
    ]
    if request.key is not None:
        fields.append(("key", f"{request.key:08X}"))
    if request.event is not Event.NONE:
        fields.append(("event", request.event.value))
    if request.numwant is not None:
        fields.append(("numwant", str(request.numwant)))
    if request.host is not None:
        fields.append(("ip", quote(request.host, safe="")))
    if request.tracker_id:
        fields.append(("trackerid", quote(request.tracker_id, safe="")))
    return _with_fields(url, fields)


def scrape_url(url: str, info_hashes: Iterable[InfoHash] = ()) -> str | None:
    """
    Return the URL that scrapes, or None where the tracker has none.

    Args:
        url: the tracker's announce URL. Its last ``/announce`` becomes ``/scrape``; a
            path without one cannot be scraped.
        info_hashes: the swarms to ask about; none asks for all.

    Raises:
        TrackerDecodeError: ``url`` is unusable.

    Source: BEP 48.
    """
    parts = urlsplit(tracker_url(url))
    found = list(_ANNOUNCE.finditer(parts.path))
    if not found:
        return None
    start, end = found[-1].span()
    path = parts.path[:start] + "/scrape" + parts.path[end:]
    fields = [("info_hash", quote(bytes(info_hash), safe="")) for info_hash in info_hashes]
    return _with_fields(urlunsplit(parts._replace(path=path)), fields)


def _with_fields(url: str, fields: list[tuple[str, str]]) -> str:
    parts = urlsplit(tracker_url(url))
    query = "&".join(f"{name}={value}" for name, value in fields)
    if parts.query and query:
        query = f"{parts.query.rstrip('&')}&{query}"
    return urlunsplit(parts._replace(path=parts.path or "/", query=query or parts.query))


def parse_announce_query(query: str) -> AnnounceRequest:
    """
    Read the query string of an announce, as a tracker does.

    Unknown parameters are ignored; of repeated ones the first counts. Numbers that are absent
    or empty are 0, but for ``left``: then it is the highest, as nobody knows what is lacking.

    Raises:
        TrackerDecodeError: a parameter is missing or malformed; the text names it and
            can be sent back as the failure reason.
    """
    fields: dict[str, bytes] = {}
    for name, value in _split_query(query):
        fields.setdefault(name, value)
    event = fields.get("event", b"").decode("ascii", "replace")
    host = fields.get("ip", b"").decode("ascii", "replace")
    key = fields.get("key", b"")
    is_key = re.fullmatch(rb"[0-9A-Fa-f]{1,8}", key) is not None
    return AnnounceRequest(
        info_hash=InfoHash(_fixed(fields, "info_hash")),
        peer_id=PeerId(_fixed(fields, "peer_id")),
        port=_number(fields, "port", None, 65535),
        uploaded=_number(fields, "uploaded", 0, _MAX_NUMBER),
        downloaded=_number(fields, "downloaded", 0, _MAX_NUMBER),
        # Interop: webtorrent, with a magnet link, writes nothing behind it. Who does not know
        # what it lacks is no seed, or it would never be told of one.
        left=_number(fields, "left", _UNKNOWN_LEFT, _MAX_NUMBER),
        # Interop: some clients write event=empty; an event we do not know is a regular one.
        event=_EVENTS.get(event, Event.NONE),
        key=int(key, 16) if is_key else None,
        numwant=_numwant(fields),
        host=host or None,
        tracker_id=fields.get("trackerid", b"")[:MAX_TRACKER_ID_LENGTH],
    )


def parse_scrape_query(query: str) -> list[InfoHash]:
    """
    Read the query string of a scrape; no hash at all asks for a full scrape.

    Raises:
        TrackerDecodeError: a hash is malformed, or there are too many.
    """
    hashes = [value for name, value in _split_query(query) if name == "info_hash"]
    if len(hashes) > MAX_SCRAPE_HASHES:
        raise TrackerDecodeError("too many info hashes", limit=MAX_SCRAPE_HASHES)
    return [InfoHash(_fixed({"info_hash": value}, "info_hash")) for value in hashes]


def _split_query(query: str) -> list[tuple[str, bytes]]:
    parts = [part for part in query.split("&") if part]
    if len(parts) > MAX_FIELDS:
        raise TrackerDecodeError("too many parameters", limit=MAX_FIELDS)
    split = [part.partition("=") for part in parts]
    # Interop: a plus sign in a value is left alone; clients that write it mean the byte.
    return [(name, unquote_to_bytes(value)) for name, _, value in split]


def _fixed(fields: Mapping[str, bytes], name: str) -> bytes:
    value = fields.get(name)
    if value is None:
        raise TrackerDecodeError(f"{name} is missing")
    if len(value) != 20:
        raise TrackerDecodeError(f"{name} must have 20 bytes, not {len(value)}")
    return value


def _number(fields: Mapping[str, bytes], name: str, default: int | None, limit: int) -> int:
    value = fields.get(name)
    if not value:
        if default is None:
            raise TrackerDecodeError(f"{name} is missing")
        return default
    if not value.isdigit() or len(value) > 20:
        raise TrackerDecodeError(f"{name} is not a number")
    number = int(value)
    if number > limit:
        raise TrackerDecodeError(f"{name} is too large", limit=limit)
    return number


def _numwant(fields: Mapping[str, bytes]) -> int | None:
    value = fields.get("numwant")
    # Interop: -1 means "as you like" over UDP, and some clients write it here too.
    if value is None or value.startswith(b"-") or not value.isdigit():
        return None
    return min(int(value[:9]), MAX_ANSWER_PEERS)
