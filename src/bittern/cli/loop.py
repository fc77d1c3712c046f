"""
The event loop of verbs that run for a while, and how they are stopped.

The first Ctrl-C or SIGTERM asks the verb to stop cleanly, and five seconds
later it is stopped whether it is ready or not; the second ends the program at
once. Both hard ends are safe, because resume data is written ahead. SIGHUP does
the same, unless ``nohup`` has it ignored, or a verb that serves takes it for the
wish to read its files again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, TypeVar

from bittern.cli.environment import variable
from bittern.cli.exits import ExitCode, describe
from bittern.cli.output import complain
from bittern.storage.worker import start_threads

T = TypeVar("T")

STOP_TIMEOUT = 5.0
"""Limit: F19. Seconds from the first signal to the hard end."""
_HANGUP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
CURSOR_TIMEOUT = 0.2
"""Seconds that a terminal has to show its cursor again; one that was stopped (Ctrl-S) does not."""


def loop_factory(*, for_processes: bool = False) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """
    Return the maker of uvloop's event loops where it is at hand, else of asyncio's.

    Args:
        for_processes: the loop starts other programs, and opens no socket of ours.

    Returns:
        None for asyncio's usual one. On Windows that one cannot watch sockets as ours are
        watched (``add_reader``), and the one that can starts no programs.
    """
    try:
        import uvloop
    except ImportError:
        is_usual = for_processes or sys.platform != "win32"
        return None if is_usual else asyncio.SelectorEventLoop

    def make() -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        # Its library's thread starts here and now: later we might have the last one ourselves.
        with contextlib.suppress(OSError):
            loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 0))
        return loop

    return make if _has_threads_for_libuv() else None


def _has_threads_for_libuv() -> bool:
    """
    Tell whether two threads can be started, and have uvloop's library want no more than one.

    It starts four with the first address that it is to look up, even if that is a number, and
    ends the program when there is none to be had (``ulimit -u``, a container's limit). No names
    are looked up there (``net.dns``). The other one is for us.
    """
    os.environ.setdefault("UV_THREADPOOL_SIZE", "1")
    end = threading.Event()
    started = start_threads([threading.Thread(target=end.wait, daemon=True) for _ in range(2)])
    end.set()
    for thread in started:
        thread.join()
    return len(started) == 2


class StopSignal:
    """
    Whether, and by what, the program was told to stop.

    Args:
        hard_exit: ends the process at once with an exit code.
        timeout: seconds a clean stop may take.
        on_hangup: called in the loop when SIGHUP comes, instead of a stop. A terminal that we
            have now and that has been closed by then stops us all the same.
        outlives_terminal: not even that stops us.
    """

    def __init__(
        self,
        *,
        hard_exit: Callable[[int], None] | None = None,
        timeout: float = STOP_TIMEOUT,
        on_hangup: Callable[[], None] | None = None,
        outlives_terminal: bool = False,
    ) -> None:
        self._event = asyncio.Event()
        self._hard_exit = hard_exit or end_at_once
        self._timeout = timeout
        self._timer: threading.Timer | None = None
        self._on_hangup = on_hangup
        self._ends_with_terminal = (
            on_hangup is not None and not outlives_terminal and has_terminal()
        )
        self.number: int | None = None

    def receive(
        self, number: int, soon: Callable[[Callable[[], None]], object] | None = None
    ) -> None:
        """
        Take a signal: the first asks to stop, any further one ends the process.

        Args:
            number: of the signal.
            soon: has something called by the loop, for who is not called by it himself.
        """
        was_closed = self._ends_with_terminal and not has_terminal()
        if number == _HANGUP and self._on_hangup is not None and not was_closed:
            if soon is None:
                self._on_hangup()
            else:
                soon(self._on_hangup)
            return
        if self.number is not None:
            self._hard_exit(self.exit_code(unfinished=True))
            return
        self.number = number
        if soon is None:
            self._event.set()
        else:
            soon(self._event.set)
        # A thread, because a loop that hangs is one of the reasons for it.
        self._timer = threading.Timer(
            self._timeout, self._hard_exit, (self.exit_code(unfinished=True),)
        )
        self._timer.daemon = True
        with contextlib.suppress(RuntimeError):  # too few threads: a second signal is left
            self._timer.start()

    def is_set(self) -> bool:
        """Tell whether a signal has come."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return once a signal has come."""
        await self._event.wait()

    def exit_code(self, *, unfinished: bool) -> ExitCode:
        """Return the code to leave with: Ctrl-C always shows, SIGTERM only on unfinished work."""
        if self.number == signal.SIGINT:
            return ExitCode.INTERRUPTED
        return ExitCode.UNFINISHED if unfinished else ExitCode.DONE

    def close(self) -> None:
        """Disarm the hard end; idempotent."""
        if self._timer is not None:
            self._timer.cancel()


def has_terminal() -> bool:
    """Tell whether there is a terminal whose end would be told us by SIGHUP."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True


def end_at_once(code: int) -> None:
    """End the process without any cleanup, but with a visible cursor."""
    # Whoever reads our output may have stopped, and whoever writes it waits for him, with a lock.
    thread = threading.Thread(target=_show_cursor, daemon=True)
    with contextlib.suppress(RuntimeError):  # the system starts no more
        thread.start()
        thread.join(CURSOR_TIMEOUT)
    os._exit(code)


def _show_cursor() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream.isatty():
                stream.write("\x1b[?25h\n")
                stream.flush()
                break
        except (OSError, ValueError):
            continue


class Complaints(logging.Handler):
    """
    Writes what the library logs as the program's own complaints: one line each, escaped (W11).

    An error that nobody expected is named; with ``BITTERN_DEBUG`` it comes with its traceback.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            text += f": {describe(error)}"
            if variable("debug"):
                traceback.print_exception(error)
        complain(f"warning: {text}")


@contextlib.contextmanager
def complaining() -> Iterator[None]:
    """Complain of what the library, or asyncio about it, logs meanwhile."""
    handler = Complaints()
    loggers = [logging.getLogger(name) for name in ("bittern", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def run_loop(
    work: Callable[[StopSignal], Coroutine[Any, Any, int]],
    *,
    for_processes: bool = False,
    on_hangup: Callable[[], None] | None = None,
) -> int:
    """
    Run ``work`` on a fresh event loop and return its exit code.

    Args:
        work: gets the stop signal and should end soon after it is set.
        for_processes: see ``loop_factory``.
        on_hangup: see ``StopSignal``; called under ``nohup`` too.
    """
    factory = loop_factory(for_processes=for_processes)
    with complaining(), asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_with_signals(work, on_hangup))


async def _with_signals(
    work: Callable[[StopSignal], Coroutine[Any, Any, int]], on_hangup: Callable[[], None] | None
) -> int:
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    is_ignored = False
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)  # Ctrl-Break, or the terminal was closed
    else:
        # The terminal was closed; nohup ignores that, and so that we go on without one.
        is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        if on_hangup is not None or not is_ignored:
            numbers.append(signal.SIGHUP)
    stop = StopSignal(on_hangup=on_hangup, outlives_terminal=is_ignored)
    with contextlib.ExitStack() as ends:
        ends.callback(stop.close)
        if threading.current_thread() is threading.main_thread():
            if is_ignored and _HANGUP is not None:
                ends.callback(signal.signal, _HANGUP, signal.SIG_IGN)
            _watch(loop, numbers, stop, ends)
        return await work(stop)


async def cancel(*futures: asyncio.Future[Any]) -> None:
    """Cancel and wait for the end of each, whatever it is."""
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)


async def before_end(work: Awaitable[T], stop: StopSignal, timeout: float | None) -> T | None:
    """Return the result of ``work``; None, and it is cancelled, if a signal or the time ends it."""
    job = asyncio.ensure_future(work)
    signal = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((job, signal), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return job.result() if job.done() else None
    finally:
        await cancel(job, signal)


def _watch(
    loop: asyncio.AbstractEventLoop,
    numbers: list[signal.Signals],
    stop: StopSignal,
    ends: contextlib.ExitStack,
) -> None:
    """Hand signals to ``stop`` until ``ends``."""

    def handle(got: int, _frame: FrameType | None) -> None:
        stop.receive(got, loop.call_soon_threadsafe)

    try:
        for number in numbers:
            loop.add_signal_handler(number, lambda: None)  # that signals wake the loop
            ends.callback(loop.remove_signal_handler, number)
    except NotImplementedError:  # Windows
        if isinstance(loop, asyncio.SelectorEventLoop):
            _let_signals_wake(loop, ends)
        for number in numbers:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            ends.callback(signal.signal, number, default)
    for number in numbers:
        # Limit: F19. The loop would call its handlers when it is done with what it is at, as with
        # writing to somebody who does not read.
        signal.signal(number, handle)


def _let_signals_wake(loop: asyncio.AbstractEventLoop, ends: contextlib.ExitStack) -> None:
    """Have signals wake a loop that waits for sockets: on Windows they end no wait."""
    reader, writer = (ends.enter_context(sock) for sock in socket.socketpair())
    reader.setblocking(False)
    writer.setblocking(False)
    loop.add_reader(reader, reader.recv, 4096)
    ends.callback(loop.remove_reader, reader)
    ends.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer.fileno()))
