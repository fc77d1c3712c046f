"""policy.survey: each known endpoint in one group."""

from __future__ import annotations

import random

from bittern.core.endpoint import Endpoint
from bittern.policy.bans import FIRST_BAN, Ban
from bittern.policy.candidates import MAX_FAILURES, Candidates, Source
from bittern.policy.survey import MAX_LISTED, CandidateSurvey, FailedCandidate, survey


def at(number: int, port: int = 6881) -> Endpoint:
    return Endpoint(f"203.{number}.113.1", port)


def make() -> Candidates:
    return Candidates(random.Random(1), now=0.0)


def test_nobody_is_known() -> None:
    assert survey(make(), now=0.0) == CandidateSurvey()


def test_each_group() -> None:
    candidates = make()
    candidates.add([at(1), at(2), at(3)], Source.USER, now=0)
    assert survey(candidates, now=0).num_ready == 3
    for number in (1, 2, 3):
        (endpoint,) = candidates.next_to_dial(1, now=0)
        if number == 1:
            failed_at = endpoint
            retry_at = candidates.failed(endpoint, now=1, reason="connection refused")
        elif number == 2:
            candidates.connected(endpoint, now=1)
            candidates.disconnected(endpoint, now=100)  # it comes back after a while
    candidates.add([at(4)], Source.DHT, now=100)
    candidates.add([at(5)], Source.DHT, now=100, is_seed=True)
    candidates.ban(at(4).host, now=100, reason="sent corrupt data")
    candidates.add([at(6)], Source.DHT, now=100)
    candidates.is_seeding = True
    candidates.failed(failed_at, now=100, reason="no answer in time")
    found = survey(candidates, now=101)
    assert retry_at is not None
    assert found.failed[0].next_at is not None
    assert found.failed == (
        FailedCandidate(failed_at, Source.USER, 2, "no answer in time", found.failed[0].next_at),
    )
    counts = (found.num_active, found.num_ready, found.num_failed, found.num_waiting)
    assert counts == (1, 1, 1, 1)
    assert (found.num_banned, found.num_seeds_aside, found.num_known) == (1, 1, 6)
    assert found.bans == (Ban(at(4).host, 100 + FIRST_BAN, "sent corrupt data"),)
    assert found.next_at == 101


def test_who_was_given_up_is_counted() -> None:
    candidates = make()
    candidates.add([at(1)], Source.DHT, now=0)
    for _ in range(MAX_FAILURES - 1):
        assert candidates.failed(at(1), now=0) is not None
    assert candidates.failed(at(1), now=0) is None
    assert candidates.failed(at(1), now=0) is None
    found = survey(candidates, now=0)
    assert (found.num_known, found.num_forgotten) == (0, 1)


def test_who_may_be_tried_again_is_ready_and_so_is_a_seed_while_we_need_something() -> None:
    candidates = make()
    candidates.add([at(1), at(2)], Source.DHT, now=0)
    candidates.add([at(3)], Source.DHT, now=0, is_seed=True)
    late = candidates.failed(at(1), now=20)
    soon = candidates.failed(at(2), now=0)
    assert late is not None
    assert soon is not None
    found = survey(candidates, now=21)
    assert (found.num_ready, found.num_failed, found.num_seeds_aside) == (1, 2, 0)
    assert [each.endpoint for each in found.failed] == [at(2), at(1)], "the soonest first"
    assert survey(candidates, now=soon).num_ready == 2
    assert survey(candidates, now=max(soon, late)).num_ready == 3


def test_endpoints_put_aside_have_no_instant() -> None:
    candidates = make()
    candidates.add([at(1, 1), at(1, 2)], Source.DHT, now=0)
    assert len(candidates.next_to_dial(5, now=0)) == 1  # an address is dialled once at a time
    found = survey(candidates, now=0)
    assert (found.num_active, found.num_waiting, found.next_at) == (1, 1, None)


def test_long_lists_are_cut() -> None:
    candidates = make()
    endpoints = [at(number) for number in range(1, MAX_LISTED + 10)]
    candidates.add(endpoints, Source.DHT, now=0)
    for number, endpoint in enumerate(endpoints):
        candidates.failed(endpoint, now=number, reason="x")
        candidates.bans.ban(f"198.51.100.{number}", now=0, reason="y")
    found = survey(candidates, now=100)
    assert found.num_failed + found.num_ready == len(endpoints)
    assert len(found.failed) == min(found.num_failed, MAX_LISTED)
    assert len(found.bans) == MAX_LISTED
    assert found.bans[0].address == f"198.51.100.{MAX_LISTED + 8}"
    instants = [each.next_at for each in found.failed if each.next_at is not None]
    assert instants == sorted(instants)
