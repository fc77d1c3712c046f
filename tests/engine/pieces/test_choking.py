"""engine.pieces.choking: slots given, taken and passed on."""

from __future__ import annotations

import asyncio

import pytest

from bittern.codec import wire
from bittern.codec.extension import ExtendedHandshake, encode_extended_handshake
from bittern.codec.wire import MessageId
from bittern.engine import events
from bittern.testing.peer import ExpectationFailed, ScriptedPeer
from tests.engine.scene import BLOCK_LENGTH, Node, Scene, Watch, in_scene


async def interested(scene: Scene, node: Node) -> ScriptedPeer:
    """Connect a peer that wants something."""
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE)
    peer.send(wire.INTERESTED)
    return peer


async def is_unchoked(peer: ScriptedPeer, within: float) -> bool:
    """Tell whether a peer is unchoked in time."""
    try:
        await peer.expect(MessageId.UNCHOKE, timeout=within)
    except ExpectationFailed:
        return False
    return True


@in_scene()
async def test_a_free_slot_is_given_at_once(scene: Scene) -> None:
    """Nobody waits for the next round while there is room."""
    seed = await scene.node(is_seed=True, upload_slots=2)
    watch = Watch(seed.torrent)
    await asyncio.sleep(3)
    peers = [await interested(scene, seed) for _ in range(3)]
    assert [await is_unchoked(peer, 1) for peer in peers] == [True, True, False]
    assert watch.of(events.PeerUnchoked) == [
        events.PeerUnchoked(peer.stream.local, is_optimistic=False) for peer in peers[:2]
    ]
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("how", ["leaves", "wants nothing"])
@in_scene()
async def test_a_slot_that_becomes_free_is_passed_on_at_once(scene: Scene, how: str) -> None:
    seed = await scene.node(is_seed=True, upload_slots=1)
    await asyncio.sleep(3)
    first, second = await interested(scene, seed), await interested(scene, seed)
    assert await is_unchoked(first, 1)
    assert not await is_unchoked(second, 1)
    if how == "leaves":
        first.close()
    else:
        first.send(wire.NOT_INTERESTED)
    assert await is_unchoked(second, 1)
    first.close()
    second.close()


@in_scene()
async def test_slots_without_limit(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, upload_slots=None)
    peers = [await interested(scene, seed) for _ in range(12)]
    assert all([await is_unchoked(peer, 1) for peer in peers])
    for peer in peers:
        peer.close()


@in_scene()
async def test_a_choke_rejects_what_waits(scene: Scene) -> None:
    """BEP 6: every request is answered, by its block or by a reject."""
    host = scene.add_host(upload_rate=20_000)
    seed = await scene.node(is_seed=True, upload_slots=1, host=host)
    peer = await interested(scene, seed)
    assert await is_unchoked(peer, 20)
    other = await interested(scene, seed)
    asked = {(index, begin) for index in range(15) for begin in range(0, 65_536, BLOCK_LENGTH)}
    for index, begin in sorted(asked):
        peer.send(wire.encode_request(index, begin, BLOCK_LENGTH))
    answered: set[tuple[int, ...]] = set()
    while len(answered) < len(asked):
        message = await peer.expect(MessageId.PIECE, MessageId.REJECT_REQUEST, timeout=300)
        answered.add(message.numbers[:2])
    assert answered == asked
    kinds = {message.message_id for message in peer.messages}
    assert {MessageId.CHOKE, MessageId.PIECE, MessageId.REJECT_REQUEST} <= kinds
    peer.close()
    other.close()


@pytest.mark.slow
@in_scene(files={"": 64 * 65_536})
async def test_who_gives_gets(scene: Scene) -> None:
    """BEP 3: a leecher's regular slots are for those who send it most."""
    node = await scene.node(upload_slots=2, optimistic_interval=10_000.0)
    takers = [await scene.scripted(node, bitfield=wire.HAVE_NONE) for _ in range(3)]
    giver = await scene.scripted(node, scene.add_host(upload_rate=30_000), bitfield=wire.HAVE_ALL)
    for peer in (*takers, giver):
        peer.send(wire.INTERESTED)
    giver.send(wire.UNCHOKE)
    scene.spawn(giver.serve(scene.block))
    scene.spawn(keep_alive(takers))
    await asyncio.sleep(35)
    unchoked = {p.endpoint.host for p in node.torrent.peers() if not p.am_choking}
    assert giver.stream.local.host in unchoked
    assert len(unchoked) == 2


async def keep_alive(peers: list[ScriptedPeer]) -> None:
    while True:
        await asyncio.sleep(20)
        for peer in peers:
            peer.send(wire.KEEP_ALIVE)


@pytest.mark.slow
@in_scene()
async def test_decisions_are_told_with_their_reasons(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, upload_slots=2)
    watch = Watch(seed.torrent)
    peers = [await interested(scene, seed) for _ in range(4)]
    alive = scene.loop.create_task(keep_alive(peers))
    await asyncio.sleep(100)
    served = watch.of(events.PeerUnchoked)
    assert {event.endpoint for event in served} == {peer.stream.local for peer in peers}
    assert {event.is_optimistic for event in served} == {False, True}
    reasons = {event.reason for event in watch.of(events.PeerChoked)}
    assert reasons == {"its turn is over and others wait"}
    unchoked = {p.endpoint for p in seed.torrent.peers() if not p.am_choking}
    for peer in peers:
        if peer.stream.local in unchoked:
            peer.send(wire.NOT_INTERESTED)
            break
    await asyncio.sleep(1)
    assert watch.of(events.PeerChoked)[-1] == events.PeerChoked(
        peer.stream.local, "it wants nothing from us"
    )
    alive.cancel()
    for peer in peers:
        peer.close()


@pytest.mark.slow
@in_scene(files={"": 64 * 65_536})
async def test_who_owes_us_blocks_snubs_us_until_it_sends_one(scene: Scene) -> None:
    """BEP 3: anti-snubbing. The choker must hear of it, though other peers are asked by then."""
    node = await scene.node(upload_slots=2, snub_timeout=15.0)
    giver = await scene.scripted(node, bitfield=wire.HAVE_ALL)
    giver.send(wire.INTERESTED)
    giver.send(wire.UNCHOKE)
    takers = [await scene.scripted(node, bitfield=wire.HAVE_NONE) for _ in range(2)]
    scene.spawn(keep_alive([giver, *takers]))
    await asyncio.sleep(20)
    connections = list(node.torrent.roster.peers) if node.torrent.roster else []
    (owing,) = (peer for peer in connections if peer.is_snubbing)
    assert owing.endpoint == giver.stream.local
    serving = scene.loop.create_task(giver.serve(scene.block))
    await asyncio.sleep(1)
    serving.cancel()
    assert not any(peer.is_snubbing for peer in connections)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("uploads only", "it downloads nothing"),
        ("owes blocks", "it owes us blocks and sends none"),
    ],
)
@in_scene()
async def test_why_a_leecher_takes_a_slot_back(scene: Scene, what: str, reason: str) -> None:
    """BEP 21; BEP 3: anti-snubbing."""
    node = await scene.node(upload_slots=2, snub_timeout=15.0)
    watch = Watch(node.torrent)
    peer = await scene.scripted(node, bitfield=wire.HAVE_ALL)
    peer.send(wire.INTERESTED)
    assert await is_unchoked(peer, 1)
    others = [await interested(scene, node) for _ in range(2)]
    alive = scene.loop.create_task(keep_alive([peer, *others]))
    if what == "owes blocks":
        peer.send(wire.UNCHOKE)
    else:
        about = ExtendedHandshake(is_upload_only=True)
        peer.send(wire.encode_extended(0, encode_extended_handshake(about)))
    await asyncio.sleep(60)
    reasons = {e.reason for e in watch.of(events.PeerChoked) if e.endpoint == peer.stream.local}
    assert reason in reasons
    alive.cancel()
    for each in (peer, *others):
        each.close()


@in_scene()
async def test_more_slots_are_given_out_at_once_and_fewer_are_taken_back(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, upload_slots=2)
    await asyncio.sleep(3)
    peers = [await interested(scene, seed) for _ in range(4)]
    await asyncio.sleep(1)

    def num_unchoked() -> int:
        return sum(not peer.am_choking for peer in seed.torrent.peers())

    assert num_unchoked() == 2
    seed.torrent.change(upload_slots=4)
    await asyncio.sleep(2)
    assert num_unchoked() == 4
    seed.torrent.change(upload_slots=2)
    await asyncio.sleep(2)
    assert num_unchoked() == 2
    for peer in peers:
        peer.close()


@in_scene()
async def test_two_that_leave_at_once_free_two_slots(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, upload_slots=2)
    await asyncio.sleep(3)
    leaving = [await interested(scene, seed) for _ in range(2)]
    assert [await is_unchoked(peer, 1) for peer in leaving] == [True, True]
    staying = [await interested(scene, seed) for _ in range(2)]
    for peer in leaving:
        peer.close()
    assert [await is_unchoked(peer, 1) for peer in staying] == [True, True]
    for peer in staying:
        peer.close()
