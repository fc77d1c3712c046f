"""
Storage calls from the event loop: in place while the disk is quick, else in the worker.

Writes go to the page cache in place. When one has lately taken long, those of
that torrent are copied and handed to the worker for a while, and above a
high-water mark of waiting bytes the session stops reading from its peers.
Everything that surely takes long (syncs, cold reads, rechecks) goes to the
worker in any case.

Source: threats.md F16.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from bittern.core.errors import StorageError
from bittern.storage.base import Buffer, Storage
from bittern.storage.worker import Worker

log: logging.Logger = logging.getLogger(__name__)

SLOW_WRITE = 0.05
"""Seconds; a write in place that took longer counts as a sign of a slow disk."""
SLOW_PERIOD = 20.0
"""Seconds for which a slow disk is written through the worker."""

T = TypeVar("T")
Done = Callable[[T | None, BaseException | None], None]
"""Takes the result or the error of a job, on the event loop."""


def failure_of(error: BaseException) -> StorageError:
    """
    Return what went wrong as a failure of storage, which a torrent ends with and is retried from.

    Limit: F17. A bug of ours is told in the log, and stops the torrent rather than leaving it
    with a piece, or a check, that never ends.
    """
    if isinstance(error, StorageError):
        return error
    # Of a mapping that cannot be made it is the system who says so.
    is_short = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if is_short or isinstance(error, MemoryError):
        return StorageError("out of memory", errno=errno.ENOMEM)
    reason = f"a bug: {type(error).__name__}: {error}"
    log.error("%s", reason)
    log.debug("where it is", exc_info=error)
    return StorageError(reason)


class Disk:
    """
    One session's way to its storage.

    Args:
        worker: runs jobs in threads; one lane per torrent keeps their order.
        loop: where ``done`` callbacks run.
        max_queue: bytes waiting to be written above which ``is_congested``.
        congestion_changed: told when that changes.
        clock: real seconds for measuring a write.
    """

    def __init__(
        self,
        worker: Worker,
        loop: asyncio.AbstractEventLoop,
        *,
        max_queue: int,
        congestion_changed: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._worker = worker
        self._loop = loop
        self._max_queue = max_queue
        self._congestion_changed = congestion_changed
        self._clock = clock
        self._slow_until: dict[Storage, float] = {}
        self._queued = 0
        self._is_congested = False

    @property
    def is_congested(self) -> bool:
        """True while more waits to be written than should."""
        return self._is_congested

    @property
    def is_parallel(self) -> bool:
        """True when the worker can work while the loop does."""
        return self._worker.is_parallel

    @property
    def num_queued(self) -> int:
        """Bytes that wait to be written."""
        return self._queued

    def is_slow(self, storage: Storage) -> bool:
        """Tell whether a torrent's writes have lately taken long, so that the worker does them."""
        return self._loop.time() < self._slow_until.get(storage, float("-inf"))

    def write(
        self, storage: Storage, offset: int, buffers: Sequence[Buffer], done: Done[None]
    ) -> bool:
        """
        Write adjacent buffers.

        Returns:
            True when it is done; False when ``done`` will be called once it is.

        Raises:
            StorageError: a write in place failed.
        """
        if self._slow_until and storage in self._slow_until:
            if self._loop.time() < self._slow_until[storage] or self._queued:
                self._write_later(storage, offset, b"".join(buffers), done)
                return False
            del self._slow_until[storage]
        started_at = self._clock()
        storage.write(offset, buffers)
        if self._clock() - started_at > SLOW_WRITE:
            self._slow_until[storage] = self._loop.time() + SLOW_PERIOD
        return True

    def _write_later(self, storage: Storage, offset: int, data: bytes, done: Done[None]) -> None:
        self._queued += len(data)
        self._update_congestion()

        def finished(result: None, error: BaseException | None) -> None:
            self._queued -= len(data)
            self._update_congestion()
            done(result, error)

        self.submit(lambda: storage.write(offset, [data]), finished, lane=storage)

    def _update_congestion(self) -> None:
        # Half of the mark as the low-water mark, so that it does not flutter.
        mark = self._max_queue // 2 if self._is_congested else self._max_queue
        if (self._queued > mark) is not self._is_congested:
            self._is_congested = not self._is_congested
            self._congestion_changed(self._is_congested)

    def submit(self, job: Callable[[], T], done: Done[T], *, lane: object = None) -> None:
        """
        Run ``job`` in the worker and ``done`` with its outcome on the loop.

        Args:
            job: must not touch anything that belongs to the loop.
            done: called in any case while the loop runs.
            lane: jobs of one lane run one after the other, in order; None for any order.
        """

        def finished(result: T | None, error: BaseException | None) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(done, result, error)

        self._worker.submit(job, finished, lane=lane)

    async def run(self, job: Callable[[], T], *, lane: object = None) -> T:
        """Run ``job`` in the worker and wait for its result; a cancelled wait loses the result."""
        future: asyncio.Future[T] = self._loop.create_future()

        def done(result: T | None, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # T may itself be None

        self.submit(job, done, lane=lane)
        return await future

    async def close(self) -> None:
        """End the worker's threads, for which the loop goes on; see ``Worker.close``."""
        closed: asyncio.Future[None] = self._loop.create_future()

        def settle() -> None:
            if not closed.done():
                closed.set_result(None)

        def done(_has_done_all: bool) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(settle)

        # Not in the loop's executor: that takes another thread to be closed in its turn.
        self._worker.close_soon(done)
        await closed

    def forget(self, storage: Storage) -> None:
        """Drop what is remembered of a storage that is being closed."""
        self._slow_until.pop(storage, None)
