"""
What the engine asks of a byte stream and of the network, whatever carries it.

TCP, an encrypted stream, uTP and the simulated network of ``bittern.testing``
all deliver into the same three callbacks, so nothing above knows the
transport. Everything runs on one event loop; no call blocks, no callback is
made from inside a call of the same stream's methods except where said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bittern.core.endpoint import Endpoint

Buffer = bytes | bytearray | memoryview


class StreamHandler(Protocol):
    """The receiving end of a stream: what ``Stream.start`` takes."""

    def data_received(self, data: memoryview) -> None:
        """Take bytes that arrived; ``data`` is valid until this call returns."""

    def writable(self) -> None:
        """Hear that there is room again after ``send`` took less than it was given."""

    def connection_lost(self, reason: Exception | None) -> None:
        """Hear, once, that the stream ended: None for an orderly end by the other side."""


class Stream(Protocol):
    """One connection. ``close`` is idempotent and never leads to ``connection_lost``."""

    @property
    def remote(self) -> Endpoint:
        """The other side's address."""

    @property
    def local(self) -> Endpoint:
        """Our own address of this connection."""

    def start(self, handler: StreamHandler) -> None:
        """Begin to deliver; bytes that came earlier are kept until then. May replace a handler."""

    def send(self, data: Buffer) -> int:
        """
        Send as much of ``data`` as there is room for at once.

        Returns:
            Bytes taken, 0 to ``len(data)``; ``data`` may be reused at once. After a
            value below ``len(data)`` the handler's ``writable`` is called once there is
            room. An error is reported through ``connection_lost`` later, and the bytes
            count as taken.
        """

    def pause_reading(self) -> None:
        """Stop delivering until ``resume_reading``; idempotent."""

    def resume_reading(self) -> None:
        """Deliver again; idempotent."""

    def close(self) -> None:
        """Close at once; what was taken by ``send`` is still delivered where possible."""


class Listener(Protocol):
    """A listening socket."""

    @property
    def endpoint(self) -> Endpoint:
        """The address listened on, with the real port."""

    def close(self) -> None:
        """Stop listening; streams already accepted live on."""


class Network(Protocol):
    """Where streams come from."""

    async def connect(self, endpoint: Endpoint, *, timeout: float) -> Stream:
        """Connect, within ``timeout`` seconds; PeerTimeout or OSError when it fails."""

    def listen(self, host: str, port: int, accept: Callable[[Stream], None]) -> Listener:
        """Listen on ``host`` and ``port`` (0 = any free); OSError if it is taken."""
