"""policy.announcing: tiers, events and times of announces (BEP 3, 12, 31)."""

import math
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bittern.core.announce import AnnounceAnswer, Event
from bittern.core.errors import MisuseError
from bittern.policy.announcing import (
    MAX_UNDER_WAY,
    PATIENCE,
    AnnounceDecision,
    AnnounceScheduler,
    TrackerState,
)

ANSWER = AnnounceAnswer(interval=1800, min_interval=300)
STARTED, COMPLETED, NONE = Event.STARTED, Event.COMPLETED, Event.NONE
STOPPED = Event.STOPPED


class Unshuffled(random.Random):
    """Leaves tiers in order and always waits the longest."""

    def shuffle(self, x: object) -> None:
        pass

    def uniform(self, a: float, b: float) -> float:
        return b


def make(tiers: str, *, all_tiers: bool = False, started: bool = True) -> AnnounceScheduler:
    """Draw tiers as ``"ab c"``: a and b share the first, c is the second."""
    drawn = [list(tier) for tier in tiers.split()]
    scheduler = AnnounceScheduler(drawn, Unshuffled(), announce_to_all_tiers=all_tiers)
    if started:
        scheduler.start(now=0)
    return scheduler


def due(scheduler: AnnounceScheduler, now: float) -> list[tuple[str, Event]]:
    """Return what is due, of which each leaves at once."""
    decisions = scheduler.due(now=now)
    for decision in decisions:
        assert scheduler.asked(decision.url, now=now)
    return [(decision.url, decision.event) for decision in decisions]


def order(scheduler: AnnounceScheduler) -> str:
    tiers: dict[int, str] = {}
    for tracker in scheduler.trackers():
        tiers[tracker.tier] = tiers.get(tracker.tier, "") + tracker.url
    return " ".join(tiers[number] for number in sorted(tiers))


def test_nothing_is_due_before_the_start() -> None:
    scheduler = make("a", started=False)
    assert due(scheduler, 10) == []
    assert scheduler.next_timer() is None
    assert scheduler.stop() == []
    assert scheduler.trackers()[0].next_at is None


def test_a_completion_that_nobody_has_heard_of_is_said_before_the_goodbye() -> None:
    scheduler = make("ab")
    due(scheduler, 0)
    scheduler.succeeded("a", ANSWER, now=1)
    scheduler.complete(now=2)
    assert due(scheduler, 2) == [("a", COMPLETED)]  # under way, and dropped by the stop
    assert scheduler.stop() == [
        AnnounceDecision("a", COMPLETED),
        AnnounceDecision("a", STOPPED),
    ]


def test_a_torrent_without_trackers_is_quiet() -> None:
    for scheduler in (make(""), make("", all_tiers=True)):
        assert due(scheduler, 0) == []
        assert scheduler.next_timer() is None
        scheduler.complete(now=1)
        assert scheduler.stop() == []
        assert repr(scheduler) == "<AnnounceScheduler no trackers>"


def test_started_then_at_intervals() -> None:
    scheduler = make("a")
    assert due(scheduler, 0) == [("a", STARTED)]
    assert repr(scheduler) == "<AnnounceScheduler announcing>"
    assert due(scheduler, 1) == []
    assert scheduler.next_timer() is None
    scheduler.succeeded("a", ANSWER, now=2)
    assert scheduler.next_timer() == 1802
    assert due(scheduler, 1801.9) == []
    assert due(scheduler, 1802) == [("a", NONE)]


def test_backups_are_tried_in_order_on_each_announce() -> None:
    """BEP 12, first example."""
    scheduler = make("a b c")
    for now in (0, 1810):
        assert due(scheduler, now) == [("a", STARTED)]
        scheduler.failed("a", now=now + 1)
        [(url, _)] = due(scheduler, now + 1)
        assert url == "b"
        scheduler.succeeded("b", ANSWER, now=now + 2)
        assert order(scheduler) == "a b c"


def test_who_answers_moves_to_the_front_of_its_tier() -> None:
    """BEP 12, second example."""
    scheduler = make("123")
    due(scheduler, 0)
    scheduler.failed("1", now=1)
    assert due(scheduler, 1) == [("2", STARTED)]
    scheduler.succeeded("2", ANSWER, now=2)
    assert order(scheduler) == "213"
    assert due(scheduler, 2000) == [("2", NONE)]
    scheduler.failed("2", now=2001)
    assert due(scheduler, 2001) == [("1", STARTED)]
    scheduler.failed("1", now=2002)
    assert due(scheduler, 2002) == [("3", STARTED)]
    scheduler.succeeded("3", ANSWER, now=2003)
    assert order(scheduler) == "321"


def test_all_of_a_tier_are_tried_before_the_next() -> None:
    """BEP 12, third example."""
    scheduler = make("12 b")
    tried = ""
    for now in range(3):
        [(url, _)] = due(scheduler, now)
        tried += url
        scheduler.failed(url, now=now)
    assert tried == "12b"
    assert due(scheduler, 3) == []


def test_tiers_are_shuffled_once_and_apart() -> None:
    seen = {order(AnnounceScheduler(["abc", "xy"], random.Random(seed))) for seed in range(200)}
    assert seen == {
        f"{first} {second}"
        for first in ("abc", "acb", "bac", "bca", "cab", "cba")
        for second in ("xy", "yx")
    }


def test_every_tier_is_walked_alone_when_asked() -> None:
    scheduler = make("ab c", all_tiers=True)
    assert due(scheduler, 0) == [("a", STARTED), ("c", STARTED)]
    scheduler.failed("a", now=1)
    scheduler.succeeded("c", ANSWER, now=1)
    assert due(scheduler, 1) == [("b", STARTED)]
    scheduler.succeeded("b", ANSWER, now=2)
    assert order(scheduler) == "ba c"
    assert scheduler.next_timer() == 1801


def test_equal_urls_count_once() -> None:
    scheduler = AnnounceScheduler([["a", "a"], ["a"], [], ["b"]], Unshuffled())
    assert order(scheduler) == "a b"


def test_failures_rest_twice_as_long_each_time() -> None:
    """Limit: F11, 30 s to 60 min."""
    scheduler = make("a")
    rests = []
    now = 0.0
    for _ in range(9):
        assert due(scheduler, now) == [("a", STARTED)]
        scheduler.failed("a", now=now)
        assert due(scheduler, now) == []
        at = scheduler.next_timer()
        assert at is not None
        rests.append(at - now)
        now = at
    assert rests == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_of_several_that_failed_the_first_that_may_be_asked_again_is_waited_for() -> None:
    scheduler = make("a b")
    due(scheduler, 0)
    scheduler.failed("a", now=0)
    assert due(scheduler, 0) == [("b", STARTED)]
    scheduler.failed("b", now=20)
    assert due(scheduler, 20) == []
    assert scheduler.next_timer() == 60


def test_rests_are_spread() -> None:
    for num_failures, low, high in ((1, 30, 60), (2, 60, 120), (20, 1800, 3600)):
        rests = []
        for seed in range(50):
            scheduler = AnnounceScheduler([["a"]], random.Random(seed))
            scheduler.start(now=0)
            now = 0.0
            for _ in range(num_failures):
                scheduler.due(now=now)
                scheduler.failed("a", now=now)
                scheduler.due(now=now)
                before, now = now, scheduler.next_timer() or 0
            rests.append(now - before)
        assert low <= min(rests) < low * 1.2
        assert high * 0.9 < max(rests) <= high


@pytest.mark.parametrize(("retry_after", "rest"), [(0, 30), (300, 300), (7200, 7200)])
def test_retry_in_is_taken_at_its_word(retry_after: float, rest: float) -> None:
    scheduler = make("a")
    due(scheduler, 0)
    scheduler.failed("a", now=0, retry_after=retry_after)
    assert due(scheduler, rest - 0.1) == []
    assert scheduler.next_timer() == rest
    assert due(scheduler, rest) == [("a", STARTED)]


def test_never_is_never_until_started_anew() -> None:
    scheduler = make("a b")
    due(scheduler, 0)
    scheduler.failed("a", now=0, retry_after=math.inf)
    assert due(scheduler, 0) == [("b", STARTED)]
    scheduler.failed("b", now=0, retry_after=math.inf)
    scheduler.request(now=1)
    scheduler.complete(now=1)
    assert due(scheduler, 10**9) == []
    assert scheduler.next_timer() is None
    assert [tracker.state for tracker in scheduler.trackers()] == [TrackerState.REFUSED] * 2
    assert scheduler.stop() == []
    scheduler.start(now=10)
    assert due(scheduler, 10) == [("a", STARTED)]


def test_a_tracker_that_knows_us_and_wants_no_more_is_left_in_peace() -> None:
    scheduler = make("a")
    due(scheduler, 0)
    scheduler.succeeded("a", ANSWER, now=0)
    due(scheduler, 1800)
    scheduler.failed("a", now=1800, retry_after=math.inf)
    assert scheduler.trackers()[0].next_at is None
    assert scheduler.stop() == []


def test_requests_wait_for_the_minimum_interval() -> None:
    scheduler = make("a b")
    due(scheduler, 0)
    scheduler.succeeded("a", ANSWER, now=0)
    scheduler.request(now=10)
    assert due(scheduler, 10) == []  # and b is not asked instead
    assert scheduler.next_timer() == 300
    assert due(scheduler, 300) == [("a", NONE)]


def test_regular_announces_keep_their_distance() -> None:
    """Limit: F11, one in 60 s although the tracker would allow more."""
    scheduler = make("a")
    due(scheduler, 0)
    scheduler.succeeded("a", AnnounceAnswer(interval=60, min_interval=1), now=0)
    scheduler.request(now=2)
    assert due(scheduler, 59.9) == []
    assert due(scheduler, 60) == [("a", NONE)]
    scheduler.failed("a", now=60, retry_after=30)
    assert due(scheduler, 90) == []
    assert scheduler.next_timer() == 120


def test_completed_waits_for_nothing_and_is_said_once() -> None:
    scheduler = make("a")
    due(scheduler, 0)
    scheduler.succeeded("a", ANSWER, now=0)
    scheduler.complete(now=5)
    assert scheduler.next_timer() == 5
    assert due(scheduler, 5) == [("a", COMPLETED)]
    scheduler.succeeded("a", ANSWER, now=6)
    assert scheduler.next_timer() == 1806
    assert due(scheduler, 1806) == [("a", NONE)]


def test_completed_is_repeated_until_it_is_heard() -> None:
    scheduler = make("a")
    due(scheduler, 0)
    scheduler.succeeded("a", ANSWER, now=0)
    scheduler.complete(now=5)
    assert due(scheduler, 5) == [("a", COMPLETED)]
    scheduler.failed("a", now=6)
    assert due(scheduler, 6) == []
    assert due(scheduler, 66) == [("a", COMPLETED)]


@pytest.mark.parametrize("first", [STARTED, NONE])
def test_completion_during_an_announce_follows_it(first: Event) -> None:
    scheduler = make("a")
    due(scheduler, 0)
    now = 0
    if first is NONE:
        scheduler.succeeded("a", ANSWER, now=0)
        now = 1800
        due(scheduler, now)
    scheduler.complete(now=now + 1)
    assert due(scheduler, now + 1) == []
    scheduler.succeeded("a", ANSWER, now=now + 2)
    assert due(scheduler, now + 2) == [("a", COMPLETED)]


def test_who_never_heard_of_us_hears_started_not_completed() -> None:
    scheduler = make("a")
    due(scheduler, 0)
    scheduler.complete(now=1)
    scheduler.failed("a", now=2)
    assert due(scheduler, 100) == [("a", STARTED)]
    scheduler.succeeded("a", ANSWER, now=101)
    assert due(scheduler, 101) == []


def test_completed_goes_to_the_tracker_that_counted_us() -> None:
    scheduler = make("a b")
    due(scheduler, 0)
    scheduler.failed("a", now=0)
    due(scheduler, 0)
    scheduler.succeeded("b", ANSWER, now=0)
    scheduler.set_tiers([["a"], ["b"]], now=400)
    scheduler.complete(now=500)
    assert due(scheduler, 500) == [("b", COMPLETED)]


def test_time_that_was_missed_counts() -> None:
    """We slept, and the minimum interval is over."""
    scheduler = make("a")
    due(scheduler, 0)
    scheduler.succeeded("a", ANSWER, now=0)
    scheduler.missed(0, now=10)
    assert due(scheduler, 10) == []
    scheduler.missed(250, now=20)
    assert due(scheduler, 49) == []
    assert due(scheduler, 50) == [("a", NONE)]
    assert scheduler.trackers()[0].state is TrackerState.ANNOUNCING


def test_what_failed_without_a_network_is_soon_tried_again() -> None:
    """Not so one that has said itself when."""
    scheduler = make("a b c", all_tiers=True)
    due(scheduler, 0)
    scheduler.failed("b", now=0, retry_after=86_400)
    scheduler.failed("c", now=0, retry_after=math.inf)
    now = 0.0
    for _ in range(8):
        scheduler.failed("a", now=now)
        assert due(scheduler, now) == []  # it rests
        later = scheduler.trackers()[0].next_at
        assert later is not None
        now = later
        assert due(scheduler, now) == [("a", STARTED)]
    scheduler.failed("a", now=now)
    scheduler.missed(0, now=now + 1)
    assert due(scheduler, now + 59) == []
    assert due(scheduler, now + 60) == [("a", STARTED)]
    scheduler.missed(86_400, now=now + 61)
    assert due(scheduler, now + 61) == [("b", STARTED)]


def test_stopped_goes_to_all_that_may_know_us() -> None:
    scheduler = make("a b c")
    due(scheduler, 0)
    scheduler.succeeded("a", ANSWER, now=0)
    due(scheduler, 1800)
    scheduler.failed("a", now=1800)
    assert due(scheduler, 1800) == [("b", STARTED)]
    assert scheduler.stop() == [
        AnnounceDecision("a", Event.STOPPED),
        AnnounceDecision("b", Event.STOPPED),
    ]
    scheduler.succeeded("b", ANSWER, now=1801)
    scheduler.failed("b", now=1801)
    assert due(scheduler, 5000) == []
    assert scheduler.next_timer() is None
    assert scheduler.stop() == []


def test_who_is_taken_away_and_may_know_us_is_to_be_told() -> None:
    scheduler = make("a b c d")
    due(scheduler, 0)
    scheduler.failed("a", now=0, retry_after=math.inf)
    due(scheduler, 0)
    scheduler.failed("b", now=0)
    due(scheduler, 0)
    scheduler.succeeded("c", ANSWER, now=0)
    assert scheduler.set_tiers([["e"]], now=1900) == [AnnounceDecision("c", Event.STOPPED)]
    assert due(scheduler, 1900) == [("e", STARTED)]
    assert scheduler.set_tiers([["e"], ["f"]], now=1900) == []
    assert scheduler.set_tiers([], now=1900) == [AnnounceDecision("e", Event.STOPPED)]
    assert make("a", started=False).set_tiers([], now=0) == []


def test_states_for_display() -> None:
    scheduler = make("abc")
    due(scheduler, 0)
    scheduler.failed("a", now=0)
    due(scheduler, 0)
    scheduler.succeeded("b", ANSWER, now=0)
    view = {tracker.url: tracker for tracker in scheduler.trackers()}
    assert (view["a"].state, view["a"].next_at) == (TrackerState.FAILING, 60)
    assert view["a"].num_failures == 1
    assert (view["b"].state, view["b"].next_at) == (TrackerState.WORKING, 1800)
    assert (view["c"].state, view["c"].next_at) == (TrackerState.UNTRIED, None)
    due(scheduler, 1800)
    assert scheduler.trackers()[0].state is TrackerState.ANNOUNCING
    assert scheduler.trackers()[0].next_at is None
    scheduler.failed("b", now=1800)
    assert due(scheduler, 1800) == [("a", STARTED)]
    view = {tracker.url: tracker for tracker in scheduler.trackers()}
    assert (view["b"].state, view["b"].next_at) == (TrackerState.FAILING, 1860)
    scheduler.stop()
    assert {tracker.next_at for tracker in scheduler.trackers()} == {None}


def test_trackers_can_be_replaced() -> None:
    scheduler = make("a b")
    due(scheduler, 0)
    scheduler.succeeded("a", ANSWER, now=0)
    scheduler.set_tiers([["x"], ["a"]], now=5)
    assert order(scheduler) == "x a"
    assert scheduler.next_timer() == 1800  # a goes on as it was
    scheduler.request(now=6)
    assert due(scheduler, 6) == [("x", STARTED)]
    scheduler.set_tiers([["y"], ["x"]], now=7)
    assert due(scheduler, 7) == []  # x is still under way
    scheduler.succeeded("x", ANSWER, now=8)
    assert scheduler.next_timer() == 1808
    scheduler.set_tiers([["z"]], now=9)
    scheduler.failed("x", now=9)
    scheduler.succeeded("a", ANSWER, now=9)
    assert due(scheduler, 9) == [("z", STARTED)]


def test_who_answers_stays_in_front_when_trackers_are_added() -> None:
    scheduler = make("ab")
    due(scheduler, 0)
    scheduler.succeeded("a", ANSWER, now=0)
    scheduler.set_tiers([["c", "b", "a"]], now=5)
    assert order(scheduler) == "acb"
    assert due(scheduler, 1800) == [("a", NONE)]
    scheduler.failed("a", now=1800)
    due(scheduler, 1800)
    scheduler.succeeded("c", ANSWER, now=1800)
    scheduler.set_tiers([["a", "b", "c"]], now=1801)
    assert order(scheduler) == "cab", "a has failed since"


def test_a_result_nobody_waits_for_is_a_bug() -> None:
    scheduler = make("a")
    with pytest.raises(MisuseError, match="no announce under way to a"):
        scheduler.succeeded("a", ANSWER, now=0)


def test_a_tracker_taken_out_and_put_back_starts_anew() -> None:
    scheduler = make("ab")
    due(scheduler, 0)
    scheduler.succeeded("a", ANSWER, now=0)
    scheduler.set_tiers([["b"]], now=1)
    scheduler.set_tiers([["a"], ["b"]], now=2)
    assert due(scheduler, 2) == [("a", STARTED)]


def test_the_answer_of_a_tracker_taken_out_and_put_back_while_it_is_asked_counts() -> None:
    """It was asked a second time, and its second answer raised an error."""
    scheduler = make("ab")
    due(scheduler, 0)
    scheduler.set_tiers([["b"]], now=1)
    assert due(scheduler, 1) == [("b", STARTED)]
    scheduler.failed("b", now=1)
    scheduler.set_tiers([["a"], ["b"]], now=2)
    assert due(scheduler, 2) == []
    scheduler.succeeded("a", ANSWER, now=3)
    assert scheduler.next_timer() == 1803
    # A download that finishes while it is out is told as well.
    scheduler.request(now=304)
    assert due(scheduler, 304) == [("a", NONE)]
    scheduler.set_tiers([], now=305)
    scheduler.complete(now=306)
    scheduler.set_tiers([["a"], ["b"]], now=307)
    scheduler.succeeded("a", ANSWER, now=308)
    assert due(scheduler, 308) == [("a", COMPLETED)]
    scheduler.succeeded("a", ANSWER, now=309)
    # An answer that comes while it is out does not count.
    scheduler.request(now=700)
    assert due(scheduler, 700) == [("a", NONE)]
    assert scheduler.set_tiers([["b"]], now=701) == [AnnounceDecision("a", STOPPED)]
    assert scheduler.set_tiers([["b"], ["c"]], now=701) == [], "it is being told"
    scheduler.succeeded("a", ANSWER, now=702)
    scheduler.set_tiers([["a"], ["b"]], now=703)
    assert due(scheduler, 703) == [("a", STARTED)]


def test_announces_under_way_survive_a_new_order_of_tiers() -> None:
    scheduler = make("a b", all_tiers=True)
    assert due(scheduler, 0) == [("a", STARTED), ("b", STARTED)]
    scheduler.set_tiers([["a", "b"]], now=1)
    scheduler.failed("a", now=1)
    assert due(scheduler, 1) == []  # b is still under way in what is one walk now
    scheduler.succeeded("b", ANSWER, now=2)
    assert scheduler.next_timer() == 1802


@pytest.mark.parametrize("all_tiers", [False, True])
def test_of_two_announces_under_way_either_may_end_first(all_tiers: bool) -> None:
    """Where the later one did, the other tracker was asked once more, and its second answer was
    an error of ours."""
    scheduler = make("a b" if all_tiers else "a", all_tiers=all_tiers)
    due(scheduler, 0)
    if not all_tiers:
        scheduler.set_tiers([["b"]], now=1)
        assert due(scheduler, 1) == [("b", STARTED)]
    scheduler.set_tiers([["a", "b"]], now=2)
    scheduler.failed("b", now=3)
    assert due(scheduler, 3) == []
    assert scheduler.next_timer() == PATIENCE  # with a, which was asked at 0
    scheduler.succeeded("a", ANSWER, now=4)
    assert scheduler.next_timer() == 1804


# --- trackers that take their time ----------------------------------------------------------


def test_who_is_silent_for_long_lets_the_next_one_in() -> None:
    """BEP 12 asks them one after the other; that one is dead was certain after 35 s only."""
    scheduler = make("ab c")
    assert due(scheduler, 0) == [("a", STARTED)]
    assert scheduler.next_timer() == 5
    assert due(scheduler, 4.9) == []
    assert scheduler.slow(now=4.9) == set()
    assert due(scheduler, 5) == [("b", STARTED)]
    assert scheduler.slow(now=5) == {"a"}
    assert scheduler.next_timer() == 10
    assert due(scheduler, 10) == [("c", STARTED)]
    assert scheduler.next_timer() is None
    assert [tracker.state for tracker in scheduler.trackers()] == [TrackerState.ANNOUNCING] * 3
    scheduler.succeeded("c", ANSWER, now=11)
    for now in (35, 40):
        scheduler.failed("ab"[now == 40], now=now)
        assert due(scheduler, now) == []
        assert scheduler.next_timer() == 1811, "c works, and its interval is not over"


def test_a_failure_lets_the_next_one_in_beside_one_that_is_slow() -> None:
    scheduler = make("a b c")
    due(scheduler, 0)
    assert due(scheduler, 5) == [("b", STARTED)]
    scheduler.failed("b", now=6)
    assert due(scheduler, 6) == [("c", STARTED)]
    scheduler.failed("c", now=7)
    assert due(scheduler, 7) == []
    assert scheduler.next_timer() == 66, "b may be asked again"
    scheduler.failed("a", now=35)
    assert due(scheduler, 35) == []
    assert scheduler.next_timer() == 66


def test_a_late_answer_counts_and_the_lane_goes_by_the_first_that_works() -> None:
    scheduler = make("a b")
    due(scheduler, 0)
    due(scheduler, 5)
    scheduler.succeeded("b", ANSWER, now=6)
    assert scheduler.next_timer() == 1806
    scheduler.succeeded("a", AnnounceAnswer(interval=600, min_interval=60), now=20)
    assert order(scheduler) == "a b"
    assert scheduler.next_timer() == 620
    assert due(scheduler, 620) == [("a", NONE)]
    assert scheduler.next_timer() is None, "one that works has all its time"
    scheduler.failed("a", now=655)
    assert scheduler.trackers()[1].next_at == 655
    assert due(scheduler, 655) == [("b", NONE)]


def test_the_first_that_works_is_gone_by_although_a_later_one_answers_last() -> None:
    scheduler = make("a b")
    due(scheduler, 0)
    due(scheduler, 5)
    scheduler.succeeded("a", AnnounceAnswer(interval=600, min_interval=60), now=6)
    scheduler.request(now=6)
    assert due(scheduler, 6) == [], "b is being asked"
    scheduler.succeeded("b", ANSWER, now=7)
    assert due(scheduler, 7) == []
    assert scheduler.next_timer() == 66, "the request is not forgotten"
    assert due(scheduler, 66) == [("a", NONE)]


def test_of_one_tier_the_quick_one_stands_before_the_slow_one() -> None:
    scheduler = make("xab")
    due(scheduler, 0)
    scheduler.failed("x", now=0)
    assert due(scheduler, 0) == [("a", STARTED)]
    assert due(scheduler, 5) == [("b", STARTED)]
    scheduler.succeeded("b", ANSWER, now=6)
    scheduler.succeeded("a", ANSWER, now=7)
    assert order(scheduler) == "bax"
    assert scheduler.next_timer() == 1806
    alone = make("xab")
    due(alone, 0)
    alone.failed("x", now=0)
    due(alone, 0)
    alone.succeeded("a", ANSWER, now=6)
    assert order(alone) == "axb", "nobody was quicker"


def test_a_dead_tracker_in_front_delays_each_announce_by_moments_only() -> None:
    scheduler = make("a b")
    due(scheduler, 0)
    due(scheduler, 5)
    scheduler.succeeded("b", ANSWER, now=6)
    scheduler.failed("a", now=35)
    assert due(scheduler, 1806) == [("a", STARTED)]
    assert due(scheduler, 1811) == [("b", NONE)]
    scheduler.failed("a", now=1841)
    assert due(scheduler, 1841) == [], "b is being asked, and it works"
    scheduler.succeeded("b", ANSWER, now=1842)
    assert scheduler.next_timer() == 3642


def test_only_so_many_are_under_way_at_once() -> None:
    """Limit: F11. Of a hundred dead ones twelve a minute at most are asked, and six at a time."""
    names = [str(number) for number in range(100)]
    scheduler = AnnounceScheduler([[name] for name in names], Unshuffled())
    scheduler.start(now=0)
    asked: list[tuple[float, str]] = []
    ends: dict[float, str] = {}
    now, num_calls = 0.0, 0
    while now < 200:
        for url, _ in due(scheduler, now):
            asked.append((now, url))
            ends[now + 35] = url
        assert len(ends) <= MAX_UNDER_WAY
        timer = scheduler.next_timer()
        now = min(at for at in (timer, *ends) if at is not None)
        num_calls += 1
        if now in ends:
            scheduler.failed(ends.pop(now), now=now)
    assert [at for at, _ in asked[:7]] == [0, 5, 10, 15, 20, 25, 35]
    assert len(asked) <= 1 + 200 / PATIENCE
    assert num_calls < 3 * len(asked)


def test_in_a_private_torrent_only_a_failure_lets_the_next_one_in() -> None:
    """BEP 27: one at a time, and another only when it fails."""
    scheduler = make("a b")
    scheduler.is_patient = True
    due(scheduler, 0)
    assert scheduler.next_timer() is None
    assert due(scheduler, 30) == []
    scheduler.failed("a", now=35)
    assert due(scheduler, 35) == [("b", STARTED)]


def test_standing_in_line_is_not_silence_unless_the_line_stands_still() -> None:
    scheduler = make("a b")
    assert scheduler.due(now=0) == [AnnounceDecision("a", STARTED)]
    assert scheduler.next_timer() is None
    assert due(scheduler, 100) == []
    assert scheduler.asked("a", now=100)
    assert scheduler.next_timer() == 105
    scheduler.failed("a", now=101)
    assert due(scheduler, 101) == [("b", STARTED)]
    scheduler = make("a b")
    scheduler.due(now=0)
    scheduler.stalled("a", now=7)
    assert scheduler.next_timer() == 7
    assert due(scheduler, 7) == [("b", STARTED)]
    assert scheduler.asked("a", now=8)
    scheduler.failed("b", now=9)
    assert due(scheduler, 9) == []
    scheduler.succeeded("a", ANSWER, now=10)
    assert scheduler.next_timer() == 1810


def test_a_tracker_that_works_is_not_slow_whatever_its_line_does() -> None:
    scheduler = make("a b")
    due(scheduler, 0)
    scheduler.succeeded("a", ANSWER, now=0)
    scheduler.due(now=1800)
    scheduler.stalled("a", now=1807)
    scheduler.stalled("nobody", now=1807)
    assert due(scheduler, 1807) == []
    assert scheduler.next_timer() is None


def test_an_end_while_two_are_asked_is_told_to_both_that_were_asked() -> None:
    scheduler = make("a b c")
    due(scheduler, 0)
    due(scheduler, 5)
    assert scheduler.due(now=10) == [AnnounceDecision("c", STARTED)]
    assert scheduler.stop() == [AnnounceDecision(url, STOPPED) for url in "ab"], "c is in line"
    for url in "abc":
        scheduler.failed(url, now=11)
    assert not scheduler.asked("c", now=12)


def test_all_that_know_us_hear_that_the_download_finished() -> None:
    scheduler = make("a b c")
    due(scheduler, 0)
    due(scheduler, 5)
    scheduler.succeeded("b", ANSWER, now=6)
    scheduler.complete(now=7)
    assert due(scheduler, 7) == [("b", COMPLETED)]
    scheduler.succeeded("a", ANSWER, now=8)  # its "started" had said that something is left
    scheduler.succeeded("b", ANSWER, now=8)
    assert scheduler.next_timer() == 7
    assert due(scheduler, 8) == [("a", COMPLETED)]
    assert scheduler.stop() == [
        AnnounceDecision("a", COMPLETED),
        AnnounceDecision("a", STOPPED),
        AnnounceDecision("b", STOPPED),
    ]


def test_one_that_does_not_hear_of_the_completion_costs_the_others_nothing() -> None:
    scheduler = make("a b")
    due(scheduler, 0)
    due(scheduler, 5)
    scheduler.succeeded("b", ANSWER, now=6)
    scheduler.succeeded("a", ANSWER, now=6)
    scheduler.complete(now=7)
    assert due(scheduler, 7) == [("a", COMPLETED)]
    scheduler.succeeded("a", ANSWER, now=8)
    assert due(scheduler, 8) == [("b", COMPLETED)]
    scheduler.failed("b", now=43)
    assert due(scheduler, 43) == []
    assert scheduler.next_timer() == 1808, "neither before a's interval is over, nor for b alone"
    assert AnnounceDecision("b", COMPLETED) in scheduler.stop()


def test_trackers_replaced_while_two_are_asked() -> None:
    scheduler = make("a b")
    due(scheduler, 0)
    due(scheduler, 5)
    assert scheduler.set_tiers([["c"], ["b"]], now=6) == [AnnounceDecision("a", STOPPED)]
    assert due(scheduler, 6) == [], "b has its time"
    assert due(scheduler, 10) == [("c", STARTED)]
    scheduler.set_tiers([["a"], ["b"], ["c"]], now=11)
    assert due(scheduler, 14.9) == []
    scheduler.succeeded("a", ANSWER, now=12)  # it came back before it answered
    assert scheduler.next_timer() == 1812
    scheduler.failed("b", now=40)
    scheduler.failed("c", now=45)
    assert due(scheduler, 45) == []
    assert scheduler.next_timer() == 1812


def test_who_is_taken_away_while_it_stands_in_line_hears_nothing() -> None:
    scheduler = make("a b")
    scheduler.due(now=0)
    assert scheduler.set_tiers([["b"]], now=1) == []
    assert not scheduler.asked("a", now=2)
    scheduler.set_tiers([["a"], ["b"]], now=3)
    assert due(scheduler, 3) == [("a", STARTED)]
    # One that is put back before its turn has kept its place.
    scheduler = make("a b")
    scheduler.due(now=0)
    scheduler.set_tiers([["b"]], now=1)
    scheduler.set_tiers([["a"], ["b"]], now=1)
    assert due(scheduler, 1) == []
    assert scheduler.asked("a", now=2)
    scheduler.succeeded("a", ANSWER, now=3)
    assert scheduler.next_timer() == 1803


def test_time_that_was_missed_counts_as_silence() -> None:
    scheduler = make("a b")
    due(scheduler, 0)
    scheduler.missed(600, now=1)
    timer = scheduler.next_timer()
    assert timer is not None
    assert timer <= 1
    assert due(scheduler, 1) == [("b", STARTED)]


class Scheduling(RuleBasedStateMachine):
    """Random lives of a torrent against the rules as BEP 12 and F11 state them."""

    @initialize(
        tiers=st.lists(st.integers(1, 3), min_size=1, max_size=3),
        all_tiers=st.booleans(),
        is_patient=st.booleans(),
        seed=st.integers(0, 1000),
    )
    def begin(self, tiers: list[int], all_tiers: bool, is_patient: bool, seed: int) -> None:
        names = iter("abcdefghi")
        drawn = [[next(names) for _ in range(size)] for size in tiers]
        self.now = 0.0
        self.all_tiers = all_tiers
        self.scheduler = AnnounceScheduler(
            drawn, random.Random(seed), announce_to_all_tiers=all_tiers
        )
        self.scheduler.is_patient = is_patient
        self.scheduler.start(now=0.0)
        self.draw_lanes(drawn)
        self.under_way: dict[str, Event] = {}
        self.gone: dict[str, Event] = {}
        """Under way to trackers that were taken away."""
        self.in_line: set[str] = set()
        self.slow_at: dict[str, float] = {}
        self.last_at: dict[str, float] = {}
        self.allowed_at: dict[str, float] = {}
        self.next_at: dict[str, float] = {}
        """From when a regular announce needs no other reason than its interval."""
        self.resting: dict[str, float] = {}
        self.rests_until: dict[str, float] = {}
        self.is_ours: set[str] = set()
        """Who rests as long as we think fit."""
        self.num_failures: dict[str, int] = {}
        self.knows_us: set[str] = set()
        self.is_complete = False
        self.owes_completed: set[str] = set()
        self.num_completed: dict[str, int] = {}

    def draw_lanes(self, drawn: list[list[str]]) -> None:
        self.lane_of = {
            url: number if self.all_tiers else 0
            for number, tier in enumerate(drawn)
            for url in tier
        }

    def works(self, url: str) -> bool:
        return url in self.knows_us and url not in self.num_failures

    def may_know_us(self, url: str) -> bool:
        is_hearing = url in self.under_way and url not in self.in_line
        return (url in self.knows_us or is_hearing) and self.resting.get(url) != math.inf

    # --- time --------------------------------------------------------------------------------

    @rule(
        seconds=st.sampled_from([0.0, 1.0, 4.9, 5.0, 31.0, 61.0, 400.0, 2000.0, 90_000.0]),
        stand_in_line=st.booleans(),
    )
    def wait(self, seconds: float, stand_in_line: bool) -> None:
        self.now += seconds
        self.take_what_is_due(stand_in_line)

    @rule(stand_in_line=st.booleans())
    def wait_for_the_timer(self, stand_in_line: bool) -> None:
        timer = self.scheduler.next_timer()
        if timer is not None and timer > self.now:
            self.now = max(self.now, timer - 0.5)
            assert self.scheduler.due(now=self.now) == [], "nothing is due before"
            self.now = timer
        self.take_what_is_due(stand_in_line)

    def take_what_is_due(self, stand_in_line: bool) -> None:
        before = [tracker.url for tracker in self.scheduler.trackers()]
        for decision in self.scheduler.due(now=self.now):
            url, event = decision.url, decision.event
            self.check(url, event, before)
            self.under_way[url] = event
            self.last_at[url] = self.now
            self.in_line.add(url)
            self.slow_at[url] = math.inf
            if event is STARTED:
                self.owes_completed.discard(url)
            if not stand_in_line:
                self.leave(url)
        timer = self.scheduler.next_timer()
        assert timer is None or timer > self.now, "or it would be called over and over"
        for lane in set(self.lane_of.values()):
            urls = [url for url in self.lane_of if self.lane_of[url] == lane]
            if not any(self.works(url) for url in urls) and self.is_free(lane):
                assert all(
                    url in self.under_way or self.rests_until.get(url, -math.inf) > self.now
                    for url in urls
                    if url not in self.knows_us
                ), "it would hear only later that we have started"

    def leave(self, url: str) -> None:
        assert self.scheduler.asked(url, now=self.now) is (url in self.under_way)
        self.in_line.discard(url)
        if self.gone.pop(url, None) is not None:
            self.forget(url)
        elif not self.works(url):
            self.slow_at[url] = min(self.slow_at[url], self.now + PATIENCE)

    def is_free(self, lane: int) -> bool:
        beside = [url for url in self.under_way if self.lane_of[url] == lane]
        return not beside or (
            not self.scheduler.is_patient
            and len(beside) < MAX_UNDER_WAY
            and all(self.slow_at[url] <= self.now for url in beside)
        )

    def check(self, url: str, event: Event, order_before: list[str]) -> None:
        lane = self.lane_of[url]
        assert url not in self.under_way
        assert self.is_free(lane)
        assert (event is STARTED) == (url not in self.knows_us)
        assert (event is COMPLETED) <= (url in self.owes_completed)
        assert self.resting.get(url, -math.inf) <= self.now
        if event is NONE:
            assert self.now >= self.last_at[url] + 60
            assert self.now >= self.allowed_at[url] or url in self.resting
            assert self.now >= self.next_at[url]
        if event is not COMPLETED:
            earlier = [
                other
                for other in order_before[: order_before.index(url)]
                if self.lane_of[other] == lane and other not in self.under_way
            ]
            for other in earlier:
                # Who failed on a regular announce also rests out the gap.
                assert max(self.rests_until[other], self.last_at[other] + 60) > self.now

    # --- results -----------------------------------------------------------------------------

    @precondition(lambda self: self.in_line)
    @rule(pick=st.integers(0, 9), is_stalled=st.booleans())
    def line_moves_or_not(self, pick: int, is_stalled: bool) -> None:
        url = sorted(self.in_line)[pick % len(self.in_line)]
        if not is_stalled:
            self.leave(url)
            return
        self.scheduler.stalled(url, now=self.now)
        if url in self.under_way and not self.works(url):
            self.slow_at[url] = min(self.slow_at[url], self.now)

    @precondition(lambda self: self.under_way.keys() - self.in_line)
    @rule(
        pick=st.integers(0, 9),
        interval=st.sampled_from([60, 900, 86_400]),
        min_interval=st.sampled_from([60, 600]),
    )
    def answer(self, pick: int, interval: int, min_interval: int) -> None:
        asked = sorted(self.under_way.keys() - self.in_line)
        url = asked[pick % len(asked)]
        event = self.under_way.pop(url)
        answer = AnnounceAnswer(interval=interval, min_interval=min(interval, min_interval))
        self.scheduler.succeeded(url, answer, now=self.now)
        self.knows_us.add(url)
        self.resting.pop(url, None)
        self.rests_until.pop(url, None)
        self.num_failures.pop(url, None)
        self.allowed_at[url] = self.now + answer.min_interval
        self.next_at[url] = self.now + answer.interval
        if event is COMPLETED:
            self.owes_completed.discard(url)
            self.num_completed[url] = self.num_completed.get(url, 0) + 1

    @precondition(lambda self: self.under_way)
    @rule(pick=st.integers(0, 9), retry=st.sampled_from([None, None, 10.0, 5000.0, math.inf]))
    def fail(self, pick: int, retry: float | None) -> None:
        """Those in line may fail, too: they are sent home when their tracker is silent."""
        url = sorted(self.under_way)[pick % len(self.under_way)]
        del self.under_way[url]
        self.in_line.discard(url)
        self.scheduler.failed(url, now=self.now, retry_after=retry)
        self.num_failures[url] = self.num_failures.get(url, 0) + 1
        longest = min(3600, 60 * 2 ** (self.num_failures[url] - 1))
        self.resting[url] = self.now + (longest / 2 if retry is None else max(retry, 30))
        self.rests_until[url] = self.now + (longest if retry is None else max(retry, 30))
        (self.is_ours.discard if retry is not None else self.is_ours.add)(url)
        self.excuse()

    @precondition(lambda self: self.gone)
    @rule(pick=st.integers(0, 9), is_answer=st.booleans())
    def hear_of_one_that_is_gone(self, pick: int, is_answer: bool) -> None:
        url = sorted(self.gone)[pick % len(self.gone)]
        if url in self.in_line:
            self.leave(url)
        elif is_answer:
            self.scheduler.succeeded(url, ANSWER, now=self.now)
        else:
            self.scheduler.failed(url, now=self.now)
        self.gone.pop(url, None)
        self.forget(url)

    # --- what the torrent does ---------------------------------------------------------------

    @rule()
    def ask(self) -> None:
        self.scheduler.request(now=self.now)
        self.excuse()

    @rule(is_patient=st.booleans())
    def turn_out_to_be_private_or_not(self, is_patient: bool) -> None:
        self.scheduler.is_patient = is_patient

    @rule()
    def finish(self) -> None:
        if not self.is_complete:
            self.is_complete = True
            self.scheduler.complete(now=self.now)
            self.owes_completed |= self.knows_us | self.under_way.keys() | self.gone.keys()
            self.excuse()

    @rule(seconds=st.sampled_from([0.0, 100.0, 5000.0]))
    def sleep(self, seconds: float) -> None:
        self.scheduler.missed(seconds, now=self.now)
        for times in (
            self.slow_at,
            self.last_at,
            self.allowed_at,
            self.resting,
            self.rests_until,
        ):
            times |= {url: at - seconds for url, at in times.items()}
        for url in self.is_ours & self.resting.keys():
            for times in (self.resting, self.rests_until):
                times[url] = min(times[url], self.last_at[url] + 60)
        self.excuse()

    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        urls = data.draw(st.lists(st.sampled_from("abcdefghi"), unique=True, max_size=8))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(urls)), max_size=3)))
        tiers = [urls[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(urls)], strict=True)]
        tiers = [tier for tier in tiers if tier]
        lost = set(self.lane_of) - set(urls)
        told = self.scheduler.set_tiers(tiers, now=self.now)
        assert {(each.url, each.event) for each in told} == {
            (url, STOPPED) for url in lost if self.may_know_us(url)
        }
        self.draw_lanes(tiers)
        for url in lost:
            if url in self.under_way:
                self.gone[url] = self.under_way.pop(url)
            else:
                self.forget(url)
        for url in self.gone.keys() & set(urls):
            self.under_way[url] = self.gone.pop(url)
        self.excuse()

    def forget(self, url: str) -> None:
        """One that comes back later is as new."""
        for table in (
            self.slow_at,
            self.last_at,
            self.allowed_at,
            self.next_at,
            self.resting,
            self.rests_until,
            self.num_failures,
            self.num_completed,
        ):
            table.pop(url, None)
        for urls in (self.in_line, self.is_ours, self.knows_us, self.owes_completed):
            urls.discard(url)

    def excuse(self) -> None:
        """Note that there is a reason to announce before the interval is over."""
        self.next_at = dict.fromkeys(self.next_at, -math.inf)

    # --- what always holds -------------------------------------------------------------------

    @invariant()
    def nobody_counts_us_twice(self) -> None:
        assert all(count == 1 for count in getattr(self, "num_completed", {}).values())

    @invariant()
    def something_is_planned_unless_all_refused(self) -> None:
        if hasattr(self, "scheduler") and not self.under_way:
            refused = [
                tracker.state is TrackerState.REFUSED for tracker in self.scheduler.trackers()
            ]
            assert (self.scheduler.next_timer() is None) <= all(refused)

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        told = [(each.url, each.event) for each in self.scheduler.stop()]
        due = {url for url in self.lane_of if self.may_know_us(url)}
        assert [url for url, event in told if event is STOPPED] == list(dict(told))
        assert {url for url, _ in told} == due
        assert {url for url, event in told if event is COMPLETED} == due & self.owes_completed
        assert self.scheduler.next_timer() is None


TestScheduling = pytest.mark.slow(Scheduling.TestCase)
TestScheduling.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
