"""tracker.desk: who is served, and how much (T2, T3, T4)."""

import random
import socket

import pytest

from bittern.core.announce import Event
from bittern.core.errors import TrackerFailure
from bittern.tracker.desk import Desk
from bittern.tracker.swarm import Selection

HASH = b"h" * 20


def packed(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def announce(
    desk: Desk,
    host: str = "8.0.0.1",
    *,
    port: int = 1,
    num_want: int | None = None,
    now: float = 0.0,
    max_peers: int = 200,
    info_hash: bytes = HASH,
) -> Selection:
    return desk.announce(
        info_hash,
        packed(host),
        port,
        left=1,
        event=Event.NONE,
        num_want=num_want,
        now=now,
        max_peers=max_peers,
    )


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports_are_checked(port: int) -> None:
    """Limit: T4."""
    desk = Desk(random.Random(1))
    with pytest.raises(TrackerFailure, match=r"port must be in 1\.\.65535"):
        announce(desk, port=port)
    assert desk.num_refused == 1
    announce(desk, port=1)
    announce(desk, port=65535)
    assert desk.num_announces == 2


@pytest.mark.parametrize(
    ("num_want", "max_peers", "given"),
    [
        (None, 200, 50),
        (0, 200, 0),
        (60, 200, 60),
        (200, 200, 200),
        (201, 200, 200),
        (10**9, 500, 200),
        (200, 76, 76),
        (None, 30, 30),
    ],
)
def test_numbers_of_peers_are_capped(num_want: int | None, max_peers: int, given: int) -> None:
    """Limit: T3."""
    desk = Desk(random.Random(1))
    for number in range(300):
        announce(desk, f"8.0.{number // 250}.{number % 250}", num_want=0)
    found = announce(desk, "8.0.9.9", num_want=num_want, max_peers=max_peers)
    assert len(found.peers) == given * 6


def test_only_allowed_torrents_are_served() -> None:
    desk = Desk(random.Random(1), allowed={HASH})
    announce(desk)
    with pytest.raises(TrackerFailure, match="not registered"):
        announce(desk, info_hash=b"x" * 20)


def test_scrape_limits() -> None:
    """Limit: T3."""
    desk = Desk(random.Random(1))
    announce(desk)
    address = packed("8.0.0.2")
    assert desk.scrape([HASH, b"x" * 20], address, now=0) == [
        (HASH, (0, 0, 1)),
        (b"x" * 20, (0, 0, 0)),
    ]
    assert len(desk.scrape([HASH] * 74, address, now=0)) == 74
    with pytest.raises(TrackerFailure, match="more than 74"):
        desk.scrape([HASH] * 75, address, now=0)
    with pytest.raises(TrackerFailure, match="full scrape"):
        desk.scrape([], address, now=0)
    assert (desk.num_scrapes, desk.num_refused) == (2, 2)


@pytest.mark.parametrize(
    ("same", "other"),
    [
        (["8.0.0.1", "8.0.0.255"], "8.0.1.1"),
        (["2001:db8::1", "2001:db8::ffff:0:0:1"], "2001:db8:0:1::1"),
    ],
)
def test_requests_of_a_source_are_counted(same: list[str], other: str) -> None:
    """Limit: T2."""
    desk = Desk(random.Random(1), max_source_rate=10)
    for number in range(10):
        announce(desk, same[number % 2], now=60)
    with pytest.raises(TrackerFailure, match="too many requests") as caught:
        announce(desk, same[0], now=119)
    assert caught.value.retry_after == 60
    with pytest.raises(TrackerFailure, match="too many requests"):
        desk.scrape([HASH], packed(same[1]), now=119)
    assert desk.num_refused == 2
    announce(desk, other, now=119)
    announce(desk, same[0], now=120)


def test_loopback_is_not_counted_out() -> None:
    desk = Desk(random.Random(1), max_source_rate=3)
    for host in ("127.0.0.1", "::1"):
        for _ in range(10):
            announce(desk, host)


def test_counted_sources_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bittern.tracker.desk.MAX_SOURCES", 5)
    desk = Desk(random.Random(1), max_source_rate=2)
    for third in range(20):
        for _ in range(2):
            announce(desk, f"8.0.{third}.1")
    with pytest.raises(TrackerFailure):
        announce(desk, "8.0.0.1")
    announce(desk, "8.0.19.1")
    assert len(desk._sources) == 5


def test_lifetime_follows_the_interval() -> None:
    desk = Desk(random.Random(1), interval=100, min_interval=500)
    assert (desk.interval, desk.min_interval) == (100, 100)
    announce(desk, now=0)
    desk.expire(now=150)
    assert desk.table.num_torrents == 1
    desk.expire(now=151)
    assert desk.table.num_torrents == 0
