from __future__ import annotations

import random
import threading

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bittern.storage.handles import Handle, HandleCache


class Closed:
    """Collects closed descriptors; each may be closed once."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def __call__(self, fd: int) -> None:
        assert fd not in self.fds
        self.fds.append(fd)


def test_handles_are_found_until_they_make_room_for_others() -> None:
    cache, close = HandleCache(2), Closed()
    for fd, index in ((10, 0), (11, 1)):
        cache.release(cache.add((1, index), fd, False, close), close)
    first = cache.find((1, 0), False)
    assert first is not None
    assert first.fd == 10
    cache.release(first, close)
    cache.release(cache.add((1, 2), 12, False, close), close)
    assert close.fds == [11]
    assert cache.find((1, 1), False) is None
    assert len(cache) == 2


def test_a_handle_for_reading_does_not_serve_writing_and_is_replaced() -> None:
    cache, close = HandleCache(), Closed()
    reader = cache.add((1, 0), 10, False, close)
    assert cache.find((1, 0), True) is None
    writer = cache.add((1, 0), 11, True, close)
    assert close.fds == []
    assert cache.find((1, 0), False) is writer
    cache.release(reader, close)
    assert close.fds == [10]


def test_a_close_that_fails_leaves_no_other_handle_open() -> None:
    """The first error is told, once all are closed."""
    cache, closed = HandleCache(4), Closed()

    def close(fd: int) -> None:
        closed(fd)
        if fd in (11, 12):
            raise OSError(fd, "cannot be closed")

    def fill() -> None:
        for number in range(4):
            cache.release(cache.add((1, number), 10 + number, True, close), close)

    fill()
    with pytest.raises(OSError, match="cannot be closed") as caught:
        cache.drop_owner(1, close)
    assert caught.value.errno == 11
    assert closed.fds == [10, 11, 12, 13]
    assert len(cache) == 0

    closed.fds.clear()
    fill()
    with pytest.raises(OSError, match="cannot be closed"):
        cache.make_room(close)
    assert closed.fds == [10, 11]

    closed.fds.clear()
    cache.drop_owner(2, close)
    with pytest.raises(OSError, match="cannot be closed"):
        cache.add((1, 2), 14, True, close)
    assert closed.fds == [12]
    cache.drop_owner(1, close)
    assert sorted(closed.fds) == [12, 13, 14], "the new one too"


def test_a_handle_in_use_stays_open_whatever_is_dropped() -> None:
    cache, close = HandleCache(1), Closed()
    used = cache.add((1, 0), 10, True, close)
    again = cache.find((1, 0), True)
    assert again is used
    cache.drop((1, 0), close)
    cache.drop((1, 0), close)
    cache.drop_owner(1, close)
    assert not cache.make_room(close)
    cache.release(used, close)
    assert close.fds == []
    cache.release(again, close)
    assert close.fds == [10]
    assert len(cache) == 0


def test_more_than_the_limit_are_open_while_all_are_in_use() -> None:
    cache, close = HandleCache(0), Closed()
    handles = [cache.add((1, index), index, True, close) for index in range(4)]
    assert close.fds == []
    for handle in handles:
        cache.release(handle, close)
    cache.release(cache.add((1, 9), 9, True, close), close)
    assert len(close.fds) == 1


def test_an_owner_drops_its_own_only() -> None:
    cache, close = HandleCache(), Closed()
    owners = [cache.new_owner() for _ in range(2)]
    assert owners[0] != owners[1]
    for fd, owner in enumerate(owners * 2):
        cache.release(cache.add((owner, fd), fd, True, close), close)
    cache.drop_owner(owners[0], close)
    assert sorted(close.fds) == [0, 2]
    assert len(cache) == 2


def test_making_room_closes_half_of_what_is_idle_oldest_first() -> None:
    cache, close = HandleCache(), Closed()
    handles = [cache.add((1, fd), fd, True, close) for fd in range(6)]
    for handle in handles[1:]:
        cache.release(handle, close)
    assert cache.make_room(close)
    assert close.fds == [1, 2, 3]
    assert cache.make_room(close)
    assert cache.make_room(close)
    assert not cache.make_room(close)
    assert sorted(close.fds) == [1, 2, 3, 4, 5]


class HandleMachine(RuleBasedStateMachine):
    """Every descriptor is closed exactly once, and never while it is in use."""

    def __init__(self) -> None:
        super().__init__()
        self.cache, self.close = HandleCache(3), Closed()
        self.used: list[Handle] = []
        self.next_fd = 0

    @rule(index=st.integers(0, 6), writable=st.booleans())
    def take(self, index: int, writable: bool) -> None:
        handle = self.cache.find((index % 2, index), writable)
        if handle is None:
            self.next_fd += 1
            handle = self.cache.add((index % 2, index), self.next_fd, writable, self.close)
        assert handle.is_writable or not writable
        self.used.append(handle)

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.used) - 1))
        self.cache.release(self.used.pop(at), self.close)

    @rule(index=st.integers(0, 6))
    def drop(self, index: int) -> None:
        self.cache.drop((index % 2, index), self.close)

    @rule(owner=st.integers(0, 1))
    def drop_owner(self, owner: int) -> None:
        self.cache.drop_owner(owner, self.close)

    @rule()
    def make_room(self) -> None:
        self.cache.make_room(self.close)

    @invariant()
    def nothing_in_use_is_closed(self) -> None:
        assert not {handle.fd for handle in self.used} & set(self.close.fds)

    def teardown(self) -> None:
        for handle in self.used:
            self.cache.release(handle, self.close)
        for owner in range(2):
            self.cache.drop_owner(owner, self.close)
        assert sorted(self.close.fds) == list(range(1, self.next_fd + 1))


TestHandleMachine = HandleMachine.TestCase


def test_threads_share_a_cache_without_closing_under_one_another() -> None:
    cache, lock = HandleCache(3), threading.Lock()
    open_fds: set[int] = set()
    problems: list[str] = []
    counter = iter(range(1, 1_000_000))

    def close(fd: int) -> None:
        with lock:
            if fd not in open_fds:
                problems.append(f"{fd} closed twice")
            open_fds.discard(fd)

    def work(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(2000):
            key = (1, dice.randrange(8))
            handle = cache.find(key, True)
            if handle is None:
                with lock:
                    fd = next(counter)
                    open_fds.add(fd)
                handle = cache.add(key, fd, True, close)
            if handle.fd not in open_fds:
                problems.append(f"{handle.fd} in use but closed")
            cache.release(handle, close)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.drop_owner(1, close)
    assert problems == []
    assert open_fds == set()
