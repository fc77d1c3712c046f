"""Simulated machines: ports, refusals, silence, crashes, and what a connection costs."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable

import pytest

from bittern.core.endpoint import Endpoint
from bittern.core.errors import PeerTimeout
from bittern.net.stream import Network, Stream
from bittern.testing.host import SimHost
from bittern.testing.loop import Leak, VirtualLoop
from bittern.testing.network import Link, SimNetwork
from tests.conftest import Simulate
from tests.virtual_time import simulated

A, B = "10.0.0.1", "10.0.0.2"
SERVICE = Endpoint(A, 6881)


class Handler:
    """Notes how its stream ends."""

    def __init__(self, stream: Stream) -> None:
        self.ends: list[Exception | None] = []
        self.received = b""
        stream.start(self)

    def data_received(self, data: memoryview) -> None:
        self.received += data

    def writable(self) -> None:
        raise AssertionError("nothing here fills a buffer")

    def connection_lost(self, reason: Exception | None) -> None:
        self.ends.append(reason)


class Place:
    """Two hosts, and what ``a`` accepted."""

    def __init__(self, loop: VirtualLoop, *, delay: float = 0.1) -> None:
        self.loop = loop
        self.network = SimNetwork(loop, link=Link(delay=delay), is_traced=True)
        self.a = self.network.add_host(A, "2001:db8::1")
        self.b = self.network.add_host(B)
        self.accepted: list[Stream] = []
        self.accepted_at: list[float] = []

    def accept(self, stream: Stream) -> None:
        self.accepted.append(stream)
        self.accepted_at.append(self.loop.time())


# --- connecting ------------------------------------------------------------------------------


@simulated
async def test_a_connection_that_ends_before_it_is_accepted_is_no_leak_of_the_listener(
    loop: VirtualLoop,
) -> None:
    place = Place(loop)
    listener = place.a.listen(A, 6881, place.accept)
    stream = await place.b.connect(SERVICE, timeout=1)
    assert place.a.open_things() == [listener]
    stream.close()
    listener.close()


@simulated
async def test_connecting_takes_two_delays_and_accepting_three(loop: VirtualLoop) -> None:
    place = Place(loop)
    network: Network = place.b
    listener = place.a.listen(A, 6881, place.accept)
    stream = await network.connect(SERVICE, timeout=1)
    assert loop.time() == pytest.approx(0.2)
    stream.send(b"hello")
    handler = Handler(stream)
    await asyncio.sleep(1)
    assert place.accepted_at == [pytest.approx(0.3)]
    server = Handler(place.accepted[0])
    await asyncio.sleep(1)
    assert server.received == b"hello"
    place.accepted[0].close()
    await asyncio.sleep(1)
    assert handler.ends == [None]
    listener.close()
    assert place.network.attempts == {SERVICE: 1}


def closed(place: Place) -> None:
    place.a.listen(A, 6881, place.accept).close()


def other_address(place: Place) -> None:
    place.a.listen("2001:db8::1", 6881, place.accept)


def other_port(place: Place) -> None:
    place.a.listen(A, 6882, place.accept)


@pytest.mark.parametrize("arrange", [lambda place: None, closed, other_address, other_port])
@simulated(check_leaks=False)
async def test_nobody_listens(loop: VirtualLoop, arrange: Callable[[Place], None]) -> None:
    place = Place(loop)
    arrange(place)
    with pytest.raises(ConnectionRefusedError, match=r"nobody listens at 10\.0\.0\.1:6881"):
        await place.b.connect(SERVICE, timeout=5)
    assert loop.time() == pytest.approx(0.2)


def vanished(place: Place) -> None:
    place.a.vanish()


def firewalled(place: Place) -> None:
    place.a.is_reachable = False


def cut_off(place: Place) -> None:
    place.network.cut(place.a, place.b)


def cut_off_on_the_way(place: Place) -> None:
    place.loop.call_later(0.15, place.network.cut, place.a, place.b)


def vanished_on_the_way(place: Place) -> None:
    place.loop.call_later(0.05, place.a.vanish)


@pytest.mark.parametrize(
    "arrange", [vanished, firewalled, cut_off, cut_off_on_the_way, vanished_on_the_way]
)
@simulated
async def test_silence_ends_in_a_timeout(
    loop: VirtualLoop, arrange: Callable[[Place], None]
) -> None:
    place = Place(loop)
    listener = place.a.listen(A, 6881, place.accept)
    arrange(place)
    with pytest.raises(PeerTimeout, match=r"no answer from 10\.0\.0\.1:6881 in 5 s"):
        await place.b.connect(SERVICE, timeout=5)
    assert loop.time() == 5.0
    assert not place.accepted
    listener.close()


@simulated
async def test_an_address_that_nobody_has_is_silent(loop: VirtualLoop) -> None:
    with pytest.raises(PeerTimeout):
        await Place(loop).b.connect(Endpoint("10.9.9.9", 1), timeout=5)


@simulated
async def test_an_address_of_another_family_is_out_of_reach(loop: VirtualLoop) -> None:
    with pytest.raises(OSError) as caught:
        await Place(loop).b.connect(Endpoint("2001:db8::1", 1), timeout=5)
    assert caught.value.errno == errno.ENETUNREACH


@simulated
async def test_a_host_without_a_route_in_can_still_connect_out(loop: VirtualLoop) -> None:
    place = Place(loop)
    place.b.is_reachable = False
    place.a.listen(A, 6881, place.accept)
    stream = await place.b.connect(SERVICE, timeout=5)
    await asyncio.sleep(1)
    handler = Handler(stream)
    place.accepted[0].send(b"hello")
    await asyncio.sleep(1)
    assert handler.received == b"hello"
    place.a.crash()
    await asyncio.sleep(1)


@simulated
async def test_a_listener_that_closes_on_the_way_resets_the_connection(loop: VirtualLoop) -> None:
    place = Place(loop)
    listener = place.a.listen(A, 6881, place.accept)
    stream = await place.b.connect(SERVICE, timeout=5)
    handler = Handler(stream)
    listener.close()
    await asyncio.sleep(1)
    assert isinstance(handler.ends[0], ConnectionResetError)
    assert not place.accepted


@simulated
async def test_a_listener_that_closes_before_the_answer_refuses(loop: VirtualLoop) -> None:
    place = Place(loop)
    listener = place.a.listen(A, 6881, place.accept)
    loop.call_later(0.15, listener.close)
    with pytest.raises(ConnectionRefusedError):
        await place.b.connect(SERVICE, timeout=5)


@pytest.mark.parametrize("cancelled_at", [0.05, 0.15, 0.2, 0.25])
@simulated
async def test_a_cancelled_attempt_leaves_nothing_open(
    loop: VirtualLoop, cancelled_at: float
) -> None:
    """Also at the very instant of success, when nobody else could close the stream."""
    place = Place(loop)
    listener = place.a.listen(A, 6881, place.accept)
    connecting = loop.create_task(place.b.connect(SERVICE, timeout=5))

    def cancel_soon() -> None:
        # Set late, so that at equal instants it comes after the answer.
        loop.call_at(cancelled_at, connecting.cancel)

    loop.call_at(cancelled_at - 0.01, cancel_soon)
    await asyncio.sleep(1)
    if cancelled_at > 0.2:
        connecting.result().close()
    else:
        assert connecting.cancelled()
    for stream in place.accepted:
        Handler(stream)
    await asyncio.sleep(1)
    listener.close()


@simulated
async def test_a_host_reaches_itself_without_delay(loop: VirtualLoop) -> None:
    place = Place(loop)
    listener = place.a.listen(A, 6881, place.accept)
    stream = await place.a.connect(SERVICE, timeout=5)
    assert loop.time() == 0.0
    await asyncio.sleep(1)
    stream.close()
    place.accepted[0].close()
    listener.close()


# --- ports -----------------------------------------------------------------------------------


@simulated
async def test_any_free_port_is_found_and_a_taken_one_is_refused(loop: VirtualLoop) -> None:
    place = Place(loop)
    first = place.a.listen("0.0.0.0", 0, place.accept)
    second = place.a.listen("0.0.0.0", 0, place.accept)
    assert first.endpoint.host == "0.0.0.0"
    assert 0 < first.endpoint.port != second.endpoint.port > 0
    with pytest.raises(OSError) as caught:
        place.a.listen(A, first.endpoint.port, place.accept)
    assert caught.value.errno == errno.EADDRINUSE
    third = place.a.listen("::", first.endpoint.port, place.accept)
    first.close()
    first.close()
    place.a.listen(A, first.endpoint.port, place.accept).close()
    second.close()
    third.close()


@simulated
async def test_an_address_of_somebody_else_is_refused(loop: VirtualLoop) -> None:
    place = Place(loop)
    for address in (B, "::1"):
        with pytest.raises(OSError) as caught:
            place.a.listen(address, 6881, place.accept)
        assert caught.value.errno == errno.EADDRNOTAVAIL
    with pytest.raises(OSError):
        place.b.listen("::", 6881, place.accept)


# --- faults ----------------------------------------------------------------------------------


async def connected(place: Place) -> tuple[Handler, Handler]:
    """Return handlers of ``b``'s and ``a``'s side."""
    place.a.listen(A, 6881, place.accept)
    ours = Handler(await place.b.connect(SERVICE, timeout=5))
    await asyncio.sleep(1)
    return ours, Handler(place.accepted[0])


@simulated
async def test_a_crash_resets_the_peers_and_frees_the_ports(loop: VirtualLoop) -> None:
    place = Place(loop)
    ours, theirs = await connected(place)
    place.a.open_datagrams(A, 6881, lambda data, source: None)
    place.a.crash()
    await asyncio.sleep(1)
    assert isinstance(ours.ends[0], ConnectionResetError)
    assert theirs.ends == []
    with pytest.raises(ConnectionRefusedError):
        await place.b.connect(SERVICE, timeout=5)
    place.a.listen(A, 6881, place.accept).close()


@simulated
async def test_a_host_that_vanishes_is_silent_from_then_on(loop: VirtualLoop) -> None:
    place = Place(loop)
    ours, theirs = await connected(place)
    stream = next(iter(place.b.streams))
    stream.send(b"on the way")
    place.a.vanish()
    stream.send(b"and later")
    await asyncio.sleep(1000)
    assert ours.ends == theirs.ends == []
    assert theirs.received == b""
    stream.close()


@simulated
async def test_a_host_that_vanishes_while_it_connects(loop: VirtualLoop) -> None:
    place = Place(loop)
    listener = place.a.listen(A, 6881, place.accept)
    loop.call_later(0.15, place.b.vanish)
    with pytest.raises(PeerTimeout):
        await place.b.connect(SERVICE, timeout=5)
    listener.close()
    assert not place.accepted


# --- leaks -----------------------------------------------------------------------------------


async def leave_stream(place: Place) -> None:
    await connected(place)


async def leave_listener(place: Place) -> None:
    place.a.listen("0.0.0.0", 6881, place.accept)


async def leave_datagrams(place: Place) -> None:
    place.a.open_datagrams("0.0.0.0", 6881, lambda data, source: None)


@pytest.mark.parametrize(
    ("leave", "text"),
    [
        (leave_stream, r"open <SimStream 10\.0\.0\.2:\d+ to 10\.0\.0\.1:6881>"),
        (leave_listener, r"open <SimListener 0\.0\.0\.0:6881 of 10\.0\.0\.1>"),
        (leave_datagrams, r"open <SimDatagrams 0\.0\.0\.0:6881 of 10\.0\.0\.1>"),
    ],
)
def test_what_is_left_open_is_a_leak_unless_the_host_is_gone(
    leave: Callable[[Place], Awaitable[None]], text: str, simulate: Simulate
) -> None:
    async def main(loop: VirtualLoop, *, vanish: bool) -> None:
        place = Place(loop)
        await leave(place)
        if vanish:
            hosts: list[SimHost] = [place.a, place.b]
            for host in hosts:
                host.vanish()

    with pytest.raises(Leak, match=text):
        simulate(lambda loop: main(loop, vanish=False))
    simulate(lambda loop: main(loop, vanish=True))
