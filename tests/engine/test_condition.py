"""engine.condition: the state of a torrent, who waits for it, and what a failure comes to."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bittern.core.errors import (
    BitTorrentError,
    ConfigError,
    DiskFull,
    MetainfoError,
    MisuseError,
    StorageError,
    VolumeMissing,
)
from bittern.engine import events
from bittern.engine.condition import RETRY_INTERVAL, Condition
from bittern.engine.events import Event, TorrentState
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.storage.places import Mounts
from tests.virtual_time import simulated


class InPlace:
    """Runs jobs of the disk at once."""

    async def run(self, job: Callable[[], object], *, lane: object = None) -> object:
        return job()


DISK: Any = InPlace()


def make(*, is_paused: bool = False) -> tuple[Condition, list[Event]]:
    told: list[Event] = []
    return Condition(told.append, DISK, is_paused=is_paused), told


def test_it_begins_paused_or_not_started() -> None:
    assert make()[0].state is TorrentState.STOPPED
    assert make(is_paused=True)[0].state is TorrentState.PAUSED


def test_a_change_is_told_once() -> None:
    condition, told = make()
    for state in (TorrentState.CHECKING, TorrentState.CHECKING, TorrentState.SEEDING):
        condition.enter(state)
        assert condition.is_complete is (state is TorrentState.SEEDING)
    assert told == [
        events.StateChanged(TorrentState.CHECKING),
        events.StateChanged(TorrentState.SEEDING),
    ]


def test_who_has_left_stays_stopped() -> None:
    """Or who waits for it to be complete would wait for ever."""
    condition, told = make()
    condition.check_open()
    condition.was_closed = True
    condition.enter(TorrentState.CHECKING)
    condition.enter(TorrentState.PAUSED)
    assert (condition.state, told) == (TorrentState.STOPPED, [])
    with pytest.raises(ConfigError, match="removed from its session"):
        condition.check_open()


Outcome = Callable[[Condition], object]


def close(condition: Condition) -> None:
    condition.was_closed = True
    condition.enter(TorrentState.STOPPED)


@pytest.mark.parametrize(
    ("ends", "error"),
    [
        (lambda condition: condition.enter(TorrentState.SEEDING), None),
        (close, ConfigError),
        (lambda c: c.fail(StorageError("gone"), try_again=lambda: None), StorageError),
    ],
)
def test_all_who_wait_hear_how_it_ends(
    ends: Outcome, error: type[BitTorrentError] | None, simulate: Simulate
) -> None:
    """Not before: a state in between, and a torrent that only has not been started, are no end."""

    async def main(_: VirtualLoop) -> None:
        condition = make()[0]
        waiting = [asyncio.ensure_future(condition.wait_complete()) for _ in range(3)]
        await asyncio.sleep(1)
        condition.enter(TorrentState.CHECKING)
        condition.enter(TorrentState.STOPPED)
        await asyncio.sleep(1)
        assert not any(task.done() for task in waiting)
        ends(condition)
        found = await asyncio.gather(*waiting, return_exceptions=True)
        late = await asyncio.gather(condition.wait_complete(), return_exceptions=True)
        for each in (*found, *late):
            assert each is None if error is None else isinstance(each, error)

    simulate(main)


def frames_of(error: BaseException | None) -> int:
    """Return how many frames an error, and what led to it, keep alive."""
    if error is None:
        return 0
    of_its_own = len(list(traceback.walk_tb(error.__traceback__)))
    return of_its_own + frames_of(error.__cause__ or error.__context__)


@simulated
async def test_an_error_keeps_nothing_of_what_was_at_work_nor_of_who_asks_for_it() -> None:
    """It is kept for months, by as many torrents as were on a disk that has failed."""
    condition, _ = make()

    def fail() -> None:
        try:
            raise OSError("gone")
        except OSError as cause:
            raise StorageError("no disk", errno=5) from cause

    with pytest.raises(StorageError) as failed:
        fail()
    assert frames_of(failed.value) == 3
    condition.fail(failed.value, try_again=lambda: None)
    numbers = []
    for _ in range(3):
        with pytest.raises(StorageError, match="no disk") as caught:
            await condition.wait_complete()
        assert caught.value.errno == 5
        numbers.append(frames_of(caught.value))
    assert numbers == numbers[:1] * 3
    assert isinstance(condition.error, StorageError)
    assert frames_of(condition.error) == 0


@simulated
async def test_a_full_disk_is_tried_again_unless_somebody_ends_that() -> None:
    """Limit: F1."""
    loop = asyncio.get_running_loop()
    tries: list[float] = []

    def try_again() -> None:
        tries.append(loop.time())

    condition, told = make()
    error = DiskFull("no room on the volume")
    condition.fail(error, try_again=try_again)
    assert (condition.state, str(condition.error)) == (TorrentState.ERROR, str(error))
    assert told == [events.failure(error), events.StateChanged(TorrentState.ERROR)]
    assert condition.retry_at == loop.time() + RETRY_INTERVAL
    await asyncio.sleep(2 * RETRY_INTERVAL)
    assert tries == [RETRY_INTERVAL]
    condition.fail(error, try_again=try_again)
    condition.begin()
    condition.end_retry()
    assert condition.retry_at is None
    assert condition.error is None
    condition.fail(StorageError("disk failed"), try_again=try_again)
    condition.was_closed = True
    condition.fail(error, try_again=try_again)
    await asyncio.sleep(2 * RETRY_INTERVAL)
    assert tries == [RETRY_INTERVAL]


@simulated
async def test_a_missing_volume_is_looked_for_until_it_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Limit: F6. Nobody hears of the looks: only of what was missing, once."""
    mounts = Mounts(monkeypatch)
    condition, told = make()
    looks, starts = [], []

    async def start() -> None:
        starts.append(asyncio.get_running_loop().time())
        condition.begin()

    def try_again() -> None:
        looks.append(asyncio.ensure_future(condition.start_again(start)))

    error = VolumeMissing("not mounted", path=str(tmp_path))
    condition.fail(error, try_again=try_again)
    begun = list(told)
    await asyncio.sleep(10.5 * RETRY_INTERVAL)
    assert (len(looks), starts, told) == (10, [], begun)
    mounts.add(tmp_path)
    await asyncio.sleep(10 * RETRY_INTERVAL)
    assert (len(looks), starts) == (11, [11 * RETRY_INTERVAL])
    mounts.clear()
    condition.fail(error, try_again=try_again)
    condition.was_closed = True
    await asyncio.sleep(10 * RETRY_INTERVAL)
    assert len(looks) == 12, "it has left its session meanwhile"


@pytest.mark.parametrize(
    ("state", "is_running", "is_at_work"),
    [
        (TorrentState.METADATA, True, False),
        (TorrentState.CHECKING, True, False),
        (TorrentState.DOWNLOADING, True, True),
        (TorrentState.SEEDING, True, True),
        (TorrentState.PAUSED, False, False),
        (TorrentState.STOPPED, False, False),
        (TorrentState.ERROR, False, False),
    ],
)
def test_what_runs(state: TorrentState, is_running: bool, is_at_work: bool) -> None:
    condition, _ = make()
    condition.enter(state)
    assert condition.is_running is is_running
    assert condition.is_at_work is is_at_work


@simulated
async def test_who_leaves_calls_a_check_off() -> None:
    condition, told = make()

    async def leave() -> None:
        async with condition.leaving():
            pass

    async with condition.lock:
        assert condition.begin_check(is_forced=True)
        assert not condition.is_called_off
        leaving = asyncio.ensure_future(leave())
        await asyncio.sleep(0)
        assert condition.is_called_off
        assert condition.end_check()
        assert told == [], "who leaves says what comes next"
        # Another one that begins while somebody waits is over at once.
        condition.begin_check(is_forced=False)
        assert condition.end_check()
    await leaving
    # What was asked for is owed until it comes to its end.
    for is_owed in (True, False):
        assert condition.begin_check(is_forced=False) is is_owed
        assert not condition.end_check()


@simulated
async def test_a_check_that_was_called_off_by_who_has_gone_leaves_a_pause() -> None:
    condition, told = make()
    async with condition.lock:
        condition.begin_check(is_forced=False)
        leaving = asyncio.ensure_future(condition.leaving().__aenter__())
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert condition.end_check()
    assert told == [events.StateChanged(TorrentState.PAUSED)]
    assert not condition.begin_check(is_forced=False)
    condition.was_closed = True
    assert condition.is_called_off


@pytest.mark.parametrize("state", [TorrentState.ERROR, TorrentState.PAUSED, TorrentState.SEEDING])
@simulated
async def test_what_starts_by_itself_does_so_only_if_nobody_said_otherwise(
    state: TorrentState,
) -> None:
    condition, _ = make()
    condition.enter(state)
    started: list[str] = []

    async def retry() -> None:
        started.append("retry")

    async def wake() -> None:
        started.append("wake")
        await asyncio.sleep(1)

    await condition.start_again(retry)
    # Many ask for it while it wakes up; later it may be roused once more.
    for _ in range(2):
        await asyncio.gather(*(condition.rouse(wake) for _ in range(3)))
    expected = {TorrentState.ERROR: ["retry"], TorrentState.SEEDING: ["wake", "wake"]}
    assert started == expected.get(state, [])


@pytest.mark.parametrize("was_closed", [False, True])
@simulated
async def test_a_start_that_is_cancelled_leaves_a_pause(was_closed: bool) -> None:
    condition, told = make()
    condition.was_closed = was_closed

    async def start() -> None:
        with condition.starting():
            condition.begin_check(is_forced=True)
            await asyncio.sleep(1)

    task = asyncio.ensure_future(start())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert condition.is_called_off
    assert told == ([] if was_closed else [events.StateChanged(TorrentState.PAUSED)])
    assert condition.begin_check(is_forced=False), "it is owed"


@pytest.mark.parametrize("bug", [ZeroDivisionError, MisuseError])
def test_a_bug_while_it_starts_is_a_failure(bug: type[Exception]) -> None:
    """Limit: F17. What is known to go wrong stays what it is."""
    condition, _ = make()
    with pytest.raises(StorageError, match=f"a bug: {bug.__name__}"), condition.starting():
        raise bug
    with pytest.raises(MetainfoError, match="odd"), condition.starting():
        raise MetainfoError("odd")
