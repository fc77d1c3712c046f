"""engine.sources.discovery: sources of peers of one torrent, and the goodbye to dead ones (F19)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bittern.codec.info import Version
from bittern.codec.magnet import parse_magnet
from bittern.core.announce import Event
from bittern.core.errors import ConfigError
from bittern.engine import events
from bittern.engine.config import TorrentConfig
from bittern.engine.session import Session
from bittern.engine.shelf import Shelf
from bittern.engine.source_status import SourceKind
from bittern.engine.sources.base import PRIVATE, DiscoveringTorrent, PeerSource, SwitchedOff
from bittern.engine.sources.discovery import hinted_peers, tiers_of
from bittern.testing.loop import VirtualLoop
from tests.engine.scene import Scene, Watch, endpoint_of, in_scene, until
from tests.engine.sources.fake_tracker import URL, FakeClient, tracked
from tests.virtual_time import simulated


@in_scene(trackers=((URL,),))
async def test_a_tracker_brings_peers_together(scene: Scene) -> None:
    client = FakeClient()
    seed = await scene.node(is_seed=True)
    client.peers = (seed.endpoint,)
    leecher = await scene.node(make=tracked(client), enable_trackers=True)
    watch = Watch(leecher.torrent)
    await leecher.complete(within=30)
    await asyncio.sleep(1)
    assert [(url, event) for url, event, _ in client.heard] == [
        (URL, Event.STARTED),
        (URL, Event.COMPLETED),
    ]
    assert [left for *_, left in client.heard] == [len(scene.data), 0]
    assert events.PeersFound("tracker", 1) in watch.seen
    assert [status.url for status in leecher.torrent.trackers()] == [URL]
    leecher.torrent.announce_now()
    await leecher.close()
    assert client.heard[-1][1] is Event.STOPPED
    assert leecher.torrent.trackers() == []


@in_scene()
async def test_without_trackers_there_is_nothing_to_ask(scene: Scene) -> None:
    node = await scene.node()
    node.torrent.announce_now()
    assert node.torrent.trackers() == []


@pytest.mark.parametrize("was_alive", [False, True])
@in_scene()
async def test_dead_trackers_do_not_hold_up_the_end(
    scene: Scene, was_alive: bool, tmp_path: Path
) -> None:
    """Limit: F19. Many torrents with dead trackers end within ``stop_timeout`` altogether."""
    client = FakeClient()
    client.is_dead = not was_alive
    session = await scene.session(scene.add_host(), make=tracked(client), enable_trackers=True)
    for number in range(30):
        other = Scene(scene.loop, tmp_path / str(number), files={"": 1000 + number})
        await session.add(
            other.raw,
            TorrentConfig(output=tmp_path / str(number) / "out", trackers=((URL,),)),
        )
    await asyncio.sleep(10)
    client.is_dead = True
    began = scene.loop.time()
    scene.sessions.remove(session)
    await session.__aexit__(None, None, None)
    assert scene.loop.time() - began <= 5.5


@simulated(limit=20_000)
async def test_a_seed_at_rest_goes_on_announcing(loop: VirtualLoop, tmp_path: Path) -> None:
    """And one that it is told of wakes it up."""
    async with Scene(loop, tmp_path, trackers=((URL,),)) as scene:
        client = FakeClient()
        seed = await scene.node(
            is_seed=True,
            make=tracked(client),
            enable_trackers=True,
            state_dir=tmp_path / "state",
            rest_after=5.0,
        )
        await asyncio.sleep(60)
        assert seed.torrent.is_resting
        # Nobody can connect to this one, so that the seed has to.
        host = scene.add_host()
        leecher = await scene.node(host=host)
        client.peers = (endpoint_of(host),)
        async with asyncio.timeout(3600):
            await leecher.complete(within=3600)
        assert leecher.has_content()
        assert len(client.heard) > 1


@simulated
async def test_tiers_are_those_of_the_torrent_and_then_of_its_settings(
    loop: VirtualLoop, tmp_path: Path
) -> None:
    """BEP 12."""
    config = TorrentConfig(trackers=(("http://c/", "http://d/"),))
    scene = Scene(loop, tmp_path, trackers=(("http://a/",), ("http://b/",)))
    shelf = Shelf(scene.metainfo)
    assert tiers_of(shelf, config) == (
        ("http://a/",),
        ("http://b/",),
        ("http://c/", "http://d/"),
    )
    magnet = parse_magnet(
        "magnet:?xt=urn:btih:" + "a" * 40 + "&tr=http%3A%2F%2Fe%2F&tr=http%3A%2F%2Ff%2F"
    )
    assert tiers_of(Shelf(magnet), TorrentConfig()) == (("http://e/",), ("http://f/",))


class FakeShared:
    """A source of the whole session that remembers who joined and left it."""

    def __init__(self, kind: SourceKind) -> None:
        self.kind = kind
        self.log: list[str] = []

    def missed(self, seconds: float) -> None:
        self.log.append(f"missed {seconds}")

    def join(self, torrent: DiscoveringTorrent) -> PeerSource:
        self.log.append(f"join {len(torrent.all_hashes)} {torrent.is_private}")
        return FakeSource(self)


class FakeSource(SwitchedOff):
    """One torrent's share in it."""

    def __init__(self, shared: FakeShared) -> None:
        super().__init__(shared.kind, "a fake")
        self.shared = shared

    def start(self, name: str) -> None:
        self.shared.log.append(f"start {name}")

    def completed(self) -> None:
        self.shared.log.append("completed")

    def ask_now(self) -> None:
        self.shared.log.append("ask")

    async def stop(self) -> None:
        self.shared.log.append("stop")


def sharing(shared: FakeShared) -> type[Session]:
    """Return a session with a source for all its torrents."""

    class Sharing(Session):
        async def __aenter__(self) -> Session:
            await super().__aenter__()
            self._services.sources.shared.append(shared)
            return self

    return Sharing


@in_scene()
async def test_a_source_of_the_session_serves_each_torrent(scene: Scene) -> None:
    shared = FakeShared(SourceKind.DHT)
    seed = await scene.node(is_seed=True)
    node = await scene.node(make=sharing(shared), enable_dht=True, peers=[seed])
    node.torrent.announce_now()
    await node.complete()
    await node.close()
    name = scene.metainfo.info.name
    assert shared.log == ["join 1 False", f"start {name}", "ask", "completed", "stop"]


@in_scene()
async def test_sources_that_are_switched_off_say_by_what(scene: Scene) -> None:
    shared = FakeShared(SourceKind.DHT)
    node = await scene.node(make=sharing(shared), enable_pex=False)
    reasons = {status.kind: status.message for status in node.torrent.sources()}
    assert reasons[SourceKind.DHT] == "switched off by the setting enable_dht"
    assert reasons[SourceKind.LSD] == "switched off by the setting enable_lsd"
    assert reasons[SourceKind.PEX] == "switched off by the setting enable_pex"
    assert not shared.log


@in_scene(is_private=True)
async def test_a_private_torrent_has_its_trackers_only(scene: Scene) -> None:
    """BEP 27."""
    shared = FakeShared(SourceKind.DHT)
    node = await scene.node(
        make=sharing(shared), enable_dht=True, enable_lsd=True, enable_zeroconf=True
    )
    reasons = {status.kind: status.message for status in node.torrent.sources()}
    for kind in (SourceKind.DHT, SourceKind.LSD, SourceKind.ZEROCONF, SourceKind.PEX):
        assert reasons[kind] == PRIVATE
    assert not shared.log


@in_scene(is_private=True)
async def test_a_torrent_that_turns_out_to_be_private_leaves_its_other_sources(
    scene: Scene,
) -> None:
    """BEP 27. A magnet link does not say so; the metadata does."""
    shared = FakeShared(SourceKind.DHT)
    seed = await scene.node(is_seed=True)
    seed.torrent.shelf.is_private = False  # so that it serves the metadata
    link = scene.link
    node = await scene.node(make=sharing(shared), enable_dht=True, source=link, peers=[seed])
    assert shared.log == ["join 1 False", f"start {node.torrent.name}"]
    await node.complete()
    assert shared.log[2:] == ["stop"]
    reasons = {status.kind: status.message for status in node.torrent.sources()}
    assert reasons[SourceKind.DHT] == PRIVATE
    assert reasons[SourceKind.PEX] == PRIVATE


@pytest.mark.parametrize("topic", ["btih", "btmh"])
@in_scene(version=Version.HYBRID)
async def test_a_hybrid_known_by_one_hash_goes_by_both_once_its_metadata_is_there(
    scene: Scene, topic: str
) -> None:
    """BEP 52. Trackers are told of both, and peers may name either."""
    info = scene.metainfo.info
    v1, v2 = info.all_hashes
    seed = await scene.node(is_seed=True)
    client = FakeClient()
    link = f"{scene.link_by(topic)}&tr={URL}"
    node = await scene.node(source=link, enable_trackers=True, make=tracked(client))
    await until(lambda: bool(client.hashes))
    assert client.hashes == [{v1 if topic == "btih" else v2}]
    node.torrent.add_peers([seed.endpoint], "user")
    await node.complete()
    assert node.torrent.all_hashes == (v1, v2)
    await until(lambda: client.hashes[-1] == {v1, v2}, within=3600)
    for named in (v1, v2):
        peer = await scene.connect(node)
        peer.send_handshake(named, b"-SC0000-" + scene.loop.random.randbytes(12))
        assert (await peer.expect_handshake()).info_hash == named
        peer.close()


@in_scene(version=Version.HYBRID)
async def test_one_torrent_under_two_names_is_found_out(scene: Scene, tmp_path: Path) -> None:
    """Two links, one by each hash of a hybrid: the first to learn it says so and stops."""
    info = scene.metainfo.info
    seed = await scene.node(is_seed=True)
    node = await scene.node(source=scene.link_by("btih"))
    other = await node.session.add(
        scene.link_by("btmh"),
        TorrentConfig(output=tmp_path / "other", peers=(seed.endpoint,)),
    )
    with pytest.raises(ConfigError, match="in this session already"):
        await other.wait_complete()
    await node.session.remove(other)
    node.torrent.add_peers([seed.endpoint], "user")
    await node.complete()
    for named in info.all_hashes:
        peer = await scene.connect(node)
        peer.send_handshake(named, b"-SC0000-" + scene.loop.random.randbytes(12))
        await peer.expect_handshake()
        peer.close()


@in_scene()
async def test_peers_that_a_link_names_by_address_are_dialled(scene: Scene) -> None:
    """BEP 9. Limit: P14, what is in our own network is not."""
    seed = await scene.node(is_seed=True, host=scene.add_host("45.1.2.3"))
    local = scene.add_host()
    link = (
        f"magnet:?xt=urn:btih:{scene.info_hash}&x.pe={seed.endpoint}"
        f"&x.pe={endpoint_of(local)}&x.pe=127.0.0.1:80&x.pe=a.name.example:80"
    )
    assert hinted_peers(Shelf(parse_magnet(link))) == [seed.endpoint]
    node = await scene.node(source=link, host=scene.add_host("45.4.5.6"))
    await node.complete()
    kinds = {status.kind for status in node.torrent.sources()}
    assert SourceKind.LINK in kinds
    assert SourceKind.USER not in kinds
    assert scene.network.attempts[endpoint_of(local)] == 0
    assert hinted_peers(Shelf(scene.metainfo)) == []


@in_scene(is_private=True)
async def test_whom_strangers_named_is_left_when_it_turns_out_to_be_private(scene: Scene) -> None:
    """BEP 27. A person may name anybody, and so may a tracker."""
    stranger, friend = await scene.node(is_seed=True), await scene.node(is_seed=True)
    friend.torrent.shelf.is_private = False  # so that it serves the metadata
    node = await scene.node(source=scene.link)
    watch = Watch(node.torrent)
    node.torrent.add_peers([stranger.endpoint], "lsd")
    await until(lambda: node.torrent.num_connections == 1)
    node.torrent.add_peers([friend.endpoint], "user")
    await node.complete()
    await until(lambda: bool(watch.of(events.PeerDisconnected)))
    ended = {event.endpoint: event.reason for event in watch.of(events.PeerDisconnected)}
    assert ended[stranger.endpoint].startswith("the torrent is private")
    assert stranger.endpoint not in node.torrent.candidates
    assert not ended.get(friend.endpoint, "").startswith("the torrent is private")
    assert stranger.torrent.num_uploaded == 0
