"""
Other runs of this program, started, listened to and stopped by the demo.

Each is a real process, ``python -m bittern ... --jsonl``, and speaks in JSON
lines on its stdout. Whatever happens to the demo, its actors are ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from bittern.cli.environment import PREFIX, variable_name
from bittern.cli.exits import CommandFailed, ExitCode

MAX_LINE_LENGTH = 1 << 20
_NEW_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
STOP_TIMEOUT = 6.0
"""Seconds an actor gets to stop by itself; it needs at most five."""


class Actor:
    """
    One process.

    Args:
        name: what it is called in complaints.
        process: already started.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.records: list[dict[str, Any]] = []
        """All that it has said so far, in order."""
        self._process = process
        self._has_ended = False
        self._spoke = asyncio.Event()
        # Both pipes are read all the time: a full one would stop the process.
        self._reader = asyncio.create_task(self._read())
        assert process.stderr is not None
        self._complaint = asyncio.create_task(process.stderr.read())

    @classmethod
    async def start(cls, name: str, *arguments: str, state_dir: Path) -> Actor:
        """Start ``bittern`` with these arguments, untouched by the user's own settings."""
        import bittern

        source = str(Path(bittern.__file__).parents[1])
        settings = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        settings |= {
            variable_name("state-dir"): str(state_dir),
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bittern",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=settings,
            limit=MAX_LINE_LENGTH,
            # A Ctrl-C is for the demo, which stops them in order; Windows knows groups only.
            start_new_session=True,
            creationflags=_NEW_GROUP,
        )
        return cls(name, process)

    async def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            while line := await stdout.readline():
                self.records.append(json.loads(line))
                self._spoke.set()
        finally:
            self._has_ended = True
            self._spoke.set()

    async def listen(self) -> AsyncIterator[dict[str, Any]]:
        """Yield all that it says, from its first word until it ends."""
        at = 0
        while True:
            while at < len(self.records):
                yield self.records[at]
                at += 1
            if self._has_ended:
                return
            self._spoke.clear()
            await self._spoke.wait()

    async def wait_for(
        self, is_wanted: Callable[[dict[str, Any]], bool], *, timeout: float
    ) -> dict[str, Any]:
        """
        Return the first line that is wanted.

        Raises:
            CommandFailed: it ended, or said nothing of the kind in time.
        """
        try:
            async with asyncio.timeout(timeout):
                async for record in self.listen():
                    if is_wanted(record):
                        return record
        except TimeoutError:
            raise CommandFailed(
                f"the {self.name} was silent for {timeout:g} seconds", ExitCode.UNFINISHED
            ) from None
        raise await self.failure()

    async def failure(self) -> CommandFailed:
        """Return the error for an actor that ended too early."""
        code = await self._process.wait()
        text = (await self._complaint).decode("utf-8", "replace").strip()
        last = text.rpartition("\n")[2] or "it said nothing"
        return CommandFailed(f"the {self.name} ended with code {code}: {last}")

    async def wait(self) -> int:
        """Return its exit code once it has ended."""
        return await self._process.wait()

    def _ask_to_stop(self) -> None:
        if sys.platform == "win32":
            # Its ``terminate`` ends a process without asking. Ctrl-Break asks, where there is a
            # console; os.kill says by a SystemError that there is none.
            with contextlib.suppress(OSError, SystemError):
                self._process.send_signal(signal.CTRL_BREAK_EVENT)
                return
        self._process.terminate()

    async def stop(self) -> int:
        """Ask it to stop, wait for that, and return its exit code; idempotent."""
        if self._process.returncode is None:
            try:
                self._ask_to_stop()
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT)
            except ProcessLookupError:
                pass
            except TimeoutError:
                self._process.kill()
        code = await self._process.wait()
        await asyncio.gather(self._reader, self._complaint, return_exceptions=True)
        return code
