"""
Fan-out of a torrent's events to whoever listens.

A listener that does not keep up loses the oldest events, never the torrent's
time: reporting is one append per listener.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from bittern.engine.events import Event, MessageReceived, MessageSent

MAX_EVENT_QUEUE = 10_000
"""Events kept for a listener that does not keep up."""


class _Listener:
    __slots__ = ("is_tracing", "queue", "wake")

    def __init__(self, *, is_tracing: bool) -> None:
        self.is_tracing = is_tracing
        self.queue: deque[Event] = deque(maxlen=MAX_EVENT_QUEUE)
        self.wake = asyncio.Event()


class Listeners:
    """All listeners of one torrent."""

    __slots__ = ("_is_closed", "_listeners")

    def __init__(self) -> None:
        self._listeners: tuple[_Listener, ...] = ()
        self._is_closed = False

    @property
    def is_tracing(self) -> bool:
        """True while somebody wants single protocol messages."""
        return any(listener.is_tracing for listener in self._listeners)

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def report(self, event: Event) -> None:
        """Give an event to everybody who wants its kind."""
        if not self._listeners:
            return
        is_trace = isinstance(event, MessageSent | MessageReceived)
        for listener in self._listeners:
            if listener.is_tracing or not is_trace:
                listener.queue.append(event)
                listener.wake.set()

    def listen(self, *, trace: bool = False) -> AsyncIterator[Event]:
        """
        Return an iterator over events from now on; it ends when the torrent is closed.

        The listener exists from this call on, not from the first ``anext``, so that
        nothing between the two is missed.
        """
        listener = _Listener(is_tracing=trace)
        self._listeners = (*self._listeners, listener)
        return self._iterate(listener)

    async def _iterate(self, listener: _Listener) -> AsyncIterator[Event]:
        try:
            while True:
                while listener.queue:
                    yield listener.queue.popleft()
                if self._is_closed:
                    return
                listener.wake.clear()
                await listener.wake.wait()
        finally:
            self._listeners = tuple(each for each in self._listeners if each is not listener)

    def close(self) -> None:
        """End every iterator once its queue is empty."""
        self._is_closed = True
        for listener in self._listeners:
            listener.wake.set()
