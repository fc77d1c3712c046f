"""Public addresses are of 5.0.0.0/8 and 2a00::/16; nothing is ever connected to."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bittern.core.endpoint import Endpoint, network_of
from bittern.policy.bans import FIRST_BAN, Bans
from bittern.policy.candidates import (
    CAPACITY,
    FIRST_BACKOFF,
    JITTER,
    LONGEST_BACKOFF,
    MAX_FAILURES,
    PAUSED_CAPACITY,
    RECONNECT_DELAY,
    Candidates,
    Heard,
    Source,
)
from bittern.policy.peer_priority import canonical_priority


def at(number: int, port: int = 6881) -> Endpoint:
    """A public endpoint, each number in a network of its own."""
    return Endpoint(f"5.{number >> 8 & 255}.{number & 255}.7", port)


def make(**options: object) -> Candidates:
    return Candidates(random.Random(1), now=0.0, **options)  # type: ignore[arg-type]


def filled(numbers: range, source: Source = Source.TRACKER, **options: object) -> Candidates:
    candidates = make(**options)
    assert candidates.add(map(at, numbers), source, now=0.0) == len(numbers)
    return candidates


def failing(candidates: Candidates) -> list[Endpoint]:
    return [entry.endpoint for entry in candidates.entries() if entry.failures]


# --- whom to dial ------------------------------------------------------------------------


def test_each_endpoint_is_dialled_once_until_it_is_reported() -> None:
    candidates = filled(range(10))
    first = candidates.next_to_dial(4, now=0.0)
    rest = candidates.next_to_dial(99, now=0.0)
    assert len(first) == 4
    assert repr(candidates) == "<Candidates 10/3000, 10 active>"
    assert sorted(first + rest) == sorted(map(at, range(10)))
    assert candidates.next_to_dial(99, now=0.0) == []
    assert candidates.next_to_dial(0, now=0.0) == []
    assert candidates.next_timer() is None


def test_the_timer_says_when_somebody_can_be_dialled() -> None:
    candidates = make()
    assert candidates.next_timer() is None
    candidates.add([at(1), at(2)], Source.TRACKER, now=5.0)
    assert candidates.next_timer() == 5.0
    found = candidates.next_to_dial(1, now=6.0)
    assert candidates.next_timer() == 6.0
    found += candidates.next_to_dial(1, now=6.0)
    candidates.failed(found[0], now=7.0)
    due = candidates.next_timer()
    assert due is not None
    assert candidates.next_to_dial(1, now=due - 0.01) == []
    assert candidates.next_to_dial(1, now=due) == [found[0]]


def test_peers_that_were_useful_or_named_by_the_user_or_lan_go_first() -> None:
    candidates = filled(range(20))
    candidates.add([at(100)], Source.USER, now=0.0)
    candidates.add([at(101)], Source.LSD, now=0.0)
    candidates.connected(at(3), now=0.0)
    candidates.disconnected(at(3), now=60.0)
    assert set(candidates.next_to_dial(3, now=200.0)) == {at(100), at(101), at(3)}


def test_the_order_of_equals_is_left_to_chance() -> None:
    orders = set()
    for seed in range(5):
        candidates = Candidates(random.Random(seed), now=0.0)
        candidates.add(map(at, range(30)), Source.DHT, now=0.0)
        orders.add(tuple(candidates.next_to_dial(30, now=0.0)))
    assert len(orders) == 5


def test_those_that_failed_come_last() -> None:
    candidates = filled(range(8))
    for endpoint in candidates.next_to_dial(5, now=0.0):
        candidates.failed(endpoint, now=0.0)
    fresh = candidates.next_to_dial(3, now=1e4)
    assert len(candidates.next_to_dial(9, now=1e4)) == 5
    assert not set(fresh) & set(candidates.next_to_dial(9, now=1e4))
    assert all(endpoint in candidates for endpoint in fresh)


def test_unknown_peers_are_ordered_by_canonical_priority() -> None:
    ours = Endpoint("9.8.7.6", 6881)
    candidates = filled(range(40))
    assert candidates.next_to_dial(5, now=0.0)
    candidates.set_external(ours)
    candidates.add(map(at, range(40, 60)), Source.PEX, now=0.0)
    found = candidates.next_to_dial(99, now=0.0)
    priorities = [canonical_priority(ours, endpoint) for endpoint in found]
    assert len(found) == 55
    assert priorities == sorted(priorities, reverse=True)


def test_the_families_have_priorities_of_their_own() -> None:
    candidates = make()
    ours = Endpoint("2a00:9::1", 6881)
    candidates.set_external(ours)
    candidates.set_external(ours)
    peers = [Endpoint(f"2a00:{i}::1", 6881) for i in range(1, 8)]
    candidates.add([*peers, at(1)], Source.TRACKER, now=0.0)
    found = [e for e in candidates.next_to_dial(9, now=0.0) if e.is_ipv6]
    assert found == sorted(peers, key=lambda e: -canonical_priority(ours, e))


# --- one connection per address ----------------------------------------------------------


def test_an_address_is_dialled_once_however_many_ports_are_named() -> None:
    """Limit: H15. Also H8: one victim named on every port is tried three times in ten minutes."""
    candidates = make()
    candidates.add([at(1, port) for port in range(1, 300)], Source.TRACKER, now=0.0)
    dialled: list[float] = []
    now = 0.0
    while now < 1200.0:
        for endpoint in candidates.next_to_dial(9, now=now):
            dialled.append(now)
            assert candidates.next_to_dial(9, now=now) == []
            candidates.failed(endpoint, now=now)
        now += 1.0
    assert len(dialled) == 6
    assert all(later - now >= 600.0 for now, later in zip(dialled, dialled[3:], strict=False))


def test_ports_of_a_busy_address_come_when_it_is_free() -> None:
    candidates = make()
    candidates.add([at(1, 1), at(1, 2)], Source.TRACKER, now=0.0)
    (first,) = candidates.next_to_dial(9, now=0.0)
    assert candidates.next_timer() is None
    candidates.failed(first, now=3.0)
    assert candidates.next_timer() == 3.0
    (second,) = candidates.next_to_dial(9, now=3.0)
    assert second != first
    assert second.host == first.host


def test_ipv6_addresses_of_one_64_are_one_address() -> None:
    candidates = make()
    candidates.add([Endpoint(f"2a00:1:2:3::{i}", 6881) for i in range(5)], Source.DHT, now=0.0)
    assert len(candidates.next_to_dial(9, now=0.0)) == 1


def test_several_connections_to_an_address_can_be_allowed() -> None:
    candidates = make(allow_multiple_per_address=True)
    candidates.add([at(1, port) for port in range(1, 9)], Source.TRACKER, now=0.0)
    assert len(candidates.next_to_dial(9, now=0.0)) == 3
    assert candidates.next_timer() == 600.0


def test_loopback_addresses_are_told_apart_by_port() -> None:
    candidates = make()
    peers = [Endpoint("127.0.0.1", port) for port in range(7000, 7050)]
    peers += [Endpoint("::1", port) for port in range(7000, 7050)]
    candidates.add(peers, Source.USER, now=0.0)
    assert len(candidates.next_to_dial(999, now=0.0)) == 100


def test_a_network_is_dialled_eight_times_a_minute() -> None:
    """Limit: H8. A victim's whole /24 may be named too."""
    candidates = make()
    candidates.add([Endpoint(f"5.6.7.{i}", 80) for i in range(256)], Source.TRACKER, now=0.0)
    assert len(candidates.next_to_dial(99, now=0.0)) == 8
    assert candidates.next_to_dial(99, now=59.0) == []
    assert candidates.next_timer() == 60.0
    assert len(candidates.next_to_dial(99, now=60.0)) == 8


# --- what becomes of them ----------------------------------------------------------------


def test_failures_are_backed_off_and_then_forgotten() -> None:
    candidates = filled(range(1))
    now = 0.0
    for failure in range(MAX_FAILURES):
        assert at(0) in candidates
        candidates.connected(at(0), now=now)
        next_at = candidates.failed(at(0), now=now, reason="refused")
        due = candidates.next_timer()
        assert next_at == due
        assert {entry.reason for entry in candidates.entries()} <= {"refused"}
        if failure < MAX_FAILURES - 1:
            assert due is not None
            expected = FIRST_BACKOFF * 2**failure
            assert expected * (1 - JITTER) <= due - now <= expected * (1 + JITTER)
            now = due
    assert at(0) not in candidates
    assert candidates.next_timer() is None
    assert candidates.num_forgotten == 1
    assert candidates.failed(at(0), now=now) is None


def test_what_the_user_named_is_never_forgotten() -> None:
    candidates = filled(range(1), Source.USER)
    now = 0.0
    for _ in range(1100):
        candidates.failed(at(0), now=now)
        due = candidates.next_timer()
        assert due is not None
        assert due - now <= LONGEST_BACKOFF * (1 + JITTER)
        now = due
    assert at(0) in candidates


def test_what_the_user_named_is_tried_again_soon() -> None:
    candidates = make()
    user, link = Endpoint("192.168.1.1", 1), Endpoint("192.168.1.2", 1)
    candidates.add([user], Source.USER, now=0.0)
    candidates.add([link], Source.LINK, now=0.0)
    now, tries = 0.0, []
    while now < 60.0:
        for endpoint in candidates.next_to_dial(2, now=now):
            tries.append((endpoint, now))
            candidates.failed(endpoint, now=now)
        due = candidates.next_timer()
        assert due is not None
        now = due
    gaps = [after - before for before, after in pairwise(at for who, at in tries if who == user)]
    assert len(gaps) >= 4
    for gap, backoff in zip(gaps, (1.0, 2.0, 4.0, 8.0), strict=False):
        assert backoff * (1 - JITTER) <= gap <= backoff * (1 + JITTER)
    assert sum(who == link for who, _ in tries) == 2


def test_naming_a_peer_again_tries_it_at_once_only_for_the_user() -> None:
    candidates = filled(range(2))
    for endpoint in candidates.next_to_dial(2, now=0.0):
        candidates.failed(endpoint, now=0.0)
    assert candidates.add([at(0), at(1)], Source.PEX, now=1.0) == 0
    assert candidates.next_to_dial(2, now=1.0) == []
    assert candidates.add([at(0)], Source.USER, now=1.0) == 0
    assert failing(candidates) == [at(1)]
    assert candidates.next_to_dial(2, now=1.0) == [at(0)]
    candidates.add([at(0)], Source.USER, now=1.0)
    candidates.add([at(1)], Source.USER, now=1.0)
    assert candidates.next_to_dial(2, now=1.0) == [at(1)]
    now = 1.0
    for _ in range(2 * MAX_FAILURES):
        now = candidates.failed(at(1), now=now) or now
    assert at(1) in candidates, "it is the user's now"


def test_naming_a_connected_peer_does_not_dial_it() -> None:
    candidates = filled(range(1))
    candidates.connected(at(0), now=0.0)
    candidates.add([at(0)], Source.USER, now=1.0)
    assert candidates.next_to_dial(1, now=99.0) == []


def test_a_peer_that_was_lost_is_dialled_again_within_half_a_minute() -> None:
    """Limit: F12."""
    candidates = filled(range(1))
    assert candidates.next_to_dial(1, now=0.0) == [at(0)]
    candidates.connected(at(0), now=1.0)
    candidates.disconnected(at(0), now=100.0)
    due = candidates.next_timer()
    assert due is not None
    assert 100.0 + RECONNECT_DELAY * (1 - JITTER) <= due <= 130.0


def test_a_short_connection_counts_as_a_failure_and_a_long_one_clears_them() -> None:
    candidates = filled(range(1))
    for now in (0.0, 1000.0):
        candidates.connected(at(0), now=now)
        candidates.disconnected(at(0), now=now + 9.0)
    due = candidates.next_timer()
    assert due is not None
    assert due - 1009.0 >= 2 * FIRST_BACKOFF * (1 - JITTER)
    candidates.connected(at(0), now=2000.0)
    candidates.disconnected(at(0), now=2010.0)
    candidates.failed(at(0), now=3000.0)
    due = candidates.next_timer()
    assert due is not None
    assert due - 3000.0 <= FIRST_BACKOFF * (1 + JITTER)


def test_an_attempt_that_was_not_wanted_is_no_failure() -> None:
    candidates = filled(range(1))
    candidates.next_to_dial(1, now=0.0)
    candidates.disconnected(at(0), now=1.0)
    due = candidates.next_timer()
    assert due is not None
    assert due <= 1.0 + RECONNECT_DELAY * (1 + JITTER)
    assert failing(candidates) == []


@pytest.mark.parametrize("end", ["failed", "let_go"])
def test_an_attempt_that_was_not_wanted_is_no_long_connection(end: str) -> None:
    """Whatever connection there was before."""
    candidates = filled(range(1))
    candidates.connected(at(0), now=0.0)
    getattr(candidates, end)(at(0), now=100.0)
    candidates.failed(at(0), now=100.0)
    assert candidates.next_to_dial(1, now=5_000.0) == [at(0)]
    candidates.disconnected(at(0), now=5_001.0)
    assert failing(candidates) == [at(0)], "its failures stand"


def test_incoming_peers_become_known_and_keep_their_address_busy() -> None:
    candidates = make()
    candidates.add([at(1, 7000)], Source.TRACKER, now=0.0)
    candidates.connected(at(1), now=0.0)
    candidates.connected(at(1), now=0.0)
    assert at(1) in candidates
    assert candidates.next_to_dial(9, now=0.0) == []
    candidates.disconnected(at(1), now=50.0)
    assert candidates.next_to_dial(9, now=50.0) == [at(1, 7000)]


def test_an_incoming_peer_without_room_on_the_list_keeps_its_address_busy() -> None:
    candidates = filled(range(10), Source.USER, capacity=10)
    candidates.connected(at(3, 99), now=0.0)
    assert at(3, 99) not in candidates
    assert at(3) not in candidates.next_to_dial(99, now=0.0)
    candidates.disconnected(at(3, 99), now=50.0)
    assert candidates.next_to_dial(99, now=50.0) == [at(3)]


def test_bans_hold_for_the_address_and_end() -> None:
    bans = Bans()
    candidates = filled(range(2), bans=bans)
    candidates.ban(network_of(at(0).host), now=0.0)
    assert candidates.is_banned(at(0).host, now=0.0)
    assert not candidates.is_banned(at(1).host, now=0.0)
    assert bans.banned_until(at(0).host, now=1.0) == FIRST_BAN
    assert candidates.next_to_dial(9, now=0.0) == [at(1)]
    assert candidates.next_timer() == FIRST_BAN
    assert candidates.next_to_dial(9, now=FIRST_BAN) == [at(0)]


def test_ourselves_are_not_dialled() -> None:
    candidates = filled(range(4))
    candidates.set_external(at(0))
    (found,) = candidates.next_to_dial(1, now=0.0)
    candidates.mark_self(found)
    candidates.mark_self(at(77))
    assert candidates.add([at(0), found, at(77)], Source.TRACKER, now=0.0) == 0
    assert len(candidates.next_to_dial(9, now=0.0)) == 2


def test_an_attempt_at_ourselves_frees_the_address() -> None:
    candidates = make()
    candidates.add([at(1, 1), at(1, 2)], Source.TRACKER, now=0.0)
    (first,) = candidates.next_to_dial(9, now=0.0)
    candidates.mark_self(first)
    assert len(candidates.next_to_dial(9, now=0.0)) == 1


def test_the_memory_of_ourselves_is_bounded() -> None:
    candidates = make()
    for i in range(2 * PAUSED_CAPACITY):
        candidates.mark_self(at(i))
    assert candidates.add(map(at, range(2 * PAUSED_CAPACITY)), Source.USER, now=0.0) > 0


def test_seeds_do_not_dial_seeds() -> None:
    candidates = make()
    candidates.add([at(0)], Source.PEX, now=0.0, is_seed=True)
    candidates.add(map(at, range(1, 4)), Source.PEX, now=0.0)
    candidates.add([at(1)], Source.PEX, now=0.0, is_seed=True)
    candidates.add([at(1)], Source.TRACKER, now=0.0)
    candidates.mark_seed(at(2))
    candidates.mark_seed(at(99))
    candidates.is_seeding = True
    assert candidates.is_seeding
    assert candidates.next_to_dial(9, now=0.0) == [at(3)]
    assert candidates.next_timer() is None
    candidates.is_seeding = False
    assert sorted(candidates.next_to_dial(9, now=0.0)) == [at(0), at(1), at(2)]


def test_who_was_a_seed_and_comes_as_a_leecher_is_dialled_again() -> None:
    """More files were chosen, somebody else is there now, or it never was one."""
    candidates = make()
    candidates.add([at(0), at(1)], Source.PEX, now=0.0, is_seed=True)
    candidates.is_seeding = True
    for number in (0, 1):
        candidates.connected(at(number), now=0.0)
    candidates.mark_seed(at(1))
    for number in (0, 1):
        candidates.disconnected(at(number), now=60.0)
    assert candidates.next_to_dial(9, now=7_200.0) == [at(0)]


# --- what is believed --------------------------------------------------------------------


HOSTS = {
    "public": "5.6.7.8",
    "private": "192.168.1.9",
    "shared": "100.64.0.9",
    "link-local": "169.254.1.9",
    "loopback": "127.0.0.9",
    "public6": "2a00::9",
    "private6": "fd00::9",
    "link-local6": "fe80::9",
    "loopback6": "::1",
}
ALL = set(HOSTS)
PUBLIC = {"public", "public6"}
LOOPBACK = {"loopback", "loopback6"}


@pytest.mark.parametrize(
    ("source", "from_host", "believed"),
    [
        (Source.TRACKER, None, PUBLIC),
        (Source.TRACKER, "9.9.9.9", PUBLIC),
        (Source.DHT, "9.9.9.9", PUBLIC),
        (Source.PEX, "2a00::1", PUBLIC),
        (Source.TRACKER, "192.168.1.1", ALL - LOOPBACK),
        (Source.PEX, "10.0.0.1", ALL - LOOPBACK),
        (Source.TRACKER, "127.0.0.1", ALL),
        (Source.PEX, "::1", ALL),
        (Source.USER, None, ALL),
        (Source.LSD, None, ALL),
        (Source.ZEROCONF, None, ALL),
    ],
)
def test_local_addresses_are_taken_only_from_who_is_there(
    source: Source, from_host: str | None, believed: set[str]
) -> None:
    """Limit: H8."""
    candidates = make()
    for host in HOSTS.values():
        candidates.add([Endpoint(host, 6881)], source, now=0.0, from_host=from_host)
    kept = {name for name, host in HOSTS.items() if Endpoint(host, 6881) in candidates}
    assert kept == believed


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("5.6.7.8", 0),
        Endpoint("0.0.0.0", 6881),
        Endpoint("224.0.0.1", 6881),
        Endpoint("255.255.255.255", 6881),
        Endpoint("ff02::1", 6881),
        Endpoint("::", 6881),
    ],
)
def test_what_cannot_be_a_peer_is_never_kept(endpoint: Endpoint) -> None:
    candidates = make()
    for source in Source:
        # Somebody on this machine may name what is on it.
        assert candidates.add([endpoint], source, now=0.0, from_host="127.0.0.1") == 0
    candidates.connected(endpoint, now=0.0)
    assert len(candidates) == 0


# --- how many ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_list_is_capped_and_smaller_while_paused() -> None:
    """Limit: H8."""
    candidates = make()
    assert candidates.add(map(at, range(CAPACITY + 99)), Source.TRACKER, now=0.0) == CAPACITY
    (dialled,) = candidates.next_to_dial(1, now=0.0)
    candidates.add([at(9500)], Source.USER, now=0.0)
    assert at(9500) in candidates
    candidates.is_paused = True
    assert candidates.is_paused
    assert len(candidates) == PAUSED_CAPACITY
    assert dialled in candidates
    assert at(9500) in candidates
    assert candidates.add([at(9501)], Source.TRACKER, now=0.0) == 0
    candidates.is_paused = False
    assert candidates.add([at(9501)], Source.TRACKER, now=0.0) == 1


def test_one_exchange_partner_fills_a_tenth_of_the_list() -> None:
    """Limit: H8."""
    candidates = make(capacity=100)
    for i in range(50):
        batch = [at(50 * i + j) for j in range(50)]
        candidates.add(batch, Source.PEX, now=0.0, from_host="9.9.9.9")
    assert len(candidates) == 10
    candidates.add([at(9000 + i) for i in range(50)], Source.PEX, now=0.0, from_host="9.9.9.8")
    assert len(candidates) == 20
    candidates.add([at(9100 + i) for i in range(50)], Source.PEX, now=0.0)
    assert len(candidates) == 70
    batch = [at(9200 + i) for i in range(30)]
    candidates.add(batch, Source.TRACKER, now=0.0, from_host="9.9.9.7")
    assert len(candidates) == 100, "a tracker is not held to it"


def test_an_exchange_partner_may_name_more_once_some_are_forgotten() -> None:
    candidates = make(capacity=20)
    assert candidates.add(map(at, range(9)), Source.PEX, now=0.0, from_host="9.9.9.9") == 2
    candidates.mark_self(at(0))
    candidates.mark_self(at(1))
    assert candidates.add(map(at, range(9)), Source.PEX, now=0.0, from_host="9.9.9.9") == 2


def test_a_full_list_makes_room_for_better_sources_only() -> None:
    candidates = filled(range(100), Source.PEX, capacity=100)
    assert candidates.add([at(200)], Source.PEX, now=0.0) == 0
    assert candidates.add([at(200)], Source.DHT, now=0.0) == 1
    assert at(200) in candidates
    assert candidates.add(map(at, range(300, 450)), Source.TRACKER, now=0.0) == 100 - 1 + 1
    assert len(candidates) == 100
    assert not any(at(i) in candidates for i in range(100))


def test_a_full_list_drops_failures_first_and_never_who_is_active_or_useful() -> None:
    candidates = filled(range(40), Source.PEX, capacity=40)
    candidates.connected(at(0), now=0.0)
    candidates.connected(at(1), now=0.0)
    candidates.disconnected(at(1), now=60.0)
    for i in (2, 3):
        candidates.failed(at(i), now=0.0)
    assert candidates.add([at(100)], Source.PEX, now=100.0) == 1
    assert at(2) not in candidates
    assert candidates.add(map(at, range(200, 400)), Source.USER, now=100.0) == 38
    assert at(0) in candidates
    assert at(1) in candidates


def test_whoever_seeds_for_months_still_hears_of_leechers() -> None:
    """Seeds are never dialled by a seed, so they do not fail; in the end there was nobody else."""
    candidates = make(capacity=20)
    candidates.is_seeding = True
    seeds = [at(number) for number in range(20)]
    assert candidates.add(seeds, Source.TRACKER, now=0) == 20
    assert candidates.add([at(100)], Source.TRACKER, now=0) == 0, "not tried yet"
    for number, endpoint in enumerate(seeds):
        now = 1000.0 * number
        candidates.connected(endpoint, now=now)
        candidates.mark_seed(endpoint)
        if number % 2:
            candidates.disconnected(endpoint, now=now + 500)
        else:
            candidates.let_go(endpoint, now=now)
    now = 1e6
    assert candidates.next_to_dial(5, now=now) == []
    assert candidates.add([at(100)], Source.TRACKER, now=now) == 1
    assert candidates.next_to_dial(5, now=now) == [at(100)]
    candidates.is_seeding = False
    assert candidates.add([at(101 + n) for n in range(20)], Source.TRACKER, now=now) < 3
    assert len(candidates) == 20


def test_who_was_active_may_go_when_the_attempt_was_not_wanted() -> None:
    candidates = filled(range(1), Source.PEX, capacity=1)
    assert candidates.next_to_dial(1, now=0.0) == [at(0)]
    assert candidates.add([at(5)], Source.TRACKER, now=0.0) == 0
    candidates.disconnected(at(0), now=1.0)
    assert candidates.add([at(5)], Source.TRACKER, now=1.0) == 1


@pytest.mark.slow
def test_a_poisoned_exchange_harms_no_victim() -> None:
    """Limit: H8. One victim named thirty thousand times, over ten minutes."""
    candidates = make()
    dialled: Counter[str] = Counter()
    for now in range(0, 600, 10):
        for peer in range(5):
            batch = [at(1, 1 + (now * 50 + peer * 100 + i) % 65535) for i in range(100)]
            candidates.add(batch, Source.PEX, now=now, from_host=f"9.9.{peer}.9")
        for endpoint in candidates.next_to_dial(20, now=now):
            dialled[endpoint.host] += 1
            candidates.failed(endpoint, now=now)
    assert dialled == {at(1).host: 3}
    assert len(candidates) <= CAPACITY


# --- any history -------------------------------------------------------------------------


class CandidatesMachine(RuleBasedStateMachine):
    """Random life of a list; what may not happen is checked after every step."""

    hosts = st.sampled_from(["5.1.1.1", "5.1.1.2", "6.1.1.1", "127.0.0.1", "2a00::1", "2a00::2"])
    endpoints = st.builds(Endpoint, hosts, st.integers(1, 4))

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.candidates = Candidates(random.Random(0), now=0.0, capacity=12)
        self.active: set[Endpoint] = set()
        self.dials: list[tuple[float, Endpoint]] = []

    def address(self, endpoint: Endpoint) -> str:
        loopback = endpoint.host == "127.0.0.1"
        return str(endpoint) if loopback else network_of(endpoint.host)

    @rule(seconds=st.sampled_from([0.0, 5.0, 60.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        named=st.lists(endpoints, max_size=6),
        source=st.sampled_from(list(Source)),
        is_seed=st.booleans(),
    )
    def peers_are_named(self, named: list[Endpoint], source: Source, is_seed: bool) -> None:
        self.candidates.add(named, source, now=self.now, from_host="127.0.0.1", is_seed=is_seed)

    @rule(count=st.integers(0, 3))
    def some_are_dialled(self, count: int) -> None:
        busy = {self.address(endpoint) for endpoint in self.active}
        for endpoint in self.candidates.next_to_dial(count, now=self.now):
            assert endpoint not in self.active
            assert self.address(endpoint) not in busy
            assert not self.candidates.is_banned(endpoint.host, now=self.now)
            busy.add(self.address(endpoint))
            self.active.add(endpoint)
            self.dials.append((self.now, endpoint))
            recent = [e for t, e in self.dials if t > self.now - 600]
            assert Counter(map(self.address, recent)).most_common(1)[0][1] <= 3

    @rule(endpoint=endpoints)
    def a_peer_connects(self, endpoint: Endpoint) -> None:
        self.candidates.connected(endpoint, now=self.now)
        self.active.add(endpoint)

    @rule(endpoint=endpoints, is_failure=st.booleans())
    def a_peer_goes(self, endpoint: Endpoint, is_failure: bool) -> None:
        report = self.candidates.failed if is_failure else self.candidates.disconnected
        report(endpoint, now=self.now)
        self.active.discard(endpoint)

    @rule(endpoint=endpoints)
    def a_peer_is_banned(self, endpoint: Endpoint) -> None:
        if len(self.candidates.bans) < 1:
            self.candidates.ban(endpoint.host, now=self.now)

    @rule(value=st.booleans())
    def we_seed_or_not(self, value: bool) -> None:
        self.candidates.is_seeding = value

    @invariant()
    def check_books(self) -> None:
        candidates, book = self.candidates, self.candidates._book
        assert set(candidates._active) == self.active
        addresses = Counter(map(self.address, self.active))
        assert candidates._busy == addresses
        assert len(candidates) <= 12
        for endpoint, entry in book.entries.items():
            assert entry.is_active == (endpoint in self.active)
            assert bool(entry.ticket) == (endpoint not in self.active)
        assert len(candidates._queue) == sum(not e.is_active for e in book.entries.values())

    def teardown(self) -> None:
        """Whatever happened, every address is dialled in the end."""
        candidates = self.candidates
        candidates.is_seeding = False
        for endpoint in list(self.active):
            candidates.disconnected(endpoint, now=self.now)
        dialled = set()
        for step in range(40):
            now = self.now + 4000.0 * (step + 1)
            for endpoint in candidates.next_to_dial(99, now=now):
                dialled.add(endpoint)
                candidates.connected(endpoint, now=now)
                candidates.disconnected(endpoint, now=now + 50.0)
        reachable = {self.address(endpoint) for endpoint in candidates._book.entries}
        assert {self.address(endpoint) for endpoint in dialled} == reachable


TestCandidatesMachine = pytest.mark.slow(CandidatesMachine.TestCase)
TestCandidatesMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_what_each_source_has_named_is_counted() -> None:
    candidates = make()
    assert candidates.heard(Source.TRACKER) is None
    candidates.add([at(1), at(2)], Source.TRACKER, now=5)
    candidates.add([at(2), at(3)], Source.TRACKER, now=5)
    assert candidates.heard(Source.TRACKER) == Heard(5, num_last=4, num_named=4)
    candidates.add([at(1)], Source.TRACKER, now=9)
    assert candidates.heard(Source.TRACKER) == Heard(9, num_last=1, num_named=5)
    candidates.connected(at(7), now=10)
    assert candidates.heard(Source.INCOMING) == Heard(10, num_last=1, num_named=1)
    candidates.connected(at(7), now=11)
    assert candidates.heard(Source.INCOMING) == Heard(10, num_last=1, num_named=1)


def test_what_certain_sources_named_can_be_forgotten() -> None:
    """BEP 27: as when a torrent turns out to be private. Connections are the caller's business."""
    candidates = filled(range(3))
    candidates.add([at(10), at(11)], Source.PEX, now=0.0)
    candidates.add([at(12)], Source.USER, now=0.0)
    candidates.add([at(11)], Source.TRACKER, now=0.0)
    candidates.connected(at(10), now=0.0)
    assert candidates.forget_from((Source.PEX, Source.DHT)) == [at(10), at(11)]
    assert len(candidates) == 4
    candidates.disconnected(at(10), now=100.0)
    assert set(candidates.next_to_dial(99, now=9_000.0)) == {at(0), at(1), at(2), at(12)}
    assert candidates.forget_from((Source.PEX,)) == []


def test_who_connected_while_the_list_was_full_is_known_once_there_is_room() -> None:
    """And not dialled, being there already."""
    candidates = filled(range(2), Source.USER, capacity=2)
    candidates.connected(at(7), now=0.0)
    assert at(7) not in candidates
    candidates.mark_self(at(1))
    assert candidates.add([at(7)], Source.TRACKER, now=1.0) == 1
    assert candidates.next_to_dial(9, now=1.0) == [at(0)]
    assert [(e.is_active, e.connected_at) for e in candidates.entries() if e.endpoint == at(7)] == [
        (True, 1.0)
    ]
    candidates.disconnected(at(7), now=100.0)
    assert failing(candidates) == []
    assert candidates.next_to_dial(9, now=9_000.0) == [at(7)]


def test_whom_we_let_go_may_be_dialled_at_once_and_as_often() -> None:
    """As when a torrent wakes up: its peers were not lost, and their limit is not used up."""
    candidates = filled(range(1))
    for attempt in range(5):
        now = float(attempt)
        assert candidates.next_to_dial(1, now=now) == [at(0)]
        candidates.connected(at(0), now=now)
        candidates.let_go(at(0), now=now)
    candidates.let_go(at(9), now=9.0)
    assert len(candidates) == 1
    assert [entry.endpoint for entry in candidates.entries()] == [at(0)]


def test_an_incoming_peer_that_was_let_go_without_room_leaves_nothing() -> None:
    candidates = filled(range(1), Source.USER, capacity=1)
    candidates.connected(at(9), now=0.0)
    candidates.let_go(at(9), now=1.0)
    assert at(9) not in candidates
