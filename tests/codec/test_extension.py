"""codec.extension: extended handshake, ut_metadata, ut_pex, lt_donthave (H7, H8, H14)."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.bencode import Value, encode
from bittern.codec.extension import (
    MAX_CLIENT_NAME_LENGTH,
    MAX_EXTENSION_NAME_LENGTH,
    MAX_EXTENSIONS,
    MAX_METADATA_LENGTH,
    MAX_PEX_PEERS,
    MAX_REQUEST_QUEUE,
    METADATA_PIECE_LENGTH,
    ExtendedHandshake,
    MetadataMessage,
    MetadataMessageType,
    PexFlag,
    PexMessage,
    decode_dont_have,
    decode_extended_handshake,
    decode_metadata_message,
    decode_pex,
    encode_dont_have,
    encode_extended_handshake,
    encode_metadata_message,
    encode_pex,
)
from bittern.core.endpoint import Endpoint
from bittern.core.errors import WireDecodeError
from tests.codec.fuzzing import fuzz, mutate_tree
from tests.strategies import endpoints, hosts

REQUEST, DATA, REJECT = MetadataMessageType

# --- extended handshake (BEP 10) -------------------------------------------------------------

FULL = ExtendedHandshake(
    extensions={"ut_metadata": 2, "ut_pex": 1},
    client="bittern 0.1",
    listen_port=6881,
    request_queue=500,
    metadata_length=31_235,
    is_upload_only=True,
    your_host="192.0.2.1",
)
FULL_REST = (
    b"13:metadata_sizei31235e1:pi6881e4:reqqi500e"
    b"11:upload_onlyi1e1:v11:bittern 0.16:yourip4:\xc0\x00\x02\x01e"
)
HANDSHAKES = [
    (ExtendedHandshake(), b"d1:mdee"),
    (ExtendedHandshake({"ut_pex": 0}), b"d1:md6:ut_pexi0eee"),
    (ExtendedHandshake(client="\N{MICRO SIGN}Torrent"), b"d1:mde1:v9:\xc2\xb5Torrente"),
    (
        FULL,
        b"d1:md11:ut_metadatai2e6:ut_pexi1ee" + FULL_REST,
    ),
    (
        ExtendedHandshake(prefers_encryption=True),
        b"d1:ei1e1:mdee",
    ),
    (
        ExtendedHandshake(is_upload_only=False, prefers_encryption=False),
        b"d1:ei0e1:mde11:upload_onlyi0ee",
    ),
    (
        ExtendedHandshake(your_host="2001:db8::1"),
        b"d1:mde6:yourip16:\x20\x01\x0d\xb8" + bytes(11) + b"\x01e",
    ),
]


@pytest.mark.parametrize(("handshake", "data"), HANDSHAKES)
def test_extended_handshakes_both_ways(handshake: ExtendedHandshake, data: bytes) -> None:
    assert encode_extended_handshake(handshake) == data
    for form in (data, memoryview(data), data + b"bytes behind it"):
        assert decode_extended_handshake(form) == handshake


def test_the_example_of_bep_10() -> None:
    data = b"d1:md11:LT_metadatai1e6:\xc2\xb5T_PEXi2ee1:pi6881e1:v13:\xc2\xb5Torrent 1.2e"
    assert decode_extended_handshake(data.replace(b"6:\xc2", b"7:\xc2")) == ExtendedHandshake(
        {"LT_metadata": 1, "\N{MICRO SIGN}T_PEX": 2},
        client="\N{MICRO SIGN}Torrent 1.2",
        listen_port=6881,
    )


@pytest.mark.slow
@given(
    st.dictionaries(st.text(max_size=16), st.just(0)) | st.just({"a": 1, "b": 2, "c": 255}),
    st.none() | st.integers(1, 65_535),
    st.none() | st.integers(1, MAX_REQUEST_QUEUE),
    st.none() | st.integers(1, MAX_METADATA_LENGTH),
    st.none() | st.booleans(),
    st.none() | hosts,
)
def test_decoding_a_handshake_inverts_encoding(
    extensions: dict[str, int],
    port: int | None,
    queue: int | None,
    length: int | None,
    is_upload_only: bool | None,
    host: str | None,
) -> None:
    handshake = ExtendedHandshake(extensions, "client", port, queue, length, is_upload_only, host)
    assert decode_extended_handshake(encode_extended_handshake(handshake)) == handshake


ODD: list[tuple[str, Value, ExtendedHandshake]] = [
    ("nothing", {}, ExtendedHandshake()),
    ("m is a list", {b"m": []}, ExtendedHandshake()),
    ("an id is text", {b"m": {b"a": b"1", b"b": 2}}, ExtendedHandshake({"b": 2})),
    ("ids out of range", {b"m": {b"a": -1, b"b": 256, b"c": 255}}, ExtendedHandshake({"c": 255})),
    (
        "several are switched off",
        {b"m": {b"a": 0, b"b": 0, b"c": 1}},
        ExtendedHandshake({"a": 0, "b": 0, "c": 1}),
    ),
    ("port 0", {b"p": 0}, ExtendedHandshake()),
    ("port 65,535", {b"p": 65_535}, ExtendedHandshake(listen_port=65_535)),
    ("port 65,536", {b"p": 65_536}, ExtendedHandshake()),
    ("port as text", {b"p": b"6881"}, ExtendedHandshake()),
    ("h14: queue", {b"reqq": 1 << 40}, ExtendedHandshake(request_queue=MAX_REQUEST_QUEUE)),
    ("h14: one at a time", {b"reqq": 1}, ExtendedHandshake(request_queue=1)),
    ("h14: no queue", {b"reqq": 0}, ExtendedHandshake()),
    ("h14: negative queue", {b"reqq": -5}, ExtendedHandshake()),
    ("h7: no metadata", {b"metadata_size": 0}, ExtendedHandshake()),
    ("h7: largest", {b"metadata_size": 1 << 25}, ExtendedHandshake(metadata_length=1 << 25)),
    ("h7: too large", {b"metadata_size": (1 << 25) + 1}, ExtendedHandshake()),
    ("upload only as text", {b"upload_only": b"1"}, ExtendedHandshake()),
    ("upload only of another kind", {b"upload_only": 2}, ExtendedHandshake(is_upload_only=False)),
    ("encryption that is no number", {b"e": b"1"}, ExtendedHandshake()),
    ("five bytes of address", {b"yourip": b"12345"}, ExtendedHandshake()),
    (
        "mapped address",
        {b"yourip": bytes(10) + b"\xff\xff\xc0\x00\x02\x01"},
        ExtendedHandshake(your_host="192.0.2.1"),
    ),
    ("client is a number", {b"v": 7}, ExtendedHandshake()),
    (
        "h14: escapes and direction marks",
        {b"v": "A\x1b[31m\u202egpj\n".encode()},
        ExtendedHandshake(client="A [31m gpj"),
    ),
    ("bad utf-8", {b"v": b"a\xff"}, ExtendedHandshake(client="a\N{REPLACEMENT CHARACTER}")),
    (
        "h14: long client name",
        {b"v": b"n" * 1000},
        ExtendedHandshake(client="n" * MAX_CLIENT_NAME_LENGTH),
    ),
    (
        "h14: long extension name",
        {b"m": {b"n" * MAX_EXTENSION_NAME_LENGTH: 1, b"n" * (MAX_EXTENSION_NAME_LENGTH + 1): 2}},
        ExtendedHandshake({"n" * MAX_EXTENSION_NAME_LENGTH: 1}),
    ),
    ("unknown keys", {b"x": 1, b"ipv4": b"1234", b"complete_ago": -1}, ExtendedHandshake()),
]


@pytest.mark.parametrize(
    ("value", "handshake"), [row[1:] for row in ODD], ids=[row[0] for row in ODD]
)
def test_odd_values_count_as_absent(value: Value, handshake: ExtendedHandshake) -> None:
    assert decode_extended_handshake(encode(value)) == handshake


def test_h14_sixty_four_extensions_and_no_more() -> None:
    named: dict[bytes, Value] = {b"%d" % number: number for number in range(1, MAX_EXTENSIONS + 1)}
    assert len(decode_extended_handshake(encode({b"m": named})).extensions) == MAX_EXTENSIONS == 64
    named[b"one more"] = 0
    with pytest.raises(WireDecodeError, match=r"names many extensions \(limit 64\)"):
        decode_extended_handshake(encode({b"m": named}))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "extended handshake: "),
        (b"d", "extended handshake: "),
        (b"d1:m", "extended handshake: "),
        (b"i1e", "no dictionary"),
        (b"le", "no dictionary"),
        (b"d1:md1:ai1e1:bi1eee", "uses an id twice"),
        (b"d1:m" + b"l" * 1000, "extended handshake: "),
        (b"d1:ml" + b"le" * 20_000 + b"ee", "extended handshake: "),
    ],
)
def test_h14_malformed_handshakes(data: bytes, text: str) -> None:
    with pytest.raises(WireDecodeError, match=text):
        decode_extended_handshake(data)


def test_the_extensions_of_a_handshake_cannot_be_changed() -> None:
    assert isinstance(ExtendedHandshake().extensions, MappingProxyType)
    decoded = decode_extended_handshake(HANDSHAKES[1][1])
    assert isinstance(decoded.extensions, MappingProxyType)


# --- ut_metadata (BEP 9) ---------------------------------------------------------------------

METADATA = [
    (MetadataMessage(REQUEST, 0), b"d8:msg_typei0e5:piecei0ee"),
    (
        MetadataMessage(DATA, 3, 34_256, b"xxxxxxxx"),
        b"d8:msg_typei1e5:piecei3e10:total_sizei34256eexxxxxxxx",
    ),
    (MetadataMessage(DATA, 1, None, b"d"), b"d8:msg_typei1e5:piecei1eed"),
    (MetadataMessage(REJECT, 2047), b"d8:msg_typei2e5:piecei2047ee"),
]


@pytest.mark.parametrize(("message", "data"), METADATA)
def test_metadata_messages_both_ways(message: MetadataMessage, data: bytes) -> None:
    assert encode_metadata_message(message) == data
    assert decode_metadata_message(data) == message
    assert decode_metadata_message(memoryview(data)) == message


@given(
    st.integers(0, 2047),
    st.none() | st.integers(1, MAX_METADATA_LENGTH),
    st.binary(min_size=1, max_size=100) | st.just(bytes(METADATA_PIECE_LENGTH)),
)
def test_data_is_what_follows_the_dictionary(piece: int, total: int | None, data: bytes) -> None:
    message = MetadataMessage(DATA, piece, total, data)
    assert decode_metadata_message(encode_metadata_message(message)) == message


@pytest.mark.parametrize(
    "data",
    [
        b"d8:msg_typei3e5:piecei0ee",
        b"d8:msg_typei-1e5:piecei0ee",
        b"d8:msg_typei255e5:piece1:xe",
        b"d8:msg_typei4ee",
    ],
)
def test_bep9_an_unknown_message_type_is_ignored_whatever_else_it_holds(data: bytes) -> None:
    assert decode_metadata_message(data) is None


def test_behind_a_request_and_a_reject_anything_may_follow() -> None:
    assert decode_metadata_message(METADATA[0][1] + b"junk") == MetadataMessage(REQUEST, 0)


@pytest.mark.parametrize("total", [b"i0e", b"i-1e", b"i33554433e", b"1:x"])
def test_an_impossible_total_counts_as_absent(total: bytes) -> None:
    data = b"d8:msg_typei1e5:piecei1e10:total_size" + total + b"ed"
    assert decode_metadata_message(data) == MetadataMessage(DATA, 1, None, b"d")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "ut_metadata: "),
        (b"le", "no dictionary"),
        (b"de", "without a msg_type"),
        (b"d8:msg_type1:0e", "without a msg_type"),
        (b"d8:msg_typei0ee", "impossible piece"),
        (b"d8:msg_typei0e5:piece1:0e", "impossible piece"),
        (b"d8:msg_typei0e5:piecei-1ee", "impossible piece"),
        (b"d8:msg_typei0e5:piecei2048ee", "impossible piece"),
        (b"d8:msg_typei2e5:piecei9223372036854775807ee", "impossible piece"),
        (b"d8:msg_typei1e5:piecei0ee", r"piece of 0 bytes \(limit 16384\)"),
        (b"d8:msg_typei1e5:piecei0ee" + bytes(16_385), r"piece of 16385 bytes \(limit 16384\)"),
    ],
)
def test_h7_malformed_metadata_messages(data: bytes, text: str) -> None:
    with pytest.raises(WireDecodeError, match=text):
        decode_metadata_message(data)


# --- ut_pex (BEP 11) -------------------------------------------------------------------------

V4, OTHER, V6 = (
    Endpoint("192.0.2.1", 6881),
    Endpoint("198.51.100.7", 80),
    Endpoint("2001:db8::1", 1),
)
RAW_V4, RAW_OTHER = b"\xc0\x00\x02\x01\x1a\xe1", b"\xc6\x33\x64\x07\x00\x50"
RAW_V6 = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01\x00\x01"
PEX = [
    (
        PexMessage(),
        b"d5:added0:7:added.f0:6:added60:8:added6.f0:7:dropped0:8:dropped60:e",
    ),
    (
        PexMessage(
            ((V4, PexFlag(0x12)), (OTHER, PexFlag.NONE), (V6, PexFlag.UTP)),
            (OTHER, V6),
        ),
        b"d5:added12:" + RAW_V4 + RAW_OTHER + b"7:added.f2:\x12\x006:added618:" + RAW_V6
        + b"8:added6.f1:\x047:dropped6:" + RAW_OTHER + b"8:dropped618:" + RAW_V6 + b"e",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("message", "data"), PEX)
def test_pex_both_ways(message: PexMessage, data: bytes) -> None:
    assert encode_pex(message) == data
    assert decode_pex(data) == message
    assert decode_pex(memoryview(data)) == message


@pytest.mark.slow
@given(
    st.lists(st.tuples(endpoints, st.sampled_from(PexFlag)), max_size=40),
    st.lists(endpoints, max_size=40),
)
def test_decoding_pex_inverts_encoding_up_to_the_order_of_families(
    added: list[tuple[Endpoint, PexFlag]], dropped: list[Endpoint]
) -> None:
    decoded = decode_pex(encode_pex(PexMessage(tuple(added), tuple(dropped))))
    assert list(decoded.added) == sorted(added, key=lambda item: item[0].is_ipv6)
    assert list(decoded.dropped) == sorted(dropped, key=lambda endpoint: endpoint.is_ipv6)


def test_h8_the_first_fifty_of_each_list_are_taken() -> None:
    peers = [Endpoint(f"192.0.2.{number}", 1) for number in range(60)]
    message = PexMessage(tuple((peer, PexFlag.UTP) for peer in peers), tuple(peers))
    decoded = decode_pex(encode_pex(message))
    assert decoded.added == message.added[:MAX_PEX_PEERS]
    assert decoded.dropped == message.dropped[:MAX_PEX_PEERS]


ODD_PEX: list[tuple[str, Value, PexMessage]] = [
    ("nothing", {}, PexMessage()),
    ("numbers", {b"added": 1, b"dropped": [b"x"], b"added6": {}}, PexMessage()),
    ("a half peer", {b"added": RAW_V4 + b"12345"}, PexMessage(((V4, PexFlag.NONE),))),
    (
        "too few flags",
        {b"added": RAW_V4 + RAW_OTHER, b"added.f": b"\x01"},
        PexMessage(((V4, PexFlag.ENCRYPTION), (OTHER, PexFlag.NONE))),
    ),
    ("flags are a number", {b"added": RAW_V4, b"added.f": 3}, PexMessage(((V4, PexFlag.NONE),))),
    (
        "unknown flags",
        {b"added": RAW_V4, b"added.f": b"\xff"},
        PexMessage(((V4, PexFlag(0x1F)),)),
    ),
    ("half an IPv6 peer", {b"dropped6": RAW_V6[:17]}, PexMessage()),
]


@pytest.mark.parametrize(
    ("value", "message"), [row[1:] for row in ODD_PEX], ids=[row[0] for row in ODD_PEX]
)
def test_odd_pex_values(value: Value, message: PexMessage) -> None:
    assert decode_pex(encode(value)) == message


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "ut_pex: "),
        (b"i1e", "no dictionary"),
        (b"de" + b"x", "ut_pex: "),
        (b"d5:added", "ut_"),
    ],
)
def test_h8_malformed_pex(data: bytes, text: str) -> None:
    with pytest.raises(WireDecodeError, match=text):
        decode_pex(data)


# --- lt_donthave (BEP 54) --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "data"), [(0, b"\0\0\0\0"), (7, b"\0\0\0\7"), ((1 << 32) - 1, b"\xff" * 4)]
)
def test_dont_have_both_ways(index: int, data: bytes) -> None:
    assert encode_dont_have(index) == data
    assert decode_dont_have(data) == decode_dont_have(memoryview(data)) == index


@pytest.mark.parametrize("length", [0, 3, 5])
def test_malformed_dont_have(length: int) -> None:
    with pytest.raises(WireDecodeError, match=rf"lt_donthave of {length} bytes \(limit 4\)"):
        decode_dont_have(bytes(length))


# --- fuzz ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fuzzed_payloads_raise_nothing_but_decode_errors() -> None:
    assert fuzz(decode_extended_handshake, [row[1] for row in HANDSHAKES], WireDecodeError)
    assert fuzz(decode_metadata_message, [row[1] for row in METADATA], WireDecodeError)
    assert fuzz(decode_pex, [row[1] for row in PEX], WireDecodeError)
    assert fuzz(decode_dont_have, [b"\0\0\0\7"], WireDecodeError)
    for decode_any, table in ((decode_extended_handshake, HANDSHAKES), (decode_pex, PEX)):
        seeds = [row[1] for row in table]
        assert fuzz(decode_any, seeds, WireDecodeError, mutate=mutate_tree)


def test_flags_of_peer_exchange_are_the_bits_that_others_know() -> None:
    """BEP 11."""
    assert {flag.name: flag.value for flag in PexFlag} == {
        "ENCRYPTION": 0x01,
        "UPLOAD_ONLY": 0x02,
        "UTP": 0x04,
        "HOLEPUNCH": 0x08,
        "OUTGOING": 0x10,
    }
