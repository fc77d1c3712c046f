"""Announced peers: what is kept, what is given, who has to go (Limit: N3)."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bittern.dht.bloom import make_filter
from bittern.dht.limits import FILTER_INTERVAL, MAX_SAMPLES, PEER_LIFETIME, SAMPLE_INTERVAL
from bittern.dht.store import PeerStore

HASH = b"h" * 20


def peer(number: int, port: int = 80) -> bytes:
    return (0x01000000 + number * 256).to_bytes(4, "big") + port.to_bytes(2, "big")


def values_of(raw: bytes, size: int = 8) -> list[bytes]:
    assert len(raw) % size == 0
    prefix = b"6:" if size == 8 else b"18:"
    found = [raw[at : at + size] for at in range(0, len(raw), size)]
    assert all(value.startswith(prefix) for value in found)
    return [value[len(prefix) :] for value in found]


def make(rng: random.Random, **options: int) -> PeerStore:
    return PeerStore(rng=rng, is_ipv6=False, now=0.0, **options)


def test_what_is_announced_is_given(rng: random.Random) -> None:
    store = make(rng)
    for number in range(5):
        store.add(HASH, peer(number), is_seed=False, now=0.0)
    assert sorted(values_of(store.values(HASH, 50))) == [peer(number) for number in range(5)]
    assert store.values(b"x" * 20, 50) == b""
    assert store.values(HASH, 0) == b""
    assert (store.num_torrents, store.num_peers) == (1, 5)


def test_ipv6_peers_have_their_own_form(rng: random.Random) -> None:
    store = PeerStore(rng=rng, is_ipv6=True, now=0.0)
    peers = [bytes([number]) * 16 + b"\0\x50" for number in range(30)]
    for each in peers:
        store.add(HASH, each, is_seed=False, now=0.0)
    assert set(values_of(store.values(HASH, 20), 21)) < set(peers)
    assert len(store.values(HASH, 20)) == 20 * 21


def test_an_address_is_there_once_with_its_last_port(rng: random.Random) -> None:
    """BEP 33: pairs of info hash and address are unique."""
    store = make(rng)
    store.add(HASH, peer(1, 80), is_seed=False, now=0.0)
    store.add(HASH, peer(2, 80), is_seed=False, now=0.0)
    store.add(HASH, peer(1, 40_000), is_seed=True, now=1.0)
    assert sorted(values_of(store.values(HASH, 50))) == [peer(1, 40_000), peer(2, 80)]
    assert store.num_peers == 2


def test_bytes_that_look_like_another_record_do_not_confuse(rng: random.Random) -> None:
    """A port and the next record's start may spell an address."""
    store = make(rng)
    store.add(HASH, b"\x01\x02" + b"6:" + b"\x03\x04", is_seed=False, now=0.0)
    tricky = b"\x03\x04" + b"6:"  # stands across the records
    store.add(HASH, b"\x07\x07\x07\x07\x00\x50", is_seed=False, now=0.0)
    store.add(HASH, tricky + b"\x00\x50", is_seed=False, now=0.0)
    store.add(HASH, tricky + b"\x00\x51", is_seed=False, now=0.0)
    assert store.num_peers == 3


def test_a_big_swarm_gives_different_parts(rng: random.Random) -> None:
    store = make(rng)
    for number in range(200):
        store.add(HASH, peer(number), is_seed=False, now=0.0)
    seen: Counter[bytes] = Counter()
    for _ in range(200):
        given = values_of(store.values(HASH, 50))
        assert len(set(given)) == 50
        seen.update(given)
    assert len(seen) == 200


def test_seeds_are_left_out_where_there_are_others(rng: random.Random) -> None:
    """BEP 33: noseed."""
    store = make(rng)
    for number in range(10):
        store.add(HASH, peer(number), is_seed=number < 7, now=0.0)
    others = [peer(number) for number in range(7, 10)]
    assert sorted(values_of(store.values(HASH, 50, noseed=True))) == others
    assert len(values_of(store.values(HASH, 2, noseed=True))) == 2
    store.add(b"s" * 20, peer(1), is_seed=True, now=0.0)
    assert values_of(store.values(b"s" * 20, 50, noseed=True)) == [peer(1)]


def test_filters_tell_seeds_from_others(rng: random.Random) -> None:
    store = make(rng)
    assert store.filters(HASH, now=0.0) is None
    for number in range(10):
        store.add(HASH, peer(number), is_seed=number < 7, now=0.0)
    seeds = make_filter(peer(number)[:4] for number in range(7))
    others = make_filter(peer(number)[:4] for number in range(7, 10))
    assert store.filters(HASH, now=0.0) == (seeds, others)
    store.add(HASH, peer(99), is_seed=False, now=1.0)
    assert store.filters(HASH, now=1.0) == (seeds, others)
    later = store.filters(HASH, now=FILTER_INTERVAL)
    assert later is not None
    assert later[1] != others
    store.add(HASH, peer(98), is_seed=False, now=FILTER_INTERVAL)
    assert store.filters(HASH, now=2 * FILTER_INTERVAL - 1) == later
    assert store.filters(HASH, now=2 * FILTER_INTERVAL) != later


def test_peers_and_torrents_expire(rng: random.Random) -> None:
    store = make(rng)
    store.add(HASH, peer(1), is_seed=False, now=0.0)
    store.add(HASH, peer(2), is_seed=False, now=100.0)
    store.add(b"o" * 20, peer(1), is_seed=False, now=0.0)
    store.expire(now=PEER_LIFETIME - 1)
    assert store.num_peers == 3
    store.add(HASH, peer(3), is_seed=False, now=200.0)
    store.expire(now=PEER_LIFETIME + 50)
    assert sorted(values_of(store.values(HASH, 50))) == [peer(2), peer(3)]
    assert store.num_torrents == 1
    store.expire(now=PEER_LIFETIME + 150)
    assert values_of(store.values(HASH, 50)) == [peer(3)]
    store.expire(now=PEER_LIFETIME + 300)
    assert (store.num_torrents, store.num_peers) == (0, 0)


def test_announcing_again_keeps_a_peer(rng: random.Random) -> None:
    store = make(rng)
    store.add(HASH, peer(1), is_seed=False, now=0.0)
    store.add(HASH, peer(1), is_seed=False, now=1000.0)
    store.expire(now=PEER_LIFETIME + 500)
    assert store.num_peers == 1


def test_one_network_cannot_fill_a_torrent(rng: random.Random) -> None:
    """Limit: N3. Random-fair per /24."""
    store = make(rng, max_peers=100)
    for number in range(50):
        store.add(HASH, peer(number), is_seed=False, now=0.0)
    for number in range(1000):
        attacker = b"\x63\x63\x63" + bytes([number % 256]) + (number + 1).to_bytes(2, "big")
        store.add(HASH, attacker, is_seed=False, now=1.0)
    assert store.num_peers == 100
    honest = [each for each in values_of(store.values(HASH, 200)) if each[0] == 1]
    assert len(honest) == 50


def test_newcomers_displace_the_crowd(rng: random.Random) -> None:
    store = make(rng, max_peers=100)
    for number in range(100):
        store.add(HASH, b"\x63\x63\x63" + bytes([number]) + b"\0\x50", is_seed=False, now=0.0)
    for number in range(90):
        store.add(HASH, peer(number), is_seed=False, now=1.0)
    honest = [each for each in values_of(store.values(HASH, 200)) if each[0] == 1]
    assert len(honest) > 80


@pytest.mark.slow
def test_one_network_cannot_fill_the_store(rng: random.Random) -> None:
    """Limit: N3. A flood of announces for made-up torrents."""
    store = make(rng, max_torrents=100)
    honest = [bytes([number]) * 20 for number in range(50)]
    for number, info_hash in enumerate(honest):
        store.add(info_hash, peer(number), is_seed=False, now=0.0)
    for number in range(10_000):
        store.add(
            rng.randbytes(20), b"\x63\x63\x63" + bytes([number % 256]) + b"\0\x50",
            is_seed=False, now=1.0,
        )  # fmt: skip
    assert store.num_torrents == 100
    assert sum(bool(store.values(info_hash, 1)) for info_hash in honest) >= 48


def test_torrents_with_many_peers_stay(rng: random.Random) -> None:
    store = make(rng, max_torrents=20)
    for number in range(100):
        store.add(HASH, peer(number), is_seed=False, now=0.0)
    for number in range(2000):
        store.add(rng.randbytes(20), peer(1000 + number), is_seed=False, now=1.0)
    assert store.values(HASH, 1)
    assert (store.num_torrents, store.num_peers) == (20, 100 + 19)


def test_samples(rng: random.Random) -> None:
    """BEP 51: a random sample that stays the same for the interval."""
    store = make(rng)
    assert store.sample(now=0.0) == b""
    store.add(HASH, peer(1), is_seed=False, now=0.0)
    assert store.sample(now=1.0) == HASH
    for _ in range(100):
        store.add(rng.randbytes(20), peer(1), is_seed=False, now=0.0)
    first = store.sample(now=2.0)
    assert len(first) == 20 * MAX_SAMPLES
    assert len({first[at : at + 20] for at in range(0, 400, 20)}) == MAX_SAMPLES
    assert store.sample(now=2.0 + SAMPLE_INTERVAL - 1) == first
    assert store.sample(now=2.0 + SAMPLE_INTERVAL) != first


@pytest.mark.slow
def test_a_peer_costs_little(rng: random.Random) -> None:
    """100,000 peers in less than 2 MiB, where objects would take ten times that."""
    import tracemalloc

    tracemalloc.start()
    try:
        store = make(rng)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20_000):
            store.add(number.to_bytes(2, "big")[:1] * 20, peer(number), is_seed=False, now=0.0)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert store.num_peers == 20_000
    assert used < 20_000 * 20


class StoreMachine(RuleBasedStateMachine):
    """The store against a dictionary, as long as nothing is full."""

    @initialize(seed=st.integers(0, 100))
    def start(self, seed: int) -> None:
        self.store = PeerStore(rng=random.Random(seed), is_ipv6=False, now=500.0)
        self.model: dict[tuple[int, int], tuple[int, int, bool]] = {}
        self.now = 500

    @rule(
        torrent=st.integers(0, 3), number=st.integers(0, 9), port=st.integers(1, 9),
        is_seed=st.booleans(),
    )  # fmt: skip
    def add(self, torrent: int, number: int, port: int, is_seed: bool) -> None:
        self.store.add(bytes([torrent]) * 20, peer(number, port), is_seed=is_seed, now=self.now)
        self.model[torrent, number] = (port, self.now, is_seed)

    @rule(seconds=st.integers(1, 1500))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.store.expire(now=self.now)
        limit = self.now - PEER_LIFETIME
        self.model = {key: value for key, value in self.model.items() if value[1] >= limit}

    @invariant()
    def agrees(self) -> None:
        assert self.store.num_peers == len(self.model)
        assert self.store.num_torrents == len({torrent for torrent, _ in self.model})
        for torrent in range(4):
            expected = sorted(
                peer(number, port)
                for (where, number), (port, _, _) in self.model.items()
                if where == torrent
            )
            assert sorted(values_of(self.store.values(bytes([torrent]) * 20, 50))) == expected
            wanted = {
                peer(number)[:4]
                for (where, number), (_, _, is_seed) in self.model.items()
                if where == torrent and not is_seed
            }
            given = {value[:4] for value in values_of(
                self.store.values(bytes([torrent]) * 20, 50, noseed=True))}  # fmt: skip
            assert given == (wanted or {value[:4] for value in expected})


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=20, stateful_step_count=30)
TestStore = pytest.mark.slow(TestStore)
