"""
How a node gets into the network and keeps its table fresh.

Bootstrap: a lookup of our own id, started from nodes that were saved or named, and
again with the well-known routers if that was not enough, or beside it if nobody has
answered after a moment: what was saved may be long gone. Repeated with growing waits
while the table is nearly empty. Routers answer the whole world, so they never enter the
table (BEP 5).

Steady state: every few seconds at most one stale node is examined, and four newcomers:
nodes of the table that never were, then nodes that were saved, asked us something, or
were named in an examination and would have a place. To examine a node is to ask it for
nodes near itself: whether it is there, whether what it says can be true (``trust``), and
whom else to examine. A bucket without change for 15 minutes gets a lookup; so does our
own id, first a minute after the bootstrap and then ever more rarely, because others judge
us by how well we know our neighbours.

Limit: what an idle node sends is five queries each ``UPKEEP_INTERVAL``, and one lookup a
minute. A nearly empty table is filled sooner, by four queries each ``FILL_INTERVAL``, since
in a small network nobody else knows whom to name.

Source: BEP 5.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from bittern.codec.krpc_message import Arguments, FindNode, Response
from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcFailure, QueryTimeout
from bittern.dht.address import (
    PACKED_LENGTH,
    Reach,
    pack_host,
    reach_of,
    read_nodes,
    unpack_endpoint,
)
from bittern.dht.limits import (
    BOOTSTRAP_INTERVAL,
    BUCKET_SIZE,
    EXAMS_PER_UPKEEP,
    FILL_INTERVAL,
    FILL_SIZE,
    FRESH_LIFETIME,
    IDLE_INTERVAL,
    MAX_BOOTSTRAP_INTERVAL,
    MAX_SUGGESTIONS,
    MIN_TABLE_NODES,
    REFRESH_INTERVAL,
    SILENCE_BEFORE_ROUTERS,
    SUGGESTIONS_PER_EXAM,
    UPKEEP_INTERVAL,
)
from bittern.dht.routing import RoutingTable
from bittern.dht.transactions import Waiter
from bittern.dht.trust import Trust, claimed_size

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


class _Exam:
    """Waits for what a node says about its own surroundings."""

    __slots__ = ("_endpoint", "_target", "_upkeep")

    is_hurried = False

    def __init__(self, upkeep: Upkeep, endpoint: Endpoint, target: bytes) -> None:
        self._upkeep = upkeep
        self._endpoint = endpoint
        self._target = target

    def answered(self, response: Response, /, *, now: float) -> None:
        self._upkeep.examined(self._endpoint, self._target, response, now=now)

    def failed(self, error: KrpcFailure | QueryTimeout, /, *, now: float) -> None:
        pass

    def slowed(self, *, now: float) -> None:
        pass


class Upkeep:
    """
    Bootstrap and maintenance of one table.

    Args:
        listener: hears when a try to bootstrap is over.
        work: sends queries and runs lookups.
        table: the node's table.
        trust: what others say about the size of the network.
        rng: source of chance.
        now: monotonic seconds; the first ``tick`` is due then.
    """

    def __init__(
        self,
        listener: Listener,
        work: Work,
        table: RoutingTable,
        trust: Trust,
        *,
        rng: random.Random,
        now: float,
    ) -> None:
        self.next_tick_at = now
        self._listener = listener
        self._work = work
        self._table = table
        self._trust = trust
        self._rng = rng
        self._routers: set[Endpoint] = set()
        self._starts: dict[Endpoint, bytes] = {}
        self._suggestions: dict[Endpoint, bytes] = {}
        self._is_bootstrapping = False
        self._num_bootstraps = 0
        self._has_tried_routers = False
        self._bootstrap_at = now
        self._wait = BOOTSTRAP_INTERVAL
        self._refresh_at = now + REFRESH_INTERVAL
        self._own_wait = REFRESH_INTERVAL
        self._own_at = now + REFRESH_INTERVAL
        self._ticked_at = now

    # --- what others tell us -----------------------------------------------------------------

    def add_nodes(self, nodes: Iterable[Start], routers: Iterable[Endpoint], *, now: float) -> None:
        """Take nodes that were saved or named, and routers for when those are not enough."""
        for node_id, endpoint in nodes:
            if len(self._starts) < MAX_SUGGESTIONS:
                self._starts.setdefault(endpoint, node_id)
            self.suggest(node_id, endpoint)
        self._routers.update(routers)
        if self._needs_nodes and not self._is_bootstrapping:
            self._bootstrap_at = self.next_tick_at = now

    def suggest(self, node_id: bytes, endpoint: Endpoint) -> None:
        """Take a node that would have a place in the table, to examine it some time."""
        if len(self._suggestions) < MAX_SUGGESTIONS and self._table.get(endpoint) is None:
            self._suggestions[endpoint] = node_id
            wait = FILL_INTERVAL if self._needs_nodes else UPKEEP_INTERVAL
            self.next_tick_at = min(self.next_tick_at, self._ticked_at + wait)

    def hurry(self, *, now: float) -> None:
        """Look ourselves up again now, as if we had just come."""
        self._wait, self._own_wait = BOOTSTRAP_INTERVAL, REFRESH_INTERVAL
        self._own_at = self._refresh_at = self._bootstrap_at = self.next_tick_at = now

    @property
    def _needs_nodes(self) -> bool:
        return self._table.num_good() < MIN_TABLE_NODES

    # --- time --------------------------------------------------------------------------------

    def tick(self, *, now: float) -> None:
        """Do what is due; call at ``next_tick_at``."""
        self._ticked_at = now
        self.next_tick_at = now + UPKEEP_INTERVAL
        self._table.vetting.forgive(now=now)
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
        is_busy = self._examine_stalest(now)
        is_busy |= self._examine_newcomers(now)
        if now >= self._refresh_at and not self._needs_nodes:
            self._refresh_at = now + REFRESH_INTERVAL
            target = self._refresh_target(now)
            if target is not None:
                self._work.refresh(target, (), None, now=now)
        if self._needs_nodes:
            if self._suggestions:
                self.next_tick_at = now + FILL_INTERVAL
        elif not is_busy:
            self.next_tick_at = now + IDLE_INTERVAL

    def _refresh_target(self, now: float) -> bytes | None:
        if now < self._own_at:
            return self._table.stale_target(self._rng, now=now)
        self._own_wait = min(2 * self._own_wait, FRESH_LIFETIME)
        self._own_at = now + self._own_wait
        return self._table.own_id

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

    # --- examination -------------------------------------------------------------------------

    def _examine_stalest(self, now: float) -> bool:
        node = self._table.stalest(now=now)
        if node is None:
            return False
        self._examine(node.node_id, node.endpoint, now)
        return True

    def _examine_newcomers(self, now: float) -> bool:
        for count in range(EXAMS_PER_UPKEEP):
            newcomer = self._next_newcomer()
            if newcomer is None:
                return count > 0
            self._examine(*newcomer, now)
        return True

    def _next_newcomer(self) -> Start | None:
        table, suggestions = self._table, self._suggestions
        untested = table.vetting.take_untested()
        if untested is not None:
            return untested
        while suggestions:
            endpoint = next(iter(suggestions))
            node_id = suggestions.pop(endpoint)
            if table.get(endpoint) is None and (not node_id or table.has_place(node_id)):
                return node_id, endpoint
        return None

    def _examine(self, node_id: bytes, endpoint: Endpoint, now: float) -> None:
        # An id near its own, or near ours as long as its own is not known.
        target = (node_id or self._table.own_id)[:4] + self._rng.randbytes(16)
        self._work.ask(endpoint, FindNode(target), _Exam(self, endpoint, target), now=now)

    def examined(
        self, endpoint: Endpoint, target: bytes, response: Response, *, now: float
    ) -> None:
        """Judge a node by the neighbours that it names, and take them as suggestions."""
        table, trust = self._table, self._trust
        if response.node_id[:4] != target[:4]:
            return
        packed = pack_host(endpoint.host)
        nodes = (response.nodes if len(packed) == PACKED_LENGTH else response.nodes6) or b""
        size = claimed_size(target, nodes, table.info_length)
        if len(nodes) >= BUCKET_SIZE * table.info_length:
            trust.note_size(size)
            if trust.take_growth():
                table.vetting.retest(trust.is_credible)
        if not trust.is_credible(size):
            table.drop_liar(endpoint, now=now)
            return
        if table.get(endpoint) is not None:
            table.vetting.note_claim(response.node_id, endpoint, size)
        num_suggested = 0
        is_local = reach_of(packed) is Reach.LOCAL
        for node_id, compact in read_nodes(nodes, len(packed), from_local=is_local):
            if (
                num_suggested < SUGGESTIONS_PER_EXAM
                and compact not in table.vetting.suspects
                and table.has_place(node_id, far_size=FILL_SIZE)
            ):
                self.suggest(node_id, unpack_endpoint(compact))
                num_suggested += 1
