"""
What a node is asked to do by its owner: lookups, and writing where they end.

An operation asks nodes as its ``Lookup`` chooses, draws its own results from the
answers, may then write to the nodes closest to the target, and ends in one event.

Sources: BEP 5 (get_peers, announce_peer), BEP 33 (scrape), BEP 44 (get, put).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bittern.codec.krpc_message import (
    AnnouncePeer,
    Arguments,
    FindNode,
    Get,
    GetPeers,
    Put,
    Response,
)
from bittern.core.endpoint import COMPACT_LENGTH_V6, Endpoint
from bittern.core.errors import KrpcFailure, QueryTimeout
from bittern.core.ids import NodeId
from bittern.dht.address import (
    PACKED_LENGTH,
    PACKED_LENGTH_V6,
    is_plausible,
    read_nodes,
    unpack_endpoint,
)
from bittern.dht.bloom import estimate_members, join_filters, make_filter, may_contain
from bittern.dht.events import (
    DhtEvent,
    FoundNode,
    ItemFound,
    ItemLookupEnded,
    NodesFound,
    OtherFamilyHeard,
    PeersFound,
    PeersLookupEnded,
)
from bittern.dht.items import Item, Verify, is_genuine
from bittern.dht.lookup import Candidate, Lookup
from bittern.dht.transactions import Waiter

MakeItem = Callable[[Item | None], Item | None]
"""Gets the newest item found, or None, and returns what to store, or None for nothing."""


class Host(Protocol):
    """What an operation asks of its node."""

    def ask(self, endpoint: Endpoint, arguments: Arguments, waiter: Waiter, *, now: float) -> None:
        """Send a query; ``waiter`` hears what becomes of it."""

    def emit(self, event: DhtEvent) -> None:
        """Tell the owner."""

    def operation_ended(self, operation: Operation, *, now: float) -> None:
        """Forget an operation, which has told the owner all it has to tell."""


class Operation:
    """
    A lookup that ends in ``NodesFound``, and the base of those that end in more.

    Args:
        host: the node.
        request_id: marks all events.
        lookup: with the nodes to start from.
        arguments: what to ask every node.
    """

    def __init__(self, host: Host, request_id: int, lookup: Lookup, arguments: Arguments) -> None:
        self.request_id = request_id
        self.lookup = lookup
        self._host = host
        self._arguments = arguments
        self._num_writes = 0
        self._num_stored = 0
        self._refusals: list[KrpcFailure] = []
        self._is_writing = False
        self._is_over = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.request_id}, {self.lookup!r}>"

    def advance(self, *, now: float) -> None:
        """Ask whoever is to be asked now, or go on to the end."""
        while not self._is_over and not self._is_writing:
            candidate = self.lookup.next_query()
            if candidate is None:
                if self.lookup.is_done:
                    self._write(now)
                return
            self._host.ask(candidate.endpoint, self._arguments, _Step(self, candidate), now=now)

    def _take(self, _candidate: Candidate, _response: Response, /) -> bool:
        """Draw results from an answer; True if no further one is needed."""
        return False

    def _writes(self) -> list[tuple[Endpoint, Arguments]]:
        """Return what to write to whom after the lookup."""
        return []

    def _result(self) -> DhtEvent:
        """Return the event that ends the operation."""
        return NodesFound(self.request_id, self.nodes(), self.lookup.num_queries)

    def nodes(self) -> tuple[FoundNode, ...]:
        """Return the nodes closest to the target that answered."""
        return tuple(
            FoundNode(NodeId(each.node_id), each.endpoint) for each in self.lookup.closest()
        )

    def _write(self, now: float) -> None:
        self._is_writing = True
        writes = self._writes()
        self._num_writes = len(writes)
        if not writes:
            self._end(now)
        for endpoint, arguments in writes:
            self._host.ask(endpoint, arguments, _Write(self), now=now)

    def note_written(self, error: KrpcFailure | QueryTimeout | None, *, now: float) -> None:
        """Note what became of one write."""
        if self._is_over:
            return
        if error is None:
            self._num_stored += 1
        elif isinstance(error, KrpcFailure):
            self._refusals.append(error)
        self._num_writes -= 1
        if not self._num_writes:
            self._end(now)

    def take_answer(self, candidate: Candidate, response: Response, *, now: float) -> None:
        """Take one answer of the lookup."""
        if self._is_over:
            return
        is_ipv6 = len(candidate.compact) == COMPACT_LENGTH_V6
        nodes = (response.nodes6 if is_ipv6 else response.nodes) or b""
        candidate = self.lookup.answered(candidate, response.node_id, nodes, response.token)
        if self._take(candidate, response):
            self._end(now)
        else:
            self.advance(now=now)

    def take_failure(self, candidate: Candidate, *, now: float) -> None:
        """Note that a node of the lookup refused or stayed silent."""
        if not self._is_over:
            self.lookup.failed(candidate)
            self.advance(now=now)

    def take_slow(self, candidate: Candidate, *, now: float) -> None:
        """Note that a node of the lookup takes long."""
        if not self._is_over:
            self.lookup.became_slow(candidate)
            self.advance(now=now)

    def _end(self, now: float) -> None:
        self._is_over = True
        self._host.emit(self._result())
        self._host.operation_ended(self, now=now)

    def cancel(self) -> None:
        """Stop without an event; answers that still come are ignored."""
        self._is_over = True


class _Step:
    """Waits for one node of a lookup."""

    __slots__ = ("_candidate", "_operation")

    is_hurried = True

    def __init__(self, operation: Operation, candidate: Candidate) -> None:
        self._operation = operation
        self._candidate = candidate

    def answered(self, response: Response, /, *, now: float) -> None:
        self._operation.take_answer(self._candidate, response, now=now)

    def failed(self, _error: KrpcFailure | QueryTimeout, /, *, now: float) -> None:
        self._operation.take_failure(self._candidate, now=now)

    def slowed(self, *, now: float) -> None:
        self._operation.take_slow(self._candidate, now=now)


class _Write:
    """Waits for one node that was given something to store."""

    __slots__ = ("_operation",)

    is_hurried = True

    def __init__(self, operation: Operation) -> None:
        self._operation = operation

    def answered(self, _response: Response, /, *, now: float) -> None:
        self._operation.note_written(None, now=now)

    def failed(self, error: KrpcFailure | QueryTimeout, /, *, now: float) -> None:
        self._operation.note_written(error, now=now)

    def slowed(self, *, now: float) -> None:
        pass


class Refresh(Operation):
    """
    A lookup for the table's sake, which no owner asked for.

    Args:
        on_end: hears the instant of the end.

    If both families are asked for, the other one's nodes are passed on (BEP 32).
    """

    def __init__(
        self,
        host: Host,
        lookup: Lookup,
        arguments: FindNode,
        on_end: Callable[[float], None] | None,
    ) -> None:
        super().__init__(host, 0, lookup, arguments)
        self._on_end = on_end

    def _take(self, candidate: Candidate, response: Response, /) -> bool:
        is_ipv6 = len(candidate.compact) == COMPACT_LENGTH_V6
        others = (response.nodes if is_ipv6 else response.nodes6) or b""
        packed_length = PACKED_LENGTH if is_ipv6 else PACKED_LENGTH_V6
        heard = tuple(
            unpack_endpoint(compact)
            for _, compact in read_nodes(others, packed_length, from_local=candidate.is_local)
        )
        if heard:
            self._host.emit(OtherFamilyHeard(heard))
        return False

    def _end(self, now: float) -> None:
        self._is_over = True
        self._host.operation_ended(self, now=now)
        if self._on_end is not None:
            self._on_end(now)


class PeersOperation(Operation):
    """
    Finds the peers of a torrent, and announces us if asked to.

    Args:
        announce: makes the announce for a write token; None to announce nothing.
    """

    def __init__(
        self,
        host: Host,
        request_id: int,
        lookup: Lookup,
        arguments: GetPeers,
        announce: Callable[[bytes], AnnouncePeer] | None,
    ) -> None:
        super().__init__(host, request_id, lookup, arguments)
        self._announce = announce
        self._wants_filters = arguments.scrape
        self._peers: set[bytes] = set()
        self._seed_filters: list[bytes] = []
        self._peer_filters: list[bytes] = []
        self._unfiltered: set[bytes] = set()

    def _take(self, candidate: Candidate, response: Response, /) -> bool:
        peers = [
            value
            for value in response.values
            if is_plausible(value, from_local=candidate.is_local) and value not in self._peers
        ]
        if peers:
            fresh = dict.fromkeys(peers)
            self._peers.update(fresh)
            endpoints = tuple(map(unpack_endpoint, fresh))
            self._host.emit(PeersFound(self.request_id, endpoints, candidate.endpoint))
        if response.seed_filter is not None and response.peer_filter is not None:
            self._seed_filters.append(response.seed_filter)
            self._peer_filters.append(response.peer_filter)
        else:
            self._unfiltered.update(value[:-2] for value in response.values)
        return False

    def _writes(self) -> list[tuple[Endpoint, Arguments]]:
        if self._announce is None:
            return []
        return [
            (each.endpoint, self._announce(each.token))
            for each in self.lookup.writers()
            if each.token is not None
        ]

    def _result(self) -> DhtEvent:
        num_seeds = num_leechers = None
        if self._wants_filters and (self._seed_filters or self._unfiltered):
            seeds = join_filters(self._seed_filters)
            # BEP 33: who gives no filters is counted here, but nobody twice.
            others = make_filter(each for each in self._unfiltered if not may_contain(seeds, each))
            num_seeds = estimate_members(seeds)
            num_leechers = estimate_members(join_filters([*self._peer_filters, others]))
        return PeersLookupEnded(
            self.request_id,
            len(self._peers),
            num_seeds,
            num_leechers,
            self._num_stored,
            self.nodes(),
            self.lookup.num_queries,
        )


class ItemOperation(Operation):
    """
    Finds an item, and stores one if asked to.

    Args:
        salt: of the mutable item that is looked for; nobody repeats it to us.
        verify: checks an Ed25519 signature.
        make: makes the item to store from the newest one found; None to store nothing.
        uses_cas: store only where the newest item found has not been replaced meanwhile.
    """

    def __init__(
        self,
        host: Host,
        request_id: int,
        lookup: Lookup,
        arguments: Get,
        *,
        salt: bytes,
        verify: Verify,
        make: MakeItem | None,
        uses_cas: bool,
    ) -> None:
        super().__init__(host, request_id, lookup, arguments)
        self._salt = salt
        self._verify = verify
        self._make = make
        self._uses_cas = uses_cas
        self._best: Item | None = None
        self._made: Item | None = None
        self._num_copies = 0
        self._seqs: dict[Candidate, int] = {}

    def _take(self, candidate: Candidate, response: Response, /) -> bool:
        if response.value is None:
            return False
        if response.key is None:
            item = Item(response.value)
        else:
            seq, signature = response.seq or 0, response.signature or b""
            item = Item(response.value, response.key, self._salt, seq, signature)
        best = self._best
        if item != best:
            if best is not None and item.seq <= best.seq:
                return False
            if not is_genuine(item, self.lookup.target, self._verify):
                return False
            self._best = item
            self._num_copies = 0
            self._host.emit(ItemFound(self.request_id, item, candidate.endpoint))
        self._num_copies += 1
        self._seqs[candidate] = item.seq
        # There is only one immutable item of a target.
        return item.key is None and self._make is None

    def _writes(self) -> list[tuple[Endpoint, Arguments]]:
        if self._make is None:
            return []
        item = self._made = self._make(self._best)
        if item is None:
            return []
        writes: list[tuple[Endpoint, Arguments]] = []
        for each in self.lookup.writers():
            assert each.token is not None, "whoever may be written to has given one"
            # BEP 44: no cas for a node that had nothing.
            cas = self._seqs.get(each) if self._uses_cas else None
            is_mutable = item.key is not None
            put = Put(
                token=each.token,
                value=item.value,
                key=item.key,
                signature=item.signature if is_mutable else None,
                seq=item.seq if is_mutable else None,
                salt=item.salt,
                cas=cas,
            )
            writes.append((each.endpoint, put))
        return writes

    def _result(self) -> DhtEvent:
        return ItemLookupEnded(
            self.request_id,
            self._made or self._best,
            self._num_copies,
            self._num_stored,
            tuple(self._refusals),
            self.lookup.num_queries,
        )
