"""Files that are taken from another torrent while they are being downloaded."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.bencode import decode, encode
from bittern.codec.fingerprints import fingerprints
from bittern.codec.info import Version
from bittern.core.bitfield import Bitfield
from bittern.core.errors import DiskFull, Inconsistent
from bittern.engine.events import FileReused, TorrentState
from bittern.engine.pieces import borrowing
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.storage.donors import DonorStorage
from bittern.testing.disk import CachedCalls, FaultyCalls
from bittern.testing.loop import VirtualLoop
from tests.engine.hash_peers import contradict
from tests.engine.scene import (
    NAME,
    NUM_PIECES,
    PIECE_LENGTH,
    Node,
    Scene,
    Watch,
    in_scene,
    restore,
    snapshot,
    until,
)
from tests.engine.store.test_reuse import OLD, add_new, make_new
from tests.virtual_time import simulated


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
@simulated
async def test_content_that_two_torrents_cut_alike_is_fetched_once(
    loop: VirtualLoop, first: Version, second: Version, tmp_path: Path
) -> None:
    """Of another name, and nobody has the second torrent: all but its last piece is sure."""
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


@in_scene(files={"a": 3 * PIECE_LENGTH + 1_000, "b": 4 * PIECE_LENGTH})
async def test_pieces_that_files_share_are_left_to_peers(scene: Scene, tmp_path: Path) -> None:
    """v1 without padding: of each file that is offered, what lies wholly inside it is taken."""
    node = await scene.node()
    watch = Watch(node.torrent)
    for index, name in enumerate(scene.files):
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


@in_scene(files=OLD, version=Version.V2)
async def test_a_file_that_is_offered_and_not_wanted_or_not_right(
    scene: Scene, tmp_path: Path
) -> None:
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


def names_of(node: Node, name: str) -> set[bytes]:
    """Return the fingerprints of a file, by the last part of its path."""
    info = node.torrent.info
    [index] = [number for number, entry in enumerate(info.files) if entry.path[-1] == name]
    return set(fingerprints(info, index))


def offer(node: Node, name: str) -> None:
    """Tell a node of the file of the scene that goes by this name."""
    root = node.scene.folder / "source" / NAME
    node.torrent.take_file(names_of(node, name), root if name == NAME else root / name)


@pytest.mark.parametrize("version", [Version.V2, Version.HYBRID])
@simulated
async def test_a_long_file_is_taken_in_batches_and_told_of_once(
    loop: VirtualLoop, version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job holds more than a batch, so that others get at the worker in between."""
    monkeypatch.setattr(borrowing, "BATCH_LENGTH", 128 << 10)
    calls, fds = CachedCalls(), set[int]()
    really_open, really_close = calls.open, calls.close

    def open_(*args: Any, **options: Any) -> int:
        fd = really_open(*args, **options)
        fds.add(fd)
        return fd

    def close(fd: int) -> None:
        fds.discard(fd)
        really_close(fd)

    monkeypatch.setattr(calls, "open", open_)
    monkeypatch.setattr(calls, "close", close)
    async with Scene(loop, tmp_path, files={"a": 100_000, "b": 600_000}, version=version) as s:
        is_hybrid = version is Version.HYBRID  # where padding stands between the files
        node = await s.node(worker_delay=0.1, os_calls=calls)
        watch = Watch(node.torrent)
        await until(lambda: node.torrent.state is TorrentState.DOWNLOADING)
        assert node.torrent.swarm is not None
        picker, at_once = node.torrent.swarm.picker, set()
        offer(node, "b")
        while not watch.of(FileReused):
            at_once.add(picker.open.bit_count())
            await asyncio.sleep(0.05)
        assert max(at_once) == 2
        assert [(e.index, e.length) for e in watch.of(FileReused)] == [(1 + is_hybrid, 600_000)]
        assert node.torrent.stats().num_have == 10
        assert (node.folder / NAME / "b").read_bytes() == s.files["b"]
        assert fds  # our own files
    assert not fds


@in_scene(version=Version.V2)
async def test_after_a_kill_only_what_was_being_taken_is_hashed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F7. The journal was told of the pieces before they were written to."""
    monkeypatch.setattr(borrowing, "BATCH_LENGTH", 128 << 10)
    state = scene.state_dir
    node = await scene.node(worker_delay=0.5, state_dir=state)
    await until(lambda: node.torrent.state is TorrentState.DOWNLOADING)
    offer(node, NAME)
    await until(lambda: node.torrent.stats().num_have >= 6)
    have = node.torrent.have_bits
    copies = snapshot(state, node.folder)
    await node.close()
    restore(copies)
    (state / "lock").unlink(missing_ok=True)
    again = await scene.node(host=node.host, state_dir=state)
    assert again.torrent.have_bits & have == have
    assert 0 < again.torrent.num_checked < NUM_PIECES


@in_scene(files={"a": 100_000, "b": 200_000}, version=Version.V2)
async def test_a_torrent_that_is_paused_meanwhile_takes_no_more(scene: Scene) -> None:
    """What was copied by then is not known to be there; it can be taken again."""
    node = await scene.node(worker_delay=0.5)
    watch = Watch(node.torrent)
    await until(lambda: node.torrent.state is TorrentState.DOWNLOADING)
    for name in scene.files:
        offer(node, name)
    await asyncio.sleep(0.1)
    await node.torrent.pause()
    assert node.torrent.state is TorrentState.PAUSED
    await asyncio.sleep(5)
    assert not watch.of(FileReused)
    assert not (node.folder / NAME / "b").exists()
    await node.torrent.resume()
    await until(lambda: node.torrent.state is TorrentState.DOWNLOADING)
    for name in scene.files:
        offer(node, name)
    await node.complete()
    assert node.has_content()


@in_scene(files={"a": 200_000, "b": 100_000}, version=Version.V2)
async def test_a_disk_that_is_full_stops_the_torrent_and_what_was_to_be_taken(scene: Scene) -> None:
    """Limit: F1. Pieces that had room count as there, and after a while it goes on by itself."""
    calls = FaultyCalls()
    node = await scene.node(os_calls=calls)
    watch = Watch(node.torrent)
    await until(lambda: node.torrent.state is TorrentState.DOWNLOADING)
    calls.room = 150_000
    for name in scene.files:
        offer(node, name)
    await until(lambda: node.torrent.state is TorrentState.ERROR)
    assert isinstance(node.torrent.error, DiskFull)
    assert node.torrent.num_left == 300_000 - 2 * PIECE_LENGTH
    assert not watch.of(FileReused)
    calls.room = None
    await until(lambda: node.torrent.state is TorrentState.DOWNLOADING, within=120)
    for name in scene.files:
        offer(node, name)
    await node.complete()
    assert node.has_content()


@in_scene(files={"a": 200_000, "b": 100_000}, version=Version.V2)
async def test_a_donor_that_cannot_be_read_is_no_error_of_ours(scene: Scene) -> None:
    """Limit: F2. The next file is taken all the same."""
    calls = FaultyCalls()
    node = await scene.node(os_calls=calls)
    watch = Watch(node.torrent)
    await until(lambda: node.torrent.state is TorrentState.DOWNLOADING)
    calls.fail_call(0, errno.EIO, names={"preadv"}, for_good=True)
    offer(node, "a")
    await asyncio.sleep(1)
    calls.heal()
    offer(node, "b")
    await until(lambda: node.torrent.num_left == 200_000)
    await until(lambda: bool(watch.of(FileReused)))
    assert [event.index for event in watch.of(FileReused)] == [1]
    assert node.torrent.state is TorrentState.DOWNLOADING


@in_scene(version=Version.HYBRID)
async def test_a_hybrid_whose_halves_differ_is_stopped(scene: Scene, tmp_path: Path) -> None:
    """Limit: P13. The file is that of the root, and not that of the v1 pieces."""
    (tmp_path / "other").write_bytes(contradict(scene))
    node = await scene.node()
    await until(lambda: node.torrent.state is TorrentState.DOWNLOADING)
    node.torrent.take_file(names_of(node, NAME), tmp_path / "other")
    await until(lambda: node.torrent.state is TorrentState.ERROR)
    assert isinstance(node.torrent.error, Inconsistent)
    assert node.torrent.stats().num_have == 0


@in_scene(version=Version.V2)
async def test_a_bug_while_copying_is_not_hidden(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F17. And the pieces can be asked of peers."""

    def read_into(*_: object, **__: object) -> bool:
        raise ZeroDivisionError

    seed = await scene.node(is_seed=True)
    node = await scene.node()
    monkeypatch.setattr(DonorStorage, "read_into", read_into)
    offer(node, NAME)
    await until(lambda: bool(scene.loop.failures))
    assert "ZeroDivisionError" in scene.loop.failures.pop()
    node.torrent.add_peers([seed.endpoint], "user")
    await node.complete()


@in_scene(files={str(number): 10 for number in range(1_000)})
async def test_a_thousand_files_of_which_nothing_is_missing_are_passed_over(scene: Scene) -> None:
    """As of a torrent with as many copies of one small file."""
    node = await scene.node(is_seed=True)
    awake = node.torrent._awake
    assert awake is not None
    awake.borrower._by_name = {b"name": list(range(1_000))}
    awake.borrower.take({b"name"}, scene.folder / "elsewhere")
    assert not awake.borrower._waiting


@in_scene(version=Version.HYBRID)
async def test_what_was_copied_before_a_piece_that_contradicts_itself_is_had(scene: Scene) -> None:
    """Limit: P13."""
    value: Any = decode(scene.raw)
    pieces = value[b"info"][b"pieces"]
    value[b"info"][b"pieces"] = pieces[:60] + bytes(20) + pieces[80:]
    scene.raw = encode(value)
    node = await scene.node()
    node.torrent.take_file(names_of(node, NAME), scene.folder / "source" / NAME)
    await until(lambda: node.torrent.state is TorrentState.ERROR)
    assert isinstance(node.torrent.error, Inconsistent)
    assert node.torrent.have_bits == Bitfield.of(NUM_PIECES, range(3)).bits
