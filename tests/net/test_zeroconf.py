"""net.zeroconf: real multicast DNS on the loopback interface (BEP 26, RFC 6762)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from ipaddress import ip_address, ip_interface

import pytest
from zeroconf import ServiceInfo, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash, PeerId
from bittern.net.interfaces import Interface
from bittern.net.multicast import LocalNetwork
from bittern.net.zeroconf import (
    MAX_ADDRESSES,
    MAX_QUESTION_BURST,
    MAX_QUESTION_RATE,
    MAX_UNRESOLVED,
    TYPE,
    MulticastDns,
    parse_type,
    type_of,
)

ONE, TWO, NONE = (InfoHash(os.urandom(20)) for _ in range(3))
"""Unlike those of a run beside this one, which hears us."""
LOOPBACK = (Interface("lo", 1, (ip_interface("127.0.0.1/8"),)),)
TIMEOUT = 10.0


async def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


class Member:
    """One machine of the network."""

    def __init__(self, *wanted: InfoHash) -> None:
        self.interfaces: tuple[Interface, ...] = LOOPBACK
        self.heard: list[tuple[Endpoint, tuple[InfoHash, ...]]] = []
        self.wanted = set(wanted)
        self.peer_id = PeerId(b"-bt0100-" + os.urandom(12))
        self.network = MulticastDns(self.peer_id, find=lambda _hosts: self.interfaces)

    async def open(self) -> Member:
        await self.network.open(
            self.wanted.__contains__, lambda endpoint, hashes: self.heard.append((endpoint, hashes))
        )
        return self


class Stranger:
    """Somebody who uses the library as its manual says."""

    def __init__(self) -> None:
        self.zeroconf = Zeroconf(interfaces=["127.0.0.1"])
        self.infos: list[ServiceInfo] = []
        self.names: set[str] = set()

    def advertise(
        self, info_hash: InfoHash, addresses: Iterable[str], port: int, *, whole: bool = True
    ) -> None:
        """Announce an instance; without ``whole`` no more than that there is one."""
        name = os.urandom(8).hex()
        self.names.add(name)
        info = ServiceInfo(
            type_of(info_hash),
            f"{name}.{TYPE}",
            port,
            addresses=[ip_address(each).packed for each in addresses],
            server=f"{name}.local.",
            properties={},
        )
        self.infos.append(info)
        self.zeroconf.registry.async_add(info)
        out = self.zeroconf.generate_service_broadcast(info, None)
        if not whole:
            out.answers = [(info.dns_pointer(), 0.0)]
        self.zeroconf.async_send(out)


class Lan:
    """The members of one test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def member(self, *wanted: InfoHash) -> Member:
        made = await Member(*wanted).open()
        self._stack.push_async_callback(made.network.close)
        return made

    async def stranger(self) -> Stranger:
        made = Stranger()
        self._stack.push_async_callback(AsyncZeroconf(zc=made.zeroconf).async_close)
        await made.zeroconf.async_wait_for_start()
        return made


@pytest.fixture
async def lan() -> AsyncIterator[Lan]:
    async with AsyncExitStack() as stack:
        yield Lan(stack)


def at(port: int) -> Endpoint:
    return Endpoint("127.0.0.1", port)


def test_names_are_those_of_the_bep() -> None:
    name = "_32f17bbf96bdc77de85bb91ff8d56f124e817c0a._sub._bittorrent._tcp.local."
    info_hash = InfoHash(bytes.fromhex("32f17bbf96bdc77de85bb91ff8d56f124e817c0a"))
    assert type_of(info_hash) == name
    assert parse_type(name) == parse_type(name.upper()) == info_hash


@pytest.mark.parametrize(
    "name",
    [
        "",
        TYPE,
        "_sub." + TYPE,
        f"_{'a' * 39}._sub.{TYPE}",
        f"_{'a' * 41}._sub.{TYPE}",
        f"x{'a' * 40}._sub.{TYPE}",
        f"_{'x' * 40}._sub.{TYPE}",
        f"_{'a' * 40}._sub._http._tcp.local.",
    ],
)
def test_other_names_are_no_torrents(name: str) -> None:
    assert parse_type(name) is None


async def test_what_is_told_is_heard_by_those_who_want_it(lan: Lan) -> None:
    one, two = await lan.member(ONE, TWO), await lan.member(TWO, NONE)
    assert one.network.tell(7001, [ONE, TWO], []) == 1
    await until(lambda: two.heard)
    assert two.heard == [(at(7001), (TWO,))]
    assert not one.heard, "we are no neighbour of our own"


@pytest.mark.slow
async def test_who_asks_later_is_answered_until_it_is_withdrawn(lan: Lan) -> None:
    one = await lan.member()
    one.network.tell(7001, [ONE, TWO, NONE], [])
    one.network.withdraw([ONE], is_silent=False)
    one.network.withdraw([NONE, InfoHash(b"u" * 20)], is_silent=True)
    late = await lan.member(ONE, TWO, NONE)
    assert late.network.tell(0, [], [ONE, TWO, NONE]) == 1
    await until(lambda: late.heard)
    # Nothing is asked again of what is known, but handed on.
    late.network.tell(0, [], [ONE, TWO, NONE])
    assert set(late.heard) == {(at(7001), (TWO,))}


@pytest.mark.slow
async def test_a_browser_of_another_program_finds_the_instance_and_the_torrent(lan: Lan) -> None:
    one = await lan.member()
    one.network.tell(7001, [ONE], [])
    other = await lan.stranger()
    ours = f"{one.peer_id.hex()}.{TYPE}"
    found: set[str] = set()

    def changed(zeroconf: object, service_type: str, name: str, state_change: object) -> None:
        if name == ours:  # and not somebody of a run beside this one
            found.add(service_type)

    types = [TYPE, type_of(ONE)]
    browser = AsyncServiceBrowser(other.zeroconf, types, handlers=[changed])
    await until(lambda: found == set(types))
    info = await other.zeroconf.async_get_service_info(TYPE, ours)
    assert info is not None
    assert (info.port, info.parsed_addresses()) == (7001, ["127.0.0.1"])
    # A goodbye is said at the end.
    await one.network.close()
    await until(
        lambda: not other.zeroconf.cache.current_entry_with_name_and_alias(type_of(ONE), ours)
    )
    await browser.async_cancel()


@pytest.mark.slow
async def test_an_instance_of_which_only_the_name_is_known_is_asked_for(lan: Lan) -> None:
    one, other = await lan.member(ONE), await lan.stranger()
    other.advertise(ONE, ["127.0.0.1"], 7002, whole=False)
    await until(lambda: one.heard)
    assert one.heard == [(at(7002), (ONE,))]


@pytest.mark.slow
async def test_instances_that_are_not_there_cost_little(lan: Lan) -> None:
    one, other = await lan.member(ONE), await lan.stranger()
    questions: list[bytes] = []

    def seen(data: bytes, _source: Endpoint) -> None:
        # Two questions, the first of them for an instance of the stranger's.
        if data[2:6] == b"\0\0\0\2" and data[13:29].decode() in other.names:
            questions.append(data)

    ear = LocalNetwork(("224.0.0.251",), 5353, find=lambda _hosts: LOOPBACK)
    ear.open(seen)
    for _ in range(3 * MAX_UNRESOLVED):
        other.advertise(ONE, ["127.0.0.1"], 7002, whole=False)
        other.zeroconf.registry.async_remove(other.infos[-1])
    other.advertise(ONE, ["127.0.0.1"], 7003)
    await until(lambda: one.heard and questions)
    ear.close()
    assert one.heard == [(at(7003), (ONE,))]
    assert len(questions) <= MAX_QUESTION_BURST + MAX_QUESTION_RATE * TIMEOUT


@pytest.mark.slow
async def test_only_neighbours_are_believed(lan: Lan) -> None:
    one, other = await lan.member(ONE), await lan.stranger()
    other.advertise(ONE, ["9.9.9.9", "10.0.0.1", "fe80::1"], 7002)
    other.advertise(ONE, ["127.0.0.1"], 0)
    other.advertise(ONE, [f"127.0.0.{n}" for n in range(1, MAX_ADDRESSES + 9)], 7003)
    await until(lambda: one.heard)
    assert len(one.heard) == MAX_ADDRESSES
    assert {endpoint.port for endpoint, _ in one.heard} == {7003}


async def test_interfaces_that_come_and_go(lan: Lan) -> None:
    one, two = await lan.member(), await lan.member(ONE)
    assert not await one.network.refresh()
    one.interfaces = ()
    assert not await one.network.refresh()
    assert one.network.tell(7001, [ONE], [ONE]) == 0
    one.network.withdraw([ONE], is_silent=False)
    assert not await one.network.refresh()
    one.interfaces = LOOPBACK
    renewing = asyncio.ensure_future(one.network.refresh())
    await asyncio.sleep(0)
    assert one.network.tell(7001, [ONE], [ONE]) == 0, "not yet"
    assert await renewing
    assert one.network.tell(7001, [ONE], [ONE]) == 1
    await until(lambda: two.heard)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_address_that_cannot_be_used_is_no_failure(lan: Lan) -> None:
    # The library then leaves a socket to the garbage collector, which is what the filter is for.
    one = Member()
    one.interfaces = (Interface("gone", 999, (ip_interface("192.0.2.1/24"),)),)
    await one.open()
    assert one.network.tell(7001, [ONE], []) == 0
    await one.network.close()
    await one.network.close()
