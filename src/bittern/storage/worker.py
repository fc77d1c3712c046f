"""
Threads for what must not happen on the event loop: the only ones of storage.

A job is a callable; its outcome goes to a callback that is called in the
worker's thread, and its maker takes care to get back to his own. Jobs of one
*lane* run one after the other in the order they came, so that a sync follows
the writes before it; everything else runs as threads are free.

The queue has a high and a low water mark and never refuses: whoever submits
looks at ``is_congested`` and pauses his sources (Limit: F16).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Final, NamedTuple, TypeVar

from bittern.core.errors import StorageError
from bittern.storage.system import num_processors

DEFAULT_HIGH_WATER: Final = 64 << 20
"""Limit: F16. Cost, mostly bytes, that waits before ``is_congested``; libtorrent's is 100 MiB."""

_log = logging.getLogger(__name__)

T = TypeVar("T")
Done = Callable[[T | None, BaseException | None], None]
"""Takes a result, or None and an error."""


class _Job(NamedTuple):
    run: Callable[[], Any]
    done: Done[Any]
    lane: Hashable
    cost: int


class Worker:
    """
    A few threads and their queue; safe to use from any thread.

    Args:
        num_threads: at most; they start when there is work.
        high_water: cost above which ``is_congested``.
        low_water: cost below which it no longer is; None for half of that.
        congestion_changed: told of either, from whichever thread caused it.
        name: prefix of the names of the threads.
    """

    def __init__(
        self,
        num_threads: int = 2,
        *,
        high_water: int = DEFAULT_HIGH_WATER,
        low_water: int | None = None,
        congestion_changed: Callable[[bool], None] = lambda _: None,
        name: str = "bittern-storage",
    ) -> None:
        self.is_parallel: bool = num_processors() > 1
        """True when a thread has a processor of its own beside the submitter's."""
        self._max_threads = max(num_threads, 1)
        self._high_water = high_water
        self._low_water = high_water // 2 if low_water is None else low_water
        self._congestion_changed = congestion_changed
        self._name = name
        self._changed = threading.Condition()
        self._ready: deque[_Job] = deque()
        self._lanes: dict[Hashable, deque[_Job]] = {}
        """Per busy lane, the jobs behind the one that runs or is ready."""
        self._threads: list[threading.Thread] = []
        self._num_idle = 0
        self._num_jobs = 0
        self._cost = 0
        self._is_congested = False
        self._is_closed = False

    @property
    def backlog(self) -> int:
        """Jobs that wait or run."""
        return self._num_jobs

    @property
    def is_congested(self) -> bool:
        """True from the high-water mark down to the low one."""
        return self._is_congested

    def submit(
        self, job: Callable[[], T], done: Done[T], *, lane: Hashable = None, cost: int = 0
    ) -> None:
        """
        Run ``job`` in a thread, then ``done`` with its outcome in the same thread.

        Args:
            job: whatever it raises goes to ``done``.
            done: called exactly once; must not raise. After ``close`` it is called at once,
                in the caller's thread, with a StorageError.
            lane: jobs of one lane run in order, one at a time; None for any order.
            cost: what the job counts for the water marks, usually bytes it holds.
        """
        entry = _Job(job, done, lane, cost)
        with self._changed:
            is_closed = self._is_closed
            if not is_closed:
                self._num_jobs += 1
                self._enqueue(entry)
        if is_closed:
            _finish(entry, None, StorageError("storage is closed"))
        elif cost:
            self._count(cost)

    def _enqueue(self, entry: _Job) -> None:
        if entry.lane is not None:
            if entry.lane in self._lanes:
                self._lanes[entry.lane].append(entry)
                return
            self._lanes[entry.lane] = deque()
        self._make_ready(entry)

    def _make_ready(self, entry: _Job) -> None:
        self._ready.append(entry)
        if self._num_idle >= len(self._ready) or len(self._threads) == self._max_threads:
            self._changed.notify()
            return
        # Daemons: a thread that hangs in a dead network file system must not keep us alive.
        thread = threading.Thread(
            target=self._serve, name=f"{self._name}-{len(self._threads)}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _count(self, cost: int) -> None:
        with self._changed:
            self._cost += cost
            mark = self._low_water if self._is_congested else self._high_water
            is_congested = self._cost > mark
            has_changed = is_congested is not self._is_congested
            self._is_congested = is_congested
        if has_changed:
            self._congestion_changed(is_congested)

    def _serve(self) -> None:
        while (entry := self._next()) is not None:
            result, failure = None, None
            try:
                result = entry.run()
            except BaseException as error:
                failure = error
            with self._changed:
                self._num_jobs -= 1
                if entry.lane is not None:
                    waiting = self._lanes[entry.lane]
                    if waiting:
                        self._make_ready(waiting.popleft())
                    else:
                        del self._lanes[entry.lane]
                if not self._num_jobs:
                    self._changed.notify_all()
            if entry.cost:
                self._count(-entry.cost)
            _finish(entry, result, failure)
            # Nothing of a job may live on while this thread waits for the next.
            del entry, result, failure

    def _next(self) -> _Job | None:
        with self._changed:
            self._num_idle += 1
            while not self._ready:
                if self._is_closed:
                    self._num_idle -= 1
                    return None
                self._changed.wait()
            self._num_idle -= 1
            return self._ready.popleft()

    def close(self, timeout: float = 5.0) -> bool:
        """
        Take no more jobs, and wait for those that were submitted.

        Args:
            timeout: seconds to wait at most (Limit: F19).

        Returns:
            True when all jobs were done. Otherwise those that had not begun are dropped,
            their ``done`` gets a StorageError; those that hang are left to themselves.

        Idempotent. Do not call it from a job.
        """
        end = time.monotonic() + timeout
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            while self._num_jobs and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            dropped = list(self._ready)
            for waiting in self._lanes.values():
                dropped += waiting
                waiting.clear()
            self._ready.clear()
            self._num_jobs -= len(dropped)
            threads = list(self._threads)
        for entry in dropped:
            _finish(entry, None, StorageError("storage was closed before this was done"))
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not dropped and not any(thread.is_alive() for thread in threads)


def _finish(entry: _Job, result: object, failure: BaseException | None) -> None:
    try:
        entry.done(result, failure)
    except Exception:
        # A bug of the submitter's, most likely a loop that is closed; the thread goes on.
        _log.exception("the callback of a storage job failed")


def run_in_threads(job: Callable[[], None], num_threads: int) -> None:
    """
    Run ``job`` in several threads at once, this one among them, and wait for all.

    Raises:
        BaseException: the first error that one of them ended with. The others are waited
            for; ``job`` should notice that it is not needed any more.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            job()
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=run, name=f"bittern-hash-{number}", daemon=True)
        for number in range(1, num_threads)
    ]
    for thread in threads:
        thread.start()
    run()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
