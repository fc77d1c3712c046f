"""engine.torrent: what is kept, found again, checked, lost, selected; states and rest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from bittern.codec import wire
from bittern.codec.bencode import decode, encode
from bittern.codec.info import Version
from bittern.codec.wire import MessageId
from bittern.core.announce import ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.errors import ConfigError, DiskFull, Inconsistent, MetainfoError, StorageError
from bittern.engine import events
from bittern.engine.config import TorrentConfig
from bittern.engine.events import TorrentState
from bittern.storage.hash_trees import read_piece_hash
from bittern.testing.disk import FaultyCalls
from bittern.testing.peer import ExpectationFailed
from tests.engine.scene import (
    BLOCK_LENGTH,
    FAST,
    GIVEN,
    NAME,
    NUM_PIECES,
    PIECE_LENGTH,
    Node,
    Scene,
    Stranger,
    Watch,
    damage,
    endpoint_of,
    in_scene,
    restore,
    snapshot,
    until,
)
from tests.engine.sources.fake_tracker import URL, FakeClient, tracked
from tests.engine.web import BASE, Web


async def get_some(scene: Scene, leecher: Node, num_pieces: int) -> None:
    """Let a leecher run until it has some pieces."""
    await until(lambda: leecher.torrent.have_bits.bit_count() >= num_pieces)


def is_congested(node: Node) -> bool:
    """Tell whether more waits for a node's disk than should."""
    return node.torrent.diagnose().storage.is_congested


async def slow_pair(scene: Scene, state: Path, **options: object) -> tuple[Node, Node]:
    """Return a seed with a slow line, and a leecher with a state folder."""
    seed = await scene.node(is_seed=True, host=scene.add_host(upload_rate=100_000))
    leecher = await scene.node(peers=[seed], state_dir=state, **options)  # type: ignore[arg-type]
    return seed, leecher


# --- resume ----------------------------------------------------------------------------------


@in_scene()
async def test_after_a_clean_end_nothing_is_hashed_or_fetched_again(scene: Scene) -> None:
    """Blocks of pieces in progress are kept as well."""
    state = scene.state_dir
    seed, leecher = await slow_pair(scene, state)
    await get_some(scene, leecher, 5)
    swarm = leecher.swarm
    opened = swarm.assembly.pieces.open
    await until(lambda: any(0 < p.num_received < p.num_blocks for p in opened.values()))
    await leecher.torrent.pause()
    have, downloaded = leecher.torrent.have_bits, leecher.torrent.num_downloaded
    assert downloaded % PIECE_LENGTH
    await leecher.close()
    again = await scene.node(host=leecher.host, peers=[seed], state_dir=state)
    assert again.torrent.have_bits == have
    assert again.torrent.num_checked == 0
    assert again.torrent.num_downloaded == downloaded
    await again.complete()
    assert again.has_content()
    # What was on its way when it paused came in vain; everything else was used.
    assert again.torrent.num_downloaded <= len(scene.data) + BLOCK_LENGTH


@in_scene()
async def test_after_a_kill_no_complete_piece_is_fetched_again(scene: Scene) -> None:
    """Limit: F7. Only what was written since the last checkpoint is hashed."""
    state = scene.state_dir
    seed, leecher = await slow_pair(scene, state, checkpoint_interval=2.0)
    await get_some(scene, leecher, 9)
    copies = snapshot(state, leecher.folder)
    have = leecher.torrent.have_bits
    await leecher.close()
    restore(copies)
    for name in ("lock",):
        (state / name).unlink(missing_ok=True)
    again = await scene.node(host=leecher.host, state_dir=state)
    assert again.torrent.have_bits & have == have
    assert 0 < again.torrent.num_checked < NUM_PIECES
    left, downloaded = again.torrent.num_left, again.torrent.num_downloaded
    again.torrent.add_peers([seed.endpoint], "user")
    await again.complete()
    assert again.has_content()
    assert again.torrent.num_downloaded - downloaded == left


@pytest.mark.parametrize("change", ["truncate", "touch", "remove"])
@in_scene()
async def test_files_that_changed_meanwhile_are_hashed(scene: Scene, change: str) -> None:
    """Limit: F5, F9."""
    state = scene.state_dir
    seed = await scene.node(is_seed=True)
    leecher = await scene.node(peers=[seed], state_dir=state)
    await leecher.complete()
    await leecher.close()
    path = leecher.folder / NAME
    if change == "truncate":
        with path.open("r+b") as file:
            file.truncate(3 * PIECE_LENGTH)
    elif change == "touch":
        data = bytearray(path.read_bytes())
        data[0] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()
    again = await scene.node(host=leecher.host, peers=[seed], state_dir=state)
    expected = {"truncate": 3, "touch": NUM_PIECES - 1, "remove": 0}[change]
    assert again.torrent.have_bits.bit_count() == expected
    await again.complete()
    assert again.has_content()


@pytest.mark.parametrize("length", [None, 0, PIECE_LENGTH + 1_000, 2 * PIECE_LENGTH])
@in_scene(files={"a": 3 * PIECE_LENGTH, "b": 100_000})
async def test_what_is_gone_at_a_clean_end_is_not_taken_for_there(
    scene: Scene, length: int | None
) -> None:
    """Somebody removed or cut a file while we ran: it was as at the end, and believed."""
    seed = await scene.node(is_seed=True, state_dir=scene.state_dir)
    path = seed.folder / NAME / "a"
    if length is None:
        path.unlink()
    else:
        os.truncate(path, length)
    await seed.close()
    again = await scene.node(host=seed.host, state_dir=scene.state_dir)
    have = again.torrent.have_bits
    missing = 3 if length is None else 3 - length // PIECE_LENGTH
    assert have.bit_count() == again.torrent.info.geometry.num_pieces - missing
    assert not again.torrent.is_complete


@in_scene()
async def test_a_resumed_seed_hashes_each_piece_before_it_sends_it(scene: Scene) -> None:
    """Limit: F5. Size and time of the file are as they were; its content is not."""
    state = scene.state_dir
    seed = await scene.node(is_seed=True, state_dir=state)
    await seed.close()
    damage(seed.folder / NAME, 5 * PIECE_LENGTH, keeps_times=True)
    again = await scene.node(host=seed.host, state_dir=state)
    assert again.torrent.is_complete
    await check_damaged_seed(scene, again, bad=5)


async def check_damaged_seed(scene: Scene, seed: Node, *, bad: int) -> None:
    watch = Watch(seed.torrent)
    leecher = await scene.node(peers=[seed])
    failures = Watch(leecher.torrent)
    await asyncio.sleep(20)
    assert [event.index for event in watch.of(events.PieceLost)] == [bad]
    assert failures.of(events.PieceFailed) == []
    assert leecher.torrent.have_bits.bit_count() == NUM_PIECES - 1
    assert seed.torrent.state is TorrentState.DOWNLOADING
    other = await scene.node(is_seed=True)
    leecher.torrent.add_peers([other.endpoint], "user")
    await leecher.complete()
    await seed.complete()
    assert leecher.has_content()
    assert seed.has_content()


@in_scene()
async def test_skip_check_believes_and_verifies_before_it_sends(scene: Scene) -> None:
    """Limit: F5."""
    host = scene.add_host()
    scene.write_content(scene.folder_of(host))
    damage(scene.folder_of(host) / NAME, 7 * PIECE_LENGTH + 3, keeps_times=True)
    seed = await scene.node(host=host, torrent={"skip_check": True})
    assert seed.torrent.is_complete
    assert seed.torrent.num_checked == 0
    await check_damaged_seed(scene, seed, bad=7)


@in_scene()
async def test_a_check_that_is_asked_for_is_not_skipped(scene: Scene) -> None:
    """Whatever was believed when the torrent was added."""
    seed = await scene.node(damaged=[7 * PIECE_LENGTH], torrent={"skip_check": True})
    assert seed.torrent.is_complete
    await seed.torrent.recheck()
    assert seed.torrent.num_checked == NUM_PIECES
    assert seed.torrent.have_bits.bit_count() == NUM_PIECES - 1


@pytest.mark.parametrize("has_journal", [False, True])
@in_scene()
async def test_what_a_check_has_found_is_not_forgotten_for_what_was_believed_before_it(
    scene: Scene, has_journal: bool
) -> None:
    node = await scene.node(
        damaged=[7 * PIECE_LENGTH],
        torrent={"skip_check": True},
        state_dir=scene.state_dir if has_journal else None,
    )
    torrent = node.torrent
    await torrent.move(scene.folder / "new")
    assert torrent.is_complete
    await torrent.recheck()
    assert not torrent.config.skip_check
    await torrent.pause()
    await torrent.resume()
    assert torrent.have_bits.bit_count() == NUM_PIECES - 1
    assert torrent.state is TorrentState.DOWNLOADING


@in_scene()
async def test_skip_check_of_nothing_at_all(scene: Scene) -> None:
    seed = await scene.node(torrent={"skip_check": True})
    peer = await scene.unchoked(seed)
    peer.send(wire.encode_request(2, 0, BLOCK_LENGTH))
    await peer.expect(MessageId.REJECT_REQUEST)


@in_scene()
async def test_recheck_finds_what_was_damaged_and_what_was_mended(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    watch = Watch(seed.torrent)
    damage(seed.folder / NAME, 2 * PIECE_LENGTH, keeps_times=True)
    damage(seed.folder / NAME, 9 * PIECE_LENGTH, keeps_times=True)
    await seed.torrent.recheck()
    assert seed.torrent.have_bits.bit_count() == NUM_PIECES - 2
    assert seed.torrent.state is TorrentState.DOWNLOADING
    await asyncio.sleep(0)
    assert watch.of(events.CheckProgressed)[-1].num_checked == NUM_PIECES
    scene.write_content(seed.folder)
    await seed.torrent.recheck()
    assert seed.torrent.is_complete
    states = [event.state for event in watch.of(events.StateChanged)]
    assert states[:2] == [TorrentState.CHECKING, TorrentState.DOWNLOADING]


@in_scene()
async def test_a_pause_calls_a_recheck_off_and_it_is_owed(scene: Scene) -> None:
    """The journal knows all pieces, and still they are hashed: somebody has asked for it."""
    seed = await scene.node(is_seed=True, worker_delay=10.0, state_dir=scene.state_dir)
    torrent, watch = seed.torrent, Watch(seed.torrent)
    await asyncio.sleep(0)
    damage(seed.folder / NAME, 2 * PIECE_LENGTH, keeps_times=True)
    for _ in range(2):
        checking = scene.spawn(torrent.recheck())
        await until(lambda: torrent.state is TorrentState.CHECKING)
        await asyncio.sleep(5)
        await torrent.pause()
        assert torrent.state is TorrentState.PAUSED
        assert torrent.roster is None
        await checking
        assert torrent.state is TorrentState.PAUSED
    assert watch.of(events.CheckProgressed) == [], "it ended before the first piece"
    await torrent.resume()
    assert torrent.have_bits.bit_count() == NUM_PIECES - 1
    await torrent.pause()
    watch.seen.clear()
    await torrent.resume()
    assert watch.of(events.CheckProgressed) == [], "it is owed no more"
    assert torrent.have_bits.bit_count() == NUM_PIECES - 1


@in_scene()
async def test_a_first_check_that_is_called_off_loses_nothing(scene: Scene) -> None:
    session = await scene.session(scene.add_host(), worker_delay=10.0)
    scene.write_content(scene.folder)
    adding = scene.spawn(session.add(scene.raw, TorrentConfig(output=scene.folder)))
    await until(lambda: bool(session.torrents))
    [torrent] = session.torrents
    await until(lambda: torrent.state is TorrentState.CHECKING)
    await torrent.pause()
    assert (await adding).state is TorrentState.PAUSED
    assert torrent.have_bits == 0
    await torrent.resume()
    assert torrent.is_complete


# --- files -----------------------------------------------------------------------------------

FILES = {"a": 100_000, "b/c": 200_000, "b/d": 0, "e": 150_000}


@pytest.mark.parametrize("version", [Version.V1, Version.V2, Version.HYBRID])
@in_scene(files=FILES, version=GIVEN)
async def test_many_files_of_each_version(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    assert seed.torrent.is_complete
    leecher = await scene.node(peers=[seed])
    await leecher.complete()
    assert leecher.has_content()
    names = [file.path[-1] for file in leecher.torrent.info.files if not file.is_pad]
    progress = leecher.torrent.file_progress()
    sizes = [file.length for file in leecher.torrent.info.files]
    assert progress == sizes
    assert sorted(names) == ["a", "c", "d", "e"]


@in_scene()
async def test_a_peer_of_the_user_that_refuses_is_found_when_it_is_there(scene: Scene) -> None:
    host = scene.add_host()
    leecher = await scene.node(peers=[endpoint_of(host)])
    await asyncio.sleep(3)
    assert scene.network.attempts[endpoint_of(host)] >= 2
    await scene.node(is_seed=True, host=host)
    await leecher.complete(within=7)


@in_scene(files=FILES)
async def test_only_wanted_files_are_fetched(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    index = names_of(scene).index("e")
    leecher = await scene.node(peers=[seed], torrent={"files": frozenset([index])})
    await leecher.complete()
    await asyncio.sleep(1)
    stats = leecher.torrent.stats()
    assert (stats.progress, stats.left) == (1.0, 0)
    assert stats.wanted_length < stats.total_length
    assert (leecher.folder / NAME / "e").read_bytes() == scene.files["e"]
    assert leecher.torrent.num_downloaded == stats.wanted_length
    assert not (leecher.folder / NAME / "a").exists()
    leecher.torrent.change(files=None)
    assert leecher.torrent.state is TorrentState.DOWNLOADING
    await leecher.complete(within=60)
    assert leecher.has_content()


def names_of(scene: Scene) -> list[str]:
    return [file.path[-1] for file in scene.metainfo.info.files]


@in_scene(files=FILES)
async def test_a_choice_of_files_outlives_a_pause(scene: Scene, tmp_path: Path) -> None:
    leecher = await scene.node()
    leecher.torrent.change(files={0})
    left = leecher.torrent.num_left
    assert 0 < left < len(scene.data)
    await leecher.torrent.pause()
    assert leecher.torrent.num_left == left
    leecher.torrent.change(files={0, 1})
    await leecher.torrent.resume()
    assert leecher.torrent.num_left > left
    for wrong in ({4}, {-1}):
        with pytest.raises(ConfigError):
            leecher.torrent.change(files=wrong)
    with pytest.raises(ConfigError, match="there is no file 9"):
        await leecher.session.add(
            Scene(scene.loop, tmp_path / "x", files={"z": 5}).raw,
            TorrentConfig(output=tmp_path, files=frozenset([9])),
        )


@pytest.mark.parametrize("has_data", [False, True])
@in_scene(version=Version.HYBRID)
async def test_a_hybrid_that_contradicts_itself_stops(scene: Scene, has_data: bool) -> None:
    """Limit: P13. No bytes satisfy both of its halves, and no peer is to blame."""
    value: Any = decode(scene.raw)
    info = value[b"info"]
    pieces = info[b"pieces"]
    info[b"pieces"] = pieces[:20] + bytes(20) + pieces[40:]
    scene.raw = encode(value)
    stranger = Stranger(scene)
    node = await scene.node(peers=[stranger], is_seed=has_data)
    watch = Watch(node.torrent)
    if not has_data:
        peer = await stranger.accept()
        await scene.greet(peer, bitfield=wire.HAVE_ALL + wire.UNCHOKE)
        await peer.serve(scene.block)
    with pytest.raises(Inconsistent):
        await node.torrent.wait_complete()
    await asyncio.sleep(1)
    assert node.torrent.state is TorrentState.ERROR
    assert watch.of(events.PeerBanned) == []
    assert len(watch.of(events.TorrentUnusable)) == (not has_data)  # else before the watch
    assert watch.of(events.StorageFailed) == []
    assert "piece 1 matches its v2 hash and not its v1 hash" in str(node.torrent.error)
    assert node.torrent.num_connections == 0


@in_scene(version=Version.HYBRID)
async def test_a_hybrid_that_contradicts_itself_stops_at_its_first_upload(scene: Scene) -> None:
    """Limit: P13, F5. What was taken on trust is hashed before it is sent, and found wanting."""
    value: Any = decode(scene.raw)
    value[b"info"][b"pieces"] = bytes(20) + value[b"info"][b"pieces"][20:]
    scene.raw = encode(value)
    node = await scene.node(
        is_seed=True, torrent={"skip_check": True}, peers=[Endpoint("10.9.9.9", 1)]
    )
    watch = Watch(node.torrent)
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE)
    peer.send_message(MessageId.INTERESTED)
    await peer.expect(MessageId.UNCHOKE)
    peer.send(wire.encode_request(0, 0, BLOCK_LENGTH))
    await until(lambda: node.torrent.state is TorrentState.ERROR)
    assert isinstance(node.torrent.error, Inconsistent)
    assert len(watch.of(events.TorrentUnusable)) == 1


# --- a disk that fails -----------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 20_000, 5 * PIECE_LENGTH + 1, 900_000])
@in_scene()
async def test_a_full_disk_is_waited_for(scene: Scene, room: int) -> None:
    """Limit: F1. ERROR, and within 60 s of space returning it goes on by itself."""
    seed = await scene.node(is_seed=True)
    calls = FaultyCalls(room=room)
    leecher = await scene.node(peers=[seed], os_calls=calls)
    with pytest.raises(DiskFull):
        await leecher.complete(within=60)
    assert leecher.torrent.state is TorrentState.ERROR
    assert isinstance(leecher.torrent.error, DiskFull)
    await asyncio.sleep(100)
    assert leecher.torrent.state in (TorrentState.ERROR, TorrentState.CHECKING)
    calls.room = None
    await until(lambda: leecher.torrent.state is TorrentState.SEEDING, within=60)
    assert leecher.torrent.error is None
    assert leecher.has_content()


@in_scene()
async def test_a_full_disk_and_the_end(scene: Scene) -> None:
    """Nothing is left behind when the session ends while it waits for room."""
    seed = await scene.node(is_seed=True)
    calls = FaultyCalls(room=100_000)
    leecher = await scene.node(peers=[seed], os_calls=calls, state_dir=scene.state_dir)
    with pytest.raises(DiskFull):
        await leecher.complete()


@in_scene()
async def test_a_disk_that_fails_stops_the_torrent_and_nothing_else(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    calls = FaultyCalls()
    leecher = await scene.node(peers=[seed], os_calls=calls)
    watch = Watch(leecher.torrent)
    calls.fail_call(0, for_good=True, names=["pwritev"])
    with pytest.raises(StorageError):
        await leecher.complete(within=60)
    await asyncio.sleep(1)
    assert leecher.torrent.num_connections == 0
    assert [e.reason for e in watch.of(events.StorageFailed)] != []
    assert seed.torrent.state is TorrentState.SEEDING
    calls.heal()
    await leecher.torrent.resume()
    await leecher.complete()
    assert leecher.has_content()


@pytest.mark.parametrize(
    "place", ["engine.awake.probe_folding", "storage.files.FileStorage.finish_file"]
)
@pytest.mark.parametrize("is_link", [False, True])
@in_scene()
async def test_a_bug_in_the_worker_stops_the_torrent_until_it_is_resumed(
    scene: Scene, place: str, is_link: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F17. While it starts, or when the last piece is there."""

    def buggy(*_: object) -> None:
        raise ZeroDivisionError

    seed = await scene.node(is_seed=True)
    monkeypatch.setattr(f"bittern.{place}", buggy)
    node = await scene.node(peers=[seed], source=scene.link if is_link else None)
    with pytest.raises(StorageError, match="a bug: ZeroDivisionError"):
        await node.complete()
    assert node.torrent.state is TorrentState.ERROR
    await until(lambda: node.torrent.sources() == [])
    monkeypatch.undo()
    await node.torrent.resume()
    await node.complete()


@pytest.mark.parametrize("chosen", [frozenset(), frozenset({0})])
@in_scene(files={"a": 400_000, "b": 400_000})
async def test_a_choice_of_files_does_not_hide_a_failure(
    scene: Scene, chosen: frozenset[int]
) -> None:
    """It is still telling its trackers of its end."""
    seed = await scene.node(is_seed=True)
    client, calls = FakeClient(), FaultyCalls()
    leecher = await scene.node(
        peers=[seed],
        os_calls=calls,
        make=tracked(client),
        enable_trackers=True,
        torrent={"trackers": ((URL,),)},
    )
    await asyncio.sleep(0.15)
    client.is_dead = True
    watch = Watch(leecher.torrent)
    calls.fail_call(0, for_good=True, names=["pwritev"])
    await until(lambda: leecher.torrent.error is not None)
    leecher.torrent.change(files=chosen)
    leecher.torrent.change(files=None)
    leecher.torrent.change(files=chosen)
    assert leecher.torrent.state is TorrentState.ERROR
    await asyncio.sleep(20)
    assert leecher.torrent.state is TorrentState.ERROR
    assert not watch.of(events.TorrentCompleted)
    with pytest.raises(StorageError):
        await leecher.torrent.wait_complete()
    calls.heal()
    await leecher.torrent.resume()
    await leecher.complete()


@in_scene()
async def test_a_choice_of_files_does_not_wake_what_is_paused(scene: Scene) -> None:
    """Who called its check off has been cancelled, and it still tells its trackers."""
    seed = await scene.node(is_seed=True)
    client = FakeClient()
    node = await scene.node(
        source=f"{scene.link}&tr={URL}",
        peers=[seed],
        make=tracked(client),
        enable_trackers=True,
        worker_delay=1.0,
    )
    torrent = node.torrent
    await until(lambda: torrent.state is TorrentState.CHECKING)
    client.is_dead = True
    pausing = asyncio.ensure_future(torrent.pause())
    await asyncio.sleep(0)
    pausing.cancel()
    await until(lambda: torrent.state is TorrentState.PAUSED)
    assert torrent.swarm is not None
    torrent.change(files=frozenset())
    assert torrent.state is TorrentState.PAUSED
    await asyncio.sleep(20)
    assert torrent.state is TorrentState.PAUSED
    assert torrent.swarm is None
    assert not torrent.is_resting


@pytest.mark.parametrize("wait", [0.0, 1.0])
@in_scene()
async def test_whoever_goes_on_at_once_after_a_failure_does_go_on(
    scene: Scene, wait: float
) -> None:
    seed = await scene.node(is_seed=True)
    calls = FaultyCalls()
    leecher = await scene.node(peers=[seed], os_calls=calls, worker_delay=0.5)
    calls.fail_call(0, for_good=True, names=["pwritev"])
    with pytest.raises(StorageError):
        await leecher.complete(within=60)
    calls.heal()
    await asyncio.sleep(wait)
    await leecher.torrent.resume()
    await leecher.complete(within=60)
    assert leecher.has_content()


@in_scene()
async def test_a_torrent_at_rest_that_cannot_wake_up_asks_nobody_any_more(scene: Scene) -> None:
    """As when its volume is gone; who connects is refused."""
    calls = FaultyCalls()
    seed = await scene.node(is_seed=True, rest_after=1.0, state_dir=scene.state_dir, os_calls=calls)
    await until(lambda: seed.torrent.is_resting)
    assert seed.torrent.sources() != []
    calls.fail_call(0, for_good=True)
    (seed.folder / NAME).unlink()
    (seed.folder / NAME).mkdir()
    await scene.add_and_knock(seed)
    await until(lambda: seed.torrent.state is TorrentState.ERROR)
    await asyncio.sleep(1)
    assert seed.torrent.sources() == []


@in_scene()
async def test_a_slow_disk_pauses_reading(scene: Scene) -> None:
    """Limit: F16. What waits for the disk stays near its limit, and nothing is lost."""
    seed = await scene.node(is_seed=True)
    calls = FaultyCalls()
    leecher = await scene.node(
        peers=[seed], os_calls=calls, max_write_queue=100_000, worker_delay=0.2
    )
    blocked: list[str] = []

    def slow(name: str) -> None:
        if name == "pwritev" and not blocked:
            blocked.append(name)
            scene.loop.block(1.0)

    calls.before_call = slow
    has_paused = False
    while not leecher.torrent.is_complete:
        await asyncio.sleep(0.02)
        has_paused = has_paused or leecher.session._disk.is_congested
        assert leecher.session._disk._queued < 100_000 + (1 << 20)
        assert scene.loop.time() < 120
    assert has_paused
    assert leecher.has_content()


@in_scene()
async def test_who_connects_while_the_disk_is_slow_is_paused_once_greeted(scene: Scene) -> None:
    """Limit: F16. Who is in the middle of its handshake may end it, or it would be timed out."""
    seed = await scene.node(is_seed=True)
    calls = FaultyCalls()
    leecher = await scene.node(
        peers=[seed], os_calls=calls, max_write_queue=100_000, worker_delay=4.0
    )
    greeting = wire.encode_handshake(scene.info_hash, b"-SC0000-abcdefghijkl", FAST)
    early = await scene.connect(leecher)
    early.send(greeting[:48])
    await early.expect_handshake()
    calls.before_call = lambda name: scene.loop.block(0.1) if name == "pwritev" else None
    await until(lambda: is_congested(leecher))
    early.send(greeting[48:])
    late = await scene.scripted(leecher)
    for peer in (early, late):
        await peer.expect(MessageId.HAVE_NONE, MessageId.BITFIELD)
        peer.send_message(MessageId.HAVE_ALL)
    with pytest.raises(ExpectationFailed, match="within"):
        await late.expect(MessageId.INTERESTED, timeout=2)
    assert is_congested(leecher)
    await until(lambda: not is_congested(leecher))
    for peer in (early, late):
        await peer.expect(MessageId.INTERESTED, timeout=1)
        peer.close()


@in_scene()
async def test_nobody_is_silent_whom_we_did_not_read_from(scene: Scene) -> None:
    """Limit: F16. A disk that takes longer than a peer may be silent costs no connection."""
    seed = await scene.node(is_seed=True)
    calls = FaultyCalls()
    leecher = await scene.node(
        peers=[seed],
        os_calls=calls,
        max_write_queue=100_000,
        worker_delay=8.0,
        idle_timeout=3.0,
        snub_timeout=3.0,
    )
    calls.before_call = lambda name: scene.loop.block(0.1) if name == "pwritev" else None
    await until(lambda: is_congested(leecher))
    [peer] = leecher.roster.peers
    await asyncio.sleep(6)
    assert is_congested(leecher)
    assert not peer.is_closed
    assert not peer.is_snubbing
    calls.before_call = lambda name: None
    await until(lambda: not is_congested(leecher), within=300)
    await asyncio.sleep(3)
    assert list(leecher.roster.peers) == [peer]


# --- states ----------------------------------------------------------------------------------


@in_scene()
async def test_pause_and_resume(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, host=scene.add_host(upload_rate=100_000))
    leecher = await scene.node(peers=[seed])
    await get_some(scene, leecher, 3)
    await leecher.torrent.pause()
    assert leecher.torrent.state is TorrentState.PAUSED
    assert leecher.torrent.roster is None
    downloaded = leecher.torrent.num_downloaded
    stats = leecher.torrent.stats()
    assert stats.num_have >= 3
    assert stats.downloaded == downloaded
    await asyncio.sleep(30)
    assert leecher.torrent.num_downloaded == downloaded
    assert seed.torrent.num_connections == 0
    await leecher.torrent.resume()
    await leecher.torrent.resume()
    await leecher.complete()
    assert leecher.has_content()


@in_scene()
async def test_one_that_is_added_paused_waits(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    leecher = await scene.node(peers=[seed], torrent={"paused": True})
    await asyncio.sleep(5)
    assert leecher.torrent.num_downloaded == 0
    assert leecher.torrent.file_progress() == [0]
    await leecher.torrent.resume()
    await leecher.complete()


@in_scene()
async def test_waiting_ends_when_the_torrent_is_removed(scene: Scene) -> None:
    leecher = await scene.node()
    watch = Watch(leecher.torrent)
    waiting = scene.loop.create_task(leecher.torrent.wait_complete())
    await asyncio.sleep(1)
    await leecher.session.remove(leecher.torrent)
    with pytest.raises(ConfigError, match="removed"):
        await waiting
    await watch.task
    assert watch.seen[-1] == events.StateChanged(TorrentState.STOPPED)
    with pytest.raises(ConfigError, match="removed"):
        await leecher.torrent.start()
    assert leecher.torrent.state is TorrentState.STOPPED


@in_scene()
async def test_recheck_of_what_is_not_there(scene: Scene) -> None:
    node = await scene.node(source=scene.link)
    with pytest.raises(MetainfoError):
        assert node.torrent.info
    assert node.torrent.metainfo is None
    assert node.torrent.file_progress() == []
    assert node.torrent.stats().total_length == 0
    assert repr(node.torrent).startswith("<Torrent")


@in_scene()
async def test_an_output_folder_that_is_a_file(scene: Scene, tmp_path: Path) -> None:
    host = scene.add_host()
    session = await scene.session(host)
    (tmp_path / "file").write_bytes(b"")
    torrent = await session.add(scene.raw, TorrentConfig(output=tmp_path / "file"))
    assert torrent.state is TorrentState.ERROR
    with pytest.raises(StorageError):
        await torrent.wait_complete()


# --- rest ------------------------------------------------------------------------------------


@in_scene()
async def test_a_seed_without_peers_rests_and_wakes(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, rest_after=10.0, state_dir=scene.state_dir)
    watch = Watch(seed.torrent)
    await asyncio.sleep(5)
    assert seed.torrent.is_resting, "nobody is known, so there is nothing to wait for"
    assert seed.torrent.swarm is None
    assert seed.torrent.is_complete
    assert seed.torrent.stats().progress == 1.0
    assert seed.torrent.file_progress() == [len(scene.data)]
    assert seed.torrent.info.name == NAME
    leecher = await scene.node(peers=[seed])
    await leecher.complete(within=10)
    assert leecher.has_content()
    await asyncio.sleep(5)
    assert not seed.torrent.is_resting
    await asyncio.sleep(40)
    assert seed.torrent.is_resting
    assert seed.torrent.num_uploaded == len(scene.data)
    assert watch.of(events.TorrentCompleted) == [], "it was so all along"
    await seed.torrent.recheck()
    assert seed.torrent.is_complete


@in_scene()
async def test_without_a_journal_there_is_no_rest(scene: Scene) -> None:
    """It would have to hash everything to wake up."""
    seed = await scene.node(is_seed=True, rest_after=1.0)
    await asyncio.sleep(60)
    assert not seed.torrent.is_resting


@in_scene(files=FILES)
async def test_more_files_are_wanted_of_one_that_rests(scene: Scene) -> None:
    other = await scene.node(is_seed=True)
    node = await scene.node(
        torrent={"files": frozenset([1])}, state_dir=scene.state_dir, rest_after=5.0
    )
    node.torrent.add_peers([other.endpoint], "user")
    await node.complete()
    await asyncio.sleep(30)
    assert node.torrent.is_resting
    node.torrent.change(files=None)
    assert not node.torrent.is_complete
    await node.complete()
    assert node.has_content()


@in_scene()
async def test_at_rest_it_keeps_no_metainfo_in_memory(scene: Scene) -> None:
    state = scene.state_dir
    seed = await scene.node(is_seed=True, rest_after=1.0, state_dir=state)
    await asyncio.sleep(5)
    assert seed.torrent.is_resting
    shutil.rmtree(state / "torrents")
    with pytest.raises(MetainfoError):
        assert seed.torrent.info
    peer_host = scene.add_host()
    peer = await scene.connect(seed, peer_host)
    peer.send_handshake(scene.info_hash)
    await peer.expect_closed(timeout=15)
    assert seed.torrent.state is TorrentState.ERROR


@in_scene()
async def test_many_who_come_at_once_wake_it_once(scene: Scene, tmp_path: Path) -> None:
    seed = await scene.node(is_seed=True, rest_after=5.0, state_dir=tmp_path / "s")
    await asyncio.sleep(5)
    assert seed.torrent.is_resting
    peers = [await scene.add_and_knock(seed) for _ in range(5)]
    for peer in peers:
        await peer.expect_handshake()
    assert seed.torrent.num_connections == 5


@in_scene()
async def test_nobody_is_forgotten_by_who_rests(scene: Scene, tmp_path: Path) -> None:
    """Peers that are named while it rests are dialled."""
    seed = await scene.node(is_seed=True, rest_after=5.0, state_dir=tmp_path / "s")
    await asyncio.sleep(5)
    assert seed.torrent.is_resting
    stranger = Stranger(scene)
    seed.torrent.add_peers([stranger.endpoint], "user")
    peer = await stranger.accept()
    await peer.expect_handshake()
    with pytest.raises(ExpectationFailed):
        await stranger.accept(timeout=1)


@in_scene(files={"a": 200_000, "b": 300_000})
async def test_who_waits_for_a_torrent_finds_its_files_under_their_names(scene: Scene) -> None:
    """However slow the disk is at renaming: ``FileCompleted`` comes before ``wait_complete``."""
    seed = await scene.node(is_seed=True)
    node = await scene.node(peers=[seed], part_suffix=".part", worker_delay=3.0)
    watch = Watch(node.torrent)
    await node.complete()
    assert node.has_content()
    await asyncio.sleep(0)
    kinds = [type(event) for event in watch.seen]
    assert kinds.count(events.FileCompleted) == 2
    last_file = len(kinds) - 1 - kinds[::-1].index(events.FileCompleted)
    assert last_file < kinds.index(events.TorrentCompleted)
    assert node.torrent.stats().state is TorrentState.SEEDING


@in_scene(files={"a": 200_000, "b": 300_000})
async def test_a_file_that_gets_its_name_as_the_torrent_is_paused_is_told_of(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    node = await scene.node(peers=[seed], part_suffix=".part", worker_delay=3.0)
    torrent, watch = node.torrent, Watch(node.torrent)
    await until(lambda: not torrent.num_left)
    assert not watch.of(events.FileCompleted)
    await torrent.pause()
    await asyncio.sleep(0)
    assert node.has_content()
    assert {event.index for event in watch.of(events.FileCompleted)} == {0, 1}
    paused = events.StateChanged(TorrentState.PAUSED)
    assert watch.seen.index(paused) == len(watch.seen) - 1, "what it is told after is not true"
    await torrent.resume()
    await node.complete()
    await until(lambda: bool(watch.of(events.TorrentCompleted)))
    assert len(watch.of(events.FileCompleted)) == 2


@in_scene(files={"a": 200_000, "b": 300_000})
async def test_a_whole_file_whose_renaming_failed_gets_its_name_later(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    calls = FaultyCalls()
    node = await scene.node(peers=[seed], part_suffix=".part", os_calls=calls)
    calls.fail_call(0, for_good=True, names=["rename"])
    with pytest.raises(StorageError):
        await node.complete()
    calls.heal()
    await node.torrent.resume()
    await node.complete()
    assert node.has_content()


@in_scene(files={"a": 200_000, "b": 300_000, "c": 100_000})
async def test_what_is_found_whole_gets_its_name(scene: Scene) -> None:
    """As after a kill between the last piece of a file and its renaming; the rest keeps it."""
    folder = scene.folder / "found"
    scene.write_content(folder)
    for name in scene.files:
        (folder / NAME / name).rename(folder / NAME / f"{name}.part")
    damage(folder / NAME / "c.part", 50_000)
    session = await scene.session(scene.add_host(), part_suffix=".part")
    await session.add(scene.raw, TorrentConfig(output=folder, reuse_session=False))
    assert sorted(path.name for path in (folder / NAME).iterdir()) == ["a", "b", "c.part"]
    again = await scene.session(scene.add_host(), part_suffix=".part")
    await session.remove(session.torrents[0])
    damage(folder / NAME / "c.part", 50_000)
    await again.add(scene.raw, TorrentConfig(output=folder))
    assert sorted(path.name for path in (folder / NAME).iterdir()) == ["a", "b", "c"]


# --- from a link -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", list(Version))
@in_scene(version=GIVEN)
async def test_a_link_becomes_a_torrent_under_all_its_hashes(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    info = scene.metainfo.info
    node = await scene.node(source=scene.link_by("btih" if info.has_v1 else "btmh"))
    assert node.torrent.state is TorrentState.METADATA
    assert node.torrent.num_left == 1
    assert len(node.torrent.all_hashes) == 1
    assert node.torrent.peers() == []
    node.torrent.add_peers([seed.endpoint], "user")
    await until(lambda: bool(node.torrent.peers()))
    await node.complete(within=60)
    assert node.has_content()
    assert node.torrent.info_hash == info.info_hash
    assert node.torrent.info_hash_v2 == info.info_hash_v2
    assert node.torrent.all_hashes == seed.torrent.all_hashes
    assert node.torrent.num_left == 0


@in_scene()
async def test_a_link_whose_files_cannot_be_made_stops_and_asks_nobody_any_more(
    scene: Scene, tmp_path: Path
) -> None:
    """Once that is mended, it goes on."""
    seed = await scene.node(is_seed=True)
    (tmp_path / "file").write_bytes(b"")
    session = await scene.session(scene.add_host())
    torrent = await session.add(
        scene.link,
        TorrentConfig(output=tmp_path / "file", peers=(seed.endpoint,)),
    )
    await until(lambda: torrent.state is TorrentState.ERROR)
    await asyncio.sleep(1)
    assert torrent.sources() == []
    assert torrent.num_connections == 0
    (tmp_path / "file").unlink()
    await torrent.resume()
    async with asyncio.timeout(60):
        await torrent.wait_complete()


@in_scene()
async def test_connections_live_through_the_check_that_follows_a_link(scene: Scene) -> None:
    """Its peers leave whoever says nothing for two minutes."""
    seed = await scene.node(is_seed=True)
    watch = Watch(seed.torrent)
    leecher = await scene.node(source=scene.link, peers=[seed], worker_delay=150)
    (leecher.folder / NAME).write_bytes(bytes(len(scene.data)))
    await until(lambda: leecher.torrent.state is TorrentState.CHECKING)
    stranger = await scene.connect(leecher)
    stranger.send_handshake(scene.info_hash, b"-SC0000-newcomer-one", FAST)
    await stranger.expect_closed()
    await asyncio.sleep(130)
    assert leecher.torrent.state is TorrentState.CHECKING
    assert leecher.torrent.num_connections == 1
    assert watch.of(events.PeerDisconnected) == []
    await leecher.complete(within=2000)


@in_scene()
async def test_metadata_that_comes_after_a_pause_wakes_nobody(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    node = await scene.node(source=scene.link, peers=[seed])
    await node.torrent.pause()
    node.torrent.metadata_received(scene.metainfo.info.raw, {})
    await asyncio.sleep(1)
    assert node.torrent.state is TorrentState.PAUSED
    assert node.torrent.metainfo is None
    await node.torrent.resume()
    await node.complete(within=60)


@in_scene()
async def test_the_data_of_a_link_that_never_was_a_torrent_is_nothing(scene: Scene) -> None:
    node = await scene.node(source=scene.link)
    node.torrent.change(files=frozenset({0}), max_upload_rate=5_000)
    await node.session.remove(node.torrent, delete_data=True)
    assert node.torrent.state is TorrentState.STOPPED
    assert node.torrent.trackers() == []
    assert node.torrent.sources() == []
    node.torrent.announce_now()
    assert not node.torrent.rouse()


# --- another folder --------------------------------------------------------------------------


@pytest.mark.parametrize("is_paused", [False, True])
@in_scene()
async def test_a_torrent_moves_and_goes_on_as_before(
    scene: Scene, is_paused: bool, tmp_path: Path
) -> None:
    node = await scene.node(is_seed=True)
    if is_paused:
        await node.torrent.pause()
    await node.torrent.move(tmp_path / "moved")
    assert (tmp_path / "moved" / NAME).read_bytes() == scene.data
    assert not (node.folder / NAME).exists()
    state = TorrentState.PAUSED if is_paused else TorrentState.SEEDING
    assert node.torrent.state is state
    await node.torrent.resume()
    leecher = await scene.node(peers=[node])
    await leecher.complete(within=60)


@in_scene()
async def test_a_torrent_that_cannot_be_moved_goes_on_where_it_is(
    scene: Scene, tmp_path: Path
) -> None:
    node = await scene.node(is_seed=True)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / NAME).write_bytes(b"somebody else's")
    with pytest.raises(StorageError):
        await node.torrent.move(tmp_path / "taken")
    assert node.torrent.state is TorrentState.SEEDING
    assert node.has_content()
    assert (tmp_path / "taken" / NAME).read_bytes() == b"somebody else's"


# --- changes ---------------------------------------------------------------------------------


@in_scene()
async def test_trackers_that_are_added_are_asked_from_then_on(scene: Scene) -> None:
    """By one that runs at once, by one that is paused once it goes on."""
    for is_paused in (False, True):
        client = FakeClient()
        node = await scene.node(
            make=tracked(client), enable_trackers=True, torrent={"paused": is_paused}
        )
        assert node.torrent.trackers() == []
        node.torrent.change(trackers=((URL,),))
        await node.torrent.resume()
        await asyncio.sleep(1)
        assert [url for url, *_ in client.heard] == [URL]
        node.torrent.announce_now()
        assert [each.url for each in node.torrent.trackers()] == [URL]


@in_scene()
async def test_trackers_are_asked_how_large_their_swarm_is(scene: Scene) -> None:
    client = FakeClient()
    client.counts = ScrapeEntry(3, 20, 4)
    node = await scene.node(make=tracked(client), enable_trackers=True)
    assert await node.torrent.scrape() == []
    node.torrent.change(trackers=((URL,),))
    (tracker,) = await node.torrent.scrape()
    assert (tracker.num_seeds, tracker.num_downloaded, tracker.num_leechers) == (3, 20, 4)
    client.is_dead = True
    (tracker,) = await node.torrent.scrape()
    assert tracker.num_seeds == 3
    scraping = asyncio.create_task(node.torrent.scrape())
    await asyncio.sleep(0)
    await node.torrent.stop()
    assert await scraping == []
    assert await node.torrent.scrape() == []


# --- what others ask of it -------------------------------------------------------------------


@in_scene()
async def test_recheck_tells_that_the_disk_has_failed(scene: Scene) -> None:
    node = await scene.node(is_seed=True)
    shutil.rmtree(node.folder)
    node.folder.write_bytes(b"in the way")
    with pytest.raises(StorageError):
        await node.torrent.recheck()
    assert node.torrent.state is TorrentState.ERROR


@in_scene()
async def test_starting_what_runs_changes_nothing_and_what_is_over_is_refused(
    scene: Scene,
) -> None:
    node = await scene.node(is_seed=True)
    swarm = node.torrent.swarm
    await node.torrent.start()
    assert node.torrent.swarm is swarm is not None
    await node.torrent.stop()
    with pytest.raises(ConfigError, match="removed"):
        await node.torrent.start()
    assert node.torrent.swarm is None
    assert node.torrent.state is TorrentState.STOPPED


@in_scene()
async def test_neighbours_that_are_known_already_do_not_wake_it(scene: Scene) -> None:
    """They announce over and over (BEP 14); a person who names them wants something."""
    seed = await scene.node(is_seed=True, rest_after=1.0, state_dir=scene.state_dir)
    torrent, peer = seed.torrent, Endpoint("10.0.9.9", 6881)
    await until(lambda: torrent.is_resting)
    torrent.add_peers([peer], "lsd")
    await until(lambda: not torrent.is_resting)
    await until(lambda: torrent.is_resting, within=3600)
    assert peer in torrent.candidates
    torrent.add_peers([peer], "lsd")
    await asyncio.sleep(0.5)
    assert torrent.is_resting
    torrent.add_peers([peer], "user")
    await until(lambda: not torrent.is_resting)


@in_scene()
async def test_a_paused_one_has_no_files_to_lend_and_takes_none(
    scene: Scene, tmp_path: Path
) -> None:
    node = await scene.node(torrent={"paused": True})
    assert node.torrent.path_of(0) is None
    node.torrent.take_file({bytes(32)}, tmp_path / "source" / NAME)
    await asyncio.sleep(1)
    assert node.torrent.state is TorrentState.PAUSED
    assert not list(node.folder.iterdir())


@in_scene()
async def test_a_link_whose_metadata_was_kept_needs_nobody(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    link, state = scene.link, scene.state_dir
    node = await scene.node(source=link, peers=[seed], state_dir=state)
    await node.complete()
    await node.close()
    again = await scene.node(host=node.host, source=link, state_dir=state)
    assert again.torrent.is_complete
    assert again.torrent.info.name == NAME
    assert again.torrent.num_connections == 0


@in_scene()
async def test_web_seeds_that_are_added_are_asked_from_then_on(scene: Scene) -> None:
    web = Web.of(scene)
    node = await scene.node(make=web.session)
    assert node.torrent.web_seeds() == []
    node.torrent.change(web_seeds=(BASE,))
    assert [each.url for each in node.torrent.web_seeds()] == [BASE]
    await node.complete(within=10)
    assert node.has_content()


# --- orders that cross -----------------------------------------------------------------------


@in_scene()
async def test_a_pause_during_a_move_holds_after_it(scene: Scene, tmp_path: Path) -> None:
    seed = await scene.node(is_seed=True, worker_delay=1.0)
    moving = scene.spawn(seed.torrent.move(tmp_path / "new"))
    await asyncio.sleep(0.5)
    await seed.torrent.pause()
    await moving
    assert seed.torrent.state is TorrentState.PAUSED
    assert seed.torrent.config.output == tmp_path / "new"
    await seed.torrent.resume()
    assert seed.torrent.is_complete


@in_scene()
async def test_a_pause_right_after_a_recheck_was_asked_for_holds(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, worker_delay=1.0, state_dir=scene.state_dir)
    damage(seed.folder / NAME, 2 * PIECE_LENGTH, keeps_times=True)
    checking = scene.spawn(seed.torrent.recheck())
    await asyncio.sleep(0.5)
    await seed.torrent.pause()
    await checking
    assert seed.torrent.state is TorrentState.PAUSED
    await seed.torrent.resume()
    assert seed.torrent.have_bits.bit_count() == NUM_PIECES - 1, "the check was owed"


@in_scene()
async def test_a_recheck_of_one_that_is_being_roused_is_one(scene: Scene) -> None:
    seed = await scene.node(
        is_seed=True, rest_after=1.0, worker_delay=1.0, state_dir=scene.state_dir
    )
    await until(lambda: seed.torrent.is_resting)
    damage(seed.folder / NAME, 2 * PIECE_LENGTH, keeps_times=True)
    assert seed.torrent.rouse()
    await seed.torrent.recheck()
    assert seed.torrent.have_bits.bit_count() == NUM_PIECES - 1


@in_scene()
async def test_who_pauses_one_that_is_being_roused_finds_it_paused(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, rest_after=1.0, state_dir=scene.state_dir)
    await until(lambda: seed.torrent.is_resting)
    assert seed.torrent.rouse()
    await seed.torrent.pause()
    await asyncio.sleep(5)
    assert seed.torrent.state is TorrentState.PAUSED
    assert seed.torrent.roster is None


@in_scene()
async def test_who_knocks_again_and_again_rouses_it_once(scene: Scene) -> None:
    """It wakes up for a second, and each newcomer asks twenty times a second."""
    seed = await scene.node(
        is_seed=True, rest_after=1.0, worker_delay=0.3, state_dir=scene.state_dir
    )
    await until(lambda: seed.torrent.is_resting)
    tasks = {task.get_name() for task in asyncio.all_tasks()}
    peer = await scene.add_and_knock(seed)
    await asyncio.sleep(0.9)
    new = [task for task in asyncio.all_tasks() if task.get_name() not in tasks]
    assert len([task for task in new if task.get_name().startswith("rouse")]) == 1
    await peer.expect_handshake()


@in_scene()
async def test_a_pause_outlasts_every_retry_of_a_full_disk(scene: Scene) -> None:
    """Limit: F1. Somebody who goes on by hand before the retry has no second one to come."""
    seed = await scene.node(is_seed=True)
    calls = FaultyCalls(room=100_000)
    leecher = await scene.node(peers=[seed], os_calls=calls)
    torrent = leecher.torrent
    for _ in range(2):
        with pytest.raises(DiskFull):
            await leecher.complete()
        await asyncio.sleep(5)
        await torrent.resume()
    await until(lambda: torrent.state is TorrentState.ERROR)
    await torrent.pause()
    calls.room = None
    await asyncio.sleep(100)
    assert torrent.state is TorrentState.PAUSED
    assert isinstance(torrent.error, DiskFull), "it can still be seen what it was"
    await torrent.resume()
    assert torrent.error is None
    assert torrent.diagnose().storage.retry_at is None
    await leecher.complete()


@in_scene()
async def test_a_disk_that_fills_up_while_it_pauses_starts_nothing(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    calls = FaultyCalls(room=100_000)
    leecher = await scene.node(peers=[seed], os_calls=calls)
    torrent = leecher.torrent
    pausing = scene.spawn(torrent.pause())
    await asyncio.sleep(0)
    torrent.swarm_failed(DiskFull("no room on the volume"))
    await pausing
    calls.room = None
    await asyncio.sleep(100)
    assert torrent.state is TorrentState.PAUSED


@pytest.mark.parametrize("has_journal", [False, True])
@in_scene()
async def test_who_does_not_wait_for_a_check_leaves_the_torrent_paused(
    scene: Scene, has_journal: bool
) -> None:
    """Nothing would end its state otherwise; resumed, it begins anew."""
    node = await scene.node(
        is_seed=True, worker_delay=1.0, state_dir=scene.state_dir if has_journal else None
    )
    torrent = node.torrent
    damage(node.folder / NAME, 2 * PIECE_LENGTH, keeps_times=True)
    for patience in range(1, 12):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience + 0.5):
                await torrent.recheck()
                break
        if torrent.state is not TorrentState.SEEDING:
            assert torrent.state is TorrentState.PAUSED
            assert torrent.roster is None
    await torrent.resume()
    assert torrent.have_bits.bit_count() == NUM_PIECES - 1


@in_scene(files={"": 2 << 20}, piece_length=1 << 20)
async def test_a_piece_that_is_gone_on_with_is_noted_before_it_is_written_to(scene: Scene) -> None:
    """Limit: F7. Or after a kill the journal would not know that its file has changed."""
    seed = await scene.node(is_seed=True)
    node = await scene.node(
        peers=[seed], torrent={"max_download_rate": 100_000}, state_dir=scene.state_dir
    )
    await asyncio.sleep(3)
    await node.torrent.pause()
    await node.torrent.resume()
    [piece] = node.swarm.assembly.pieces.open
    assert node.swarm.assembly.partial_blocks()
    await asyncio.sleep(1)
    copies = snapshot(scene.state_dir, node.folder)
    await node.close()
    restore(copies)
    again = await scene.node(
        host=scene.add_host(), torrent={"paused": True}, state_dir=scene.state_dir
    )
    journal = again.torrent._services.journal
    assert journal is not None
    found = await journal.find(scene.info_hash)
    assert found is not None
    assert list(found.suspects or ()) == [piece]


@in_scene()
async def test_who_does_not_wait_for_a_pause_finds_it_done(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, max_upload_rate=50_000)
    node = await scene.node(peers=[seed], worker_delay=1.0, state_dir=scene.state_dir)
    for patience in (0.0, 0.5, 1.5, 2.5):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await node.torrent.pause()
        await asyncio.sleep(10)
        assert node.torrent.state is TorrentState.PAUSED
        assert node.torrent.roster is None
        await node.torrent.resume()
        assert node.torrent.stats().state is TorrentState.DOWNLOADING


@in_scene()
async def test_what_is_no_peer_is_refused_at_once(scene: Scene) -> None:
    """It was a traceback of the dialer, later."""
    node = await scene.node()
    wrong: list[Any] = ["10.0.0.1:5", ("10.0.0.1", 5), 5, Endpoint("a.example", 5)]
    for peer in [*wrong, Endpoint("10.0.0.1", -1)]:
        with pytest.raises(ConfigError, match="a peer must be an Endpoint with an IP address"):
            node.torrent.add_peers([peer], "user")
    assert not len(node.torrent.candidates)


@in_scene(version=Version.HYBRID, files={"a": 5 * PIECE_LENGTH})
async def test_a_link_that_learns_piece_layers_as_it_is_paused_goes_on(scene: Scene) -> None:
    """Trackers are slow to hear of the end, and what is kept of it has no piece layers yet."""
    client = FakeClient()
    seed = await scene.node(is_seed=True)
    node = await scene.node(
        source=scene.link_by("btih"),
        peers=[seed],
        state_dir=scene.state_dir,
        make=tracked(client),
        enable_trackers=True,
        worker_delay=1.0,
        torrent={"trackers": ((URL,),)},
    )
    torrent = node.torrent
    scene.write_content(node.folder)
    await until(lambda: torrent.state is TorrentState.CHECKING)
    client.is_dead = True
    pausing = scene.spawn(torrent.pause())
    await until(lambda: torrent.swarm is not None)
    assert torrent._awake is not None
    content = torrent._awake.content
    for index in range(5):  # as when the data has been read for it
        content.hashes.note(index, read_piece_hash(content.storage, content.hashes, index))
    await pausing
    assert len(torrent.shelf.metainfo().piece_layers) == 1
    torrent.change(trackers=())
    await torrent.resume()
    await node.complete()


@pytest.mark.parametrize("end", ["pause", "stop", "recheck"])
@in_scene(web_seeds=(BASE,))
async def test_its_traffic_ends_before_its_trackers_have_heard_of_it(
    scene: Scene, end: str
) -> None:
    client, web = FakeClient(), Web.of(scene, rate=20_000)
    seed = await scene.node(is_seed=True, max_upload_rate=40_000)
    make = type("Node", (tracked(client), web.session), {"client": client})
    node = await scene.node(
        peers=[seed], make=make, enable_trackers=True, torrent={"trackers": ((URL,),)}
    )
    await scene.node(peers=[node])
    torrent = node.torrent
    await until(lambda: bool(torrent.num_uploaded) and web.num_open > 0)
    client.is_dead = True
    ending = scene.spawn(getattr(torrent, end)())
    await asyncio.sleep(0.2)

    def moved() -> tuple[int, int, int, int]:
        requests = len(web.requests)
        return torrent.num_downloaded, torrent.num_uploaded, web.num_bytes, requests

    before, had = moved(), torrent.have_bits
    torrent.add_peers([seed.endpoint], "user")
    torrent.change(web_seeds=(f"{BASE}again",))
    seed.torrent.add_peers([node.endpoint], "user")
    await asyncio.sleep(3)
    assert not ending.done()
    assert moved() == before
    assert not torrent.peers()
    assert web.num_open == 0
    await ending
    assert had & ~torrent.have_bits == 0


@pytest.mark.parametrize("place", ["store.keeper.Keeper.finish", "sources.finder.PeerFinder.stop"])
@in_scene()
async def test_a_bug_while_it_leaves_does_not_keep_it_from_going_on(
    scene: Scene, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F17. It is told, and nothing stays open that is in no hands any more."""

    async def buggy(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    node = await scene.node(is_seed=True, state_dir=scene.state_dir)
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE)
    with monkeypatch.context() as patch:
        patch.setattr(f"bittern.engine.{place}", buggy)
        with pytest.raises(ZeroDivisionError):
            await node.torrent.pause()
    assert node.torrent.state is TorrentState.PAUSED
    await peer.expect_closed()
    await node.torrent.resume()
    await node.complete(within=1)
