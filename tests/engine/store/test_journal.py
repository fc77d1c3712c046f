"""Resume data from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.info import Info, Version
from bittern.codec.magnet import Magnet, parse_magnet
from bittern.codec.metainfo import Metainfo, decode_metainfo
from bittern.core.bitfield import Bitfield
from bittern.core.errors import StorageError
from bittern.core.ids import InfoHash
from bittern.engine.store.disk import Disk
from bittern.engine.store.journal import Journal
from bittern.engine.store.records import make_record
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.storage.resume import Checkpoint
from bittern.testing.disk import SimWorker
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.virtual_time import simulated

HASH = InfoHash(b"h" * 20)
OTHER = InfoHash(b"o" * 20)
LATELY = 4e9
"""Seconds since 1970."""


def make_disk(loop: VirtualLoop) -> Disk:
    return Disk(SimWorker(loop), loop, max_queue=1 << 20)


def record(info_hash: InfoHash, folder: Path) -> Any:
    return make_record(info_hash, "name", folder, [("name",)], LATELY)


@simulated
async def test_what_was_committed_is_found_by_the_next_session(
    loop: VirtualLoop, tmp_path: Path
) -> None:
    journal = await Journal.open(make_disk(loop), tmp_path / "state")
    assert await journal.find(HASH) is None
    await journal.save(record(HASH, tmp_path), b"torrent file")
    have = Bitfield.of(10, [1, 7])
    await journal.commit(
        Checkpoint(info_hash=HASH, have=have, downloaded=5, uploaded=6, stamps=(None,))
    )
    await journal.close()

    again = await Journal.open(make_disk(loop), tmp_path / "state")
    found = await again.find(HASH)
    assert found is not None
    assert found.have == Bitfield.of(10, [1, 7])
    assert (found.downloaded, found.uploaded) == (5, 6)
    assert again.metainfo_path(HASH).read_bytes() == b"torrent file"
    await again.forget([OTHER, HASH])
    assert await again.find(HASH) is None
    assert not again.metainfo_path(HASH).exists()
    await again.close()


@simulated
async def test_what_is_found_damaged_is_said_once(
    loop: VirtualLoop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = await Journal.open(make_disk(loop), tmp_path / "state")
    await journal.save(record(HASH, tmp_path), b"torrent file")
    await journal.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "resume.db")) as database:
        database.execute("UPDATE records SET checksum=x'00'")
        database.commit()
    again = await Journal.open(make_disk(loop), tmp_path / "state")
    assert await again.find(OTHER) is None
    assert not caplog.records
    assert await again.find(HASH) is None
    assert await again.find(OTHER) is None
    assert [str(HASH) in line.getMessage() for line in caplog.records] == [True]
    await again.close()


def make_metainfo(folder: Path, version: Version) -> Metainfo:
    folder.mkdir()
    (folder / "content").write_bytes(random.Random(5).randbytes(100_000))
    options = CreateOptions(version=version, piece_length=16_384)
    return decode_metainfo(create_torrent(folder / "content", options=options, num_threads=1))


def is_same(found: Metainfo | None, expected: Metainfo) -> bool:
    return found is not None and (found.info.raw, found.piece_layers) == (
        expected.info.raw,
        expected.piece_layers,
    )


def links_of(info: Info) -> dict[str, Magnet]:
    v1, v2 = f"xt=urn:btih:{info.info_hash}", f"xt=urn:btmh:1220{info.info_hash_v2}"
    return {
        "v1": parse_magnet(f"magnet:?{v1}"),
        "v2": parse_magnet(f"magnet:?{v2}"),
        "both": parse_magnet(f"magnet:?{v1}&{v2}"),
        "another": parse_magnet(f"magnet:?{v1}&xt=urn:btmh:1220{'ab' * 32}"),
    }


@simulated
async def test_metadata_of_a_link_is_found_again_and_checked(
    loop: VirtualLoop, tmp_path: Path
) -> None:
    """Of a hybrid by its v2 hash alone too, with the layers that came later under the other."""
    whole = make_metainfo(tmp_path / "content", Version.HYBRID)
    links = links_of(whole.info)
    journal = await Journal.open(make_disk(loop), tmp_path / "state")
    assert await journal.find_metainfo(links["v2"]) is None
    assert await journal.find_metainfo(parse_magnet("magnet:?xs=urn:btpk:" + "cd" * 32)) is None
    short = replace(whole, piece_layers={})
    journal.keep_metainfo(links["v2"], short)
    assert is_same(await journal.find_metainfo(links["v2"]), short)
    journal.keep_metainfo(links["v1"], whole)
    for name in ("v1", "v2", "both"):
        assert is_same(await journal.find_metainfo(links[name]), whole)
    assert await journal.find_metainfo(links["another"]) is None
    await journal.close()


@pytest.mark.parametrize("damage", ["cut", "layer", "empty", "folder"])
@simulated
async def test_damaged_metadata_is_not_taken(
    loop: VirtualLoop, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = make_metainfo(tmp_path / "content", Version.V2)
    link = parse_magnet(f"magnet:?xt=urn:btmh:1220{whole.info.info_hash_v2}")
    journal = await Journal.open(make_disk(loop), tmp_path / "state")
    journal.keep_metainfo(link, whole)
    assert is_same(await journal.find_metainfo(link), whole)
    path = journal.metainfo_path(whole.info.wire_hash)
    raw = path.read_bytes()
    path.unlink()
    [layer] = whole.piece_layers.values()
    match damage:
        case "cut":
            path.write_bytes(raw[:-10])
        case "layer":
            path.write_bytes(raw.replace(layer, layer[::-1]))
        case "empty":
            path.write_bytes(b"")
        case _:
            path.mkdir()
    assert await journal.find_metainfo(link) is None
    assert "is fetched anew" in caplog.text
    journal.keep_metainfo(link, whole)
    found = await journal.find_metainfo(link)
    assert found is None if damage == "folder" else is_same(found, whole)
    await journal.forget([whole.info.wire_hash])
    await journal.close()


@simulated
async def test_pieces_that_were_opened_are_suspects_after_a_kill(
    loop: VirtualLoop, tmp_path: Path
) -> None:
    """Limit: F7."""
    journal = await Journal.open(make_disk(loop), tmp_path / "state")
    for info_hash in (HASH, OTHER):
        await journal.save(record(info_hash, tmp_path))
        await journal.commit(Checkpoint(info_hash=info_hash, have=Bitfield(50)))
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


@simulated
async def test_checkpoints_that_come_together_are_one_durable_step(
    loop: VirtualLoop, tmp_path: Path
) -> None:
    """Limit: F8. A thousand torrents that end at once, or go to rest, sync the journal twice."""
    journal = await Journal.open(make_disk(loop), tmp_path / "state")
    hashes = [InfoHash(bytes([number]) * 20) for number in range(1, 50)]
    for info_hash in hashes:
        await journal.save(record(info_hash, tmp_path))
    statements: list[str] = []
    journal._store._database._connection.set_trace_callback(statements.append)
    made = [Checkpoint(info_hash=each, have=Bitfield.of(10, [2])) for each in hashes]
    waits = [loop.create_task(journal.commit(checkpoint)) for checkpoint in made]
    newer = Checkpoint(info_hash=hashes[7], have=Bitfield.of(10, [2, 3]))
    waits.append(loop.create_task(journal.commit(newer)))
    await asyncio.sleep(0)
    waits[9].cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    assert statements.count("COMMIT") == statements.count("PRAGMA synchronous=FULL") == 2
    assert [wait.cancelled() for wait in waits] == [number == 9 for number in range(50)]
    for number, info_hash in enumerate(hashes):
        found = await journal.find(info_hash)
        assert found is not None
        assert found.have == Bitfield.of(10, [2, 3] if number == 7 else [2])
    await journal.close()


@simulated
async def test_all_hear_of_a_checkpoint_that_fails(loop: VirtualLoop, tmp_path: Path) -> None:
    journal = await Journal.open(make_disk(loop), tmp_path / "state")
    await journal.save(record(HASH, tmp_path))
    refuse = journal._store._database._connection.execute
    refuse("CREATE TRIGGER no BEFORE INSERT ON states BEGIN SELECT RAISE(ABORT, 'no'); END")
    made = [Checkpoint(info_hash=each, have=Bitfield.full(10)) for each in (HASH, OTHER, HASH)]
    told = await asyncio.gather(*map(journal.commit, made), return_exceptions=True)
    assert [type(each) for each in told] == [StorageError] * 3
    refuse("DROP TRIGGER no")
    assert (found := await journal.find(HASH))
    assert found.have is None
    await journal.commit(made[0])
    assert (found := await journal.find(HASH))
    assert found.have == Bitfield.full(10)
    await journal.close()


@simulated
async def test_a_state_folder_in_use_is_refused(loop: VirtualLoop, tmp_path: Path) -> None:
    """Limit: F18."""
    journal = await Journal.open(make_disk(loop), tmp_path / "state")
    with pytest.raises(StorageError):
        await Journal.open(make_disk(loop), tmp_path / "state")
    await journal.close()


@simulated
async def test_a_state_folder_is_free_again_when_opening_it_is_cancelled(
    loop: VirtualLoop, tmp_path: Path
) -> None:
    opening = asyncio.create_task(Journal.open(make_disk(loop), tmp_path / "state"))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await asyncio.sleep(1)
    await (await Journal.open(make_disk(loop), tmp_path / "state")).close()


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


def test_what_is_wrong_with_the_store_is_logged_and_does_not_keep_it_open(
    tmp_path: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that had to be mended says so; an end that could not be noted frees the folder."""

    async def main(loop: VirtualLoop) -> None:
        state = tmp_path / "state"
        state.mkdir()
        (state / "resume.db").write_bytes(b"no database" * 1000)
        journal = await Journal.open(make_disk(loop), state)
        state.rename(tmp_path / "moved")
        await journal.close()
        again = await Journal.open(make_disk(loop), tmp_path / "moved")
        await again.close()

    with caplog.at_level(logging.WARNING):
        simulate(main)
    assert caplog.text.count("resume data: ") == 2
