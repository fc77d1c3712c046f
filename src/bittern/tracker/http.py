"""
HTTP tracker: a small HTTP/1.1 server that knows two documents.

Takes ``GET .../announce?...`` and ``GET .../scrape?...`` and answers with one bencoded
dictionary; a refusal is one too, with status 200, as clients expect. One request a
connection: a client comes every half hour, and an open connection would cost more
than a new one.

A request has ``MAX_REQUEST_LENGTH`` bytes and ``REQUEST_TIMEOUT`` seconds, and so has
taking the answer; connections are limited by address and in all, where the oldest
makes room (Limit: T5). What is no HTTP is closed without many words.

A peer's address is where the connection comes from. ``ip=`` is believed only from
``trusted`` networks (Limit: T4).

Sources: BEP 3, BEP 7, BEP 23, BEP 24, BEP 48; RFC 9112.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from typing import cast
from urllib.parse import urlsplit

from bittern.codec.http_tracker import encode_failure, encode_packed_announce, encode_scrape
from bittern.codec.tracker_query import parse_announce_query, parse_scrape_query
from bittern.core.announce import FailureAnswer, ScrapeEntry
from bittern.core.endpoint import Endpoint, network_of
from bittern.core.errors import TrackerDecodeError, TrackerFailure
from bittern.core.ids import InfoHash
from bittern.tracker.desk import Desk, Refused, tell_nobody

MAX_REQUEST_LENGTH = 8_192
"""Limit: T5. Bytes of request line and headers."""
REQUEST_TIMEOUT = 10.0
"""Limit: T5. Seconds for the whole request, and again for taking the answer."""
MAX_CONNECTIONS = 128
"""Limit: T5. Open at once."""
MAX_CONNECTIONS_PER_ADDRESS = 16
"""Limit: T5. Of one IPv4 address or IPv6 /64; loopback is exempt, where proxies live."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class HttpTracker:
    """
    One HTTP listener of a tracker: makes the protocol of each connection.

    Args:
        desk: decides.
        clock: gives monotonic seconds.
        trusted: networks whose ``ip=`` is believed.
        max_connections, max_per_address: see the constants.
        refused: hears whom we refuse, an address, and why.

    Attributes:
        num_connections: open now.
        num_turned_away: connections closed for a limit on their number, since the start.
    """

    def __init__(
        self,
        desk: Desk,
        clock: Callable[[], float],
        *,
        trusted: Sequence[Network] = (),
        max_connections: int = MAX_CONNECTIONS,
        max_per_address: int = MAX_CONNECTIONS_PER_ADDRESS,
        refused: Refused = tell_nobody,
    ) -> None:
        self.num_turned_away: int = 0
        self._desk = desk
        self._clock = clock
        self._refused = refused
        self._trusted = tuple(trusted)
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._open: dict[_Connection, str] = {}
        self._per_address: dict[str, int] = {}

    @property
    def num_connections(self) -> int:
        """Connections open now."""
        return len(self._open)

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol of a new connection, for ``loop.create_server``."""
        return _Connection(self)

    def close(self) -> None:
        """Abort all connections."""
        for connection in list(self._open):
            connection.abort()

    # --- for connections ---------------------------------------------------------------------

    def admit(self, connection: _Connection, host: str) -> bool:
        """
        Count a new connection, unless its address has too many.

        When there are too many in all, the oldest has to go: an honest request comes in
        one packet and is answered at once, so what waits longest is what drips.
        """
        key = network_of(host)
        count = self._per_address.get(key, 0)
        if count >= self._max_per_address and not ipaddress.ip_address(host).is_loopback:
            self.num_turned_away += 1
            return False
        if len(self._open) >= self._max_connections:
            self.num_turned_away += 1
            oldest = next(iter(self._open))
            self.forget(oldest)
            oldest.abort()
            count = self._per_address.get(key, 0)
        self._open[connection] = key
        self._per_address[key] = count + 1
        return True

    def forget(self, connection: _Connection) -> None:
        """Stop counting a connection; idempotent."""
        key = self._open.pop(connection, None)
        if key is None:
            return
        self._per_address[key] -= 1
        if not self._per_address[key]:
            del self._per_address[key]

    def answer(self, head: bytes, host: str) -> bytes:
        """Return the whole answer to a request's line and headers."""
        line, _, _ = head.partition(b"\r\n")
        words = line.decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response("400 Bad Request", b"not an HTTP request")
        if words[0] != "GET":
            return _response("405 Method Not Allowed", b"only GET", "Allow: GET")
        try:
            parts = urlsplit(words[1])
        except ValueError:
            return _response("400 Bad Request", b"malformed target")
        name = parts.path.rpartition("/")[2]
        serve = {"announce": self._announce, "scrape": self._scrape}.get(name)
        if serve is None:
            return _response("404 Not Found", b"this is a BitTorrent tracker")
        try:
            body = serve(parts.query, host)
        except TrackerDecodeError as error:
            self._desk.num_refused += 1
            self._refused(host, str(error))
            body = encode_failure(FailureAnswer(str(error)))
        except TrackerFailure as failure:
            self._refused(host, failure.reason)
            body = encode_failure(FailureAnswer(failure.reason, failure.retry_after))
        return _response("200 OK", body)

    def _announce(self, query: str, host: str) -> bytes:
        request = parse_announce_query(query)
        address = ipaddress.ip_address(host)
        if request.host is not None and self._is_trusted(host):
            try:
                address = ipaddress.ip_address(Endpoint.make(request.host, 0).host)
            except ValueError:
                raise TrackerDecodeError("ip is not an address") from None
        selection = self._desk.announce(
            request.info_hash,
            address.packed,
            request.port,
            left=request.left,
            event=request.event,
            num_want=request.numwant,
            now=self._clock(),
            both_families=True,
        )
        return encode_packed_announce(
            interval=self._desk.interval,
            min_interval=self._desk.min_interval,
            peers=selection.peers,
            peers6=selection.peers6,
            num_seeds=selection.num_seeds,
            num_leechers=selection.num_leechers,
            num_downloaded=selection.num_downloaded,
            external_address=address.packed,
        )

    def _scrape(self, query: str, host: str) -> bytes:
        hashes: list[bytes] = list(parse_scrape_query(query))
        address = ipaddress.ip_address(host).packed
        counts = self._desk.scrape(hashes, address, now=self._clock())
        return encode_scrape({InfoHash(key): ScrapeEntry(*entry) for key, entry in counts})

    def _is_trusted(self, host: str) -> bool:
        address = ipaddress.ip_address(host)
        return any(address in network for network in self._trusted)


class _Connection(asyncio.Protocol):
    """One connection: one request, one answer."""

    def __init__(self, tracker: HttpTracker) -> None:
        self._tracker = tracker
        self._transport: asyncio.Transport | None = None
        self._host = ""
        self._received = bytearray()
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: the transports of uvloop are of no asyncio class.
        transport = cast(asyncio.Transport, transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        if peer is None:  # gone already
            transport.abort()
            return
        self._host = Endpoint.make(peer[0], 0).host
        if not self._tracker.admit(self, self._host):
            transport.abort()
            return
        self._set_deadline()

    def _set_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(REQUEST_TIMEOUT, self.abort)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        searched = max(0, len(self._received) - 3)
        self._received += data
        end = self._received.find(b"\r\n\r\n", searched)
        if max(end, 0) > MAX_REQUEST_LENGTH or (
            end < 0 and len(self._received) > MAX_REQUEST_LENGTH
        ):
            answer = _response("431 Request Header Fields Too Large", b"request is too long")
        elif end < 0:
            return
        else:
            answer = self._tracker.answer(bytes(self._received[:end]), self._host)
        self._received.clear()
        self._set_deadline()
        transport.write(answer)
        transport.close()

    def eof_received(self) -> bool | None:
        """Close: a client that has said all and asked nothing gets nothing."""
        return None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's call
        self._transport = None
        self._tracker.forget(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def abort(self) -> None:
        """Close without sending what is still to be sent."""
        if self._transport is not None:
            self._transport.abort()


def _response(status: str, body: bytes, *headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: text/plain",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode("ascii") + body
