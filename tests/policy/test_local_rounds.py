"""policy.local_rounds: when the local network hears of which swarms (BEP 14)."""

from __future__ import annotations

import itertools
import random

from bittern.core.ids import InfoHash
from bittern.policy.local_rounds import GATHERING_TIME, MIN_ROUND_INTERVAL, LocalRounds


def swarm(number: int) -> InfoHash:
    return InfoHash(number.to_bytes(20, "big"))


def play(rounds: LocalRounds, *, until: float, now: float = 0.0) -> list[tuple[float, list[int]]]:
    """Take every round until an instant."""
    taken = []
    while (at := rounds.next_timer()) is not None and at <= until:
        assert at >= now
        now = at
        taken.append((now, [int.from_bytes(key, "big") for key in rounds.take_round(now=now)]))
    return taken


def test_a_swarm_is_announced_at_once_after_a_minute_and_every_five() -> None:
    rounds = LocalRounds(10)
    rounds.add(swarm(1), now=100.0)
    assert [at for at, _ in play(rounds, until=1000.0)] == [100.5, 160.5, 460.5, 760.5]


def test_swarms_that_come_together_share_a_round() -> None:
    rounds = LocalRounds(10)
    for number in range(5):
        rounds.add(swarm(number), now=number / 100)
    taken = play(rounds, until=70.0)
    assert taken[0] == (GATHERING_TIME, [0])
    # Looked at a moment later, as a timer would, all have gathered.
    rounds = LocalRounds(10)
    for number in range(5):
        rounds.add(swarm(number), now=number / 100)
    assert rounds.take_round(now=0.49) == []
    assert len(rounds.take_round(now=0.6)) == 5


def test_bep14_there_is_at_most_one_round_a_minute() -> None:
    rounds = LocalRounds(3)
    rng = random.Random(5)
    for number in range(200):
        rounds.add(swarm(number), now=0.0)
    taken = play(rounds, until=3_600.0 * 3)
    instants = [at for at, _ in taken]
    assert all(b - a >= MIN_ROUND_INTERVAL for a, b in itertools.pairwise(instants))
    assert all(len(keys) == 3 for _, keys in taken)
    # Whoever waits longest comes first: nobody is forgotten, nobody comes twice before all were.
    order = [key for _, keys in taken[: 200 // 3] for key in keys]
    assert order == list(range(len(order)))
    rounds.add(swarm(rng.randrange(1000, 2000)), now=taken[-1][0] + 1)
    assert rounds.take_round(now=taken[-1][0] + 2) == []


def test_a_full_network_of_torrents_is_announced_every_five_minutes() -> None:
    rounds = LocalRounds(24)
    for number in range(5 * 24):
        rounds.add(swarm(number), now=0.0)
    taken = play(rounds, until=7_200.0)
    last: dict[int, float] = {}
    gaps = set()
    for at, keys in taken:
        for key in keys:
            if at > 1_000:
                gaps.add(at - last[key])
            last[key] = at
    assert gaps == {300.0}


def test_a_new_swarm_goes_before_those_that_wait() -> None:
    rounds = LocalRounds(1)
    for number in range(3):
        rounds.add(swarm(number), now=0.0)
    play(rounds, until=600.0)
    rounds.add(swarm(9), now=600.0)
    assert play(rounds, until=700.0)[0][1] == [9]


def test_what_is_removed_is_not_announced() -> None:
    rounds = LocalRounds(10)
    rounds.add(swarm(1), now=0.0)
    rounds.add(swarm(2), now=0.0)
    rounds.remove(swarm(1))
    rounds.remove(swarm(7))
    assert len(rounds) == 1
    assert [keys for _, keys in play(rounds, until=500.0)] == [[2], [2], [2]]
    rounds.remove(swarm(2))
    assert rounds.next_timer() is None
    assert rounds.take_round(now=5_000.0) == []


def test_when_others_may_hear_us_everything_is_due_again() -> None:
    rounds = LocalRounds(2)
    for number in range(4):
        rounds.add(swarm(number), now=0.0)
    play(rounds, until=1_000.0)
    rounds.make_all_due(now=1_010.0)
    taken = play(rounds, until=1_200.0, now=1_010.0)
    assert sorted(taken[0][1] + taken[1][1]) == [0, 1, 2, 3]
    assert taken[0][0] - 1_010.0 <= MIN_ROUND_INTERVAL


def test_a_swarm_stands_in_the_schedule_once() -> None:
    rounds = LocalRounds(10)
    rounds.add(swarm(1), now=0.0)
    rounds.take_round(now=1.0)
    rounds.add(swarm(1), now=100.0)
    assert len(rounds) == 1
    assert rounds.due_at(swarm(1)) == rounds.next_timer() == 100.0 + GATHERING_TIME
    rounds.take_round(now=101.0)
    rounds.add(swarm(2), now=500.0)
    assert rounds.next_timer() == 161.0, "the first that is due"
    rounds.make_all_due(now=1_000.0)
    assert len(rounds) == 2
    assert rounds.due_at(swarm(1)) == 1_000.0 + GATHERING_TIME


def test_when_a_swarm_is_due() -> None:
    rounds = LocalRounds(10)
    assert rounds.due_at(swarm(1)) is None
    rounds.add(swarm(1), now=0.0)
    assert rounds.due_at(swarm(1)) == 0.5
    rounds.take_round(now=0.5)
    assert rounds.due_at(swarm(1)) == 60.5
    rounds.add(swarm(2), now=1.0)
    assert rounds.due_at(swarm(2)) == 60.5, "the last round is not a minute old"
    rounds.take_round(now=60.5)
    assert rounds.due_at(swarm(1)) == 360.5


def test_whenever_a_timer_is_due_there_is_something_to_do(rng: random.Random) -> None:
    """Also where rounding makes a minute a little shorter; a loop would else ask for ever."""
    for _ in range(500):
        rounds = LocalRounds(1)
        now = rng.uniform(0, 1e6)
        for number in range(3):
            rounds.add(swarm(number), now=now)
        for _ in range(6):
            at = rounds.next_timer()
            assert at is not None
            assert rounds.take_round(now=at) != []
