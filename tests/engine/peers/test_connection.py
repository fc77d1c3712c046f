"""One connection: what goes in, what goes out, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from bittern.codec import wire
from bittern.codec.wire import Reserved
from bittern.core.endpoint import Endpoint
from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.core.ids import InfoHash, PeerId
from bittern.engine.events import Event, MessageReceived, MessageSent
from bittern.engine.peers.connection import PeerConnection
from bittern.net.stream import StreamHandler
from bittern.proto.peer import PeerProtocol
from bittern.proto.peer_events import (
    HavesReceived,
    PeerEvent,
    ReceivedBlock,
    Request,
    RequestRejected,
)
from tests.virtual_time import simulated

HASH = InfoHash(b"h" * 20)
REMOTE = Endpoint("10.0.0.9", 6881)
GEOMETRY = Geometry.contiguous(4 * BLOCK_LENGTH, 40 * BLOCK_LENGTH, 40 * BLOCK_LENGTH)
HELLO = wire.encode_handshake(HASH, b"r" * 20, Reserved())


class FakeStream:
    """Takes ``room`` bytes and keeps them."""

    remote = REMOTE
    local = Endpoint("10.0.0.1", 1)

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.sent = bytearray()
        self.is_started = self.is_closed = self.fails = False

    def start(self, handler: StreamHandler) -> None:
        self.is_started = True
        self.handler = handler

    def send(self, data: bytes | bytearray | memoryview) -> int:
        if self.fails:
            self.handler.connection_lost(OSError("broken"))
            return 0
        taken = min(self.room, len(data))
        self.sent += data[:taken]
        self.room -= taken
        return taken

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        self.is_closed = True


class FakeOwner:
    """Serves zeros from one buffer that it uses again, as the session does."""

    def __init__(self) -> None:
        self.events: list[PeerEvent] = []
        self.blocks: list[tuple[int, int, bytes]] = []
        self.lost: list[tuple[str, bool]] = []
        self.num_fills = 0
        self.is_slow = self.is_limited = self.closes_when_filled = False
        self.closes_on: type | None = None
        """What it closes a peer for."""
        self.max_run_length = BLOCK_LENGTH
        self.num_loads = 0
        self._buffer = bytearray(1 << 20)

    def blocks_received(
        self, peer: PeerConnection, blocks: list[ReceivedBlock], *, now: float
    ) -> None:
        self.blocks += [(index, begin, bytes(data)) for index, begin, data in blocks]

    def peer_event(self, peer: PeerConnection, event: PeerEvent, *, now: float) -> None:
        self.events.append(event)
        if type(event) is self.closes_on:
            peer.close("no use")

    def fill_pipeline(self, peer: PeerConnection, *, now: float) -> None:
        self.num_fills += 1
        if peer.protocol.am_interested:
            peer.protocol.request_runs([(0, 0, BLOCK_LENGTH)])
        if self.closes_when_filled:
            peer.close("no use")

    def next_run(self, peer: PeerConnection) -> list[Request]:
        return [] if self.is_limited else peer.protocol.incoming.take(self.max_run_length)[0]

    def load_run(self, peer: PeerConnection, requests: list[Request]) -> memoryview | None:
        self.num_loads += 1
        if self.is_slow:
            return None
        messages = b"".join(wire.encode_piece(i, b, bytes([i]) * n) for i, b, n in requests)
        self._buffer[: len(messages)] = messages
        return memoryview(self._buffer)[: len(messages)]

    def peer_lost(self, peer: PeerConnection, reason: str, *, was_violation: bool) -> None:
        self.lost.append((reason, was_violation))


def connect(room: int = 1 << 30) -> tuple[PeerConnection, FakeStream, FakeOwner]:
    stream, owner = FakeStream(room), FakeOwner()
    protocol = PeerProtocol(
        info_hashes=(HASH,), peer_id=PeerId(b"l" * 20), reserved=Reserved(), geometry=GEOMETRY
    )
    peer = PeerConnection(
        stream,
        protocol,
        owner,
        endpoint=REMOTE,
        is_outgoing=True,
        loop=asyncio.get_running_loop(),
    )
    return peer, stream, owner


def serving(room: int = 1 << 30) -> tuple[PeerConnection, FakeStream, FakeOwner]:
    """Return a connection whose handshake came and that unchokes."""
    peer, stream, owner = connect(room)
    peer.start()
    peer.data_received(memoryview(HELLO))
    peer.protocol.unchoke()
    return peer, stream, owner


@simulated
async def test_the_handshake_goes_out_at_once() -> None:
    peer, stream, _ = connect()
    peer.start()
    assert len(stream.sent) == 68
    assert stream.is_started


@simulated
async def test_events_and_blocks_reach_the_owner() -> None:
    peer, _, owner = connect()
    peer.start()
    peer.data_received(memoryview(HELLO + wire.HAVE_ALL + wire.UNCHOKE))
    assert len(owner.events) == 3
    peer.protocol.request_runs([(2, 0, 2 * BLOCK_LENGTH)])
    peer.data_received(memoryview(wire.encode_piece(2, 0, b"x" * BLOCK_LENGTH)))
    assert owner.blocks == [(2, 0, b"x" * BLOCK_LENGTH)]
    assert owner.num_fills == 2


@simulated
async def test_blocks_are_served_in_order_through_a_narrow_socket() -> None:
    peer, stream, _ = serving(room=100)
    requests = [(index, 0, BLOCK_LENGTH) for index in range(9)]
    peer.data_received(memoryview(b"".join(wire.encode_request(*each) for each in requests)))
    peer.protocol.send_have(3)
    for _ in range(1000):
        stream.room = 5_000
        peer.writable()
        await asyncio.sleep(0)
    whole = b"".join(wire.encode_piece(i, b, bytes([i]) * n) for i, b, n in requests)
    rest = bytes(stream.sent[68:])
    assert rest.startswith(wire.UNCHOKE)
    # A control message may stand between two blocks, never inside one.
    assert rest.replace(wire.encode_have(3), b"", 1) == wire.UNCHOKE + whole
    assert peer.up.total == 9 * BLOCK_LENGTH


@simulated
async def test_a_run_from_the_worker_is_sent_when_it_comes() -> None:
    peer, stream, owner = serving()
    owner.is_slow = True
    peer.data_received(memoryview(wire.encode_request(1, 0, 5)))
    peer.data_received(memoryview(wire.encode_request(3, 0, 5)))
    before = len(stream.sent)
    assert before == 68 + len(wire.UNCHOKE)
    assert owner.num_loads == 1, "one after the other, so that order is kept"
    owner.is_slow = False
    peer.run_loaded([(1, 0, 5)], memoryview(wire.encode_piece(1, 0, b"\1" * 5)))
    expected = wire.encode_piece(1, 0, b"\1" * 5) + wire.encode_piece(3, 0, b"\3" * 5)
    assert stream.sent[before:] == expected


@simulated
async def test_a_violation_closes_once_and_is_said_to_be_one() -> None:
    peer, stream, owner = connect()
    peer.start()
    peer.data_received(memoryview(HELLO + wire.UNCHOKE + b"\xff" * 20))
    assert stream.is_closed
    assert peer.is_closed
    assert len(owner.events) == 2
    assert [was_violation for _, was_violation in owner.lost] == [True]
    peer.close("again")
    peer.connection_lost(None)
    peer.run_loaded([], memoryview(b""))
    assert len(owner.lost) == 1


@simulated
async def test_an_end_by_the_other_side_is_no_violation() -> None:
    peer, _, owner = connect()
    peer.connection_lost(None)
    assert owner.lost == [("closed by peer", False)]
    other, _, its_owner = connect()
    other.connection_lost(ConnectionResetError("reset"))
    assert its_owner.lost == [("reset", False)]
    third, _, its_owner = connect()
    third.connection_lost(TimeoutError())
    assert its_owner.lost == [("TimeoutError", False)]


def kinds(told: list[Event]) -> list[tuple[type[Event], str]]:
    """Return class and kind of traced messages of our one peer."""
    assert all(isinstance(each, MessageSent | MessageReceived) for each in told)
    assert {each.endpoint for each in told} == {REMOTE}  # type: ignore[attr-defined]
    return [(type(each), each.kind) for each in told]  # type: ignore[attr-defined]


@simulated
async def test_every_message_is_traced_once_however_it_leaves() -> None:
    peer, stream, _ = connect(room=30)
    told: list[Event] = []
    peer.enable_trace(told.append)
    peer.start()
    peer.data_received(memoryview(HELLO + wire.UNCHOKE))
    stream.room = 1 << 20
    peer.writable()
    peer.keep_alive()
    assert kinds(told) == [
        (MessageSent, "handshake"), (MessageReceived, "handshake"),
        (MessageReceived, "unchoke"), (MessageSent, "keep_alive"),
    ]  # fmt: skip


@pytest.mark.parametrize("is_closed", [False, True])
@simulated
async def test_a_turn_of_a_rate_limit_fills_only_what_lives(is_closed: bool) -> None:
    peer, stream, owner = serving()
    peer.protocol.set_interested(True)
    peer.flush()
    before, num_before = len(stream.sent), owner.num_fills
    if is_closed:
        peer.close("gone")
    peer.fill()
    assert owner.num_fills == num_before + (0 if is_closed else 1)
    # What it asks for leaves at once; nothing else may happen for long.
    asked = wire.encode_request(0, 0, BLOCK_LENGTH)
    assert stream.sent[before:] == (b"" if is_closed else asked)


@simulated
async def test_runs_are_as_long_as_the_stream_takes_them() -> None:
    """What it does not take was read in vain."""
    peer, stream, owner = serving()
    shortest = peer.run_length // 2
    lengths = []

    def serve(num_blocks: int, room: int) -> None:
        stream.room, owner.max_run_length = room, num_blocks * BLOCK_LENGTH
        asked = [(at // 4, at % 4 * BLOCK_LENGTH, BLOCK_LENGTH) for at in range(num_blocks)]
        peer.data_received(memoryview(b"".join(wire.encode_request(*each) for each in asked)))
        lengths.append(peer.run_length)
        stream.room = 1 << 30
        peer.writable()

    num_blocks = 2 * peer.run_length // BLOCK_LENGTH
    serve(num_blocks, 1 << 30)
    serve(1, 1 << 30)
    for _ in range(4):
        serve(1, 100)
    # Twice what went through; half of it each time that it did not, down to a least length.
    assert lengths == [shortest * n for n in (8, 8, 4, 2, 1, 1)]


@simulated
async def test_a_connection_that_ends_while_it_starts_receives_nothing() -> None:
    peer, stream, _ = connect()
    peer.close("not wanted")
    peer.start()
    assert not stream.is_started
    assert not stream.sent


@simulated
async def test_what_became_of_requests_is_heard_of_a_peer_that_is_closed_meanwhile() -> None:
    """Their blocks would be waited for in vain; the rest of what it says is not looked at."""
    peer, _, owner = connect()
    peer.start()
    peer.data_received(memoryview(HELLO + wire.UNCHOKE))
    peer.protocol.request_runs([(2, 0, BLOCK_LENGTH)])
    del owner.events[:]
    owner.closes_on = HavesReceived
    peer.data_received(
        memoryview(
            wire.encode_have(1) + wire.encode_have(2) + wire.encode_reject(2, 0, BLOCK_LENGTH)
        )
    )
    assert [type(event) for event in owner.events] == [HavesReceived, RequestRejected]
    assert owner.num_fills == 1


@simulated
async def test_a_peer_that_is_closed_while_its_pipeline_is_filled_is_served_no_more() -> None:
    peer, stream, owner = serving()
    peer.flush()
    before = len(stream.sent)
    owner.closes_when_filled = True
    peer.data_received(memoryview(wire.encode_request(1, 0, 5)))
    assert stream.is_closed
    assert len(stream.sent) == before


@simulated
async def test_other_peers_have_their_turn_between_many_runs() -> None:
    peer, stream, _ = serving()
    peer.flush()
    before, piece = len(stream.sent), len(wire.encode_piece(0, 0, bytes(BLOCK_LENGTH)))
    asked = [
        (index, number * BLOCK_LENGTH, BLOCK_LENGTH) for index in range(10) for number in (0, 1)
    ]
    peer.data_received(memoryview(b"".join(wire.encode_request(*each) for each in asked)))
    at_once = (len(stream.sent) - before) // piece
    assert at_once < 20
    peer.serve()
    assert (len(stream.sent) - before) // piece == 2 * at_once
    await asyncio.sleep(0.01)
    assert (len(stream.sent) - before) // piece == 20


@pytest.mark.parametrize("ending", ["closed", "served"])
@simulated
async def test_a_turn_that_was_put_off_ends_with_the_connection(ending: str) -> None:
    peer, stream, _ = serving()
    asked = [(index, 0, BLOCK_LENGTH) for index in range(10)]
    peer.data_received(memoryview(b"".join(wire.encode_request(*each) for each in asked)))
    before = len(stream.sent)
    if ending == "closed":
        peer.close("gone")
    await asyncio.sleep(0.01)
    assert (len(stream.sent) == before) is (ending == "closed")


@simulated
async def test_a_peer_that_owes_blocks_snubs_until_it_sends_one() -> None:
    """BEP 3."""
    peer, _, _ = connect()
    assert not peer.is_snubbing
    peer.down.add(5)
    peer.snub_total = peer.down.total
    assert peer.is_snubbing
    peer.down.add(1)
    assert not peer.is_snubbing


@simulated
async def test_nothing_is_served_while_a_limit_forbids_it() -> None:
    peer, stream, owner = serving()
    owner.is_limited = True
    peer.data_received(memoryview(wire.encode_request(1, 0, 5)))
    before = len(stream.sent)
    owner.is_limited = False
    peer.serve()
    assert stream.sent[before:] == wire.encode_piece(1, 0, b"\1" * 5)


@simulated
async def test_what_the_worker_cannot_read_is_rejected() -> None:
    peer, stream, owner = serving()
    owner.is_slow = True
    peer.data_received(memoryview(wire.encode_request(1, 0, 5)))
    before = len(stream.sent)
    peer.run_refused([(1, 0, 5)])
    peer.run_loaded([(1, 0, 5)], memoryview(b""))
    assert stream.sent[before:] == wire.encode_reject(1, 0, 5)


@simulated
async def test_a_loaded_run_that_does_not_fit_waits_for_room() -> None:
    peer, stream, owner = serving()
    owner.is_slow = True
    peer.data_received(memoryview(wire.encode_request(1, 0, 5) + wire.encode_request(3, 0, 5)))
    before = len(stream.sent)
    owner.is_slow = False
    stream.room = 3
    peer.run_loaded([(1, 0, 5)], memoryview(wire.encode_piece(1, 0, b"\1" * 5)))
    assert len(stream.sent) == before + 3
    stream.room = 1 << 20
    peer.writable()
    expected = wire.encode_piece(1, 0, b"\1" * 5) + wire.encode_piece(3, 0, b"\3" * 5)
    assert stream.sent[before:] == expected


@simulated
async def test_a_loaded_run_does_not_overtake_a_message_that_waits() -> None:
    peer, stream, owner = serving()
    owner.is_slow = True
    peer.data_received(memoryview(wire.encode_request(1, 0, 5)))
    before = len(stream.sent)
    stream.room = 3
    peer.protocol.send_have(3)
    peer.flush()
    owner.is_slow = False
    stream.room = 1 << 20
    run = wire.encode_piece(1, 0, b"\1" * 5)
    peer.run_loaded([(1, 0, 5)], memoryview(run))
    peer.writable()
    assert stream.sent[before:] == wire.encode_have(3) + run
    assert peer.up.total == 5


@pytest.mark.parametrize("is_slow", [False, True])
@simulated
async def test_of_a_run_that_nobody_reads_half_a_mebibyte_is_kept(is_slow: bool) -> None:
    """Limit: H2. The rest is read again once there is room."""
    peer, stream, owner = serving()
    before = len(stream.sent)
    requests = [(at // 4, at % 4 * BLOCK_LENGTH, BLOCK_LENGTH) for at in range(40)]
    whole = b"".join(wire.encode_piece(i, b, bytes([i]) * n) for i, b, n in requests)
    owner.max_run_length, owner.is_slow = len(whole), is_slow
    stream.room = 100
    tracemalloc.start()
    peer.data_received(memoryview(b"".join(wire.encode_request(*each) for each in requests)))
    if is_slow:
        peer.run_loaded(requests, memoryview(bytes(whole)))
        owner.is_slow = False
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 500_000 < kept < 530_000
    for room in (5_000, 1 << 20):
        stream.room = room
        peer.writable()
    assert stream.sent[before:] == wire.UNCHOKE + whole
    assert peer.up.total == 40 * BLOCK_LENGTH


@simulated
async def test_a_stream_that_fails_while_it_sends_ends_the_connection() -> None:
    peer, stream, owner = connect()
    peer.start()
    stream.fails = True
    peer.keep_alive()
    assert owner.lost == [("broken", False)]
    peer.writable()
    peer.keep_alive()
    assert len(owner.lost) == 1
    assert "10.0.0.9" in repr(peer)


@simulated
async def test_a_trace_is_switched_on_once() -> None:
    peer, _, _ = connect()
    told: list[Event] = []
    peer.enable_trace(told.append)
    peer.start()
    peer.enable_trace(told.append)
    peer.data_received(memoryview(HELLO))
    assert kinds(told) == [(MessageSent, "handshake"), (MessageReceived, "handshake")]


@simulated
async def test_what_was_queued_while_the_stream_was_full_goes_out_when_there_is_room() -> None:
    peer, stream, _ = serving()
    peer.flush()
    before, stream.room = len(stream.sent), 2
    peer.keep_alive()
    peer.protocol.send_message(wire.INTERESTED)
    assert not peer.flush()
    stream.room = 1 << 20
    peer.writable()
    assert stream.sent[before:] == wire.KEEP_ALIVE + wire.INTERESTED
