"""engine.pieces.web_seed: torrents downloaded from simulated web servers, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.info import Version
from bittern.core.errors import DiskFull
from bittern.engine import events
from bittern.engine.events import TorrentState
from bittern.engine.pieces.web_seed import join_runs
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.testing.loop import VirtualLoop
from tests.engine.scene import (
    GIVEN,
    NAME,
    NUM_PIECES,
    PIECE_LENGTH,
    Node,
    Scene,
    Watch,
    in_scene,
    until,
)
from tests.engine.web import BASE, LOT, Answer, Request, Web
from tests.virtual_time import simulated

ODD_FILES = {"a/one": 100_001, "empty": 0, "b two/ü&?#%.bin": 65_536, "c": 3, "d": 200_000}
"""Files that share pieces, with names that URLs have to escape, and an empty one."""
URLS = [f"{BASE}{NAME}/{path}" for path in ("a/one", "b%20two/%C3%BC%26%3F%23%25.bin", "c", "d")]


def web_of(scene: Scene, **options: Any) -> Web:
    """Serve a scene under the URLs that a client has to make."""
    web = Web.of(scene, **options)
    for name, url in zip((n for n, length in ODD_FILES.items() if length), URLS, strict=True):
        if name in scene.files:
            web.files[url] = scene.files[name]
    return web


async def leecher(scene: Scene, web: Web, **options: Any) -> Node:
    """Run a session that knows of nobody but the servers, unless told otherwise."""
    return await scene.node(make=web.session, **options)


def web_statuses(node: Node) -> list[SourceStatus]:
    return [each for each in node.torrent.sources() if each.kind is SourceKind.WEB_SEED]


# --- from a server alone ---------------------------------------------------------------------


@pytest.mark.parametrize("version", list(Version))
@pytest.mark.parametrize("has_ranges", [True, False])
@in_scene(version=GIVEN, web_seeds=(BASE,))
async def test_a_single_file_comes_from_a_server_alone(scene: Scene, has_ranges: bool) -> None:
    web = Web.of(scene, has_ranges=has_ranges)
    node = await leecher(scene, web)
    await node.complete(within=30)
    assert node.has_content()
    assert web.paths() == [BASE + NAME]
    assert web.most_open == 1
    assert web.num_bytes == len(scene.data)
    assert node.torrent.num_downloaded == len(scene.data)
    assert node.torrent.ledger.num_wasted == 0


@pytest.mark.parametrize("version", list(Version))
@pytest.mark.parametrize("has_ranges", [True, False])
@pytest.mark.parametrize("base", [BASE, BASE + "mirror"])
@simulated
async def test_several_files_come_from_a_server_alone(
    loop: VirtualLoop, version: Version, has_ranges: bool, base: str, tmp_path: Path
) -> None:
    """Padding is filled in, not asked for; nor are empty files (P12)."""
    async with Scene(loop, tmp_path, files=ODD_FILES, version=version, web_seeds=(base,)) as scene:
        web = web_of(scene, has_ranges=has_ranges)
        folder = base if base.endswith("/") else base + "/"
        web.files = {url.replace(BASE, folder): data for url, data in web.files.items()}
        node = await leecher(scene, web)
        await node.complete(within=30)
        assert node.has_content()
        assert sorted(web.paths()) == sorted(url.replace(BASE, folder) for url in URLS)
        # Without ranges, a file is begun anew at most once for a piece that begins in it.
        assert web.num_bytes == len(scene.data) or not has_ranges
        assert node.torrent.ledger.num_wasted <= len(scene.data)


@in_scene(web_seeds=(BASE,), is_private=True)
async def test_a_private_torrent_has_web_seeds_too(scene: Scene) -> None:
    """BEP 27 is about who names peers; a web seed is named by the torrent and is none."""
    node = await leecher(scene, Web.of(scene))
    await node.complete(within=30)
    assert node.has_content()


@in_scene(files=ODD_FILES, version=Version.HYBRID, web_seeds=(BASE,))
async def test_only_wanted_files_are_asked_for(scene: Scene) -> None:
    web = web_of(scene)
    info = scene.metainfo.info
    chosen = next(i for i, entry in enumerate(info.files) if entry.path == ("d",))
    node = await leecher(scene, web, torrent={"files": frozenset({chosen})})
    await node.complete(within=30)
    assert web.paths() == [f"{BASE}{NAME}/d"]
    assert (node.folder / NAME / "d").read_bytes() == scene.files["d"]


@in_scene(web_seeds=(BASE,))
async def test_in_order_means_in_order(scene: Scene) -> None:
    node = await leecher(scene, Web.of(scene, rate=100_000), torrent={"sequential": True})
    watch = Watch(node.torrent)
    await node.complete(within=60)
    verified = [event.index for event in watch.of(events.PieceVerified)]
    assert verified == list(range(NUM_PIECES))


@pytest.mark.parametrize("where", ["torrent", "session"])
@in_scene(web_seeds=(BASE,))
async def test_a_rate_limit_is_kept(scene: Scene, where: str) -> None:
    limit: Any = {"max_download_rate": 100_000}
    node = await leecher(
        scene,
        Web.of(scene),
        **({"torrent": limit} if where == "torrent" else limit),
    )
    began_at = scene.loop.time()
    await node.complete(within=60)
    seconds = scene.loop.time() - began_at
    assert len(scene.data) / seconds == pytest.approx(100_000, rel=0.1)
    assert node.has_content()


@in_scene(web_seeds=(BASE,))
async def test_a_torrent_that_lacks_nothing_asks_nobody(scene: Scene) -> None:
    web = Web.of(scene)
    node = await leecher(scene, web, is_seed=True, state_dir=scene.state_dir)
    await asyncio.sleep(3_000)
    assert node.torrent.is_resting
    assert web.requests == []
    [status] = web_statuses(node)
    assert (status.state, status.message) == (SourceState.WAITING, "nothing is missing")


@in_scene(web_seeds=(BASE,))
async def test_what_was_there_before_is_not_asked_for(scene: Scene) -> None:
    web = Web.of(scene)
    host = scene.add_host()
    folder = scene.folder_of(host)
    folder.mkdir()
    (folder / NAME).write_bytes(scene.data[: 10 * PIECE_LENGTH])
    node = await leecher(scene, web, host=host)
    await node.complete(within=30)
    assert node.has_content()
    assert web.num_bytes == len(scene.data) - 10 * PIECE_LENGTH


@in_scene(web_seeds=(BASE,))
async def test_a_file_without_ranges_is_read_again_only_as_often_as_is_fair(scene: Scene) -> None:
    """What comes in vain is bounded by the torrent's length; then the server is given up."""
    web = Web.of(scene, has_ranges=False)

    def break_off(request: Request, answer: Answer) -> Answer | None:
        return Answer(200, answer.headers, answer.body[: 8 * PIECE_LENGTH + 1], "answer is cut off")

    web.lie = break_off
    node = await leecher(scene, web)
    await asyncio.sleep(3_000)
    [status] = web_statuses(node)
    assert status.state is SourceState.FAILING
    assert status.message is not None
    assert "knows no ranges" in status.message
    assert node.torrent.ledger.num_wasted <= len(scene.data)
    assert node.torrent.stats().num_have == 8


@in_scene(web_seeds=(BASE,))
async def test_the_rest_of_a_whole_file_is_not_read(scene: Scene) -> None:
    web = Web.of(scene, has_ranges=False)
    host = scene.add_host()
    folder = scene.folder_of(host)
    folder.mkdir()
    missing = 4 * PIECE_LENGTH
    (folder / NAME).write_bytes(bytes(missing) + scene.data[missing:])
    node = await leecher(scene, web, host=host)
    await node.complete(within=30)
    assert node.has_content()
    assert web.num_bytes < missing + 2 * LOT
    assert web.num_open == 0


@in_scene(web_seeds=(BASE,))
async def test_a_bad_piece_of_a_whole_file_passes_by_the_next_time(scene: Scene) -> None:
    web = Web.of(scene, has_ranges=False)
    damaged = bytearray(scene.data)
    damaged[2 * PIECE_LENGTH] ^= 1
    web.files = dict.fromkeys(web.files, bytes(damaged))
    web.lie = lambda _request, answer: (
        Answer(200, answer.headers, answer.body[: 6 * PIECE_LENGTH], "cut off")
        if len(web.requests) < 3
        else None
    )
    node = await leecher(scene, web)
    watch = Watch(node.torrent)
    await until(lambda: node.torrent.stats().num_have == NUM_PIECES - 1)
    await asyncio.sleep(60)
    assert [event.index for event in watch.of(events.PieceFailed)] == [2]
    assert len(web.requests) == 3, "nothing is left that it may be asked for"


# --- beside peers ----------------------------------------------------------------------------


@in_scene(web_seeds=(BASE,))
async def test_a_server_and_a_peer_share_the_work(scene: Scene) -> None:
    seed_host = scene.add_host(upload_rate=200_000)
    seed = await scene.node(is_seed=True, host=seed_host, enable_web_seeds=False)
    web = Web.of(scene, rate=200_000)
    node = await leecher(scene, web, peers=[seed])
    await node.complete(within=30)
    assert node.has_content()
    assert seed.torrent.num_uploaded > len(scene.data) // 4
    assert web.num_bytes > len(scene.data) // 4
    assert node.torrent.ledger.num_wasted < len(scene.data) // 4


@in_scene(web_seeds=(BASE,))
async def test_a_server_that_lies_is_found_out_and_a_peer_finishes(scene: Scene) -> None:
    """N8: three bad pieces, then it is out for the session; nobody else is blamed."""
    seed = await scene.node(
        is_seed=True, host=scene.add_host(upload_rate=50_000), enable_web_seeds=False
    )
    web = Web.of(scene)
    web.files = {url: bytes(len(data)) for url, data in web.files.items()}
    node = await leecher(scene, web, peers=[seed])
    watch = Watch(node.torrent)
    await node.complete(within=300)
    assert node.has_content()
    assert watch.of(events.PeerBanned) == []
    num_asked = len(web.requests)
    [status] = web_statuses(node)
    assert status.state is SourceState.FAILING
    assert status.message is not None
    assert "corrupt" in status.message
    assert status.next_at is None
    await asyncio.sleep(3_000)
    assert len(web.requests) == num_asked


@in_scene(web_seeds=(BASE,))
async def test_one_bad_piece_is_not_asked_for_again(scene: Scene) -> None:
    web = Web.of(scene)
    damaged = bytearray(scene.data)
    damaged[5 * PIECE_LENGTH + 7] ^= 1
    web.files = dict.fromkeys(web.files, bytes(damaged))
    node = await leecher(scene, web)
    await until(lambda: node.torrent.stats().num_have == NUM_PIECES - 1)
    await asyncio.sleep(600)
    assert web.num_bytes == len(scene.data)
    [status] = web_statuses(node)
    assert status.message == "sent corrupt data"
    seed = await scene.node(is_seed=True, enable_web_seeds=False)
    node.torrent.add_peers([seed.endpoint], "user")
    await node.complete(within=60)
    assert node.has_content()


@in_scene(web_seeds=(BASE,), piece_length=1 << 20)
async def test_the_liar_among_a_server_and_a_peer_is_told(scene: Scene) -> None:
    """A piece that both had a part in: its blocks are compared, and the peer is not blamed."""
    seed = await scene.node(
        is_seed=True, host=scene.add_host(upload_rate=100_000), enable_web_seeds=False
    )
    web = Web.of(scene, rate=100_000)
    damaged = bytearray(scene.data)
    for at in range(0, len(damaged), 16_384):
        damaged[at] ^= 1
    web.files = dict.fromkeys(web.files, bytes(damaged))
    web.lie = lambda _request, answer: Answer(
        answer.status, answer.headers, answer.body[:200_000], "answer is cut off"
    )
    node = await leecher(scene, web, peers=[seed])
    watch = Watch(node.torrent)
    await node.complete(within=600)
    assert node.has_content()
    assert watch.of(events.PieceFailed)
    assert watch.of(events.PeerBanned) == []
    assert web_statuses(node)[0].message == "sent corrupt data"


# --- when it goes wrong ----------------------------------------------------------------------


@in_scene(web_seeds=(BASE,))
async def test_a_connection_that_breaks_is_made_again(scene: Scene) -> None:
    web = Web.of(scene)

    def break_off(_request: Request, answer: Answer) -> Answer | None:
        if len(web.requests) > 3:
            return None
        return Answer(answer.status, answer.headers, answer.body[:150_000], "cut off")

    web.lie = break_off
    node = await leecher(scene, web)
    await node.complete(within=60)
    assert node.has_content()
    # Blocks that were whole are kept: only the broken ones came twice.
    assert web.num_bytes <= len(scene.data) + 3 * 16_384
    waits = [
        later.at - earlier.at
        for earlier, later in zip(web.requests, web.requests[1:4], strict=False)
    ]
    assert all(5 <= wait <= 12 for wait in waits), waits


@in_scene(web_seeds=(BASE,))
async def test_a_server_that_is_busy_is_left_alone_as_long_as_it_asks(scene: Scene) -> None:
    web = Web.of(scene)
    web.lie = lambda _request, _answer: (
        Answer(503, {"retry-after": "120"}) if len(web.requests) < 3 else None
    )
    node = await leecher(scene, web)
    await asyncio.sleep(10)
    [status] = web_statuses(node)
    assert status.state is SourceState.FAILING
    assert status.message == "HTTP status 503"
    assert status.next_at == pytest.approx(web.requests[0].at + 120, abs=0.1)
    await node.complete(within=600)
    first, second, third, *_ = [request.at for request in web.requests]
    assert second - first == pytest.approx(120, abs=1.5)
    assert third - second == pytest.approx(120, abs=1.5)
    assert web_statuses(node)[0].message is None


@simulated(limit=90_000)
async def test_a_server_that_fails_is_asked_less_and_less_often(
    loop: VirtualLoop, tmp_path: Path
) -> None:
    async with Scene(loop, tmp_path, web_seeds=(BASE,)) as scene:
        web = Web.of(scene)
        web.lie = lambda _request, _answer: Answer(500)
        await leecher(scene, web)
        await asyncio.sleep(86_400)
        at = [request.at for request in web.requests]
        waits = [later - earlier for earlier, later in itertools.pairwise(at)]
        assert 15 <= waits[0] <= 32
        assert all(1_800 <= wait <= 3_602 for wait in waits[8:])
        assert len(at) < 70


@in_scene(web_seeds=(BASE,))
async def test_a_silent_trickle_is_given_up(scene: Scene) -> None:
    """A byte now and then keeps a connection alive, but not a download (N8)."""
    seed = await scene.node(
        is_seed=True, host=scene.add_host(upload_rate=20_000), enable_web_seeds=False
    )
    web = Web.of(scene, rate=100)
    node = await leecher(scene, web, peers=[seed])
    await asyncio.sleep(75)
    [status] = web_statuses(node)
    assert status.state is SourceState.FAILING
    assert status.message == "no block in 60 s"
    await node.complete(within=600)
    assert node.has_content()


@in_scene(files=ODD_FILES, version=Version.HYBRID, web_seeds=(BASE,))
async def test_a_missing_file_is_left_to_others(scene: Scene) -> None:
    web = web_of(scene)
    del web.files[URLS[0]]
    node = await leecher(scene, web)
    await asyncio.sleep(60)
    assert [request.url for request in web.requests].count(URLS[0]) == 1
    assert node.torrent.state is TorrentState.DOWNLOADING
    missing = [
        entry.path
        for entry, verified in zip(
            scene.metainfo.info.files, node.torrent.file_progress(), strict=True
        )
        if verified < entry.length and not entry.is_pad
    ]
    assert missing == [("a", "one")]
    [status] = web_statuses(node)
    assert status.state is SourceState.WORKING
    seed = await scene.node(is_seed=True, enable_web_seeds=False)
    node.torrent.add_peers([seed.endpoint], "user")
    await node.complete(within=60)
    assert node.has_content()


@in_scene(files=ODD_FILES, version=Version.HYBRID, web_seeds=(BASE,))
async def test_a_server_without_any_file_is_out(scene: Scene) -> None:
    web = Web({})
    node = await leecher(scene, web)
    await asyncio.sleep(3_000)
    assert len(web.requests) == len(URLS)
    [status] = web_statuses(node)
    assert (status.state, status.next_at) == (SourceState.FAILING, None)
    assert status.message == "HTTP status 404"


@in_scene(web_seeds=(BASE,))
async def test_the_disk_holds_a_server_up(scene: Scene) -> None:
    """F16: while too much waits to be written, nothing is read, and nobody is blamed for it."""
    web = Web.of(scene, rate=200_000)
    node = await leecher(scene, web)
    await until(lambda: web.num_bytes > 200_000)
    assert node.torrent.swarm is not None
    node.torrent.swarm.web_seeds.set_reading(False)
    await asyncio.sleep(1)
    num_bytes = web.num_bytes
    await asyncio.sleep(200)
    assert web.num_bytes == num_bytes
    assert web_statuses(node)[0].state is SourceState.WORKING
    node.torrent.swarm.web_seeds.set_reading(True)
    await node.complete(within=60)
    assert node.has_content()


@pytest.mark.parametrize("has_ranges", [True, False])
@pytest.mark.parametrize("way", ["pause", "remove", "limit", "fail"])
@in_scene(web_seeds=(BASE,))
async def test_whatever_ends_a_torrent_ends_its_requests(
    scene: Scene, way: str, has_ranges: bool
) -> None:
    web = Web.of(scene, rate=100_000, has_ranges=has_ranges)
    options = {"max_download_rate": 20_000} if way == "limit" else {}
    node = await leecher(scene, web, torrent=options)
    await until(lambda: web.num_bytes > 100_000)
    if way == "remove":
        await node.session.remove(node.torrent)
    elif way == "fail":
        assert node.torrent.swarm is not None
        node.torrent.swarm.storage_failed(DiskFull("full"))
    else:
        await node.torrent.pause()
    await asyncio.sleep(0.5)
    assert web.num_open == 0
    assert not node.torrent.sources()
    if way in ("pause", "limit"):
        await node.torrent.resume()
        await node.complete(within=120)
        assert node.has_content()


def test_adjacent_runs_are_joined_in_whichever_order_they_come() -> None:
    runs = [(2, 0, 50), (3, 0, 100), (3, 100, 110), (0, 80, 100), (0, 60, 80), (0, 20, 40)]
    assert join_runs(runs, 100) == [(200, 250), (300, 410), (60, 100), (20, 40)]
    assert join_runs([], 100) == []
