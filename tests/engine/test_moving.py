"""Content moved to another folder while its torrent is in a session."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.info import Version
from bittern.core.errors import ConfigError, StorageError
from bittern.engine.config import TorrentConfig
from bittern.engine.events import TorrentState
from tests.engine.scene import NAME, Scene, in_scene, until

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
async def test_files_have_moved_also_when_the_journal_cannot_note_it(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The torrent went on in the old place, and began anew there."""
    seed = await scene.node(is_seed=True, state_dir=scene.state_dir)
    journal = seed.session._services.journal
    assert journal is not None
    save = journal.save

    async def fail(*_: Any) -> None:
        monkeypatch.setattr(journal, "save", save)
        raise StorageError("no room on the volume")

    monkeypatch.setattr(journal, "save", fail)
    await seed.torrent.move(tmp_path / "new")
    assert journal.save == save, "it was told"
    assert seed.torrent.config.output == tmp_path / "new"
    assert seed.torrent.is_complete


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
async def test_a_check_is_called_off_for_it_and_done_in_the_new_place(
    scene: Scene, tmp_path: Path
) -> None:
    seed = await scene.node(is_seed=True, worker_delay=10.0)
    checking = scene.spawn(seed.torrent.recheck())
    await until(lambda: seed.torrent.state is TorrentState.CHECKING)
    await seed.torrent.move(tmp_path / "new")
    await checking
    assert seed.torrent.is_complete
    assert not (seed.folder / NAME).exists()
    seed.folder = tmp_path / "new"
    assert seed.has_content()


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


# --- other names ------------------------------------------------------------------------------


def renamed(scene: Scene, folder: Path, **places: str) -> bool:
    """Tell whether a folder has the scene's files where they are now, and nothing else."""
    wanted = {places.get(name[-1], f"{NAME}/{name}"): data for name, data in scene.files.items()}
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    return found == wanted


async def rename_while_it_comes(scene: Scene, part_suffix: str | None) -> None:
    seed = await scene.node(is_seed=True)
    paths = [entry.path for entry in scene.metainfo.info.files]
    second = paths.index(("b", "c"))  # a hybrid has padding before it
    state: dict[str, Any] = {"state_dir": scene.state_dir, "part_suffix": part_suffix}
    slow = {"max_download_rate": 100_000}
    leecher = await scene.node(peers=[seed], torrent=slow, **state)
    await asyncio.sleep(4)
    torrent, folder = leecher.torrent, leecher.folder
    left = torrent.num_left
    assert 0 < left < len(scene.data)
    await torrent.rename_file(second, "elsewhere/deep/mine")
    assert torrent.state is TorrentState.DOWNLOADING
    assert torrent.config.renames == {second: "elsewhere/deep/mine"}
    assert (torrent.num_left, torrent.num_checked) == (left, 0)
    assert not (folder / NAME / "b").exists()
    await asyncio.sleep(1)
    left = torrent.num_left
    await leecher.close()
    # Nobody tells the next run of the name but the state folder.
    again = await scene.node(host=leecher.host, peers=[seed], torrent=slow, **state)
    assert again.torrent.config.renames == {second: "elsewhere/deep/mine"}
    assert 0 < again.torrent.num_left <= left
    assert again.torrent.num_checked == 0
    again.torrent.change(max_download_rate=None)
    await again.complete(within=60)
    assert renamed(scene, folder, c="elsewhere/deep/mine")
    # A seed goes on with it, also under a third name, and gives it to others.
    await again.torrent.rename_file(second, f"{NAME}/third")
    await again.torrent.rename_file(0, f"{NAME}/first")
    assert again.torrent.is_complete
    assert renamed(scene, folder, c=f"{NAME}/third", a=f"{NAME}/first")
    await again.torrent.rename_file(0, f"{NAME}/a")
    await seed.close()
    other = await scene.node(peers=[again])
    await other.complete()
    assert other.has_content()
    await again.torrent.move(folder.with_name("moved"))
    assert again.torrent.is_complete
    assert renamed(scene, folder.with_name("moved"), c=f"{NAME}/third")
    await again.session.remove(again.torrent, delete_data=True)
    assert not list(folder.with_name("moved").iterdir())


@pytest.mark.parametrize("part_suffix", [None, ".part"])
@in_scene(files=FILES, version=Version.V1)
async def test_a_file_is_renamed_while_it_comes_v1(scene: Scene, part_suffix: str | None) -> None:
    await rename_while_it_comes(scene, part_suffix)


@pytest.mark.parametrize("part_suffix", [None, ".part"])
@in_scene(files=FILES, version=Version.V2)
async def test_a_file_is_renamed_while_it_comes_v2(scene: Scene, part_suffix: str | None) -> None:
    await rename_while_it_comes(scene, part_suffix)


@in_scene(files=FILES, version=Version.HYBRID)
async def test_a_file_is_renamed_while_it_comes_hybrid(scene: Scene) -> None:
    await rename_while_it_comes(scene, None)


@pytest.mark.parametrize(
    ("index", "path"),
    [(0, "../a"), (0, f"{NAME}/b"), (0, f"{NAME}/b/c"), (0, ""), (2, "x"), (-1, "x")],
)
@in_scene(files=FILES)
async def test_a_name_that_cannot_be_changes_nothing(scene: Scene, index: int, path: str) -> None:
    seed = await scene.node(is_seed=True)
    with pytest.raises(ConfigError):
        await seed.torrent.rename_file(index, path)
    assert seed.torrent.is_complete
    assert seed.torrent.config.renames == {}
    assert seed.has_content()


@in_scene(files=FILES)
async def test_nothing_is_renamed_over_something_else(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    (seed.folder / "mine").write_text("mine")
    with pytest.raises(StorageError, match="something is there already"):
        await seed.torrent.rename_file(0, "mine")
    assert (seed.folder / "mine").read_text() == "mine"
    assert seed.torrent.is_complete
    assert seed.has_content()


@in_scene(files=FILES)
async def test_names_may_be_given_at_the_start(scene: Scene) -> None:
    """And of a torrent that is paused, where the state folder alone knows the name."""
    seed = await scene.node(is_seed=True)
    node = await scene.node(
        peers=[seed], torrent={"renames": {0: "mine"}}, state_dir=scene.state_dir
    )
    await node.complete()
    assert renamed(scene, node.folder, a="mine")
    await node.close()
    again = await scene.node(host=node.host, torrent={"paused": True}, state_dir=scene.state_dir)
    await again.torrent.rename_file(1, "yours")
    assert renamed(scene, node.folder, a="mine", c="yours")
    await again.torrent.resume()
    assert again.torrent.is_complete
    assert again.torrent.num_checked == 0
    await again.torrent.pause()
    await again.session.remove(again.torrent, delete_data=True)
    assert not list(node.folder.iterdir())


@in_scene(files=FILES)
async def test_before_the_metadata_is_known_there_is_nothing_to_rename(scene: Scene) -> None:
    node = await scene.node(source=str(scene.info_hash))
    with pytest.raises(ConfigError, match="not known yet"):
        await node.torrent.rename_file(0, "mine")
    assert node.torrent.state is TorrentState.METADATA


@in_scene(files=FILES)
async def test_names_belong_to_their_place(scene: Scene, tmp_path: Path) -> None:
    """Content in another folder, as the user says now, has the torrent's own names."""
    seed = await scene.node(is_seed=True, state_dir=scene.state_dir)
    await seed.torrent.rename_file(0, "mine")
    await seed.close()
    scene.write_content(tmp_path / "other")
    again = await scene.session(scene.add_host(), state_dir=scene.state_dir)
    torrent = await again.add(scene.raw, TorrentConfig(output=tmp_path / "other"))
    assert torrent.is_complete
    assert torrent.config.renames == {}


@in_scene(files=FILES)
async def test_what_is_changed_meanwhile_holds(scene: Scene) -> None:
    """While content is moved, and while the state folder is asked for names."""
    seed = await scene.node(is_seed=True, state_dir=scene.state_dir, worker_delay=1.0)
    renaming = asyncio.ensure_future(seed.torrent.rename_file(0, "mine"))
    limits: list[int] = []
    while not renaming.done():
        limits.append(1_000 + len(limits))
        seed.torrent.change(max_upload_rate=limits[-1])
        await asyncio.sleep(0.3)
        assert seed.torrent.config.max_upload_rate == limits[-1]
    await renaming
    assert len(limits) > 5
    assert seed.torrent.config.renames == {0: "mine"}
    await seed.close()
    session = await scene.session(seed.host, state_dir=scene.state_dir, worker_delay=1.0)
    adding = asyncio.ensure_future(session.add(scene.raw, TorrentConfig(output=seed.folder)))
    while not adding.done():
        limits.append(1_000 + len(limits))
        for torrent in session.torrents:
            torrent.change(max_upload_rate=limits[-1])
        await asyncio.sleep(0.3)
    torrent = await adding
    assert torrent.config.max_upload_rate == limits[-1]
    assert torrent.config.renames == {0: "mine"}
    assert torrent.is_complete


@in_scene(files=FILES)
async def test_who_stops_waiting_for_a_move_finds_it_done_or_not_begun(
    scene: Scene, tmp_path: Path
) -> None:
    """A job that moves files cannot be called back: the torrent must know where they are then."""
    seed = await scene.node(is_seed=True, worker_delay=1.0, state_dir=scene.state_dir)
    places = set()
    for number in range(16):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(number + 0.5):
                await seed.torrent.move(tmp_path / str(number))
        await seed.torrent.resume()
        assert seed.torrent.is_complete
        seed.folder = seed.torrent.config.output
        places.add(seed.folder.name)
        assert seed.has_content()
    assert 1 < len(places) < 16
