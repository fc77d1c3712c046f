"""
A queue of things that have an instant, then a rank, and may be put aside meanwhile.

Items wait in a heap for their instant; those whose instant has come lie in a
second heap, the lowest rank on top; an item can also be parked under a name
until that name is called. An item has at most one place, and its ``ticket``
names it: a place with another ticket is stale and skipped, which makes
withdrawing an item a single assignment.

Invariant: no heap holds more than twice the items there are, and some.
"""

from __future__ import annotations

import heapq
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What the queue asks of its items."""

    ticket: int
    """Belongs to the queue; 0 at first."""

    @property
    def rank(self) -> tuple[int, ...]:
        """The lower the sooner, among those whose instant has come."""


T = TypeVar("T", bound=Queued)


class DialQueue(Generic[T]):
    """
    The queue described in the module's text; ``len`` counts the items in it.

    All of it takes O(log items), except ``rerank``.
    """

    __slots__ = ("_next_ticket", "_num_items", "_parked", "_ready", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, T]] = []
        self._ready: list[tuple[tuple[int, ...], int, T]] = []
        self._parked: dict[str, list[tuple[int, T]]] = {}
        self._num_items = 0
        self._next_ticket = 0

    def put(self, item: T, instant: float) -> None:
        """Place an item so that ``pop`` may return it from ``instant`` on."""
        heapq.heappush(self._waiting, (instant, self._issue(item), item))
        if len(self._waiting) > self._max_places:
            self._waiting = [place for place in self._waiting if place[2].ticket == place[1]]
            heapq.heapify(self._waiting)

    def park(self, item: T, name: str) -> None:
        """Place an item so that it comes back with ``call(name)`` only."""
        parked = self._parked.setdefault(name, [])
        parked.append((self._issue(item), item))
        if len(parked) > self._max_places:
            parked[:] = [place for place in parked if place[1].ticket == place[0]]

    def call(self, name: str, instant: float) -> None:
        """Let everything parked under ``name`` be popped from ``instant`` on."""
        for ticket, item in self._parked.pop(name, ()):
            if item.ticket == ticket:
                self.put(item, instant)

    def withdraw(self, item: T) -> None:
        """Take an item out, wherever it is; nothing happens if it is not there."""
        if item.ticket:
            item.ticket = 0
            self._num_items -= 1

    def pop(self, now: float) -> T | None:
        """Take out the item of the lowest rank whose instant has come; None if there is none."""
        while self._waiting and self._waiting[0][0] <= now:
            _, ticket, item = heapq.heappop(self._waiting)
            if item.ticket == ticket:
                heapq.heappush(self._ready, (item.rank, ticket, item))
        if len(self._ready) > self._max_places:
            self.rerank()
        while self._ready:
            _, ticket, item = heapq.heappop(self._ready)
            if item.ticket == ticket:
                self.withdraw(item)
                return item
        return None

    def next_instant(self, now: float) -> float | None:
        """Return when ``pop`` may have something: ``now``, a later instant, or None for never."""
        while self._ready and self._ready[0][2].ticket != self._ready[0][1]:
            heapq.heappop(self._ready)
        if self._ready:
            return now
        while self._waiting and self._waiting[0][2].ticket != self._waiting[0][1]:
            heapq.heappop(self._waiting)
        return max(now, self._waiting[0][0]) if self._waiting else None

    def rerank(self) -> None:
        """Look at all ranks again, after they have changed. O(items)."""
        self._ready = [(e.rank, ticket, e) for _, ticket, e in self._ready if e.ticket == ticket]
        heapq.heapify(self._ready)

    @property
    def _max_places(self) -> int:
        return 2 * self._num_items + 64

    def _issue(self, item: T) -> int:
        if not item.ticket:
            self._num_items += 1
        self._next_ticket += 1
        item.ticket = self._next_ticket
        return item.ticket

    def __len__(self) -> int:
        return self._num_items
