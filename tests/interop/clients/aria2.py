"""aria2, one process for one download; it ends by itself when it is complete."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from tests.interop.clients.base import Client, Scheme, Transport
from tests.interop.driver import find_program
from tests.interop.place import Endpoint


def _newest_program() -> str:
    """
    Return the program of the wheel, or the name of the system's where there is none.

    Interop: 1.36, which many systems have, leaves out empty keys when it computes an info hash, so
    it finds nobody for a hybrid torrent.
    """
    spec = importlib.util.find_spec("aria2c")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).parent / "bin" / "aria2c"
        if program.is_file():
            return str(program)
    return "aria2c"


class Aria2(Client):
    """aria2c. It knows no uTP and cannot be told a peer, so it always needs a tracker."""

    name = "aria2"
    executable = find_program("aria2c", _newest_program())
    # Interop: it sends to UDP trackers from its DHT socket, so only with the DHT switched on.
    schemes = frozenset({Scheme.HTTP})
    transports = frozenset({Transport.TCP, Transport.MSE})

    async def seed(
        self, torrent: Path, data_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        await self._run(
            str(torrent), data_dir, port, "--bt-seed-unverified=true", "--seed-ratio=0.0"
        )

    async def leech(
        self, source: str, download_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        await self._run(source, download_dir, port, "--seed-time=0")

    async def wait_complete(self, *, timeout: float) -> None:
        await self.program.wait_exit(timeout=timeout)

    async def _run(self, source: str, directory: Path, port: int, *options: str) -> None:
        encryption = self.transport is Transport.MSE
        await self.start(
            [
                *(self.executable, "--no-conf", "--console-log-level=notice"),
                *("--show-console-readout=false", "--summary-interval=0"),
                *("--enable-color=false", "--disable-ipv6=true"),
                *("--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false"),
                *("--enable-peer-exchange=false", "--file-allocation=none"),
                f"--bt-force-encryption={'true' if encryption else 'false'}",
                *(f"--interface={self.place.address}", f"--listen-port={port}"),
                *options,
                f"--dir={directory}",
                source,
            ]
        )
