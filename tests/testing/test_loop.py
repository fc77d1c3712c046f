"""Virtual time: order, jumps, what would hang, what is refused, what is left behind."""

from __future__ import annotations

import asyncio
import itertools
import math
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.errors import MisuseError
from bittern.testing import loop as loop_module
from bittern.testing.loop import (
    Deadlock,
    Leak,
    Livelock,
    SimulationError,
    TimeLimitReached,
    VirtualLoop,
    run,
)
from tests.conftest import Simulate


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


# --- time ------------------------------------------------------------------------------------


def test_sleeping_takes_virtual_time_only(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> float:
        await asyncio.sleep(86_400 * 365)
        return loop.time()

    assert simulate(main, limit=math.inf) == 86_400 * 365


def test_time_starts_where_it_is_told_to() -> None:
    async def main(loop: VirtualLoop) -> float:
        return loop.time()

    assert run(main, start=1000.5) == 1000.5


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60))
def test_timers_run_by_deadline_then_in_the_order_they_were_set(
    timers: list[tuple[int, bool]],
) -> None:
    ran: list[tuple[float, int]] = []

    def note(loop: VirtualLoop, number: int) -> None:
        ran.append((loop.time(), number))

    async def main(loop: VirtualLoop) -> None:
        for number, (delay, is_cancelled) in enumerate(timers):
            timer = loop.call_later(delay, note, loop, number)
            if is_cancelled:
                timer.cancel()
        await asyncio.sleep(6)

    run(main)
    kept = [(delay, number) for number, (delay, off) in enumerate(timers) if not off]
    assert ran == sorted(kept)


def test_a_timer_in_the_past_runs_at_once_and_time_never_goes_back(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> list[float]:
        seen: list[float] = []
        await asyncio.sleep(5)
        loop.call_at(1.0, lambda: seen.append(loop.time()))
        loop.call_later(-3.0, lambda: seen.append(loop.time()))
        await asyncio.sleep(1)
        return seen

    assert simulate(main) == [5.0, 5.0]


def test_due_timers_take_turns_with_callbacks_that_keep_coming(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> int:
        num_yields = 0
        done = loop.create_future()
        loop.call_later(0, done.set_result, None)
        while not done.done():
            num_yields += 1
            await asyncio.sleep(0)
        return num_yields

    assert simulate(main) <= 3


def test_many_cancelled_timers_are_swept_out(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> tuple[int, int]:
        kept = [loop.call_later(3, int) for _ in range(5)]
        largest = 0
        for _ in range(5_000):
            loop.call_later(1000, int).cancel()
            largest = max(largest, len(loop._timers))
        pending = len(loop.pending_timers())
        await asyncio.sleep(3)
        for timer in kept:
            timer.cancel()  # has run already: must not be counted as waiting
        return largest, pending

    largest, pending = simulate(main)
    assert largest < 3_000
    assert pending == 5


def test_cancelled_timers_are_not_waited_for(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> float:
        loop.call_later(1000, int).cancel()
        await asyncio.wait_for(asyncio.sleep(1), timeout=500)
        return loop.time()

    assert simulate(main) == 1.0


def test_a_callback_that_is_cancelled_in_time_does_not_run(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> list[str]:
        ran: list[str] = []
        later = loop.call_later(1, ran.append, "later")
        loop.call_at(1, later.cancel)
        loop.call_at(1, ran.append, "last")
        cancelled = [loop.call_later(1, ran.append, "never"), loop.call_soon(ran.append, "never")]
        for handle in cancelled:
            handle.cancel()
        await asyncio.sleep(2)
        return ran

    assert simulate(main) == ["later", "last"]


def test_a_timer_for_no_instant_is_refused(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        with pytest.raises(MisuseError, match="nan"):
            loop.call_later(math.nan, int)

    simulate(main)


def test_a_call_that_blocks_makes_everything_else_late(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> list[float]:
        seen: list[float] = []
        loop.call_later(1, lambda: seen.append(loop.time()))
        loop.block(2.5)
        await asyncio.sleep(0)
        seen.append(loop.time())
        return seen

    assert simulate(main) == [2.5, 2.5]


def test_asyncio_works_on_it(simulate: Simulate) -> None:
    """Task groups, timeouts, queues and locks keep their promises in virtual time."""

    async def main(loop: VirtualLoop) -> list[object]:
        seen: list[object] = []
        queue: asyncio.Queue[int] = asyncio.Queue(1)

        async def produce() -> None:
            for number in range(3):
                await queue.put(number)
                await asyncio.sleep(1)

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            seen += [(await queue.get(), loop.time()) for _ in range(3)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await forever()
        seen.append(loop.time())
        return seen

    assert simulate(main) == [(0, 0.0), (1, 1.0), (2, 2.0), 5.5]


# --- chance ----------------------------------------------------------------------------------


def test_one_seed_gives_one_run(rng: Any) -> None:
    async def main(loop: VirtualLoop) -> list[tuple[float, int]]:
        seen: list[tuple[float, int]] = []

        async def wander(number: int) -> None:
            for _ in range(20):
                await asyncio.sleep(loop.random.choice((0.0, 0.5, 1.0)))
                seen.append((loop.time(), number))

        await asyncio.gather(*(wander(number) for number in range(10)))
        return seen

    seed = rng.randrange(1 << 32)
    first = run(main, seed=seed)
    assert run(main, seed=seed) == first
    assert run(main, seed=seed + 1) != first


# --- what would hang -------------------------------------------------------------------------


def test_a_deadlock_names_who_waits_and_where() -> None:
    async def main() -> None:
        task = asyncio.create_task(forever(), name="the other")
        await asyncio.gather(task)

    with pytest.raises(Deadlock, match=r"nothing is scheduled, at 0 s.*main.*the other") as caught:
        run(main(), seed=17, grace=0)
    assert "test_loop.py" in str(caught.value)
    assert "virtual time 0 s, seed 17" in caught.value.__notes__


def test_waiting_for_an_infinite_time_is_a_deadlock() -> None:
    with pytest.raises(Deadlock):
        run(asyncio.sleep(math.inf), grace=0)


def test_callbacks_without_end_while_time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "MAX_IDLE_STEPS", 1_000)

    async def main() -> None:
        for _ in itertools.count():
            await asyncio.sleep(0)

    with pytest.raises(Livelock, match="1000 callbacks ran without time passing"):
        run(main())


def test_the_limit_of_virtual_time() -> None:
    async def main() -> None:
        for _ in itertools.count():
            await asyncio.sleep(1)

    with pytest.raises(TimeLimitReached, match=r"limit of 9\.5 s, at 9 s"):
        run(main(), limit=9.5)


def test_work_that_ends_at_the_limit_is_done(simulate: Simulate) -> None:
    simulate(asyncio.sleep(10), limit=10)


# --- threads ---------------------------------------------------------------------------------


def test_a_thread_is_waited_for(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> str:
        answer: asyncio.Future[str] = loop.create_future()
        thread = threading.Thread(
            target=lambda: loop.call_soon_threadsafe(answer.set_result, "from a thread")
        )
        thread.start()
        try:
            return await answer
        finally:
            thread.join()

    assert simulate(main, grace=30) == "from a thread"


def test_a_thread_that_says_nothing_is_given_up() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        with pytest.raises(Deadlock):
            run(forever(), grace=0.01)
    finally:
        release.set()
        thread.join()


def test_a_wake_up_in_vain_does_not_hide_a_deadlock() -> None:
    async def main(loop: VirtualLoop) -> None:
        loop.call_soon_threadsafe(int)
        await forever()

    with pytest.raises(Deadlock):
        run(main, grace=0)


def divide(a: int, b: int) -> float:
    return a / b


def refuse(text: str) -> None:
    raise ValueError(text)


def stop_iterating() -> None:
    raise StopIteration


def test_an_executor_runs_inline_but_not_at_once(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        order: list[str] = []
        future = loop.run_in_executor(None, order.append, "function")
        order.append("caller")
        await future
        assert order == ["caller", "function"]
        assert await asyncio.to_thread(divide, 1, 2) == 0.5
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, divide, 1, 0)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await loop.run_in_executor(None, stop_iterating)
        assert loop.time() == 0.0
        loop.executor_delay = 0.25
        await loop.run_in_executor(None, order.clear)
        assert loop.time() == 0.25

    simulate(main)


def test_a_cancelled_executor_call_does_not_run(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> list[str]:
        order: list[str] = []
        loop.run_in_executor(None, order.append, "function").cancel()
        await asyncio.sleep(1)
        await loop.shutdown_default_executor()
        return order

    assert simulate(main) == []


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda loop: loop.add_reader(0, int),
        lambda loop: loop.sock_connect(socket.socket(), ("127.0.0.1", 1)),
        lambda loop: loop.create_server(asyncio.Protocol, "127.0.0.1", 0),
        lambda loop: loop.create_datagram_endpoint(asyncio.DatagramProtocol),
        lambda loop: loop.subprocess_exec(asyncio.SubprocessProtocol, "true"),
        lambda loop: loop.add_signal_handler(15, int),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_nothing_real_is_touched(ask: Callable[[VirtualLoop], Any], simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        with pytest.raises(MisuseError, match="no real sockets"):
            ask(loop)

    simulate(main)


def test_names_come_from_a_table(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        loop.names["tracker.example"] = ("10.0.0.1", "2001:db8::1")

        async def addresses(host: str, family: int = 0) -> list[object]:
            found = await loop.getaddrinfo(host, 80, family=family)
            return [(entry[0], entry[4]) for entry in found]

        four = (socket.AF_INET, ("10.0.0.1", 80))
        six = (socket.AF_INET6, ("2001:db8::1", 80, 0, 0))
        assert await addresses("tracker.example") == [four, six]
        assert await addresses("tracker.example", socket.AF_INET6) == [six]
        assert await addresses("10.0.0.1") == [four]
        for unknown in ("elsewhere.example", "", "10.0.0.1\0"):
            with pytest.raises(socket.gaierror):
                await addresses(unknown)
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo(None, 80)

    simulate(main)


# --- what is left behind ---------------------------------------------------------------------


async def leave_task(loop: VirtualLoop) -> None:
    loop.create_task(forever(), name="left over")
    await asyncio.sleep(0)


async def leave_timer(loop: VirtualLoop) -> None:
    loop.call_later(5, int)


async def leave_error(loop: VirtualLoop) -> None:
    async def fail() -> None:
        raise ValueError("unseen")

    loop.create_task(fail(), name="failing")
    await asyncio.sleep(1)


async def leave_callback_error(loop: VirtualLoop) -> None:
    loop.call_soon(divide, 1, 0)
    await asyncio.sleep(1)


async def leave_background_error(loop: VirtualLoop) -> None:
    loop.call_background(0.5, divide, 1, 0)
    await asyncio.sleep(1)


async def leave_own_thing(loop: VirtualLoop) -> None:
    loop.leak_checks.append(lambda: ["a door is open"])


async def leave_chain(loop: VirtualLoop) -> None:
    def again() -> None:
        loop.call_soon(again)

    again()


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (leave_task, r"task left over in forever"),
        (leave_timer, r"timer <TimerHandle when=5"),
        (leave_error, r"never retrieved in task 'failing': ValueError"),
        (leave_callback_error, r"Exception in callback.*ZeroDivisionError"),
        (leave_background_error, r"Exception in callback.*divide.*ZeroDivisionError"),
        (leave_own_thing, r"a door is open"),
        (leave_chain, r"callback <Handle"),
    ],
)
def test_what_a_program_leaves_behind_is_found(
    program: Callable[[VirtualLoop], Coroutine[Any, Any, None]],
    text: str,
    simulate: Simulate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop_module, "_MAX_SETTLE_STEPS", 100)
    with pytest.raises(Leak, match=text):
        simulate(program)
    simulate(program, check_leaks=False)


def test_what_ends_at_the_same_instant_is_not_left_behind(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        task = loop.create_task(asyncio.sleep(100))
        await asyncio.sleep(1)
        task.cancel()
        loop.call_background(50, int)  # a packet under way when the program ends

    simulate(main)


def test_what_is_under_way_at_the_very_end_is_not_left_behind(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> list[asyncio.Handle]:
        loop.call_background(1, int)
        loop.call_later(1, int)
        found: list[asyncio.Handle] = []
        # Due at the same instant, and so ready while this runs.
        loop.call_at(0.5, loop.block, 0.5)
        loop.call_at(0.5, lambda: loop.call_soon(lambda: found.extend(loop.pending_callbacks())))
        await asyncio.sleep(2)
        return found

    assert [isinstance(each, asyncio.TimerHandle) for each in simulate(main)] == [True]


def test_leaving_the_program_from_the_background_ends_it(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        loop.call_background(1, sys.exit, 3)
        await asyncio.sleep(2)

    with pytest.raises(SystemExit, match="3"):
        simulate(main)


def test_async_generators_are_closed(simulate: Simulate) -> None:
    closed: list[str] = []

    async def numbers() -> Any:
        try:
            for number in itertools.count():
                yield number
        finally:
            closed.append("yes")

    kept: list[Any] = []

    async def main() -> None:
        made = numbers()
        kept.append(made)
        await anext(made)

    simulate(main())
    assert closed == ["yes"]


def test_an_error_of_the_program_comes_first_and_brings_the_seed() -> None:
    cleaned: list[str] = []

    async def clean_up() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(2)
            cleaned.append("yes")

    async def main(loop: VirtualLoop) -> None:
        loop.create_task(clean_up())
        loop.call_soon(divide, 1, 0)
        await asyncio.sleep(1)
        raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        run(main, seed=5)
    notes = caught.value.__notes__
    assert notes[0] == "virtual time 1 s, seed 5"
    assert notes[1].startswith("also: Exception in callback")
    assert cleaned == ["yes"]


def test_the_same_error_is_told_once_and_not_without_end() -> None:
    async def main(loop: VirtualLoop) -> None:
        for number in range(100):
            loop.call_soon(divide, 1, 0)
            loop.call_soon(refuse, str(number))
        await asyncio.sleep(1)
        assert len(loop.failures) == loop_module.MAX_FAILURES
        assert len(set(loop.failures)) == len(loop.failures)

    run(main, check_leaks=False)


def test_a_task_that_does_not_end_is_given_up() -> None:
    async def resist() -> None:
        while True:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                pass

    async def main(loop: VirtualLoop) -> None:
        loop.create_task(resist())
        await asyncio.sleep(1)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        run(main)


def test_a_closed_loop_takes_no_timer() -> None:
    loop = VirtualLoop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(1, int)


def test_every_failure_of_a_simulation_is_a_misuse() -> None:
    for kind in (Deadlock, Livelock, TimeLimitReached, Leak):
        assert issubclass(kind, SimulationError)
        assert issubclass(kind, MisuseError)
