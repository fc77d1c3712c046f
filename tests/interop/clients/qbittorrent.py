"""qbittorrent-nox without a display, driven through its Web API."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

from tests.interop import web
from tests.interop.clients.base import Client, Transport
from tests.interop.driver import find_program
from tests.interop.place import Endpoint
from tests.interop.process import InteropError

_START_TIMEOUT = 30.0
_HOST = "127.0.0.1"

# Values of Session\Encryption and Session\BTProtocol.
_ENCRYPTION = {Transport.TCP: 2, Transport.MSE: 1, Transport.UTP: 2}
_PROTOCOL = {Transport.TCP: "TCP", Transport.MSE: "TCP", Transport.UTP: "UTP"}

# States of a torrent that has everything; see "torrents/info" in the Web API's description.
_COMPLETE = frozenset({"uploading", "stalledUP", "forcedUP", "queuedUP", "pausedUP"})

_CONFIGURATION = """\
[LegalNotice]
Accepted=true

[BitTorrent]
Session\\AddTorrentPaused=false
Session\\BTProtocol={protocol}
Session\\DHTEnabled=false
Session\\DefaultSavePath={directory}
Session\\Encryption={encryption}
Session\\InterfaceAddress={address}
Session\\LSDEnabled=false
Session\\MultiConnectionsPerIp=true
Session\\PeXEnabled=false
Session\\Port={port}
Session\\QueueingSystemEnabled=false
Session\\SSRFMitigation=false
Session\\UseRandomPort=false

[Network]
PortForwardingEnabled=false

[Preferences]
Connection\\ResolvePeerCountries=false
General\\Locale=en
WebUI\\Address={host}
WebUI\\CSRFProtection=false
WebUI\\Enabled=true
WebUI\\HostHeaderValidation=false
WebUI\\LocalHostAuth=false
WebUI\\Port={web_port}
WebUI\\UseUPnP=false
"""


class Qbittorrent(Client):
    """qbittorrent-nox with a profile of its own."""

    name = "qbittorrent"
    has_v2 = True
    executable = find_program("qbittorrent-nox")
    transports = frozenset(Transport)
    dials_peers = True

    _web_port = 0

    async def seed(
        self, torrent: Path, data_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        await self._run(str(torrent), data_dir, port, peers, skip_checking="true")

    async def leech(
        self, source: str, download_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        await self._run(source, download_dir, port, peers)

    async def wait_complete(self, *, timeout: float) -> None:
        async def ask() -> bool | None:
            torrents = json.loads(await self._call("torrents/info"))
            return True if torrents and torrents[0]["state"] in _COMPLETE else None

        await self.program.poll(ask, what="the download is complete", timeout=timeout)

    async def _run(
        self,
        source: str,
        directory: Path,
        port: int,
        peers: Sequence[Endpoint],
        **options: str,
    ) -> None:
        self._web_port = self.place.free_port()
        configuration = self.scratch / "qBittorrent" / "config" / "qBittorrent.conf"
        configuration.parent.mkdir(parents=True)
        configuration.write_text(
            _CONFIGURATION.format(
                address=self.place.address,
                directory=directory,
                encryption=_ENCRYPTION[self.transport],
                host=_HOST,
                port=port,
                protocol=_PROTOCOL[self.transport],
                web_port=self._web_port,
            )
        )
        await self.start([self.executable, f"--profile={self.scratch}"])

        async def is_up() -> bool:
            await self._call("app/version")
            return True

        await self.program.poll(is_up, what="the Web API answers", timeout=_START_TIMEOUT)
        fields = {"savepath": str(directory), "root_folder": "true", **options}
        if source.startswith("magnet:"):
            await self._call("torrents/add", {"urls": source, **fields})
        else:
            await self._upload(Path(source), fields)
        if peers:
            torrents = await self.program.poll(
                self._torrents, what="the torrent is listed", timeout=_START_TIMEOUT
            )
            endpoints = "|".join(f"{host}:{number}" for host, number in peers)
            await self._call("torrents/addPeers", {"hashes": torrents, "peers": endpoints})

    async def _torrents(self) -> str | None:
        torrents = json.loads(await self._call("torrents/info"))
        return str(torrents[0]["hash"]) if torrents else None

    async def _upload(self, torrent: Path, fields: Mapping[str, str]) -> None:
        """Send a .torrent file as multipart form data (RFC 7578)."""
        boundary = "----interop-5c7f0b1e"
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        ]
        body = (
            "".join(parts).encode()
            + f"--{boundary}\r\nContent-Disposition: form-data; "
            'name="torrents"; filename="interop.torrent"\r\n'
            "Content-Type: application/x-bittorrent\r\n\r\n".encode()
            + torrent.read_bytes()
            + f"\r\n--{boundary}--\r\n".encode()
        )
        await self._post("torrents/add", body, f"multipart/form-data; boundary={boundary}")

    async def _call(self, method: str, fields: Mapping[str, str] | None = None) -> bytes:
        body = urlencode(fields or {}).encode()
        return await self._post(method, body, "application/x-www-form-urlencoded")

    async def _post(self, method: str, body: bytes, content_type: str) -> bytes:
        reply = await web.request(
            self.place,
            "POST",
            _HOST,
            self._web_port,
            f"/api/v2/{method}",
            body=body,
            headers={"Content-Type": content_type},
        )
        if reply.status != 200 or reply.body == b"Fails.":
            raise InteropError(f"qbittorrent: {method}: {reply.status} {reply.body!r}")
        return reply.body
