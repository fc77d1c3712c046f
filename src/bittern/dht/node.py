"""
A DHT node of one address family, without I/O.

Feed it datagrams and time, send what it wants sent, read its events:

    node.receive_datagram(data, source, now=now)
    for data, target in node.datagrams_to_send(): ...
    node.next_timer() -> node.handle_timer(now=...)

Verbs return a request id at once; events carry it, and exactly one of them ends the
request. Requests made while the node bootstraps wait until it has tried.

One node serves one socket. A host with IPv4 and IPv6 has two, each with its own id,
because an id depends on the address (BEP 42) and several addresses of one host should
look like several nodes (BEP 45). ``pair`` makes the two name each other's nodes (BEP 32).

Datagrams never raise; what is unusable is counted in ``counters`` and gives no event,
since anybody can send any amount of it.

Sources: BEP 5, 32, 33, 42, 43, 44, 45, 51. Limits: N1 to N4.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bittern.codec.bencode import Value
from bittern.codec.krpc_message import AnnouncePeer, FindNode, Get, GetPeers, Ping, SampleInfohashes
from bittern.core.endpoint import Endpoint
from bittern.core.errors import MisuseError
from bittern.core.ids import InfoHash, NodeId
from bittern.dht.address import Reach, format_packed, network_of, pack_host, reach_of
from bittern.dht.agenda import Agenda
from bittern.dht.events import AddressLearned, Bootstrapped, DhtEvent
from bittern.dht.exchange import DhtCounters, Exchange
from bittern.dht.guard import Guard
from bittern.dht.items import ItemStore, Verify
from bittern.dht.limits import SWEEP_INTERVAL, DhtConfig
from bittern.dht.lookup import Lookup
from bittern.dht.operations import ItemOperation, MakeItem, Operation, PeersOperation
from bittern.dht.questions import Question, SampleQuestion
from bittern.dht.routing import RoutingTable
from bittern.dht.security import is_verified, make_node_id
from bittern.dht.state import SavedState, write_state
from bittern.dht.store import PeerStore
from bittern.dht.tokens import TokenMint
from bittern.dht.transactions import Transactions
from bittern.dht.upkeep import Start, Upkeep
from bittern.dht.voting import AddressVote


@dataclass(frozen=True, slots=True)
class DhtStatus:
    """A node at one instant; ``host`` is our address from outside, None while unknown."""

    node_id: NodeId
    host: str | None
    is_ready: bool
    num_nodes: int
    num_nodes_estimate: int
    num_torrents: int
    num_peers: int
    num_items: int
    num_lookups: int


class DhtNode:
    """
    The machine described in the module's text.

    Args:
        random_bytes: gives that many unpredictable bytes, as ``secrets.token_bytes``.
        rng: source of chance that need not be secret.
        verify: checks an Ed25519 signature (BEP 44).
        now: monotonic seconds; the first ``handle_timer`` is due then.
        is_ipv6: address family.
        config: what may be set.
        state: what ``save`` gave in an earlier run; whatever is wrong in it is ignored.
    """

    def __init__(
        self,
        *,
        random_bytes: Callable[[int], bytes],
        rng: random.Random,
        verify: Verify,
        now: float,
        is_ipv6: bool = False,
        config: DhtConfig | None = None,
        state: Value | None = None,
    ) -> None:
        config = config or DhtConfig()
        saved = SavedState.read(state, is_ipv6=is_ipv6)
        self.is_ipv6 = is_ipv6
        self.table = RoutingTable(
            saved.node_id or make_node_id(random_bytes, saved.address), is_ipv6=is_ipv6, now=now
        )
        self.peers = PeerStore(
            rng=rng,
            is_ipv6=is_ipv6,
            now=now,
            max_torrents=config.max_torrents,
            max_peers=config.max_peers,
        )
        self.items = ItemStore(rng=rng, max_items=config.max_items)
        guard = Guard(
            upload_rate=config.max_upload_rate, query_rate=config.queries_per_address, now=now
        )
        self._random_bytes = random_bytes
        self._verify = verify
        self._exchange = Exchange(
            table=self.table,
            guard=guard,
            transactions=Transactions(random_bytes),
            tokens=TokenMint(random_bytes, now=now),
            peers=self.peers,
            items=self.items,
            verify=verify,
            listener=self,
            is_ipv6=is_ipv6,
            is_read_only=config.is_read_only,
            now=now,
        )
        self._agenda = Agenda(self._exchange, self.table)
        self._upkeep = Upkeep(self, self._agenda, self.table, self._agenda.trust, rng=rng, now=now)
        self._vote = AddressVote(saved.address)
        self._last_request_id = 0
        self._sweep_at = now + SWEEP_INTERVAL
        self.add_nodes(saved.nodes, now=now)

    def __repr__(self) -> str:
        return f"<DhtNode {self.table.own_id.hex()[:8]}, {len(self.table)} nodes>"

    # --- datagrams and time ------------------------------------------------------------------

    def receive_datagram(self, data: bytes, source: Endpoint, *, now: float) -> None:
        """Take one datagram; never raises, whatever it holds."""
        self._exchange.receive_datagram(data, source, now=now)

    @property
    def receiver(self) -> Callable[..., None]:
        """What ``receive_datagram`` comes to, for a shell with a hundred thousand a second."""
        return self._exchange.receive_datagram

    def handle_timer(self, *, now: float) -> None:
        """Do what is due; call at ``next_timer`` or any time later."""
        self._exchange.expire(now=now)
        if now >= self._upkeep.next_tick_at:
            self._upkeep.tick(now=now)
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_INTERVAL
            self.peers.expire(now=now)
            self.items.expire(now=now)

    def next_timer(self) -> float:
        """Return the instant of the next ``handle_timer``; it changes with every call."""
        due_at = self._exchange.next_timer()
        at = min(self._upkeep.next_tick_at, self._sweep_at)
        return at if due_at is None else min(at, due_at)

    def events(self) -> list[DhtEvent]:
        """Return and forget what happened since the last call."""
        return self._agenda.take_events()

    def datagrams_to_send(self) -> list[tuple[bytes, Endpoint]]:
        """Return and forget the datagrams to send, in order."""
        return self._exchange.datagrams_to_send()

    # --- nodes -------------------------------------------------------------------------------

    def add_nodes(
        self, nodes: Iterable[Start], *, now: float, routers: Iterable[Endpoint] = ()
    ) -> None:
        """
        Take nodes that are known from elsewhere; a node with an empty table bootstraps.

        Args:
            nodes: ids, empty where unknown, and endpoints: of the user, of a torrent's
                ``nodes``, of a peer's port message.
            now: monotonic seconds.
            routers: well-known nodes, asked only when there are too few others, and
                never taken into the table.
        """
        routers = frozenset(routers)
        if routers:
            self._exchange.routers |= routers
        self._upkeep.add_nodes(nodes, routers, now=now)

    def refresh(self, *, now: float) -> None:
        """Let the nodes near us be asked again, or bootstrap at once where there are too few."""
        self._upkeep.hurry(now=now)

    def pair(self, other: DhtNode) -> None:
        """Join with the node of this host's other family, for both ways (BEP 32)."""
        if other.is_ipv6 == self.is_ipv6:
            raise MisuseError("two nodes of the same family cannot be paired")
        for one, two in ((self, other), (other, self)):
            one._exchange.responder.other_table = two.table
            one._agenda.wants_both = True

    # --- verbs -------------------------------------------------------------------------------

    def find_nodes(self, target: bytes, *, now: float) -> int:
        """Find the nodes closest to ``target``, 20 bytes; ends in ``NodesFound``."""
        return self._start(
            lambda request_id: Operation(
                self._agenda, request_id, self._lookup(target), FindNode(target)
            ),
            now,
        )

    def get_peers(
        self, info_hash: InfoHash, *, now: float, scrape: bool = False, noseed: bool = False
    ) -> int:
        """
        Find peers of a torrent; ``PeersFound`` as they come, then ``PeersLookupEnded``.

        Args:
            info_hash: of the torrent.
            now: monotonic seconds.
            scrape: also estimate how many there are (BEP 33).
            noseed: ask for peers that are no seeds, as we are one.
        """
        arguments = GetPeers(info_hash, noseed=noseed, scrape=scrape)
        return self._start_peers(arguments, None, now)

    def announce(
        self,
        info_hash: InfoHash,
        port: int | None,
        *,
        now: float,
        is_seed: bool = False,
        scrape: bool = False,
    ) -> int:
        """
        Find peers of a torrent, and become one in the eyes of the nodes closest to it.

        Args:
            info_hash: of the torrent.
            port: where we accept peers; None for the port that the nodes see this
                node's datagrams come from (``implied_port``), right behind a NAT.
            now: monotonic seconds.
            is_seed: we have everything.
            scrape: also estimate how many there are (BEP 33).
        """
        if port is not None and not 0 < port < 65536:
            raise MisuseError(f"no port to announce: {port}")
        arguments = GetPeers(info_hash, noseed=is_seed, scrape=scrape)
        return self._start_peers(
            arguments, lambda token: AnnouncePeer(info_hash, port, token, is_seed), now
        )

    def get_item(self, target: bytes, *, now: float, salt: bytes = b"") -> int:
        """
        Find an item; ``ItemFound`` for ever newer ones, then ``ItemLookupEnded``.

        Args:
            target: 20 bytes, as ``Item.target``.
            now: monotonic seconds.
            salt: of a mutable item; without it its signature cannot be checked.
        """
        return self._start_item(target, salt, None, False, now)

    def put_item(
        self,
        target: bytes,
        make: MakeItem,
        *,
        now: float,
        salt: bytes = b"",
        uses_cas: bool = False,
    ) -> int:
        """
        Store an item; ``ItemFound`` for what is there, then ``ItemLookupEnded``.

        Args:
            target: 20 bytes, that of the item to be made.
            make: called once with the newest item found, or None; returns what to
                store, or None to store nothing.
            now: monotonic seconds.
            salt: of a mutable item.
            uses_cas: let nodes refuse if the item found was replaced meanwhile.
        """
        return self._start_item(target, salt, make, uses_cas, now)

    def ping(self, endpoint: Endpoint, *, now: float) -> int:
        """Ask one node whether it is there; ends in ``Ponged`` or ``QueryFailed``."""
        request_id = self._next_id()
        question = Question(request_id, endpoint, self._agenda.emit, now=now)
        self._exchange.ask(endpoint, Ping(), question, now=now)
        return request_id

    def sample(self, endpoint: Endpoint, target: bytes, *, now: float) -> int:
        """
        Ask one node for info hashes that it stores peers of (BEP 51).

        Args:
            endpoint: whom to ask; not before the interval it said last time is over.
            target: 20 bytes; nodes near it are named too.
            now: monotonic seconds.

        Ends in ``Sampled`` or ``QueryFailed``.
        """
        request_id = self._next_id()
        question = SampleQuestion(request_id, endpoint, self._agenda.emit, now=now)
        self._exchange.ask(endpoint, SampleInfohashes(target), question, now=now)
        return request_id

    def cancel(self, request_id: int, *, now: float) -> None:
        """Forget a lookup: no event follows. Requests that have ended are ignored."""
        self._agenda.cancel(request_id, now=now)

    # --- state -------------------------------------------------------------------------------

    @property
    def counters(self) -> DhtCounters:
        """What has happened so far."""
        return self._exchange.counters

    @property
    def status(self) -> DhtStatus:
        """The node as it stands."""
        address = self._vote.winner
        return DhtStatus(
            node_id=self.table.own_id,
            host=None if address is None else format_packed(address),
            is_ready=self._agenda.is_ready,
            num_nodes=len(self.table),
            num_nodes_estimate=self._agenda.estimate_nodes(),
            num_torrents=self.peers.num_torrents,
            num_peers=self.peers.num_peers,
            num_items=len(self.items),
            num_lookups=len(self._agenda),
        )

    def save(self) -> dict[bytes, Value]:
        """Return what the next run should know, a bencodable value."""
        return write_state(self.table.own_id, self._vote.winner, self.table)

    # --- what the parts tell -----------------------------------------------------------------

    def node_suggested(self, node_id: bytes, endpoint: Endpoint) -> None:
        """Hear of a node that asked us something and would have a place in the table."""
        self._upkeep.suggest(node_id, endpoint)

    def address_told(self, source: Endpoint, external: bytes, *, now: float) -> None:
        """Hear which address of ours, compact, a node that answered us sees."""
        packed = external[:-2]
        if len(packed) != (16 if self.is_ipv6 else 4) or reach_of(packed) is not Reach.PUBLIC:
            return
        if not self._vote.cast(network_of(pack_host(source.host)), packed):
            return
        own_id = self.table.own_id
        if not is_verified(own_id, packed):
            # BEP 42: a node whose id does not fit its address gets a new one.
            own_id = make_node_id(self._random_bytes, packed)
            self.table.move_to(own_id, now=now)
            self._exchange.responder.own_id_changed()
            self._agenda.refresh(own_id, (), None, now=now)
        self._agenda.emit(AddressLearned(format_packed(packed), own_id))

    def bootstrapped(self, *, now: float) -> None:
        """Hear that a try to bootstrap is over, whatever came of it."""
        self._agenda.is_ready = True
        self._agenda.emit(Bootstrapped(len(self.table)))
        self._agenda.advance(now=now)

    # --- inside ------------------------------------------------------------------------------

    def _next_id(self) -> int:
        self._last_request_id += 1
        return self._last_request_id

    def _lookup(self, target: bytes) -> Lookup:
        if len(target) != NodeId.SIZE:
            raise MisuseError(f"a target has 20 bytes, not {len(target)}")
        return self._agenda.new_lookup(target)

    def _start(self, make: Callable[[int], Operation], now: float) -> int:
        operation = make(self._next_id())
        self._agenda.start(operation, now=now)
        return operation.request_id

    def _start_peers(
        self,
        arguments: GetPeers,
        announce: Callable[[bytes], AnnouncePeer] | None,
        now: float,
    ) -> int:
        lookup = self._lookup(arguments.info_hash)
        return self._start(
            lambda request_id: PeersOperation(
                self._agenda, request_id, lookup, arguments, announce
            ),
            now,
        )

    def _start_item(
        self, target: bytes, salt: bytes, make: MakeItem | None, uses_cas: bool, now: float
    ) -> int:
        lookup = self._lookup(target)
        return self._start(
            lambda request_id: ItemOperation(
                self._agenda,
                request_id,
                lookup,
                Get(target),
                salt=salt,
                verify=self._verify,
                make=make,
                uses_cas=uses_cas,
            ),
            now,
        )
