"""What a node tells: values that nobody can change."""

from __future__ import annotations

import dataclasses

import pytest

from bittern.dht import events

KINDS = [
    kind
    for kind in vars(events).values()
    if isinstance(kind, type)
    and dataclasses.is_dataclass(kind)
    and kind.__module__ == events.__name__
]


@pytest.mark.parametrize("kind", KINDS)
def test_events_are_frozen_and_equal_by_value(kind: type) -> None:
    values = {field.name: number for number, field in enumerate(dataclasses.fields(kind))}
    event = kind(**values)
    assert event == kind(**values)
    assert not hasattr(event, "__dict__")
    for name in values:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, name, "other")


def test_there_is_one_for_each_end_of_a_request() -> None:
    assert {kind.__name__ for kind in KINDS} >= {"NodesFound", "PeersFound", "PeersLookupEnded"}
