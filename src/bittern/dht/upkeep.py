"""
How a node gets into the network and keeps its table fresh.

Bootstrap: a lookup of our own id, started from nodes that were saved or named, and
again with the well-known routers if that was not enough, or beside it if nobody has
answered after a moment: what was saved may be long gone. Repeated with growing waits
while the table is nearly empty. Routers answer the whole world, so they never enter the
table (BEP 5).

Steady state: every few seconds at most one stale node is asked for nodes near itself,
which tests it and finds others in one; nodes that were saved, or asked us something and
would have a place, are pinged; and a bucket without change for 15 minutes gets a lookup.

Limit: what an idle node sends is one query and two pings each ``UPKEEP_INTERVAL``, and
one lookup a minute. A nearly empty table is filled sooner, by two pings each
``FILL_INTERVAL``, since in a small network nobody else knows whom to name.

Source: BEP 5.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from bittern.codec.krpc_message import Arguments, FindNode, Ping, Response
from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcFailure, QueryTimeout
from bittern.dht.limits import (
    BOOTSTRAP_INTERVAL,
    FILL_INTERVAL,
    MAX_BOOTSTRAP_INTERVAL,
    MAX_SUGGESTIONS,
    MIN_TABLE_NODES,
    PINGS_PER_UPKEEP,
    REFRESH_INTERVAL,
    SILENCE_BEFORE_ROUTERS,
    UPKEEP_INTERVAL,
)
from bittern.dht.routing import RoutingTable
from bittern.dht.transactions import Waiter

Start = tuple[bytes, Endpoint]
"""A node to start from: its id, empty when it is not known, and where it is."""


class Work(Protocol):
    """What upkeep needs done."""

    def ask(self, endpoint: Endpoint, arguments: Arguments, waiter: Waiter, *, now: float) -> None:
        """Send a query; ``waiter`` hears what becomes of it."""

    def refresh(
        self,
        target: bytes,
        starts: Iterable[Start],
        on_end: Callable[[float], None] | None,
        *,
        now: float,
    ) -> None:
        """Look ``target`` up for the table's sake; ``on_end`` hears the instant of its end."""


class Listener(Protocol):
    """Who waits for the bootstrap."""

    def bootstrapped(self, *, now: float) -> None:
        """Hear that a try to bootstrap is over, whatever came of it."""


class Silent:
    """A waiter that leaves everything to the node's own bookkeeping."""

    is_hurried: bool = False

    def answered(self, response: Response, /, *, now: float) -> None:
        """Do nothing."""

    def failed(self, error: KrpcFailure | QueryTimeout, /, *, now: float) -> None:
        """Do nothing."""

    def slowed(self, *, now: float) -> None:
        """Do nothing."""


_SILENT = Silent()


class Upkeep:
    """
    Bootstrap and maintenance of one table.

    Args:
        listener: hears when a try to bootstrap is over.
        work: sends queries and runs lookups.
        table: the node's table.
        rng: source of chance.
        now: monotonic seconds; the first ``tick`` is due then.
    """

    def __init__(
        self,
        listener: Listener,
        work: Work,
        table: RoutingTable,
        *,
        rng: random.Random,
        now: float,
    ) -> None:
        self.next_tick_at = now
        self._listener = listener
        self._work = work
        self._table = table
        self._rng = rng
        self._routers: set[Endpoint] = set()
        self._starts: dict[Endpoint, bytes] = {}
        self._suggestions: dict[Endpoint, None] = {}
        self._is_bootstrapping = False
        self._num_bootstraps = 0
        self._has_tried_routers = False
        self._bootstrap_at = now
        self._wait = BOOTSTRAP_INTERVAL
        self._refresh_at = now + REFRESH_INTERVAL
        self._ticked_at = now

    # --- what others tell us -----------------------------------------------------------------

    def add_nodes(self, nodes: Iterable[Start], routers: Iterable[Endpoint], *, now: float) -> None:
        """Take nodes that were saved or named, and routers for when those are not enough."""
        for node_id, endpoint in nodes:
            if len(self._starts) < MAX_SUGGESTIONS:
                self._starts.setdefault(endpoint, node_id)
            self.suggest(endpoint)
        self._routers.update(routers)
        if self._needs_nodes and not self._is_bootstrapping:
            self._bootstrap_at = self.next_tick_at = now

    def suggest(self, endpoint: Endpoint) -> None:
        """Take a node that would have a place in the table, to ping it some time."""
        if len(self._suggestions) < MAX_SUGGESTIONS:
            self._suggestions[endpoint] = None
            if self._needs_nodes:
                self.next_tick_at = min(self.next_tick_at, self._ticked_at + FILL_INTERVAL)

    @property
    def _needs_nodes(self) -> bool:
        return self._table.num_good() < MIN_TABLE_NODES

    # --- time --------------------------------------------------------------------------------

    def tick(self, *, now: float) -> None:
        """Do what is due; call at ``next_tick_at``."""
        self._ticked_at = now
        self.next_tick_at = now + UPKEEP_INTERVAL
        if self._is_bootstrapping:
            if not (self._has_tried_routers or self._table.num_good()) and self._routers:
                self._has_tried_routers = True
                self._bootstrap((), now)
            return
        if self._needs_nodes and now >= self._bootstrap_at:
            self._has_tried_routers = not self._starts
            self._bootstrap(self._starts, now)
            self.next_tick_at = now + SILENCE_BEFORE_ROUTERS
            return
        self._ask_stalest(now)
        self._ping_suggestions(now)
        if now >= self._refresh_at and not self._needs_nodes:
            self._refresh_at = now + REFRESH_INTERVAL
            target = self._table.stale_target(self._rng, now=now)
            if target is not None:
                self._work.refresh(target, (), None, now=now)

    def _bootstrap(self, nodes: Iterable[Endpoint], now: float) -> None:
        """Look ourselves up from some of the nodes we know, and from routers if it is time."""
        self._is_bootstrapping = True
        self._num_bootstraps += 1
        starts = [(self._starts[endpoint], endpoint) for endpoint in nodes]
        if self._has_tried_routers:
            routers = sorted(self._routers)
            self._rng.shuffle(routers)
            starts += [(b"", endpoint) for endpoint in routers]
        ended = partial(self._bootstrap_ended, self._num_bootstraps)
        self._work.refresh(self._table.own_id, starts, ended, now=now)

    def _bootstrap_ended(self, number: int, now: float) -> None:
        if number != self._num_bootstraps:
            return  # another one was begun beside it
        self._is_bootstrapping = False
        if self._needs_nodes and not self._has_tried_routers and self._routers:
            self._has_tried_routers = True
            self._bootstrap(self._starts, now)
            return
        if self._needs_nodes:
            self._bootstrap_at = now + self._wait
            self._wait = min(2 * self._wait, MAX_BOOTSTRAP_INTERVAL)
        else:
            self._wait = BOOTSTRAP_INTERVAL
        self._listener.bootstrapped(now=now)

    def _ask_stalest(self, now: float) -> None:
        node = self._table.stalest(now=now)
        if node is not None:
            # An id near its own: the answer names its neighbours.
            target = node.node_id[:4] + self._rng.randbytes(16)
            self._work.ask(node.endpoint, FindNode(target), _SILENT, now=now)

    def _ping_suggestions(self, now: float) -> None:
        for _ in range(min(PINGS_PER_UPKEEP, len(self._suggestions))):
            endpoint = next(iter(self._suggestions))
            del self._suggestions[endpoint]
            if self._table.get(endpoint) is None:
                self._work.ask(endpoint, Ping(), _SILENT, now=now)
        if self._suggestions and self._needs_nodes:
            self.next_tick_at = now + FILL_INTERVAL
