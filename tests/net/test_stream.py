"""
net.stream: what every ``Stream``, ``Listener`` and ``Network`` promises, whatever carries it.

The same tests run over TCP on the loopback interface, with asyncio and with uvloop, and over the
simulated network in virtual time.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar, cast

import pytest

from bittern.core.endpoint import Endpoint
from bittern.core.errors import PeerTimeout
from bittern.net.stream import Network, Stream
from bittern.net.tcp import TcpNetwork
from bittern.testing.loop import VirtualLoop, run
from bittern.testing.network import SimNetwork
from bittern.testing.stream import SimStream

T = TypeVar("T")

MANY = 16 << 20
"""More bytes than any transport takes at once."""


class World(Protocol):
    """A kind of network, seen from the machine that dials and the one that listens."""

    host: str
    dialler: Network
    listener: Network

    async def rest(self) -> None:
        """Let everything happen that is going to happen."""

    def reset(self, stream: Stream) -> None:
        """End a stream abruptly."""


class LoopbackWorld:
    """TCP on 127.0.0.1, where what was sent has arrived when ``send`` returns."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.dialler: Network = TcpNetwork()
        self.listener: Network = TcpNetwork()

    async def rest(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def reset(self, stream: Stream) -> None:
        sock = cast("socket.socket", cast("Any", stream)._sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        cast("Any", stream)._sock = None
        asyncio.get_running_loop().remove_reader(sock.fileno())
        sock.close()


class SimulatedWorld:
    """Two hosts in virtual time."""

    host = "10.0.0.1"

    def __init__(self, loop: VirtualLoop) -> None:
        network = SimNetwork(loop)
        self.listener: Network = network.add_host("10.0.0.1")
        self.dialler: Network = network.add_host("10.0.0.2")

    async def rest(self) -> None:
        await asyncio.sleep(100)

    def reset(self, stream: Stream) -> None:
        cast("SimStream", stream).reset()


Scene = Callable[[World], Coroutine[Any, Any, None]]
Play = Callable[[Scene], None]


def play_on_tcp(scene: Scene) -> None:
    async def main() -> None:
        await asyncio.wait_for(scene(LoopbackWorld()), 20)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())


def play_on_uvloop(scene: Scene) -> None:
    async def main() -> None:
        await asyncio.wait_for(scene(LoopbackWorld()), 20)

    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def play_in_simulation(scene: Scene) -> None:
    async def main(loop: VirtualLoop) -> None:
        await scene(SimulatedWorld(loop))

    run(main)


@pytest.fixture(params=[play_on_tcp, play_on_uvloop, play_in_simulation])
def play(request: pytest.FixtureRequest) -> Play:
    """Run a scene on one kind of network."""
    return cast("Play", request.param)


class Handler:
    """Notes everything; callbacks that come from inside one of our own calls are a failure."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ends: list[Exception | None] = []
        self.num_writable = 0
        self.is_calling = False
        self.on_data: Callable[[], None] = lambda: None
        self.on_writable: Callable[[], None] = lambda: None
        self._news = asyncio.Event()

    def data_received(self, data: memoryview) -> None:
        assert not self.is_calling
        assert data
        self.received += data
        self._news.set()
        self.on_data()

    def writable(self) -> None:
        assert not self.is_calling
        self.num_writable += 1
        self._news.set()
        self.on_writable()

    def connection_lost(self, reason: Exception | None) -> None:
        assert not self.is_calling
        self.ends.append(reason)
        self._news.set()

    async def until_received(self, count: int) -> None:
        """Wait for so many bytes."""
        await self.until(lambda: len(self.received) >= count)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something has happened to this handler."""
        while not condition():
            self._news.clear()
            await self._news.wait()


class Side:
    """One end of a connection, with its handler."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.handler = Handler()

    def start(self) -> None:
        self.call(lambda: self.stream.start(self.handler))

    def send(self, data: bytes | bytearray | memoryview) -> int:
        return self.call(lambda: self.stream.send(data))

    def call(self, what: Callable[[], T]) -> T:
        """Call the stream; it must not call back from inside."""
        self.handler.is_calling = True
        try:
            return what()
        finally:
            self.handler.is_calling = False


async def connect(world: World, *, starts: bool = True) -> tuple[Side, Side]:
    """Return the side that dialled and the one that was called."""
    accepted: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
    listener = world.listener.listen(world.host, 0, accepted.set_result)
    ours = Side(await world.dialler.connect(listener.endpoint, timeout=5))
    theirs = Side(await accepted)
    listener.close()
    if starts:
        ours.start()
        theirs.start()
    return ours, theirs


def scene(body: Callable[[World, Side, Side], Awaitable[None]]) -> Scene:
    """Make a scene of what happens between two connected sides."""

    async def play(world: World) -> None:
        ours, theirs = await connect(world)
        try:
            await body(world, ours, theirs)
        finally:
            for side in (ours, theirs):
                side.call(side.stream.close)
                side.call(side.stream.close)
            await world.rest()

    return play


def pump(side: Side, data: bytes) -> None:
    """Send all of ``data``, going on whenever there is room."""
    rest = memoryview(data)

    def push() -> None:
        nonlocal rest
        while rest:
            sent = side.stream.send(rest)
            assert 0 <= sent <= len(rest)
            is_full = sent < len(rest)
            rest = rest[sent:]
            if is_full:
                return

    side.handler.on_writable = push
    push()


# --- bytes -----------------------------------------------------------------------------------


def test_bytes_arrive_whole_and_in_order_both_ways(play: Play) -> None:
    @scene
    async def story(world: World, ours: Side, theirs: Side) -> None:
        rng = random.Random(1)
        there, back = rng.randbytes(2 << 20), rng.randbytes(1 << 20)
        pump(ours, there)
        pump(theirs, back)
        await theirs.handler.until(lambda: len(theirs.handler.received) == len(there))
        await ours.handler.until(lambda: len(ours.handler.received) == len(back))
        assert theirs.handler.received == there
        assert ours.handler.received == back

    play(story)


def test_what_was_taken_may_be_overwritten_at_once(play: Play) -> None:
    @scene
    async def story(world: World, ours: Side, theirs: Side) -> None:
        data = bytearray(b"abc")
        assert ours.send(data) == 3
        data[:] = b"xyz"
        await theirs.handler.until(lambda: theirs.handler.received)
        assert theirs.handler.received == b"abc"
        assert ours.send(b"") == 0

    play(story)


def test_bytes_that_came_before_the_start_are_kept(play: Play) -> None:
    async def story(world: World) -> None:
        ours, theirs = await connect(world, starts=False)
        assert ours.send(b"early") == 5
        theirs.stream.resume_reading()
        await world.rest()
        assert theirs.handler.received == b""
        theirs.start()
        await theirs.handler.until(lambda: theirs.handler.received == b"early")
        ours.stream.close()
        theirs.stream.close()

    play(story)


def test_a_handler_can_be_replaced(play: Play) -> None:
    @scene
    async def story(world: World, ours: Side, theirs: Side) -> None:
        first, second = theirs.handler, Handler()

        def replace() -> None:
            theirs.stream.start(second)

        first.on_data = replace
        ours.send(b"one")
        await first.until(lambda: first.received)
        ours.send(b"two")
        await second.until(lambda: second.received == b"two")
        assert first.received == b"one"
        ours.call(ours.stream.close)
        await second.until(lambda: second.ends)
        assert first.ends == []

    play(story)


# --- pausing ---------------------------------------------------------------------------------


def test_a_paused_stream_delivers_nothing(play: Play) -> None:
    @scene
    async def story(world: World, ours: Side, theirs: Side) -> None:
        theirs.call(theirs.stream.pause_reading)
        theirs.call(theirs.stream.pause_reading)
        ours.send(b"data")
        ours.call(ours.stream.close)
        await world.rest()
        assert theirs.handler.received == b""
        assert theirs.handler.ends == []
        theirs.call(theirs.stream.resume_reading)
        theirs.call(theirs.stream.resume_reading)
        await theirs.handler.until(lambda: theirs.handler.ends)
        assert theirs.handler.received == b"data"

    play(story)


def test_a_receiver_that_does_not_read_stops_its_sender(play: Play) -> None:
    @scene
    async def story(world: World, ours: Side, theirs: Side) -> None:
        data = bytes(MANY)
        theirs.call(theirs.stream.pause_reading)
        num_taken = ours.send(data)
        assert 0 < num_taken < MANY
        await world.rest()
        while num_more := ours.send(data[num_taken:]):
            num_taken += num_more
            await world.rest()
        assert num_taken < MANY
        num_before = ours.handler.num_writable
        await world.rest()
        assert ours.handler.num_writable == num_before
        theirs.call(theirs.stream.resume_reading)
        await ours.handler.until(lambda: ours.handler.num_writable > num_before)
        await theirs.handler.until(lambda: len(theirs.handler.received) == num_taken)
        await world.rest()
        assert ours.handler.num_writable == num_before + 1, "told once for one refusal"

    play(story)


def test_room_that_was_asked_for_before_the_start_is_told_after_it(play: Play) -> None:
    async def story(world: World) -> None:
        ours, theirs = await connect(world, starts=False)
        num_taken = 0
        while num_more := ours.send(bytes(MANY)):
            num_taken += num_more
            await world.rest()
        theirs.start()
        await theirs.handler.until(lambda: len(theirs.handler.received) == num_taken)
        ours.start()
        await ours.handler.until(lambda: ours.handler.num_writable)
        ours.stream.close()
        theirs.stream.close()

    play(story)


# --- the end ---------------------------------------------------------------------------------


def test_closing_delivers_what_was_taken_and_then_an_orderly_end(play: Play) -> None:
    @scene
    async def story(world: World, ours: Side, theirs: Side) -> None:
        num_taken = ours.send(bytes(100_000))
        ours.call(ours.stream.close)
        await theirs.handler.until(lambda: theirs.handler.ends)
        assert len(theirs.handler.received) == num_taken
        await world.rest()
        assert theirs.handler.ends == [None]
        assert ours.handler.ends == [], "who closes hears nothing more"

    play(story)


def test_a_stream_that_is_over_takes_everything_and_does_nothing(play: Play) -> None:
    @scene
    async def story(world: World, ours: Side, theirs: Side) -> None:
        ours.call(ours.stream.close)
        assert ours.send(b"lost") == 4
        for call in (ours.stream.pause_reading, ours.stream.resume_reading, ours.stream.close):
            ours.call(call)
        await theirs.handler.until(lambda: theirs.handler.ends)
        assert theirs.send(b"lost too") == 8
        theirs.call(theirs.stream.resume_reading)
        await world.rest()
        assert theirs.handler.ends == [None]
        assert ours.handler.ends == []
        assert ours.handler.received == theirs.handler.received == b""

    play(story)


def test_a_handler_may_close_its_stream(play: Play) -> None:
    @scene
    async def story(world: World, ours: Side, theirs: Side) -> None:
        theirs.handler.on_data = theirs.stream.close
        ours.send(b"close, please")
        await ours.handler.until(lambda: ours.handler.ends)
        ours.send(b"more")
        await world.rest()
        assert len(ours.handler.ends) == 1
        assert theirs.handler.received == b"close, please"
        assert theirs.handler.ends == []

    play(story)


def test_a_handler_may_close_its_stream_when_there_is_room(play: Play) -> None:
    @scene
    async def story(world: World, ours: Side, theirs: Side) -> None:
        ours.handler.on_writable = ours.stream.close
        assert ours.send(bytes(MANY)) < MANY
        await ours.handler.until(lambda: ours.handler.num_writable)
        await theirs.handler.until(lambda: theirs.handler.ends)
        assert ours.handler.num_writable == 1
        assert ours.handler.ends == []

    play(story)


def test_a_reset_is_an_error_that_is_told_once(play: Play) -> None:
    @scene
    async def story(world: World, ours: Side, theirs: Side) -> None:
        world.reset(ours.stream)
        await theirs.handler.until(lambda: theirs.handler.ends)
        assert theirs.send(b"taken") == 5
        await world.rest()
        [reason] = theirs.handler.ends
        assert isinstance(reason, ConnectionResetError)

    play(story)


def test_sending_into_a_broken_stream_counts_as_taken_and_is_told_later(play: Play) -> None:
    @scene
    async def story(world: World, ours: Side, theirs: Side) -> None:
        theirs.call(theirs.stream.pause_reading)
        world.reset(ours.stream)
        await world.rest()
        assert [theirs.send(b"taken") for _ in range(3)] == [5, 5, 5]
        assert theirs.handler.ends == []
        theirs.call(theirs.stream.resume_reading)
        await theirs.handler.until(lambda: theirs.handler.ends)
        await world.rest()
        assert len(theirs.handler.ends) == 1

    play(story)


def test_an_end_before_the_start_is_told_after_it(play: Play) -> None:
    async def story(world: World) -> None:
        ours, theirs = await connect(world, starts=False)
        world.reset(ours.stream)
        await world.rest()
        assert theirs.send(b"taken") == 5
        await world.rest()
        theirs.start()
        await theirs.handler.until(lambda: theirs.handler.ends)
        theirs.stream.close()

    play(story)


# --- addresses, listening, connecting --------------------------------------------------------


def test_both_sides_agree_on_the_addresses(play: Play) -> None:
    @scene
    async def story(world: World, ours: Side, theirs: Side) -> None:
        assert ours.stream.local == theirs.stream.remote
        assert ours.stream.remote == theirs.stream.local
        assert ours.stream.remote.host == world.host
        assert ours.stream.remote != ours.stream.local

    play(story)


def test_accepted_streams_outlive_the_listener_and_nobody_else_gets_in(play: Play) -> None:
    async def story(world: World) -> None:
        accepted: list[Stream] = []
        listener = world.listener.listen(world.host, 0, accepted.append)
        endpoint = listener.endpoint
        assert endpoint.host == world.host
        assert endpoint.port != 0
        with pytest.raises(OSError, match="in use"):
            world.listener.listen(world.host, endpoint.port, accepted.append)
        streams = [await world.dialler.connect(endpoint, timeout=5) for _ in range(3)]
        await world.rest()
        listener.close()
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            await world.dialler.connect(endpoint, timeout=5)
        assert [stream.local for stream in streams] == [stream.remote for stream in accepted]
        for number, (stream, side) in enumerate(zip(streams, map(Side, accepted), strict=True)):
            side.start()
            stream.send(bytes([number]))
            await side.handler.until_received(1)
            assert side.handler.received == bytes([number])
            stream.close()
            side.stream.close()

    play(story)


def test_nobody_answers() -> None:
    """Loopback always answers, so this is for the simulation; for TCP see ``test_tcp``."""

    async def story(world: World) -> None:
        began = asyncio.get_running_loop().time()
        with pytest.raises(PeerTimeout, match=r"10\.0\.0\.9:1"):
            await world.dialler.connect(Endpoint("10.0.0.9", 1), timeout=3)
        assert asyncio.get_running_loop().time() - began == 3

    play_in_simulation(story)


def test_a_wrong_address_is_refused_at_once(play: Play) -> None:
    async def story(world: World) -> None:
        with pytest.raises(OSError, match=r"192\.0\.2\.1|assign"):
            world.listener.listen("192.0.2.1", 0, lambda stream: None)

    play(story)
