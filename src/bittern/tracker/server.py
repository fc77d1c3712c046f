"""
A whole tracker: listeners of both kinds over one table of swarms.

    async with Tracker(http=[Endpoint("0.0.0.0", 6969)], udp=[Endpoint("::", 6969)]) as tracker:
        print(tracker.http_endpoints, tracker.udp_endpoints)
        await something_that_ends()

All listeners share the swarms, so clients of HTTP and UDP, IPv4 and IPv6 meet.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import secrets
from collections.abc import Container, Iterator, Sequence
from types import TracebackType
from typing import Self

from bittern.core.endpoint import Endpoint
from bittern.core.errors import ConfigError
from bittern.net.udp import UdpSocket
from bittern.net.words import words_of
from bittern.tracker.desk import DEFAULT_INTERVAL, Desk, Refused, tell_nobody
from bittern.tracker.http import HttpTracker
from bittern.tracker.udp import LENIENT_SLOTS, STRICT_SLOTS, ConnectionIds, UdpTracker

EXPIRE_INTERVAL = 10.0
"""Seconds between two searches for torrents to forget."""
_BACKLOG = 512


class Tracker:
    """
    The tracker described in the module's text; an asynchronous context manager.

    Args:
        http, udp: where to listen; port 0 takes any free one.
        interval, min_interval: what clients are told; seconds.
        allowed: info hashes that are served; None for all.
        trusted: networks (``10.0.0.0/8``) whose ``ip=`` is believed.
        lenient_ids: accept connection ids for ten minutes (BEP 15 says two).
        rng: for selections.
        refused: hears whom we refuse, an address, and why.

    Raises:
        ConfigError: an interval or a network makes no sense.
        OSError: from ``async with``, when an address cannot be listened on; it is named as
            ``filename``.
    """

    def __init__(
        self,
        *,
        http: Sequence[Endpoint] = (),
        udp: Sequence[Endpoint] = (),
        interval: int = DEFAULT_INTERVAL,
        min_interval: int = 60,
        allowed: Container[bytes] | None = None,
        trusted: Sequence[str] = (),
        lenient_ids: bool = False,
        rng: random.Random | None = None,
        refused: Refused = tell_nobody,
    ) -> None:
        if not 1 <= interval <= 86_400:
            raise ConfigError("interval must be from 1 to 86400 seconds")
        try:
            self._trusted = [ipaddress.ip_network(network) for network in trusted]
        except ValueError as error:
            raise ConfigError(f"trusted network: {error}") from None
        self.desk: Desk = Desk(
            rng or random.Random(secrets.randbits(64)),
            interval=interval,
            min_interval=min_interval,
            allowed=allowed,
        )
        self.http_endpoints: list[Endpoint] = []
        self.udp_endpoints: list[Endpoint] = []
        self._refused = refused
        self._http = tuple(http)
        self._udp = tuple(udp)
        self._ids = ConnectionIds(
            secrets.token_bytes(32), num_slots=LENIENT_SLOTS if lenient_ids else STRICT_SLOTS
        )
        self._stack = contextlib.AsyncExitStack()
        self._expiry: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Tracker {self.desk.table.num_torrents} torrents>"

    @property
    def announce_urls(self) -> list[str]:
        """The URLs that clients use, one for each listener."""
        return [f"http://{endpoint}/announce" for endpoint in self.http_endpoints] + [
            f"udp://{endpoint}/announce" for endpoint in self.udp_endpoints
        ]

    async def __aenter__(self) -> Self:
        """Listen; OSError if an address cannot be had, and then on none of them."""
        try:
            for endpoint in self._http:
                with _naming(endpoint):
                    await self._listen_http(endpoint)
            for endpoint in self._udp:
                with _naming(endpoint):
                    self._listen_udp(endpoint)
        except BaseException:
            await self._stack.aclose()
            raise
        self._expire()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all listeners and connections."""
        assert self._expiry is not None
        self._expiry.cancel()
        await self._stack.aclose()

    async def _listen_http(self, endpoint: Endpoint) -> None:
        loop = asyncio.get_running_loop()
        front = HttpTracker(self.desk, loop.time, trusted=self._trusted, refused=self._refused)
        server = await loop.create_server(front, endpoint.host, endpoint.port, backlog=_BACKLOG)
        self._stack.callback(front.close)
        self._stack.callback(server.close)
        address = server.sockets[0].getsockname()
        self.http_endpoints.append(Endpoint(address[0], address[1]))

    def _listen_udp(self, endpoint: Endpoint) -> None:
        sock = UdpSocket.open(endpoint.host, endpoint.port)
        self._stack.callback(sock.close)
        clock = asyncio.get_running_loop().time
        front = UdpTracker(sock, self.desk, self._ids, clock, refused=self._refused)
        sock.add_receiver(range(256), front.receive)
        self.udp_endpoints.append(sock.endpoint)

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self.desk.expire(now=loop.time())
        self._expiry = loop.call_later(EXPIRE_INTERVAL, self._expire)


@contextlib.contextmanager
def _naming(endpoint: Endpoint) -> Iterator[None]:
    """Make an error of the system say which address it is about, and asyncio's no more."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, words_of(error.errno or 0), str(endpoint)) from error
