"""engine.sources.tracker_client: one call for http and udp trackers, both families."""

import asyncio
import math
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import pytest

from bittern.codec.http_tracker import encode_announce, encode_failure, encode_scrape
from bittern.codec.tracker_query import parse_announce_query
from bittern.codec.udp_tracker import (
    AnnounceQuery,
    ConnectQuery,
    decode_query,
    encode_announce_reply,
    encode_connect_reply,
    encode_error,
    encode_scrape_reply,
)
from bittern.core.announce import AnnounceAnswer, AnnounceRequest, FailureAnswer, ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.errors import (
    FetchError,
    MisuseError,
    ResolveError,
    TrackerFailure,
    TrackerUnreachable,
)
from bittern.core.ids import InfoHash, PeerId
from bittern.engine.sources import tracker_client
from bittern.engine.sources.tracker_client import TrackerClient, merge_answers
from bittern.net.access import Access
from bittern.net.http import HttpResponse
from bittern.net.udp_tracker import UdpTrackers
from bittern.testing.loop import VirtualLoop
from tests.virtual_time import simulated

HASH, OTHER = InfoHash(b"h" * 20), InfoHash(b"o" * 20)
REQUEST = AnnounceRequest(info_hash=HASH, peer_id=PeerId(b"p" * 20), port=6881)
PEER4, PEER6 = Endpoint("203.0.113.1", 1), Endpoint("2001:db8::9", 2)
ADDRESSES = {
    "t": ("203.0.113.7",),
    "six": ("2001:db8::7",),
    "both": ("2001:db8::7", "203.0.113.7", "203.0.113.8"),
    "many": ("203.0.113.20", "203.0.113.21", "203.0.113.7"),
    "multicast": ("224.0.0.1",),
}


class FakeNames:
    async def resolve(self, host: str) -> tuple[str, ...]:
        if host not in ADDRESSES:
            raise ResolveError(host, "unknown")
        return ADDRESSES[host]


Answerer = Callable[[str, bool], HttpResponse | Exception]


def ok(body: bytes, status: int = 200, **headers: str) -> HttpResponse:
    return HttpResponse(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, body, ""
    )


class FakeHttp:
    """Answers as told, a second later."""

    def __init__(self, answer: Answerer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, bool | None]] = []
        self.num_under_way = 0
        self.most_under_way = 0
        self.delays: Mapping[bool, float] = {}

    async def fetch(
        self,
        url: str,
        *,
        access: Access,
        max_length: int,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        ipv6: bool | None = None,
    ) -> HttpResponse:
        assert access is Access.TRACKER
        assert max_length == 1 << 20
        assert timeout == 30
        assert ipv6 is not None
        self.asked.append((url, ipv6))
        self.num_under_way += 1
        self.most_under_way = max(self.most_under_way, self.num_under_way)
        try:
            await asyncio.sleep(self.delays.get(ipv6, 1))
        finally:
            self.num_under_way -= 1
        answer = self.answer(url, ipv6)
        if isinstance(answer, Exception):
            raise answer
        return answer


def announce_body(url: str, ipv6: bool) -> HttpResponse:
    peers = (PEER6,) if ipv6 else (PEER4,)
    answer = AnnounceAnswer(interval=900 if ipv6 else 1200, peers=peers, num_seeds=3)
    return ok(encode_announce(answer))


class FakeSocket:
    """A scripted UDP tracker behind each address, a second away."""

    def __init__(self, host: str, *, is_silent: bool = False) -> None:
        self.endpoint = Endpoint(host, 6881)
        self.is_silent = is_silent
        self.silent_hosts: set[str] = set()
        self.asked: list[tuple[bytes, Endpoint]] = []
        self.tried: list[str] = []
        self.receive: Callable[[bytes, Endpoint], object] = lambda data, source: None

    def send(self, data: bytes, target: Endpoint) -> None:
        query = decode_query(data)
        self.tried.append(target.host)
        if isinstance(query, AnnounceQuery):
            self.asked.append((query.url_data, target))
            if query.url_data == b"/refuse":
                answer = encode_error(query.transaction_id, "no")
            else:
                peers = (PEER6,) if target.is_ipv6 else (PEER4,)
                answer = encode_announce_reply(
                    query.transaction_id,
                    AnnounceAnswer(interval=700, peers=peers, num_seeds=1, num_leechers=2),
                )
        elif isinstance(query, ConnectQuery):
            answer = encode_connect_reply(query.transaction_id, 1)
        else:
            entries = [ScrapeEntry(1, 2, 3)] * len(query.info_hashes)
            answer = encode_scrape_reply(query.transaction_id, entries)
        if not self.is_silent and target.host not in self.silent_hosts:
            asyncio.get_running_loop().call_later(1, self.receive, answer, target)


def make(
    answer: Answerer = announce_body,
    *,
    sockets: tuple[FakeSocket, ...] = (),
) -> tuple[TrackerClient, FakeHttp]:
    http = FakeHttp(answer)
    udp = UdpTrackers(sockets) if sockets else None
    for socket in sockets:
        assert udp is not None
        socket.receive = udp.receive
    client = TrackerClient(http=http, udp=udp, resolver=FakeNames())
    return client, http


@simulated
async def test_http_announce() -> None:
    client, http = make()
    answer = await client.announce("http://t/announce?k=1", [REQUEST])
    assert answer == AnnounceAnswer(interval=1200, peers=(PEER4,), num_seeds=3)
    [(url, ipv6)] = http.asked
    assert ipv6 is False
    assert parse_announce_query(urlsplit(url).query) == REQUEST
    assert url.startswith("http://t/announce?k=1&info_hash=hhhh")


@simulated
async def test_both_families_and_both_hashes_are_announced(loop: VirtualLoop) -> None:
    """BEP 7, BEP 52."""
    client, http = make()
    heard: list[str] = []
    other = AnnounceRequest(info_hash=OTHER, peer_id=REQUEST.peer_id, port=6881)
    answer = await client.announce(
        "https://both/announce",
        [REQUEST, other],
        answered=lambda answer, host: heard.append(host),
    )
    assert answer.interval == 1200
    assert set(answer.peers) == {PEER4, PEER6}
    assert len(answer.peers) == 2
    assert sorted(heard) == ["2001:db8::7"] * 2 + ["203.0.113.7"] * 2
    assert sorted(ipv6 or False for _, ipv6 in http.asked) == [False, False, True, True]
    assert loop.time() == 1


@simulated
async def test_one_family_is_enough() -> None:
    def answer(url: str, ipv6: bool) -> HttpResponse | Exception:
        return FetchError("no route") if ipv6 else announce_body(url, ipv6)

    client, _ = make(answer)
    found = await client.announce("http://both/announce", [REQUEST])
    assert found.peers == (PEER4,)


@simulated
async def test_a_silent_family_holds_the_other_up_for_five_seconds(loop: VirtualLoop) -> None:
    client, http = make()
    http.delays = {True: 100}
    heard_at: list[float] = []
    answer = await client.announce(
        "http://both/announce",
        [REQUEST],
        answered=lambda answer, host: heard_at.append(loop.time()),
    )
    assert answer.peers == (PEER4,)
    assert heard_at == [1]
    assert loop.time() == 6
    assert http.num_under_way == 0
    http.delays = {True: 3}
    assert len((await client.announce("http://both/announce", [REQUEST])).peers) == 2
    assert loop.time() == 9


@simulated
async def test_a_late_success_after_a_failure_counts() -> None:
    def answer(url: str, ipv6: bool) -> HttpResponse | Exception:
        return announce_body(url, ipv6) if ipv6 else ok(encode_failure(FailureAnswer("no")))

    client, http = make(answer)
    http.delays = {True: 20}
    assert (await client.announce("http://both/announce", [REQUEST])).peers == (PEER6,)


@pytest.mark.parametrize("refused", [False, True])
@simulated
async def test_a_refusal_says_more_than_silence(refused: bool) -> None:
    def answer(url: str, ipv6: bool) -> HttpResponse | Exception:
        if ipv6 is refused:
            return ok(encode_failure(FailureAnswer("not registered", 120)))
        return FetchError("no route")

    client, _ = make(answer)
    with pytest.raises(TrackerFailure, match="not registered") as caught:
        await client.announce("http://both/announce", [REQUEST])
    assert caught.value.retry_after == 120
    assert not caught.value.is_ours


@simulated
async def test_a_bug_is_not_hidden_by_a_success() -> None:
    def answer(url: str, ipv6: bool) -> HttpResponse | Exception:
        return MisuseError("bug") if ipv6 else announce_body(url, ipv6)

    client, _ = make(answer)
    with pytest.raises(MisuseError, match="bug"):
        await client.announce("http://both/announce", [REQUEST])


FAILURE = encode_failure(FailureAnswer("go away", math.inf))
NOW = "Fri, 31 Dec 1999 23:50:00 GMT"
IN_FIVE_MINUTES = "Fri, 31 Dec 1999 23:55:00 GMT"
IN_A_YEAR = "Sun, 31 Dec 2000 23:50:00 GMT"


@pytest.mark.parametrize(
    ("answer", "reason", "retry_after"),
    [
        (ok(FAILURE), "go away", math.inf),
        (ok(FAILURE, 403), "go away", math.inf),
        (ok(b"d14:failure reason1:xe", 410), "x", None),
        (ok(b"<html>", 410), "gone for good", math.inf),
        (ok(b"", 503, retry_after="120"), "HTTP status 503", 120),
        (ok(b"", 503, retry_after="9999999999999"), "HTTP status 503", 604_800),
        (ok(b"", 503, retry_after=IN_FIVE_MINUTES, date=NOW), "HTTP status 503", 300),
        (ok(b"", 429, retry_after=IN_FIVE_MINUTES, date=IN_A_YEAR), "HTTP status 429", 0),
        (ok(b"", 503, retry_after=IN_A_YEAR, date=NOW), "HTTP status 503", 604_800),
    ],
)
@simulated
async def test_refusals(answer: HttpResponse, reason: str, retry_after: float | None) -> None:
    client, _ = make(lambda url, ipv6: answer)
    with pytest.raises(TrackerFailure, match=reason) as caught:
        await client.announce("http://t/announce", [REQUEST])
    assert caught.value.retry_after == retry_after


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ok(b"<html>"), "answer not understood: not bencoded"),
        (ok(b"de"), "answer not understood: neither"),
        (ok(b"<html>", 404), "HTTP status 404"),
        (ok(encode_announce(AnnounceAnswer()), 500), "HTTP status 500"),
        (ok(b"", 503, retry_after="soon"), "HTTP status 503"),
        (ok(b"", 302), "HTTP status 302"),
        (FetchError("connection refused"), "connection refused"),
    ],
)
@simulated
async def test_unreachable_ones(answer: HttpResponse | Exception, reason: str) -> None:
    client, _ = make(lambda url, ipv6: answer)
    with pytest.raises(TrackerUnreachable, match=reason):
        await client.announce("http://t/announce", [REQUEST])


@pytest.mark.parametrize(
    "url", ["wss://t/announce", "http:///announce", "nonsense", "http://t:x/", "udp://multicast:1"]
)
@simulated
async def test_impossible_urls_are_lasting_failures(url: str) -> None:
    client, http = make(sockets=(FakeSocket("203.0.113.1"),))
    with pytest.raises(TrackerFailure) as caught:
        await client.announce(url, [REQUEST])
    assert caught.value.retry_after == math.inf
    assert caught.value.is_ours
    assert http.asked == []


@simulated
async def test_names_that_do_not_resolve() -> None:
    client, _ = make()
    for url in ("http://nowhere/announce", "udp://nowhere:1"):
        with pytest.raises(TrackerUnreachable, match="cannot resolve 'nowhere'"):
            await client.announce(url, [REQUEST])


@simulated
async def test_udp_announce_over_both_families(loop: VirtualLoop) -> None:
    four, six = FakeSocket("203.0.113.1"), FakeSocket("2001:db8::1")
    client, _ = make(sockets=(four, six))
    answer = await client.announce("udp://both:6969/a%20b?k=1", [REQUEST])
    assert set(answer.peers) == {PEER4, PEER6}
    assert four.asked == [(b"/a%20b?k=1", Endpoint("203.0.113.7", 6969))]
    assert six.asked == [(b"/a%20b?k=1", Endpoint("2001:db8::7", 6969))]
    assert loop.time() == 2
    await client.announce("udp://t", [REQUEST])
    assert four.asked[-1] == (b"", Endpoint("203.0.113.7", 80))


@simulated
async def test_of_the_addresses_of_a_udp_tracker_those_that_are_silent_are_asked_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracker_client, "MAX_SILENT", 2)
    one, two, three = ADDRESSES["many"]
    socket = FakeSocket("203.0.113.1")
    socket.silent_hosts = {one, two}
    client, _ = make(sockets=(socket,))
    for _ in range(2):
        with pytest.raises(TrackerUnreachable, match="tracker is silent"):
            await client.announce("udp://many:1", [REQUEST])
    for _ in range(2):
        answer = await client.announce("udp://many:1", [REQUEST])
        assert answer.peers == (PEER4,)
    assert list(dict.fromkeys(socket.tried)) == [one, two, three]
    # When all are, they take turns.
    socket.silent_hosts.add(three)
    socket.tried.clear()
    for _ in range(4):
        with pytest.raises(TrackerUnreachable):
            await client.announce("udp://many:1", [REQUEST])
    assert socket.tried[::3] == [three, one, two, three]


@simulated
async def test_udp_refusal_and_lack_of_sockets() -> None:
    client, _ = make(sockets=(FakeSocket("203.0.113.1"),))
    with pytest.raises(TrackerFailure, match="no"):
        await client.announce("udp://t:1/refuse", [REQUEST])
    with pytest.raises(TrackerUnreachable, match="no IPv6 here"):
        await client.announce("udp://six:1", [REQUEST])
    bare, _ = make()
    with pytest.raises(TrackerUnreachable, match="no UDP here"):
        await bare.announce("udp://t:1", [REQUEST])


@simulated
async def test_udp_silence_is_bounded(loop: VirtualLoop) -> None:
    silent = FakeSocket("203.0.113.1", is_silent=True)
    client, _ = make(sockets=(silent,))
    with pytest.raises(TrackerUnreachable, match="tracker is silent"):
        await client.announce("udp://t:1", [REQUEST])
    assert loop.time() == 35
    slow = UdpTrackers([silent], retry_interval=100)
    client = TrackerClient(http=FakeHttp(announce_body), udp=slow, resolver=FakeNames())
    with pytest.raises(TrackerUnreachable, match="tracker is silent"):
        await client.announce("udp://t:1", [REQUEST])
    assert loop.time() == 35 + 60


@simulated
async def test_no_more_than_fifty_http_requests_at_once(
    loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F11. And who waits for a place does not lose time."""
    for number in range(10):
        monkeypatch.setitem(ADDRESSES, f"t{number}", ("10.0.0.1",))
    client, http = make()
    urls = [f"http://t{number % 10}/announce" for number in range(175)]
    await asyncio.gather(*(client.announce(url, [REQUEST]) for url in urls))
    assert http.most_under_way == 50
    assert loop.time() == 4


@simulated
async def test_no_more_than_eight_of_them_to_one_host(loop: VirtualLoop) -> None:
    """Limit: F11. Another host is asked at once, and a port is no other host."""
    client, http = make()
    urls = [f"http://t:{80 + number % 2}/announce" for number in range(24)]
    await asyncio.gather(*(client.announce(url, [REQUEST]) for url in urls))
    assert http.most_under_way == 8
    assert loop.time() == 3


@simulated
async def test_cancelling_ends_all_requests() -> None:
    client, http = make()
    task = asyncio.ensure_future(client.announce("http://both/announce", [REQUEST]))
    await asyncio.sleep(0.5)
    assert http.num_under_way == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert http.num_under_way == 0


@simulated
async def test_scrape() -> None:
    entries = {HASH: ScrapeEntry(1, 2, 3), InfoHash(bytes(20)): ScrapeEntry(9, 9, 9)}
    client, http = make(
        lambda url, ipv6: ok(encode_scrape(entries)), sockets=(FakeSocket("203.0.113.1"),)
    )
    found = await client.scrape("http://t/announce", [HASH, OTHER])
    assert found == {HASH: ScrapeEntry(1, 2, 3)}
    assert http.asked[0][0].startswith("http://t/scrape?info_hash=hhh")
    assert await client.scrape("udp://t:1", [HASH]) == {HASH: ScrapeEntry(1, 2, 3)}
    with pytest.raises(TrackerFailure, match="cannot be scraped"):
        await client.scrape("http://t/x", [HASH])


def test_answers_are_merged() -> None:
    one = AnnounceAnswer(interval=100, min_interval=60, peers=(PEER4,), num_seeds=5)
    assert merge_answers([one]) is one
    two = AnnounceAnswer(
        interval=90,
        min_interval=80,
        peers=(PEER6, PEER4),
        num_leechers=4,
        external_host="203.0.113.5",
        tracker_id=b"t",
        warning="w",
    )
    assert merge_answers([one, two]) == AnnounceAnswer(
        interval=100,
        min_interval=80,
        peers=(PEER4, PEER6),
        num_seeds=5,
        num_leechers=4,
        external_host="203.0.113.5",
        tracker_id=b"t",
        warning="w",
    )
