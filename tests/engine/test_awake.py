"""Waking a torrent up and putting it to sleep."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.info import Version
from bittern.codec.metainfo import decode_metainfo
from bittern.core.endpoint import Endpoint
from bittern.core.errors import DiskFull
from bittern.core.geometry import BLOCK_LENGTH
from bittern.engine import awake as awake_module
from bittern.engine import events
from bittern.engine.awake import locate
from bittern.engine.config import TorrentConfig
from bittern.engine.events import TorrentState
from bittern.engine.store.reuse import Donor
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.storage.file_paths import Folding
from bittern.testing.disk import CachedCalls, FaultyCalls
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.engine.hash_peers import Files, HashPeer
from tests.engine.scene import NAME, NUM_PIECES, PIECE_LENGTH, Scene, Watch, in_scene, until
from tests.engine.web import BASE, Web
from tests.virtual_time import simulated

FILES = {"a": 100_000, "d/b": 150_000}


@in_scene()
async def test_what_is_on_disk_is_found_and_the_rest_is_wanted(scene: Scene) -> None:
    node = await scene.node(damaged=[5 * PIECE_LENGTH])
    swarm = node.swarm
    assert swarm.picker.num_have == NUM_PIECES - 1
    assert not swarm.picker.have >> (swarm.picker.top - 5) & 1
    assert swarm.assembly.unverified == 0


@in_scene()
async def test_what_is_taken_on_trust_is_unverified(scene: Scene) -> None:
    stranger = scene.add_host()
    node = await scene.node(
        is_seed=True,
        torrent={"skip_check": True},
        peers=[Endpoint(stranger.addresses[0], 1)],
    )
    swarm = node.swarm
    assert swarm.picker.is_seed
    assert swarm.assembly.unverified == swarm.picker.have


@in_scene(piece_length=1 << 20)
async def test_blocks_of_a_piece_in_progress_outlive_a_clean_end(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, max_upload_rate=100_000)
    state = scene.state_dir
    first = await scene.node(peers=[seed], state_dir=state)
    await asyncio.sleep(5)
    kept = first.swarm.assembly.partial_blocks()
    assert sum(map(len, kept.values())) > 5
    await first.close()
    again = await scene.session(scene.add_host(), state_dir=state)
    torrent = await again.add(scene.raw, TorrentConfig(output=first.folder))
    swarm = torrent.swarm
    assert swarm is not None
    restored = swarm.assembly.partial_blocks()
    assert restored.keys() == kept.keys()
    assert all(set(kept[index]) <= set(restored[index]) for index in kept)


@in_scene()
async def test_a_folder_is_asked_once_which_names_fall_together(scene: Scene) -> None:
    node = await scene.node(is_seed=True)
    services = node.session._services
    assert list(services.folding) == [node.folder]
    content = await locate(services, scene.metainfo, node.torrent.config)
    assert content.paths == [(NAME,)]
    assert list(services.folding) == [node.folder]


@in_scene()
async def test_of_very_many_folders_those_used_last_are_remembered(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torrent may come to a folder of its own, each of thousands in the course of months."""
    monkeypatch.setattr(awake_module, "MAX_FOLDINGS", 3)
    node = await scene.node(is_seed=True)
    services, config = node.session._services, node.torrent.config
    folders = [scene.folder / str(number) for number in range(5)]
    for folder in folders:
        await locate(services, scene.metainfo, replace(config, output=folder))
        await locate(services, scene.metainfo, config)
    assert list(services.folding) == [*folders[-2:], node.folder]


@in_scene(files={"aux.c": 1_000, "a?": 1_000})
async def test_what_was_begun_under_other_names_goes_on_under_them(
    scene: Scene, tmp_path: Path
) -> None:
    """On a volume with the rules of Windows; such names are given to what begins there."""
    node = await scene.node(is_seed=True)
    services, config = node.session._services, node.torrent.config
    services.folding[node.folder] = services.folding[tmp_path] = Folding(True, False, refuses=True)

    async def names(output: Path) -> set[str]:
        content = await locate(services, scene.metainfo, replace(config, output=output))
        return {path[-1] for path in content.paths}

    assert await names(tmp_path) == {"_aux.c", "a_"}
    assert await names(node.folder) == {"aux.c", "a?"}
    (node.folder / NAME / "_aux.c").touch()
    assert await names(node.folder) == {"_aux.c", "a_"}


@in_scene(files=FILES)
async def test_what_is_found_elsewhere_is_told_and_taken_on_trust(
    scene: Scene, tmp_path: Path
) -> None:
    """Limit: F5. The copy is hashed again before its first upload."""
    node = await scene.node(
        torrent={"reuse_from": (tmp_path / "source",), "paused": True},
    )
    watch = Watch(node.torrent)
    await node.torrent.resume()
    await node.complete()
    assert node.has_content()
    assert [(each.index, each.path, each.length) for each in watch.of(events.FileReused)] == [
        (0, "a", FILES["a"]),
        (1, "d/b", FILES["d/b"]),
    ]
    swarm = node.swarm
    assert swarm.assembly.unverified == swarm.picker.have


@in_scene(files=FILES)
async def test_only_a_torrent_that_lacks_something_looks_at_the_others(scene: Scene) -> None:
    """R22. Each of thousands that start again as they were would look at all of them."""
    node = await scene.node(is_seed=True)
    num_looks = 0

    def others() -> Iterator[Donor]:
        nonlocal num_looks
        num_looks += 1
        yield from node.session.torrents

    services: Any = node.session._services
    services.torrents = others
    for lacks in (False, True):
        await node.torrent.pause()
        if lacks:
            (node.folder / NAME / "a").unlink()
        await node.torrent.resume()
        assert node.torrent.is_complete is not lacks
        assert num_looks == lacks


@pytest.mark.parametrize("where", ["torrent", "settings", "switched off"])
@simulated
async def test_web_seeds_of_the_torrent_and_of_its_settings_are_used(
    loop: VirtualLoop, where: str, tmp_path: Path
) -> None:
    """BEP 19."""
    given = (BASE,) if where != "settings" else ()
    async with Scene(loop, tmp_path, web_seeds=given) as scene:
        web = Web.of(scene)
        wishes: dict[str, Any] = {"web_seeds": (BASE,)} if where == "settings" else {}
        wishes["enable_web_seeds"] = where != "switched off"
        node = await scene.node(make=web.session, torrent=wishes)
        if where == "switched off":
            await asyncio.sleep(60)
            assert node.torrent.stats().num_have == 0
        else:
            await node.complete(within=60)
            assert node.has_content()


# --- v2 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_there", [False, True])
@in_scene(files=FILES, version=Version.HYBRID)
async def test_the_layers_of_a_hybrid_come_from_peers_or_from_what_is_there(
    scene: Scene, is_there: bool
) -> None:
    """A link says enough to begin with; what is kept at last is the whole .torrent file."""
    peer = HashPeer(scene, Files(scene).answer)
    node = await scene.node(
        is_seed=is_there,
        source=scene.link,
        peers=[peer.endpoint],
        state_dir=scene.state_dir,
    )

    def has_layers() -> bool:
        found = node.torrent.metainfo
        return found is not None and found.piece_layers == scene.metainfo.piece_layers

    await until(has_layers)
    assert node.torrent.is_complete is is_there
    assert bool(peer.asked) is not is_there
    await node.close()
    [kept] = (scene.state_dir).rglob("*.torrent")
    assert decode_metainfo(kept.read_bytes()).piece_layers == scene.metainfo.piece_layers


@in_scene(version=Version.V2)
async def test_of_a_damaged_piece_only_the_bad_block_is_fetched(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    node = await scene.node(damaged=[5 * PIECE_LENGTH], peers=[seed])
    await node.complete()
    assert node.has_content()
    assert node.torrent.num_downloaded == BLOCK_LENGTH


@in_scene()
async def test_what_earlier_runs_moved_is_told_apart(scene: Scene) -> None:
    """Also of a link, whose first blocks come in the very wake-up that ends its metadata phase."""
    seed = await scene.node(is_seed=True)
    for earlier in (0, len(scene.data)):
        node = await scene.node(source=scene.link, peers=[seed], state_dir=scene.state_dir)
        await node.complete()
        stats = node.torrent.stats()
        assert stats.downloaded == len(scene.data) + earlier
        assert stats.earlier_downloaded == earlier
        await node.close()  # the next one has another folder, and begins anew


# --- symbolic links --------------------------------------------------------------------------


def linked_scene(loop: VirtualLoop, folder: Path, version: Version) -> Scene:
    """Return a scene whose torrent holds two files and links to one of them."""
    scene = Scene(loop, folder, files={"f": 100_000, "d/g": 70_000}, version=version)
    source = folder / "source" / NAME
    (source / "link").symlink_to("f")
    (source / "d/up").symlink_to("../f")
    (source / "folder").symlink_to("d")
    options = CreateOptions(version=version, piece_length=PIECE_LENGTH, keep_symlinks=True)
    scene.raw = create_torrent(source, options=options, num_threads=1)
    return scene


@pytest.mark.parametrize("version", list(Version))
@simulated
async def test_links_are_made_on_request_once_all_data_is_there(
    loop: VirtualLoop, version: Version, tmp_path: Path
) -> None:
    """Limit: P11. Only those to a regular file of the torrent; without a request none at all."""
    async with linked_scene(loop, tmp_path, version) as scene:
        seed = await scene.node(is_seed=True, torrent={"make_links": True})
        leecher = await scene.node(peers=[seed], torrent={"make_links": True})
        other = await scene.node(peers=[seed])
        whole = await scene.node(is_seed=True)
        for node in (leecher, other):
            await node.complete()
            assert node.has_content()
        for folder in (seed.folder, leecher.folder):
            assert (folder / NAME / "link").readlink() == Path("f")
            assert (folder / NAME / "d/up").readlink() == Path("../f")
            assert not os.path.lexists(folder / NAME / "folder")
        for folder in (other.folder, whole.folder):
            assert not os.path.lexists(folder / NAME / "link")
        assert leecher.torrent.is_complete


@simulated
async def test_no_links_while_something_is_missing(loop: VirtualLoop, tmp_path: Path) -> None:
    async with linked_scene(loop, tmp_path, Version.V2) as scene:
        seed = await scene.node(is_seed=True)
        wishes = {"make_links": True, "files": frozenset([2])}
        leecher = await scene.node(peers=[seed], torrent=wishes)
        await leecher.complete()
        assert not os.path.lexists(leecher.folder / NAME / "link")
        leecher.torrent.change(files=None)
        await leecher.complete()
        assert os.path.lexists(leecher.folder / NAME / "link")


def test_files_that_cannot_be_closed_in_order_do_not_keep_a_torrent_awake(
    tmp_path: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            seed, calls = await scene.node(is_seed=True), CachedCalls()
            leecher = await scene.node(peers=[seed], os_calls=calls)
            await leecher.complete()
            close = calls.close

            def fail(fd: int) -> None:
                close(fd)
                raise OSError(errno.EIO, "input/output error")

            calls.close = fail
            await leecher.torrent.pause()
            calls.close = close
            assert leecher.torrent.state is TorrentState.PAUSED
            await leecher.torrent.resume()
            assert leecher.torrent.is_complete

    simulate(main)
    assert "closing files of" in caplog.text


@in_scene()
async def test_what_has_no_room_leaves_no_file_open(scene: Scene) -> None:
    """That was one more at each retry; and what was deleted kept its room."""
    calls = FaultyCalls(room=0)
    node = await scene.node(
        is_seed=True, os_calls=calls, preallocate=True, torrent={"paused": True}
    )
    os.truncate(node.folder / NAME, 3 * PIECE_LENGTH)
    await node.torrent.resume()
    assert isinstance(node.torrent.error, DiskFull)
    await until(lambda: len(node.session._services.handles) == 0)
