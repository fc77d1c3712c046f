"""HTTP to a program under test, wherever it lives, with the standard library alone."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Mapping
from dataclasses import dataclass

from tests.interop.place import Place

_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete HTTP reply; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Connection(http.client.HTTPConnection):
    """An HTTP connection whose socket is made inside a place."""

    def __init__(self, place: Place, host: str, port: int) -> None:
        super().__init__(host, port, timeout=_TIMEOUT)
        self._place = place

    def connect(self) -> None:
        self.sock = self._place.socket()
        self.sock.settimeout(_TIMEOUT)
        self.sock.connect((self.host, self.port))


async def request(
    place: Place,
    method: str,
    host: str,
    port: int,
    target: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """
    Send one request from inside a place.

    Raises:
        OSError: nobody listens there, or the connection failed half way.
    """

    def send() -> Reply:
        connection = _Connection(place, host, port)
        try:
            connection.request(method, target, body, dict(headers or {}))
            response = connection.getresponse()
            names = {key.lower(): value for key, value in response.getheaders()}
            return Reply(response.status, names, response.read())
        except http.client.HTTPException as error:
            raise OSError(f"{method} {target}: {error}") from error
        finally:
            connection.close()

    return await asyncio.to_thread(send)
