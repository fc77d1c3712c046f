"""Queries under way: who may answer, and until when."""

from __future__ import annotations

import random

from bittern.codec.krpc_message import Response
from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcFailure, QueryTimeout
from bittern.dht.limits import (
    FIRST_SLOW_TIMEOUT,
    MIN_PATIENCE,
    MIN_SLOW_TIMEOUT,
    QUERY_TIMEOUT,
    SLOW_TIMEOUT,
    TRANSACTION_ID_LENGTH,
)
from bittern.dht.transactions import Transactions

HERE, THERE = Endpoint("1.2.3.4", 5), Endpoint("1.2.3.4", 6)


class Recorder:
    """A waiter that keeps what it hears."""

    def __init__(self, *, is_hurried: bool = False) -> None:
        self.is_hurried = is_hurried
        self.heard: list[object] = []

    def answered(self, response: Response, /, *, now: float) -> None:
        self.heard.append(response)

    def failed(self, error: KrpcFailure | QueryTimeout, /, *, now: float) -> None:
        self.heard.append(error)

    def slowed(self, *, now: float) -> None:
        self.heard.append("slow")


def test_only_who_was_asked_may_answer(rng: random.Random) -> None:
    """Limit: N2. Transaction id and source address must match."""
    transactions = Transactions(rng.randbytes)
    transaction_id = transactions.begin(HERE, Recorder(), now=0.0)
    assert len(transaction_id) == TRANSACTION_ID_LENGTH
    assert transactions.take(transaction_id, THERE, now=0.5) is None
    assert transactions.take(b"xxxx", HERE, now=0.5) is None
    taken = transactions.take(transaction_id, HERE, now=0.5)
    assert taken is not None
    assert taken.sent_at == 0.0
    assert transactions.take(transaction_id, HERE, now=0.5) is None
    assert len(transactions) == 0


def test_ids_in_use_are_not_given_again() -> None:
    drawn = iter([b"aaaa", b"aaaa", b"aaaa", b"bbbb"])
    transactions = Transactions(lambda _: next(drawn))
    assert transactions.begin(HERE, Recorder(), now=0.0) == b"aaaa"
    assert transactions.begin(HERE, Recorder(), now=0.0) == b"bbbb"


def test_slow_then_over(rng: random.Random) -> None:
    transactions = Transactions(rng.randbytes)
    waiter = Recorder()
    assert transactions.next_timer() is None
    transactions.begin(HERE, waiter, now=10.0)
    assert transactions.next_timer() == 10.0 + FIRST_SLOW_TIMEOUT
    assert transactions.expire(now=10.0 + FIRST_SLOW_TIMEOUT - 0.01) == []
    assert waiter.heard == []
    assert transactions.expire(now=10.0 + FIRST_SLOW_TIMEOUT) == []
    assert waiter.heard == ["slow"]
    assert transactions.next_timer() == 10.0 + QUERY_TIMEOUT
    ended = transactions.expire(now=10.0 + QUERY_TIMEOUT)
    assert [each.waiter for each in ended] == [waiter]
    assert transactions.next_timer() is None
    assert len(transactions) == 0


def test_a_late_timer_does_both(rng: random.Random) -> None:
    transactions = Transactions(rng.randbytes)
    waiter = Recorder()
    transactions.begin(HERE, waiter, now=0.0)
    assert len(transactions.expire(now=100.0)) == 1
    assert waiter.heard == ["slow"]


def test_what_was_answered_has_no_timer(rng: random.Random) -> None:
    transactions = Transactions(rng.randbytes)
    first, second = Recorder(), Recorder()
    one = transactions.begin(HERE, first, now=0.0)
    transactions.begin(HERE, second, now=0.5)
    transactions.take(one, HERE, now=0.5)
    assert transactions.next_timer() == 0.5 + SLOW_TIMEOUT
    transactions.expire(now=0.5 + SLOW_TIMEOUT)
    assert (first.heard, second.heard) == ([], ["slow"])
    assert len(transactions.expire(now=50.0)) == 1


def test_the_timer_is_the_earlier_of_both(rng: random.Random) -> None:
    transactions = Transactions(rng.randbytes)
    transactions.begin(HERE, Recorder(), now=0.0)
    transactions.expire(now=FIRST_SLOW_TIMEOUT)
    transactions.begin(HERE, Recorder(), now=QUERY_TIMEOUT - 0.25)
    assert transactions.next_timer() == QUERY_TIMEOUT
    transactions.expire(now=QUERY_TIMEOUT)
    assert transactions.next_timer() == QUERY_TIMEOUT - 0.25 + FIRST_SLOW_TIMEOUT


def answer_within(transactions: Transactions, seconds: float) -> None:
    """Let twenty queries be answered after so long."""
    for _ in range(20):
        transaction_id = transactions.begin(HERE, Recorder(), now=0.0)
        assert transactions.take(transaction_id, HERE, now=seconds) is not None


def test_who_is_in_a_hurry_waits_as_long_as_answers_take(rng: random.Random) -> None:
    transactions = Transactions(rng.randbytes)
    answer_within(transactions, 0.01)
    hurried, patient = Recorder(is_hurried=True), Recorder()
    late = transactions.begin(HERE, hurried, now=10.0)
    transactions.begin(THERE, patient, now=10.0)
    assert transactions.next_timer() == 10.0 + MIN_SLOW_TIMEOUT
    transactions.expire(now=10.0 + MIN_SLOW_TIMEOUT)
    assert transactions.next_timer() == 10.0 + MIN_PATIENCE
    assert transactions.expire(now=10.0 + MIN_PATIENCE) == []
    assert [type(each) for each in hurried.heard] == [str, QueryTimeout]
    assert patient.heard == ["slow"]
    assert transactions.next_timer() == 10.0 + QUERY_TIMEOUT
    taken = transactions.take(late, HERE, now=12.0)
    assert taken is not None, "a late answer speaks for its node"
    assert taken.waiter is None, "but nobody waits for it"
    assert len(transactions.expire(now=10.0 + QUERY_TIMEOUT)) == 1


def test_where_answers_take_long_the_waits_are_long(rng: random.Random) -> None:
    transactions = Transactions(rng.randbytes)
    answer_within(transactions, 3.0)
    transactions.begin(HERE, Recorder(is_hurried=True), now=10.0)
    assert transactions.next_timer() == 10.0 + SLOW_TIMEOUT
    transactions.expire(now=10.0 + SLOW_TIMEOUT)
    assert transactions.next_timer() == 10.0 + QUERY_TIMEOUT
