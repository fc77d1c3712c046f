"""engine.reasons.examination: sessions in trouble, and what they say of it, in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bittern.codec import wire
from bittern.codec.extension import ExtendedHandshake
from bittern.core.endpoint import Endpoint
from bittern.engine import events
from bittern.engine.events import TorrentState
from bittern.engine.reason import ReasonCode
from bittern.engine.reasons.diagnosis import Diagnosis, Limit
from bittern.engine.source_status import SourceKind, SourceState
from bittern.testing.disk import FaultyCalls
from bittern.testing.loop import VirtualLoop
from bittern.testing.network import Link
from tests.engine.scene import NUM_PIECES, Node, Scene, Watch, in_scene
from tests.engine.sources.fake_tracker import URL, FakeClient, tracked
from tests.virtual_time import simulated

NOWHERE = Endpoint("10.0.77.1", 1)


def codes(found: Diagnosis) -> list[ReasonCode]:
    return [r.code for r in found.reasons if r.code is not ReasonCode.SOURCE]


@in_scene()
async def test_nobody_is_known_and_everything_is_off(scene: Scene) -> None:
    node = await scene.node(enable_incoming=False, enable_pex=False)
    await asyncio.sleep(5)
    found = node.torrent.diagnose()
    assert found.at == scene.loop.time()
    assert found.state is TorrentState.DOWNLOADING
    assert not found.is_moving
    assert found.waits_for == "a connection to a peer"
    assert str(found).splitlines()[0] == ("No peer is known, and every source of peers is off.")
    assert {source.state for source in found.sources} == {SourceState.OFF}
    assert (found.num_missing, found.num_unavailable) == (NUM_PIECES, NUM_PIECES)


@in_scene(trackers=((URL,),))
async def test_a_tracker_that_fails_is_told_of(scene: Scene) -> None:
    client = FakeClient()
    node = await scene.node(make=tracked(client), enable_trackers=True)
    await asyncio.sleep(5)
    found = node.torrent.diagnose()
    assert codes(found) == [ReasonCode.NO_PEERS_KNOWN]
    tracker = found.sources[0]
    assert (tracker.kind, tracker.num_peers) == (SourceKind.TRACKER, 0)
    assert "tracker http://tracker.example: no peers in its last answer" in str(found)


@in_scene()
async def test_peers_that_cannot_be_reached(scene: Scene) -> None:
    closed = scene.add_host()
    refusing = Endpoint(closed.addresses[0], 1)
    node = await scene.node(peers=[NOWHERE, refusing])
    watch = Watch(node.torrent)
    await asyncio.sleep(0.01)
    assert codes(node.torrent.diagnose()) == [ReasonCode.CONNECTING]
    await asyncio.sleep(10.4)  # the first attempts are over, the next ones not begun
    found = node.torrent.diagnose()
    assert codes(found) == [ReasonCode.PEERS_UNREACHABLE]
    assert "2 of 2 known peers failed" in str(found)
    told = {each.endpoint: each.reason for each in found.candidates.failed}
    assert told == {NOWHERE: "no answer in time", refusing: "connection refused"}
    said = {event.endpoint: event for event in watch.of(events.PeerUnreachable)}
    assert said[refusing].reason == "connection refused"
    retries = {each.endpoint: each.next_at for each in found.candidates.failed}
    assert said[refusing].retry_at == retries[refusing]


@in_scene()
async def test_peers_that_choke_or_have_nothing(scene: Scene) -> None:
    node = await scene.node()
    full = await scene.scripted(node, bitfield=wire.HAVE_ALL)
    await asyncio.sleep(1)
    found = node.torrent.diagnose()
    assert codes(found) == [ReasonCode.CHOKED]
    assert (found.connections.num_choking, found.num_unavailable) == (1, 0)
    await scene.scripted(node, bitfield=wire.HAVE_NONE)
    full.close()
    await asyncio.sleep(1)
    found = node.torrent.diagnose()
    assert codes(found)[0] is ReasonCode.PIECES_MISSING
    assert (found.connections.num_needless, found.num_unavailable) == (1, NUM_PIECES)
    assert found.availability == 0


@in_scene()
async def test_a_peer_that_owes_us_blocks(scene: Scene) -> None:
    node = await scene.node(snub_timeout=10.0)
    peer = await scene.scripted(node, bitfield=wire.HAVE_ALL)
    peer.send(wire.UNCHOKE)
    await asyncio.sleep(3)
    assert codes(node.torrent.diagnose()) == [ReasonCode.ABOUT_TO_ASK]
    await asyncio.sleep(15)
    found = node.torrent.diagnose()
    assert codes(found) == [ReasonCode.SNUBBED]
    assert found.connections.num_snubbing == 1
    assert [info.is_snubbing for info in node.torrent.peers()] == [True]


@in_scene()
async def test_metadata_that_nobody_offers(scene: Scene) -> None:
    node = await scene.node(source=str(scene.info_hash))
    await scene.scripted(node, extended=ExtendedHandshake())
    await asyncio.sleep(1)
    found = node.torrent.diagnose()
    assert found.state is TorrentState.METADATA
    assert codes(found) == [ReasonCode.NO_METADATA]
    offer = ExtendedHandshake(extensions={"ut_metadata": 3}, metadata_length=20_000)
    await scene.scripted(node, extended=offer)
    await asyncio.sleep(1)
    found = node.torrent.diagnose()
    assert codes(found) == [ReasonCode.FETCHING_METADATA]
    assert found.connections.num_offering_metadata == 1


@simulated(limit=20_000)
async def test_limits_that_hold_us_back(loop: VirtualLoop, tmp_path: Path) -> None:
    async with Scene(loop, tmp_path) as scene:
        seed = await scene.node(is_seed=True)
        node = await scene.node(
            peers=[seed], torrent={"max_download_rate": 20_000.0, "max_connections": 1}
        )
        await asyncio.sleep(10)
        found = node.torrent.diagnose()
        assert found.is_moving
        assert codes(found) == [ReasonCode.MOVING, ReasonCode.RATE_LIMIT]
        limits = {limit.name: limit for limit in found.limits}
        assert limits["max_download_rate"] == Limit("max_download_rate", 20_000.0, True)
        assert limits["max_connections_per_torrent"].is_reached
        assert not limits["max_connections"].is_reached
        assert "max_upload_rate" not in limits
        serving = seed.torrent.diagnose()
        assert serving.is_moving
        assert serving.connections.num_unchoked == 1


@in_scene()
async def test_a_full_disk(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    node = await scene.node(peers=[seed], os_calls=FaultyCalls(room=100_000))
    async with asyncio.timeout(60):
        while node.torrent.state is not TorrentState.ERROR:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    found = node.torrent.diagnose()
    assert codes(found) == [ReasonCode.DISK_FULL]
    assert found.storage.is_full
    assert found.storage.retry_at is not None
    assert 0 < found.storage.retry_at - scene.loop.time() <= 30
    assert found.waits_for == "room on the disk"


@in_scene(link=Link(delay=0.02))
async def test_a_banned_liar(scene: Scene) -> None:
    node = await scene.node()
    liar = await scene.scripted(node, bitfield=wire.HAVE_ALL)
    liar.send(wire.UNCHOKE)
    serving = scene.loop.create_task(liar.serve(lambda index, begin, length: bytes(length)))
    await asyncio.sleep(10)
    serving.cancel()
    (ban,) = node.torrent.diagnose().candidates.bans
    assert ban.address == liar.stream.local.host
    assert ban.reason == "sent corrupt data"


@pytest.mark.parametrize("verb", ["pause", "stop"])
@in_scene()
async def test_states_that_somebody_chose(scene: Scene, verb: str) -> None:
    node: Node = await scene.node()
    await getattr(node.torrent, verb)()
    found = node.torrent.diagnose()
    assert codes(found) == [ReasonCode.PAUSED if verb == "pause" else ReasonCode.STOPPED]
    assert found.sources == ()
