"""
One DHT node on one datagram socket: feed, send what is due, re-arm the timer.

The socket belongs to somebody else, who hands in what arrives: a real one by
``socket.add_receiver(DHT_BYTES, shell.receive, batch_ended=shell.flush)``, so that a
wake-up with many datagrams is paid for once.

Requests are made through ``begin``: its handler hears every event of that request, the
last one included. Events of no request go to ``heard``.

Invariant: after ``flush`` nothing waits to be sent and the timer is not later than the
machine wants it; it may be earlier, since moving it for every datagram would cost more
than a wake-up too many.

Source: BEP 5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bittern.core.endpoint import Endpoint
from bittern.dht.events import (
    AddressLearned,
    Bootstrapped,
    DhtEvent,
    ItemFound,
    OtherFamilyHeard,
    PeersFound,
)
from bittern.dht.node import DhtNode
from bittern.net.udp import Datagrams

Verb = Callable[[DhtNode, float], int]
"""Makes a request of a node at an instant; returns its id."""
Handler = Callable[[DhtEvent], object]
"""Hears the events of one request."""


class NodeShell:
    """
    The shell described in the module's text; belongs to one event loop.

    Args:
        socket: where datagrams leave; of the node's family.
        node: the machine.
        heard: takes the events that belong to no request.
    """

    def __init__(
        self, socket: Datagrams, node: DhtNode, heard: Callable[[NodeShell, DhtEvent], object]
    ) -> None:
        self.socket = socket
        self.node = node
        self._heard = heard
        self._take = node.receiver
        self._send_many = getattr(socket, "send_many", None) or self._send_singly
        self._loop = asyncio.get_running_loop()
        self._batch_at = 0.0
        """The instant of the first datagram of a batch; 0 before it."""
        self._handlers: dict[int, Handler] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_at = 0.0
        self._is_started = False
        self._is_closed = False
        self._is_flushing = False

    def __repr__(self) -> str:
        return f"<NodeShell {self.socket.endpoint}, {self.node!r}>"

    # --- datagrams and time ------------------------------------------------------------------

    def receive(self, data: bytes | memoryview, source: Endpoint) -> None:
        """Take a datagram that arrived at the socket; ``flush`` has to follow."""
        if not self._batch_at:
            self._batch_at = self._loop.time()
        self._take(bytes(data), source, now=self._batch_at)

    def flush(self) -> None:
        """Send what is due and tell what happened."""
        if self._is_flushing or self._is_closed:
            return  # a handler makes a request: the loop below comes to it
        self._is_flushing = True
        self._batch_at = 0.0
        node = self.node
        try:
            while True:
                datagrams, events = node.datagrams_to_send(), node.events()
                if not datagrams and not events:
                    break
                self._send_many(datagrams)
                for event in events:
                    self._tell(event)
        finally:
            self._is_flushing = False
        self._arm()

    def _send_singly(self, datagrams: Sequence[tuple[bytes, Endpoint]]) -> None:
        for data, target in datagrams:
            self.socket.send(data, target)

    def start(self) -> None:
        """Let time pass for the node: it bootstraps with the nodes that it has by now."""
        self._is_started = True
        self.flush()
        self._arm()

    @property
    def is_started(self) -> bool:
        """True from ``start`` to ``close``."""
        return self._is_started and not self._is_closed

    @property
    def is_closed(self) -> bool:
        """True from ``close`` on: no request comes to an end any more."""
        return self._is_closed

    def close(self) -> list[Handler]:
        """Stop; returns the handlers of requests that have not ended. Idempotent."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        handlers, self._handlers = list(self._handlers.values()), {}
        return handlers

    def _arm(self) -> None:
        if not self.is_started:
            return
        due_at = self.node.next_timer()
        if self._timer is not None:
            if self._timer_due_at <= due_at:
                return
            self._timer.cancel()
        # uvloop's handle of an instant that is over does not tell it.
        self._timer_due_at = due_at
        self._timer = self._loop.call_at(due_at, self._timer_fired)

    def _timer_fired(self) -> None:
        # The instant that was asked for: timers may fire a rounding error early.
        now = max(self._loop.time(), self._timer_due_at)
        self._timer = None
        self.node.handle_timer(now=now)
        self.flush()
        self._arm()

    # --- requests ----------------------------------------------------------------------------

    def begin(self, verb: Verb, handle: Handler) -> int:
        """
        Make a request; returns its id.

        Args:
            verb: calls the node.
            handle: hears the events, from inside this call on if it ends at once.

        Raises:
            MisuseError: the node has too many requests waiting.
        """
        request_id = verb(self.node, self._loop.time())
        self._handlers[request_id] = handle
        self.flush()
        return request_id

    def cancel(self, request_id: int) -> None:
        """Forget a request; its handler hears no more. Idempotent."""
        if self._handlers.pop(request_id, None) is not None and not self._is_closed:
            self.node.cancel(request_id, now=self._loop.time())
            self.flush()

    def _tell(self, event: DhtEvent) -> None:
        match event:
            case Bootstrapped() | AddressLearned() | OtherFamilyHeard():
                self._heard(self, event)
            case PeersFound(request_id) | ItemFound(request_id):
                handle = self._handlers.get(request_id)
                if handle is not None:
                    handle(event)
            case _:  # all others end their request
                handle = self._handlers.pop(event.request_id, None)
                if handle is not None:
                    handle(event)
