"""engine.peers.roster: who may connect, who is there, who is silent."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from bittern.codec import wire
from bittern.codec.extension import ExtendedHandshake, PexFlag, decode_extended_handshake
from bittern.codec.wire import MessageId
from bittern.core.endpoint import Endpoint
from bittern.engine import events
from bittern.engine.peers.roster import client_name, exchange_flags, is_loopback, reserved_bits
from bittern.engine.reason import ReasonCode
from bittern.engine.shelf import Shelf
from bittern.testing.network import Link
from bittern.testing.peer import ExpectationFailed, ScriptedListener, ScriptedPeer
from tests.engine.dht_place import Nodes
from tests.engine.scene import FAST, GIVEN, PORT, Scene, Stranger, Watch, endpoint_of, in_scene


@pytest.mark.parametrize("is_allowed", [False, True])
@in_scene()
async def test_one_connection_for_each_address(scene: Scene, is_allowed: bool) -> None:
    """Limit: H15."""
    node = await scene.node(allow_multiple_per_address=is_allowed)
    host = scene.add_host()
    await scene.scripted(node, host)
    second = await scene.add_and_knock(node, host)
    if is_allowed:
        await second.expect_handshake()
        assert node.torrent.num_connections == 2
    else:
        await second.expect_closed(timeout=1)
        assert node.torrent.num_connections == 1


@in_scene()
async def test_a_peer_that_comes_from_two_addresses_is_one(scene: Scene) -> None:
    """Limit: H15. Its peer id tells."""
    node = await scene.node()
    watch = Watch(node.torrent)
    first = await scene.scripted(node, peer_id=b"-SC0000-the-very-one")
    second = await scene.scripted(node, peer_id=b"-SC0000-the-very-one")
    await second.expect_closed(timeout=1)
    assert not first.is_closed
    assert len(node.torrent.peers()) == 1
    assert len(watch.of(events.PeerConnected)) == 1


@in_scene()
async def test_two_that_dial_each_other_keep_one_connection(scene: Scene) -> None:
    one, two = await scene.node(), await scene.node()
    one.torrent.add_peers([two.endpoint], "user")
    two.torrent.add_peers([one.endpoint], "user")
    await asyncio.sleep(5)
    assert [len(node.torrent.peers()) for node in (one, two)] == [1, 1]
    # At once: neither has to dial again.
    assert [scene.network.attempts[node.endpoint] for node in (one, two)] == [1, 1]


@pytest.mark.parametrize("peer_id", [b"\x00" * 20, b"\xff" * 20])
@in_scene()
async def test_nobody_is_pushed_out_by_another_address_with_its_peer_id(
    scene: Scene, peer_id: bytes
) -> None:
    """Limit: H15. Whichever of the two ids is the greater."""
    stranger = Stranger(scene)
    node = await scene.node(peers=[stranger])
    first = await stranger.accept()
    await scene.greet(first, peer_id=peer_id)
    await asyncio.sleep(1)
    second = await scene.scripted(node, peer_id=peer_id)
    await second.expect_closed(timeout=1)
    assert not first.is_closed


@in_scene()
async def test_who_was_dialled_may_call_only_while_calls_may_cross(scene: Scene) -> None:
    """Limit: H15."""
    stranger = Stranger(scene)
    node = await scene.node(peers=[stranger])
    dialled = await stranger.accept()
    await scene.greet(dialled)
    await (await scene.add_and_knock(node, stranger.host)).expect_handshake()
    await asyncio.sleep(15)
    late = await scene.add_and_knock(node, stranger.host)
    await late.expect_closed(timeout=1)
    assert not late.messages
    assert not dialled.is_closed
    # Nor is another port of it dialled, until it has gone.
    other = Endpoint(stranger.endpoint.host, PORT + 1)
    node.torrent.add_peers([other], "user")
    await asyncio.sleep(5)
    assert scene.network.attempts[other] == 0


@in_scene()
async def test_a_keep_alive_every_two_minutes_is_enough(scene: Scene) -> None:
    """Limit: H5, BEP 3. Interop: rtorrent sends one every 121 s."""
    node = await scene.node()
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE)
    for _ in range(4):
        await asyncio.sleep(121)
        assert not peer.is_closed
        peer.send(wire.KEEP_ALIVE)
    await asyncio.sleep(140)
    assert not peer.is_closed
    await asyncio.sleep(20)
    assert node.torrent.num_connections == 0


@in_scene()
async def test_we_do_not_stay_connected_to_ourselves(scene: Scene) -> None:
    """Limit: H15."""
    node = await scene.node()
    node.torrent.add_peers([node.endpoint], "tracker", node.host.addresses[0])
    await asyncio.sleep(5)
    assert node.torrent.num_connections == 0
    assert node.torrent.diagnose().reasons[0].code is ReasonCode.NO_PEERS_KNOWN
    node.torrent.add_peers([node.endpoint], "tracker", node.host.addresses[0])
    await asyncio.sleep(1800)
    assert scene.network.attempts[node.endpoint] == 1


@in_scene()
async def test_connections_of_a_torrent_are_limited(scene: Scene) -> None:
    node = await scene.node(torrent={"max_connections": 2})
    peers = [await scene.add_and_knock(node) for _ in range(3)]
    await peers[2].expect_closed(timeout=1)
    peers[0].close()
    await asyncio.sleep(1)
    await scene.scripted(node)
    assert node.torrent.num_connections == 2


@in_scene()
async def test_connections_of_the_session_are_limited(scene: Scene) -> None:
    node = await scene.node(max_connections=2)
    strangers = [Stranger(scene) for _ in range(4)]
    node.torrent.add_peers([stranger.endpoint for stranger in strangers], "user")
    await asyncio.sleep(5)
    assert node.torrent.num_connections == 2


@in_scene()
async def test_the_silent_are_closed_and_others_kept_alive(scene: Scene) -> None:
    """Limit: H5."""
    node = await scene.node()
    watch = Watch(node.torrent)
    silent = await scene.scripted(node)
    lively = await scene.scripted(node)

    async def talk() -> None:
        while True:
            await asyncio.sleep(60)
            lively.send(wire.KEEP_ALIVE)

    scene.spawn(talk())
    await silent.expect(None, timeout=110)
    await silent.expect_closed(timeout=55)
    assert 149 < scene.loop.time() < 155
    assert watch.of(events.PeerDisconnected)[0].reason == "silent"
    await lively.expect(None, timeout=200)
    await lively.expect(None, timeout=200)
    sent = [message for message in lively.messages if message.message_id is None]
    assert len(sent) <= scene.loop.time() / node.session.config.keep_alive_interval


@in_scene()
async def test_one_that_we_dialled_and_that_says_nothing(scene: Scene) -> None:
    """Limit: H5. Ten seconds for the handshake on our side too."""
    stranger = Stranger(scene)
    node = await scene.node()
    watch = Watch(node.torrent)
    node.torrent.add_peers([stranger.endpoint], "user")
    peer = await stranger.accept()
    await peer.expect_handshake()
    assert node.torrent.stats().num_connecting == 1
    await peer.expect_closed(timeout=12)
    assert node.torrent.peers() == []
    [event] = watch.of(events.PeerUnreachable)
    assert (event.endpoint, event.reason) == (stranger.endpoint, "no handshake")
    assert event.retry_at is not None
    assert watch.of(events.PeerDisconnected) == []


@in_scene()
async def test_where_nobody_listens_is_told_with_the_reason(scene: Scene) -> None:
    node = await scene.node()
    watch = Watch(node.torrent)
    nobody = endpoint_of(scene.add_host())
    node.torrent.add_peers([nobody], "user")
    await asyncio.sleep(1)
    event = watch.of(events.PeerUnreachable)[0]
    assert (event.endpoint, event.reason) == (nobody, "connection refused")
    assert event.retry_at is not None


@in_scene()
async def test_who_hangs_up_after_the_handshake_is_dialled_less_and_less_often(
    scene: Scene,
) -> None:
    stranger = Stranger(scene)

    async def hang_up(peer: ScriptedPeer) -> None:
        await scene.greet(peer)
        peer.close()

    stranger.play(hang_up)
    await scene.node(peers=[stranger])
    await asyncio.sleep(600)
    assert 5 < scene.network.attempts[stranger.endpoint] < 15


@in_scene(link=Link(delay=0.5))
async def test_a_dial_that_a_move_interrupts_is_made_again_at_once(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    node = await scene.node()
    watch = Watch(node.torrent)
    node.torrent.add_peers([seed.endpoint], "user")
    await asyncio.sleep(0.1)
    assert len(watch.of(events.PeerDialled)) == 1
    await node.torrent.move(node.folder.with_name("elsewhere"))
    await asyncio.sleep(8)
    assert len(node.torrent.peers()) == 1
    assert len(watch.of(events.PeerDialled)) == 2


@in_scene()
async def test_a_wrong_info_hash_from_who_we_dialled(scene: Scene) -> None:
    stranger = Stranger(scene)
    node = await scene.node(peers=[stranger])
    peer = await stranger.accept()
    peer.send_handshake(b"x" * 20)
    await peer.expect_closed(timeout=1)
    assert node.torrent.num_connections == 0


@in_scene()
async def test_what_a_peer_says_of_itself_is_shown(scene: Scene) -> None:
    node = await scene.node()
    said = ExtendedHandshake(client="Some client 1", request_queue=7, listen_port=4711)
    peer = await scene.scripted(node, extended=said)
    await asyncio.sleep(0.1)
    assert [info.client for info in node.torrent.peers()] == ["Some client 1"]
    roster = node.roster
    (connection,) = roster.peers
    assert connection.pipeline.reqq_limit == 7
    assert connection.listen_endpoint is not None
    assert connection.listen_endpoint.port == 4711
    peer.close()
    await asyncio.sleep(40)
    assert scene.network.attempts[connection.listen_endpoint] >= 1, "dialled again"


@in_scene()
async def test_a_repeated_handshake_changes_what_it_names_and_no_more(scene: Scene) -> None:
    """BEP 10, BEP 21: one that brings a new extension does not make a leecher of a seed."""
    node = await scene.node()
    about = ExtendedHandshake(
        client="somebody",
        listen_port=4711,
        request_queue=7,
        is_upload_only=True,
        prefers_encryption=True,
    )
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE, extended=about)

    async def told() -> tuple[object, ...]:
        await asyncio.sleep(0.1)
        assert node.torrent.roster is not None
        [found] = node.torrent.roster.peers
        port = found.listen_endpoint and found.listen_endpoint.port
        flags = found.is_upload_only, found.prefers_encryption
        return found.client, port, found.pipeline.reqq_limit, *flags

    peer.send(wire.encode_extended(0, b"d1:md6:ut_pexi1eee"))
    assert await told() == ("somebody", 4711, 7, True, True)
    # One connection stands for one candidate: a port of later counts only if there was none.
    peer.send(wire.encode_extended(0, b"d1:ei0e1:pi1e11:upload_onlyi0ee"))
    assert await told() == ("somebody", 4711, 7, False, False)


@in_scene()
async def test_what_we_say_of_ourselves(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, enable_pex=False)
    peer = await scene.scripted(seed, bitfield=wire.HAVE_NONE)
    message = await peer.expect(MessageId.EXTENDED)
    ours = decode_extended_handshake(message.payload[1:])
    assert ours.is_upload_only
    assert ours.listen_port == seed.endpoint.port
    assert ours.request_queue == 500
    assert ours.your_host == peer.stream.local.host
    assert ours.client
    assert "ut_pex" not in ours.extensions


@in_scene()
async def test_a_banned_address_is_neither_dialled_nor_taken(scene: Scene) -> None:
    node = await scene.node()
    watch = Watch(node.torrent)
    host = scene.add_host()
    peer = await scene.scripted(node, host)
    bystander = await scene.scripted(node)
    await asyncio.sleep(0.1)
    roster = node.roster
    roster.ban(host.addresses[0], "for a test", num_good_pieces=8)
    with pytest.raises(ExpectationFailed):
        await peer.expect_closed(timeout=1)
    roster.ban(host.addresses[0], "for a test", num_good_pieces=8)
    await peer.expect_closed(timeout=1)
    assert [event.reason for event in watch.of(events.PeerBanned)] == ["for a test"]
    again = await scene.add_and_knock(node, host)
    await again.expect_closed(timeout=1)
    node.torrent.add_peers([endpoint_of(host)], "user")
    await asyncio.sleep(10)
    assert scene.network.attempts[endpoint_of(host)] == 0
    assert not bystander.is_closed


@pytest.mark.parametrize(
    ("peer_id", "name"),
    [
        (b"-qB5200-abcdefghijkl", "qB5200"),
        (b"-\xff\xfe5200-abcdefghijk", ""),
        (b"M7-9-0--abcdefghijkl", ""),
        (bytes(20), ""),
    ],
)
def test_client_names(peer_id: bytes, name: str) -> None:
    assert client_name(peer_id) == name


@pytest.mark.parametrize(
    ("host", "found"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.1", False)],
)
def test_loopback(host: str, found: bool) -> None:
    assert is_loopback(host) is found


@pytest.mark.parametrize("is_private", [False, True])
@pytest.mark.parametrize("port", [0, 6881])
@in_scene(is_private=GIVEN)
async def test_the_dht_bit_says_that_a_node_of_ours_answers(
    scene: Scene, port: int, is_private: bool
) -> None:
    """BEP 5; BEP 27: none for a private torrent."""
    node = await scene.node()
    services = replace(node.torrent._services, dht_port=lambda: port)
    bits = reserved_bits(Shelf(scene.metainfo), services)
    assert (bits.has_dht, bits.has_v2) == (bool(port) and not is_private, False)
    assert bits.has_fast
    assert bits.has_extensions


# --- what is told -----------------------------------------------------------------------------


@pytest.mark.parametrize("is_private", [False, True])
@in_scene(is_private=GIVEN)
async def test_a_private_torrent_offers_neither_peers_nor_metadata_nor_a_dht_node(
    scene: Scene, is_private: bool
) -> None:
    """BEP 27, BEP 5."""
    nodes = Nodes(scene)
    await nodes.add()
    node = await scene.node(**nodes.options(dht_bootstrap=()))
    address = nodes.sockets[0].endpoint.host
    [host] = [each for each in scene.network.hosts if address in each.addresses]
    peer = await scene.connect(node, host)
    await scene.greet(peer, reserved=replace(FAST, has_dht=True))
    told = decode_extended_handshake((await peer.expect(MessageId.EXTENDED)).payload[1:])
    assert ("ut_pex" in told.extensions) is not is_private
    assert ("ut_metadata" in told.extensions) is not is_private
    assert (told.metadata_length is None) is is_private
    # And of its own node nothing is heard.
    dht = node.session.dht
    assert dht is not None
    peer.send(wire.encode_port(PORT))
    await asyncio.sleep(30)
    assert bool(dht.num_nodes) is not is_private
    if not is_private:
        other = await scene.connect(node)
        await scene.greet(other, reserved=replace(FAST, has_dht=True))
        port = await other.expect(MessageId.PORT)
        assert port.payload == PORT.to_bytes(2, "big")
        other.close()


@in_scene()
async def test_a_peer_that_says_little_of_itself(scene: Scene) -> None:
    node = await scene.node()
    peer = await scene.scripted(node, peer_id=b"-qB4500-abcdefghijkl", extended=ExtendedHandshake())
    peer.send(wire.encode_port(0))
    await asyncio.sleep(1)
    [info] = node.torrent.peers()
    assert info.client == "qB4500"


@in_scene()
async def test_messages_are_told_to_who_asks_from_the_first_byte(scene: Scene) -> None:
    node = await scene.node()
    watch = Watch(node.torrent, trace=True)
    await asyncio.sleep(0)
    await scene.scripted(node, bitfield=wire.HAVE_NONE)
    await asyncio.sleep(1)
    received = [event.kind for event in watch.of(events.MessageReceived)]
    assert received == ["handshake", "have_none"]
    assert watch.of(events.MessageSent)[0].kind == "handshake"


@pytest.mark.parametrize("kind", ["seed", "leecher", "encrypting", "behind a NAT"])
@in_scene()
async def test_others_hear_what_a_peer_is(scene: Scene, kind: str) -> None:
    """BEP 11."""
    node = await scene.node()
    about = ExtendedHandshake(
        extensions={"ut_holepunch": 9} if kind == "behind a NAT" else {},
        prefers_encryption=kind == "encrypting",
        listen_port=5555,
    )
    has = wire.HAVE_ALL if kind == "seed" else wire.HAVE_NONE
    await scene.scripted(node, bitfield=has, extended=about)
    await asyncio.sleep(0.1)
    assert node.torrent.roster is not None
    [found] = node.torrent.roster.peers
    assert (
        exchange_flags(found)
        == {
            "seed": PexFlag.UPLOAD_ONLY,
            "leecher": PexFlag.NONE,
            "encrypting": PexFlag.ENCRYPTION,
            "behind a NAT": PexFlag.HOLEPUNCH,
        }[kind]
    )


@in_scene()
async def test_the_other_address_of_a_peer_is_told_to_others(scene: Scene) -> None:
    """BEP 11: who has both families is connected by one, and known by both."""
    stranger = Stranger(scene, scene.network.add_host("10.9.0.1", "fd00::9"))
    ours = scene.network.add_host("10.9.0.2", "fd00::a")
    node = await scene.node(host=ours, peers=[Endpoint("10.9.0.1", PORT)])
    first = await stranger.accept()
    await scene.greet(first, peer_id=b"-SC0000-the-very-one")
    six = ScriptedListener(stranger.host, "fd00::9", PORT)
    node.torrent.add_peers([Endpoint("fd00::9", PORT)], "user")
    second = await six.accept(timeout=100)
    second.send_handshake(scene.info_hash, b"-SC0000-the-very-one", FAST)
    await second.expect_closed(timeout=5)
    roster = node.roster
    assert list(roster.exchange.recent.since(0, {})) == [Endpoint("fd00::9", PORT)]
    first.close()
    six.close()
