"""
What every driver of a tracker program offers; one object runs one program once.

A tracker serves HTTP (TCP) and UDP on the same port number, as all trackers tested here can.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote_from_bytes

from tests.interop import web
from tests.interop.clients.base import Scheme
from tests.interop.driver import Driver
from tests.interop.place import Place
from tests.interop.process import Program

START_TIMEOUT = 20.0


class Tracker(Driver):
    """
    One run of one tracker program.

    Attributes:
        environment: variables added to ours for the program.
    """

    environment: ClassVar[Mapping[str, str]] = {}

    def __init__(self, place: Place, scratch: Path) -> None:
        super().__init__(place, scratch)
        self.port = 0

    @abc.abstractmethod
    def command(self, info_hashes: Sequence[bytes]) -> list[str]:
        """Return the command line, for ``start``; may write configuration files."""

    async def start(self, info_hashes: Sequence[bytes]) -> None:
        """
        Start the tracker and wait until it answers over HTTP.

        Args:
            info_hashes: the torrents that it must serve.

        Raises:
            InteropError: it did not come up.
        """
        assert self._program is None, "one driver object is one run"
        self.port = self.place.free_port()
        self._program = await Program.start(
            self.command(info_hashes),
            place=self.place,
            log=self.scratch / "output.log",
            environment=self.environment,
        )

        async def is_up() -> bool:
            await self.scrape(info_hashes[0])
            return True

        await self._program.poll(is_up, what="the tracker answers", timeout=START_TIMEOUT)

    def announce_url(self, scheme: Scheme) -> str:
        """Return the announce URL for torrents."""
        return f"{scheme.value}://{self.place.address}:{self.port}/announce"

    async def scrape(self, info_hash: bytes) -> int | None:
        """
        Ask how many seeds a torrent has (BEP 48).

        Returns:
            Their number, or None when the tracker does not know the torrent.

        Raises:
            OSError: the tracker could not be reached.
        """
        target = f"/scrape?info_hash={quote_from_bytes(info_hash, safe='')}"
        reply = await web.request(self.place, "GET", self.place.address, self.port, target)
        found = re.search(rb"8:completei(\d+)e", reply.body)
        return int(found.group(1)) if found else None

    async def wait_seed(self, info_hash: bytes, *, timeout: float) -> None:
        """
        Wait until the tracker counts a seed.

        Raises:
            InteropError: the tracker ended or the time is over.
        """

        async def ask() -> bool | None:
            return True if await self.scrape(info_hash) else None

        await self.program.poll(ask, what="the tracker knows a seed", timeout=timeout)
