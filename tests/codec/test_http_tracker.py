"""codec.http_tracker: answers to announce and scrape (BEP 3, 7, 23, 24, 31, 48)."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bittern.codec.bencode import encode
from bittern.codec.http_tracker import (
    decode_announce,
    decode_scrape,
    encode_announce,
    encode_failure,
    encode_scrape,
)
from bittern.core.announce import AnnounceAnswer, FailureAnswer, ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.errors import TrackerDecodeError
from bittern.core.ids import InfoHash
from tests.codec.fuzzing import fuzz, mutate_tree

V4 = Endpoint("192.0.2.1", 6881)
V6 = Endpoint("2001:db8::1", 6882)

ANSWERS = [
    (AnnounceAnswer(), b"d8:intervali1800e12:min intervali60e5:peers0:e"),
    (
        AnnounceAnswer(
            interval=900,
            min_interval=300,
            peers=(V4, V6),
            num_seeds=1,
            num_leechers=2,
            num_downloaded=3,
            external_host="203.0.113.7",
            tracker_id=b"id",
            warning="busy",
        ),
        b"d8:completei1e10:downloadedi3e11:external ip4:\xcb\x00\x71\x07"
        b"10:incompletei2e8:intervali900e12:min intervali300e"
        b"5:peers6:\xc0\x00\x02\x01\x1a\xe1"
        b"6:peers618:\x20\x01\x0d\xb8" + bytes(11) + b"\x01\x1a\xe2"
        b"10:tracker id2:id15:warning message4:busye",
    ),
]


@pytest.mark.parametrize(("answer", "data"), ANSWERS)
def test_answers_both_ways(answer: AnnounceAnswer, data: bytes) -> None:
    assert encode_announce(answer) == data
    assert decode_announce(data) == answer
    assert decode_announce(data + b"\r\n trailing") == answer


@pytest.mark.parametrize(("answer", "data"), ANSWERS)
def test_a_cut_answer_is_refused(answer: AnnounceAnswer, data: bytes) -> None:
    for end in range(len(data)):
        with pytest.raises(TrackerDecodeError):
            decode_announce(data[:end])


endpoints_v4 = st.builds(Endpoint, st.ip_addresses(v=4).map(str), st.integers(0, 65535))
endpoints_v6 = st.builds(
    Endpoint.make, st.ip_addresses(v=6).map(str), st.integers(0, 65535)
).filter(lambda endpoint: endpoint.is_ipv6)
counts = st.none() | st.integers(0, 2**63 - 1)


@settings(max_examples=20)
@given(
    st.builds(
        AnnounceAnswer,
        interval=st.integers(60, 86_400),
        min_interval=st.just(60),
        peers=st.tuples(st.lists(endpoints_v4, max_size=4), st.lists(endpoints_v6, max_size=4)).map(
            lambda lists: (*lists[0], *lists[1])
        ),
        num_seeds=counts,
        num_leechers=counts,
        num_downloaded=counts,
        external_host=st.none() | endpoints_v4.map(lambda e: e.host),
        tracker_id=st.binary(max_size=256),
        warning=st.none() | st.just("take care"),
    )
)
def test_decode_inverts_encode(answer: AnnounceAnswer) -> None:
    data = encode_announce(answer)
    assert decode_announce(data) == answer


def answer_of(**fields: object) -> AnnounceAnswer:
    """Decode a dictionary in which underscores of keys stand for spaces."""
    raw = {key.replace("_", " ").encode(): value for key, value in fields.items()}
    data = encode(dict(sorted({b"interval": 1800, **raw}.items())))  # type: ignore[arg-type]
    answer = decode_announce(data)
    assert isinstance(answer, AnnounceAnswer)
    return answer


@pytest.mark.parametrize(
    ("value", "interval"),
    [
        (-5, 1800),
        (0, 1800),
        (b"900", 1800),
        ([], 1800),
        (1, 60),
        (59, 60),
        (60, 60),
        (86_400, 86_400),
        (2**63 - 1, 86_400),
    ],
)
def test_interval_grid(value: object, interval: int) -> None:
    """Limit: N5."""
    assert answer_of(interval=value).interval == interval


@pytest.mark.parametrize(
    ("interval", "value", "min_interval"),
    [
        (1800, -1, 60),
        (1800, 0, 60),
        (1800, b"x", 60),
        (1800, 10, 60),
        (1800, 300, 300),
        (1800, 1800, 1800),
        (1800, 10**9, 1800),
        (10, 10**9, 60),
    ],
)
def test_min_interval_grid(interval: int, value: object, min_interval: int) -> None:
    """Limit: N5."""
    assert answer_of(interval=interval, min_interval=value).min_interval == min_interval


LISTED = {b"ip": b"192.0.2.1", b"peer id": b"x" * 20, b"port": 6881}


@pytest.mark.parametrize(
    ("peers", "found"),
    [
        (b"", ()),
        (V4.to_compact(), (V4,)),
        (V4.to_compact() + b"12345", (V4,)),
        (b"12345", ()),
        ([], ()),
        ([LISTED], (V4,)),
        ([{**LISTED, b"ip": b"2001:DB8:0::1", b"port": 6882}], (V6,)),
        ([{**LISTED, b"ip": b"::ffff:192.0.2.1"}], (V4,)),
        ([{**LISTED, b"ip": b"peer.example"}, LISTED], (V4,)),
        ([{**LISTED, b"ip": b"\xff"}, {**LISTED, b"ip": 1}, {**LISTED, b"ip": b"1" * 99}], ()),
        ([{**LISTED, b"port": -1}, {**LISTED, b"port": 65536}, {**LISTED, b"port": b"1"}], ()),
        ([{}, 1, b"x", [], LISTED], (V4,)),
        (7, ()),
        ({}, ()),
    ],
)
def test_peers_grid(peers: object, found: tuple[Endpoint, ...]) -> None:
    """A malformed peer costs itself only (N5: odd peer entries)."""
    assert answer_of(peers=peers).peers == found


def test_peers6_may_be_alone_and_ragged() -> None:
    assert answer_of(peers6=V6.to_compact() + b"1234567").peers == (V6,)


@pytest.mark.parametrize(
    ("peers", "peers6"),
    [
        (2001 * V4.to_compact(), b""),
        (1999 * V4.to_compact(), 9 * V6.to_compact()),
        (b"", 2200 * V6.to_compact()),
        ([LISTED] * 2200, b""),
    ],
)
def test_no_more_than_2000_peers_are_used(peers: object, peers6: bytes) -> None:
    """Limit: N5."""
    assert len(answer_of(peers=peers, peers6=peers6).peers) == 2000


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"complete": -1}, "num_seeds", None),
        ({"complete": 0}, "num_seeds", 0),
        ({"incomplete": b"4"}, "num_leechers", None),
        ({"downloaded": 4}, "num_downloaded", 4),
        ({"external_ip": b"123"}, "external_host", None),
        ({"external_ip": bytes(10) + b"\xff\xff\xc0\x00\x02\x01"}, "external_host", "192.0.2.1"),
        ({"external_ip": b"\x20\x01\x0d\xb8" + bytes(12)}, "external_host", "2001:db8::"),
        ({"tracker_id": b"x" * 256}, "tracker_id", b"x" * 256),
        ({"tracker_id": b"x" * 257}, "tracker_id", b""),
        ({"tracker_id": 5}, "tracker_id", b""),
        ({"warning_message": b"a\x1b[2Jb"}, "warning", "a [2Jb"),
        ({"warning_message": b"w" * 4000}, "warning", "w" * 1024),
        ({"warning_message": b"\n"}, "warning", None),
        ({"warning_message": [1]}, "warning", None),
    ],
)
def test_optional_fields(fields: dict[str, object], name: str, value: object) -> None:
    assert getattr(answer_of(**fields), name) == value


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"d14:failure reason10:Overloaded8:retry in1:5e", FailureAnswer("Overloaded", 300)),
        (
            b"d14:failure reason13:Not a tracker8:retry in5:nevere",
            FailureAnswer("Not a tracker", math.inf),
        ),
        (b"d14:failure reason1:x8:retry ini5ee", FailureAnswer("x", 300)),
        (b"d14:failure reason1:x8:retry ini0ee", FailureAnswer("x")),
        (b"d14:failure reason1:x8:retry ini-5ee", FailureAnswer("x")),
        (b"d14:failure reason1:x8:retry in4:soone", FailureAnswer("x")),
        (b"d14:failure reason1:x8:retry in2:-5e", FailureAnswer("x")),
        (b"d14:failure reason1:x8:retry in10:9999999999e", FailureAnswer("x")),
        (b"d14:failure reason1:x8:retry ini999999999999ee", FailureAnswer("x", 604_800)),
        (b"d14:failure reason0:e", FailureAnswer("no reason given")),
        (b"d14:failure reasoni5ee", FailureAnswer("no reason given")),
        (b"d14:failure reason4:a\nb\x005:peers0:e", FailureAnswer("a b")),
        (b"d14:failure reason2000:" + b"r" * 2000 + b"e", FailureAnswer("r" * 1024)),
    ],
)
def test_failures(data: bytes, answer: FailureAnswer) -> None:
    assert decode_announce(data) == answer
    assert decode_scrape(data) == answer


@pytest.mark.parametrize(
    "failure",
    [FailureAnswer("no"), FailureAnswer("later", 120), FailureAnswer("go away", math.inf)],
)
def test_failures_survive_the_round_trip(failure: FailureAnswer) -> None:
    assert decode_announce(encode_failure(failure)) == failure


def test_failure_waits_are_rounded_up_to_minutes() -> None:
    assert b"8:retry ini2ee" in encode_failure(FailureAnswer("x", 61))
    assert b"8:retry ini1ee" in encode_failure(FailureAnswer("x", 0))
    assert len(encode_failure(FailureAnswer("x" * 5000))) < 1100


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not bencoded"),
        (b"<html><body>404</body></html>", "not bencoded"),
        (b"i5e", "not a dictionary"),
        (b"le", "not a dictionary"),
        (b"de", "neither"),
        (b"d3:foo3:bare", "neither"),
        (b"d5:peersi1e5:peersi2ee", "not bencoded"),
        (b"d5:peers" + b"l" * 1000, "not bencoded"),
        (b"d5:peersl" + b"de" * 20_000 + b"ee", "not bencoded"),
        (b"d5:peers99999999:", "not bencoded"),
        (b"d5:peers" + b"2000000:" + bytes(2_000_000) + b"e", "not bencoded"),
    ],
)
def test_what_is_no_answer(data: bytes, reason: str) -> None:
    with pytest.raises(TrackerDecodeError, match=reason):
        decode_announce(data)


BEP_48_EXAMPLE = (
    b"d5:filesd20:xxxxxxxxxxxxxxxxxxxxd8:completei11e10:downloadedi13772e10:incompletei19ee"
    b"20:yyyyyyyyyyyyyyyyyyyyd8:completei21e10:downloadedi206e10:incompletei20eeee"
)
SCRAPES = [
    ({}, b"d5:filesdee"),
    (
        {
            InfoHash(b"x" * 20): ScrapeEntry(11, 13772, 19),
            InfoHash(b"y" * 20): ScrapeEntry(21, 206, 20),
        },
        BEP_48_EXAMPLE,
    ),
    ({InfoHash(bytes(20)): ScrapeEntry()}, b"d5:filesd20:" + bytes(20) + b"deee"),
]


@pytest.mark.parametrize(("entries", "data"), SCRAPES)
def test_scrapes_both_ways(entries: dict[InfoHash, ScrapeEntry], data: bytes) -> None:
    assert encode_scrape(entries) == data
    assert decode_scrape(data) == entries


def test_odd_scrape_entries_are_left_out() -> None:
    data = b"d5:filesd3:abcd8:completei1ee20:" + b"z" * 20 + b"i5e20:" + b"zz" * 10 + b"x"
    with pytest.raises(TrackerDecodeError):
        decode_scrape(data)
    odd = b"d5:filesd3:abcd8:completei1ee20:" + b"y" * 20 + b"i5e20:" + b"z" * 20
    odd += b"d8:completei-1e10:incompletei4eeee"
    assert decode_scrape(odd) == {InfoHash(b"z" * 20): ScrapeEntry(None, None, 4)}


@pytest.mark.parametrize("data", [b"de", b"d5:filesi1ee", b"le", b"d5:filesle"])
def test_what_is_no_scrape(data: bytes) -> None:
    with pytest.raises(TrackerDecodeError):
        decode_scrape(data)


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: b"d5:peers" + tail))
def test_only_decode_errors_escape(data: bytes) -> None:
    for decode in (decode_announce, decode_scrape):
        try:
            decode(data)
        except TrackerDecodeError:
            pass


@given(st.data())
def test_mutated_answers_never_break_the_limits(data: st.DataObject) -> None:
    raw = bytearray(ANSWERS[1][1])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        answer = decode_announce(bytes(raw))
    except TrackerDecodeError:
        return
    if isinstance(answer, AnnounceAnswer):
        assert 60 <= answer.min_interval <= answer.interval <= 86_400
        assert dataclasses.replace(answer) == answer


def _read_again(data: bytes) -> None:
    """Read an answer, and again what we would write of it, which must be the same."""
    answer = decode_announce(data)
    if isinstance(answer, AnnounceAnswer):
        again = decode_announce(encode_announce(answer))
        assert isinstance(again, AnnounceAnswer)
        assert sorted(again.peers) == sorted(answer.peers)
        assert dataclasses.replace(again, peers=()) == dataclasses.replace(answer, peers=())
    else:
        assert decode_announce(encode_failure(answer)) == answer


def test_fuzz_of_announce_answers_written_again() -> None:
    seeds = [data for _, data in ANSWERS]
    assert fuzz(_read_again, seeds, TrackerDecodeError, mutate=mutate_tree) > 50


def test_fuzz_of_scrape_answers_written_again() -> None:
    def read_again(data: bytes) -> None:
        found = decode_scrape(data)
        if isinstance(found, dict):
            assert decode_scrape(encode_scrape(found)) == found

    seeds = [data for _, data in SCRAPES]
    assert fuzz(read_again, seeds, TrackerDecodeError, mutate=mutate_tree) > 50
