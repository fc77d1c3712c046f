"""policy.dht_rounds: whose turn it is in the DHT."""

from __future__ import annotations

import itertools
import random
import weakref

import pytest

from bittern.policy.dht_rounds import (
    ANNOUNCE_INTERVAL,
    EMPTY_WAIT,
    IDLE_WAIT,
    MAX_ACTIVE,
    MIN_WAIT,
    PACE,
    SPREAD,
    DhtRounds,
)

SOONEST = ANNOUNCE_INTERVAL * (1 - SPREAD)


class Scene:
    """Rounds of torrents that are numbers; lookups take a second."""

    def __init__(self, rng: random.Random) -> None:
        self.hungry: set[int] = set()
        self.asked_at: dict[int, list[tuple[float, bool]]] = {}
        self.was_stored = True
        self.num_queries = 20
        self.rounds: DhtRounds[int] = DhtRounds(rng, self.hungry.__contains__)

    def run(self, until: float, now: float = 0.0) -> None:
        ends: list[tuple[float, int]] = []
        while True:
            due_at = self.rounds.next_timer()
            instants = [end for end, _ in ends] + ([] if due_at is None else [due_at])
            if not instants or min(instants) >= until:
                return
            now = max(now, min(instants))
            for end, key in [each for each in ends if each[0] <= now]:
                ends.remove((end, key))
                self.rounds.ended(
                    key, now=now, was_stored=self.was_stored, num_queries=self.num_queries
                )
            found = self.rounds.due(now=now)
            if found is not None:
                key, is_announce = found
                assert self.rounds.next_at(key) is None
                self.asked_at.setdefault(key, []).append((now, is_announce))
                ends.append((now + 1, key))


@pytest.fixture
def scene(rng: random.Random) -> Scene:
    return Scene(rng)


def test_who_needs_nobody_is_announced_every_quarter_of_an_hour(scene: Scene) -> None:
    scene.rounds.add(1, now=0.0)
    scene.run(7200)
    instants = [at for at, _ in scene.asked_at[1]]
    assert instants[0] == 0
    assert all(is_announce for _, is_announce in scene.asked_at[1])
    gaps = [after - before for before, after in itertools.pairwise(instants)]
    assert all(SOONEST <= gap <= ANNOUNCE_INTERVAL + 2 for gap in gaps)
    assert 7 <= len(gaps) <= 9


class Torrent:
    """Something that can be seen to be gone."""


def test_a_torrent_that_was_removed_is_not_kept(rng: random.Random) -> None:
    """Others come before it in the queue, so its entry stays there until its instant comes."""
    rounds: DhtRounds[Torrent] = DhtRounds(rng, lambda _: False)
    stays, goes = Torrent(), Torrent()
    now = 0.0
    for torrent in (stays, goes):
        rounds.add(torrent, now=now)
        assert rounds.due(now=now) == (torrent, True)
        rounds.ended(torrent, now=now, was_stored=True, num_queries=1)
        now += PACE
    rounds.remove(goes)
    seen = weakref.ref(goes)
    del goes, torrent
    assert seen() is None
    assert rounds.due(now=ANNOUNCE_INTERVAL) == (stays, True)


def test_who_lacks_peers_is_looked_up_with_growing_waits(scene: Scene) -> None:
    scene.hungry.add(1)
    scene.rounds.add(1, now=0.0)
    scene.run(ANNOUNCE_INTERVAL * 0.85)
    instants = [at for at, _ in scene.asked_at[1]]
    assert instants == [0, 31, 92, 213, 454]
    assert [is_announce for _, is_announce in scene.asked_at[1]] == [True] + 4 * [False]


def test_who_comes_to_lack_peers_is_noticed_within_a_minute(scene: Scene) -> None:
    scene.rounds.add(1, now=0.0)
    scene.run(100)
    scene.hungry.add(1)
    scene.run(200, now=100.0)
    assert [is_announce for _, is_announce in scene.asked_at[1]] == [True, False, False]
    assert scene.asked_at[1][1][0] <= 100 + IDLE_WAIT
    assert scene.asked_at[1][2][0] - scene.asked_at[1][1][0] == MIN_WAIT + 1


def test_who_lacks_peers_is_announced_as_often_as_others(scene: Scene) -> None:
    scene.hungry.add(1)
    scene.rounds.add(1, now=0.0)
    scene.run(7200)
    announced = [at for at, is_announce in scene.asked_at[1] if is_announce]
    gaps = [after - before for before, after in itertools.pairwise(announced)]
    assert all(SOONEST <= gap <= ANNOUNCE_INTERVAL + 2 for gap in gaps)
    assert len(gaps) >= 7
    scene.rounds.hurry(1, now=7200.0)
    scene.run(7200 + MIN_WAIT + 2, now=7200.0)
    late = [at for at, _ in scene.asked_at[1] if at >= 7200]
    assert late == [7200, 7201 + MIN_WAIT], "its waits begin anew"


def test_any_history_keeps_to_the_limit_and_to_the_instants(rng: random.Random) -> None:
    """Whatever leaves, comes back or ends twice."""
    rounds: DhtRounds[int] = DhtRounds(rng, lambda _: rng.random() < 0.5)
    active: set[int] = set()
    now = 0.0
    for _ in range(3000):
        now += rng.choice((0.0, PACE, 1.0, 60.0))
        key = rng.randrange(3 * MAX_ACTIVE)
        match rng.randrange(6):
            case 0 if rounds.next_at(key) is None and key not in active:
                rounds.remove(key)
                rounds.add(key, now=now)
            case 1:
                rounds.remove(key)
                active.discard(key)
            case 2:
                rounds.hurry(key, now=now)
            case 3:
                rounds.ended(key, now=now, was_stored=rng.random() < 0.5, num_queries=1)
                active.discard(key)
            case _:
                due_at = {each: rounds.next_at(each) for each in range(3 * MAX_ACTIVE)}
                found = rounds.due(now=now)
                if found is not None:
                    at = due_at[found[0]]
                    assert at is not None
                    assert at <= now
                    active.add(found[0])
        assert len(active) <= MAX_ACTIVE
        is_full = len(active) == MAX_ACTIVE
        assert (rounds.next_timer() is None) == (is_full or len(rounds) == len(active))


def test_what_nobody_took_is_announced_again(scene: Scene) -> None:
    scene.was_stored = False
    scene.rounds.add(1, now=0.0)
    scene.run(100)
    assert scene.asked_at[1] == [(0, True), (31, True), (92, True)]


def test_without_nodes_it_is_tried_again_soon_since_that_costs_nothing(scene: Scene) -> None:
    scene.was_stored, scene.num_queries = False, 0
    scene.rounds.add(1, now=0.0)
    scene.run(20)
    assert [at for at, _ in scene.asked_at[1]] == [0, 1 + EMPTY_WAIT, 2 + 2 * EMPTY_WAIT, 18]
    scene.num_queries = 9
    scene.run(1000, now=20.0)
    assert [at for at, _ in scene.asked_at[1][4:6]] == [19 + EMPTY_WAIT, 25 + MIN_WAIT]


def test_many_take_turns(scene: Scene) -> None:
    for key in range(1000):
        scene.rounds.add(key, now=0.0)
    for number in range(MAX_ACTIVE):
        assert scene.rounds.next_timer() == pytest.approx(number * PACE)
        assert scene.rounds.due(now=number * PACE) == (number, True)
        assert scene.rounds.due(now=number * PACE) is None
    assert scene.rounds.next_timer() is None
    assert scene.rounds.due(now=100.0) is None


def test_turns_go_to_whoever_waits_longest(scene: Scene) -> None:
    for key in range(100):
        scene.rounds.add(key, now=0.0)
    scene.run(21)
    instants = [scene.asked_at[key][0][0] for key in range(100)]
    assert instants == pytest.approx([number * PACE for number in range(100)])


def test_hurry_comes_before_the_time_but_not_twice_at_once(scene: Scene) -> None:
    rounds = scene.rounds
    rounds.add(1, now=0.0)
    assert rounds.due(now=0.0) == (1, True)
    rounds.hurry(1, now=0.5)
    assert rounds.due(now=0.5) is None
    rounds.ended(1, now=1.0, was_stored=True, num_queries=9)
    rounds.hurry(1, now=2.0)
    assert rounds.next_at(1) == 2.0
    assert rounds.due(now=2.0) == (1, True)
    rounds.hurry(9, now=2.0)


def test_who_is_hurried_while_it_is_looked_up_has_another_turn(scene: Scene) -> None:
    """Its second hash is known now, or it is a seed, which the announce under way does not say."""
    rounds = scene.rounds
    rounds.add(1, now=0.0)
    assert rounds.due(now=0.0) == (1, True)
    rounds.hurry(1, now=0.5)
    rounds.ended(1, now=1.0, was_stored=True, num_queries=9)
    assert rounds.due(now=1.0) == (1, True)
    rounds.ended(1, now=2.0, was_stored=True, num_queries=9)
    assert rounds.due(now=100.0) is None


def test_all_can_be_hurried_and_take_turns(scene: Scene) -> None:
    for key in range(3):
        scene.rounds.add(key, now=0.0)
    scene.run(5)
    asked = {key: len(instants) for key, instants in scene.asked_at.items()}
    scene.rounds.hurry_all(now=5.0)
    scene.run(10, now=5.0)
    assert {key: len(instants) for key, instants in scene.asked_at.items()} == {
        key: number + 1 for key, number in asked.items()
    }


def test_who_leaves_gives_its_place_back(scene: Scene) -> None:
    rounds = scene.rounds
    for key in range(MAX_ACTIVE + 1):
        rounds.add(key, now=0.0)
    for number in range(MAX_ACTIVE):
        rounds.due(now=float(number))
    rounds.remove(0)
    rounds.remove(0)
    assert rounds.next_at(0) is None
    assert rounds.due(now=9.0) == (MAX_ACTIVE, True)
    rounds.ended(0, now=9.0, was_stored=True, num_queries=1)
    rounds.ended(1, now=9.0, was_stored=True, num_queries=1)
    rounds.ended(1, now=9.0, was_stored=True, num_queries=1)
    rounds.remove(1)
    assert len(rounds) == MAX_ACTIVE - 1
    assert rounds.next_timer() is None
