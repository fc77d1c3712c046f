"""engine.store.disk: writes in place and through the worker, congestion, outcomes of jobs."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from collections.abc import Sequence
from typing import cast

import pytest

from bittern.core.errors import StorageError
from bittern.engine.store.disk import SLOW_PERIOD, SLOW_WRITE, Disk, failure_of
from bittern.storage.base import Buffer, Storage
from bittern.storage.worker import Worker
from bittern.testing.disk import SimWorker
from bittern.testing.loop import VirtualLoop
from tests.virtual_time import simulated

DELAY = 1.0
"""Virtual seconds that each job in the worker takes."""


class Clock:
    """Shows what it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowStorage:
    """A storage that only writes, and takes ``seconds`` of a clock for it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds = 0.0
        self.error: StorageError | None = None
        self.content = bytearray(100)

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        self.clock.now += self.seconds
        if self.error is not None:
            raise self.error
        data = b"".join(buffers)
        self.content[offset : offset + len(data)] = data


class Bench:
    """A disk, a storage and what came back."""

    def __init__(self, loop: VirtualLoop, *, max_queue: int = 40) -> None:
        self.clock = Clock()
        self.slow = self.add()
        self.storage = as_storage(self.slow)
        self.changes: list[bool] = []
        self.disk = Disk(
            SimWorker(loop, delay=DELAY),
            loop,
            max_queue=max_queue,
            congestion_changed=self.changes.append,
            clock=self.clock,
        )
        self.outcomes: list[BaseException | None] = []

    def add(self) -> SlowStorage:
        return SlowStorage(self.clock)

    def write(self, data: bytes, offset: int = 0, storage: Storage | None = None) -> bool:
        return self.disk.write(storage or self.storage, offset, [data], self.done)

    def done(self, result: None, error: BaseException | None) -> None:
        assert result is None
        self.outcomes.append(error)

    def become_slow(self) -> None:
        self.slow.seconds = SLOW_WRITE * 2
        assert self.write(b"")
        self.slow.seconds = 0.0


def as_storage(slow: SlowStorage) -> Storage:
    return cast(Storage, slow)


# --- writes ------------------------------------------------------------------------------


@simulated
async def test_a_quick_disk_is_written_in_place(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    for seconds in (0.0, SLOW_WRITE):
        bench.slow.seconds = seconds
        assert bench.disk.write(bench.storage, 3, [b"ab", memoryview(b"cd")], bench.done)
        assert bench.slow.content[:8] == b"\0\0\0abcd\0"
    assert bench.write(b"x")
    assert bench.outcomes == []


@simulated
async def test_an_error_in_place_is_raised(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    bench.slow.error = StorageError("broken")
    with pytest.raises(StorageError, match="broken"):
        bench.write(b"x")
    assert bench.outcomes == []


@simulated
async def test_a_slow_disk_is_written_by_the_worker_for_a_while(loop: VirtualLoop) -> None:
    """Limit: F16. The data is copied: its owner overwrites it meanwhile."""
    bench = Bench(loop)
    bench.become_slow()
    started_at = loop.time()
    data = bytearray(b"abcd")
    assert not bench.disk.write(bench.storage, 1, [data], bench.done)
    data[:] = b"zzzz"
    assert bench.slow.content[:6] == bytes(6)
    await asyncio.sleep(DELAY / 2)
    assert bench.outcomes == []
    await asyncio.sleep(DELAY)
    assert bench.slow.content[:6] == b"\0abcd\0"
    assert bench.outcomes == [None]
    await asyncio.sleep(started_at + SLOW_PERIOD - 0.1 - loop.time())
    assert not bench.write(b"last")
    await asyncio.sleep(0.2)
    # The period is over, but a write in place must not overtake the one that waits.
    assert not bench.write(b"LAST")
    await asyncio.sleep(2 * DELAY)
    assert bench.slow.content[:4] == b"LAST"
    assert bench.write(b"here")
    assert bench.slow.content[:4] == b"here"
    assert bench.write(b"stay")


@simulated
async def test_only_the_slow_storage_is_slow(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    other = bench.add()
    bench.become_slow()
    assert bench.write(b"quick", storage=as_storage(other))
    assert other.content[:5] == b"quick"


@simulated
async def test_a_forgotten_storage_starts_anew(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    bench.become_slow()
    bench.disk.forget(bench.storage)
    bench.disk.forget(bench.storage)
    assert bench.write(b"x")


@simulated
async def test_an_error_in_the_worker_is_handed_over(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    bench.become_slow()
    bench.slow.error = StorageError("broken")
    assert not bench.write(bytes(41))
    assert bench.disk.is_congested
    assert bench.disk.num_queued > 40
    assert bench.disk.is_slow(bench.storage)
    await asyncio.sleep(DELAY + 0.1)
    assert bench.outcomes == [bench.slow.error]
    assert not bench.disk.is_congested


@simulated
async def test_congestion_has_a_high_and_a_low_mark(loop: VirtualLoop) -> None:
    """Limit: F16. Above 40 waiting bytes it begins, at 20 it ends."""
    bench = Bench(loop, max_queue=40)
    bench.become_slow()
    for _ in range(4):
        bench.write(bytes(10))
    assert not bench.disk.is_congested
    bench.write(b"x")
    assert bench.disk.is_congested
    assert bench.changes == [True]
    await asyncio.sleep(2 * DELAY + 0.5)
    # 21 bytes are left: below the high mark, above the low one.
    assert bench.changes == [True]
    await asyncio.sleep(DELAY)
    assert bench.changes == [True, False]
    assert not bench.disk.is_congested
    for _ in range(3):
        bench.write(bytes(10))
    assert bench.changes == [True, False, True]
    await asyncio.sleep(10 * DELAY)
    assert bench.changes == [True, False, True, False]


# --- jobs --------------------------------------------------------------------------------


@simulated
async def test_a_job_has_a_result_or_an_error(loop: VirtualLoop) -> None:
    disk = Bench(loop).disk

    def fail() -> None:
        raise StorageError("broken")

    seen: list[tuple[object, object]] = []
    disk.submit(lambda: 5, lambda result, error: seen.append((result, error)))
    assert seen == []
    assert await disk.run(lambda: 7) == 7
    assert seen == [(5, None)]
    with pytest.raises(StorageError, match="broken"):
        await disk.run(fail)


@simulated
async def test_jobs_of_one_lane_wait_for_each_other(loop: VirtualLoop) -> None:
    disk = Bench(loop).disk
    lanes = ["a", "a", "b", None, None]
    order: list[tuple[int, float]] = []

    async def run(number: int) -> None:
        await disk.run(lambda: None, lane=lanes[number])
        order.append((number, loop.time()))

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(run(number))
    ends = {number: round(when / DELAY) for number, when in order}
    assert ends == {0: 1, 1: 2, 2: 1, 3: 1, 4: 1}


@pytest.mark.parametrize("fails", [False, True])
@simulated
async def test_the_outcome_of_a_wait_that_was_given_up_is_dropped(
    loop: VirtualLoop, fails: bool
) -> None:
    disk = Bench(loop).disk
    ran = []

    def job() -> None:
        ran.append(1)
        if fails:
            raise StorageError("nobody looks")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(DELAY / 2):
            await disk.run(job)
    await asyncio.sleep(DELAY)
    assert ran == [1]


async def test_outcomes_of_threads_arrive_on_the_loop() -> None:
    worker = Worker(1)
    try:
        disk = Disk(worker, asyncio.get_running_loop(), max_queue=1)
        assert disk.is_parallel
        here = threading.get_ident()
        assert await disk.run(threading.get_ident) != here
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        disk.submit(lambda: None, lambda *_: told.set_result(threading.get_ident()))
        assert await told == here
    finally:
        worker.close()


def test_what_ends_after_the_loop_is_dropped() -> None:
    loop = asyncio.new_event_loop()
    worker = Worker(1)
    disk = Disk(worker, loop, max_queue=1)
    may_end, seen = threading.Event(), []
    disk.submit(may_end.wait, lambda *outcome: seen.append(outcome))
    loop.close()
    may_end.set()
    assert worker.close()
    assert seen == []


def test_a_bug_is_a_failure_with_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Limit: F17. Where it is stands there for who asks for more."""
    known = StorageError("no")
    assert failure_of(known) is known
    for shortage in (MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")):
        assert str(failure_of(shortage)) == "out of memory"
    assert caplog.records == []
    with caplog.at_level(logging.DEBUG):
        assert str(failure_of(ValueError("odd"))) == "a bug: ValueError: odd"
    line, where = caplog.records
    assert (line.levelname, line.message) == ("ERROR", "a bug: ValueError: odd")
    assert (where.levelname, bool(where.exc_info)) == ("DEBUG", True)
