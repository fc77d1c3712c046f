"""
Places for requests under way: so many in all, few of them for one host.

A host that takes connections and never answers keeps its requests for as long as they may
last. It must not keep all places, so each host has a part of them at most; and a place that
becomes free goes to the host that has fewest, among equals to the one that waits longest.

Limit: F11.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Places:
    """
    The places described in the module's text.

    Args:
        num_places: requests under way at once.
        max_per_host: those of them that one host may have.
    """

    def __init__(self, num_places: int, max_per_host: int) -> None:
        self._num_free = num_places
        self._max_per_host = max_per_host
        self._taken: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def at(self, host: str) -> AsyncIterator[None]:
        """Wait for a place, and have it for as long as the block lasts."""
        if self._num_free and self._taken[host] < self._max_per_host:
            self._take(host)
        else:
            await self._wait(host)
        try:
            yield
        finally:
            self._give_back(host)

    async def _wait(self, host: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(host, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._give_back(host)  # it had its turn and did not hear of it
            raise

    def _take(self, host: str) -> None:
        self._num_free -= 1
        self._taken[host] += 1

    def _give_back(self, host: str) -> None:
        self._num_free += 1
        self._taken[host] -= 1
        if not self._taken[host]:
            del self._taken[host]
        self._call_next()

    def _call_next(self) -> None:
        while self._waiting:
            # The first of the smallest: a host that has had its turn stands last.
            host = min(self._waiting, key=self._taken.__getitem__)
            if self._taken[host] >= self._max_per_host:
                return
            line = self._waiting.pop(host)
            turn = line.popleft()
            if line:
                self._waiting[host] = line
            if not turn.done():  # else whoever waited was cancelled
                self._take(host)
                turn.set_result(None)
                return

    def __repr__(self) -> str:
        waiting = sum(map(len, self._waiting.values()))
        return f"<Places {self._num_free} free, {self._taken.total()} taken, {waiting} waiting>"
