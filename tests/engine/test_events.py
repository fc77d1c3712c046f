"""Events are values that nobody can change."""

from __future__ import annotations

import dataclasses

import pytest

from bittern.engine import events

KINDS = [
    kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, events.Event)
]


@pytest.mark.parametrize("kind", KINDS)
def test_events_are_frozen_and_have_no_dictionary(kind: type[events.Event]) -> None:
    values = {field.name: None for field in dataclasses.fields(kind)}
    event = kind(**values)
    assert event == kind(**values)
    assert not hasattr(event, "__dict__")
    for name in values:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, name, 1)


def test_states_are_words() -> None:
    assert {state.value for state in events.TorrentState} >= {"downloading", "seeding", "error"}
