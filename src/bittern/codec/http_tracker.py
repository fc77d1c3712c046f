"""
HTTP tracker: answers to announce and scrape, both directions.

Answers are bencoded dictionaries (the queries are in ``tracker_query``, whose
names this module offers as well):

    announce    interval, min interval, peers, peers6, complete, incomplete,
                downloaded, tracker id, warning message, external ip
    scrape      files: {info_hash: {complete, downloaded, incomplete}}
    refusal     failure reason, retry in

Reading answers is tolerant: a key of the wrong type counts as absent, a
malformed peer is left out, and bytes after the dictionary are ignored, since
trackers differ widely there. Numbers and lengths are cut to the limits of
``bittern.core.announce`` (Limit: N5). Host names in place of addresses are left
out: nobody but the tracker's own host is looked up on a tracker's word.

Sources: BEP 3, BEP 7 (peers6), BEP 23 (compact), BEP 24 (external ip), BEP 31
(retry in), BEP 48 (scrape).
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping

from bittern.codec.bencode import TRACKER_LIMITS, Encodable, Value, decode_prefix, encode
from bittern.codec.tracker_query import (
    announce_url,
    parse_announce_query,
    parse_scrape_query,
    scrape_url,
    tracker_url,
)
from bittern.core.announce import (
    MAX_ANSWER_PEERS,
    MAX_TEXT_LENGTH,
    MAX_TRACKER_ID_LENGTH,
    MIN_INTERVAL,
    AnnounceAnswer,
    AnnounceRequest,
    Event,
    FailureAnswer,
    ScrapeEntry,
    clamp_interval,
    clean_text,
)
from bittern.core.endpoint import Endpoint, iter_compact, join_compact
from bittern.core.errors import BencodeDecodeError, TrackerDecodeError
from bittern.core.ids import InfoHash

__all__ = [
    "AnnounceAnswer",
    "AnnounceRequest",
    "Event",
    "FailureAnswer",
    "ScrapeEntry",
    "announce_url",
    "decode_announce",
    "decode_scrape",
    "encode_announce",
    "encode_failure",
    "encode_packed_announce",
    "encode_scrape",
    "parse_announce_query",
    "parse_scrape_query",
    "scrape_url",
    "tracker_url",
]

MAX_RETRY_AFTER = 7 * 86_400
"""Longest wait that ``retry in`` may ask for short of "never"; seconds."""


def decode_announce(data: bytes) -> AnnounceAnswer | FailureAnswer:
    """
    Read the body of an answer to an announce.

    Raises:
        TrackerDecodeError: not a bencoded dictionary within the limits, or without both
            peers and interval and so no tracker's answer at all.
    """
    fields = _dictionary(data)
    if (failure := _failure(fields)) is not None:
        return failure
    if not fields.keys() & {b"interval", b"peers", b"peers6"}:
        raise TrackerDecodeError("neither an announce answer nor a failure")
    interval = clamp_interval(_integer(fields, b"interval"))
    min_interval = _integer(fields, b"min interval") or 0
    warning = _string(fields, b"warning message")
    tracker_id = _string(fields, b"tracker id")
    return AnnounceAnswer(
        interval=interval,
        min_interval=min(max(min_interval, MIN_INTERVAL), interval),
        peers=_peers(fields),
        num_seeds=_count(fields, b"complete"),
        num_leechers=_count(fields, b"incomplete"),
        num_downloaded=_count(fields, b"downloaded"),
        external_host=_packed_host(_string(fields, b"external ip")),
        tracker_id=b"" if len(tracker_id) > MAX_TRACKER_ID_LENGTH else tracker_id,
        warning=clean_text(warning) or None,
    )


def decode_scrape(data: bytes) -> dict[InfoHash, ScrapeEntry] | FailureAnswer:
    """
    Read the body of an answer to a scrape.

    Raises:
        TrackerDecodeError: not a bencoded dictionary within the limits.
    """
    fields = _dictionary(data)
    if (failure := _failure(fields)) is not None:
        return failure
    files = fields.get(b"files")
    if not isinstance(files, dict):
        raise TrackerDecodeError("neither a scrape answer nor a failure")
    entries = {}
    for key, value in files.items():
        if len(key) == InfoHash.SIZE and isinstance(value, dict):
            entries[InfoHash(key)] = ScrapeEntry(
                _count(value, b"complete"),
                _count(value, b"downloaded"),
                _count(value, b"incomplete"),
            )
    return entries


def _dictionary(data: bytes) -> dict[bytes, Value]:
    try:
        value, _ = decode_prefix(data, limits=TRACKER_LIMITS)
    except BencodeDecodeError as error:
        raise TrackerDecodeError(
            f"not bencoded: {error.reason}", offset=error.offset, limit=error.limit
        ) from error
    if not isinstance(value, dict):
        raise TrackerDecodeError("not a dictionary", offset=0)
    return value


def _failure(fields: Mapping[bytes, Value]) -> FailureAnswer | None:
    reason = fields.get(b"failure reason")
    if reason is None:
        return None
    text = clean_text(reason) if isinstance(reason, bytes) else ""
    return FailureAnswer(text or "no reason given", _retry_after(fields.get(b"retry in")))


def _retry_after(value: Value | None) -> float | None:
    """Read ``retry in``: minutes as integer or, as the BEP's own example, digits; or never."""
    if value == b"never":
        return math.inf
    if isinstance(value, bytes) and value.isdigit() and len(value) <= 9:
        value = int(value)
    if not isinstance(value, int) or value <= 0:
        return None
    return float(min(value * 60, MAX_RETRY_AFTER))


def _peers(fields: Mapping[bytes, Value]) -> tuple[Endpoint, ...]:
    peers: list[Endpoint] = []
    for key, ipv6 in ((b"peers", False), (b"peers6", True)):
        value = fields.get(key)
        room = MAX_ANSWER_PEERS - len(peers)
        if isinstance(value, bytes):
            peers += iter_compact(value[: room * (18 if ipv6 else 6)], ipv6=ipv6)
        elif isinstance(value, list):
            peers += [peer for entry in value[:room] if (peer := _listed_peer(entry)) is not None]
    return tuple(peers)


def _listed_peer(entry: Value) -> Endpoint | None:
    """Read one peer of the dictionary model (BEP 3); None if it is not one."""
    if not isinstance(entry, dict):
        return None
    host, port = entry.get(b"ip"), entry.get(b"port")
    if not isinstance(host, bytes) or not isinstance(port, int):
        return None
    try:
        return Endpoint.make(host[:64].decode("ascii"), port)
    except ValueError:
        return None


def _integer(fields: Mapping[bytes, Value], key: bytes) -> int | None:
    value = fields.get(key)
    return value if isinstance(value, int) else None


def _count(fields: Mapping[bytes, Value], key: bytes) -> int | None:
    value = _integer(fields, key)
    return None if value is None or value < 0 else value


def _string(fields: Mapping[bytes, Value], key: bytes) -> bytes:
    value = fields.get(key)
    return value if isinstance(value, bytes) else b""


def _packed_host(packed: bytes) -> str | None:
    if len(packed) not in (4, 16):
        return None
    # Endpoint turns IPv4-mapped addresses into IPv4.
    return Endpoint.make(str(ipaddress.ip_address(packed)), 0).host


def encode_announce(answer: AnnounceAnswer) -> bytes:
    """
    Return the body of an answer, peers always compact, IPv4 and IPv6 apart.

    A tracker may answer in compact form whatever was asked for (BEP 23).
    """
    external = answer.external_host
    return encode_packed_announce(
        interval=answer.interval,
        min_interval=answer.min_interval,
        peers=join_compact(peer for peer in answer.peers if not peer.is_ipv6),
        peers6=join_compact(peer for peer in answer.peers if peer.is_ipv6),
        num_seeds=answer.num_seeds,
        num_leechers=answer.num_leechers,
        num_downloaded=answer.num_downloaded,
        external_address=b"" if external is None else ipaddress.ip_address(external).packed,
        tracker_id=answer.tracker_id,
        warning=answer.warning or "",
    )


def encode_packed_announce(
    *,
    interval: int,
    min_interval: int,
    peers: bytes,
    peers6: bytes = b"",
    num_seeds: int | None = None,
    num_leechers: int | None = None,
    num_downloaded: int | None = None,
    external_address: bytes = b"",
    tracker_id: bytes = b"",
    warning: str = "",
) -> bytes:
    """Return the body of an answer whose addresses are packed already, as trackers have them."""
    fields: dict[bytes, Encodable | None] = {
        b"complete": num_seeds,
        b"downloaded": num_downloaded,
        b"external ip": external_address or None,
        b"incomplete": num_leechers,
        b"interval": interval,
        b"min interval": min_interval,
        b"peers": peers,
        b"peers6": peers6 or None,
        b"tracker id": tracker_id or None,
        b"warning message": warning.encode() or None,
    }
    return encode({key: value for key, value in fields.items() if value is not None})


def encode_failure(failure: FailureAnswer) -> bytes:
    """Return the body of a refusal; a wait is rounded up to whole minutes (BEP 31)."""
    fields: dict[bytes, Encodable] = {
        b"failure reason": failure.reason.encode("utf-8", "replace")[:MAX_TEXT_LENGTH]
    }
    if failure.retry_after == math.inf:
        fields[b"retry in"] = b"never"
    elif failure.retry_after is not None:
        fields[b"retry in"] = max(1, math.ceil(failure.retry_after / 60))
    return encode(fields)


def encode_scrape(entries: Mapping[InfoHash, ScrapeEntry]) -> bytes:
    """Return the body of an answer to a scrape; counts that are None are left out."""
    files: dict[bytes, Encodable] = {}
    for info_hash in sorted(entries):
        entry = entries[info_hash]
        counts = {
            b"complete": entry.num_seeds,
            b"downloaded": entry.num_downloaded,
            b"incomplete": entry.num_leechers,
        }
        files[bytes(info_hash)] = {k: v for k, v in counts.items() if v is not None}
    return encode({b"files": files})
