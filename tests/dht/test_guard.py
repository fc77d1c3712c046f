"""Rates and proofs (Limit: N1)."""

from __future__ import annotations

import pytest

from bittern.dht.guard import Guard
from bittern.dht.limits import (
    MAX_ANSWER_LENGTH,
    MAX_SOURCES,
    MAX_STRANGER_FACTOR,
    PROOF_LIFETIME,
    QUERY_BURST,
)

HOST = "1.2.3.4"


@pytest.fixture
def guard() -> Guard:
    return Guard(upload_rate=1000.0, query_rate=5.0, now=0.0)


def num_admitted(guard: Guard, host: str, tries: int, now: float) -> int:
    return sum(guard.admits(guard.source(host, now=now), now=now) for _ in range(tries))


def test_an_address_has_a_burst_and_then_its_rate(guard: Guard) -> None:
    burst = int(5 * QUERY_BURST)
    assert num_admitted(guard, HOST, 100, 0.0) == burst
    assert num_admitted(guard, HOST, 100, 0.1) == 0
    assert num_admitted(guard, HOST, 100, 1.01) == 5
    assert num_admitted(guard, HOST, 100, 3.02) == 10
    assert num_admitted(guard, HOST, 100, 1000.0) == burst


def test_asking_in_vain_does_not_cost_more(guard: Guard) -> None:
    num_admitted(guard, HOST, 20, 0.0)
    total = sum(num_admitted(guard, HOST, 10, step / 100) for step in range(1, 101))
    assert total in (4, 5)


def test_addresses_do_not_share_their_rate(guard: Guard) -> None:
    num_admitted(guard, HOST, 100, 0.0)
    assert num_admitted(guard, "1.2.3.5", 1, 0.0) == 1


def test_the_addresses_of_one_ipv6_subscriber_share_theirs(guard: Guard) -> None:
    """He owns the whole /64, and would else have the budget of the whole node to himself."""
    burst = int(5 * QUERY_BURST)
    hosts = [f"2a02:db8:1:2::{number:x}" for number in range(1, 100)]
    assert sum(num_admitted(guard, host, 1, 0.0) for host in hosts) == burst
    assert num_admitted(guard, "2a02:db8:1:3::1", 1, 0.0) == 1
    assert sum(num_admitted(guard, host, 1, 1.01) for host in hosts) == 5
    neighbours = [f"fd00::{number:x}" for number in range(1, 100)]
    assert sum(num_admitted(guard, host, 1, 2000.0) for host in neighbours) == 99, "one LAN"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.8.7", "::1"])
def test_all_nodes_of_this_machine_may_share_an_address(guard: Guard, host: str) -> None:
    assert num_admitted(guard, host, 100, 0.0) == 100
    guard.spend(1500)
    assert num_admitted(guard, host, 1, 0.0) == 0


def test_the_whole_node_has_a_rate(guard: Guard) -> None:
    guard.spend(1500)
    assert num_admitted(guard, HOST, 1, 0.0) == 0
    assert num_admitted(guard, HOST, 1, 0.4) == 0
    assert num_admitted(guard, HOST, 1, 0.6) == 1


def test_savings_are_one_second(guard: Guard) -> None:
    assert num_admitted(guard, HOST, 1, 1000.0) == 1
    guard.spend(1001)
    assert num_admitted(guard, HOST, 1, 1000.0) == 0


def test_strangers_get_four_times_what_they_sent(guard: Guard) -> None:
    source = guard.source(HOST, now=0.0)
    assert guard.max_answer(source, 100, now=0.0) == 100 * MAX_STRANGER_FACTOR
    assert guard.max_answer(source, 2000, now=0.0) == MAX_ANSWER_LENGTH


@pytest.mark.parametrize("is_seen_before", [True, False])
def test_a_proof_holds_for_a_while(guard: Guard, is_seen_before: bool) -> None:
    if is_seen_before:
        guard.source(HOST, now=0.0)
    guard.prove(HOST, now=0.0)
    source = guard.source(HOST, now=1.0)
    assert guard.max_answer(source, 100, now=PROOF_LIFETIME - 1) == MAX_ANSWER_LENGTH
    assert guard.max_answer(source, 100, now=PROOF_LIFETIME) == 400
    assert guard.max_answer(guard.source("1.2.3.5", now=1.0), 100, now=1.0) == 400


def test_forged_sources_cannot_grow_memory_nor_push_out_proofs(guard: Guard) -> None:
    guard.prove(HOST, now=0.0)
    for number in range(3 * MAX_SOURCES):
        guard.source(f"9.{number >> 16}.{number >> 8 & 255}.{number & 255}", now=0.0)
    assert len(guard._sources) <= MAX_SOURCES
    assert len(guard._old_sources) <= MAX_SOURCES
    assert guard.max_answer(guard.source(HOST, now=1.0), 100, now=1.0) == MAX_ANSWER_LENGTH


def test_a_source_survives_one_change_of_generation(guard: Guard) -> None:
    num_admitted(guard, HOST, 100, 0.0)
    for number in range(MAX_SOURCES):
        guard.source(f"9.0.{number >> 8}.{number & 255}", now=0.0)
    assert num_admitted(guard, HOST, 1, 0.0) == 0


def test_proofs_are_bounded_too(guard: Guard) -> None:
    for number in range(3 * MAX_SOURCES):
        guard.prove(f"9.{number >> 16}.{number >> 8 & 255}.{number & 255}", now=0.0)
    assert len(guard._proofs) <= MAX_SOURCES
    assert len(guard._old_proofs) <= MAX_SOURCES
    # An old generation still counts.
    number = 2 * MAX_SOURCES - 1
    old = guard.source(f"9.{number >> 16}.{number >> 8 & 255}.{number & 255}", now=1.0)
    assert guard.max_answer(old, 100, now=1.0) == MAX_ANSWER_LENGTH


def test_a_host_that_is_none_is_refused(guard: Guard) -> None:
    with pytest.raises(ValueError):
        guard.source("not an address", now=0.0)


def test_one_call_admits_and_returns_the_source(guard: Guard) -> None:
    burst = int(5 * QUERY_BURST)
    admitted = [guard.admit(HOST, now=0.0) for _ in range(burst + 1)]
    assert admitted[-1] is None
    assert set(admitted[:-1]) == {guard.source(HOST, now=0.0)}
    local = "127.0.0.1"
    assert all(guard.admit(local, now=0.0) for _ in range(100))
    guard.spend(2000)
    assert guard.admit(local, now=0.0) is None
    assert guard.admit(local, now=5.0) is not None
