"""Files that are taken from another torrent while they are being downloaded."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bittern.codec.info import Version
from bittern.engine.events import FileReused
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.engine.scene import NAME, Scene, until
from tests.engine.store.test_reuse import OLD, add_new, make_new


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
                torrent.take_file(root or b"", tmp_path / "wrong")
                torrent.take_file(root or b"", tmp_path / "missing")
                await asyncio.sleep(1)
            # All but the last pieces were right.
            assert [(e.index, e.length) for e in watch.of(FileReused)] == [
                (1, 32_768),
                (2, 196_608),
            ]
            torrent.take_file(bytes(32), tmp_path / "wrong")
            torrent.take_file(roots[2] or b"", tmp_path / "source" / NAME / "c/d")
            await until(lambda: torrent.num_left == 40_000 - 32_768)
            # The scene's own torrent lacks that file too, and has been told of it in turn.
            await until(lambda: node.torrent.stats().num_have == 4)
            await torrent.pause()
            torrent.take_file(roots[1] or b"", tmp_path / "source" / NAME / "b")
            await torrent.resume()
            assert torrent.num_left == 40_000 - 32_768

    simulate(main)
