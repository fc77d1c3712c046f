"""The simulated network as a whole: links, cuts, traces, and a swarm of transfers."""

from __future__ import annotations

import asyncio

import pytest

from bittern.core.endpoint import Endpoint
from bittern.core.errors import MisuseError
from bittern.net.stream import Listener, Stream
from bittern.testing.host import SimHost
from bittern.testing.loop import VirtualLoop, run
from bittern.testing.network import Link, SimNetwork
from tests.conftest import Simulate
from tests.virtual_time import simulated


class Transfer:
    """A handler that sends ``to_send`` bytes and counts those it gets."""

    def __init__(self, stream: Stream, to_send: int = 0, expected: int = -1) -> None:
        self.stream = stream
        self.num_received = 0
        self.done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._to_send = to_send
        self._expected = expected
        stream.start(self)
        self.writable()

    def data_received(self, data: memoryview) -> None:
        self.num_received += len(data)
        if self.num_received == self._expected:
            self.done.set_result(asyncio.get_running_loop().time())

    def writable(self) -> None:
        while self._to_send:
            wanted = min(self._to_send, 65_536)
            sent = self.stream.send(bytes(wanted))
            self._to_send -= sent
            if sent < wanted:
                return

    def connection_lost(self, reason: Exception | None) -> None:
        pass


def close_all(*things: Stream | Listener) -> None:
    for thing in things:
        thing.close()


async def transfer(host: SimHost, target: Endpoint, length: int) -> float:
    """Fetch ``length`` bytes; return when the last came."""
    stream = await host.connect(target, timeout=60)
    try:
        return await Transfer(stream, expected=length).done
    finally:
        stream.close()


async def swarm(loop: VirtualLoop, num_hosts: int, length: int, rate: float) -> SimNetwork:
    """Let every host fetch ``length`` bytes from each of the four after it."""
    network = SimNetwork(loop, link=Link(delay=0.02, jitter=0.01), is_traced=True)
    hosts = [
        network.add_host(f"10.0.{n // 200}.{n % 200 + 1}", upload_rate=rate)
        for n in range(num_hosts)
    ]
    served: list[Stream] = []

    def accept(stream: Stream) -> None:
        served.append(stream)
        Transfer(stream, to_send=length)

    listeners = [host.listen("0.0.0.0", 6881, accept) for host in hosts]
    fetches = [
        transfer(host, Endpoint(hosts[(n + step) % num_hosts].addresses[0], 6881), length)
        for n, host in enumerate(hosts)
        for step in range(1, 5)
    ]
    await asyncio.gather(*fetches)
    # Three delays until the first byte is sent, one until the last arrives.
    assert loop.time() == pytest.approx(4 * length / rate + 4 * 0.025, rel=0.03)
    close_all(*listeners, *served)
    return network


def test_a_swarm_at_the_rate_of_its_lines_and_twice_the_same(simulate: Simulate) -> None:
    def trace(seed: int) -> list[tuple[float, str]]:
        return run(lambda loop: swarm(loop, 10, 250_000, 1e6), seed=seed).trace

    first = trace(1)
    assert len(first) > 400
    assert trace(1) == first
    assert trace(2) != first


@pytest.mark.soak
def test_a_hundred_hosts_move_16_mib_each(simulate: Simulate) -> None:
    simulate(lambda loop: swarm(loop, 100, 4 << 20, 2e6))


@simulated
async def test_links_are_the_same_both_ways_and_may_differ(loop: VirtualLoop) -> None:
    network = SimNetwork(loop, link=Link(delay=0.01))
    a, b, c = (network.add_host(f"10.0.0.{n}") for n in (1, 2, 3))
    far = Link(delay=0.3, jitter=0.2)
    network.set_link(a, b, far)
    assert network.link(a, b) is network.link(b, a) is far
    assert network.link(a, c).delay == 0.01
    assert network.link(a, a).delay == 0.0
    assert network.draw_delay(a, c) == 0.01
    drawn = [network.draw_delay(b, a) for _ in range(200)]
    assert 0.3 <= min(drawn) < 0.35 < 0.45 < max(drawn) <= 0.5


@simulated
async def test_a_cut_holds_streams_up_and_healing_lets_them_go_on(loop: VirtualLoop) -> None:
    network = SimNetwork(loop, is_traced=True)
    a, b, c = (network.add_host(f"10.0.0.{n}") for n in (1, 2, 3))
    streams: list[Stream] = []

    def accept(stream: Stream) -> None:
        streams.append(stream)
        Transfer(stream, to_send=100_000)

    listener = a.listen("10.0.0.1", 1, accept)
    others = await asyncio.gather(*(host.connect(listener.endpoint, timeout=5) for host in (b, c)))
    network.cut(a, b)
    network.cut(a, c)
    handlers = [Transfer(stream) for stream in others]
    await asyncio.sleep(300)
    assert [handler.num_received for handler in handlers] == [0, 0]
    network.heal(b, a)
    await asyncio.sleep(1)
    assert [handler.num_received for handler in handlers] == [100_000, 0]
    network.heal(a, c)
    await asyncio.sleep(1)
    assert [handler.num_received for handler in handlers] == [100_000, 100_000]
    texts = [text for _, text in network.trace]
    assert "cut 10.0.0.1 10.0.0.2" in texts
    assert "heal 10.0.0.2 10.0.0.1" in texts
    close_all(listener, *streams, *others)


@pytest.mark.parametrize("addresses", [(), ("10.0.0.1",), ("10.0.0.9", "::ffff:10.0.0.1")])
@simulated
async def test_an_address_belongs_to_one_host(
    loop: VirtualLoop, addresses: tuple[str, ...]
) -> None:
    network = SimNetwork(loop)
    host = network.add_host("10.0.0.1", "2001:DB8::0:1")
    assert network.host_of("2001:db8::1") is host
    assert network.host_of("10.0.0.9") is None
    with pytest.raises(MisuseError, match="no address, or one that is taken"):
        network.add_host(*addresses)
    assert network.host_of("10.0.0.9") is None
    assert network.hosts == [host]


@simulated
async def test_nothing_is_traced_unless_asked_for(loop: VirtualLoop) -> None:
    network = SimNetwork(loop)
    a, b = network.add_host("10.0.0.1"), network.add_host("10.0.0.2")
    got: list[bytes] = []
    receiver = a.open_datagrams("10.0.0.1", 1, lambda data, source: got.append(bytes(data)))
    sender = b.open_datagrams("10.0.0.2", 1, lambda data, source: None)
    sender.send(b"x", receiver.endpoint)
    await asyncio.sleep(1)
    assert got == [b"x"]
    assert network.trace == []
    receiver.close()
    sender.close()
