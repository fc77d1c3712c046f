"""Hostile peers against a whole session: liars, floods, slow ones (threats.md section 2.2)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bittern.codec import wire
from bittern.codec.wire import MessageId
from bittern.testing.loop import VirtualLoop
from bittern.testing.peer import ScriptedListener, ScriptedPeer
from tests.engine.scene import PIECE_LENGTH, PORT, endpoint_of
from tests.sim.place import Place
from tests.virtual_time import simulated

pytestmark = pytest.mark.slow

NUM_PIECES = 16


def full_bitfield() -> bytes:
    return wire.encode_bitfield(b"\xff" * (NUM_PIECES // 8))


async def play_seed(listener: ScriptedListener, place: Place, *, is_liar: bool) -> int:
    """Serve the torrent to whoever connects, or garbage; return how many connected."""
    num_connections = 0
    while True:
        try:
            peer = await listener.accept(timeout=600)
        except AssertionError:
            return num_connections
        num_connections += 1

        def read(index: int, begin: int, length: int) -> bytes:
            at = index * PIECE_LENGTH + begin
            block = place.data[at : at + length]
            return bytes(length) if is_liar else block

        await peer.expect_handshake()
        peer.send_handshake(place.info_hash, b"-LI0000-%012d" % num_connections)
        peer.send(full_bitfield() + wire.UNCHOKE)
        await peer.serve(read)
        peer.close()


@simulated
async def test_a_liar_among_honest_peers_is_banned(loop: VirtualLoop, tmp_path: Path) -> None:
    """Limit: H4. The content is right, and the liar is not asked again."""
    async with Place(loop, tmp_path) as place:
        seed, leecher, liar = (
            place.add_host(upload_rate=50_000),
            place.add_host(),
            place.add_host(),
        )
        listener = ScriptedListener(liar, liar.addresses[0], PORT)
        lying = loop.create_task(play_seed(listener, place, is_liar=True))
        await place.add(seed, is_seed=True)
        torrent = await place.add(leecher, peers=(endpoint_of(seed), endpoint_of(liar)))
        await torrent.wait_complete()
        assert place.has_content(leecher)
        assert place.network.attempts[endpoint_of(liar)] <= 2
        lying.cancel()
        listener.close()


BAD_MESSAGES = [
    (b"\xff\xff\xff\xff", "a length of 4 GiB"),
    (b"\x00\x10\x00\x01\x14", "a length over 1 MiB"),
    (b"\x00\x00\x00\x06\x04" + bytes(5), "a have that is too long"),
    (b"\x00\x00\x00\x04\x04" + bytes(3), "a have that is too short"),
    (wire.encode_have(NUM_PIECES), "a have beyond the last piece"),
    (wire.encode_have((1 << 32) - 1), "a have far beyond the last piece"),
    (wire.encode_bitfield(b"\xff"), "a short bitfield"),
    (wire.encode_bitfield(b"\xff" * 3), "a long bitfield"),
    (full_bitfield() * 2, "two bitfields"),
    (wire.encode_piece(0, 0, bytes(16_385)), "a block that is too long"),
    (b"\x00\x00\x00\x01\x09", "a port without a port"),
]


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for data, name in BAD_MESSAGES])
@simulated
async def test_a_peer_that_breaks_the_protocol_is_closed(
    loop: VirtualLoop, data: bytes, tmp_path: Path
) -> None:
    """Limit: H1, H6. It is closed at once, and an honest peer is served meanwhile."""
    async with Place(loop, tmp_path, num_pieces=NUM_PIECES) as place:
        seed, leecher, attacker = place.add_host(), place.add_host(), place.add_host()
        await place.add(seed, is_seed=True)
        peer = await place.connect(seed, attacker)
        peer.send_handshake(place.info_hash)
        await peer.expect_handshake()
        peer.send(data)
        await peer.expect_closed(timeout=1)
        torrent = await place.add(leecher, peers=(endpoint_of(seed),))
        await torrent.wait_complete()
        assert place.has_content(leecher)


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
        pytest.param(b"\x13BitTorrent protocoL", id="a wrong letter"),
        pytest.param(wire.encode_handshake(bytes(20), bytes(20), wire.Reserved()), id="no torrent"),
    ],
)
@simulated
async def test_a_stranger_is_closed_at_once(
    loop: VirtualLoop, start: bytes, tmp_path: Path
) -> None:
    async with Place(loop, tmp_path) as place:
        seed, stranger = place.add_host(), place.add_host()
        await place.add(seed, is_seed=True)
        peer = await place.connect(seed, stranger)
        peer.send(start)
        await peer.expect_closed(timeout=1)
        assert peer.num_received == 0


@simulated
async def test_those_who_say_nothing_do_not_keep_others_out(
    loop: VirtualLoop, tmp_path: Path
) -> None:
    """
    Limit: H5. A thousand drip a byte a second; who has something to say is in within two seconds.
    """
    async with Place(loop, tmp_path) as place:
        seed, leecher = place.add_host(), place.add_host()
        await place.add(seed, is_seed=True)
        hosts = [place.add_host() for _ in range(250)]
        slow = await asyncio.gather(*(place.connect(seed, host) for host in hosts * 4))
        handshake = wire.encode_handshake(place.info_hash, bytes(20), wire.Reserved())
        began = loop.time()

        async def drip(peer: ScriptedPeer) -> float:
            for byte in handshake:
                if peer.is_closed:
                    break
                peer.send(bytes([byte]))
                await asyncio.sleep(1)
            return loop.time() - began

        dripping = [loop.create_task(drip(peer)) for peer in slow]
        torrent = await place.add(leecher, peers=(endpoint_of(seed),))
        async with asyncio.timeout(2):
            while not torrent.stats().num_peers:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.05)
        await torrent.wait_complete()
        assert loop.time() - began < 5
        assert all(at < 13 for at in await asyncio.gather(*dripping))


@simulated
async def test_requests_without_end_from_who_never_reads(loop: VirtualLoop, tmp_path: Path) -> None:
    """Limit: H2. What is read ahead for one peer is bounded, and others are served."""
    async with Place(loop, tmp_path) as place:
        seed, leecher, attacker = place.add_host(), place.add_host(), place.add_host()
        await place.add(seed, is_seed=True)
        peer = await place.connect(seed, attacker)
        peer.send_handshake(place.info_hash)
        await peer.expect_handshake()
        peer.send(wire.INTERESTED)
        await peer.expect(MessageId.UNCHOKE, timeout=60)
        peer.stream.pause_reading()
        for number in range(20_000):
            peer.send(wire.encode_request(number % 15, number % 4 * 16_384, 16_384))
        torrent = await place.add(leecher, peers=(endpoint_of(seed),))
        await torrent.wait_complete()
        assert place.has_content(leecher)


@simulated
async def test_pieces_that_we_do_not_have_are_refused_and_never_made_up(
    loop: VirtualLoop, tmp_path: Path
) -> None:
    """R8: what is not there is rejected, what is there is right."""
    async with Place(loop, tmp_path, num_pieces=NUM_PIECES) as place:
        seed = place.add_host(upload_rate=20_000)
        leecher, curious = place.add_host(), place.add_host()
        await place.add(seed, is_seed=True)
        torrent = await place.add(leecher, peers=(endpoint_of(seed),))
        await asyncio.sleep(30)
        num_before = torrent.stats().num_have
        assert 0 < num_before < NUM_PIECES
        peer = await place.connect(leecher, curious)
        peer.send_handshake(place.info_hash)
        await peer.expect_handshake()
        peer.send(wire.HAVE_NONE + wire.INTERESTED)
        await peer.expect(MessageId.UNCHOKE, timeout=60)
        for index in range(NUM_PIECES):
            peer.send(wire.encode_request(index, 0, 1_000))
        num_served = num_rejected = 0
        while num_served + num_rejected < NUM_PIECES:
            answer = await peer.expect(MessageId.PIECE, MessageId.REJECT_REQUEST)
            if answer.message_id == MessageId.REJECT_REQUEST:
                num_rejected += 1
                continue
            num_served += 1
            at = answer.numbers[0] * PIECE_LENGTH
            assert answer.payload[8:] == place.data[at : at + 1_000]
        assert num_before <= num_served <= torrent.stats().num_have < NUM_PIECES
