"""proto.pex: what a peer was told of others, and how often it may tell (BEP 11, H8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.extension import MAX_PEX_PEERS, PexFlag, PexMessage
from bittern.core.endpoint import Endpoint
from bittern.core.errors import PeerViolation
from bittern.proto.pex import (
    ENOUGH_LIVE,
    MAX_PER_MINUTE,
    MAX_RECENT,
    MIN_RECEIVE_INTERVAL,
    SEND_INTERVAL,
    ExchangeBook,
    PexState,
    RecentPeers,
)


def peers(*numbers: int) -> dict[Endpoint, PexFlag]:
    return {Endpoint(f"10.0.{number >> 8}.{number & 255}", 6881): PexFlag(1) for number in numbers}


def message(added: dict[Endpoint, PexFlag], dropped: dict[Endpoint, PexFlag]) -> PexMessage:
    return PexMessage(tuple(added.items()), tuple(dropped))


# --- telling ---------------------------------------------------------------------------------


def test_the_first_message_goes_at_once_and_tells_everything() -> None:
    assert PexState().next_message(peers(1, 2), now=0.0) == message(peers(1, 2), {})


def test_later_messages_tell_what_has_changed_once_a_minute() -> None:
    state = PexState()
    state.next_message(peers(1, 2), now=100.0)
    assert state.next_message(peers(2, 3), now=100.0 + SEND_INTERVAL - 0.1) is None
    assert state.next_message(peers(2, 3), now=160.0) == message(peers(3), peers(1))
    assert state.next_message(peers(2, 3), now=500.0) is None, "nothing new"
    assert state.next_message(peers(2, 3, 4), now=501.0) == message(peers(4), {})


def test_a_peer_that_came_and_went_in_between_is_never_mentioned() -> None:
    state = PexState()
    state.next_message(peers(1), now=0.0)
    assert state.next_message(peers(1, 2), now=30.0) is None
    assert state.next_message(peers(1), now=60.0) is None


def test_nobody_to_tell_of_is_no_message() -> None:
    assert PexState().next_message({}, now=0.0) is None


def test_bep11_at_most_fifty_each_and_the_rest_next_time() -> None:
    state = PexState()
    first = state.next_message(peers(*range(120)), now=0.0)
    assert first == message(peers(*range(50)), {})
    second = state.next_message(peers(*range(60, 120)), now=60.0)
    assert second == message(peers(*range(60, 110)), peers(*range(50)))
    third = state.next_message(peers(500), now=120.0)
    assert third == message(peers(500), peers(*range(60, 110)))
    assert MAX_PEX_PEERS == 50


@pytest.mark.slow
@given(st.lists(st.sets(st.integers(0, 300), max_size=200), min_size=1, max_size=12))
def test_a_listener_knows_whom_we_are_connected_to(rounds: list[set[int]]) -> None:
    """Nobody is added twice, dropped without having been added, or both at once (BEP 11)."""
    state = PexState()
    known: set[Endpoint] = set()
    current: dict[Endpoint, PexFlag] = {}
    for number in range(len(rounds) + 10):
        current = peers(*sorted(rounds[min(number, len(rounds) - 1)]))
        told = state.next_message(current, now=number * SEND_INTERVAL)
        if told is None:
            continue
        added, dropped = [endpoint for endpoint, _ in told.added], list(told.dropped)
        assert added or dropped
        assert max(len(added), len(dropped)) <= MAX_PEX_PEERS
        assert not known & set(added)
        assert known >= set(dropped)
        known = (known | set(added)) - set(dropped)
    assert known == set(current)


# --- those we have parted from (BEP 11, "Filling underpopulated lists") --------------------------


def parted(*numbers: int) -> RecentPeers:
    recent = RecentPeers()
    for endpoint, flags in peers(*numbers).items():
        recent.note(endpoint, flags)
    return recent


def test_bep11_who_has_just_left_is_named_once_and_dropped_with_the_next_message() -> None:
    recent, state = parted(7), PexState()
    assert state.next_message(peers(1), now=0.0, recent=recent) == message(peers(1, 7), {})
    assert state.next_message(peers(1), now=60.0, recent=recent) == message({}, peers(7))
    assert state.next_message(peers(1), now=120.0, recent=recent) is None
    recent.note(Endpoint("10.0.0.8", 6881), PexFlag(1))
    assert state.next_message(peers(1), now=180.0, recent=recent) == message(peers(8), {})
    # Another connection hears of all of them.
    assert PexState().next_message({}, now=0.0, recent=recent) == message(peers(7, 8), {})


def test_bep11_who_has_come_back_is_not_dropped() -> None:
    recent, state = parted(7), PexState()
    state.next_message({}, now=0.0, recent=recent)
    assert state.next_message(peers(7), now=60.0, recent=recent) is None
    now_seed = dict.fromkeys(peers(7), PexFlag(2))
    assert PexState().next_message(now_seed, now=0.0, recent=recent) == message(now_seed, {})
    assert state.next_message({}, now=120.0, recent=recent) == message({}, peers(7))


def test_bep11_enough_connections_leave_no_room_for_those_that_left() -> None:
    recent = parted(200)
    live = peers(*range(ENOUGH_LIVE))
    assert PexState().next_message(live, now=0.0, recent=recent) == message(live, {})
    recent.note(Endpoint("2001:db8::1", 6881), PexFlag(1))
    told = PexState().next_message(live, now=0.0, recent=recent)
    assert told is not None
    assert [endpoint.host for endpoint, _ in told.added if endpoint.is_ipv6] == ["2001:db8::1"]
    assert len(told.added) == ENOUGH_LIVE + 1, "each family for itself"


def test_bep11_no_more_than_25_of_a_family_are_remembered() -> None:
    recent = parted(*range(100, 200))
    told = PexState().next_message({}, now=0.0, recent=recent)
    assert told == message(peers(*range(200 - MAX_RECENT, 200)), {})


def test_the_book_forgets_who_is_gone() -> None:
    book = ExchangeBook()
    first = book.state("peer")
    assert book.state("peer") is first
    book.forget("peer")
    book.forget("peer")
    assert book.state("peer") is not first


# --- hearing ---------------------------------------------------------------------------------


def test_h8_messages_that_come_too_soon_are_not_read() -> None:
    state = PexState()
    assert state.may_read(now=0.0)
    assert not state.may_read(now=MIN_RECEIVE_INTERVAL - 0.1)
    assert state.may_read(now=MIN_RECEIVE_INTERVAL)
    assert not state.may_read(now=2 * MIN_RECEIVE_INTERVAL - 0.1)


def test_h8_the_seventh_message_within_a_minute_closes() -> None:
    state = PexState()
    assert [state.may_read(now=float(number)) for number in range(MAX_PER_MINUTE)] == [
        True,
        *[False] * 5,
    ]
    with pytest.raises(PeerViolation, match="floods us with peer exchange"):
        state.may_read(now=59.9)


def test_an_honest_peer_is_always_read() -> None:
    state = PexState()
    assert all(state.may_read(now=minute * 60.0) for minute in range(1000))
