"""What our address is, by majority (BEP 42)."""

from __future__ import annotations

from bittern.dht.voting import MAX_VOTES, MIN_VOTES, AddressVote

OURS, WRONG = b"\x01\x02\x03\x04", b"\x09\x09\x09\x09"


def networks(count: int, start: int = 0) -> list[bytes]:
    return [bytes([start, number, 0]) for number in range(count)]


def test_enough_networks_decide() -> None:
    vote = AddressVote()
    results = [vote.cast(network, OURS) for network in networks(MIN_VOTES)]
    assert results == [False] * (MIN_VOTES - 1) + [True]
    assert vote.winner == OURS
    assert not vote.cast(b"xyz", OURS)


def test_one_network_has_one_vote() -> None:
    vote = AddressVote()
    assert not any(vote.cast(b"abc", WRONG) for _ in range(100))
    assert vote.winner is None


def test_a_minority_does_not_win() -> None:
    vote = AddressVote()
    for network in networks(MIN_VOTES + 1):
        vote.cast(network, OURS)
    assert not any(vote.cast(network, WRONG) for network in networks(MIN_VOTES + 1, start=1))
    assert vote.winner == OURS


def test_a_new_address_wins_once_most_say_so() -> None:
    vote = AddressVote(OURS)
    changed = [vote.cast(network, WRONG) for network in networks(MIN_VOTES, start=1)]
    assert changed[-1]
    assert vote.winner == WRONG


def test_memory_is_bounded_and_old_votes_fade() -> None:
    vote = AddressVote()
    for network in networks(200):
        vote.cast(network, OURS)
    results = [vote.cast(network, WRONG) for network in networks(MAX_VOTES, start=1)]
    assert results.index(True) == MAX_VOTES // 2
