"""The shared line: exact rate, fair share, no flow forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.errors import MisuseError
from bittern.testing.loop import VirtualLoop, run
from bittern.testing.pipe import MAX_QUANTUM, MIN_QUANTUM, Pipe
from tests.conftest import Simulate
from tests.virtual_time import simulated


class Source:
    """A flow with a number of bytes to pass, which notes when they have."""

    def __init__(self, loop: VirtualLoop, length: int) -> None:
        self.left = length
        self.passed_lengths: list[tuple[float, int]] = []
        self._loop = loop

    def take(self, quantum: int) -> bytearray | None:
        length = min(quantum, self.left)
        self.left -= length
        return bytearray(length) if length else None

    def passed(self, data: bytearray) -> None:
        self.passed_lengths.append((self._loop.time(), len(data)))

    @property
    def total(self) -> int:
        return sum(length for _, length in self.passed_lengths)

    @property
    def ended_at(self) -> float:
        return self.passed_lengths[-1][0]


def pass_all(lengths: Iterable[int], rate: float | None) -> tuple[list[Source], Pipe]:
    async def main(loop: VirtualLoop) -> tuple[list[Source], Pipe]:
        pipe = Pipe(loop, rate)
        sources = [Source(loop, length) for length in lengths]
        for source in sources:
            pipe.wake(source)
        await asyncio.sleep(100_000)
        return sources, pipe

    return run(main, limit=1e6)


@pytest.mark.slow
@given(
    st.lists(st.integers(1, 300_000), min_size=1, max_size=8),
    st.sampled_from([1_000.0, 99_999.0, 1e6, 1e8, None]),
)
def test_everything_passes_at_exactly_the_rate(lengths: list[int], rate: float | None) -> None:
    sources, pipe = pass_all(lengths, rate)
    assert [source.total for source in sources] == lengths
    assert pipe.total == sum(lengths)
    assert pipe.num_waiting == 0
    ended_at = max(source.ended_at for source in sources)
    assert ended_at == pytest.approx(0 if rate is None else sum(lengths) / rate)


def test_equal_flows_share_equally() -> None:
    sources, _ = pass_all([1_000_000] * 10, 1e6)
    ends = [source.ended_at for source in sources]
    assert max(ends) == pytest.approx(10.0)
    # The first was alone in line for one quantum.
    assert max(ends) - min(ends) < 10 * MAX_QUANTUM / 1e6


def test_a_small_message_waits_for_one_turn_of_the_others_only() -> None:
    async def main(loop: VirtualLoop) -> float:
        pipe = Pipe(loop, 1e6)
        for _ in range(8):
            pipe.wake(Source(loop, 10_000_000))
        await asyncio.sleep(1)
        small = Source(loop, 20)
        pipe.wake(small)
        await asyncio.sleep(1)
        return small.ended_at - 1

    assert run(main, check_leaks=False) < 0.15


@pytest.mark.parametrize(
    ("num_flows", "rate", "quantum"),
    [(1, 1e9, MAX_QUANTUM), (1, 1e5, 10_000), (4, 1e6, 25_000), (50, 1e5, MIN_QUANTUM)],
)
def test_the_quantum_shrinks_with_the_rate_and_the_number_of_flows(
    num_flows: int, rate: float, quantum: int, simulate: Simulate
) -> None:
    async def main(loop: VirtualLoop) -> int:
        pipe = Pipe(loop, rate)
        sources = [Source(loop, 1_000_000) for _ in range(num_flows)]
        for source in sources:
            pipe.wake(source)
        # The first was served before the others stood in line.
        await asyncio.sleep(3 * MAX_QUANTUM * num_flows / rate)
        return sources[0].passed_lengths[1][1]

    assert simulate(main) == quantum


class Blocked(Source):
    """A flow that may not send until it is let."""

    is_blocked = True

    def take(self, quantum: int) -> bytearray | None:
        return None if self.is_blocked else super().take(quantum)


def test_a_blocked_flow_leaves_its_share_to_the_others_until_it_is_woken(
    simulate: Simulate,
) -> None:
    async def main(loop: VirtualLoop) -> tuple[float, float]:
        pipe = Pipe(loop, 1e6)
        blocked, other = Blocked(loop, 1_000_000), Source(loop, 1_000_000)
        pipe.wake(blocked)
        pipe.wake(other)
        await asyncio.sleep(3)
        blocked.is_blocked = False
        pipe.wake(blocked)
        await asyncio.sleep(3)
        return other.ended_at, blocked.ended_at

    assert list(simulate(main)) == pytest.approx([1.0, 4.0])


def test_a_new_rate_counts_from_the_next_quantum(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> float:
        pipe = Pipe(loop, 1e6)
        source = Source(loop, 1_000_000)
        pipe.wake(source)
        await asyncio.sleep(0.5)
        pipe.rate = 1e5
        assert pipe.rate == 1e5
        await asyncio.sleep(10)
        return source.ended_at

    assert simulate(main) == pytest.approx(5.5, abs=0.6)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
@simulated
async def test_a_rate_that_moves_nothing_is_refused(loop: VirtualLoop, rate: float) -> None:
    with pytest.raises(MisuseError, match="rate above 0"):
        Pipe(loop, rate)


class Chained(Source):
    """A flow whose bytes, having passed, make another flow's."""

    follower: Source
    pipe: Pipe

    def passed(self, data: bytearray) -> None:
        super().passed(data)
        self.follower.left += len(data)
        self.pipe.wake(self.follower)


@pytest.mark.parametrize("rate", [None, 1e6])
def test_a_flow_may_be_woken_while_another_is_served(
    rate: float | None, simulate: Simulate
) -> None:
    async def main(loop: VirtualLoop) -> tuple[int, int]:
        first, second = Chained(loop, 500_000), Source(loop, 0)
        first.follower, first.pipe = second, Pipe(loop, rate)
        first.pipe.wake(first)
        await asyncio.sleep(5)
        return first.total, second.total

    assert simulate(main) == (500_000, 500_000)
