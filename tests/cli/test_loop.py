from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from bittern.cli import loop as loop_module
from bittern.cli.exits import ExitCode
from bittern.cli.loop import (
    StopSignal,
    before_end,
    cancel,
    end_at_once,
    loop_factory,
    run_loop,
)


def signal_self(number: int) -> None:
    signal.raise_signal(number)


@pytest.mark.parametrize(
    ("number", "unfinished", "code"),
    [
        (signal.SIGINT, True, 130),
        (signal.SIGINT, False, 130),
        (signal.SIGTERM, True, 7),
        (signal.SIGTERM, False, 0),
        pytest.param(
            *(getattr(signal, "SIGHUP", 0), True, 7),
            marks=pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP"),
        ),
    ],
)
@pytest.mark.usefixtures("hangups")
def test_the_first_signal_asks_to_stop(number: int, unfinished: bool, code: int) -> None:
    async def work(stop: StopSignal) -> int:
        signal_self(number)
        await stop.wait()
        assert stop.is_set()
        return stop.exit_code(unfinished=unfinished)

    assert run_loop(work) == code


def test_without_a_signal_work_gives_the_code_and_signals_are_as_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async def work(stop: StopSignal) -> int:
        assert not stop.is_set()
        return ExitCode.MISMATCH

    assert run_loop(work) == 6
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_the_second_signal_ends_at_once() -> None:
    ended: list[int] = []
    stop = StopSignal(hard_exit=ended.append)
    stop.receive(signal.SIGINT)
    assert ended == []
    stop.receive(signal.SIGTERM)
    assert ended == [ExitCode.INTERRUPTED]
    stop.close()
    stop.close()


async def test_a_stop_that_hangs_is_ended() -> None:
    ended = threading.Event()
    codes: list[int] = []

    def hard_exit(code: int) -> None:
        codes.append(code)
        ended.set()

    stop = StopSignal(hard_exit=hard_exit, timeout=0.01)
    stop.receive(signal.SIGTERM)
    assert await asyncio.to_thread(ended.wait, 5)
    assert codes == [ExitCode.UNFINISHED]


async def test_a_clean_stop_disarms_the_hard_end() -> None:
    codes: list[int] = []
    stop = StopSignal(hard_exit=codes.append, timeout=60)
    stop.receive(signal.SIGTERM)
    timer = stop._timer
    assert timer is not None
    stop.close()
    await asyncio.to_thread(timer.join, 5)
    assert not timer.is_alive()
    assert codes == []


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    codes: list[int] = []

    async def work(stop: StopSignal) -> int:
        return 3

    thread = threading.Thread(target=lambda: codes.append(run_loop(work)))
    thread.start()
    thread.join()
    assert codes == [3]


class _NoSignalLoop(asyncio.SelectorEventLoop):
    """An event loop as on Windows."""

    def add_signal_handler(self, sig: int, callback: object, *args: object) -> None:
        raise NotImplementedError

    def remove_signal_handler(self, sig: int) -> bool:
        raise NotImplementedError


def test_a_loop_without_signal_handlers_is_stopped_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop_module, "loop_factory", lambda **_: _NoSignalLoop)

    async def work(stop: StopSignal) -> int:
        signal_self(signal.SIGTERM)
        await stop.wait()
        return stop.exit_code(unfinished=True)

    assert run_loop(work) == 7
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="nothing kills a thread alone")
def test_a_signal_that_ends_no_wait_wakes_such_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where signals come in a thread of their own."""
    monkeypatch.setattr(loop_module, "loop_factory", lambda **_: _NoSignalLoop)

    def kill() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    async def work(stop: StopSignal) -> int:
        thread = threading.Timer(0.05, kill)  # the loop waits by then
        thread.start()
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        timer = loop.call_later(5, lambda: None)  # what wakes the loop if the signal does not
        await stop.wait()
        timer.cancel()
        thread.join()
        assert loop.time() - started_at < 4
        return 9

    assert run_loop(work) == 9
    assert signal.set_wakeup_fd(-1) == -1


def test_windows_has_two_loops_and_gets_the_one_that_suits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    monkeypatch.setattr(sys, "platform", "win32")
    assert loop_factory() is asyncio.SelectorEventLoop
    assert loop_factory(for_processes=True) is None


def test_asyncio_serves_where_uvloop_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_factory() is None

    async def work(stop: StopSignal) -> int:
        return type(asyncio.get_running_loop()).__module__.startswith("asyncio")

    assert run_loop(work) == 1


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Closed(io.StringIO):
    def isatty(self) -> bool:
        raise ValueError("closed")


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [(_Terminal, _Terminal), (io.StringIO, _Terminal), (_Closed, _Terminal)],
)
def test_the_hard_end_shows_the_cursor_on_one_terminal(
    monkeypatch: pytest.MonkeyPatch,
    stdout: Callable[[], io.StringIO],
    stderr: Callable[[], io.StringIO],
) -> None:
    out, err = stdout(), stderr()
    codes: list[int] = []
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(os, "_exit", codes.append)
    end_at_once(130)
    assert codes == [130]
    assert out.getvalue() + err.getvalue() == "\x1b[?25h\n"


async def test_what_is_cancelled_is_waited_for() -> None:
    async def linger() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    async def fail() -> None:
        raise OSError("not told")

    ended: list[int] = []
    tasks = [asyncio.ensure_future(each) for each in (linger(), linger(), fail())]
    await asyncio.sleep(0)
    await cancel(*tasks)
    assert ended == [1, 1]
    assert all(task.done() for task in tasks)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP")
def test_a_terminal_that_is_closed_does_not_end_what_nohup_started() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        async def work(stop: StopSignal) -> int:
            signal_self(signal.SIGHUP)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.1)
            return ExitCode.DONE

        assert run_loop(work) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP")
@pytest.mark.parametrize(
    ("is_ignored", "was_closed", "code"), [(False, False, 0), (False, True, 7), (True, True, 0)]
)
def test_a_hangup_may_mean_something_else_unless_the_terminal_was_closed(
    monkeypatch: pytest.MonkeyPatch, is_ignored: bool, was_closed: bool, code: int
) -> None:
    terminals = [True]
    monkeypatch.setattr(loop_module, "has_terminal", lambda: terminals[-1])
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    try:

        async def work(stop: StopSignal) -> int:
            terminals.append(not was_closed)
            signal_self(signal.SIGHUP)
            async with asyncio.timeout(10):
                while not (heard or stop.is_set()):  # noqa: ASYNC110  # either will do
                    await asyncio.sleep(0)
            return stop.exit_code(unfinished=stop.is_set())

        assert run_loop(work, on_hangup=lambda: heard.append(1)) == code
        assert heard == [1] * (code == 0)
        assert signal.getsignal(signal.SIGHUP) is (signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_whether_there_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    begin = os.open

    def open_another(path: str, flags: int) -> int:
        opened.append(path)
        return begin(os.devnull, flags)

    monkeypatch.setattr(os, "open", open_another)
    assert loop_module.has_terminal()
    assert opened == ["/dev/tty"]

    def refuse(path: str, flags: int) -> int:
        raise OSError(6, "No such device or address")

    monkeypatch.setattr(os, "open", refuse)
    assert not loop_module.has_terminal()


async def test_a_hangup_that_comes_to_the_loop_itself_is_heard() -> None:
    heard: list[int] = []
    stop = StopSignal(on_hangup=lambda: heard.append(1), outlives_terminal=True)
    stop.receive(getattr(signal, "SIGHUP", -1))
    assert heard == [1] * hasattr(signal, "SIGHUP")
    stop.close()


@pytest.mark.parametrize("debug", ["", "1"])
def test_what_the_library_logs_is_a_complaint_of_one_line(
    debug: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITTERN_DEBUG", debug)
    log = logging.getLogger("bittern.engine.session")

    async def work(_: StopSignal) -> int:
        log.info("nothing to speak of")
        log.warning("resume data: %s", "no room\x1b[2J")
        try:
            raise KeyError("k")
        except KeyError:
            log.exception("task %r failed", "rest")
        return 0

    assert run_loop(work) == 0
    log.warning("nobody listens any more")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "bittern: warning: resume data: no room\\x1b[2J"
    assert lines[-1] == "bittern: warning: task 'rest' failed: internal error: KeyError: 'k'"
    assert any(line.startswith("Traceback") for line in lines) is bool(debug)
    assert len(lines) == 2 or debug


async def test_what_a_signal_or_the_time_ends_is_cancelled() -> None:
    ended: list[str] = []

    async def work(name: str, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.append(name)
        return name

    stop = StopSignal()
    assert await before_end(work("done", 0), stop, None) == "done"
    assert await before_end(work("late", 60), stop, 0.001) is None
    stop.receive(signal.SIGINT)
    assert await before_end(work("stopped", 60), stop, None) is None
    stop.close()
    assert ended == ["done", "late", "stopped"]


def _refuse_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_uvloop_is_left_out_where_its_library_would_end_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It aborts when it cannot start its threads."""
    pytest.importorskip("uvloop")
    monkeypatch.delenv("UV_THREADPOOL_SIZE", raising=False)
    factory = loop_factory()
    assert factory is not None
    assert os.environ["UV_THREADPOOL_SIZE"] == "1"
    start, num_left = threading.Thread.start, 1

    def start_one(thread: threading.Thread) -> None:
        nonlocal num_left
        if not num_left:
            _refuse_thread(thread)
        num_left -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    assert loop_factory() is None, "one is for us"
    assert loop_factory() is None


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_uvloop_has_its_thread_before_we_could_take_the_last_one() -> None:
    """Who may start two threads and started the second itself was ended."""
    pytest.importorskip("uvloop")
    code = """if True:
        import os, time
        from bittern.cli.loop import loop_factory
        make = loop_factory()
        while len(os.listdir("/proc/self/task")) > 1:
            time.sleep(0.001)  # those that were tried are about to end
        loop = make()
        print(len(os.listdir("/proc/self/task")))
        loop.close()
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
    assert ended.stdout == b"2\n"


def test_signals_stop_a_program_that_gets_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", _refuse_thread)

    async def work(stop: StopSignal) -> int:
        signal_self(signal.SIGTERM)
        await stop.wait()
        return stop.exit_code(unfinished=True)

    assert run_loop(work) == 7
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    end_at_once(130)
    assert ended == [130]
