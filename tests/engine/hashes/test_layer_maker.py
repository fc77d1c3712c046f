"""engine.hashes.layer_maker: piece layers of a hybrid from its data (BEP 52; Limit: P13)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import pytest

from bittern.codec.info import Version
from bittern.codec.metainfo import decode_metainfo
from bittern.core.errors import Inconsistent
from bittern.engine.events import TorrentState
from bittern.engine.hashes import layer_maker
from bittern.storage import hash_trees
from bittern.storage.base import Storage
from bittern.storage.hashing import PieceHashes
from tests.engine.hash_peers import HashPeer, contradict, node_of_v1_link
from tests.engine.scene import FAST, NAME, Node, Scene, in_scene, until
from tests.engine.test_metadata import FILES


def layers_of(node: Node) -> Mapping[bytes, bytes]:
    found = node.torrent.metainfo
    assert found is not None
    return found.piece_layers


@in_scene(files=FILES, version=Version.HYBRID)
async def test_what_was_taken_on_trust_is_read_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces that nobody hashed, and no peer that speaks v2; though the disk is slow."""
    read: list[int] = []
    really_read = hash_trees.read_piece_hash

    def read_piece_hash(storage: Storage, hashes: PieceHashes, index: int) -> bytes:
        read.append(index)
        return really_read(storage, hashes, index)

    monkeypatch.setattr(layer_maker, "read_piece_hash", read_piece_hash)
    old = HashPeer(scene, lambda _: None, reserved=FAST)
    node = await scene.node(
        is_seed=True,
        source=scene.link_by("btih"),
        peers=[old],
        torrent={"skip_check": True},
        state_dir=scene.state_dir,
        worker_delay=3.0,
    )
    await node.complete()
    expected = scene.metainfo.piece_layers
    await until(lambda: layers_of(node) == expected)
    [kept] = (scene.state_dir).rglob("*.torrent")

    def kept_layers() -> Mapping[bytes, bytes]:
        return decode_metainfo(kept.read_bytes(), may_lack_layers=True).piece_layers

    await until(lambda: kept_layers() == expected, within=120)
    assert not old.asked
    await asyncio.sleep(10)
    assert len(read) == len(set(read)) == sum(map(len, expected.values())) // 32


@in_scene(files=FILES, version=Version.HYBRID)
async def test_files_that_are_not_wanted_get_no_layer(scene: Scene) -> None:
    old = HashPeer(scene, lambda _: None, reserved=FAST)
    node = await scene.node(
        is_seed=True,
        source=scene.link_by("btih") + "&so=2-9",
        peers=[old.endpoint],
        torrent={"skip_check": True},
    )
    await node.complete()
    swarm = node.swarm
    swarm.picker.lose(0)
    assert node.torrent.is_complete
    roots = [e.pieces_root for e in scene.metainfo.info.files if not e.is_pad]
    assembly = swarm.assembly
    await until(lambda: assembly._hashes.piece_layers.keys() == set(roots[1:]))
    assert roots[0] not in assembly._hashes.piece_layers


@in_scene(files=FILES, version=Version.HYBRID)
async def test_a_file_that_is_gone_gets_no_layer(scene: Scene) -> None:
    host = scene.add_host()
    folder = scene.folder_of(host)
    scene.write_content(folder)
    os.truncate(folder / NAME / "a", 5)
    node = await node_of_v1_link(
        scene,
        host=host,
        torrent={"skip_check": True},
    )
    await node.complete()
    await asyncio.sleep(30)
    assert node.torrent.state is TorrentState.SEEDING
    assert not layers_of(node)


@in_scene(files=FILES, version=Version.HYBRID)
async def test_a_torrent_that_is_paused_meanwhile_gets_its_layers_later(scene: Scene) -> None:
    """Nothing is done with what was read for a torrent that does not run any more."""
    node = await node_of_v1_link(
        scene,
        is_seed=True,
        torrent={"skip_check": True},
        worker_delay=5.0,
        state_dir=scene.state_dir,
    )
    await node.complete()
    swarm = node.swarm
    hashes = swarm.assembly._hashes
    await asyncio.sleep(3)  # a file is being read
    await node.torrent.pause()
    await asyncio.sleep(60)
    assert not hashes.piece_layers
    await node.torrent.resume()
    await until(lambda: layers_of(node) == scene.metainfo.piece_layers, within=120)


@in_scene(files=FILES, version=Version.HYBRID)
async def test_a_bug_while_reading_is_not_hidden(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F17. Nor is it repeated."""

    def read_piece_hash(*_: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(layer_maker, "read_piece_hash", read_piece_hash)
    node = await node_of_v1_link(
        scene,
        is_seed=True,
        torrent={"skip_check": True},
    )
    await until(lambda: bool(scene.loop.failures))
    assert "ZeroDivisionError" in scene.loop.failures.pop()
    assert node.torrent.state is TorrentState.SEEDING
    await asyncio.sleep(10)
    assert not scene.loop.failures


@pytest.mark.parametrize("skip_check", [False, True])
@in_scene(version=Version.HYBRID)
async def test_data_that_is_not_that_of_the_root(scene: Scene, skip_check: bool) -> None:
    """Whether it is hashed as the torrent wakes up or once it is complete."""
    contradict(scene)
    node = await node_of_v1_link(
        scene,
        is_seed=True,
        torrent={"skip_check": skip_check},
    )
    await until(lambda: node.torrent.state is TorrentState.ERROR)
    assert isinstance(node.torrent.error, Inconsistent)
    assert node.torrent.error.good == "v1"
