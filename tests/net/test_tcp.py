"""TCP streams over loopback."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bittern.core.endpoint import Endpoint
from bittern.core.errors import PeerTimeout
from bittern.net.stream import Stream
from bittern.net.tcp import TcpListener, TcpNetwork, TcpStream


class Collector:
    """A handler that keeps what it hears."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost: list[Exception | None] = []
        self.was_writable = asyncio.Event()
        self.changed = asyncio.Event()

    def data_received(self, data: memoryview) -> None:
        self.data += data
        self.changed.set()

    def writable(self) -> None:
        self.was_writable.set()

    def connection_lost(self, reason: Exception | None) -> None:
        self.lost.append(reason)
        self.changed.set()

    async def until_length(self, length: int) -> None:
        while len(self.data) < length:
            self.changed.clear()
            await self.changed.wait()

    async def until_lost(self) -> None:
        while not self.lost:
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def pair(network: TcpNetwork) -> AsyncIterator[tuple[TcpStream, Stream]]:
    accepted: asyncio.Queue[Stream] = asyncio.Queue()
    listener = network.listen("127.0.0.1", 0, accepted.put_nowait)
    ours = await network.connect(listener.endpoint, timeout=5)
    theirs = await accepted.get()
    try:
        yield ours, theirs
    finally:
        ours.close()
        theirs.close()
        listener.close()


async def test_bytes_arrive_in_order_whatever_the_buffer() -> None:
    network = TcpNetwork(receive_buffer_length=1000)
    async with pair(network) as (ours, theirs):
        hears = Collector()
        theirs.start(hears)
        assert ours.remote == theirs.local
        assert theirs.remote == ours.local
        sent = bytes(range(256)) * 40
        assert ours.send(sent) == len(sent)
        await hears.until_length(len(sent))
        assert bytes(hears.data) == sent


async def test_a_full_socket_takes_a_part_and_says_when_there_is_room() -> None:
    async with pair(TcpNetwork()) as (ours, theirs):
        speaks, hears = Collector(), Collector()
        ours.start(speaks)
        whole = memoryview(bytes(64 << 20))
        taken = ours.send(whole)
        assert 0 < taken < len(whole)
        assert ours.send(whole) == 0
        theirs.start(hears)
        await speaks.was_writable.wait()
        assert ours.send(b"more") == 4
        await hears.until_length(taken + 4)
        assert hears.data[taken:] == b"more"


async def test_what_came_before_start_is_kept_and_a_handler_can_be_replaced() -> None:
    async with pair(TcpNetwork()) as (ours, theirs):
        first, second = Collector(), Collector()
        ours.send(b"early")
        theirs.start(first)
        await first.until_length(5)
        theirs.start(second)
        ours.send(b"late")
        await second.until_length(4)
        assert (bytes(first.data), bytes(second.data)) == (b"early", b"late")


async def test_nothing_is_delivered_while_paused() -> None:
    async with pair(TcpNetwork()) as (ours, theirs):
        hears = Collector()
        theirs.start(hears)
        theirs.pause_reading()
        theirs.pause_reading()
        ours.send(b"x")
        for _ in range(20):
            await asyncio.sleep(0)
        assert not hears.data
        theirs.resume_reading()
        theirs.resume_reading()
        await hears.until_length(1)


async def test_an_orderly_end_is_told_once_and_close_is_not() -> None:
    async with pair(TcpNetwork()) as (ours, theirs):
        speaks, hears = Collector(), Collector()
        ours.start(speaks)
        theirs.start(hears)
        ours.send(b"last words")
        ours.close()
        ours.close()
        await hears.until_lost()
        assert hears.lost == [None]
        assert bytes(hears.data) == b"last words"
        assert speaks.lost == []
        assert ours.send(b"nobody") == 6
        assert ours.local == Endpoint("0.0.0.0", 0)


async def test_a_reset_is_an_error() -> None:
    async with pair(TcpNetwork()) as (ours, theirs):
        hears = Collector()
        theirs.start(hears)
        sock = ours._sock
        assert sock is not None
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        ours._loop.remove_reader(sock.fileno())
        sock.close()
        ours._sock = None
        await hears.until_lost()
        assert isinstance(hears.lost[0], ConnectionResetError)


async def test_sending_into_a_reset_connection_is_told_later() -> None:
    async with pair(TcpNetwork()) as (ours, theirs):
        speaks = Collector()
        ours._handler = speaks
        assert isinstance(theirs, TcpStream)
        sock = theirs._sock
        assert sock is not None
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        while not speaks.lost:
            assert ours.send(b"x" * 100) == 100
            await asyncio.sleep(0)
        assert isinstance(speaks.lost[0], OSError)


async def test_nobody_listens() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            await TcpNetwork().connect(Endpoint("127.0.0.1", port), timeout=5)


async def test_a_connection_takes_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(loop, "sock_connect", never)
    with pytest.raises(PeerTimeout, match=r"127\.0\.0\.1:9"):
        await TcpNetwork().connect(Endpoint("127.0.0.1", 9), timeout=0.01)


async def test_a_port_in_use_is_an_error_and_leaves_no_socket() -> None:
    network = TcpNetwork()
    listener = network.listen("127.0.0.1", 0, lambda stream: stream.close())
    with pytest.raises(OSError) as caught:
        network.listen("127.0.0.1", listener.endpoint.port, lambda stream: stream.close())
    assert caught.value.errno == errno.EADDRINUSE
    listener.close()
    listener.close()


async def test_the_source_address_is_the_one_that_was_asked_for() -> None:
    network = TcpNetwork(source_host="127.0.0.1")
    async with pair(network) as (ours, _):
        assert ours.local.host == "127.0.0.1"


async def test_without_descriptors_accepting_pauses_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Limit: F13."""
    import bittern.net.tcp

    monkeypatch.setattr(bittern.net.tcp, "ACCEPT_PAUSE", 0.01)
    accepted: asyncio.Queue[Stream] = asyncio.Queue()

    class Exhausted(socket.socket):
        num_failures = 2

        def accept(self) -> tuple[socket.socket, tuple[str, int]]:
            if Exhausted.num_failures:
                Exhausted.num_failures -= 1
                raise OSError(errno.EMFILE, "too many open files")
            return super().accept()

    sock = Exhausted()
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    listener = TcpListener(
        sock, memoryview(bytearray(100)), accepted.put_nowait, asyncio.get_running_loop()
    )
    stream = await TcpNetwork().connect(listener.endpoint, timeout=5)
    other = await accepted.get()
    assert Exhausted.num_failures == 0
    for each in (stream, other, listener):
        each.close()
