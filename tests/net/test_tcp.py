"""net.tcp: what only TCP does: one buffer, source addresses, timeouts, descriptors (F13)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bittern.core.endpoint import Endpoint
from bittern.core.errors import PeerTimeout
from bittern.net import tcp
from bittern.net.stream import Stream
from bittern.net.tcp import ACCEPTS_PER_WAKEUP, TcpListener, TcpNetwork, TcpStream


class Sink:
    """A handler that notes what comes, and lets a test wait for it."""

    def __init__(self) -> None:
        self.received = b""
        self.sizes: list[int] = []
        self.ends: list[Exception | None] = []
        self.on_writable: Callable[[], None] = lambda: None
        self._news = asyncio.Event()

    def data_received(self, data: memoryview) -> None:
        self.received += data
        self.sizes.append(len(data))
        self._news.set()

    def writable(self) -> None:
        self._news.set()
        self.on_writable()

    def connection_lost(self, reason: Exception | None) -> None:
        self.ends.append(reason)
        self._news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._news.clear()
                await self._news.wait()


class Counter(Sink):
    """Counts bytes and keeps none."""

    num_received = 0

    def data_received(self, data: memoryview) -> None:
        self.num_received += len(data)


async def rest() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def connected(
    network: TcpNetwork, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[TcpStream, TcpStream]]:
    """Yield both ends of a connection of one network to itself."""
    accepted: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
    listener = network.listen(host, 0, accepted.set_result)
    ours = await network.connect(listener.endpoint, timeout=5)
    theirs = cast("TcpStream", await accepted)
    listener.close()
    try:
        yield ours, theirs
    finally:
        ours.close()
        theirs.close()


# --- streams ---------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_both_families(host: str) -> None:
    async with connected(TcpNetwork(), host) as (ours, theirs):
        assert ours.remote.host == theirs.local.host == host
        assert ours.local == theirs.remote
        sink = Sink()
        theirs.start(sink)
        ours.send(b"hello")
        await sink.until(lambda: sink.received == b"hello")
    assert ours.local == Endpoint("0.0.0.0", 0)


async def test_the_buffer_is_the_most_that_one_wake_up_delivers() -> None:
    async with connected(TcpNetwork(receive_buffer_length=10)) as (ours, theirs):
        ours.send(b"0123456789abcdefghijxyz")
        sink = Sink()
        theirs.start(sink)
        await sink.until(lambda: len(sink.received) == 23)
        assert sink.sizes == [10, 10, 3]


async def test_all_streams_of_a_network_share_one_buffer() -> None:
    kept: list[memoryview] = []

    class Keeper(Sink):
        def data_received(self, data: memoryview) -> None:
            kept.append(data)
            super().data_received(data)

    network = TcpNetwork()
    sink, other = Keeper(), Keeper()
    async with connected(network) as (a, b), connected(network) as (c, d):
        b.start(sink)
        a.send(b"aaaa")
        await sink.until(lambda: sink.received)
        d.start(other)
        c.send(b"cc")
        await other.until(lambda: other.received)
    assert bytes(kept[0]) == b"ccaa", "valid only until data_received returns"


async def test_small_messages_do_not_wait_for_acknowledgements() -> None:
    async with connected(TcpNetwork()) as pair:
        for stream in pair:
            sock = cast("socket.socket", stream._sock)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not sock.getblocking()


async def test_pauses_and_an_orderly_end() -> None:
    async with connected(TcpNetwork()) as (ours, theirs):
        sink = Sink()
        theirs.start(sink)
        theirs.pause_reading()
        theirs.pause_reading()
        ours.send(b"data")
        ours.close()
        await rest()
        assert (sink.received, sink.ends) == (b"", [])
        theirs.resume_reading()
        await sink.until(lambda: sink.ends)
        assert (sink.received, sink.ends) == (b"data", [None])
        assert theirs.send(b"taken") == ours.send(b"taken") == 5


def reset(stream: TcpStream) -> None:
    """Close the socket of a stream that was not started so that the other side gets an RST."""
    sock = cast("socket.socket", stream._sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    stream._sock = None


@pytest.mark.parametrize("does_send", [True, False])
async def test_a_reset_is_found_when_reading_or_sending(does_send: bool) -> None:
    async with connected(TcpNetwork()) as (ours, theirs):
        sink = Sink()
        reset(ours)
        if does_send:
            assert theirs.send(b"taken") == 5
        theirs.start(sink)
        await sink.until(lambda: sink.ends)
        await rest()
        [reason] = sink.ends
        assert isinstance(reason, ConnectionResetError)


async def test_an_error_that_a_stream_finds_before_its_start_is_kept_for_its_handler() -> None:
    async with connected(TcpNetwork()) as (ours, theirs):
        sink = Sink()
        reset(ours)
        assert theirs.send(b"taken") == 5
        await rest()
        theirs.start(sink)
        await sink.until(lambda: sink.ends)


async def test_a_stream_may_be_closed_where_it_hears_of_room() -> None:
    async with connected(TcpNetwork()) as (ours, theirs):
        sink, source = Counter(), Sink()
        source.on_writable = ours.close
        while ours.send(bytes(1 << 20)):
            await rest()
        ours.start(source)
        theirs.start(sink)
        await sink.until(lambda: sink.ends == [None])
        assert source.ends == []


async def test_a_wake_up_for_nothing_is_harmless() -> None:
    async with connected(TcpNetwork()) as (ours, theirs):
        sink = Sink()
        ours.start(sink)
        ours._read()
        ours.resume_reading()
        theirs.send(b"x")
        await sink.until(lambda: sink.received == b"x")
        assert sink.ends == []


async def test_a_sender_that_fills_the_socket_again_stays_watched() -> None:
    async with connected(TcpNetwork()) as (ours, theirs):
        sink, source = Counter(), Sink()
        ours.start(source)
        data, total = bytes(1 << 20), 0

        def push() -> None:
            nonlocal total
            sent = len(data)
            while sent == len(data) and total < 64 << 20:
                sent = ours.send(data)
                total += sent

        source.on_writable = push
        push()
        assert total < 64 << 20
        theirs.start(sink)
        await source.until(lambda: total >= 64 << 20)
        ours.close()
        await sink.until(lambda: sink.ends == [None])
        assert sink.num_received == total


async def test_an_error_in_a_handler_does_not_leave_the_loop_spinning() -> None:
    """A socket that stays watched for room would wake the loop for ever."""
    async with connected(TcpNetwork()) as (ours, theirs):
        sink, source = Sink(), Sink()
        ours.start(source)
        calls: list[int] = []
        errors: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))

        def fail() -> None:
            calls.append(1)
            raise ZeroDivisionError

        source.on_writable = fail
        while ours.send(bytes(1 << 20)):
            pass
        theirs.start(sink)
        await source.until(lambda: calls)
        await rest()
        assert len(calls) == len(errors) == 1


# --- connecting ------------------------------------------------------------------------------


async def test_the_source_address_is_ours_to_choose() -> None:
    async with connected(TcpNetwork(source_hosts=("127.0.0.2",))) as (ours, theirs):
        assert theirs.remote.host == ours.local.host == "127.0.0.2"
    async with connected(TcpNetwork(source_hosts=("127.0.0.2",)), "::1") as (_, theirs):
        assert theirs.remote.host == "::1", "an address of the other family does not apply"
    with pytest.raises(OSError, match="assign"):
        await TcpNetwork(source_hosts=("192.0.2.1",)).connect(Endpoint("127.0.0.1", 9), timeout=1)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second loopback address")
async def test_of_several_source_addresses_the_one_on_the_way_is_chosen() -> None:
    hosts = ("127.0.0.3", "127.0.0.1", "::1")
    async with connected(TcpNetwork(source_hosts=hosts)) as (_, theirs):
        assert theirs.remote.host == "127.0.0.1", "as the system would choose"
    async with connected(TcpNetwork(source_hosts=("127.0.0.3", "127.0.0.2"))) as (_, theirs):
        assert theirs.remote.host == "127.0.0.3", "the system would choose none of them"


@contextlib.contextmanager
def full_listener() -> Iterator[Endpoint]:
    """Yield where connections are neither accepted nor refused: the queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield Endpoint(*address)


async def test_no_answer_is_a_timeout() -> None:
    with (
        full_listener() as endpoint,
        pytest.raises(PeerTimeout, match=rf"no connection to {endpoint} within 0\.05 s"),
    ):
        await TcpNetwork().connect(endpoint, timeout=0.05)


async def test_a_cancelled_connection_leaves_no_socket() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    with full_listener() as endpoint:
        task = asyncio.ensure_future(TcpNetwork().connect(endpoint, timeout=5))
        await rest()
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert set(Path("/proc/self/fd").iterdir()) == before


def dial(listener: TcpListener) -> socket.socket:
    return socket.create_connection((listener.endpoint.host, listener.endpoint.port))


# --- listening -------------------------------------------------------------------------------


async def test_a_listener_for_ipv6_leaves_the_port_of_ipv4_alone() -> None:
    network = TcpNetwork()
    first = network.listen("::", 0, lambda stream: stream.close())
    second = network.listen("0.0.0.0", first.endpoint.port, lambda stream: stream.close())
    assert second.endpoint == Endpoint("0.0.0.0", first.endpoint.port)
    first.close()
    second.close()


@pytest.mark.parametrize(("platform", "is_reused"), [("linux", True), ("win32", False)])
async def test_a_port_is_reused_at_once_but_never_shared(
    platform: str, is_reused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows the same option would let two programs listen on one port."""
    monkeypatch.setattr(tcp, "sys", SimpleNamespace(platform=platform))
    listener = TcpNetwork().listen("127.0.0.1", 0, lambda stream: stream.close())
    sock = cast("socket.socket", listener._sock)
    assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) == is_reused
    with pytest.raises(OSError, match="in use"):
        TcpNetwork().listen("127.0.0.1", listener.endpoint.port, lambda stream: stream.close())
    listener.close()


async def test_many_connections_at_once_are_accepted_in_turns() -> None:
    accepted: list[Stream] = []
    network = TcpNetwork()
    listener = network.listen("127.0.0.1", 0, accepted.append)
    count = ACCEPTS_PER_WAKEUP + 10
    socks = [socket.socket() for _ in range(count)]
    for sock in socks:
        sock.setblocking(False)
        sock.connect_ex(tuple(listener.endpoint))
    seen: list[int] = []
    async with asyncio.timeout(5):
        while len(accepted) < count:
            await asyncio.sleep(0)
            seen.append(len(accepted))
    assert ACCEPTS_PER_WAKEUP in seen
    listener.close()
    for sock in socks:
        sock.close()
    for stream in accepted:
        stream.close()


async def test_a_listener_that_is_closed_while_accepting_stops() -> None:
    accepted: list[Stream] = []

    def accept(stream: Stream) -> None:
        accepted.append(stream)
        listener.close()

    network = TcpNetwork()
    listener = network.listen("127.0.0.1", 0, accept)
    socks = [dial(listener) for _ in range(3)]
    await rest()
    assert len(accepted) == 1
    accepted[0].close()
    for sock in socks:
        sock.close()


class Accepted:
    """Keeps accepted streams and lets a test wait for the first."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self._news = asyncio.Event()

    def __call__(self, stream: Stream) -> None:
        self.streams.append(stream)
        self._news.set()

    async def first(self) -> Stream:
        async with asyncio.timeout(5):
            await self._news.wait()
        return self.streams[0]


class Starved(socket.socket):
    """A listening socket whose ``accept`` fails as told, then works."""

    def __init__(self, *errors: OSError) -> None:
        super().__init__()
        self.bind(("127.0.0.1", 0))
        self.listen(5)
        self.setblocking(False)
        self.errors = list(errors)
        self.num_calls = 0

    def accept(self) -> tuple[socket.socket, object]:
        self.num_calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return super().accept()


def listen_on(sock: socket.socket, accept: Callable[[Stream], None]) -> TcpListener:
    return TcpListener(sock, memoryview(bytearray(100)), accept, asyncio.get_running_loop())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EPERM])
async def test_f13_accepting_pauses_when_no_descriptor_is_left(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "ACCEPT_PAUSE", 0.01)
    sock, accepted = Starved(OSError(number, os.strerror(number))), Accepted()
    listener = listen_on(sock, accepted)
    with dial(listener):
        await rest()
        assert sock.num_calls == 1, "no busy loop while there is nothing to be done"
        stream = await accepted.first()
    listener.close()
    stream.close()


async def test_f13_a_listener_can_be_closed_while_it_pauses() -> None:
    sock = Starved(OSError(errno.EMFILE, "too many"))
    listener = listen_on(sock, Accepted())
    with dial(listener):
        await rest()
        listener.close()
        listener.close()
        assert sock.fileno() == -1


@pytest.mark.parametrize("error", [ConnectionAbortedError, ConnectionResetError])
async def test_a_connection_that_went_away_again_does_not_hold_up_the_next(
    error: type[OSError],
) -> None:
    accepted = Accepted()
    sock = Starved(error(), InterruptedError())
    listener = listen_on(sock, accepted)
    with dial(listener):
        stream = await accepted.first()
    listener.close()
    stream.close()
