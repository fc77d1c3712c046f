"""proto.peer_events: every event is a frozen value in the past tense that says what it means."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from bittern.proto import peer_events
from bittern.proto.peer_events import BlocksReceived, DontHaveReceived, PeerEvent

EVENTS = [
    value
    for value in vars(peer_events).values()
    if inspect.isclass(value) and issubclass(value, PeerEvent) and value is not PeerEvent
]


def test_there_are_events() -> None:
    assert len(EVENTS) == 17


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_events_are_frozen_documented_and_in_the_past_tense(event: type[PeerEvent]) -> None:
    assert event.__name__.endswith("ed")
    assert event.__doc__ is not None
    assert not event.__doc__.startswith(event.__name__), "the docstring that dataclass makes up"
    assert event.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert not hasattr(object.__new__(event), "__dict__")


def test_events_compare_by_value() -> None:
    assert DontHaveReceived(1) == DontHaveReceived(1) != DontHaveReceived(2)
    assert BlocksReceived([(1, 0, memoryview(b"ab"))]) == BlocksReceived(
        [(1, 0, memoryview(bytearray(b"ab")))]
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        DontHaveReceived(1).index = 2  # type: ignore[misc]
