"""DHT messages read from the wire."""

from __future__ import annotations

import random
import timeit
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.bencode import decode as decode_value
from bittern.codec.bencode import encode as encode_value
from bittern.codec.krpc import PLAIN_QUERY, decode
from bittern.codec.krpc_encoding import encode
from bittern.codec.krpc_message import (
    MAX_TRANSACTION_ID_LENGTH,
    AnnouncePeer,
    Arguments,
    BadQuery,
    ErrorCode,
    ErrorReply,
    FindNode,
    Get,
    GetPeers,
    Ping,
    Put,
    Query,
    Response,
    SampleInfohashes,
    Want,
)
from bittern.core.errors import KrpcDecodeError
from tests.codec.fuzzing import fuzz, mutate, mutate_tree

ID = b"abcdefghij0123456789"
TARGET = b"mnopqrstuvwxyz123456"
KEY, SIGNATURE = b"k" * 32, b"s" * 64


def query(arguments: Arguments, *, is_read_only: bool = False, version: bytes = b"") -> Query:
    return Query(b"aa", ID, arguments, is_read_only, version)


# The examples of BEP 5, byte by byte, and of the others in the form of their texts.
DECODED: list[tuple[bytes, object]] = [
    (b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", query(Ping())),
    (
        b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
        Response(transaction_id=b"aa", node_id=TARGET),
    ),
    (
        (b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e"
        b"1:q9:find_node1:t2:aa1:y1:qe"),
        query(FindNode(TARGET)),
    ),
    (
        (b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e"
        b"1:q9:get_peers1:t2:aa1:y1:qe"),
        query(GetPeers(TARGET)),
    ),
    (
        (b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee"
        b"1:t2:aa1:y1:re"),
        Response(
            transaction_id=b"aa", node_id=ID, token=b"aoeusnth", values=(b"axje.u", b"idhtnm")
        ),
    ),
    (
        (b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz123456"
        b"4:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe"),
        query(AnnouncePeer(TARGET, None, b"aoeusnth")),
    ),
    (
        b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee",
        ErrorReply(b"aa", 201, "A Generic Error Ocurred"),
    ),
    (
        (b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234566:noseedi1e"
        b"6:scrapei1e4:wantl2:n42:n62:xxee1:q9:get_peers2:roi1e1:t2:aa1:v4:LT011:y1:qe"),
        query(
            GetPeers(TARGET, Want.V4 | Want.V6, noseed=True, scrape=True),
            is_read_only=True,
            version=b"LT01",
        ),
    ),
    (
        (b"d1:ad2:id20:abcdefghij01234567893:seqi4e6:target20:mnopqrstuvwxyz123456e"
        b"1:q3:get1:t2:aa1:y1:qe"),
        query(Get(TARGET, 4)),
    ),
    (
        b"d1:ad2:id20:abcdefghij01234567895:token1:x1:vli1eee1:q3:put1:t2:aa1:y1:qe",
        query(Put(token=b"x", value=b"li1ee")),
    ),
    (
        b"d1:ad3:casi2e2:id20:abcdefghij01234567891:k32:" + KEY + b"4:salt2:ab3:seqi3e3:sig64:"
        b"" + SIGNATURE + b"5:token1:x1:v1:ye1:q3:put1:t2:aa1:y1:qe",
        query(
            Put(
                token=b"x",
                value=b"1:y",
                key=KEY,
                signature=SIGNATURE,
                seq=3,
                salt=b"ab",
                cas=2,
            )
        ),
    ),
    (
        (b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e"
        b"1:q17:sample_infohashes1:t2:aa1:y1:qe"),
        query(SampleInfohashes(TARGET)),
    ),
    (
        b"d2:ip6:\x01\x02\x03\x04\x00\x051:rd4:BFpe256:" + b"p" * 256 + b"4:BFsd256:" + b"s" * 256
        + b"2:id20:abcdefghij01234567898:intervali9e1:k32:" + KEY + b"5:nodes26:" + b"n" * 26
        + b"6:nodes638:" + b"6" * 38 + b"3:numi7e7:samples20:" + TARGET
        + b"3:seqi5e3:sig64:" + SIGNATURE + b"1:v2:hie1:t2:aa1:v4:LT011:y1:re",
        Response(
            transaction_id=b"aa",
            node_id=ID,
            external=b"\x01\x02\x03\x04\x00\x05",
            peer_filter=b"p" * 256,
            seed_filter=b"s" * 256,
            interval=9,
            key=KEY,
            nodes=b"n" * 26,
            nodes6=b"6" * 38,
            num=7,
            samples=TARGET,
            seq=5,
            signature=SIGNATURE,
            value=b"2:hi",
            version=b"LT01",
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), DECODED)
def test_examples_decode(data: bytes, message: object) -> None:
    assert decode(data) == message


REFUSED = {
    "empty": (b"", "ends too early"),
    "no bencoding": (b"hello", "unexpected byte"),
    "trailing bytes": (DECODED[0][0] + b"x", "bytes after"),
    "a list": (b"le", "not a dictionary"),
    "no t": (b"d1:y1:qe", "no transaction id"),
    "empty t": (b"d1:t0:1:y1:qe", "no transaction id"),
    "t is a number": (b"d1:ti1e1:y1:qe", "no transaction id"),
    "long t": (b"d1:t33:" + b"x" * 33 + b"1:y1:qe", "transaction id is too long (limit 32)"),
    "no y": (b"d1:t2:aae", "neither query"),
    "odd y": (b"d1:t2:aa1:y1:xe", "neither query"),
    "query without method": (b"d1:t2:aa1:y1:qe", "without a method"),
    "response without results": (b"d1:t2:aa1:y1:re", "without results"),
    "response without id": (b"d1:rde1:t2:aa1:y1:re", "without a node id"),
    "response with a short id": (b"d1:rd2:id3:abce1:t2:aa1:y1:re", "without a node id"),
    "too deep": (b"d1:t2:aa1:x" + b"l" * 10 + b"e" * 10 + b"1:y1:qe", "too deeply"),
    "too many tokens": (b"d1:t2:aa1:xl" + b"i1e" * 500 + b"e1:y1:qe", "too many"),
    "too long": (b"d1:t2:aa1:x2050:" + b"x" * 2050 + b"1:y1:qe", "too long"),
}


@pytest.mark.parametrize(("data", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_message_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(KrpcDecodeError) as caught:
        decode(data)
    assert text in str(caught.value)


def _query_bytes(method: bytes, arguments: object) -> bytes:
    return encode_value({b"t": b"aa", b"y": b"q", b"q": method, b"a": arguments})  # type: ignore[dict-item]


BAD_QUERIES: list[tuple[bytes, object, ErrorCode, str]] = [
    (b"ping", b"x", ErrorCode.PROTOCOL, "no arguments"),
    (b"ping", {}, ErrorCode.PROTOCOL, "bad id"),
    (b"ping", {b"id": b"short"}, ErrorCode.PROTOCOL, "bad id"),
    (b"ping", {b"id": 1}, ErrorCode.PROTOCOL, "bad id"),
    (b"find_node", {b"id": ID}, ErrorCode.PROTOCOL, "bad target"),
    (b"get_peers", {b"id": ID, b"info_hash": ID[:19]}, ErrorCode.PROTOCOL, "bad info_hash"),
    (
        b"announce_peer",
        {b"id": ID, b"info_hash": ID, b"token": b"x"},
        ErrorCode.PROTOCOL,
        "bad port",
    ),
    (
        b"announce_peer",
        {b"id": ID, b"info_hash": ID, b"token": b"x", b"port": 0},
        ErrorCode.PROTOCOL,
        "bad port",
    ),
    (
        b"announce_peer",
        {b"id": ID, b"info_hash": ID, b"token": b"x", b"port": 65536},
        ErrorCode.PROTOCOL,
        "bad port",
    ),
    (
        b"announce_peer",
        {b"id": ID, b"info_hash": ID, b"token": b"x", b"port": b"80"},
        ErrorCode.PROTOCOL,
        "bad port",
    ),
    (b"announce_peer", {b"id": ID, b"info_hash": ID, b"port": 1}, ErrorCode.PROTOCOL, "bad token"),
    (b"get", {b"id": ID, b"target": ID, b"seq": b"1"}, ErrorCode.PROTOCOL, "bad seq"),
    (b"put", {b"id": ID, b"token": b"x"}, ErrorCode.PROTOCOL, "bad v"),
    (b"put", {b"id": ID, b"v": b"x"}, ErrorCode.PROTOCOL, "bad token"),
    (b"put", {b"id": ID, b"v": 1, b"token": b"x", b"k": KEY}, ErrorCode.PROTOCOL, "bad seq"),
    (
        b"put",
        {b"id": ID, b"v": 1, b"token": b"x", b"k": KEY, b"seq": -1},
        ErrorCode.PROTOCOL,
        "bad seq",
    ),
    (
        b"put",
        {b"id": ID, b"v": 1, b"token": b"x", b"k": KEY[:31], b"seq": 1},
        ErrorCode.PROTOCOL,
        "bad k",
    ),
    (
        b"put",
        {b"id": ID, b"v": 1, b"token": b"x", b"k": KEY, b"seq": 1, b"sig": b"x"},
        ErrorCode.PROTOCOL,
        "bad sig",
    ),
    (
        b"put",
        {b"id": ID, b"v": 1, b"token": b"x", b"k": KEY, b"seq": 1, b"sig": SIGNATURE, b"salt": 1},
        ErrorCode.PROTOCOL,
        "bad salt",
    ),
    (b"sample_infohashes", {b"id": ID}, ErrorCode.PROTOCOL, "bad target"),
    (b"vote", {b"id": ID}, ErrorCode.METHOD_UNKNOWN, "unknown method"),
    (b"vote", {b"id": ID, b"target": b"x"}, ErrorCode.PROTOCOL, "bad target"),
]


@pytest.mark.parametrize(("method", "arguments", "code", "reason"), BAD_QUERIES)
def test_a_query_that_cannot_be_answered_says_why(
    method: bytes, arguments: object, code: ErrorCode, reason: str
) -> None:
    assert decode(_query_bytes(method, arguments)) == BadQuery(b"aa", code, reason)


@pytest.mark.parametrize("key", [b"target", b"info_hash"])
def test_an_unknown_method_with_a_target_reads_as_find_node(key: bytes) -> None:
    assert decode(_query_bytes(b"vote", {b"id": ID, key: TARGET})) == query(FindNode(TARGET))


def test_a_port_is_ignored_when_it_is_implied() -> None:
    arguments = {b"id": ID, b"info_hash": TARGET, b"token": b"x", b"implied_port": 1, b"port": 0}
    assert decode(_query_bytes(b"announce_peer", arguments)) == query(
        AnnouncePeer(TARGET, None, b"x")
    )


def test_want_that_is_no_list_counts_as_absent() -> None:
    arguments = {b"id": ID, b"target": TARGET, b"want": b"n4"}
    assert decode(_query_bytes(b"find_node", arguments)) == query(FindNode(TARGET))


def test_unsorted_keys_mark_a_put() -> None:
    data = b"d1:ad2:id20:abcdefghij01234567895:token1:x1:vd1:bi1e1:ai2eee1:q3:put1:t2:aa1:y1:qe"
    message = decode(data)
    assert isinstance(message, Query)
    assert isinstance(message.arguments, Put)
    assert not message.arguments.is_canonical


BAD_RESULTS: list[tuple[bytes, object, str, object]] = [
    (b"nodes", 5, "nodes", None),
    (b"nodes", b"n" * 30, "nodes", b"n" * 26),
    (b"nodes6", b"n" * 37, "nodes6", b""),
    (b"values", b"axje.u", "values", ()),
    (b"values", [b"axje.u", 5, b"x", b"y" * 18], "values", (b"axje.u", b"y" * 18)),
    (b"token", 5, "token", None),
    (b"token", b"x" * 65, "token", None),
    (b"k", b"x", "key", None),
    (b"sig", b"x", "signature", None),
    (b"seq", -1, "seq", None),
    (b"seq", b"1", "seq", None),
    (b"samples", b"x" * 21, "samples", b"x" * 20),
    (b"BFsd", b"x" * 255, "seed_filter", None),
    (b"num", -1, "num", None),
]


@pytest.mark.parametrize(("key", "value", "name", "expected"), BAD_RESULTS)
def test_a_bad_result_is_left_out_alone(
    key: bytes, value: object, name: str, expected: object
) -> None:
    results = {b"id": ID, b"token": b"good", key: value}
    message = decode(encode_value({b"t": b"aa", b"y": b"r", b"r": results}))  # type: ignore[dict-item]
    assert getattr(message, name) == expected
    if key != b"token":
        assert getattr(message, "token") == b"good"  # noqa: B009


@pytest.mark.parametrize("external", [b"", b"1234", b"12345", b"x" * 7, 5])
def test_an_odd_external_address_counts_as_absent(external: bytes | int) -> None:
    data = encode_value({b"t": b"aa", b"y": b"r", b"r": {b"id": ID}, b"ip": external, b"v": 5})
    assert decode(data) == Response(transaction_id=b"aa", node_id=ID)


ODD_ERRORS: list[tuple[object, int, str]] = [
    ([203, b"bad token"], 203, "bad token"),
    ([203], 203, ""),
    ([b"why"], 201, "why"),
    ([], 201, ""),
    (b"just text", 201, "just text"),
    (5, 201, ""),
    ([202, b"a\x1b[2Jb\xff"], 202, "a [2Jb�"),
    ([202, b"x" * 500], 202, "x" * 200),
]


@pytest.mark.parametrize(("value", "code", "text"), ODD_ERRORS)
def test_errors_are_read_leniently_and_cleaned(value: object, code: int, text: str) -> None:
    data = encode_value({b"t": b"aa", b"y": b"e", b"e": value})  # type: ignore[dict-item]
    assert decode(data) == ErrorReply(b"aa", code, text)


# --- the pattern for plain queries --------------------------------------------------------


def test_the_pattern_takes_plain_queries() -> None:
    for data, message in (DECODED[0], DECODED[2], DECODED[3]):
        for tail in (b"2:aa1:y1:qe", b"4:aaaa1:v4:\n\x00\xff:1:y1:qe"):
            variant = data.replace(b"2:aa1:y1:qe", tail)
            match = PLAIN_QUERY(variant)
            assert match is not None
            decoded = decode(variant)
            assert isinstance(decoded, Query)
            assert isinstance(message, Query)
            assert match[1] == decoded.node_id
            assert match[2] == getattr(decoded.arguments, "target", None)
            assert match[3] == getattr(decoded.arguments, "info_hash", None)
            assert match[4] == b"%d:%b" % (len(decoded.transaction_id), decoded.transaction_id)
            assert decoded.arguments == message.arguments


def test_what_the_pattern_takes_is_what_decoding_gives(rng: random.Random) -> None:
    seeds = [
        data.replace(b"2:aa1:y", tail)
        for data, _ in (DECODED[0], DECODED[2], DECODED[3])
        for tail in (b"2:aa1:y", b"4:aaaa1:y", b"2:aa1:v4:LT011:y")
    ]
    num_taken = 0
    for _ in range(3000):
        data = mutate(rng.choice(seeds), rng)
        match = PLAIN_QUERY(data)
        if match is None:
            continue
        num_taken += 1
        message = decode(data)
        assert isinstance(message, Query), data
        kind = FindNode if match[2] is not None else GetPeers if match[3] is not None else Ping
        assert type(message.arguments) is kind
        assert not message.is_read_only
        plain = message.arguments
        assert plain in (FindNode(match[2] or b""), GetPeers(match[3] or b""), Ping())
        assert match[4].partition(b":")[2] == message.transaction_id
    assert num_taken > 100


def test_the_pattern_takes_no_query_with_more_to_it() -> None:
    for data, _ in DECODED[5:]:
        assert PLAIN_QUERY(data) is None


# --- properties ---------------------------------------------------------------------------

ids = st.binary(min_size=20, max_size=20)
wants = st.sampled_from([Want.NONE, Want.V4, Want.V6, Want.V4 | Want.V6])
seqs = st.integers(0, (1 << 63) - 1)
tokens = st.binary(max_size=64)
encoded_values = st.one_of(st.binary(max_size=50), seqs, st.lists(seqs, max_size=5)).map(
    encode_value
)
arguments_strategy = st.one_of(
    st.just(Ping()),
    st.builds(FindNode, ids, wants),
    st.builds(GetPeers, ids, wants, st.booleans(), st.booleans()),
    st.builds(AnnouncePeer, ids, st.none() | st.integers(1, 65535), tokens, st.booleans()),
    st.builds(Get, ids, st.none() | seqs, wants),
    st.builds(Put, token=tokens, value=encoded_values),
    st.builds(
        Put,
        token=tokens,
        value=encoded_values,
        key=st.binary(min_size=32, max_size=32),
        signature=st.binary(min_size=64, max_size=64),
        seq=seqs,
        salt=st.binary(max_size=64),
        cas=st.none() | seqs,
    ),
    st.builds(SampleInfohashes, ids, wants),
)
transaction_ids = st.binary(min_size=1, max_size=MAX_TRANSACTION_ID_LENGTH)
externals = st.sampled_from([b"", b"a" * 6, b"b" * 18])
texts = st.text("abc DEF.", max_size=30).map(lambda text: " ".join(text.split()))
responses = st.builds(
    Response,
    transaction_id=transaction_ids,
    node_id=ids,
    nodes=st.none() | st.integers(0, 8).map(lambda n: b"n" * 26 * n),
    nodes6=st.none() | st.integers(0, 8).map(lambda n: b"n" * 38 * n),
    values=st.lists(st.binary(min_size=6, max_size=6) | st.binary(min_size=18, max_size=18)).map(
        tuple
    ),
    token=st.none() | tokens,
    external=externals,
    version=st.just(b"bt01"),
    value=st.none() | encoded_values,
    key=st.none() | st.binary(min_size=32, max_size=32),
    signature=st.none() | st.binary(min_size=64, max_size=64),
    seq=st.none() | seqs,
    samples=st.none() | ids,
    num=st.none() | seqs,
    interval=st.none() | seqs,
    seed_filter=st.none() | st.just(b"s" * 256),
    peer_filter=st.none() | st.just(b"p" * 256),
)
messages = st.one_of(
    st.builds(Query, transaction_ids, ids, arguments_strategy, st.booleans(), st.just(b"bt01")),
    responses,
    st.builds(ErrorReply, transaction_ids, st.integers(0, 999), texts, externals),
)


@given(messages)
def test_decoding_inverts_encoding(message: Query | Response | ErrorReply) -> None:
    data = encode(message)
    assert decode(data) == message
    # What we write is in its one canonical form.
    assert encode_value(decode_value(data)) == data


def test_fuzz_decode() -> None:
    seeds = [data for data, _ in DECODED] + [data for data, _ in REFUSED.values()]
    assert fuzz(decode, seeds, KrpcDecodeError) > 20


def test_fuzz_of_messages_written_again() -> None:
    def read_again(data: bytes) -> None:
        message = decode(data)
        if isinstance(message, Response):
            again = decode(encode(message))
            assert isinstance(again, Response)
            assert replace(again, version=message.version) == message
        elif isinstance(message, Query) and not isinstance(message.arguments, Put):
            again = decode(encode(message))
            assert isinstance(again, Query)
            assert replace(again, version=message.version) == message

    seeds = [data for data, _ in DECODED]
    assert fuzz(read_again, seeds, KrpcDecodeError, mutate=mutate_tree) > 20


def test_a_plain_query_is_matched_quickly() -> None:
    """The hot path stands on it: far below the cost of decoding."""
    data = DECODED[3][0]
    fast = min(timeit.repeat(lambda: PLAIN_QUERY(data), number=2000, repeat=5))
    slow = min(timeit.repeat(lambda: decode(data), number=2000, repeat=5))
    assert fast * 3 < slow
