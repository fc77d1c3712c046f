"""Who sent bad blocks."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.policy.suspects import MAX_ADDRESSES, MAX_SUSPECT_PIECES, Suspects


def never() -> list[bytes]:
    raise AssertionError("digests were asked for without need")


def test_who_sent_a_bad_piece_alone_is_guilty_without_a_comparison() -> None:
    assert Suspects().piece_failed(0, ["a", "a"], never) == {"a"}


def test_of_several_senders_nobody_is_accused_until_the_piece_is_good() -> None:
    suspects = Suspects()
    assert suspects.piece_failed(3, ["a", "b", "c"], lambda: [b"1", b"x", b"3"]) == set()
    assert suspects.piece_passed(3, ["d"] * 3, lambda: [b"1", b"2", b"3"]) == {"b"}
    # The record is closed: a second pass asks for nothing.
    assert suspects.piece_passed(3, ["d"] * 3, never) == set()


def test_every_failed_attempt_counts() -> None:
    suspects = Suspects()
    suspects.piece_failed(0, ["a", "b"], lambda: [b"x", b"2"])
    suspects.piece_failed(0, ["c", "d"], lambda: [b"1", b"y"])
    assert suspects.piece_passed(0, ["e", "e"], lambda: [b"1", b"2"]) == {"a", "d"}


@pytest.mark.parametrize("senders", [[None, None], [None, "a"]])
def test_blocks_of_an_earlier_run_accuse_nobody_alone(senders: list[str | None]) -> None:
    suspects = Suspects()
    assert suspects.piece_failed(0, senders, lambda: [b"x", b"y"]) == set()
    assert suspects.piece_passed(0, ["b", "b"], lambda: [b"1", b"2"]) == set(senders) - {None}


def test_good_pieces_speak_for_an_address() -> None:
    suspects = Suspects()
    for index in range(3):
        suspects.piece_passed(index, ["a", "b", None, "a"], never)
    assert (suspects.num_good("a"), suspects.num_good("b"), suspects.num_good("c")) == (3, 3, 0)


def test_failed_pieces_and_addresses_are_bounded() -> None:
    """Limit: H4."""
    suspects = Suspects()
    for index in range(MAX_SUSPECT_PIECES + 1):
        suspects.piece_failed(index, ["a", "b"], lambda: [b"x", b"2"])
    assert suspects.piece_passed(0, ["c", "c"], never) == set()
    assert suspects.piece_passed(1, ["c", "c"], lambda: [b"1", b"2"]) == {"a"}
    for number in range(MAX_ADDRESSES + 1):
        suspects.piece_passed(0, [number], never)
    assert suspects.num_good(0) == 0
    assert suspects.num_good(MAX_ADDRESSES) == 1


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=4, max_size=4),
             min_size=1, max_size=5)
)  # fmt: skip
def test_exactly_the_liars_are_found(attempts: list[list[tuple[int, bool]]]) -> None:
    """Whoever sent a wrong block of a failed attempt is named, and nobody else."""
    right = [b"0", b"1", b"2", b"3"]
    suspects = Suspects()
    liars: set[Hashable] = set()
    found: set[Hashable] = set()
    for attempt in attempts:
        senders = [sender for sender, _ in attempt]
        digests = [b"bad" if lies else right[n] for n, (_, lies) in enumerate(attempt)]
        if digests == right:
            continue
        liars |= {sender for sender, lies in attempt if lies}
        found |= suspects.piece_failed(0, senders, partial(list, digests))
    found |= suspects.piece_passed(0, ["honest"] * 4, lambda: right)
    assert found == liars
