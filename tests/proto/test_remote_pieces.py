"""proto.remote_pieces: what a peer has, before and after the metadata (H6)."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.bitfield import FEW_INDICES, Bitfield
from bittern.core.errors import PeerViolation, WireDecodeError
from bittern.proto.peer_events import BitfieldReceived, HavesReceived, PeerEvent
from bittern.proto.remote_pieces import (
    MAX_HAVES_OF_BITFIELD,
    MAX_PIECES,
    MAX_REPEATS,
    EarlyPieces,
    RemotePieces,
)


def have(*indices: int, of: int = 10) -> Bitfield:
    return Bitfield.of(of, indices)


def haves(*indices: int, of: int = 10) -> HavesReceived:
    return HavesReceived(of, indices)


def applied(events: list[PeerEvent], num_pieces: int) -> Bitfield:
    """Return what somebody believes who only hears the events; nothing may be told twice."""
    known = Bitfield(num_pieces)
    for event in events:
        match event:
            case BitfieldReceived(bitfield):
                assert not known.bits & bitfield.bits
                known.bits |= bitfield.bits
            case HavesReceived(pieces):
                assert not known.bits & pieces.bits
                known.bits |= pieces.bits
            case _:
                pytest.fail(f"unexpected {event}")
    return known


# --- metadata known --------------------------------------------------------------------------


def test_a_bitfield_comes_as_its_set_and_later_haves_do_not_change_the_event() -> None:
    pieces = RemotePieces(10)
    [event] = pieces.receive_bitfield(have(1, 2).to_wire(), now=0.0)
    assert pieces.receive_haves([5], now=0.0) == (haves(5),)
    assert event == BitfieldReceived(have(1, 2))
    assert pieces.bitfield == have(1, 2, 5)


def test_have_all_and_have_none_are_bitfields() -> None:
    seed, newcomer = RemotePieces(10), RemotePieces(10)
    assert list(seed.receive_all(now=0.0)) == [BitfieldReceived(Bitfield.full(10))]
    assert list(newcomer.receive_none()) == [BitfieldReceived(Bitfield(10))]
    assert seed.bitfield == Bitfield.full(10)
    newcomer.receive_haves([1], now=0.0)
    assert newcomer.bitfield == have(1)


@pytest.mark.parametrize("num_bytes", [0, 1, 3, 262_144])
def test_h6_a_bitfield_of_another_length_is_refused(num_bytes: int) -> None:
    with pytest.raises(WireDecodeError, match=f"bitfield of {num_bytes} bytes"):
        RemotePieces(10).receive_bitfield(bytes(num_bytes), now=0.0)


@pytest.mark.parametrize("is_first", [True, False])
def test_h6_spare_bits_are_refused(is_first: bool) -> None:
    pieces = RemotePieces(10)
    if not is_first:
        pieces.end_start()
    with pytest.raises(WireDecodeError, match="spare bits"):
        pieces.receive_bitfield(b"\0\x20", now=0.0)


def test_h6_have_none_comes_first_or_never() -> None:
    for num_pieces in (10, None):
        for spoil in ("end", "have", "bitfield", "all", "none"):
            pieces = RemotePieces(num_pieces)
            match spoil:
                case "end":
                    pieces.end_start()
                case "have":
                    pieces.receive_haves([1], now=0.0)
                case "bitfield":
                    pieces.receive_bitfield(bytes(2), now=0.0)
                case "all":
                    pieces.receive_all(now=0.0)
                case _:
                    pieces.receive_none()
            with pytest.raises(PeerViolation, match="not the first message"):
                pieces.receive_none()


@pytest.mark.parametrize("before", [(), (1, 2)])
def test_a_later_have_all_tells_what_is_new(before: tuple[int, ...]) -> None:
    """Interop: aria2 sends have all instead of many haves when it has become complete."""
    pieces = RemotePieces(10)
    pieces.receive_bitfield(have(*before).to_wire(), now=0.0)
    pieces.receive_haves([5], now=0.0)
    new = [index for index in range(10) if index not in (*before, 5)]
    assert list(pieces.receive_all(now=0.0)) == [haves(*new)]
    assert pieces.bitfield == Bitfield.full(10)
    assert pieces.receive_all(now=0.0) == ()


def test_a_later_have_all_of_many_pieces_is_one_bitfield() -> None:
    pieces = RemotePieces(MAX_HAVES_OF_BITFIELD + 2)
    pieces.receive_haves([0], now=0.0)
    [event] = pieces.receive_all(now=0.0)
    assert isinstance(event, BitfieldReceived)
    assert set(event.bitfield) == set(range(1, MAX_HAVES_OF_BITFIELD + 2))


@pytest.mark.parametrize("num_pieces", [10, None])
def test_h6_have_all_again_and_again_is_a_violation(num_pieces: int | None) -> None:
    pieces = RemotePieces(num_pieces)
    for _ in range(MAX_REPEATS + 1):
        pieces.receive_all(now=0.0)
    with pytest.raises(PeerViolation, match="repeats what it has"):
        pieces.receive_all(now=1.0)


@pytest.mark.parametrize("index", [10, 11, 1 << 31, (1 << 32) - 1])
def test_h6_a_piece_beyond_the_end_is_a_violation(index: int) -> None:
    with pytest.raises(PeerViolation, match=f"has piece {index} of 10"):
        RemotePieces(10).receive_haves([index], now=0.0)
    pieces = RemotePieces(10)
    with pytest.raises(PeerViolation, match=f"has piece {index} of 10"):
        pieces.receive_haves([1, index, 2], now=0.0)
    assert pieces.bitfield == have(), "one message, one verdict"


def test_a_later_bitfield_tells_what_is_new() -> None:
    """Interop: aria2 sends a bitfield instead of many haves."""
    pieces = RemotePieces(10)
    pieces.receive_bitfield(have(1, 2).to_wire(), now=0.0)
    assert pieces.receive_bitfield(have(1, 4, 7).to_wire(), now=0.0) == (haves(4, 7),)
    assert pieces.bitfield == have(1, 2, 4, 7), "a bitfield never takes anything back"
    assert pieces.receive_bitfield(have(1, 4).to_wire(), now=0.0) == (), "nothing is new"


def test_a_later_bitfield_of_many_new_pieces_is_one_event() -> None:
    pieces = RemotePieces(MAX_PIECES)
    pieces.receive_haves([MAX_PIECES - 1], now=0.0)
    began = time.perf_counter()
    [event] = pieces.receive_bitfield(b"\xff" * (MAX_PIECES // 8), now=0.0)
    assert time.perf_counter() - began < 0.5
    assert isinstance(event, BitfieldReceived)
    assert len(event.bitfield) == MAX_PIECES - 1


@pytest.mark.parametrize("num_in_a_row", [1, 8, 9, 500])
def test_what_waits_to_be_heard_grows_with_the_haves_and_not_with_the_torrent(
    num_in_a_row: int,
) -> None:
    """
    A peer may put other messages between them, and send a megabyte at once.

    Each row took as much as a bitfield: of a torrent of 200,000 pieces that was 2 GB.
    """
    pieces = RemotePieces(MAX_PIECES)
    tracemalloc.start()
    try:
        events = [
            pieces.receive_haves(range(first, first + num_in_a_row), now=0.0)
            for first in range(0, 200 * num_in_a_row, num_in_a_row)
        ]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 3 * MAX_PIECES // 8 + 200 * (500 + 50 * num_in_a_row)
    assert [len(event.indices) for [event] in events] == [num_in_a_row] * 200


def test_haves_in_a_row_are_one_event_and_repeats_are_left_out() -> None:
    pieces = RemotePieces(10)
    pieces.receive_haves([2], now=0.0)
    assert pieces.receive_haves([7, 2, 3, 7], now=0.0) == (haves(7, 3),)
    assert pieces.bitfield == have(2, 3, 7)
    assert pieces.receive_haves([2, 7], now=0.0) == (), "nothing is new"


@pytest.mark.parametrize("num_in_a_row", [FEW_INDICES, FEW_INDICES + 1, 200])
def test_of_any_number_of_haves_each_new_one_is_told_once(num_in_a_row: int) -> None:
    pieces = RemotePieces(300)
    pieces.receive_haves(range(0, 300, 3), now=0.0)
    in_a_row = [number * 7 % 250 for number in range(num_in_a_row)]
    fresh = [index for index in dict.fromkeys(in_a_row) if index % 3]
    assert pieces.receive_haves(in_a_row, now=0.0) == (haves(*fresh, of=300),)


def test_a_lost_piece_was_there_or_not() -> None:
    pieces = RemotePieces(10)
    pieces.receive_haves([3], now=0.0)
    assert pieces.receive_lost(3, now=0.0)
    assert not pieces.receive_lost(3, now=0.0)
    assert not pieces.receive_lost(1 << 31, now=0.0)
    assert pieces.receive_haves([3], now=0.0) == (haves(3),)


REPEATS = ["have", "lost", "bitfield", "early lost", "early bitfield"]


@pytest.mark.slow
@pytest.mark.parametrize("what", REPEATS)
def test_h6_repeats_are_endured_up_to_a_limit_per_minute(what: str) -> None:
    pieces = RemotePieces(None if what.startswith("early") else 10)
    pieces.receive_haves([1], now=0.0)

    def repeat(now: float) -> None:
        match what.removeprefix("early "):
            case "have":
                pieces.receive_haves([1], now=now)
            case "lost":
                pieces.receive_lost(2, now=now)
            case _:
                pieces.receive_bitfield(have(1).to_wire(), now=now)

    for number in range(2 * MAX_REPEATS):
        repeat(60.1 * (number // MAX_REPEATS))
    with pytest.raises(PeerViolation, match="repeats what it has"):
        repeat(60.2)


# --- metadata unknown ------------------------------------------------------------------------


def test_what_came_before_the_metadata_is_told_at_once_when_it_is_there() -> None:
    pieces = RemotePieces(None)
    assert pieces.bitfield is None
    assert pieces.receive_bitfield(have(1, 2).to_wire(), now=0.0) == ()
    assert pieces.receive_haves([5], now=0.0) == ()
    assert not pieces.receive_lost(2, now=0.0)
    assert list(pieces.learn_num_pieces(10)) == [BitfieldReceived(have(1, 5))]
    assert pieces.receive_haves([6], now=0.0) == (haves(6),)
    assert pieces.bitfield == have(1, 5, 6)


def test_a_peer_that_said_nothing_has_nothing_and_may_still_begin() -> None:
    pieces = RemotePieces(None)
    assert pieces.learn_num_pieces(10) == ()
    assert pieces.bitfield == have()
    assert list(pieces.receive_all(now=0.0)) == [BitfieldReceived(Bitfield.full(10))]


def test_haves_alone_before_the_metadata() -> None:
    pieces = RemotePieces(None)
    assert pieces.receive_haves([3, 5], now=0.0) == ()
    assert list(pieces.learn_num_pieces(10)) == [BitfieldReceived(have(3, 5))]


def test_have_none_before_the_metadata() -> None:
    pieces = RemotePieces(None)
    assert pieces.receive_none() == ()
    assert list(pieces.learn_num_pieces(10)) == [BitfieldReceived(have())]


def test_have_all_before_the_metadata_with_losses() -> None:
    pieces = RemotePieces(None)
    assert pieces.receive_all(now=0.0) == ()
    pieces.receive_lost(3, now=0.0)
    pieces.receive_lost(4, now=0.0)
    pieces.receive_haves([4], now=0.0)
    pieces.receive_haves([9], now=0.0)
    pieces.receive_bitfield(have(1).to_wire(), now=0.0)
    [event] = pieces.learn_num_pieces(10)
    assert event == BitfieldReceived(have(0, 1, 2, 4, 5, 6, 7, 8, 9))


def early(*indices: int) -> EarlyPieces:
    made = EarlyPieces()
    for index in indices:
        made.add(index)
    return made


@pytest.mark.parametrize("index", [10, 15, 16, MAX_PIECES - 1])
def test_h6_a_piece_that_proves_to_lie_beyond_the_end(index: int) -> None:
    with pytest.raises(WireDecodeError, match=r"of 10|spare bits"):
        early(1, index).resolve(10)


@pytest.mark.parametrize("num_bytes", [0, 1, 3, 262_144])
def test_h6_a_bitfield_that_proves_to_have_another_length(num_bytes: int) -> None:
    made = EarlyPieces()
    made.add_bitfield(bytes(num_bytes))
    with pytest.raises(WireDecodeError, match=f"bitfield of {num_bytes} bytes for 10 pieces"):
        made.resolve(10)


def test_h6_bitfields_of_two_lengths() -> None:
    made = EarlyPieces()
    made.add_bitfield(bytes(2))
    made.add_bitfield(bytes(2))
    with pytest.raises(PeerViolation, match="different lengths"):
        made.add_bitfield(bytes(3))


def test_h6_no_torrent_has_so_many_pieces() -> None:
    with pytest.raises(PeerViolation, match=f"has piece {MAX_PIECES}"):
        early(MAX_PIECES)
    lost = EarlyPieces()
    lost.discard(MAX_PIECES)
    lost.discard(MAX_PIECES - 1)
    assert lost.resolve(0) == Bitfield(0)
    seed = EarlyPieces()
    seed.set_all()
    seed.discard((1 << 32) - 1)
    assert seed.resolve(10) == Bitfield.full(10), "nothing is kept of it"


def test_h6_naming_every_piece_before_the_metadata_costs_little() -> None:
    tracemalloc.start()
    try:
        pieces = EarlyPieces()
        for index in range(0, MAX_PIECES, 997):
            pieces.add(index)
        assert tracemalloc.get_traced_memory()[0] < 300_000
    finally:
        tracemalloc.stop()
    assert len(pieces.resolve(MAX_PIECES)) == len(range(0, MAX_PIECES, 997))


@pytest.mark.slow
@given(
    st.integers(1, 40),
    st.lists(
        st.tuples(st.sampled_from(["have", "lost", "bitfield", "all"]), st.integers(0, 1 << 40))
    ),
    st.sampled_from(["", "all", "none", "bitfield"]),
    st.integers(0, 30),
)
def test_it_does_not_matter_when_the_metadata_comes(
    num_pieces: int, steps: list[tuple[str, int]], start: str, learned_after: int
) -> None:
    """A peer's words, with the metadata known from the start and learned in the middle."""
    known, late = RemotePieces(num_pieces), RemotePieces(None)
    told: list[list[PeerEvent]] = [[], []]
    model: set[int] = set()
    for number, (step, value) in enumerate([(start, 5), *steps]):
        if number == learned_after:
            told[1] += late.learn_num_pieces(num_pieces)
        for pieces, events in zip((known, late), told, strict=True):
            named = Bitfield.of(num_pieces, [i for i in range(num_pieces) if value >> i & 1])
            match step:
                case "all":
                    events += pieces.receive_all(now=0.0)
                    model = set(range(num_pieces))
                case "none":
                    events += pieces.receive_none()
                case "have":
                    events += pieces.receive_haves([value % num_pieces], now=0.0)
                    model.add(value % num_pieces)
                case "bitfield":
                    events += pieces.receive_bitfield(named.to_wire(), now=0.0)
                    model |= set(named)
                case "lost":
                    if pieces.receive_lost(value % num_pieces, now=0.0):
                        # What an owner does that hears of a loss.
                        before = applied(events, num_pieces)
                        before.discard(value % num_pieces)
                        events[:] = [BitfieldReceived(before)]
                    model.discard(value % num_pieces)
                case _:
                    pass
    if learned_after >= len(steps) + 1:
        told[1] += late.learn_num_pieces(num_pieces)
    expected = Bitfield.of(num_pieces, model)
    assert known.bitfield == late.bitfield == expected
    assert applied(told[0], num_pieces) == applied(told[1], num_pieces) == expected
