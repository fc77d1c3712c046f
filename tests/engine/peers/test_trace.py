"""Messages of a stream as short lines."""

from __future__ import annotations

import pytest

from bittern.codec import wire
from bittern.codec.wire import HashRange, MessageId, Reserved
from bittern.engine.peers.trace import RAW_LENGTH, MessageTracer, describe

HANDSHAKE = wire.encode_handshake(b"h" * 20, b"-bt0100-abcdefghijkl", Reserved())
HASHES = HashRange(b"\xab" * 32, 0, 2048, 1024, 10)
HASHES_TEXT = "root abababab layer 0 index 2048 length 1024 proof layers 10"
MESSAGES: list[tuple[bytes, str, str]] = [
    (wire.KEEP_ALIVE, "keep_alive", ""),
    (wire.CHOKE, "choke", ""),
    (wire.encode_have(7), "have", "piece 7"),
    (wire.encode_bitfield(b"\xf0\x01"), "bitfield", "f001"),
    (wire.encode_bitfield(b"\xff" * 40), "bitfield", "ff" * 32 + "..."),
    (wire.encode_request(1, 2, 3), "request", "piece 1 begin 2 length 3"),
    (wire.encode_cancel(1, 2, 3), "cancel", "piece 1 begin 2 length 3"),
    (wire.encode_reject(1, 2, 3), "reject_request", "piece 1 begin 2 length 3"),
    (wire.encode_piece(4, 16384, bytes(5000)), "piece", "piece 4 begin 16384 length 5000"),
    (wire.encode_port(6881), "port", "port 6881"),
    (wire.encode_extended(3, b"abc"), "extended", "extension 3, 4 bytes"),
    (wire.encode_extended(0, b"d1:v1:xe"), "extended", "extended handshake {b'v': b'x'}"),
    (wire.encode_extended(0, b"oops"), "extended", "extended handshake"),
    (wire.encode_index(MessageId.ALLOWED_FAST, 3), "allowed_fast", "piece 3"),
    (b"\0\0\0\x03\x63ab", "unknown", "id 99, 7 bytes"),
    (wire.encode_hash_request(HASHES), "hash_request", HASHES_TEXT),
    (wire.encode_hash_request(HASHES, MessageId.HASH_REJECT), "hash_reject", HASHES_TEXT),
    (wire.encode_hashes(HASHES, [bytes(32 * 1025)]), "hashes", HASHES_TEXT),
    (wire.encode_piece(4, 16384, b"x"), "piece", "piece 4 begin 16384 length 1"),
    (b"\0\0\0\x02\x15\x00", "hash_request", "hash_request message of 2 bytes (limit 49)"),
    (b"\0\0\0\x05\x06abcd", "request", "request message of 5 bytes (limit 13)"),
    (b"\0\0\0\x09\x07abcdefgh", "piece", "message 7 of 9 bytes (limit 10)"),
    (b"\0\0\0\x01\x14", "extended", "message 20 of 1 bytes (limit 2)"),
]


@pytest.mark.parametrize("step", [1, 3, 17, 1 << 20])
def test_all_messages_however_they_are_cut(step: int) -> None:
    stream = HANDSHAKE + b"".join(raw for raw, _, _ in MESSAGES)
    tracer, heard = MessageTracer(), []
    for at in range(0, len(stream), step):
        heard += tracer.feed(memoryview(stream)[at : at + step])
    assert heard[0][0] == "handshake"
    assert heard[0][2] == HANDSHAKE
    assert [(kind, text) for kind, text, _ in heard[1:]] == [(k, t) for _, k, t in MESSAGES]
    assert [raw for _, _, raw in heard[1:]] == [raw[:RAW_LENGTH] for raw, _, _ in MESSAGES]


def test_a_handshake_of_something_else_is_said_to_be_that() -> None:
    ((kind, text, _),) = MessageTracer().feed(b"GET / HTTP/1.1\r\n" + bytes(52))
    assert (kind, text) == ("handshake", "no BitTorrent handshake at byte 0")


@pytest.mark.parametrize(("raw", "kind", "text"), MESSAGES)
def test_describe(raw: bytes, kind: str, text: str) -> None:
    assert describe(raw, len(raw)) == (kind, text)
