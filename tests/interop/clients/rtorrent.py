"""rtorrent as a daemon without a terminal, driven by XML-RPC over SCGI on a local socket."""

from __future__ import annotations

import asyncio
import re
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.interop.clients.base import Client, Transport
from tests.interop.driver import find_program
from tests.interop.place import Endpoint
from tests.interop.process import InteropError

_START_TIMEOUT = 20.0
_CALL_TIMEOUT = 10.0

_ENCRYPTION = {
    Transport.TCP: "none",
    Transport.MSE: "allow_incoming,try_outgoing,require,require_RC4",
}

_CONFIGURATION = """\
system.daemon.set = true
network.scgi.open_local = {socket}
session.path.set = {session}
directory.default.set = "{directory}"
network.bind_address.set = {address}
network.port_range.set = {port}-{port}
network.port_random.set = no
dht.mode.set = disable
protocol.pex.set = no
protocol.encryption.set = {encryption}
trackers.use_udp.set = yes
pieces.hash.on_completion.set = no
"""


class Rtorrent(Client):
    """rtorrent. It knows no uTP."""

    name = "rtorrent"
    executable = find_program("rtorrent")
    version_option = "-h"
    transports = frozenset({Transport.TCP, Transport.MSE})

    async def seed(
        self, torrent: Path, data_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        await self._run(str(torrent), data_dir, port)

    async def leech(
        self, source: str, download_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        # Interop: it knows one hash of a magnet link, the last, and none but btih.
        source = re.sub("&xt=urn:btmh:[0-9a-f]+", "", source)
        await self._run(source, download_dir, port)

    async def wait_complete(self, *, timeout: float) -> None:
        async def ask() -> bool | None:
            downloads = await self._call("d.multicall2", "", "main", "d.complete=", "d.is_meta=")
            return True if downloads == [[1, 0]] else None

        await self.program.poll(ask, what="the download is complete", timeout=timeout)

    async def _run(self, source: str, directory: Path, port: int) -> None:
        session = self.scratch / "session"
        session.mkdir()
        configuration = self.scratch / "rtorrent.rc"
        configuration.write_text(
            _CONFIGURATION.format(
                address=self.place.address,
                directory=directory,
                encryption=_ENCRYPTION[self.transport],
                port=port,
                session=session,
                socket=self._socket,
            )
        )
        await self.start([self.executable, "-n", "-o", f"import={configuration}"])

        async def is_up() -> bool:
            await self._call("system.pid")
            return True

        await self.program.poll(is_up, what="the SCGI socket answers", timeout=_START_TIMEOUT)
        await self._call("load.start", "", source)

    @property
    def _socket(self) -> Path:
        # Limit: the path of a local socket has at most 107 bytes.
        return self.scratch / "scgi"

    async def _call(self, method: str, *arguments: str) -> Any:
        """
        Call one XML-RPC method (SCGI: a netstring of headers, then the body).

        Raises:
            OSError: the socket is not there yet.
            InteropError: rtorrent answered with a fault.
        """
        body = xmlrpc.client.dumps(arguments, method).encode()
        headers = f"CONTENT_LENGTH\0{len(body)}\0SCGI\x001\0".encode()
        reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            writer.write(b"%d:%s,%s" % (len(headers), headers, body))
            reply = await asyncio.wait_for(reader.read(), _CALL_TIMEOUT)
        finally:
            writer.close()
        _, _, document = reply.partition(b"\r\n\r\n")
        try:
            (result,), _ = xmlrpc.client.loads(document.decode())
        except xmlrpc.client.Fault as fault:
            raise InteropError(f"rtorrent: {method}: {fault.faultString}") from fault
        return result
