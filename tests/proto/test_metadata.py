"""The info dictionary from many peers, some of whom lie."""

from __future__ import annotations

import random
from collections.abc import Hashable

import pytest

from bittern.codec.extension import MAX_METADATA_LENGTH, METADATA_PIECE_LENGTH
from bittern.proto.metadata import (
    MAX_OUTSTANDING,
    MAX_SERVED_QUEUE,
    MAX_SIZES,
    REQUEST_TIMEOUT,
    SERVED_WINDOW,
    MetadataFetch,
    MetadataServer,
)

RIGHT = random.Random(1).randbytes(3 * METADATA_PIECE_LENGTH + 100)


def piece_of(data: bytes, number: int) -> bytes:
    return data[number * METADATA_PIECE_LENGTH : (number + 1) * METADATA_PIECE_LENGTH]


def make() -> MetadataFetch:
    return MetadataFetch(lambda data: data == RIGHT)


def serve(fetch: MetadataFetch, peer: Hashable, data: bytes, *, now: float) -> set[Hashable]:
    """Let a peer answer all that it is asked, until it is asked nothing or found guilty."""
    guilty: set[Hashable] = set()
    while not guilty and (asked := fetch.next_requests(peer, now=now)):
        for number in asked:
            guilty |= fetch.data_received(peer, number, piece_of(data, number), now=now)
    return guilty


def test_one_peer_gives_all_of_it() -> None:
    fetch = make()
    fetch.claim("a", len(RIGHT))
    assert fetch.next_requests("a", now=0.0) == [0, 1]
    assert fetch.next_requests("a", now=0.0) == []
    assert fetch.data_received("a", 0, piece_of(RIGHT, 0), now=1.0) == set()
    assert fetch.progress == (1, 4)
    assert fetch.next_requests("a", now=1.0) == [2]
    for number in (1, 2):
        fetch.data_received("a", number, piece_of(RIGHT, number), now=1.0)
    assert serve(fetch, "a", RIGHT, now=2.0) == set()
    assert fetch.metadata == RIGHT
    assert fetch.next_requests("a", now=3.0) == []


def test_several_peers_share_the_pieces() -> None:
    fetch = make()
    for peer in "ab":
        fetch.claim(peer, len(RIGHT))
    asked = {peer: fetch.next_requests(peer, now=0.0) for peer in "ab"}
    assert asked == {"a": [0, 1], "b": [2, 3]}
    assert all(len(numbers) <= MAX_OUTSTANDING for numbers in asked.values())


@pytest.mark.parametrize("length", [0, -1, MAX_METADATA_LENGTH + 1])
def test_an_impossible_size_is_no_claim(length: int) -> None:
    """Limit: H7."""
    fetch = make()
    fetch.claim("a", length)
    assert fetch.next_requests("a", now=0.0) == []
    assert fetch.progress == (0, 0)


def test_what_was_not_asked_for_is_ignored() -> None:
    fetch = make()
    fetch.claim("a", len(RIGHT))
    assert fetch.data_received("a", 0, piece_of(RIGHT, 0), now=0.0) == set()
    fetch.next_requests("a", now=0.0)
    assert fetch.data_received("b", 0, piece_of(RIGHT, 0), now=0.0) == set()
    assert fetch.progress == (0, 4)


def test_a_piece_of_a_wrong_length_is_a_lie() -> None:
    fetch = make()
    fetch.claim("a", len(RIGHT))
    fetch.next_requests("a", now=0.0)
    assert fetch.data_received("a", 0, b"short", now=0.0) == {"a"}


def test_who_fails_alone_is_guilty() -> None:
    fetch = make()
    fetch.claim("liar", len(RIGHT))
    assert serve(fetch, "liar", bytes(len(RIGHT)), now=0.0) == {"liar"}


def test_of_several_nobody_is_guilty_until_one_fails_alone() -> None:
    fetch = make()
    for peer in ("honest", "liar"):
        fetch.claim(peer, len(RIGHT))
    first = fetch.next_requests("honest", now=0.0)
    second = fetch.next_requests("liar", now=0.0)
    for number in first:
        assert not fetch.data_received("honest", number, piece_of(RIGHT, number), now=0.0)
    for number in second:
        wrong = bytes(len(piece_of(RIGHT, number)))
        assert not fetch.data_received("liar", number, wrong, now=0.0)
    assert fetch.metadata is None
    assert serve(fetch, "liar", bytes(len(RIGHT)), now=1.0) == {"liar"}
    fetch.forget("liar")
    assert serve(fetch, "honest", RIGHT, now=2.0) == set()
    assert fetch.metadata == RIGHT


def test_a_silent_peer_costs_its_requests_only() -> None:
    fetch = make()
    fetch.claim("silent", len(RIGHT))
    fetch.claim("honest", len(RIGHT))
    assert fetch.next_requests("silent", now=0.0) == [0, 1]
    serve(fetch, "honest", RIGHT, now=0.0)
    assert fetch.metadata is None
    fetch.handle_timer(now=REQUEST_TIMEOUT + 0.1)
    serve(fetch, "honest", RIGHT, now=REQUEST_TIMEOUT + 0.1)
    assert fetch.metadata == RIGHT


def test_a_peer_that_refuses_is_not_asked_until_it_claims_again() -> None:
    fetch = make()
    fetch.claim("a", len(RIGHT))
    for number in fetch.next_requests("a", now=0.0):
        fetch.rejected("a", number)
    assert fetch.next_requests("a", now=1.0) == []
    fetch.rejected("a", 0)
    fetch.claim("a", len(RIGHT))
    assert fetch.next_requests("a", now=2.0) == [0, 1]


def test_few_sizes_at_a_time() -> None:
    """Limit: H7."""
    fetch = make()
    for number in range(10):
        fetch.claim(number, 1000 + number)
    asked = [number for number in range(10) if fetch.next_requests(number, now=0.0)]
    assert len(asked) == MAX_SIZES


@pytest.mark.parametrize("are_silent", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_fifty_liars_with_ten_sizes_do_not_keep_out_one_honest_peer(
    seed: int, are_silent: bool
) -> None:
    """Limit: H7. The metadata is there within 30 s when liars answer, within minutes if not."""
    fetch, rng = make(), random.Random(seed)
    sizes = {f"liar {n}": 20_000 + 5_000 * (n % 10) for n in range(50)}
    peers = [*sizes, "honest"]
    rng.shuffle(peers)
    banned: set[Hashable] = set()
    for peer in peers:
        fetch.claim(peer, sizes.get(peer, len(RIGHT)))
    now = 0.0
    while fetch.metadata is None and now < (600 if are_silent else 30):
        for peer in peers:
            if peer in banned:
                continue
            if peer == "honest":
                guilty = serve(fetch, peer, RIGHT, now=now)
            elif are_silent:
                fetch.next_requests(peer, now=now)
                continue
            else:
                guilty = serve(fetch, peer, bytes(sizes[peer]), now=now)
            for liar in guilty:
                banned.add(liar)
                fetch.forget(liar)
        now += 1.0
        fetch.handle_timer(now=now)
    assert fetch.metadata == RIGHT
    assert "honest" not in banned


def test_the_server_gives_pieces_and_no_more() -> None:
    server = MetadataServer(RIGHT)
    assert server.length == len(RIGHT)
    assert b"".join(server.piece("a", n, now=0.0) or b"" for n in range(4)) == RIGHT
    assert server.piece("a", 4, now=0.0) is None


def test_the_server_refuses_who_asks_without_end() -> None:
    """Limit: H7."""
    server = MetadataServer(RIGHT)
    answers = [server.piece("greedy", 0, now=0.0) for _ in range(MAX_SERVED_QUEUE + 5)]
    assert [answer is None for answer in answers] == [False] * MAX_SERVED_QUEUE + [True] * 5
    assert server.piece("other", 0, now=0.0) is not None
    assert server.piece("greedy", 0, now=SERVED_WINDOW + 1) is not None
    server.forget("greedy")
    assert server.piece("greedy", 0, now=SERVED_WINDOW + 1) is not None


def test_a_large_dictionary_is_fetched_at_once_by_an_honest_peer() -> None:
    server = MetadataServer(bytes(MAX_METADATA_LENGTH))
    count = MAX_METADATA_LENGTH // METADATA_PIECE_LENGTH
    assert all(server.piece("a", number, now=0.0) for number in range(count))
