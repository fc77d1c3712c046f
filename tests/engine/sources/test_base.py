"""engine.sources.base: what stands for a source that is not used."""

from __future__ import annotations

import asyncio

from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.engine.sources.base import PeerSource, SwitchedOff, switched_off_by


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
