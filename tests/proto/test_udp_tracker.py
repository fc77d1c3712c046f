"""proto.udp_tracker: transactions, connection ids, retries (BEP 15)."""

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bittern.codec.udp_tracker import (
    AnnounceQuery,
    ConnectQuery,
    Query,
    ScrapeQuery,
    decode_query,
    encode_announce_reply,
    encode_connect_reply,
    encode_error,
    encode_scrape_reply,
)
from bittern.core.announce import AnnounceAnswer, AnnounceRequest, Event, ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash, PeerId
from bittern.proto.udp_tracker import (
    Announced,
    BadDatagram,
    RequestFailed,
    RequestTimedOut,
    RequestUnsent,
    Scraped,
    UdpTrackerClient,
    UdpTrackerEvent,
)

TRACKER = Endpoint("192.0.2.1", 6969)
OTHER = Endpoint("192.0.2.2", 6969)
V6 = Endpoint("2001:db8::1", 6969)
REQUEST = AnnounceRequest(
    info_hash=InfoHash(b"h" * 20), peer_id=PeerId(b"p" * 20), port=6881, event=Event.STARTED
)
ANSWER = AnnounceAnswer(
    interval=900, peers=(Endpoint("192.0.2.9", 1),), num_seeds=1, num_leechers=2
)


def counter(start: int = 100) -> Callable[[], int]:
    numbers: Iterator[int] = iter(range(start, start + 100_000))
    return lambda: next(numbers)


def make(**options: float) -> UdpTrackerClient:
    return UdpTrackerClient(random_id=counter(), **options)  # type: ignore[arg-type]


def sent(client: UdpTrackerClient) -> list[tuple[Query, Endpoint]]:
    return [(decode_query(data), endpoint) for data, endpoint in client.datagrams_to_send()]


def one(client: UdpTrackerClient) -> Query:
    [(query, endpoint)] = sent(client)
    assert endpoint == TRACKER
    return query


def connect(client: UdpTrackerClient, *, now: float, connection_id: int = 7) -> None:
    query = one(client)
    assert isinstance(query, ConnectQuery)
    client.receive_datagram(
        encode_connect_reply(query.transaction_id, connection_id), TRACKER, now=now
    )


def test_normal_announce() -> None:
    """BEP 15, first example."""
    client = make()
    number = client.announce(TRACKER, REQUEST, now=0, url_data=b"/x")
    connect(client, now=1)
    query = one(client)
    assert query == AnnounceQuery(7, query.transaction_id, query.request, b"/x")  # type: ignore[union-attr]
    assert isinstance(query, AnnounceQuery)
    assert query.request.event is Event.STARTED
    client.receive_datagram(encode_announce_reply(query.transaction_id, ANSWER), TRACKER, now=2)
    assert client.events() == [Announced(number, ANSWER)]
    assert client.events() == []
    assert client.next_timer() is None
    assert repr(client) == "<UdpTrackerClient 0 requests, 1 connections>"


def run(client: UdpTrackerClient, until: float) -> list[tuple[float, str]]:
    """Let timers run; answer only connects made before t=1; note what is sent when."""
    log = []
    for query, _ in sent(client):
        log.append((0.0, type(query).__name__))
    while (due := client.next_timer()) is not None and due <= until:
        client.handle_timer(now=due)
        log += [(due, type(query).__name__) for query, _ in sent(client)]
    return log


def test_connect_times_out_as_in_the_example() -> None:
    """BEP 15: connect requests at 0, 15, 45, 105 ..."""
    client = make()
    client.announce(TRACKER, REQUEST, now=0)
    times = [time for time, kind in run(client, 500)]
    assert times == [0, 15, 45, 105, 225, 465]


def test_announce_times_out_as_in_the_example() -> None:
    """BEP 15: announces at 2, 17, 47, then connects at 107, 227."""
    client = make()
    client.announce(TRACKER, REQUEST, now=0)
    connect(client, now=2)
    log = run(client, 300)
    assert log[1:] == [
        (17, "AnnounceQuery"),
        (47, "AnnounceQuery"),
        (107, "ConnectQuery"),
        (227, "ConnectQuery"),
    ]


def test_silence_ends_the_request() -> None:
    client = make(max_sends=3, retry_interval=5)
    number = client.announce(TRACKER, REQUEST, now=0)
    assert [time for time, _ in run(client, 1000)] == [0, 5, 15]
    assert client.events() == [RequestTimedOut(number)]
    assert client.next_timer() is None
    assert repr(client) == "<UdpTrackerClient 0 requests, 0 connections>"


def test_requests_to_where_there_is_no_way_end_and_others_go_on() -> None:
    client = make()
    sent_before = client.announce(TRACKER, REQUEST, now=0)
    connect(client, now=1)
    other = client.announce(TRACKER._replace(port=1), REQUEST, now=2)
    waiting = client.scrape(TRACKER, [REQUEST.info_hash], now=100)
    client.cannot_reach(TRACKER)
    assert client.events() == [RequestUnsent(sent_before), RequestUnsent(waiting)]
    client.cannot_reach(TRACKER)
    assert client.events() == []
    assert repr(client) == "<UdpTrackerClient 1 requests, 1 connections>"
    client.cancel(other)
    assert client.next_timer() is None


def test_silence_after_the_connect_ends_the_request() -> None:
    client = make(max_sends=2, retry_interval=5)
    number = client.scrape(TRACKER, [REQUEST.info_hash], now=0)
    connect(client, now=1)
    assert [kind for _, kind in run(client, 1000)] == ["ScrapeQuery", "ScrapeQuery"]
    assert client.events() == [RequestTimedOut(number)]
    assert repr(client) == "<UdpTrackerClient 0 requests, 1 connections>"


def test_connection_id_is_shared_and_lives_a_minute() -> None:
    client = make()
    first = client.announce(TRACKER, REQUEST, now=0)
    second = client.scrape(TRACKER, [REQUEST.info_hash], now=0)
    connect(client, now=1)
    queries = [query for query, _ in sent(client)]
    assert [type(query) for query in queries] == [AnnounceQuery, ScrapeQuery]
    assert first != second
    client.announce(TRACKER, REQUEST, now=60.9)
    assert isinstance(one(client), AnnounceQuery)
    client.announce(TRACKER, REQUEST, now=61)
    assert isinstance(one(client), ConnectQuery)


def connect_other(client: UdpTrackerClient, *, now: float) -> None:
    """Connect to the other tracker, at which expired connections are dropped."""
    client.announce(OTHER, REQUEST, now=now)
    [(query, endpoint)] = sent(client)
    assert (type(query), endpoint) == (ConnectQuery, OTHER)
    client.receive_datagram(encode_connect_reply(query.transaction_id, 9), OTHER, now=now)
    client.datagrams_to_send()


def test_an_answer_counts_when_its_connection_has_been_dropped_meanwhile() -> None:
    client = make()
    first = client.announce(TRACKER, REQUEST, now=0)
    second = client.announce(TRACKER, REQUEST, now=0)
    connect(client, now=0)
    announce, refused = (query.transaction_id for query, _ in sent(client))
    connect_other(client, now=100)
    assert repr(client) == "<UdpTrackerClient 3 requests, 1 connections>"
    client.receive_datagram(encode_announce_reply(announce, ANSWER), TRACKER, now=101)
    assert client.events() == [Announced(first, ANSWER)]
    client.receive_datagram(encode_error(refused, "bad connection"), TRACKER, now=101)
    connect(client, now=102)
    client.receive_datagram(
        encode_announce_reply(one(client).transaction_id, ANSWER), TRACKER, now=103
    )
    assert client.events() == [Announced(second, ANSWER)]


def test_a_connection_that_is_being_renewed_is_not_dropped() -> None:
    client = make()
    client.announce(TRACKER, REQUEST, now=0)
    connect(client, now=0)
    client.datagrams_to_send()
    client.announce(TRACKER, REQUEST, now=100)
    renewal = one(client)
    connect_other(client, now=100)
    client.receive_datagram(encode_connect_reply(renewal.transaction_id, 8), TRACKER, now=101)
    assert isinstance(one(client), AnnounceQuery)


def test_each_endpoint_has_its_own_connection() -> None:
    client = make()
    client.announce(TRACKER, REQUEST, now=0)
    connect(client, now=0)
    client.datagrams_to_send()
    client.announce(OTHER, REQUEST, now=1)
    [(query, endpoint)] = sent(client)
    assert (type(query), endpoint) == (ConnectQuery, OTHER)


def test_scrape_names_only_what_was_answered() -> None:
    client = make()
    hashes = [InfoHash(bytes([i]) * 20) for i in range(3)]
    number = client.scrape(TRACKER, hashes, now=0)
    connect(client, now=0)
    query = one(client)
    entries = [ScrapeEntry(1, 2, 3), ScrapeEntry(4, 5, 6)]
    client.receive_datagram(encode_scrape_reply(query.transaction_id, entries), TRACKER, now=1)
    assert client.events() == [Scraped(number, dict(zip(hashes, entries, strict=False)))]


def test_ipv6_answers_have_long_peers() -> None:
    client = make()
    number = client.announce(V6, REQUEST, now=0)
    [(query, _)] = sent(client)
    client.receive_datagram(encode_connect_reply(query.transaction_id, 1), V6, now=0)
    [(query, _)] = sent(client)
    answer = AnnounceAnswer(interval=60, peers=(V6,), num_seeds=0, num_leechers=0)
    client.receive_datagram(encode_announce_reply(query.transaction_id, answer), V6, now=0)
    assert client.events() == [Announced(number, answer)]


Reply = Callable[[int], bytes]


@pytest.mark.parametrize(
    ("reply", "source", "reason"),
    [
        (lambda number: b"", TRACKER, "packet of 0 bytes"),
        (lambda number: encode_connect_reply(number ^ 1, 5), TRACKER, "unknown transaction"),
        (lambda number: encode_connect_reply(number, 5), OTHER, "not from the tracker"),
        (
            lambda number: encode_connect_reply(number, 5),
            Endpoint(TRACKER.host, 6970),
            "not from the tracker",
        ),
        (lambda number: encode_announce_reply(number, ANSWER), TRACKER, "not the action"),
        (lambda number: encode_scrape_reply(number, []), TRACKER, "not the action"),
    ],
)
def test_what_answers_no_connect_changes_nothing(
    reply: Reply, source: Endpoint, reason: str
) -> None:
    client = make()
    client.announce(TRACKER, REQUEST, now=0)
    query = one(client)
    client.receive_datagram(reply(query.transaction_id), source, now=1)
    [event] = client.events()
    assert isinstance(event, BadDatagram)
    assert event.source == source
    assert reason in event.reason
    assert sent(client) == []
    assert client.next_timer() == 15


@pytest.mark.parametrize("is_scrape", [False, True])
def test_an_answer_must_have_the_action_that_was_asked_for(is_scrape: bool) -> None:
    client = make()
    if is_scrape:
        client.scrape(TRACKER, [REQUEST.info_hash], now=0)
    else:
        client.announce(TRACKER, REQUEST, now=0)
    connect(client, now=0)
    number = one(client).transaction_id
    wrong = encode_announce_reply(number, ANSWER) if is_scrape else encode_scrape_reply(number, [])
    for data in (wrong, encode_connect_reply(number, 9)):
        client.receive_datagram(data, TRACKER, now=1)
        [event] = client.events()
        assert isinstance(event, BadDatagram)
    assert client.next_timer() == 15


def test_refused_connect_fails_all_that_wait() -> None:
    client = make()
    numbers = [client.announce(TRACKER, REQUEST, now=0) for _ in range(3)]
    query = one(client)
    client.receive_datagram(encode_error(query.transaction_id, "full"), TRACKER, now=1)
    assert client.events() == [RequestFailed(number, "full") for number in numbers]
    assert client.next_timer() is None


def test_refused_announce_fails() -> None:
    client = make()
    number = client.announce(TRACKER, REQUEST, now=0)
    connect(client, now=0)
    query = one(client)
    client.receive_datagram(encode_error(query.transaction_id, "unregistered"), TRACKER, now=1)
    assert client.events() == [RequestFailed(number, "unregistered")]
    client.receive_datagram(encode_error(query.transaction_id, "unregistered"), TRACKER, now=1)
    assert isinstance(client.events()[0], BadDatagram)


def test_complaint_about_the_connection_id_is_answered_by_a_new_one_once() -> None:
    client = make()
    number = client.announce(TRACKER, REQUEST, now=0)
    connect(client, now=0)
    complaint = "Connection ID missmatch."
    client.receive_datagram(encode_error(one(client).transaction_id, complaint), TRACKER, now=1)
    assert client.events() == []
    connect(client, now=2, connection_id=8)
    query = one(client)
    assert isinstance(query, AnnounceQuery)
    assert query.connection_id == 8
    client.receive_datagram(encode_error(query.transaction_id, complaint), TRACKER, now=3)
    assert client.events() == [RequestFailed(number, complaint)]


def test_only_the_connection_complained_about_is_given_up() -> None:
    client = make()
    first = client.announce(TRACKER, REQUEST, now=0)
    connect(client, now=0, connection_id=7)
    old = one(client).transaction_id
    client.announce(TRACKER, REQUEST, now=60)
    connect(client, now=60, connection_id=8)
    assert isinstance(one(client), AnnounceQuery)
    client.receive_datagram(encode_error(old, "bad connection"), TRACKER, now=61)
    query = one(client)
    assert isinstance(query, AnnounceQuery)
    assert query.connection_id == 8
    client.receive_datagram(encode_announce_reply(old, ANSWER), TRACKER, now=62)
    assert client.events() == [Announced(first, ANSWER)]


def test_a_late_answer_still_counts() -> None:
    client = make()
    number = client.announce(TRACKER, REQUEST, now=0)
    connect(client, now=0)
    query = one(client)
    assert [time for time, _ in run(client, 106)][:2] == [15, 45]
    client.handle_timer(now=105)
    client.datagrams_to_send()  # a connect by now, since the id has expired
    client.receive_datagram(encode_announce_reply(query.transaction_id, ANSWER), TRACKER, now=106)
    assert client.events() == [Announced(number, ANSWER)]
    assert client.next_timer() is None


@pytest.mark.parametrize("is_connected", [False, True])
def test_cancelled_requests_end_without_an_event(is_connected: bool) -> None:
    client = make()
    number = client.announce(TRACKER, REQUEST, now=0)
    if is_connected:
        connect(client, now=0)
    query = one(client)
    client.cancel(number)
    client.cancel(number)
    client.cancel(999)
    client.receive_datagram(encode_announce_reply(query.transaction_id, ANSWER), TRACKER, now=1)
    client.handle_timer(now=10_000)
    assert [type(event) for event in client.events()] == [BadDatagram]
    assert client.next_timer() is None


def test_cancel_leaves_others_waiting() -> None:
    client = make()
    first = client.announce(TRACKER, REQUEST, now=0)
    second = client.announce(TRACKER, REQUEST, now=0)
    client.cancel(first)
    connect(client, now=1)
    query = one(client)
    client.receive_datagram(encode_announce_reply(query.transaction_id, ANSWER), TRACKER, now=1)
    assert client.events() == [Announced(second, ANSWER)]


def test_transaction_ids_are_never_used_twice_at_once() -> None:
    numbers = iter([5, 5, 5, 6, 2**32 + 7])
    client = UdpTrackerClient(random_id=lambda: next(numbers))
    client.announce(TRACKER, REQUEST, now=0)
    client.announce(OTHER, REQUEST, now=0)
    client.announce(V6, REQUEST, now=0)
    assert [query.transaction_id for query, _ in sent(client)] == [5, 6, 7]


def test_expired_connections_are_forgotten() -> None:
    client = make()
    for i in range(50):
        endpoint = Endpoint(f"192.0.2.{i}", 1)
        client.announce(endpoint, REQUEST, now=i * 100)
        [(query, _)] = sent(client)
        client.receive_datagram(
            encode_connect_reply(query.transaction_id, 1), endpoint, now=i * 100
        )
        client.datagrams_to_send()
    assert repr(client) == "<UdpTrackerClient 50 requests, 1 connections>"


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_every_request_ends_once_over_a_bad_link(seed: int, num_requests: int) -> None:
    """A link that drops, repeats and delays, and a tracker that sometimes refuses."""
    rng = random.Random(seed)
    client = UdpTrackerClient(random_id=lambda: rng.getrandbits(32), retry_interval=3, max_sends=4)
    now = 0.0
    wire: list[tuple[float, int, bytes, Endpoint]] = []
    asked: set[int] = set()
    ended: list[int] = []

    def tracker(data: bytes) -> bytes:
        match decode_query(data):
            case ConnectQuery(number):
                return encode_connect_reply(number, 3)
            case AnnounceQuery(_, number, _):
                if rng.random() < 0.2:
                    return encode_error(number, rng.choice(["no", "connection id"]))
                return encode_announce_reply(number, ANSWER)
            case ScrapeQuery(_, number, hashes):
                return encode_scrape_reply(number, [ScrapeEntry(1, 1, 1)] * len(hashes))

    def note(events: list[UdpTrackerEvent]) -> None:
        ended.extend(event.request_id for event in events if not isinstance(event, BadDatagram))

    for step in range(2000):
        if len(asked) < num_requests and rng.random() < 0.5:
            endpoint = rng.choice([TRACKER, OTHER])
            if rng.random() < 0.5:
                asked.add(client.announce(endpoint, REQUEST, now=now))
            else:
                asked.add(client.scrape(endpoint, [REQUEST.info_hash], now=now))
        for data, endpoint in client.datagrams_to_send():
            copies = range(rng.choice([0, 1, 1, 2]))
            wire += [(now + rng.random() * 4, step, tracker(data), endpoint) for _ in copies]
        wire.sort()
        times = [entry[0] for entry in wire[:1]]
        if (due := client.next_timer()) is not None:
            times.append(due)
        now = min(times) if times else now + 1
        while wire and wire[0][0] <= now:
            _, _, data, endpoint = wire.pop(0)
            client.receive_datagram(data, endpoint, now=now)
        client.handle_timer(now=now)
        note(client.events())
        if len(ended) == num_requests and not wire:
            break
    assert sorted(ended) == sorted(asked)
    assert client.next_timer() is None


@given(st.binary(max_size=60))
def test_no_datagram_raises(data: bytes) -> None:
    client = make()
    client.announce(TRACKER, REQUEST, now=0)
    client.receive_datagram(data, TRACKER, now=1)
    client.receive_datagram(bytes(4) + (100).to_bytes(4, "big") + data, TRACKER, now=1)
    assert len(client.events()) <= 2
