"""Reports about tasks: their order, and the place that is named."""

from __future__ import annotations

import asyncio

from bittern.testing.loop import VirtualLoop, find_leaks
from bittern.testing.tasks import describe_task, ordered_tasks
from tests.virtual_time import simulated


async def inner() -> None:
    await asyncio.sleep(1)


async def outer() -> None:
    await inner()


async def wait_for_a_future() -> None:
    await asyncio.get_running_loop().create_future()


@simulated
async def test_the_innermost_place_outside_asyncio_is_named(loop: VirtualLoop) -> None:
    task = loop.create_task(outer(), name="t")
    await asyncio.sleep(0.5)
    assert describe_task(task).startswith(f"t in inner ({__file__}:")
    await task
    assert describe_task(task) == "t"


@simulated
async def test_a_task_of_asyncio_itself_is_named_by_its_own_place(loop: VirtualLoop) -> None:
    task = loop.create_task(asyncio.sleep(1), name="t")
    await asyncio.sleep(0.5)
    assert describe_task(task).startswith("t in sleep (")
    await task


@simulated
async def test_tasks_come_in_a_fixed_order(loop: VirtualLoop) -> None:
    tasks = [loop.create_task(wait_for_a_future(), name=name) for name in "cab"]
    await asyncio.sleep(0)
    names = [task.get_name() for task in ordered_tasks(loop)]
    assert names == ["a", "b", "c", "main"]
    found = [line.split()[1] for line in find_leaks(loop) if line.startswith("task")]
    assert found == names
    for task in tasks:
        task.cancel()
