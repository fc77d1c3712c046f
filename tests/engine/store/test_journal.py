"""Resume data from the event loop."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bittern.core.bitfield import Bitfield
from bittern.core.errors import StorageError
from bittern.core.ids import InfoHash
from bittern.engine.store.disk import Disk
from bittern.engine.store.journal import Journal
from bittern.engine.store.keeper import make_record
from bittern.testing.disk import SimWorker
from bittern.testing.loop import VirtualLoop

Simulate = Callable[..., Any]
HASH = InfoHash(b"h" * 20)
OTHER = InfoHash(b"o" * 20)


def make_disk(loop: VirtualLoop) -> Disk:
    return Disk(SimWorker(loop), loop, max_queue=1 << 20)


def record(info_hash: InfoHash, folder: Path) -> Any:
    return make_record(info_hash, "name", folder, [("name",)], 1.0)


def test_what_was_committed_is_found_by_the_next_session(
    tmp_path: Path, simulate: Simulate
) -> None:
    async def main(loop: VirtualLoop) -> None:
        journal = await Journal.open(make_disk(loop), tmp_path / "state")
        assert await journal.find(HASH) is None
        assert await journal.find_metainfo(HASH) is None
        await journal.save(record(HASH, tmp_path), b"torrent file")
        have = Bitfield.of(10, [1, 7])
        await journal.commit(HASH, have, downloaded=5, uploaded=6, stamps=[None], is_settled=True)
        have.add(3)
        await journal.close()

        again = await Journal.open(make_disk(loop), tmp_path / "state")
        found = await again.find(HASH)
        assert found is not None
        assert found.have == Bitfield.of(10, [1, 7])
        assert (found.downloaded, found.uploaded) == (5, 6)
        assert await again.find_metainfo(HASH) == b"torrent file"
        assert again.metainfo_path(HASH).read_bytes() == b"torrent file"
        await again.forget(HASH)
        assert await again.find(HASH) is None
        await again.close()

    simulate(main)


def test_pieces_that_were_opened_are_suspects_after_a_kill(
    tmp_path: Path, simulate: Simulate
) -> None:
    """Limit: F7."""

    async def main(loop: VirtualLoop) -> None:
        journal = await Journal.open(make_disk(loop), tmp_path / "state")
        for info_hash in (HASH, OTHER):
            await journal.save(record(info_hash, tmp_path))
            await journal.commit(
                info_hash, Bitfield(50), downloaded=0, uploaded=0, stamps=[], is_settled=True
            )
        rng, opened = random.Random(3), {HASH: set[int](), OTHER: set[int]()}
        for _ in range(30):
            info_hash, piece = rng.choice([HASH, OTHER]), rng.randrange(50)
            opened[info_hash].add(piece)
            journal.pieces_opened(info_hash, [piece])
            if rng.random() < 0.3:
                await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        journal._store.close(clean=False)

        again = await Journal.open(make_disk(loop), tmp_path / "state")
        for info_hash, pieces in opened.items():
            found = await again.find(info_hash)
            assert found is not None
            assert set(found.suspects or ()) == pieces
        await again.close()

    simulate(main)


def test_a_state_folder_in_use_is_refused(tmp_path: Path, simulate: Simulate) -> None:
    """Limit: F18."""

    async def main(loop: VirtualLoop) -> None:
        journal = await Journal.open(make_disk(loop), tmp_path / "state")
        with pytest.raises(StorageError):
            await Journal.open(make_disk(loop), tmp_path / "state")
        await journal.close()

    simulate(main)


def test_a_note_that_fails_is_logged_and_the_next_is_made(
    tmp_path: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(loop: VirtualLoop) -> None:
        journal = await Journal.open(make_disk(loop), tmp_path / "state")
        await journal.save(record(HASH, tmp_path))
        mark_open, noted = journal._store.mark_open, []

        def fail_once(info_hash: InfoHash, pieces: list[int]) -> None:
            noted.append(pieces)
            if len(noted) == 1:
                raise StorageError("no room on the volume")
            mark_open(info_hash, pieces)

        journal._store.mark_open = fail_once  # type: ignore[method-assign,assignment]  # a fault
        journal.pieces_opened(HASH, [1])
        journal.pieces_opened(HASH, [3, 2])
        await asyncio.sleep(1)
        assert noted == [[1], [2, 3]]
        await journal.close()

    with caplog.at_level(logging.WARNING):
        simulate(main)
    assert "no room on the volume" in caplog.text
