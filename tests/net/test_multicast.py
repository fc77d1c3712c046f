"""
net.multicast: datagrams to everybody on a network, on real sockets (BEP 14).

IPv4 on the loopback interface here; Linux has no IPv6 multicast there, so that, and interfaces
that come and go, are in ``tests/interop/test_local_discovery.py``.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from ipaddress import ip_interface

import pytest

from bittern.core.endpoint import Endpoint
from bittern.net.interfaces import Interface, interfaces_for, list_interfaces
from bittern.net.multicast import READS_PER_WAKEUP, LocalNetwork

GROUP_V4, GROUP_V6 = "239.192.152.143", "ff15::efc0:988f"
DATA = {GROUP_V4: b"four", GROUP_V6: b"six"}
"""Nobody hears the second on a loopback interface."""


def free_port() -> int:
    """Not the port of BEP 14: other programs on this machine may be listening there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


def loopback(*addresses: str) -> Interface:
    """The loopback interface, said to have these addresses."""
    found = next(each for each in list_interfaces() if each.is_loopback)
    wanted = addresses or ("127.0.0.1/8",)
    return Interface(found.name, found.index, tuple(map(ip_interface, wanted)))


class Listener:
    """A member of both groups that keeps what it hears."""

    def __init__(self, port: int, *, groups: tuple[str, ...] = (GROUP_V4, GROUP_V6)) -> None:
        self.interfaces: tuple[Interface, ...] = (loopback(),)
        self.heard: list[tuple[bytes, str]] = []
        self._woken = asyncio.Event()
        self.network = LocalNetwork(groups, port, find=lambda _hosts: self.interfaces)
        self.network.open(self._receive)

    def _receive(self, data: bytes, source: Endpoint) -> None:
        self.heard.append((data, source.host))
        self._woken.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not is_so():
                self._woken.clear()
                await self._woken.wait()


async def test_everybody_on_the_network_hears_everybody() -> None:
    port = free_port()
    one, two = Listener(port), Listener(port)
    assert one.network.send(DATA) == 1
    for each in (one, two):
        await each.until(lambda each=each: bool(each.heard))  # type: ignore[misc]
        assert each.heard == [(b"four", "127.0.0.1")]
    assert two.network.send({GROUP_V4: b"only"}) == 1
    await one.until(lambda: (b"only", "127.0.0.1") in one.heard)
    one.network.close()
    one.network.close()
    assert one.network.send(DATA) == 0
    two.network.close()


async def test_an_interface_that_comes_is_joined_and_one_that_goes_is_left() -> None:
    port = free_port()
    one, two = Listener(port), Listener(port)
    two.interfaces = ()
    assert not two.network.refresh()
    assert two.network.interfaces == ()
    one.network.send({GROUP_V4: b"unheard"})
    two.interfaces = (loopback(),)
    assert two.network.refresh()
    assert not two.network.refresh(), "nothing new"
    one.network.send(DATA)
    await two.until(lambda: bool(two.heard))
    await one.until(lambda: len(one.heard) == 2)
    assert two.heard == [(b"four", "127.0.0.1")]
    for each in (one, two):
        each.network.close()


async def test_strangers_are_not_heard() -> None:
    """Only what comes from a network that one of our interfaces is in."""
    port = free_port()
    one, two = Listener(port), Listener(port)
    # The sender's address is 127.0.0.1; this member believes that it lives elsewhere.
    two.interfaces = (loopback("127.0.0.1/32"),)
    two.network.refresh()
    one.interfaces = (loopback("127.9.9.9/32"),)
    one.network.refresh()
    assert one.network.send({GROUP_V4: b"from afar"}) == 1
    await one.until(lambda: bool(one.heard))
    one.interfaces = (loopback(),)
    one.network.refresh()
    one.network.send({GROUP_V4: b"from near"})
    await two.until(lambda: bool(two.heard))
    assert two.heard == [(b"from near", "127.0.0.1")]
    for each in (one, two):
        each.network.close()


async def test_what_cannot_be_is_left_out() -> None:
    port = free_port()
    one = Listener(port)
    # One that has gone, one without addresses of a family, and one that works.
    one.interfaces = (
        Interface("gone", 9_999, (ip_interface("10.9.9.9/24"), ip_interface("fe80::9/64"))),
        loopback("127.0.0.1/8", "::1/128"),
    )
    assert one.network.refresh()
    assert one.network.send(DATA) == 1
    one.network.close()
    # A port that somebody uses alone.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        alone = Listener(taken.getsockname()[1], groups=(GROUP_V4,))
        assert alone.network.send(DATA) == 0
        alone.network.close()


async def test_a_receiver_may_close() -> None:
    port = free_port()
    one, two = Listener(port), Listener(port)
    closing = LocalNetwork((GROUP_V4,), port, find=lambda _hosts: (loopback(),))
    heard: list[bytes] = []
    has_heard = asyncio.Event()

    def receive(data: bytes, source: Endpoint) -> None:
        heard.append(data)
        closing.close()
        has_heard.set()

    closing.open(receive)
    for number in range(5):
        one.network.send({GROUP_V4: b"%d" % number})
    await two.until(lambda: len(two.heard) == 5)
    await asyncio.wait_for(has_heard.wait(), 5)
    assert heard == [b"0"]
    for each in (one, two):
        each.network.close()


async def test_errors_of_reading_are_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when an interface goes down under a socket."""
    port = free_port()
    one = Listener(port, groups=(GROUP_V4,))
    (sock,) = one.network._sockets.values()
    real = sock._sock
    errors = [OSError(errno.ENETDOWN, "gone"), InterruptedError()]

    class Failing:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def recvfrom(self, length: int) -> tuple[bytes, tuple[str, int]]:
            if errors:
                raise errors.pop(0)
            data, address = real.recvfrom(length)
            return data, (address[0], address[1])

    monkeypatch.setattr(sock, "_sock", Failing())
    one.network.send({GROUP_V4: b"after all"})
    await one.until(lambda: bool(one.heard))
    assert not errors
    one.network.close()


async def test_a_burst_is_read_in_turns() -> None:
    """Limit: N9. However much comes, the loop gets to other things in between."""
    port = free_port()
    one, two = Listener(port, groups=(GROUP_V4,)), Listener(port, groups=(GROUP_V4,))
    for number in range(READS_PER_WAKEUP + 5):
        assert one.network.send({GROUP_V4: b"%d" % number}) == 1
    (sock,) = two.network._sockets.values()
    sock._read()
    assert len(two.heard) == READS_PER_WAKEUP
    await two.until(lambda: len(two.heard) == READS_PER_WAKEUP + 5)
    for each in (one, two):
        each.network.close()


async def test_by_default_it_uses_the_interfaces_of_this_machine() -> None:
    network = LocalNetwork((GROUP_V4,), free_port(), listen_hosts=("127.0.0.1",))
    network.open(lambda data, source: None)
    assert network.interfaces == interfaces_for(("127.0.0.1",))
    network.close()
