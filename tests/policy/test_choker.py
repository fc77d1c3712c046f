"""Scenes are tables of peers; a small simulated seed and leecher show fairness over time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.policy.choker import MAX_ROUNDS_HELD, ChokeDecision, Choker, PeerStanding


def peer(key: Hashable, drawn: str = "ci", down: float = 0, up: float = 1e5) -> PeerStanding:
    """
    A standing drawn as letters.

    ``c`` we choke it (``u`` if not), ``i`` it is interested, ``s`` it snubs us,
    ``o`` it is upload only.
    """
    return PeerStanding(
        key=key,
        am_choking="c" in drawn,
        peer_interested="i" in drawn,
        download_rate=down,
        upload_rate=0.0 if "c" in drawn else up,
        is_snubbing="s" in drawn,
        is_upload_only="o" in drawn,
    )


@dataclass
class Sim:
    """A peer of the simulation: what it wants and gives, and what it got."""

    key: Hashable
    gives: float = 0.0
    takes: float = 1e6
    interested: bool = True
    am_choking: bool = True
    received: float = 0.0
    choked_for: int = 0
    longest_wait: int = 0


def play(
    choker: Choker,
    sims: list[Sim],
    rounds: int,
    *,
    is_seeding: bool,
    capacity: float = 1e6,
    start: float = 0.0,
) -> list[ChokeDecision]:
    """
    Run rounds of ten seconds and share ``capacity`` among the unchoked peers.

    A peer gives only while it gets, as tit for tat teaches it. The limit of H16
    and the number of slots are checked in every round.
    """
    step = choker.choke_interval
    decisions = []
    held: Counter[Hashable] = Counter()
    rates = dict.fromkeys((sim.key for sim in sims), 0.0)
    for turn in range(rounds):
        standings = [
            PeerStanding(
                key=sim.key,
                am_choking=sim.am_choking,
                peer_interested=sim.interested,
                download_rate=0.0 if sim.am_choking else sim.gives,
                upload_rate=rates[sim.key],
            )
            for sim in sims
        ]
        waited = {sim.key for sim in sims if sim.interested and sim.am_choking}
        decision = choker.decide(standings, now=start + turn * step, is_seeding=is_seeding)
        decisions.append(decision)
        for sim in sims:
            assert (sim.key in decision.choke) <= (not sim.am_choking)
            assert (sim.key in decision.unchoke) <= sim.am_choking
            if sim.key in decision.choke or sim.key in decision.unchoke:
                sim.am_choking = not sim.am_choking
            held[sim.key] = 0 if sim.am_choking else held[sim.key] + 1
            sim.choked_for = sim.choked_for + 1 if sim.am_choking and sim.interested else 0
            sim.longest_wait = max(sim.longest_wait, sim.choked_for)
        using = [sim for sim in sims if not sim.am_choking and sim.interested]
        assert decision.optimistic in {None, *(sim.key for sim in using)}
        if choker.num_slots is not None:
            assert len(using) == min(choker.num_slots, sum(sim.interested for sim in sims))
        if is_seeding and any(held[sim.key] > MAX_ROUNDS_HELD for sim in using):
            assert waited <= set(decision.unchoke), "a turn went on while others waited"
        rates = dict.fromkeys((sim.key for sim in sims), 0.0)
        for sim in using:
            rates[sim.key] = min(sim.takes, capacity / len(using))
            sim.received += rates[sim.key] * step
    return decisions


# --- single rounds -----------------------------------------------------------------------


def test_everyone_interested_is_unchoked_while_there_is_room() -> None:
    choker = Choker(random.Random(0), 4)
    standings = [peer(1), peer(2, "c"), peer(3), peer(4, "u"), peer(5, "ui"), peer(6, "cio")]
    decision = choker.decide(standings, now=0.0, is_seeding=False)
    assert decision == ChokeDecision(choke=[4], unchoke=[1, 3], optimistic=None)


def test_without_a_limit_everyone_interested_is_unchoked_and_nobody_choked() -> None:
    choker = Choker(random.Random(0), None)
    standings = [peer(i) for i in range(300)] + [peer("idle", "u"), peer("seed", "uio")]
    decision = choker.decide(standings, now=0.0, is_seeding=True)
    assert decision.unchoke == list(range(300))
    assert decision.choke == ["seed"]
    assert choker.admit("new", now=1.0)


def test_the_fastest_givers_hold_the_regular_slots() -> None:
    choker = Choker(random.Random(0), 4)
    standings = [
        peer("slow", "ui", down=1e4),
        peer("fast", "ui", down=9e5),
        peer("good", "ui", down=5e5),
        peer("mute", "ui", down=0),
        peer("late", "ci", down=6e5),
        peer("snub", "cis", down=9e9),
        peer("away", "c", down=9e9),
    ]
    decision = choker.decide(standings, now=0.0, is_seeding=False)
    assert decision.optimistic == "snub"
    assert set(decision.unchoke) == {"late", "snub"}
    assert set(decision.choke) == {"slow", "mute"}


def test_equal_givers_do_not_change_places() -> None:
    choker = Choker(random.Random(0), 3)
    standings = [peer(i, "ci", down=500.0) for i in range(3)]
    standings += [peer(i, "ui", down=500.0) for i in range(3, 5)]
    decision = choker.decide(standings, now=0.0, is_seeding=False)
    assert decision.choke == []
    assert decision.unchoke == [decision.optimistic]


def test_slots_that_no_giver_takes_go_to_the_others() -> None:
    choker = Choker(random.Random(0), 4)
    standings = [peer("giver", "ci", down=5e5)] + [peer(i) for i in range(9)]
    decision = choker.decide(standings, now=0.0, is_seeding=False)
    assert len(decision.unchoke) == 4
    assert decision.unchoke[:3] == ["giver", 0, 1]


def test_speed_earns_nothing_from_a_seed() -> None:
    choker = Choker(random.Random(0), 3)
    standings = [peer("a"), peer("b"), peer("greedy", "ci", down=9e9), peer("d"), peer("e")]
    decision = choker.decide(standings, now=0.0, is_seeding=True)
    assert decision.unchoke[:2] == ["a", "b"]


def test_a_slot_that_is_not_used_is_lost_after_one_round() -> None:
    choker = Choker(random.Random(0), 3)
    first = choker.decide([peer(i) for i in range(8)], now=0.0, is_seeding=True)
    idle, busy = (key for key in first.unchoke if key != first.optimistic)
    standings = [peer(i, "ui" if i in first.unchoke else "ci") for i in range(8)]
    standings[int(str(idle))] = peer(idle, "ui", up=0.0)
    second = choker.decide(standings, now=10.0, is_seeding=True)
    assert second.choke == [idle]
    assert busy not in second.choke
    assert second.optimistic == first.optimistic


def test_one_slot_goes_to_the_best_giver_and_round_when_nobody_gives() -> None:
    choker = Choker(random.Random(0), 1)
    standings = [peer("a", "ui"), peer("b", "ci", down=5e4), peer("c")]
    decision = choker.decide(standings, now=0.0, is_seeding=False)
    assert decision == ChokeDecision(choke=["a"], unchoke=["b"], optimistic=None)
    sims = [Sim(i) for i in range(5)]
    play(Choker(random.Random(0), 1), sims, 60, is_seeding=False)
    assert all(sim.received > 0 for sim in sims)


def test_fewer_slots_choke_at_the_next_round() -> None:
    choker = Choker(random.Random(3), 8)
    sims = [Sim(i) for i in range(20)]
    play(choker, sims, 2, is_seeding=True)
    choker.num_slots = 2
    play(choker, sims, 9, is_seeding=True, start=20.0)
    choker.num_slots = 1
    play(choker, sims, 9, is_seeding=True, start=110.0)
    assert sum(not sim.am_choking for sim in sims) == 1


def test_turns_end_although_rounds_are_not_held_on_the_dot() -> None:
    choker = Choker(random.Random(0), 2)
    standings = [peer(i) for i in range(5)]
    for turn in range(4):
        decision = choker.decide(standings, now=turn * 9.99, is_seeding=True)
        assert bool(decision.choke) == (turn == 3)
        standings = [
            peer(s.key, "ui" if s.key in decision.unchoke or not s.am_choking else "ci")
            for s in standings
        ]


def test_a_peer_admitted_just_before_a_round_is_not_called_idle() -> None:
    choker = Choker(random.Random(0), 3)
    for at, key in enumerate("abcd"):
        choker.admit(key, now=9.0 + at / 10)
    standings = [peer(key, "ui", up=0.0) for key in "abc"] + [peer("d")]
    decision = choker.decide(standings, now=10.0, is_seeding=True)
    assert decision == ChokeDecision(choke=["a"], unchoke=["d"], optimistic="d")


# --- the optimistic unchoke --------------------------------------------------------------


def test_the_optimistic_unchoke_lasts_thirty_seconds() -> None:
    sims = [Sim(i, gives=1e5) for i in range(3)] + [Sim(i) for i in range(3, 20)]
    decisions = play(Choker(random.Random(1), 4), sims, 60, is_seeding=False)
    held = [decision.optimistic for decision in decisions[12:]]
    for at in range(0, len(held) - 3, 3):
        assert held[at] == held[at + 1] == held[at + 2] != held[at + 3]


def test_an_optimistic_peer_that_gives_becomes_regular_and_the_next_is_tried() -> None:
    choker = Choker(random.Random(0), 2)
    first = choker.decide(
        [peer("a", "ui", down=100.0), peer("b"), peer("c")], now=0.0, is_seeding=False
    )
    assert first.optimistic in {"b", "c"}
    chosen = first.optimistic
    other = "c" if chosen == "b" else "b"
    standings = [peer("a", "ui", down=100.0), peer(chosen, "ui", down=9e4), peer(other)]
    second = choker.decide(standings, now=10.0, is_seeding=False)
    assert second == ChokeDecision(choke=["a"], unchoke=[other], optimistic=other)


@pytest.mark.parametrize("change", ["left", "lost interest"])
def test_the_optimistic_unchoke_is_given_anew_when_its_holder_is_gone(change: str) -> None:
    choker = Choker(random.Random(0), 2)
    first = choker.decide([peer(i) for i in range(5)], now=0.0, is_seeding=True)
    rest = [peer(i, "ui" if i in first.unchoke else "ci") for i in range(5)]
    rest = [s for s in rest if s.key != first.optimistic]
    if change == "left":
        choker.remove(first.optimistic)
    else:
        rest.append(peer(first.optimistic, "u"))
    second = choker.decide(rest, now=10.0, is_seeding=True)
    assert second.unchoke == [second.optimistic]
    assert second.optimistic != first.optimistic


def test_new_connections_are_three_times_as_likely() -> None:
    counted: Counter[Hashable] = Counter()
    for seed in range(600):
        choker = Choker(random.Random(seed), 2)
        everyone = [peer("giver", "ui", down=1e5)] + [peer(i, "ui") for i in range(4)]
        choker.decide(everyone, now=0.0, is_seeding=False)
        standings = [peer("giver", "ui", down=1e5)] + [peer(i) for i in range(4)] + [peer("new")]
        counted[choker.decide(standings, now=60.0, is_seeding=False).optimistic] += 1
    old = sum(counted[i] for i in range(4)) / 4
    assert 2.2 < counted["new"] / old < 4.0


# --- between rounds ----------------------------------------------------------------------


def test_admit_gives_a_free_slot_at_once_but_not_past_those_who_wait() -> None:
    choker = Choker(random.Random(0), 2)
    assert choker.admit("a", now=0.0)
    assert not choker.admit("a", now=0.1)
    assert choker.admit("b", now=0.2)
    assert not choker.admit("c", now=0.3)
    assert repr(choker) == "<Choker 2 of 2 slots, 1 wait>"
    choker.remove("a")
    choker.remove("unknown")
    assert not choker.admit("d", now=0.4)
    decision = choker.decide([peer("b", "ui"), peer("d"), peer("c")], now=10.0, is_seeding=True)
    assert decision.choke == []
    assert "c" in decision.unchoke or decision.optimistic == "d"


def test_slots_that_a_round_left_free_are_given_at_once() -> None:
    choker = Choker(random.Random(0), 3)
    standings = [peer(1), peer(2), peer("needs nothing", "cio")]
    assert len(choker.decide(standings, now=0.0, is_seeding=True).unchoke) == 2
    assert choker.admit("new", now=1.0), "nobody waits any more"


def test_a_slot_is_free_when_the_connection_says_that_its_holder_is_choked() -> None:
    choker = Choker(random.Random(0), 1)
    assert choker.admit("a", now=0.0)
    choker.decide([peer("a", "c")], now=10.0, is_seeding=True)
    assert choker.admit("b", now=11.0)


def test_who_asked_first_is_served_first() -> None:
    choker = Choker(random.Random(0), 3)
    for at, key in enumerate("abcdefg"):
        choker.admit(key, now=float(at))
    standings = [peer(key, "ui" if key in "abc" else "ci", up=0) for key in "gfedcba"]
    decision = choker.decide(standings, now=20.0, is_seeding=True)
    assert {"d", "e"} <= set(decision.unchoke)
    assert set(decision.choke) == {"a", "b", "c"}


def test_peers_that_left_or_lost_interest_do_not_wait() -> None:
    choker = Choker(random.Random(0), 2)
    choker.decide([peer(i) for i in range(6)], now=0.0, is_seeding=True)
    choker.decide([peer(0, "u"), peer(1, "c")], now=10.0, is_seeding=True)
    assert repr(choker) == "<Choker 0 of 2 slots, 0 wait>"
    assert choker.admit(1, now=11.0)


def test_a_peer_choked_in_a_round_waits_from_then_on() -> None:
    choker = Choker(random.Random(0), 1)
    choker.admit("a", now=0.0)
    decision = choker.decide([peer("a", "ui"), peer("b")], now=60.0, is_seeding=True)
    assert decision == ChokeDecision(choke=["a"], unchoke=["b"], optimistic=None)
    choker.remove("b")
    assert not choker.admit("c", now=61.0)


def test_nothing_is_kept_of_peers_that_left() -> None:
    choker = Choker(random.Random(0), 2)
    for turn in range(5):
        choker.decide([peer((turn, i)) for i in range(9)], now=turn * 10.0, is_seeding=True)
    choker.decide([], now=60.0, is_seeding=True)
    kept = [getattr(choker, name) for name in Choker.__slots__]
    assert all(not value for value in kept if isinstance(value, (dict, set)))


# --- over time ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_seed_starves_nobody_and_shares_evenly() -> None:
    sims = [Sim(i) for i in range(40)]
    play(Choker(random.Random(7), 8), sims, 400, is_seeding=True)
    received = [sim.received for sim in sims]
    assert min(received) > 0.6 * sum(received) / len(sims)
    assert max(received) < 1.5 * sum(received) / len(sims)
    # 33 wait for 7 places of 3 rounds each: everyone is served within 5 turns.
    assert max(sim.longest_wait for sim in sims) <= 16


def test_peers_that_use_their_slot_get_most_of_it() -> None:
    sims = [Sim(i) for i in range(10)] + [Sim(i, takes=0.0) for i in range(10, 30)]
    play(Choker(random.Random(7), 4), sims, 400, is_seeding=True)
    assert min(sim.received for sim in sims[:10]) > 0
    rounds_used = sum(sim.received for sim in sims[:10]) / (1e6 / 4 * 10)
    assert rounds_used > 400 * 4 * 0.4  # by head count it would be a third


@pytest.mark.slow
@pytest.mark.parametrize("num_attackers", [3, 16])
@pytest.mark.parametrize("is_reconnecting", [False, True])
def test_greedy_peers_get_no_more_than_their_share_of_a_seed(
    num_attackers: int, is_reconnecting: bool
) -> None:
    """Limit: H16. In a laboratory three such peers slowed 32 honest ones by up to 415 %."""
    honest = [Sim(("honest", i), takes=2e5) for i in range(32)]
    attackers = [Sim(("attacker", i), takes=1e9, gives=1e9) for i in range(num_attackers)]
    choker = Choker(random.Random(5), 8)
    for turn in range(250):
        play(choker, honest + attackers, 1, is_seeding=True, start=turn * 10.0)
        for i, sim in enumerate(attackers):
            if is_reconnecting and sim.am_choking and turn % 4 == 0:
                sim.key = ("attacker", i, turn)
    mean = sum(sim.received for sim in honest) / 32
    fair = 250 * 10 * 1e6 / (32 + num_attackers)
    assert mean > 0.8 * fair
    assert min(sim.received for sim in honest) > 0.5 * fair


def test_tit_for_tat_favours_those_who_give() -> None:
    givers = [Sim(("giver", i), gives=1e5 * (i + 1)) for i in range(5)]
    riders = [Sim(("rider", i)) for i in range(25)]
    play(Choker(random.Random(11), 6), givers + riders, 300, is_seeding=False)
    assert min(sim.received for sim in givers) > 10 * max(sim.received for sim in riders)
    assert min(sim.received for sim in riders) > 0


def test_the_best_givers_are_found_by_optimism_and_kept() -> None:
    sims = [Sim(i, gives=1e4) for i in range(20)] + [Sim(i, gives=1e6) for i in range(20, 23)]
    play(Choker(random.Random(2), 4), sims, 300, is_seeding=False)
    assert not any(sim.am_choking for sim in sims[20:])


standings_lists = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.0, 50.0, 1e3, 1e6]), st.booleans()),
    max_size=14,
)


@pytest.mark.slow
@given(st.lists(standings_lists, max_size=6), st.integers(1, 5), st.booleans(), st.integers(0, 9))
def test_any_history_keeps_the_number_of_slots(
    rounds: list[list[tuple[bool, bool, float, bool]]],
    num_slots: int,
    is_seeding: bool,
    seed: int,
) -> None:
    """Also when the shell's flags differ from what the choker decided."""
    choker = Choker(random.Random(seed), num_slots)
    for turn, drawn in enumerate(rounds):
        standings = [
            peer(i, "c" * choking + "i" * interested + "s" * snubs, down=rate, up=rate)
            for i, (choking, interested, rate, snubs) in enumerate(drawn)
        ]
        decision = choker.decide(standings, now=turn * 10.0, is_seeding=is_seeding)
        unchoked = {s.key for s in standings if not s.am_choking}
        wanting = {s.key for s in standings if s.peer_interested}
        assert set(decision.choke) <= unchoked
        assert not set(decision.unchoke) & unchoked
        after = unchoked - set(decision.choke) | set(decision.unchoke)
        assert after <= wanting
        assert len(after) == min(num_slots, len(wanting))
        assert decision.optimistic is None or decision.optimistic in after
