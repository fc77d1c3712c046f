"""
Threads for what must not happen on the event loop: the only ones of storage.

A job is a callable; its outcome goes to a callback that is called in the
worker's thread, and its maker takes care to get back to his own. Jobs of one
*lane* run one after the other in the order they came, so that a sync follows
the writes before it; everything else runs as threads are free.

The queue never refuses: whoever submits counts what waits (``engine.store.disk``).
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from bittern.core.errors import StorageError
from bittern.storage.system import num_processors

_log = logging.getLogger(__name__)

T = TypeVar("T")
Done = Callable[[T | None, BaseException | None], None]
"""Takes a result, or None and an error."""


class _Job(NamedTuple):
    run: Callable[[], Any]
    done: Done[Any]
    lane: Hashable


class Worker:
    """
    A few threads and their queue; safe to use from any thread.

    Args:
        num_threads: at most; they start when there is work.
    """

    def __init__(self, num_threads: int = 2) -> None:
        self.is_parallel: bool = num_processors() > 1
        """True when a thread has a processor of its own beside the submitter's."""
        self._max_threads = max(num_threads, 1)
        self._changed = threading.Condition()
        self._ready: deque[_Job] = deque()
        self._lanes: dict[Hashable, deque[_Job]] = {}
        """Per busy lane, the jobs behind the one that runs or is ready."""
        self._threads: list[threading.Thread] = []
        self._num_idle = 0
        self._num_jobs = 0
        """Those that wait or run."""
        self._is_closed = False

    def submit(self, job: Callable[[], T], done: Done[T], *, lane: Hashable = None) -> None:
        """
        Run ``job`` in a thread, then ``done`` with its outcome in the same thread.

        Args:
            job: whatever it raises goes to ``done``.
            done: called exactly once; must not raise. After ``close``, and while the system
                starts no thread at all, it is called at once, in the caller's thread, with a
                StorageError.
            lane: jobs of one lane run in order, one at a time; None for any order.
        """
        entry = _Job(job, done, lane)
        refusal = None
        with self._changed:
            if self._is_closed:
                refusal = StorageError("storage is closed")
            else:
                self._num_jobs += 1
                self._enqueue(entry)
                if not self._threads:
                    self._withdraw(entry)
                    refusal = StorageError("the system starts no more threads", errno=errno.EAGAIN)
        if refusal is not None:
            _finish(entry, None, refusal)

    def _enqueue(self, entry: _Job) -> None:
        if entry.lane is not None:
            if entry.lane in self._lanes:
                self._lanes[entry.lane].append(entry)
                return
            self._lanes[entry.lane] = deque()
        self._make_ready(entry)

    def _withdraw(self, entry: _Job) -> None:
        """Undo ``_enqueue`` of the only job there is."""
        self._ready.clear()
        self._lanes.pop(entry.lane, None)
        self._num_jobs -= 1

    def _make_ready(self, entry: _Job) -> None:
        self._ready.append(entry)
        is_short = self._num_idle < len(self._ready) and len(self._threads) < self._max_threads
        if not (is_short and self._start_thread()):
            self._changed.notify()

    def _start_thread(self) -> bool:
        # Daemons: a thread that hangs in a dead network file system must not keep us alive.
        thread = threading.Thread(
            target=self._serve, name=f"bittern-storage-{len(self._threads)}", daemon=True
        )
        if not start_threads([thread]):
            return False
        self._threads.append(thread)
        return True

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

    def close_soon(self, done: Callable[[bool], None], timeout: float = 5.0) -> None:
        """
        Close in a thread of its own; in the caller's, who then waits, where none can be started.

        Args:
            done: called with the answer of ``close``, in that thread; must not raise.
            timeout: as for ``close``.
        """

        def work() -> None:
            done(self.close(timeout))

        thread = threading.Thread(target=work, name="bittern-storage-end", daemon=True)
        if not start_threads([thread]):
            work()


def _finish(entry: _Job, result: object, failure: BaseException | None) -> None:
    try:
        entry.done(result, failure)
    except Exception:
        # A bug of the submitter's, most likely a loop that is closed; the thread goes on.
        _log.exception("the callback of a storage job failed")


def start_threads(threads: Sequence[threading.Thread]) -> list[threading.Thread]:
    """
    Start threads in order, as many as the system allows, and return those.

    It refuses where a user, a container or the memory has a limit (``ulimit -u``, ``ulimit -v``).
    """
    started: list[threading.Thread] = []
    for thread in threads:
        try:
            thread.start()
        except RuntimeError:
            break
        started.append(thread)
    return started


def run_aside(job: Callable[[], T]) -> Future[T]:
    """
    Run ``job`` in a thread of its own; in the caller's, who then waits, where none can be started.

    Whoever gives up waiting leaves the thread behind, which ends with the program at the latest.
    """
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()

    def work() -> None:
        try:
            result.set_result(job())
        except BaseException as error:
            result.set_exception(error)

    if not start_threads([threading.Thread(target=work, name="bittern-aside", daemon=True)]):
        work()
    return result


def run_in_threads(job: Callable[[], None], num_threads: int) -> None:
    """
    Run ``job`` in several threads at once, this one among them, and wait for all.

    In fewer than ``num_threads``, where the system starts no more.

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

    threads = start_threads(
        [
            threading.Thread(target=run, name=f"bittern-hash-{number}", daemon=True)
            for number in range(1, num_threads)
        ]
    )
    run()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
