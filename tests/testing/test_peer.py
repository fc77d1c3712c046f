"""The scripted peer: everything can be said, and what is missed is told well."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from bittern.codec import wire
from bittern.codec.wire import MessageId, Reserved
from bittern.core.endpoint import Endpoint
from bittern.net.tcp import TcpNetwork
from bittern.testing.loop import VirtualLoop
from bittern.testing.network import SimNetwork
from bittern.testing.peer import (
    PEER_ID,
    ExpectationFailed,
    Message,
    ScriptedListener,
    ScriptedPeer,
)
from tests.virtual_time import simulated

INFO_HASH = bytes(range(20))

Script = Callable[[ScriptedPeer, ScriptedPeer], Awaitable[None]]


@contextlib.asynccontextmanager
async def connected(loop: VirtualLoop) -> AsyncIterator[tuple[ScriptedPeer, ScriptedPeer]]:
    """Two scripted peers with a connection between them."""
    network = SimNetwork(loop)
    listener = ScriptedListener(network.add_host("10.0.0.1"), "10.0.0.1")
    ours = await ScriptedPeer.connect(network.add_host("10.0.0.2"), listener.endpoint)
    theirs = await listener.accept()
    listener.close()
    try:
        yield ours, theirs
    finally:
        ours.close()
        theirs.close()


@simulated
async def test_handshake_and_messages(loop: VirtualLoop) -> None:
    async with connected(loop) as (a, b):
        a.send_handshake(INFO_HASH, reserved=Reserved(has_dht=True))
        b.send_handshake(INFO_HASH, b"-YY0000-other-------")
        got = await b.expect_handshake()
        assert (got.info_hash, got.peer_id) == (INFO_HASH, PEER_ID)
        assert got.reserved.has_dht
        assert (await a.expect_handshake()).peer_id == b"-YY0000-other-------"
        a.send(wire.KEEP_ALIVE + wire.UNCHOKE + wire.encode_request(1, 2, 3))
        assert await b.expect_next(None) == Message(None)
        assert await b.expect_next(MessageId.UNCHOKE) == Message(MessageId.UNCHOKE)
        request = await b.expect(MessageId.PIECE, MessageId.REQUEST)
        assert request.numbers == (1, 2, 3)
        assert len(b.messages) == 3
        a.send_message(99, b"abcde")
        unknown = await b.receive()
        assert unknown == Message(99, b"abcde")
        assert unknown.numbers == (0x61626364,)


@simulated
async def test_others_are_skipped_and_kept(loop: VirtualLoop) -> None:
    async with connected(loop) as (a, b):
        a.send(wire.CHOKE + wire.encode_have(7) + wire.INTERESTED)
        assert (await b.expect(MessageId.INTERESTED)).message_id == MessageId.INTERESTED
        assert [str(message) for message in b.messages] == ["choke", "have 00000007", "interested"]


@simulated
async def test_false_lengths_and_single_bytes_go_out_as_told(loop: VirtualLoop) -> None:
    async with connected(loop) as (a, b):
        a.send_message(MessageId.HAVE, b"xy", length=0xFFFFFFFF)
        await asyncio.sleep(1)
        assert b.received == b"\xff\xff\xff\xff\x04xy"
        b.received.clear()
        for byte in wire.encode_have(1):
            a.send(bytes([byte]))
            await asyncio.sleep(5)
        assert await b.expect_next(MessageId.HAVE, timeout=0)


@simulated
async def test_what_finds_no_room_follows(loop: VirtualLoop) -> None:
    async with connected(loop) as (a, b):
        b.stream.pause_reading()
        a.send(bytes(5_000_000))
        await asyncio.sleep(1)
        assert 0 < a.num_unsent < 5_000_000
        a.send(b"end")
        b.stream.resume_reading()
        await asyncio.sleep(10)
        assert a.num_unsent == 0
        assert b.num_received == 5_000_003
        assert b.received[-3:] == b"end"


async def garbage_for_a_handshake(a: ScriptedPeer, b: ScriptedPeer) -> None:
    a.send(b"GET / HTTP/1.1\r\n" * 8)
    await b.expect_handshake()


async def half_a_handshake(a: ScriptedPeer, b: ScriptedPeer) -> None:
    a.send(b"\x13BitTorrent")
    await b.expect_handshake(timeout=3)


async def other_messages(a: ScriptedPeer, b: ScriptedPeer) -> None:
    a.send(wire.CHOKE + wire.encode_have(1) + wire.encode_piece(0, 0, bytes(20)))
    a.send_message(200)
    await b.expect(MessageId.UNCHOKE, None, timeout=3)


async def nothing(a: ScriptedPeer, b: ScriptedPeer) -> None:
    await b.expect(MessageId.UNCHOKE, timeout=3)


async def the_wrong_message(a: ScriptedPeer, b: ScriptedPeer) -> None:
    a.send(wire.CHOKE)
    await b.expect_next(MessageId.UNCHOKE)


async def half_a_message(a: ScriptedPeer, b: ScriptedPeer) -> None:
    a.send(wire.encode_have(1)[:-1])
    await b.receive(timeout=3)


async def an_end_instead_of_a_message(a: ScriptedPeer, b: ScriptedPeer) -> None:
    a.close()
    await b.receive()


async def no_end(a: ScriptedPeer, b: ScriptedPeer) -> None:
    a.send(b"still here")
    await b.expect_closed(timeout=3)


async def noise_instead_of_silence(a: ScriptedPeer, b: ScriptedPeer) -> None:
    a.send(b"psst")
    await b.expect_silence(3)


async def an_end_instead_of_silence(a: ScriptedPeer, b: ScriptedPeer) -> None:
    a.close()
    await b.expect_silence(3)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (garbage_for_a_handshake, "expected a handshake, got b'GET / HTTP"),
        (half_a_handshake, "expected a handshake within 3 s, 11 bytes are there"),
        (
            other_messages,
            (
                "expected unchoke or keep-alive, choke, have 00000001,"
                " piece 00000000000000000000000000000000... 28 bytes, message 200 came;"
            ),
        ),
        (nothing, "expected unchoke, no message came; expected a message within"),
        (the_wrong_message, "expected unchoke, got choke"),
        (half_a_message, "expected a message within 3 s, 8 bytes are there"),
        (an_end_instead_of_a_message, "expected a message, the stream ended: None"),
        (no_end, "expected the end of the stream within 3 s, 10 bytes are there"),
        (noise_instead_of_silence, "expected 3 s of silence, 4 bytes came"),
        (an_end_instead_of_silence, "expected 3 s of silence, the end came"),
    ],
)
@simulated
async def test_a_failed_expectation_says_what_came(
    loop: VirtualLoop, script: Script, text: str
) -> None:
    async with connected(loop) as (a, b):
        with pytest.raises(ExpectationFailed, match=re.escape(text)):
            await script(a, b)


@simulated
async def test_the_end_of_a_stream_and_silence(loop: VirtualLoop) -> None:
    async with connected(loop) as (a, b):
        await b.expect_silence(5)
        a.stream.reset("gone")  # type: ignore[attr-defined]  # of SimStream
        reason = await b.expect_closed()
        assert isinstance(reason, ConnectionResetError)
        assert repr(a).startswith("<ScriptedPeer 10.0.0.2:")


@simulated
async def test_serving_like_a_seed(loop: VirtualLoop) -> None:
    async with connected(loop) as (a, b):

        def read(index: int, begin: int, length: int) -> bytes | None:
            return None if index == 9 else bytes([index]) * length

        a.send(wire.INTERESTED + wire.encode_request(1, 0, 3) + wire.encode_request(9, 0, 3))
        a.send(wire.encode_request(2, 16, 2) + wire.encode_cancel(9, 0, 3))
        returned = await b.serve(read, also={MessageId.CANCEL})
        assert returned is not None
        assert returned.numbers == (9, 0, 3)
        assert (await a.expect_next(MessageId.PIECE)).payload == bytes(3) + b"\1" + bytes(
            4
        ) + b"\1\1\1"
        assert (await a.expect_next(MessageId.PIECE)).payload[8:] == b"\2\2"
        a.close()
        assert await b.serve(read) is None


@simulated
async def test_nobody_connects(loop: VirtualLoop) -> None:
    listener = ScriptedListener(SimNetwork(loop).add_host("10.0.0.1"), "10.0.0.1", 6881)
    with pytest.raises(ExpectationFailed, match=r"nobody connected to 10\.0\.0\.1:6881"):
        await listener.accept(timeout=2)
    assert loop.time() == 2.0
    listener.close()


@simulated
async def test_connections_that_nobody_accepted_are_closed(loop: VirtualLoop) -> None:
    network = SimNetwork(loop)
    listener = ScriptedListener(network.add_host("10.0.0.1"), "10.0.0.1")
    peer = await ScriptedPeer.connect(network.add_host("10.0.0.2"), listener.endpoint)
    await asyncio.sleep(1)
    listener.close()
    assert await peer.expect_closed() is None


async def test_over_real_sockets() -> None:
    network: Any = TcpNetwork(receive_buffer_length=65_536)
    listener = ScriptedListener(network, "127.0.0.1")
    assert listener.endpoint == Endpoint("127.0.0.1", listener.endpoint.port)
    a = await ScriptedPeer.connect(network, listener.endpoint)
    b = await listener.accept()
    a.send_handshake(INFO_HASH)
    a.send(wire.INTERESTED)
    assert (await b.expect_handshake()).info_hash == INFO_HASH
    await b.expect(MessageId.INTERESTED)
    a.close()
    assert await b.expect_closed() is None
    listener.close()
