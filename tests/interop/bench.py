"""Programs on the two machines of ``places``, for tests of what is not configured."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from tests.interop.clients.bittern import ENVIRONMENT
from tests.interop.member import LIBTORRENT, read_event
from tests.interop.place import Place, run_ip, wait_multicast_v6
from tests.interop.process import Program
from tests.reference import need_libtorrent


class Bench:
    """Programs of one test; ended with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs: list[Program] = []

    async def _start(self, place: Place, *argv: str) -> Program:
        log = self._folder / f"{len(self._programs)}.log"
        program = await Program.start(
            [sys.executable, *argv], place=place, log=log, environment=ENVIRONMENT
        )
        self._programs.append(program)
        return program

    async def bittern(self, place: Place, *arguments: str) -> Program:
        """Run bittern as one does who knows no options, but for where its state goes."""
        state = self._folder / f"state-{len(self._programs)}"
        return await self._start(
            place, "-m", "bittern", *arguments, "--jsonl", "--state-dir", str(state)
        )

    async def libtorrent(self, place: Place, *arguments: str) -> Program:
        """Run libtorrent with its local discovery."""
        need_libtorrent()
        port = str(place.free_port())
        return await self._start(place, str(LIBTORRENT), *arguments, "--lsd", "--port", port)

    async def stop(self) -> None:
        for program in self._programs:
            await program.stop()


def is_event(line: str, kind: str, **fields: object) -> bool:
    """Tell whether a line is an event of ``bittern --jsonl`` or of the libtorrent program."""
    found = read_event(line)
    return (
        found is not None
        and kind in (found.get("type"), found.get("event"))
        and all(found.get(name) == value for name, value in fields.items())
    )


def keep_family(places: Iterable[Place], family: int) -> None:
    """Take the addresses of the other family away; IPv6 multicast works when this returns."""
    for place in places:
        gone = place.address_v6 + "/64" if family == 4 else place.address + "/24"
        run_ip(place, "addr", "del", gone, "dev", "veth0")
        if family == 6:
            wait_multicast_v6(place, "veth0")
