"""tests.containers: what it finds, and where."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial

from tests.containers import measure
from tests.virtual_time import simulated


class Plain:
    """Has attributes."""

    def __init__(self) -> None:
        self.names = {"a": [1, 2], "b": [3]}
        self.me = self

    def method(self) -> None:
        """Do nothing."""


class Slotted:
    """Has slots, one of them empty."""

    __slots__ = ("__hidden", "absent", "queue")
    absent: int

    def __init__(self) -> None:
        self.queue = deque([b"x"])
        self.__hidden = {1, 2, 3}

    def __len__(self) -> int:
        return len(self.__hidden)


def test_lengths_are_added_up_by_path() -> None:
    found = measure(a=Plain(), b=(Slotted(), Slotted()))
    assert found == {"a.names": 2, "a.names{}": 3, "b[].queue": 2, "b[].__hidden": 6}


def test_what_lies_beyond_is_left_out() -> None:
    inside, beyond = Plain(), Plain()
    inside.me = beyond
    assert measure(beyond, a=inside) == {"a.names": 2, "a.names{}": 3}


def test_what_will_be_called_is_looked_into() -> None:
    inner = [1, 2, 3, 4]

    def function() -> int:
        return len(inner)

    assert measure(f=function) == {"f()": 4}
    assert measure(f=partial(function)) == {"f()()": 4}
    assert measure(f=partial(print, inner)) == {"f()": 4}
    assert measure(f=Plain().method)["f().names"] == 2


def test_frames_that_an_error_keeps_are_looked_into() -> None:
    def fail() -> None:
        forgotten = [0] * 9
        raise ValueError(len(forgotten))

    try:
        fail()
    except ValueError as error:
        found = measure(error=error)
    assert found["error.error<forgotten>"] == 9


@simulated
async def test_tasks_and_timers_are_looked_into(loop: asyncio.AbstractEventLoop) -> None:
    async def wait() -> None:
        kept = {1, 2}
        await asyncio.sleep(len(kept))

    task = loop.create_task(wait())
    timer = loop.call_later(1, lambda _: None, [1, 2, 3])
    await asyncio.sleep(0)
    found = measure(task=task, timer=timer)
    assert found["task.task<kept>"] == 2
    assert found["timer.timer[]"] == 3
    await task
