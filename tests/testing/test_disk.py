"""Failing disks and the worker without threads."""

from __future__ import annotations

import asyncio
import errno
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest

from bittern.core.errors import DiskFull, StorageError
from bittern.engine.store.disk import Disk
from bittern.storage.base import Buffer
from bittern.storage.files import FileStorage
from bittern.storage.layout import Layout
from bittern.storage.memory import MemoryStorage
from bittern.storage.system import OsCalls
from bittern.testing.disk import CachedCalls, FaultyCalls, SimWorker
from bittern.testing.loop import Leak, VirtualLoop
from tests.conftest import Simulate
from tests.storage.places import contiguous
from tests.virtual_time import simulated


def make(calls: OsCalls, folder: Path, layout: Layout | None = None) -> FileStorage:
    layout = layout or contiguous(10_000, 5_000)
    paths = [(f"file {number}",) for number in range(len(layout.files))]
    return FileStorage(layout, folder, paths, os_calls=calls)


def scenario(storage: FileStorage) -> None:
    """Write, sync and read a torrent of two files."""
    storage.prepare()
    storage.write(0, [bytes(15_000)])
    storage.sync()
    storage.read_into(9_000, [memoryview(bytearray(2_000))])


# --- a cache that has everything -------------------------------------------------------------


def test_no_read_of_cached_calls_is_put_off(tmp_path: Path) -> None:
    calls = CachedCalls()
    flags: list[int] = []
    real = OsCalls().preadv

    def read(fd: int, buffers: Sequence[memoryview], offset: int, flag: int = 0) -> int:
        flags.append(flag)
        if flag:
            raise BlockingIOError
        return real(fd, buffers, offset)

    puts_off = OsCalls()
    puts_off.preadv, puts_off.nowait_flag = read, 1
    for os_calls, is_read in ((puts_off, False), (calls, True)):
        storage = make(os_calls, tmp_path)
        scenario(storage)
        data = bytearray(b"x" * 100)
        assert storage.read_into(50, [memoryview(data)], nowait=True) is is_read
        assert (data == bytes(100)) is is_read
        storage.close()
    assert flags == [0, 0, 1]


# --- failing calls ---------------------------------------------------------------------------


def test_without_faults_nothing_changes_but_calls_are_counted(tmp_path: Path) -> None:
    calls = FaultyCalls()
    storage = make(calls, tmp_path)
    scenario(storage)
    assert calls.num_calls == len(calls.log) > 5
    assert {"open", "pwritev", "fdatasync", "preadv", "makedirs"} <= set(calls.log)
    assert "close" not in calls.log
    storage.close()


def test_each_call_can_fail_once_and_trying_again_heals(tmp_path: Path) -> None:
    calls = FaultyCalls()
    storage = make(calls, tmp_path / "0")
    scenario(storage)
    storage.close()
    num_calls = calls.num_calls
    seen: list[int | None] = []
    for number in range(num_calls):
        calls = FaultyCalls()
        storage = make(calls, tmp_path / f"{number + 1}")
        calls.fail_call(number)
        try:
            scenario(storage)
        except StorageError as error:
            seen.append(error.errno)
        scenario(storage)
        storage.close()
    assert set(seen) == {errno.EIO}
    assert len(seen) >= num_calls - 2


def test_a_fault_for_good_lasts_until_it_is_healed(tmp_path: Path) -> None:
    calls = FaultyCalls()
    storage = make(calls, tmp_path)
    scenario(storage)
    calls.fail_call(0, errno.EROFS, for_good=True, names={"pwritev", "fdatasync"})
    for _ in range(3):
        with pytest.raises(StorageError, match="read-only") as caught:
            storage.write(0, [b"x"])
        assert caught.value.errno == errno.EROFS
    storage.read_into(0, [memoryview(bytearray(10))])
    calls.heal()
    storage.write(0, [b"x"])
    storage.close()


def test_a_named_fault_hits_only_a_call_of_that_name(tmp_path: Path) -> None:
    calls = FaultyCalls()
    storage = make(calls, tmp_path)
    scenario(storage)
    calls.fail_call(0, names={"fdatasync"})
    storage.write(0, [b"x"])  # was the call counted as 0
    storage.sync()
    calls.fail_call(1, names={"fdatasync"})
    storage.write(0, [b"x"])
    with pytest.raises(StorageError):
        storage.sync()
    storage.close()


@pytest.mark.parametrize("room", [0, 1, 4_096, 14_999])
def test_a_volume_that_fills_up(room: int, tmp_path: Path) -> None:
    calls = FaultyCalls(room=room)
    storage = make(calls, tmp_path)
    storage.prepare()
    with pytest.raises(DiskFull):
        storage.write(0, [bytes(10_000), bytes(5_000)])
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == room
    assert calls.room == 0
    calls.room = None
    storage.write(0, [bytes(15_000)])
    storage.close()


def test_reserving_takes_room_as_well(tmp_path: Path) -> None:
    calls = FaultyCalls(room=12_000)
    layout = contiguous(10_000, 5_000)
    paths = [("a",), ("b",)]
    storage = FileStorage(layout, tmp_path, paths, preallocate=True, os_calls=calls)
    with pytest.raises(DiskFull):
        storage.prepare()
    assert calls.room == 2_000
    calls.room = None
    storage.prepare()
    assert (tmp_path / "b").stat().st_size == 5_000
    storage.close()


@simulated
async def test_what_happens_before_a_call(loop: VirtualLoop, tmp_path: Path) -> None:
    calls = FaultyCalls()
    calls.before_call = lambda name: loop.block(2.0 if name == "pwritev" else 0.0)
    storage = make(calls, tmp_path)
    storage.prepare()
    storage.write(0, [b"x"])
    storage.close()
    assert loop.time() == 2.0


def test_the_portable_calls_can_fail_too(tmp_path: Path) -> None:
    calls = FaultyCalls(portable=True)
    storage = make(calls, tmp_path)
    scenario(storage)
    calls.fail_call(0, names={"preadv"})
    with pytest.raises(StorageError):
        storage.read_into(0, [memoryview(bytearray(10))])
    storage.close()
    assert list(tmp_path.iterdir())


# --- the worker ------------------------------------------------------------------------------


@simulated
async def test_jobs_of_a_lane_run_in_order_and_take_their_time(loop: VirtualLoop) -> None:
    worker = SimWorker(loop, delay=1.0)
    ended: list[tuple[str, float]] = []

    def submit(name: str, lane: str | None) -> None:
        worker.submit(lambda: name, lambda *_: ended.append((name, loop.time())), lane=lane)

    for name, lane in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("free", None), ("a3", "a")]:
        submit(name, lane)
    assert worker.backlog == 5
    assert ended == []
    await asyncio.sleep(10)
    assert ended == [("a1", 1.0), ("b1", 1.0), ("free", 1.0), ("a2", 2.0), ("a3", 3.0)]
    submit("a4", "a")
    await asyncio.sleep(10)
    assert ended[-1] == ("a4", 11.0)
    assert worker.backlog == 0


@simulated
async def test_a_lane_that_has_no_jobs_is_not_kept(loop: VirtualLoop) -> None:
    class Lane:
        """Something that can be seen to be gone."""

    worker, lane = SimWorker(loop, delay=1.0), Lane()
    ends: list[float] = []
    for _ in range(2):
        worker.submit(int, lambda *_: ends.append(loop.time()), lane=lane)
    seen = weakref.ref(lane)
    del lane
    await asyncio.sleep(1.5)
    assert seen() is not None
    await asyncio.sleep(1)
    assert ends == [1, 2]
    assert seen() is None


@simulated
async def test_a_jobs_error_goes_to_who_submitted_it(loop: VirtualLoop) -> None:
    disk = Disk(SimWorker(loop, delay=0.5), loop, max_queue=1000)
    assert await disk.run(lambda: 1 + 1) == 2
    with pytest.raises(ZeroDivisionError):
        await disk.run(lambda: 1 / 0)
    assert loop.time() == 1.0


@simulated
async def test_closing_runs_what_waits_and_refuses_what_comes(loop: VirtualLoop) -> None:
    worker = SimWorker(loop, delay=5.0)
    seen: list[object] = []
    for number in range(3):
        worker.submit(lambda n=number: n, lambda *got: seen.append(got))  # type: ignore[misc]
    assert worker.close()
    assert seen == [(0, None), (1, None), (2, None)]
    worker.submit(int, lambda _, error: seen.append(type(error)))
    assert seen[-1] is StorageError
    await asyncio.sleep(10)
    assert len(seen) == 4


def test_jobs_that_nobody_waits_for_are_a_leak(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        SimWorker(loop, delay=5.0).submit(int, lambda *_: None)

    with pytest.raises(Leak, match=r"SimWorker\._run"):
        simulate(main)


class SlowStorage(MemoryStorage):
    """A storage on a disk that takes a fifth of a second for each write."""

    loop: VirtualLoop

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        self.loop.block(0.2)
        super().write(offset, buffers)


@simulated
async def test_a_slow_disk_is_written_through_the_worker(loop: VirtualLoop) -> None:
    """The engine's switch to the worker, as a simulation sees it."""
    storage = SlowStorage(contiguous(10_000))
    storage.loop = loop
    storage.prepare()
    disk = Disk(SimWorker(loop, delay=0.1), loop, max_queue=1000, clock=loop.time)
    ended: list[float] = []
    assert disk.write(storage, 0, [b"x"], lambda *_: ended.append(loop.time()))
    assert not disk.write(storage, 0, [b"y"], lambda *_: ended.append(loop.time()))
    await asyncio.sleep(1)
    assert len(ended) == 1
