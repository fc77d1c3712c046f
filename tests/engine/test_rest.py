"""engine.rest: when a torrent goes to rest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bittern.engine.rest import IdleClock


class Clock:
    """Services of a session whose torrents rest after five seconds."""

    def __init__(self) -> None:
        self.now = 100.0
        self.loop = SimpleNamespace(time=lambda: self.now)
        self.config = SimpleNamespace(rest_after=5.0)


def make(*, can_rest: bool = True) -> tuple[Clock, IdleClock]:
    services: Any = Clock()
    return services, IdleClock(services, can_rest=can_rest)


def due_times(clock: IdleClock, times: range, *, busy: tuple[int, ...] = ()) -> list[int]:
    """Ask each second, and return when it was time."""
    return [at for at in times if clock.is_due(is_idle=at not in busy, now=float(at))]


def test_it_is_time_once_after_a_while_of_nobody() -> None:
    _, clock = make()
    clock.start()
    assert due_times(clock, range(100, 120)) == [105]


def test_whoever_comes_begins_the_while_anew() -> None:
    services, clock = make()
    clock.start()
    services.now = 103.0
    clock.start()
    assert due_times(clock, range(103, 120)) == [108]


@pytest.mark.parametrize("busy", [(100, 101, 102), (102,)])
def test_a_connection_or_something_missing_keeps_it_awake(busy: tuple[int, ...]) -> None:
    _, clock = make()
    clock.start()
    assert due_times(clock, range(100, 120), busy=busy) == [107]


def test_who_knows_nobody_rests_at_once() -> None:
    _, clock = make()
    clock.start(knows_nobody=True)
    assert due_times(clock, range(100, 120)) == [100]


def test_before_it_has_woken_up_it_is_not_time() -> None:
    _, clock = make()
    assert due_times(clock, range(100, 120)) == []


def test_without_a_journal_it_never_rests() -> None:
    _, clock = make(can_rest=False)
    clock.start(knows_nobody=True)
    assert due_times(clock, range(100, 120)) == []
