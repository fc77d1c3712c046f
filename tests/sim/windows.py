"""A rate, looked at through a window that is moved over it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

WINDOW = 5.0
STEP = 0.1
TOLERANCE = 0.05
SECONDS = 12.0
START_SECONDS = 2.0
"""Until as much is asked for as the limit allows, over a line that is far."""


async def sample(count: Callable[[], int], *, seconds: float = SECONDS) -> list[tuple[float, int]]:
    """Return what was counted at each step from the first byte on, and when."""
    async with asyncio.timeout(60):
        while not count():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(STEP)
    loop = asyncio.get_running_loop()
    began = loop.time()
    samples = [(began, count())]
    for number in range(1, round(seconds / STEP) + 1):
        await asyncio.sleep(began + number * STEP - loop.time())
        samples.append((loop.time(), count()))
    return samples


def check_windows(samples: Sequence[tuple[float, int]], rate: float) -> None:
    """Fail if any window of 5 seconds had more or less than the rate says, by over 5 %."""
    width = round(WINDOW / STEP)
    windows = [samples[first : first + width + 1] for first in range(len(samples) - width)]
    assert len(windows) > 25
    for number, window in enumerate(windows):
        check_window(window, rate, is_full=number >= START_SECONDS / STEP)


def check_window(
    samples: Sequence[tuple[float, int]], rate: float, *, is_full: bool = True
) -> None:
    """
    Fail if between the first sample and the last there was over 5 % more than the rate says, or,
    when ``is_full``, less.

    Real time in which the loop did not get to run, because the machine had other things to do,
    is no time in which it could have moved something: it counts for the upper bound alone.
    """
    (since, before), (until, after) = samples[0], samples[-1]
    assert after - before <= (1 + TOLERANCE) * rate * max(WINDOW, until - since)
    gaps = itertools.pairwise(at for at, _ in samples)
    stalled = sum(max(0.0, end - start - STEP) for start, end in gaps)
    if is_full:
        assert after - before >= (1 - TOLERANCE) * rate * (until - since - stalled)
