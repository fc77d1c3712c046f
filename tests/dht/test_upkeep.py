"""Bootstrap and upkeep of the table (BEP 5)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable

import pytest

from bittern.codec.krpc_message import Arguments, FindNode, Ping
from bittern.core.endpoint import Endpoint
from bittern.core.ids import NodeId
from bittern.dht.limits import (
    BOOTSTRAP_INTERVAL,
    FILL_INTERVAL,
    FRESH_LIFETIME,
    MAX_BOOTSTRAP_INTERVAL,
    MAX_SUGGESTIONS,
    MIN_TABLE_NODES,
    PINGS_PER_UPKEEP,
    REFRESH_INTERVAL,
    SILENCE_BEFORE_ROUTERS,
    UPKEEP_INTERVAL,
)
from bittern.dht.routing import RoutingTable
from bittern.dht.transactions import Waiter
from bittern.dht.upkeep import Start, Upkeep

OWN = NodeId(bytes(20))
ROUTERS = (Endpoint("9.9.9.9", 1), Endpoint("9.9.8.9", 1))
SAVED = (b"s" * 20, Endpoint("7.7.7.7", 1))


def endpoint(number: int) -> Endpoint:
    return Endpoint(f"20.{number >> 8}.{number & 255}.1", 1)


class Work:
    """Keeps what upkeep wants done, and what it says."""

    def __init__(self, rng: random.Random) -> None:
        self.table = RoutingTable(OWN, is_ipv6=False, now=0.0)
        self.asked: list[tuple[Endpoint, Arguments]] = []
        self.refreshes: list[tuple[bytes, list[Start]]] = []
        self.num_bootstraps = 0
        self.on_end: Callable[[float], None] | None = None
        self.upkeep = Upkeep(self, self, self.table, rng=rng, now=0.0)

    def ask(self, endpoint: Endpoint, arguments: Arguments, waiter: Waiter, *, now: float) -> None:
        self.asked.append((endpoint, arguments))

    def refresh(
        self,
        target: bytes,
        starts: Iterable[Start],
        on_end: Callable[[float], None] | None,
        *,
        now: float,
    ) -> None:
        self.refreshes.append((target, list(starts)))
        self.on_end = on_end

    def bootstrapped(self, *, now: float) -> None:
        self.num_bootstraps += 1

    def end(self, now: float) -> None:
        on_end, self.on_end = self.on_end, None
        assert on_end is not None
        on_end(now)

    def fill(self, count: int, *, now: float = 0.0) -> None:
        rng = random.Random(1)
        for number in range(count):
            self.table.note_answer(rng.randbytes(20), endpoint(number), now=now)


@pytest.fixture
def work(rng: random.Random) -> Work:
    return Work(rng)


def test_the_first_tick_looks_for_ourselves(work: Work) -> None:
    work.upkeep.add_nodes([SAVED], (), now=0.0)
    assert work.upkeep.next_tick_at == 0.0
    work.upkeep.tick(now=0.0)
    assert work.refreshes == [(OWN, [SAVED])]
    # Nothing else until that is over.
    work.upkeep.tick(now=100.0)
    assert len(work.refreshes) == 1
    assert work.asked == []


def test_routers_come_when_saved_nodes_were_not_enough(work: Work) -> None:
    work.upkeep.add_nodes([SAVED], ROUTERS, now=0.0)
    work.upkeep.tick(now=0.0)
    assert work.refreshes[0][1] == [SAVED]
    work.end(5.0)
    assert work.num_bootstraps == 0
    assert {where for _, where in work.refreshes[1][1]} == {SAVED[1], *ROUTERS}
    work.end(10.0)
    assert work.num_bootstraps == 1


def test_routers_come_when_saved_nodes_are_silent(work: Work) -> None:
    work.upkeep.add_nodes([SAVED], ROUTERS, now=0.0)
    work.upkeep.tick(now=0.0)
    first_end = work.on_end
    assert first_end is not None
    assert work.upkeep.next_tick_at == SILENCE_BEFORE_ROUTERS
    work.upkeep.tick(now=SILENCE_BEFORE_ROUTERS)
    assert [{where for _, where in starts} for _, starts in work.refreshes] == [
        {SAVED[1]},
        set(ROUTERS),
    ]
    work.upkeep.tick(now=2 * SILENCE_BEFORE_ROUTERS)
    assert len(work.refreshes) == 2
    work.end(5.0)
    assert work.num_bootstraps == 1
    first_end(30.0)
    assert work.num_bootstraps == 1
    assert len(work.refreshes) == 2


def test_routers_wait_while_saved_nodes_answer(work: Work) -> None:
    work.upkeep.add_nodes([SAVED], ROUTERS, now=0.0)
    work.upkeep.tick(now=0.0)
    work.fill(1, now=1.0)
    work.upkeep.tick(now=SILENCE_BEFORE_ROUTERS)
    assert len(work.refreshes) == 1


def test_routers_are_left_alone_when_saved_nodes_do(work: Work) -> None:
    work.upkeep.add_nodes([SAVED], ROUTERS, now=0.0)
    work.upkeep.tick(now=0.0)
    work.fill(MIN_TABLE_NODES)
    work.end(5.0)
    assert work.num_bootstraps == 1
    assert len(work.refreshes) == 1


def test_without_saved_nodes_routers_are_first(work: Work) -> None:
    work.upkeep.add_nodes([], ROUTERS, now=0.0)
    work.upkeep.tick(now=0.0)
    assert {where for _, where in work.refreshes[0][1]} == set(ROUTERS)


def test_a_node_alone_is_ready_and_tries_again_ever_more_rarely(work: Work) -> None:
    tries = []
    now = 0.0
    while now < 7200:
        before = len(work.refreshes)
        work.upkeep.tick(now=now)
        if len(work.refreshes) > before:
            tries.append(now)
            work.end(now + 1)
        now = work.upkeep.next_tick_at
    assert work.num_bootstraps == len(tries)
    gaps = [b - a for a, b in itertools.pairwise(tries)]
    assert gaps[0] <= BOOTSTRAP_INTERVAL + 2 * UPKEEP_INTERVAL
    assert gaps[-1] >= MAX_BOOTSTRAP_INTERVAL
    assert len(tries) < 20


def test_a_named_node_starts_a_bootstrap_at_once(work: Work) -> None:
    work.upkeep.tick(now=0.0)
    work.end(0.0)
    work.upkeep.add_nodes([(b"", endpoint(1))], (), now=2.0)
    assert work.upkeep.next_tick_at == 2.0
    work.upkeep.tick(now=2.0)
    assert work.refreshes[-1][1] == [(b"", endpoint(1))]


def test_a_named_node_is_only_pinged_when_there_are_enough(work: Work) -> None:
    work.fill(50)
    work.upkeep.add_nodes([(b"", Endpoint("6.6.6.6", 1))], (), now=2.0)
    work.upkeep.tick(now=5.0)
    assert work.refreshes == []
    assert work.asked == [(Endpoint("6.6.6.6", 1), Ping())]


def test_stale_nodes_are_asked_one_at_a_time(work: Work) -> None:
    work.fill(50)
    work.upkeep.tick(now=10.0)
    assert work.asked == []
    work.upkeep.tick(now=FRESH_LIFETIME + 1)
    ((where, arguments),) = work.asked
    node = work.table.get(where)
    assert node is not None
    assert isinstance(arguments, FindNode)
    assert arguments.target[:4] == node.node_id[:4]


def test_suggestions_are_pinged_a_few_at_a_time(work: Work) -> None:
    """Limit: N1. Forged queries must not make us ping at any rate."""
    work.fill(50)
    for number in range(1000):
        work.upkeep.suggest(endpoint(1000 + number))
    work.upkeep.suggest(endpoint(1000))
    asked = 0
    for tick in range(1000):
        work.asked.clear()
        work.upkeep.tick(now=tick * 0.1)
        asked += len(work.asked)
        assert len(work.asked) <= PINGS_PER_UPKEEP
    assert asked == MAX_SUGGESTIONS


def test_a_suggestion_that_is_in_the_table_is_not_pinged(work: Work) -> None:
    work.fill(50)
    work.upkeep.suggest(endpoint(3))
    work.upkeep.tick(now=1.0)
    assert work.asked == []


def test_one_stale_bucket_a_minute_is_refreshed(work: Work) -> None:
    work.fill(50)
    work.upkeep.tick(now=REFRESH_INTERVAL)
    assert work.refreshes == []
    start = FRESH_LIFETIME + 100.0
    for tick in range(60):
        work.upkeep.tick(now=start + tick)
    assert len(work.refreshes) == 1
    work.upkeep.tick(now=start + REFRESH_INTERVAL + 1)
    assert len(work.refreshes) == 2
    assert all(starts == [] for _, starts in work.refreshes)


def test_when_all_nodes_fail_there_is_a_new_bootstrap(work: Work) -> None:
    work.fill(20)
    for node in list(work.table):
        work.table.note_failure(node.endpoint, may_remove=False)
    work.upkeep.tick(now=100.0)
    assert len(work.refreshes) == 1
    work.fill(20, now=100.0)
    work.end(101.0)
    assert work.num_bootstraps == 1


def test_saved_nodes_are_bounded(work: Work) -> None:
    work.upkeep.add_nodes([(b"", endpoint(n)) for n in range(5000)], (), now=0.0)
    work.upkeep.tick(now=0.0)
    assert len(work.refreshes[0][1]) == MAX_SUGGESTIONS


def test_a_nearly_empty_table_is_filled_from_those_who_ask(work: Work) -> None:
    work.upkeep.add_nodes([SAVED], (), now=0.0)
    work.upkeep.tick(now=0.0)
    work.end(0.1)
    for number in range(5):
        work.upkeep.suggest(endpoint(number))
    assert work.upkeep.next_tick_at == FILL_INTERVAL
    pinged = []
    for _ in range(3):
        work.asked.clear()
        now = work.upkeep.next_tick_at
        work.upkeep.tick(now=now)
        pinged.append(len(work.asked))
        assert len(work.asked) <= PINGS_PER_UPKEEP
    assert pinged == [2, 2, 2]  # the saved node is one of them
    assert work.upkeep.next_tick_at == now + UPKEEP_INTERVAL


def test_a_filled_table_takes_its_time(work: Work) -> None:
    work.fill(2 * MIN_TABLE_NODES)
    work.upkeep.tick(now=0.0)
    work.upkeep.suggest(endpoint(1000))
    assert work.upkeep.next_tick_at == UPKEEP_INTERVAL
