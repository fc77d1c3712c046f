"""engine.pieces.repair: only bad blocks of a damaged piece are fetched (BEP 52)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Hashable
from typing import Any

import pytest

from bittern.codec.info import Version
from bittern.core.endpoint import Endpoint
from bittern.core.geometry import BLOCK_LENGTH
from bittern.engine import events
from bittern.engine.hashes.exchange import HashExchange
from bittern.engine.hashes.seeker import HashSeeker
from bittern.engine.pieces import repair
from bittern.engine.pieces.block_judge import BlocksDone
from bittern.testing.disk import FaultyCalls
from tests.engine.hash_peers import BlockPeer, Files, HashPeer, mend_lost_piece
from tests.engine.scene import (
    GIVEN,
    NAME,
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
from tests.engine.web import BASE, Web

V2 = [Version.V2, Version.HYBRID]


async def damaged_node(
    scene: Scene, *offsets: int, peers: Collection[Node | Endpoint], **options: Any
) -> tuple[Node, Watch]:
    """Return a node whose data is there but for a byte at each offset, and what it reports."""
    options.setdefault("torrent", {"paused": True})
    node = await scene.node(damaged=[*offsets], peers=peers, **options)
    watch = Watch(node.torrent)
    await node.torrent.resume()
    return node, watch


@pytest.mark.parametrize("version", V2)
@in_scene(version=GIVEN)
async def test_a_recheck_that_finds_a_bad_block_fetches_that_block(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    at = 5 * PIECE_LENGTH + 2 * BLOCK_LENGTH + 7
    node, watch = await damaged_node(scene, at, peers=[seed])
    await node.complete()
    assert node.has_content()
    assert node.torrent.num_downloaded == BLOCK_LENGTH
    assert watch.of(events.PieceDamaged) == [events.PieceDamaged(5, 1, 4)]
    assert watch.of(events.PeerBanned) == []


@in_scene(version=Version.V1)
async def test_a_v1_torrent_fetches_the_whole_piece(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    node, watch = await damaged_node(scene, 5 * PIECE_LENGTH, peers=[seed])
    await node.complete()
    assert node.torrent.num_downloaded == PIECE_LENGTH
    assert watch.of(events.PieceDamaged) == []


@in_scene(version=Version.V2, piece_length=BLOCK_LENGTH)
async def test_a_piece_of_one_block_is_fetched_without_asking(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    node, watch = await damaged_node(scene, 5 * BLOCK_LENGTH, peers=[seed])
    await node.complete(within=5)
    assert node.torrent.num_downloaded == BLOCK_LENGTH
    assert watch.of(events.PieceDamaged) == []


@in_scene(version=Version.V2)
async def test_a_bug_while_comparing_is_not_hidden(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F17. The piece is fetched whole then."""

    def check_blocks(*_: object) -> list[int]:
        raise ZeroDivisionError

    monkeypatch.setattr(repair, "check_blocks", check_blocks)
    seed = await scene.node(is_seed=True)
    node, _ = await damaged_node(scene, 5 * PIECE_LENGTH, peers=[seed])
    await node.complete(within=60)
    assert node.torrent.num_downloaded == PIECE_LENGTH
    [failure] = scene.loop.failures
    assert "ZeroDivisionError" in failure
    scene.loop.failures.clear()


@in_scene(version=Version.V2)
async def test_many_pieces_are_mended_each_in_its_bad_blocks(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "MAX_ASKED", 2)
    seed = await scene.node(is_seed=True)
    offsets = [index * PIECE_LENGTH + index % 4 * BLOCK_LENGTH for index in range(12)]
    offsets += [3 * PIECE_LENGTH, 3 * PIECE_LENGTH + BLOCK_LENGTH]
    node, watch = await damaged_node(scene, *offsets, peers=[seed])
    await node.complete()
    assert node.has_content()
    assert node.torrent.num_downloaded == len(offsets) * BLOCK_LENGTH
    told = {each.index: each.num_bad for each in watch.of(events.PieceDamaged)}
    assert told == {index: 3 if index == 3 else 1 for index in range(12)}


@in_scene(version=Version.V2)
async def test_of_too_many_the_rest_is_fetched_whole(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "MAX_HELD", 3)
    seed = await scene.node(is_seed=True)
    node, _ = await damaged_node(scene, *(index * PIECE_LENGTH for index in range(5)), peers=[seed])
    await node.complete()
    assert node.torrent.num_downloaded == 3 * BLOCK_LENGTH + 2 * PIECE_LENGTH


@in_scene(version=Version.V2)
async def test_what_was_never_written_is_not_asked_about(scene: Scene) -> None:
    """A half-made download without its journal has zeros where nothing came yet."""
    seed = await scene.node(is_seed=True)
    host = scene.add_host()
    path = scene.folder_of(host) / NAME
    scene.write_content(path.parent)
    with path.open("r+b") as file:
        file.write(bytes(4 * PIECE_LENGTH))
        file.seek(-1000, 2)
        file.write(bytes(1000))  # the last piece, a short one
    node = await scene.node(host=host, peers=[seed], torrent={"paused": True})
    watch = Watch(node.torrent)
    await node.torrent.resume()
    await node.complete()
    assert watch.of(events.PieceDamaged) == []
    assert node.torrent.num_downloaded == 4 * PIECE_LENGTH + 1000


@in_scene(version=Version.V2)
async def test_a_piece_found_damaged_at_its_first_upload_is_mended(scene: Scene) -> None:
    """Limit: F5."""
    node, _ = await mend_lost_piece(scene)
    assert node.has_content()
    assert node.torrent.num_downloaded == BLOCK_LENGTH


@in_scene(version=Version.V2)
async def test_where_nobody_gives_the_hashes_pieces_are_fetched_whole(scene: Scene) -> None:
    refusing = HashPeer(scene, lambda _: None)
    honest = BlockPeer(scene, lambda *_: False)
    offsets = [index * PIECE_LENGTH for index in range(12)]
    node, _ = await damaged_node(scene, *offsets, peers=[honest.endpoint, refusing.endpoint])
    await node.complete(within=120)
    assert node.torrent.num_downloaded == 12 * PIECE_LENGTH


@in_scene(version=Version.HYBRID)
async def test_peers_that_know_no_v2_are_not_waited_for_long(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HashSeeker, "askable", lambda _: [])
    seed = await scene.node(is_seed=True)
    node, _ = await damaged_node(scene, 0, PIECE_LENGTH, peers=[seed])
    began = scene.loop.time()
    await node.complete()
    assert repair.PATIENCE <= scene.loop.time() - began < repair.PATIENCE + 5
    assert node.torrent.num_downloaded == 2 * PIECE_LENGTH


@in_scene(version=Version.V2)
async def test_one_that_refuses_now_and_then_is_asked_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where nobody gives any, three times in a row, the rest is not waited for."""
    monkeypatch.setattr(repair, "MAX_ASKED", 1)
    files = Files(scene)
    fickle = HashPeer(scene, lambda wanted: None if len(fickle.asked) % 3 else files.answer(wanted))
    offsets = [index * PIECE_LENGTH for index in range(12)]
    node, watch = await damaged_node(scene, *offsets, peers=[fickle.endpoint])
    await asyncio.sleep(20)
    assert len(watch.of(events.PieceDamaged)) == 4
    await node.torrent.pause()
    never = HashPeer(scene, lambda _: None)
    node, watch = await damaged_node(scene, *offsets, peers=[never.endpoint])
    await asyncio.sleep(20)
    assert len(never.asked) == 3


@in_scene(version=Version.V2)
async def test_blocks_that_come_to_mend_a_piece_are_checked_one_by_one(scene: Scene) -> None:
    """Limit: H4. Its hashes are known by then: who lies is banned for his first block."""
    teller = HashPeer(scene, Files(scene).answer)
    node, watch = await damaged_node(scene, 0, BLOCK_LENGTH, peers=[teller.endpoint])
    await until(lambda: bool(watch.of(events.PieceDamaged)))
    liar = BlockPeer(scene, lambda *_: True)
    node.torrent.add_peers([liar.endpoint], "user")
    await until(lambda: bool(watch.of(events.PeerBanned)))
    assert [event.endpoint for event in watch.of(events.PeerBanned)] == [liar.endpoint]
    assert watch.of(events.PieceFailed) == []


@in_scene(version=Version.V2)
async def test_it_waits_for_peers_as_long_as_it_takes(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    node, _ = await damaged_node(scene, 0, peers=[])
    await asyncio.sleep(100)
    node.torrent.add_peers([seed.endpoint], "user")
    await node.complete()
    assert node.torrent.num_downloaded == BLOCK_LENGTH


@pytest.mark.parametrize("has_ranges", [False, True])
@in_scene(version=Version.V2, web_seeds=[BASE])
async def test_web_seeds_alone_are_asked_for_whole_pieces(scene: Scene, has_ranges: bool) -> None:
    """They have no hashes to give, and nobody else is there to be waited for."""
    web = Web.of(scene, has_ranges=has_ranges)
    node, _ = await damaged_node(
        scene, 0, 5 * PIECE_LENGTH, peers=[], make=web.session, torrent={"paused": True}
    )
    await node.complete(within=30)
    assert node.has_content()


@in_scene(files={"a": 3 * PIECE_LENGTH, "b": 3 * PIECE_LENGTH}, version=Version.V2)
async def test_a_piece_that_is_not_wanted_any_more_is_left_alone(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    host = scene.add_host()
    folder = scene.folder_of(host)
    scene.write_content(folder)
    damage(folder / NAME / "a", 0)
    damage(folder / NAME / "b", 0)
    node = await scene.node(host=host)
    node.torrent.change(files={0})
    node.torrent.add_peers([seed.endpoint], "user")
    await node.complete()
    await asyncio.sleep(5)
    assert node.torrent.num_downloaded == BLOCK_LENGTH
    assert not node.torrent.swarm.assembly.pieces.open  # type: ignore[union-attr]


@in_scene(version=Version.V2)
async def test_a_piece_that_cannot_be_read_is_fetched_whole(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    calls = FaultyCalls()
    node, watch = await damaged_node(scene, 0, peers=[], os_calls=calls)
    calls.fail_call(0, names={"preadv"}, for_good=True)
    node.torrent.add_peers([seed.endpoint], "user")
    await until(lambda: node.torrent.num_downloaded > 0)
    calls.heal()
    await node.complete()
    assert node.torrent.num_downloaded == PIECE_LENGTH
    assert watch.of(events.PieceDamaged) == []


@in_scene(version=Version.V2)
async def test_blocks_kept_survive_a_restart(scene: Scene) -> None:
    """What was found out is not asked again: the good blocks are in the journal."""
    # It tells hashes and gives no blocks.
    teller = HashPeer(scene, Files(scene).answer)
    node, watch = await damaged_node(scene, 0, peers=[teller.endpoint], state_dir=scene.state_dir)
    await until(lambda: bool(watch.of(events.PieceDamaged)))
    await node.torrent.pause()
    seed = await scene.node(is_seed=True)
    node.torrent.add_peers([seed.endpoint], "user")
    await node.torrent.resume()
    await node.complete()
    assert node.torrent.num_downloaded == BLOCK_LENGTH
    assert len(watch.of(events.PieceDamaged)) == 1


@in_scene(version=Version.V2)
async def test_after_its_end_nothing_is_done(scene: Scene) -> None:
    """Whatever is still under way comes to nothing."""
    node, watch = await damaged_node(scene, 0, PIECE_LENGTH, peers=[], worker_delay=5.0)
    swarm = node.swarm
    asked: list[BlocksDone] = []

    def fetch(index: int, done: BlocksDone, *, avoid: Collection[Hashable] = ()) -> bool:
        asked.append(done)
        return True

    exchange = swarm.extensions.hashes
    assert isinstance(exchange, HashExchange)
    mending = exchange._repair
    mending._fetch, mending._offered = fetch, lambda: swarm.picker.wanted
    mending.tick(now=scene.loop.time())
    assert len(asked) == 2
    asked[0](bytes(128))
    mending.stop()
    asked[1](None)
    await asyncio.sleep(10)
    assert watch.of(events.PieceDamaged) == []


@in_scene(version=Version.V2)
async def test_blocks_of_a_piece_that_was_being_written_survive_a_kill(scene: Scene) -> None:
    """Limit: F7. In v1 the whole piece is fetched again; here what had come of it is kept."""
    state = scene.state_dir
    seed = await scene.node(is_seed=True, host=scene.add_host(upload_rate=50_000))
    leecher = await scene.node(peers=[seed], state_dir=state, preallocate=True)
    pieces = leecher.torrent.swarm.assembly.pieces.open  # type: ignore[union-attr]
    await until(lambda: any(piece.num_received == 3 for piece in pieces.values()))
    num_received = sum(piece.num_received for piece in pieces.values())
    copies = snapshot(state, leecher.folder)
    await leecher.close()
    restore(copies)
    (state / "lock").unlink(missing_ok=True)
    again = await scene.node(host=leecher.host, state_dir=state, preallocate=True)
    watch = Watch(again.torrent)
    left, downloaded = again.torrent.num_left, again.torrent.num_downloaded
    again.torrent.add_peers([seed.endpoint], "user")
    await again.complete()
    assert again.has_content()
    assert watch.of(events.PieceDamaged)
    fetched = again.torrent.num_downloaded - downloaded
    assert fetched == left - num_received * BLOCK_LENGTH
