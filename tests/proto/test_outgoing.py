"""proto.outgoing: our requests to one peer, late blocks, blocks nobody asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec import wire
from bittern.core.errors import PeerViolation, WireDecodeError
from bittern.core.geometry import BLOCK_LENGTH
from bittern.proto.outgoing import (
    MAX_LATE_REQUESTS,
    MAX_UNEXPECTED_BLOCKS,
    OutgoingRequests,
    request_key,
)

FIRST, SECOND, OTHER = (3, 0, BLOCK_LENGTH), (3, BLOCK_LENGTH, 100), (4, 0, BLOCK_LENGTH)


def asked(*requests: tuple[int, int, int]) -> OutgoingRequests:
    made = OutgoingRequests()
    for index, begin, length in requests:
        made.waiting[request_key(index, begin)] = length
    return made


def accept(requests: OutgoingRequests, request: tuple[int, int, int]) -> bool:
    """Take the request out, as the data path does, and have the block judged."""
    index, begin, length = request
    return requests.accept(index, begin, length, requests.waiting.pop(request_key(index, begin), 0))


def test_keys_are_what_the_data_path_makes() -> None:
    assert request_key(0xFFFFFFFF, 0xFFFFFFFF) == (1 << 64) - 1
    assert request_key(1, 2) == 1 << 32 | 2


def test_a_batch_is_what_answers_waiting_requests_without_a_gap() -> None:
    size = 10
    usual = [(1, at * BLOCK_LENGTH, BLOCK_LENGTH) for at in range(size)]
    data = memoryview(b"".join(wire.encode_piece(1, b, bytes(BLOCK_LENGTH)) for _, b, _ in usual))
    for missing in range(size):
        requests = asked(*usual[:missing], *usual[missing + 1 :], OTHER)
        blocks = requests.take_batch(data, 0)
        assert [(index, begin, len(payload)) for index, begin, payload in blocks] == usual[:missing]
        assert requests.give_up_all() == [*usual[missing + 1 :], OTHER]
    requests = asked(*usual, OTHER)
    assert len(requests.take_batch(data, 0)) == size
    assert requests.give_up_all() == [OTHER]


def test_a_block_that_comes_twice_is_in_no_batch() -> None:
    usual = [(1, at * BLOCK_LENGTH, BLOCK_LENGTH) for at in range(3)]
    twice = memoryview(wire.encode_piece(1, 0, bytes(BLOCK_LENGTH)) * 3)
    requests = asked(*usual)
    assert not requests.take_batch(twice, 0)
    assert requests.give_up_all() == usual


def test_a_block_asked_for_with_another_length_is_in_no_batch() -> None:
    requests = asked((1, 0, BLOCK_LENGTH - 1))
    assert not requests.take_batch(memoryview(wire.encode_piece(1, 0, bytes(BLOCK_LENGTH))), 0)
    assert requests.give_up_all() == [(1, 0, BLOCK_LENGTH - 1)]


def test_what_is_given_up_comes_back_in_order_and_its_blocks_are_late() -> None:
    requests = asked(FIRST, SECOND, OTHER)
    waiting = requests.waiting
    assert requests.give_up_all() == [FIRST, SECOND, OTHER]
    assert requests.waiting is waiting, "the data path keeps this object"
    assert not waiting
    assert accept(requests, SECOND)
    assert accept(requests, FIRST)
    assert not accept(requests, FIRST), "a late block is taken once"


def test_one_request_is_given_up_once() -> None:
    requests = asked(FIRST, SECOND)
    assert requests.give_up(3, BLOCK_LENGTH) == 100
    assert requests.give_up(3, BLOCK_LENGTH) == 0
    assert requests.give_up_all() == [FIRST]


def test_the_requests_of_one_piece_are_given_up() -> None:
    requests = asked(FIRST, OTHER, SECOND)
    assert requests.give_up_piece(3) == [FIRST, SECOND]
    assert requests.give_up_piece(3) == []
    assert accept(requests, FIRST)
    assert list(requests.waiting) == [request_key(4, 0)]


def test_a_reject_takes_out_what_waits_and_forgets_what_was_given_up() -> None:
    requests = asked(FIRST, SECOND)
    assert not requests.reject((3, 0, 99)), "another length is another request"
    assert requests.reject(FIRST)
    assert not requests.reject(FIRST)
    requests.give_up_all()
    assert not requests.reject(SECOND)
    assert not accept(requests, SECOND), "it was rejected, so nothing can be under way"


def test_of_a_block_asked_for_twice_the_first_reject_answers_the_first_request() -> None:
    requests = asked(FIRST)
    requests.give_up_all()
    requests.waiting[request_key(*FIRST[:2])] = BLOCK_LENGTH
    assert not requests.reject(FIRST), "that was the one given up"
    assert requests.reject(FIRST)
    assert not requests.waiting


def test_late_blocks_are_counted_once() -> None:
    requests = asked(FIRST, SECOND, OTHER)
    requests.give_up_all()
    accept(requests, FIRST)
    accept(requests, SECOND)
    assert requests.take_late_length() == BLOCK_LENGTH + 100
    assert requests.take_late_length() == 0
    assert not accept(requests, FIRST)
    assert requests.take_late_length() == 0


@pytest.mark.parametrize("length", [1, 99, 101, BLOCK_LENGTH, 1 << 31])
def test_a_block_of_another_length_is_a_violation_and_the_request_waits_again(length: int) -> None:
    requests = asked(FIRST, SECOND)
    with pytest.raises(PeerViolation, match=f"sends {length} bytes for a block of 100"):
        accept(requests, (3, BLOCK_LENGTH, length))
    assert requests.give_up_all() == [FIRST, SECOND]


def test_a_late_block_of_another_length_is_thrown_away() -> None:
    requests = asked(SECOND)
    requests.give_up_all()
    assert not accept(requests, (3, BLOCK_LENGTH, 99))


def test_h1_a_block_longer_than_any_of_ours_is_refused() -> None:
    with pytest.raises(WireDecodeError, match=r"limit 16393"):
        accept(asked(), (3, 0, BLOCK_LENGTH + 1))


def test_blocks_nobody_asked_for_are_endured_for_a_while() -> None:
    requests = asked()
    for _ in range(MAX_UNEXPECTED_BLOCKS):
        assert not accept(requests, FIRST)
    with pytest.raises(PeerViolation, match="nobody asked for"):
        accept(requests, FIRST)


def test_only_the_last_given_up_requests_are_remembered() -> None:
    requests = asked(*((index, 0, 5) for index in range(MAX_LATE_REQUESTS + 2)))
    requests.give_up_all()
    assert not accept(requests, (0, 0, 5))
    assert not accept(requests, (1, 0, 5))
    assert accept(requests, (2, 0, 5))


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "block", "reject", "give up", "piece", "all"]),
            st.integers(0, 3),
            st.integers(0, 2),
        )
    )
)
def test_every_request_ends_in_exactly_one_way(steps: list[tuple[str, int, int]]) -> None:
    requests = OutgoingRequests()
    waiting: set[tuple[int, int, int]] = set()
    late: set[tuple[int, int, int]] = set()
    for step, index, number in steps:
        request = (index, number * BLOCK_LENGTH, 7)
        match step:
            case "ask":
                requests.waiting[request_key(*request[:2])] = 7
                waiting.add(request)
            case "block":
                is_simple = requests.waiting.get(request_key(*request[:2])) == 7
                assert is_simple == (request in waiting)
                if is_simple:
                    del requests.waiting[request_key(*request[:2])]
                    waiting.discard(request)
                else:
                    assert accept(requests, request) == (request in late)
                    late.discard(request)
            case "reject":
                assert requests.reject(request) == (request in waiting - late)
                (late if request in late else waiting).discard(request)
            case "give up":
                assert requests.give_up(*request[:2]) == (7 if request in waiting else 0)
                late |= waiting & {request}
                waiting.discard(request)
            case "piece":
                given_up = {entry for entry in waiting if entry[0] == index}
                assert set(requests.give_up_piece(index)) == given_up
                waiting, late = waiting - given_up, late | given_up
            case _:
                assert set(requests.give_up_all()) == waiting
                waiting, late = set(), late | waiting
    assert set(requests.give_up_all()) == waiting
