"""Who makes room (Limit: N3)."""

from __future__ import annotations

import random
from collections import Counter

from bittern.dht.fairness import FairSet


def fill(fair: FairSet, network: bytes, count: int) -> list[bytes]:
    keys = [network + number.to_bytes(4, "big") for number in range(count)]
    for key in keys:
        fair.add(key, network)
    return keys


def test_adding_removing_sampling(rng: random.Random) -> None:
    fair = FairSet(rng=rng)
    keys = fill(fair, b"a", 10)
    for key in keys[::2]:
        fair.remove(key)
    assert len(fair) == 5
    assert set(fair.sample(100)) == set(keys[1::2])
    assert len(set(fair.sample(3))) == 3


def test_networks_that_are_gone_take_no_memory(rng: random.Random) -> None:
    """Limit: N3. However many there were."""
    fair = FairSet(rng=rng)
    for number in range(100):
        for key in fill(fair, b"%d" % number, 2):
            fair.remove(key)
    assert len(fair) == len(fair._entries) == len(fair._shares) == 0


def test_a_crowded_network_displaces_its_own(rng: random.Random) -> None:
    fair = FairSet(rng=rng)
    fill(fair, b"crowd", 50)
    for number in range(50):
        fill(fair, b"%d" % number, 1)
    assert all(fair.choose_victim(b"crowd").startswith(b"crowd") for _ in range(100))


def test_a_crowd_that_is_not_drawn_still_displaces_its_own(rng: random.Random) -> None:
    fair = FairSet(rng=rng)
    fill(fair, b"pair", 2)
    for number in range(1000):
        fill(fair, b"%d" % number, 1)
    assert all(fair.choose_victim(b"pair").startswith(b"pair") for _ in range(20))


def test_a_newcomer_displaces_the_crowd(rng: random.Random) -> None:
    fair = FairSet(rng=rng)
    fill(fair, b"crowd", 50)
    for number in range(50):
        fill(fair, b"%d" % number, 1)
    victims = Counter(fair.choose_victim(b"new").startswith(b"crowd") for _ in range(200))
    # One of eight is from the crowd, but for a chance of 1 in 256.
    assert victims[True] > 190


def test_among_equals_chance_decides(rng: random.Random) -> None:
    fair = FairSet(rng=rng)
    for number in range(10):
        fill(fair, b"%d" % number, 1)
    assert len({fair.choose_victim(b"new") for _ in range(200)}) > 5


def test_worth_counts_against_the_crowd(rng: random.Random) -> None:
    fair = FairSet(rng=rng)
    keys = fill(fair, b"a", 4)
    victims = {
        fair.choose_victim(b"b", worth=lambda key: 1000 if key == keys[0] else 1) for _ in range(50)
    }
    assert keys[0] not in victims
    assert len(victims) == 3
