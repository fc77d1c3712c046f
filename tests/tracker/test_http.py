"""tracker.http: requests, refusals, limits (T3, T4, T5)."""

import asyncio
import ipaddress
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.http_tracker import (
    AnnounceAnswer,
    FailureAnswer,
    decode_announce,
    decode_scrape,
)
from bittern.core.announce import ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.tracker.desk import Desk
from bittern.tracker.http import MAX_REQUEST_LENGTH, HttpTracker, _Connection
from tests.virtual_time import simulated

HASH = InfoHash(b"h" * 20)
QUERY = f"info_hash={'h' * 20}&peer_id={'p' * 20}"


def make(trusted: Sequence[str] = (), **limits: Any) -> HttpTracker:
    networks = [ipaddress.ip_network(network) for network in trusted]
    return HttpTracker(Desk(random.Random(1)), lambda: 5.0, trusted=networks, **limits)


def get(tracker: HttpTracker, target: str, host: str = "8.0.0.1") -> tuple[str, bytes]:
    """Return status line and body of the answer to a GET."""
    answer = tracker.answer(f"GET {target} HTTP/1.1\r\nHost: t".encode("latin-1"), host)
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert f"Content-Length: {len(body)}" in lines
    assert "Connection: close" in lines
    return lines[0], body


def announce(
    tracker: HttpTracker, extra: str = "&port=1&left=1", host: str = "8.0.0.1"
) -> AnnounceAnswer:
    status, body = get(tracker, f"/announce?{QUERY}{extra}", host)
    assert status == "HTTP/1.1 200 OK"
    answer = decode_announce(body)
    assert isinstance(answer, AnnounceAnswer)
    return answer


def refusal(tracker: HttpTracker, target: str) -> FailureAnswer:
    status, body = get(tracker, target)
    assert status == "HTTP/1.1 200 OK"
    answer = decode_announce(body)
    assert isinstance(answer, FailureAnswer)
    return answer


@pytest.mark.parametrize("left", ["", "&left="])
def test_who_does_not_say_what_it_lacks_is_no_seed(left: str) -> None:
    """A seed is told of no seeds, so a magnet link would never get anywhere."""
    tracker = make()
    announce(tracker, "&port=1&left=0")
    answer = announce(tracker, "&port=2" + left, "8.0.0.2")
    assert answer.peers == (Endpoint("8.0.0.1", 1),)
    assert (answer.num_seeds, answer.num_leechers) == (1, 1)


def test_peers_find_each_other() -> None:
    tracker = make()
    assert announce(tracker) == AnnounceAnswer(
        interval=1800,
        min_interval=60,
        num_seeds=0,
        num_leechers=1,
        num_downloaded=0,
        external_host="8.0.0.1",
    )
    six = announce(tracker, "&port=2&left=0", "2001:db8::1")
    assert six.peers == (Endpoint("8.0.0.1", 1),)
    assert six.external_host == "2001:db8::1"
    again = announce(tracker)
    assert again.peers == (Endpoint("2001:db8::1", 2),)
    assert (again.num_seeds, again.num_leechers) == (1, 1)
    announce(tracker, "&port=2&event=stopped", "2001:db8::1")
    assert announce(tracker).peers == ()


@pytest.mark.parametrize(
    ("extra", "number"), [("", 50), ("&numwant=0", 0), ("&numwant=7", 7), ("&numwant=900", 200)]
)
def test_numwant(extra: str, number: int) -> None:
    """Limit: T3."""
    tracker = make()
    for index in range(220):
        announce(tracker, "&port=1&left=1&numwant=0", f"8.0.0.{index}")
    assert len(announce(tracker, "&port=1&left=1" + extra, "8.9.9.9").peers) == number


def test_scrape() -> None:
    tracker = make()
    announce(tracker)
    status, body = get(tracker, "/scrape?info_hash=" + "h" * 20 + "&info_hash=" + "o" * 20)
    assert status == "HTTP/1.1 200 OK"
    assert decode_scrape(body) == {
        HASH: ScrapeEntry(0, 0, 1),
        InfoHash(b"o" * 20): ScrapeEntry(0, 0, 0),
    }


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/announce", "info_hash is missing"),
        (f"/announce?{QUERY}", "port is missing"),
        (f"/announce?{QUERY}&port=0", "port must be in 1..65535"),
        (f"/announce?{QUERY}&port=65536", "port is too large (limit 65535)"),
        ("/announce?info_hash=short", "info_hash must have 20 bytes, not 5"),
        ("/scrape", "a full scrape is not available"),
        ("/scrape?info_hash=short", "info_hash must have 20 bytes, not 5"),
    ],
)
def test_refusals_say_why(target: str, reason: str) -> None:
    told: list[tuple[str, str]] = []
    tracker = make(refused=lambda host, why: told.append((host, why)))
    assert refusal(tracker, target) == FailureAnswer(reason)
    assert told == [("8.0.0.1", reason)], "and so does the tracker to who runs it"
    assert tracker._desk.num_refused == 1


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", "400"),
        (b"GET", "400"),
        (b"GET /announce", "400"),
        (b"GET  /announce HTTP/1.1", "400"),
        (b"GET /announce SPDY/1", "400"),
        (b"GET http://[::1/announce HTTP/1.1", "400"),
        (b"\x16\x03\x01\x02\x00", "400"),
        (b"\x13BitTorrent protocol", "400"),
        (b"POST /announce HTTP/1.1", "405"),
        (b"HEAD /announce HTTP/1.1", "405"),
        (b"GET / HTTP/1.1", "404"),
        (b"GET /announcement HTTP/1.1", "404"),
        (b"GET /stats HTTP/1.1", "404"),
        (b"GET /announce HTTP/1.0", "200"),
        (b"GET /x/passkey/announce?x HTTP/1.1", "200"),
        (b"GET http://tracker.example/scrape HTTP/1.1", "200"),
    ],
)
def test_requests_of_all_kinds(head: bytes, status: str) -> None:
    answer = make().answer(head, "8.0.0.1")
    assert answer.startswith(b"HTTP/1.1 " + status.encode() + b" ")


def test_ip_parameter_is_ignored() -> None:
    """Limit: T4."""
    tracker = make()
    announce(tracker, "&port=1&left=1&ip=9.9.9.9")
    assert announce(tracker, host="8.0.0.2").peers == (Endpoint("8.0.0.1", 1),)


def test_ip_parameter_is_believed_from_trusted_networks() -> None:
    tracker = make(["10.0.0.0/8"])
    found = announce(tracker, "&port=1&left=1&ip=9.9.9.9", "10.1.2.3")
    assert found.external_host == "9.9.9.9"
    announce(tracker, "&port=1&left=1&ip=::ffff:9.9.9.8", "10.1.2.3")
    announce(tracker, "&port=1&left=1&ip=9.9.9.7", "11.0.0.1")
    assert {peer.host for peer in announce(tracker, host="8.0.0.2").peers} == {
        "9.9.9.9",
        "9.9.9.8",
        "11.0.0.1",
    }
    _, body = get(tracker, f"/announce?{QUERY}&port=1&ip=example.com", "10.1.2.3")
    assert decode_announce(body) == FailureAnswer("ip is not an address")


@given(st.binary(max_size=300))
def test_any_head_is_answered(head: bytes) -> None:
    assert make().answer(head, "8.0.0.1").startswith(b"HTTP/1.1 ")


# --- connections (T5) ---------------------------------------------------------------------


class FakeTransport(asyncio.Transport):
    """Remembers what was written; a slow one never gets rid of it."""

    def __init__(self, host: str | None = "8.0.0.1", *, is_slow: bool = False) -> None:
        super().__init__()
        self.host = host
        self.is_slow = is_slow
        self.written = b""
        self.ended_at: float | None = None
        self.protocol: asyncio.Protocol | None = None
        self._is_closing = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        assert name == "peername"
        return None if self.host is None else (self.host, 5)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True
        if not self.is_slow:
            self.abort()

    def abort(self) -> None:
        self._is_closing = True
        if self.ended_at is None:
            loop = asyncio.get_running_loop()
            self.ended_at = loop.time()
            if self.protocol is not None:
                loop.call_soon(self.protocol.connection_lost, None)


def connect(
    tracker: HttpTracker, host: str | None = "8.0.0.1", *, is_slow: bool = False
) -> tuple[asyncio.Protocol, FakeTransport]:
    protocol = tracker()
    transport = FakeTransport(host, is_slow=is_slow)
    transport.protocol = protocol
    protocol.connection_made(transport)
    return protocol, transport


REQUEST = f"GET /announce?{QUERY}&port=1 HTTP/1.1\r\nHost: t\r\n\r\n".encode()


@pytest.mark.parametrize("step", [1, 3, 1000])
@simulated
async def test_requests_may_come_in_parts(step: int) -> None:
    tracker = make()
    protocol, transport = connect(tracker)
    for at in range(0, len(REQUEST), step):
        assert transport.written == b""
        protocol.data_received(REQUEST[at : at + step])
    assert transport.written.startswith(b"HTTP/1.1 200 OK")
    assert transport.is_closing()
    protocol.data_received(REQUEST)  # nothing more is answered
    assert transport.written.count(b"HTTP/1.1") == 1
    await asyncio.sleep(0)
    assert tracker.num_connections == 0
    protocol.data_received(REQUEST)


@pytest.mark.parametrize(
    ("data", "is_refused"),
    [
        (b"GET /" + b"a" * MAX_REQUEST_LENGTH, True),
        (b"GET /" + b"a" * MAX_REQUEST_LENGTH + b" HTTP/1.1\r\n\r\n", True),
        (b"GET /a HTTP/1.1\r\n" + b"X: y\r\n" * 2000 + b"\r\n", True),
        (b"GET /" + b"a" * (MAX_REQUEST_LENGTH - 30) + b" HTTP/1.1\r\n\r\n", False),
    ],
)
@simulated
async def test_long_requests_are_refused(data: bytes, is_refused: bool) -> None:
    """Limit: T5."""
    protocol, transport = connect(make())
    protocol.data_received(data)
    assert transport.written.startswith(b"HTTP/1.1 431") is is_refused
    assert transport.is_closing()


@simulated
async def test_slow_requests_are_cut_off() -> None:
    """Limit: T5. A byte a second does not help."""
    tracker = make()
    protocol, transport = connect(tracker)
    for at in range(20):
        protocol.data_received(REQUEST[at : at + 1])
        await asyncio.sleep(1)
    assert transport.ended_at == 10
    assert transport.written == b""
    assert tracker.num_connections == 0


@simulated
async def test_slow_readers_are_cut_off() -> None:
    tracker = make()
    protocol, transport = connect(tracker, is_slow=True)
    await asyncio.sleep(4)
    protocol.data_received(REQUEST)
    await asyncio.sleep(100)
    assert transport.ended_at == 14
    assert isinstance(protocol, _Connection)
    protocol.abort()
    assert tracker.num_connections == 0


@simulated
async def test_connections_are_limited_by_address_and_in_all() -> None:
    """Limit: T5."""
    tracker = make(max_connections=10, max_per_address=3)
    same = [connect(tracker, f"2001:db8::{number + 1}")[1] for number in range(5)]
    assert [transport.is_closing() for transport in same] == [False] * 3 + [True] * 2
    many = [connect(tracker, f"8.0.0.{number}")[1] for number in range(9)]
    # Too many in all: the oldest make room.
    assert [t.is_closing() for t in same] == [True, True, False, True, True]
    assert not any(transport.is_closing() for transport in many)
    assert (tracker.num_connections, tracker.num_turned_away) == (10, 4)
    again = connect(tracker, "2001:db8::9")[1]
    assert not again.is_closing()
    tracker.close()
    await asyncio.sleep(0)
    assert tracker.num_connections == 0
    local = [connect(tracker, "127.0.0.1")[1] for _ in range(12)]
    assert [transport.is_closing() for transport in local] == [True] * 2 + [False] * 10
    tracker.close()
    await asyncio.sleep(0)
    assert not tracker._per_address, "nothing is kept of an address that has gone"


@simulated
async def test_an_honest_request_gets_through_a_crowd_that_drips() -> None:
    """Limit: T5."""
    tracker = make(max_connections=50)
    for number in range(1000):
        drip, _ = connect(tracker, f"8.0.{number // 250}.{number % 250}")
        drip.data_received(b"G")
        if number % 100 == 99:
            protocol, transport = connect(tracker, "9.9.9.9")
            protocol.data_received(REQUEST)
            assert transport.written.startswith(b"HTTP/1.1 200 OK")
        await asyncio.sleep(0.001)
    assert tracker.num_connections <= 50
    tracker.close()


@simulated
async def test_who_left_before_being_met_is_forgotten() -> None:
    tracker = make()
    _, transport = connect(tracker, None)
    assert transport.is_closing()
    await asyncio.sleep(0)
    assert tracker.num_connections == 0


@simulated
async def test_an_end_without_a_question_gets_nothing() -> None:
    protocol, transport = connect(make())
    protocol.data_received(REQUEST[:20])
    assert protocol.eof_received() is None
    transport.abort()
    await asyncio.sleep(0)
    assert transport.written == b""
