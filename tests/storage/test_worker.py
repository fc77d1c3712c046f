from __future__ import annotations

import logging
import os
import threading

import pytest

from bittern.core.errors import StorageError
from bittern.storage.worker import Worker, run_aside, run_in_threads

Outcome = tuple[object, BaseException | None]


class Outcomes:
    """Collects outcomes and lets the test wait for a number of them."""

    def __init__(self) -> None:
        self.seen: list[Outcome] = []
        self._changed = threading.Condition()

    def __call__(self, result: object, error: BaseException | None) -> None:
        with self._changed:
            self.seen.append((result, error))
            self._changed.notify_all()

    def wait(self, count: int) -> list[Outcome]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) >= count, 10)
            return self.seen


@pytest.mark.parametrize("num_threads", [1, 3])
def test_results_and_errors_come_back_once(num_threads: int) -> None:
    worker, outcomes = Worker(num_threads), Outcomes()
    failure = ValueError("no")

    def fail() -> None:
        raise failure

    for number in range(20):
        worker.submit(lambda number=number: number * 2, outcomes)  # type: ignore[misc]
    worker.submit(fail, outcomes)
    assert worker.close(10)
    assert sorted(result for result, error in outcomes.seen if isinstance(result, int)) == list(
        range(0, 40, 2)
    )
    assert [error for _, error in outcomes.seen if error] == [failure]
    assert len(outcomes.seen) == 21
    assert worker._num_jobs == 0


def test_one_lane_keeps_order_while_others_go_on() -> None:
    worker, outcomes = Worker(2), Outcomes()
    gate = threading.Event()
    order: list[str] = []
    worker.submit(lambda: order.append("a1" if gate.wait(10) else "late"), outcomes, lane="a")
    for name in ("a2", "a3"):
        worker.submit(lambda name=name: order.append(name), outcomes, lane="a")  # type: ignore[misc]
    worker.submit(lambda: order.append("b1"), outcomes, lane="b")
    worker.submit(lambda: order.append("free"), outcomes)
    outcomes.wait(2)
    assert order == ["b1", "free"]
    assert worker._num_jobs == 3
    gate.set()
    outcomes.wait(5)
    assert order[2:] == ["a1", "a2", "a3"]
    assert worker.close(10)


def test_a_lane_never_runs_twice_at_once() -> None:
    worker, outcomes = Worker(4), Outcomes()
    running: set[int] = set()
    clashes: list[int] = []

    def job(lane: int) -> None:
        if lane in running:
            clashes.append(lane)
        running.add(lane)
        running.discard(lane)

    for number in range(400):
        worker.submit(lambda lane=number % 3: job(lane), outcomes, lane=number % 3)  # type: ignore[misc]
    outcomes.wait(400)
    assert clashes == []
    assert worker.close(10)


def test_threads_start_with_the_work_and_no_more_than_allowed() -> None:
    before = threading.active_count()
    worker, outcomes = Worker(2), Outcomes()
    assert threading.active_count() == before
    gate = threading.Event()
    for _ in range(5):
        worker.submit(lambda: gate.wait(10), outcomes)
    assert threading.active_count() == before + 2
    gate.set()
    assert worker.close(10)
    assert threading.active_count() == before


def test_an_idle_thread_is_used_again() -> None:
    worker, outcomes = Worker(8), Outcomes()
    names = set()
    for number in range(10):
        worker.submit(lambda: names.add(threading.current_thread().name), outcomes)
        outcomes.wait(number + 1)
        # The thread reports before it is idle: let it become so.
        while worker._num_idle != len(worker._threads):
            os.sched_yield()
    assert names == {"bittern-storage-0"}
    assert worker.close(10)


def test_after_the_end_jobs_are_refused_at_once() -> None:
    worker, outcomes = Worker(), Outcomes()
    assert worker.close(1)
    assert worker.close(1)
    worker.submit(lambda: 1, outcomes, lane="a")
    ((result, error),) = outcomes.seen
    assert result is None
    assert isinstance(error, StorageError)


def test_what_was_submitted_is_done_before_the_end() -> None:
    worker, outcomes = Worker(1), Outcomes()
    for number in range(50):
        worker.submit(lambda number=number: number, outcomes, lane=number % 2)  # type: ignore[misc]
    assert worker.close(10)
    assert sorted(number for number, _ in outcomes.seen if isinstance(number, int)) == list(
        range(50)
    )


def test_an_end_is_bounded_in_time_and_drops_what_did_not_begin() -> None:
    """Limit: F19."""
    worker, outcomes = Worker(1), Outcomes()
    gate = threading.Event()
    for lane in ("a", "a", "a", None):
        worker.submit(lambda: gate.wait(10), outcomes, lane=lane)
    assert not worker.close(0.05)
    assert len(outcomes.seen) == 3
    assert all(isinstance(error, StorageError) for _, error in outcomes.seen)
    gate.set()
    assert outcomes.wait(4)[3] == (True, None)
    assert worker.close(10)


def test_a_callback_that_fails_is_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker, outcomes = Worker(1), Outcomes()

    def broken(result: object, error: BaseException | None) -> None:
        raise RuntimeError("loop is closed")

    with caplog.at_level(logging.ERROR):
        worker.submit(lambda: 1, broken, lane="a")
        worker.submit(lambda: 2, outcomes, lane="a")
        assert outcomes.wait(1) == [(2, None)]
        assert worker.close(10)
    assert "callback of a storage job failed" in caplog.text


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_run_in_threads_runs_that_many_at_once(num_threads: int) -> None:
    barrier = threading.Barrier(num_threads, timeout=10)
    seen: list[str] = []

    def job() -> None:
        barrier.wait()
        seen.append(threading.current_thread().name)

    run_in_threads(job, num_threads)
    assert len(set(seen)) == num_threads
    assert threading.current_thread().name in seen


@pytest.mark.parametrize("fails_here", [True, False])
def test_run_in_threads_raises_what_one_raised_after_all_ended(fails_here: bool) -> None:
    main = threading.current_thread()
    ended: list[str] = []

    def job() -> None:
        try:
            if (threading.current_thread() is main) is fails_here:
                raise ValueError("no")
        finally:
            ended.append("ended")

    with pytest.raises(ValueError, match="no"):
        run_in_threads(job, 2)
    assert len(ended) == 2


class _FewThreads:
    """Stands for ``threading.Thread.start``, of which only so many calls succeed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, num_allowed: int) -> None:
        self.num_allowed = num_allowed
        self.num_refused = 0
        real = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            if not self.num_allowed:
                self.num_refused += 1
                raise RuntimeError("can't start new thread")
            self.num_allowed -= 1
            real(thread)

        monkeypatch.setattr(threading.Thread, "start", start)


def test_without_a_thread_jobs_fail_and_later_ones_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, outcomes = Worker(2), Outcomes()
    with monkeypatch.context() as patch:
        _FewThreads(patch, 0)
        for _ in range(3):
            worker.submit(lambda: 1, outcomes, lane="a")
    assert [result for result, _ in outcomes.seen] == [None] * 3
    for _, error in outcomes.seen:
        assert isinstance(error, StorageError)
        assert str(error) == "the system starts no more threads"
    worker.submit(lambda: 2, outcomes, lane="a")
    assert outcomes.wait(4)[3] == (2, None)
    assert worker.close(10)


def test_one_thread_does_what_two_were_meant_to(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, outcomes = Worker(2), Outcomes()
    few = _FewThreads(monkeypatch, 1)
    gate = threading.Event()
    worker.submit(lambda: gate.wait(10), outcomes)
    worker.submit(lambda: 2, outcomes)
    assert few.num_refused == 1
    gate.set()
    assert outcomes.wait(2) == [(True, None), (2, None)]
    assert worker.close(10)


@pytest.mark.parametrize("num_allowed", [0, 1])
def test_a_worker_is_closed_beside_the_caller_or_by_him(
    num_allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, closed = Worker(1), threading.Event()
    closers: list[threading.Thread] = []
    answers: list[bool] = []

    def done(answer: bool) -> None:
        answers.append(answer)
        closers.append(threading.current_thread())
        closed.set()

    _FewThreads(monkeypatch, num_allowed)
    worker.close_soon(done, 10)
    assert closed.wait(10)
    assert answers == [True]
    assert (closers[0] is threading.current_thread()) is (num_allowed == 0)


@pytest.mark.parametrize("num_allowed", [0, 1])
def test_a_job_is_run_aside_or_here(num_allowed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _FewThreads(monkeypatch, 2 * num_allowed)
    is_here = run_aside(threading.current_thread).result(10) is threading.current_thread()
    assert is_here is (num_allowed == 0)

    def fail() -> None:
        raise MemoryError

    assert isinstance(run_aside(fail).exception(10), MemoryError)


def test_a_job_that_was_given_up_is_run_to_its_end() -> None:
    gate = threading.Event()
    found = run_aside(lambda: gate.wait(10))
    assert not found.cancel()
    gate.set()
    assert found.result(10)


@pytest.mark.parametrize("num_allowed", [0, 1])
def test_run_in_threads_does_with_as_many_as_the_system_starts(
    num_allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _FewThreads(monkeypatch, num_allowed)
    ran: list[threading.Thread] = []
    run_in_threads(lambda: ran.append(threading.current_thread()), 4)
    assert len(ran) == num_allowed + 1
    assert threading.current_thread() in ran
