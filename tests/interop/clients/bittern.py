"""bittern itself, run through the command line of docs/design/cli.md."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.interop.clients.base import Client, Transport
from tests.interop.place import Endpoint


def _find_source() -> Path:
    """Return the folder that holds the bittern that the tests import, or would import."""
    spec = importlib.util.find_spec("bittern")
    if spec is None or spec.origin is None:
        return Path(__file__).parents[3] / "src"
    return Path(spec.origin).parents[1]


SOURCE = _find_source()

# What makes ``python -m bittern`` run that one, installed or not.
ENVIRONMENT = {"PYTHONPATH": str(SOURCE)}


class Bittern(Client):
    """
    ``python -m bittern``.

    It accepts every transport and insists on none: the other side of the pair does.
    """

    name = "bittern"
    has_v2 = True
    executable = "bittern"
    transports = frozenset(Transport)
    dials_peers = True

    @classmethod
    def missing(cls) -> str | None:
        program = SOURCE / "bittern" / "__main__.py"
        return None if program.is_file() else f"{program} does not exist"

    @classmethod
    def version(cls) -> str:
        module = (SOURCE / "bittern" / "__init__.py").read_text(encoding="utf-8")
        found = re.search(r'^__version__ = "(.*)"', module, re.MULTILINE)
        return found.group(1) if found else "unknown"

    async def seed(
        self, torrent: Path, data_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        await self._run(["seed", str(torrent), "--data", str(data_dir)], port, peers)

    async def leech(
        self, source: str, download_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        await self._run(["get", source, "--output", str(download_dir)], port, peers)

    async def wait_complete(self, *, timeout: float) -> None:
        await self.program.wait_exit(timeout=timeout)

    async def _run(self, verb: list[str], port: int, peers: Sequence[Endpoint]) -> None:
        await self.start(
            [
                *(sys.executable, "-m", "bittern", *verb),
                *("--bind", self.place.address, "--port", str(port)),
                *("--no-dht", "--no-lsd", "--no-pex"),
                *("--state-dir", str(self.scratch / "state")),
                *(f"--peer={host}:{number}" for host, number in peers),
            ],
            **ENVIRONMENT,
        )
