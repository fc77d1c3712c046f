"""Attacks on the DHT and through it: eclipse, reflection, floods (Limits: N1, N2, N3)."""

from __future__ import annotations

import pytest

from bittern.codec.krpc import decode
from bittern.codec.krpc_encoding import encode, encode_query
from bittern.codec.krpc_message import (
    Arguments,
    FindNode,
    Get,
    GetPeers,
    Ping,
    Query,
    Response,
    SampleInfohashes,
    Want,
)
from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcDecodeError
from bittern.core.ids import InfoHash
from bittern.dht.address import pack_endpoint
from bittern.dht.items import Item
from bittern.dht.limits import MAX_STRANGER_FACTOR, DhtConfig
from tests.sim.dht_world import Job, Network, World


class Eclipser:
    """
    One of many nodes of one /24 that surround a target and name only each other.

    Args:
        node_id: beside the target; it fits the address or not, as the attacker likes.
        friends: compact node infos of all of them.
    """

    def __init__(self, node_id: bytes, friends: list[bytes]) -> None:
        self._node_id = node_id
        self._friends = friends
        self._to_send: list[tuple[bytes, Endpoint]] = []

    def receive_datagram(self, data: bytes, source: Endpoint, *, now: float) -> None:
        try:
            message = decode(data)
        except KrpcDecodeError:
            return
        if isinstance(message, Query):
            response = Response(
                transaction_id=message.transaction_id,
                node_id=self._node_id,
                nodes=b"".join(self._friends[:8]),
                token=b"trust me",
                external=pack_endpoint(source),
            )
            self._to_send.append((encode(response), source))

    def ask(self, target: Endpoint) -> None:
        """Make ourselves known to a node."""
        self._to_send.append((encode_query(b"aaaa", self._node_id, Ping()), target))

    def handle_timer(self, *, now: float) -> None: ...

    def next_timer(self) -> float:
        return float("inf")

    def datagrams_to_send(self) -> list[tuple[bytes, Endpoint]]:
        datagrams, self._to_send = self._to_send, []
        return datagrams


@pytest.mark.slow
@pytest.mark.parametrize("is_later", [True, False])
def test_one_slash_24_cannot_eclipse_a_torrent(seed: int, is_later: bool) -> None:
    """
    254 nodes of one /24, all nearer to the torrent than any honest node, known to all.

    Limit: N2. Whether they come before the announce or after it.
    """
    world = World(seed, loss=0.02)
    network = Network(world)
    network.grow(60, interval=0.5, settle_time=120.0)
    info_hash = InfoHash(world.rng.randbytes(20))

    def attack() -> None:
        ids = [info_hash[:16] + world.rng.randbytes(4) for _ in range(254)]
        endpoints = [Endpoint(f"45.66.77.{number + 1}", 6881) for number in range(254)]
        friends = [
            node_id + pack_endpoint(endpoint)
            for node_id, endpoint in zip(ids, endpoints, strict=True)
        ]
        for node_id, endpoint in zip(ids, endpoints, strict=True):
            eclipser = Eclipser(node_id, friends)
            world.add(eclipser, endpoint)
            for target in world.rng.sample(list(network.honest), 10):
                eclipser.ask(target)
            world.settle(endpoint)
        world.run(300.0)

    if not is_later:
        attack()
    jobs = [Job(network.draw(), info_hash, 1000 + number) for number in range(3)]
    announces = network.announce(jobs)
    if is_later:
        attack()
    lookups = network.get_peers([Job(network.draw(), info_hash) for _ in range(10)])
    expected = {Endpoint(job.endpoint.host, job.port) for job in jobs}
    for outcome in announces:
        assert outcome.end is not None
        hosts = [node.endpoint.host for node in outcome.end.nodes]
        assert sum(host.startswith("45.66.77.") for host in hosts) <= 1
    assert all(outcome.peers & expected for outcome in lookups)
    for node in network.honest.values():
        assert sum(other.endpoint.host.startswith("45.66.77.") for other in node.table) <= 8


VICTIM = Endpoint("99.99.99.99", 53)
TARGET = bytes(20)
REFLECTED: list[Arguments] = [
    Ping(),
    FindNode(TARGET, Want.V4 | Want.V6),
    GetPeers(TARGET, Want.V4 | Want.V6, scrape=True),
    Get(Item(b"990:" + b"x" * 990).target),
    SampleInfohashes(TARGET),
]


@pytest.mark.parametrize("arguments", REFLECTED)
def test_reflection_is_at_most_fourfold_and_slow(seed: int, arguments: Arguments) -> None:
    """
    A forged source sends what asks for the longest answers, for a minute.

    Limit: N1: bytes out over bytes in, and bytes a second towards one address.
    """
    world = World(seed)
    network = Network(world)
    network.grow(30, interval=1.0, settle_time=60.0)
    endpoint, node = next(iter(network.honest.items()))
    for number in range(300):
        peer = bytes([45, number >> 8, number & 255, 1, 0, 80])
        node.peers.add(TARGET, peer, is_seed=number % 2 == 0, now=world.now)
    node.items.put(Item(b"990:" + b"x" * 990), b"net", now=world.now)
    world.is_metered = True
    length_in = 0
    for _ in range(60 * 50):
        data = encode_query(b"aaaa", world.rng.randbytes(20), arguments)
        length_in += len(data)
        node.receive_datagram(data, VICTIM, now=world.now)
        world.settle(endpoint)
        world.run(0.02)
    length_out = world.sent_lengths[endpoint, VICTIM]
    assert length_out > 0
    num_answerable = 20 + 60 * 5
    assert length_out <= MAX_STRANGER_FACTOR * len(data) * num_answerable * 1.1
    assert length_out <= MAX_STRANGER_FACTOR * length_in


def test_one_query_is_reflected_at_most_fourfold(seed: int) -> None:
    """Limit: N1. Each forged query for itself, pings for proof included."""
    world = World(seed)
    network = Network(world)
    network.grow(30, interval=1.0, settle_time=60.0)
    world.is_metered = True
    endpoint, node = next(iter(network.honest.items()))
    node.items.put(Item(b"990:" + b"x" * 990), b"net", now=world.now)
    for number, arguments in enumerate(REFLECTED * 10):
        victim = Endpoint(f"99.{number}.99.99", 53)
        data = encode_query(b"aaaa", world.rng.randbytes(20), arguments)
        node.receive_datagram(data, victim, now=world.now)
        world.settle(endpoint)
        world.run(0.5)
        sent = world.sent_lengths[endpoint, victim]
        assert 0 < sent <= MAX_STRANGER_FACTOR * len(data)


def test_a_node_never_sends_more_than_its_budget(seed: int) -> None:
    """Limit: N1. 16 kB/s, whoever asks and however much."""
    world = World(seed)
    network = Network(world)
    network.grow(30, interval=1.0, settle_time=60.0)
    node = next(iter(network.honest.values()))
    before, num_asked = node.counters.sent_length, node.counters.num_asked
    start = world.now
    for number in range(20 * 400):
        source = Endpoint(f"{45 + number % 50}.{number >> 8 & 255}.{number & 255}.9", 1000)
        data = encode_query(b"aaaa", world.rng.randbytes(20), FindNode(world.rng.randbytes(20)))
        node.receive_datagram(data, source, now=world.now)
        node.datagrams_to_send()
        world.now += 1 / 400
    world.run(0.0)
    seconds = world.now - start + 1.0
    # Its own queries are sent in any case; what they take, answers go without later.
    own = 110 * (node.counters.num_asked - num_asked)
    assert node.counters.sent_length - before <= DhtConfig().max_upload_rate * seconds + own + 1400
    assert node.counters.num_limited > 0


@pytest.mark.slow
def test_a_flood_of_announces_does_not_displace_others(seed: int) -> None:
    """Limit: N3. One /24 announces thirty thousand made-up torrents."""
    world = World(seed)
    network = Network(world)
    network.grow(12, interval=1.0, settle_time=30.0)
    node = next(iter(network.honest.values()))
    honest = [InfoHash(world.rng.randbytes(20)) for _ in range(200)]
    for number, info_hash in enumerate(honest):
        peer = bytes([45, number, 1, 1, 0, 80])
        node.peers.add(info_hash, peer, is_seed=False, now=world.now)
    for number in range(30_000):
        attacker = bytes([66, 6, 6, number % 254 + 1, 0, 80])
        node.peers.add(world.rng.randbytes(20), attacker, is_seed=False, now=world.now)
    assert node.status.num_torrents == 2000
    kept = sum(bool(node.peers.values(info_hash, 1)) for info_hash in honest)
    assert kept >= 0.98 * len(honest)
