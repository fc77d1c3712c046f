"""bittern's own tracker, run through its command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests.interop.clients.bittern import ENVIRONMENT, Bittern
from tests.interop.trackers.base import Tracker


class BitternTracker(Tracker):
    """``python -m bittern tracker``; it serves every torrent."""

    name = "bittern-tracker"
    executable = "bittern"
    environment = ENVIRONMENT

    @classmethod
    def missing(cls) -> str | None:
        return Bittern.missing()

    @classmethod
    def version(cls) -> str:
        return Bittern.version()

    def command(self, info_hashes: Sequence[bytes]) -> list[str]:
        endpoint = f"{self.place.address}:{self.port}"
        return [
            *(sys.executable, "-m", "bittern", "tracker"),
            *("--http", endpoint, "--udp", endpoint),
        ]
