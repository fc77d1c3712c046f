"""codec.wire: handshake, message bytes, lengths (threats.md H1), allowed fast sets (BEP 6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec import wire
from bittern.codec.wire import (
    EXACT_LENGTHS,
    Handshake,
    HashRange,
    MessageId,
    Reserved,
    allowed_fast_set,
    check_handshake_start,
    check_length,
    check_length_prefix,
    decode_handshake,
    decode_hash_range,
    encode_handshake,
    encode_hash_request,
    encode_hashes,
)
from bittern.core.errors import WireDecodeError
from bittern.core.geometry import BLOCK_LENGTH
from bittern.core.ids import InfoHash, PeerId
from tests.codec.fuzzing import fuzz
from tests.strategies import info_hashes, peer_ids

HASH, ID = InfoHash(b"h" * 20), PeerId(b"-bt0100-0123456789ab")
ROOT = bytes(range(32))
RANGE = HashRange(ROOT, 2, 512, 256, 9)
HANDSHAKE = b"\x13BitTorrent protocol" + bytes.fromhex("0000000000100004") + HASH + ID

# --- handshake -------------------------------------------------------------------------------

RESERVED = [
    (Reserved(), "0000000000100004"),
    (Reserved(has_extensions=False, has_fast=False), "0000000000000000"),
    (Reserved(has_extensions=False, has_fast=False, has_dht=True), "0000000000000001"),
    (Reserved(has_extensions=False, has_fast=False, has_v2=True), "0000000000000010"),
    (Reserved(has_dht=True, has_v2=True), "0000000000100015"),
]


@pytest.mark.parametrize(("reserved", "bits"), RESERVED)
def test_reserved_bits_both_ways(reserved: Reserved, bits: str) -> None:
    assert reserved.to_bytes() == bytes.fromhex(bits)
    assert Reserved.from_bytes(bytes.fromhex(bits)) == reserved


def test_unknown_reserved_bits_are_ignored() -> None:
    assert Reserved.from_bytes(b"\xff" * 8) == Reserved(has_dht=True, has_v2=True)
    assert Reserved.from_bytes(bytes.fromhex("ffffffffffeffeea")) == Reserved(
        has_extensions=False, has_fast=False
    )


def test_handshake_both_ways() -> None:
    assert encode_handshake(HASH, ID, Reserved()) == HANDSHAKE
    assert decode_handshake(HANDSHAKE) == Handshake(HASH, ID, Reserved())
    assert len(HANDSHAKE) == wire.HANDSHAKE_LENGTH


@given(info_hashes, peer_ids, st.builds(Reserved, *[st.booleans()] * 4), st.binary(max_size=9))
def test_decoding_inverts_encoding_whatever_follows(
    info_hash: InfoHash, peer_id: PeerId, reserved: Reserved, rest: bytes
) -> None:
    data = encode_handshake(info_hash, peer_id, reserved)
    for view in (data + rest, bytearray(data + rest), memoryview(data + rest)):
        assert decode_handshake(view) == Handshake(info_hash, peer_id, reserved)


def test_every_true_start_of_a_handshake_is_accepted_and_none_that_differs() -> None:
    for length in range(len(HANDSHAKE) + 1):
        check_handshake_start(HANDSHAKE[:length])
        if 0 < length <= len(wire.PROTOCOL_NAME):
            with pytest.raises(WireDecodeError, match="no BitTorrent handshake at byte 0"):
                check_handshake_start(HANDSHAKE[: length - 1] + b"?")


@pytest.mark.parametrize("length", [0, 1, 20, 47, 67])
def test_a_short_handshake_is_refused(length: int) -> None:
    with pytest.raises(WireDecodeError, match=rf"handshake of {length} bytes \(limit 68\)"):
        decode_handshake(HANDSHAKE[:length])


def test_fuzzed_handshakes_raise_nothing_else() -> None:
    assert fuzz(decode_handshake, [HANDSHAKE], WireDecodeError)


# --- messages --------------------------------------------------------------------------------

MESSAGES = [
    (wire.KEEP_ALIVE, "00000000"),
    (wire.CHOKE, "00000001 00"),
    (wire.UNCHOKE, "00000001 01"),
    (wire.INTERESTED, "00000001 02"),
    (wire.NOT_INTERESTED, "00000001 03"),
    (wire.encode_have(0x01020304), "00000005 04 01020304"),
    (wire.encode_bitfield(b"\xa5\x80"), "00000003 05 a580"),
    (wire.encode_request(1, 0x4000, 0x3000), "0000000d 06 00000001 00004000 00003000"),
    (wire.encode_piece(1, 0x4000, b"block"), "0000000e 07 00000001 00004000 626c6f636b"),
    (wire.encode_cancel(1, 0x4000, 0x3000), "0000000d 08 00000001 00004000 00003000"),
    (wire.encode_port(6881), "00000003 09 1ae1"),
    (wire.encode_index(MessageId.SUGGEST_PIECE, 7), "00000005 0d 00000007"),
    (wire.HAVE_ALL, "00000001 0e"),
    (wire.HAVE_NONE, "00000001 0f"),
    (wire.encode_reject(1, 0x4000, 0x3000), "0000000d 10 00000001 00004000 00003000"),
    (wire.encode_index(MessageId.ALLOWED_FAST, 7), "00000005 11 00000007"),
    (wire.encode_extended(3, b"d1:me"), "00000007 14 03 64313a6d65"),
    (
        encode_hash_request(RANGE),
        f"00000031 15 {ROOT.hex()} 00000002 00000200 00000100 00000009",
    ),
    (
        encode_hashes(RANGE, [b"\x11" * 32, b"\x22" * 32]),
        f"00000071 16 {ROOT.hex()} 00000002 00000200 00000100 00000009" + "11" * 32 + "22" * 32,
    ),
    (
        encode_hash_request(RANGE, MessageId.HASH_REJECT),
        f"00000031 17 {ROOT.hex()} 00000002 00000200 00000100 00000009",
    ),
]


@pytest.mark.parametrize(("message", "form"), MESSAGES)
def test_messages_have_the_bytes_of_their_beps(message: bytes, form: str) -> None:
    assert message == bytes.fromhex(form)


@pytest.mark.parametrize(("message", "form"), MESSAGES[1:])
def test_every_message_announces_its_own_length_and_is_allowed(message: bytes, form: str) -> None:
    length, message_id = wire.LENGTH_AND_ID.unpack_from(message)
    assert length == len(message) - 4
    check_length(message_id, length, num_pieces=10 if message_id == MessageId.BITFIELD else None)
    assert EXACT_LENGTHS.get(message_id, length) == length


def test_every_message_id_is_in_the_table_above() -> None:
    assert {bytes.fromhex(form)[4] for _, form in MESSAGES[1:]} == set(MessageId)


def test_hash_ranges_both_ways() -> None:
    for message in (encode_hash_request(RANGE), encode_hashes(RANGE, [ROOT])):
        assert decode_hash_range(message[5:]) == RANGE
        assert decode_hash_range(memoryview(message)[5:]) == RANGE


@pytest.mark.parametrize("length", [0, 32, 47])
def test_a_short_hash_range_is_refused(length: int) -> None:
    with pytest.raises(WireDecodeError, match=rf"hash range of {length} bytes \(limit 48\)"):
        decode_hash_range(bytes(length))


def test_fuzzed_hash_ranges_raise_nothing_else() -> None:
    assert fuzz(decode_hash_range, [encode_hash_request(RANGE)[5:]], WireDecodeError)


# --- lengths (H1) ----------------------------------------------------------------------------

LENGTHS: list[tuple[int, int | None, int, int]] = [
    (0, None, 1, 1),
    (1, None, 1, 1),
    (2, None, 1, 1),
    (3, None, 1, 1),
    (4, None, 5, 5),
    (5, None, 1, 262_145),
    (5, 0, 1, 1),
    (5, 1, 2, 2),
    (5, 8, 2, 2),
    (5, 9, 3, 3),
    (5, 2_097_152, 262_145, 262_145),
    (6, None, 13, 13),
    (7, None, 10, 9 + BLOCK_LENGTH),
    (8, None, 13, 13),
    (9, None, 3, 3),
    (10, None, 1, 524_284),
    (13, None, 5, 5),
    (14, None, 1, 1),
    (15, None, 1, 1),
    (16, None, 13, 13),
    (17, None, 5, 5),
    (20, None, 2, 262_144),
    (21, None, 49, 49),
    (22, None, 81, 49 + 32 * 8224),
    (23, None, 49, 49),
    (255, None, 1, 524_284),
]
"""Message id, pieces of the torrent, least and greatest length; H1 of threats.md."""


@pytest.mark.parametrize(("message_id", "num_pieces", "low", "high"), LENGTHS)
def test_h1_lengths_at_the_limits_and_beyond(
    message_id: int, num_pieces: int | None, low: int, high: int
) -> None:
    for length in (low, high):
        check_length(message_id, length, num_pieces=num_pieces)
    for length in {low - 1, high + 1, high + 32, 1 << 31, (1 << 32) - 1} - {0}:
        with pytest.raises(WireDecodeError) as caught:
            check_length(message_id, length, num_pieces=num_pieces)
        assert caught.value.limit in (low, high, None)
        assert f"{length} bytes" in str(caught.value)


def test_h1_every_type_is_in_the_table_of_lengths() -> None:
    assert {message_id for message_id, *_ in LENGTHS} >= set(MessageId)


@pytest.mark.parametrize("length", [49, 82, 112, 49 + 32 * 3 - 1])
def test_h1_hashes_come_whole(length: int) -> None:
    with pytest.raises(WireDecodeError, match=f"message.* of {length} bytes"):
        check_length(MessageId.HASHES, length, num_pieces=None)


def test_h1_no_type_is_longer_than_a_length_prefix_may_say() -> None:
    check_length_prefix(wire.MAX_MESSAGE_LENGTH)
    assert max(high for *_, high in LENGTHS) == wire.MAX_MESSAGE_LENGTH
    assert wire.MAX_MESSAGE_LENGTH + 4 == 512 * 1024
    for length in (wire.MAX_MESSAGE_LENGTH + 1, 1 << 31, (1 << 32) - 1):
        with pytest.raises(WireDecodeError, match=f"message of {length} bytes"):
            check_length_prefix(length)


# --- allowed fast ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(10))
def test_allowed_fast_set_of_bep_6(count: int) -> None:
    """The example of BEP 6: 1,313 pieces, info hash aa..., address 80.4.4.200."""
    known = [1059, 431, 808, 1217, 287, 376, 1188, 353, 508]
    assert allowed_fast_set(b"\xaa" * 20, bytes([80, 4, 4, 200]), 1313, count) == known[:count]


def test_allowed_fast_set_looks_at_the_network_only() -> None:
    same = [allowed_fast_set(HASH, bytes([80, 4, 4, last]), 1000, 10) for last in (0, 1, 255)]
    assert same[0] == same[1] == same[2]
    assert allowed_fast_set(HASH, bytes([80, 4, 5, 0]), 1000, 10) != same[0]


@given(info_hashes, st.binary(min_size=4, max_size=4), st.integers(0, 40), st.integers(0, 15))
def test_allowed_fast_sets_are_distinct_pieces_of_the_torrent(
    info_hash: InfoHash, host: bytes, num_pieces: int, count: int
) -> None:
    chosen = allowed_fast_set(info_hash, host, num_pieces, count)
    assert len(set(chosen)) == len(chosen) == min(count, num_pieces)
    assert all(0 <= index < num_pieces for index in chosen)
    longer = allowed_fast_set(info_hash, host, num_pieces, count + 1)
    assert longer[: len(chosen)] == chosen


@pytest.mark.parametrize("count", [0, 1, 7, wire.MAX_BLOCK_BATCH, wire.MAX_BLOCK_BATCH + 3])
def test_blocks_are_decoded_many_at_a_time(count: int) -> None:
    length = 16_384
    blocks = [(n // 3, n % 3 * length, bytes([n]) * length) for n in range(count)]
    messages = b"".join([wire.encode_piece(*each) for each in blocks])
    assert len(messages) == count * wire.BLOCK_MESSAGE_LENGTH
    incomplete = wire.encode_piece(0, 0, bytes(length))[:-1]
    data = memoryview(wire.encode_piece(0, 0, bytes(length)) + messages + incomplete)
    batch = wire.decode_block_batch(data, wire.BLOCK_MESSAGE_LENGTH)
    assert [
        (index, begin, bytes(data)) for index, begin, data in zip(*batch, strict=True)
    ] == blocks[: wire.MAX_BLOCK_BATCH]
    assert all(payload.obj is data.obj for payload in batch[2]), "nothing is copied"


@pytest.mark.parametrize("number", [0, 1, 5])
def test_a_batch_of_blocks_ends_before_anything_else(number: int) -> None:
    length = 16_384
    messages = [wire.encode_piece(n, 0, bytes(length)) for n in range(6)]
    others = (
        wire.encode_piece(0, 0, bytes(length - 1)),
        wire.encode_piece(0, 0, bytes(length + 1)),
        wire.encode_extended(1, bytes(16_391)),
        wire.KEEP_ALIVE,
    )
    for other in others:
        mixed = b"".join([*messages[:number], other, *messages[number:]])
        indices, begins, payloads = wire.decode_block_batch(memoryview(mixed), 0)
        assert indices == tuple(range(number))
        assert len(begins) == len(payloads) == number


def test_requests_of_a_run_are_those_of_its_blocks() -> None:
    block = 16_384
    for begin, end in [(0, block), (0, 3 * block), (2 * block, 4 * block + 1), (block, block + 7)]:
        for index in (0, 7, 0xFFFFFFFF):
            assert wire.encode_requests(index, begin, end) == b"".join(
                wire.encode_request(index, at, min(block, end - at))
                for at in range(begin, end, block)
            )


def test_haves_in_a_row() -> None:
    data = wire.encode_haves([3, 1, 2]) + wire.KEEP_ALIVE + wire.encode_have(4)
    assert data.startswith(b"".join(map(wire.encode_have, [3, 1, 2])) + wire.KEEP_ALIVE)
    for cut, found in [(len(data), [3, 1, 2]), (26, [3, 1]), (17, [3])]:
        assert wire.decode_haves(memoryview(data)[:cut], 0, num_pieces=10) == found
    assert wire.decode_haves(memoryview(b"?" + data), 10, num_pieces=10) == [1, 2]
    assert wire.decode_haves(memoryview(data), 0, num_pieces=2) == [3, 1], "the first in any case"
    assert wire.decode_haves(memoryview(data), 9, num_pieces=1) == [1]
    for other in (wire.encode_index(MessageId.SUGGEST_PIECE, 1), b"\0\0\0\x06\x04" + bytes(5)):
        mixed = memoryview(wire.encode_have(3) + other + wire.encode_have(2))
        assert wire.decode_haves(mixed, 0, num_pieces=10) == [3]
