"""
TCP connections through lines that are slow and long: a relay in a thread of its own.

``tc netem`` needs rights that a benchmark should not ask for. A relay knows no loss and no slow
start of TCP, but what both ends see is what counts here: a round trip before an answer comes, and
a rate at which it comes, with a queue before the bottleneck that holds a fifth of a second. The
handshake of TCP takes its round trip, too.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import cast

QUEUE_SECONDS = 0.2
"""What waits before the bottleneck until the sender is held up."""
SOCKET_BUFFER = 65_536
"""Bytes of the relay's own receive buffers, or seconds of a slow line would hide there."""


@dataclass(frozen=True, slots=True)
class Line:
    """What lies between a leech and one seed."""

    delay: float
    """Seconds one way."""
    rate: float
    """Bytes per second towards the leech; the other way nothing is slow."""
    stalls: tuple[tuple[float, float], ...] = ()
    """When nothing comes, in seconds after the connection was made, and for how long."""


class Relay:
    """
    Lines to ports of this machine; a context manager.

    Args:
        ends: the port of each seed, and the line to it.
    """

    def __init__(self, ends: Sequence[tuple[int, Line]]) -> None:
        self._ends = ends
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[asyncio.Server] = []
        self.ports: list[int] = []
        """Where a leech reaches each seed."""

    def __enter__(self) -> Relay:
        self._thread.start()
        self.ports = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for server in self._servers:
            server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _listen(self) -> list[int]:
        ports = []
        for port, line in self._ends:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
            sock.bind(("127.0.0.1", 0))
            make = partial(_Near, port, line)
            self._servers.append(await self._loop.create_server(make, sock=sock))
            ports.append(sock.getsockname()[1])
        return ports


class _Way:
    """One direction of one connection."""

    def __init__(self, delay: float, rate: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._delay, self._rate = delay, rate
        self.source: asyncio.Transport | None = None
        self.target: asyncio.Transport | None = None
        self._queue: deque[tuple[float, bytes]] = deque()
        """When the other end sees it, and what; empty for the end."""
        self._free_at = 0.0
        """When the bottleneck has passed all that it was given."""
        self._is_full = self._is_blocked = False
        self._timer: asyncio.TimerHandle | None = None

    def take(self, data: bytes) -> None:
        """Take what the source has sent; nothing is its end."""
        now = self._loop.time()
        self._free_at = max(self._free_at, now)
        if self._rate is not None:
            self._free_at += len(data) / self._rate
        self._queue.append((self._free_at + self._delay, data))
        self.go_on()
        self._hold()

    def stall(self, seconds: float) -> None:
        """Let nothing pass the bottleneck for a while."""
        self._free_at = max(self._free_at, self._loop.time()) + seconds
        self._hold()

    def block(self, is_blocked: bool) -> None:
        """Hear whether the target takes nothing now."""
        self._is_blocked = is_blocked
        self.go_on()
        self._hold()

    def _hold(self) -> None:
        """Read from the source or not."""
        source, wait = self.source, self._free_at - self._loop.time() - QUEUE_SECONDS
        is_full = wait > 0 or self._is_blocked
        if source is None or source.is_closing() or is_full is self._is_full:
            if is_full and not self._is_blocked:
                self._loop.call_later(max(wait, 0.001), self._hold)
            return
        self._is_full = is_full
        if not is_full:
            source.resume_reading()
            return
        source.pause_reading()
        if wait > 0:
            self._loop.call_later(wait, self._hold)

    def go_on(self) -> None:
        """Wait for the next arrival, where somebody takes it."""
        if self._timer is None and self._queue and self.target and not self._is_blocked:
            self._timer = self._loop.call_at(self._queue[0][0], self._deliver)

    def _deliver(self) -> None:
        self._timer = None
        target, now = self.target, self._loop.time()
        while self._queue and self._queue[0][0] <= now and not self._is_blocked:
            _, data = self._queue.popleft()
            if target is None or target.is_closing():
                self._queue.clear()
            elif data:
                target.write(data)
            else:
                target.close()
        self.go_on()


class _Side(asyncio.Protocol):
    """One of the two sockets of a connection."""

    def __init__(self, away: _Way, back: _Way) -> None:
        self._away, self._back = away, back

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._away.source = self._back.target = cast(asyncio.Transport, transport)
        self._back.go_on()

    def data_received(self, data: bytes) -> None:
        self._away.take(data)

    def pause_writing(self) -> None:
        self._back.block(True)

    def resume_writing(self) -> None:
        self._back.block(False)

    def connection_lost(self, _: Exception | None) -> None:
        self._away.take(b"")


class _Near(_Side):
    """The socket of the leech, which connects the other one to the seed."""

    def __init__(self, port: int, line: Line) -> None:
        super().__init__(_Way(line.delay, None), _Way(line.delay, line.rate))
        self._port, self._line = port, line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._away.source is not None
        self._away.source.pause_reading()
        self._task = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        near, loop = self._away.source, asyncio.get_running_loop()
        assert near is not None
        await asyncio.sleep(2 * self._line.delay)
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        try:
            await loop.sock_connect(sock, ("127.0.0.1", self._port))
            await loop.create_connection(lambda: _Side(self._back, self._away), sock=sock)
        except OSError:
            sock.close()
            near.abort()
            return
        for at, seconds in self._line.stalls:
            loop.call_later(at, self._back.stall, seconds)
        if not near.is_closing():
            near.resume_reading()
