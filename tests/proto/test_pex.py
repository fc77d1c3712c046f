"""Peer exchange: who is told of whom, and how often."""

from __future__ import annotations

import pytest

from bittern.codec.extension import MAX_PEX_PEERS, PexFlag
from bittern.core.endpoint import Endpoint
from bittern.core.errors import PeerViolation
from bittern.proto.pex import MAX_PER_MINUTE, MIN_RECEIVE_INTERVAL, SEND_INTERVAL, PexState


def peers(first: int, count: int) -> dict[Endpoint, PexFlag]:
    return {Endpoint(f"10.0.{n // 250}.{n % 250}", 1): PexFlag.OUTGOING
            for n in range(first, first + count)}  # fmt: skip


def test_first_everybody_then_what_changed() -> None:
    state = PexState()
    first = state.next_message(peers(0, 3), now=100.0)
    assert first is not None
    assert dict(first.added) == peers(0, 3)
    assert first.dropped == ()
    second = state.next_message(peers(1, 3), now=100.0 + SEND_INTERVAL)
    assert second is not None
    assert dict(second.added) == peers(3, 1)
    assert second.dropped == tuple(peers(0, 1))


def test_nothing_too_soon_and_nothing_when_nothing_is_new() -> None:
    state = PexState()
    assert state.next_message({}, now=0.0) is None
    assert state.next_message(peers(0, 1), now=1.0) is not None
    assert state.next_message(peers(0, 2), now=SEND_INTERVAL) is None
    assert state.next_message(peers(0, 1), now=2 * SEND_INTERVAL) is None


def test_a_message_is_bounded_and_the_rest_follows() -> None:
    state = PexState()
    told: dict[Endpoint, PexFlag] = {}
    for minute in range(4):
        message = state.next_message(peers(0, 120), now=minute * SEND_INTERVAL)
        if message is not None:
            assert len(message.added) <= MAX_PEX_PEERS
            told.update(message.added)
    assert told == peers(0, 120)
    gone = [state.next_message({}, now=(5 + n) * SEND_INTERVAL) for n in range(3)]
    assert [len(message.dropped) for message in gone if message] == [50, 50, 20]


def test_messages_in_quick_succession_are_not_read() -> None:
    """Limit: H8."""
    state = PexState()
    assert state.may_read(now=0.0)
    assert not state.may_read(now=MIN_RECEIVE_INTERVAL - 0.1)
    assert state.may_read(now=MIN_RECEIVE_INTERVAL)


def test_a_flood_closes_the_connection() -> None:
    """Limit: H8."""
    state = PexState()
    for number in range(MAX_PER_MINUTE):
        state.may_read(now=float(number))
    with pytest.raises(PeerViolation, match="floods"):
        state.may_read(now=50.0)


def test_an_honest_peer_goes_on_for_ever() -> None:
    state = PexState()
    assert all(state.may_read(now=60.0 * minute) for minute in range(1000))
