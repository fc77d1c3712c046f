"""
What every driver of a tracker program offers; one object runs one program once.

A tracker serves HTTP (TCP) and UDP on the same port number, as all trackers tested here can.
"""

from __future__ import annotations

import abc
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self
from urllib.parse import quote_from_bytes

from tests.interop import web
from tests.interop.clients.base import Scheme
from tests.interop.place import Place
from tests.interop.process import Program
from tests.interop.samples import SETUP_HINT

START_TIMEOUT = 20.0


class Tracker(abc.ABC):
    """
    One run of one tracker program.

    Attributes:
        name: what it is called on the command line and in the matrix.
        executable: the program that must be installed.
        environment: variables added to ours for the program.
    """

    name: ClassVar[str]
    executable: ClassVar[str]
    environment: ClassVar[Mapping[str, str]] = {}

    def __init__(self, place: Place, scratch: Path) -> None:
        """
        Prepare a run; nothing is started.

        Args:
            place: where it runs and listens.
            scratch: an absent folder for its configuration and log.
        """
        self.place = place
        self.scratch = scratch.resolve()
        self.port = 0
        self._program: Program | None = None
        self.scratch.mkdir(parents=True)

    @classmethod
    def missing(cls) -> str | None:
        """Return why the tracker cannot be run on this machine, or None when it can."""
        if shutil.which(cls.executable):
            return None
        return f"{cls.executable} is not installed; {SETUP_HINT}"

    @classmethod
    @abc.abstractmethod
    def version(cls) -> str:
        """Return the version of the installed program; call only when it is not missing."""

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

        assert self._program is not None
        await self._program.poll(ask, what="the tracker knows a seed", timeout=timeout)

    async def stop(self) -> None:
        """End the program; may be repeated."""
        if self._program is not None:
            await self._program.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
