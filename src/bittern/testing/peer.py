"""
A scripted peer: says exactly what a test tells it to, and waits for what it expects.

It runs over any ``net.stream.Stream``, real or simulated, keeps no rules and
corrects nothing, so it can send half messages, lies and garbage. Every wait has
a deadline; when one fails, the error says what was expected and what came
instead.

    peer = await ScriptedPeer.connect(network, endpoint)
    peer.send_handshake(info_hash)
    await peer.expect_handshake()
    peer.send(wire.UNCHOKE)
    request = await peer.expect(MessageId.REQUEST)

Sources: BEP 3 (handshake, messages); threats.md section 2.2, whose tests this is for.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Self

from bittern.codec import wire
from bittern.codec.wire import Handshake, MessageId, Reserved
from bittern.core.endpoint import Endpoint
from bittern.core.errors import WireDecodeError
from bittern.net.stream import Buffer, Listener, Network, Stream

DEFAULT_TIMEOUT = 10.0
"""Seconds that something expected may take to come."""
PEER_ID = b"-XX0000-scripted----"
_SHOWN = 8
"""Messages shown in an error."""


class ExpectationFailed(AssertionError):
    """What a script expected did not come."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came; a keep-alive has no id and no payload."""

    message_id: int | None
    payload: bytes = b""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The payload as 32-bit numbers, as of a have, request, cancel or reject; a rest is cut."""
        whole = len(self.payload) // 4 * 4
        return tuple(int.from_bytes(self.payload[at : at + 4], "big") for at in range(0, whole, 4))

    def __str__(self) -> str:
        if self.message_id is None:
            return "keep-alive"
        known = self.message_id in MessageId.__members__.values()
        name = MessageId(self.message_id).name.lower() if known else f"message {self.message_id}"
        if not self.payload:
            return name
        tail = f"... {len(self.payload)} bytes" if len(self.payload) > 16 else ""
        return f"{name} {self.payload[:16].hex()}{tail}"


class ScriptedPeer:
    """
    One connection under a test's control.

    Attributes:
        stream: for what this class does not do, as ``pause_reading``.
        received: bytes that came and were not taken as a handshake or message yet.
        messages: every message taken so far, the skipped ones as well.
        is_closed: the other side ended the stream, or we did.
        reason: what it ended with; None for an orderly end.
        num_received: bytes that came so far.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.received: bytearray = bytearray()
        self.messages: list[Message] = []
        self.is_closed: bool = False
        self.reason: Exception | None = None
        self.num_received: int = 0
        self._unsent = bytearray()
        self._changed = asyncio.Event()
        stream.start(self)

    @classmethod
    async def connect(
        cls, network: Network, endpoint: Endpoint, *, timeout: float = DEFAULT_TIMEOUT
    ) -> Self:
        """Connect to ``endpoint``; PeerTimeout or OSError when that fails."""
        return cls(await network.connect(endpoint, timeout=timeout))

    # --- net.stream.StreamHandler ------------------------------------------------------------

    def data_received(self, data: memoryview) -> None:
        """Keep what came."""
        self.received += data
        self.num_received += len(data)
        self._changed.set()

    def writable(self) -> None:
        """Send what had no room before."""
        self.send(b"")

    def connection_lost(self, reason: Exception | None) -> None:
        """Note how the stream ended."""
        self.is_closed = True
        self.reason = reason
        self._changed.set()

    # --- saying ------------------------------------------------------------------------------

    def send(self, data: Buffer) -> None:
        """Send any bytes; what finds no room is kept and follows."""
        self._unsent += data
        while self._unsent and (sent := self.stream.send(self._unsent)):
            del self._unsent[:sent]

    @property
    def num_unsent(self) -> int:
        """Bytes that found no room yet."""
        return len(self._unsent)

    def send_handshake(
        self, info_hash: bytes, peer_id: bytes = PEER_ID, reserved: Reserved | None = None
    ) -> None:
        """Send a handshake; lengths are not checked."""
        self.send(wire.encode_handshake(info_hash, peer_id, reserved or Reserved()))

    def send_message(
        self, message_id: int, payload: bytes = b"", *, length: int | None = None
    ) -> None:
        """
        Send a message.

        Args:
            message_id: 0..255, known or not.
            payload: what follows it.
            length: a false length prefix; None for the right one.
        """
        stated = 1 + len(payload) if length is None else length
        self.send(stated.to_bytes(4, "big") + bytes([message_id]) + payload)

    def close(self) -> None:
        """Close; idempotent."""
        self.is_closed = True
        self.stream.close()

    # --- hearing -----------------------------------------------------------------------------

    async def expect_handshake(self, *, timeout: float = DEFAULT_TIMEOUT) -> Handshake:
        """
        Wait for a handshake.

        Raises:
            ExpectationFailed: none came in time, or something else did.
        """
        await self._wait(
            lambda: len(self.received) >= wire.HANDSHAKE_LENGTH, timeout, "a handshake"
        )
        raw = bytes(self.received[: wire.HANDSHAKE_LENGTH])
        try:
            handshake = wire.decode_handshake(raw)
        except WireDecodeError:
            raise ExpectationFailed(f"expected a handshake, got {raw[:20]!r}...") from None
        del self.received[: wire.HANDSHAKE_LENGTH]
        return handshake

    async def receive(self, *, timeout: float = DEFAULT_TIMEOUT) -> Message:
        """
        Wait for the next message, whichever it is.

        Raises:
            ExpectationFailed: none came in time.
        """
        await self._wait(self._has_message, timeout, "a message")
        length = int.from_bytes(self.received[:4], "big")
        body = bytes(self.received[4 : 4 + length])
        del self.received[: 4 + length]
        message = Message(body[0], body[1:]) if body else Message(None)
        self.messages.append(message)
        return message

    async def expect(self, *wanted: int | None, timeout: float = DEFAULT_TIMEOUT) -> Message:
        """
        Wait for a message with one of the ids ``wanted``, skipping others.

        Raises:
            ExpectationFailed: none came in time; the text tells what came.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        first = len(self.messages)
        while True:
            try:
                message = await self.receive(timeout=end - loop.time())
            except ExpectationFailed as error:
                names = " or ".join(str(Message(number)) for number in wanted)
                came = [str(skipped) for skipped in self.messages[first:]]
                text = ", ".join(came[-_SHOWN:]) or "no message"
                raise ExpectationFailed(f"expected {names}, {text} came; {error}") from None
            if message.message_id in wanted:
                return message

    async def expect_next(self, wanted: int | None, *, timeout: float = DEFAULT_TIMEOUT) -> Message:
        """
        Wait for the next message, which must have the id ``wanted``.

        Raises:
            ExpectationFailed: none, or another one, came.
        """
        message = await self.receive(timeout=timeout)
        if message.message_id != wanted:
            raise ExpectationFailed(f"expected {Message(wanted)}, got {message}")
        return message

    async def expect_closed(self, *, timeout: float = DEFAULT_TIMEOUT) -> Exception | None:
        """
        Wait until the other side ends the stream; return what it ended with.

        Raises:
            ExpectationFailed: it is still open; the text tells what came.
        """
        try:
            await self._wait(lambda: False, timeout, "the end of the stream")
        except ExpectationFailed:
            if not self.is_closed:
                raise
        return self.reason

    async def expect_silence(self, seconds: float) -> None:
        """
        Wait ``seconds`` in which neither a byte nor the end may come.

        Raises:
            ExpectationFailed: something came.
        """
        before = self.num_received
        try:
            await self._wait(lambda: self.num_received > before, seconds, "silence")
        except ExpectationFailed:
            if not self.is_closed:
                return
        came = "the end" if self.is_closed else f"{self.num_received - before} bytes"
        raise ExpectationFailed(f"expected {seconds:g} s of silence, {came} came")

    async def serve(
        self,
        read: Callable[[int, int, int], bytes | None],
        *,
        also: Collection[int] = (),
    ) -> Message | None:
        """
        Answer requests until the stream ends, as a seed does.

        Args:
            read: gives the block of (index, begin, length), false if the test is about
                lies; None leaves a request unanswered.
            also: ids of messages to return for, so that the script goes on.

        Returns:
            The message of an id in ``also``, None at the end of the stream.
        """
        while True:
            try:
                message = await self.receive(timeout=math.inf)
            except ExpectationFailed:
                return None
            if message.message_id in also:
                return message
            if message.message_id == MessageId.REQUEST:
                index, begin, length = message.numbers
                block = read(index, begin, length)
                if block is not None:
                    self.send(wire.encode_piece(index, begin, block))

    def _has_message(self) -> bool:
        have = len(self.received)
        return have >= 4 and have >= 4 + int.from_bytes(self.received[:4], "big")

    async def _wait(self, is_there: Callable[[], bool], timeout: float, what: str) -> None:
        """Wait until ``is_there``; the end of the stream, or of the time, is a failure."""
        try:
            async with asyncio.timeout(None if timeout == math.inf else timeout):
                while not is_there():
                    if self.is_closed:
                        raise ExpectationFailed(f"expected {what}, the stream ended: {self.reason}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise ExpectationFailed(
                f"expected {what} within {timeout:g} s, {len(self.received)} bytes are there"
            ) from None

    def __repr__(self) -> str:
        return f"<ScriptedPeer {self.stream.local} to {self.stream.remote}>"


class ScriptedListener:
    """
    A listening port whose connections become scripted peers.

    Args:
        network: real or simulated.
        host: address to listen on.
        port: 0 for any free one.
    """

    def __init__(self, network: Network, host: str, port: int = 0) -> None:
        self._accepted: asyncio.Queue[ScriptedPeer] = asyncio.Queue()
        self._listener: Listener = network.listen(host, port, self._accept)

    @property
    def endpoint(self) -> Endpoint:
        """The address listened on, with the real port."""
        return self._listener.endpoint

    def _accept(self, stream: Stream) -> None:
        self._accepted.put_nowait(ScriptedPeer(stream))

    async def accept(self, *, timeout: float = DEFAULT_TIMEOUT) -> ScriptedPeer:
        """Wait for the next connection; ExpectationFailed if none comes in time."""
        try:
            return await asyncio.wait_for(self._accepted.get(), timeout)
        except TimeoutError:
            raise ExpectationFailed(
                f"nobody connected to {self.endpoint} within {timeout:g} s"
            ) from None

    def close(self) -> None:
        """Stop listening, and close the connections that nobody accepted."""
        self._listener.close()
        while not self._accepted.empty():
            self._accepted.get_nowait().close()
