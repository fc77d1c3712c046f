"""Requests for hashes that wait: turns, rates, refusals (Limit: H10)."""

from __future__ import annotations

import pytest

from bittern.codec.wire import HashRange
from bittern.core.errors import PeerViolation
from bittern.proto.hash_requests import MAX_RATE, MAX_REFUSED, MAX_WAITING, HashRequests


def wanted(index: int, length: int = 512) -> HashRange:
    return HashRange(bytes(32), 0, length * index, length, 0)


def test_peers_take_turns_and_each_is_answered_in_order() -> None:
    queue = HashRequests()
    for index in range(3):
        assert queue.admit("one", wanted(index), now=0.0)
    assert queue.admit("two", wanted(7), now=0.0)
    assert queue.admit("one", wanted(0), now=0.0)
    assert len(queue) == 4
    found = [queue.take(now=0.0) for _ in range(4)]
    assert found == [
        ("one", wanted(0)),
        ("two", wanted(7)),
        ("one", wanted(1)),
        ("one", wanted(2)),
    ]
    assert queue.take(now=0.0) is None
    assert queue.next_at(now=0.0) is None


def test_more_than_may_wait_are_refused() -> None:
    queue = HashRequests()
    admitted = [queue.admit("peer", wanted(index), now=0.0) for index in range(MAX_WAITING + 2)]
    assert admitted == [True] * MAX_WAITING + [False] * 2
    assert queue.admit("peer", wanted(0), now=0.0), "it waits already"


def test_who_does_not_heed_refusals_breaks_the_protocol() -> None:
    queue = HashRequests()
    for index in range(MAX_WAITING + MAX_REFUSED):
        queue.admit("peer", wanted(index), now=0.0)
    with pytest.raises(PeerViolation, match="without end"):
        queue.admit("peer", wanted(index + 1), now=0.0)
    patient = HashRequests()
    for index in range(MAX_WAITING + 3 * MAX_REFUSED):
        patient.admit("peer", wanted(index), now=index / 10)


def test_answers_a_second_are_limited_for_each_peer() -> None:
    queue = HashRequests()
    num_answers = num_others = 0
    for step in range(300):
        now = step / 100
        for index in range(2):
            queue.admit("greedy", wanted(2 * step + index), now=now)
        if step % 10 == 0:
            queue.admit("modest", wanted(step), now=now)
        while found := queue.take(now=now):
            num_answers += found[0] == "greedy"
            num_others += found[0] == "modest"
    assert num_others == 30
    assert abs(num_answers - MAX_RATE * 4) <= 2
    at = queue.next_at(now=3.0)
    assert at is not None
    assert 3.0 <= at <= 3.0 + 2 / MAX_RATE
    assert queue.take(now=at) is not None


@pytest.mark.parametrize(
    ("length", "per_second"),
    [(8192, 7), (1024, 50), (512, 100), (256, 200), (32, 1600), (2, 1600), (0, 1600)],
)
def test_answers_count_by_their_length(length: int, per_second: int) -> None:
    """A torrent of many files has many short layers; long pieces have many blocks."""
    queue = HashRequests()
    num_answers = 0
    while queue.admit("peer", wanted(num_answers, length), now=0.0) and queue.take(now=0.0):
        num_answers += 1
    assert num_answers == per_second
    # What no tree can hold counts as the longest.
    other = HashRequests()
    other.admit("peer", HashRange(bytes(32), 0, 0, 2**32 - 1, 0), now=0.0)
    assert other.take(now=0.0) is not None


def test_the_next_turn_is_that_of_the_peer_that_may_be_answered_first() -> None:
    queue = HashRequests()
    for peer, since in (("one", 0.0), ("two", 0.5)):
        for index in range(MAX_RATE):
            queue.admit(peer, wanted(index), now=since)
            assert queue.take(now=since) is not None
    queue.admit("two", wanted(MAX_RATE), now=0.5)
    second = queue.next_at(now=0.5)
    assert second is not None
    assert second > 0.5
    queue.admit("one", wanted(MAX_RATE), now=0.5)
    assert queue.next_at(now=0.5) == 0.5
    assert queue.take(now=0.5) == ("one", wanted(MAX_RATE))
    assert queue.next_at(now=0.5) == second
    assert queue.take(now=second - 0.0001) is None
    assert queue.take(now=second) == ("two", wanted(MAX_RATE))


def test_a_peer_that_has_left_is_forgotten() -> None:
    queue = HashRequests()
    queue.admit("one", wanted(0), now=0.0)
    queue.admit("two", wanted(0), now=0.0)
    queue.forget("one")
    queue.forget("nobody")
    assert queue.take(now=0.0) == ("two", wanted(0))
    queue.forget("two")
    queue.refused("two", now=0.0)
    assert len(queue) == 0
