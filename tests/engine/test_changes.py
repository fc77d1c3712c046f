"""Settings changed while a swarm is at work."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.info import Version
from bittern.core.endpoint import Endpoint
from bittern.core.errors import ConfigError
from bittern.engine import events
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.events import TorrentState
from bittern.engine.session import Session
from bittern.storage.creator import CreateOptions, create_torrent
from tests.engine.scene import Node, Scene, Watch, in_scene
from tests.sim.windows import WINDOW, check_window, sample

RATE = 100_000.0
FILES = {"a": 400_000, "b": 400_000, "c": 400_000}


async def start(scene: Scene, **options: Any) -> tuple[Node, Node]:
    """Return a seed, and a leecher that is under way at a small rate."""
    seed = await scene.node(is_seed=True)
    leecher = await scene.node(peers=[seed], torrent={"max_download_rate": RATE, **options})
    await asyncio.sleep(2)
    assert 0 < leecher.torrent.num_left < len(scene.data)
    return seed, leecher


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_download_rate": 0},
        {"max_upload_rate": -1.0},
        {"max_connections": 0},
        {"max_connections": "many"},
    ],
)
@in_scene()
async def test_a_wrong_value_changes_nothing(scene: Scene, wrong: dict[str, Any]) -> None:
    _, leecher = await start(scene)
    session, torrent = leecher.session, leecher.torrent
    before = session.config, torrent.config
    for thing in (session, torrent):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            thing.change(upload_slots=1, **wrong)
    assert (session.config, torrent.config) == before


@in_scene()
async def test_what_cannot_change_while_it_runs_is_named(scene: Scene, tmp_path: Path) -> None:
    leecher = await scene.node()
    wrong: dict[str, Any] = {"listen_port": 1}
    with pytest.raises(TypeError, match="'listen_port' cannot be changed"):
        leecher.session.change(**wrong)
    wrong = {"output": tmp_path}
    with pytest.raises(TypeError, match="'output' cannot be changed"):
        leecher.torrent.change(**wrong)
    with pytest.raises(ConfigError, match="there is no file 1"):
        leecher.torrent.change(priorities={1: 7})


@in_scene()
async def test_settings_tell_what_holds(scene: Scene) -> None:
    seed, leecher = await start(scene)
    seed.session.change(max_upload_rate=RATE, max_connections_per_torrent=7)
    assert seed.session.config.max_upload_rate == RATE
    limits = {limit.name: limit for limit in seed.torrent.diagnose().limits}
    assert limits["max_upload_rate"].value == RATE
    assert seed.torrent.roster is not None
    assert seed.torrent.roster.max_connections == 7
    seed.torrent.change(max_connections=3)
    seed.session.change(max_connections_per_torrent=5, max_upload_rate=None)
    assert seed.torrent.roster.max_connections == 3
    assert seed.session.config.max_upload_rate is None
    leecher.torrent.change(max_download_rate=None)
    assert leecher.torrent.config.max_download_rate is None
    await leecher.complete(within=1)


@in_scene(files={"": 20_000_000})
async def test_nothing_is_asked_for_in_vain_when_a_limit_falls(scene: Scene) -> None:
    """Blocks that are on the way when their requests are withdrawn are taken all the same."""
    seed = await scene.node(is_seed=True, host=scene.add_host(upload_rate=2_000_000))
    leecher = await scene.node(peers=[seed])
    await asyncio.sleep(4)
    for rate in (1_000_000, 500_000, 100_000, 2_000_000):
        leecher.session.change(max_download_rate=rate)
        await asyncio.sleep(1)
    leecher.torrent.change(max_download_rate=50_000)
    await asyncio.sleep(1)
    leecher.torrent.change(max_download_rate=None)
    await leecher.complete(within=30)
    assert leecher.has_content()
    assert leecher.torrent.stats().wasted <= 20 * 16_384


@in_scene(files={"": 3_000_000})
async def test_pieces_come_in_order_from_when_that_is_asked_for(scene: Scene) -> None:
    _, leecher = await start(scene)
    watch = Watch(leecher.torrent)
    leecher.torrent.change(sequential=True, max_download_rate=RATE * 4)
    await leecher.complete()
    await asyncio.sleep(0)
    found = [event.index for event in watch.of(events.PieceVerified)]
    assert found[4:] == sorted(found[4:])
    assert len(found) > 30


@in_scene(files=FILES)
async def test_a_file_of_high_priority_comes_first(scene: Scene) -> None:
    _, leecher = await start(scene)
    watch = Watch(leecher.torrent)
    leecher.torrent.change(priorities={2: 7, 0: 1})
    await leecher.complete()
    await asyncio.sleep(0)
    done = [event.index for event in watch.of(events.FileCompleted)]
    assert done[0] == 2
    assert done[-1] == 0


@in_scene(files=FILES)
async def test_the_same_dictionary_with_something_else_in_it_is_a_change(scene: Scene) -> None:
    _, leecher = await start(scene)
    watch = Watch(leecher.torrent)
    priorities = {2: 4}
    leecher.torrent.change(priorities=priorities)
    priorities |= {2: 7, 0: 1}
    leecher.torrent.change(priorities=priorities)
    await leecher.complete()
    await asyncio.sleep(0)
    done = [event.index for event in watch.of(events.FileCompleted)]
    assert (done[0], done[-1]) == (2, 0)


@in_scene(files=FILES)
async def test_settings_changed_while_the_data_is_checked_hold_after_it(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    leecher = await scene.node(peers=[seed], worker_delay=2.0, torrent={"paused": True})
    resuming = asyncio.create_task(leecher.torrent.resume())
    await asyncio.sleep(1)
    assert leecher.torrent.state is TorrentState.CHECKING
    leecher.torrent.change(files={1}, max_download_rate=RATE)
    await resuming
    await leecher.complete(within=30)
    assert scene.loop.time() > 4, "the limit holds"
    assert leecher.torrent.num_downloaded < 600_000


@in_scene(files=FILES)
async def test_too_many_connections_are_closed(scene: Scene) -> None:
    seeds = [await scene.node(is_seed=True) for _ in range(4)]
    leecher = await scene.node(peers=seeds, torrent={"max_download_rate": RATE})
    await asyncio.sleep(3)
    assert leecher.torrent.num_connections == 4
    leecher.torrent.change(max_connections=2)
    assert leecher.torrent.num_connections == 2
    await asyncio.sleep(60)
    assert leecher.torrent.num_connections <= 2
    leecher.torrent.change(max_connections=None)
    await leecher.complete()


@in_scene(files={"": 2_000_000})
async def test_upload_slots_change(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, max_upload_rate=50_000)
    for _ in range(5):
        await scene.node(peers=[seed], enable_pex=False)
    await asyncio.sleep(2)

    def num_unchoked() -> int:
        return sum(not peer.am_choking for peer in seed.torrent.peers())

    assert num_unchoked() == 5
    seed.torrent.change(upload_slots=2)
    await asyncio.sleep(2)
    assert num_unchoked() == 2
    seed.torrent.change(upload_slots=None)
    seed.session.change(upload_slots=3)
    await asyncio.sleep(2)
    assert num_unchoked() == 3


@in_scene(files={"": 2_000_000})
async def test_super_seeding_begins_and_ends(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, max_upload_rate=20_000)
    seed.torrent.change(super_seeding=True)
    leecher = await scene.node(peers=[seed])
    await asyncio.sleep(5)
    assert leecher.torrent.peers()[0].progress < 0.2
    seed.torrent.change(super_seeding=False)
    await asyncio.sleep(0.1)
    assert leecher.torrent.peers()[0].progress == 1.0
    seed.session.change(max_upload_rate=None)
    await leecher.complete(within=5)


@pytest.mark.slow
async def test_a_limit_holds_from_when_it_is_set_on_real_sockets(tmp_path: Path) -> None:
    """Within 5 % over the 5 seconds that follow, from no limit of ours down, and up again."""
    (tmp_path / "seed").mkdir()
    with (tmp_path / "seed/content").open("wb") as file:
        file.truncate(400_000_000)
    raw = create_torrent(
        tmp_path / "seed/content", options=CreateOptions(piece_length=1 << 20, version=Version.V1)
    )
    config = SessionConfig(
        listen_host="127.0.0.1",
        listen_port=0,
        enable_trackers=False,
        enable_dht=False,
        enable_lsd=False,
    )
    async with Session(config) as one, Session(config) as other:
        one.change(max_upload_rate=40_000_000)
        await one.add(raw, TorrentConfig(output=tmp_path / "seed"))
        peers = (Endpoint("127.0.0.1", one.port),)
        torrent = await other.add(raw, TorrentConfig(output=tmp_path, peers=peers))
        while torrent.num_downloaded < 10_000_000:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.001)
        for rate in (4_000_000, 1_500_000, 6_000_000):
            other.change(max_download_rate=rate)
            check_window(await sample(lambda: torrent.num_downloaded, seconds=WINDOW), rate)


@in_scene(files={"a": 1 << 20, "b": 2 << 20}, piece_length=1 << 20)
async def test_a_piece_in_progress_is_left_when_its_file_is_not_wanted_any_more(
    scene: Scene,
) -> None:
    """It is gone on with when the file is wanted again, also after a pause."""
    seed = await scene.node(is_seed=True)
    leecher = await scene.node(
        peers=[seed],
        torrent={"max_download_rate": RATE, "files": frozenset({1})},
        state_dir=scene.state_dir,
    )
    await asyncio.sleep(5)
    torrent = leecher.torrent
    [piece] = leecher.swarm.assembly.pieces.open
    num_blocks = len(leecher.swarm.assembly.partial_blocks()[piece])
    assert 10 < num_blocks < 60
    torrent.change(files={0})
    await asyncio.sleep(3)
    await torrent.pause()
    await torrent.resume()
    await leecher.complete(within=30)
    await asyncio.sleep(5)
    assert torrent.have_bits.bit_count() == 1
    assert piece in leecher.swarm.assembly.pieces.open
    torrent.change(files=None, max_download_rate=None)
    await leecher.complete(within=30)
    assert leecher.has_content()
    assert torrent.num_downloaded <= 3 * (1 << 20) + 20 * 16_384
