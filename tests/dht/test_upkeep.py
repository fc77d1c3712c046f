"""Bootstrap and upkeep of the table (BEP 5)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable

import pytest

from bittern.codec.krpc_message import Arguments, FindNode, Response
from bittern.core.endpoint import Endpoint
from bittern.core.errors import QueryTimeout
from bittern.core.ids import NodeId
from bittern.dht.limits import (
    BOOTSTRAP_INTERVAL,
    EXAMS_PER_UPKEEP,
    FILL_INTERVAL,
    FRESH_LIFETIME,
    IDLE_INTERVAL,
    MAX_BOOTSTRAP_INTERVAL,
    MAX_SUGGESTIONS,
    MIN_TABLE_NODES,
    REFRESH_INTERVAL,
    SILENCE_BEFORE_ROUTERS,
    SUGGESTIONS_PER_EXAM,
    SUSPICION_LIFETIME,
    UPKEEP_INTERVAL,
)
from bittern.dht.routing import RoutingTable
from bittern.dht.transactions import Waiter
from bittern.dht.trust import Trust
from bittern.dht.upkeep import Start, Upkeep

OWN = NodeId(bytes(20))
ROUTERS = (Endpoint("9.9.9.9", 1), Endpoint("9.9.8.9", 1))
SAVED = (b"s" * 20, Endpoint("7.7.7.7", 1))


def endpoint(number: int) -> Endpoint:
    return Endpoint(f"20.{number >> 8}.{number & 255}.1", 1)


def near_us(number: int) -> bytes:
    """Return an id in a bucket that random ids do not reach."""
    return (1 << 100 | number).to_bytes(20, "big")


class Work:
    """Keeps what upkeep wants done, and what it says."""

    def __init__(self, rng: random.Random) -> None:
        self.table = RoutingTable(OWN, is_ipv6=False, now=0.0)
        self.trust = Trust()
        self.asked: list[tuple[Endpoint, Arguments]] = []
        self.waiters: list[Waiter] = []
        self.refreshes: list[tuple[bytes, list[Start]]] = []
        self.num_bootstraps = 0
        self.on_end: Callable[[float], None] | None = None
        self.upkeep = Upkeep(self, self, self.table, self.trust, rng=rng, now=0.0)

    def ask(self, endpoint: Endpoint, arguments: Arguments, waiter: Waiter, *, now: float) -> None:
        self.asked.append((endpoint, arguments))
        self.waiters.append(waiter)

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

    def fill(self, count: int, *, now: float = 0.0, are_tested: bool = True) -> None:
        rng = random.Random(1)
        for number in range(count):
            self.table.note_answer(rng.randbytes(20), endpoint(number), now=now)
            if are_tested:
                self.table.vetting.take_untested()

    def examine(self, number: int, *, now: float = 0.0) -> FindNode:
        """Let a node of the table be examined; return what it is asked."""
        self.asked.clear()
        self.waiters.clear()
        self.retest(number)
        self.upkeep.tick(now=now)
        where, arguments = self.asked[0]
        assert where == endpoint(number)
        assert isinstance(arguments, FindNode)
        return arguments

    def retest(self, number: int) -> None:
        """Let one node of the table be due for an examination, and no other."""
        while self.table.vetting.take_untested() is not None:
            pass
        node = self.table.get(endpoint(number))
        assert node is not None
        self.table.vetting.note_entry(node.node_id, node.endpoint)

    def claim(self, number: int, size: int, *, now: float = 0.0, first: int = 9000) -> None:
        """Let a node name eight neighbours as they lie in a network of ``size`` nodes."""
        target = self.examine(number, now=now).target
        self.waiters[0].answered(self.neighbours(target, size, first), now=now)

    @staticmethod
    def neighbours(target: bytes, size: int, first: int) -> Response:
        place = int.from_bytes(target, "big")
        nodes = b"".join(
            (place ^ (rank << 160) // size).to_bytes(20, "big")
            + endpoint(first + rank).to_compact()
            for rank in range(1, 9)
        )
        return Response(transaction_id=b"t", node_id=target, nodes=nodes)


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


def bootstraps(work: Work, begin: float, end: float) -> list[float]:
    """Let time pass in which no bootstrap finds anybody; return when one was begun."""
    tries, now = [], begin
    while now < end:
        before = len(work.refreshes)
        work.upkeep.tick(now=now)
        if len(work.refreshes) > before:
            tries.append(now)
            work.end(now + 1)
        now = work.upkeep.next_tick_at
    return tries


def test_a_node_alone_is_ready_and_tries_again_ever_more_rarely(work: Work) -> None:
    tries = bootstraps(work, 0.0, 7200.0)
    assert work.num_bootstraps == len(tries)
    gaps = [b - a for a, b in itertools.pairwise(tries)]
    assert gaps[0] <= BOOTSTRAP_INTERVAL + 2 * UPKEEP_INTERVAL
    assert gaps[-1] >= MAX_BOOTSTRAP_INTERVAL
    assert len(tries) < 20
    assert all(later <= 2 * gap + UPKEEP_INTERVAL for gap, later in itertools.pairwise(gaps))


def test_a_node_that_has_found_others_and_lost_them_does_not_wait_long(work: Work) -> None:
    bootstraps(work, 0.0, 7200.0)
    while work.on_end is None:
        work.upkeep.tick(now=work.upkeep.next_tick_at)
    now = work.upkeep.next_tick_at
    work.fill(20, now=now)
    work.end(now)
    for node in list(work.table):
        work.table.note_failure(node.endpoint, may_remove=False)
    first, second = bootstraps(work, now, now + MAX_BOOTSTRAP_INTERVAL)[:2]
    assert second - first <= BOOTSTRAP_INTERVAL + 2 * UPKEEP_INTERVAL


def test_a_named_node_starts_a_bootstrap_at_once(work: Work) -> None:
    work.upkeep.tick(now=0.0)
    work.end(0.0)
    work.upkeep.add_nodes([(b"", endpoint(1))], (), now=2.0)
    assert work.upkeep.next_tick_at == 2.0
    work.upkeep.tick(now=2.0)
    assert work.refreshes[-1][1] == [(b"", endpoint(1))]


def test_a_named_node_is_only_asked_when_there_are_enough(work: Work) -> None:
    work.fill(50)
    work.upkeep.add_nodes([(b"", Endpoint("6.6.6.6", 1))], (), now=2.0)
    work.upkeep.tick(now=5.0)
    assert work.refreshes == []
    ((where, arguments),) = work.asked
    assert where == Endpoint("6.6.6.6", 1)
    # It is not known what is near it.
    assert isinstance(arguments, FindNode)
    assert arguments.target[:4] == OWN[:4]


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


def test_suggestions_are_examined_a_few_at_a_time(work: Work) -> None:
    """Limit: N1. Forged queries must not make us ask at any rate."""
    work.fill(50)
    for number in range(1000):
        work.upkeep.suggest(near_us(number), endpoint(1000 + number))
    work.upkeep.suggest(near_us(0), endpoint(1000))
    asked = 0
    for tick in range(1000):
        work.asked.clear()
        work.upkeep.tick(now=tick * 0.1)
        asked += len(work.asked)
        assert len(work.asked) <= EXAMS_PER_UPKEEP
    assert asked == MAX_SUGGESTIONS


def test_a_suggestion_without_a_place_is_left_alone(work: Work) -> None:
    work.fill(500)
    (node, *_) = work.table
    work.upkeep.suggest(near_us(1), node.endpoint)
    work.upkeep.suggest(node.node_id[:1] + bytes(19), endpoint(1000))
    work.upkeep.tick(now=1.0)
    assert work.asked == []


def test_one_stale_bucket_a_minute_is_refreshed(work: Work) -> None:
    work.fill(50)
    work.upkeep.tick(now=REFRESH_INTERVAL - 1)
    assert work.refreshes == []
    start = FRESH_LIFETIME + 100.0
    work.upkeep.tick(now=start)
    assert work.refreshes == [(OWN, [])]
    start += REFRESH_INTERVAL
    for tick in range(60):
        work.upkeep.tick(now=start + tick)
    assert len(work.refreshes) == 2
    work.upkeep.tick(now=start + REFRESH_INTERVAL + 1)
    assert len(work.refreshes) == 3
    # Our own id is due again after two minutes.
    assert [target == OWN for target, _ in work.refreshes] == [True, False, True]
    assert all(starts == [] for _, starts in work.refreshes)


def test_our_own_id_is_looked_up_ever_more_rarely(work: Work) -> None:
    times = []
    for now in range(0, 5000, 5):
        work.fill(50, now=now)
        work.table.note_lookup(0, (1 << 160) - 1, now=now)
        work.upkeep.tick(now=now)
        times += [now] * len(work.refreshes)
        assert all(target == OWN for target, _ in work.refreshes)
        work.refreshes.clear()
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert times[0] == REFRESH_INTERVAL
    assert gaps[:4] == [120, 240, 480, FRESH_LIFETIME]
    assert set(gaps[4:]) == {FRESH_LIFETIME}


def test_our_own_id_is_looked_up_at_once_when_we_have_been_away(work: Work) -> None:
    work.fill(50)
    work.upkeep.tick(now=5.0)
    assert work.refreshes == []
    work.upkeep.hurry(now=6.0)
    assert work.upkeep.next_tick_at == 6.0
    work.upkeep.tick(now=6.0)
    assert [target for target, _ in work.refreshes] == [OWN]


def test_who_was_away_and_knows_nobody_bootstraps_at_once(work: Work) -> None:
    for now in (0.0, 1000.0):
        work.upkeep.tick(now=now)
        work.end(now + 1)
    work.upkeep.tick(now=1002.0)
    assert len(work.refreshes) == 2
    work.upkeep.hurry(now=1003.0)
    work.upkeep.tick(now=1003.0)
    assert len(work.refreshes) == 3


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
        work.upkeep.suggest(near_us(number), endpoint(number))
    assert work.upkeep.next_tick_at == FILL_INTERVAL
    pinged = []
    for _ in range(2):
        work.asked.clear()
        now = work.upkeep.next_tick_at
        work.upkeep.tick(now=now)
        pinged.append(len(work.asked))
        assert len(work.asked) <= EXAMS_PER_UPKEEP
    assert pinged == [4, 2]  # the saved node is one of them
    assert work.upkeep.next_tick_at == now + UPKEEP_INTERVAL


def test_a_filled_table_takes_its_time(work: Work) -> None:
    work.fill(2 * MIN_TABLE_NODES)
    work.upkeep.tick(now=0.0)
    work.upkeep.suggest(near_us(1), endpoint(1000))
    assert work.upkeep.next_tick_at == UPKEEP_INTERVAL


def test_an_idle_table_is_looked_after_less_often(work: Work) -> None:
    work.fill(50)
    work.upkeep.tick(now=0.0)
    assert work.upkeep.next_tick_at == IDLE_INTERVAL
    work.upkeep.suggest(near_us(1), endpoint(1000))
    assert work.upkeep.next_tick_at == UPKEEP_INTERVAL


def test_every_newcomer_is_examined_once(work: Work) -> None:
    work.fill(20, are_tested=False)
    num_nodes = len(work.table)
    for tick in range(30):
        work.upkeep.tick(now=float(tick))
    assert len({where for where, _ in work.asked}) == len(work.asked) == num_nodes
    for where, arguments in work.asked:
        node = work.table.get(where)
        assert node is not None
        assert isinstance(arguments, FindNode)
        assert arguments.target[:4] == node.node_id[:4]


def test_a_few_of_those_an_examined_node_names_come_next(work: Work) -> None:
    """Limit: N2. One liar cannot fill our table with its friends."""
    work.fill(20)
    target = work.examine(3).target
    work.asked.clear()
    response = work.neighbours(target, 1 << 30, 9000)
    work.waiters[0].answered(response, now=1.0)
    for tick in range(10):
        work.upkeep.tick(now=5.0 + tick)
    expected = {endpoint(9000 + rank) for rank in range(1, SUGGESTIONS_PER_EXAM + 1)}
    assert {where for where, _ in work.asked} == expected


def test_whose_neighbours_are_too_thin_or_too_dense_goes(work: Work) -> None:
    """Limit: N2. Accomplices know few nodes; those made up lie too near."""
    work.fill(50)
    for number in range(20):
        work.claim(number, 5000 + 100 * number)
    num_before = len(work.table)
    assert work.upkeep.next_tick_at == UPKEEP_INTERVAL
    for liar, size in ((21, 700), (22, 1 << 140)):
        work.claim(liar, size)
        assert work.table.get(endpoint(liar)) is None
    work.claim(23, 2500)
    assert work.table.get(endpoint(23)) is not None
    assert len(work.table) == num_before - 2
    # It does not come back before its time.
    work.fill(50, now=10.0)
    assert len(work.table) == num_before - 2
    work.upkeep.tick(now=SUSPICION_LIFETIME)
    work.fill(50, now=SUSPICION_LIFETIME)
    assert len(work.table) == num_before


def test_a_liar_names_nobody_to_us(work: Work) -> None:
    work.fill(50)
    for number in range(20):
        work.claim(number, 5000)
    for _ in range(100):
        work.upkeep.tick(now=0.0)
    work.claim(21, 700, first=20_000)
    work.asked.clear()
    work.upkeep.tick(now=0.0)
    assert work.asked == []


def test_who_passed_before_is_examined_again_when_the_network_looks_larger(work: Work) -> None:
    work.fill(50)
    for number in range(9):
        work.claim(number, 700)
    assert work.table.vetting.take_untested() is None
    for number in range(30):
        work.claim(10 + number, 7000)
        due = work.table.vetting.take_untested()
        if due is not None:
            break
    assert due is not None
    for number in range(20):
        work.claim(20 + number, 7000)
    (number,) = [n for n in range(9) if endpoint(n) == due[1]]
    work.claim(number, 700)
    assert work.table.get(endpoint(number)) is None


def test_an_answer_under_another_id_is_no_examination(work: Work) -> None:
    work.fill(20)
    target = work.examine(3).target
    response = work.neighbours(target, 1 << 30, 9000)
    other = Response(transaction_id=b"t", node_id=b"z" * 20, nodes=response.nodes)
    work.asked.clear()
    work.waiters[0].answered(other, now=1.0)
    work.waiters[0].slowed(now=1.0)
    work.waiters[0].failed(QueryTimeout(), now=1.0)
    work.upkeep.tick(now=5.0)
    assert work.asked == []


def test_who_names_nobody_is_judged_by_a_large_network_only(work: Work) -> None:
    work.fill(50)
    silent = Response(transaction_id=b"t", node_id=b"")
    for is_large in (False, True):
        if is_large:
            for number in range(20):
                work.claim(number, 5000)
        target = work.examine(30).target
        answer = Response(transaction_id=silent.transaction_id, node_id=target)
        work.waiters[0].answered(answer, now=1.0)
        assert (work.table.get(endpoint(30)) is None) == is_large
