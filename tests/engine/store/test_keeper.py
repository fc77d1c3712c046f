"""What a torrent has on disk: trusted, hashed, kept."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.info import Version
from bittern.codec.metainfo import decode_metainfo
from bittern.core.bitfield import Bitfield
from bittern.core.endpoint import Endpoint
from bittern.core.errors import MetainfoError, StorageError
from bittern.engine.config import TorrentConfig
from bittern.engine.events import CheckProgressed, PieceLost, TorrentState
from bittern.engine.session import Session
from bittern.engine.store.disk import Disk
from bittern.engine.store.journal import Journal
from bittern.storage.abandoned import OPENED_STEP
from bittern.storage.resume import Checkpoint, ResumeStore
from bittern.testing.crash import CrashingCalls
from bittern.testing.disk import FaultyCalls, SimWorker
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.engine.scene import (
    NAME,
    NUM_PIECES,
    PIECE_LENGTH,
    Node,
    Scene,
    Watch,
    damage,
    in_scene,
    restore,
    snapshot,
    until,
)


async def add_again(scene: Scene, node: Node, state: Path) -> tuple[Any, int]:
    """End a node's session, add its torrent to a new one, and count the hashed pieces."""
    if node.session in scene.sessions:
        await node.close()
    session: Session = await scene.session(scene.add_host(), state_dir=state)
    torrent = await session.add(scene.raw, TorrentConfig(output=node.folder, paused=True))
    listening = torrent.events()
    await torrent.start()
    checked = 0
    torrent.listeners.close()
    async for event in listening:
        if isinstance(event, CheckProgressed):
            checked = max(checked, event.num_checked)
    return torrent, checked


@in_scene()
async def test_after_a_clean_end_nothing_is_hashed(scene: Scene) -> None:
    state = scene.state_dir
    node = await scene.node(is_seed=True, state_dir=state)
    torrent, checked = await add_again(scene, node, state)
    assert torrent.is_complete
    assert checked == 0


@pytest.mark.parametrize("change", ["touched", "truncated", "moved away", "not resumed"])
@in_scene()
async def test_what_was_changed_behind_our_back_is_hashed(
    scene: Scene, change: str, tmp_path: Path
) -> None:
    """Limit: F5, F9."""
    state = scene.state_dir
    node = await scene.node(is_seed=True, state_dir=state)
    await node.close()
    path = node.folder / NAME
    match change:
        case "touched":
            os.utime(path, ns=(1, 1))
        case "truncated":
            os.truncate(path, 3 * 65_536)
        case "moved away":
            path.unlink()
        case _:
            state = tmp_path / "another state"
    torrent, checked = await add_again(scene, node, state)
    num_have = {"truncated": 3, "moved away": 0}.get(change, NUM_PIECES)
    assert torrent.stats().num_have == num_have
    assert bool(checked) is (change != "moved away")


async def killed(node: Node, state: Path, *folders: Path) -> None:
    """End a node's session so that the next one finds what a kill would have left there."""
    copies = snapshot(state, *folders)
    await node.close()
    restore(copies)
    (state / "lock").unlink(missing_ok=True)


@pytest.mark.parametrize("what", ["nothing", "a shorter file", "a file that is gone"])
@in_scene()
async def test_after_a_kill_only_suspects_are_hashed_unless_something_is_missing(
    scene: Scene, what: str
) -> None:
    """Limit: F7, F9."""
    state = scene.state_dir
    seed = await scene.node(is_seed=True, host=scene.add_host(upload_rate=200_000))
    node = await scene.node(peers=[seed], state_dir=state, checkpoint_interval=1.0)
    await until(lambda: node.torrent.stats().num_have > 8)
    await killed(node, state, node.folder)
    if what == "a shorter file":
        os.truncate(node.folder / NAME, 8 * 65_536)
    elif what == "a file that is gone":
        (node.folder / NAME).unlink()
    torrent, checked = await add_again(scene, node, state)
    assert torrent.error is None
    if what == "nothing":
        assert torrent.stats().num_have > 8
        assert 0 < checked < NUM_PIECES
    else:
        assert checked == (NUM_PIECES if what == "a shorter file" else 0)
        assert torrent.stats().num_have <= (8 if what == "a shorter file" else 0)


@in_scene()
async def test_a_start_after_a_kill_leaves_it_to_a_checkpoint_to_tell_what_was_hashed(
    scene: Scene,
) -> None:
    """R22: when thousands start, their journal is not synced thousands of times."""
    state = scene.state_dir
    seed = await scene.node(is_seed=True)
    node = await scene.node(peers=[seed], state_dir=state, checkpoint_interval=1.0)
    await node.complete(within=60)
    await asyncio.sleep(2)
    await killed(node, state, node.folder)
    session = await scene.session(scene.add_host(), state_dir=state, checkpoint_interval=5.0)
    journal = session._services.journal
    assert journal is not None
    log = (state / "resume.db-wal").read_bytes()
    assert (found := await journal.find(scene.info_hash))
    assert found.suspects
    config = TorrentConfig(output=node.folder, peers=(Endpoint("10.9.9.9", 1),))
    torrent = await session.add(scene.raw, config)
    assert torrent.is_complete
    assert (state / "resume.db-wal").read_bytes() == log
    await asyncio.sleep(8)
    assert (found := await journal.find(scene.info_hash))
    assert found.have == Bitfield.full(NUM_PIECES)
    assert not found.suspects


@pytest.mark.parametrize("is_forced", [False, True])
@in_scene()
async def test_what_a_killed_process_has_written_is_synced_before_it_is_kept(
    scene: Scene, is_forced: bool
) -> None:
    """Limit: F8. It matches its hash in the page cache; the power may fail all the same."""
    state, calls = scene.state_dir, CrashingCalls(random.Random(1))
    seed = await scene.node(is_seed=True)
    node = await scene.node(peers=[seed], state_dir=state, os_calls=calls)
    await node.complete(within=60)
    copies = snapshot(state)
    calls.fail_call(0, for_good=True, names=["fdatasync", "fsync"])
    await node.close()
    calls.heal()
    assert calls.num_unsynced
    restore(copies)
    (state / "lock").unlink(missing_ok=True)
    session = await scene.session(
        scene.add_host(), state_dir=state, os_calls=calls, checkpoint_interval=5.0
    )
    torrent = await session.add(scene.raw, TorrentConfig(output=node.folder, paused=True))
    await torrent.start(force_check=is_forced)
    assert torrent.is_complete
    await asyncio.sleep(8)
    journal = session._services.journal
    assert journal is not None
    assert await num_kept(journal, scene) == NUM_PIECES
    assert not calls.num_unsynced


@in_scene()
async def test_a_torrent_that_was_put_elsewhere_is_hashed(scene: Scene, tmp_path: Path) -> None:
    state = scene.state_dir
    node = await scene.node(is_seed=True, state_dir=state)
    await node.close()
    node.folder = node.folder.rename(tmp_path / "elsewhere")
    torrent, checked = await add_again(scene, node, state)
    assert torrent.is_complete
    assert checked == NUM_PIECES


@in_scene()
async def test_a_journal_that_knows_too_few_files_is_not_believed(scene: Scene) -> None:
    state = scene.state_dir
    node = await scene.node(is_seed=True, state_dir=state)
    await node.close()
    disk = Disk(SimWorker(scene.loop), scene.loop, max_queue=1)
    journal = await Journal.open(disk, state)
    have = Bitfield.full(NUM_PIECES)
    await journal.commit(Checkpoint(info_hash=scene.info_hash, have=have, is_settled=True))
    await journal.close()
    _, checked = await add_again(scene, node, state)
    assert checked == NUM_PIECES


@pytest.mark.parametrize("is_changed", [False, True])
@in_scene()
async def test_what_was_changed_before_a_session_of_others_was_killed_is_hashed(
    scene: Scene, is_changed: bool
) -> None:
    """Limit: F5, F8. All of it, not only what was noted last; that alone where nothing changed."""
    state = scene.state_dir
    node = await scene.node(is_seed=True, state_dir=state)
    await node.close()
    store = ResumeStore(state)
    known = store.load(scene.info_hash)
    assert known is not None
    all_but_one = Bitfield.of(NUM_PIECES, range(1, NUM_PIECES))
    for have in (all_but_one, Bitfield.full(NUM_PIECES)):
        checkpoint = Checkpoint(
            info_hash=scene.info_hash, have=have, stamps=known.stamps, is_settled=True
        )
        store.commit_have([checkpoint])
    store.close()
    if is_changed:
        damage(node.folder / NAME, 5 * PIECE_LENGTH)
    ResumeStore(state).close(clean=False)
    torrent, checked = await add_again(scene, node, state)
    assert checked == (NUM_PIECES if is_changed else 1)
    assert torrent.stats().num_have == NUM_PIECES - is_changed


@pytest.mark.parametrize("wait", [0.5, 1.5, 2.5])
@in_scene()
async def test_a_check_that_is_cut_short_says_nothing_of_the_rest(
    scene: Scene, wait: float, tmp_path: Path
) -> None:
    """Whoever ends the session during a check finds everything again at the next start."""
    state, folder = scene.state_dir, tmp_path / "content"
    scene.write_content(folder)
    session = await scene.session(scene.add_host(), state_dir=state, worker_delay=1.0)
    config = TorrentConfig(output=folder)
    adding = asyncio.ensure_future(session.add(scene.raw, config))
    await asyncio.sleep(wait)
    assert session.torrents[0].state is TorrentState.CHECKING
    scene.sessions.remove(session)
    await session.__aexit__(None, None, None)
    await adding
    again = await scene.session(scene.add_host(), state_dir=state)
    torrent = await again.add(scene.raw, config)
    assert torrent.is_complete


@in_scene()
async def test_what_was_only_taken_on_trust_is_hashed_after_a_kill(scene: Scene) -> None:
    state = scene.state_dir
    node = await scene.node(is_seed=True, state_dir=state, torrent={"skip_check": True})
    assert node.torrent.is_complete
    await killed(node, state)
    torrent, checked = await add_again(scene, node, state)
    assert torrent.is_complete
    assert checked == NUM_PIECES


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("what", ["damaged", "missing"])
@in_scene()
async def test_what_was_only_taken_on_trust_is_not_kept(
    scene: Scene, what: str, is_killed: bool
) -> None:
    """Who trusts that data is there once must not be told so for ever."""
    state = scene.state_dir
    node = await scene.node(
        damaged=[5] if what == "damaged" else (),
        state_dir=state,
        checkpoint_interval=1.0,
        torrent={"skip_check": True},
    )
    await asyncio.sleep(5)
    assert node.torrent.is_complete
    if is_killed:
        await killed(node, state)
    torrent, _ = await add_again(scene, node, state)
    assert torrent.stats().num_have == (0 if what == "missing" else NUM_PIECES - 1)


@pytest.mark.parametrize("is_killed", [False, True])
@in_scene()
async def test_trust_in_other_data_replaces_what_was_known(scene: Scene, is_killed: bool) -> None:
    state = scene.state_dir
    first = await scene.node(is_seed=True, state_dir=state)
    await first.close()
    node = await scene.node(damaged=[5], state_dir=state, torrent={"skip_check": True})
    if is_killed:
        await killed(node, state)
    torrent, checked = await add_again(scene, node, state)
    assert (torrent.stats().num_have, checked) == (NUM_PIECES - 1, NUM_PIECES)


@in_scene()
async def test_when_it_was_opened_is_kept_now_and_then(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at every start: thousands of torrents would be written."""
    state, host, now = scene.state_dir, scene.add_host(), 1e9
    monkeypatch.setattr(time, "time", lambda: now)
    found = []
    for later in (0.0, OPENED_STEP - 1, OPENED_STEP):
        now = 1e9 + later
        node = await scene.node(is_seed=True, host=host, state_dir=state)
        await node.close()
        disk = Disk(SimWorker(scene.loop), scene.loop, max_queue=1)
        journal = await Journal.open(disk, state)
        known = await journal.find(scene.info_hash)
        assert known is not None
        found.append((known.record.added_at - 1e9, known.record.opened_at - 1e9))
        await journal.close()
    assert found == [(0, 0), (0, 0), (0, OPENED_STEP)]


@pytest.mark.parametrize("verifies", [False, True])
@in_scene()
async def test_trust_that_was_justified_is_kept(scene: Scene, verifies: bool) -> None:
    """Every piece is hashed before its first upload, unless somebody wants it otherwise."""
    state = scene.state_dir
    node = await scene.node(
        is_seed=True,
        state_dir=state,
        verify_before_upload=verifies,
        torrent={"skip_check": True},
    )
    await (await scene.node(peers=[node])).complete()
    torrent, checked = await add_again(scene, node, state)
    assert torrent.is_complete
    assert checked == (0 if verifies else NUM_PIECES)


@in_scene()
async def test_what_the_journal_knows_already_is_no_matter_of_trust(scene: Scene) -> None:
    """Wherever the files are by now: they are the same."""
    state = scene.state_dir
    first = await scene.node(is_seed=True, state_dir=state)
    await first.close()
    host = scene.add_host()
    first.folder.rename(scene.folder_of(host))
    node = await scene.node(host=host, state_dir=state, torrent={"skip_check": True})
    torrent, checked = await add_again(scene, node, state)
    assert (torrent.is_complete, checked) == (True, 0)


@in_scene()
async def test_trust_that_is_given_again_writes_nothing(scene: Scene) -> None:
    """Thousands of torrents may start like this."""
    state, host = scene.state_dir, scene.add_host()
    kept = state / "torrents" / f"{scene.info_hash}.torrent"
    places = []
    for _ in range(2):
        node = await scene.node(
            is_seed=True, host=host, state_dir=state, torrent={"skip_check": True}
        )
        places.append((kept.stat().st_ino, kept.stat().st_mtime_ns))
        await node.close()
    assert places[0] == places[1]


# --- failures --------------------------------------------------------------------------------


def test_a_checkpoint_that_fails_is_made_up_for_by_the_next(
    tmp_path: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    """Limit: F3. What was not synced is not kept; what a kill then leaves is hashed again."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            calls = FaultyCalls()
            seed = await scene.node(is_seed=True)
            node = await scene.node(
                peers=[seed], state_dir=tmp_path / "state", checkpoint_interval=5.0, os_calls=calls
            )
            journal = node.session._services.journal
            assert journal is not None
            calls.fail_call(0, for_good=True, names=["fdatasync", "fsync"])
            await node.complete(within=60)
            await asyncio.sleep(8)
            assert await num_kept(journal, scene) == 0
            assert node.torrent.state is TorrentState.SEEDING
            calls.heal()
            store, commit_have = journal._store, journal._store.commit_have

            def refuse(*_: object, **__: object) -> None:
                raise StorageError("no room on the volume")

            store.commit_have = refuse  # type: ignore[method-assign]  # a fault
            await asyncio.sleep(8)
            store.commit_have = commit_have  # type: ignore[method-assign]
            assert await num_kept(journal, scene) == 0
            await asyncio.sleep(8)
            assert await num_kept(journal, scene) == NUM_PIECES

    with caplog.at_level(logging.WARNING):
        simulate(main)
    assert caplog.text.count("checkpoint of") >= 2
    assert "no room on the volume" in caplog.text


@pytest.mark.parametrize("ends", [False, True])
def test_what_the_disk_has_dropped_in_a_failed_sync_is_not_kept(
    ends: bool, tmp_path: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    """Limit: F3. The next sync succeeds, and says nothing of what the one before has lost."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            calls, state = FaultyCalls(), tmp_path / "state"
            seed = await scene.node(is_seed=True)
            node = await scene.node(
                peers=[seed], state_dir=state, checkpoint_interval=5.0, os_calls=calls
            )
            watch = Watch(node.torrent)
            calls.fail_call(0, for_good=True, names=["fdatasync"])
            await node.complete(within=60)
            await asyncio.sleep(8)
            damage(node.folder / NAME, 5 * PIECE_LENGTH)
            calls.heal()
            if not ends:
                await asyncio.sleep(30)
                assert [event.index for event in watch.of(PieceLost)] == [5]
                assert node.has_content()
            torrent, checked = await add_again(scene, node, state)
            assert checked == 0
            assert torrent.stats().num_have == NUM_PIECES - ends

    with caplog.at_level(logging.WARNING):
        simulate(main)
    assert "checkpoint of" in caplog.text


async def num_kept(journal: Journal, scene: Scene) -> int:
    """Return how many pieces the journal knows of."""
    found = await journal.find(scene.info_hash)
    assert found is not None
    assert found.have is not None
    return len(found.have)


def test_a_last_checkpoint_that_fails_does_not_hold_up_the_end(
    tmp_path: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            calls, state = FaultyCalls(), tmp_path / "state"
            seed = await scene.node(is_seed=True)
            node = await scene.node(peers=[seed], state_dir=state, os_calls=calls)
            await node.complete(within=60)
            calls.fail_call(0, for_good=True, names=["fdatasync", "fsync"])
            torrent, checked = await add_again(scene, node, state)
            assert torrent.is_complete
            assert checked == NUM_PIECES

    with caplog.at_level(logging.WARNING):
        simulate(main)
    assert "last checkpoint" in caplog.text


@pytest.mark.parametrize("is_in_the_way", [False, True])
def test_a_torrent_file_that_becomes_whole_is_kept(
    is_in_the_way: bool, tmp_path: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    """If not at once, then at the end."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path, version=Version.HYBRID) as scene:
            state = tmp_path / "state"
            seed = await scene.node(is_seed=True)
            node = await scene.node(source=scene.link_by("btih"), peers=[seed], state_dir=state)
            await until(lambda: bool(list(state.rglob("*.torrent"))))
            [path] = state.rglob("*.torrent")
            moved = path.parent.with_name("moved")
            if is_in_the_way:
                path.parent.rename(moved)
            await node.complete(within=60)
            await asyncio.sleep(5)
            if is_in_the_way:
                moved.rename(path.parent)
                with pytest.raises(MetainfoError, match="missing"):
                    decode_metainfo(path.read_bytes())
                await node.close()
            assert decode_metainfo(path.read_bytes()).piece_layers == scene.metainfo.piece_layers

    with caplog.at_level(logging.WARNING):
        simulate(main)
    assert ("metainfo of" in caplog.text) is is_in_the_way


# --- while it runs ---------------------------------------------------------------------------


@in_scene()
async def test_checkpoints_come_by_time_and_by_length(scene: Scene, tmp_path: Path) -> None:
    """Limit: F8."""
    seed = await scene.node(is_seed=True, max_upload_rate=100_000)
    slow = await scene.node(peers=[seed], state_dir=tmp_path / "by time", checkpoint_interval=5.0)
    await asyncio.sleep(8)
    journal = slow.session._services.journal
    assert journal is not None
    found = await journal.find(scene.info_hash)
    assert found is not None
    assert found.have is not None
    assert 0 < len(found.have) <= slow.torrent.stats().num_have < NUM_PIECES


@in_scene()
async def test_a_session_without_a_state_folder_keeps_nothing(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    leecher = await scene.node(peers=[seed], checkpoint_interval=1.0)
    await leecher.complete(within=60)
    assert leecher.session._services.journal is None
    assert sorted(path.name for path in leecher.folder.iterdir()) == [NAME]


@in_scene(version=Version.HYBRID)
async def test_without_a_state_folder_no_torrent_file_is_kept(scene: Scene, tmp_path: Path) -> None:
    seed = await scene.node(is_seed=True)
    link = scene.link_by("btih")
    node = await scene.node(source=link, peers=[seed])
    await node.complete(within=60)
    await asyncio.sleep(5)
    metainfo = node.torrent.metainfo
    assert metainfo is not None
    assert metainfo.piece_layers == scene.metainfo.piece_layers
    assert not list(tmp_path.rglob("*.torrent"))
