"""
One peer connection: a stream on one side, a ``PeerProtocol`` on the other.

This shell feeds bytes in, writes what is due, serves the peer's requests while
its stream has room, and hands every event to its owner, the swarm. It decides
nothing: whom to choke, what to ask for and what a block means is the owner's
business. One object, no task: everything happens in the stream's callbacks and
in calls of the owner, on one event loop.

Sources: BEP 3; threats.md H2, H5. docs/design/README.md has the whole way of a block.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Protocol

from bittern.codec import wire
from bittern.core.endpoint import Endpoint, network_of
from bittern.core.errors import PeerViolation
from bittern.core.rate import RateMeter
from bittern.engine import events
from bittern.engine.peers.trace import MessageTracer
from bittern.net.stream import Stream
from bittern.policy.open_piece import PeerShare
from bittern.policy.pipeline import Pipeline
from bittern.proto.peer import PeerProtocol
from bittern.proto.peer_events import (
    BlocksReceived,
    Choked,
    PeerEvent,
    ReceivedBlock,
    Request,
    RequestRejected,
    RequestsReceived,
)

MIN_RUN_LENGTH = 32_768
"""Bytes of blocks read at once for the slowest peer."""
RUNS_PER_TURN = 2
"""Runs of blocks served to one peer before other callbacks get their turn."""
MAX_UNSENT_LENGTH = 524_288
"""Limit: H2. Bytes of a run that are kept for a peer whose stream did not take all of it."""

Report = Callable[[events.Event], None]
"""Tells the outside."""


class PeerOwner(Protocol):
    """What a connection asks of its surroundings."""

    def blocks_received(
        self, peer: PeerConnection, blocks: list[ReceivedBlock], *, now: float
    ) -> None:
        """Take blocks whose payloads are valid until this returns."""

    def peer_event(self, peer: PeerConnection, event: PeerEvent, *, now: float) -> None:
        """Take any other event."""

    def fill_pipeline(self, peer: PeerConnection, *, now: float) -> None:
        """Ask the peer for more blocks, if it may be asked."""

    def next_run(self, peer: PeerConnection) -> list[Request]:
        """Take the requests to be served now out of the peer's queue; empty to wait."""

    def load_run(self, peer: PeerConnection, requests: list[Request]) -> memoryview | None:
        """Return a run as messages, or None when ``peer.run_loaded`` will be called later."""

    def peer_lost(self, peer: PeerConnection, reason: str, *, was_violation: bool) -> None:
        """Hear, once, that the connection is gone."""


class PeerConnection:
    """
    The shell described in the module's text.

    Args:
        stream: not yet started.
        protocol: its handshake is already queued.
        owner: may be exchanged while the connection lives.
        endpoint: the remote address as dialled or accepted.
        is_outgoing: whether we dialled.
        loop: gives the time.
    """

    __slots__ = (
        "_is_closed",
        "_is_loading",
        "_left_over",
        "_loop",
        "_serve_handle",
        "_trace",
        "_unsent",
        "address",
        "client",
        "connected_at",
        "down",
        "endpoint",
        "is_open",
        "is_outgoing",
        "is_upload_only",
        "last_block_at",
        "last_received_at",
        "last_sent_at",
        "listen_endpoint",
        "owner",
        "pipeline",
        "prefers_encryption",
        "protocol",
        "refused",
        "run_length",
        "share",
        "snub_total",
        "stream",
        "up",
    )

    def __init__(
        self,
        stream: Stream,
        protocol: PeerProtocol,
        owner: PeerOwner,
        *,
        endpoint: Endpoint,
        is_outgoing: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        now = loop.time()
        self.stream: Stream = stream
        self.protocol: PeerProtocol = protocol
        self.owner: PeerOwner = owner
        self.endpoint: Endpoint = endpoint
        self.address: str = network_of(endpoint.host)
        """The key under which this peer is accused and banned."""
        self.listen_endpoint: Endpoint | None = endpoint if is_outgoing else None
        """Where the peer accepts connections, once known."""
        self.is_outgoing: bool = is_outgoing
        self.is_open: bool = False
        """True once the peer's handshake has been accepted by the owner."""
        self.is_upload_only: bool = False
        """The peer says that it wants nothing (BEP 21)."""
        self.prefers_encryption: bool = False
        """The peer says that it would rather be connected to with encryption (BEP 10)."""
        self.client: str = ""
        self.share: PeerShare = PeerShare(self.address)
        self.share.queue = protocol.outstanding
        self.pipeline: Pipeline = Pipeline(now=now)
        self.refused: int = 0
        """Pieces of which the peer rejected a request though it does not choke us."""
        self.snub_total: int = -1
        """What it had sent when it was found to send nothing that it owes us."""
        self.down: RateMeter = RateMeter(now=now)
        self.up: RateMeter = RateMeter(now=now)
        self.connected_at: float = now
        self.last_received_at: float = now
        self.last_sent_at: float = now
        self.last_block_at: float = now
        self._loop = loop
        self.run_length: int = 2 * MIN_RUN_LENGTH
        """Bytes of blocks that the stream may take at once, as far as it has shown."""
        self._unsent: memoryview | None = None
        self._left_over: list[Request] = []
        """The end of a run, to be loaded once more: too much to be kept."""
        self._is_loading = False
        self._is_closed = False
        self._serve_handle: asyncio.Handle | None = None
        self._trace: tuple[MessageTracer, MessageTracer, Report] | None = None

    @property
    def is_snubbing(self) -> bool:
        """True from when the peer has owed us blocks for too long until it sends one (BEP 3)."""
        return self.snub_total == self.down.total

    def start(self) -> None:
        """Send what is queued and begin to receive."""
        self.flush()
        if not self._is_closed:
            self.stream.start(self)

    def enable_trace(self, report: Report) -> None:
        """Tell ``report`` every message from now on; takes effect only before the first byte."""
        if self._trace is None:
            self._trace = (MessageTracer(), MessageTracer(), report)

    # --- what the stream calls -----------------------------------------------------------

    def data_received(self, data: memoryview) -> None:
        """Take bytes from the stream."""
        now = self._loop.time()
        self.last_received_at = now
        if self._trace is not None:
            tracer, _, report = self._trace
            for message in tracer.feed(data):
                report(events.MessageReceived(self.endpoint, *message))
        protocol = self.protocol
        violation: PeerViolation | None = None
        try:
            protocol.receive_data(data, now=now)
        except PeerViolation as error:
            violation = error
        for event in protocol.events():
            # Also of a peer that an earlier event has closed: what became of our requests must
            # be heard, or their blocks would be waited for in vain.
            if type(event) is BlocksReceived:
                self.owner.blocks_received(self, event.blocks, now=now)
            elif self._is_closed and not isinstance(event, Choked | RequestRejected):
                continue
            elif type(event) is not RequestsReceived:
                self.owner.peer_event(self, event, now=now)
        if self._is_closed:
            return
        if violation is not None:
            self.close(str(violation), was_violation=True)
            return
        self.owner.fill_pipeline(self, now=now)
        if self._is_closed:
            return
        if protocol.incoming.waiting:
            self.serve()
        self.flush()

    def writable(self) -> None:
        """Go on sending."""
        if self._unsent is not None:
            rest, self._unsent = self._unsent, None
            if not self._write(rest):
                return
        self.flush()
        self.serve()

    def connection_lost(self, reason: Exception | None) -> None:
        """Hear that the stream ended by itself."""
        self.close("closed by peer" if reason is None else str(reason) or type(reason).__name__)

    # --- sending -------------------------------------------------------------------------

    def flush(self) -> bool:
        """Send queued messages; True when nothing is left unsent."""
        if self._unsent is not None or self._is_closed:
            return False
        if not self.protocol.has_data_to_send:
            return True
        data = self.protocol.data_to_send()
        self._trace_sent(data)
        return self._write(data)

    def _trace_sent(self, data: bytes | memoryview) -> None:
        if self._trace is not None:
            _, tracer, report = self._trace
            for message in tracer.feed(data):
                report(events.MessageSent(self.endpoint, *message))

    def _write(self, data: bytes | memoryview) -> bool:
        """Send; what the stream does not take waits, uncopied."""
        self.last_sent_at = self._loop.time()
        sent = self.stream.send(data)
        if sent < len(data) and not self._is_closed:
            self._unsent = memoryview(data)[sent:]
        return sent == len(data)

    def serve(self) -> None:
        """Serve the peer's requests while there is room, data and leave to."""
        if self._serve_handle is not None:
            self._serve_handle.cancel()
            self._serve_handle = None
        for _ in range(RUNS_PER_TURN):
            if self._is_loading or self._is_closed:
                return
            if not (self._left_over or self.protocol.incoming.waiting) or not self.flush():
                return
            requests, self._left_over = self._left_over or self.owner.next_run(self), []
            if not requests:
                self.flush()
                return
            data = self.owner.load_run(self, requests)
            if data is None:
                self._is_loading = True
                return
            if not self._send_run(data, requests):
                return
        self._serve_handle = self._loop.call_soon(self.serve)

    def _send_run(self, data: memoryview, requests: list[Request]) -> bool:
        """
        Send a run; False when the stream did not take all of it.

        What it does not take has been read and copied in vain until there is room, so the
        next run is shorter then, and longer after one that went through.
        """
        self.last_sent_at = self._loop.time()
        sent = self.stream.send(data)
        is_sent = sent == len(data)
        if not is_sent:
            # A run lies in the session's buffer, which the next run overwrites, or in one of
            # its own that is too long to be kept for the sake of its end.
            data, requests, self._left_over = _cut(data, requests, sent + MAX_UNSENT_LENGTH)
            self._unsent = None if self._is_closed else memoryview(bytes(data[sent:]))
        self._trace_sent(data)
        num_bytes = len(data) - wire.PIECE_HEADER_LENGTH * len(requests)
        self.up.add(num_bytes)
        if is_sent:
            self.run_length = max(self.run_length, 2 * num_bytes)
        else:
            self.run_length = max(MIN_RUN_LENGTH, self.run_length // 2)
        return is_sent

    def run_refused(self, requests: list[Request]) -> None:
        """Reject what the storage worker could not read; ``run_loaded`` follows."""
        for request in requests:
            self.protocol.reject(request)

    def run_loaded(self, requests: list[Request], data: memoryview) -> None:
        """Take a run that the storage worker read."""
        self._is_loading = False
        if self._is_closed:
            return
        if data and not self.flush():
            # A message has met a full stream meanwhile, and goes first.
            self._left_over = requests
            return
        if data and not self._send_run(data, requests):
            return
        self.flush()
        self.serve()

    def fill(self) -> None:
        """Ask for more blocks; what a rate limit calls when it is this peer's turn."""
        if not self._is_closed:
            self.owner.fill_pipeline(self, now=self._loop.time())
            self.flush()

    def keep_alive(self) -> None:
        """Send a keep-alive (BEP 3)."""
        self.protocol.send_message(wire.KEEP_ALIVE)
        self.flush()

    # --- the end -------------------------------------------------------------------------

    def close(self, reason: str, *, was_violation: bool = False) -> None:
        """Close the connection and tell the owner, once."""
        if self._is_closed:
            return
        self._is_closed = True
        self.protocol.close()
        self.stream.close()
        if self._serve_handle is not None:
            self._serve_handle.cancel()
        self._unsent = None
        self._left_over = []
        self.owner.peer_lost(self, reason, was_violation=was_violation)

    @property
    def is_closed(self) -> bool:
        """True once ``close`` has been called or the stream has ended."""
        return self._is_closed

    def __repr__(self) -> str:
        return f"<PeerConnection {self.endpoint} {self.protocol!r}>"


def _cut(
    data: memoryview, requests: list[Request], max_length: int
) -> tuple[memoryview, list[Request], list[Request]]:
    """Cut a run behind a whole message; return it, its requests, and those left over."""
    ends = list(accumulate(wire.PIECE_HEADER_LENGTH + length for _, _, length in requests))
    number = bisect_right(ends, max_length)
    return data[: ends[number - 1]], requests[:number], requests[number:]
