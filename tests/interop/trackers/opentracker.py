"""opentracker as Debian builds it: with an allow-list."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.interop.driver import find_program
from tests.interop.trackers.base import Tracker


class Opentracker(Tracker):
    """opentracker; it serves only the torrents of its allow-list."""

    name = "opentracker"
    executable = find_program("opentracker")

    _root: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def version(cls) -> str:
        # It has no option that tells its version; Debian's is the date of the source.
        if cls.executable != "opentracker":
            return "unknown"
        query = ["dpkg-query", "--show", "--showformat=${Version}", "opentracker"]
        found = subprocess.run(query, capture_output=True, text=True, check=False).stdout
        return found.partition("~")[2] or found or "unknown"

    def command(self, info_hashes: Sequence[bytes]) -> list[str]:
        # Interop: it becomes the user nobody before it reads the list, so the folder must not lie
        # below one that only we may enter, as the folders that pytest makes do.
        self._root = tempfile.TemporaryDirectory(prefix="opentracker-", ignore_cleanup_errors=True)
        root = Path(self._root.name)
        root.chmod(0o755)
        (root / "allow").write_text("".join(f"{digest.hex()}\n" for digest in info_hashes))
        return [
            *(self.executable, "-i", self.place.address),
            *("-p", str(self.port), "-P", str(self.port)),
            # A relative name is right for root, who gets a chroot, and for others, who get none.
            *("-d", str(root), "-w", "allow"),
        ]

    async def stop(self) -> None:
        await super().stop()
        if self._root is not None:
            self._root.cleanup()
