"""
An asyncio event loop whose clock is a number.

Nothing waits: when no callback is ready, time jumps to the next timer. An hour
of a swarm takes as long as its callbacks take, and the same program with the
same seed makes the same steps in the same order every time:

- Callbacks run in the order in which they were scheduled, and so do timers
  with equal deadlines, which asyncio leaves open.
- ``run_in_executor`` runs the function on the loop itself, in a later step, so
  that callers still have to wait for it.
- There are no sockets and no resolver but the ``names`` table; asking for one
  is a ``MisuseError``. ``bittern.testing.network`` has simulated ones.

What would hang for ever in real life is an error here that names the tasks
which wait: nothing is scheduled (``Deadlock``), callbacks follow each other
without end while time stands still (``Livelock``), the virtual time limit is
reached (``TimeLimitReached``). ``run`` also proves that nothing was left
behind (``Leak``).

Threads that call ``call_soon_threadsafe`` are waited for, up to ``grace`` real
seconds, before a deadlock is declared. What they do is not deterministic.

Refuses: sockets, subprocesses, signals.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import math
import random
import socket
import threading
from asyncio import base_events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from bittern.core.errors import MisuseError
from bittern.testing.tasks import describe_task, ordered_tasks

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

MAX_IDLE_STEPS = 1_000_000
"""Limit: callbacks in a row without time passing; more is a loop that never ends."""
DEFAULT_GRACE = 0.5
"""Real seconds that a thread has for calling ``call_soon_threadsafe``."""
MAX_FAILURES = 20
"""Errors kept, each once; a callback that fails every second would fill the report."""
_MAX_SETTLE_STEPS = 10_000
_CLEANUP_TIME = 60.0
_LAZY_CANCELLED = 1_000
"""Cancelled timers are swept out of the heap once they are this many and half of it."""


class SimulationError(MisuseError):
    """The simulated program cannot go on, or left something behind."""


class Deadlock(SimulationError):
    """Tasks wait, and nothing is scheduled that could wake them."""


class Livelock(SimulationError):
    """Callbacks follow each other without end while time stands still."""


class TimeLimitReached(SimulationError):
    """The program was not done within its virtual seconds."""


class Leak(SimulationError):
    """The program ended and left tasks, timers, streams or unseen errors behind."""


class _WorldTimer:
    """
    Something that the simulated world has under way, such as a packet.

    Nobody cancels it and it has no context of its own: a handle of asyncio's costs four times
    as much, and there is one for each step of each transfer.
    """

    __slots__ = ("_args", "_callback", "_loop", "_scheduled")
    _cancelled = False
    _scheduled: bool

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], loop: VirtualLoop
    ) -> None:
        self._callback = callback
        self._args = args
        self._loop = loop

    def cancelled(self) -> bool:
        return False

    def _run(self) -> None:
        try:
            self._callback(*self._args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # as in asyncio: it ends nobody but its own callback
            message = f"Exception in callback {self._callback!r}"
            self._loop.call_exception_handler({"message": message, "exception": error})


class VirtualLoop(base_events.BaseEventLoop):
    """
    The loop; ``run`` is the usual way to one.

    Args:
        seed: for ``random``, from which everything on this loop takes its chance.
        start: first instant, virtual seconds.
        grace: real seconds to wait for a thread before a deadlock is declared.

    Attributes:
        random: the one source of chance; networks, disks and peers take from it.
        names: host name to addresses, for ``getaddrinfo``.
        executor_delay: virtual seconds that each ``run_in_executor`` call takes.
        failures: what was reported to the exception handler, as text.
        leak_checks: called at the end of ``run``; each returns what it finds left open.
    """

    # Of BaseEventLoop, which typeshed does not show.
    _ready: deque[asyncio.Handle | _WorldTimer]
    _stopping: bool

    def __init__(self, *, seed: int = 0, start: float = 0.0, grace: float = DEFAULT_GRACE) -> None:
        super().__init__()
        self.seed = seed
        self.random: random.Random = random.Random(seed)
        self.names: dict[str, tuple[str, ...]] = {}
        self.executor_delay: float = 0.0
        self.failures: list[str] = []
        self.leak_checks: list[Callable[[], list[str]]] = []
        self.num_timers: int = 0
        """Timers set so far; also the tie-break between equal deadlines."""
        self._now = start
        self._limit_at = math.inf
        self._grace = grace
        self._timers: list[tuple[float, int, asyncio.TimerHandle | _WorldTimer]] = []
        self._num_cancelled = 0
        self._num_idle_steps = 0
        self._woken = threading.Event()
        self.set_exception_handler(_record_failure)

    # --- time --------------------------------------------------------------------------------

    def time(self) -> float:
        """Return the virtual instant, seconds."""
        return self._now

    def limit_time(self, limit: float) -> None:
        """Make ``TimeLimitReached`` happen ``limit`` virtual seconds from now; inf for never."""
        self._limit_at = self._now + limit

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule ``callback`` for the instant ``when``; equal instants keep their order."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._set(when, timer)
        return timer

    def call_background(self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """
        Do as ``call_at`` for the simulated world.

        It is no leak when the program ends before it, and cannot be cancelled.
        """
        self._set(when, _WorldTimer(callback, args, self))

    def _set(self, when: float, timer: asyncio.TimerHandle | _WorldTimer) -> None:
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        if when != when:
            raise MisuseError("a timer for the instant nan")
        timer._scheduled = True  # type: ignore[union-attr]  # what TimerHandle.cancel looks at
        self.num_timers += 1
        heapq.heappush(self._timers, (when, self.num_timers, timer))

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule ``callback`` in ``delay`` virtual seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def block(self, seconds: float) -> None:
        """Let time pass inside the callback that runs now, as a call that blocks does."""
        self._now += seconds

    def pending_timers(self) -> list[asyncio.TimerHandle]:
        """Return the program's timers that are set and not cancelled, earliest first."""
        return [
            timer
            for _, _, timer in sorted(self._timers)
            if not timer.cancelled() and not isinstance(timer, _WorldTimer)
        ]

    def pending_callbacks(self) -> list[asyncio.Handle]:
        """Return the callbacks that are ready to run and not cancelled, next first."""
        return [
            handle
            for handle in self._ready
            if not (isinstance(handle, _WorldTimer) or handle.cancelled())
        ]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Count a cancelled timer, and sweep them out when they are many."""
        if not handle._scheduled:  # type: ignore[attr-defined]  # it has left the heap
            return
        self._num_cancelled += 1
        if self._num_cancelled > _LAZY_CANCELLED and 2 * self._num_cancelled > len(self._timers):
            # The handle that is being cancelled now is not marked yet; it stays for the next time.
            self._timers = [entry for entry in self._timers if not entry[2].cancelled()]
            heapq.heapify(self._timers)
            self._num_cancelled = 1

    # --- the step ----------------------------------------------------------------------------

    def _run_once(self) -> None:
        """Run what is ready, having moved time forward if nothing was."""
        ready, timers = self._ready, self._timers
        if not ready and not self._stopping:
            self._advance()
            timers = self._timers
        while timers and timers[0][0] <= self._now:
            timer = heapq.heappop(timers)[2]
            if timer._cancelled:
                self._num_cancelled -= 1
            else:
                timer._scheduled = False  # type: ignore[union-attr]
                ready.append(timer)
        count = len(ready)
        self._num_idle_steps += count
        if self._num_idle_steps > MAX_IDLE_STEPS:
            self._num_idle_steps = 0
            raise Livelock(self._stuck(f"{MAX_IDLE_STEPS} callbacks ran without time passing"))
        for _ in range(count):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _advance(self) -> None:
        """Move time to the next timer, or find out that there is none."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
            self._num_cancelled -= 1
        when = timers[0][0] if timers else math.inf
        if when == math.inf:
            self._wait_for_thread()
            return
        if when > self._limit_at:
            limit_at, self._limit_at = self._limit_at, math.inf
            raise TimeLimitReached(self._stuck(f"not done at the limit of {limit_at:g} s"))
        if when > self._now:
            self._now = when
            self._num_idle_steps = 0

    def _wait_for_thread(self) -> None:
        if not self._woken.wait(self._grace if threading.active_count() > 1 else 0):
            raise Deadlock(self._stuck("nothing is scheduled"))
        self._woken.clear()

    def _write_to_self(self) -> None:
        """Hear from ``call_soon_threadsafe``."""
        self._woken.set()

    def _stuck(self, what: str) -> str:
        waiting = [describe_task(task) for task in ordered_tasks(self)]
        return f"{what}, at {self._now:g} s; waiting: " + ("; ".join(waiting) or "no task")

    # --- what would be real ------------------------------------------------------------------

    def run_in_executor(
        self,
        executor: object,  # noqa: ARG002  # no thread is involved, whichever is given
        func: Callable[[*_Ts], _T],
        *args: *_Ts,
    ) -> asyncio.Future[_T]:
        """Run ``func`` on this loop, ``executor_delay`` seconds later."""
        future: asyncio.Future[_T] = self.create_future()
        if self.executor_delay > 0:
            self.call_later(self.executor_delay, _run_inline, future, func, args)
        else:
            self.call_soon(_run_inline, future, func, args)
        return future

    async def getaddrinfo(  # type: ignore[override]  # bytes names are not used here
        self,
        host: str | None,
        port: int | str | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002  # asyncio's name
        proto: int = 0,
        flags: int = 0,  # noqa: ARG002  # no name here depends on them
    ) -> list[tuple[Any, ...]]:
        """Look ``host`` up in ``names``; an address stands for itself."""
        found: list[tuple[Any, ...]] = []
        for address in self.names.get(host or "", (host or "",)):
            kind = _family_of(address)
            if kind is not None and family in (0, kind):
                rest = (0, 0) if kind == socket.AF_INET6 else ()
                found.append((kind, type or socket.SOCK_STREAM, proto, "", (address, port, *rest)))
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, f"no such name: {host!r}")
        return found

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Do nothing: there is no executor."""


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*_args: object, **_kwargs: object) -> NoReturn:
        raise MisuseError(f"{name}: a virtual-time loop has no real sockets or processes")

    refuse.__name__ = name
    return refuse


_REFUSED = """
    add_reader add_writer remove_reader remove_writer sock_accept sock_connect sock_recv
    sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendto sock_sendfile
    create_connection create_server create_datagram_endpoint create_unix_connection
    create_unix_server connect_accepted_socket connect_read_pipe connect_write_pipe
    subprocess_exec subprocess_shell add_signal_handler remove_signal_handler getnameinfo
"""
for _name in _REFUSED.split():
    setattr(VirtualLoop, _name, _refusal(_name))


def _family_of(address: str) -> int | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address)
        except (OSError, ValueError):
            continue
        return family
    return None


def _run_inline(future: asyncio.Future[_T], func: Callable[..., _T], args: tuple[Any, ...]) -> None:
    if future.cancelled():
        return
    try:
        result = func(*args)
    except Exception as error:  # whatever it is, it belongs to whoever awaits the result
        if isinstance(error, StopIteration):
            error = RuntimeError("the function raised StopIteration")
        future.set_exception(error)
    else:
        future.set_result(result)


def _record_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, VirtualLoop)
    error = context.get("exception")
    source = context.get("task") or context.get("future")
    text = str(context.get("message"))
    if isinstance(source, asyncio.Task):
        text += f" in task {source.get_name()!r}"
    if error is not None:
        text += f": {error!r}"
    if text not in loop.failures and len(loop.failures) < MAX_FAILURES:
        loop.failures.append(text)


# --- run -------------------------------------------------------------------------------------


def run(
    main: Coroutine[Any, Any, _T] | Callable[[VirtualLoop], Coroutine[Any, Any, _T]],
    *,
    seed: int = 0,
    limit: float = 3600.0,
    start: float = 0.0,
    grace: float = DEFAULT_GRACE,
    check_leaks: bool = True,
) -> _T:
    """
    Run a program in virtual time and prove that it left nothing behind.

    Args:
        main: a coroutine, or a function that makes one from the loop.
        seed: for ``loop.random``.
        limit: virtual seconds after which the program is taken for stuck.
        start: first instant, virtual seconds.
        grace: real seconds to wait for a thread before a deadlock is declared.
        check_leaks: off for programs that mean to leave something behind.

    Returns:
        What the coroutine returned.

    Raises:
        Deadlock, Livelock, TimeLimitReached: the program cannot end; tasks are named.
        Leak: it ended, and left something; everything found is listed.
        Exception: whatever the coroutine raised, with a note that gives the seed.
    """
    loop = VirtualLoop(seed=seed, start=start, grace=grace)
    loop.limit_time(limit)
    coroutine = main(loop) if callable(main) else main
    try:
        result = loop.run_until_complete(loop.create_task(coroutine, name="main"))
        if check_leaks:
            _settle(loop)
            if leaks := find_leaks(loop):
                raise Leak("left behind: " + "; ".join(leaks))
    except BaseException as error:
        error.add_note(f"virtual time {loop.time():g} s, seed {seed}")
        if not isinstance(error, Leak):
            for failure in loop.failures:
                error.add_note(f"also: {failure}")
        raise
    finally:
        _cancel_all(loop)
        loop.close()
    return result


def find_leaks(loop: VirtualLoop) -> list[str]:
    """
    Return what is left on a loop whose program has ended, one line each.

    Tasks that are not done, timers and callbacks that are still to run, what the
    loop's ``leak_checks`` find, and errors that nobody looked at.
    """
    found = [f"task {describe_task(task)}" for task in ordered_tasks(loop)]
    found += [f"timer {timer!r}" for timer in loop.pending_timers()]
    found += [f"callback {handle!r}" for handle in loop.pending_callbacks()]
    for check in loop.leak_checks:
        found += check()
    # The younger generations hold nearly everything a short program made, at a tenth of the cost.
    gc.collect(1)
    return found + loop.failures


def _settle(loop: VirtualLoop) -> None:
    """Let callbacks that are due at this instant run, such as those of cancelled tasks."""
    loop.run_until_complete(loop.shutdown_asyncgens())
    for _ in range(_MAX_SETTLE_STEPS):
        if not loop._ready:
            return
        loop.stop()
        loop.run_forever()


def _cancel_all(loop: VirtualLoop) -> None:
    """Cancel what still runs; tasks that are not done a virtual minute later are given up."""
    tasks = ordered_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.limit_time(_CLEANUP_TIME)
    try:
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
    except SimulationError:
        pass
