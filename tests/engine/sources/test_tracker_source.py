"""engine.sources.tracker_source: trackers as a source of peers, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from bittern.codec.bencode import encode
from bittern.codec.info import Version
from bittern.core.announce import AnnounceAnswer, Event
from bittern.core.endpoint import Endpoint
from bittern.core.errors import TrackerUnreachable
from bittern.engine import events
from bittern.engine.session import Session
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.engine.sources.tracker_client import TrackerClient
from bittern.engine.sources.tracker_source import STATES, status_of
from bittern.engine.sources.trackers import TrackerStatus
from bittern.net.access import Access
from bittern.net.http import HttpResponse
from bittern.net.udp_tracker import UdpTrackers
from bittern.policy.announcing import PATIENCE, TrackerState
from tests.engine.scene import PIECE_LENGTH, Scene, Watch, in_scene, until
from tests.engine.sources.fake_tracker import URL, FakeClient, tracked

OTHER_URL = "http://other.example/announce"
MUTE_URL = "udp://10.9.9.9:80/announce"


class PickyClient(FakeClient):
    """Fails until it is told not to."""

    is_failing = True

    async def announce(self, *args: object, **options: object) -> AnnounceAnswer:
        await asyncio.sleep(0.1)
        if self.is_failing:
            raise TrackerUnreachable("no route")
        return AnnounceAnswer()


@in_scene(trackers=((URL,),))
async def test_what_was_asked_and_answered_and_when_it_goes_on(scene: Scene) -> None:
    client = PickyClient()
    began = scene.loop.time()
    node = await scene.node(make=tracked(client), enable_trackers=True)
    watch = Watch(node.torrent)
    await asyncio.sleep(0.2)
    failed = node.torrent.sources()[0]
    assert (failed.kind, failed.name, failed.state, failed.message, failed.num_peers) == (
        SourceKind.TRACKER,
        URL,
        SourceState.FAILING,
        "no route",
        None,
    )
    assert failed.last_asked_at is not None
    assert failed.last_answer_at is not None
    assert failed.next_at is not None
    assert began <= failed.last_asked_at < failed.last_answer_at <= scene.loop.time()
    assert 30 <= failed.next_at - scene.loop.time() <= 60
    client.is_failing = False
    await asyncio.sleep(70)
    answered = node.torrent.sources()[0]
    assert (answered.state, answered.num_peers, answered.message) == (
        SourceState.WORKING,
        0,
        None,
    )
    told = [event.source for event in watch.of(events.SourceChanged)]
    assert [status.state for status in told] == [
        SourceState.ASKING,
        SourceState.FAILING,
        SourceState.ASKING,
        SourceState.WORKING,
    ]
    assert told[1] == failed
    assert told[3] == answered


@in_scene(trackers=((URL,),))
async def test_bep24_where_a_tracker_sees_us_is_passed_on(scene: Scene) -> None:
    client = FakeClient()
    client.host, client.external_host = "203.0.113.99", "20.0.0.9"
    node = await scene.node(make=tracked(client), enable_trackers=True)
    ours = Endpoint("20.0.0.9", node.session.port)
    await asyncio.sleep(0.2)
    assert node.session._services.external == {False: ours}
    node.torrent.add_peers([ours], "user")
    assert ours not in node.torrent.candidates


@in_scene()
async def test_why_no_tracker_is_asked(scene: Scene) -> None:
    off = await scene.node()
    assert off.torrent.sources()[0] == SourceStatus(
        kind=SourceKind.TRACKER,
        state=SourceState.OFF,
        message="switched off by the setting enable_trackers",
    )
    none = await scene.node(make=tracked(FakeClient()), enable_trackers=True)
    assert none.torrent.sources()[0].message == "the torrent names no tracker"


@in_scene()
async def test_trackers_come_and_go_while_it_runs(scene: Scene) -> None:
    client = PickyClient()
    client.is_failing = False
    node = await scene.node(make=tracked(client), enable_trackers=True)
    torrent = node.torrent
    torrent.change(trackers=((URL,),))
    await asyncio.sleep(1)
    assert [(each.url, each.state) for each in torrent.trackers()] == [(URL, TrackerState.WORKING)]
    torrent.change(trackers=((URL,), ("http://b.example/announce",)))
    assert [each.state for each in torrent.trackers()] == [
        TrackerState.WORKING,
        TrackerState.UNTRIED,
    ]
    torrent.change(trackers=())
    assert torrent.trackers() == []
    await torrent.pause()
    torrent.change(trackers=((URL,),))
    assert torrent.trackers() == []
    await torrent.resume()
    await asyncio.sleep(1)
    assert torrent.trackers()[0].state is TrackerState.WORKING


@in_scene()
async def test_trackers_that_are_switched_off_stay_off(scene: Scene) -> None:
    node = await scene.node()
    node.torrent.change(trackers=((URL,),))
    assert node.torrent.trackers() == []
    assert node.torrent.config.trackers == ((URL,),)


def test_a_tracker_behind_others_waits_for_its_turn() -> None:
    status = status_of(TrackerStatus("http://b/", 1, TrackerState.UNTRIED))
    assert (status.state, status.message) == (
        SourceState.WAITING,
        "asked only when the trackers before it do not answer",
    )
    assert STATES.keys() == set(TrackerState)


@in_scene(trackers=((URL,), (OTHER_URL,)))
async def test_the_news_of_one_tracker_are_told_of_that_tracker(scene: Scene) -> None:
    node = await scene.node(
        make=tracked(PickyClient()), enable_trackers=True, torrent={"paused": True}
    )
    watch = Watch(node.torrent)
    await node.torrent.resume()
    await until(lambda: len(watch.of(events.TrackerFailed)) == 2)
    await asyncio.sleep(0)
    told = [(each.source.name, each.source.state) for each in watch.of(events.SourceChanged)]
    assert told == [
        (URL, SourceState.ASKING),
        (URL, SourceState.FAILING),
        (OTHER_URL, SourceState.ASKING),
        (OTHER_URL, SourceState.FAILING),
    ]


@in_scene(trackers=((URL,),))
async def test_a_download_is_begun_ended_and_left_with_what_it_came_to(scene: Scene) -> None:
    """Asking again sooner than the tracker allows says nothing more."""
    client = FakeClient()
    seed = await scene.node(is_seed=True)
    client.peers = (seed.endpoint,)
    leecher = await scene.node(make=tracked(client), enable_trackers=True)
    await leecher.complete(within=30)
    await asyncio.sleep(1)
    leecher.torrent.announce_now()
    await asyncio.sleep(1)
    await leecher.close()
    assert [(event, left) for _, event, left in client.heard] == [
        (Event.STARTED, len(scene.data)),
        (Event.COMPLETED, 0),
        (Event.STOPPED, 0),
    ]


@in_scene(files={"a": 100_000, "b": 200_000}, trackers=((URL,),))
async def test_bep21_a_partial_seed_says_what_it_lacks_and_that_it_wants_nothing(
    scene: Scene,
) -> None:
    """It has not completed the torrent until it has chosen the rest."""
    client = FakeClient()
    seed = await scene.node(is_seed=True)
    client.peers = (seed.endpoint,)
    leecher = await scene.node(
        make=tracked(client), torrent={"files": frozenset({0})}, enable_trackers=True
    )
    await leecher.complete(within=30)
    await asyncio.sleep(2000)
    lacking = len(scene.data) - 2 * PIECE_LENGTH
    assert [(event, left) for _, event, left in client.heard] == [
        (Event.STARTED, len(scene.data)),
        (Event.PAUSED, lacking),
    ]
    leecher.torrent.change(files=frozenset({0, 1}))
    await leecher.complete(within=30)
    await asyncio.sleep(1)
    assert client.heard[2:] == [(URL, Event.COMPLETED, 0)]
    await leecher.close()
    assert client.heard[3:] == [(URL, Event.STOPPED, 0)]


@in_scene(version=Version.HYBRID)
async def test_whoever_names_no_tracker_needs_none(scene: Scene) -> None:
    """A hybrid learns of its second hash, ends its download and leaves: nobody is told."""
    seed = await scene.node(is_seed=True)
    leecher = await scene.node(source=scene.link_by("btih"), peers=[seed])
    await leecher.complete(within=30)
    leecher.torrent.announce_now()
    assert leecher.torrent.trackers() == []
    [told] = [each for each in leecher.torrent.sources() if each.kind is SourceKind.TRACKER]
    assert told.state is SourceState.OFF


@in_scene(version=Version.HYBRID)
async def test_a_hybrid_from_a_link_is_announced_under_its_other_hash_too(scene: Scene) -> None:
    """BEP 52."""
    client = FakeClient()
    seed = await scene.node(is_seed=True)
    client.peers = (seed.endpoint, Endpoint("10.0.77.1", 1))
    leecher = await scene.node(
        source=scene.link_by("btih"),
        torrent={"trackers": ((URL,),)},
        make=tracked(client),
        enable_trackers=True,
    )
    await leecher.complete(within=30)
    await until(lambda: len(client.heard) > 1)
    assert client.hashes[0] == {scene.info_hash}
    assert client.hashes[1] == set(seed.torrent.all_hashes)
    assert len(client.hashes[1]) == 2


class LiveTracker:
    """Names one peer over HTTP, at once."""

    def __init__(self, peer: Endpoint) -> None:
        self.peer = peer
        self.queries: list[str] = []

    async def fetch(
        self,
        url: str,
        *,
        access: Access,
        max_length: int,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        ipv6: bool | None = None,
    ) -> HttpResponse:
        del access, max_length, timeout, headers, ipv6
        self.queries.append(url)
        body = encode({b"interval": 1800, b"peers": self.peer.to_compact()})
        return HttpResponse(200, {}, body, url)

    async def resolve(self, host: str) -> tuple[str, ...]:
        return ("10.9.9.9" if host == "10.9.9.9" else "10.9.9.1",)


@in_scene(trackers=((MUTE_URL,), (URL,)))
async def test_a_silent_udp_tracker_in_front_delays_peers_by_seconds_only(scene: Scene) -> None:
    """It held up the next tier until it had been given up, after 35 s."""
    seed = await scene.node(is_seed=True)
    host, tracker = scene.add_host(), LiveTracker(seed.endpoint)
    socket = host.open_datagrams(host.addresses[0], 0, lambda _data, _source: None)
    udp = UdpTrackers([socket], random_id=lambda: scene.loop.random.getrandbits(32))
    client = TrackerClient(http=tracker, udp=udp, resolver=tracker)
    made = type("Made", (Session,), {"_make_tracker_client": lambda _self: client})
    began = scene.loop.time()
    node = await scene.node(host=host, make=made, enable_trackers=True)
    await node.complete(within=10)
    assert scene.loop.time() - began > PATIENCE
    await asyncio.sleep(1)
    assert [each.state for each in node.torrent.trackers()] == [
        TrackerState.ANNOUNCING,
        TrackerState.WORKING,
    ]
    await asyncio.sleep(60)
    mute, live = node.torrent.trackers()
    assert (mute.state, mute.message) == (TrackerState.FAILING, "tracker is silent")
    assert live.state is TrackerState.WORKING
    told = [url.partition("event=")[2].partition("&")[0] for url in tracker.queries]
    assert told == ["started", "completed"]
    await node.close()
    udp.close()
    socket.close()
