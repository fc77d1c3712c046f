"""
The hashers of the threads that hash side by side.

Threads that hash blocks of 16 KiB lose a fifth of their time to each other: each
takes the interpreter lock once a block, and one that finds it taken falls asleep
and is woken 25 microseconds later. So where there is much to hash, every thread
but one has a process that does the work, and is itself asleep (``hashing_process``).
The remaining one hashes by itself. What a process cannot read, or what is so short
that asking takes longer, is hashed by the thread that would ask.

A process starts when its thread has the first run for it: it takes some 15 ms,
the processor of that thread being free meanwhile.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Final

from bittern.storage.base import Placed
from bittern.storage.hashing_process import HashingProcess, can_start_processes
from bittern.storage.run_hashing import RunHasher, run_length

if TYPE_CHECKING:
    from bittern.storage.run_hashing import Read

MIN_SHARE: Final = 128 << 20
"""Bytes that each thread has to hash before processes are worth their start."""

MIN_ASKED: Final = 256 << 10
"""Bytes of a run for which a process is asked: some 0.15 ms of hashing, a question takes 0.05."""

ASKED_LENGTH: Final = 4 << 20
"""
Bytes of the longest runs with processes, at least a piece: hashed in some 2.5 ms.

With twice as much the system no longer looks ahead in time for the next one, and reading from a
disk takes twice as long.
"""

MAX_FINE_LENGTH: Final = 32 << 10
"""Length of v1 pieces up to which threads get into each other's way."""

MAX_PROCESSES: Final = 15
"""Some 10 MB of memory each; more threads hash by themselves."""


class Lanes:
    """
    The hashers of one job.

    Args:
        piece_length: of the torrent.
        num_threads: each calls ``open`` once.
        length: bytes to be hashed in all.
        has_v2: SHA-256 of blocks is among what is wanted.
    """

    def __init__(self, piece_length: int, *, num_threads: int, length: int, has_v2: bool) -> None:
        self.piece_length: int = piece_length
        is_worth_it = (
            (has_v2 or piece_length <= MAX_FINE_LENGTH)
            and length >= MIN_SHARE * num_threads
            and can_start_processes()
        )
        self._num_left = min(num_threads - 1, MAX_PROCESSES) if is_worth_it else 0
        self.has_processes: bool = self._num_left > 0
        self.longest_run: int = run_length(piece_length, ASKED_LENGTH if self._num_left else 0)
        """Pieces of the runs that ``Lane.hash`` likes best, at least one."""
        self._lock = threading.Lock()
        self._processes: list[HashingProcess] = []
        self._is_over = False

    def open(self, read: Read, placed: object) -> Lane:
        """
        Return the hasher of one thread, a context manager.

        Args:
            read: fills a view from the piece space.
            placed: where the same bytes lie, if it is a ``Placed``.
        """
        has_process = False
        with self._lock:
            if self._num_left and isinstance(placed, Placed):
                self._num_left -= 1
                has_process = True
        return Lane(self, read, placed if has_process and isinstance(placed, Placed) else None)

    def start_process(self) -> HashingProcess | None:
        """Start a process for a lane; None when that cannot be, or need not be any more."""
        try:
            process = HashingProcess(self.piece_length)
        except OSError:
            return None
        with self._lock:
            self._processes.append(process)
            if self._is_over:
                process.kill()
        return process

    def finish(self) -> None:
        """
        Wait no longer for processes that have not answered once.

        For a thread that hashes by itself and finds that nothing is left to be done. What was
        started may be no interpreter at all.
        """
        with self._lock:
            self._is_over = True
            for process in self._processes:
                if not process.has_answered:
                    process.kill()


class Lane:
    """The hasher of one thread; made by ``Lanes.open``."""

    def __init__(self, lanes: Lanes, read: Read, placed: Placed | None) -> None:
        self._lanes = lanes
        self._read = read
        self._placed = placed
        self.asks: bool = placed is not None
        """True when a process may do the work."""
        self._process: HashingProcess | None = None
        self._hasher = RunHasher(lanes.piece_length)

    def hash(
        self, offset: int, *, v1_length: int, v2_length: int, level: int | None
    ) -> tuple[bytes, bytes]:
        """Hash a run of at most ``Lanes.longest_run`` pieces; see ``RunHasher.hash``."""
        found = None
        if self._placed is not None:
            found = self._ask(self._placed, offset, v1_length, v2_length, level)
        return found or self.hash_here(
            offset, v1_length=v1_length, v2_length=v2_length, level=level
        )

    def hash_here(
        self, offset: int, *, v1_length: int, v2_length: int, level: int | None
    ) -> tuple[bytes, bytes]:
        """Do the same in this thread, whatever the length."""
        return self._hasher.hash(
            self._read, offset, v1_length=v1_length, v2_length=v2_length, level=level
        )

    def _ask(
        self, placed: Placed, offset: int, v1_length: int, v2_length: int, level: int | None
    ) -> tuple[bytes, bytes] | None:
        # In a hybrid v1 counts the zeros behind a file too, which are nowhere.
        length = v2_length or v1_length
        place = placed.place_of(offset, length) if length >= MIN_ASKED else None
        if place is None:
            return None
        if self._process is None:
            self._process = self._lanes.start_process()
        if self._process is not None:
            found = self._process.hash(
                place, length, v1_length=v1_length, v2_length=v2_length, level=level
            )
            if found is not None or self._process.is_alive:
                return found
        self._placed = None
        return None

    def __enter__(self) -> Lane:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.close()
        if not self.asks:
            self._lanes.finish()
