"""Operating systems that fail: after N calls, when a disk is full, by half."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bittern.storage.base import Buffer
from bittern.storage.system import OsCalls


class FailingCalls(OsCalls):
    """
    Fails the N-th call, once or from then on.

    ``names`` restricts which calls count; None for all but ``close``, whose failure leaves
    nothing open either. Syncs are counted but not carried out: they cost time and prove nothing.
    """

    def __init__(self, *, portable: bool | None = None, names: set[str] | None = None) -> None:
        super().__init__(portable=portable)
        self.fsync = self.fdatasync = lambda _: None
        self.num_calls = 0
        self.fail_at: int | None = None
        self.keeps_failing = False
        self.error_number = errno.EIO
        self.log: list[str] = []
        for name, function in list(vars(self).items()):
            if callable(function) and (name in names if names else name != "close"):
                setattr(self, name, self._counted(name, function))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            number = self.num_calls
            self.num_calls += 1
            self.log.append(name)
            if self.fail_at is not None and (
                number == self.fail_at or (self.keeps_failing and number > self.fail_at)
            ):
                raise OSError(self.error_number, os.strerror(self.error_number))
            return function(*args, **options)

        return call

    def arm(self, number: int, error_number: int, *, keeps_failing: bool = False) -> None:
        """Fail the call ``number`` counted from now."""
        self.fail_at = self.num_calls + number
        self.error_number = error_number
        self.keeps_failing = keeps_failing

    def disarm(self) -> None:
        """Let everything succeed again."""
        self.fail_at = None


class ShortCalls(OsCalls):
    """Reads and writes at most ``most`` bytes a call, as a system may."""

    def __init__(self, most: int, *, portable: bool | None = None) -> None:
        super().__init__(portable=portable)
        preadv, pwritev = self.preadv, self.pwritev

        def cut(buffers: Sequence[Buffer]) -> list[memoryview]:
            taken, room = [], most
            for buffer in buffers:
                if not room:
                    break
                taken.append(memoryview(buffer)[:room])
                room -= len(taken[-1])
            return taken

        self.preadv = lambda fd, buffers, *rest: preadv(fd, cut(buffers), *rest)
        self.pwritev = lambda fd, buffers, offset: pwritev(fd, cut(buffers), offset)


class FullCalls(OsCalls):
    """A volume with ``room`` bytes left, which writing uses up, also by half a write."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        real = self.pwritev

        def pwritev(fd: int, buffers: Sequence[Buffer], offset: int) -> int:
            data = b"".join(buffers)[: self.room]
            if not data:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = real(fd, [data], offset)
            self.room -= written
            return written

        self.pwritev = pwritev


class NowaitCalls(OsCalls):
    """A file system that refuses to read without waiting, with this error."""

    def __init__(self, error_number: int) -> None:
        super().__init__()
        real = self.preadv
        self.nowait_flag = 1
        self.num_refused = 0

        def preadv(fd: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
            if flags:
                self.num_refused += 1
                raise OSError(error_number, os.strerror(error_number))
            return real(fd, buffers, offset)

        self.preadv = preadv


class ColdCalls(NowaitCalls):
    """One that never has anything in its cache."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN)


class UnknowingCalls(NowaitCalls):
    """One that cannot tell what is in its cache, as tmpfs."""

    def __init__(self, error_number: int = errno.EOPNOTSUPP) -> None:
        super().__init__(error_number)


def open_descriptors() -> set[str]:
    """The descriptors of this process that stand for files and folders."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("/"):
            found.add(f"{link.name} {target}")
    return found
