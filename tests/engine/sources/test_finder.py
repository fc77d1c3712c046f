"""engine.sources.finder: endpoints that outlive a run, and sources that do not."""

from __future__ import annotations

import asyncio

from bittern.core.announce import Event
from bittern.core.endpoint import Endpoint
from bittern.engine.config import TorrentConfig
from bittern.engine.source_status import SourceKind, SourceState
from bittern.engine.sources.finder import PeerFinder
from bittern.policy.candidates import PAUSED_CAPACITY
from tests.engine.scene import Scene, in_scene
from tests.engine.sources.fake_tracker import URL, FakeClient, tracked
from tests.engine.sources.local_scene import OTHER, SEARCHED, FakeTorrent
from tests.engine.web import BASE

PEER = Endpoint("10.0.0.77", 7000)


@in_scene()
async def test_endpoints_outlive_a_run_and_nobody_takes_no_memory(scene: Scene) -> None:
    services = (await scene.node()).torrent._services
    finder = PeerFinder(FakeTorrent(SEARCHED), services)
    nobody = finder.candidates
    assert finder.candidates is nobody
    finder.let_go()
    assert finder.candidates is not nobody
    assert finder.add([PEER, PEER], "user", None) == 1
    assert finder.add([PEER], "user", None) == 0
    known = finder.candidates
    finder.start(services.sources, TorrentConfig())
    await finder.stop()
    finder.let_go()
    assert finder.candidates is known
    assert PEER in known


@in_scene()
async def test_fewer_endpoints_are_kept_while_nobody_is_looked_for(scene: Scene) -> None:
    """Limit: H8."""
    services = (await scene.node()).torrent._services
    finder = PeerFinder(FakeTorrent(SEARCHED), services)
    peers = [Endpoint("20.0.0.1", 7000 + number) for number in range(2 * PAUSED_CAPACITY)]
    finder.start(services.sources, TorrentConfig())
    assert finder.add(peers, "tracker", None) == len(peers)
    await finder.stop()
    assert len(finder.candidates) == PAUSED_CAPACITY
    finder.start(services.sources, TorrentConfig())
    assert finder.add(peers, "tracker", None) == PAUSED_CAPACITY
    await finder.stop()


@in_scene()
async def test_sources_are_there_while_it_runs(scene: Scene) -> None:
    client = FakeClient()
    node = await scene.node(make=tracked(client), enable_trackers=True)
    services, torrent = node.torrent._services, FakeTorrent(SEARCHED)
    finder = PeerFinder(torrent, services)
    finder.ask_now()
    finder.set_trackers(TorrentConfig(trackers=((URL,),)))
    assert (finder.trackers(), finder.statuses()) == ([], [])
    finder.start(services.sources, TorrentConfig())
    assert finder.trackers() == []
    assert {each.state for each in finder.statuses()} >= {SourceState.OFF}
    finder.set_trackers(TorrentConfig(trackers=((URL,),)))
    assert [tracker.url for tracker in finder.trackers()] == [URL]
    await asyncio.sleep(1)
    # The metadata has come, and with it a second hash.
    torrent.all_hashes = (SEARCHED, OTHER)
    finder.metadata_known()
    await finder.stop()
    assert client.hashes[-1] == {SEARCHED, OTHER}
    assert (finder.trackers(), finder.statuses()) == ([], [])


@in_scene()
async def test_only_trackers_and_the_user_name_peers_of_a_private_torrent(scene: Scene) -> None:
    """BEP 27. Also when a source that was left had something on its way."""
    services = (await scene.node()).torrent._services
    finder = PeerFinder(FakeTorrent(SEARCHED, is_private=True), services)
    for source in ("dht", "pex", "lsd", "zeroconf"):
        assert finder.add([PEER], source, None) == 0
    assert len(finder.candidates) == 0
    assert finder.add([PEER], "tracker", "10.0.0.1") == 1


@in_scene()
async def test_who_has_everything_looks_for_no_seeds(scene: Scene) -> None:
    services = (await scene.node()).torrent._services
    finder = PeerFinder(FakeTorrent(SEARCHED), services)
    finder.completed()
    assert finder.candidates.is_seeding
    finder.start(services.sources, TorrentConfig())
    finder.completed()
    assert SourceKind.INCOMING in {each.kind for each in finder.statuses()}
    await finder.stop()


@in_scene()
async def test_where_others_see_us_is_nobody_to_look_for(scene: Scene) -> None:
    """Limit: H15. Also for a torrent that is added once that is known."""
    services = (await scene.node()).torrent._services
    ours = Endpoint("20.0.0.9", 6881), Endpoint("2a00::9", 6881)
    services.external.update({each.is_ipv6: each for each in ours})
    finder = PeerFinder(FakeTorrent(SEARCHED), services)
    assert finder.add([*ours, PEER], "user", None) == 1
    assert not any(each in finder.candidates for each in ours)


@in_scene()
async def test_asking_now_asks_before_the_time(scene: Scene) -> None:
    client = FakeClient()
    node = await scene.node(make=tracked(client), enable_trackers=True)
    finder = PeerFinder(FakeTorrent(SEARCHED), node.torrent._services)
    finder.start(node.torrent._services.sources, TorrentConfig(trackers=((URL,),)))
    await asyncio.sleep(600)
    assert len(client.heard) == 1
    finder.ask_now()
    await asyncio.sleep(60)
    assert len(client.heard) == 2
    # Once stopped there is nobody to ask, and stopping again says goodbye to nobody.
    await finder.stop()
    heard = list(client.heard)
    assert heard[-1][1] is Event.STOPPED
    finder.ask_now()
    await finder.stop()
    await asyncio.sleep(60)
    assert client.heard == heard


@in_scene()
async def test_web_seeds_of_changed_settings_are_known_at_once(scene: Scene) -> None:
    node = await scene.node()
    finder = PeerFinder(FakeTorrent(SEARCHED), node.torrent._services)
    finder.set_web_seeds(TorrentConfig(web_seeds=(BASE,)))
    assert finder.statuses() == []
    finder.start(node.torrent._services.sources, TorrentConfig())
    finder.set_web_seeds(TorrentConfig(web_seeds=(BASE,)))
    names = [each.name for each in finder.statuses() if each.kind is SourceKind.WEB_SEED]
    assert names == [BASE]
    await finder.stop()
