"""engine.store.reuse: what a new torrent takes from other torrents and from folders."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.info import Version
from bittern.codec.magnet import Magnet, parse_magnet
from bittern.engine.config import TorrentConfig
from bittern.engine.events import FileCompleted, FileReused, TorrentState
from bittern.engine.torrent import Torrent
from bittern.storage.adopt import ReuseHow, is_same_file
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.testing.loop import VirtualLoop
from tests.engine.hash_peers import Files, HashPeer
from tests.engine.scene import (
    GIVEN,
    NAME,
    PIECE_LENGTH,
    Node,
    Scene,
    Watch,
    damage,
    in_scene,
    until,
)
from tests.virtual_time import simulated

OLD = {"a": 100_000, "b": 40_000, "c/d": 200_000}


def make_new(scene: Scene, **changed: bytes) -> bytes:
    """Return the .torrent of the scene's files with some replaced, and those files put away."""
    other = Scene(scene.loop, scene.folder / "new", files={"x": 1})
    other.files = {**scene.files, **changed}
    root = scene.folder / "new" / "source" / NAME
    (root / "x").unlink()
    other.write_content(scene.folder / "new" / "source")
    options = CreateOptions(version=Version.V2, piece_length=32_768, name="changed")
    return create_torrent(root, options=options, num_threads=1)


async def add_new(node: Node, raw: bytes, folder: Path, **config: Any) -> tuple[Torrent, Watch]:
    torrent = await node.session.add(raw, TorrentConfig(output=folder, paused=True, **config))
    watch = Watch(torrent)
    await torrent.resume()
    return torrent, watch


def indices(watch: Watch) -> list[int]:
    return [event.index for event in watch.of(FileReused)]


@pytest.mark.parametrize("version", [Version.V2, Version.HYBRID])
@in_scene(files=OLD, version=GIVEN)
async def test_files_of_another_torrent_are_taken_whatever_its_version_and_pieces(
    scene: Scene, tmp_path: Path
) -> None:
    raw = make_new(scene, b=b"other" * 8_000)
    node = await scene.node(is_seed=True)
    torrent, watch = await add_new(node, raw, tmp_path / "out")
    assert indices(watch) == [0, 2]
    stats = torrent.stats()
    assert stats.state is TorrentState.DOWNLOADING
    assert stats.num_have == 4 + 7
    assert torrent.num_left == 40_000
    assert (tmp_path / "out" / "changed" / "c" / "d").read_bytes() == scene.files["c/d"]
    assert torrent.swarm is not None
    assert torrent.swarm.assembly.unverified == torrent.have_bits  # F5


@pytest.mark.parametrize("first", [Version.V1, Version.HYBRID])
@pytest.mark.parametrize("second", [Version.V1, Version.HYBRID])
@simulated
async def test_a_v1_file_is_taken_where_another_torrent_cuts_it_alike(
    loop: VirtualLoop, first: Version, second: Version, tmp_path: Path
) -> None:
    """Whether the other one is at work or rests; torrents of other pieces have nothing to give."""
    async with Scene(loop, tmp_path, version=first) as scene:
        node = await scene.node(is_seed=True, state_dir=tmp_path / "state", rest_after=1)
        source = tmp_path / "source" / NAME
        for number, piece_length in enumerate((PIECE_LENGTH, 2 * PIECE_LENGTH)):
            options = CreateOptions(version=second, piece_length=piece_length, name="n")
            raw = create_torrent(source, options=options, num_threads=1)
            torrent, watch = await add_new(node, raw, tmp_path / str(number))
            is_alike = piece_length == PIECE_LENGTH or first is second is Version.HYBRID
            assert torrent.is_complete is is_alike
            assert indices(watch) == [0] * is_alike
            await node.session.remove(torrent)
            await until(lambda: node.torrent.is_resting)


@pytest.mark.parametrize("version", [Version.V2, Version.HYBRID])
@in_scene(files=OLD, version=GIVEN)
async def test_a_file_that_another_torrent_completes_is_taken_at_once(
    scene: Scene, tmp_path: Path
) -> None:
    """Both are on their way; the one that nobody has gets two of its files from the other."""
    raw = make_new(scene, b=b"other" * 8_000)
    seed = await scene.node(is_seed=True, max_upload_rate=50_000)
    node = await scene.node(peers=[seed])
    torrent, watch = await add_new(node, raw, tmp_path / "out")
    assert torrent.stats().num_have == 0
    await node.complete()
    await until(lambda: torrent.num_left == 40_000)
    assert sorted(indices(watch)) == [0, 2]
    lengths = {event.index: event.length for event in watch.of(FileReused)}
    assert lengths == {0: 100_000, 2: 200_000}
    for name in ("a", "c/d"):
        path = tmp_path / "out" / "changed" / name
        await until(path.exists)
        assert path.read_bytes() == scene.files[name]
    assert torrent.swarm is not None
    assert torrent.swarm.assembly.unverified == torrent.have_bits  # F5
    assert sorted(event.index for event in watch.of(FileCompleted)) == [0, 2]


@in_scene(files=OLD, version=Version.V2)
async def test_what_is_on_its_way_already_is_left_to_those_who_send_it(
    scene: Scene, tmp_path: Path
) -> None:
    """Two downloads of one torrent's file under two names: each byte comes once, or is taken."""
    raw = make_new(scene)
    seed = await scene.node(is_seed=True)
    other_seed = await scene.node(is_seed=True, max_upload_rate=20_000)
    other = await other_seed.session.add(
        raw, TorrentConfig(output=tmp_path / "seed", reuse_from=(tmp_path / "source",))
    )
    assert other.is_complete
    node = await scene.node(peers=[seed])
    torrent, watch = await add_new(node, raw, tmp_path / "out", peers=(other_seed.endpoint,))
    await node.complete()
    async with asyncio.timeout(60):
        await torrent.wait_complete()
    taken = sum(event.length for event in watch.of(FileReused))
    assert 0 < taken < scene.metainfo.info.geometry.total_length
    assert torrent.num_downloaded + taken == sum(OLD.values())
    assert torrent.stats().wasted == 0
    for name, data in scene.files.items():
        assert (tmp_path / "out" / "changed" / name).read_bytes() == data


@in_scene(files=OLD, version=Version.V2)
async def test_a_torrent_at_rest_gives_too(scene: Scene, tmp_path: Path) -> None:
    raw = make_new(scene, b=b"other" * 8_000)
    node = await scene.node(is_seed=True, state_dir=scene.state_dir, rest_after=0)
    await until(lambda: node.torrent.is_resting)
    _, watch = await add_new(node, raw, tmp_path / "out")
    assert indices(watch) == [0, 2]
    assert node.torrent.is_resting


@in_scene(files=OLD, version=Version.V2)
async def test_what_is_taken_is_kept_over_a_restart(scene: Scene, tmp_path: Path) -> None:
    node = await scene.node(state_dir=scene.state_dir)
    torrent, watch = await add_new(
        node,
        make_new(scene),
        tmp_path / "out",
        reuse_from=(tmp_path / "source",),
    )
    assert torrent.is_complete
    assert indices(watch) == [0, 1, 2]
    await node.session.remove(torrent)
    again, later = await add_new(node, make_new(scene), tmp_path / "out")
    assert again.is_complete
    assert not later.of(FileReused)


@pytest.mark.parametrize("version", list(Version))
@in_scene(files=OLD, version=GIVEN)
async def test_folders_serve_torrents_of_all_versions(scene: Scene, tmp_path: Path) -> None:
    node = await scene.node(torrent={"reuse_from": (tmp_path / "source",)})
    assert node.torrent.is_complete
    assert node.has_content()
    assert node.torrent.num_downloaded == 0


@in_scene(files=OLD, version=Version.V2)
async def test_links_are_made_on_request(scene: Scene, tmp_path: Path) -> None:
    source = tmp_path / "source"
    node = await scene.node(torrent={"reuse_from": (source,), "reuse_how": ReuseHow.HARDLINK})
    assert node.torrent.is_complete
    for name in OLD:
        assert is_same_file(node.folder / NAME / name, source / NAME / name)


@in_scene(files=OLD, version=Version.V2)
async def test_files_that_are_not_wanted_are_not_taken(scene: Scene, tmp_path: Path) -> None:
    node = await scene.node(torrent={"reuse_from": (tmp_path / "source",), "files": frozenset({1})})
    assert node.torrent.is_complete
    assert not (node.folder / NAME / "a").exists()


@in_scene(files=OLD, version=Version.V2)
async def test_nothing_is_taken_from_the_session_when_told_so(scene: Scene, tmp_path: Path) -> None:
    node = await scene.node(is_seed=True)
    torrent, watch = await add_new(node, make_new(scene), tmp_path / "out", reuse_session=False)
    assert not watch.of(FileReused)
    assert torrent.num_left == sum(OLD.values())


@in_scene(files=OLD, version=Version.V2)
async def test_nor_when_another_torrent_completes_a_file_later(
    scene: Scene, tmp_path: Path
) -> None:
    seed = await scene.node(is_seed=True, max_upload_rate=50_000)
    node = await scene.node(peers=[seed])
    torrent, watch = await add_new(node, make_new(scene), tmp_path / "out", reuse_session=False)
    await node.complete()
    await asyncio.sleep(5)
    assert not watch.of(FileReused)
    assert torrent.num_left == sum(OLD.values())


@in_scene(files=OLD, version=Version.V2)
async def test_a_torrent_whose_files_are_gone_gives_nothing(scene: Scene, tmp_path: Path) -> None:
    """And one whose files were changed behind our back gives only what is right."""
    node = await scene.node(is_seed=True)
    (node.folder / NAME / "a").unlink()
    damage(node.folder / NAME / "b", 0)
    torrent, watch = await add_new(node, make_new(scene), tmp_path / "out")
    assert indices(watch) == [2]
    assert torrent.num_left == 140_000


@in_scene(files=OLD, version=Version.V2)
async def test_metainfo_that_cannot_be_read_costs_only_its_own_torrent(
    scene: Scene, tmp_path: Path
) -> None:
    raw = make_new(scene)
    node = await scene.node(is_seed=True, state_dir=scene.state_dir, rest_after=0)
    await until(lambda: node.torrent.is_resting)
    for path in (scene.state_dir / "torrents").iterdir():
        path.unlink()
    _, watch = await add_new(node, raw, tmp_path / "out")
    assert not watch.of(FileReused)


@pytest.mark.parametrize("version", list(Version))
@in_scene(files=OLD, version=GIVEN)
async def test_a_magnet_link_takes_files_too(scene: Scene, tmp_path: Path) -> None:
    """As one that follows a mutable torrent does: a hybrid's v1 hashes say enough."""
    teller = HashPeer(scene, Files(scene).answer)
    node = await scene.node(
        source=magnet_of(scene),
        peers=[teller.endpoint],
        torrent={"reuse_from": (tmp_path / "source",)},
        state_dir=scene.state_dir,
    )
    await node.complete()
    assert node.has_content()
    assert node.torrent.num_downloaded == 0
    metainfo = node.torrent.metainfo
    assert metainfo is not None
    assert metainfo.piece_layers == scene.metainfo.piece_layers


def magnet_of(scene: Scene) -> Magnet:
    return parse_magnet(scene.link_by("btih" if scene.metainfo.info.has_v1 else "btmh"))
