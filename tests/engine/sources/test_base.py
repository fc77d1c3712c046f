"""engine.sources.base: what stands for a source that is not used."""

from __future__ import annotations

import asyncio

from bittern.engine.sources.base import (
    PeerSource,
    SourceKind,
    SourceState,
    SourceStatus,
    SwitchedOff,
    switched_off_by,
)
from bittern.policy.candidates import Source


def test_a_source_that_is_off_says_why_and_does_nothing() -> None:
    off: PeerSource = SwitchedOff(SourceKind.DHT, switched_off_by("enable_dht"))
    off.start("name")
    off.completed()
    off.ask_now()
    asyncio.run(off.stop())
    assert off.statuses() == [
        SourceStatus(
            kind=SourceKind.DHT,
            state=SourceState.OFF,
            message="switched off by the setting enable_dht",
        )
    ]


def test_every_kind_that_names_candidates_has_the_name_by_which_they_are_labelled() -> None:
    names = {kind.value for kind in SourceKind}
    assert {source.value for source in Source} - names == {"resume"}
