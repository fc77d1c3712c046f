"""One exchange with everything it needs, for the tests of answers and of traffic."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from bittern.codec.krpc import decode
from bittern.codec.krpc_encoding import encode_query
from bittern.codec.krpc_message import (
    Arguments,
    ErrorReply,
    GetPeers,
    Response,
)
from bittern.core.endpoint import Endpoint
from bittern.core.ids import NodeId
from bittern.dht.exchange import Exchange
from bittern.dht.guard import Guard
from bittern.dht.items import ItemStore
from bittern.dht.routing import RoutingTable
from bittern.dht.store import PeerStore
from bittern.dht.tokens import TokenMint
from bittern.dht.transactions import Transactions

OWN = NodeId(b"o" * 20)
ASKER_ID = b"a" * 20
TARGET = b"t" * 20
KEY = b"k" * 32
ASKER = Endpoint("8.8.8.8", 4000)
ASKER6 = Endpoint("2a00::8", 4000)
NOW = 1000.0


@dataclass
class Bench:
    """One exchange with all it needs, and what it said to its listener."""

    rng: random.Random
    is_ipv6: bool = False
    is_read_only: bool = False
    upload_rate: float = 1e9
    query_rate: float = 1e6
    now: float = NOW
    suggested: list[Endpoint] = field(default_factory=list)
    suggested_ids: set[bytes] = field(default_factory=set)
    told: list[tuple[Endpoint, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table = RoutingTable(OWN, is_ipv6=self.is_ipv6, now=0.0)
        self.guard = Guard(upload_rate=self.upload_rate, query_rate=self.query_rate, now=0.0)
        self.peers = PeerStore(rng=self.rng, is_ipv6=self.is_ipv6, now=0.0)
        self.items = ItemStore(rng=self.rng)
        self.exchange = Exchange(
            table=self.table,
            guard=self.guard,
            transactions=Transactions(self.rng.randbytes),
            tokens=TokenMint(self.rng.randbytes, now=0.0),
            peers=self.peers,
            items=self.items,
            verify=lambda key, signature, message: signature.startswith(b"good"),
            listener=self,
            is_ipv6=self.is_ipv6,
            is_read_only=self.is_read_only,
            now=0.0,
        )
        self.asker = ASKER6 if self.is_ipv6 else ASKER

    def node_suggested(self, node_id: bytes, endpoint: Endpoint) -> None:
        self.suggested.append(endpoint)
        self.suggested_ids.add(node_id)

    def address_told(self, source: Endpoint, external: bytes, *, now: float) -> None:
        self.told.append((source, external))

    def feed(self, data: bytes, source: Endpoint | None = None) -> list[tuple[bytes, Endpoint]]:
        self.exchange.receive_datagram(data, source or self.asker, now=self.now)
        return self.exchange.datagrams_to_send()

    def query(
        self, arguments: Arguments, *, source: Endpoint | None = None, is_read_only: bool = False
    ) -> list[tuple[bytes, Endpoint]]:
        data = encode_query(b"tt", ASKER_ID, arguments, is_read_only=is_read_only)
        return self.feed(data, source)

    def answer(self, arguments: Arguments, *, source: Endpoint | None = None) -> Response:
        ((data, target),) = self.query(arguments, source=source)
        message = decode(data)
        assert isinstance(message, Response), message
        assert message.transaction_id == b"tt"
        assert message.node_id == OWN
        assert target == (source or self.asker)
        assert message.external == target.to_compact()
        return message

    def error(self, arguments: Arguments) -> ErrorReply:
        ((data, _),) = self.query(arguments)
        message = decode(data)
        assert isinstance(message, ErrorReply)
        return message

    def token(self) -> bytes:
        token = self.answer(GetPeers(TARGET)).token
        assert token is not None
        return token

    def prove(self) -> None:
        self.guard.prove(self.asker.host, now=self.now)

    def fill_table(self, count: int = 500) -> None:
        for number in range(count):
            host = f"2a00:{number:x}::1" if self.is_ipv6 else f"20.{number >> 8}.{number & 255}.1"
            self.table.note_answer(self.rng.randbytes(20), Endpoint(host, 9), now=self.now)

    def fill_torrent(self, count: int = 300) -> None:
        for number in range(count):
            packed = bytes([31, number >> 8, number & 255, 1])
            if self.is_ipv6:
                packed = b"\x2a\x00" + packed + bytes(10)
            self.peers.add(TARGET, packed + b"\0\x50", is_seed=number % 2 == 0, now=self.now)
