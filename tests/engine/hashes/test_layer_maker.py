"""engine.hashes.layer_maker: piece layers of a hybrid from its data (BEP 52; Limit: P13)."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.bencode import decode, encode
from bittern.codec.info import Version
from bittern.codec.merkle import block_hashes, piece_layer_of, root_of
from bittern.codec.metainfo import decode_metainfo
from bittern.core.errors import Inconsistent
from bittern.engine.events import TorrentState
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.engine.hash_peers import Files, HashPeer
from tests.engine.scene import FAST, NAME, PIECE_LENGTH, Node, Scene, until
from tests.engine.test_metadata import FILES


def v1_link(scene: Scene) -> str:
    return f"magnet:?xt=urn:btih:{scene.metainfo.info.info_hash}"


def layers_of(node: Node) -> Mapping[bytes, bytes]:
    found = node.torrent.metainfo
    assert found is not None
    return found.piece_layers


def test_what_was_taken_on_trust_is_read_once(tmp_path: Path, simulate: Simulate) -> None:
    """Pieces that nobody hashed, and no peer that speaks v2."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, files=FILES, version=Version.HYBRID) as scene:
            old = HashPeer(scene, lambda _: None, reserved=FAST)
            node = await scene.node(
                is_seed=True,
                source=v1_link(scene),
                peers=[old.endpoint],
                torrent={"skip_check": True},
                state_dir=tmp_path / "state",
            )
            await node.complete()
            expected = scene.metainfo.piece_layers
            await until(lambda: layers_of(node) == expected)
            [kept] = (tmp_path / "state").rglob("*.torrent")
            await until(lambda: b"piece layers" in kept.read_bytes())
            assert decode_metainfo(kept.read_bytes()).piece_layers == expected
            assert not old.asked

    simulate(main)


def test_files_that_are_not_wanted_get_no_layer(tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, files=FILES, version=Version.HYBRID) as scene:
            old = HashPeer(scene, lambda _: None, reserved=FAST)
            node = await scene.node(
                is_seed=True,
                source=v1_link(scene) + "&so=1",
                peers=[old.endpoint],
                torrent={"skip_check": True},
            )
            await node.complete()
            swarm = node.torrent.swarm
            assert swarm is not None
            swarm.picker.lose(0)
            assert node.torrent.is_complete
            roots = [e.pieces_root for e in scene.metainfo.info.files if not e.is_pad]
            assembly = swarm.assembly
            await until(lambda: assembly._hashes.piece_layers.keys() == set(roots[1:]))
            assert roots[0] not in assembly._hashes.piece_layers

    simulate(main)


def test_a_file_that_is_gone_gets_no_layer(tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, files=FILES, version=Version.HYBRID) as scene:
            old = HashPeer(scene, lambda _: None, reserved=FAST)
            host = scene.add_host()
            folder = tmp_path / host.addresses[0]
            scene.write_content(folder)
            os.truncate(folder / NAME / "a", 5)
            node = await scene.node(
                host=host,
                source=v1_link(scene),
                peers=[old.endpoint],
                torrent={"skip_check": True},
            )
            await node.complete()
            await asyncio.sleep(30)
            assert node.torrent.state is TorrentState.SEEDING
            assert not layers_of(node)

    simulate(main)


def contradict(scene: Scene) -> bytes:
    """Give the torrent the v2 half of other data, its layer included; return that data."""
    other = random.Random(9).randbytes(len(scene.data))
    leaves = block_hashes(other)
    value: Any = decode(scene.raw)
    value[b"info"][b"file tree"][NAME.encode()][b""][b"pieces root"] = root_of(leaves)
    value[b"piece layers"] = {root_of(leaves): piece_layer_of(leaves, PIECE_LENGTH)}
    scene.raw = encode(value)
    return other


@pytest.mark.parametrize("skip_check", [False, True])
def test_data_that_is_not_that_of_the_root(
    skip_check: bool, tmp_path: Path, simulate: Simulate
) -> None:
    """Whether it is hashed as the torrent wakes up or once it is complete."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, version=Version.HYBRID) as scene:
            contradict(scene)
            old = HashPeer(scene, lambda _: None, reserved=FAST)
            node = await scene.node(
                is_seed=True,
                source=v1_link(scene),
                peers=[old.endpoint],
                torrent={"skip_check": skip_check},
            )
            await until(lambda: node.torrent.state is TorrentState.ERROR)
            assert isinstance(node.torrent.error, Inconsistent)
            assert node.torrent.error.good == "v1"

    simulate(main)


def test_a_layer_from_a_peer_that_contradicts_what_is_there(
    tmp_path: Path, simulate: Simulate
) -> None:
    """Pieces were good by v1 when a peer brought the layer, which is that of the root."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, version=Version.HYBRID) as scene:
            other = contradict(scene)
            old = HashPeer(scene, lambda _: None, reserved=FAST)
            host, _ = scene.add_host_with_content(3 * PIECE_LENGTH)
            node = await scene.node(host=host, source=v1_link(scene), peers=[old.endpoint])
            await until(lambda: node.torrent.state is TorrentState.DOWNLOADING)
            assert node.torrent.stats().num_have == 15
            scene.files = {"": other}
            new = HashPeer(scene, Files(scene).answer)
            node.torrent.add_peers([new.endpoint], "user")
            await until(lambda: node.torrent.state is TorrentState.ERROR)
            assert isinstance(node.torrent.error, Inconsistent)
            assert new.asked

    simulate(main)
