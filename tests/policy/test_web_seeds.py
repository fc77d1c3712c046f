"""policy.web_seeds: when a web seed is asked, for how much, and when no more."""

from __future__ import annotations

import random

import pytest

from bittern.core.errors import WebSeedError, WebSeedLacksFile, WebSeedUseless
from bittern.policy.web_seeds import (
    ENDGAME_LENGTH,
    FIRST_LENGTH,
    FIRST_WAIT,
    LONGEST_WAIT,
    MAX_BAD_PIECES,
    MAX_LENGTH,
    MAX_RETRY_AFTER,
    WAIT_AFTER_PROGRESS,
    WebSeedRecord,
)

MIB = 1 << 20


@pytest.fixture
def record() -> WebSeedRecord:
    return WebSeedRecord("http://h/", is_trusted=False)


def wait_of(record: WebSeedRecord, error: WebSeedError, *, now: float = 100.0) -> float:
    """Return how long a failure keeps it from being asked."""
    record.failed(error, now=now, rng=random.Random(1))
    assert record.next_at is not None
    assert not record.may_be_asked(now=record.next_at - 0.01)
    assert record.may_be_asked(now=record.next_at)
    return record.next_at - now


def test_requests_grow_with_the_rate(record: WebSeedRecord) -> None:
    assert [record.request_length(0.0) for _ in range(2)] == [FIRST_LENGTH, FIRST_LENGTH]
    lengths = [record.request_length(1e9) for _ in range(9)]
    assert lengths == [min(FIRST_LENGTH << count, MAX_LENGTH) for count in range(1, 10)]
    assert record.request_length(2 * MIB) == 6 * MIB
    assert record.request_length(10.0) == FIRST_LENGTH


def test_in_the_endgame_requests_are_short(record: WebSeedRecord) -> None:
    assert record.request_length(10.0, is_endgame=True) == ENDGAME_LENGTH
    assert record.request_length(2 * MIB, is_endgame=True) == MIB


def test_failures_in_a_row_wait_longer_and_longer(record: WebSeedRecord) -> None:
    waits = [wait_of(record, WebSeedError("gone")) for _ in range(20)]
    for number, wait in enumerate(waits):
        longest = min(FIRST_WAIT * 2**number, LONGEST_WAIT)
        assert longest / 2 <= wait <= longest
    record.succeeded(now=200.0)
    assert (record.reason, record.last_answer_at) == ("", 200.0)
    assert wait_of(record, WebSeedError("gone")) <= FIRST_WAIT


def test_clients_do_not_come_back_together() -> None:
    waits = set()
    for seed in range(20):
        record = WebSeedRecord("http://h/", is_trusted=False)
        record.failed(WebSeedError("gone"), now=0.0, rng=random.Random(seed))
        waits.add(record.next_at)
    assert len(waits) == 20


def test_whoever_has_sent_something_is_asked_again_soon(record: WebSeedRecord) -> None:
    for _ in range(5):
        wait_of(record, WebSeedError("gone"))
    record.num_bytes += 1
    assert wait_of(record, WebSeedError("cut off")) >= WAIT_AFTER_PROGRESS
    record.num_bytes += 1
    assert wait_of(record, WebSeedError("cut off")) <= 2 * WAIT_AFTER_PROGRESS
    assert FIRST_WAIT / 2 <= wait_of(record, WebSeedError("cut off")) <= FIRST_WAIT


@pytest.mark.parametrize(("asked", "waited"), [(120.0, 120.0), (0.0, 1.0), (1e12, MAX_RETRY_AFTER)])
def test_retry_after_is_kept_within_reason(
    asked: float, waited: float, record: WebSeedRecord
) -> None:
    assert wait_of(record, WebSeedError("busy", retry_after=asked)) == waited


def test_a_missing_file_costs_its_pieces_only(record: WebSeedRecord) -> None:
    error = WebSeedLacksFile("HTTP status 404")
    record.failed(error, now=5.0, rng=random.Random(1), pieces=0b0110)
    record.failed(error, now=6.0, rng=random.Random(1), pieces=0b1100)
    assert record.refused == 0b1110
    assert record.may_be_asked(now=6.0)
    assert (record.reason, record.last_answer_at) == ("HTTP status 404", 6.0)


def test_a_useless_server_is_out(record: WebSeedRecord) -> None:
    record.failed(WebSeedUseless("wrong range"), now=0.0, rng=random.Random(1))
    assert record.is_out
    assert not record.may_be_asked(now=1e9)


def test_bad_pieces_put_it_out_after_a_few(record: WebSeedRecord) -> None:
    for number in range(1, MAX_BAD_PIECES + 1):
        assert record.may_be_asked(now=0.0)
        record.accused()
        assert "corrupt" in record.reason
        assert record.is_out is (number == MAX_BAD_PIECES)
        record.succeeded(now=1.0)
        assert "corrupt" in record.reason, "a later success does not make it forgotten"


def test_asking_is_noted(record: WebSeedRecord) -> None:
    wait_of(record, WebSeedError("gone"))
    record.asked(now=500.0)
    assert (record.last_asked_at, record.next_at) == (500.0, None)
