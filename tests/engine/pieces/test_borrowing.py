"""Files that are taken from another torrent while they are being downloaded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.fingerprints import fingerprints
from bittern.codec.info import Version
from bittern.core.bitfield import Bitfield
from bittern.engine.events import FileReused
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.engine.scene import NAME, PIECE_LENGTH, Scene, Watch, until
from tests.engine.store.test_reuse import OLD, add_new, make_new


def recut(scene: Scene, **options: Any) -> bytes:
    """Return a .torrent of the scene's content by another name."""
    settings = {"version": Version.V1, "piece_length": PIECE_LENGTH, "name": "other", **options}
    return create_torrent(
        scene.folder / "source" / NAME, options=CreateOptions(**settings), num_threads=1
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Version.V1, Version.V1),
        (Version.V1, Version.HYBRID),
        (Version.HYBRID, Version.V1),
        (Version.HYBRID, Version.V2),
    ],
)
def test_content_that_two_torrents_cut_alike_is_fetched_once(
    first: Version, second: Version, tmp_path: Path, simulate: Simulate
) -> None:
    """Of another name, and nobody has the second torrent: all but its last piece is sure."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, version=first) as scene:
            seed = await scene.node(is_seed=True, max_upload_rate=100_000)
            node = await scene.node(peers=[seed])
            torrent, watch = await add_new(node, recut(scene, version=second), tmp_path / "out")
            assert torrent.stats().num_have == 0
            await node.complete()
            await until(lambda: torrent.is_complete)
            [event] = watch.of(FileReused)
            assert event.length == len(scene.data)
            assert torrent.num_downloaded == 0
            assert torrent.swarm is not None
            assert torrent.swarm.assembly.unverified == torrent.have_bits  # F5
            await until((tmp_path / "out" / "other").exists)
            assert (tmp_path / "out" / "other").read_bytes() == scene.data

    simulate(main)


def test_pieces_that_files_share_are_left_to_peers(tmp_path: Path, simulate: Simulate) -> None:
    """v1 without padding: of each file that is offered, what lies wholly inside it is taken."""

    async def main(loop: VirtualLoop) -> None:
        files = {"a": 3 * PIECE_LENGTH + 1_000, "b": 4 * PIECE_LENGTH}
        async with Scene(loop, tmp_path, files=files) as scene:
            node = await scene.node()
            watch = Watch(node.torrent)
            for index, name in enumerate(files):
                names = set(fingerprints(node.torrent.info, index))
                node.torrent.take_file(names, tmp_path / "source" / NAME / name)
            await until(lambda: len(watch.of(FileReused)) == 2)
            assert [(event.index, event.length) for event in watch.of(FileReused)] == [
                (0, 3 * PIECE_LENGTH),
                (1, 3 * PIECE_LENGTH + 1_000),
            ]
            assert list(Bitfield(8, node.torrent.have_bits)) == [0, 1, 2, 4, 5, 6, 7]
            seed = await scene.node(is_seed=True)
            node.torrent.add_peers([seed.endpoint], "user")
            await node.complete()
            assert node.has_content()
            assert node.torrent.num_downloaded == PIECE_LENGTH

    simulate(main)


def test_a_file_that_is_offered_and_not_wanted_or_not_right(
    tmp_path: Path, simulate: Simulate
) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, files=OLD, version=Version.V2) as scene:
            node = await scene.node()
            raw = make_new(scene)
            torrent, watch = await add_new(node, raw, tmp_path / "out", files={1, 2})
            roots = [entry.pieces_root for entry in torrent.info.files]
            assert None not in roots
            for root, name in zip(roots, OLD, strict=True):
                data = bytearray(scene.files[name])
                data[-1] ^= 1
                (tmp_path / "wrong").write_bytes(data)
                torrent.take_file({root or b""}, tmp_path / "wrong")
                torrent.take_file({root or b""}, tmp_path / "missing")
                await asyncio.sleep(1)
            # All but the last pieces were right.
            assert [(e.index, e.length) for e in watch.of(FileReused)] == [
                (1, 32_768),
                (2, 196_608),
            ]
            torrent.take_file({bytes(32)}, tmp_path / "wrong")
            torrent.take_file({roots[2] or b""}, tmp_path / "source" / NAME / "c/d")
            await until(lambda: torrent.num_left == 40_000 - 32_768)
            # The scene's own torrent lacks that file too, and has been told of it in turn.
            await until(lambda: node.torrent.stats().num_have == 4)
            await torrent.pause()
            torrent.take_file({roots[1] or b""}, tmp_path / "source" / NAME / "b")
            await torrent.resume()
            assert torrent.num_left == 40_000 - 32_768

    simulate(main)
