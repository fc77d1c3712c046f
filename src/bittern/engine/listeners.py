"""
Fan-out of a torrent's events to whoever listens.

A listener that does not keep up loses the oldest events, never the torrent's
time: reporting is one append per listener.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from bittern.engine.events import Event, MessageReceived, MessageSent

MAX_EVENT_QUEUE = 10_000
"""Events kept for a listener that does not keep up."""


class _Listener:
    __slots__ = ("is_closed", "is_tracing", "num_lost", "queue", "wake")

    def __init__(self, *, is_tracing: bool, is_closed: bool) -> None:
        self.is_tracing = is_tracing
        self.is_closed = is_closed
        self.num_lost = 0
        self.queue: deque[Event] = deque(maxlen=MAX_EVENT_QUEUE)
        self.wake = asyncio.Event()

    def close(self) -> None:
        self.is_closed = True
        self.wake.set()


class EventStream(AsyncIterator[Event]):
    """
    What a torrent has to tell, from ``Torrent.events`` on until it is removed.

    A wait for the next event may be cancelled, as ``asyncio.wait_for`` does: nothing is lost, and
    the stream can be asked again. Several tasks may share one; each event goes to one of them.
    Events are kept only while somebody holds the stream.
    """

    __slots__ = ("_leave", "_listener")

    def __init__(self, listener: _Listener, leave: Callable[[_Listener], None]) -> None:
        self._listener = listener
        self._leave = leave

    @property
    def num_lost(self) -> int:
        """Events that were dropped, the oldest first, because 10,000 waited to be read."""
        return self._listener.num_lost

    async def __anext__(self) -> Event:
        listener = self._listener
        while not listener.queue:
            if listener.is_closed:
                self._leave(listener)
                raise StopAsyncIteration
            listener.wake.clear()
            await listener.wake.wait()
        return listener.queue.popleft()

    async def aclose(self) -> None:
        """Hear no more, as at the end of ``contextlib.aclosing``; idempotent."""
        self._leave(self._listener)
        self._listener.queue.clear()
        self._listener.close()

    def __del__(self) -> None:
        self._leave(self._listener)


class Listeners:
    """All listeners of one torrent."""

    __slots__ = ("_is_closed", "_listeners")

    def __init__(self) -> None:
        # Changed in single steps: a stream may be collected in any thread.
        self._listeners: dict[_Listener, None] = {}
        self._is_closed = False

    @property
    def is_tracing(self) -> bool:
        """True while somebody wants single protocol messages."""
        return any(listener.is_tracing for listener in tuple(self._listeners))

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def report(self, event: Event) -> None:
        """Give an event to everybody who wants its kind."""
        if not self._listeners:
            return
        is_trace = isinstance(event, MessageSent | MessageReceived)
        for listener in tuple(self._listeners):
            if listener.is_tracing or not is_trace:
                listener.num_lost += len(listener.queue) == MAX_EVENT_QUEUE
                listener.queue.append(event)
                listener.wake.set()

    def listen(self, *, trace: bool = False) -> EventStream:
        """
        Return a stream of events from now on; it ends when the torrent is closed.

        The listener exists from this call on, not from the first ``anext``, so that
        nothing between the two is missed.
        """
        listener = _Listener(is_tracing=trace, is_closed=self._is_closed)
        self._listeners[listener] = None
        return EventStream(listener, self._leave)

    def _leave(self, listener: _Listener) -> None:
        self._listeners.pop(listener, None)

    def close(self) -> None:
        """End every stream once its queue is empty."""
        self._is_closed = True
        for listener in tuple(self._listeners):
            listener.close()
