"""bittorrent-tracker, WebTorrent's tracker on Node.js."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.interop.samples import CACHE, SETUP_HINT
from tests.interop.trackers.base import Tracker

_PROGRAM = Path(__file__).parents[1] / "programs" / "tracker.mjs"
_MODULES = CACHE / "node_modules"


class BittorrentTracker(Tracker):
    """The npm package bittorrent-tracker; it serves every torrent."""

    name = "bittorrent-tracker"
    executable = "node"

    @classmethod
    def missing(cls) -> str | None:
        if not (_MODULES / "bittorrent-tracker").is_dir():
            return f"the npm package bittorrent-tracker is not in {_MODULES}; {SETUP_HINT}"
        return super().missing()

    @classmethod
    def version(cls) -> str:
        manifest = json.loads((_MODULES / "bittorrent-tracker" / "package.json").read_text())
        return str(manifest["version"])

    def command(self, info_hashes: Sequence[bytes]) -> list[str]:
        return [self.executable, str(_PROGRAM), str(_MODULES), self.place.address, str(self.port)]
