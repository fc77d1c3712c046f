"""Token bucket and rate meter, driven by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.rate import RateMeter, TokenBucket
from tests.strategies import instants

rates = st.floats(0.5, 1e10)


# --- bucket ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [None, math.inf])
def test_no_limit(rate: float | None) -> None:
    bucket = TokenBucket(rate, now=5)
    assert bucket.is_unlimited
    bucket.take(1 << 60, now=5)
    assert bucket.available(now=5) >= 1 << 60
    assert bucket.ready_at(1 << 60, now=6) == 6


def test_tokens_come_with_time_up_to_the_burst() -> None:
    bucket = TokenBucket(1000, now=10, burst=500)
    assert not bucket.is_unlimited
    assert bucket.available(now=10) == 0
    assert bucket.available(now=10.25) == 250
    assert bucket.available(now=10.1) == 250, "time does not go back"
    assert bucket.available(now=100) == 500


def test_what_is_taken_at_an_instant_leaves_what_there_is_then() -> None:
    bucket = TokenBucket(1000, now=0, burst=500)
    bucket.take(500, now=100)
    assert bucket.available(now=100) == 0
    assert bucket.ready_at(1, now=100) == pytest.approx(100.001)


def test_the_default_burst_is_a_tenth_of_a_second() -> None:
    assert TokenBucket(1000, now=0).available(now=100) == 100


def test_a_debt_is_paid_before_anything_passes() -> None:
    bucket = TokenBucket(1000, now=0)
    bucket.take(3000, now=0)
    assert bucket.ready_at(1, now=1) == pytest.approx(3.001)
    assert bucket.available(now=2.9) == 0
    assert bucket.available(now=3.05) == 50


def test_tokens_can_be_given_back() -> None:
    bucket = TokenBucket(1000, now=0)
    bucket.take(50, now=0)
    bucket.take(-80, now=0)
    assert bucket.available(now=0) == 30


def test_what_is_more_than_the_burst_is_ready_when_the_bucket_is_full() -> None:
    bucket = TokenBucket(1000, now=0, burst=100)
    assert bucket.ready_at(10_000, now=0) == pytest.approx(0.1)
    assert bucket.ready_at(10_000, now=5) == 5


def test_a_rate_of_nothing_is_never_ready() -> None:
    bucket = TokenBucket(0, now=0)
    assert bucket.ready_at(1, now=0) == math.inf
    assert bucket.available(now=1e9) == 0


@pytest.mark.parametrize("rate", [0.5, 1, 5, 9])
def test_a_tiny_rate_lets_something_pass(rate: float) -> None:
    bucket = TokenBucket(rate, now=0)
    at = bucket.ready_at(1, now=0)
    assert at == pytest.approx(1 / rate)
    assert bucket.available(now=at) == 1


@given(rates, instants, st.integers(1, 1 << 40), st.integers(-(1 << 20), 1 << 40))
def test_ready_means_ready(rate: float, now: float, wanted: int, taken: int) -> None:
    bucket = TokenBucket(rate, now=now)
    bucket.take(taken, now=now)
    at = bucket.ready_at(wanted, now=now)
    assert at >= now
    burst = max(1.0, rate / 10)
    # At large instants a float has no room for microseconds.
    slack = 1 + rate * 4 * math.ulp(at)
    assert bucket.available(now=at) >= min(wanted, int(burst)) - slack


@given(
    st.floats(100, 1e6),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 1 << 20)), min_size=1, max_size=40),
)
def test_the_long_run_rate_is_exact(rate: float, steps: list[tuple[float, int]]) -> None:
    """Whoever passes only when something is available is over by one transfer at most."""
    bucket = TokenBucket(rate, now=0)
    now, passed, largest = 0.0, 0, 0
    for wait, length in steps:
        now += wait
        if bucket.available(now=now):
            bucket.take(length, now=now)
            passed += length
            largest = max(largest, length)
    assert passed <= rate * now + largest + 1


@given(st.floats(100, 1e6), st.integers(1, 200_000))
def test_a_busy_sender_gets_the_whole_rate(rate: float, length: int) -> None:
    bucket = TokenBucket(rate, now=0)
    now, passed = 0.0, 0
    while now < 100 and passed < 50 * length:
        now = bucket.ready_at(1, now=now)
        assert bucket.available(now=now) >= 1
        bucket.take(length, now=now)
        passed += length
    assert passed == pytest.approx(rate * now, abs=length + 2)


# --- meter -----------------------------------------------------------------------------------


def test_the_first_measurement_counts_fully() -> None:
    meter = RateMeter(now=10)
    assert meter.rate == 0.0
    meter.add(500)
    meter.add(500)
    assert meter.update(now=12) == pytest.approx(500.0)
    assert meter.total == 1000


def test_the_average_begins_with_the_first_byte() -> None:
    meter = RateMeter(now=0)
    for second in range(1, 60):
        assert meter.update(now=second) == 0.0
    meter.add(1000)
    assert meter.update(now=60) == pytest.approx(1000.0)


def test_a_short_first_measurement_weighs_little() -> None:
    """A block that comes just before a tick does not make a peer look fast for seconds."""
    meter = RateMeter(now=0)
    meter.add(16_384)
    assert meter.update(now=0.002) == pytest.approx(8_192_000)
    assert meter.update(now=1.002) < 20_000


def steady_meter(rate: int) -> RateMeter:
    meter = RateMeter(now=0, time_constant=4)
    for second in range(1, 101):
        meter.add(rate)
        meter.update(now=second)
    assert meter.rate == pytest.approx(rate)
    return meter


def test_a_change_reaches_63_percent_in_the_time_constant() -> None:
    meter = steady_meter(1000)
    for second in range(101, 105):
        meter.add(2000)
        meter.update(now=second)
    assert meter.rate == pytest.approx(1000 + 1000 * (1 - math.exp(-1)))


def test_silence_decays() -> None:
    meter = steady_meter(1000)
    assert meter.update(now=104) == pytest.approx(1000 * math.exp(-1))
    assert meter.update(now=1000) == pytest.approx(0)
    assert meter.total == 100_000


@pytest.mark.parametrize("now", [10.0, 9.0, 10.0005])
def test_nothing_happens_while_time_stands_still(now: float) -> None:
    meter = RateMeter(now=10)
    meter.add(1000)
    assert meter.update(now=now) == 0.0
    assert meter.update(now=11) == pytest.approx(1000.0)


def test_one_step_and_many_agree() -> None:
    """A constant rate is told right however often it is looked at."""
    for steps in (1, 7, 50):
        meter = RateMeter(now=0)
        for number in range(1, steps + 1):
            meter.add(700)
            meter.update(now=number * 0.7)
        assert meter.rate == pytest.approx(1000)


@given(st.lists(st.tuples(st.floats(0.001, 10), st.integers(0, 1 << 30)), max_size=30))
def test_a_rate_stays_between_what_was_measured(steps: list[tuple[float, int]]) -> None:
    meter = RateMeter(now=0)
    now, waiting, began_at, measured = 0.0, 0, 0.0, [0.0]
    for wait, length in steps:
        now += wait
        meter.add(length)
        waiting += length
        meter.update(now=now)
        if now - began_at >= 0.001:
            measured.append(waiting / (now - began_at))
            waiting, began_at = 0, now
        assert 0 <= meter.rate <= max(measured) * (1 + 1e-9)
    assert meter.total == sum(length for _, length in steps)
