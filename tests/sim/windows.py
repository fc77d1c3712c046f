"""A rate, looked at through a window that is moved over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

WINDOW = 5.0
STEP = 0.1
TOLERANCE = 0.05
SECONDS = 12.0
START_SECONDS = 2.0
"""Until as much is asked for as the limit allows, over a line that is far."""


async def sample(count: Callable[[], int], *, seconds: float = SECONDS) -> list[int]:
    """Return what was counted at each step from the first byte on."""
    async with asyncio.timeout(60):
        while not count():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(STEP)
    loop = asyncio.get_running_loop()
    began, samples = loop.time(), [count()]
    for number in range(1, round(seconds / STEP) + 1):
        await asyncio.sleep(began + number * STEP - loop.time())
        samples.append(count())
    return samples


def check_windows(samples: Sequence[int], rate: float) -> None:
    """Fail if any window of 5 seconds had more or less than the rate says, by over 5 %."""
    width = round(WINDOW / STEP)
    windows = [
        (after - before) / WINDOW / rate
        for before, after in zip(samples, samples[width:], strict=False)
    ]
    assert len(windows) > 25
    assert max(windows) <= 1 + TOLERANCE
    assert min(windows[round(START_SECONDS / STEP) :]) >= 1 - TOLERANCE
