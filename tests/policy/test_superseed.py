"""Peers are letters; what they have is drawn as a string with a character for each piece."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.bitfield import Bitfield
from bittern.policy.superseed import Revelation, SuperSeeder


def bits_of(drawn: str) -> int:
    return Bitfield.of(len(drawn), (i for i, sign in enumerate(drawn) if sign == "#")).bits


def draw(bits: int, num_pieces: int) -> str:
    field = Bitfield(num_pieces, bits)
    return "".join("#" if i in field else "." for i in range(num_pieces))


def test_each_peer_is_shown_a_piece_of_its_own() -> None:
    seeder = SuperSeeder(4, 1)
    assert seeder.peer_joined("a") == [("a", 0)]
    assert seeder.peer_joined("b") == [("b", 1)]
    assert seeder.peer_joined("c", bits_of("..#.")) == [("c", 3)]
    # nothing is left that is not out: one that nobody has goes to a second peer
    assert seeder.peer_joined("d") == [("d", 2)]
    assert seeder.peer_joined("e") == [("e", 0)]
    assert repr(seeder) == "<SuperSeeder 5 peers, 4 pieces out>"


def test_the_next_piece_comes_when_the_last_was_seen_at_another_peer() -> None:
    seeder = SuperSeeder(8, 1)
    seeder.peer_joined("a")
    seeder.peer_joined("b")
    assert seeder.piece_seen("a", 0) == []
    assert seeder.piece_seen("a", 0) == []
    assert seeder.piece_seen("b", 0) == [("a", 2)]


def test_a_piece_seen_elsewhere_first_waits_for_the_peer_itself() -> None:
    seeder = SuperSeeder(8, 1)
    seeder.peer_joined("a")
    seeder.peer_joined("b")
    assert seeder.piece_seen("b", 0) == []
    assert seeder.piece_seen("a", 0) == [("a", 2)]


def test_two_peers_with_the_same_piece_count_for_each_other() -> None:
    seeder = SuperSeeder(1, 1)
    assert seeder.peer_joined("a") == [("a", 0)]
    assert seeder.peer_joined("b") == [("b", 0)]
    seeder = SuperSeeder(2, 1)
    seeder.peer_joined("a")
    seeder.peer_joined("b")
    seeder.peer_joined("c")
    assert seeder.piece_seen("a", 0) == []
    assert seeder.piece_seen("c", 0) == [("a", 1), ("c", 1)]


def test_pieces_that_are_rare_come_before_common_ones() -> None:
    seeder = SuperSeeder(5, 1)
    assert seeder.peer_joined("x", bits_of("##.#.")) == [("x", 2)]
    assert seeder.peer_joined("y", bits_of("#..#.")) == [("y", 4)]
    assert seeder.peer_joined("z") == [("z", 1)]


def test_a_single_peer_goes_on_by_itself() -> None:
    seeder = SuperSeeder(3, 1)
    assert seeder.peer_joined("a") == [("a", 0)]
    assert seeder.piece_seen("a", 0) == [("a", 1)]
    assert seeder.piece_seen("a", 1) == [("a", 2)]
    assert seeder.piece_seen("a", 2) == []
    assert seeder.num_copies == 1


def test_a_peer_has_two_pieces_to_choose_from() -> None:
    """Interop: Transmission wants nothing for ten seconds when it has the one piece it knew of."""
    seeder = SuperSeeder(8)
    assert seeder.peer_joined("a") == [("a", 0), ("a", 1)]
    assert seeder.piece_seen("a", 1) == [("a", 2)]
    assert seeder.piece_seen("a", 0) == [("a", 3)]
    assert seeder.peer_joined("b") == [("b", 4), ("b", 5)]
    assert repr(seeder) == "<SuperSeeder 2 peers, 4 pieces out>"
    assert seeder.piece_seen("a", 2) == []
    assert seeder.piece_seen("a", 3) == []
    assert seeder.piece_seen("b", 3) == [("a", 6)]
    assert seeder.bitfield_seen("b", bits_of("...###..")) == [("b", 7), ("b", 0)]
    assert seeder.peer_left("b") == [("a", 4)]
    assert repr(seeder) == "<SuperSeeder 1 peers, 2 pieces out>"


def test_a_peer_left_alone_is_not_left_waiting() -> None:
    seeder = SuperSeeder(6, 1)
    for key in "abc":
        seeder.peer_joined(key)
    seeder.piece_seen("a", 0)
    assert seeder.peer_left("b") == []
    assert seeder.peer_left("c") == [("a", 1)]
    assert seeder.peer_left("a") == []
    assert seeder.peer_left("a") == []
    assert seeder.num_copies == 0


def test_a_piece_out_at_a_peer_that_left_is_shown_to_another() -> None:
    seeder = SuperSeeder(6, 1)
    seeder.peer_joined("a")
    seeder.peer_joined("b")
    seeder.peer_left("a")
    assert seeder.peer_joined("c") == [("c", 0)]


def test_a_bitfield_that_comes_late_replaces_a_piece_shown_in_vain() -> None:
    seeder = SuperSeeder(4, 1)
    seeder.peer_joined("a")
    assert seeder.peer_joined("b") == [("b", 1)]
    assert seeder.bitfield_seen("b", bits_of(".#..")) == [("b", 2)]
    assert seeder.bitfield_seen("a", bits_of("....")) == []
    assert draw(seeder.unshown("b"), 4) == "#..#"


def test_a_piece_that_was_shown_in_vain_is_waited_for_no_more() -> None:
    seeder = SuperSeeder(4, 1)
    for key in "abc":
        seeder.peer_joined(key)
    assert seeder.bitfield_seen("a", bits_of("#...")) == [("a", 3)]
    assert repr(seeder) == "<SuperSeeder 3 peers, 3 pieces out>"
    assert seeder.piece_seen("b", 0) == []
    assert seeder.piece_seen("b", 3) == []
    assert seeder.piece_seen("a", 3) == [("a", 1)]


def test_a_peer_that_has_been_shown_everything_may_leave() -> None:
    seeder = SuperSeeder(1)
    assert seeder.peer_joined("a") == [("a", 0)]
    assert seeder.piece_seen("a", 0) == []
    assert seeder.peer_left("a") == []
    assert seeder.peer_joined("b") == [("b", 0)]
    assert repr(seeder) == "<SuperSeeder 1 peers, 1 pieces out>"


def test_what_a_peer_has_is_counted_once_however_often_it_is_told() -> None:
    seeder = SuperSeeder(2, 1)
    seeder.peer_joined("a", bits_of("##"))
    seeder.bitfield_seen("a", bits_of("##"))
    seeder.piece_seen("a", 1)
    assert seeder.num_copies == 1
    seeder.peer_left("a")
    assert seeder.num_copies == 0


def test_a_peer_that_knows_everything_is_only_counted() -> None:
    seeder = SuperSeeder(3, 1)
    seeder.peer_joined("a")
    assert seeder.bitfield_seen("old", bits_of("..#")) == []
    assert seeder.piece_seen("a", 0) == []
    assert seeder.piece_seen("old", 0) == [("a", 1)]
    assert seeder.piece_seen("older", 1) == []
    assert seeder.unshown("old") == seeder.unshown("oldest") == 0
    assert seeder.is_shown("old", 1)
    assert seeder.peer_left("old") == seeder.peer_left("older") == []
    assert seeder.piece_seen("a", 1) == [("a", 2)]


def test_a_newcomer_may_prove_that_a_piece_was_passed_on() -> None:
    seeder = SuperSeeder(4, 1)
    seeder.peer_joined("a")
    seeder.peer_joined("b")
    seeder.piece_seen("a", 0)
    assert seeder.peer_joined("c", bits_of("#...")) == [("a", 2), ("c", 3)]


def test_a_seed_is_shown_nothing() -> None:
    seeder = SuperSeeder(4, 1)
    assert seeder.peer_joined("s", bits_of("####")) == []
    assert seeder.peer_joined("a") == [("a", 0)]
    assert seeder.piece_seen("a", 0) == [("a", 1)]
    assert seeder.num_copies == 1
    seeder.peer_left("s")


def test_only_what_was_shown_is_served() -> None:
    seeder = SuperSeeder(4, 1)
    seeder.peer_joined("a", bits_of("..#."))
    assert [seeder.is_shown("a", i) for i in range(4)] == [True, False, False, False]
    assert seeder.is_shown("who was told of everything before", 0)
    assert draw(seeder.unshown("a"), 4) == ".#.#"


@pytest.mark.parametrize("num_shown", [1, 2])
@pytest.mark.parametrize("num_peers", [1, 2, 12])
def test_a_swarm_completes_with_little_more_than_one_copy_sent(
    num_peers: int, num_shown: int
) -> None:
    """BEP 16: 105 % where an ordinary seed sends 150 % and more."""
    num_pieces, rng = 200, random.Random(3)
    seeder = SuperSeeder(num_pieces, num_shown)
    has: dict[int, set[int]] = {key: set() for key in range(num_peers)}
    queue: list[Revelation] = []
    for newcomer in has:
        queue += seeder.peer_joined(newcomer)
    num_sent = 0
    while queue:
        rng.shuffle(queue)
        key, piece = queue.pop()
        assert isinstance(key, int)
        if piece not in has[key]:
            num_sent += 1
            has[key].add(piece)
            queue += seeder.piece_seen(key, piece)
        for other in rng.sample(range(num_peers), num_peers):
            for missing in sorted(has[key] - has[other]):
                has[other].add(missing)
                queue += seeder.piece_seen(other, missing)
    assert all(len(pieces) == num_pieces for pieces in has.values())
    assert num_sent <= 1.05 * num_pieces
    assert seeder.num_copies == num_peers


steps = st.tuples(
    st.sampled_from(["join", "leave", "have", "have", "have", "bitfield"]),
    st.integers(0, 4),
    st.integers(0, 6),
    st.sets(st.integers(0, 6)),
)


@pytest.mark.slow
@pytest.mark.parametrize("num_shown", [1, 2])
@given(st.lists(steps, max_size=60))
def test_any_history_shows_only_what_is_due(
    num_shown: int, history: list[tuple[str, int, int, set[int]]]
) -> None:
    seeder = SuperSeeder(7, num_shown)
    has: dict[int, set[int]] = {}
    shown: dict[int, set[int]] = {}
    out: dict[int, set[int]] = {}
    for verb, key, index, pieces in history:
        due: list[Revelation] = []
        if verb == "join" and key not in has:
            has[key], shown[key], out[key] = set(pieces), set(), set()
            due = seeder.peer_joined(key, Bitfield.of(7, pieces).bits)
        elif key not in has:
            continue
        elif verb == "leave":
            del has[key], shown[key], out[key]
            due = seeder.peer_left(key)
        elif verb == "have":
            has[key].add(index)
            due = seeder.piece_seen(key, index)
        elif verb == "bitfield":
            # What a peer turns out to have had is out no more.
            out[key] -= pieces - has[key]
            has[key] |= pieces
            due = seeder.bitfield_seen(key, Bitfield.of(7, pieces).bits)
        for peer, piece in due:
            assert isinstance(peer, int)
            assert piece not in has[peer] | shown[peer]
            if len(out[peer]) >= num_shown:
                others = [pieces for other, pieces in has.items() if other != peer]
                passed_on = {
                    before
                    for before in out[peer] & has[peer]
                    if not others or any(before in pieces for pieces in others)
                }
                assert passed_on
                out[peer] -= passed_on
            shown[peer].add(piece)
            out[peer].add(piece)
        for peer, has_now in has.items():
            assert draw(seeder.unshown(peer), 7) == "".join(
                "." if i in has_now | shown[peer] else "#" for i in range(7)
            )
        copies = [sum(i in pieces for pieces in has.values()) for i in range(7)]
        assert seeder.num_copies == min(copies)
