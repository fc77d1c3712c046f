"""
UDP trackers over asyncio: the shell of ``proto.udp_tracker``.

Feed, send what is due, re-arm the timer, settle futures. The sockets belong to
somebody else, who hands in what arrives for us: with a real one
``socket.add_receiver(TRACKER_BYTES, trackers.receive)``.

Source: BEP 15, BEP 41.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import TypeVar

from bittern.core.announce import AnnounceAnswer, AnnounceRequest, ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.errors import TrackerFailure, TrackerUnreachable
from bittern.core.ids import InfoHash
from bittern.net.udp import Datagrams
from bittern.proto.udp_tracker import (
    Announced,
    RequestFailed,
    RequestTimedOut,
    RequestUnsent,
    Scraped,
    UdpTrackerClient,
)

_T = TypeVar("_T")

RETRY_INTERVAL = 5.0
"""
Deviates from BEP 15 (15 s): a person waits, and other trackers stand ready. With
``MAX_SENDS`` a silent tracker gets three packets and 35 s, which is kinder to it than
the nine packets of the schedule in the BEP.
"""
MAX_SENDS = 3


class UdpTrackers:
    """
    Announces and scrapes over datagram sockets; belongs to one event loop.

    Args:
        sockets: where to send, at most one of each family.
        random_id: gives 32 unpredictable bits.
        retry_interval: seconds before a packet is sent again, doubling.
        max_sends: how often a packet is sent.
    """

    def __init__(
        self,
        sockets: Sequence[Datagrams],
        *,
        random_id: Callable[[], int] = lambda: secrets.randbits(32),
        retry_interval: float = RETRY_INTERVAL,
        max_sends: int = MAX_SENDS,
    ) -> None:
        self._sockets = {socket.endpoint.is_ipv6: socket for socket in sockets}
        self._machine = UdpTrackerClient(
            random_id=random_id, retry_interval=retry_interval, max_sends=max_sends
        )
        self._announces: dict[int, asyncio.Future[AnnounceAnswer]] = {}
        self._scrapes: dict[int, asyncio.Future[dict[InfoHash, ScrapeEntry]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.num_bad_datagrams: int = 0

    async def announce(
        self, endpoint: Endpoint, request: AnnounceRequest, *, url_data: bytes = b""
    ) -> AnnounceAnswer:
        """
        Announce to the tracker at ``endpoint``; cancelling forgets the request.

        Raises:
            TrackerFailure: it refused.
            TrackerUnreachable: it stayed silent, or there is no way to it from here.
        """
        now = self._now(endpoint)
        number = self._machine.announce(endpoint, request, now=now, url_data=url_data)
        return await self._wait(self._announces, number)

    async def scrape(
        self, endpoint: Endpoint, info_hashes: Sequence[InfoHash]
    ) -> dict[InfoHash, ScrapeEntry]:
        """Ask for counts of at most 74 swarms; raises as ``announce`` does."""
        now = self._now(endpoint)
        return await self._wait(self._scrapes, self._machine.scrape(endpoint, info_hashes, now=now))

    def receive(self, data: bytes | memoryview, source: Endpoint) -> None:
        """Take a datagram that arrived at one of the sockets."""
        self._machine.receive_datagram(bytes(data), source, now=self._loop_time())
        self._flush()

    def close(self) -> None:
        """Fail what is under way. Idempotent."""
        for number in [*self._announces, *self._scrapes]:
            self._fail(number, TrackerUnreachable("closed"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @staticmethod
    def _loop_time() -> float:
        return asyncio.get_running_loop().time()

    def _now(self, endpoint: Endpoint) -> float:
        if endpoint.is_ipv6 not in self._sockets:
            raise TrackerUnreachable(f"no {'IPv6' if endpoint.is_ipv6 else 'IPv4'} here")
        return self._loop_time()

    async def _wait(self, table: dict[int, asyncio.Future[_T]], number: int) -> _T:
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        table[number] = future
        try:
            self._flush()
            return await future
        finally:
            del table[number]
            self._machine.cancel(number)
            self._arm()

    def _flush(self) -> None:
        """Send what is due, settle what ended, re-arm the timer."""
        for data, endpoint in self._machine.datagrams_to_send():
            if self._sockets[endpoint.is_ipv6].send(data, endpoint) is False:
                self._machine.cannot_reach(endpoint)
        for event in self._machine.events():
            match event:
                case Announced(number, answer):
                    _settle(self._announces.get(number), answer)
                case Scraped(number, entries):
                    _settle(self._scrapes.get(number), entries)
                case RequestFailed(number, reason):
                    self._fail(number, TrackerFailure(reason))
                case RequestTimedOut(number):
                    self._fail(number, TrackerUnreachable("tracker is silent"))
                case RequestUnsent(number):
                    self._fail(number, TrackerUnreachable("network is unreachable"))
                case _:  # BadDatagram
                    self.num_bad_datagrams += 1
        self._arm()

    def _fail(self, number: int, error: TrackerFailure | TrackerUnreachable) -> None:
        for future in (self._announces.get(number), self._scrapes.get(number)):
            if future is not None and not future.done():
                future.set_exception(error)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._machine.next_timer()
        if at is not None:
            self._timer = asyncio.get_running_loop().call_at(at, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        # The instant that was asked for: timers may fire a rounding error early.
        due_at = self._machine.next_timer()
        now = self._loop_time()
        self._machine.handle_timer(now=now if due_at is None else max(now, due_at))
        self._flush()


def _settle(future: asyncio.Future[_T] | None, value: _T) -> None:
    if future is not None and not future.done():
        future.set_result(value)
