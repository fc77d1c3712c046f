"""
What every driver of a BitTorrent client offers; one driver object runs one program once.

A driver must be used as an async context manager, so that its program is gone afterwards::

    async with Aria2(place, scratch) as client:
        await client.leech(str(torrent), download_dir, port=port)
        await client.wait_complete(timeout=60)

The tracker is whichever the torrent or the magnet link names. Compare files only after ``stop``:
some clients report completion before the last write has reached the file.
"""

from __future__ import annotations

import abc
import enum
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tests.interop.driver import Driver
from tests.interop.place import Endpoint, Place
from tests.interop.process import Program


class Transport(enum.Enum):
    """What carries the peer protocol; the value is the name used on the command line."""

    TCP = "tcp"
    """TCP without encryption."""
    MSE = "mse"
    """TCP with message stream encryption, RC4 and nothing else."""
    UTP = "utp"
    """uTP (BEP 29) without encryption."""


class Scheme(enum.Enum):
    """How a client reaches a tracker; the value is the scheme of the announce URL."""

    HTTP = "http"
    UDP = "udp"


class Client(Driver):
    """
    One run of one client as a separate program.

    Attributes:
        version_option: makes the program print its version.
        needs_namespace: whether it refuses to talk to loopback addresses.
        transports: what it can be told to use; most then accept nothing else.
        dials_peers: whether it can be told a peer's endpoint.
        schemes: how it can reach a tracker.
        creates_empty_files: whether a download of it has the files of length 0.
        has_v2: whether it knows BEP 52, and with it the padding of BEP 47.
    """

    version_option: ClassVar[str] = "--version"
    needs_namespace: ClassVar[bool] = False
    transports: ClassVar[frozenset[Transport]] = frozenset({Transport.TCP})
    dials_peers: ClassVar[bool] = False
    schemes: ClassVar[frozenset[Scheme]] = frozenset(Scheme)
    creates_empty_files: ClassVar[bool] = True
    has_v2: ClassVar[bool] = False

    def __init__(
        self, place: Place, scratch: Path, *, transport: Transport = Transport.TCP
    ) -> None:
        """
        Prepare a run; nothing is started.

        Args:
            place: where the program is run and listens.
            scratch: an absent folder for its configuration, state and log.
            transport: what it must use; one of ``transports``.
        """
        assert transport in self.transports, f"{self.name} has no {transport.value}"
        super().__init__(place, scratch)
        self.transport = transport

    @classmethod
    def version(cls) -> str:
        return first_version([cls.executable, cls.version_option])

    @classmethod
    def knows(cls, torrent_version: str) -> bool:
        """Tell whether it can read torrents of version "1", "2" or "hybrid"."""
        return torrent_version != "2" or cls.has_v2

    @abc.abstractmethod
    async def seed(
        self, torrent: Path, data_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        """
        Start seeding data that is complete.

        Args:
            torrent: the .torrent file.
            data_dir: the folder in which the torrent's name lies.
            port: where to listen.
            peers: endpoints to connect to; only for a client that ``dials_peers``.

        Raises:
            InteropError: the program could not be started.
        """

    @abc.abstractmethod
    async def leech(
        self, source: str, download_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        """
        Start downloading.

        Args:
            source: path of a .torrent file, or a magnet link.
            download_dir: an existing folder that gets the torrent's name.
            port: where to listen.
            peers: endpoints to connect to; only for a client that ``dials_peers``.

        Raises:
            InteropError: the program could not be started.
        """

    @abc.abstractmethod
    async def wait_complete(self, *, timeout: float) -> None:
        """
        Wait until the program says that it has everything.

        Raises:
            InteropError: it ended or the time is over; the text quotes its output.
        """

    def tail(self) -> str:
        """Return the end of the program's output."""
        return "" if self._program is None else self._program.tail()

    async def start(self, argv: list[str], **environment: str) -> None:
        """Start the program, for drivers."""
        assert self._program is None, "one driver object is one run"
        self._program = await Program.start(
            argv,
            place=self.place,
            log=self.scratch / "output.log",
            environment=environment,
        )


def first_version(argv: list[str]) -> str:
    """Run a program that prints its version and return the first one in its output."""
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"\d+(\.\d+)+", ran.stdout + ran.stderr)
    return found.group() if found else "unknown"
