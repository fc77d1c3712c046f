"""
A foreign program as a child process that never outlives the test.

Each child leads a process group of its own. The whole group is killed when the child is stopped,
when the interpreter exits, and (on Linux, through setpriv) when the interpreter is killed.
Waiting is always for a real condition with a deadline, never for a length of time.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.interop.place import Place

_T = TypeVar("_T")

# How long a program may take to leave after a polite signal before its group is killed.
STOP_TIMEOUT = 10.0

# Limit: one line of JSON from our own small programs is far below this.
_LINE_LIMIT = 1 << 20

_POLL_INTERVAL = 0.05

_running: set[int] = set()


class InteropError(Exception):
    """A foreign program did not do what the test asked of it; the text says which and how."""


@atexit.register
def _kill_all() -> None:
    for group in list(_running):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


class Program:
    """
    One running child process with its output kept.

    Make it with ``start``; ``stop`` may be called any number of times.
    """

    def __init__(self, process: asyncio.subprocess.Process, title: str, log: Path) -> None:
        self._process = process
        self._title = title
        self._log = log
        self._lines: list[str] = []
        self._news = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls,
        argv: list[str],
        *,
        place: Place,
        log: Path,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Program:
        """
        Start a program.

        Args:
            argv: the program and its arguments.
            place: where on the network it runs.
            log: the file that gets its standard output and error, each line with its time.
            cwd: its working directory; ours when None.
            environment: variables added to ours.

        Returns:
            The running program; the caller must ``stop`` it.
        """
        command = place.command(argv)
        if guard := shutil.which("setpriv"):
            command = [guard, "--pdeathsig", "KILL", "--", *command]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            limit=_LINE_LIMIT,
        )
        _running.add(process.pid)
        return cls(process, Path(argv[0]).name, log)

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return self._process.returncode

    @property
    def pid(self) -> int:
        """Its process id, and that of the group it leads."""
        return self._process.pid

    @property
    def lines(self) -> Sequence[str]:
        """Everything it has printed so far."""
        return self._lines

    def tail(self, num_lines: int = 15) -> str:
        """Return the last lines of output, for an error message."""
        return "\n".join(line[:500] for line in self._lines[-num_lines:])

    async def wait_line(self, is_wanted: Callable[[str], bool], *, timeout: float) -> str:
        """
        Wait for a line of output.

        Returns:
            The first line, of those printed so far or later, that ``is_wanted`` accepts.

        Raises:
            InteropError: the program ended without it, or the time is over.
        """
        seen = 0
        deadline = time.monotonic() + timeout
        while True:
            self._news.clear()
            for line in self._lines[seen:]:
                if is_wanted(line):
                    return line
            seen = len(self._lines)
            if self._reader.done():
                raise self.failure("ended before it said what the test waits for")
            try:
                await asyncio.wait_for(self._news.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise self.failure(
                    f"did not say what the test waits for in {timeout:g} s"
                ) from None

    async def wait_exit(self, *, timeout: float, expected: int = 0) -> None:
        """
        Wait until the program ends by itself.

        Raises:
            InteropError: it did not in time, or with another exit code than ``expected``.
        """
        try:
            code = await asyncio.wait_for(self._process.wait(), timeout)
            await asyncio.wait_for(self._reader, STOP_TIMEOUT)
        except TimeoutError:
            raise self.failure(f"still runs after {timeout:g} s") from None
        if code != expected:
            raise self.failure(f"exit code {code}")

    async def poll(
        self, ask: Callable[[], Awaitable[_T | None]], *, what: str, timeout: float
    ) -> _T:
        """
        Ask again and again until there is an answer.

        Args:
            ask: returns None when it is too early; OSError also counts as too early, since a
                program that starts refuses connections at first.
            what: the condition, for the error message.
            timeout: seconds.

        Raises:
            InteropError: the program ended, or the time is over.
        """
        deadline = time.monotonic() + timeout
        trouble = ""
        while time.monotonic() < deadline:
            if self.exit_code is not None:
                raise await self._early_end(f"while waiting: {what}")
            try:
                answer = await ask()
            except OSError as error:
                trouble = f" ({error})"
            else:
                trouble = ""
                if answer is not None:
                    return answer
            await asyncio.sleep(_POLL_INTERVAL)
        raise self.failure(f"not in {timeout:g} s: {what}{trouble}")

    async def guard(self, work: Coroutine[Any, Any, _T]) -> _T:
        """
        Await something that needs this program alive.

        Returns:
            What ``work`` returns.

        Raises:
            InteropError: the program ended before ``work`` did; ``work`` is cancelled.
        """
        task = asyncio.create_task(work)
        death = asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait({task, death}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise await self._early_end("too early")
        finally:
            for child in (task, death):
                child.cancel()
            await asyncio.gather(task, death, return_exceptions=True)

    async def _early_end(self, when: str) -> InteropError:
        """Return the error for a program that has ended, with its last words."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._reader), STOP_TIMEOUT)
        return self.failure(f"exit code {self.exit_code} {when}")

    def failure(self, reason: str) -> InteropError:
        """Return an error that names the program and quotes the end of its output."""
        return InteropError(f"{self._title}: {reason}\n{self.tail()}".rstrip())

    async def stop(self) -> None:
        """
        End the program and everything it started: politely first, then by force.

        The output is complete and every file of the program closed when this returns.
        """
        process = self._process
        try:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
        finally:
            # The group may hold grandchildren after its leader has gone.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            _running.discard(process.pid)
        await process.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._reader, STOP_TIMEOUT)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        started_at = time.monotonic()
        with self._log.open("a", encoding="utf-8") as log:
            while raw := await self._process.stdout.readline():
                line = raw.decode("utf-8", "replace").rstrip("\n")
                log.write(f"{time.monotonic() - started_at:8.3f} {line}\n")
                log.flush()
                self._lines.append(line)
                self._news.set()
        self._news.set()
