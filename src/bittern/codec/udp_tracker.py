"""
UDP tracker packets, both directions.

All numbers are big endian. Requests (client to tracker):

    connect     0   8   protocol id   0x41727101980
                8   4   action        0
                12  4   transaction id
    announce    0   8   connection id
                8   4   action        1
                12  4   transaction id
                16  20  info hash
                36  20  peer id
                56  8   downloaded
                64  8   left
                72  8   uploaded
                80  4   event         0 none, 1 completed, 2 started, 3 stopped
                84  4   address       0: the packet's source; never 0 is IPv4 only
                88  4   key
                92  4   numwant       -1: as the tracker likes
                96  2   port
                98  n   options       BEP 41
    scrape      0   8   connection id
                8   4   action        2
                12  4   transaction id
                16  20n info hashes   1 to 74

Answers (tracker to client):

    connect     0   4   action        0
                4   4   transaction id
                8   8   connection id
    announce    0   4   action        1
                4   4   transaction id
                8   4   interval      seconds
                12  4   leechers
                16  4   seeders
                20  6n  peers         or 18n, by the family of the packet
    scrape      0   4   action        2
                4   4   transaction id
                8   12n seeders, completed, leechers   4 each
    error       0   4   action        3
                4   4   transaction id
                8   n   message

Options behind an announce: 0 ends them, 1 is padding of one byte, every other
number is followed by a length byte and that many bytes. Number 2 carries path
and query of the tracker's URL; several are joined (BEP 41).

Connect answers and requests may be longer than said (BEP 15: packets may grow).
Announce and scrape answers must consist of whole entries.

Sources: BEP 15, BEP 41.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from bittern.core.announce import (
    MAX_ANSWER_PEERS,
    AnnounceAnswer,
    AnnounceRequest,
    Event,
    ScrapeEntry,
    clamp_interval,
    clean_text,
)
from bittern.core.endpoint import iter_compact, join_compact
from bittern.core.errors import TrackerDecodeError
from bittern.core.ids import InfoHash, PeerId

PROTOCOL_ID: Final = 0x41727101980
CONNECT: Final = 0
ANNOUNCE: Final = 1
SCRAPE: Final = 2
ERROR: Final = 3
MAX_SCRAPE_HASHES: Final = 74
"""Limit: T3. BEP 15: about as many fit a packet."""
MAX_URL_DATA_LENGTH: Final = 1_024
"""Bytes of path and query that we send or read; the packet must stay unfragmented."""

CONNECT_REQUEST: Final = struct.Struct(">QII")
ANNOUNCE_REQUEST: Final = struct.Struct(">QII20s20sQQQI4sIiH")
REQUEST_HEAD: Final = struct.Struct(">QII")
ANSWER_HEAD: Final = struct.Struct(">II")
CONNECT_ANSWER: Final = struct.Struct(">IIQ")
ANNOUNCE_ANSWER: Final = struct.Struct(">IIIII")
_SCRAPE_ENTRY = struct.Struct(">III")

_EVENT_NUMBERS = {
    Event.NONE: 0,
    Event.COMPLETED: 1,
    Event.STARTED: 2,
    Event.STOPPED: 3,
    Event.PAUSED: 0,
}
_EVENTS = {0: Event.NONE, 1: Event.COMPLETED, 2: Event.STARTED, 3: Event.STOPPED}
_MAX_COUNT = 0xFFFF_FFFF
_OPTION_END, _OPTION_NOP, _OPTION_URL_DATA = 0, 1, 2


@dataclass(frozen=True, slots=True)
class ConnectQuery:
    """A client asks for a connection id."""

    transaction_id: int


@dataclass(frozen=True, slots=True)
class AnnounceQuery:
    """A client announces; ``url_data`` is what its options said of path and query."""

    connection_id: int
    transaction_id: int
    request: AnnounceRequest
    url_data: bytes = b""


@dataclass(frozen=True, slots=True)
class ScrapeQuery:
    """A client scrapes."""

    connection_id: int
    transaction_id: int
    info_hashes: tuple[InfoHash, ...]


Query: TypeAlias = ConnectQuery | AnnounceQuery | ScrapeQuery
"""What a tracker receives."""


@dataclass(frozen=True, slots=True)
class ConnectReply:
    """A tracker gave a connection id."""

    transaction_id: int
    connection_id: int


@dataclass(frozen=True, slots=True)
class AnnounceReply:
    """A tracker answered an announce."""

    transaction_id: int
    answer: AnnounceAnswer


@dataclass(frozen=True, slots=True)
class ScrapeReply:
    """A tracker answered a scrape; entries in the order that was asked for."""

    transaction_id: int
    entries: tuple[ScrapeEntry, ...]


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """A tracker refused; ``reason`` is cleaned for display."""

    transaction_id: int
    reason: str


Reply: TypeAlias = ConnectReply | AnnounceReply | ScrapeReply | ErrorReply
"""What a client receives."""


# --- queries -----------------------------------------------------------------------------


def encode_connect(transaction_id: int) -> bytes:
    """Return a request for a connection id, 16 bytes."""
    return CONNECT_REQUEST.pack(PROTOCOL_ID, CONNECT, transaction_id)


def encode_announce(
    connection_id: int, transaction_id: int, request: AnnounceRequest, *, url_data: bytes = b""
) -> bytes:
    """
    Return an announce of 98 bytes plus options.

    Args:
        connection_id: what the tracker gave us.
        transaction_id: 32 bits that the answer repeats.
        request: ``host`` is not sent and neither is ``tracker_id``: UDP has no room for
            them (the address field is for IPv4 and ignored by nearly all).
        url_data: path and query of the tracker's URL, as in BEP 41; cut to
            ``MAX_URL_DATA_LENGTH``.
    """
    packet = ANNOUNCE_REQUEST.pack(
        connection_id,
        ANNOUNCE,
        transaction_id,
        request.info_hash,
        request.peer_id,
        request.downloaded,
        request.left,
        request.uploaded,
        _EVENT_NUMBERS[request.event],
        bytes(4),
        request.key or 0,
        -1 if request.numwant is None else request.numwant,
        request.port,
    )
    return packet + encode_url_data(url_data) if url_data else packet


def encode_scrape(
    connection_id: int, transaction_id: int, info_hashes: Sequence[InfoHash]
) -> bytes:
    """Return a scrape of at most ``MAX_SCRAPE_HASHES`` swarms; those beyond are left out."""
    head = REQUEST_HEAD.pack(connection_id, SCRAPE, transaction_id)
    return head + b"".join(info_hashes[:MAX_SCRAPE_HASHES])


def encode_url_data(url_data: bytes) -> bytes:
    """Return path and query as options of at most 255 bytes each (BEP 41)."""
    url_data = url_data[:MAX_URL_DATA_LENGTH]
    parts = [url_data[at : at + 255] for at in range(0, len(url_data), 255)]
    return b"".join(bytes((_OPTION_URL_DATA, len(part))) + part for part in parts)


def decode_url_data(options: bytes) -> bytes:
    """
    Return path and query out of the options behind an announce (BEP 41).

    Raises:
        TrackerDecodeError: an option reaches beyond the packet, or they say too much.
    """
    found = b""
    at = 0
    while at < len(options) and options[at] != _OPTION_END:
        if options[at] == _OPTION_NOP:
            at += 1
            continue
        end = at + 2 + options[at + 1] if at + 1 < len(options) else len(options) + 1
        if end > len(options):
            raise TrackerDecodeError("option reaches beyond the packet", offset=at)
        if options[at] == _OPTION_URL_DATA:
            found += options[at + 2 : end]
        at = end
    if len(found) > MAX_URL_DATA_LENGTH:
        raise TrackerDecodeError("URL data is too long", limit=MAX_URL_DATA_LENGTH)
    return found


def decode_query(data: bytes) -> Query:
    """
    Read what a client sent, as a tracker does; connection ids are the caller's to check.

    Raises:
        TrackerDecodeError: too short, unknown action, wrong protocol id, or a value out
            of range.
    """
    if len(data) < REQUEST_HEAD.size:
        raise TrackerDecodeError(f"packet of {len(data)} bytes", offset=0)
    connection_id, action, transaction_id = REQUEST_HEAD.unpack_from(data)
    if action == CONNECT:
        if connection_id != PROTOCOL_ID:
            raise TrackerDecodeError("not the protocol id", offset=0)
        return ConnectQuery(transaction_id)
    if action == ANNOUNCE:
        return _decode_announce_query(data)
    if action == SCRAPE:
        hashes = data[REQUEST_HEAD.size :]
        if not hashes or len(hashes) % InfoHash.SIZE:
            raise TrackerDecodeError("scrape does not end with a whole info hash", offset=16)
        if len(hashes) > MAX_SCRAPE_HASHES * InfoHash.SIZE:
            raise TrackerDecodeError("too many info hashes", limit=MAX_SCRAPE_HASHES)
        starts = range(0, len(hashes), InfoHash.SIZE)
        info_hashes = tuple(InfoHash(hashes[at : at + InfoHash.SIZE]) for at in starts)
        return ScrapeQuery(connection_id, transaction_id, info_hashes)
    raise TrackerDecodeError(f"unknown action {action}", offset=8)


def _decode_announce_query(data: bytes) -> AnnounceQuery:
    if len(data) < ANNOUNCE_REQUEST.size:
        raise TrackerDecodeError(f"announce of {len(data)} bytes", offset=0)
    (
        connection_id,
        _,
        transaction_id,
        info_hash,
        peer_id,
        downloaded,
        left,
        uploaded,
        event,
        _,
        key,
        numwant,
        port,
    ) = ANNOUNCE_REQUEST.unpack_from(data)
    request = AnnounceRequest(
        info_hash=InfoHash(info_hash),
        peer_id=PeerId(peer_id),
        port=port,
        uploaded=uploaded,
        downloaded=downloaded,
        left=left,
        event=_EVENTS.get(event, Event.NONE),
        key=key,
        numwant=None if numwant < 0 else min(numwant, MAX_ANSWER_PEERS),
    )
    options = data[ANNOUNCE_REQUEST.size :]
    url_data = decode_url_data(options) if options else b""
    return AnnounceQuery(connection_id, transaction_id, request, url_data)


# --- replies -----------------------------------------------------------------------------


def encode_connect_reply(transaction_id: int, connection_id: int) -> bytes:
    """Return the answer that gives a connection id, 16 bytes: no longer than the request."""
    return CONNECT_ANSWER.pack(CONNECT, transaction_id, connection_id)


def encode_announce_reply(transaction_id: int, answer: AnnounceAnswer) -> bytes:
    """Return the answer to an announce; the peers are all of the packet's family."""
    head = ANNOUNCE_ANSWER.pack(
        ANNOUNCE,
        transaction_id,
        answer.interval,
        min(answer.num_leechers or 0, _MAX_COUNT),
        min(answer.num_seeds or 0, _MAX_COUNT),
    )
    return head + join_compact(answer.peers)


def encode_scrape_reply(transaction_id: int, entries: Sequence[ScrapeEntry]) -> bytes:
    """Return the answer to a scrape, entries in the order that was asked for."""
    packed = [
        _SCRAPE_ENTRY.pack(
            min(entry.num_seeds or 0, _MAX_COUNT),
            min(entry.num_downloaded or 0, _MAX_COUNT),
            min(entry.num_leechers or 0, _MAX_COUNT),
        )
        for entry in entries
    ]
    return ANSWER_HEAD.pack(SCRAPE, transaction_id) + b"".join(packed)


def encode_error(transaction_id: int, reason: str, *, max_length: int | None = None) -> bytes:
    """Return a refusal, cut to ``max_length`` bytes (N1: never longer than the request)."""
    packet = ANSWER_HEAD.pack(ERROR, transaction_id) + reason.encode("utf-8", "replace")
    return packet[:max_length]


def decode_reply(data: bytes, *, ipv6: bool) -> Reply:
    """
    Read what a tracker sent; the transaction is the caller's to check.

    Args:
        data: the whole datagram.
        ipv6: it came over IPv6, so that peers take 18 bytes.

    Raises:
        TrackerDecodeError: too short, unknown action, or not made of whole entries.
    """
    if len(data) < ANSWER_HEAD.size:
        raise TrackerDecodeError(f"packet of {len(data)} bytes", offset=0)
    action, transaction_id = ANSWER_HEAD.unpack_from(data)
    if action == CONNECT:
        if len(data) < CONNECT_ANSWER.size:
            raise TrackerDecodeError(f"connect answer of {len(data)} bytes", offset=0)
        return ConnectReply(transaction_id, CONNECT_ANSWER.unpack_from(data)[2])
    if action == ANNOUNCE:
        if len(data) == ANSWER_HEAD.size:
            # Interop: opentracker says no more than that about a torrent which is not on its list.
            return ErrorReply(transaction_id, "refused without a reason")
        return AnnounceReply(transaction_id, _decode_announce_answer(data, ipv6))
    if action == SCRAPE:
        entries = data[ANSWER_HEAD.size :]
        if len(entries) % _SCRAPE_ENTRY.size:
            raise TrackerDecodeError("scrape answer does not end with a whole entry", offset=8)
        counts = _SCRAPE_ENTRY.iter_unpack(entries[: MAX_SCRAPE_HASHES * _SCRAPE_ENTRY.size])
        return ScrapeReply(transaction_id, tuple(ScrapeEntry(*count) for count in counts))
    if action == ERROR:
        reason = clean_text(data[ANSWER_HEAD.size :]) or "no reason given"
        return ErrorReply(transaction_id, reason)
    raise TrackerDecodeError(f"unknown action {action}", offset=0)


def _decode_announce_answer(data: bytes, ipv6: bool) -> AnnounceAnswer:
    size = 18 if ipv6 else 6
    peers = data[ANNOUNCE_ANSWER.size :]
    if len(data) < ANNOUNCE_ANSWER.size or len(peers) % size:
        # Limit: N5. A length that does not fit is no answer at all.
        raise TrackerDecodeError(f"announce answer of {len(data)} bytes", offset=0)
    _, _, interval, num_leechers, num_seeds = ANNOUNCE_ANSWER.unpack_from(data)
    # Interop: some trackers send a negative interval for "default".
    return AnnounceAnswer(
        interval=clamp_interval(None if interval > 0x7FFF_FFFF else interval),
        peers=tuple(iter_compact(peers[: MAX_ANSWER_PEERS * size], ipv6=ipv6)),
        num_seeds=num_seeds,
        num_leechers=num_leechers,
    )
