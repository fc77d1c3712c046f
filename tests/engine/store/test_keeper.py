"""What a torrent has on disk: trusted, hashed, kept."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bittern.core.geometry import Geometry
from bittern.core.ids import InfoHash
from bittern.engine.config import TorrentConfig
from bittern.engine.events import CheckProgressed
from bittern.engine.session import Session
from bittern.engine.store.keeper import _read_partial, make_record
from bittern.testing.loop import VirtualLoop
from tests.engine.scene import NAME, NUM_PIECES, Node, Scene

Simulate = Callable[..., Any]


async def add_again(scene: Scene, node: Node, state: Path) -> tuple[Any, int]:
    """End a node's session, add its torrent to a new one, and count the hashed pieces."""
    if node.session in scene.sessions:
        await node.close()
    session: Session = await scene.session(scene.add_host(), state_dir=state)
    torrent = await session.add(scene.raw, TorrentConfig(output=node.folder, paused=True))
    listening = torrent.events()
    await torrent.start()
    checked = 0
    torrent.listeners.close()
    async for event in listening:
        if isinstance(event, CheckProgressed):
            checked = max(checked, event.num_checked)
    return torrent, checked


def test_after_a_clean_end_nothing_is_hashed(tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            state = tmp_path / "state"
            node = await scene.node(is_seed=True, state_dir=state)
            torrent, checked = await add_again(scene, node, state)
            assert torrent.is_complete
            assert checked == 0

    simulate(main)


@pytest.mark.parametrize("change", ["touched", "truncated", "moved away", "not resumed"])
def test_what_was_changed_behind_our_back_is_hashed(
    change: str, tmp_path: Path, simulate: Simulate
) -> None:
    """Limit: F5, F9."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            state = tmp_path / "state"
            node = await scene.node(is_seed=True, state_dir=state)
            await node.close()
            path = node.folder / NAME
            match change:
                case "touched":
                    os.utime(path, ns=(1, 1))
                case "truncated":
                    os.truncate(path, 3 * 65_536)
                case "moved away":
                    path.unlink()
                case _:
                    state = tmp_path / "another state"
            torrent, checked = await add_again(scene, node, state)
            num_have = {"truncated": 3, "moved away": 0}.get(change, NUM_PIECES)
            assert torrent.stats().num_have == num_have
            assert bool(checked) is (change != "moved away")

    simulate(main)


def test_checkpoints_come_by_time_and_by_length(tmp_path: Path, simulate: Simulate) -> None:
    """Limit: F8."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            seed = await scene.node(is_seed=True, max_upload_rate=100_000)
            slow = await scene.node(
                peers=[seed], state_dir=tmp_path / "by time", checkpoint_interval=5.0
            )
            await asyncio.sleep(8)
            journal = slow.session._services.journal
            assert journal is not None
            found = await journal.find(scene.info_hash)
            assert found is not None
            assert found.have is not None
            assert 0 < len(found.have) <= slow.torrent.stats().num_have < NUM_PIECES

    simulate(main)


def test_a_session_without_a_state_folder_keeps_nothing(tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            seed = await scene.node(is_seed=True)
            leecher = await scene.node(peers=[seed], checkpoint_interval=1.0)
            await leecher.complete(within=60)
            assert leecher.session._services.journal is None
            assert sorted(path.name for path in leecher.folder.iterdir()) == [NAME]

    simulate(main)


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        (None, {}),
        ([1], {}),
        ({"0": [0, 3]}, {0: [0, 3]}),
        ({"\u00b2": [0], "9" * 5000: [0]}, {}),
        ({"0": [0, 4, -1, "x"], "9": [0], "x": [0], "-1": [0], "1": 5}, {0: [0]}),
    ],
)
def test_nonsense_about_pieces_in_progress_is_left_out(stored: Any, found: Any) -> None:
    """Limit: F9."""
    from dataclasses import replace

    record = make_record(InfoHash(bytes(20)), "name", Path("/data"), [("name",)], 0.0)
    geometry = Geometry.contiguous(65_536, 2 * 65_536, 2 * 65_536)
    assert _read_partial(replace(record, options={"partial": stored}), geometry) == found
