"""Payloads of extended messages."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.bencode import encode
from bittern.codec.extension import (
    MAX_CLIENT_NAME_LENGTH,
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

V4, V6 = Endpoint("192.0.2.1", 6881), Endpoint("2001:db8::1", 51413)

HANDSHAKES: list[tuple[ExtendedHandshake, bytes]] = [
    (ExtendedHandshake(), b"d1:mdee"),
    (
        ExtendedHandshake(
            extensions={"ut_metadata": 2, "ut_pex": 1},
            client="bittern/0.1.0",
            listen_port=6881,
            request_queue=500,
            metadata_length=31235,
            is_upload_only=True,
            your_host="192.0.2.1",
        ),
        (
            b"d1:md11:ut_metadatai2e6:ut_pexi1ee13:metadata_sizei31235e1:pi6881e4:reqqi500e"
            b"11:upload_onlyi1e1:v13:bittern/0.1.06:yourip4:\xc0\x00\x02\x01e"
        ),
    ),
]


@pytest.mark.parametrize(("value", "raw"), HANDSHAKES)
def test_handshakes_both_ways(value: ExtendedHandshake, raw: bytes) -> None:
    assert encode_extended_handshake(value) == raw
    assert decode_extended_handshake(raw) == value
    assert decode_extended_handshake(memoryview(raw + b"trailing")) == value


@pytest.mark.parametrize(
    ("fields", "name", "expected"),
    [
        ({b"reqq": 10**9}, "request_queue", MAX_REQUEST_QUEUE),
        ({b"reqq": 0}, "request_queue", None),
        ({b"reqq": b"250"}, "request_queue", None),
        ({b"p": 0}, "listen_port", None),
        ({b"p": 65_536}, "listen_port", None),
        ({b"metadata_size": MAX_METADATA_LENGTH}, "metadata_length", MAX_METADATA_LENGTH),
        ({b"metadata_size": MAX_METADATA_LENGTH + 1}, "metadata_length", None),
        ({b"metadata_size": -1}, "metadata_length", None),
        ({b"v": b"x" * 1000}, "client", "x" * MAX_CLIENT_NAME_LENGTH),
        ({b"v": b"\xff"}, "client", "\ufffd"),
        ({b"v": 3}, "client", None),
        ({b"upload_only": 2}, "is_upload_only", False),
        ({b"yourip": b"abc"}, "your_host", None),
        ({b"yourip": bytes(15) + b"\1"}, "your_host", "::1"),
        ({b"m": [b"ut_pex"]}, "extensions", {}),
        ({b"m": {b"a": 1, b"b": -1, b"c": 256, b"d": b"2"}}, "extensions", {"a": 1}),
        ({b"m": {b"a": 0, b"b": 0}}, "extensions", {"a": 0, "b": 0}),
    ],
)
def test_odd_values_are_absent_or_cut(
    fields: dict[bytes, object], name: str, expected: object
) -> None:
    """Limit: H14."""
    assert getattr(decode_extended_handshake(encode(fields)), name) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"le",
        b"d1:m",
        encode({b"m": {b"%d" % n: n + 1 for n in range(65)}}),
        encode({b"m": {b"a": 3, b"b": 3}}),
        b"d1:m" + b"l" * 40 + b"e" * 40 + b"e",
    ],
)
def test_impossible_handshakes_are_refused(raw: bytes) -> None:
    """Limit: H14."""
    with pytest.raises(WireDecodeError):
        decode_extended_handshake(raw)


METADATA: list[tuple[MetadataMessage, bytes]] = [
    (MetadataMessage(MetadataMessageType.REQUEST, 0), b"d8:msg_typei0e5:piecei0ee"),
    (MetadataMessage(MetadataMessageType.REJECT, 7), b"d8:msg_typei2e5:piecei7ee"),
    (
        MetadataMessage(MetadataMessageType.DATA, 0, 34256, b"xxxxxxxx"),
        b"d8:msg_typei1e5:piecei0e10:total_sizei34256eexxxxxxxx",
    ),
]
"""The examples of BEP 9."""


@pytest.mark.parametrize(("value", "raw"), METADATA)
def test_metadata_messages_both_ways(value: MetadataMessage, raw: bytes) -> None:
    assert encode_metadata_message(value) == raw
    assert decode_metadata_message(raw) == value


def test_metadata_messages_of_another_time_are_ignored() -> None:
    assert decode_metadata_message(b"d8:msg_typei9e5:piecei0ee") is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"i1e",
        b"d5:piecei0ee",
        b"d8:msg_typei0ee",
        b"d8:msg_typei0e5:piecei-1ee",
        b"d8:msg_typei0e5:piecei2048ee",
        b"d8:msg_typei1e5:piecei0ee",
        b"d8:msg_typei1e5:piecei0ee" + bytes(METADATA_PIECE_LENGTH + 1),
    ],
)
def test_bad_metadata_messages_are_refused(raw: bytes) -> None:
    """Limit: H7."""
    with pytest.raises(WireDecodeError):
        decode_metadata_message(raw)


def test_peers_of_both_families_with_their_flags() -> None:
    message = PexMessage(
        added=((V4, PexFlag.OUTGOING | PexFlag.UTP), (V6, PexFlag.UPLOAD_ONLY)),
        dropped=(Endpoint("192.0.2.9", 1), V6),
    )
    assert decode_pex(encode_pex(message)) == message


def test_of_a_long_message_the_first_fifty_are_taken() -> None:
    """Limit: H8."""
    compact = b"".join(bytes((10, 0, n // 250, n % 250, 0, 1)) for n in range(600))
    message = decode_pex(encode({b"added": compact, b"dropped": compact, b"added.f": b"\xff"}))
    assert len(message.added) == len(message.dropped) == MAX_PEX_PEERS
    assert message.added[0][1] == PexFlag(0x1F)
    assert message.added[1][1] == PexFlag.NONE


@pytest.mark.parametrize("raw", [b"", b"le", b"d5:added"])
def test_bad_peer_exchange_is_refused(raw: bytes) -> None:
    with pytest.raises(WireDecodeError):
        decode_pex(raw)


def test_odd_lists_of_peers_are_empty() -> None:
    fields: dict[bytes, Any] = {b"added": 3, b"added6": bytes(17), b"dropped": [b"x"]}
    assert decode_pex(encode(fields)) == PexMessage()


def test_dont_have_both_ways() -> None:
    """BEP 54."""
    assert encode_dont_have(258) == b"\0\0\1\2"
    assert decode_dont_have(b"\0\0\1\2") == 258
    for raw in (b"", b"\0\0\0", bytes(5)):
        with pytest.raises(WireDecodeError):
            decode_dont_have(raw)


@given(st.binary(max_size=200), st.randoms(use_true_random=False))
def test_nothing_but_a_decode_error_escapes(noise: bytes, rng: random.Random) -> None:
    for raw in (HANDSHAKES[1][1], METADATA[2][1], encode_pex(PexMessage(((V4, PexFlag.NONE),)))):
        at = rng.randrange(len(raw))
        mutant = raw[:at] + noise + raw[at + rng.randrange(10) :]
        for decode in (decode_extended_handshake, decode_metadata_message, decode_pex):
            with contextlib.suppress(WireDecodeError):
                decode(mutant)
