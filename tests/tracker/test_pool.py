"""tracker.pool: packed peers against a naive model."""

import random
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bittern.tracker.pool import INDEX_FROM, Pool


def peer_of(number: int, size: int = 6) -> bytes:
    return number.to_bytes(size, "big")


def listed(pool: Pool, data: bytes, size: int = 6) -> list[bytes]:
    assert len(data) % size == 0
    return [data[at : at + size] for at in range(0, len(data), size)]


def everyone(pool: Pool, size: int = 6) -> list[bytes]:
    return listed(pool, pool.select(10**6, -1, is_seed=False, rng=random.Random(0)), size)


def filled(num_leechers: int, num_seeds: int, *, rng: random.Random) -> Pool:
    pool = Pool(6, 0)
    for number in range(num_leechers + num_seeds):
        peer = peer_of(number)
        pool.put(peer, -1, is_seed=number >= num_leechers, now=number, chance=rng.random())
    return pool


@pytest.mark.parametrize("size", [6, 18])
def test_peers_are_not_found_across_two_others(size: int) -> None:
    pool = Pool(size, 0)
    one, two = bytes(range(size)), bytes(range(100, 100 + size))
    for peer in (one, two):
        pool.put(peer, -1, is_seed=False, now=0, chance=0.99)
    assert everyone(pool, size) in ([one, two], [two, one])
    for joined in (one + two, two + one):
        for shift in range(1, size):
            assert pool.find(joined[shift : shift + size]) == -1
    assert {pool.find(one), pool.find(two)} == {0, 1}


class PoolLife(RuleBasedStateMachine):
    """Random calls against a dictionary."""

    @initialize(size=st.sampled_from([6, 18]), seed=st.integers(0, 1000))
    def begin(self, size: int, seed: int) -> None:
        self.size = size
        self.rng = random.Random(seed)
        self.pool = Pool(size, 0)
        self.model: dict[bytes, tuple[bool, int]] = {}
        self.now = 0

    @rule(first=st.integers(0, 100), count=st.integers(1, 40), is_seed=st.booleans())
    def put(self, first: int, count: int, is_seed: bool) -> None:
        for number in range(first, first + count):
            peer = peer_of(number, self.size)
            self.now += 1
            slot = self.pool.put(
                peer,
                self.pool.find(peer),
                is_seed=is_seed,
                now=self.now,
                chance=self.rng.random(),
            )
            assert slot == self.pool.find(peer)
            self.model[peer] = (is_seed, self.now)

    @rule(first=st.integers(0, 140), count=st.integers(1, 40))
    def remove(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            peer = peer_of(number, self.size)
            slot = self.pool.find(peer)
            assert (slot >= 0) == (peer in self.model)
            if slot >= 0:
                self.pool.remove(slot)
                del self.model[peer]

    @rule(age=st.integers(0, 60))
    def sweep(self, age: int) -> None:
        before = self.now - age
        self.pool.sweep(before, self.now)
        assert self.pool.sweep_at == self.now + 60
        self.model = {peer: entry for peer, entry in self.model.items() if entry[1] >= before}

    @rule()
    def evict(self) -> None:
        if self.model:
            before = set(self.model)
            self.pool.evict(self.rng)
            [gone] = before - set(everyone(self.pool, self.size))
            del self.model[gone]

    @rule(number=st.integers(0, 150), own=st.integers(0, 140), is_seed=st.booleans())
    def select(self, number: int, own: int, is_seed: bool) -> None:
        slot = self.pool.find(peer_of(own, self.size))
        found = listed(
            self.pool,
            self.pool.select(number, slot, is_seed=is_seed, rng=self.rng),
            self.size,
        )
        assert len(set(found)) == len(found)
        others = {
            peer
            for peer, (other_is_seed, _) in self.model.items()
            if peer != peer_of(own, self.size) and not (is_seed and other_is_seed)
        }
        assert set(found) <= others
        assert len(found) <= number
        # One may be missing when a seed asks as if it were a leecher.
        assert len(found) >= min(number, len(others)) - 1

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "pool"):
            return
        assert len(self.pool) == len(self.model)
        assert self.pool.num_leechers == sum(not seed for seed, _ in self.model.values())
        assert set(everyone(self.pool, self.size)) == set(self.model)
        for peer, (is_seed, _) in self.model.items():
            assert (self.pool.find(peer) >= self.pool.num_leechers) == is_seed


TestPoolLife = pytest.mark.slow(PoolLife.TestCase)
TestPoolLife.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("count", [10, INDEX_FROM + 100])
def test_selection_is_fair(count: int, rng: random.Random) -> None:
    """Everyone is named about equally often, also by neighbours and at the edges."""
    pool = filled(count // 2, count - count // 2, rng=rng)
    number, rounds = count // 5, 2000
    named: Counter[bytes] = Counter()
    own = pool.find(peer_of(0))
    for _ in range(rounds):
        named.update(listed(pool, pool.select(number, own, is_seed=False, rng=rng)))
    assert peer_of(0) not in named
    expected = rounds * number / count
    assert len(named) == count - 1
    assert 0.6 * expected < min(named.values())
    assert max(named.values()) < 1.5 * expected


def test_new_peers_take_random_places(rng: random.Random) -> None:
    places: Counter[int] = Counter()
    for _ in range(800):
        places[filled(10, 5, rng=rng).find(peer_of(9))] += 1
    assert set(places) == set(range(10))
    assert min(places.values()) > 40


def test_eviction_prefers_the_old(rng: random.Random) -> None:
    gone = []
    for _ in range(60):
        pool = filled(100, 0, rng=rng)
        pool.evict(rng)
        [left] = {peer_of(number) for number in range(100)} - set(everyone(pool))
        gone.append(int.from_bytes(left, "big"))
    assert sum(gone) / len(gone) < 20


def test_a_pool_that_shrank_works_without_an_index(rng: random.Random) -> None:
    pool = filled(INDEX_FROM * 2, 0, rng=rng)
    pool.sweep(INDEX_FROM * 2 - 5, 1000)
    left = [peer_of(INDEX_FROM * 2 - 5 + number) for number in range(5)]
    assert sorted(everyone(pool)) == left
    assert sorted(map(pool.find, left)) == list(range(5))
    assert pool.find(peer_of(1)) == -1


def test_who_has_left_a_large_pool_is_not_found_and_the_others_are(rng: random.Random) -> None:
    count = 2 * INDEX_FROM
    pool = filled(count, 0, rng=rng)
    for number in range(0, count, 3):
        pool.remove(pool.find(peer_of(number)))
    stayed = [number for number in range(count) if number % 3]
    assert sorted(pool.find(peer_of(number)) for number in stayed) == list(range(len(stayed)))
    assert {pool.find(peer_of(number)) for number in range(0, count, 3)} == {-1}
    assert pool.find(peer_of(count)) == -1


def test_an_empty_pool_has_nobody(rng: random.Random) -> None:
    pool = Pool(6, 0)
    assert pool.find(bytes(6)) == -1
    assert pool.select(50, -1, is_seed=False, rng=rng) == b""
    assert pool.select(50, -1, is_seed=True, rng=rng) == b""
    pool.sweep(10, 10)
    assert len(pool) == 0
