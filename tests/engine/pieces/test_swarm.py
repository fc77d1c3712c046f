"""engine.pieces.swarm: whole small swarms in virtual time, and scripted peers against them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bittern.codec import wire
from bittern.codec.bencode import decode, encode
from bittern.codec.extension import ExtendedHandshake
from bittern.codec.info import Version
from bittern.codec.wire import MessageId, Reserved
from bittern.core.bitfield import Bitfield
from bittern.engine import events
from bittern.engine.events import TorrentState
from bittern.policy.pipeline import CROWD, CROWD_TARGET
from bittern.testing.disk import FaultyCalls
from bittern.testing.host import SimHost
from bittern.testing.loop import VirtualLoop, run
from bittern.testing.network import Link
from bittern.testing.peer import ExpectationFailed, ScriptedPeer
from tests.engine.dht_place import Nodes
from tests.engine.hash_peers import HashPeer
from tests.engine.scene import (
    BLOCK_LENGTH,
    GIVEN,
    NUM_PIECES,
    PIECE_LENGTH,
    PORT,
    Scene,
    Stranger,
    Watch,
    endpoint_of,
    in_scene,
    until,
)
from tests.virtual_time import simulated

HAVE_ALL = wire.HAVE_ALL
BITFIELD_ALL = wire.encode_bitfield(b"\xff" * (NUM_PIECES // 8))


# --- bytes from many to many -----------------------------------------------------------------


@in_scene()
async def test_a_leecher_gets_every_byte_and_both_then_part(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    leecher = await scene.node(peers=[seed])
    watch = Watch(leecher.torrent)
    await leecher.complete(within=5)
    await asyncio.sleep(1)
    assert leecher.has_content()
    assert leecher.torrent.num_downloaded == seed.torrent.num_uploaded == len(scene.data)
    assert leecher.torrent.stats().wasted == 0
    assert leecher.torrent.num_left == 0
    assert leecher.torrent.peers() == seed.torrent.peers() == []
    verified = watch.of(events.PieceVerified)
    assert sorted(event.index for event in verified) == list(range(NUM_PIECES))
    assert [event.num_have for event in verified] == list(range(1, NUM_PIECES + 1))
    assert len(watch.of(events.TorrentCompleted)) == 1
    assert watch.of(events.FileCompleted) == [events.FileCompleted(0, "content")]
    assert watch.of(events.StateChanged)[-1].state is TorrentState.SEEDING


@pytest.mark.slow
@in_scene(files={"": 64 * PIECE_LENGTH}, link=Link(delay=0.02, jitter=0.01))
async def test_leechers_help_each_other(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, host=scene.add_host(upload_rate=200_000))
    nodes = [seed]
    for _ in range(4):
        host = scene.add_host(upload_rate=200_000)
        nodes.append(await scene.node(peers=nodes, host=host))
    began = scene.loop.time()
    await asyncio.gather(*(node.complete() for node in nodes))
    assert all(node.has_content() for node in nodes)
    assert scene.loop.time() - began < 4 * len(scene.data) / 200_000 * 0.8
    assert seed.torrent.num_uploaded < 3 * len(scene.data)


@in_scene()
async def test_pieces_come_in_order_when_asked_to(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    leecher = await scene.node(peers=[seed], torrent={"sequential": True})
    watch = Watch(leecher.torrent)
    await leecher.complete()
    await asyncio.sleep(0)
    order = [event.index for event in watch.of(events.PieceVerified)]
    # While it was choked it took the one that it was allowed (BEP 6).
    assert order[1:] == [index for index in range(NUM_PIECES) if index != order[0]]


def test_two_runs_with_one_seed_are_the_same(tmp_path: Path, seed: int) -> None:
    async def main(loop: VirtualLoop, folder: Path) -> list[tuple[float, str]]:
        async with Scene(loop, folder, link=Link(delay=0.02, jitter=0.02)) as scene:
            first = await scene.node(is_seed=True, host=scene.add_host(upload_rate=1_000_000))
            others = [await scene.node(peers=[first])]
            others.append(await scene.node(peers=[first, *others]))
            await asyncio.gather(*(node.complete() for node in others))
            return scene.network.trace

    def trace(number: int, own: int) -> list[tuple[float, str]]:
        return run(lambda loop: main(loop, tmp_path / str(number)), seed=own)

    first = trace(0, seed)
    assert len(first) > 100
    assert first == trace(1, seed)


@in_scene()
async def test_single_messages_are_told_to_who_asks(scene: Scene) -> None:
    """Metadata, blocks and all; what was sent on one side is received on the other."""
    seed = await scene.node(is_seed=True)
    theirs = Watch(seed.torrent, trace=True)
    leecher = await scene.node(source=scene.link, torrent={"paused": True})
    ours = Watch(leecher.torrent, trace=True)
    await leecher.torrent.resume()
    leecher.torrent.add_peers([seed.endpoint], "user")
    await leecher.complete()
    await asyncio.sleep(1)
    sent = [(event.kind, event.raw) for event in theirs.of(events.MessageSent)]
    received = [(event.kind, event.raw) for event in ours.of(events.MessageReceived)]
    assert sent[0][0] == "handshake"
    assert received == sent[: len(received)]
    kinds = [kind for kind, _ in received]
    assert kinds.count("piece") == -(-len(scene.data) // BLOCK_LENGTH)
    requests = [e for e in ours.of(events.MessageSent) if e.kind == "request"]
    assert len(requests) == kinds.count("piece")


# --- limits ----------------------------------------------------------------------------------

RATE = 100_000


@pytest.mark.parametrize(
    ("who", "where"),
    [("seed", "session"), ("seed", "torrent"), ("leecher", "session"), ("leecher", "torrent")],
)
@in_scene()
async def test_a_rate_limit_is_kept(scene: Scene, who: str, where: str) -> None:
    """Within 5 % over five seconds, above and below."""
    name = "max_upload_rate" if who == "seed" else "max_download_rate"
    limit = {name: RATE}

    def options(role: str) -> dict[str, Any]:
        if role != who:
            return {}
        return limit if where == "session" else {"torrent": limit}

    seed = await scene.node(is_seed=True, **options("seed"))
    leecher = await scene.node(peers=[seed], **options("leecher"))
    await asyncio.sleep(3)
    before = leecher.torrent.num_downloaded
    await asyncio.sleep(5)
    got = leecher.torrent.num_downloaded - before
    assert got == pytest.approx(5 * RATE, rel=0.05)
    assert leecher.torrent.stats().download_rate == pytest.approx(RATE, rel=0.25)


@simulated
async def test_a_limit_of_the_session_is_shared_by_its_torrents(
    loop: VirtualLoop, tmp_path: Path
) -> None:
    async with Scene(loop, tmp_path) as scene, Scene2(loop, tmp_path, scene) as other:
        seed = await scene.node(is_seed=True)
        second = await other.node(is_seed=True)
        leecher = await scene.node(peers=[seed], max_download_rate=RATE)
        torrent = await leecher.session.add(
            other.raw, leecher.torrent.config.__class__(output=tmp_path / "x")
        )
        torrent.add_peers([second.endpoint], "user")
        await asyncio.sleep(3)
        before = leecher.torrent.num_downloaded, torrent.num_downloaded
        await asyncio.sleep(5)
        got = [
            leecher.torrent.num_downloaded - before[0],
            torrent.num_downloaded - before[1],
        ]
        assert sum(got) == pytest.approx(5 * RATE, rel=0.05)
        assert min(got) > 0.25 * sum(got)


class Scene2(Scene):
    """Another torrent on the network of a first scene."""

    def __init__(self, loop: VirtualLoop, folder: Path, first: Scene) -> None:
        super().__init__(loop, folder / "second", files={"": 777_777})
        self.network = first.network
        loop.leak_checks.pop()


# --- choking ---------------------------------------------------------------------------------


@pytest.mark.slow
@in_scene()
async def test_slots_are_limited_and_go_round(scene: Scene) -> None:
    """BEP 3: never more than the slots are served, and everybody gets a turn in the end."""
    host = scene.add_host(upload_rate=20_000)
    seed = await scene.node(is_seed=True, host=host, upload_slots=2)
    nodes = [
        await scene.node(peers=[seed], enable_pex=False, host=scene.add_host(is_reachable=False))
        for _ in range(5)
    ]
    served = set()
    for _ in range(150):
        await asyncio.sleep(1)
        unchoked = [peer for peer in seed.torrent.peers() if not peer.am_choking]
        assert len(unchoked) <= 3, "two slots, one of them optimistic"
        served |= {peer.endpoint.host for peer in unchoked}
    assert len(served) == len(nodes)


@in_scene()
async def test_blocks_of_a_peer_that_snubs_go_to_others(scene: Scene) -> None:
    """BEP 3, Limit: H5. It takes requests and never answers; after a minute others are asked."""
    stranger = Stranger(scene)
    leecher = await scene.node(peers=[stranger], snub_timeout=20.0)
    peer = await stranger.accept()
    await scene.greet(peer, bitfield=HAVE_ALL + wire.UNCHOKE)
    await peer.expect(MessageId.REQUEST)
    assert leecher.torrent.peers()[0].num_outstanding > 0
    scene.spawn(keep_alive(peer))
    await asyncio.sleep(23)
    assert leecher.torrent.peers()[0].num_outstanding <= 1
    seed = await scene.node(is_seed=True)
    leecher.torrent.add_peers([seed.endpoint], "user")
    await leecher.complete(within=10)
    assert leecher.has_content()


async def keep_alive(peer: ScriptedPeer) -> None:
    while True:
        await asyncio.sleep(5)
        peer.send(wire.KEEP_ALIVE)


@in_scene()
async def test_the_last_blocks_do_not_wait_for_a_slow_peer(scene: Scene) -> None:
    """BEP 3, endgame: what is long in coming is asked of a second peer, and then cancelled."""
    stranger = Stranger(scene, scene.add_host(upload_rate=1_000))
    leecher = await scene.node(peers=[stranger])
    slow = await stranger.accept()
    await scene.greet(slow, bitfield=HAVE_ALL + wire.UNCHOKE)
    serving = scene.loop.create_task(slow.serve(scene.block, also=[MessageId.CANCEL]))
    await asyncio.sleep(2)
    seed = await scene.node(is_seed=True)
    leecher.torrent.add_peers([seed.endpoint], "user")
    await leecher.complete(within=20)
    assert leecher.has_content()
    cancel = await asyncio.wait_for(serving, 60)
    assert cancel is not None


@pytest.mark.slow
@in_scene(files={"": 4 << 20}, piece_length=131_072, link=Link(delay=0.05))
async def test_what_a_seed_owes_when_it_stalls_goes_once_to_the_others(scene: Scene) -> None:
    hosts = [scene.add_host(upload_rate=rate) for rate in (400_000, 50_000, 100_000, 200_000)]
    seeds = [await scene.node(is_seed=True, host=host) for host in hosts]
    leecher = await scene.node(peers=seeds)
    await asyncio.sleep(3)
    left = len(scene.data) - leecher.torrent.stats().downloaded
    scene.network.cut(hosts[0], leecher.host)
    began = scene.loop.time()
    await leecher.complete()
    assert scene.loop.time() - began < 1.1 * left / 350_000
    assert leecher.torrent.stats().wasted < 0.02 * len(scene.data)
    scene.network.heal(hosts[0], leecher.host)


@in_scene()
async def test_who_has_had_nothing_to_do_for_long_is_asked_at_once_when_two_have_stopped(
    scene: Scene,
) -> None:
    """Neither the pace that it had nor theirs is forgotten: it would be as quick again."""
    leecher = await scene.node()
    for _ in range(2):
        stopped = await scene.scripted(leecher, bitfield=wire.encode_bitfield(b"\0\1"))
        stopped.send(wire.UNCHOKE)
        scene.spawn(keep_alive(stopped))
    quick = await scene.scripted(leecher, bitfield=wire.encode_bitfield(b"\xff\xfe"))
    quick.send(wire.UNCHOKE)
    scene.spawn(quick.serve(scene.block))
    await asyncio.sleep(45)
    assert leecher.torrent.stats().num_have == NUM_PIECES - 1
    quick.send(wire.encode_have(NUM_PIECES - 1))
    await leecher.complete(within=2)


class Occupied:
    """Keeps the line of a host from sending anything else for a while."""

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes

    def take(self, _: int) -> bytearray | None:
        """Give everything, once."""
        num_bytes, self._num_bytes = self._num_bytes, 0
        return bytearray(num_bytes) or None

    def passed(self, data: bytearray) -> None:
        """Nobody gets it."""


def stop_for(host: SimHost, seconds: float) -> None:
    assert host.upload.rate is not None
    host.upload.wake(Occupied(int(host.upload.rate * seconds)))


FAR = (
    (0.2, 50e3), (0.01, 1e5), (0.1, 2e5), (0.025, 4e5),
    (0.15, 8e5), (0.05, 1.5e6), (0.075, 2.5e6), (0.02, 4e6),
)  # fmt: skip
"""Seconds one way and bytes per second of seeds; together they need 3.5 s for 32 MiB."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stops", "within", "most_wasted"),
    [
        pytest.param([], 4.5, 0.008, id="uneven"),
        pytest.param([(1.25, 1, 20), (2, 4, 20), (2.75, 7, 20)], 6.2, 0.01, id="three stop"),
        pytest.param([(2.9, 7, 20)], 5.8, 0.01, id="the fastest stops near the end"),
        pytest.param(
            [(0.5 + 0.7 * n % 4.5, n % 8, 0.2 + 0.29 * n % 0.8) for n in range(24)],
            6.5, 0.01, id="each stops three times",
        ),
    ],
)  # fmt: skip
@in_scene(files={"": 32 << 20}, piece_length=1 << 20, is_traced=False)
async def test_far_and_uneven_seeds_send_hardly_a_block_twice(
    scene: Scene, stops: list[tuple[float, int, float]], within: float, most_wasted: float
) -> None:
    scene.network.send_buffer_length = 65_536
    near = scene.add_host()
    hosts = [scene.add_host(upload_rate=rate) for _, rate in FAR]
    for host, (delay, _) in zip(hosts, FAR, strict=True):
        scene.network.set_link(near, host, Link(delay=delay))
    seeds = [await scene.node(is_seed=True, host=host) for host in hosts]
    leecher = await scene.node(host=near, peers=seeds)
    began = scene.loop.time()
    for at, number, seconds in stops:
        scene.loop.call_at(began + at, stop_for, hosts[number], seconds)
    await leecher.complete()
    assert scene.loop.time() - began < within
    stats = leecher.torrent.stats()
    assert stats.downloaded - len(scene.data) <= most_wasted * len(scene.data)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0, 30_000], ids=["stalls", "is slow"])
@in_scene(files={"": 8 << 20}, piece_length=262_144, link=Link(delay=0.05))
async def test_pieces_in_order_do_not_wait_for_one_seed(scene: Scene, rate: int) -> None:
    hosts = [scene.add_host(upload_rate=each) for each in (rate or 100_000, 100_000, 200_000)]
    seeds = [await scene.node(is_seed=True, host=host) for host in hosts]
    leecher = await scene.node(peers=seeds, torrent={"sequential": True})
    await asyncio.sleep(4)
    if not rate:
        scene.network.cut(hosts[0], leecher.host)
    await asyncio.sleep(16)
    have = Bitfield(32, leecher.swarm.picker.have)
    in_order = next(index for index in range(32) if index not in have)
    assert len(have) > 16
    # Each of three may be at work on one, and what it was asked for ahead takes some seconds.
    assert len(have) - in_order <= 4
    scene.network.heal(hosts[0], leecher.host)


# --- blocks that wait for us ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("num_senders", "num_rounds"), [(4, 6), (10, 4), (16, 4)])
@in_scene(files={"": 8 << 20})
async def test_peers_whose_blocks_wait_for_us_share_what_is_asked_for(
    scene: Scene, num_senders: int, num_rounds: int
) -> None:
    """Whoever owes us blocks counts, whoever chokes us does not; a few at once are no crowd."""
    node = await scene.node()
    many = ExtendedHandshake(request_queue=2_000)
    quick = await scene.scripted(node, bitfield=wire.HAVE_ALL, extended=many)
    others = [await scene.scripted(node, bitfield=wire.HAVE_ALL) for _ in range(num_senders + 2)]
    for peer in (quick, *others[: num_senders - 1]):
        peer.send(wire.UNCHOKE)
    connection = next(peer for peer in node.roster.peers if peer.address == quick.stream.local.host)

    def answer(requests: list[tuple[int, ...]]) -> int:
        blocks = [wire.encode_piece(i, b, scene.block(i, b, n)) for i, b, n in requests]
        connection.data_received(memoryview(b"".join(blocks)))  # as from a full socket
        return connection.pipeline.target

    targets = [answer(await requests_of(quick)) for _ in range(num_rounds)]
    assert targets[:4] == [8, 16, 32, 64]
    requests = await requests_of(quick)
    share = max(CROWD, CROWD_TARGET // num_senders)
    assert answer(requests) == share < 2 * len(requests), "it would have been doubled"


async def requests_of(peer: ScriptedPeer) -> list[tuple[int, ...]]:
    """Take what a peer is asked for until nothing more comes."""
    found = []
    with contextlib.suppress(ExpectationFailed):
        while True:
            found.append((await peer.expect(MessageId.REQUEST, timeout=0.1)).numbers)
    return found


# --- liars -----------------------------------------------------------------------------------


class Liar(Stranger):
    """Serves the torrent to whoever connects, with lies where ``lies`` says so."""

    def __init__(
        self, scene: Scene, lies: Callable[[int, int], bool], host: SimHost | None = None
    ) -> None:
        super().__init__(scene, host)
        self.lies = lies
        self.play(self._talk)

    async def _talk(self, peer: ScriptedPeer) -> None:
        await self.scene.greet(peer, bitfield=BITFIELD_ALL + wire.UNCHOKE)
        await peer.serve(self._read)

    def _read(self, index: int, begin: int, length: int) -> bytes:
        block = self.scene.block(index, begin, length)
        return bytes(length) if self.lies(index, begin) else block


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 1.0])
@in_scene()
async def test_liars_are_found_and_banned_and_nobody_else(scene: Scene, share: float) -> None:
    """Limit: H4."""
    honest = [
        await scene.node(is_seed=True, host=scene.add_host(upload_rate=60_000)) for _ in range(3)
    ]
    hosts = [scene.add_host(upload_rate=60_000) for _ in range(2)]
    lied: set[str] = set()

    def lies_of(host: SimHost) -> Callable[[int, int], bool]:
        def lies(_index: int, _begin: int) -> bool:
            is_lie = scene.loop.random.random() < share
            if is_lie:
                lied.add(host.addresses[0])
            return is_lie

        return lies

    liars = [Liar(scene, lies_of(host), host) for host in hosts]
    leecher = await scene.node(peers=[*honest, *liars], enable_pex=False)
    watch = Watch(leecher.torrent)
    await leecher.complete(within=600)
    await asyncio.sleep(1)
    assert leecher.has_content()
    banned = {event.endpoint.host for event in watch.of(events.PeerBanned)}
    assert banned <= lied, "an honest peer was banned"
    if share >= 0.5:
        assert banned == lied
    failed = len(watch.of(events.PieceFailed))
    assert failed <= 2 * len(liars) * (1 if share >= 0.5 else 4)


@in_scene()
async def test_one_who_lies_alone_is_banned_at_once(scene: Scene) -> None:
    liar = Liar(scene, lambda *_: True)
    leecher = await scene.node(peers=[liar])
    watch = Watch(leecher.torrent)
    await asyncio.sleep(300)
    assert [e.endpoint for e in watch.of(events.PeerBanned)] == [liar.endpoint]
    assert leecher.torrent.num_connections == 0
    assert scene.network.attempts[liar.endpoint] == 1
    assert leecher.torrent.have_bits == 0
    seed = await scene.node(is_seed=True)
    leecher.torrent.add_peers([seed.endpoint], "user")
    await leecher.complete()
    assert leecher.has_content()
    again = await scene.connect(leecher, liar.host)
    again.send_handshake(scene.info_hash)
    await again.expect_closed()


# --- fast extension and lost pieces ----------------------------------------------------------


async def grants(peer: ScriptedPeer) -> list[int]:
    """Return the pieces that a peer is told it may request while choked."""
    granted: list[int] = []
    while True:
        try:
            message = await peer.expect(MessageId.ALLOWED_FAST, timeout=1)
        except ExpectationFailed:
            return granted
        granted.append(message.numbers[0])


@in_scene(files={"": 300 * PIECE_LENGTH})
async def test_all_newcomers_together_are_granted_a_tenth_of_a_copy(scene: Scene) -> None:
    """Limit: H9. What is granted comes on top of the slots, and is the same for neighbours."""
    seed = await scene.node(is_seed=True)
    peers = []
    counts = []
    for _ in range(12):
        peers.append(await scene.scripted(seed, bitfield=wire.HAVE_NONE))
        counts.append(len(await grants(peers[-1])))
    for peer in peers:
        peer.close()
    assert counts == [min(10, 300 // (10 * number)) for number in range(1, 13)]
    assert counts[-1] == 2


@in_scene()
async def test_a_newcomer_may_begin_while_it_is_choked(scene: Scene) -> None:
    """BEP 6, Limit: H9. Ten pieces at most, each three times, and no others."""
    seed = await scene.node(is_seed=True)
    peer = await scene.scripted(seed, bitfield=wire.HAVE_NONE)
    granted = await grants(peer)
    assert 0 < len(set(granted)) == len(granted) <= 10
    index = next(number for number in granted if number != NUM_PIECES - 1)
    peer.send(wire.encode_request(index, 0, BLOCK_LENGTH))
    piece = await peer.expect(MessageId.PIECE)
    assert piece.payload[8:] == scene.block(index, 0, BLOCK_LENGTH)
    other = next(number for number in range(NUM_PIECES - 1) if number not in granted)
    peer.send(wire.encode_request(other, 0, BLOCK_LENGTH))
    assert (await peer.expect(MessageId.REJECT_REQUEST)).numbers[0] == other


@pytest.mark.parametrize("sequential", [False, True])
@in_scene()
async def test_a_leecher_uses_what_it_is_allowed_unless_order_matters(
    scene: Scene, sequential: bool
) -> None:
    stranger = Stranger(scene)
    leecher = await scene.node(peers=[stranger], torrent={"sequential": sequential})
    peer = await stranger.accept()
    await scene.greet(peer, bitfield=HAVE_ALL)
    peer.send(wire.encode_index(MessageId.ALLOWED_FAST, 3))
    scene.spawn(peer.serve(scene.block))
    await asyncio.sleep(3)
    assert leecher.torrent.have_bits == (0 if sequential else 1 << NUM_PIECES - 1 - 3)


@in_scene()
async def test_a_piece_that_was_cut_off_while_seeding_is_taken_back(scene: Scene) -> None:
    """BEP 54, Limit: F5. The peer gets a reject and a don't-have, other pieces are served on."""
    seed = await scene.node(is_seed=True)
    watch = Watch(seed.torrent)
    extended = ExtendedHandshake(extensions={"lt_donthave": 9})
    peer = await scene.unchoked(seed, extended=extended)
    with (seed.folder / "content").open("r+b") as file:
        file.truncate(10 * PIECE_LENGTH + 5)
    peer.send(wire.encode_request(12, 0, BLOCK_LENGTH))
    message = await peer.expect(MessageId.EXTENDED)
    while message.payload[0] != 9:
        message = await peer.expect(MessageId.EXTENDED)
    assert message.payload[1:] == (12).to_bytes(4, "big")
    await peer.expect(MessageId.REJECT_REQUEST)
    peer.send(wire.encode_request(3, 0, BLOCK_LENGTH))
    piece = await peer.expect(MessageId.PIECE)
    assert piece.payload[8:] == scene.block(3, 0, BLOCK_LENGTH)
    assert [e.index for e in watch.of(events.PieceLost)] == [12]
    assert seed.torrent.state is TorrentState.DOWNLOADING
    peer.close()
    other = await scene.node(is_seed=True)
    seed.torrent.add_peers([other.endpoint], "user")
    await seed.complete()


@in_scene()
async def test_requests_behind_many_that_cannot_be_served_are(scene: Scene) -> None:
    """R8. More than one run asks for a piece that we have lost, then comes one that we have."""
    seed = await scene.node(is_seed=True)
    peer = await scene.unchoked(seed)
    with (seed.folder / "content").open("r+b") as file:
        file.truncate(12 * PIECE_LENGTH)
    peer.send(wire.encode_request(12, 0, BLOCK_LENGTH))
    await peer.expect(MessageId.REJECT_REQUEST)
    lost = [wire.encode_request(12, begin, 1) for begin in range(100)]
    peer.send(b"".join(lost) + wire.encode_request(3, 0, BLOCK_LENGTH))
    piece = await peer.expect(MessageId.PIECE)
    assert piece.payload[8:] == scene.block(3, 0, BLOCK_LENGTH)
    for _ in lost:
        assert (await peer.expect(MessageId.REJECT_REQUEST)).numbers[0] == 12


@in_scene()
async def test_a_peer_that_rejects_everything_is_not_asked_in_a_circle(scene: Scene) -> None:
    stranger = Stranger(scene)
    await scene.node(peers=[stranger])
    peer = await stranger.accept()
    await scene.greet(peer, bitfield=HAVE_ALL + wire.UNCHOKE)
    num_requests = 0
    while True:
        try:
            request = await peer.expect(MessageId.REQUEST, timeout=30)
        except ExpectationFailed:
            break
        num_requests += 1
        peer.send(wire.encode_reject(*request.numbers))
    assert 0 < num_requests <= 4 * NUM_PIECES


# --- who says and does what it should not ----------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xff\xff\xff", id="a length of 4 GiB"),
        pytest.param(b"\x00\x10\x00\x01\x14", id="a length over 1 MiB"),
        pytest.param(wire.encode_have(NUM_PIECES), id="a have beyond the end"),
        pytest.param(BITFIELD_ALL * 2, id="two bitfields"),
        pytest.param(wire.encode_bitfield(b"\xff" * 3), id="a long bitfield"),
        pytest.param(wire.encode_request(NUM_PIECES, 0, 1), id="a request beyond the end"),
        pytest.param(wire.encode_request(0, 0, 1 << 20), id="a request of a megabyte"),
        pytest.param(wire.encode_request(0, 0, BLOCK_LENGTH) * 200, id="a flood while choked"),
        pytest.param(wire.encode_extended(0, b"x"), id="no extended handshake"),
        pytest.param(wire.encode_extended(0, b"de") * 11, id="eleven extended handshakes"),
        pytest.param(wire.encode_extended(1, b"de") * 7, id="a flood of peer exchange"),
        pytest.param(wire.encode_extended(2, b"i1e"), id="metadata that is no message"),
    ],
)
@in_scene(files={"": 16 * PIECE_LENGTH - 9})
async def test_who_breaks_the_protocol_is_closed(scene: Scene, data: bytes) -> None:
    seed = await scene.node(is_seed=True)
    peer = await scene.scripted(seed)
    peer.send(data)
    await peer.expect_closed(timeout=1)
    assert seed.torrent.num_connections == 0


@pytest.mark.parametrize("answer", ["blocks", "rejects", "choke"])
@in_scene()
async def test_what_comes_with_the_last_straw_is_not_forgotten(scene: Scene, answer: str) -> None:
    """
    A peer is closed for one message, and answers our requests in the same breath.

    Else its blocks would stay asked for with nobody to send them.
    """
    stranger = Stranger(scene)
    leecher = await scene.node(peers=[stranger])
    peer = await stranger.accept()
    has_fast = Reserved(has_fast=answer != "choke")
    await scene.greet(peer, reserved=has_fast, bitfield=BITFIELD_ALL + wire.UNCHOKE)
    first = await peer.expect(MessageId.REQUEST)
    index, begin, length = first.numbers
    await asyncio.sleep(0.1)
    flood = wire.encode_extended(1, b"de") * 7
    answers = {
        "blocks": wire.encode_piece(index, begin, scene.block(index, begin, length)),
        "rejects": wire.encode_reject(index, begin, length),
        "choke": wire.CHOKE,
    }
    peer.send(flood + answers[answer])
    await peer.expect_closed(timeout=1)
    stranger.close()
    seed = await scene.node(is_seed=True)
    leecher.torrent.add_peers([seed.endpoint], "user")
    await leecher.complete(within=20)
    assert leecher.has_content()


@in_scene()
async def test_garbage_after_a_handshake(scene: Scene) -> None:
    """Whatever comes, the session serves others and leaks nothing."""
    seed = await scene.node(is_seed=True)
    peers = []
    for _ in range(40):
        peer = await scene.scripted(seed, scene.add_host())
        for _ in range(20):
            kind = scene.loop.random.randrange(24)
            payload = scene.loop.random.randbytes(scene.loop.random.choice([0, 1, 4, 5, 12, 40]))
            peer.send_message(kind, payload)
        peers.append(peer)
    leecher = await scene.node(peers=[seed])
    await leecher.complete()
    assert leecher.has_content()


@in_scene()
async def test_a_seed_of_nothing_new_is_let_go(scene: Scene) -> None:
    """BEP 21: two seeds have nothing to say to each other."""
    seed = await scene.node(is_seed=True)
    for bitfield in (HAVE_ALL, BITFIELD_ALL):
        peer = await scene.scripted(seed, bitfield=bitfield)
        await peer.expect_closed(timeout=1)
    upload_only = ExtendedHandshake(is_upload_only=True)
    peer = await scene.scripted(seed, bitfield=wire.HAVE_NONE, extended=upload_only)
    await peer.expect_closed(timeout=1)


@in_scene()
async def test_who_wants_nothing_gets_no_interest(scene: Scene) -> None:
    leecher = await scene.node()
    peer = await scene.scripted(leecher, bitfield=wire.HAVE_NONE)
    with pytest.raises(ExpectationFailed):
        await peer.expect(MessageId.INTERESTED, timeout=2)
    peer.send(wire.encode_have(4))
    await peer.expect(MessageId.INTERESTED, timeout=2)
    peer.send(wire.UNCHOKE)
    serving = scene.loop.create_task(peer.serve(scene.block, also=[MessageId.NOT_INTERESTED]))
    assert await asyncio.wait_for(serving, 5) is not None


@in_scene(files={"a": 20_000, "b": 70_000}, version=Version.V2)
async def test_padding_that_a_v2_torrent_does_not_have_is_served_as_zeros(scene: Scene) -> None:
    """Interop: libtorrent before 2.0.9 asks for whole blocks where a file ends."""
    node = await scene.node(is_seed=True)
    peer = await scene.unchoked(node)
    peer.send(wire.encode_request(0, 16_384, 16_384) + wire.encode_request(1, 0, 16_384))
    tail = await peer.expect(MessageId.PIECE)
    assert tail.payload[8:] == scene.files["a"][16_384:] + bytes(2 * 16_384 - 20_000)
    whole = await peer.expect(MessageId.PIECE)
    assert whole.payload[8:] == scene.files["b"][:16_384]
    # Behind the last piece there is nothing.
    peer.send(wire.encode_request(3, 0, 16_384))
    await peer.expect_closed(timeout=1)


# --- what connections tell ---------------------------------------------------------------------


@in_scene()
async def test_a_piece_that_a_peer_has_no_more_is_not_asked_of_it(scene: Scene) -> None:
    """BEP 54."""
    leecher = await scene.node()
    declared = ExtendedHandshake(extensions={"lt_donthave": 7})
    peer = await scene.scripted(leecher, bitfield=wire.HAVE_ALL, extended=declared)
    lost = range(1, NUM_PIECES)
    for index in lost:
        peer.send(wire.encode_extended(7, index.to_bytes(4, "big")))
    await asyncio.sleep(0.1)
    assert [each.progress for each in leecher.torrent.peers()] == [1 / NUM_PIECES]
    peer.send(wire.UNCHOKE)
    for _ in range(4):
        assert (await peer.expect(MessageId.REQUEST)).numbers[0] == 0


@in_scene()
async def test_a_peer_that_had_nothing_for_long_is_not_late_at_once(scene: Scene) -> None:
    """BEP 3: anti-snubbing. Its time counts from when it is asked."""
    leecher = await scene.node(snub_timeout=15.0)
    peer = await scene.scripted(leecher, bitfield=wire.HAVE_NONE)
    peer.send(wire.UNCHOKE)
    await asyncio.sleep(40)
    peer.send(wire.encode_have(3))
    await peer.expect(MessageId.REQUEST)
    [connection] = leecher.roster.peers
    await asyncio.sleep(10)
    assert not connection.is_snubbing
    await asyncio.sleep(10)
    assert connection.is_snubbing


@in_scene()
async def test_who_rejects_what_he_allowed_is_not_asked_again(scene: Scene) -> None:
    """BEP 6: a piece that was allowed fast; we would go round in circles."""
    leecher = await scene.node()
    peer = await scene.scripted(leecher, bitfield=HAVE_ALL)
    peer.send(wire.encode_index(MessageId.ALLOWED_FAST, 3))
    asked = [(await peer.expect(MessageId.REQUEST)).numbers for _ in range(4)]
    assert {index for index, _, _ in asked} == {3}
    for request in asked:
        peer.send(wire.encode_reject(*request))
    with pytest.raises(ExpectationFailed):
        await peer.expect(MessageId.REQUEST, timeout=20)


@in_scene()
async def test_what_a_peer_rejects_is_asked_of_it_again_when_it_unchokes_anew(
    scene: Scene,
) -> None:
    """BEP 6. Not before: it would reject it again and again."""
    leecher = await scene.node()
    peer = await scene.scripted(leecher, bitfield=wire.HAVE_NONE)
    peer.send(wire.encode_have(3) + wire.UNCHOKE)
    for _ in range(4):
        peer.send(wire.encode_reject(*(await peer.expect(MessageId.REQUEST)).numbers))
    with pytest.raises(ExpectationFailed):
        await peer.expect(MessageId.REQUEST, timeout=20)
    peer.send(wire.CHOKE + wire.UNCHOKE)
    assert (await peer.expect(MessageId.REQUEST)).numbers[0] == 3


@in_scene()
async def test_what_a_peer_had_is_forgotten_with_it(scene: Scene) -> None:
    """However it was told: at first, piece by piece, or taken back (BEP 54)."""
    leecher = await scene.node()
    declared = ExtendedHandshake(extensions={"lt_donthave": 7})
    bits = wire.encode_bitfield(bytes([0b1100_0000, 0]))
    peer = await scene.scripted(leecher, bitfield=bits, extended=declared)
    peer.send(wire.encode_have(2) + wire.encode_have(3))
    peer.send(wire.encode_extended(7, (0).to_bytes(4, "big")))
    await asyncio.sleep(0.1)
    counts = leecher.swarm.picker.swarm
    assert [counts.count(index) for index in range(5)] == [0, 1, 1, 1, 0]
    peer.close()
    await asyncio.sleep(0.1)
    assert [counts.count(index) for index in range(5)] == [0] * 5


@in_scene()
async def test_blocks_that_nobody_asked_for_are_counted_as_waste(scene: Scene) -> None:
    leecher = await scene.node()
    peer = await scene.scripted(leecher, bitfield=wire.HAVE_NONE)
    peer.send(wire.encode_piece(3, 0, scene.block(3, 0, BLOCK_LENGTH)))
    await asyncio.sleep(0.1)
    assert leecher.torrent.stats().wasted == BLOCK_LENGTH
    assert leecher.torrent.stats().num_have == 0


@in_scene()
async def test_a_peer_names_its_dht_node(scene: Scene) -> None:
    """BEP 5."""
    nodes = Nodes(scene)
    await nodes.add()
    node = await scene.node(**nodes.options(dht_bootstrap=()))
    address = nodes.sockets[0].endpoint.host
    [host] = [each for each in scene.network.hosts if address in each.addresses]
    peer = await scene.connect(node, host)
    await scene.greet(peer, reserved=Reserved(has_fast=True, has_dht=True))
    peer.send(wire.encode_port(PORT))
    dht = node.session.dht
    assert dht is not None
    await until(lambda: bool(dht.num_nodes))


@in_scene(files={"a": 8 * PIECE_LENGTH, "b": 300_000})
async def test_of_a_run_only_what_is_there_is_served(scene: Scene) -> None:
    """R8."""
    seed = await scene.node(is_seed=True)
    node = await scene.node(peers=[seed], torrent={"files": frozenset({0})})
    await node.complete()
    peer = await scene.unchoked(node)
    asked = [(1, 0, 5), (9, 0, 5), (2, 0, 5), (10, 0, 5)]
    peer.send(b"".join(wire.encode_request(*each) for each in asked))
    found: dict[int, int | None] = {}
    while len(found) < 4:
        message = await peer.expect(MessageId.PIECE, MessageId.REJECT_REQUEST)
        found[message.numbers[0]] = message.message_id
    assert [found[index] for index, _, _ in asked] == [
        MessageId.PIECE,
        MessageId.REJECT_REQUEST,
        MessageId.PIECE,
        MessageId.REJECT_REQUEST,
    ]


@in_scene()
async def test_a_lost_piece_is_fetched_again_and_its_requests_are_rejected(scene: Scene) -> None:
    """BEP 54; Limit: F5."""
    node = await scene.node(damaged=[2 * PIECE_LENGTH], torrent={"skip_check": True})
    declared = ExtendedHandshake(extensions={"lt_donthave": 7})
    other = await scene.scripted(node, bitfield=wire.encode_bitfield(b"\x30\0"))
    peer = await scene.unchoked(node, extended=declared)
    peer.send(wire.encode_request(2, 0, 5) + wire.encode_request(2, 5, 5))
    await peer.expect(MessageId.REJECT_REQUEST)
    await peer.expect(MessageId.REJECT_REQUEST)
    assert node.torrent.state is TorrentState.DOWNLOADING
    assert node.torrent.num_uploaded == 0
    await other.expect(MessageId.INTERESTED)
    other.send(wire.UNCHOKE)
    scene.spawn(other.serve(scene.block, also=[MessageId.NOT_INTERESTED]))
    await node.complete(within=30)
    assert node.has_content()


# --- metadata that arrives later ---------------------------------------------------------------


@in_scene()
async def test_connections_made_before_the_metadata_go_on_or_end(scene: Scene) -> None:
    """One says what cannot be, one has not finished its handshake, one may stay."""
    stranger = Stranger(scene)
    node = await scene.node(source=scene.link, peers=[stranger])
    mute = await stranger.accept()
    wrong = await scene.scripted(node, bitfield=wire.encode_bitfield(b"\xff" * 9))
    good = await scene.scripted(node, bitfield=wire.HAVE_ALL)
    teller = HashPeer(scene, lambda _: None)
    node.torrent.add_peers([teller.endpoint], "user")
    await wrong.expect_closed(timeout=5)
    await good.expect(MessageId.INTERESTED)
    await scene.greet(mute, bitfield=wire.HAVE_ALL)
    await mute.expect(MessageId.INTERESTED)


# --- settings and failures ---------------------------------------------------------------------


@in_scene(files={"a": 8 * PIECE_LENGTH, "b": 300_000})
async def test_files_that_are_wanted_later_are_asked_for_at_once(scene: Scene) -> None:
    node = await scene.node(torrent={"files": frozenset({0})})
    await scene.scripted(node)
    peer = await scene.scripted(node, bitfield=wire.encode_bitfield(b"\0\xf8"))
    peer.send(wire.UNCHOKE)
    with pytest.raises(ExpectationFailed):
        await peer.expect(MessageId.INTERESTED, timeout=2)
    node.torrent.change(files=None)
    await peer.expect(MessageId.INTERESTED, timeout=0.1)
    assert (await peer.expect(MessageId.REQUEST, timeout=0.1)).numbers[0] >= 8
    node.torrent.change(files=frozenset({0}))
    await peer.expect(MessageId.NOT_INTERESTED, timeout=0.1)


@in_scene()
async def test_what_is_asked_for_is_taken_back_when_a_limit_falls(scene: Scene) -> None:
    """BEP 3: cancel. It is asked for again as the limit allows."""
    node = await scene.node()
    peer = await scene.scripted(node, bitfield=wire.HAVE_ALL)
    peer.send(wire.UNCHOKE)
    asked = [(await peer.expect(MessageId.REQUEST)).numbers for _ in range(2)]
    node.torrent.change(max_download_rate=20_000)
    taken_back = [(await peer.expect(MessageId.CANCEL)).numbers for _ in range(2)]
    assert sorted(taken_back) == sorted(asked)
    await peer.expect(MessageId.REQUEST)


@pytest.mark.parametrize("what", ["disk", "torrent"])
@in_scene(version=Version.HYBRID)
async def test_a_swarm_that_cannot_go_on_parts_from_everybody(scene: Scene, what: str) -> None:
    """Limit: P13. The disk is at fault, or the torrent contradicts itself; no peer is."""
    calls = FaultyCalls()
    if what == "torrent":
        value: Any = decode(scene.raw)
        value[b"info"][b"pieces"] = bytes(20) + value[b"info"][b"pieces"][20:]
        scene.raw = encode(value)
    node = await scene.node(os_calls=calls)
    watch = Watch(node.torrent)
    if what == "disk":
        calls.fail_call(0, for_good=True, names=["pwritev"])
    peer = await scene.scripted(node, bitfield=wire.HAVE_ALL + wire.UNCHOKE)
    await peer.serve(scene.block)
    assert node.torrent.state is TorrentState.ERROR
    await asyncio.sleep(1)
    assert node.torrent.num_connections == 0
    assert watch.of(events.PeerBanned) == []


@in_scene()
async def test_a_full_swarm_dials_nobody(scene: Scene) -> None:
    node = await scene.node(torrent={"max_connections": 1})
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE)
    others = [endpoint_of(scene.add_host()) for _ in range(3)]
    node.torrent.add_peers(others, "user")
    await asyncio.sleep(10)
    assert not any(scene.network.attempts[each] for each in others)
    peer.close()
    await until(lambda: any(scene.network.attempts[each] for each in others))


@pytest.mark.parametrize("version", [Version.V1, Version.V2])
@in_scene(piece_length=1 << 20, version=GIVEN)
async def test_what_a_banned_peer_sent_of_a_piece_in_progress_is_fetched_from_others(
    scene: Scene, version: Version
) -> None:
    """H4. Of v2 its good blocks can be told from its bad ones, and so are kept."""
    liar = await scene.node(is_seed=True, max_upload_rate=100_000)
    node = await scene.node(peers=[liar])
    await asyncio.sleep(5)
    before = node.swarm.assembly.partial_blocks()
    assert sum(map(len, before.values())) > 5
    node.swarm.ban([liar.host.addresses[0]])
    assert not node.swarm.peers
    after = node.swarm.assembly.partial_blocks()
    assert after == (before if version is Version.V2 else {})
    await scene.node(is_seed=True, peers=[node])
    await node.complete()
    assert node.has_content()
