"""
Requests that all nodes of a host work on together, each in its own network.

A host with IPv4 and IPv6 has a node in each of the two DHTs, and with several addresses
one on each (BEP 45). Whoever looks for peers or an item wants what any of them finds.

Nothing here is a task: a request advances by datagrams. ``wait`` and iterating are for
callers that have a task; the others give callbacks.

Sources: BEP 5, 32, 33, 44, 45.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcFailure
from bittern.dht.events import (
    DhtEvent,
    FoundNode,
    ItemFound,
    ItemLookupEnded,
    PeersFound,
    PeersLookupEnded,
)
from bittern.dht.items import Item
from bittern.net.dht_node import NodeShell, Verb

_Result = TypeVar("_Result")

Factory = Callable[[NodeShell], Verb]
"""Returns what to ask of one of the nodes."""


@dataclass(frozen=True, slots=True)
class PeersResult:
    """
    What a search for peers came to, over all nodes of this host.

    Args:
        num_peers: different peers that were named.
        num_seeds: estimated by bloom filters (BEP 33); None when not asked for or given.
        num_leechers: as above.
        num_stored: nodes that took our announce.
        nodes: those closest to the info hash, of each of our nodes nearest first.
        num_queries: queries that we sent.
    """

    num_peers: int = 0
    num_seeds: float | None = None
    num_leechers: float | None = None
    num_stored: int = 0
    nodes: tuple[FoundNode, ...] = ()
    num_queries: int = 0


@dataclass(frozen=True, slots=True)
class ItemResult:
    """
    What a search for an item came to, over all nodes of this host.

    Args:
        item: the newest one found, or the one that was stored; None if there is none.
        num_copies: nodes that had the newest item found.
        num_stored: nodes that took ours.
        refusals: what nodes said that did not take it.
        num_queries: queries that we sent.
    """

    item: Item | None = None
    num_copies: int = 0
    num_stored: int = 0
    refusals: tuple[KrpcFailure, ...] = ()
    num_queries: int = 0


class Search(ABC, Generic[_Result]):
    """
    One request at several nodes; the base of the two below.

    Args:
        shells: our nodes; with none that is open the search ends at once, without a result.
        factory: what to ask of each.
        ended: called once with the search when all have ended, not when it is cancelled.
    """

    def __init__(
        self,
        shells: Sequence[NodeShell],
        factory: Factory,
        ended: Callable[[Search[_Result]], object] | None = None,
    ) -> None:
        self.is_over: bool = False
        self._ended = ended
        self._waiters: list[asyncio.Future[None]] = []
        shells = [shell for shell in shells if not shell.is_closed]
        self._num_open = len(shells)
        self._requests: list[tuple[NodeShell, int]] = []
        try:
            for shell in shells:
                self._requests.append((shell, shell.begin(factory(shell), self._take)))
        except BaseException:
            self.cancel()
            raise
        if not shells:
            self._finish()

    @property
    def result(self) -> _Result:
        """What is known by now; final once ``is_over``."""
        return self._result()

    async def wait(self) -> _Result:
        """Wait for the end and return the result; cancelling it cancels the search."""
        try:
            while not self.is_over:
                await self._changed()
        finally:
            self.cancel()
        return self.result

    def cancel(self) -> None:
        """Stop; whoever waits hears the end. Idempotent."""
        if self.is_over:
            return
        self.is_over = True
        self._wake()
        for shell, request_id in self._requests:
            shell.cancel(request_id)

    @abstractmethod
    def _result(self) -> _Result:
        """Return the result so far."""

    def _take(self, event: DhtEvent) -> None:
        """Take an event of one of the requests."""
        if self._note(event):
            self._num_open -= 1
            if not self._num_open:
                self._finish()
        self._wake()

    @abstractmethod
    def _note(self, event: DhtEvent) -> bool:
        """Draw from an event; True if it ends a request."""

    def _finish(self) -> None:
        self.is_over = True
        if self._ended is not None:
            self._ended(self)

    async def _changed(self) -> None:
        """Wait for the next event."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class PeerSearch(Search[PeersResult]):
    """
    A search for the peers of a torrent; an asynchronous iterator of endpoints.

    Args:
        shells, factory, ended: as for ``Search``.
        found: called with new peers as they come.
        named: the same, called with the node that named them as well; without either of
            them peers are kept for iterating.

    Example::

        async for endpoint in dht.get_peers(info_hash):
            ...

    Leaving the loop early leaves the search running; ``cancel`` ends it.
    """

    def __init__(
        self,
        shells: Sequence[NodeShell],
        factory: Factory,
        *,
        found: Callable[[tuple[Endpoint, ...]], object] | None = None,
        named: Callable[[tuple[Endpoint, ...], Endpoint], object] | None = None,
        ended: Callable[[Search[PeersResult]], object] | None = None,
    ) -> None:
        self._found = found
        self._named = named
        self._seen: set[Endpoint] = set()
        self._fresh: deque[Endpoint] = deque()
        self._ends: list[PeersLookupEnded] = []
        super().__init__(shells, factory, ended)

    def __aiter__(self) -> PeerSearch:
        return self

    async def __anext__(self) -> Endpoint:
        while not self._fresh:
            if self.is_over:
                raise StopAsyncIteration
            await self._changed()
        return self._fresh.popleft()

    def _note(self, event: DhtEvent) -> bool:
        if isinstance(event, PeersFound):
            fresh = tuple(peer for peer in event.peers if peer not in self._seen)
            self._seen.update(fresh)
            self._hand_on(fresh, event.node)
            return False
        assert isinstance(event, PeersLookupEnded), event
        self._ends.append(event)
        return True

    def _hand_on(self, fresh: tuple[Endpoint, ...], node: Endpoint) -> None:
        if self._found is None and self._named is None:
            self._fresh.extend(fresh)
        if self._found is not None and fresh:
            self._found(fresh)
        if self._named is not None and fresh:
            self._named(fresh, node)

    def _result(self) -> PeersResult:
        ends = self._ends
        return PeersResult(
            len(self._seen),
            _sum_known(end.num_seeds_estimate for end in ends),
            _sum_known(end.num_leechers_estimate for end in ends),
            sum(end.num_stored for end in ends),
            tuple(node for end in ends for node in end.nodes),
            sum(end.num_queries for end in ends),
        )


class ItemSearch(Search[ItemResult]):
    """
    A search for an item of BEP 44, or the storing of one.

    Args:
        shells, factory, ended: as for ``Search``.
    """

    def __init__(
        self,
        shells: Sequence[NodeShell],
        factory: Factory,
        ended: Callable[[Search[ItemResult]], object] | None = None,
    ) -> None:
        self._best: Item | None = None
        self._ends: list[ItemLookupEnded] = []
        super().__init__(shells, factory, ended)

    def _note(self, event: DhtEvent) -> bool:
        if isinstance(event, ItemFound):
            self._offer(event.item)
            return False
        assert isinstance(event, ItemLookupEnded), event
        self._ends.append(event)
        if event.item is not None:
            self._offer(event.item)
        return True

    def _offer(self, item: Item) -> None:
        if self._best is None or item.seq > self._best.seq:
            self._best = item

    def _result(self) -> ItemResult:
        ends = self._ends
        return ItemResult(
            self._best,
            sum(end.num_copies for end in ends if end.item == self._best),
            sum(end.num_stored for end in ends),
            tuple(refusal for end in ends for refusal in end.refusals),
            sum(end.num_queries for end in ends),
        )


def _sum_known(numbers: Iterable[float | None]) -> float | None:
    """Add up the numbers that are not None; None if there are none."""
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None
