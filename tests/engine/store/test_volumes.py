"""What becomes of a torrent while the volume is not mounted that its files are on. Limit: F6."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bittern.core.errors import DiskFull, StorageError, VolumeMissing
from bittern.engine import events
from bittern.engine.condition import RETRY_INTERVAL
from bittern.engine.config import TorrentConfig
from bittern.engine.events import TorrentState
from bittern.engine.reason import ReasonCode
from bittern.engine.store.records import read_volume, with_volume
from bittern.engine.store.volumes import is_mended
from bittern.engine.torrent import Torrent
from bittern.testing.disk import CachedCalls
from tests.engine.scene import NAME, Node, Scene, Watch, in_scene, until
from tests.storage.places import Mounts


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> Mounts:
    return Mounts(monkeypatch)


class Disk:
    """A volume that is mounted where a host's files go, and can be taken away."""

    def __init__(self, scene: Scene, mounts: Mounts) -> None:
        self.host = scene.add_host()
        self.folder = scene.folder_of(self.host)
        self.folder.mkdir()
        self._mounts = mounts
        self._away = scene.folder / "away"
        mounts.add(self.folder)

    def unmount(self, *, leaves_folder: bool = True) -> None:
        self._mounts.discard(self.folder)
        self.folder.rename(self._away)
        if leaves_folder:
            self.folder.mkdir()

    def mount(self) -> None:
        if self.folder.exists():
            self.folder.rmdir()
        self._away.rename(self.folder)
        self._mounts.add(self.folder)


async def fetched(scene: Scene, disk: Disk, seed: Node) -> None:
    """Fetch the torrent to a disk, in a session that has ended then."""
    node = await scene.node(peers=[seed], host=disk.host, state_dir=scene.state_dir)
    await node.complete()
    await node.close()


async def added_again(
    scene: Scene, seed: Node, output: Path, *, os_calls: Any = None, **config: Any
) -> tuple[Torrent, Watch]:
    """Add the torrent to another session with the same state folder."""
    session = await scene.session(scene.add_host(), state_dir=scene.state_dir, os_calls=os_calls)
    settings = TorrentConfig(output=output, peers=(seed.endpoint,), paused=True, **config)
    torrent = await session.add(scene.raw, settings)
    watch = Watch(torrent)
    await torrent.start()
    return torrent, watch


@pytest.mark.parametrize("skip_check", [False, True])
@pytest.mark.parametrize("leaves_folder", [False, True])
@in_scene()
async def test_a_torrent_waits_for_its_volume_and_goes_on_by_itself(
    scene: Scene, mounts: Mounts, leaves_folder: bool, skip_check: bool
) -> None:
    seed, disk = await scene.node(is_seed=True), Disk(scene, mounts)
    await fetched(scene, disk, seed)
    disk.unmount(leaves_folder=leaves_folder)
    torrent, watch = await added_again(scene, seed, disk.folder, skip_check=skip_check)
    await asyncio.sleep(10 * RETRY_INTERVAL)
    assert torrent.state is TorrentState.ERROR
    assert isinstance(torrent.error, VolumeMissing)
    assert torrent.error.path == str(disk.folder)
    assert len(watch.of(events.StorageFailed)) == 1, "nobody hears of each look"
    assert [each.state for each in watch.of(events.StateChanged)][-1] is TorrentState.ERROR
    found = torrent.diagnose()
    (reason,) = found.reasons
    assert reason.code is ReasonCode.VOLUME_MISSING
    assert str(disk.folder) in str(reason)
    assert found.waits_for == "its volume"
    assert (torrent.num_connections, torrent.num_downloaded) == (0, 0)
    assert disk.folder.exists() is leaves_folder
    assert not leaves_folder or list(disk.folder.iterdir()) == []
    disk.mount()
    await asyncio.sleep(RETRY_INTERVAL)
    assert torrent.is_complete
    assert watch.of(events.CheckProgressed) == []
    assert torrent.num_downloaded == len(scene.data), "that of the first run"


@in_scene()
async def test_who_has_all_checked_again_has_it_fetched_where_the_volume_was(
    scene: Scene, mounts: Mounts
) -> None:
    seed, disk = await scene.node(is_seed=True), Disk(scene, mounts)
    await fetched(scene, disk, seed)
    disk.unmount()
    torrent, _ = await added_again(scene, seed, disk.folder)
    await torrent.resume()
    assert isinstance(torrent.error, VolumeMissing)
    await torrent.recheck()
    await torrent.wait_complete()
    assert (disk.folder / NAME).read_bytes() == scene.data
    # From then on it is there, as far as anybody knows.
    await torrent.pause()
    (disk.folder / NAME).unlink()
    await torrent.resume()
    await torrent.wait_complete()


def remove_all(disk: Disk) -> Path:
    shutil.rmtree(disk.folder)
    disk.folder.mkdir()
    return disk.folder


def remove_file(disk: Disk) -> Path:
    (disk.folder / NAME).unlink()
    (disk.folder / "another").touch()
    return disk.folder


def choose_another_folder(disk: Disk) -> Path:
    disk.unmount()
    return disk.folder.with_name("another")


@pytest.mark.parametrize("change", [remove_all, remove_file, choose_another_folder])
@in_scene()
async def test_what_was_removed_from_a_volume_that_is_there_is_fetched(
    scene: Scene, mounts: Mounts, change: Callable[[Disk], Path]
) -> None:
    """Nor is it of interest which volume was where the files are not to be."""
    seed, disk = await scene.node(is_seed=True), Disk(scene, mounts)
    await fetched(scene, disk, seed)
    output = change(disk)
    torrent, _ = await added_again(scene, seed, output)
    await torrent.wait_complete()
    assert (output / NAME).read_bytes() == scene.data


@in_scene()
async def test_a_folder_that_was_removed_from_a_volume_is_made_again(
    scene: Scene, mounts: Mounts
) -> None:
    seed = await scene.node(is_seed=True)
    mounts.add(scene.folder)
    host = scene.add_host()
    node = await scene.node(peers=[seed], host=host, state_dir=scene.state_dir)
    await node.complete()
    await node.close()
    shutil.rmtree(node.folder)
    torrent, _ = await added_again(scene, seed, node.folder)
    await torrent.wait_complete()


@in_scene()
async def test_a_torrent_of_which_there_was_nothing_waits_for_no_volume(
    scene: Scene, mounts: Mounts
) -> None:
    disk = Disk(scene, mounts)
    node = await scene.node(host=disk.host, state_dir=scene.state_dir)
    await node.close()
    disk.unmount()
    torrent, _ = await added_again(scene, await scene.node(is_seed=True), disk.folder)
    await torrent.wait_complete()


@in_scene()
async def test_data_that_was_copied_to_where_its_volume_was_needs_that_no_more(
    scene: Scene, mounts: Mounts
) -> None:
    seed, disk = await scene.node(is_seed=True), Disk(scene, mounts)
    await fetched(scene, disk, seed)
    mounts.discard(disk.folder)
    torrent, _ = await added_again(scene, seed, disk.folder)
    assert torrent.is_complete


@in_scene()
async def test_a_volume_may_have_another_number_each_time(scene: Scene, mounts: Mounts) -> None:
    """As have disks at USB, network shares and the folders of containers."""
    seed, disk = await scene.node(is_seed=True), Disk(scene, mounts)
    await fetched(scene, disk, seed)
    calls = CachedCalls()

    def renumbered(call: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def changed(*args: object, **options: object) -> os.stat_result:
            found = call(*args, **options)
            rest: Any = found.__reduce__()  # with times in nanoseconds
            rest = rest[1][1]
            return os.stat_result((*found[:2], found.st_dev + 1, *found[3:]), rest)

        return changed

    calls.stat, calls.fstat = renumbered(calls.stat), renumbered(calls.fstat)
    torrent, watch = await added_again(scene, seed, disk.folder, os_calls=calls)
    assert torrent.is_complete
    assert watch.of(events.CheckProgressed) == []


@in_scene()
async def test_a_record_that_names_no_volume_has_nobody_wait(scene: Scene, mounts: Mounts) -> None:
    """It was made by a version that did not ask."""
    seed, disk = await scene.node(is_seed=True), Disk(scene, mounts)
    await fetched(scene, disk, seed)
    session = await scene.session(scene.add_host(), state_dir=scene.state_dir)
    journal = session._services.journal
    assert journal is not None
    known = await journal.find(scene.info_hash)
    assert known is not None
    assert read_volume(known.record) == disk.folder
    await journal.save(replace(known.record, options=with_volume(known.record.options, None)))
    scene.sessions.remove(session)
    await session.__aexit__(None, None, None)
    disk.unmount()
    torrent, _ = await added_again(scene, seed, disk.folder)
    await torrent.wait_complete()


@in_scene()
async def test_what_waits_for_its_volume_is_not_moved(
    scene: Scene, mounts: Mounts, tmp_path: Path
) -> None:
    seed, disk = await scene.node(is_seed=True), Disk(scene, mounts)
    await fetched(scene, disk, seed)
    disk.unmount()
    torrent, _ = await added_again(scene, seed, disk.folder)
    for relocate in (torrent.move(tmp_path / "new"), torrent.rename_file(0, "new")):
        with pytest.raises(VolumeMissing):
            await relocate
    assert isinstance(torrent.error, VolumeMissing)
    disk.mount()
    await torrent.resume()
    await torrent.move(tmp_path / "new")
    assert torrent.is_complete
    journal = torrent._services.journal
    assert journal is not None
    known = await journal.find(scene.info_hash)
    assert known is not None
    assert read_volume(known.record) == Path(tmp_path.anchor)


@in_scene()
async def test_a_volume_that_goes_while_its_files_are_served_loses_no_piece(
    scene: Scene, mounts: Mounts
) -> None:
    """And what is there when it has come back is as it was: nothing is hashed to find it."""
    disk = Disk(scene, mounts)
    await fetched(scene, disk, await scene.node(is_seed=True))
    # Nothing is open: who has a file open reads on for as long as the system lets him.
    seed = await scene.node(host=disk.host, state_dir=scene.state_dir)
    watch = Watch(seed.torrent)
    disk.unmount(leaves_folder=False)
    leecher = await scene.node(peers=[seed])
    await until(lambda: seed.torrent.state is TorrentState.ERROR)
    assert isinstance(seed.torrent.error, VolumeMissing)
    await asyncio.sleep(3 * RETRY_INTERVAL)
    assert not disk.folder.exists()
    assert watch.of(events.PieceLost) == []
    disk.mount()
    await leecher.complete(within=120)
    assert leecher.has_content()
    assert watch.of(events.CheckProgressed) == []
    assert len(watch.of(events.StorageFailed)) == 1


@in_scene()
async def test_a_volume_that_goes_while_a_torrent_rests_is_missed_when_it_wakes_up(
    scene: Scene, mounts: Mounts
) -> None:
    disk = Disk(scene, mounts)
    seed = await scene.node(is_seed=True, host=disk.host, state_dir=scene.state_dir)
    await until(lambda: seed.torrent.is_resting, within=600)
    disk.unmount()
    leecher = await scene.node(peers=[seed])
    await until(lambda: seed.torrent.state is TorrentState.ERROR)
    disk.mount()
    await leecher.complete(within=120)


@in_scene()
async def test_whoever_pauses_a_torrent_that_waits_has_it_stay_so(
    scene: Scene, mounts: Mounts
) -> None:
    seed, disk = await scene.node(is_seed=True), Disk(scene, mounts)
    await fetched(scene, disk, seed)
    disk.unmount()
    torrent, _ = await added_again(scene, seed, disk.folder)
    await torrent.pause()
    disk.mount()
    await asyncio.sleep(3 * RETRY_INTERVAL)
    assert torrent.state is TorrentState.PAUSED
    assert torrent.diagnose().reasons[0].code is ReasonCode.VOLUME_MISSING
    await torrent.resume()
    assert torrent.is_complete


@in_scene()
async def test_other_errors_need_no_volume_to_be_tried_again(scene: Scene, mounts: Mounts) -> None:
    node = await scene.node()
    disk = node.session._services.disk
    for error in (None, DiskFull("full"), StorageError("?"), VolumeMissing("of no place")):
        assert await is_mended(disk, error)
    missing = VolumeMissing("?", path=str(scene.folder))
    assert not await is_mended(disk, missing)
    mounts.add(scene.folder)
    assert await is_mended(disk, missing)
