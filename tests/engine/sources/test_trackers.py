"""engine.sources.trackers: the announces of one torrent, in virtual time."""

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Sequence

import pytest

from bittern.core.announce import AnnounceAnswer, AnnounceRequest, Event, ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.errors import TrackerFailure, TrackerUnreachable
from bittern.core.ids import InfoHash, PeerId
from bittern.engine import events
from bittern.engine.sources.announces import MAX_PER_TRACKER, Announces
from bittern.engine.sources.tracker_client import TrackerClient
from bittern.engine.sources.trackers import TrackerAnnouncer, TrackerStatus
from bittern.policy.announcing import PATIENCE, AnnounceDecision, TrackerState
from bittern.testing.loop import VirtualLoop
from tests.virtual_time import simulated

HOST = "203.0.113.99"
HASH, OTHER = InfoHash(b"h" * 20), InfoHash(b"o" * 20)
PEERS = (Endpoint("203.0.113.1", 1), Endpoint("203.0.113.2", 0), Endpoint("0.0.0.0", 5))


class FakeClient(TrackerClient):
    """Plays all trackers: ``a`` to ``z`` by what ``answers`` says of them."""

    def __init__(self) -> None:
        self.answers: dict[str, AnnounceAnswer | Exception | float] = {}
        self.heard: list[tuple[float, str, Event]] = []
        self.requests: list[AnnounceRequest] = []
        self.counts: dict[str, dict[InfoHash, ScrapeEntry] | Exception] = {}

    async def announce(
        self,
        url: str,
        requests: Sequence[AnnounceRequest],
        *,
        answered: Callable[[AnnounceAnswer, str], None] = lambda answer, host: None,
    ) -> AnnounceAnswer:
        loop = asyncio.get_running_loop()
        self.heard.append((loop.time(), url, requests[0].event))
        self.requests += requests
        answer = self.answers.get(url, AnnounceAnswer(peers=PEERS, min_interval=300))
        await asyncio.sleep(answer if isinstance(answer, float) else 1)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float):
            raise TrackerUnreachable("tracker is silent")
        answered(answer, HOST)
        return answer

    async def scrape(
        self, url: str, info_hashes: Sequence[InfoHash]
    ) -> dict[InfoHash, ScrapeEntry]:
        await asyncio.sleep(1)
        found = self.counts.get(url, {})
        if isinstance(found, Exception):
            raise found
        return found


class FakeTorrent:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.left = 100
        self.wants_nothing = False
        self.peers: list[Endpoint] = []
        self.reports: list[events.Event] = []
        self.told: list[str] = []
        self.is_private = False

    def stats(self) -> tuple[int, int, int]:
        return 1, 2, self.left

    def add_peers(self, endpoints: Sequence[Endpoint], source: str, from_host: str) -> None:
        assert (source, from_host) == ("tracker", HOST)
        self.peers += endpoints

    def address_told(self, host: str) -> None:
        self.told.append(host)

    def report(self, event: events.Event) -> None:
        self.reports.append(event)


class Scene:
    """An announcer with its fakes, running."""

    def __init__(self, tiers: str, announces: Announces | None = None, **options: bool) -> None:
        self.client = FakeClient()
        self.torrent = FakeTorrent()
        self.tasks: set[asyncio.Future[None]] = set()
        self.announcer = TrackerAnnouncer(
            [list(tier) for tier in tiers.split()],
            client=self.client,
            announces=announces or Announces(asyncio.get_running_loop(), self._spawn),
            surroundings=self.torrent,
            info_hashes=(HASH, OTHER),
            peer_id=PeerId(b"p" * 20),
            port=lambda: 6881,
            rng=random.Random(1),
            **options,
        )

    def _spawn(self, job: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.ensure_future(job)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def __aenter__(self) -> "Scene":
        self.announcer.start()
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.announcer.stop()
        await asyncio.sleep(0)
        assert not self.tasks

    def events(self) -> list[tuple[str, Event]]:
        return [(url, event) for _, url, event in self.client.heard]

    def status(self, url: str) -> TrackerStatus:
        return next(status for status in self.announcer.trackers() if status.url == url)


@simulated
async def test_a_life(loop: VirtualLoop) -> None:
    scene = Scene("a")
    async with scene:
        await asyncio.sleep(2)
        scene.torrent.left = 0
        scene.announcer.completed()
        await asyncio.sleep(2000)
    assert scene.client.heard == [
        (0, "a", Event.STARTED),
        (2, "a", Event.COMPLETED),
        (1803, "a", Event.NONE),
        (2002, "a", Event.STOPPED),
    ]
    assert loop.time() == 2003
    assert [request.left for request in scene.client.requests] == [100] * 2 + [0] * 6
    assert [r.numwant for r in scene.client.requests] == [200] * 6 + [0] * 2
    assert {r.info_hash for r in scene.client.requests} == {HASH, OTHER}
    assert len({r.key for r in scene.client.requests}) == 1
    assert scene.client.requests[0] == AnnounceRequest(
        info_hash=HASH,
        peer_id=PeerId(b"p" * 20),
        port=6881,
        uploaded=1,
        downloaded=2,
        left=100,
        event=Event.STARTED,
        key=scene.client.requests[0].key,
        numwant=200,
    )


@simulated
async def test_torrents_have_texts_in_common() -> None:
    """Ten thousand of one tracker have its URL, and why it refuses, once in memory."""
    first = Scene("a")
    second = Scene("a", announces=first.announcer._announces)
    url = "http://some.example/announce"
    for scene in (first, second):
        copied = url.encode().decode()
        scene.client.answers[url] = TrackerFailure("-".join(("not", "registered")))
        scene.announcer.set_tiers([[copied]])
    async with first, second:
        await asyncio.sleep(2)
        one, other = first.status(url), second.status(url)
    assert one.url is other.url
    assert one.message == "not-registered"
    assert one.message is other.message


@simulated
async def test_peers_and_reports_reach_the_torrent() -> None:
    scene = Scene("a b")
    scene.client.answers["a"] = TrackerFailure("closed today", retry_after=600)
    scene.client.answers["b"] = AnnounceAnswer(
        peers=PEERS, num_seeds=3, external_host="203.0.113.9", tracker_id=b"id"
    )
    async with scene:
        await asyncio.sleep(3)
        assert scene.torrent.peers == [PEERS[0]]
        assert scene.torrent.told == ["203.0.113.9"]
        assert scene.torrent.reports == [
            events.TrackerAsked("a", "started"),
            events.TrackerFailed("a", "closed today", 601, is_refusal=True),
            events.TrackerAsked("b", "started"),
            events.TrackerAnnounced("b", "started", 3, 3, None, 1800),
        ]
        await asyncio.sleep(1900)
        assert scene.client.requests[-1].tracker_id == b"id"


@simulated
async def test_status_for_display() -> None:
    scene = Scene("a b c d", announce_to_all_tiers=True)
    scene.client.answers["a"] = AnnounceAnswer(
        peers=PEERS, num_seeds=3, num_leechers=4, num_downloaded=5, warning="take care"
    )
    scene.client.answers["b"] = TrackerUnreachable("no route")
    scene.client.answers["c"] = TrackerFailure(
        "never come back", retry_after=math.inf, is_ours=True
    )
    scene.client.answers["d"] = 30.0
    async with scene:
        await asyncio.sleep(2)
        assert scene.status("a") == TrackerStatus(
            url="a",
            tier=0,
            state=TrackerState.WORKING,
            next_at=1801,
            last_asked_at=0,
            last_at=1,
            num_seeds=3,
            num_leechers=4,
            num_downloaded=5,
            num_peers=3,
            num_found=3,
            message="take care",
        )
        failing = scene.status("b")
        assert failing.state is TrackerState.FAILING
        # Neither was said by a tracker.
        failures = [e for e in scene.torrent.reports if isinstance(e, events.TrackerFailed)]
        assert [(e.url, e.is_refusal) for e in failures] == [("b", False), ("c", False)]
        assert (failing.num_failures, failing.message) == (1, "no route")
        assert failing.next_at is not None
        assert 31 <= failing.next_at <= 61
        refused = scene.status("c")
        assert (refused.state, refused.next_at) == (TrackerState.REFUSED, None)
        assert refused.message == "never come back"
        assert scene.status("d") == TrackerStatus("d", 3, TrackerState.ANNOUNCING, last_asked_at=0)
        # An answer without counts does not forget the scrape's.
        scene.client.answers["a"] = AnnounceAnswer(num_seeds=1)
        await asyncio.sleep(1900)
        assert scene.status("a").num_downloaded == 5
        assert scene.status("a").message is None


@simulated
async def test_announce_now_respects_the_minimum_interval() -> None:
    scene = Scene("a")
    async with scene:
        await asyncio.sleep(10)
        scene.announcer.announce_now()
        scene.announcer.announce_now()
        await asyncio.sleep(1000)
        assert scene.client.heard == [(0, "a", Event.STARTED), (301, "a", Event.NONE)]


@simulated
async def test_time_that_was_missed_counts(loop: VirtualLoop) -> None:
    scene = Scene("a")
    async with scene:
        await asyncio.sleep(100)
        scene.announcer.missed(150)
        await asyncio.sleep(100)
        assert scene.client.heard == [(0, "a", Event.STARTED), (151, "a", Event.NONE)]


@simulated
async def test_a_dead_tracker_does_not_hold_up_the_others() -> None:
    scene = Scene("d a", announce_to_all_tiers=True)
    scene.client.answers["d"] = 1e6
    async with scene:
        await asyncio.sleep(5)
        assert scene.torrent.peers == [PEERS[0]]
        assert scene.status("a").state is TrackerState.WORKING


@simulated
async def test_stopping_takes_five_seconds_at_most(loop: VirtualLoop) -> None:
    """Limit: F19."""
    scene = Scene("a b c", announce_to_all_tiers=True)
    async with scene:
        await asyncio.sleep(2)
        scene.client.answers |= {"b": 1e6, "c": TrackerFailure("no")}
        begun = loop.time()
        await scene.announcer.stop()
        assert loop.time() == begun + 5
        assert {e for _, e in scene.events()[3:]} == {Event.STOPPED}
        assert {u for u, _ in scene.events()[3:]} == {"a", "b", "c"}
        await scene.announcer.stop()
        assert loop.time() == begun + 5
    assert len(scene.events()) == 6


@simulated
async def test_stopping_during_an_announce_drops_it(loop: VirtualLoop) -> None:
    scene = Scene("a")
    async with scene:
        await asyncio.sleep(0.5)
        await scene.announcer.stop(timeout=2)
        assert scene.events() == [("a", Event.STARTED), ("a", Event.STOPPED)]
        assert loop.time() == 1.5
    assert scene.torrent.peers == []
    assert scene.torrent.reports == [events.TrackerAsked("a", "started")]


@simulated
async def test_stopping_before_the_start_is_quiet(loop: VirtualLoop) -> None:
    scene = Scene("a")
    await scene.announcer.stop()
    scene.announcer.completed()
    assert scene.events() == []
    assert loop.time() == 0


@simulated
async def test_an_announce_that_begins_after_the_end_asks_nobody() -> None:
    """Nor is who knows nothing of us told that we leave."""
    scene = Scene("a")
    scene.announcer.start()
    await scene.announcer.stop()
    await asyncio.sleep(1)
    assert scene.events() == []
    scene.announcer.announce_failed(
        AnnounceDecision("a", Event.STARTED), TrackerUnreachable("late")
    )
    assert scene.torrent.reports == []


@simulated
async def test_trackers_can_be_replaced() -> None:
    scene = Scene("a")
    async with scene:
        await asyncio.sleep(2)
        scene.announcer.set_tiers([["b"], ["a"]])
        scene.announcer.announce_now()
        await asyncio.sleep(2)
        assert scene.events() == [("a", Event.STARTED), ("b", Event.STARTED)]
        assert scene.status("a").num_peers == 3
        scene.announcer.set_tiers([["c"]])
        assert [status.url for status in scene.announcer.trackers()] == ["c"]
        await asyncio.sleep(2)
        assert scene.events()[1] == ("b", Event.STARTED)
        assert set(scene.events()[2:]) == {
            ("a", Event.STOPPED),
            ("b", Event.STOPPED),
            ("c", Event.STARTED),
        }


@simulated
async def test_a_tracker_that_is_taken_away_hears_of_it_in_its_turn() -> None:
    """After what it is being told; nothing if it was not asked yet, or has come back."""
    scene = Scene("a")
    async with scene:
        await asyncio.sleep(0.5)
        scene.announcer.set_tiers([["b"], ["x"]])
        assert scene.events() == [("a", Event.STARTED)]
        await asyncio.sleep(0.2)
        assert scene.events() == [("a", Event.STARTED), ("b", Event.STARTED)]
        await asyncio.sleep(0.8)
        assert scene.events()[2:] == [("a", Event.STOPPED)]
        assert scene.client.requests[-1].numwant == 0
        scene.client.answers["c"] = TrackerUnreachable("gone")
        scene.announcer.set_tiers([["c"]])
        scene.announcer.set_tiers([["b"]])
        await asyncio.sleep(3)
        assert scene.events()[3:] == [("b", Event.STARTED)]


@pytest.mark.parametrize("wait", [0.2, 5.0])
@simulated
async def test_a_tracker_that_came_back_while_it_was_asked_hears_of_the_end(wait: float) -> None:
    scene = Scene("a")
    async with scene:
        await asyncio.sleep(0.5)
        scene.announcer.set_tiers([["b"]])
        scene.announcer.set_tiers([["a"]])
        await asyncio.sleep(wait)
        await scene.announcer.stop()
        assert [event for url, event in scene.events() if url == "a"] == [
            Event.STARTED,
            Event.STOPPED,
        ]
        await asyncio.sleep(3)


@simulated
async def test_a_torrent_without_trackers_waits() -> None:
    scene = Scene("")
    async with scene:
        scene.announcer.completed()
        await asyncio.sleep(1)
        assert await scene.announcer.scrape() == {}
        scene.announcer.set_tiers([["a"]])
        await asyncio.sleep(1)
        assert scene.events() == [("a", Event.STARTED)]


@simulated
async def test_scrape(loop: VirtualLoop) -> None:
    scene = Scene("abc d")
    small, large = ScrapeEntry(1, 2, 3), ScrapeEntry(4, None, 6)
    scene.client.counts = {
        "a": {HASH: small, OTHER: large},
        "b": TrackerUnreachable("no"),
        "c": {},
        "d": {OTHER: small},
    }
    async with scene:
        begun = loop.time()
        assert await scene.announcer.scrape() == {"a": large, "d": small}
        assert loop.time() == begun + 1
        assert scene.status("d").num_downloaded == 2


@simulated
async def test_many_torrents_with_dead_trackers_stop_in_time(loop: VirtualLoop) -> None:
    """Limit: F19."""
    scenes = [Scene("a") for _ in range(100)]
    for scene in scenes:
        scene.announcer.start()
    await asyncio.sleep(2)
    for scene in scenes:
        scene.client.answers["a"] = 1e6
    begun = loop.time()
    await asyncio.gather(*(scene.announcer.stop() for scene in scenes))
    assert loop.time() == begun + 5


@simulated
async def test_who_stands_in_line_leaves_without_a_goodbye(loop: VirtualLoop) -> None:
    scenes = [Scene("a") for _ in range(MAX_PER_TRACKER + 1)]
    for scene in scenes:
        scene.announcer._announces = scenes[0].announcer._announces
        scene.client.answers["a"] = 1e6
        scene.announcer.start()
    await asyncio.sleep(1)
    await asyncio.gather(*(scene.announcer.stop() for scene in scenes))
    assert [scene.events() for scene in scenes[:-1]] == [
        [("a", Event.STARTED), ("a", Event.STOPPED)]
    ] * MAX_PER_TRACKER
    assert scenes[-1].events() == []


@pytest.mark.parametrize("wait", [0, 0.5])
@simulated
async def test_who_completes_and_leaves_at_once_says_both(wait: float) -> None:
    """A tracker counts downloads by ``completed``; it must not be lost in the hurry."""
    scene = Scene("a b")
    async with scene:
        await asyncio.sleep(2)
        scene.torrent.left = 0
        scene.announcer.completed()
        await asyncio.sleep(wait)
        await scene.announcer.stop()
        assert scene.events() == [
            ("a", Event.STARTED),
            ("a", Event.COMPLETED),
            ("a", Event.STOPPED),
        ]


@simulated
async def test_a_tracker_that_has_died_does_not_hold_up_the_completion(loop: VirtualLoop) -> None:
    """Limit: F19."""
    scene = Scene("a")
    async with scene:
        await asyncio.sleep(2)
        scene.client.answers["a"] = 3600.0
        scene.announcer.completed()
        await asyncio.sleep(1)
        begun = loop.time()
        await scene.announcer.stop(timeout=5)
        assert loop.time() == begun + 5
        await asyncio.sleep(0.1)


@simulated
async def test_a_tracker_that_is_silent_for_long_lets_the_next_one_in() -> None:
    """Both hear of the end; the silent one held up the other for half a minute."""
    scene = Scene("d a")
    scene.client.answers["d"] = 35.0
    async with scene:
        await asyncio.sleep(PATIENCE + 2)
        assert scene.torrent.peers == [PEERS[0]]
        assert (scene.status("d").state, scene.status("a").state) == (
            TrackerState.ANNOUNCING,
            TrackerState.WORKING,
        )
        await asyncio.sleep(5)
    assert scene.client.heard[:2] == [(0, "d", Event.STARTED), (PATIENCE, "a", Event.STARTED)]
    assert set(scene.events()[2:]) == {("d", Event.STOPPED), ("a", Event.STOPPED)}


@simulated
async def test_who_answers_late_is_heard() -> None:
    scene = Scene("d a")
    late = Endpoint("203.0.113.7", 7)

    class Slow(FakeClient):
        async def announce(self, url: str, *args: object, **options: object) -> AnnounceAnswer:
            if url == "d":
                await asyncio.sleep(20)
            return await super().announce(url, *args, **options)  # type: ignore[arg-type]

    scene.announcer._client = scene.client = Slow()
    scene.client.answers["d"] = AnnounceAnswer(peers=(late,), interval=600)
    async with scene:
        await asyncio.sleep(22)
        assert scene.torrent.peers == [PEERS[0], late]
        assert scene.status("d").state is TrackerState.WORKING
        assert scene.status("d").next_at == 21 + 600
        assert scene.status("a").next_at is None
        await asyncio.sleep(3000)
        assert [event for url, event in scene.events() if url == "a"] == [Event.STARTED]


@simulated
async def test_the_trackers_of_a_private_torrent_are_asked_one_after_the_other() -> None:
    """BEP 27. A magnet link may turn out to be of one while the first is being asked."""
    scene = Scene("d a")
    scene.client.answers["d"] = 35.0
    async with scene:
        await asyncio.sleep(1)
        scene.torrent.is_private = True
        await asyncio.sleep(33)
        assert scene.events() == [("d", Event.STARTED)]
        await asyncio.sleep(2)
        assert scene.events() == [("d", Event.STARTED), ("a", Event.STARTED)]


@simulated
async def test_who_stands_in_line_at_a_dead_tracker_turns_to_the_next_in_seconds() -> None:
    scenes = [Scene("d a") for _ in range(2 * MAX_PER_TRACKER)]
    for scene in scenes:
        scene.announcer._announces = scenes[0].announcer._announces
        scene.client.answers["d"] = 35.0
        scene.announcer.start()
    await asyncio.sleep(PATIENCE + 3)  # the second is asked by ten at a time as well
    assert all(scene.torrent.peers for scene in scenes)
    await asyncio.sleep(40)
    failures = [e for e in scenes[-1].torrent.reports if isinstance(e, events.TrackerFailed)]
    assert [e.url for e in failures] == ["d"], "it was sent home"
    await asyncio.gather(*(scene.announcer.stop() for scene in scenes))
    assert ("d", Event.STOPPED) not in scenes[-1].events()


@simulated
async def test_who_waits_for_a_busy_tracker_does_not_turn_to_the_next() -> None:
    """Limit: F11. Thousands of torrents would come to it from one that only has much to do."""
    scenes = [Scene("a b") for _ in range(10 * MAX_PER_TRACKER)]
    for scene in scenes:
        scene.announcer._announces = scenes[0].announcer._announces
        scene.announcer.start()
    await asyncio.sleep(20)
    assert [scene.events() for scene in scenes] == [[("a", Event.STARTED)]] * len(scenes)
    await asyncio.gather(*(scene.announcer.stop() for scene in scenes))


@pytest.mark.parametrize("knows_us", [False, True])
@simulated
async def test_who_is_taken_away_while_its_announce_stands_in_line_is_not_asked(
    knows_us: bool,
) -> None:
    """It heard of our start although it had been taken away, and then of our end."""
    scenes = [Scene("a") for _ in range(MAX_PER_TRACKER + 1)]
    last = scenes[-1]
    for scene in scenes:
        scene.announcer._announces = scenes[0].announcer._announces
    if knows_us:
        last.announcer.start()
        await asyncio.sleep(1790)
    for scene in scenes[:-1]:
        scene.announcer.start()
        scene.client.answers["a"] = 30.0
    if not knows_us:
        last.announcer.start()
    await asyncio.sleep(15)
    last.announcer.set_tiers([["b"]])
    await asyncio.sleep(100)
    assert last.events() == [
        *([("a", Event.STARTED)] * knows_us),
        ("b", Event.STARTED),
        *([("a", Event.STOPPED)] * knows_us),
    ]
    await asyncio.gather(*(scene.announcer.stop() for scene in scenes))


@simulated
async def test_who_comes_back_before_its_turn_has_kept_its_place() -> None:
    scenes = [Scene("a") for _ in range(MAX_PER_TRACKER + 1)]
    for scene in scenes:
        scene.announcer._announces = scenes[0].announcer._announces
        scene.client.answers["a"] = AnnounceAnswer(interval=600)
        scene.announcer.start()
    last = scenes[-1]
    last.announcer.set_tiers([])
    last.announcer.set_tiers([["a"]])
    await asyncio.sleep(100)
    assert last.events() == [("a", Event.STARTED)]
    await asyncio.gather(*(scene.announcer.stop() for scene in scenes))


@simulated
async def test_who_has_been_silent_for_long_is_not_waited_for_at_the_end(loop: VirtualLoop) -> None:
    """Each download that was over before such a tracker was given up ended five seconds later."""
    scene = Scene("d a")
    scene.client.answers["d"] = 1e6
    async with scene:
        await asyncio.sleep(PATIENCE + 2)
        scene.client.answers["a"] = 2.0
        begun = loop.time()
        await scene.announcer.stop()
        assert loop.time() == begun + 2, "the other one is waited for, and d for a second"
    assert set(scene.events()[2:]) == {("d", Event.STOPPED), ("a", Event.STOPPED)}


@simulated
async def test_who_has_just_been_asked_has_its_time_at_the_end(loop: VirtualLoop) -> None:
    scene = Scene("d a")
    scene.client.answers["d"] = 1e6
    async with scene:
        await asyncio.sleep(PATIENCE - 1)
        begun = loop.time()
        await scene.announcer.stop()
        assert loop.time() == begun + 5
