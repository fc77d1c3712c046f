"""Simulated datagrams: faults as often as asked, queues, firewalls, forged sources."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter

import pytest

from bittern.core.endpoint import Endpoint
from bittern.net.udp import Datagrams
from bittern.testing.datagrams import MAX_DATAGRAM_LENGTH, SimDatagrams
from bittern.testing.loop import VirtualLoop
from bittern.testing.network import Link, SimNetwork
from tests.virtual_time import simulated

A, B = Endpoint("10.0.0.1", 6881), Endpoint("10.0.0.2", 6882)


def use_as_contract(socket: Datagrams) -> Endpoint:
    return socket.endpoint


class Place:
    """Two hosts with a datagram socket each, and what arrived at ``a``."""

    def __init__(self, loop: VirtualLoop, link: Link, *, queue_length: int = 262_144) -> None:
        self.loop = loop
        self.network = SimNetwork(loop, link=link, is_traced=True)
        self.host_a = self.network.add_host(A.host)
        self.host_b = self.network.add_host(B.host)
        self.arrived: list[tuple[float, bytes, Endpoint]] = []
        self.kept_views: list[memoryview] = []
        self.a = self.host_a.open_datagrams(A.host, A.port, self._note, queue_length=queue_length)
        self.b = self.host_b.open_datagrams(
            "0.0.0.0", B.port, self._ignore, queue_length=queue_length
        )

    def _note(self, data: memoryview, source: Endpoint) -> None:
        self.arrived.append((self.loop.time(), bytes(data), source))
        self.kept_views.append(data)

    def _ignore(self, data: memoryview, source: Endpoint) -> None:
        pass

    @property
    def payloads(self) -> list[bytes]:
        return [data for _, data, _ in self.arrived]

    def close(self) -> None:
        for socket in (self.a, self.b):
            socket.close()
            socket.close()


@simulated
async def test_a_datagram_arrives_once_with_its_source(loop: VirtualLoop) -> None:
    place = Place(loop, Link(delay=0.25))
    data = bytearray(b"hello")
    place.b.send(data, A)
    data[:] = b"other"
    place.b.send(b"", A)
    await asyncio.sleep(1)
    assert place.arrived == [(0.25, b"hello", B), (0.25, b"", B)]
    assert bytes(place.kept_views[0]) == b"\xdd" * 5
    assert place.network.datagram_lengths == {(B, A): 5}
    place.close()


@simulated
async def test_faults_are_as_frequent_as_asked(loop: VirtualLoop) -> None:
    place = Place(loop, Link(delay=0.1, loss=0.2, duplication=0.1, reordering=0.1))
    sent = [number.to_bytes(4, "big") for number in range(3_000)]
    for data in sent:
        place.b.send(data, A)
        await asyncio.sleep(0.01)
    await asyncio.sleep(10)
    counts = Counter(place.payloads)
    assert set(counts) <= set(sent)
    # Either copy of a doubled one may be lost.
    missing = 3_000 - len(counts)
    assert missing == pytest.approx(3_000 * (0.9 * 0.2 + 0.1 * 0.04), rel=0.25)
    doubled = sum(count == 2 for count in counts.values())
    assert doubled == pytest.approx(3_000 * 0.1 * 0.64, rel=0.35)
    late = sum(a > b for a, b in zip(place.payloads, place.payloads[1:], strict=False))
    assert 100 < late < 600
    place.close()


@pytest.mark.parametrize("where", ["upload", "download"])
@simulated
async def test_a_line_delays_and_then_drops(loop: VirtualLoop, where: str) -> None:
    place = Place(loop, Link(delay=0.0), queue_length=5_000)
    if where == "upload":
        place.host_b.upload.rate = 10_000
        dropping = place.b
    else:
        place.host_a.download.rate = 10_000
        dropping = place.a
    for _ in range(10):
        place.b.send(bytes(1_000), A)
    await asyncio.sleep(5)
    times = [at for at, _, _ in place.arrived]
    assert times == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert dropping.num_dropped == 4
    place.b.send(bytes(1_000), A)
    await asyncio.sleep(1)
    assert len(place.arrived) == 7
    place.close()


@simulated
async def test_a_firewall_lets_answers_in_only(loop: VirtualLoop) -> None:
    place = Place(loop, Link())
    place.host_a.is_reachable = False
    place.b.send(b"unasked", A)
    await asyncio.sleep(1)
    place.a.send(b"question", B)
    place.b.send(b"answer", A)
    await asyncio.sleep(1)
    assert place.payloads == [b"answer"]
    place.close()


@simulated
async def test_what_goes_nowhere(loop: VirtualLoop) -> None:
    place = Place(loop, Link())
    place.b.send(b"no such host", Endpoint("10.9.9.9", 1))
    place.b.send(b"no such port", Endpoint(A.host, 9))
    place.network.cut(place.host_a, place.host_b)
    place.b.send(b"cut", A)
    place.network.heal(place.host_a, place.host_b)
    place.b.send(b"closed", A)
    place.a.close()
    await asyncio.sleep(1)
    assert place.payloads == []
    place.close()


@simulated
async def test_a_socket_that_closes_while_a_datagram_waits_before_its_line(
    loop: VirtualLoop,
) -> None:
    place = Place(loop, Link())
    place.host_a.download.rate = 1_000
    place.b.send(bytes(1_000), A)
    loop.call_later(0.5, place.a.close)
    await asyncio.sleep(5)
    assert place.payloads == []
    place.close()


@simulated
async def test_a_host_that_vanishes_gets_nothing_more(loop: VirtualLoop) -> None:
    place = Place(loop, Link(delay=1))
    place.b.send(b"on the way", A)
    place.host_a.vanish()
    await asyncio.sleep(5)
    assert place.payloads == []
    place.close()


@simulated
async def test_a_forged_source_is_counted_and_gets_the_answers(loop: VirtualLoop) -> None:
    """What a reflection test measures: bytes in and out for the victim's address."""
    place = Place(loop, Link())
    victim = Endpoint("10.0.0.3", 80)
    victim_host = place.network.add_host(victim.host)
    hit: list[bytes] = []
    victim_socket = victim_host.open_datagrams(
        victim.host, victim.port, lambda data, source: hit.append(bytes(data))
    )
    place.b.send(b"query", A, source=victim)
    await asyncio.sleep(1)
    assert place.arrived[0][2] == victim
    place.a.send(b"a long answer", victim)
    await asyncio.sleep(1)
    assert hit == [b"a long answer"]
    assert place.network.datagram_lengths == {(victim, A): 5, (A, victim): 13}
    victim_socket.close()
    place.close()


@simulated
async def test_errors_of_a_socket(loop: VirtualLoop) -> None:
    place = Place(loop, Link())
    socket: SimDatagrams = place.b
    assert use_as_contract(socket) == Endpoint("0.0.0.0", B.port)
    socket.send(bytes(MAX_DATAGRAM_LENGTH), A)
    with pytest.raises(OSError) as caught:
        socket.send(bytes(MAX_DATAGRAM_LENGTH + 1), A)
    assert caught.value.errno == errno.EMSGSIZE
    with pytest.raises(OSError) as caught:
        socket.send(b"", Endpoint("2001:db8::1", 1))
    assert caught.value.errno == errno.ENETUNREACH
    with pytest.raises(OSError) as caught:
        place.host_a.open_datagrams(A.host, A.port, lambda data, source: None)
    assert caught.value.errno == errno.EADDRINUSE
    place.close()
    with pytest.raises(OSError) as caught:
        socket.send(b"", A)
    assert caught.value.errno == errno.EBADF
