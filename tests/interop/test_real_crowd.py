"""
Two hundred connections on one torrent, on real sockets, each doing its part.

The crowd is scripted peers in the test's own process, at addresses of their own; a reduced one by
default, the whole with ``make soak``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import bittern
from bittern.codec import wire
from bittern.codec.metainfo import decode_metainfo
from bittern.codec.wire import MessageId, Reserved
from bittern.core.endpoint import Endpoint
from bittern.core.geometry import BLOCK_LENGTH
from bittern.net.tcp import TcpNetwork
from bittern.testing.peer import ScriptedListener, ScriptedPeer
from tests.interop.content import Content, make_content

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(300)]

PIECE_LENGTH = 64 << 10
MAX_COMING = 40
"""Who comes at once: fewer than a session keeps in handshake."""
FAST = Reserved(has_fast=True, has_extensions=True)

whole_and_reduced = pytest.mark.parametrize(
    "count", [40, pytest.param(200, marks=pytest.mark.soak)]
)


class Gathering:
    """Those who have come so far wait until all have, so that all are there at the same time."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._all_done = asyncio.Event()

    def done(self) -> None:
        """Say that one more is done."""
        self._left -= 1
        if not self._left:
            self._all_done.set()

    async def wait(self) -> None:
        """Wait for the others."""
        await self._all_done.wait()


class Crowd:
    """
    What the scripted peers share.

    Args:
        content: of one file.
        count: how many there are.
    """

    def __init__(self, content: Content, count: int) -> None:
        self.info = decode_metainfo(content.torrent.read_bytes()).info
        self.data = (content.folder / "content").read_bytes()
        self.num_pieces = self.info.geometry.num_pieces
        self.networks = [
            TcpNetwork(source_hosts=(f"127.1.{number // 200}.{number % 200 + 1}",))
            for number in range(count)
        ]
        self.num_served = [0] * count
        self.doors = asyncio.Semaphore(MAX_COMING)
        self.gathering = Gathering(count)

    def host(self, number: int) -> str:
        """Return the address of a peer."""
        return f"127.1.{number // 200}.{number % 200 + 1}"

    async def connect(self, number: int, port: int) -> ScriptedPeer:
        """Connect to a session, not too many at once, and exchange handshakes."""
        async with self.doors:
            peer = await ScriptedPeer.connect(
                self.networks[number], Endpoint("127.0.0.1", port), timeout=30
            )
            await self.greet(peer, number)
            return peer

    async def greet(self, peer: ScriptedPeer, number: int) -> None:
        """Exchange handshakes."""
        peer.send_handshake(self.info.wire_hash, b"-CR0000-%012d" % number, FAST)
        await peer.expect_handshake(timeout=30)

    async def serve(self, peer: ScriptedPeer, number: int, pieces: Sequence[int]) -> None:
        """Be a peer that has some pieces and serves them, until the end."""
        bits = sum(1 << (self.num_pieces - 1 - index) for index in set(pieces))
        bits <<= -self.num_pieces % 8
        peer.send(wire.encode_bitfield(bits.to_bytes((self.num_pieces + 7) // 8, "big")))
        self.gathering.done()
        await self.gathering.wait()
        peer.send(wire.UNCHOKE)

        def read(index: int, begin: int, length: int) -> bytes:
            assert index in pieces
            self.num_served[number] += 1
            at = index * PIECE_LENGTH + begin
            return self.data[at : at + length]

        await peer.serve(read)

    async def fetch(self, peer: ScriptedPeer) -> bytes:
        """Be a leecher that asks for every block; return what it got."""
        peer.send(wire.HAVE_NONE + wire.INTERESTED)
        await peer.expect(MessageId.UNCHOKE, timeout=60)
        got = bytearray(len(self.data))
        for at in range(0, len(self.data), BLOCK_LENGTH):
            length = min(BLOCK_LENGTH, len(self.data) - at)
            peer.send(wire.encode_request(*divmod(at, PIECE_LENGTH), length))
        for _ in range(0, len(self.data), BLOCK_LENGTH):
            piece = await peer.expect(MessageId.PIECE, timeout=120)
            index, begin = piece.numbers[:2]
            block = piece.payload[8:]
            at = index * PIECE_LENGTH + begin
            got[at : at + len(block)] = block
        return bytes(got)


@asynccontextmanager
async def running(jobs: list[Coroutine[Any, Any, Any]]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end


def session_config(**options: Any) -> bittern.SessionConfig:
    return bittern.SessionConfig(
        listen_host="127.0.0.1",
        listen_port=0,
        enable_trackers=False,
        enable_dht=False,
        enable_lsd=False,
        enable_pex=False,
        **options,
    )


@whole_and_reduced
async def test_a_leecher_with_so_many_connections_gets_something_from_each(
    count: int, tmp_path: Path
) -> None:
    """Half of them are dialled, half come; each has only a part, none has all."""
    num_pieces = 3 * count
    content = make_content(
        tmp_path, {"": num_pieces * PIECE_LENGTH - 1_000}, piece_length=PIECE_LENGTH
    )
    crowd = Crowd(content, count)
    chance = random.Random(count)
    own = list(range(num_pieces))
    chance.shuffle(own)
    pieces = [
        # Two that nobody else has, so that everybody is needed, and some that many have.
        [*own[2 * number : 2 * number + 2], *chance.sample(own[2 * count :], count // 2)]
        for number in range(count)
    ]
    listeners = [
        ScriptedListener(crowd.networks[number], crowd.host(number)) for number in range(count // 2)
    ]

    async def wait_and_serve(number: int) -> None:
        peer = await listeners[number].accept(timeout=60)
        await crowd.greet(peer, number)
        await crowd.serve(peer, number, pieces[number])

    async def dial_and_serve(number: int, port: int) -> None:
        peer = await crowd.connect(number, port)
        await crowd.serve(peer, number, pieces[number])

    async with bittern.Session(session_config(max_connections_per_torrent=count)) as session:
        torrent = await session.add(
            content.torrent,
            bittern.TorrentConfig(
                output=tmp_path / "out",
                peers=tuple(listener.endpoint for listener in listeners),
            ),
        )
        jobs = [
            *(wait_and_serve(number) for number in range(count // 2)),
            *(dial_and_serve(number, session.port) for number in range(count // 2, count)),
        ]
        async with running(jobs):
            async with asyncio.timeout(60):
                while torrent.stats().num_peers < count:  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(0.02)
            # One more is refused, and nobody is dropped for it.
            extra = await ScriptedPeer.connect(
                TcpNetwork(source_hosts=("127.2.0.1",)), Endpoint("127.0.0.1", session.port)
            )
            extra.send_handshake(crowd.info.wire_hash, b"-CR0000-one too many", FAST)
            await extra.expect_closed(timeout=10)
            assert torrent.stats().num_peers == count
            async with asyncio.timeout(120):
                await torrent.wait_complete()
            assert torrent.stats().wasted <= 0.05 * len(crowd.data)
        for listener in listeners:
            listener.close()
    assert min(crowd.num_served) >= 2 * PIECE_LENGTH // BLOCK_LENGTH - 4
    assert content.differences(tmp_path / "out") == []


@whole_and_reduced
async def test_a_seed_serves_so_many_at_once(count: int, tmp_path: Path) -> None:
    content = make_content(tmp_path, {"": 8 * PIECE_LENGTH + 777}, piece_length=PIECE_LENGTH)
    crowd = Crowd(content, count)
    config = session_config(upload_slots=count, max_connections_per_torrent=count)
    async with bittern.Session(config) as session:
        torrent = await session.add(content.torrent, bittern.TorrentConfig(output=content.folder))

        async def fetch(number: int) -> bytes:
            peer = await crowd.connect(number, session.port)
            try:
                got = await crowd.fetch(peer)
                crowd.gathering.done()
                await crowd.gathering.wait()
                return got
            finally:
                peer.close()

        async with asyncio.timeout(120):
            got = await asyncio.gather(*map(fetch, range(count)))
        assert all(data == crowd.data for data in got)
        assert torrent.stats().uploaded == count * len(crowd.data)
