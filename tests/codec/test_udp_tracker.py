"""codec.udp_tracker: packets of BEP 15 and options of BEP 41, both directions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.udp_tracker import (
    AnnounceQuery,
    AnnounceReply,
    ConnectQuery,
    ConnectReply,
    ErrorReply,
    Query,
    Reply,
    ScrapeQuery,
    ScrapeReply,
    decode_query,
    decode_reply,
    decode_url_data,
    encode_announce,
    encode_announce_reply,
    encode_connect,
    encode_connect_reply,
    encode_error,
    encode_scrape,
    encode_scrape_reply,
    encode_url_data,
)
from bittern.core.announce import AnnounceAnswer, AnnounceRequest, Event, ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.errors import TrackerDecodeError
from bittern.core.ids import InfoHash, PeerId

HASH, OTHER = InfoHash(b"h" * 20), InfoHash(b"o" * 20)
ID = PeerId(b"-bt0100-0123456789ab")
V4 = Endpoint("192.0.2.1", 6881)
V6 = Endpoint("2001:db8::1", 6882)
REQUEST = AnnounceRequest(
    info_hash=HASH,
    peer_id=ID,
    port=6881,
    uploaded=3,
    downloaded=1,
    left=2,
    event=Event.STARTED,
    key=0xDEADBEEF,
    numwant=50,
)
HEAD = bytes.fromhex("0102030405060708 00000001 0a0b0c0d")
ANNOUNCE = (
    HEAD
    + HASH
    + ID
    + bytes.fromhex("0000000000000001 0000000000000002 0000000000000003")
    + bytes.fromhex("00000002 00000000 deadbeef 00000032 1ae1")
)
CONNECTION, TRANSACTION = 0x0102030405060708, 0x0A0B0C0D


def encode_query(query: Query) -> bytes:
    match query:
        case ConnectQuery():
            return encode_connect(query.transaction_id)
        case AnnounceQuery():
            return encode_announce(
                query.connection_id, query.transaction_id, query.request, url_data=query.url_data
            )
        case ScrapeQuery():
            return encode_scrape(query.connection_id, query.transaction_id, query.info_hashes)


QUERIES: list[tuple[Query, bytes]] = [
    (ConnectQuery(TRANSACTION), bytes.fromhex("0000041727101980 00000000 0a0b0c0d")),
    (AnnounceQuery(CONNECTION, TRANSACTION, REQUEST), ANNOUNCE),
    (AnnounceQuery(CONNECTION, TRANSACTION, REQUEST, b"/p?q"), ANNOUNCE + b"\x02\x04/p?q"),
    (
        ScrapeQuery(CONNECTION, TRANSACTION, (HASH, OTHER)),
        bytes.fromhex("0102030405060708 00000002 0a0b0c0d") + HASH + OTHER,
    ),
]


@pytest.mark.parametrize(("query", "data"), QUERIES)
def test_queries_both_ways(query: Query, data: bytes) -> None:
    assert encode_query(query) == data
    assert decode_query(data) == query


@pytest.mark.parametrize(("query", "data"), QUERIES)
def test_a_cut_query_is_refused(query: Query, data: bytes) -> None:
    whole = {98} if isinstance(query, AnnounceQuery) else {36}
    for end in set(range(len(data))) - whole:
        with pytest.raises(TrackerDecodeError):
            decode_query(data[:end])


def encode_reply(reply: Reply) -> bytes:
    match reply:
        case ConnectReply():
            return encode_connect_reply(reply.transaction_id, reply.connection_id)
        case AnnounceReply():
            return encode_announce_reply(reply.transaction_id, reply.answer)
        case ScrapeReply():
            return encode_scrape_reply(reply.transaction_id, reply.entries)
        case ErrorReply():
            return encode_error(reply.transaction_id, reply.reason)


def announce_answer(*peers: Endpoint) -> AnnounceAnswer:
    return AnnounceAnswer(interval=900, peers=peers, num_seeds=5, num_leechers=7)


REPLIES: list[tuple[Reply, bytes]] = [
    (ConnectReply(TRANSACTION, CONNECTION), bytes.fromhex("00000000 0a0b0c0d 0102030405060708")),
    (
        AnnounceReply(TRANSACTION, announce_answer()),
        bytes.fromhex("00000001 0a0b0c0d 00000384 00000007 00000005"),
    ),
    (
        AnnounceReply(TRANSACTION, announce_answer(V4, V4)),
        bytes.fromhex("00000001 0a0b0c0d 00000384 00000007 00000005 c00002011ae1 c00002011ae1"),
    ),
    (
        ScrapeReply(TRANSACTION, (ScrapeEntry(1, 2, 3), ScrapeEntry(4, 5, 6))),
        bytes.fromhex("00000002 0a0b0c0d 000000010000000200000003 000000040000000500000006"),
    ),
    (ScrapeReply(TRANSACTION, ()), bytes.fromhex("00000002 0a0b0c0d")),
    (ErrorReply(TRANSACTION, "go away"), bytes.fromhex("00000003 0a0b0c0d") + b"go away"),
]


@pytest.mark.parametrize(("reply", "data"), REPLIES)
def test_replies_both_ways(reply: Reply, data: bytes) -> None:
    assert encode_reply(reply) == data
    assert decode_reply(data, ipv6=False) == reply


def test_peers_take_18_bytes_over_ipv6() -> None:
    reply = AnnounceReply(1, announce_answer(V6, V6))
    data = encode_announce_reply(1, reply.answer)
    assert len(data) == 20 + 36
    assert decode_reply(data, ipv6=True) == reply


@pytest.mark.parametrize("ipv6", [False, True])
def test_announce_answers_must_have_whole_peers(ipv6: bool) -> None:
    """Limit: N5. 20 + 6n or 20 + 18n."""
    whole = bytes.fromhex("00000001 0a0b0c0d 00000384 00000007 00000005") + bytes(99)
    for length in (*range(8), *range(9, 64)):  # 8 are a refusal, see below
        if length >= 20 and (length - 20) % (18 if ipv6 else 6) == 0:
            assert isinstance(decode_reply(whole[:length], ipv6=ipv6), AnnounceReply)
        else:
            with pytest.raises(TrackerDecodeError):
                decode_reply(whole[:length], ipv6=ipv6)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [(0, 1800), (1, 60), (900, 900), (86_401, 86_400), (0x7FFFFFFF, 86_400), (0xFFFFFFFF, 1800)],
)
def test_interval_grid(interval: int, expected: int) -> None:
    """Limit: N5."""
    data = bytes.fromhex("00000001 0a0b0c0d") + interval.to_bytes(4, "big") + bytes(8)
    reply = decode_reply(data, ipv6=False)
    assert isinstance(reply, AnnounceReply)
    assert reply.answer.interval == expected


def test_no_more_than_2000_peers_are_used() -> None:
    data = bytes.fromhex("00000001 0a0b0c0d") + bytes(12) + bytes(6 * 2500)
    reply = decode_reply(data, ipv6=False)
    assert isinstance(reply, AnnounceReply)
    assert len(reply.answer.peers) == 2000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\1\0\0\0",
        bytes.fromhex("00000000 0a0b0c0d 01020304050607"),
        bytes.fromhex("00000002 0a0b0c0d 00"),
        bytes.fromhex("00000004 0a0b0c0d"),
        bytes.fromhex("ffffffff 0a0b0c0d"),
        b"d1:rd2:id20:",
    ],
)
def test_what_is_no_reply(data: bytes) -> None:
    with pytest.raises(TrackerDecodeError):
        decode_reply(data, ipv6=False)


def test_packets_may_grow() -> None:
    """BEP 15: do not expect packets to be exactly of a certain size."""
    connect = bytes.fromhex("00000000 0a0b0c0d 0102030405060708") + b"more"
    assert decode_reply(connect, ipv6=False) == ConnectReply(TRANSACTION, CONNECTION)
    query = bytes.fromhex("0000041727101980 00000000 0a0b0c0d") + b"more"
    assert decode_query(query) == ConnectQuery(TRANSACTION)


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"", "no reason given"), (b"\x1b[2J\n", "[2J"), (b"e" * 2000, "e" * 1024)],
)
def test_error_text_is_cleaned(raw: bytes, text: str) -> None:
    reply = decode_reply(bytes.fromhex("00000003 0a0b0c0d") + raw, ipv6=False)
    assert reply == ErrorReply(TRANSACTION, text)


def test_announce_answer_of_a_head_alone_is_a_refusal() -> None:
    """Recorded from opentracker, of a torrent that its list does not have."""
    reply = decode_reply(bytes.fromhex("00000001 de0c1b33"), ipv6=False)
    assert reply == ErrorReply(0xDE0C1B33, "refused without a reason")


def test_error_is_never_longer_than_asked_for() -> None:
    """Limit: N1."""
    assert encode_error(1, "x" * 100, max_length=16) == b"\0\0\0\3\0\0\0\1" + b"x" * 8


@pytest.mark.parametrize(
    ("event", "number"),
    [
        (Event.NONE, 0),
        (Event.COMPLETED, 1),
        (Event.STARTED, 2),
        (Event.STOPPED, 3),
        (Event.PAUSED, 0),
    ],
)
def test_event_numbers(event: Event, number: int) -> None:
    request = AnnounceRequest(info_hash=HASH, peer_id=ID, port=1, event=event)
    data = encode_announce(1, 2, request)
    assert data[80:84] == number.to_bytes(4, "big")
    query = decode_query(data)
    assert isinstance(query, AnnounceQuery)
    assert query.request.event is (Event.NONE if event is Event.PAUSED else event)


@pytest.mark.parametrize(
    ("numwant", "raw", "read"),
    [(None, -1, None), (0, 0, 0), (200, 200, 200), (5000, 5000, 2000)],
)
def test_numwant(numwant: int | None, raw: int, read: int | None) -> None:
    request = AnnounceRequest(info_hash=HASH, peer_id=ID, port=1, numwant=numwant)
    data = encode_announce(1, 2, request)
    assert data[92:96] == raw.to_bytes(4, "big", signed=True)
    query = decode_query(data)
    assert isinstance(query, AnnounceQuery)
    assert query.request.numwant == read


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bytes(16), "protocol id"),
        (bytes(8) + bytes.fromhex("00000003 00000001"), "unknown action 3"),
        (bytes(8) + bytes.fromhex("00000001 00000001"), "announce of 16 bytes"),
        (bytes(8) + bytes.fromhex("00000002 00000001"), "whole info hash"),
        (bytes(8) + bytes.fromhex("00000002 00000001") + bytes(21), "whole info hash"),
        (bytes(8) + bytes.fromhex("00000002 00000001") + bytes(20 * 75), "too many"),
        (ANNOUNCE[:80] + bytes.fromhex("ffffffff") + ANNOUNCE[84:] + b"\x02", "option"),
    ],
)
def test_what_is_no_query(data: bytes, reason: str) -> None:
    with pytest.raises(TrackerDecodeError, match=reason):
        decode_query(data)


def test_scrape_is_cut_to_74_hashes() -> None:
    assert len(encode_scrape(1, 2, [HASH] * 80)) == 16 + 74 * 20


@pytest.mark.parametrize(
    ("options", "url_data"),
    [
        (b"", b""),
        (b"\x00garbage", b""),
        (b"\x02\x0c/dir?a=b&c=d", b"/dir?a=b&c=d"),
        (b"\x02\x0c/dir?a=b&c=d\x01\x01\x00", b"/dir?a=b&c=d"),
        (b"\x02\x00", b""),
        (b"\x02\x02/a\x07\x03xyz\x02\x02/b", b"/a/b"),
        (b"\xff\x00\x02\x01/", b"/"),
    ],
)
def test_options_are_read(options: bytes, url_data: bytes) -> None:
    """The examples of BEP 41, and options nobody knows yet."""
    assert decode_url_data(options) == url_data


@pytest.mark.parametrize("options", [b"\x02", b"\x02\x05/dir", b"\x01\x01\x09", b"\x02\xffx"])
def test_options_beyond_the_packet_are_refused(options: bytes) -> None:
    with pytest.raises(TrackerDecodeError, match="beyond the packet"):
        decode_url_data(options)


def test_url_data_is_bounded_both_ways() -> None:
    assert decode_url_data(encode_url_data(b"x" * 2000)) == b"x" * 1024
    with pytest.raises(TrackerDecodeError, match="too long"):
        decode_url_data((b"\x02\xff" + b"x" * 255) * 5)


@given(st.binary(max_size=1024))
def test_url_data_survives_the_round_trip(url_data: bytes) -> None:
    assert decode_url_data(encode_url_data(url_data)) == url_data


@given(st.binary(max_size=200), st.booleans())
def test_only_decode_errors_escape(data: bytes, ipv6: bool) -> None:
    try:
        decode_reply(data, ipv6=ipv6)
    except TrackerDecodeError:
        pass
    try:
        decode_query(data)
    except TrackerDecodeError:
        pass


@given(st.integers(0, 3), st.binary(max_size=200), st.booleans())
def test_accepted_replies_are_encoded_again_to_the_same_bytes(
    action: int, tail: bytes, ipv6: bool
) -> None:
    data = action.to_bytes(4, "big") + tail
    try:
        reply = decode_reply(data, ipv6=ipv6)
    except TrackerDecodeError:
        return
    again = encode_reply(reply)
    if action != 1:  # an IPv4-mapped peer changes its family
        assert decode_reply(again, ipv6=ipv6) == reply
    if action == 2:
        assert again == data
