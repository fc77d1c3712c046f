r"""
Announces to the local network: a datagram that says who takes part in which swarms.

Text in the manner of HTTP, lines end with CR LF, in this order when we write it:

    BT-SEARCH * HTTP/1.1
    Host: 239.192.152.143:6771    the multicast group, or [ff15::efc0:988f]:6771
    Port: 6881                    where the sender takes connections, 1..65535
    Infohash: 40 hex digits       once for each swarm
    cookie: 1f3a...               opaque; tells the sender its own datagrams

and an empty line, twice. Reading takes names of any case, headers in any order,
bare LF, and skips headers it does not know, as HTTP does. Where a header that may
come only once comes again, the first one counts.

Refuses: more than ``MAX_DATAGRAM_LENGTH`` bytes, no port, no info hash at all.
One malformed info hash among good ones is left out.

Source: BEP 14.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bittern.core.errors import LsdDecodeError
from bittern.core.ids import InfoHash

PORT = 6771
"""The UDP port of the two groups (BEP 14)."""
GROUP_V4 = "239.192.152.143"
"""Multicast group of IPv4, organisation-local."""
GROUP_V6 = "ff15::efc0:988f"
"""Multicast group of IPv6, site-local."""

MAX_SENT_LENGTH = 1_400
"""BEP 14: longer datagrams might be cut into fragments."""
MAX_DATAGRAM_LENGTH = 2_048
"""Limit: N9. Bytes that are read at all."""
MAX_COOKIE_LENGTH = 64
"""Bytes of a cookie that are kept; ours has 16."""

_START = re.compile(rb"BT-SEARCH \S+ HTTP/1\.\d\r?\n", re.IGNORECASE)
_INFO_HASH = re.compile(r"[0-9A-Fa-f]{40}")
_PORT = re.compile(r"[0-9]{1,5}")
_ENTRY_LENGTH = len("Infohash: \r\n") + 40


@dataclass(frozen=True, slots=True)
class LsdAnnounce:
    """
    One announce.

    Args:
        port: where its sender takes connections.
        info_hashes: the swarms it is in; at least one.
        cookie: what the sender knows itself by, "" for none.
    """

    port: int
    info_hashes: tuple[InfoHash, ...]
    cookie: str = ""


def max_info_hashes(group: str, cookie: str) -> int:
    """Return how many info hashes fit into one datagram."""
    return (MAX_SENT_LENGTH - len(_encode(group, 65_535, (), cookie))) // _ENTRY_LENGTH


def encode_lsd(announce: LsdAnnounce, group: str) -> bytes:
    """
    Return the datagram of an announce.

    Args:
        announce: no more info hashes than ``max_info_hashes`` says.
        group: ``GROUP_V4`` or ``GROUP_V6``, where it goes.
    """
    return _encode(group, announce.port, announce.info_hashes, announce.cookie)


def _encode(group: str, port: int, info_hashes: Iterable[InfoHash], cookie: str) -> bytes:
    host = f"[{group}]" if ":" in group else group
    lines = ["BT-SEARCH * HTTP/1.1", f"Host: {host}:{PORT}", f"Port: {port}"]
    lines += [f"Infohash: {info_hash.hex()}" for info_hash in info_hashes]
    if cookie:
        lines.append(f"cookie: {cookie}")
    return ("\r\n".join(lines) + "\r\n\r\n\r\n").encode("ascii")


def decode_lsd(data: bytes | memoryview) -> LsdAnnounce:
    """
    Read a datagram.

    Raises:
        LsdDecodeError: it is no announce, or one without port or info hash.
    """
    raw = bytes(data[: MAX_DATAGRAM_LENGTH + 1])
    if len(raw) > MAX_DATAGRAM_LENGTH:
        raise LsdDecodeError("announce too long", limit=MAX_DATAGRAM_LENGTH)
    start = _START.match(raw)
    if start is None:
        raise LsdDecodeError("no BT-SEARCH request", offset=0)
    port = cookie = None
    info_hashes: dict[InfoHash, None] = {}
    for line in raw[start.end() :].decode("latin-1").split("\n"):
        name, colon, value = line.partition(":")
        if not colon:
            if line.strip():
                raise LsdDecodeError("a line that is no header")
            break
        value = value.strip()
        match name.strip().lower():
            case "port" if port is None:
                port = _read_port(value)
            case "infohash" if _INFO_HASH.fullmatch(value):
                info_hashes[InfoHash(bytes.fromhex(value))] = None
            case "cookie" if cookie is None:
                cookie = value[:MAX_COOKIE_LENGTH]
            case _:
                pass
    if port is None:
        raise LsdDecodeError("no port")
    if not info_hashes:
        raise LsdDecodeError("no info hash")
    return LsdAnnounce(port, tuple(info_hashes), cookie or "")


def _read_port(value: str) -> int:
    if not _PORT.fullmatch(value) or not 0 < int(value) <= 65_535:
        raise LsdDecodeError("port is no number from 1 to 65535")
    return int(value)
