"""
Answers to the queries of others.

Hot path: a ping, find_node or get_peers in its usual form comes as a match of
``PLAIN_QUERY`` and is answered from parts that are encoded already; everything else
comes decoded. Both ways end in the same functions.

An answer never exceeds what ``Guard`` allows for its asker. What does not fit is left
out: first the nodes of the other family, then peers and samples, then nodes. An item or
filters that a stranger may not have at once are kept back until the stranger has
answered a ping.

Sources: BEP 5, 32, 33, 42, 43, 44, 51. Limits: N1, N3, N4.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from bittern.codec.krpc_encoding import encode_entry, encode_error
from bittern.codec.krpc_message import (
    NODE_ID_LENGTH,
    NODE_INFO_LENGTH,
    NODE_INFO_LENGTH_V6,
    VERSION,
    AnnouncePeer,
    BadQuery,
    ErrorCode,
    FindNode,
    Get,
    GetPeers,
    Ping,
    Put,
    Query,
    SampleInfohashes,
    Want,
)
from bittern.core.endpoint import Endpoint
from bittern.core.rate import TokenBucket
from bittern.dht.guard import Guard, Source
from bittern.dht.items import Item, ItemStore, Refusal, Verify, signed_message
from bittern.dht.limits import (
    BUCKET_SIZE,
    MAX_PEERS_ANSWER_LENGTH,
    MAX_VALUES,
    MAX_VALUES_V6,
    SAMPLE_INTERVAL,
    SIGNATURE_RATE,
    TOKEN_LENGTH,
)
from bittern.dht.routing import RoutingTable
from bittern.dht.store import PeerStore
from bittern.dht.tokens import TokenMint

_MAX_NODES_LENGTH = len(b"6:nodes6304:") + BUCKET_SIZE * NODE_INFO_LENGTH_V6
_LENGTH_DIGITS = len(b"304:")
_TOKEN_ENTRY_LENGTH = len(b"5:token8:") + TOKEN_LENGTH
_VALUES_LENGTH = len(b"6:valueslee")


@dataclass(frozen=True, slots=True)
class Asker:
    """
    Where a query came from.

    Args:
        source: what is known of its address.
        endpoint: where the answer goes.
        limit: how long the answer may be, bytes.
    """

    source: Source
    endpoint: Endpoint
    limit: int

    @property
    def compact(self) -> bytes:
        """Its address and port, 6 or 18 bytes."""
        return self.source.packed + self.endpoint.port.to_bytes(2, "big")


class Responder:
    """
    Answers queries from the table and the stores, and stores what others bring.

    Args:
        table: nodes of our own family.
        guard: who has proven its address.
        tokens: write tokens.
        peers: announced peers.
        items: stored items.
        verify: checks an Ed25519 signature.
        is_ipv6: our own family.
        challenge: called with a query that deserves a longer answer than its asker may
            have, the asker and now; True if the asker is pinged and the query comes again.
        now: monotonic seconds.

    Attributes:
        other_table: nodes of the other family, for askers that want both (BEP 32).
    """

    def __init__(
        self,
        *,
        table: RoutingTable,
        guard: Guard,
        tokens: TokenMint,
        peers: PeerStore,
        items: ItemStore,
        verify: Verify,
        is_ipv6: bool,
        challenge: Callable[[Query, Endpoint, float], bool],
        now: float,
    ) -> None:
        self.other_table: RoutingTable | None = None
        self._table = table
        self._guard = guard
        self._tokens = tokens
        self._peers = peers
        self._items = items
        self._verify = verify
        self._challenge = challenge
        # A bucket starts empty; this one has a second's worth.
        self._signatures = TokenBucket(SIGNATURE_RATE, now=now - 1.0, burst=SIGNATURE_RATE)
        self._own_want = Want.V6 if is_ipv6 else Want.V4
        self._own_key = b"6:nodes6" if is_ipv6 else b"5:nodes"
        self._other_key = b"5:nodes" if is_ipv6 else b"6:nodes6"
        self._max_values = MAX_VALUES_V6 if is_ipv6 else MAX_VALUES
        self._value_length = 21 if is_ipv6 else 8
        self._start = b"d2:ip18:" if is_ipv6 else b"d2:ip6:"
        self._end = b"1:v%d:%b1:y1:re" % (len(VERSION), VERSION)
        self.own_id_changed()

    def own_id_changed(self) -> None:
        """Take over the table's node id."""
        self._middle = b"2:id20:" + self._table.own_id
        external = bytes(18 if self._own_want is Want.V6 else 6)
        self._frame_length = len(self._frame(external, b"", b""))
        self._results = b"1:rd" + self._middle
        nodes_length = len(b"5:nodes208:") + BUCKET_SIZE * NODE_INFO_LENGTH
        if self._own_want is Want.V6:
            nodes_length = _MAX_NODES_LENGTH
        # With the longest transaction id that PLAIN_QUERY takes.
        self._usual_length = self._frame_length + 6 + nodes_length + _TOKEN_ENTRY_LENGTH

    # --- the two ways in ---------------------------------------------------------------------

    def answer_plain(
        self, query: re.Match[bytes], source: Source, port: int, limit: int, now: float
    ) -> bytes:
        """
        Answer a match of ``PLAIN_QUERY``.

        Args:
            query: the match.
            source: what is known of the asker's address.
            port: the asker's.
            limit: how long the answer may be, bytes.
            now: monotonic seconds.
        """
        _, target, info_hash, encoded_id = query.groups()
        external = source.packed + port.to_bytes(2, "big")
        wanted = info_hash or target
        if wanted is None:
            return self._frame(external, encoded_id, b"")
        tail = self._table.usual_entry(wanted)
        if not tail or limit < self._usual_length:
            room = min(limit, MAX_PEERS_ANSWER_LENGTH) - self._frame_length - len(encoded_id)
            if info_hash is None:
                tail = self._find_nodes(wanted, Want.NONE, room)
            else:
                tail = self._find_peers(info_hash, Want.NONE, room, source, now)
        elif info_hash is not None:
            if now >= source.token_until:
                self._renew_token(source, now)
            tail += source.token
            if info_hash in self._peers:
                room = min(limit, MAX_PEERS_ANSWER_LENGTH) - self._frame_length - len(encoded_id)
                tail += self._find_values(info_hash, room - len(tail))
        return b"%b%b%b%be1:t%b%b" % (
            self._start,
            external,
            self._results,
            tail,
            encoded_id,
            self._end,
        )

    def answer(self, query: Query | BadQuery, asker: Asker, *, now: float) -> bytes | None:
        """Answer a decoded query; None when it gets no answer, or gets it later."""
        if isinstance(query, BadQuery):
            # Limit: N4. Errors go to nodes that we know, not to everybody who sends rubbish.
            if now >= asker.source.proven_until:
                return None
            return self._refuse(query.transaction_id, Refusal(query.code, query.reason), asker)
        arguments = query.arguments
        if isinstance(arguments, AnnouncePeer | Put):
            if not self._tokens.is_valid(arguments.token, asker.source.packed, now=now):
                refusal: Refusal | None = Refusal(ErrorCode.PROTOCOL, "bad token")
            else:
                self._guard.prove(asker.endpoint.host, now=now)
                refusal = self._store(arguments, asker, now)
            if refusal is not None:
                return self._refuse(query.transaction_id, refusal, asker)
            results: tuple[bytes, bytes] | None = (b"", b"")
        else:
            results = self._find(query, arguments, asker, now)
        if results is None:
            return None
        encoded_id = b"%d:%b" % (len(query.transaction_id), query.transaction_id)
        return self._frame(asker.compact, encoded_id, results[1], results[0])

    def _find(
        self,
        query: Query,
        arguments: Ping | FindNode | GetPeers | Get | SampleInfohashes,
        asker: Asker,
        now: float,
    ) -> tuple[bytes, bytes] | None:
        """Return the results that sort before and after ``id``; None when they come later."""
        room = asker.limit - self._frame_length - len(query.transaction_id) - 3
        match arguments:
            case Ping():
                return b"", b""
            case FindNode(target, want):
                return b"", self._find_nodes(target, want, room)
            case GetPeers():
                return self._find_swarm(query, arguments, room, asker, now)
            case Get():
                return self._find_item(query, arguments, room, asker, now)
            case SampleInfohashes(target, want):
                return b"", self._find_samples(target, want, room, now)
            case _:
                assert_never(arguments)

    def _frame(self, external: bytes, encoded_id: bytes, tail: bytes, head: bytes = b"") -> bytes:
        return b"%b%b1:rd%b%b%be1:t%b%b" % (
            self._start,
            external,
            head,
            self._middle,
            tail,
            encoded_id,
            self._end,
        )

    def _refuse(self, transaction_id: bytes, refusal: Refusal, asker: Asker) -> bytes | None:
        answer = encode_error(transaction_id, refusal.code, refusal.reason, asker.compact)
        return answer if len(answer) <= asker.limit else None

    # --- finding -----------------------------------------------------------------------------

    def _find_nodes(self, target: bytes, want: Want, room: int) -> bytes:
        """Return the nodes of the families that are wanted, as entries of at most ``room``."""
        key = self._own_key
        if want is Want.NONE or want is self._own_want or self.other_table is None:
            compact = self._table.closest_compact(target, room - len(key) - _LENGTH_DIGITS)
            return b"%b%d:%b" % (key, len(compact), compact)
        own = self._find_nodes(target, Want.NONE, room) if want & self._own_want else b""
        key = self._other_key
        room -= len(own) + len(key) + _LENGTH_DIGITS
        compact = self.other_table.closest_compact(target, room)
        other = b"%b%d:%b" % (key, len(compact), compact)
        return own + other if self._own_want is Want.V4 else other + own

    def _find_peers(
        self,
        info_hash: bytes,
        want: Want,
        room: int,
        source: Source,
        now: float,
        noseed: bool = False,
    ) -> bytes:
        nodes = self._find_nodes(info_hash, want, room - _TOKEN_ENTRY_LENGTH)
        if now >= source.token_until:
            self._renew_token(source, now)
        found = nodes + source.token
        return found + self._find_values(info_hash, room - len(found), noseed=noseed)

    def _find_values(self, info_hash: bytes, room: int, *, noseed: bool = False) -> bytes:
        """Return the entry of a torrent's peers, as many as fit into ``room``; empty for none."""
        count = min((room - _VALUES_LENGTH) // self._value_length, self._max_values)
        values = self._peers.values(info_hash, count, noseed=noseed)
        return b"6:valuesl%be" % values if values else b""

    def _renew_token(self, source: Source, now: float) -> None:
        source.token = b"5:token8:" + self._tokens.make(source.packed, now=now)
        source.token_until = self._tokens.good_until

    def _find_swarm(
        self, query: Query, arguments: GetPeers, room: int, asker: Asker, now: float
    ) -> tuple[bytes, bytes] | None:
        room -= max(0, asker.limit - MAX_PEERS_ANSWER_LENGTH)
        info_hash, want = arguments.info_hash, arguments.want
        filters = self._peers.filters(info_hash, now=now) if arguments.scrape else None
        head = b""
        if filters is not None:
            head = encode_entry(b"BFpe", filters[1]) + encode_entry(b"BFsd", filters[0])
            want = Want.NONE  # BEP 33: only the nodes that must be there
            if len(head) + _TOKEN_ENTRY_LENGTH + _MAX_NODES_LENGTH > room:
                if self._is_kept_back(query, asker, now):
                    return None
                head = b""
        room -= len(head)
        found = self._find_peers(info_hash, want, room, asker.source, now, arguments.noseed)
        return head, found

    def _find_item(
        self, query: Query, arguments: Get, room: int, asker: Asker, now: float
    ) -> tuple[bytes, bytes] | None:
        room -= _TOKEN_ENTRY_LENGTH
        key, seal, value = _encode_item(self._items.get(arguments.target), arguments.seq)
        if len(key) + len(seal) + len(value) > room:
            if self._is_kept_back(query, asker, now):
                return None
            key = seal = value = b""
        room -= len(key) + len(seal) + len(value)
        nodes = self._find_nodes(arguments.target, arguments.want, room)
        if now >= asker.source.token_until:
            self._renew_token(asker.source, now)
        return b"", b"%b%b%b%b%b" % (key, nodes, seal, asker.source.token, value)

    def _is_kept_back(self, query: Query, asker: Asker, now: float) -> bool:
        """Tell whether the asker will be asked to prove its address, for a longer answer."""
        # BEP 43: a read-only node would not answer the ping.
        return not query.is_read_only and self._challenge(query, asker.endpoint, now)

    def _find_samples(self, target: bytes, want: Want, room: int, now: float) -> bytes:
        interval = b"8:intervali%de" % SAMPLE_INTERVAL
        num = b"3:numi%de" % self._peers.num_torrents
        room -= len(interval) + len(num) + len(b"7:samples") + _LENGTH_DIGITS
        nodes = self._find_nodes(target, want, room)
        count = max(0, room - len(nodes)) // NODE_ID_LENGTH
        samples = self._peers.sample(now=now)[: count * NODE_ID_LENGTH]
        return b"%b%b%b7:samples%d:%b" % (interval, nodes, num, len(samples), samples)

    # --- storing -----------------------------------------------------------------------------

    def _store(self, arguments: AnnouncePeer | Put, asker: Asker, now: float) -> Refusal | None:
        """Store what an asker with a good token brings; return why not, or None."""
        if isinstance(arguments, Put):
            return self._store_item(arguments, asker, now)
        port = arguments.port or asker.endpoint.port
        compact = asker.source.packed + port.to_bytes(2, "big")
        self._peers.add(arguments.info_hash, compact, is_seed=arguments.is_seed, now=now)
        return None

    def _store_item(self, put: Put, asker: Asker, now: float) -> Refusal | None:
        refusal = self._items.check(put)
        if refusal is not None:
            return refusal
        item = Item(put.value, put.key, put.salt, put.seq or 0, put.signature or b"")
        if item.key is not None and self._items.get(item.target) != item:
            if not self._signatures.available(now=now):
                return Refusal(ErrorCode.SERVER, "busy")
            self._signatures.take(1, now=now)
            message = signed_message(item.value, item.seq, item.salt)
            if not self._verify(item.key, item.signature, message):
                return Refusal(ErrorCode.BAD_SIGNATURE, "invalid signature")
        self._items.put(item, asker.source.network, now=now)
        return None


def _encode_item(item: Item | None, known_seq: int | None) -> tuple[bytes, bytes, bytes]:
    """Return an item's entries: its key; sequence number and signature; its value."""
    if item is None:
        return b"", b"", b""
    if item.key is None:
        return b"", b"", b"1:v" + item.value
    seq = b"3:seqi%de" % item.seq
    if known_seq is not None and item.seq <= known_seq:
        return b"", seq, b""
    seal = seq + encode_entry(b"sig", item.signature)
    return encode_entry(b"k", item.key), seal, b"1:v" + item.value
