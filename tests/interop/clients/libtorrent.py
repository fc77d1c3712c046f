"""libtorrent (Rasterbar) from its Python binding, in a process of its own."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from tests.interop.clients.base import Client, Transport
from tests.interop.place import Endpoint

_PROGRAM = Path(__file__).parents[1] / "programs" / "libtorrent_peer.py"


class Libtorrent(Client):
    """libtorrent, driven by ``programs/libtorrent_peer.py``."""

    name = "libtorrent"
    has_v2 = True
    executable = sys.executable
    transports = frozenset(Transport)
    dials_peers = True

    @classmethod
    def missing(cls) -> str | None:
        if importlib.util.find_spec("libtorrent") is None:
            return "the Python package libtorrent is not installed; make test installs it"
        return None

    @classmethod
    def version(cls) -> str:
        return metadata.version("libtorrent")

    async def seed(
        self, torrent: Path, data_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        await self._run([str(torrent), str(data_dir), "--seed"], port, peers)

    async def leech(
        self, source: str, download_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        await self._run([source, str(download_dir)], port, peers)

    async def wait_complete(self, *, timeout: float) -> None:
        await self.program.wait_line(
            lambda line: line.startswith('{"event": "complete"'), timeout=timeout
        )

    async def _run(self, arguments: list[str], port: int, peers: Sequence[Endpoint]) -> None:
        await self.start(
            [
                *(sys.executable, str(_PROGRAM), *arguments),
                *("--address", self.place.address, "--port", str(port)),
                *("--transport", self.transport.value),
                *(f"--peer={host}:{number}" for host, number in peers),
            ]
        )
