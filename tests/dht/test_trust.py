"""Whose word on the size of the network can be true (Limit: N2)."""

from __future__ import annotations

import random

import pytest

from bittern.dht.trust import Trust, claimed_size

INFO_LENGTH = 26


def neighbours(rng: random.Random, target: bytes, num_nodes: int, count: int = 8) -> bytes:
    """Return the nearest to a target in a random network, as compact node infos."""
    number = int.from_bytes(target, "big")
    distances = sorted(rng.getrandbits(160) for _ in range(num_nodes))[:count]
    return b"".join((number ^ each).to_bytes(20, "big") + bytes(6) for each in distances)


def settled(rng: random.Random, num_nodes: int, count: int = 32) -> Trust:
    trust = Trust()
    for _ in range(count):
        target = rng.randbytes(20)
        trust.note_size(claimed_size(target, neighbours(rng, target, num_nodes), INFO_LENGTH))
    return trust


def test_a_claim_is_how_dense_the_named_nodes_lie() -> None:
    target = bytes(20)
    quarter = (1 << 158).to_bytes(20, "big")
    assert claimed_size(target, b"", INFO_LENGTH) == 0
    assert claimed_size(target, quarter + bytes(6), INFO_LENGTH) == 3
    # The same node twice is one, and more than eight are not read.
    assert claimed_size(target, (quarter + bytes(6)) * 8, INFO_LENGTH) == 3
    near = b"".join(bytes([0, n]) + bytes(24) for n in range(1, 9))
    assert claimed_size(target, near + bytes([255]) * INFO_LENGTH, INFO_LENGTH) == 8 * 8192 - 1


@pytest.mark.parametrize("num_nodes", [100, 3000])
def test_the_estimate_is_near(rng: random.Random, num_nodes: int) -> None:
    """A claim is 8 / Gamma(8) of the truth; of 60,000 estimates all were 0.95 to 2.16 of it."""
    estimate = settled(rng, num_nodes).estimate_nodes(0)
    assert num_nodes / 1.2 <= estimate <= num_nodes * 2.3


def test_until_others_have_spoken_our_own_table_counts() -> None:
    trust = Trust()
    assert trust.estimate_nodes(17) == 17
    trust.note_size(5)
    assert trust.estimate_nodes(17) == 17
    for _ in range(7):
        assert not trust.is_settled
        trust.note_size(40)
    assert trust.is_settled
    assert trust.estimate_nodes(17) == 40
    assert "8 claims" in repr(trust)


def test_two_thirds_of_accomplices_do_not_move_the_estimate(rng: random.Random) -> None:
    trust = settled(rng, 3000, 11)
    for _ in range(21):
        trust.note_size(300)
    assert 1400 <= trust.estimate_nodes(0) <= 6000
    assert not trust.is_credible(300)


def test_a_sixth_who_make_nodes_up_do_not_move_the_estimate(rng: random.Random) -> None:
    trust = settled(rng, 3000, 27)
    for _ in range(5):
        trust.note_size(1_000_000)
    assert 2700 <= trust.estimate_nodes(0) <= 12_000
    assert not trust.is_credible(1_000_000)


def test_what_is_no_network_does_not_count(rng: random.Random) -> None:
    trust = settled(rng, 3000)
    before = trust.estimate_nodes(0)
    for _ in range(100):
        trust.note_size(1 << 144)
    assert trust.estimate_nodes(0) == before
    assert not trust.is_credible(1 << 144)


def test_honest_nodes_are_believed(rng: random.Random) -> None:
    """Also those that know only two thirds of their neighbours; of cliques hardly any."""
    trust = settled(rng, 3000)
    passed = {3000: 0, 2000: 0, 450: 0}
    for size in passed:
        for _ in range(100):
            target = rng.randbytes(20)
            named = neighbours(rng, target, size)
            passed[size] += trust.is_credible(claimed_size(target, named, INFO_LENGTH))
    assert passed[3000] >= 90
    assert passed[2000] >= 50
    assert passed[450] <= 10


def test_nobody_is_judged_by_few_claims_or_in_a_small_network() -> None:
    trust = Trust()
    for _ in range(7):
        trust.note_size(5000)
    assert trust.is_credible(1)
    small = Trust()
    for _ in range(20):
        small.note_size(40)
    assert small.is_credible(1)


def test_growth_by_half_is_told_once() -> None:
    trust = Trust()
    seen = []
    for size in [0] * 8 + [100] * 64 + [140] * 64 + [200] * 64:
        trust.note_size(size)
        if trust.take_growth():
            seen.append(trust.estimate_nodes(0))
    assert seen == [100, 200]
