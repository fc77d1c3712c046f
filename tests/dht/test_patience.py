"""How long to wait for an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.dht.limits import (
    FIRST_SLOW_TIMEOUT,
    MIN_PATIENCE,
    MIN_SLOW_TIMEOUT,
    QUERY_TIMEOUT,
    SLOW_TIMEOUT,
)
from bittern.dht.patience import Patience


def after(*seconds: float) -> Patience:
    patience = Patience()
    for each in seconds:
        patience.note(each)
    return patience


def test_without_answers_nothing_is_known() -> None:
    assert (after().slow, after().end) == (FIRST_SLOW_TIMEOUT, QUERY_TIMEOUT)


def test_the_first_answer_counts_as_in_tcp() -> None:
    """RFC 6298: the round trip and twice as much, since its deviation is taken for half of it."""
    assert after(0.2).slow == pytest.approx(0.6)
    assert after(0.2).end == pytest.approx(2.4)


def test_steady_answers_leave_little_patience() -> None:
    patience = after(*[0.1] * 30)
    assert (patience.slow, patience.end) == (MIN_SLOW_TIMEOUT, MIN_PATIENCE)
    patience = after(*[0.3] * 30)
    assert patience.slow == pytest.approx(0.3, abs=0.01)


def test_answers_that_take_longer_than_before_raise_it_at_once() -> None:
    patience = after(*[0.05] * 30, 0.8)
    assert patience.slow > 0.8


@given(st.lists(st.floats(0, QUERY_TIMEOUT)))
def test_it_stays_within_its_limits(seconds: list[float]) -> None:
    patience = after(*seconds)
    assert MIN_SLOW_TIMEOUT <= patience.slow <= SLOW_TIMEOUT
    assert MIN_PATIENCE <= patience.end <= QUERY_TIMEOUT
    assert patience.slow <= patience.end
