"""policy.suspects: who is guilty of a bad piece, and who is not (H4)."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.policy.suspects import MAX_ADDRESSES, MAX_DIGESTS, MAX_SUSPECT_PIECES, Suspects

GOOD = [b"one", b"two", b"three", b"four"]


def digests(*wrong: int) -> Callable[..., Sequence[bytes]]:
    """Return digests of a piece of four blocks, of which some are wrong."""
    return lambda *_: [b"bad" if at in wrong else good for at, good in enumerate(GOOD)]


def always(found: Sequence[bytes]) -> Callable[..., Sequence[bytes]]:
    return lambda *_: found


def not_needed(*_: int) -> Sequence[bytes]:
    pytest.fail("digests were computed for nothing")


def test_who_sent_a_bad_piece_alone_is_guilty_at_once() -> None:
    suspects = Suspects()
    assert suspects.piece_failed(0, ["a"] * 4, not_needed) == {"a"}
    assert suspects.pieces_passed([(0, ["b"] * 4)], not_needed) == set()


def test_of_several_those_are_guilty_whose_blocks_differ_from_the_good_piece() -> None:
    suspects = Suspects()
    assert suspects.piece_failed(0, ["a", "b", "c", "b"], digests(1, 2)) == set()
    assert suspects.pieces_passed([(0, ["d"] * 4)], digests()) == {"b", "c"}


def test_every_failure_is_remembered_until_the_piece_is_good() -> None:
    suspects = Suspects()
    suspects.piece_failed(0, ["a", "b", "b", "b"], digests(0))
    suspects.piece_failed(0, ["b", "b", "c", "b"], digests(2))
    suspects.piece_failed(1, ["b", "b", "e", "b"], digests(2))
    assert suspects.pieces_passed([(0, ["b"] * 4)], digests()) == {"a", "c"}
    assert suspects.pieces_passed([(0, ["b"] * 4)], not_needed) == set()
    assert suspects.pieces_passed([(1, ["b"] * 4)], digests()) == {"e"}


def test_blocks_of_an_earlier_run_and_padding_accuse_nobody() -> None:
    suspects = Suspects()
    assert suspects.piece_failed(0, [None] * 4, not_needed) == set()
    assert suspects.piece_failed(0, ["a", None, "a", None], digests(1)) == set()
    assert suspects.pieces_passed([(0, ["b", None, "b", None])], digests()) == set()
    assert suspects.piece_failed(0, ["a", None, "a", None], digests(2)) == set()
    assert suspects.pieces_passed([(0, ["b", None, "b", None])], digests()) == {"a"}


def test_good_pieces_are_counted_once_for_each_address() -> None:
    suspects = Suspects()
    for index in range(3):
        suspects.pieces_passed([(index, ["a", "a", None, "b" if index else None])], not_needed)
    assert [suspects.num_good(who) for who in ("a", "b", "c")] == [3, 2, 0]


def test_h4_failed_pieces_are_bounded() -> None:
    suspects = Suspects()
    for index in range(MAX_SUSPECT_PIECES + 1):
        suspects.piece_failed(index, ["a", "b", "b", "b"], digests(0))
    assert suspects.pieces_passed([(0, ["b"] * 4)], not_needed) == set(), "the oldest is forgotten"
    assert suspects.pieces_passed([(1, ["b"] * 4)], digests()) == {"a"}


@pytest.mark.slow
def test_h4_digests_are_bounded_however_often_a_piece_fails() -> None:
    suspects = Suspects()
    num_blocks = MAX_DIGESTS // 4
    bad, good = [b"bad"] * num_blocks, [b"good"] * num_blocks
    for liar in range(6):
        suspects.piece_failed(0, [liar] + ["b"] * (num_blocks - 1), always(bad[:1] + good[1:]))
    assert suspects.pieces_passed([(0, ["b"] * num_blocks)], always(good)) == {2, 3, 4, 5}
    suspects.piece_failed(7, ["x"] + ["b"] * (num_blocks - 1), always(bad[:1] + good[1:]))
    for _ in range(4):
        suspects.piece_failed(8, ["y"] + ["b"] * (num_blocks - 1), always(bad[:1] + good[1:]))
    assert suspects.pieces_passed([(7, ["b"] * num_blocks)], not_needed) == set()
    assert suspects.pieces_passed([(8, ["b"] * num_blocks)], always(good)) == {"y"}


def test_addresses_are_bounded_and_the_longest_unseen_go_first() -> None:
    suspects = Suspects()
    suspects.pieces_passed([(0, ["first"])], not_needed)
    for number in range(MAX_ADDRESSES - 1):
        suspects.pieces_passed([(0, [number])], not_needed)
    suspects.pieces_passed([(0, ["first"])], not_needed)
    suspects.pieces_passed([(0, ["new"])], not_needed)
    assert [suspects.num_good(who) for who in ("first", 0, 1, "new")] == [2, 0, 1, 1]


@pytest.mark.slow
@given(
    st.integers(0, 1 << 30),
    st.sampled_from([0.01, 0.1, 0.5, 1.0]),
    st.integers(1, 20),
    st.integers(1, 64),
)
def test_h4_a_liar_is_found_and_nobody_else(
    seed: int, share_of_bad: float, num_honest: int, num_blocks: int
) -> None:
    """A failed piece is fetched again from one peer; two failed pieces are enough at most."""
    rng = random.Random(seed)
    suspects, num_failed, guilty = Suspects(), 0, set[Hashable]()
    peers: list[Hashable] = ["liar", *range(num_honest)]
    index, is_exclusive = 0, False
    while "liar" not in guilty and index < 50:
        alone = rng.choice(peers)
        senders = [alone if is_exclusive else rng.choice(peers) for _ in range(num_blocks)]
        wrong = [who == "liar" and rng.random() < share_of_bad for who in senders]
        found = [b"bad" if is_wrong else b"good" for is_wrong in wrong]
        if any(wrong):
            num_failed += 1
            guilty |= suspects.piece_failed(index, senders, always(found))
            is_exclusive = True
        else:
            guilty |= suspects.pieces_passed([(index, senders)], always(found))
            index += 1
            is_exclusive = False
    assert guilty <= {"liar"}
    assert num_failed <= 2
    assert bool(guilty) == bool(num_failed) or index == 50
