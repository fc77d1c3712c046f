"""Simulated streams: contract of ``net.stream.Stream``, rates, windows, ends."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.endpoint import Endpoint
from bittern.net.stream import Stream
from bittern.testing.host import SimHost
from bittern.testing.loop import VirtualLoop, run
from bittern.testing.network import Link, SimNetwork
from bittern.testing.stream import MAX_WINDOW, SEND_BUFFER_LENGTH, SimStream
from tests.conftest import Simulate
from tests.virtual_time import simulated

PORT = 6881
LINK = Link(delay=0.01)


class Handler:
    """A stream handler that notes everything and can push a run of bytes."""

    def __init__(self, stream: Stream, to_send: bytes = b"") -> None:
        self.sizes: list[int] = []
        self.ends: list[Exception | None] = []
        self.num_writable = 0
        self.last_at = 0.0
        self.kept_views: list[memoryview] = []
        self._received: list[bytes] = []
        self._stream = stream
        self._to_send = memoryview(to_send)
        self._loop = asyncio.get_running_loop()
        stream.start(self)
        self._push()

    @property
    def received(self) -> bytes:
        return b"".join(self._received)

    def _push(self) -> None:
        while self._to_send:
            sent = self._stream.send(self._to_send)
            is_full = sent < len(self._to_send)
            self._to_send = self._to_send[sent:]
            if is_full:
                return

    def data_received(self, data: memoryview) -> None:
        self._received.append(bytes(data))
        self.sizes.append(len(data))
        self.kept_views.append(data)
        self.last_at = self._loop.time()

    def writable(self) -> None:
        self.num_writable += 1
        self._push()

    def connection_lost(self, reason: Exception | None) -> None:
        self.ends.append(reason)


class Pair:
    """Two hosts and one connection between them, from ``b`` to ``a``."""

    def __init__(
        self,
        loop: VirtualLoop,
        *,
        link: Link = LINK,
        upload_rate: float | None = None,
        download_rate: float | None = None,
    ) -> None:
        self.network = SimNetwork(loop, link=link, is_traced=True)
        self.a = self.network.add_host("10.0.0.1", download_rate=download_rate)
        self.b = self.network.add_host("10.0.0.2", upload_rate=upload_rate)
        self._listener = self.a.listen("10.0.0.1", PORT, self._accept)
        self._accepted: asyncio.Future[SimStream] = loop.create_future()

    def _accept(self, stream: Stream) -> None:
        assert isinstance(stream, SimStream)
        self._accepted.set_result(stream)

    async def connect(self) -> tuple[SimStream, SimStream]:
        """Return the side that dialled and the one that accepted."""
        ours = await self.b.connect(Endpoint("10.0.0.1", PORT), timeout=10)
        assert isinstance(ours, SimStream)
        theirs = await self._accepted
        self._listener.close()
        return ours, theirs


def close_all(*streams: Stream) -> None:
    for stream in streams:
        stream.close()
        stream.close()


# --- bytes -----------------------------------------------------------------------------------


@pytest.mark.slow
@given(
    runs=st.lists(st.integers(1, 200_000), min_size=1, max_size=5),
    jitter=st.sampled_from([0.0, 0.5]),
    upload_rate=st.sampled_from([None, 50_000.0, 1e6]),
    download_rate=st.sampled_from([None, 50_000.0, 1e6]),
    seed=st.integers(0, 1000),
)
def test_bytes_arrive_whole_and_in_order(
    runs: list[int],
    jitter: float,
    upload_rate: float | None,
    download_rate: float | None,
    seed: int,
) -> None:
    data = random.Random(seed).randbytes(sum(runs))

    async def main(loop: VirtualLoop) -> bytes:
        link = Link(delay=0.05, jitter=jitter)
        pair = Pair(loop, link=link, upload_rate=upload_rate, download_rate=download_rate)
        ours, theirs = await pair.connect()
        receiver, sender = Handler(theirs), Handler(ours)
        at = 0
        for length in runs:
            while length:
                sent = ours.send(data[at : at + length])
                at, length = at + sent, length - sent
                await asyncio.sleep(0.1)
        await asyncio.sleep(60)
        assert not sender.received
        close_all(ours, theirs)
        return receiver.received

    assert run(main, seed=seed) == data


@simulated
async def test_both_directions_at_once(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop, upload_rate=1e6).connect()
    here, there = Handler(ours, b"a" * 500_000), Handler(theirs, b"b" * 700_000)
    await asyncio.sleep(10)
    assert (here.received, there.received) == (b"b" * 700_000, b"a" * 500_000)
    close_all(ours, theirs)


@pytest.mark.parametrize(
    ("upload_rate", "download_rate"), [(1e5, None), (None, 1e5), (1e5, 1e6), (1e6, 1e5)]
)
def test_the_slower_line_sets_the_rate(
    upload_rate: float | None, download_rate: float | None, simulate: Simulate
) -> None:
    async def main(loop: VirtualLoop) -> float:
        pair = Pair(loop, upload_rate=upload_rate, download_rate=download_rate)
        ours, theirs = await pair.connect()
        began = loop.time()
        receiver = Handler(theirs)
        Handler(ours, bytes(2_000_000))
        await asyncio.sleep(60)
        close_all(ours, theirs)
        assert len(receiver.received) == 2_000_000
        return receiver.last_at - began

    assert simulate(main) == pytest.approx(20.0, rel=0.02)


@simulated
async def test_bytes_keep_their_order_when_a_line_loses_its_limit(loop: VirtualLoop) -> None:
    pair = Pair(loop, download_rate=10_000)
    ours, theirs = await pair.connect()
    receiver = Handler(theirs)
    ours.send(b"a" * 4_000)
    await asyncio.sleep(0.1)
    pair.a.download.rate = None
    ours.send(b"b" * 4_000)
    await asyncio.sleep(10)
    assert receiver.received == b"a" * 4_000 + b"b" * 4_000
    assert pair.a.download.total == 8_000
    close_all(ours, theirs)


@simulated
async def test_a_delay_is_kept_and_jitter_stays_inside_its_bounds(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop, link=Link(delay=0.2, jitter=0.1)).connect()
    receiver = Handler(theirs)
    for _ in range(50):
        sent_at = loop.time()
        ours.send(b"x")
        await asyncio.sleep(1)
        assert 0.2 <= receiver.last_at - sent_at <= 0.3
    close_all(ours, theirs)


@simulated
async def test_what_is_kept_of_received_data_is_overwritten(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop).connect()
    receiver = Handler(theirs)
    ours.send(b"payload")
    await asyncio.sleep(1)
    assert receiver.received == b"payload"
    assert bytes(receiver.kept_views[0]) == b"\xdd" * 7
    close_all(ours, theirs)


@simulated
async def test_the_sender_may_reuse_its_buffer_at_once(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop).connect()
    receiver = Handler(theirs)
    data = bytearray(b"payload")
    assert ours.send(memoryview(data)) == 7
    data[:] = b"garbage"
    assert ours.send(b"") == 0
    await asyncio.sleep(1)
    assert receiver.received == b"payload"
    close_all(ours, theirs)


# --- room and reading ------------------------------------------------------------------------


@simulated
async def test_send_takes_what_fits_and_writable_tells_of_room(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop, upload_rate=100_000).connect()
    Handler(theirs)
    handler = Handler(ours)
    first = ours.send(bytes(1_000_000))
    assert SEND_BUFFER_LENGTH <= first <= SEND_BUFFER_LENGTH + 65_536
    while sent := ours.send(bytes(1_000_000)):
        first += sent
    assert handler.num_writable == 0, "called from inside send"
    await asyncio.sleep(1)
    assert handler.num_writable == 0
    await asyncio.sleep(1)
    assert handler.num_writable == 1
    assert ours.send(bytes(1_000_000)) >= SEND_BUFFER_LENGTH // 2
    close_all(ours, theirs)


@simulated
async def test_room_is_told_even_if_the_line_drained_at_once(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop).connect()
    receiver = Handler(theirs)
    Handler(ours, bytes(5_000_000))
    await asyncio.sleep(5)
    assert len(receiver.received) == 5_000_000
    close_all(ours, theirs)


@simulated
async def test_room_that_came_before_the_start_is_told_after_it(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop).connect()
    Handler(theirs)
    assert ours.send(bytes(3_000_000)) < 3_000_000
    await asyncio.sleep(5)
    handler = Handler(ours)
    await asyncio.sleep(1)
    assert handler.num_writable == 1
    close_all(ours, theirs)


@simulated
async def test_a_receiver_that_does_not_read_stops_its_sender(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop).connect()
    receiver = Handler(theirs)
    theirs.pause_reading()
    theirs.pause_reading()
    handler = Handler(ours, bytes(10_000_000))
    await asyncio.sleep(60)
    assert not receiver.received
    assert handler.num_writable <= MAX_WINDOW // (SEND_BUFFER_LENGTH // 2) + 1
    stopped_at = handler.num_writable
    theirs.resume_reading()
    theirs.resume_reading()
    await asyncio.sleep(60)
    assert len(receiver.received) == 10_000_000
    assert handler.num_writable > stopped_at
    close_all(ours, theirs)


@simulated
async def test_bytes_from_before_the_start_are_kept_and_a_handler_may_be_replaced(
    loop: VirtualLoop,
) -> None:
    ours, theirs = await Pair(loop).connect()
    ours.send(b"early")
    await asyncio.sleep(1)
    first = Handler(theirs)
    assert not first.received, "delivered from inside start"
    await asyncio.sleep(1)
    second = Handler(theirs)
    ours.send(b"late")
    await asyncio.sleep(1)
    assert (first.received, second.received) == (b"early", b"late")
    close_all(ours, theirs)


class Pausing(Handler):
    """Stops reading after each delivery."""

    def data_received(self, data: memoryview) -> None:
        super().data_received(data)
        self._stream.pause_reading()


@simulated
async def test_a_pause_from_inside_a_delivery_counts_at_once(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop).connect()
    ours.send(b"a" * 65_536 + b"b" * 65_536)
    ours.close()
    receiver = Pausing(theirs)
    await asyncio.sleep(1)
    assert receiver.sizes == [65_536]
    theirs.resume_reading()
    await asyncio.sleep(1)
    assert receiver.sizes == [65_536, 65_536]
    assert receiver.ends == [], "the end came while reading was paused"
    theirs.resume_reading()
    await asyncio.sleep(1)
    assert receiver.ends == [None]


# --- ends ------------------------------------------------------------------------------------


@simulated
async def test_close_delivers_everything_and_then_the_end(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop, upload_rate=10_000).connect()
    receiver, handler = Handler(theirs), Handler(ours)
    ours.send(b"x" * 100_000)
    ours.close()
    theirs.send(b"too late for you")
    await asyncio.sleep(5)
    assert receiver.ends == []
    await asyncio.sleep(10)
    assert (len(receiver.received), receiver.ends) == (100_000, [None])
    assert (handler.received, handler.ends) == (b"", [])
    assert theirs.is_over
    assert theirs.send(b"into the void") == 13
    theirs.close()


@simulated
async def test_a_slow_receiver_gets_the_end_last_as_well(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop, download_rate=10_000).connect()
    receiver = Handler(theirs)
    ours.send(b"x" * 100_000)
    ours.close()
    await asyncio.sleep(15)
    assert (len(receiver.received), receiver.ends) == (100_000, [None])


@simulated
async def test_bytes_for_a_closed_stream_go_nowhere(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop).connect()
    handler, sender = Handler(ours), Handler(theirs, bytes(10_000_000))
    ours.close()
    await asyncio.sleep(5)
    assert handler.received == b""
    assert sender.ends == [None]


@simulated
async def test_a_reset_is_an_error_and_drops_what_was_on_the_way(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop, upload_rate=1_000).connect()
    receiver, handler = Handler(theirs), Handler(ours)
    ours.send(b"x" * 100_000)
    ours.reset("gone mad")
    ours.reset()
    await asyncio.sleep(5)
    (reason,) = receiver.ends
    assert isinstance(reason, ConnectionResetError)
    assert str(reason) == "gone mad"
    assert receiver.received == b""
    assert handler.ends == []


@simulated
async def test_an_end_is_told_once_when_both_sides_close(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop).connect()
    here, there = Handler(ours), Handler(theirs)
    ours.close()
    theirs.close()
    await asyncio.sleep(1)
    assert here.ends == there.ends == []


class Closing(Handler):
    """Closes its stream when something comes."""

    def data_received(self, data: memoryview) -> None:
        super().data_received(data)
        self._stream.close()


@simulated
async def test_nothing_is_delivered_after_a_close_from_inside_a_delivery(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop).connect()
    ours.send(b"x" * 65_536 * 2)
    ours.close()
    receiver = Closing(theirs)
    await asyncio.sleep(1)
    assert receiver.sizes == [65_536]
    assert receiver.ends == []


class Failing(Handler):
    """A handler with a bug."""

    def data_received(self, data: memoryview) -> None:
        super().data_received(data)
        raise KeyError("bug")


def test_a_handlers_bug_is_reported_and_blocks_nobody_else(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> int:
        ours, theirs = await Pair(loop).connect()
        receiver = Failing(theirs)
        for _ in range(3):
            ours.send(b"x")
            await asyncio.sleep(1)
        close_all(ours, theirs)
        (failure,) = loop.failures
        assert "KeyError('bug')" in failure
        loop.failures.clear()
        return len(receiver.sizes)

    assert simulate(main) == 3


@simulated
async def test_a_stream_that_is_forgotten_tells_nobody(loop: VirtualLoop) -> None:
    ours, theirs = await Pair(loop).connect()
    here, there = Handler(ours), Handler(theirs)
    ours.forget()
    ours.forget()
    await asyncio.sleep(100)
    assert here.ends == there.ends == []
    theirs.close()


@simulated
async def test_a_stream_knows_its_addresses(loop: VirtualLoop) -> None:
    pair = Pair(loop)
    ours, theirs = await pair.connect()
    streams: list[Stream] = [ours, theirs]
    assert ours.remote == theirs.local == Endpoint("10.0.0.1", PORT)
    assert ours.local == theirs.remote
    assert ours.local.host == "10.0.0.2"
    assert repr(theirs).startswith("<SimStream 10.0.0.1:6881 to 10.0.0.2:")
    close_all(*streams)
    assert repr(theirs).endswith(" over>")


# --- many ------------------------------------------------------------------------------------


@pytest.mark.slow
@simulated
async def test_many_streams_of_one_host_share_its_line(loop: VirtualLoop) -> None:
    """Twenty equal streams get equal shares; one behind a slow line leaves its share to them."""
    network = SimNetwork(loop)
    seed = network.add_host("10.0.0.1", upload_rate=1e6)
    streams: list[Stream] = []

    def accept(stream: Stream) -> None:
        streams.append(stream)
        Handler(stream, bytes(200_000))

    listener = seed.listen("10.0.0.1", PORT, accept)

    async def fetch(host: SimHost) -> Handler:
        stream = await host.connect(listener.endpoint, timeout=10)
        streams.append(stream)
        return Handler(stream)

    rates = [20_000.0] + [None] * 19
    hosts = [
        network.add_host(f"10.0.1.{number + 1}", download_rate=rate)
        for number, rate in enumerate(rates)
    ]
    slow, *others = await asyncio.gather(*(fetch(host) for host in hosts))
    await asyncio.sleep(60)
    assert slow.last_at == pytest.approx(10.0, rel=0.05)
    ends = [handler.last_at for handler in others]
    # While they last, the slow one takes 20,000 of the 1,000,000 a second.
    assert max(ends) == pytest.approx(19 * 200_000 / 980_000, rel=0.05)
    assert max(ends) - min(ends) < 1.5
    close_all(*streams)
    listener.close()
