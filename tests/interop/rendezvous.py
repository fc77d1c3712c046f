"""
The harness's own HTTP tracker, at which the two programs of a pair meet.

It is deliberately the simplest tracker that every client accepts (BEP 3, compact replies of
BEP 23), shares no code with bittern, and lets a test wait until a program has really announced
itself. The trackers of others are tested on their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tests.interop.place import Endpoint, Place
from tests.interop.process import InteropError

# A client that announced too early for some reason asks again soon.
_INTERVAL = 5

_HEAD_LIMIT = 16 * 1024


@dataclass(frozen=True, slots=True)
class Announce:
    """One announce as it was received; ``left`` is -1 when it was absent or no number."""

    endpoint: Endpoint
    left: int
    event: str


class Rendezvous:
    """A running tracker for one place; make it with ``rendezvous``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._swarms: dict[bytes, dict[bytes, Announce]] = {}
        self._news = asyncio.Condition()

    async def wait_seed(self, info_hash: bytes, *, timeout: float) -> None:
        """
        Wait until somebody has announced that it has the whole torrent.

        Args:
            info_hash: 20 bytes.
            timeout: seconds.

        Raises:
            InteropError: nobody came; the text lists those who announced something else.
        """

        def is_there() -> bool:
            return any(peer.left == 0 for peer in self._swarms.get(info_hash, {}).values())

        try:
            async with asyncio.timeout(timeout), self._news:
                await self._news.wait_for(is_there)
        except TimeoutError:
            others = [peer for swarm in self._swarms.values() for peer in swarm.values()]
            message = f"no seed announced itself in {timeout:g} s; announced were {others}"
            raise InteropError(message) from None

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: one request, one reply."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode("latin-1")
            body = await self._answer(target, writer.get_extra_info("peername")[0])
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            await writer.drain()
        writer.close()

    async def _answer(self, target: str, address: str) -> bytes:
        path, _, query = target.partition("?")
        fields: dict[str, bytes] = {}
        for pair in query.split("&"):
            key, _, value = pair.partition("=")
            fields[key] = unquote_to_bytes(value)
        if path == "/scrape":
            return self._scrape(fields.get("info_hash", b""))
        try:
            info_hash, peer_id = fields["info_hash"], fields["peer_id"]
            endpoint = (address, int(fields["port"]))
        except (KeyError, ValueError) as error:
            reason = f"bad announce: {error}".encode()
            return b"d14:failure reason%d:%se" % (len(reason), reason)
        # Interop: WebTorrent with a magnet link sends "left=" with nothing behind it.
        left = fields.get("left", b"")
        announce = Announce(
            endpoint,
            int(left) if left.isdigit() else -1,
            fields.get("event", b"").decode("latin-1"),
        )
        async with self._news:
            swarm = self._swarms.setdefault(info_hash, {})
            if announce.event == "stopped":
                swarm.pop(peer_id, None)
            else:
                swarm[peer_id] = announce
            self._news.notify_all()
        others = b"".join(
            socket.inet_aton(other.endpoint[0]) + other.endpoint[1].to_bytes(2, "big")
            for key, other in swarm.items()
            if key != peer_id
        )
        num_seeds = sum(other.left == 0 for other in swarm.values())
        return b"d8:completei%de10:incompletei%de8:intervali%de5:peers%d:%se" % (
            *(num_seeds, len(swarm) - num_seeds, _INTERVAL, len(others)),
            others,
        )

    def _scrape(self, info_hash: bytes) -> bytes:
        """Transmission scrapes on its own account and logs an error when it cannot (BEP 48)."""
        swarm = self._swarms.get(info_hash, {})
        num_seeds = sum(peer.left == 0 for peer in swarm.values())
        return b"d5:filesd%d:%sd8:completei%de10:downloadedi%de10:incompletei%deeee" % (
            *(len(info_hash), info_hash),
            *(num_seeds, num_seeds, len(swarm) - num_seeds),
        )


@contextlib.asynccontextmanager
async def rendezvous(place: Place) -> AsyncIterator[Rendezvous]:
    """Run a tracker at a place for the length of the block."""
    listening = place.socket()
    listening.bind((place.address, 0))
    tracker = Rendezvous(f"http://{place.address}:{listening.getsockname()[1]}/announce")
    server = await asyncio.start_server(tracker.handle, sock=listening, limit=_HEAD_LIMIT)
    try:
        yield tracker
    finally:
        server.close()
        await server.wait_closed()
