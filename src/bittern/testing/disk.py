"""
Disks that fail, and one that repeats itself: for storage in real files below a test's own folder.

``FaultyCalls`` takes the place of ``storage.system.OsCalls`` and can fail the
N-th call, once or for good, run out of room and take its time.
``CachedCalls`` never says that a read would have to wait, which only the real
machine's page cache could tell: with it a simulation repeats itself.
``SimWorker`` takes the place of ``storage.worker.Worker`` and runs its jobs on
the loop in virtual time, so that a simulation has no threads. What a power
failure leaves of a disk is in ``bittern.testing.crash``.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bittern.core.errors import StorageError
from bittern.storage.base import Buffer
from bittern.storage.system import OsCalls
from bittern.storage.worker import Done, Worker
from bittern.testing.loop import VirtualLoop

_T = TypeVar("_T")


class CachedCalls(OsCalls):
    """An operating system that has every file in its page cache, as far as storage can tell."""

    def __init__(self) -> None:
        super().__init__()
        read = self.preadv
        self.preadv: Callable[..., int] = lambda fd, buffers, offset, _flags=0: read(
            fd, buffers, offset
        )
        self.nowait_flag: int = self.nowait_flag or 1  # without one, storage looks at the clock


@dataclass(frozen=True, slots=True)
class _Fault:
    first: int
    last: float
    error_number: int
    names: Collection[str] | None


class FaultyCalls(OsCalls):
    """
    An operating system that fails when told to; safe to use from several threads.

    Args:
        portable: as for ``OsCalls``.
        room: bytes that can still be written before the volume is full; None for no
            limit. Overwriting counts as well.

    Attributes:
        num_calls: calls so far, ``close`` left out: it cannot leave anything undone.
        log: their names.
        before_call: told the name of each before it happens; the place for a delay
            (``loop.block``), or for changing the disk behind the program's back.
    """

    def __init__(self, *, portable: bool | None = None, room: int | None = None) -> None:
        super().__init__(portable=portable)
        self.num_calls = 0
        self.log: list[str] = []
        self.room = room
        self.before_call: Callable[[str], object] | None = None
        self._faults: list[_Fault] = []
        self._counting = threading.Lock()
        self.pwritev: Callable[[int, Sequence[Buffer], int], int] = self._with_room(self.pwritev)
        self.allocate: Callable[[int, int, int], None] = self._allocate_in_room(self.allocate)
        for name, function in list(vars(self).items()):
            if callable(function) and name != "close":
                setattr(self, name, self._watched(name, function))

    def fail_call(
        self,
        number: int,
        error_number: int = errno.EIO,
        *,
        for_good: bool = False,
        names: Collection[str] | None = None,
    ) -> None:
        """
        Fail a call that is still to come.

        Args:
            number: 0 for the next call, 1 for the one after it, ...
            error_number: what the OSError says.
            for_good: fail all later ones as well, until ``heal``.
            names: fail it only if it has one of these names; the others count all the same.
        """
        first = self.num_calls + number
        last = float("inf") if for_good else first
        self._faults.append(_Fault(first, last, error_number, names))

    def heal(self) -> None:
        """Let everything succeed again; ``room`` stays as it is."""
        self._faults.clear()

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with self._counting:
                number = self.num_calls
                self.num_calls += 1
                self.log.append(name)
            if self.before_call is not None:
                self.before_call(name)
            for fault in self._faults:
                if fault.first <= number <= fault.last and name in (fault.names or (name,)):
                    raise OSError(fault.error_number, os.strerror(fault.error_number))
            return function(*args, **options)

        return call

    def _with_room(
        self, pwritev: Callable[[int, Sequence[Buffer], int], int]
    ) -> Callable[[int, Sequence[Buffer], int], int]:
        def write(fd: int, buffers: Sequence[Buffer], offset: int) -> int:
            if self.room is None:
                return pwritev(fd, buffers, offset)
            data = b"".join(buffers)[: self.room]
            if not data:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = pwritev(fd, [data], offset)
            self.room -= written
            return written

        return write

    def _allocate_in_room(
        self, allocate: Callable[[int, int, int], None]
    ) -> Callable[[int, int, int], None]:
        def reserve(fd: int, offset: int, length: int) -> None:
            if self.room is not None:
                if length > self.room:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self.room -= length
            allocate(fd, offset, length)

        return reserve


class SimWorker(Worker):
    """
    A storage worker without threads: its jobs run on the loop, in virtual time.

    Args:
        loop: runs the jobs.
        delay: virtual seconds each job takes; jobs of one lane wait for each other.
        is_parallel: what a worker with a processor of its own says, whatever this machine has.

    Waiting jobs are the program's: those left at its end are a leak.
    """

    def __init__(self, loop: VirtualLoop, *, delay: float = 0.0, is_parallel: bool = False) -> None:
        super().__init__(1)
        self.is_parallel = is_parallel
        self.delay = delay
        self._loop = loop
        self._busy_lanes: dict[Hashable, tuple[float, int]] = {}
        """Those that have jobs waiting: when the last is done, and how many they are."""
        self._waiting: dict[int, Callable[[], None]] = {}
        self._num_submitted = 0
        self._has_ended = False

    @property
    def backlog(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    def submit(self, job: Callable[[], _T], done: Done[_T], *, lane: Hashable = None) -> None:
        """Run ``job`` on the loop ``delay`` seconds after the one before it in its lane."""
        if self._has_ended:
            done(None, StorageError("storage is closed"))
            return
        start = self._loop.time()
        if lane is not None:
            busy_until, num_jobs = self._busy_lanes.get(lane, (start, 0))
            start = max(start, busy_until)
            self._busy_lanes[lane] = (start + self.delay, num_jobs + 1)
        number = self._num_submitted
        self._num_submitted += 1

        def work() -> None:
            self._leave(lane)
            _run_job(job, done)

        self._waiting[number] = work
        self._loop.call_at(start + self.delay, self._run, number)

    def _leave(self, lane: Hashable) -> None:
        """Count a job of a lane as begun; one without jobs is not kept, nor whom it was for."""
        if lane is not None:
            busy_until, num_jobs = self._busy_lanes.pop(lane)
            if num_jobs > 1:
                self._busy_lanes[lane] = (busy_until, num_jobs - 1)

    def _run(self, number: int) -> None:
        run_job = self._waiting.pop(number, None)
        if run_job is not None:
            run_job()

    def close(self, timeout: float = 5.0) -> bool:  # noqa: ARG002  # nothing here takes time
        """Run what waits, at once and in order, and take no more."""
        self._has_ended = True
        for number in list(self._waiting):
            self._run(number)
        return True

    def close_soon(self, done: Callable[[bool], None], timeout: float = 5.0) -> None:
        """Close at once: there are no threads."""
        done(self.close(timeout))


def _run_job(job: Callable[[], _T], done: Done[_T]) -> None:
    try:
        result = job()
    except Exception as error:  # whatever it is, it belongs to whoever submitted the job
        done(None, error)
    else:
        done(result, None)
