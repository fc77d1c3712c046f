"""Content moved to another folder while its torrent is in a session."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bittern.core.errors import StorageError
from bittern.engine.events import TorrentState
from tests.engine.scene import NAME, Scene, in_scene

FILES = {"a": 400_000, "b/c": 400_000}


@pytest.mark.parametrize("has_journal", [False, True])
@in_scene(files=FILES)
async def test_a_download_goes_on_where_it_was_moved_to(
    scene: Scene, has_journal: bool, tmp_path: Path
) -> None:
    seed = await scene.node(is_seed=True)
    leecher = await scene.node(
        peers=[seed],
        torrent={"max_download_rate": 100_000},
        state_dir=scene.state_dir if has_journal else None,
    )
    await asyncio.sleep(4)
    torrent, old, new = leecher.torrent, leecher.folder, tmp_path / "deep/new"
    left = torrent.num_left
    assert 0 < left < len(scene.data)
    await torrent.move(new)
    assert torrent.state is TorrentState.DOWNLOADING
    assert torrent.config.output == new
    assert torrent.num_left == left
    assert (torrent.num_checked > 0) is not has_journal, "a rename is no news to a journal"
    assert not (old / NAME).exists()
    torrent.change(max_download_rate=None)
    await leecher.complete(within=60)
    leecher.folder = new
    assert leecher.has_content()


@in_scene(files=FILES)
async def test_a_seed_moves_and_goes_on(scene: Scene, tmp_path: Path) -> None:
    seed = await scene.node(is_seed=True, state_dir=scene.state_dir, rest_after=1.0)
    await asyncio.sleep(3)
    assert seed.torrent.is_resting
    await seed.torrent.move(tmp_path / "new")
    leecher = await scene.node(peers=[seed])
    await leecher.complete()


@in_scene(files=FILES)
async def test_content_under_a_name_of_its_own_keeps_it(scene: Scene, tmp_path: Path) -> None:
    data = tmp_path / "source" / NAME
    renamed = data.rename(tmp_path / "source/mine")
    node = await scene.node(torrent={"data_path": renamed})
    assert node.torrent.is_complete
    await node.torrent.move(tmp_path / "new")
    assert node.torrent.is_complete
    assert (tmp_path / "new/mine/b/c").read_bytes() == scene.files["b/c"]


@in_scene(files=FILES)
async def test_nothing_is_moved_over_something_else(scene: Scene, tmp_path: Path) -> None:
    seed = await scene.node(is_seed=True)
    taken = tmp_path / "new" / NAME / "a"
    taken.parent.mkdir(parents=True)
    taken.write_text("mine")
    with pytest.raises(StorageError, match="something is there already"):
        await seed.torrent.move(tmp_path / "new")
    assert taken.read_text() == "mine"
    assert seed.torrent.config.output == seed.folder
    assert seed.torrent.is_complete
    assert seed.has_content()


@in_scene(files=FILES)
async def test_a_place_that_takes_nothing_changes_nothing(scene: Scene, tmp_path: Path) -> None:
    seed = await scene.node(is_seed=True)
    (tmp_path / "file").write_text("mine")
    for wrong in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(StorageError):
            await seed.torrent.move(wrong)
        assert seed.torrent.is_complete
    await seed.torrent.move(seed.folder)
    assert seed.torrent.is_complete
    assert seed.has_content()


@in_scene(files=FILES)
async def test_what_is_paused_stays_so(scene: Scene, tmp_path: Path) -> None:
    seed = await scene.node(is_seed=True)
    await seed.torrent.pause()
    await seed.torrent.move(tmp_path / "new")
    assert seed.torrent.state is TorrentState.PAUSED
    assert not (seed.folder / NAME).exists()
    await seed.torrent.resume()
    assert seed.torrent.is_complete


@in_scene(files=FILES)
async def test_before_the_metadata_is_known_there_is_nothing_to_move(
    scene: Scene, tmp_path: Path
) -> None:
    seed = await scene.node(is_seed=True)
    node = await scene.node(source=str(scene.info_hash))
    await node.torrent.move(tmp_path / "new")
    assert node.torrent.state is TorrentState.METADATA
    node.torrent.add_peers([seed.endpoint], "user")
    await node.complete()
    node.folder = tmp_path / "new"
    assert node.has_content()
