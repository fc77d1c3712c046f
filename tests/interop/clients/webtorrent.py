"""WebTorrent on Node.js, as it is on the command line and in servers: no WebRTC."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.interop.clients.base import Client, Transport
from tests.interop.place import Endpoint
from tests.interop.samples import CACHE, SETUP_HINT

_PROGRAM = Path(__file__).parents[1] / "programs" / "webtorrent_peer.cjs"
_MODULES = CACHE / "node_modules"


class Webtorrent(Client):
    """
    webtorrent 1.9, the last version that runs without a native WebRTC module.

    It makes an empty file only where a piece spans its place, which no piece of a hybrid does.
    """

    name = "webtorrent"
    executable = "node"
    creates_empty_files = False
    transports = frozenset(Transport)
    dials_peers = True

    @classmethod
    def missing(cls) -> str | None:
        if not (_MODULES / "webtorrent").is_dir():
            return f"the npm package webtorrent is not in {_MODULES}; {SETUP_HINT}"
        return super().missing()

    @classmethod
    def version(cls) -> str:
        manifest = json.loads((_MODULES / "webtorrent" / "package.json").read_text())
        return str(manifest["version"])

    async def seed(
        self, torrent: Path, data_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        await self._run(str(torrent), data_dir, port, peers)

    async def leech(
        self, source: str, download_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        await self._run(source, download_dir, port, peers)

    async def wait_complete(self, *, timeout: float) -> None:
        await self.program.wait_line(
            lambda line: line.startswith('{"event":"complete"'), timeout=timeout
        )

    async def _run(
        self, source: str, directory: Path, port: int, peers: Sequence[Endpoint]
    ) -> None:
        await self.start(
            [
                *(self.executable, str(_PROGRAM), source, str(directory), str(port)),
                self.transport.value,
                *(f"{host}:{number}" for host, number in peers),
            ],
            NODE_PATH=str(_MODULES),
        )
