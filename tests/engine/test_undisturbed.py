"""engine.undisturbed: what is not left half way."""

from __future__ import annotations

import asyncio

import pytest

from bittern.engine.undisturbed import undisturbed
from tests.virtual_time import simulated


@pytest.mark.parametrize("num_cancelled", [0, 1, 3])
@pytest.mark.parametrize("fails", [False, True])
@simulated
async def test_a_job_comes_to_its_end_and_then_who_was_cancelled_is(
    num_cancelled: int, fails: bool
) -> None:
    done: list[float] = []
    loop = asyncio.get_running_loop()

    async def job() -> None:
        await asyncio.sleep(5)
        done.append(loop.time())
        if fails:
            raise KeyError("what it raises")

    waiting = asyncio.ensure_future(undisturbed(job()))
    for _ in range(num_cancelled):
        await asyncio.sleep(1)
        waiting.cancel()
    [outcome] = await asyncio.gather(waiting, return_exceptions=True)
    assert done == [5]
    if num_cancelled:
        assert isinstance(outcome, asyncio.CancelledError)
    else:
        assert isinstance(outcome, KeyError) is fails
