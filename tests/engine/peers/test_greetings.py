"""engine.peers.greetings: by which of its hashes a torrent greets (BEP 52)."""

from __future__ import annotations

import pytest

from bittern.codec import wire
from bittern.codec.info import Version
from bittern.codec.wire import HashRange, MessageId, Reserved
from bittern.engine.peers import greetings
from bittern.testing.peer import ExpectationFailed
from tests.engine.hash_peers import V2, HashPeer
from tests.engine.scene import FAST, Scene, Stranger, in_scene, until


@pytest.mark.parametrize("has_v2", [False, True])
@pytest.mark.parametrize("names_v2", [False, True])
@in_scene(version=Version.HYBRID)
async def test_bep52_a_connection_to_a_hybrid_is_upgraded(
    scene: Scene, names_v2: bool, has_v2: bool
) -> None:
    """Whoever names the v1 hash and says that it speaks v2 is answered with the v2 hash."""
    v1, v2 = scene.metainfo.info.all_hashes
    node = await scene.node(is_seed=True)
    peer = await scene.connect(node)
    peer.send_handshake(v2 if names_v2 else v1, reserved=Reserved(has_v2=has_v2))
    answer = await peer.expect_handshake()
    assert answer.info_hash == (v2 if names_v2 or has_v2 else v1)
    assert answer.reserved.has_v2
    peer.send(wire.encode_hash_request(HashRange(bytes(32), 0, 0, 2, 0)))
    await peer.expect(MessageId.HASH_REJECT)


@in_scene(version=Version.HYBRID)
async def test_bep52_our_connection_may_be_upgraded(scene: Scene) -> None:
    v1, v2 = scene.metainfo.info.all_hashes
    stranger = Stranger(scene)
    node = await scene.node(peers=[stranger])
    peer = await stranger.accept()
    ours = await peer.expect_handshake()
    assert (ours.info_hash, ours.reserved.has_v2) == (v1, True)
    peer.send_handshake(v2)
    await peer.expect(MessageId.EXTENDED)
    assert len(node.torrent.peers()) == 1


@in_scene(version=Version.HYBRID)
async def test_bep52_who_knows_only_the_v2_hash_is_dialled_again_with_it(scene: Scene) -> None:
    """At once, but once: whoever does not want us at all is left alone as any other."""
    v1, v2 = scene.metainfo.info.all_hashes
    stranger = Stranger(scene)
    node = await scene.node()
    node.torrent.add_peers([stranger.endpoint], "tracker", "10.0.9.9")
    named = []
    for _ in range(2):
        peer = await stranger.accept(timeout=5)
        named.append((await peer.expect_handshake()).info_hash)
        peer.close()
    assert named == [v1, v2]
    with pytest.raises(ExpectationFailed):
        await stranger.accept(timeout=5)
    # Later it is tried anew, and takes the second one this time.
    for hash_named in (v1, v2):
        peer = await stranger.accept(timeout=600)
        assert (await peer.expect_handshake()).info_hash == hash_named
        if hash_named == v1:
            peer.close()
    peer.send_handshake(v2)
    await peer.expect(MessageId.EXTENDED)
    assert len(node.torrent.peers()) == 1


@in_scene(version=Version.HYBRID)
async def test_endpoints_that_did_not_answer_are_not_remembered_without_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greetings, "MAX_GREETED", 2)
    node = await scene.node()
    strangers = [Stranger(scene) for _ in range(4)]
    for stranger in strangers:
        node.torrent.add_peers([stranger.endpoint], "user")
        for _ in range(2):
            peer = await stranger.accept()
            peer.close()
        stranger.close()


@in_scene(version=Version.HYBRID)
async def test_some_of_those_who_speak_v2_are_greeted_anew(scene: Scene) -> None:
    """Once a link's metadata shows that there is a v2 half; who came to us, or is v1, stays."""
    tellers = [
        HashPeer(scene, lambda _: None, does_metadata=False)
        for _ in range(greetings.MAX_GREETED_ANEW + 1)
    ]
    old = HashPeer(scene, lambda _: None, does_metadata=False, reserved=FAST)
    link = scene.link_by("btih")
    peers = [each.endpoint for each in (*tellers, old)]
    node = await scene.node(source=link, peers=peers)
    guest = await scene.scripted(node, reserved=V2)
    await until(lambda: len(node.torrent.peers()) == len(peers) + 1)
    seed = await scene.node(is_seed=True, max_upload_rate=1_000)
    node.torrent.add_peers([seed.endpoint], "user")
    await until(lambda: node.torrent.info_hash_v2 is not None)
    await until(lambda: len(node.torrent.peers()) == len(peers) + 2)
    attempts = [scene.network.attempts[each.endpoint] for each in tellers]
    assert sorted(attempts) == [1] + [2] * greetings.MAX_GREETED_ANEW
    assert scene.network.attempts[old.endpoint] == 1
    assert not guest.is_closed
