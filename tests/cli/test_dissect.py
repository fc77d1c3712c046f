from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.cli.dissect import Part, dissect, hex_lines
from bittern.codec import wire
from bittern.codec.wire import MessageId, Reserved

HANDSHAKE = wire.encode_handshake(
    b"\xaa" * 20, b"-bt0100-\x00bcdefghijkl", Reserved(has_dht=True, has_v2=True)
)


def meanings(kind: str, raw: bytes) -> list[str]:
    return [part.meaning for part in dissect(kind, raw)]


def test_a_handshake_has_five_parts() -> None:
    assert dissect("handshake", HANDSHAKE) == [
        Part(b"\x13", "length of the name: 19"),
        Part(b"BitTorrent protocol", 'the name: "BitTorrent protocol"'),
        Part(
            HANDSHAKE[20:28],
            "reserved: extensions (BEP 10), fast (BEP 6), DHT (BEP 5), v2 (BEP 52)",
        ),
        Part(b"\xaa" * 20, "info hash: which torrent"),
        Part(HANDSHAKE[48:], 'peer id: who is talking, "-bt0100-.bcdefghijkl"'),
    ]


def test_a_handshake_without_extensions_says_so() -> None:
    raw = wire.encode_handshake(bytes(20), bytes(20), Reserved(False, False))
    assert meanings("handshake", raw)[2] == "reserved: nothing beyond the basic protocol"
    assert meanings("handshake", raw + b"x")[-1] == "more"


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        ("keep_alive", wire.KEEP_ALIVE, ["length of what follows: 0"]),
        ("interested", wire.INTERESTED, ["length of what follows: 1", "message 2: interested"]),
        ("have_all", wire.HAVE_ALL, ["length of what follows: 1", "message 14: have all"]),
        ("have", wire.encode_have(7), ["length of what follows: 5", "message 4: have", "piece 7"]),
        (
            "bitfield",
            wire.encode_bitfield(b"\xff\xe0"),
            ["length of what follows: 3", "message 5: bitfield", "one bit per piece: 11 set"],
        ),
        (
            "bitfield",
            wire.encode_bitfield(b"\xff" * 200)[:96],
            [
                "length of what follows: 201",
                "message 5: bitfield",
                "one bit per piece: 728 set so far",
            ],
        ),
        (
            "request",
            wire.encode_request(3, 16384, 16384),
            [
                "length of what follows: 13",
                "message 6: request",
                "piece 3",
                "from byte 16384 of the piece",
                "16384 bytes of it",
            ],
        ),
        (
            "piece",
            wire.PIECE_HEADER.pack(16393, MessageId.PIECE, 3, 0) + b"data",
            [
                "length of what follows: 16393",
                "message 7: piece",
                "piece 3",
                "from byte 0 of the piece",
                "the block, 16384 bytes",
            ],
        ),
        (
            "port",
            b"\x00\x00\x00\x03\x09\x1a\xe1",
            ["length of what follows: 3", "message 9: port", "port 6881"],
        ),
        (
            "extended",
            b"\x00\x00\x00\x04\x14\x00de",
            [
                "length of what follows: 4",
                "message 20: extended",
                "extension 0: its handshake",
                '"de"',
            ],
        ),
        (
            "extended",
            b"\x00\x00\x00\x02\x14\x03",
            [
                "length of what follows: 2",
                "message 20: extended",
                "extension 3: as named in the extended handshake",
            ],
        ),
        (
            "unknown",
            b"\x00\x00\x00\x02\xc8\x03",
            ["length of what follows: 2", "message 200: unknown", "unknown"],
        ),
        (
            "hash_request",
            b"\x00\x00\x00\x31\x15abc",
            ["length of what follows: 49", "message 21: hash request", "payload"],
        ),
        ("choke", b"\x00", ["incomplete"]),
        ("choke", b"", []),
        (
            "have",
            b"\x00\x00\x00\x05\x04\x00",
            ["length of what follows: 5", "message 4: have", "payload"],
        ),
    ],
)
def test_messages_are_told_field_by_field(kind: str, raw: bytes, expected: list[str]) -> None:
    assert meanings(kind, raw) == expected


@given(
    st.sampled_from(["handshake", *(message.name.lower() for message in MessageId)]),
    st.binary(max_size=120),
)
def test_the_parts_are_the_whole_whatever_it_holds(kind: str, raw: bytes) -> None:
    parts = dissect(kind, raw)
    assert b"".join(part.raw for part in parts) == raw
    assert all(part.raw and part.meaning.isprintable() for part in parts)


def test_bytes_are_shown_in_lines_and_cut() -> None:
    lines = hex_lines([Part(b"\x01", "one"), Part(bytes(range(50)), "many")])
    assert lines == [
        ("01", "one"),
        (bytes(range(20)).hex(" "), "many"),
        (bytes(range(20, 40)).hex(" ") + " ...", ""),
    ]
