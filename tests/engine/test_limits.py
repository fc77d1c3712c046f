"""Rate gates in virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest

from bittern.engine.limits import MIN_BURST, RateGate, SharedLimit, make_bucket
from bittern.testing.loop import run
from tests.virtual_time import simulated


def make_gate(rate: float | None, shared: float | None = None) -> RateGate:
    loop = asyncio.get_running_loop()
    now = loop.time()
    return RateGate(
        make_bucket(rate, now=now), SharedLimit(make_bucket(shared, now=now), loop=loop)
    )


@simulated
async def test_no_limit_is_nothing_to_ask() -> None:
    gate = make_gate(None)
    assert gate.is_unlimited
    gate.take(1 << 40)
    assert gate.available() > 1 << 40


@pytest.mark.parametrize("rate", [50_000, 1_000_000, 40_000_000])
@pytest.mark.parametrize("num_takers", [1, 3, 20])
def test_a_rate_holds_within_five_per_cent_over_five_seconds(rate: int, num_takers: int) -> None:
    async def main() -> list[int]:
        gate = make_gate(rate)
        passed = [0] * num_takers

        class Taker:
            def __init__(self, number: int) -> None:
                self.number = number

            def go(self) -> None:
                if gate.available() > 0:
                    # A block is not divided: the last one goes into debt.
                    gate.take(MIN_BURST)
                    passed[self.number] += MIN_BURST
                gate.wait(self.go)

        takers = [Taker(number) for number in range(num_takers)]
        for taker in takers:
            taker.go()
        await asyncio.sleep(5)
        gate.close()
        return passed

    passed = run(main(), seed=2)
    # What each wake-up lets pass is bounded by one block per waiting taker.
    ceiling = num_takers * MIN_BURST * 50
    if rate <= ceiling:
        assert 0.95 * rate * 5 <= sum(passed) <= 1.05 * rate * 5 + num_takers * MIN_BURST
        assert max(passed) - min(passed) <= max(4 * MIN_BURST, 0.3 * max(passed))


@simulated
async def test_the_stricter_of_two_buckets_decides() -> None:
    loop = asyncio.get_running_loop()
    shared = SharedLimit(make_bucket(100_000, now=loop.time()), loop=loop)
    gate = RateGate(make_bucket(10_000_000, now=loop.time()), shared)
    await asyncio.sleep(10)
    assert gate.available() == MIN_BURST
    shared.set_rate(None)
    assert (gate.available(), gate.rate) == (1_000_000, 10_000_000)
    gate.set_rate(None)
    assert gate.is_unlimited
    assert gate.rate is None


@simulated
async def test_the_same_rate_again_forgives_no_debt() -> None:
    gate = make_gate(100_000, 100_000)
    gate.take(1_000_000)
    gate.set_rate(100_000.0)
    gate._shared.set_rate(100_000)
    await asyncio.sleep(9)
    assert gate.available() == 0
    gate.set_rate(99_999)
    gate._shared.set_rate(None)
    await asyncio.sleep(0.1)
    assert gate.available() == 9_999


@simulated
async def test_who_waits_twice_gets_one_turn_and_who_left_none() -> None:
    gate = make_gate(1_000_000)
    calls: list[str] = []

    def first() -> None:
        calls.append("first")

    def second() -> None:
        calls.append("second")

    gate.wait(first)
    gate.wait(first)
    gate.wait(second)
    gate.forget(second)
    gate.forget(second)
    await asyncio.sleep(1)
    assert calls == ["first"]
    gate.take(-random.Random(0).randrange(1, 10))
    gate.close()


@simulated
async def test_whoever_is_gone_is_not_called_and_leaves_the_rest_their_turns() -> None:
    gate = make_gate(None, shared=20_000)
    other = RateGate(make_bucket(None, now=0.0), gate._shared)
    gate.take(1 << 20)
    called: list[str] = []

    def first() -> None:
        called.append("first")

    def second() -> None:
        called.append("second")

    gate.forget(first)
    gate.wait(first)
    other.wait(second)
    gate.forget(first)
    gate.forget(first)
    assert gate._shared.has_waiters
    assert not gate.serve_next()
    await asyncio.sleep(120)
    assert called == ["second"]
    assert not gate._shared.has_waiters
    gate.close()
    other.close()
