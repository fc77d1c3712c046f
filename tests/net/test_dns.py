"""net.dns: names to addresses, off the loop, within bounds (F11, N6)."""

import asyncio
import socket
import threading
from typing import Any

import pytest

from bittern.core.errors import ResolveError
from bittern.net import dns
from bittern.net.dns import Resolver, literal_address
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.virtual_time import simulated


class Names:
    """A fake system resolver that counts."""

    def __init__(self, table: dict[str, list[str]], delay: float = 0.0) -> None:
        self.table = table
        self.delay = delay
        self.asked: list[str] = []

    async def lookup(self, name: str) -> list[str]:
        self.asked.append(name)
        await asyncio.sleep(self.delay)
        if name not in self.table:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.table[name]


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("[::1]", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("tracker.example", None),
        ("127.1", None),
        ("0x7f.0.0.1", None),
        ("0177.0.0.1", None),
        ("2130706433", None),
        ("", None),
    ],
)
def test_literal_addresses(host: str, address: str | None) -> None:
    assert literal_address(host) == address


def test_literals_are_not_looked_up(simulate: Simulate) -> None:
    names = Names({})

    async def main() -> None:
        resolver = Resolver(lookup=names.lookup)
        assert await resolver.resolve("192.0.2.1") == ("192.0.2.1",)
        assert await resolver.resolve("[2001:db8::1]") == ("2001:db8::1",)

    simulate(main())
    assert names.asked == []


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "1.2.3.4.5",
        "a." * 127 + "com",
        "127.0.0.1\0.example.org",
        "127.1 .example.org",
        "a\tb.example.org",
    ],
)
def test_old_spellings_of_addresses_never_reach_the_system(host: str, simulate: Simulate) -> None:
    """Limit: N6."""
    names = Names({})

    async def main() -> None:
        with pytest.raises(ResolveError, match="not a host name"):
            await Resolver(lookup=names.lookup).resolve(host)

    simulate(main())
    assert names.asked == []


@simulated
async def test_answers_are_canonical_unique_and_bounded() -> None:
    many = [f"192.0.2.{i}" for i in range(50)]
    names = Names({"a.example": ["2001:DB8::1", "192.0.2.1", "2001:db8:0::1", "junk"], "b": many})
    resolver = Resolver(lookup=names.lookup)
    assert await resolver.resolve("A.Example.") == ("2001:db8::1", "192.0.2.1")
    assert await resolver.resolve("b") == tuple(many[:16])


@simulated
async def test_answers_and_failures_are_kept_for_a_minute() -> None:
    names = Names({"good": ["192.0.2.1"], "odd": ["junk"]})

    async def ask(resolver: Resolver, host: str) -> str:
        try:
            return str(await resolver.resolve(host))
        except ResolveError as error:
            return error.reason

    resolver = Resolver(lookup=names.lookup)
    for _ in range(3):
        assert await ask(resolver, "good") == "('192.0.2.1',)"
        assert await ask(resolver, "bad") == "Name or service not known"
        assert await ask(resolver, "odd") == "no address"
    assert names.asked == ["good", "bad", "odd"]
    await asyncio.sleep(60)
    names.table = {"bad": ["192.0.2.2"]}
    assert await ask(resolver, "good") == "Name or service not known"
    assert await ask(resolver, "bad") == "('192.0.2.2',)"


@simulated
async def test_a_hanging_resolver_costs_ten_seconds(loop: VirtualLoop) -> None:
    """Limit: F11."""
    names = Names({"slow": ["192.0.2.1"]}, delay=1000)
    with pytest.raises(ResolveError, match="cannot resolve 'slow': no answer in 10 s"):
        await Resolver(lookup=names.lookup).resolve("slow")
    assert loop.time() == 10


def test_equal_lookups_share_one(simulate: Simulate) -> None:
    names = Names({"a": ["192.0.2.1"]}, delay=1)

    async def main() -> None:
        resolver = Resolver(lookup=names.lookup)
        found = await asyncio.gather(*(resolver.resolve("a") for _ in range(20)))
        assert set(found) == {("192.0.2.1",)}

    simulate(main())
    assert names.asked == ["a"]


@simulated
async def test_a_cancelled_caller_does_not_take_the_lookup_along() -> None:
    names = Names({"a": ["192.0.2.1"]}, delay=1)
    resolver = Resolver(lookup=names.lookup)
    first = asyncio.ensure_future(resolver.resolve("a"))
    second = asyncio.ensure_future(resolver.resolve("a"))
    lost = asyncio.ensure_future(resolver.resolve("gone"))
    await asyncio.sleep(0.5)
    first.cancel()
    lost.cancel()
    assert await second == ("192.0.2.1",)
    await asyncio.sleep(1)


@simulated
async def test_closing_ends_what_is_under_way(loop: VirtualLoop) -> None:
    names = Names({}, delay=5)
    resolver = Resolver(lookup=names.lookup)
    caller = asyncio.ensure_future(resolver.resolve("a"))
    await asyncio.sleep(1)
    await resolver.close()
    with pytest.raises(ResolveError, match="resolver closed"):
        await caller
    assert loop.time() == 1


@simulated
async def test_the_cache_is_bounded() -> None:
    names = Names({f"h{i}": ["192.0.2.1"] for i in range(1100)})
    resolver = Resolver(lookup=names.lookup)
    for name in names.table:
        await resolver.resolve(name)
    before = len(names.asked)
    await resolver.resolve("h1099")
    assert len(names.asked) == before
    await resolver.resolve("h0")
    assert len(names.asked) == before + 1


async def test_the_system_is_asked_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def getaddrinfo(name: str, *_: Any, **__: Any) -> list[Any]:
        threads.append(threading.current_thread().daemon)
        if name == "bad":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        if name == "odd":
            raise UnicodeError("label too long")
        return [(0, 0, 0, "", ("192.0.2.1", 0)), (0, 0, 0, "", ("2001:db8::1", 0, 0, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver = Resolver()
    assert await resolver.resolve("good") == ("192.0.2.1", "2001:db8::1")
    with pytest.raises(ResolveError, match="unknown"):
        await resolver.resolve("bad")
    with pytest.raises(ResolveError, match="not a host name"):
        await resolver.resolve("odd")
    assert threads == [True] * 3


async def test_threads_that_hang_are_counted_and_outlive_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = threading.Event()
    started: list[str] = []

    def getaddrinfo(name: str, *_: Any, **__: Any) -> list[Any]:
        started.append(name)
        release.wait(10)
        return [(0, 0, 0, "", ("192.0.2.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(dns, "MAX_THREADS", 2)
    resolver = Resolver(timeout=0.05)
    tasks = [asyncio.ensure_future(resolver.resolve(f"h{i}")) for i in range(5)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, ResolveError) for result in results)
    assert started == ["h0", "h1"]  # the others never got a thread
    release.set()
    resolver = Resolver(timeout=5)
    assert await resolver.resolve("later") == ("192.0.2.1",)


async def test_a_system_without_threads_fails_lookups_and_keeps_their_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dns, "MAX_THREADS", 1)
    monkeypatch.setattr(dns, "NEGATIVE_LIFETIME", -1.0)
    resolver = Resolver(timeout=5.0)
    with monkeypatch.context() as patch:

        def start(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", start)
        for _ in range(2):
            with pytest.raises(ResolveError, match="can't start new thread"):
                await resolver.resolve("tracker.example")
    infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: infos)
    assert await resolver.resolve("tracker.example") == ("192.0.2.1",)


def test_a_lookup_that_ends_after_its_loop_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def getaddrinfo(name: str, *_: Any, **__: Any) -> list[Any]:
        release.wait(10)
        return []

    async def main() -> None:
        with pytest.raises(ResolveError, match="no answer"):
            await Resolver(timeout=0.01).resolve("h")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    asyncio.run(main())
    release.set()
    for thread in threading.enumerate():
        if thread.name == "dns h":
            thread.join(5)
            assert not thread.is_alive()
