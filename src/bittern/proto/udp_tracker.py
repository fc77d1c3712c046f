"""
UDP tracker client without I/O: transactions, connection ids, retries.

One machine serves all torrents over the one UDP socket of each family. A request
(announce or scrape) goes to one endpoint and ends in exactly one event, unless
it is cancelled. Requests to the same endpoint share its connection id.

Theory of operation. A request is WAITING for a connection id or SENT:

    state     what happens                  then
    (new)     connection id valid           SENT, packet goes out
    (new)     no valid connection id        WAITING, connect goes out unless one is
    WAITING   connect answered              SENT
    WAITING   connect timed out             connect goes out again, or RequestTimedOut
    WAITING   connect refused               RequestFailed
    SENT      answered                      Announced or Scraped
    SENT      refused                       RequestFailed; but WAITING once when the
                                            tracker complains about the connection id
    SENT      timed out, id still valid     SENT, packet goes out again
    SENT      timed out, id expired         WAITING
    SENT      timed out for the last time   RequestTimedOut
    any       there is no way to send it    RequestUnsent

The n-th wait lasts ``retry_interval * 2**n`` seconds. Transaction ids are random
and stay the same over retransmissions, so that a late answer still counts; an
answer counts only if it comes from the endpoint that was asked and has the action
that was asked for. Everything else becomes ``BadDatagram`` and changes nothing.

Source: BEP 15 (connection ids live one minute for us; retries), BEP 41.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from bittern.codec.udp_tracker import (
    AnnounceReply,
    ConnectReply,
    ErrorReply,
    Reply,
    ScrapeReply,
    decode_reply,
    encode_announce,
    encode_connect,
    encode_scrape,
)
from bittern.core.announce import AnnounceAnswer, AnnounceRequest, ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.errors import TrackerDecodeError
from bittern.core.ids import InfoHash

RETRY_INTERVAL = 15.0
"""BEP 15: first wait before a packet is sent again; seconds."""
MAX_SENDS = 9
"""BEP 15: n goes from 0 to 8."""
CONNECTION_LIFETIME = 60.0
"""BEP 15: a client may use a connection id for one minute."""


@dataclass(frozen=True, slots=True)
class Announced:
    """An announce was answered."""

    request_id: int
    answer: AnnounceAnswer


@dataclass(frozen=True, slots=True)
class Scraped:
    """A scrape was answered; hashes that the tracker left out are absent."""

    request_id: int
    entries: dict[InfoHash, ScrapeEntry]


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """The tracker refused; ``reason`` is cleaned for display."""

    request_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class RequestTimedOut:
    """The tracker stayed silent through all retries."""

    request_id: int


@dataclass(frozen=True, slots=True)
class RequestUnsent:
    """There is no way to the tracker."""

    request_id: int


@dataclass(frozen=True, slots=True)
class BadDatagram:
    """Something arrived that answers nothing we asked."""

    source: Endpoint
    reason: str


UdpTrackerEvent: TypeAlias = (
    Announced | Scraped | RequestFailed | RequestTimedOut | RequestUnsent | BadDatagram
)


@dataclass(slots=True, eq=False)
class _Transaction:
    """Something sent that waits for an answer: a connect or a request."""

    endpoint: Endpoint
    transaction_id: int = 0
    num_sends: int = 0
    due_at: float | None = None


@dataclass(slots=True, eq=False)
class _Request(_Transaction):
    request_id: int = 0
    announce: AnnounceRequest | None = None
    info_hashes: tuple[InfoHash, ...] = ()
    url_data: bytes = b""
    connection_id: int | None = None
    """The id it was sent under; None while WAITING."""
    was_reconnected: bool = False


@dataclass(slots=True, eq=False)
class _Connection(_Transaction):
    connection_id: int = 0
    expires_at: float = float("-inf")
    waiting: dict[int, _Request] = field(default_factory=dict)


class UdpTrackerClient:
    """
    The machine described in the module's text.

    Args:
        random_id: gives 32 unpredictable bits, as ``lambda: secrets.randbits(32)``.
        retry_interval: first wait, seconds; shorter than BEP 15's where a caller has
            other trackers to turn to.
        max_sends: how often a packet is sent before its request times out.
    """

    def __init__(
        self,
        *,
        random_id: Callable[[], int],
        retry_interval: float = RETRY_INTERVAL,
        max_sends: int = MAX_SENDS,
    ) -> None:
        self._random_id = random_id
        self._retry_interval = retry_interval
        self._max_sends = max_sends
        self._connections: dict[Endpoint, _Connection] = {}
        self._requests: dict[int, _Request] = {}
        self._transactions: dict[int, _Connection | _Request] = {}
        self._timers: list[tuple[float, int, _Connection | _Request]] = []
        self._last_request_id = 0
        self._num_timers = 0
        self._events: list[UdpTrackerEvent] = []
        self._to_send: list[tuple[bytes, Endpoint]] = []

    def __repr__(self) -> str:
        return (
            f"<UdpTrackerClient {len(self._requests)} requests, "
            f"{len(self._connections)} connections>"
        )

    # --- verbs -------------------------------------------------------------------------------

    def announce(
        self, endpoint: Endpoint, request: AnnounceRequest, *, now: float, url_data: bytes = b""
    ) -> int:
        """
        Announce to the tracker at ``endpoint``.

        Returns:
            The request's id, which its event will carry.
        """
        return self._begin(_Request(endpoint, announce=request, url_data=url_data), now)

    def scrape(self, endpoint: Endpoint, info_hashes: Sequence[InfoHash], *, now: float) -> int:
        """Ask for the counts of at most 74 swarms; returns the request's id."""
        return self._begin(_Request(endpoint, info_hashes=tuple(info_hashes)), now)

    def cancel(self, request_id: int) -> None:
        """Forget a request: no event follows. Ids that ended already are ignored."""
        request = self._requests.get(request_id)
        if request is not None:
            self._end(request)

    # --- what happens ------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, source: Endpoint, *, now: float) -> None:
        """Take one datagram; never raises, whatever it holds."""
        try:
            reply = decode_reply(data, ipv6=source.is_ipv6)
        except TrackerDecodeError as error:
            self._events.append(BadDatagram(source, str(error)))
            return
        transaction = self._transactions.get(reply.transaction_id)
        if transaction is None:
            self._events.append(BadDatagram(source, "unknown transaction"))
        elif transaction.endpoint != source:
            self._events.append(BadDatagram(source, "not from the tracker that was asked"))
        elif isinstance(transaction, _Connection):
            self._answer_connect(transaction, reply, now)
        else:
            self._answer_request(transaction, reply, now)

    def cannot_reach(self, endpoint: Endpoint) -> None:
        """Hear that the system has no way to an endpoint: its requests end."""
        for request in [each for each in self._requests.values() if each.endpoint == endpoint]:
            self._end(request)
            self._events.append(RequestUnsent(request.request_id))

    def handle_timer(self, *, now: float) -> None:
        """Send again what is due, and give up what was sent often enough."""
        while self._timers and self._timers[0][0] <= now:
            due_at, _, transaction = heapq.heappop(self._timers)
            if transaction.due_at != due_at:
                continue  # answered, or armed anew since
            transaction.due_at = None
            if isinstance(transaction, _Connection):
                self._connect_due(transaction, now)
            elif transaction.num_sends < self._max_sends:
                self._send(transaction, now)
            else:
                self._end(transaction)
                self._events.append(RequestTimedOut(transaction.request_id))

    def next_timer(self) -> float | None:
        """Return the instant of the next ``handle_timer``, or None."""
        while self._timers and self._timers[0][2].due_at != self._timers[0][0]:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def events(self) -> list[UdpTrackerEvent]:
        """Return and forget what happened since the last call."""
        events, self._events = self._events, []
        return events

    def datagrams_to_send(self) -> list[tuple[bytes, Endpoint]]:
        """Return and forget the datagrams to send, in order."""
        datagrams, self._to_send = self._to_send, []
        return datagrams

    # --- inside ------------------------------------------------------------------------------

    def _begin(self, request: _Request, now: float) -> int:
        self._last_request_id += 1
        request.request_id = self._last_request_id
        self._requests[request.request_id] = request
        self._send(request, now)
        return request.request_id

    def _end(self, request: _Request) -> None:
        self._requests.pop(request.request_id, None)
        self._forget(request)
        connection = self._connections.get(request.endpoint)
        if connection is not None and request.request_id in connection.waiting:
            del connection.waiting[request.request_id]
            if not connection.waiting:
                self._forget(connection)
                del self._connections[request.endpoint]

    def _register(self, transaction: _Connection | _Request) -> None:
        """Give it a transaction id, unless it has one from an earlier send."""
        if self._transactions.get(transaction.transaction_id) is transaction:
            return
        while (number := self._random_id() & 0xFFFF_FFFF) in self._transactions:
            pass
        transaction.transaction_id = number
        self._transactions[number] = transaction

    def _forget(self, transaction: _Connection | _Request) -> None:
        if self._transactions.get(transaction.transaction_id) is transaction:
            del self._transactions[transaction.transaction_id]
        transaction.due_at = None

    def _arm(self, transaction: _Connection | _Request, now: float) -> None:
        transaction.due_at = now + self._retry_interval * 2.0**transaction.num_sends
        transaction.num_sends += 1
        self._num_timers += 1  # breaks ties, so that equal deadlines keep their order
        heapq.heappush(self._timers, (transaction.due_at, self._num_timers, transaction))

    def _send(self, request: _Request, now: float) -> None:
        """Send a request, or let it wait for a connection id."""
        connection = self._connections.get(request.endpoint)
        if connection is None:
            connection = _Connection(request.endpoint)
            self._connections[request.endpoint] = connection
        if now >= connection.expires_at:
            request.due_at = None
            request.connection_id = None
            connection.waiting[request.request_id] = request
            if connection.due_at is None:
                connection.num_sends = request.num_sends
                self._send_connect(connection, now)
            return
        self._register(request)
        request.connection_id = connection.connection_id
        self._arm(request, now)
        number = request.transaction_id
        if request.announce is not None:
            packet = encode_announce(
                connection.connection_id, number, request.announce, url_data=request.url_data
            )
        else:
            packet = encode_scrape(connection.connection_id, number, request.info_hashes)
        self._to_send.append((packet, request.endpoint))

    def _send_connect(self, connection: _Connection, now: float) -> None:
        self._register(connection)
        self._arm(connection, now)
        self._to_send.append((encode_connect(connection.transaction_id), connection.endpoint))

    def _connect_due(self, connection: _Connection, now: float) -> None:
        if connection.num_sends < self._max_sends:
            self._send_connect(connection, now)
            return
        for request in list(connection.waiting.values()):
            self._end(request)
            self._events.append(RequestTimedOut(request.request_id))

    def _answer_connect(self, connection: _Connection, reply: Reply, now: float) -> None:
        if isinstance(reply, ErrorReply):
            for request in list(connection.waiting.values()):
                self._end(request)
                self._events.append(RequestFailed(request.request_id, reply.reason))
            return
        if not isinstance(reply, ConnectReply):
            self._events.append(BadDatagram(connection.endpoint, "not the action asked for"))
            return
        self._forget(connection)
        connection.connection_id = reply.connection_id
        connection.expires_at = now + CONNECTION_LIFETIME
        waiting, connection.waiting = connection.waiting, {}
        for request in waiting.values():
            self._send(request, now)
        self._expire_connections(now)

    def _expire_connections(self, now: float) -> None:
        for connection in list(self._connections.values()):
            if now >= connection.expires_at and not connection.waiting:
                del self._connections[connection.endpoint]

    def _answer_request(self, request: _Request, reply: Reply, now: float) -> None:
        match reply:
            case AnnounceReply() if request.announce is not None:
                self._end(request)
                self._events.append(Announced(request.request_id, reply.answer))
            case ScrapeReply() if request.announce is None:
                self._end(request)
                entries = dict(zip(request.info_hashes, reply.entries, strict=False))
                self._events.append(Scraped(request.request_id, entries))
            case ErrorReply():
                self._refuse(request, reply.reason, now)
            case _:
                self._events.append(BadDatagram(request.endpoint, "not the action asked for"))

    def _refuse(self, request: _Request, reason: str, now: float) -> None:
        # Interop: a tracker that was restarted no longer knows its connection ids and says so
        # in words of its own; asking once more with a new id settles it.
        if "connection" in reason.lower() and not request.was_reconnected:
            request.was_reconnected = True
            connection = self._connections.get(request.endpoint)
            if connection is not None and connection.connection_id == request.connection_id:
                connection.expires_at = now
            self._send(request, now)
            return
        self._end(request)
        self._events.append(RequestFailed(request.request_id, reason))
