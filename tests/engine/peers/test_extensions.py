"""engine.peers.extensions: peer exchange and metadata for others, in virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest

from bittern.codec import wire
from bittern.codec.extension import (
    METADATA_PIECE_LENGTH,
    ExtendedHandshake,
    MetadataMessage,
    MetadataMessageType,
    PexFlag,
    PexMessage,
    decode_extended_handshake,
    decode_metadata_message,
    decode_pex,
    encode_metadata_message,
    encode_pex,
)
from bittern.codec.info import Version
from bittern.codec.wire import HashRange, MessageId
from bittern.core.endpoint import Endpoint
from bittern.engine import events
from bittern.proto.metadata import MetadataServer
from bittern.testing.peer import ExpectationFailed, ScriptedPeer
from tests.engine.hash_peers import ask, connect_to_node, connect_v2, mend_lost_piece
from tests.engine.scene import (
    BLOCK_LENGTH,
    GIVEN,
    PIECE_LENGTH,
    PORT,
    Scene,
    Stranger,
    Watch,
    in_scene,
    until,
)

METADATA, PEX = 3, 4
BOTH = ExtendedHandshake(extensions={"ut_metadata": METADATA, "ut_pex": PEX}, listen_port=7000)


async def expect_extended(peer: ScriptedPeer, number: int, *, timeout: float = 10.0) -> bytes:
    """Wait for an extension message of one id."""
    while True:
        message = await peer.expect(MessageId.EXTENDED, timeout=timeout)
        if message.payload[0] == number:
            return message.payload[1:]


async def keep_alive(peer: ScriptedPeer) -> None:
    while True:
        await asyncio.sleep(50)
        peer.send(wire.KEEP_ALIVE)


@pytest.mark.parametrize("is_private", [False, True])
@in_scene(is_private=GIVEN)
async def test_exchange_spreads_peers_but_never_of_a_private_torrent(
    scene: Scene, is_private: bool
) -> None:
    """BEP 11, BEP 27."""
    hub = await scene.node()
    one = await scene.node(peers=[hub])
    watch = Watch(one.torrent)
    two = await scene.node(peers=[hub])
    await asyncio.sleep(150)
    known = {info.endpoint.host for info in one.torrent.peers()}
    assert hub.host.addresses[0] in known
    assert (two.host.addresses[0] in known) is not is_private
    sources = {event.source for event in watch.of(events.PeersFound)}
    assert ("pex" in sources) is not is_private


@in_scene(is_private=True)
async def test_a_private_torrent_offers_neither_exchange_nor_metadata_and_ignores_both(
    scene: Scene,
) -> None:
    node = await scene.node()
    peer = await scene.scripted(node, extended=BOTH)
    offered = decode_extended_handshake(await expect_extended(peer, 0)).extensions
    assert "ut_pex" not in offered
    assert "ut_metadata" not in offered
    victim = Endpoint("10.9.9.9", 80)
    message = encode_pex(PexMessage(((victim, PexFlag.NONE),)))
    peer.send(wire.encode_extended(1, message))
    ask = encode_metadata_message(MetadataMessage(MetadataMessageType.REQUEST, 0))
    peer.send(wire.encode_extended(2, ask))
    answer = decode_metadata_message(await expect_extended(peer, METADATA))
    assert answer == MetadataMessage(MetadataMessageType.REJECT, 0)
    await asyncio.sleep(100)
    assert scene.network.attempts[victim] == 0


@in_scene()
async def test_what_a_peer_is_told(scene: Scene) -> None:
    """
    Others that accept connections, with flags, not itself, and later who has gone.

    Neither who accepts none, nor an address that somebody named and that has said nothing yet.
    """
    silent = Stranger(scene)
    node = await scene.node(peers=[silent])
    await scene.scripted(node)
    host = scene.add_host()
    listening = ExtendedHandshake(listen_port=5555)
    other = await scene.scripted(node, host, bitfield=wire.HAVE_ALL, extended=listening)
    peer = await scene.scripted(node, extended=BOTH)
    [scene.spawn(keep_alive(each)) for each in (peer, other)]
    message = decode_pex(await expect_extended(peer, PEX, timeout=70))
    theirs = Endpoint(host.addresses[0], 5555)
    assert message == PexMessage(((theirs, PexFlag.UPLOAD_ONLY),))
    other.close()
    message = decode_pex(await expect_extended(peer, PEX, timeout=70))
    assert message == PexMessage((), (theirs,))


@in_scene()
async def test_flags_say_what_a_peer_said_of_itself(scene: Scene) -> None:
    """BEP 11: encryption, holepunch; outgoing is what we know."""
    stranger = Stranger(scene)
    node = await scene.node(peers=[Endpoint(stranger.host.addresses[0], PORT)])
    other = await stranger.accept()
    about = ExtendedHandshake(extensions={"ut_holepunch": 9}, prefers_encryption=True)
    await scene.greet(other, bitfield=wire.HAVE_NONE, extended=about)
    peer = await scene.scripted(node, extended=BOTH)
    message = decode_pex(await expect_extended(peer, PEX, timeout=70))
    flags = PexFlag.OUTGOING | PexFlag.ENCRYPTION | PexFlag.HOLEPUNCH
    assert message == PexMessage(((Endpoint(stranger.host.addresses[0], PORT), flags),))


@in_scene()
async def test_a_seed_names_seeds_that_it_has_parted_from(scene: Scene) -> None:
    """BEP 11: else nobody would hear of a seed from a seed."""
    first = await scene.node(is_seed=True)
    second = await scene.node(is_seed=True, peers=[first])
    await asyncio.sleep(5)
    assert not second.torrent.num_connections, "they have nothing for each other"
    peer = await scene.scripted(second, bitfield=wire.HAVE_NONE, extended=BOTH)
    message = decode_pex(await expect_extended(peer, PEX, timeout=70))
    flags = PexFlag.OUTGOING | PexFlag.UPLOAD_ONLY
    assert message == PexMessage(((first.endpoint, flags),))


@in_scene()
async def test_metadata_that_arrives_does_not_make_the_exchange_begin_anew(scene: Scene) -> None:
    """BEP 11: one message a minute, and nobody is added twice."""
    link = scene.link
    node = await scene.node(source=link)
    watch = Watch(node.torrent)
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE, extended=BOTH)
    scene.spawn(keep_alive(peer))
    await scene.scripted(
        node, bitfield=wire.HAVE_NONE, extended=ExtendedHandshake(listen_port=5555)
    )
    message = decode_pex(await expect_extended(peer, PEX, timeout=10))
    assert len(message.added) == 1
    seed = await scene.node(is_seed=True)
    node.torrent.add_peers([seed.endpoint], "user")
    await until(lambda: bool(watch.of(events.MetadataReceived)))
    began = scene.loop.time()
    message = decode_pex(await expect_extended(peer, PEX, timeout=70))
    assert scene.loop.time() - began > 45
    assert [endpoint for endpoint, _ in message.added] == [seed.endpoint]


@in_scene()
async def test_a_seed_dials_no_seeds_that_it_is_told_of(scene: Scene) -> None:
    """BEP 11: the flag says that they only upload, and two seeds have nothing for each other."""
    node = await scene.node(is_seed=True)
    watch = Watch(node.torrent)
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE, extended=BOTH)
    seed, leecher = (Endpoint(f"10.7.{n}.1", 1000) for n in range(2))
    message = PexMessage(((seed, PexFlag.UPLOAD_ONLY), (leecher, PexFlag.ENCRYPTION)))
    peer.send(wire.encode_extended(1, encode_pex(message)))
    await asyncio.sleep(5)
    assert scene.network.attempts[leecher]
    assert not scene.network.attempts[seed]
    assert watch.of(events.PeersFound) == [events.PeersFound("pex", 2)]


@in_scene()
async def test_exchange_is_read_at_its_pace_and_floods_are_not(scene: Scene) -> None:
    """Limit: H8."""
    node = await scene.node()
    peer = await scene.scripted(node, extended=BOTH)
    named = [Endpoint(f"10.7.{n}.1", 1000) for n in range(6)]
    for endpoint in named:
        message = encode_pex(PexMessage(((endpoint, PexFlag.NONE),)))
        peer.send(wire.encode_extended(1, message))
    await asyncio.sleep(30)
    dialled = [endpoint for endpoint in named if scene.network.attempts[endpoint]]
    assert dialled == named[:1]
    peer.send(wire.encode_extended(1, b"de"))
    await peer.expect_closed()


@pytest.mark.slow
@in_scene()
async def test_one_victim_named_by_everybody(scene: Scene) -> None:
    """Limit: H8. An address is not dialled again and again at every port of it."""
    victim = scene.add_host()
    node = await scene.node()
    peers = []
    for number in range(10):
        peer = await scene.scripted(node, extended=BOTH)
        named = [
            (Endpoint(victim.addresses[0], 1 + 100 * number + n), PexFlag.NONE) for n in range(50)
        ]
        peer.send(wire.encode_extended(1, encode_pex(PexMessage(tuple(named)))))
        peers.append(peer)
    await asyncio.sleep(300)
    assert sum(
        count
        for endpoint, count in scene.network.attempts.items()
        if endpoint.host == victim.addresses[0]
    ) in range(1, 4)


@in_scene()
async def test_metadata_for_others(scene: Scene) -> None:
    """BEP 9, Limit: H7."""
    node = await scene.node(is_seed=True)
    raw = scene.metainfo.info.raw
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE, extended=BOTH)
    offer = decode_extended_handshake(await expect_extended(peer, 0))
    assert offer.metadata_length == len(raw)
    answers = []
    for piece in (0, 9):
        ask = MetadataMessage(MetadataMessageType.REQUEST, piece)
        peer.send(wire.encode_extended(2, encode_metadata_message(ask)))
        answers.append(decode_metadata_message(await expect_extended(peer, METADATA)))
    assert answers == [
        MetadataMessage(MetadataMessageType.DATA, 0, len(raw), raw),
        MetadataMessage(MetadataMessageType.REJECT, 9),
    ]
    # What nobody asked for is nothing to us.
    data = MetadataMessage(MetadataMessageType.DATA, 0, 1, b"x")
    peer.send(wire.encode_extended(2, encode_metadata_message(data)))
    peer.send(wire.encode_extended(2, b"d8:msg_typei7e5:piecei0ee"))
    again = encode_metadata_message(MetadataMessage(MetadataMessageType.REQUEST, 0))
    peer.send(wire.encode_extended(2, again) * 200)
    kinds = []
    for _ in range(200):
        answer = decode_metadata_message(await expect_extended(peer, METADATA))
        assert answer is not None
        kinds.append(answer.kind)
    assert kinds.count(MetadataMessageType.DATA) <= 64
    with pytest.raises(ExpectationFailed):
        await expect_extended(peer, METADATA, timeout=5)


@in_scene()
async def test_who_asks_for_all_of_a_large_dictionary_at_once_gets_it(scene: Scene) -> None:
    """As WebTorrent does. What it has no room for comes when there is; Limit: H7."""
    node = await scene.node(is_seed=True)
    raw = random.Random(1).randbytes(3_000_000)
    assert node.torrent.swarm is not None
    node.torrent.swarm.extensions._server = MetadataServer(raw)
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE, extended=BOTH)
    await expect_extended(peer, 0)
    pieces = range(-(-len(raw) // METADATA_PIECE_LENGTH))
    asks = [MetadataMessage(MetadataMessageType.REQUEST, piece) for piece in pieces]
    peer.send(b"".join(wire.encode_extended(2, encode_metadata_message(ask)) for ask in asks))
    found = {}
    for _ in pieces:
        answer = decode_metadata_message(await expect_extended(peer, METADATA))
        assert answer is not None
        found[answer.piece] = answer.data
    assert b"".join(found[piece] for piece in pieces) == raw


@in_scene()
async def test_who_asks_for_metadata_and_takes_no_answer_gets_none(scene: Scene) -> None:
    node = await scene.node(is_seed=True)
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE, extended=ExtendedHandshake())
    ask = encode_metadata_message(MetadataMessage(MetadataMessageType.REQUEST, 0))
    peer.send(wire.encode_extended(2, ask))
    await expect_extended(peer, 0)
    with pytest.raises(ExpectationFailed):
        await peer.expect(MessageId.EXTENDED, timeout=5)
    assert node.torrent.num_connections == 1


@in_scene()
async def test_who_speaks_no_extensions_hears_of_none(scene: Scene) -> None:
    node = await scene.node()
    peer = await scene.scripted(node, reserved=wire.Reserved(has_extensions=False))
    with pytest.raises(ExpectationFailed):
        await peer.expect(MessageId.EXTENDED, timeout=5)


# --- hashes of v2 ----------------------------------------------------------------------------


@in_scene(version=Version.V2)
async def test_hash_messages_reach_what_answers_them(scene: Scene) -> None:
    files, root, node, peer = await connect_to_node(scene, is_seed=True)
    for wanted in (HashRange(root, 2, 0, 16, 3), HashRange(root, 0, 12, 4, 5)):
        assert await ask(peer, wanted) == files.answer(wanted)
    peer.close()
    await until(lambda: not node.torrent.num_connections)


@in_scene(version=Version.V1)
async def test_a_peer_that_speaks_of_hashes_which_a_torrent_has_not_is_closed(scene: Scene) -> None:
    """Limit: H10. Other messages are none of that business."""
    node = await scene.node(is_seed=True)
    peer = await connect_v2(scene, node)
    peer.send(wire.encode_index(MessageId.SUGGEST_PIECE, 0))
    peer.send(wire.INTERESTED)
    await peer.expect(MessageId.UNCHOKE)
    peer.send(wire.encode_hash_request(HashRange(bytes(32), 0, 0, 2, 0)))
    await peer.expect_closed(timeout=1)


@pytest.mark.parametrize("version", [Version.V1, Version.V2])
@in_scene(version=GIVEN)
async def test_of_a_piece_that_was_lost_only_what_is_bad_is_fetched_where_hashes_tell(
    scene: Scene, version: Version
) -> None:
    node, _ = await mend_lost_piece(scene)
    fetched = BLOCK_LENGTH if version is Version.V2 else PIECE_LENGTH
    assert node.torrent.num_downloaded == fetched
