"""engine.reasons.diagnosis: what a diagnosis says of itself."""

from __future__ import annotations

import pytest

from bittern.engine.events import TorrentState
from bittern.engine.reason import Reason, ReasonCode
from bittern.engine.reasons.diagnosis import Diagnosis


@pytest.mark.parametrize(
    ("state", "down", "up", "is_moving"),
    [
        (TorrentState.DOWNLOADING, 1.0, 0.0, True),
        (TorrentState.DOWNLOADING, 0.0, 1.0, False),
        (TorrentState.SEEDING, 1.0, 0.0, False),
        (TorrentState.SEEDING, 0.0, 1.0, True),
    ],
)
def test_what_moves_is_what_is_still_to_be_done(
    state: TorrentState, down: float, up: float, is_moving: bool
) -> None:
    found = Diagnosis(at=0.0, state=state, download_rate=down, upload_rate=up)
    assert found.is_moving is is_moving


def test_it_reads_as_its_reasons_one_a_line() -> None:
    reasons = (Reason(ReasonCode.CHOKED, "They choke us."), Reason(ReasonCode.SOURCE, "DHT: off"))
    found = Diagnosis(at=0.0, state=TorrentState.DOWNLOADING, reasons=reasons)
    assert str(found) == "They choke us.\nDHT: off"
