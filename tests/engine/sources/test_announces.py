"""engine.sources.announces: one heap and one timer for all torrents, a line for each tracker."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections import Counter
from collections.abc import Coroutine

import pytest

from bittern.core.announce import Event
from bittern.core.errors import TrackerFailure, TrackerUnreachable
from bittern.engine.sources import announces as announces_module
from bittern.engine.sources.announces import (
    BATCH,
    MAX_PER_TRACKER,
    MAX_SILENCES,
    MAX_TEXTS,
    PROBE_INTERVAL,
    Announces,
    Plan,
)
from bittern.policy.announcing import PATIENCE, AnnounceDecision
from bittern.testing.loop import VirtualLoop
from tests.virtual_time import simulated

LIVE = AnnounceDecision("http://Live.example:80/announce", Event.STARTED)
DEAD = AnnounceDecision("udp://dead.example:80/announce?x=/", Event.NONE)
SILENCE = 30.0


class Bench:
    """The announces of a session, and what its announcers saw."""

    def __init__(self) -> None:
        self.announces = Announces(asyncio.get_running_loop(), self.spawn)
        self.tasks: set[asyncio.Future[None]] = set()
        self.num_running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.dead = {DEAD.url}
        self.refusing: set[str] = set()

    def spawn(self, job: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.ensure_future(job)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Row:
    """An announcer that remembers what happened to it, and when."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.plan: Plan | None = None
        self.is_running = True
        self.woken: list[float] = []
        self.asked: list[str] = []
        self.answered: list[str] = []
        self.failed: list[tuple[float, str, str]] = []
        self.stalled_at: list[float] = []
        self.is_wanted = True

    def stalled(self, decision: AnnounceDecision) -> None:
        self.stalled_at.append(asyncio.get_running_loop().time())

    def takes_turn(self, decision: AnnounceDecision) -> bool:
        return self.is_wanted

    def go_on(self) -> None:
        self.woken.append(asyncio.get_running_loop().time())

    def missed(self, seconds: float) -> None:
        assert self.plan is not None
        self.bench.announces.wake_at(self, self.plan.at - seconds)

    async def announce(self, decision: AnnounceDecision) -> None:
        bench, url = self.bench, decision.url
        bench.num_running[url] += 1
        bench.most[url] = max(bench.most[url], bench.num_running[url])
        self.asked.append(url)
        try:
            await asyncio.sleep(SILENCE if url in bench.dead else 0.1)
            if url in bench.dead:
                raise TrackerUnreachable("silent")
            if url in bench.refusing:
                raise TrackerFailure("no")
        finally:
            bench.num_running[url] -= 1
        self.answered.append(url)

    def announce_failed(
        self, decision: AnnounceDecision, error: TrackerFailure | TrackerUnreachable
    ) -> None:
        reason = error.reason if isinstance(error, TrackerFailure) else str(error)
        self.failed.append((asyncio.get_running_loop().time(), decision.url, reason))
        if decision is DEAD:
            self.bench.announces.submit(self, LIVE)


@simulated
async def test_everybody_is_woken_when_it_is_time(loop: VirtualLoop) -> None:
    """Whatever the order in which instants are named, changed and taken back."""
    bench = Bench()
    rows = [Row(bench) for _ in range(500)]
    rng = random.Random(3)
    wanted: list[float | None] = [None] * len(rows)
    for _ in range(5000):
        number = rng.randrange(len(rows))
        wanted[number] = rng.choice([None, float(rng.randrange(1, 50))])
        bench.announces.wake_at(rows[number], wanted[number])
        assert len(bench.announces._heap) < 3 * len(rows)
    assert loop.time() == 0
    await asyncio.sleep(100)
    for row, at in zip(rows, wanted, strict=True):
        assert row.woken == ([] if at is None else [at])
    assert repr(bench.announces) == "<Announces 0 planned, 0 under way, 0 in line>"


@simulated
async def test_who_wants_to_be_woken_no_more_is_not_kept() -> None:
    """The torrent of one that was stopped may be gone hours before its instant would come."""
    bench = Bench()
    stays, goes = Row(bench), Row(bench)
    bench.announces.wake_at(stays, 100)
    bench.announces.wake_at(goes, 20_000)
    bench.announces.wake_at(goes, 10_000)
    bench.announces.wake_at(goes, None)
    seen = weakref.ref(goes)
    del goes
    assert seen() is None
    await asyncio.sleep(101)
    assert stays.woken == [100]


@simulated
async def test_what_many_say_is_kept_once_and_what_is_said_once_not_for_good() -> None:
    """A tracker may put the time, or a count, into every refusal."""
    announces = Bench().announces
    often = announces.once("no more than once in 30 s")
    for number in range(3 * MAX_TEXTS):
        announces.once(f"come again in {number} s")
        assert announces.once("".join(("no more than", " once in 30 s"))) is often
    assert len(announces._texts) == MAX_TEXTS


@simulated
async def test_a_dead_tracker_keeps_nobody_who_asked_it() -> None:
    """Why it was silent is remembered for those who come, and none of those who found it out."""
    bench = Bench()
    rows = [Row(bench) for _ in range(MAX_SILENCES)]
    for row in rows:
        bench.announces.submit(row, DEAD)
    await asyncio.sleep(SILENCE + 5)
    assert all(row.failed for row in rows)
    seen = [weakref.ref(row) for row in rows]
    del row, rows
    gc.collect()
    assert [each() for each in seen] == [None] * MAX_SILENCES
    late = Row(bench)
    bench.announces.submit(late, DEAD)
    await asyncio.sleep(SILENCE + 5)
    assert [reason for _, _, reason in late.failed] == ["silent"]


@simulated
async def test_those_that_wait_hear_what_was_missed(loop: VirtualLoop) -> None:
    bench = Bench()
    rows = [Row(bench) for _ in range(4)]
    for row, at in zip(rows, (100, 200, 300, None), strict=True):
        bench.announces.wake_at(row, 1000)
        bench.announces.wake_at(row, at)
    await asyncio.sleep(150)
    bench.announces.missed(120)
    await asyncio.sleep(1000)
    assert [row.woken for row in rows] == [[100], [150], [180], []]


@simulated
async def test_who_is_woken_may_say_when_to_be_woken_next() -> None:
    class Regular(Row):
        def go_on(self) -> None:
            super().go_on()
            now = asyncio.get_running_loop().time()
            self.bench.announces.wake_at(self, None if len(self.woken) == 3 else now + 7)

    bench = Bench()
    rows = [Regular(bench) for _ in range(3)]
    for number, row in enumerate(rows):
        bench.announces.wake_at(row, number + 1.0)
        bench.announces.wake_at(row, number + 1.0)
    await asyncio.sleep(60)
    assert [row.woken for row in rows] == [[1, 8, 15], [2, 9, 16], [3, 10, 17]]


@simulated
async def test_thousands_at_one_instant_take_turns_with_the_rest_of_the_loop(
    loop: VirtualLoop,
) -> None:
    bench = Bench()
    rows = [Row(bench) for _ in range(3 * BATCH)]
    for row in rows:
        bench.announces.wake_at(row, 5.0)
    await asyncio.sleep(5)
    counts = set()
    while (count := sum(len(row.woken) for row in rows)) < len(rows):
        counts.add(count)
        await asyncio.sleep(0)
    assert len(counts) >= 2
    assert loop.time() == 5


@simulated
async def test_a_bug_in_one_announcer_leaves_the_timer_of_the_others(loop: VirtualLoop) -> None:
    class Broken(Row):
        def go_on(self) -> None:
            raise ValueError("bug")

    bench = Bench()
    seen: list[object] = []
    loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
    row = Row(bench)
    bench.announces.wake_at(Broken(bench), 1.0)
    bench.announces.wake_at(row, 2.0)
    await asyncio.sleep(3)
    assert row.woken == [2.0]
    assert len(seen) == 1


@simulated
async def test_one_tracker_hears_only_so_many_at_once() -> None:
    """Limit: F11."""
    bench = Bench()
    rows = [Row(bench) for _ in range(50)]
    for row in rows:
        bench.announces.submit(row, LIVE)
    await asyncio.sleep(0.05)
    assert repr(bench.announces) == "<Announces 0 planned, 10 under way, 40 in line>"
    await asyncio.sleep(1)
    assert all(row.answered == [LIVE.url] for row in rows)
    assert bench.most[LIVE.url] == MAX_PER_TRACKER
    assert "0 under way, 0 in line" in repr(bench.announces)


@simulated
async def test_a_dead_tracker_sends_its_line_home() -> None:
    """Limit: F11. What stands behind it in a torrent's list is asked after one silence."""
    bench = Bench()
    rows = [Row(bench) for _ in range(1000)]
    for row in rows:
        bench.announces.submit(row, DEAD)
    await asyncio.sleep(SILENCE + 15)
    # Two stepped in before it was clear.
    num_asked = MAX_PER_TRACKER + MAX_SILENCES - 1
    assert sum(row.asked[0] == DEAD.url for row in rows) == num_asked
    assert sum(row.answered == [LIVE.url] for row in rows) == len(rows) - 2
    await asyncio.sleep(SILENCE)
    assert all(row.answered == [LIVE.url] for row in rows)
    instants = Counter(at for row in rows for at, _, _ in row.failed)
    assert instants == {SILENCE: len(rows) - 2, 2 * SILENCE: 2}
    assert "0 under way, 0 in line" in repr(bench.announces)


@simulated
async def test_who_comes_late_to_a_dead_tracker_is_sent_home_too() -> None:
    bench = Bench()
    first = [Row(bench) for _ in range(MAX_PER_TRACKER)]
    for row in first[:MAX_SILENCES]:
        bench.announces.submit(row, DEAD)
    await asyncio.sleep(SILENCE / 2)
    for row in first[MAX_SILENCES:]:
        bench.announces.submit(row, DEAD)
    await asyncio.sleep(SILENCE / 2 + 0.2)
    # Three were silent, seven are being waited for: only one more tries it in earnest.
    late = [Row(bench) for _ in range(5)]
    for row in late:
        bench.announces.submit(row, DEAD)
    await asyncio.sleep(0.2)
    assert [bool(row.failed) for row in late] == [False] + [True] * 4
    await asyncio.sleep(2 * SILENCE)


@pytest.mark.parametrize("is_refusing", [False, True])
@simulated
async def test_one_answer_of_any_kind_ends_the_silence(is_refusing: bool) -> None:
    bench = Bench()
    if is_refusing:
        bench.refusing.add(LIVE.url)
    rows = [Row(bench) for _ in range(40)]
    bench.dead.add(LIVE.url)
    for row in rows[:2]:
        bench.announces.submit(row, LIVE)
    await asyncio.sleep(1)
    bench.dead.discard(LIVE.url)
    for row in rows[2:]:
        bench.announces.submit(row, LIVE)
    await asyncio.sleep(2 * SILENCE)
    assert [bool(row.asked) for row in rows] == [True] * len(rows)
    reasons = {reason for row in rows[2:] for _, _, reason in row.failed}
    assert reasons == ({"no"} if is_refusing else set())


@simulated
async def test_who_has_stopped_is_passed_over() -> None:
    bench = Bench()
    for decision in (LIVE, DEAD):
        rows = [Row(bench) for _ in range(30)]
        for row in rows:
            bench.announces.submit(row, decision)
        for row in rows[MAX_PER_TRACKER:20]:
            row.is_running = False
        await asyncio.sleep(2 * SILENCE + 5)
        assert not any(row.asked or row.failed for row in rows[MAX_PER_TRACKER:20])
        assert all(row.answered for row in rows[20:])


@pytest.mark.parametrize("is_running", [False, True])
@simulated
async def test_who_has_stopped_before_it_asked_does_not_bring_a_dead_tracker_to_life(
    is_running: bool,
) -> None:
    """Nor does one whose announce is not wanted any more."""
    bench = Bench()
    for _ in range(MAX_SILENCES):
        bench.announces.submit(Row(bench), DEAD)
    await asyncio.sleep(SILENCE + PROBE_INTERVAL + 1)
    stopped, late = Row(bench), Row(bench)
    bench.announces.submit(stopped, DEAD)
    stopped.is_running, stopped.is_wanted = is_running, False
    await asyncio.sleep(0)
    bench.announces.submit(late, DEAD)
    await asyncio.sleep(0.1)
    assert stopped.asked == []
    assert [url for _, url, _ in late.failed] == [DEAD.url]


@simulated
async def test_those_in_a_line_that_does_not_move_hear_so_once() -> None:
    """That a tracker is dead is known much later, and they may have others."""
    bench = Bench()
    rows = [Row(bench) for _ in range(MAX_PER_TRACKER + 2 * BATCH + 5)]
    for row in rows:
        bench.announces.submit(row, DEAD)
    await asyncio.sleep(PATIENCE - 0.1)
    assert not any(row.stalled_at for row in rows)
    await asyncio.sleep(0.2)
    assert [row.stalled_at for row in rows[:MAX_PER_TRACKER]] == [[]] * MAX_PER_TRACKER
    assert all(row.stalled_at == [PATIENCE] for row in rows[MAX_PER_TRACKER:])
    late = [Row(bench) for _ in range(3)]
    for row in late:
        bench.announces.submit(row, DEAD)
        row.is_running = row is not late[1]
        await asyncio.sleep(1)
    now = asyncio.get_running_loop().time()
    assert [[round(now - at, 6) for at in row.stalled_at] for row in late] == [[3], [], [1]]
    await asyncio.sleep(3 * SILENCE)
    assert sum(len(row.stalled_at) for row in [*rows, *late]) == 2 * BATCH + 5 + 2


@simulated
async def test_a_long_line_that_moves_is_not_stalled() -> None:
    bench = Bench()
    rows = [Row(bench) for _ in range(1000)]
    for row in rows:
        bench.announces.submit(row, LIVE)
    await asyncio.sleep(PATIENCE + 1)
    assert not rows[-1].answered
    await asyncio.sleep(PATIENCE)
    assert rows[-1].answered
    assert not any(row.stalled_at for row in rows)


@simulated
async def test_a_line_is_stalled_only_when_it_has_not_moved_for_long() -> None:
    """That its tracker was asked in vain for a while, alone, does not make it so."""
    bench = Bench()
    bench.announces.submit(Row(bench), DEAD)
    await asyncio.sleep(20)
    rows = [Row(bench) for _ in range(MAX_PER_TRACKER)]
    for row in rows:
        bench.announces.submit(row, DEAD)
    await asyncio.sleep(PATIENCE - 0.1)
    assert (rows[-1].asked, rows[-1].stalled_at) == ([], [])
    await asyncio.sleep(0.2)
    assert rows[-1].stalled_at == [20 + PATIENCE]
    await asyncio.sleep(3 * SILENCE)


@simulated
async def test_who_stands_in_line_when_all_ends_hears_nothing_more() -> None:
    bench = Bench()
    rows = [Row(bench) for _ in range(2 * MAX_PER_TRACKER)]
    for row in rows:
        bench.announces.submit(row, DEAD)
    await asyncio.sleep(1)
    bench.announces.close()
    await asyncio.sleep(2 * SILENCE)
    assert not any(row.stalled_at for row in rows)


@simulated
async def test_closing_leaves_nothing_planned() -> None:
    bench = Bench()
    rows = [Row(bench) for _ in range(30)]
    for row in rows:
        bench.announces.wake_at(row, 50.0)
        bench.announces.submit(row, LIVE)
    await asyncio.sleep(0)
    bench.announces.close()
    bench.announces.close()
    await asyncio.sleep(100)
    assert sum(bool(row.answered) for row in rows) == MAX_PER_TRACKER
    assert not any(row.woken for row in rows)


@simulated
async def test_a_silent_tracker_is_asked_in_earnest_now_and_then() -> None:
    """Limit: F11. Ten thousand torrents of a dead tracker cost hardly anything."""
    bench = Bench()
    rows = [Row(bench) for _ in range(300)]
    for row in rows[:MAX_SILENCES]:
        bench.announces.submit(row, DEAD)
    await asyncio.sleep(SILENCE + 1)
    for row in rows[MAX_SILENCES:]:
        bench.announces.submit(row, DEAD)
        await asyncio.sleep(0.1)
    asked = sum(row.asked[:1] == [DEAD.url] for row in rows)
    assert MAX_SILENCES + 5 <= asked <= MAX_SILENCES + 1 + 30 / PROBE_INTERVAL
    # It comes back: the next in earnest notices, and the rest may ask again.
    await asyncio.sleep(SILENCE)
    bench.dead.clear()
    late = [Row(bench) for _ in range(20)]
    bench.announces.submit(late[0], DEAD)
    await asyncio.sleep(0.2)
    for row in late[1:]:
        bench.announces.submit(row, DEAD)
    await asyncio.sleep(2)
    assert all(row.answered == [DEAD.url] for row in late)


@simulated
async def test_an_answer_that_makes_no_sense_is_no_silence() -> None:
    class Confused(Row):
        async def announce(self, decision: AnnounceDecision) -> None:
            self.asked.append(decision.url)
            raise TrackerUnreachable("HTTP status 404", is_silent=False)

    bench = Bench()
    rows = [Confused(bench) for _ in range(30)]
    for row in rows:
        bench.announces.submit(row, LIVE)
    await asyncio.sleep(1)
    assert all(row.asked == [LIVE.url] for row in rows)


@simulated
async def test_so_many_trackers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announces_module, "MAX_LINES", 8)
    bench = Bench()
    for number in range(50):
        url = f"http://{number}.example/announce"
        bench.announces.submit(Row(bench), AnnounceDecision(url, Event.NONE))
        await asyncio.sleep(0.2)
        assert len(bench.announces._lines) <= 8


def test_instants_that_are_past_already_under_uvloop() -> None:
    """Its ``call_at`` answers with another kind of handle then."""

    async def main() -> None:
        bench = Bench()
        now = asyncio.get_running_loop().time()
        rows = [Row(bench) for _ in range(20)]
        for number, row in enumerate(rows):
            bench.announces.wake_at(row, now - number)
            bench.announces.wake_at(row, now - number - 1)
        async with asyncio.timeout(10):
            while not all(row.woken for row in rows):  # noqa: ASYNC110
                await asyncio.sleep(0)

    pytest.importorskip("uvloop").run(main())
