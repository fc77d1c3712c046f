"""transmission-daemon, driven through its JSON-RPC."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.interop import web
from tests.interop.clients.base import Client, Transport
from tests.interop.driver import find_program
from tests.interop.place import Endpoint
from tests.interop.process import InteropError
from tests.interop.samples import CACHE

# Values of the setting "encryption".
_PREFER_PLAIN, _REQUIRED = 0, 2

# Value of the field "status" of a torrent.
_STATUS_SEEDING = 6

_START_TIMEOUT = 20.0


class Transmission(Client):
    """
    transmission-daemon.

    It refuses peers in 127.0.0.0/8 and cannot be told a peer, so it needs a namespace and a
    tracker. It cannot insist on uTP: it tries uTP first and then TCP. Version 3.00 does not
    create empty files.
    """

    name = "transmission"
    executable = "transmission-daemon"
    needs_namespace = True
    creates_empty_files = False
    transports = frozenset({Transport.TCP, Transport.MSE})

    _session_id = ""
    _rpc_port = 0

    @classmethod
    def knows(cls, torrent_version: str) -> bool:
        # Interop: before version 4 it takes an empty key, as in every file tree, for none.
        is_old = cls.version().startswith(("2.", "3."))
        return super().knows(torrent_version) and not (torrent_version == "hybrid" and is_old)

    async def seed(
        self, torrent: Path, data_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        await self._run(str(torrent), data_dir, port)

    async def leech(
        self, source: str, download_dir: Path, *, port: int, peers: Sequence[Endpoint] = ()
    ) -> None:
        await self._run(source, download_dir, port)

    async def wait_complete(self, *, timeout: float) -> None:
        async def ask() -> bool | None:
            fields = ["status", "leftUntilDone", "metadataPercentComplete", "errorString"]
            reply = await self._call("torrent-get", {"fields": fields})
            (torrent,) = reply["torrents"]
            is_done = torrent["status"] == _STATUS_SEEDING and torrent["leftUntilDone"] == 0
            return True if is_done and torrent["metadataPercentComplete"] == 1 else None

        await self.program.poll(ask, what="the download is complete", timeout=timeout)

    async def _run(self, source: str, directory: Path, port: int) -> None:
        self._rpc_port = self.place.free_port()
        settings = {
            "bind-address-ipv4": self.place.address,
            "bind-address-ipv6": "::1",
            "dht-enabled": False,
            "download-dir": str(directory),
            "encryption": _REQUIRED if self.transport is Transport.MSE else _PREFER_PLAIN,
            "lpd-enabled": False,
            "peer-port": port,
            "pex-enabled": False,
            "port-forwarding-enabled": False,
            "rename-partial-files": False,
            "rpc-bind-address": "127.0.0.1",
            "rpc-port": self._rpc_port,
            "rpc-whitelist-enabled": False,
            # It dials uTP first and falls back to TCP only after a long time.
            "utp-enabled": False,
        }
        (self.scratch / "settings.json").write_text(json.dumps(settings))
        await self.start(
            [
                *(self.executable, "--foreground", "--log-info", "--no-watch-dir"),
                *("--config-dir", str(self.scratch)),
            ]
        )

        async def is_up() -> bool:
            await self._call("session-get", {})
            return True

        await self.program.poll(is_up, what="the RPC server answers", timeout=_START_TIMEOUT)
        arguments: dict[str, Any] = {"download-dir": str(directory)}
        if source.startswith("magnet:"):
            arguments["filename"] = source
        else:
            arguments["metainfo"] = base64.b64encode(Path(source).read_bytes()).decode()
        await self._call("torrent-add", arguments)

    async def _call(self, method: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        body = json.dumps({"method": method, "arguments": arguments}).encode()
        # The first reply is 409 and carries the session id that later calls must repeat.
        for _ in range(2):
            reply = await web.request(
                self.place,
                "POST",
                "127.0.0.1",
                self._rpc_port,
                "/transmission/rpc",
                body=body,
                headers={"X-Transmission-Session-Id": self._session_id},
            )
            if reply.status != 409:
                break
            self._session_id = reply.headers["x-transmission-session-id"]
        if reply.status != 200:
            raise InteropError(f"transmission: {method}: {reply.status} {reply.body!r}")
        answer = json.loads(reply.body)
        if answer["result"] != "success":
            raise InteropError(f"transmission: {method}: {answer['result']}")
        result: Mapping[str, Any] = answer["arguments"]
        return result


class Transmission4(Transmission):
    """
    transmission-daemon 4.1, which reads hybrids as v1 torrents.

    ``setup.sh`` fetches it from a newer Debian than this one may be, with its own libraries.
    """

    name = "transmission4"
    executable = find_program(
        "transmission-daemon", str(CACHE / "transmission4" / "transmission-daemon")
    )
    creates_empty_files = True
