"""
Datagrams in and out: who is answered, whose answer it is, who has proven itself.

The bottom of a node. A query goes through ``Guard`` to ``Responder``; an answer ends its
transaction, proves its sender's address, and tells the table. Above it stand
operations and upkeep, which ask through ``ask``.

Invariant: every answer that counts was asked for, at that address, with that
transaction id; nothing else changes the table beyond "heard from again".

Sources: BEP 5, BEP 43, BEP 45. Limits: N1, N2, N4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, assert_never

from bittern.codec.krpc import PLAIN_QUERY, decode
from bittern.codec.krpc_encoding import encode_query
from bittern.codec.krpc_message import Arguments, BadQuery, ErrorReply, Ping, Query, Response
from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcDecodeError, KrpcFailure, QueryTimeout
from bittern.dht.guard import Guard
from bittern.dht.items import ItemStore, Verify
from bittern.dht.limits import LINK_DOWN_FAILURES, MAX_ANSWER_LENGTH, MAX_CHALLENGES
from bittern.dht.responder import Asker, Responder
from bittern.dht.routing import RoutingTable
from bittern.dht.store import PeerStore
from bittern.dht.tokens import TokenMint
from bittern.dht.transactions import Transactions, Waiter


@dataclass(slots=True)
class DhtCounters:
    """
    What has happened so far, in datagrams unless it says otherwise.

    Attributes:
        num_limited: queries without an answer because of a rate (N1).
        num_malformed: what is no message.
        num_unmatched: answers to nothing that we asked.
    """

    num_received: int = 0
    num_sent: int = 0
    sent_length: int = 0
    num_answered: int = 0
    num_limited: int = 0
    num_malformed: int = 0
    num_unmatched: int = 0
    num_asked: int = 0
    num_timeouts: int = 0


class Listener(Protocol):
    """Who is told what an exchange learns."""

    def node_suggested(self, node_id: bytes, endpoint: Endpoint) -> None:
        """Hear of a node that asked us something and would have a place in the table."""

    def address_told(self, source: Endpoint, external: bytes, *, now: float) -> None:
        """Hear which address of ours, compact, a node that answered us sees."""


class Exchange:
    """
    The traffic of one node.

    Args:
        table: our routing table.
        guard: rates and proofs.
        transactions: queries of ours.
        tokens: write tokens.
        peers: announced peers.
        items: stored items.
        verify: checks an Ed25519 signature.
        listener: hears what is learned.
        is_ipv6: our family.
        is_read_only: answer nobody (BEP 43).
        now: monotonic seconds.

    Attributes:
        routers: nodes that are not to enter the table.
    """

    def __init__(
        self,
        *,
        table: RoutingTable,
        guard: Guard,
        transactions: Transactions,
        tokens: TokenMint,
        peers: PeerStore,
        items: ItemStore,
        verify: Verify,
        listener: Listener,
        is_ipv6: bool,
        is_read_only: bool,
        now: float,
    ) -> None:
        self.counters = DhtCounters()
        self.routers: frozenset[Endpoint] = frozenset()
        self.responder = Responder(
            table=table,
            guard=guard,
            tokens=tokens,
            peers=peers,
            items=items,
            verify=verify,
            is_ipv6=is_ipv6,
            challenge=self._challenge,
            now=now,
        )
        self._table = table
        self._guard = guard
        self._transactions = transactions
        self._listener = listener
        self._is_read_only = is_read_only
        self._num_silent = 0
        self._challenged: set[Endpoint] = set()
        self._to_send: list[tuple[bytes, Endpoint]] = []

    # --- in ----------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, source: Endpoint, *, now: float) -> None:
        """Take one datagram; never raises, whatever it holds."""
        counters = self.counters
        counters.num_received += 1
        query = PLAIN_QUERY(data)
        if query is None:
            self._receive_message(data, source, now)
            return
        if not self._is_read_only:
            guard = self._guard
            known = guard.admit(source.host, now=now)
            if known is not None:
                limit = guard.max_answer(known, len(data), now=now)
                answer = self.responder.answer_plain(query, known, source.port, limit, now)
                counters.num_answered += 1
                self._send(answer, source)
            else:
                counters.num_limited += 1
        if self._table.note_query(query[1], source, now=now):
            self._listener.node_suggested(query[1], source)

    def _receive_message(self, data: bytes, source: Endpoint, now: float) -> None:
        try:
            message = decode(data)
        except KrpcDecodeError:
            self.counters.num_malformed += 1
            return
        match message:
            case Query() | BadQuery():
                self._receive_query(message, len(data), source, now)
            case Response():
                self._receive_response(message, source, now)
            case ErrorReply():
                self._receive_error(message, source, now)
            case _:
                assert_never(message)

    def _receive_query(
        self, query: Query | BadQuery, length: int, source: Endpoint, now: float
    ) -> None:
        if not self._is_read_only:
            known = self._guard.source(source.host, now=now)
            if self._guard.admits(known, now=now):
                limit = self._guard.max_answer(known, length, now=now)
                self._answer(query, Asker(known, source, limit), now)
            else:
                self.counters.num_limited += 1
        # BEP 43: a read-only node has no place in the table.
        if (
            isinstance(query, Query)
            and not query.is_read_only
            and self._table.note_query(query.node_id, source, now=now)
        ):
            self._listener.node_suggested(query.node_id, source)

    def _answer(self, query: Query | BadQuery, asker: Asker, now: float) -> None:
        answer = self.responder.answer(query, asker, now=now)
        if answer is not None:
            self.counters.num_answered += 1
            self._send(answer, asker.endpoint)

    def _receive_response(self, response: Response, source: Endpoint, now: float) -> None:
        transaction = self._transactions.take(response.transaction_id, source, now=now)
        if transaction is None:
            self.counters.num_unmatched += 1
            return
        self._num_silent = 0
        self._guard.prove(source.host, now=now)
        if source not in self.routers:
            self._table.note_answer(response.node_id, source, now=now)
        if response.external:
            self._listener.address_told(source, response.external, now=now)
        if transaction.waiter is not None:
            transaction.waiter.answered(response, now=now)

    def _receive_error(self, reply: ErrorReply, source: Endpoint, now: float) -> None:
        transaction = self._transactions.take(reply.transaction_id, source, now=now)
        if transaction is None:
            self.counters.num_unmatched += 1
            return
        self._num_silent = 0
        self._guard.prove(source.host, now=now)
        if transaction.waiter is not None:
            transaction.waiter.failed(KrpcFailure(reply.code, reply.text), now=now)

    # --- proof -------------------------------------------------------------------------------

    def _challenge(self, query: Query, asker: Endpoint, now: float) -> bool:
        """Ping who asked for more than a stranger may have; True if the answer follows later."""
        if asker in self._challenged or len(self._challenged) >= MAX_CHALLENGES:
            return False
        self._challenged.add(asker)
        self.ask(asker, Ping(), _Challenge(self, query, asker), now=now)
        return True

    def challenge_ended(
        self, query: Query, asker: Endpoint, *, is_proven: bool, now: float
    ) -> None:
        """Give the answer that was kept back, if the asker has proven its address."""
        self._challenged.discard(asker)
        if is_proven:
            known = self._guard.source(asker.host, now=now)
            self._answer(query, Asker(known, asker, MAX_ANSWER_LENGTH), now)

    # --- out ---------------------------------------------------------------------------------

    def ask(self, endpoint: Endpoint, arguments: Arguments, waiter: Waiter, *, now: float) -> None:
        """Send a query; ``waiter`` hears what becomes of it."""
        transaction_id = self._transactions.begin(endpoint, waiter, now=now)
        own_id = self._table.own_id
        data = encode_query(transaction_id, own_id, arguments, is_read_only=self._is_read_only)
        self.counters.num_asked += 1
        self._send(data, endpoint)

    def expire(self, *, now: float) -> None:
        """Let queries fail whose time is over; call at ``next_timer``."""
        for transaction in self._transactions.expire(now=now):
            self.counters.num_timeouts += 1
            self._num_silent += 1
            # BEP 45: when nobody answers any more, the fault is ours, and nobody has to go.
            is_ours = self._num_silent >= LINK_DOWN_FAILURES
            self._table.note_failure(transaction.endpoint, may_remove=not is_ours)
            if transaction.waiter is not None:
                transaction.waiter.failed(QueryTimeout(), now=now)

    def next_timer(self) -> float | None:
        """Return the instant of the next ``expire``, or None."""
        return self._transactions.next_timer()

    def datagrams_to_send(self) -> list[tuple[bytes, Endpoint]]:
        """Return and forget the datagrams to send, in order."""
        datagrams, self._to_send = self._to_send, []
        return datagrams

    def _send(self, data: bytes, target: Endpoint) -> None:
        counters, length = self.counters, len(data)
        self._guard.spend(length)
        counters.num_sent += 1
        counters.sent_length += length
        self._to_send.append((data, target))


class _Challenge:
    """Waits for a stranger to prove its address."""

    __slots__ = ("_asker", "_exchange", "_query")

    is_hurried = False

    def __init__(self, exchange: Exchange, query: Query, asker: Endpoint) -> None:
        self._exchange = exchange
        self._query = query
        self._asker = asker

    def answered(self, _response: Response, /, *, now: float) -> None:
        self._exchange.challenge_ended(self._query, self._asker, is_proven=True, now=now)

    def failed(self, _error: KrpcFailure | QueryTimeout, /, *, now: float) -> None:
        self._exchange.challenge_ended(self._query, self._asker, is_proven=False, now=now)

    def slowed(self, *, now: float) -> None:
        pass
