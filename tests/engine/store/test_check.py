"""A check that is stopped, and goes on behind what it has seen."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.info import Version
from bittern.core.bitfield import Bitfield
from bittern.core.errors import StorageError
from bittern.engine.config import TorrentConfig
from bittern.engine.events import CheckProgressed, TorrentState
from bittern.engine.session import Session
from bittern.engine.store import check
from bittern.engine.torrent import Torrent
from bittern.storage import checker
from tests.engine.scene import (
    BLOCK_LENGTH,
    NAME,
    NUM_PIECES,
    PIECE_LENGTH,
    Scene,
    Watch,
    damage,
    in_scene,
    restore,
    snapshot,
    until,
)

STEP = 3
"""Pieces of a step in these tests; the worker takes a second for each."""
BAD = 1
"""A piece that does not match its hash, in the first step."""
HASHED: list[int] = []
"""Every piece that was hashed, in order."""


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "CHECK_LENGTH", STEP * PIECE_LENGTH)
    monkeypatch.setattr(check, "PROGRESS_INTERVAL", 0.0)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    HASHED.clear()
    real = checker.check_pieces

    def check_pieces(*args: Any, pieces: Sequence[int], **options: Any) -> checker.CheckResult:
        result = real(*args, pieces=pieces, **options)
        HASHED.extend(index for index in pieces if index not in result.unchecked)
        return result

    monkeypatch.setattr(check, "check_pieces", check_pieces)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "content"


async def begun(scene: Scene, folder: Path, **config: Any) -> tuple[Session, asyncio.Task[Torrent]]:
    """Return a session that adds a torrent, and has come behind a bad piece of it."""
    scene.write_content(folder)
    damage(folder / NAME, BAD * PIECE_LENGTH)
    session = await scene.session(
        scene.add_host(), state_dir=scene.state_dir, worker_delay=1.0, **config
    )
    adding = scene.spawn(session.add(scene.raw, TorrentConfig(output=folder)))
    await until(lambda: bool(session.torrents) and session.torrents[0].num_checked >= 2 * STEP)
    assert session.torrents[0].state is TorrentState.CHECKING
    return session, adding


def refuse(*_: object) -> None:
    """What a full disk does."""
    raise StorageError("no room on the volume")


async def ended(scene: Scene, session: Session) -> None:
    scene.sessions.remove(session)
    await session.__aexit__(None, None, None)


async def go_on(scene: Scene, folder: Path) -> tuple[Torrent, int]:
    """Add the torrent to a new session; return it and how many pieces that has hashed."""
    session = await scene.session(scene.add_host(), state_dir=scene.state_dir)
    torrent = await session.add(scene.raw, TorrentConfig(output=folder, paused=True))
    num_before = len(HASHED)
    await torrent.start()
    return torrent, len(HASHED) - num_before


def have_of(torrent: Torrent) -> set[int]:
    return set(Bitfield(NUM_PIECES, torrent.have_bits))


ALL_BUT_BAD = set(range(NUM_PIECES)) - {BAD}


@pytest.mark.parametrize("is_cancelled", [False, True])
@in_scene()
async def test_a_check_goes_on_where_it_was_stopped(
    scene: Scene, folder: Path, is_cancelled: bool
) -> None:
    session, adding = await begun(scene, folder)
    if is_cancelled:
        adding.cancel()
        await asyncio.wait([adding])
        assert adding.cancelled()
    await ended(scene, session)
    torrent, num_checked = await go_on(scene, folder)
    assert STEP <= num_checked <= NUM_PIECES - 2 * STEP
    assert have_of(torrent) == ALL_BUT_BAD


@in_scene(version=Version.V2)
async def test_a_check_of_v2_that_goes_on_fetches_the_bad_blocks_alone(
    scene: Scene, folder: Path
) -> None:
    """Also those of what it found before it was stopped, which is hashed once more."""
    session, _ = await begun(scene, folder)
    await ended(scene, session)
    seed = await scene.node(is_seed=True)
    torrent, num_checked = await go_on(scene, folder)
    assert num_checked <= NUM_PIECES - 2 * STEP + 1
    torrent.add_peers([seed.endpoint], "user")
    async with asyncio.timeout(60):
        await torrent.wait_complete()
    assert torrent.num_downloaded == BLOCK_LENGTH


@in_scene()
async def test_a_check_goes_on_after_a_kill(scene: Scene, folder: Path) -> None:
    """Limit: F7. What was noted last is hashed again (F8), what was noted before is not."""
    session, _ = await begun(scene, folder, checkpoint_interval=0.5)
    [torrent] = session.torrents
    await until(lambda: torrent.num_checked >= 4 * STEP)
    copies = snapshot(scene.state_dir)
    await ended(scene, session)
    restore(copies)
    (scene.state_dir / "lock").unlink(missing_ok=True)
    torrent, num_checked = await go_on(scene, folder)
    assert 0 < num_checked < NUM_PIECES - STEP
    assert have_of(torrent) == ALL_BUT_BAD
    await ended(scene, scene.sessions[-1])
    torrent, num_checked = await go_on(scene, folder)
    assert (have_of(torrent), num_checked) == (ALL_BUT_BAD, 0)


@in_scene()
async def test_a_check_that_goes_on_may_be_stopped_again(scene: Scene, folder: Path) -> None:
    session, _ = await begun(scene, folder)
    await ended(scene, session)
    session = await scene.session(scene.add_host(), state_dir=scene.state_dir, worker_delay=1.0)
    scene.spawn(session.add(scene.raw, TorrentConfig(output=folder)))
    await until(lambda: bool(session.torrents) and session.torrents[0].num_checked >= STEP)
    await ended(scene, session)
    torrent, num_checked = await go_on(scene, folder)
    assert 0 < num_checked <= NUM_PIECES - 3 * STEP
    assert have_of(torrent) == ALL_BUT_BAD


@in_scene()
async def test_a_check_that_is_cancelled_does_not_wait_for_a_disk_that_hangs(
    scene: Scene, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F19."""
    monkeypatch.setattr(check, "CANCEL_TIMEOUT", 0.25)
    session, adding = await begun(scene, folder)
    adding.cancel()
    asked_at = scene.loop.time()
    await asyncio.wait([adding])
    assert adding.cancelled()
    assert scene.loop.time() - asked_at == pytest.approx(0.25)
    await ended(scene, session)
    torrent, num_checked = await go_on(scene, folder)
    assert (have_of(torrent), num_checked) == (ALL_BUT_BAD, NUM_PIECES)


@in_scene()
async def test_the_progress_of_a_check_goes_on_as_well(scene: Scene, folder: Path) -> None:
    session, _ = await begun(scene, folder)
    await ended(scene, session)
    session = await scene.session(scene.add_host(), state_dir=scene.state_dir)
    torrent = await session.add(scene.raw, TorrentConfig(output=folder, paused=True))
    watch = Watch(torrent)
    await torrent.start()
    await asyncio.sleep(0)
    numbers = [event.num_checked for event in watch.of(CheckProgressed)]
    assert numbers == sorted(numbers)
    assert numbers[0] > 2 * STEP
    assert numbers[-1] == NUM_PIECES


@pytest.mark.parametrize("what", ["touched", "changed", "shortened", "elsewhere"])
@in_scene()
async def test_a_check_does_not_go_on_in_other_files(
    scene: Scene, folder: Path, what: str, tmp_path: Path
) -> None:
    """Limit: F5, F9. Also if the file was changed while the check was under way."""
    session, _ = await begun(scene, folder)
    path, good = folder / NAME, set(ALL_BUT_BAD)
    match what:
        case "touched":
            os.utime(path, ns=(1, 1))
        case "changed":
            damage(path, 0)
            good -= {0}
        case "shortened":
            os.truncate(path, 8 * PIECE_LENGTH)
            good = {index for index in good if index < 8}
        case _:
            scene.write_content(tmp_path / "other")
            folder, good = tmp_path / "other", set(range(NUM_PIECES))
    await ended(scene, session)
    torrent, num_checked = await go_on(scene, folder)
    assert num_checked == NUM_PIECES
    assert have_of(torrent) == good


@pytest.mark.parametrize("is_kept", [True, False])
@in_scene()
async def test_what_is_known_of_one_place_is_not_believed_of_another(
    scene: Scene, folder: Path, is_kept: bool, tmp_path: Path
) -> None:
    """
    Limit: F9. Nor when the check there is cut short.

    After a kill newer times are no reason to doubt, so the place must be right.
    """
    scene.write_content(folder)
    for _ in range(2):
        await go_on(scene, folder)
        await ended(scene, scene.sessions[-1])
    torrent, _ = await go_on(scene, folder)
    torrent.pieces_opened([NUM_PIECES - 1])
    await asyncio.sleep(1)
    copies = snapshot(scene.state_dir)
    await ended(scene, scene.sessions[-1])
    restore(copies)
    (scene.state_dir / "lock").unlink(missing_ok=True)
    other, late = tmp_path / "other", 12
    scene.write_content(other)
    damage(other / NAME, late * PIECE_LENGTH)
    session = await scene.session(scene.add_host(), state_dir=scene.state_dir, worker_delay=1.0)
    adding = scene.spawn(session.add(scene.raw, TorrentConfig(output=other)))
    await until(lambda: bool(session.torrents) and session.torrents[0].num_checked >= STEP)
    if not is_kept:
        session._services.journal._store.commit_have = refuse  # type: ignore[union-attr,method-assign]
    await ended(scene, session)
    assert (await adding).state is TorrentState.STOPPED
    torrent, num_checked = await go_on(scene, other)
    assert (num_checked == NUM_PIECES) is not is_kept
    assert have_of(torrent) == set(range(NUM_PIECES)) - {late}


@in_scene()
async def test_a_forced_check_is_gone_on_with_as_it_was_begun(scene: Scene, folder: Path) -> None:
    """It trusts nothing that it has not seen, whatever was known before."""
    scene.write_content(folder)
    torrent, _ = await go_on(scene, folder)
    await ended(scene, scene.sessions[-1])
    late = 12
    damage(folder / NAME, late * PIECE_LENGTH, keeps_times=True)
    session = await scene.session(scene.add_host(), state_dir=scene.state_dir, worker_delay=1.0)
    torrent = await session.add(scene.raw, TorrentConfig(output=folder))
    assert torrent.is_complete
    scene.spawn(torrent.recheck())
    await until(lambda: 2 * STEP <= torrent.num_checked < NUM_PIECES)
    await ended(scene, session)
    torrent, num_checked = await go_on(scene, folder)
    assert 0 < num_checked <= NUM_PIECES - 2 * STEP
    assert have_of(torrent) == set(range(NUM_PIECES)) - {late}


@pytest.mark.parametrize("is_kept", [True, False])
@in_scene()
async def test_a_pause_does_not_lose_what_a_recheck_has_seen(
    scene: Scene, folder: Path, is_kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless it could not be noted: then it begins anew, and is not forgotten."""
    scene.write_content(folder)
    session = await scene.session(scene.add_host(), state_dir=scene.state_dir, worker_delay=1.0)
    torrent = await session.add(scene.raw, TorrentConfig(output=folder))
    scene.spawn(torrent.recheck())
    await until(lambda: 2 * STEP <= torrent.num_checked < NUM_PIECES)
    store = session._services.journal._store  # type: ignore[union-attr]
    commit_have = store.commit_have

    if not is_kept:
        store.commit_have = refuse  # type: ignore[method-assign]  # a fault
    await torrent.pause()
    store.commit_have = commit_have  # type: ignore[method-assign]
    assert torrent.state is TorrentState.PAUSED
    assert ("progress of the check" in caplog.text) is not is_kept
    HASHED.clear()
    await torrent.resume()
    assert torrent.is_complete
    assert (len(HASHED) == NUM_PIECES) is not is_kept
    HASHED.clear()
    await torrent.recheck()
    assert len(HASHED) == NUM_PIECES


@pytest.mark.parametrize(("interval", "num_reports"), [(0.0, NUM_PIECES), (0.1, 2)])
@in_scene()
async def test_a_check_reports_now_and_then_and_at_its_end(
    scene: Scene, interval: float, num_reports: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's time stands still while one of its jobs hashes."""
    monkeypatch.setattr(checker, "BATCH_LENGTH", 1)
    monkeypatch.setattr(check, "PROGRESS_INTERVAL", interval)
    seed = await scene.node(is_seed=True)
    watch = Watch(seed.torrent)
    await seed.torrent.recheck()
    await asyncio.sleep(0)
    numbers = [event.num_checked for event in watch.of(CheckProgressed)]
    assert len(numbers) == num_reports
    assert numbers[0] == 1
    assert numbers[-1] == NUM_PIECES
