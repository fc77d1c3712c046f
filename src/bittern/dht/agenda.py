"""
Operations at work, and those that wait for a turn.

A bounded number runs at the same time (Limit: N2); the rest waits, and everything waits
until the node has tried to bootstrap, since a lookup without nodes finds nothing. The
table's own refreshes neither wait nor count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from bittern.codec.krpc_message import Arguments, FindNode, Want
from bittern.core.endpoint import Endpoint
from bittern.core.errors import MisuseError
from bittern.dht.address import pack_endpoint
from bittern.dht.events import DhtEvent
from bittern.dht.exchange import Exchange
from bittern.dht.limits import BUCKET_SIZE, MAX_LOOKUPS, MAX_QUEUED_LOOKUPS
from bittern.dht.lookup import Lookup
from bittern.dht.operations import Operation, Refresh
from bittern.dht.routing import RoutingTable
from bittern.dht.transactions import Waiter
from bittern.dht.trust import Trust


class Agenda:
    """
    What a node has been asked to do.

    Args:
        exchange: the node's traffic.
        table: where lookups start.

    Attributes:
        is_ready: bootstrap has been tried.
        wants_both: refreshes ask for nodes of both families (BEP 32).
        trust: what others say about the size of the network.
    """

    def __init__(self, exchange: Exchange, table: RoutingTable) -> None:
        self.is_ready = False
        self.wants_both = False
        self._exchange = exchange
        self._table = table
        self._active: dict[int, Operation] = {}
        self._waiting: deque[Operation] = deque()
        self._events: list[DhtEvent] = []
        self.trust = Trust()

    def __len__(self) -> int:
        return len(self._active) + len(self._waiting)

    # --- for the node ------------------------------------------------------------------------

    def start(self, operation: Operation, *, now: float) -> None:
        """
        Begin an operation, now or when it is its turn.

        Raises:
            MisuseError: 10,000 are waiting already.
        """
        if len(self._waiting) >= MAX_QUEUED_LOOKUPS:
            raise MisuseError(f"more than {MAX_QUEUED_LOOKUPS} lookups are waiting")
        self._waiting.append(operation)
        self.advance(now=now)

    def advance(self, *, now: float) -> None:
        """Begin what may begin."""
        while self._waiting and self.is_ready and len(self._active) < MAX_LOOKUPS:
            operation = self._waiting.popleft()
            self._active[operation.request_id] = operation
            self._begin(operation, now)

    def cancel(self, request_id: int, *, now: float) -> None:
        """Forget an operation; no event follows. Those that have ended are ignored."""
        operation = self._active.pop(request_id, None)
        if operation is not None:
            operation.cancel()
        self._waiting = deque(each for each in self._waiting if each.request_id != request_id)
        self.advance(now=now)

    def new_lookup(self, target: bytes) -> Lookup:
        """Return a lookup of ``target`` that nobody has started yet."""
        return Lookup(
            target,
            self._table.own_id,
            num_nodes=self.estimate_nodes(),
            suspects=self._table.vetting.suspects,
        )

    def estimate_nodes(self) -> int:
        """Return how many nodes the network probably has."""
        return self.trust.estimate_nodes(self._table.estimate_nodes())

    def take_events(self) -> list[DhtEvent]:
        """Return and forget what happened since the last call."""
        events, self._events = self._events, []
        return events

    def _begin(self, operation: Operation, now: float) -> None:
        lookup = operation.lookup
        number = int.from_bytes(lookup.target, "big")
        for node in self._table.closest(number, 2 * BUCKET_SIZE):
            lookup.add_start(node.node_id, node.compact[len(node.node_id) :])
        operation.advance(now=now)

    # --- for operations and upkeep -----------------------------------------------------------

    def ask(self, endpoint: Endpoint, arguments: Arguments, waiter: Waiter, *, now: float) -> None:
        """Send a query; ``waiter`` hears what becomes of it."""
        self._exchange.ask(endpoint, arguments, waiter, now=now)

    def emit(self, event: DhtEvent) -> None:
        """Keep an event for the owner."""
        self._events.append(event)

    def operation_ended(self, operation: Operation, *, now: float) -> None:
        """Forget an operation, which has told the owner all it has to tell."""
        lookup, table = operation.lookup, self._table
        size = lookup.estimate_nodes()
        if size:
            self.trust.note_size(size)
        for liar in lookup.liars():
            table.drop_liar(liar.endpoint, now=now)
        table.note_lookup(int.from_bytes(lookup.target, "big"), lookup.covered_distance, now=now)
        if self._active.pop(operation.request_id, None) is not None:
            self.advance(now=now)

    def refresh(
        self,
        target: bytes,
        starts: Iterable[tuple[bytes, Endpoint]],
        on_end: Callable[[float], None] | None,
        *,
        now: float,
    ) -> None:
        """Look ``target`` up for the table's sake; ``on_end`` hears the instant of its end."""
        want = Want.V4 | Want.V6 if self.wants_both else Want.NONE
        lookup = self.new_lookup(target)
        for node_id, endpoint in starts:
            lookup.add_start(node_id, pack_endpoint(endpoint))
        self._begin(Refresh(self, lookup, FindNode(target, want), on_end), now)
