"""engine.stats: a torrent and its peers in numbers, at the stages of its life."""

from __future__ import annotations

import asyncio

import pytest

from bittern.codec import wire
from bittern.codec.info import Version
from bittern.engine.events import TorrentState
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.engine.stats import (
    WebSeedInfo,
    describe_peers,
    describe_web_seeds,
    file_progress,
)
from tests.engine.scene import NAME, NUM_PIECES, PIECE_LENGTH, Scene, damage, in_scene, until


@in_scene()
async def test_before_the_metadata_is_known(scene: Scene) -> None:
    node = await scene.node(source=scene.link)
    await scene.scripted(node, bitfield=wire.HAVE_ALL)
    await asyncio.sleep(0.1)
    stats = node.torrent.stats()
    assert stats.state is TorrentState.METADATA
    assert (stats.progress, stats.num_pieces, stats.total_length) == (0.0, 0, 0)
    assert (stats.num_peers, stats.num_seeds, stats.peers_seen) == (1, 0, 1)
    assert stats.availability == 0.0
    (info,) = describe_peers(node.torrent.roster)
    assert info.progress == 0.0
    assert node.torrent.file_progress() == []


@in_scene()
async def test_who_comes_again_is_not_counted_as_another_address(scene: Scene) -> None:
    node = await scene.node(source=scene.link)
    host = scene.add_host()
    for _ in range(3):
        peer = await scene.scripted(node, host, bitfield=wire.HAVE_ALL)
        peer.close()
        await until(lambda: not node.torrent.num_connections)
    assert node.torrent.stats().peers_seen == 1


@in_scene()
async def test_half_way(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, host=scene.add_host(upload_rate=50_000))
    node = await scene.node(peers=[seed])
    torrent = node.torrent
    await until(lambda: torrent.have_bits.bit_count() >= NUM_PIECES // 2)
    stats = torrent.stats()
    assert stats.state is TorrentState.DOWNLOADING
    assert stats.num_have == torrent.have_bits.bit_count()
    progress = file_progress(torrent.info, torrent.have_bits)
    assert progress == torrent.file_progress()
    assert stats.left == torrent.num_left == len(scene.data) - sum(progress)
    assert stats.progress == pytest.approx(1 - stats.left / len(scene.data))
    assert stats.downloaded >= stats.num_have * PIECE_LENGTH - PIECE_LENGTH
    assert stats.download_rate == pytest.approx(50_000, rel=0.2)
    assert stats.eta == pytest.approx(stats.left / stats.download_rate)
    assert (stats.num_peers, stats.num_seeds, stats.num_connecting) == (1, 1, 0)
    assert stats.availability >= 1.0
    assert (stats.wasted, stats.uploaded) == (0, 0)
    (info,) = torrent.peers()
    assert (info.progress, info.is_outgoing) == (1.0, True)
    assert (info.am_choking, info.am_interested) == (True, True)
    assert (info.peer_choking, info.peer_interested) == (False, False)
    assert info.downloaded == stats.downloaded
    assert info.num_outstanding > 0
    assert not info.is_snubbing
    assert info.is_upload_only
    assert info.client == "bittern/0.1.0"
    (theirs,) = seed.torrent.peers()
    assert theirs.uploaded >= info.downloaded
    assert not theirs.is_outgoing
    assert theirs.progress == pytest.approx(stats.num_have / NUM_PIECES, abs=0.2)


@in_scene()
async def test_complete_and_paused(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    stats = seed.torrent.stats()
    assert (stats.progress, stats.left, stats.eta) == (1.0, 0, 0.0)
    assert stats.num_checked == NUM_PIECES
    await seed.torrent.pause()
    paused = seed.torrent.stats()
    assert paused.state is TorrentState.PAUSED
    assert (paused.progress, paused.num_peers) == (1.0, 0)
    assert describe_peers(seed.torrent.roster) == []


@in_scene()
async def test_without_progress_there_is_no_estimate(scene: Scene) -> None:
    node = await scene.node()
    stats = node.torrent.stats()
    assert (stats.eta, stats.progress, stats.availability) == (None, 0.0, 0.0)


@in_scene(files={"a": 10, "b": 20, "c": 100_000}, version=Version.HYBRID)
async def test_padding_counts_for_nothing(scene: Scene) -> None:
    """BEP 47: small files have more of it than of all else, and trackers hear what is left."""
    node = await scene.node(is_seed=True)
    torrent = node.torrent
    damage(node.folder / NAME / "a", 0)
    await torrent.recheck()
    stats = torrent.stats()
    assert stats.left == torrent.num_left == 10
    assert stats.progress == pytest.approx(1 - 10 / 100_030)
    torrent.change(files=frozenset([0, 2]))  # index 1 is padding
    stats = torrent.stats()
    assert (stats.left, stats.wanted_length) == (10, 30)


@in_scene()
async def test_nothing_wanted_is_complete(scene: Scene) -> None:
    node = await scene.node(torrent={"files": frozenset()})
    stats = node.torrent.stats()
    assert (stats.progress, stats.wanted_length, stats.left) == (1.0, 0, 0)
    assert node.torrent.is_complete


def test_web_seeds_are_told_from_other_sources() -> None:
    """One that stands for all of them being off has no name, and is none."""
    sources = [
        SourceStatus(kind=SourceKind.TRACKER, name="http://t/", state=SourceState.WORKING),
        SourceStatus(kind=SourceKind.WEB_SEED, state=SourceState.OFF, message="off"),
        SourceStatus(
            kind=SourceKind.WEB_SEED,
            name="http://w/",
            state=SourceState.FAILING,
            message="HTTP status 503",
            num_bytes=7,
            next_at=9.0,
        ),
    ]
    assert describe_web_seeds(sources, None) == [
        WebSeedInfo(
            url="http://w/",
            state=SourceState.FAILING,
            message="HTTP status 503",
            download_rate=0.0,
            downloaded=7,
            next_at=9.0,
        )
    ]
