"""Waking a torrent up and putting it to sleep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bittern.engine.awake import locate
from bittern.testing.loop import VirtualLoop
from tests.engine.scene import NAME, NUM_PIECES, Scene

Simulate = Callable[..., Any]


def test_what_is_on_disk_is_found_and_the_rest_is_wanted(
    tmp_path: Path, simulate: Simulate
) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            host = scene.add_host()
            folder = tmp_path / host.addresses[0]
            scene.write_content(folder)
            with (folder / NAME).open("r+b") as file:
                file.seek(5 * 65_536)
                file.write(b"not this")
            node = await scene.node(host=host)
            swarm = node.torrent.swarm
            assert swarm is not None
            assert swarm.picker.num_have == NUM_PIECES - 1
            assert not swarm.picker.have >> (swarm.picker.top - 5) & 1
            assert swarm.assembly.unverified == 0

    simulate(main)


def test_what_is_taken_on_trust_is_unverified(tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            stranger = scene.add_host()
            from bittern.core.endpoint import Endpoint

            node = await scene.node(
                is_seed=True,
                torrent={"skip_check": True},
                peers=[Endpoint(stranger.addresses[0], 1)],
            )
            swarm = node.torrent.swarm
            assert swarm is not None
            assert swarm.picker.is_seed
            assert swarm.assembly.unverified == swarm.picker.have

    simulate(main)


def test_blocks_of_a_piece_in_progress_outlive_a_clean_end(
    tmp_path: Path, simulate: Simulate
) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, piece_length=1 << 20) as scene:
            seed = await scene.node(is_seed=True, max_upload_rate=100_000)
            state = tmp_path / "state"
            first = await scene.node(peers=[seed], state_dir=state)
            await asyncio.sleep(5)
            swarm = first.torrent.swarm
            assert swarm is not None
            kept = swarm.assembly.partial_blocks()
            assert sum(map(len, kept.values())) > 5
            await first.close()
            again = await scene.session(scene.add_host(), state_dir=state)
            from bittern.engine.config import TorrentConfig

            torrent = await again.add(scene.raw, TorrentConfig(output=first.folder))
            swarm = torrent.swarm
            assert swarm is not None
            restored = swarm.assembly.partial_blocks()
            assert restored.keys() == kept.keys()
            assert all(set(kept[index]) <= set(restored[index]) for index in kept)

    simulate(main)


def test_a_folder_is_asked_once_which_names_fall_together(
    tmp_path: Path, simulate: Simulate
) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            node = await scene.node(is_seed=True)
            services = node.session._services
            assert list(services.folding) == [node.folder]
            content = await locate(services, scene.metainfo, node.torrent.config)
            assert content.paths == [(NAME,)]
            assert list(services.folding) == [node.folder]

    simulate(main)
