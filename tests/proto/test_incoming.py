"""proto.incoming: the peer's requests; queue (H2), choking (H3), allowed fast (H9)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec import wire
from bittern.core.errors import PeerViolation
from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.proto.incoming import (
    ALLOWED_FAST_FACTOR,
    CHOKE_GRACE,
    LIMIT_WINDOW,
    MAX_CHOKED_REQUESTS,
    MAX_INCOMING_REQUESTS,
    MAX_REFUSED_REQUESTS,
    IncomingRequests,
    WindowCounter,
)
from bittern.proto.peer_events import Request

PIECE_LENGTH = 4 * BLOCK_LENGTH
GEOMETRY = Geometry.contiguous(PIECE_LENGTH, 10 * PIECE_LENGTH - 5, 10 * PIECE_LENGTH - 5)


def block(number: int) -> Request:
    """Return the request for one block, counted through the whole torrent."""
    index, within = divmod(number, 4)
    return index, within * BLOCK_LENGTH, BLOCK_LENGTH


def admit(incoming: IncomingRequests, *numbers: int, now: float = 0.0) -> list[bool]:
    return [incoming.admit(block(number), is_choked=False, now=now) for number in numbers]


def take(incoming: IncomingRequests, num_blocks: int = 1000) -> list[Request]:
    requests, num_bytes = incoming.take(num_blocks * BLOCK_LENGTH)
    assert num_bytes == sum(length for _, _, length in requests)
    return requests


# --- windows ---------------------------------------------------------------------------------


def test_a_window_begins_with_its_first_event_and_lasts_a_minute() -> None:
    counter = WindowCounter()
    assert [counter.add(now=now) for now in (100.0, 130.0, 100.0 + LIMIT_WINDOW)] == [1, 2, 3]
    assert [counter.add(now=now) for now in (160.1, 160.2)] == [1, 2]


# --- queue -----------------------------------------------------------------------------------


def test_requests_wait_in_order_and_repeats_are_taken_once() -> None:
    incoming = IncomingRequests()
    assert not incoming
    assert admit(incoming, 5, 6, 5, 7) == [True] * 4
    assert len(incoming) == 3
    assert block(6) in incoming
    assert block(8) not in incoming
    for request in incoming:
        incoming.cancel(request)
        incoming.admit(request, is_choked=False, now=0.0)
    assert take(incoming) == [block(5), block(6), block(7)]
    assert take(incoming) == []


def test_a_cancelled_request_is_gone() -> None:
    incoming = IncomingRequests()
    admit(incoming, 1, 2)
    assert incoming.cancel(block(1))
    assert not incoming.cancel(block(1))
    assert take(incoming) == [block(2)]


def test_h2_a_full_queue_refuses_but_knows_what_it_has() -> None:
    incoming = IncomingRequests()
    requests = [(0, begin, 1) for begin in range(MAX_INCOMING_REQUESTS + 1)]
    assert [incoming.admit(request, is_choked=False, now=0.0) for request in requests] == [
        *[True] * MAX_INCOMING_REQUESTS,
        False,
    ]
    assert incoming.admit(requests[0], is_choked=False, now=0.0)
    assert len(incoming) == MAX_INCOMING_REQUESTS == 500


def test_h2_a_peer_that_floods_is_closed_within_the_minute() -> None:
    incoming = IncomingRequests()
    for begin in range(MAX_INCOMING_REQUESTS):
        assert incoming.admit((0, begin, 1), is_choked=False, now=0.0)
    for number in range(MAX_REFUSED_REQUESTS):
        assert not incoming.admit((1, number, 1), is_choked=False, now=number / 100)
    with pytest.raises(PeerViolation, match="more than it was told"):
        incoming.admit((2, 0, 1), is_choked=False, now=10.0)
    assert len(incoming) == MAX_INCOMING_REQUESTS


def test_h2_a_peer_that_is_refused_now_and_then_stays() -> None:
    incoming = IncomingRequests()
    for begin in range(MAX_INCOMING_REQUESTS):
        incoming.admit((0, begin, 1), is_choked=False, now=0.0)
    for number in range(5 * MAX_REFUSED_REQUESTS):
        now = number * LIMIT_WINDOW / (MAX_REFUSED_REQUESTS - 1)
        assert not incoming.admit((1, number, 1), is_choked=False, now=now)


# --- choked ----------------------------------------------------------------------------------


def test_h3_requests_under_way_at_a_choke_are_refused_and_forgiven() -> None:
    incoming = IncomingRequests()
    incoming.choke(now=10.0)
    for number in range(10 * MAX_CHOKED_REQUESTS):
        assert not incoming.admit(block(number), is_choked=True, now=10.0 + CHOKE_GRACE)


def test_h3_a_peer_that_goes_on_requesting_while_choked_is_closed() -> None:
    incoming = IncomingRequests()
    incoming.choke(now=10.0)
    for number in range(MAX_CHOKED_REQUESTS):
        assert not incoming.admit(block(number), is_choked=True, now=12.1)
    with pytest.raises(PeerViolation, match="while choked"):
        incoming.admit(block(0), is_choked=True, now=12.1)


def test_h3_a_new_choke_begins_a_new_count() -> None:
    incoming = IncomingRequests()
    for round_at in (10.0, 100.0, 200.0):
        incoming.choke(now=round_at)
        for number in range(MAX_CHOKED_REQUESTS):
            assert not incoming.admit(block(number), is_choked=True, now=round_at + 3)


def test_h3_a_peer_that_was_never_unchoked_has_no_grace() -> None:
    incoming = IncomingRequests()
    for number in range(MAX_CHOKED_REQUESTS):
        assert not incoming.admit(block(number), is_choked=True, now=0.0)
    with pytest.raises(PeerViolation, match="while choked"):
        incoming.admit(block(0), is_choked=True, now=0.0)


def test_choking_drops_what_is_not_allowed_fast() -> None:
    incoming = IncomingRequests()
    incoming.allow_fast([1], GEOMETRY)
    admit(incoming, 0, 4, 5, 8)
    assert incoming.choke(now=1.0) == [block(0), block(8)]
    assert take(incoming) == [block(4), block(5)]


# --- allowed fast ----------------------------------------------------------------------------


def test_h9_a_choked_peer_gets_three_times_its_allowed_pieces_and_no_more() -> None:
    incoming = IncomingRequests()
    assert not incoming.has_allowed_fast
    incoming.allow_fast([1, 9], GEOMETRY)
    assert incoming.has_allowed_fast
    served = 0
    for number in range(100):
        request = block(4 + number % 4)
        if not incoming.admit(request, is_choked=True, now=0.0):
            break
        served += sum(length for _, _, length in take(incoming))
    assert served <= ALLOWED_FAST_FACTOR * (2 * PIECE_LENGTH - 5) < served + BLOCK_LENGTH


def test_h9_the_allowance_counts_bytes_however_they_are_asked_for() -> None:
    incoming = IncomingRequests()
    incoming.allow_fast([1], GEOMETRY)
    whole = (1, 0, PIECE_LENGTH)
    for _ in range(ALLOWED_FAST_FACTOR):
        assert incoming.admit(whole, is_choked=True, now=0.0)
        assert take(incoming) == [whole]
    assert not incoming.admit((1, 0, 1), is_choked=True, now=0.0)


def test_h9_other_pieces_and_an_unknown_torrent_are_refused() -> None:
    incoming = IncomingRequests()
    incoming.allow_fast([1], GEOMETRY)
    assert not incoming.admit(block(0), is_choked=True, now=0.0)
    unknown = IncomingRequests()
    unknown.allow_fast([1], None)
    assert not unknown.admit(block(4), is_choked=True, now=0.0)


def test_requests_of_an_unchoked_peer_do_not_use_up_the_allowance() -> None:
    incoming = IncomingRequests()
    incoming.allow_fast([1], GEOMETRY)
    for _ in range(10):
        admit(incoming, 4, 5, 6, 7)
        take(incoming)
    assert incoming.admit(block(4), is_choked=True, now=0.0)


# --- many at a time --------------------------------------------------------------------------


def messages(*requests: Request) -> memoryview:
    return memoryview(b"".join(wire.encode_request(*request) for request in requests))


USUAL = [block(number) for number in range(16)]


def test_whole_blocks_are_queued_as_if_one_by_one() -> None:
    incoming = IncomingRequests()
    admit(incoming, 3, 30)
    view = messages((7, 0, 1), *USUAL)
    assert incoming.admit_usual(view, wire.REQUEST_LENGTH, GEOMETRY) == len(view)
    # The one that waited keeps its place.
    assert take(incoming) == [block(3), block(30), *USUAL[:3], *USUAL[4:]]


@pytest.mark.parametrize(
    "odd",
    [
        (10, 0, BLOCK_LENGTH),  # there is no such piece
        (0, PIECE_LENGTH, BLOCK_LENGTH),  # behind the end of the piece
        (0, PIECE_LENGTH - BLOCK_LENGTH + 1, BLOCK_LENGTH),  # beyond its end
        (9, 3 * BLOCK_LENGTH, BLOCK_LENGTH),  # the last piece is short
        (0, 0, BLOCK_LENGTH - 1),
        (0, 0, 2 * BLOCK_LENGTH),
    ],
)
@pytest.mark.parametrize("place", [0, 7, len(USUAL) - 1])
def test_one_that_is_not_usual_is_left_to_be_looked_at_by_itself(odd: Request, place: int) -> None:
    """Nothing that does not exist is queued unseen (H2)."""
    incoming = IncomingRequests()
    view = messages(*USUAL[:place], odd, *USUAL[place + 1 :])
    assert incoming.admit_usual(view, 0, GEOMETRY) == place * wire.REQUEST_LENGTH
    assert list(incoming) == USUAL[:place]


@pytest.mark.parametrize(
    "other",
    [
        wire.encode_cancel(*block(30)),
        b"\0\0\0\x0e" + wire.encode_request(*block(30))[4:] + b"\0",
        wire.encode_have(1) * 4,
        wire.KEEP_ALIVE * 5,
        bytes(messages(block(40)))[:-1],
    ],
)
def test_another_message_or_an_incomplete_one_is_left(other: bytes) -> None:
    incoming = IncomingRequests()
    view = memoryview(bytes(messages((7, 0, 1), *USUAL[:8])) + other)
    assert incoming.admit_usual(view, wire.REQUEST_LENGTH, GEOMETRY) == 9 * wire.REQUEST_LENGTH
    assert list(incoming) == USUAL[:8]


def test_of_pieces_smaller_than_a_block_none_is_usual() -> None:
    small = Geometry.contiguous(BLOCK_LENGTH // 2, 100 * BLOCK_LENGTH, 100 * BLOCK_LENGTH)
    incoming = IncomingRequests()
    assert not incoming.admit_usual(messages((0, 0, BLOCK_LENGTH)), 0, small)
    assert not incoming


def test_h2_the_queue_is_never_filled_beyond_its_limit() -> None:
    incoming = IncomingRequests()
    for number in range(MAX_INCOMING_REQUESTS - 8):
        incoming.admit((0, number, 1), is_choked=False, now=0.0)
    view = messages(*USUAL)
    assert incoming.admit_usual(view, 0, GEOMETRY) == 8 * wire.REQUEST_LENGTH
    assert len(incoming) == MAX_INCOMING_REQUESTS
    assert not incoming.admit_usual(view, 0, GEOMETRY)


# --- taking ----------------------------------------------------------------------------------

TAKEN = [
    ("all there are", [0, 1, 2, 3], 9, [[0, 1, 2, 3]]),
    ("in the order of arrival", [2, 7, 0], 9, [[2, 7, 0]]),
    ("as much as asked for", [0, 1, 2, 3, 4], 2, [[0, 1], [2, 3], [4]]),
    ("the first in any case", [0, 1], 0, [[0], [1]]),
]


@pytest.mark.parametrize(
    ("numbers", "num_blocks", "runs"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN]
)
def test_requests_are_taken(numbers: list[int], num_blocks: int, runs: list[list[int]]) -> None:
    incoming = IncomingRequests()
    admit(incoming, *numbers)
    assert [take(incoming, num_blocks) for _ in runs] == [
        [block(number) for number in run] for run in runs
    ]
    assert not incoming


def test_requests_longer_than_a_block_are_taken_by_their_bytes() -> None:
    incoming = IncomingRequests()
    requests = [(0, 0, 2 * BLOCK_LENGTH), (1, 0, 2 * BLOCK_LENGTH), (2, 0, 1)]
    for request in requests:
        incoming.admit(request, is_choked=False, now=0.0)
    assert [take(incoming, 3) for _ in range(2)] == [requests[:1], requests[1:]]


@given(st.lists(st.integers(1, 5 * BLOCK_LENGTH), max_size=30), st.integers(0, 8 * BLOCK_LENGTH))
def test_every_request_is_taken_once_within_the_length(lengths: list[int], limit: int) -> None:
    incoming = IncomingRequests()
    requests = [(number, 0, length) for number, length in enumerate(lengths)]
    for request in requests:
        incoming.admit(request, is_choked=False, now=0.0)
    taken: list[Request] = []
    while incoming:
        run, num_bytes = incoming.take(limit)
        assert num_bytes == sum(length for _, _, length in run)
        assert len(run) == 1 or num_bytes <= limit
        assert len(run) <= max(1, limit // BLOCK_LENGTH), "each costs a read of its own"
        taken += run
    assert taken == requests


def test_requests_for_a_lost_piece_are_dropped() -> None:
    incoming = IncomingRequests()
    admit(incoming, 0, 4, 1, 5)
    assert incoming.drop_piece(0) == [block(0), block(1)]
    assert incoming.drop_piece(0) == []
    assert take(incoming) == [block(4), block(5)]
