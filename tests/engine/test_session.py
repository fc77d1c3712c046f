"""A session as a whole: what it takes, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from bittern.codec import wire
from bittern.codec.info import Version
from bittern.codec.magnet import Magnet, parse_magnet
from bittern.codec.torrent_record import TorrentRecord
from bittern.core.announce import Event
from bittern.core.endpoint import Endpoint
from bittern.core.errors import ConfigError, MagnetError, MetainfoError, StorageError
from bittern.core.ids import InfoHash, NodeId
from bittern.dht.events import AddressLearned
from bittern.dht.state import write_states
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.events import TorrentState
from bittern.engine.mutable import publish
from bittern.engine.session import Session
from bittern.engine.source_status import SourceKind, SourceState
from bittern.net.machine import LocalMachine
from bittern.net.signing import SigningKey
from bittern.policy.peer_priority import canonical_priority
from bittern.storage.creator import create_torrent
from bittern.storage.dht_state import write_dht_state
from bittern.testing.disk import FaultyCalls
from bittern.testing.loop import VirtualLoop
from bittern.tracker.server import Tracker
from tests.conftest import Simulate
from tests.engine.dht_place import DhtSession, Nodes
from tests.engine.scene import FAST, NAME, PORT, Scene, in_scene, until
from tests.engine.sources.fake_tracker import URL, FakeClient, tracked

LINK = "magnet:?xs=urn:btpk:" + "ab" * 32


@pytest.mark.parametrize("form", ["path", "text", "bytes", "metainfo"])
@in_scene()
async def test_a_torrent_is_added_in_any_form(scene: Scene, form: str, tmp_path: Path) -> None:
    path = tmp_path / "x.torrent"
    path.write_bytes(scene.raw)
    sources = {
        "path": path,
        "text": str(path),
        "bytes": scene.raw,
        "metainfo": scene.metainfo,
    }
    node = await scene.node(is_seed=True, source=sources[form])
    assert node.torrent.is_complete


@pytest.mark.parametrize("form", ["magnet", "link", "hash"])
@in_scene()
async def test_a_torrent_is_added_by_its_hash(scene: Scene, form: str) -> None:
    link = scene.link
    sources = {"magnet": parse_magnet(link), "link": link, "hash": str(scene.info_hash)}
    seed = await scene.node(is_seed=True)
    node = await scene.node(source=sources[form], peers=[seed])
    assert node.torrent.state is TorrentState.METADATA
    await node.complete(within=60)
    assert node.has_content()


@in_scene()
async def test_unusable_sources_are_refused_and_leave_nothing(scene: Scene, tmp_path: Path) -> None:
    session = await scene.session(scene.add_host())
    with pytest.raises(MetainfoError, match="missing"):
        await session.add(tmp_path / "missing.torrent")
    with pytest.raises(MetainfoError):
        await session.add(b"no torrent")
    with pytest.raises(MagnetError):
        await session.add("magnet:?dn=nothing")
    config = TorrentConfig(output=tmp_path, files=frozenset({7}))
    with pytest.raises(ConfigError, match="no file 7"):
        await session.add(scene.raw, config)
    assert session.torrents == []


@in_scene()
async def test_one_torrent_is_added_once(scene: Scene) -> None:
    node = await scene.node()
    with pytest.raises(ConfigError, match="already"):
        await node.session.add(scene.raw)
    await node.session.remove(node.torrent)
    again = await node.session.add(scene.raw, TorrentConfig(output=node.folder))
    assert node.session.torrents == [again]


@in_scene(version=Version.HYBRID)
async def test_removing_takes_what_the_state_folder_knows_along(scene: Scene) -> None:
    """It goes by two hashes; one that goes by the same, and could not begin, takes nothing."""
    info = scene.metainfo.info
    link = scene.link_by("btmh")
    seed = await scene.node(is_seed=True)
    state = scene.state_dir
    node = await scene.node(peers=[seed], source=link, state_dir=state)
    await node.complete()
    kept = {path.name for path in (state / "torrents").iterdir()}
    v1, v2 = info.all_hashes
    assert kept == {f"{v1}.torrent", f"{v2}.alias"}
    await node.session.remove(node.torrent, keep_state=True)
    again = await node.session.add(scene.raw, TorrentConfig(output=node.folder))
    with pytest.raises(ConfigError):
        await node.session.add(link)
    assert len(list((state / "torrents").iterdir())) == 2
    await node.session.remove(again)
    assert not list((state / "torrents").iterdir())


@in_scene()
async def test_what_is_removed_is_forgotten_also_when_its_data_cannot_be_deleted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await scene.node(is_seed=True, state_dir=scene.state_dir)
    kept = scene.state_dir / "torrents"
    assert list(kept.iterdir())
    await node.session.forget(node.torrent.all_hashes)
    assert list(kept.iterdir()), "it is still there"

    async def fail() -> None:
        raise StorageError("it is in use")

    monkeypatch.setattr(node.torrent, "delete_data", fail)
    with pytest.raises(StorageError, match="in use"):
        await node.session.remove(node.torrent, delete_data=True)
    assert not list(kept.iterdir())


@in_scene()
async def test_removing_takes_the_data_along_only_when_told(scene: Scene) -> None:
    kept, deleted = await scene.node(is_seed=True), await scene.node(is_seed=True)
    await kept.session.remove(kept.torrent)
    await deleted.session.remove(deleted.torrent, delete_data=True)
    assert kept.has_content()
    assert not list(deleted.folder.rglob("content"))
    assert kept.torrent.state is TorrentState.STOPPED


def test_a_bug_in_one_task_is_logged_and_ends_only_that(
    tmp_path: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    """Limit: F17."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            seed = await scene.node(is_seed=True)

            async def buggy() -> None:
                raise ZeroDivisionError

            seed.session._spawn(buggy(), "buggy task")
            leecher = await scene.node(peers=[seed])
            await leecher.complete(within=60)

    with caplog.at_level(logging.ERROR):
        simulate(main)
    assert "buggy task" in caplog.text


@in_scene()
async def test_two_sessions_do_not_share_a_state_folder(scene: Scene) -> None:
    """Limit: F18."""
    await scene.session(scene.add_host(), state_dir=scene.state_dir)
    with pytest.raises(StorageError):
        await scene.session(scene.add_host(), state_dir=scene.state_dir)


@in_scene()
async def test_a_session_is_entered_once(scene: Scene) -> None:
    session = await scene.session(scene.add_host())
    assert session.port == 6881
    with pytest.raises(ConfigError, match="once"):
        await session.__aenter__()


WORK: dict[str, Callable[[Session, Scene], Coroutine[Any, Any, object]]] = {
    "add": lambda session, scene: session.add(scene.raw),
    "resolve": lambda session, scene: session.resolve(parse_magnet(LINK)),
    "forget": lambda session, scene: session.forget([scene.info_hash]),
    "run_job": lambda session, scene: session.run_job(lambda: None),
}


@pytest.mark.parametrize("work", WORK)
@in_scene()
async def test_what_needs_an_open_session_says_so(scene: Scene, work: str) -> None:
    new = Session()
    assert (new.port, new.dht) == (0, None)
    with pytest.raises(ConfigError, match="not open yet: it is open inside its 'async with'"):
        await WORK[work](new, scene)
    node = await scene.node()
    await node.close()
    with pytest.raises(ConfigError, match="the session is closed"):
        await WORK[work](node.session, scene)
    assert node.session.torrents == []
    await node.session.remove(node.torrent)


@in_scene()
async def test_what_is_looked_up_while_the_session_ends_is_not_added(scene: Scene) -> None:
    """Nobody would stop it."""
    session = await scene.session(scene.add_host())
    scene.sessions.remove(session)
    is_asked, may_go = asyncio.Event(), asyncio.Event()

    async def resolve(magnet: Magnet) -> Magnet:
        is_asked.set()
        await may_go.wait()
        return parse_magnet(scene.link)

    session.resolve = resolve  # type: ignore[method-assign]  # a DHT that takes its time
    adding = asyncio.create_task(session.add(LINK))
    await is_asked.wait()
    await session.__aexit__(None, None, None)
    may_go.set()
    with pytest.raises(ConfigError, match="closed"):
        await adding
    assert session.torrents == []


@in_scene()
async def test_a_torrent_of_another_session_is_not_removed(scene: Scene) -> None:
    """It was stopped, and stayed in the list of its own."""
    node, other = await scene.node(is_seed=True), await scene.session(scene.add_host())
    for session in (other, Session()):
        with pytest.raises(ConfigError, match="is another session's"):
            await session.remove(node.torrent)
    assert node.torrent.state is TorrentState.SEEDING


@in_scene()
async def test_a_torrent_that_was_removed_takes_no_more_orders(scene: Scene) -> None:
    node = await scene.node(is_seed=True)
    torrent = node.torrent
    await node.session.remove(torrent)
    orders = (
        torrent.resume(),
        torrent.recheck(),
        torrent.move(scene.state_dir),
        torrent.rename_file(0, "other"),
    )
    for order in orders:
        with pytest.raises(ConfigError, match="removed from its session"):
            await order
    await torrent.pause()  # it runs no more, as is wanted
    assert torrent.state is TorrentState.STOPPED


@in_scene()
async def test_an_error_in_the_block_still_ends_the_session(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    scene.sessions.remove(seed.session)
    error = KeyError("user's own")
    await seed.session.__aexit__(KeyError, error, None)
    assert seed.torrent.state is TorrentState.STOPPED


@in_scene()
async def test_what_was_opened_is_closed_when_the_rest_takes_too_long(scene: Scene) -> None:
    """Whoever gives up waiting can start again at once, with the same folder and port."""
    host = scene.add_host()
    options: Any = {
        "make": DhtSession,
        "enable_dht": True,
        "dht_bootstrap": (),
        "state_dir": scene.state_dir,
        "worker_delay": 2.0,
    }
    with pytest.raises(TimeoutError):
        # The journal is open and we listen; what the DHT remembers is being read.
        async with asyncio.timeout(3):
            await scene.session(host, **options)
    session = await scene.session(host, **options)
    assert session.port == PORT


def test_a_journal_that_cannot_be_ended_does_not_keep_the_session_open(
    tmp_path: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            state = tmp_path / "state"
            node = await scene.node(is_seed=True, state_dir=state)
            state.rename(tmp_path / "moved")
            await node.close()
            again = await scene.session(node.host, state_dir=tmp_path / "moved")
            assert again.port == PORT

    with caplog.at_level(logging.WARNING):
        simulate(main)
    assert "resume data" in caplog.text


@in_scene()
async def test_what_still_runs_at_the_end_is_cancelled(scene: Scene) -> None:
    node = await scene.node()
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("waiting")

    node.session._spawn(wait(), "waiting")
    await asyncio.sleep(1)
    await node.close()
    assert ended == ["waiting"]
    assert scene.loop.time() < 10


@in_scene()
async def test_what_is_removed_again_stays_out_of_the_way(scene: Scene) -> None:
    """The same torrent may be there anew: it goes on being reachable."""
    seed = await scene.node(is_seed=True)
    first = seed.torrent
    await seed.session.remove(first)
    again = await seed.session.add(scene.raw, TorrentConfig(output=seed.folder, paused=True))
    assert again.state is TorrentState.PAUSED
    await again.resume()
    await seed.session.remove(first)
    assert seed.session.torrents == [again]
    leecher = await scene.node(peers=[seed])
    await leecher.complete(within=60)


@pytest.mark.parametrize("delete_data", [False, True])
@pytest.mark.parametrize("form", ["file", "link"])
@in_scene()
async def test_what_is_added_while_it_is_removed_begins_after_that(
    scene: Scene, delete_data: bool, form: str
) -> None:
    """Its files were deleted beneath it, which it took for complete."""
    node = await scene.node(is_seed=True, state_dir=scene.state_dir, worker_delay=0.1)
    source = scene.raw if form == "file" else scene.link
    removing = asyncio.ensure_future(node.session.remove(node.torrent, delete_data=delete_data))
    await asyncio.sleep(0)
    adding = [
        asyncio.ensure_future(node.session.add(source, TorrentConfig(output=node.folder)))
        for _ in range(2)
    ]
    again = await adding[0]
    assert removing.done()
    with pytest.raises(ConfigError, match="already"):
        await adding[1]
    assert node.session.torrents == [again]
    assert again.is_complete is (form == "file" and not delete_data)
    assert (node.folder / NAME).exists() is not delete_data


@in_scene()
async def test_who_does_not_wait_for_the_end_of_a_removal_adds_nothing(scene: Scene) -> None:
    node = await scene.node(is_seed=True, worker_delay=0.1)
    removing = asyncio.ensure_future(node.session.remove(node.torrent))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await node.session.add(scene.raw, TorrentConfig(output=node.folder))
    await removing
    assert node.session.torrents == []


@in_scene()
async def test_the_files_of_what_is_here_anew_are_not_deleted(scene: Scene, tmp_path: Path) -> None:
    node = await scene.node(is_seed=True)
    first = node.torrent
    await node.session.remove(first)
    again = await node.session.add(scene.raw, TorrentConfig(output=node.folder))
    with pytest.raises(ConfigError, match="in use: it was added again"):
        await node.session.remove(first, delete_data=True)
    assert again.is_complete
    await again.move(tmp_path / "elsewhere")
    (node.folder / NAME).write_bytes(b"left there")
    await node.session.remove(first, delete_data=True)
    assert not (node.folder / NAME).exists()
    assert (tmp_path / "elsewhere" / NAME).exists()


@pytest.mark.parametrize("keep_state", [False, True])
@in_scene(files={"a": 70_000, "b": 70_000})
async def test_what_was_removed_still_tells_what_it_was(scene: Scene, keep_state: bool) -> None:
    """At rest its metadata was in the state folder alone, and is forgotten there."""
    node = await scene.node(is_seed=True, state_dir=scene.state_dir, rest_after=1.0)
    torrent = node.torrent
    await until(lambda: torrent.is_resting)
    await node.session.remove(torrent, keep_state=keep_state)
    await node.session.forget(torrent.all_hashes)
    assert torrent.stats().num_pieces == torrent.stats().num_have
    assert torrent.file_progress() == [70_000, 70_000]
    torrent.diagnose()
    await node.session.remove(torrent, delete_data=True)
    assert not (node.folder / NAME).exists()


@pytest.mark.parametrize("rest_after", [1.0, 60.0])
@in_scene()
async def test_what_is_forgotten_while_it_is_removed_stays_so(
    scene: Scene, rest_after: float
) -> None:
    """It kept something at its very end, or could not tell any more what it was."""
    node = await scene.node(
        is_seed=True, state_dir=scene.state_dir, rest_after=rest_after, worker_delay=0.1
    )
    await asyncio.sleep(5)
    torrent, session = node.torrent, node.session
    removing = asyncio.ensure_future(session.remove(torrent, keep_state=True))
    await asyncio.sleep(0)
    await session.forget(torrent.all_hashes)
    assert removing.done()
    assert not [*(scene.state_dir / "torrents").glob("*.torrent")]
    assert torrent.stats().num_have == torrent.info.geometry.num_pieces
    assert torrent.file_progress() == [len(scene.data)]


@in_scene()
async def test_a_closed_session_does_not_say_that_it_has_forgotten(scene: Scene) -> None:
    node = await scene.node(is_seed=True, state_dir=scene.state_dir)
    await node.close()
    for options in ({}, {"delete_data": True, "keep_state": True}):
        with pytest.raises(ConfigError, match="the session is closed"):
            await node.session.remove(node.torrent, **options)
    await node.session.remove(node.torrent, keep_state=True)  # it has stopped, as is wanted
    assert node.has_content()


@in_scene()
async def test_a_connection_rouses_a_torrent_at_rest_and_no_other(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, state_dir=scene.state_dir, rest_after=1.0)
    await until(lambda: seed.torrent.is_resting)
    stranger = await scene.connect(seed)
    stranger.send_handshake(InfoHash(bytes(20)), b"-SC0000-abcdefghijkl", FAST)
    await stranger.expect_closed()
    assert seed.torrent.is_resting
    leecher = await scene.node(peers=[seed])
    await leecher.complete(within=60)
    assert leecher.has_content()


@in_scene()
async def test_reading_pauses_while_too_much_waits_for_the_disk(
    scene: Scene, tmp_path: Path
) -> None:
    """Limit: F16. In one torrent as in the other, whatever it is doing."""
    seed = await scene.node(is_seed=True)
    calls = FaultyCalls()
    leecher = await scene.node(
        peers=[seed], os_calls=calls, max_write_queue=100_000, worker_delay=0.2
    )
    # No swarm yet: only its hash is known.
    await leecher.session.add("b" * 40, TorrentConfig(output=tmp_path / "other"))
    blocked: list[str] = []

    def slow(name: str) -> None:
        if name == "pwritev" and not blocked:
            blocked.append(name)
            scene.loop.block(1.0)

    calls.before_call = slow
    was_congested, queued = False, 0
    while not leecher.torrent.is_complete:
        await asyncio.sleep(0.02)
        storage = leecher.torrent.diagnose().storage
        was_congested = was_congested or storage.is_congested
        queued = max(queued, storage.num_queued)
        assert scene.loop.time() < 120
    assert was_congested
    assert queued < 100_000 + (1 << 20)
    assert leecher.has_content()


@in_scene()
async def test_a_job_that_blocks_runs_in_the_worker(scene: Scene) -> None:
    session = await scene.session(scene.add_host(), worker_delay=1.0)
    assert await session.run_job(lambda: 6 * 7) == 42
    assert scene.loop.time() == 1.0


# --- what the session finds peers by ---------------------------------------------------------


@in_scene()
async def test_a_link_with_a_public_key_is_resolved_in_the_dht(scene: Scene) -> None:
    """BEP 46."""
    nodes = Nodes(scene)
    publisher = await nodes.add()
    for _ in range(3):
        await nodes.add()
    await asyncio.sleep(30)  # until the nodes know each other
    seed = await scene.node(is_seed=True)
    key = SigningKey(bytes(32))
    told = await publish(publisher, key, TorrentRecord(scene.info_hash), clock=1)
    assert told.num_stored == 3
    node = await scene.node(
        source=f"magnet:?xs=urn:btpk:{key.public_key.hex()}",
        peers=[seed],
        **nodes.options(),
    )
    await node.complete(within=60)
    assert node.has_content()
    assert node.session.dht is not None


@in_scene()
async def test_without_the_dht_no_public_key_can_be_resolved(scene: Scene) -> None:
    session = await scene.session(scene.add_host())
    assert session.dht is None
    with pytest.raises(ConfigError, match="off"):
        await session.add("magnet:?xs=urn:btpk:" + "a" * 64)


@in_scene()
async def test_a_simulated_machine_reaches_no_real_network(scene: Scene) -> None:
    settings: Any = {"enable_lsd": True, "enable_zeroconf": True}
    node = await scene.node(is_seed=True, **settings)
    assert {each.kind for each in node.torrent.sources()}.isdisjoint(LOCAL)


LOCAL = {SourceKind.LSD, SourceKind.ZEROCONF}


async def test_a_real_machine_has_all_of_them(tmp_path: Path) -> None:
    config = SessionConfig(
        listen_host="127.0.0.1", listen_port=0, dht_bootstrap=(), enable_zeroconf=True
    )
    async with Session(config) as session:
        assert session.port > 0
        torrent = await session.add("a" * 40, TorrentConfig(output=tmp_path))
        kinds = {each.kind for each in torrent.sources() if each.state is not SourceState.OFF}
        assert kinds >= {SourceKind.DHT, *LOCAL}


async def test_a_machine_without_that_address_goes_on_without_its_sockets(tmp_path: Path) -> None:
    """Nobody can connect to it, and the DHT has no socket to speak from."""
    config = SessionConfig(listen_host="192.0.2.1", dht_bootstrap=(), enable_lsd=False)
    async with Session(config) as session:
        assert session.port == 0
        assert session.dht is None


@pytest.mark.parametrize(("host", "is_local"), [("127.0.0.2", True), ("::1", True), (None, False)])
async def test_a_session_that_stays_on_its_machine_looks_at_no_addresses(
    host: str | None, is_local: bool
) -> None:
    config = SessionConfig(listen_host=host, listen_port=0, enable_dht=False, enable_lsd=False)
    async with Session(config) as session:
        machine = session._find_machine()
    assert isinstance(machine, LocalMachine)
    assert machine._is_local is is_local


@pytest.mark.parametrize("enable_incoming", [True, False])
async def test_a_tracker_takes_every_announce_of_a_session(
    enable_incoming: bool, tmp_path: Path
) -> None:
    """Also the last one, when our port is closed, and that of who has no port at all."""
    config = SessionConfig(
        listen_host="127.0.0.1",
        listen_port=0,
        enable_incoming=enable_incoming,
        enable_dht=False,
        enable_lsd=False,
    )
    async with Tracker(http=[Endpoint("127.0.0.1", 0)]) as tracker:
        desk = tracker.desk
        async with Session(config) as session:
            settings = TorrentConfig(output=tmp_path, trackers=(tuple(tracker.announce_urls),))
            await session.add("a" * 40, settings)
            async with asyncio.timeout(10):
                while not desk.num_announces + desk.num_refused:  # noqa: ASYNC110  # nothing tells
                    await asyncio.sleep(0.01)
            assert desk.table.num_peers == 1
        assert (desk.num_announces, desk.num_refused, desk.table.num_peers) == (2, 0, 0)


@pytest.mark.parametrize(("busy_for", "expected"), [(3, 5), (8, 9)])
@in_scene()
async def test_trackers_are_told_of_the_end_within_one_time_for_all_torrents(
    scene: Scene, busy_for: float, expected: float
) -> None:
    """Limit: F19. Also those of a torrent whose turn comes late."""
    client = FakeClient()
    config = {"trackers": ((URL,),)}
    node = await scene.node(make=tracked(client), enable_trackers=True, torrent=config)
    await asyncio.sleep(1)
    client.is_dead = True

    async def keep_busy() -> None:
        async with node.torrent._condition.lock:
            await asyncio.sleep(busy_for)

    scene.spawn(keep_busy())
    await asyncio.sleep(0)
    began = scene.loop.time()
    await node.close()
    assert client.heard[-1][1] is Event.STOPPED
    assert scene.loop.time() - began == expected


@pytest.mark.parametrize("is_cancelled", [False, True])
@pytest.mark.parametrize("wait", [0.0, 1.5])
@in_scene()
async def test_a_removal_under_way_is_over_before_its_session_is(
    scene: Scene, wait: float, is_cancelled: bool
) -> None:
    """It closes files and connections, and forgets what the state folder knows."""
    client = FakeClient()
    node = await scene.node(
        is_seed=True,
        make=tracked(client),
        enable_trackers=True,
        state_dir=scene.state_dir,
        worker_delay=0.5,
        torrent={"trackers": ((URL,),)},
    )
    await scene.scripted(node, bitfield=wire.HAVE_NONE)
    await asyncio.sleep(1)
    client.is_dead = True
    removing = asyncio.ensure_future(node.session.remove(node.torrent))
    await asyncio.sleep(wait)
    if is_cancelled:
        removing.cancel()
    await node.close()
    await asyncio.sleep(0)
    assert removing.done()
    assert node.torrent.state is TorrentState.STOPPED
    assert client.heard[-1][1] is Event.STOPPED
    assert not [*(scene.state_dir / "torrents").glob("*.torrent")]


@in_scene()
async def test_a_removal_that_nobody_waits_for_is_carried_out(scene: Scene) -> None:
    node = await scene.node(is_seed=True, worker_delay=1.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await node.session.remove(node.torrent, delete_data=True)
    assert node.torrent.state is TorrentState.STOPPED
    assert not (node.folder / NAME).exists()


@in_scene()
async def test_bep40_peers_are_dialled_by_where_others_see_us_and_we_are_none(
    scene: Scene, tmp_path: Path
) -> None:
    node = await scene.node(make=DhtSession, enable_dht=True, dht_bootstrap=())
    ours, peer = Endpoint("20.0.0.9", PORT), Endpoint("21.0.0.1", 7000)
    node.torrent.add_peers([ours, peer], "user")
    assert ours in node.torrent.candidates
    # Enough nodes of the DHT have said so.
    dht = node.session.dht
    assert dht is not None
    dht._heard(dht.shells[0], AddressLearned(ours.host, NodeId(bytes(20))))
    other = Scene(scene.loop, tmp_path / "other", files={"": 5_000})
    later = await node.session.add(other.raw, TorrentConfig(output=tmp_path / "o"))
    later.add_peers([ours, peer], "user")
    for torrent in (node.torrent, later):
        assert ours not in torrent.candidates
        entry = torrent.candidates._book.entries[peer]
        assert entry.priority == canonical_priority(ours, peer)


@in_scene()
async def test_how_others_saw_us_is_known_from_an_earlier_run(scene: Scene) -> None:
    folder, host = scene.state_dir, scene.add_host()
    folder.mkdir()
    known = {b"id": bytes(20), b"ip": bytes([20, 0, 0, 9]), b"nodes": b""}
    write_dht_state(folder, write_states([(host.addresses[0], {**known})]))
    options: Any = {"make": DhtSession, "enable_dht": True, "dht_bootstrap": ()}
    session = await scene.session(host, state_dir=folder, **options)
    assert session._services.external == {False: Endpoint("20.0.0.9", PORT)}


@in_scene()
async def test_bep24_a_tracker_is_believed_until_the_dht_knows_better(scene: Scene) -> None:
    node = await scene.node(make=DhtSession, enable_dht=True, dht_bootstrap=())
    session, peer = node.session, Endpoint("21.0.0.1", 7000)
    node.torrent.add_peers([peer], "user")
    for host, believed in (
        ("192.168.0.9", None),  # it is in our own network
        ("20.0.0.9", "20.0.0.9"),
        ("20.0.0.8", "20.0.0.9"),
    ):
        session._services.address_told(host)
        found = session._services.external.get(False)
        assert (found and found.host) == believed
    entry = node.torrent.candidates._book.entries[peer]
    assert entry.priority == canonical_priority(Endpoint("20.0.0.9", PORT), peer)
    dht = session.dht
    assert dht is not None
    dht._heard(dht.shells[0], AddressLearned("20.0.0.7", NodeId(bytes(20))))
    for host in ("20.0.0.6", "fd00::1"):
        session._services.address_told(host)
    assert session._services.external == {False: Endpoint("20.0.0.7", PORT)}
    session._services.address_told("2a00::1")
    assert session._services.external[True] == Endpoint("2a00::1", PORT)


@in_scene()
async def test_who_takes_no_connections_has_no_place_where_others_see_him(scene: Scene) -> None:
    node = await scene.node(enable_incoming=False)
    node.session._address_learned("20.0.0.9")
    node.session._address_told("20.0.0.9")
    assert node.session._services.external == {}


@in_scene(files={"": 20_000_000})
async def test_limits_of_the_session_change_while_it_runs(scene: Scene) -> None:
    """A lower one is felt at once: what was asked for is withdrawn, and each torrent hears."""
    seed = await scene.node(is_seed=True, host=scene.add_host(upload_rate=2_000_000))
    leecher = await scene.node(peers=[seed])
    session, torrent = leecher.session, leecher.torrent
    await asyncio.sleep(3)
    assert torrent.roster is not None
    session.change(max_download_rate=50_000, max_connections_per_torrent=3)
    before = torrent.num_downloaded
    await asyncio.sleep(5)
    assert torrent.num_downloaded - before < 2 * 5 * 50_000, "what was on the way, too"
    assert torrent.roster.max_connections == 3
    # A limit that is not touched stays.
    session.change(max_upload_rate=1_000)
    assert session._services.download_limit.bucket.rate == 50_000
    assert session._services.upload_limit.bucket.rate == 1_000
    with pytest.raises(ConfigError):
        session.change(max_download_rate=None, max_upload_rate=0)
    assert session.config.max_download_rate == 50_000
    session.change(max_download_rate=None)
    await leecher.complete(within=20)


@pytest.mark.parametrize("rate", [float("nan"), float("-inf"), 0.5])
async def test_a_session_takes_changes_before_it_runs_and_after(rate: float) -> None:
    session = Session(SessionConfig(listen_host="127.0.0.1", listen_port=0, enable_dht=False))
    session.change(max_upload_rate=1000.0)
    with pytest.raises(ConfigError, match="max_upload_rate"):
        session.change(max_upload_rate=rate)
    async with session:
        assert session._services.upload_limit.bucket.rate == 1000.0
    session.change(max_upload_rate=None)
    assert session.config.max_upload_rate is None


@in_scene(version=Version.HYBRID)
async def test_a_link_that_is_removed_while_its_metadata_is_read_leaves_nothing(
    scene: Scene,
) -> None:
    """It has learnt of its other hash when it ends; both can be added again, and are forgotten."""
    seed = await scene.node(is_seed=True)
    options: dict[str, Any] = {"state_dir": scene.state_dir, "worker_delay": 0.5}
    first = await scene.node(source=scene.link_by("btih"), peers=[seed], **options)
    await first.complete()
    await first.close()
    session = await scene.session(scene.add_host(), **options)
    config = TorrentConfig(output=scene.folder / "out")
    adding = scene.spawn(session.add(scene.link_by("btih"), config))
    await until(lambda: bool(session.torrents))
    await asyncio.sleep(0.2)
    await session.remove(session.torrents[0])
    await adding
    assert not list((scene.state_dir / "torrents").glob("*.torrent"))
    for link in (scene.link_by("btmh"), scene.link_by("btih")):
        torrent = await session.add(link, config)
        await session.remove(torrent)


@in_scene()
async def test_a_bug_in_what_one_torrent_does_every_second_spares_the_others(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F17."""
    node = await scene.node()
    other = Scene(scene.loop, tmp_path / "other", files={"z": 50_000})
    torrent = await node.session.add(other.raw, TorrentConfig(output=tmp_path / "other/source"))

    def tick(*, now: float) -> None:
        raise ZeroDivisionError(now)

    monkeypatch.setattr(node.torrent, "tick", tick)
    ticks: list[float] = []
    monkeypatch.setattr(torrent, "tick", lambda *, now: ticks.append(now))
    await asyncio.sleep(3.5)
    assert len(ticks) == 3
    assert len(scene.loop.failures) == 3
    assert "ZeroDivisionError" in scene.loop.failures.pop()
    scene.loop.failures.clear()


@in_scene()
async def test_a_bug_in_the_end_of_one_torrent_spares_the_others(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit: F17. What they have is kept before the journal is closed."""
    node = await scene.node(state_dir=scene.state_dir, worker_delay=1.0)
    other = Scene(scene.loop, tmp_path / "other", files={"z": 50_000})
    torrent = await node.session.add(other.raw, TorrentConfig(output=tmp_path / "other/source"))

    async def stop() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(node.torrent, "stop", stop)
    with pytest.raises(ZeroDivisionError):
        await node.close()
    assert torrent.state is TorrentState.STOPPED
    monkeypatch.undo()
    await node.torrent.stop()


@in_scene(version=Version.HYBRID)
async def test_a_link_with_a_file_too_many_is_known_by_all_its_hashes(scene: Scene) -> None:
    """Its metadata is there: the choice can be mended, and then it is a torrent as any other."""
    seed = await scene.node(is_seed=True)
    node = await scene.node(
        source=scene.link_by("btih"), peers=[seed], torrent={"files": frozenset({9})}
    )
    await until(lambda: node.torrent.state is TorrentState.ERROR)
    assert isinstance(node.torrent.error, ConfigError)
    assert node.torrent.num_left == len(scene.data)
    node.torrent.change(files={0})
    await node.torrent.resume()
    await node.complete()
    with pytest.raises(ConfigError, match="already"):
        await node.session.add(scene.link_by("btmh"))


@in_scene(version=Version.HYBRID)
async def test_one_torrent_under_two_names_begins_once(scene: Scene) -> None:
    """Neither could be known by both hashes; resumed, both worked on the same files."""
    seed = await scene.node(is_seed=True)
    node = await scene.node(source=scene.link_by("btih"), peers=[seed], state_dir=scene.state_dir)
    first, session = node.torrent, node.session
    config = TorrentConfig(output=node.folder, peers=(seed.endpoint,))
    other = await session.add(scene.link_by("btmh"), config)
    for torrent in (first, other, first):
        await until(lambda torrent=torrent: torrent.state is TorrentState.ERROR)  # type: ignore[misc]
        assert isinstance(torrent.error, ConfigError)
        with pytest.raises(ConfigError, match="already"):
            await torrent.wait_complete()
        await torrent.resume()
    await until(lambda: first.error is not None)
    await session.remove(other, delete_data=True)
    await first.resume()
    await node.complete()
    assert node.has_content()
    assert len(first.all_hashes) == 2


class _LoopAsOnWindows(asyncio.SelectorEventLoop):
    """An event loop that watches no sockets for others, as the usual one of Windows."""

    add_reader = asyncio.AbstractEventLoop.add_reader


def test_an_event_loop_that_cannot_watch_sockets_is_refused() -> None:
    async def main() -> None:
        async with Session(SessionConfig(listen_port=0)):
            pass

    with (
        asyncio.Runner(loop_factory=_LoopAsOnWindows) as runner,
        pytest.raises(ConfigError, match=r"_LoopAsOnWindows cannot .*SelectorEventLoop"),
    ):
        runner.run(main())


@in_scene()
async def test_removals_are_over_before_their_session_is_also_when_its_end_is_cancelled(
    scene: Scene,
) -> None:
    """A second removal begins while the first is waited for."""
    node = await scene.node(is_seed=True, state_dir=scene.state_dir, worker_delay=0.5)
    folder = scene.folder / "other"
    folder.mkdir()
    (folder / "a").write_bytes(b"a" * 100_000)
    other = await node.session.add(
        create_torrent(folder), TorrentConfig(output=scene.folder, paused=True)
    )
    removing = [asyncio.ensure_future(node.session.remove(node.torrent))]
    closing = asyncio.ensure_future(node.close())
    await asyncio.sleep(0.1)
    removing.append(asyncio.ensure_future(node.session.remove(other)))
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await asyncio.sleep(0)
    assert all(each.done() for each in removing)
    assert not [*(scene.state_dir / "torrents").glob("*.torrent")]


@in_scene()
async def test_a_session_whose_end_is_cancelled_leaves_no_torrent_at_work(scene: Scene) -> None:
    """One that is busy has to be waited for."""
    node = await scene.node(is_seed=True)

    async def keep_busy() -> None:
        async with node.torrent._condition.lock:
            await asyncio.sleep(1)

    scene.spawn(keep_busy())
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(node.close())
    await asyncio.sleep(0.5)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert node.torrent.state is TorrentState.STOPPED
    assert node.torrent.swarm is None


async def test_threads_end_also_when_the_end_of_a_session_is_cancelled() -> None:
    """One is still at work then."""
    is_free, ending = threading.Event(), asyncio.Event()
    before = set(threading.enumerate())
    threads: set[threading.Thread] = set()
    jobs: list[asyncio.Future[object]] = []

    async def use() -> None:
        host = "127.0.0.1"
        config = SessionConfig(listen_host=host, listen_port=0, enable_dht=False, enable_lsd=False)
        async with Session(config) as session:
            jobs.append(asyncio.ensure_future(session.run_job(is_free.wait)))
            await asyncio.sleep(0)
            threads.update(set(threading.enumerate()) - before)
            ending.set()

    using = asyncio.create_task(use())
    await ending.wait()
    await until(lambda: any(thread.name.endswith("-end") for thread in threading.enumerate()))
    using.cancel()
    await asyncio.sleep(0)
    is_free.set()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert threads
    for thread in threads:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
    assert await jobs[0]


async def test_a_session_without_threads_says_so_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ``ulimit -u`` or a container allow no more."""

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    options: dict[str, Any] = {"listen_host": "127.0.0.1", "listen_port": 0, "enable_dht": False}
    async with Session(SessionConfig(enable_lsd=False, **options)) as session:
        assert session.port
    with pytest.raises(StorageError, match="starts no more threads"):
        async with Session(SessionConfig(enable_lsd=False, state_dir=tmp_path, **options)):
            pass
    assert getattr(asyncio.get_running_loop(), "_default_executor", None) is None
