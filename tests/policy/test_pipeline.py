"""A simulated line (rate, round trip, burst) shows how the depth follows it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.geometry import BLOCK_LENGTH
from bittern.policy.pipeline import (
    CROWD,
    CROWD_TARGET,
    INITIAL_TARGET,
    MAX_REQQ,
    MIN_TARGET,
    Pipeline,
)


class Line:
    """
    A peer behind a line, and us: every request is answered in order.

    Args:
        rate: bytes per second, or a function of the instant at which a block is sent.
        round_trip: seconds.
        burst: bytes that pass at once at the beginning, as from a full token bucket.
        wake_up: blocks are seen in batches this many seconds long.
        block_length: bytes of every block.
    """

    def __init__(
        self,
        rate: float | Callable[[float], float],
        round_trip: float,
        *,
        reqq_limit: int = 500,
        burst: int = 0,
        wake_up: float = 0.0,
        block_length: int = BLOCK_LENGTH,
    ) -> None:
        self.rate = rate if callable(rate) else lambda _: rate
        self.round_trip = round_trip
        self.burst = burst
        self.wake_up = wake_up
        self.block_length = block_length
        self.now = 0.0
        self.free_at = 0.0
        self.arrivals: deque[float] = deque()
        self.pipeline = Pipeline(now=0.0, reqq_limit=reqq_limit)
        self.trace: list[tuple[float, int, int]] = []
        """(instant, bytes received, blocks outstanding after asking again)."""
        self.ask()

    def ask(self) -> None:
        asked_at = self.now + self.round_trip / 2
        while len(self.arrivals) < self.pipeline.target:
            begin = max(self.free_at, asked_at)
            if self.burst > 0:
                self.burst -= self.block_length
                self.free_at = begin
            else:
                self.free_at = begin + self.block_length / self.rate(begin)
            self.arrivals.append(self.free_at + self.round_trip / 2)
        self.pipeline.set_outstanding(len(self.arrivals), now=self.now)

    def run(self, until: float) -> Line:
        while self.arrivals[0] <= until:
            self.now = self.arrivals[0] + self.wake_up
            num_blocks = 0
            while self.arrivals and self.arrivals[0] <= self.now:
                self.arrivals.popleft()
                num_blocks += 1
            num_bytes = num_blocks * self.block_length
            self.pipeline.blocks_received(num_blocks, now=self.now)
            self.ask()
            self.trace.append((self.now, num_bytes, len(self.arrivals)))
        return self

    def received(self, begin: float, end: float) -> int:
        return sum(num_bytes for now, num_bytes, _ in self.trace if begin < now <= end)

    def most_queued(self, begin: float = 0.0) -> int:
        return max(queued for now, _, queued in self.trace if now >= begin)


@pytest.mark.parametrize(
    ("rate", "round_trip", "reqq_limit", "wake_up", "fill_round_trips"),
    [
        pytest.param(1e9, 1e-4, 2000, 2e-4, 30, id="loopback"),
        pytest.param(1e9, 1e-4, 500, 2e-4, 30, id="loopback, reqq 500"),
        pytest.param(1.2e8, 5e-4, 500, 0.0, 8, id="gigabit LAN"),
        pytest.param(1e8, 0.02, 2000, 0.0, 9, id="fast, 20 ms"),
        pytest.param(1e7, 0.1, 500, 0.0, 7, id="10 MB/s, 100 ms"),
        pytest.param(1e6, 0.05, 250, 0.0, 4, id="1 MB/s, 50 ms"),
        pytest.param(1e5, 0.3, 250, 0.0, 3, id="100 kB/s, 300 ms"),
        pytest.param(1e4, 0.3, 250, 0.0, 1, id="10 kB/s, 300 ms"),
        pytest.param(1e6, 2.0, 500, 0.0, 8, id="satellite"),
    ],
)
def test_a_line_fills_within_a_few_round_trips_and_three_seconds_are_queued(
    rate: float, round_trip: float, reqq_limit: int, wake_up: float, fill_round_trips: int
) -> None:
    line = Line(rate, round_trip, reqq_limit=reqq_limit, wake_up=wake_up)
    full_at = fill_round_trips * round_trip + round_trip
    end = full_at + max(2 * round_trip, 40 * BLOCK_LENGTH / rate)
    line.run(2 * end)
    assert line.received(full_at, end) >= 0.9 * rate * (end - full_at) - BLOCK_LENGTH
    pipeline = line.pipeline
    floor = INITIAL_TARGET * BLOCK_LENGTH
    assert line.most_queued() * BLOCK_LENGTH <= max(rate * (3.3 + round_trip), floor)
    assert line.most_queued(end) * BLOCK_LENGTH <= max(rate * (3.3 + round_trip), floor / 2)
    assert pipeline.target >= min(reqq_limit, 2.7 * rate / BLOCK_LENGTH, MIN_TARGET)
    assert pipeline.rate == pytest.approx(rate / BLOCK_LENGTH, rel=0.15)


@pytest.mark.parametrize("rate", [3e3, 1e4])
def test_a_slow_peer_keeps_two_requests(rate: float) -> None:
    line = Line(rate, 0.3).run(300.0)
    assert line.pipeline.target == MIN_TARGET
    assert line.received(100.0, 300.0) >= 0.95 * 200 * rate


def test_a_burst_does_not_deceive_for_long() -> None:
    line = Line(1e5, 0.05, burst=200_000).run(30.0)
    assert line.most_queued() * BLOCK_LENGTH <= 6 * 1e5
    assert line.most_queued(10.0) * BLOCK_LENGTH <= 3.3 * 1e5


def test_the_depth_follows_a_line_that_slows_down_and_recovers() -> None:
    line = Line(lambda at: 1e5 if 10.0 <= at < 40.0 else 5e6, 0.05, reqq_limit=2000)
    line.run(9.0)
    assert line.pipeline.target == pytest.approx(3 * 5e6 / BLOCK_LENGTH, rel=0.1)
    line.run(14.0)
    # 15 MB are on order and come whatever we do, but nothing is added to them.
    assert line.pipeline.target < 0.2 * 3 * 5e6 / BLOCK_LENGTH
    line.run(60.0)
    assert line.received(58.0, 60.0) >= 0.95 * 2 * 5e6
    assert line.pipeline.target == pytest.approx(3 * 5e6 / BLOCK_LENGTH, rel=0.1)


@pytest.mark.parametrize("at", [10.0, 10.5, 11.0, 11.5, 12.0, 12.5])
def test_a_line_that_has_paused_is_soon_believed_to_be_as_quick_as_before(at: float) -> None:
    """Wherever in a round it pauses: what the round brings after that counts as well."""
    line = Line(lambda now: BLOCK_LENGTH / 1.2 if at <= now < at + 0.02 else 1e6, 0.05)
    line.run(at + 1.2 + 1.5)
    assert line.pipeline.rate >= 0.5 * 1e6 / BLOCK_LENGTH
    assert line.pipeline.target >= 0.5 * 3 * 1e6 / BLOCK_LENGTH


def test_blocks_of_tiny_files_count_as_blocks() -> None:
    line = Line(1e6, 0.1, block_length=1000, wake_up=0.02).run(5.0)
    assert line.received(3.0, 5.0) >= 0.95 * 2e6
    assert line.pipeline.rate == pytest.approx(1e6 / 1000, rel=0.1)


def test_one_short_slow_round_lowers_the_rate_only_in_part() -> None:
    pipeline = Pipeline(now=0.0)
    pipeline.set_outstanding(10, now=0.0)
    pipeline.blocks_received(10, now=0.1)
    pipeline.set_outstanding(10, now=0.1)
    pipeline.blocks_received(10, now=0.3)
    assert pipeline.rate == pytest.approx(0.75 * 100 + 0.25 * 50)


def test_and_the_depth_too() -> None:
    pipeline, now = Pipeline(now=0.0, reqq_limit=MAX_REQQ), 0.0
    for _ in range(10):
        pipeline.set_outstanding(10, now=now)
        now += 0.1
        pipeline.blocks_received(10, now=now)
    deep = pipeline.target
    pipeline.set_outstanding(10, now=now)
    pipeline.blocks_received(10, now=now + 0.2)
    assert 0.8 * deep < pipeline.target < deep


# --- limits ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reqq", "limit", "target"),
    [(-5, 1, 1), (0, 1, 1), (1, 1, 1), (2, 2, 2), (250, 250, 4), (2000, 2000, 4), (10**9, 2000, 4)],
)
def test_reqq_is_clamped(reqq: int, limit: int, target: int) -> None:
    """Limit: H14."""
    pipeline = Pipeline(now=0.0, reqq_limit=reqq)
    assert (pipeline.reqq_limit, pipeline.target) == (limit, target)
    later = Pipeline(now=0.0)
    later.reqq_limit = reqq
    assert (later.reqq_limit, later.target) == (limit, target)


def test_the_target_stays_within_a_small_reqq() -> None:
    line = Line(1e8, 0.01, reqq_limit=3).run(1.0)
    assert line.most_queued() == 3
    assert line.pipeline.target == 3
    assert Line(1e8, 0.01, reqq_limit=1).run(1.0).pipeline.target == 1


# --- silence -----------------------------------------------------------------------------


def test_time_without_requests_does_not_lower_the_rate() -> None:
    line = Line(1e6, 0.1).run(5.0)
    pipeline = line.pipeline
    before = pipeline.target
    pipeline.set_outstanding(0, now=5.0)
    pipeline.set_outstanding(before, now=500.0)
    pipeline.blocks_received(before, now=500.0 + before * BLOCK_LENGTH / 1e6)
    assert pipeline.target == pytest.approx(before, rel=0.1)
    assert pipeline.rate == pytest.approx(1e6 / BLOCK_LENGTH, rel=0.1)


def test_rejected_requests_do_not_hold_up_the_round() -> None:
    pipeline = Pipeline(now=0.0)
    pipeline.set_outstanding(4, now=0.0)
    pipeline.set_outstanding(2, now=0.1)
    pipeline.blocks_received(2, now=0.2)
    assert pipeline.target == 2 * INITIAL_TARGET
    assert pipeline.rate == pytest.approx(2 / 0.2)


def test_blocks_of_the_same_instant_are_no_division_by_zero() -> None:
    pipeline = Pipeline(now=0.0)
    pipeline.set_outstanding(4, now=0.0)
    pipeline.blocks_received(4, now=0.0)
    assert pipeline.target == 2 * INITIAL_TARGET


def test_repr_is_one_line() -> None:
    assert repr(Pipeline(now=0.0)) == "<Pipeline 0/4, 0 blocks/s>"


steps = st.tuples(st.floats(0, 100), st.integers(0, 3000), st.integers(0, 4096))


@pytest.mark.slow
@given(st.lists(steps, max_size=30), st.integers(1, MAX_REQQ))
def test_any_history_keeps_the_target_within_bounds(
    history: list[tuple[float, int, int]], reqq_limit: int
) -> None:
    pipeline = Pipeline(now=0.0, reqq_limit=reqq_limit)
    now = 0.0
    for elapsed, outstanding, num_blocks in history:
        now += elapsed
        before = pipeline.target
        pipeline.blocks_received(num_blocks, now=now)
        pipeline.set_outstanding(outstanding, now=now)
        assert min(MIN_TARGET, reqq_limit) <= pipeline.target <= min(2 * before, reqq_limit)
        assert pipeline.rate >= 0


def test_a_wake_up_without_blocks_measures_nothing() -> None:
    pipeline = Pipeline(now=0.0)
    pipeline.set_outstanding(0, now=0.0)
    pipeline.blocks_received(0, now=1.0)
    assert pipeline.rate == 0


@pytest.mark.parametrize(
    ("num_peers", "target"), [(1, 500), (2, CROWD_TARGET // 2), (4, CROWD_TARGET // 4), (99, CROWD)]
)
def test_peers_whose_blocks_wait_for_us_are_asked_for_less_together(
    num_peers: int, target: int
) -> None:
    line = Line(1e9, 0.0001)
    line.run(1.0)
    assert line.pipeline.target == 500
    line.pipeline.thin_out(num_peers)
    assert line.pipeline.target == target


def test_a_far_peer_keeps_what_is_on_the_way() -> None:
    line = Line(25e6, 0.1)
    line.run(2.0)
    line.pipeline.thin_out(99)
    on_the_way = 25e6 * 0.1 / BLOCK_LENGTH
    assert on_the_way <= line.pipeline.target <= 3 * on_the_way


def test_a_slow_peer_is_not_asked_for_more_when_others_crowd() -> None:
    line = Line(20_000, 0.05)
    line.run(10.0)
    before = line.pipeline.target
    line.pipeline.thin_out(1)
    assert line.pipeline.target == before < CROWD
