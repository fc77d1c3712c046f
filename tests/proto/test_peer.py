"""proto.peer: framing, flags, requests, extensions, and what breaks the protocol."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import struct
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec import wire
from bittern.codec.extension import ExtendedHandshake, encode_dont_have, encode_extended_handshake
from bittern.codec.wire import HashRange, MessageId, Reserved
from bittern.core.bitfield import Bitfield
from bittern.core.errors import PeerViolation
from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.core.ids import InfoHash, PeerId
from bittern.proto.extended import (
    LOCAL_EXTENSIONS,
    LT_DONT_HAVE,
    MAX_EXTENDED_HANDSHAKES,
    UPLOAD_ONLY,
    UT_METADATA,
    UT_PEX,
)
from bittern.proto.incoming import MAX_CHOKED_REQUESTS, MAX_INCOMING_REQUESTS, MAX_REFUSED_REQUESTS
from bittern.proto.outgoing import MAX_UNEXPECTED_BLOCKS, request_key
from bittern.proto.peer import (
    MAX_ALLOWED_FAST,
    MAX_UNREAD_LENGTH,
    MAX_UNREAD_MESSAGES,
    PeerProtocol,
    PeerState,
)
from bittern.proto.peer_events import (
    BitfieldReceived,
    BlocksReceived,
    Choked,
    DontHaveReceived,
    ExtendedHandshakeReceived,
    ExtensionReceived,
    HandshakeReceived,
    HashesReceived,
    HashesRejected,
    HashesRequested,
    HavesReceived,
    InterestChanged,
    PeerEvent,
    PortReceived,
    RequestRejected,
    RequestsReceived,
    Unchoked,
    UnexpectedBlockReceived,
)
from bittern.proto.remote_pieces import MAX_REPEATS
from tests.codec.fuzzing import mutate

B = BLOCK_LENGTH
HASH, OTHER_HASH = InfoHash(b"h" * 20), InfoHash(b"o" * 20)
OURS, THEIRS = PeerId(b"-bt0100-ours--------"), PeerId(b"-XX0100-theirs------")
PIECE_LENGTH = 4 * B
GEOMETRY = Geometry.contiguous(PIECE_LENGTH, 10 * PIECE_LENGTH - 100, 10 * PIECE_LENGTH - 100)
"""Ten pieces; the last block of the last has 100 bytes less."""
FULL = Reserved()
PLAIN = Reserved(has_extensions=False, has_fast=False)
RANGE = HashRange(bytes(32), 0, 512, 512, 3)


def make(
    *, geometry: Geometry | None = GEOMETRY, peer_id: PeerId = OURS, reserved: Reserved = FULL
) -> PeerProtocol:
    return PeerProtocol(
        info_hashes=(HASH, OTHER_HASH), peer_id=peer_id, reserved=reserved, geometry=geometry
    )


def opened(*, geometry: Geometry | None = GEOMETRY, remote: Reserved = FULL) -> PeerProtocol:
    """Return a machine that has just had the peer's handshake."""
    protocol = make(geometry=geometry)
    receive(protocol, wire.encode_handshake(HASH, THEIRS, remote))
    protocol.data_to_send()
    return protocol


def receive(protocol: PeerProtocol, *messages: bytes, now: float = 0.0) -> list[PeerEvent]:
    protocol.receive_data(memoryview(b"".join(messages)), now=now)
    return protocol.events()


def sent(protocol: PeerProtocol) -> bytes:
    assert protocol.has_data_to_send
    data = protocol.data_to_send()
    assert not protocol.has_data_to_send
    assert protocol.data_to_send() == b""
    return data


def have(*indices: int) -> Bitfield:
    return Bitfield.of(10, indices)


def block(index: int, number: int) -> bytes:
    """Return a piece message with a block that tells where it belongs."""
    length = GEOMETRY.block_length(index, number * B)
    return wire.encode_piece(index, number * B, bytes([index * 16 + number]) * length)


# --- handshake -------------------------------------------------------------------------------


def test_the_handshake_goes_out_first_and_the_answer_opens() -> None:
    protocol = make()
    assert sent(protocol) == wire.encode_handshake(HASH, OURS, Reserved())
    answer = wire.encode_handshake(OTHER_HASH, THEIRS, Reserved(has_dht=True))
    assert receive(protocol, answer) == [HandshakeReceived(wire.decode_handshake(answer))]
    assert protocol.state is PeerState.OPEN
    assert protocol.handshakes.remote == wire.decode_handshake(answer)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (wire.encode_handshake(InfoHash(bytes(20)), THEIRS, Reserved()), "another torrent"),
        (wire.encode_handshake(HASH, OURS, Reserved()), "connected to ourselves"),
        (b"GET / HTTP/1.1\r\n\r\n", "no BitTorrent handshake"),
        (b"\x13BitTorrent protocoL", "no BitTorrent handshake"),
        (b"\x14", "no BitTorrent handshake"),
    ],
)
def test_another_handshake_closes_as_soon_as_it_shows(answer: bytes, text: str) -> None:
    """The peer that is ourselves: H15."""
    protocol = make()
    with pytest.raises(PeerViolation, match=text):
        receive(protocol, answer)
    assert protocol.state is PeerState.CLOSED
    assert protocol.events() == []
    assert receive(protocol, b"anything") == []


# --- one table: what we send, its bytes, what the other machine makes of it ------------------

Verb = Callable[[PeerProtocol], object]
MESSAGES: list[tuple[str, Verb, bytes, list[PeerEvent]]] = [
    ("keep-alive", lambda p: p.send_message(wire.KEEP_ALIVE), wire.KEEP_ALIVE, []),
    ("interested", lambda p: p.set_interested(True), wire.INTERESTED, [InterestChanged(True)]),
    ("unchoke", lambda p: p.unchoke(), wire.UNCHOKE, [Unchoked()]),
    ("have", lambda p: p.send_have(3), wire.encode_have(3), [HavesReceived(10, (3,))]),
    (
        "bitfield",
        lambda p: p.send_bitfield(have(1, 9)),
        wire.encode_bitfield(b"\x40\x40"),
        [BitfieldReceived(have(1, 9))],
    ),
    (
        "have all",
        lambda p: p.send_bitfield(Bitfield.full(10)),
        wire.HAVE_ALL,
        [BitfieldReceived(Bitfield.full(10))],
    ),
    ("have none", lambda p: p.send_bitfield(have()), wire.HAVE_NONE, [BitfieldReceived(have())]),
    (
        "port",
        lambda p: p.send_message(wire.encode_port(6881)),
        wire.encode_port(6881),
        [PortReceived(6881)],
    ),
    (
        "allowed fast",
        lambda p: p.send_allowed_fast([7, 2]),
        wire.encode_index(MessageId.ALLOWED_FAST, 2) + wire.encode_index(MessageId.ALLOWED_FAST, 7),
        [],
    ),
    (
        "suggest",
        lambda p: p.send_message(wire.encode_index(MessageId.SUGGEST_PIECE, 9)),
        wire.encode_index(MessageId.SUGGEST_PIECE, 9),
        [],
    ),
    (
        "hash request",
        lambda p: p.send_message(wire.encode_hash_request(RANGE)),
        wire.encode_hash_request(RANGE),
        [HashesRequested(RANGE)],
    ),
    (
        "hashes",
        lambda p: p.send_message(wire.encode_hashes(RANGE, [b"1" * 32, b"2" * 32])),
        wire.encode_hashes(RANGE, [b"1" * 32, b"2" * 32]),
        [HashesReceived(RANGE, b"1" * 32 + b"2" * 32)],
    ),
    (
        "hash reject",
        lambda p: p.send_message(wire.encode_hash_request(RANGE, MessageId.HASH_REJECT)),
        wire.encode_hash_request(RANGE, MessageId.HASH_REJECT),
        [HashesRejected(RANGE)],
    ),
    (
        "extended handshake",
        lambda p: p.send_extended_handshake(ExtendedHandshake({"ut_pex": 1}, request_queue=500)),
        wire.encode_extended(0, b"d1:md6:ut_pexi1ee4:reqqi500ee"),
        [ExtendedHandshakeReceived(ExtendedHandshake({"ut_pex": 1}, request_queue=500))],
    ),
    ("unknown", lambda p: p.send_message(b"\0\0\0\x03\x63ab"), b"\0\0\0\x03\x63ab", []),
]


@pytest.mark.parametrize(
    ("verb", "data", "events"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES]
)
def test_a_message_of_one_machine_is_an_event_of_the_other(
    verb: Verb, data: bytes, events: list[PeerEvent]
) -> None:
    sender, receiver = opened(), opened()
    verb(sender)
    assert sent(sender) == data
    assert receive(receiver, data) == events
    assert receive(receiver, wire.KEEP_ALIVE) == []


@pytest.mark.parametrize(
    ("data", "events"), [row[2:] for row in MESSAGES], ids=[row[0] for row in MESSAGES]
)
def test_a_message_byte_by_byte(data: bytes, events: list[PeerEvent]) -> None:
    receiver = opened()
    early = [event for byte in data[:-1] for event in receive(receiver, bytes([byte]))]
    assert early == events[:-1]
    assert receive(receiver, data[-1:]) == events[-1:]


@pytest.mark.parametrize(
    ("data", "events"), [row[2:] for row in MESSAGES], ids=[row[0] for row in MESSAGES]
)
def test_a_message_with_the_start_of_another(data: bytes, events: list[PeerEvent]) -> None:
    for length in range(1, 5):
        receiver = opened()
        assert receive(receiver, data, wire.encode_port(1)[:length]) == events
        assert receive(receiver, wire.encode_port(1)[length:]) == [PortReceived(1)]


# --- any bytes, cut anywhere -----------------------------------------------------------------


def outcome(protocol: PeerProtocol, parts: Iterable[bytes]) -> tuple[object, ...]:
    """
    Return what came of a stream: blocks, other events, answers, whether it was a violation.

    Every part lies in a buffer that is overwritten as soon as its events are drained.
    """
    blocks: list[tuple[int, int, bytes]] = []
    haves: list[int] = []
    others: list[PeerEvent] = []
    is_violation = False
    for part in parts:
        buffer = bytearray(part)
        try:
            protocol.receive_data(memoryview(buffer), now=0.0)
        except PeerViolation:
            is_violation = True
        for event in protocol.events():
            if isinstance(event, BlocksReceived):
                blocks += [(index, begin, bytes(data)) for index, begin, data in event.blocks]
            elif isinstance(event, HavesReceived):
                haves += event.pieces
            else:
                others.append(event)
        buffer[:] = b"\xdd" * len(buffer)
    return blocks, haves, others, protocol.data_to_send(), is_violation, dict(protocol.outstanding)


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    places = sorted({number % (len(data) + 1) for number in at} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


ANYTHING: list[bytes] = [
    *(row[2] for row in MESSAGES),
    *(block(index, number) for index, number in [(0, 0), (0, 1), (9, 3), (5, 0)]),
    wire.encode_piece(0, 2 * B, b"short"),
    wire.CHOKE,
    wire.NOT_INTERESTED,
    wire.encode_request(1, 0, B),
    wire.encode_request(1, B, B),
    wire.encode_cancel(1, 0, B),
    wire.encode_reject(0, 0, B),
    wire.encode_request(10, 0, B),
    wire.encode_extended(7, encode_dont_have(1)),
    wire.encode_extended(1, b"de"),
    wire.encode_extended(99, b"de"),
    wire.encode_extended(0, b"x"),
    wire.encode_have(10),
    b"\0\0\0\1\6",
    b"\xff\xff\xff\xff",
]


def busy() -> PeerProtocol:
    """Return an open machine that has requests under way, and one that was given up."""
    protocol = opened()
    protocol.unchoke()
    protocol.request_runs([(5, 0, B)])
    protocol.cancel(5, 0)
    protocol.request_runs([(0, 0, PIECE_LENGTH)])
    protocol.request_runs([(9, 3 * B, GEOMETRY.length_of(9))])
    protocol.data_to_send()
    return protocol


@pytest.mark.slow
@given(
    st.lists(st.sampled_from(ANYTHING), max_size=8),
    st.lists(st.integers(0, 1 << 20), max_size=12),
)
def test_how_a_stream_is_cut_makes_no_difference(messages: list[bytes], at: list[int]) -> None:
    data = b"".join(messages)
    assert outcome(busy(), [data]) == outcome(busy(), cut(data, at))


@pytest.mark.parametrize("first", [1, 19, 48, 67])
def test_what_comes_with_the_rest_of_a_handshake_is_not_lost(first: int) -> None:
    data = wire.encode_handshake(HASH, THEIRS, FULL) + wire.encode_haves([3, 5])
    parts = [data[:first], data[first:-3], data[-3:]]
    assert outcome(make(), parts) == outcome(make(), [data])


def test_a_stream_byte_by_byte() -> None:
    """All but the insides of blocks, which come in parts of 1,000 bytes."""
    messages = [block(0, 0), wire.encode_have(3), block(5, 0), block(9, 3), wire.UNCHOKE]
    data = b"".join([*messages, b"\xff" * 4])
    ends = list(itertools.accumulate(map(len, messages), initial=0))
    at = {end + number for end in ends for number in range(-20, 20)} | set(
        range(0, len(data), 1000)
    )
    assert outcome(busy(), [data]) == outcome(busy(), cut(data, sorted(at)))


# --- H1: lengths -----------------------------------------------------------------------------

ALLOWED_LENGTHS: dict[int, tuple[int, int]] = {
    **dict.fromkeys((0, 1, 2, 3, 14, 15), (1, 1)),
    **dict.fromkeys((4, 13, 17), (5, 5)),
    5: (3, 3),
    **dict.fromkeys((6, 8, 16), (13, 13)),
    7: (10, B + 9),
    9: (3, 3),
    20: (2, 262_144),
    **dict.fromkeys((21, 23), (49, 49)),
    22: (81, 49 + 32 * 544),
    99: (1, 524_284),
}


def test_h1_the_table_of_lengths_has_every_type() -> None:
    assert ALLOWED_LENGTHS.keys() >= set(MessageId)


@pytest.mark.parametrize("kind", ALLOWED_LENGTHS)
@pytest.mark.parametrize("is_dripping", [False, True], ids=["whole", "slow drip"])
def test_h1_a_length_that_no_such_message_has_closes_before_its_payload(
    kind: int, is_dripping: bool
) -> None:
    low, high = ALLOWED_LENGTHS[kind]
    for length in {low - 1, high + 1, 1 << 31, (1 << 32) - 1} - {0}:
        protocol = opened()
        head = wire.LENGTH_AND_ID.pack(length, kind)
        last = head + bytes(20)
        if is_dripping:
            num_harmless = 4 if length <= wire.MAX_MESSAGE_LENGTH else 3
            for number in range(num_harmless):
                assert receive(protocol, head[number : number + 1]) == []
            last = head[num_harmless : num_harmless + 1]
        with pytest.raises(PeerViolation, match=f"{length} bytes"):
            receive(protocol, last)
        assert protocol.state is PeerState.CLOSED


@pytest.mark.parametrize("kind", ALLOWED_LENGTHS)
def test_h1_a_possible_length_is_waited_for(kind: int) -> None:
    for length in set(ALLOWED_LENGTHS[kind]):
        protocol = opened()
        receive(protocol, wire.LENGTH_AND_ID.pack(length, kind))
        receive(protocol, bytes(max(0, length - 2)))
        assert protocol.state is PeerState.OPEN


def test_h1_a_length_prefix_alone_closes() -> None:
    protocol = opened()
    with pytest.raises(PeerViolation, match="message of 524285 bytes"):
        receive(protocol, struct.pack(">I", 524_285))


def test_h1_pieces_of_an_unknown_torrent_are_bounded_too() -> None:
    protocol = opened(geometry=None)
    receive(protocol, wire.LENGTH_AND_ID.pack(262_145, MessageId.BITFIELD))
    with pytest.raises(PeerViolation, match="262146 bytes"):
        receive(opened(geometry=None), wire.LENGTH_AND_ID.pack(262_146, MessageId.BITFIELD))


# --- blocks ----------------------------------------------------------------------------------


def test_requests_go_out_and_their_blocks_come_as_one_batch() -> None:
    protocol = opened()
    protocol.request_runs([(0, 0, 2 * B)])
    protocol.request_runs([(9, 3 * B, GEOMETRY.length_of(9))])
    assert sent(protocol) == b"".join(
        [
            wire.encode_request(0, 0, B),
            wire.encode_request(0, B, B),
            wire.encode_request(9, 3 * B, B - 100),
        ]
    )
    events = receive(
        protocol, block(0, 0), wire.encode_have(4), block(9, 3), wire.encode_have(5), block(0, 1)
    )
    assert events == [
        BlocksReceived(
            [
                (9 * n, at * B, memoryview(block(9 * n, at)[13:]))
                for n, at in [(0, 0), (1, 3), (0, 1)]
            ]
        ),
        HavesReceived(10, (4,)),
        HavesReceived(10, (5,)),
    ]
    assert not protocol.outstanding


BATCH = 16


@pytest.mark.parametrize(
    "odd",
    [
        block(0, 0),  # comes twice
        block(6, 0),  # was given up
        block(7, 0),  # never asked for
        block(9, 3),  # the short one, asked for
        wire.encode_piece(3, 3 * B, b"short"),
        wire.encode_have(1),
        wire.encode_have(1) + wire.encode_have(2) + wire.encode_have(1) + wire.encode_have(10),
        wire.CHOKE,
        wire.KEEP_ALIVE,
        b"\0\0\0\x0a\7" + bytes(9),
    ],
)
def test_a_batch_of_blocks_hides_nothing(odd: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many blocks as are looked at together, something else among them, wherever."""
    monkeypatch.setattr("bittern.proto.peer.BATCH_FROM", BATCH // 2 * wire.BLOCK_MESSAGE_LENGTH)
    usual = [block(n // 4, n % 4) for n in range(BATCH)]

    def asking() -> PeerProtocol:
        protocol = opened()
        for index in range(4):
            protocol.request_runs([(index, 0, PIECE_LENGTH)])
        protocol.request_runs([(6, 0, B)])
        protocol.cancel(6, 0)
        protocol.request_runs([(9, 3 * B, GEOMETRY.length_of(9))])
        protocol.data_to_send()
        return protocol

    for position in range(BATCH + 1):
        messages = [*usual[:position], odd, *usual[position:]]
        assert outcome(asking(), [b"".join(messages)]) == outcome(asking(), messages)


def test_runs_are_asked_for_block_by_block() -> None:
    protocol = opened()
    end = GEOMETRY.length_of(9)
    protocol.request_runs([(2, 0, PIECE_LENGTH), (5, B, 2 * B), (9, 2 * B, end)])
    blocks = [(2, at * B, B) for at in range(4)]
    blocks += [(5, B, B), (9, 2 * B, B), (9, 3 * B, end - 3 * B)]
    assert protocol.data_to_send() == b"".join([wire.encode_request(*each) for each in blocks])
    assert protocol.outstanding == {request_key(i, begin): length for i, begin, length in blocks}


def test_payloads_are_not_copied() -> None:
    protocol = opened()
    protocol.request_runs([(0, 0, B)])
    buffer = bytearray(block(0, 0))
    protocol.receive_data(memoryview(buffer), now=0.0)
    [event] = protocol.events()
    assert isinstance(event, BlocksReceived)
    buffer[13] = 0xEE
    assert event.blocks[0][2][0] == 0xEE


def test_late_blocks_are_taken_and_unexpected_ones_thrown_away() -> None:
    protocol = opened()
    protocol.request_runs([(0, 0, 2 * B)])
    assert protocol.drop_outstanding() == [(0, 0, B), (0, B, B)]
    events = receive(protocol, block(0, 1), block(0, 1))
    assert events == [
        BlocksReceived([(0, B, memoryview(block(0, 1)[13:]))]),
        UnexpectedBlockReceived(B),
    ]


def test_a_peer_that_keeps_sending_what_nobody_asked_for_is_closed() -> None:
    protocol = opened()
    tiny = wire.encode_piece(0, 0, b"x")
    assert receive(protocol, tiny * MAX_UNEXPECTED_BLOCKS) == (
        [UnexpectedBlockReceived(1)] * MAX_UNEXPECTED_BLOCKS
    )
    with pytest.raises(PeerViolation, match="nobody asked for"):
        receive(protocol, tiny)


@pytest.mark.parametrize(
    "bad",
    [
        wire.encode_piece(0, 2 * B, b"short"),
        wire.encode_have(10),
        b"\0\0\0\1\6",
        b"\xff\xff\xff\xff",
        b"\xff\xff\xff\xff\x07",
        wire.LENGTH_AND_ID.pack(B + 10, 7) + bytes(20),
    ],
)
def test_a_violation_loses_neither_blocks_nor_requests(bad: bytes) -> None:
    """Else their piece would wait for ever for blocks that nobody asks for again."""
    protocol = opened()
    protocol.request_runs([(0, 0, PIECE_LENGTH)])
    with pytest.raises(PeerViolation):
        receive(protocol, block(0, 0), block(0, 1), bad)
    [event] = protocol.events()
    assert isinstance(event, BlocksReceived)
    assert [begin for _, begin, _ in event.blocks] == [0, B]
    assert sorted(protocol.drop_outstanding()) == [(0, 2 * B, B), (0, 3 * B, B)]


def test_a_cancelled_request_may_still_be_answered() -> None:
    protocol = opened()
    protocol.request_runs([(0, 0, 2 * B)])
    sent(protocol)
    protocol.cancel(0, B)
    assert sent(protocol) == wire.encode_cancel(0, B, B)
    protocol.cancel(0, B)
    assert not protocol.has_data_to_send
    assert receive(protocol, wire.encode_reject(0, B, B)) == []
    protocol.cancel(0, 0)
    assert isinstance(receive(protocol, block(0, 0))[0], BlocksReceived)


# --- choking ---------------------------------------------------------------------------------


def test_a_choke_drops_our_requests_without_the_fast_extension() -> None:
    protocol = opened(remote=PLAIN)
    assert protocol.peer_choking
    assert receive(protocol, wire.UNCHOKE, wire.UNCHOKE) == [Unchoked()]
    protocol.request_runs([(0, 0, 2 * B)])
    assert receive(protocol, wire.CHOKE, wire.CHOKE) == [Choked([(0, 0, B), (0, B, B)])]
    assert protocol.peer_choking
    assert isinstance(receive(protocol, block(0, 0))[0], BlocksReceived)


def test_bep6_a_choke_rejects_nothing_by_itself() -> None:
    protocol = opened()
    receive(protocol, wire.UNCHOKE)
    protocol.request_runs([(0, 0, 2 * B)])
    assert receive(protocol, wire.CHOKE, wire.encode_reject(0, 0, B)) == [
        Choked([]),
        RequestRejected((0, 0, B)),
    ]
    assert protocol.drop_outstanding() == [(0, B, B)]


def test_interest_is_told_once() -> None:
    protocol = opened()
    assert receive(protocol, wire.INTERESTED, wire.INTERESTED) == [InterestChanged(True)]
    assert protocol.peer_interested
    assert receive(protocol, wire.NOT_INTERESTED, wire.NOT_INTERESTED) == [InterestChanged(False)]
    protocol.set_interested(False)
    assert not protocol.has_data_to_send
    protocol.set_interested(True)
    protocol.set_interested(True)
    protocol.set_interested(False)
    assert sent(protocol) == wire.INTERESTED + wire.NOT_INTERESTED


def test_requests_are_told_when_the_queue_was_empty() -> None:
    protocol = opened()
    protocol.unchoke()
    protocol.unchoke()
    assert sent(protocol) == wire.UNCHOKE
    first, second = wire.encode_request(1, 0, B), wire.encode_request(1, B, B)
    assert receive(protocol, first, second) == [RequestsReceived()]
    assert protocol.incoming.take(1 << 20) == ([(1, 0, B), (1, B, B)], 2 * B)
    assert receive(protocol, first) == [RequestsReceived()]


def test_requests_of_any_length_are_told_once_until_they_have_been_taken() -> None:
    protocol = opened()
    protocol.unchoke()
    odd = [wire.encode_request(1, begin, 1_000) for begin in (0, 1_000, 2_000)]
    assert receive(protocol, odd[0]) == [RequestsReceived()]
    assert receive(protocol, odd[1]) == []
    assert receive(protocol, wire.encode_request(1, 0, B), odd[2]) == []
    assert len(protocol.incoming) == 4


@pytest.mark.parametrize("length", [B, 1_000])
def test_a_request_is_a_message_after_which_no_have_none_can_come(length: int) -> None:
    protocol = opened()
    protocol.unchoke()
    receive(protocol, wire.encode_request(1, 0, length))
    with pytest.raises(PeerViolation, match="not the first message"):
        receive(protocol, wire.HAVE_NONE)


def test_once_the_metadata_is_there_blocks_may_be_asked_for() -> None:
    protocol = opened(geometry=None)
    protocol.unchoke()
    protocol.learn_geometry(GEOMETRY)
    request = wire.encode_request(9, 3 * B, GEOMETRY.block_length(9, 3 * B))
    assert receive(protocol, request) == [RequestsReceived()]
    with pytest.raises(PeerViolation, match="has piece 10 of 10"):
        receive(protocol, wire.encode_have(10))


@pytest.mark.parametrize(
    ("remote", "answer"), [(Reserved(), wire.encode_reject(1, 0, B)), (PLAIN, b"")]
)
def test_choking_and_cancelling_reject_with_the_fast_extension(
    remote: Reserved, answer: bytes
) -> None:
    protocol = opened(remote=remote)
    protocol.choke(now=0.0)
    assert not protocol.has_data_to_send, "we choke from the start"
    protocol.unchoke()
    request, cancel = wire.encode_request(1, 0, B), wire.encode_cancel(1, 0, B)
    receive(protocol, request, cancel, cancel)
    assert sent(protocol) == wire.UNCHOKE + answer
    receive(protocol, request)
    protocol.choke(now=0.0)
    assert sent(protocol) == wire.CHOKE + answer
    assert not protocol.incoming
    assert protocol.am_choking
    receive(protocol, request)
    assert not protocol.incoming, "nothing is served from then on"


@pytest.mark.parametrize(
    "request_", [(10, 0, B), (9, 3 * B, B), (1, 0, 0), (1, PIECE_LENGTH, 1), (1, 0, 262_145)]
)
def test_h3_a_request_for_what_does_not_exist_is_a_violation(
    request_: tuple[int, int, int],
) -> None:
    protocol = opened()
    protocol.unchoke()
    with pytest.raises(PeerViolation, match="requests what does not exist"):
        receive(protocol, wire.encode_request(*request_))


def check_cut_and_whole(
    messages: list[bytes], *, num_waiting: int, is_choked: bool = False
) -> None:
    """Prove that messages in one wake-up have the same effect as one by one."""

    def feed(parts: list[bytes]) -> tuple[object, ...]:
        protocol = opened()
        if not is_choked:
            protocol.unchoke()
        for number in range(num_waiting):
            protocol.incoming.admit((5, number, 2), is_choked=False, now=0.0)
        events: list[object] = []
        error = ""
        try:
            for part in parts:
                events += receive(protocol, part)
        except PeerViolation as violation:
            error = str(violation)
            events += protocol.events()
        return events, error, list(protocol.incoming), protocol.data_to_send()

    assert feed([b"".join(messages)]) == feed(messages)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10),
            st.sampled_from([0, B, 2 * B, 3 * B, 3 * B + 1, 4 * B, 1, (1 << 32) - B]),
            st.sampled_from([B, B, B, 1, B + 1, 0]),
        ),
        max_size=20,
    ),
    st.sampled_from([0, MAX_INCOMING_REQUESTS - 3]),
    st.booleans(),
)
def test_many_requests_at_once_are_treated_as_one_by_one(
    requests: list[tuple[int, int, int]], num_waiting: int, is_choked: bool
) -> None:
    messages = [wire.encode_request(*request) for request in requests]
    check_cut_and_whole(messages, num_waiting=num_waiting, is_choked=is_choked)


@pytest.mark.parametrize("num_waiting", [0, 1, MAX_INCOMING_REQUESTS - 20])
@pytest.mark.parametrize(
    "odd",
    [
        wire.encode_request(10, 0, B),
        wire.encode_request(9, 3 * B, B),
        wire.encode_request(9, 2 * B, B),
        wire.encode_request(1, 3 * B + 1, B),
        wire.encode_request(1, 0, B - 1),
        wire.encode_request(0, 0, B),
        wire.encode_cancel(0, 0, B),
        wire.encode_have(1),
        wire.KEEP_ALIVE,
    ],
)
def test_a_batch_of_requests_hides_nothing(odd: bytes, num_waiting: int) -> None:
    """Many requests, with something else among them, wherever it is."""
    usual = [wire.encode_request(n // 4, n % 4 * B, B) for n in range(32)]
    for position in range(18):
        messages = [*usual[:position], odd, *usual[position:]]
        check_cut_and_whole(messages, num_waiting=num_waiting)


def test_h3_a_request_before_the_metadata_is_a_violation() -> None:
    with pytest.raises(PeerViolation, match="requests what does not exist"):
        receive(opened(geometry=None), wire.encode_request(0, 0, B))


def test_h3_requests_while_choked_are_rejected_and_in_the_end_close() -> None:
    protocol = opened()
    request = wire.encode_request(1, 0, B)
    assert receive(protocol, request * MAX_CHOKED_REQUESTS, now=10.0) == []
    assert sent(protocol) == wire.encode_reject(1, 0, B) * MAX_CHOKED_REQUESTS
    with pytest.raises(PeerViolation, match="while choked"):
        receive(protocol, request, now=10.0)


# --- H2: floods ------------------------------------------------------------------------------


@pytest.mark.slow
def test_h2_a_flood_of_requests_is_bounded_and_closed() -> None:
    protocol = opened()
    protocol.unchoke()
    sent(protocol)
    flood = [wire.encode_request(number % 9, number, 1) for number in range(20_000)]
    with pytest.raises(PeerViolation, match="more than it was told"):
        receive(protocol, *flood)
    assert len(protocol.incoming) == MAX_INCOMING_REQUESTS
    assert len(sent(protocol)) == 17 * MAX_REFUSED_REQUESTS


@pytest.mark.slow
def test_h2_a_peer_that_sends_and_never_reads_is_closed() -> None:
    protocol = opened()
    protocol.unchoke()
    pair = wire.encode_request(1, 0, B) + wire.encode_cancel(1, 0, B)
    receive(protocol, pair * MAX_UNREAD_MESSAGES)
    with pytest.raises(PeerViolation, match="does not read"):
        receive(protocol, pair)
    reader = opened()
    reader.unchoke()
    for _ in range(3):
        receive(reader, pair * (MAX_UNREAD_MESSAGES // 2))
        sent(reader)


def test_h7_extension_messages_for_a_peer_that_does_not_read_are_bounded() -> None:
    protocol = opened()
    receive(
        protocol, wire.encode_extended(0, encode_extended_handshake(ExtendedHandshake({"x": 5})))
    )
    num_taken = sum(protocol.send_extension("x", bytes(B)) for _ in range(1000))
    assert num_taken == MAX_UNREAD_LENGTH // B == 64
    assert len(sent(protocol)) == 64 * (B + 6)
    assert protocol.send_extension("x", bytes(B))


def test_h10_messages_made_elsewhere_fill_the_room_for_long_answers() -> None:
    protocol = opened()
    for _ in range(MAX_UNREAD_LENGTH // B):
        assert protocol.has_room
        protocol.send_message(bytes(B))
    assert not protocol.has_room
    sent(protocol)
    assert protocol.has_room


# --- what the peer has -----------------------------------------------------------------------


def test_bitfield_first_then_haves() -> None:
    protocol = opened()
    assert protocol.remote == have()
    assert receive(protocol, wire.encode_bitfield(have(1).to_wire()), wire.encode_have(2)) == [
        BitfieldReceived(have(1)),
        HavesReceived(10, (2,)),
    ]
    assert protocol.remote == have(1, 2)


@pytest.mark.parametrize(
    "before",
    [wire.encode_port(1), wire.encode_extended(0, b"de"), wire.KEEP_ALIVE, b"\0\0\0\x03\x14\x01x"],
)
def test_some_messages_may_stand_before_have_all(before: bytes) -> None:
    """Interop: extended handshake or port first."""
    assert receive(opened(), before, wire.HAVE_ALL)[-1] == BitfieldReceived(Bitfield.full(10))


@pytest.mark.parametrize(
    "before",
    [
        wire.UNCHOKE,
        wire.INTERESTED,
        wire.encode_have(1),
        wire.encode_request(1, 0, 1),
        wire.encode_index(MessageId.SUGGEST_PIECE, 1),
        wire.HAVE_ALL,
        b"\0\0\0\x01\x63",
    ],
)
def test_h6_have_none_after_other_messages_is_a_violation(before: bytes) -> None:
    with pytest.raises(PeerViolation, match="not the first message"):
        receive(opened(), before, wire.HAVE_NONE)


def test_have_all_of_who_has_become_complete() -> None:
    """Interop: the last words of aria2 1.37 as a leech of 654 pieces."""
    geometry = Geometry.contiguous(PIECE_LENGTH, 654 * PIECE_LENGTH, 654 * PIECE_LENGTH)
    protocol = opened(geometry=geometry)
    bitfield = bytes.fromhex(
        "0000005305ffefeffdfeffffbffffffffbddf7f7ffffffffffdbff3ff7fffdffbff7affffeeffeffebfffff7"
        "ffdfffe6b7ffefaffdfe5fffcef5ffff7bfffdeee7ffffff73ffdbffffbffefffbfff77dffb7dffffffffc"
    )
    assert receive(protocol, wire.encode_have(199)) == [HavesReceived(654, (199,))]
    receive(protocol, bitfield, bytes.fromhex("0000000103"))
    assert protocol.remote is not None
    missing = 654 - len(protocol.remote)
    assert 0 < missing < 654
    [event] = receive(protocol, bytes.fromhex("000000010e"))
    assert isinstance(event, HavesReceived)
    assert len(event.indices) == missing
    assert protocol.remote == Bitfield.full(654)


def test_a_later_bitfield_is_as_good_as_haves() -> None:
    protocol = opened()
    assert receive(protocol, wire.UNCHOKE, wire.encode_bitfield(have(1, 2).to_wire())) == [
        Unchoked(),
        HavesReceived(
            10,
            (
                1,
                2,
            ),
        ),
    ]


@pytest.mark.parametrize("payload", [b"", b"\0", bytes(3), b"\0\x20"])
def test_h6_a_wrong_bitfield_is_a_violation(payload: bytes) -> None:
    with pytest.raises(PeerViolation):
        receive(opened(), wire.encode_bitfield(payload))


@pytest.mark.slow
def test_h6_endless_repetition_is_a_violation() -> None:
    protocol = opened()
    receive(protocol, wire.encode_have(1) * (MAX_REPEATS + 1))
    with pytest.raises(PeerViolation, match="repeats"):
        receive(protocol, wire.encode_have(1))


def test_what_a_peer_said_before_the_metadata() -> None:
    protocol = opened(geometry=None)
    assert protocol.remote is None
    fast = [wire.encode_index(MessageId.ALLOWED_FAST, index) for index in (3, 10, 11)]
    assert receive(
        protocol, wire.encode_bitfield(b"\x80\0"), wire.encode_have(9), *fast, wire.UNCHOKE
    ) == [Unchoked()]
    assert list(protocol.remote_allowed_fast) == [3, 10, 11]
    protocol.learn_geometry(GEOMETRY)
    assert protocol.events() == [BitfieldReceived(have(0, 9))]
    assert protocol.remote == have(0, 9)
    assert list(protocol.remote_allowed_fast) == [3]


@pytest.mark.parametrize("message", [wire.encode_have(10), wire.encode_bitfield(bytes(3))])
def test_h6_what_proves_wrong_when_the_metadata_comes(message: bytes) -> None:
    protocol = opened(geometry=None)
    receive(protocol, message)
    with pytest.raises(PeerViolation):
        protocol.learn_geometry(GEOMETRY)
    assert protocol.state is PeerState.CLOSED


# --- fast extension --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        wire.HAVE_ALL,
        wire.HAVE_NONE,
        wire.encode_index(MessageId.SUGGEST_PIECE, 1),
        wire.encode_index(MessageId.ALLOWED_FAST, 1),
        wire.encode_reject(0, 0, B),
    ],
)
def test_bep6_fast_messages_need_the_fast_extension(message: bytes) -> None:
    with pytest.raises(PeerViolation, match="without the fast extension"):
        receive(opened(remote=PLAIN), message)


def test_fast_messages_are_not_sent_without_the_fast_extension() -> None:
    protocol = opened(remote=PLAIN)
    protocol.send_allowed_fast([1])
    protocol.reject((0, 0, B))
    assert not protocol.has_data_to_send
    protocol.send_bitfield(Bitfield.full(10))
    assert sent(protocol) == wire.encode_bitfield(b"\xff\xc0")


def test_a_keep_alive_stands_for_a_bitfield_of_nothing_without_the_fast_extension() -> None:
    """Interop: rtorrent says so itself, and nothing to who has said neither this nor more."""
    protocol = opened(remote=PLAIN)
    protocol.send_bitfield(have())
    assert sent(protocol) == wire.KEEP_ALIVE


def test_fast_pieces_beyond_the_end_are_ignored_and_the_set_is_bounded() -> None:
    protocol = opened()
    for kind in (MessageId.SUGGEST_PIECE, MessageId.ALLOWED_FAST):
        assert receive(protocol, wire.encode_index(kind, 10)) == []
    assert not protocol.remote_allowed_fast
    unknown = opened(geometry=None)
    many = [wire.encode_index(MessageId.ALLOWED_FAST, index) for index in range(1000)]
    assert receive(unknown, *many) == []
    assert len(unknown.remote_allowed_fast) == MAX_ALLOWED_FAST


def test_h9_a_choked_peer_is_served_its_allowed_set_only() -> None:
    protocol = opened()
    protocol.send_allowed_fast([2])
    protocol.send_allowed_fast([3])
    assert sent(protocol) == wire.encode_index(MessageId.ALLOWED_FAST, 2), "granted once"
    assert receive(protocol, wire.encode_request(2, 0, B)) == [RequestsReceived()]
    assert receive(protocol, wire.encode_request(3, 0, B)) == []
    assert sent(protocol) == wire.encode_reject(3, 0, B)
    protocol.unchoke()
    receive(protocol, wire.encode_request(3, 0, B))
    protocol.choke(now=0.0)
    assert sent(protocol) == wire.UNCHOKE + wire.CHOKE + wire.encode_reject(3, 0, B)
    assert list(protocol.incoming) == [(2, 0, B)]


# --- extensions ------------------------------------------------------------------------------


def shake(**extensions: int) -> bytes:
    return wire.encode_extended(0, encode_extended_handshake(ExtendedHandshake(extensions)))


def test_extensions_go_under_the_ids_of_the_receiver() -> None:
    protocol = opened()
    assert not protocol.send_extension(UT_PEX, b"de")
    receive(protocol, shake(ut_pex=9, ut_metadata=3, other=4))
    assert protocol.send_extension(UT_PEX, b"de")
    assert sent(protocol) == wire.encode_extended(9, b"de")
    for name, number in LOCAL_EXTENSIONS.items():
        if name not in (LT_DONT_HAVE, UPLOAD_ONLY):
            assert receive(protocol, wire.encode_extended(number, b"any")) == [
                ExtensionReceived(name, b"any")
            ]


def test_a_later_extended_handshake_adds_and_takes_away() -> None:
    protocol = opened()
    receive(protocol, shake(ut_pex=9, ut_metadata=3), shake(ut_pex=0, lt_donthave=4))
    assert protocol.remote_extensions == {UT_METADATA: 3, LT_DONT_HAVE: 4}


def test_what_a_peer_wants_may_change() -> None:
    """BEP 21, in libtorrent's message."""
    protocol = opened()
    receive(protocol, shake(ut_pex=9))
    number = LOCAL_EXTENSIONS[UPLOAD_ONLY]
    for is_on in (True, False):
        [event] = receive(protocol, wire.encode_extended(number, bytes((is_on,))))
        assert isinstance(event, ExtendedHandshakeReceived)
        assert event.handshake.is_upload_only is is_on
        assert event.handshake.extensions == {UT_PEX: 9}


def test_extended_handshakes_need_both_sides() -> None:
    protocol = opened(remote=PLAIN)
    protocol.send_extended_handshake(ExtendedHandshake())
    assert not protocol.has_data_to_send


def test_h14_endless_extended_handshakes_are_a_violation() -> None:
    protocol = opened()
    receive(protocol, shake(ut_pex=1) * MAX_EXTENDED_HANDSHAKES)
    with pytest.raises(PeerViolation, match="repeats the extended handshake"):
        receive(protocol, shake(ut_pex=1))


@pytest.mark.parametrize(
    "payload",
    [b"", b"i1e", b"d1:md1:ai1e1:bi1eee", b"l" * 1000, b"d1:m" + b"d1:a" * 100, b"d"],
)
def test_h14_a_broken_extended_handshake_is_a_violation(payload: bytes) -> None:
    with pytest.raises(PeerViolation):
        receive(opened(), wire.encode_extended(0, payload))


def test_unknown_extension_ids_are_ignored() -> None:
    assert receive(opened(), wire.encode_extended(200, b"?")) == []


def test_bep54_a_lost_piece() -> None:
    protocol = opened()
    receive(protocol, wire.encode_have(3), wire.encode_have(4))
    protocol.request_runs([(3, 0, B)])
    lost = wire.encode_extended(LOCAL_EXTENSIONS[LT_DONT_HAVE], encode_dont_have(3))
    assert receive(protocol, lost, lost) == [DontHaveReceived(3)]
    assert protocol.remote == have(4)
    assert protocol.drop_outstanding() == [(3, 0, B)], "with BEP 6 a reject will come"


def test_bep54_without_the_fast_extension_requests_are_dropped_silently() -> None:
    protocol = opened(remote=Reserved(has_fast=False))
    receive(protocol, wire.encode_have(3), wire.encode_have(4))
    protocol.request_runs([(3, 0, 2 * B)])
    protocol.request_runs([(4, 0, B)])
    lost = wire.encode_extended(LOCAL_EXTENSIONS[LT_DONT_HAVE], encode_dont_have(3))
    assert receive(protocol, lost) == [
        RequestRejected((3, 0, B)),
        RequestRejected((3, B, B)),
        DontHaveReceived(3),
    ]
    assert protocol.drop_outstanding() == [(4, 0, B)]


def test_bep54_a_piece_that_we_lost() -> None:
    protocol = opened()
    protocol.send_dont_have(3)
    assert not protocol.has_data_to_send
    receive(protocol, shake(lt_donthave=6))
    protocol.send_dont_have(3)
    assert sent(protocol) == wire.encode_extended(6, b"\0\0\0\3")


@pytest.mark.parametrize("payload", [b"\0\0\0", b"\0\0\0\1\0"])
def test_bep54_a_broken_loss_is_a_violation(payload: bytes) -> None:
    with pytest.raises(PeerViolation, match="lt_donthave of"):
        receive(opened(), wire.encode_extended(LOCAL_EXTENSIONS[LT_DONT_HAVE], payload))


# --- the end ---------------------------------------------------------------------------------


def test_a_closed_machine_ignores_bytes_and_takes_no_messages() -> None:
    protocol = opened()
    protocol.close()
    assert receive(protocol, wire.encode_have(1), b"\xff" * 10) == []
    protocol.data_to_send()
    protocol.send_message(wire.KEEP_ALIVE)
    assert not protocol.has_data_to_send


def test_repr_is_one_line() -> None:
    protocol = opened()
    protocol.request_runs([(0, 0, B)])
    protocol.unchoke()
    protocol.set_interested(True)
    assert repr(protocol) == "<PeerProtocol open cICi 1 outstanding>"


# --- two machines ----------------------------------------------------------------------------


def carry(source: PeerProtocol, target: PeerProtocol, rng: random.Random) -> list[PeerEvent]:
    """Move what ``source`` has to say in random cuts; drop the buffer each time."""
    data = source.data_to_send()
    events: list[PeerEvent] = []
    while data:
        length = rng.choice((1, 3, 17, 1000, 40_000))
        buffer = bytearray(data[:length])
        data = data[length:]
        target.receive_data(memoryview(buffer), now=0.0)
        for event in target.events():
            if isinstance(event, BlocksReceived):
                copied = [(i, at, memoryview(bytes(view))) for i, at, view in event.blocks]
                events.append(BlocksReceived(copied))
            else:
                events.append(event)
        buffer[:] = b"\xdd" * len(buffer)
    return events


@pytest.mark.parametrize("remote", [Reserved(), PLAIN])
def test_a_whole_torrent_between_two_machines(rng: random.Random, remote: Reserved) -> None:
    content = rng.randbytes(GEOMETRY.total_length)
    seed, leech = make(peer_id=THEIRS, reserved=remote), make()
    carry(leech, seed, rng)
    carry(seed, leech, rng)
    seed.send_bitfield(Bitfield.full(10))
    seed.send_extended_handshake(ExtendedHandshake(LOCAL_EXTENSIONS))
    assert BitfieldReceived(Bitfield.full(10)) in carry(seed, leech, rng)
    leech.set_interested(True)
    assert carry(leech, seed, rng) == [InterestChanged(True)]
    seed.unchoke()
    assert carry(seed, leech, rng) == [Unchoked()]
    got = bytearray(len(content))
    for index in range(10):
        leech.request_runs([(index, 0, GEOMETRY.length_of(index))])
        if index == 5:
            leech.cancel(5, B)
        carry(leech, seed, rng)
        for i, begin, length in seed.incoming.take(1 << 20)[0]:
            at = i * PIECE_LENGTH + begin
            seed.send_message(wire.encode_piece(i, begin, content[at : at + length]))
        for event in carry(seed, leech, rng):
            assert isinstance(event, BlocksReceived), event
            for i, begin, view in event.blocks:
                at = i * PIECE_LENGTH + begin
                got[at : at + len(view)] = view
    assert not leech.outstanding
    leech.request_runs([(5, B, 2 * B)])
    carry(leech, seed, rng)
    seed.choke(now=0.0)
    events = carry(seed, leech, rng)
    if remote.has_fast:
        assert events == [Choked([]), RequestRejected((5, B, B))]
    else:
        assert events == [Choked([(5, B, B)])]
    missing = slice(5 * PIECE_LENGTH + B, 5 * PIECE_LENGTH + 2 * B)
    got[missing] = content[missing]
    assert bytes(got) == content


# --- fuzz ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fuzz_only_violations_leave_receive_data(rng: random.Random) -> None:
    """``BITTERN_FUZZ_RUNS`` sets the number of streams."""
    for _ in range(int(os.environ.get("BITTERN_FUZZ_RUNS", "1000"))):
        geometry = rng.choice((GEOMETRY, None))
        protocol = make(geometry=geometry)
        protocol.unchoke()
        protocol.request_runs([(0, 0, PIECE_LENGTH)])
        reserved = rng.choice((Reserved(), PLAIN))
        good = [rng.choice(ANYTHING) for _ in range(rng.randrange(12))]
        stream = wire.encode_handshake(HASH, THEIRS, reserved) + b"".join(
            mutate(message, rng) if rng.random() < 0.3 else message for message in good
        )
        asked = dict(protocol.outstanding)
        done: list[int] = []
        for part in cut(stream, [rng.randrange(1 << 20) for _ in range(rng.randrange(5))]):
            text = ""
            try:
                protocol.receive_data(memoryview(part), now=rng.random() * 100)
            except PeerViolation as error:
                text = str(error)
            assert text.isprintable()
            for event in protocol.events():
                match event:
                    case BlocksReceived(blocks):
                        done += [index << 32 | begin for index, begin, _ in blocks]
                    case RequestRejected((index, begin, _)):
                        done.append(index << 32 | begin)
                    case Choked(dropped):
                        done += [index << 32 | begin for index, begin, _ in dropped]
                    case _:
                        pass
        # Every request of ours is still there or somebody heard of its end.
        assert set(protocol.outstanding) | set(done) >= set(asked)
        assert len(protocol._tail) <= wire.MAX_MESSAGE_LENGTH + 4
        if protocol.state is PeerState.OPEN and geometry is None:
            with contextlib.suppress(PeerViolation):
                protocol.learn_geometry(GEOMETRY)
