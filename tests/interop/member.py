"""
A member of a swarm: one bittern or libtorrent process on an address of its own.

Where the drivers of ``clients`` run one side of a transfer, a member can be asked what it has
moved, be killed without warning, be started again on what it left, and be given few descriptors.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from tests.interop.clients.bittern import ENVIRONMENT
from tests.interop.driver import Runner
from tests.interop.place import Endpoint, Place
from tests.interop.process import Program
from tests.reference import need_libtorrent

LIBTORRENT = Path(__file__).parent / "programs" / "libtorrent_peer.py"
"""Runs libtorrent and prints its news as JSON."""

# Until a program listens, seconds.
_START_TIMEOUT = 40.0


class Member(Runner):
    """
    One process, from the start of its program to its end.

    Args:
        torrent: its file; bittern takes a magnet link as well.
        address: of 127.0.0.0/8, where it listens.
        folder: for its log and its state; kept from one run to the next.
        content: the folder in which the torrent's name lies, or will lie.
        is_seed: the content is complete.
        max_files: the limit of its file descriptors, soft and hard; None for the machine's own.
    """

    def __init__(
        self,
        program: str,
        torrent: Path | str,
        address: str,
        folder: Path,
        *,
        content: Path,
        is_seed: bool = False,
        max_files: int | None = None,
    ) -> None:
        assert program in ("bittern", "libtorrent")
        self.place = Place(address)
        self.port = self.place.free_port()
        self.content = content
        self._kind = program
        self._torrent = torrent
        self._folder = folder
        self._is_seed = is_seed
        self._limit = [] if max_files is None else ["prlimit", f"--nofile={max_files}", "--"]
        folder.mkdir(parents=True, exist_ok=True)
        content.mkdir(parents=True, exist_ok=True)

    @property
    def endpoint(self) -> Endpoint:
        """Where it accepts connections."""
        return self.place.address, self.port

    async def start(self, peers: Iterable[Member | Endpoint] = (), *options: str) -> Self:
        """Start it and wait until it listens; ``options`` are further ones of its command line."""
        known = [peer.endpoint if isinstance(peer, Member) else peer for peer in peers]
        bittern = self._kind == "bittern"
        argv = self._bittern() if bittern else self._libtorrent()
        self._program = await Program.start(
            [*self._limit, *argv, *options, *(f"--peer={host}:{port}" for host, port in known)],
            place=self.place,
            log=self._folder / "output.log",
            environment=ENVIRONMENT if bittern else None,
        )
        await self.wait_for("listening" if bittern else "listen_succeeded", timeout=_START_TIMEOUT)
        return self

    def _bittern(self) -> Sequence[str]:
        verb = ["seed", "--data"] if self._is_seed else ["get", "--seed", "--output"]
        return [
            *(sys.executable, "-m", "bittern", *verb, str(self.content), str(self._torrent)),
            *("--bind", self.place.address, "--port", str(self.port), "--jsonl"),
            *("--no-dht", "--no-lsd", "--no-pex", "--no-tracker"),
            *("--state-dir", str(self._folder / "state")),
        ]

    def _libtorrent(self) -> Sequence[str]:
        need_libtorrent()
        return [
            *(sys.executable, str(LIBTORRENT), str(self._torrent), str(self.content)),
            *("--address", self.place.address, "--port", str(self.port)),
            *(("--seed",) if self._is_seed else ()),
        ]

    # --- what it says ------------------------------------------------------------------------

    async def wait_ready(self, *, timeout: float = 60.0) -> None:
        """Wait until a seed has looked at its content."""
        if self._kind == "bittern":
            await self.wait_for("torrent_completed", timeout=timeout)

    async def wait_complete(self, *, timeout: float) -> None:
        """Wait until it has everything."""
        await self.wait_for(
            "torrent_completed" if self._kind == "bittern" else "complete", timeout=timeout
        )

    async def wait_for(
        self,
        kind: str,
        *,
        timeout: float,
        is_wanted: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> dict[str, Any]:
        """Wait for an event of a kind, and return it."""

        def accept(line: str) -> bool:
            event = read_event(line)
            return event is not None and kind in event.values() and is_wanted(event)

        line = await self.program.wait_line(accept, timeout=timeout)
        return read_event(line) or {}

    async def finish(self) -> dict[str, Any]:
        """End it politely; return what it says of itself at the end, as ``downloaded``."""
        await self.program.stop()
        return await self.wait_for("result", timeout=1.0)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return all events of a kind that it has printed so far."""
        found = map(read_event, self.program.lines)
        return [event for event in found if event is not None and kind in event.values()]

    # --- its end -----------------------------------------------------------------------------

    async def kill(self) -> None:
        """Kill it at once, without a word."""
        os.killpg(self.program.pid, signal.SIGKILL)
        await self.program.stop()


def read_event(line: str) -> dict[str, Any] | None:
    """Return the JSON object on a line of output, None when it is something else."""
    if not line.startswith("{"):
        return None
    with contextlib.suppress(ValueError):
        event = json.loads(line)
        return event if isinstance(event, dict) else None
    return None
