"""net.udp: one datagram socket for several receivers; nothing raises."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bittern.core.endpoint import Endpoint
from bittern.core.errors import MisuseError
from bittern.net.udp import DHT_BYTES, MAX_QUEUE_LENGTH, TRACKER_BYTES, UTP_BYTES, UdpSocket

HOSTS = ["127.0.0.1", "::1"]


@contextmanager
def opened(*hosts: str) -> Iterator[list[UdpSocket]]:
    sockets = [UdpSocket.open(host, 0) for host in hosts]
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()
            sock.close()


class Collector:
    """Receives, and lets a test wait until so much has come."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, Endpoint]] = []
        self.batches: list[int] = []
        self._woken = asyncio.Event()

    def receive(self, data: memoryview, source: Endpoint) -> None:
        self.got.append((bytes(data), source))

    def batch_ended(self) -> None:
        self.batches.append(len(self.got))
        self._woken.set()

    async def wait(self, number: int) -> list[bytes]:
        while len(self.got) < number:
            self._woken.clear()
            await asyncio.wait_for(self._woken.wait(), 5)
        return [data for data, _ in self.got]


def listen(sock: UdpSocket, first_bytes: tuple[int, ...] = DHT_BYTES) -> Collector:
    collector = Collector()
    sock.add_receiver(first_bytes, collector.receive, batch_ended=collector.batch_ended)
    return collector


@pytest.mark.parametrize("host", HOSTS)
async def test_datagrams_travel_both_ways(host: str) -> None:
    with opened(host, host) as (one, other):
        here, there = listen(one), listen(other)
        one.send(b"d1", other.endpoint)
        assert await there.wait(1) == [b"d1"]
        assert there.got[0][1] == one.endpoint
        other.send(b"d2", there.got[0][1])
        assert await here.wait(1) == [b"d2"]
        assert one.endpoint.host == host
        assert repr(one) == f"<UdpSocket {one.endpoint} open>"
    assert repr(one).endswith("closed>")


async def test_the_first_byte_says_for_whom_it_is() -> None:
    with opened("127.0.0.1", "127.0.0.1") as (one, other):
        dht, utp = listen(other, DHT_BYTES), listen(other, UTP_BYTES)
        tracker = listen(other, TRACKER_BYTES)
        for data in (
            b"d1:",
            b"\x01u",
            b"\x41v",
            b"\x00\x00\x00\x01",
            b"\x51?",
            b"",
            b"\xff",
            b"\x31w",
        ):
            one.send(data, other.endpoint)
        assert await utp.wait(3) == [b"\x01u", b"\x41v", b"\x31w"]
        assert await dht.wait(1) == [b"d1:"]
        assert await tracker.wait(1) == [b"\x00\x00\x00\x01"]
        assert (other.num_received, other.num_unclaimed) == (5, 2)


async def test_a_byte_has_one_receiver() -> None:
    with opened("127.0.0.1", "127.0.0.1") as (one, other):
        first = listen(other)
        with pytest.raises(MisuseError, match="two receivers"):
            listen(other)
        one.send(b"d", other.endpoint)
        assert await first.wait(1) == [b"d"]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    ("length", "segment_length", "sizes"),
    [
        (3500, 1000, [1000, 1000, 1000, 500]),
        (1000, 1000, [1000]),
        (10, 1000, [10]),
        (70 * 100, 100, [100] * 70),  # more than one call can take
    ],
)
async def test_segments_arrive_as_datagrams(
    host: str, length: int, segment_length: int, sizes: list[int]
) -> None:
    with opened(host, host) as (one, other):
        # Runs arrive joined where uTP listens, and one by one elsewhere.
        for first_bytes in (DHT_BYTES, UTP_BYTES):
            collector = listen(other, first_bytes)
            data = bytes(first_bytes[:1]) * length
            one.send_segments(data, segment_length, other.endpoint)
            assert [len(part) for part in await collector.wait(len(sizes))] == sizes


async def test_segments_are_sent_one_by_one_where_the_kernel_cannot_join() -> None:
    with opened("127.0.0.1", "127.0.0.1") as (one, other):
        collector = listen(other)
        one._has_gso = False
        one.send_segments(b"dxdydz", 2, other.endpoint)
        assert await collector.wait(3) == [b"dx", b"dy", b"dz"]
        one._has_gso = True
        one.send_segments(b"d" * 4000, 2000, Endpoint("::1", 1))  # not of this family
        assert one.num_errors == 2


async def test_many_at_once_arrive_whatever_their_targets() -> None:
    with opened("127.0.0.1", "127.0.0.1", "127.0.0.1") as (one, other, third):
        collectors = [listen(other), listen(third)]
        few = [(b"d%d" % number, other.endpoint) for number in range(3)]
        many = [(b"d" + b"x" * (number % 3), third.endpoint) for number in range(60)]
        mixed = [(b"d" + b"y" * number, other.endpoint) for number in range(5)]
        for datagrams in ([], few, many, mixed):
            one.send_many(datagrams)
        assert await collectors[0].wait(8) == [data for data, _ in few + mixed]
        assert sorted(await collectors[1].wait(60)) == sorted(data for data, _ in many)
        one._has_gso = False
        one.send_many(many)
        assert sorted((await collectors[1].wait(120))[60:]) == sorted(data for data, _ in many)
        one.close()
        one.send_many(many)


async def test_senders_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bittern.net.udp.MAX_ENDPOINTS", 2)
    with opened(*["127.0.0.1"] * 4) as (sock, *others):
        collector = listen(sock)
        for other in [*others, *others]:
            other.send(b"d", sock.endpoint)
        await collector.wait(6)
        assert {source for _, source in collector.got} == {other.endpoint for other in others}
        assert len(sock._endpoints) <= 2


async def test_an_empty_datagram_is_nobodys() -> None:
    with opened("127.0.0.1", "127.0.0.1") as (one, other):
        collector = listen(other)
        one.send(b"", other.endpoint)
        one.send(b"d", other.endpoint)
        assert await collector.wait(1) == [b"d"]
        assert other.num_unclaimed == 0


class Moody(socket.socket):
    """A socket that has no room, or fails, as often as it is told to."""

    outcomes: list[OSError]

    def sendto(self, *args: Any) -> int:
        if self.outcomes:
            raise self.outcomes.pop(0)
        return super().sendto(*args)

    def recvmsg_into(self, *args: Any) -> Any:
        if self.outcomes:
            raise self.outcomes.pop(0)
        return super().recvmsg_into(*args)

    def recvfrom_into(self, *args: Any) -> Any:
        if self.outcomes:
            raise self.outcomes.pop(0)
        return super().recvfrom_into(*args)


@pytest.fixture
async def moody() -> Any:
    raw = Moody(socket.AF_INET, socket.SOCK_DGRAM)
    raw.setblocking(False)
    raw.bind(("127.0.0.1", 0))
    raw.outcomes = []
    sock = UdpSocket(raw, asyncio.get_running_loop())
    yield sock, raw
    sock.close()


FULL = BlockingIOError(errno.EAGAIN, "no room")


async def test_what_has_no_room_waits_in_order(moody: tuple[UdpSocket, Moody]) -> None:
    sock, raw = moody
    with opened("127.0.0.1") as (other,):
        collector = listen(other)
        raw.outcomes = [FULL, FULL, OSError(errno.ENETUNREACH, "no way")]
        for data in (b"d-lost", b"d2", b"d3"):
            sock.send(data, other.endpoint)
        sock.send_segments(b"d4d5", 2, other.endpoint)
        assert await collector.wait(4) == [b"d2", b"d3", b"d4", b"d5"]
        assert (sock.num_errors, sock.num_dropped) == (1, 0)
        sock.send(b"d6", other.endpoint)
        assert await collector.wait(5) == [b"d2", b"d3", b"d4", b"d5", b"d6"]


async def test_the_queue_is_bounded(moody: tuple[UdpSocket, Moody]) -> None:
    sock, raw = moody
    raw.outcomes = [FULL]
    size = 60_000
    for _ in range(100):
        sock.send(b"d" * size, Endpoint("127.0.0.1", 1))
    assert sock.num_dropped == 100 - MAX_QUEUE_LENGTH // size


@pytest.mark.parametrize(
    ("data", "target"),
    [
        (b"d", Endpoint("127.0.0.1", 0)),
        (b"d", Endpoint("::1", 5)),
        (b"d" * 70_000, Endpoint("127.0.0.1", 5)),
        (b"d", Endpoint("255.255.255.255", 5)),
    ],
)
async def test_errors_are_only_counted(data: bytes, target: Endpoint) -> None:
    with opened("127.0.0.1") as (sock,):
        sock.send(data, target)
        assert sock.num_errors == 1


async def test_a_target_without_a_way_to_it_is_told_from_a_passing_error(
    moody: tuple[UdpSocket, Moody],
) -> None:
    sock, raw = moody
    raw.outcomes = [OSError(errno.ENETUNREACH, "no way"), OSError(errno.ENOBUFS, "full"), FULL]
    assert [sock.send(b"d", sock.endpoint) for _ in range(4)] == [False, True, True, True]
    assert sock.num_errors == 2


@pytest.mark.parametrize("first_bytes", [DHT_BYTES, UTP_BYTES], ids=["plain", "runs"])
async def test_errors_while_receiving_are_passed_over(
    moody: tuple[UdpSocket, Moody], first_bytes: tuple[int, ...]
) -> None:
    sock, raw = moody
    data = bytes(first_bytes[:1])
    with opened("127.0.0.1") as (other,):
        collector = listen(sock, first_bytes)
        raw.outcomes = [OSError(errno.ECONNREFUSED, "earlier")]
        other.send(data, sock.endpoint)
        assert await collector.wait(1) == [data]


async def test_what_nobody_claims_is_counted_without_utp_too() -> None:
    with opened("127.0.0.1", "127.0.0.1") as (one, other):
        collector = listen(other)
        for data in (b"\x01u", b"\xff", b"d"):
            one.send(data, other.endpoint)
        assert await collector.wait(1) == [b"d"]
        assert (other.num_received, other.num_unclaimed) == (1, 2)


async def test_batches_end_once_per_wakeup() -> None:
    with opened("127.0.0.1", "127.0.0.1") as (one, other):
        collector = listen(other)
        for _ in range(100):
            one.send(b"d", other.endpoint)
        await collector.wait(100)
        assert len(collector.batches) <= 3


@pytest.mark.parametrize("first_bytes", [DHT_BYTES, UTP_BYTES], ids=["plain", "runs"])
async def test_closing_inside_a_callback_is_safe(first_bytes: tuple[int, ...]) -> None:
    """Nothing is heard after it, though it came in the same wake-up or the same run."""
    with opened("127.0.0.1", "127.0.0.1") as (one, other):
        got: list[bytes] = []

        def receive(data: memoryview, source: Endpoint) -> None:
            got.append(bytes(data))
            other.close()

        other.add_receiver(first_bytes, receive)
        start = bytes(first_bytes[:1])
        one.send_segments(start + b"1" + start + b"2", 2, other.endpoint)
        one.send(start + b"3", other.endpoint)
        for _ in range(10):
            await asyncio.sleep(0)
        assert got == [start + b"1"]
        other.send(b"d3", one.endpoint)
        other.send_segments(b"d3", 1, one.endpoint)
        assert other.num_errors == 0


async def test_a_taken_port_is_an_error() -> None:
    with opened("127.0.0.1") as (sock,), pytest.raises(OSError, match="in use"):
        UdpSocket.open("127.0.0.1", sock.endpoint.port)


async def test_other_systems_have_no_offload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with opened("127.0.0.1", "127.0.0.1") as (one, other):
        collector = listen(other)
        one.send_segments(b"d1d2", 2, other.endpoint)
        assert await collector.wait(2) == [b"d1", b"d2"]


async def test_old_kernels_have_no_offload() -> None:
    class Old(socket.socket):
        def setsockopt(self, level: int, option: int, value: Any, *rest: Any) -> None:
            raise OSError(errno.ENOPROTOOPT, "what is that?")

    raw = Old(socket.AF_INET, socket.SOCK_DGRAM)
    raw.setblocking(False)
    raw.bind(("127.0.0.1", 0))
    sock = UdpSocket(raw, asyncio.get_running_loop())
    with opened("127.0.0.1") as (other,):
        collector = listen(other)
        sock.send_segments(b"d1d2", 2, other.endpoint)
        assert await collector.wait(2) == [b"d1", b"d2"]
    sock.close()
