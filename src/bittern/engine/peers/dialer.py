"""
Outgoing connections: whom to try next, within the session's limits.

Torrents are asked in turn, so that one with a long list of peers does not keep
the others waiting.

Sources: threats.md H8 (half-open connections, attempts per second).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Protocol

from bittern.core.endpoint import Endpoint
from bittern.core.errors import BitTorrentError, PeerTimeout
from bittern.core.rate import TokenBucket
from bittern.engine.config import SessionConfig
from bittern.net.stream import Network, Stream
from bittern.net.words import words_of


class DialingRoster(Protocol):
    """What the dialer asks of a torrent."""

    def next_to_dial(self, *, now: float) -> Endpoint | None:
        """Return an endpoint to try now, counted as being tried."""

    def dialled(self, endpoint: Endpoint, stream: Stream) -> None:
        """Take a new connection."""

    def dial_failed(self, endpoint: Endpoint, reason: str) -> None:
        """Hear that there is none, and why."""


class Dialer:
    """
    The session's outgoing connections under way.

    Args:
        network: makes them.
        config: the limits.
        rosters: gives the torrents that run, in any order.
        spawn: runs an attempt as a task of the session.
    """

    def __init__(
        self,
        network: Network,
        config: SessionConfig,
        loop: asyncio.AbstractEventLoop,
        *,
        rosters: Callable[[], Iterable[DialingRoster]],
        spawn: Callable[[Coroutine[object, object, None], str], None],
    ) -> None:
        self._network = network
        self._config = config
        self._loop = loop
        self._rosters = rosters
        self._spawn = spawn
        self._rate = TokenBucket(
            config.max_dials_per_second, now=loop.time(), burst=config.max_dials_per_second
        )
        self._rate.take(-config.max_dials_per_second, now=loop.time())
        self._num_half_open = 0
        self._handle: asyncio.Handle | None = None
        self._is_closed = False

    @property
    def num_half_open(self) -> int:
        """Attempts under way."""
        return self._num_half_open

    def request(self) -> None:
        """Look, soon, whether somebody should be dialled."""
        if self._handle is None and not self._is_closed:
            self._handle = self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._handle = None
        now = self._loop.time()
        waiting = list(self._rosters())
        while waiting and self._num_half_open < self._config.max_half_open:
            if not self._rate.available(now=now):
                self._handle = self._loop.call_later(
                    max(0.01, self._rate.ready_at(1, now=now) - now), self._pump
                )
                return
            roster = waiting.pop(0)
            endpoint = roster.next_to_dial(now=now)
            if endpoint is None:
                continue
            waiting.append(roster)
            self._rate.take(1, now=now)
            self._num_half_open += 1
            self._spawn(self._dial(roster, endpoint), f"dial {endpoint}")

    async def _dial(self, roster: DialingRoster, endpoint: Endpoint) -> None:
        try:
            stream = await self._network.connect(endpoint, timeout=self._config.connect_timeout)
        except (OSError, BitTorrentError) as error:
            roster.dial_failed(endpoint, reason_of(error))
        else:
            roster.dialled(endpoint, stream)
        finally:
            self._num_half_open -= 1
            self.request()

    def close(self) -> None:
        """Start no further attempts."""
        self._is_closed = True
        if self._handle is not None:
            self._handle.cancel()


def reason_of(error: Exception) -> str:
    """Return why a connection failed, in words that do not name the endpoint again."""
    if isinstance(error, PeerTimeout):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno:
        return words_of(error.errno)
    return str(error) or type(error).__name__
