"""HTTP servers on loopback that say, byte for byte, what a test tells them to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

# Loaded now: the client would do so within its first request, and on a machine that is busy
# enough use up the time that a test gives that.
import aiohttp  # noqa: F401


class Server:
    """
    Answers each request with scripted bytes and remembers what it was asked.

    Args:
        answer: to every request, or what gives it for a path.
        closes: whether a connection ends after one answer; None for when that tells no length.
    """

    def __init__(
        self, answer: bytes | Callable[[str], bytes], *, closes: bool | None = None
    ) -> None:
        self.answer = answer
        self.closes = closes
        self.requests: list[str] = []
        self.num_connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.num_connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.requests.append(request)
                answer = self.answer
                if callable(answer):
                    answer = answer(request.split()[1])
                writer.write(answer)
                await writer.drain()
                if b"Content-Length" not in answer if self.closes is None else self.closes:
                    break
        writer.close()

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [request.split()[1] for request in self.requests]


@contextlib.asynccontextmanager
async def serving(
    server: Server, host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Listen on loopback; the port."""
    listener = await asyncio.start_server(server.serve, host, 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server.port
    finally:
        listener.close()
        await listener.wait_closed()
        await asyncio.sleep(0)
