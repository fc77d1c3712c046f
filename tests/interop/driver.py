"""
Whoever runs another program: an object that is a context manager, so that the program is gone
when it ends, and what all drivers of foreign programs know of theirs.
"""

from __future__ import annotations

import abc
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tests.interop.place import Place
from tests.interop.process import Program
from tests.interop.samples import SETUP_HINT


def find_program(name: str, otherwise: str | None = None) -> str:
    """
    Return a program of the folder that ``BITTERN_INTEROP_PROGRAMS`` names, so that releases that
    are not installed can be met; where it has none, ``otherwise``, or the system's.
    """
    folder = os.environ.get("BITTERN_INTEROP_PROGRAMS")
    program = Path(folder).resolve() / name if folder else None
    return str(program) if program and program.is_file() else otherwise or name


class Runner:
    """Has one program at a time; to be used as an async context manager."""

    _program: Program | None = None

    @property
    def program(self) -> Program:
        """The program that was started."""
        assert self._program is not None, f"{type(self).__name__} was not started"
        return self._program

    async def stop(self) -> None:
        """End the program; may be repeated."""
        if self._program is not None:
            await self._program.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


class Driver(Runner, abc.ABC):
    """
    One run of one foreign program.

    Attributes:
        name: what it is called on the command line and in the matrix.
        executable: the program that must be installed.
    """

    name: ClassVar[str]
    executable: ClassVar[str]

    def __init__(self, place: Place, scratch: Path) -> None:
        """
        Prepare a run; nothing is started.

        Args:
            place: where the program runs and listens.
            scratch: an absent folder for its configuration, state and log.
        """
        self.place = place
        self.scratch = scratch.resolve()
        self.scratch.mkdir(parents=True)

    @classmethod
    def missing(cls) -> str | None:
        """Return why the program cannot be run on this machine, or None when it can."""
        if shutil.which(cls.executable):
            return None
        return f"{cls.executable} is not installed; {SETUP_HINT}"

    @classmethod
    @abc.abstractmethod
    def version(cls) -> str:
        """Return the version of the installed program; call only when it is not missing."""
