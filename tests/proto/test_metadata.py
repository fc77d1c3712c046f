"""proto.metadata: fetching the info dictionary among liars (H7), and serving it."""

from __future__ import annotations

import heapq
import itertools
import random
import weakref
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.extension import MAX_METADATA_LENGTH, METADATA_PIECE_LENGTH
from bittern.proto.metadata import (
    DUPLICATE_AFTER,
    MAX_ATTEMPTS,
    MAX_OUTSTANDING,
    MAX_PATIENCE,
    MAX_SERVED_QUEUE,
    REFUSAL_PAUSE,
    REQUEST_TIMEOUT,
    SERVED_WINDOW,
    STALL,
    TURN,
    MetadataFetch,
    MetadataServer,
)

P = METADATA_PIECE_LENGTH
INFO = random.Random(0).randbytes(5 * P + 100)
"""Six pieces; the last has 100 bytes."""


def part(number: int, whole: bytes = INFO) -> bytes:
    return whole[number * P : (number + 1) * P]


def make(info: bytes = INFO) -> MetadataFetch:
    return MetadataFetch(lambda found: found == info)


def claimed(*peers: str, length: int = len(INFO)) -> MetadataFetch:
    fetch = make()
    for peer in peers:
        fetch.claim(peer, length)
    return fetch


def bring(fetch: MetadataFetch, peer: str, *numbers: int, now: float = 0.0) -> set[object]:
    guilty: set[object] = set()
    for number in numbers:
        guilty |= fetch.data_received(peer, number, part(number), now=now)
    return guilty


# --- one peer --------------------------------------------------------------------------------


def test_one_peer_is_asked_for_two_pieces_at_a_time_until_all_are_there() -> None:
    fetch = claimed("a")
    assert fetch.progress == (0, 0)
    for first in (0, 2, 4):
        assert fetch.next_requests("a", now=0.0) == [first, first + 1]
        assert fetch.next_requests("a", now=0.0) == []
        assert fetch.progress == (first, 6)
        assert bring(fetch, "a", first + 1, first) == set()
    assert fetch.metadata == INFO
    assert fetch.next_requests("a", now=0.0) == []
    fetch.claim("late", len(INFO))
    assert fetch.next_requests("late", now=0.0) == []
    assert MAX_OUTSTANDING == 2


@pytest.mark.parametrize("length", [1, P, P + 1, 2 * P])
def test_metadata_of_any_length(length: int) -> None:
    info = INFO[:length]
    fetch = make(info)
    fetch.claim("a", length)
    while asked := fetch.next_requests("a", now=0.0):
        for number in asked:
            assert not fetch.data_received("a", number, part(number, info), now=0.0)
    assert fetch.metadata == info


@pytest.mark.parametrize("length", [0, -1, MAX_METADATA_LENGTH + 1])
def test_h7_an_impossible_size_is_no_claim(length: int) -> None:
    fetch = claimed("a", length=length)
    assert fetch.next_requests("a", now=0.0) == []
    assert fetch.progress == (0, 0)
    fetch.claim("a", MAX_METADATA_LENGTH)
    assert fetch.next_requests("a", now=0.0) == [0, 1]


def test_a_peer_that_claims_nothing_is_not_asked_and_what_it_sends_is_ignored() -> None:
    fetch = claimed("a")
    assert fetch.next_requests("b", now=0.0) == []
    assert bring(fetch, "b", 0) == set()
    fetch.rejected("b", 0)
    fetch.forget("b")
    assert fetch.progress == (0, 0)


def test_pieces_that_were_not_asked_for_are_ignored() -> None:
    fetch = claimed("a", "b")
    fetch.next_requests("a", now=0.0)
    assert bring(fetch, "a", 3) == set()
    assert bring(fetch, "b", 0) == set()
    assert fetch.progress == (0, 6)
    bring(fetch, "a", 0)
    assert bring(fetch, "a", 0) == set()
    assert fetch.progress == (1, 6)


def test_a_whole_wrong_dictionary_from_one_peer_proves_its_guilt() -> None:
    fetch = MetadataFetch(lambda _: False)
    fetch.claim("a", 10)
    fetch.next_requests("a", now=0.0)
    assert fetch.data_received("a", 0, bytes(10), now=0.0) == {"a"}
    assert fetch.next_requests("a", now=0.0) == [], "it is forgotten"


@pytest.mark.parametrize("length", [1, P - 1, 100])
def test_a_piece_of_a_wrong_length_proves_guilt(length: int) -> None:
    fetch = claimed("a", "b")
    assert fetch.next_requests("a", now=0.0) == [0, 1]
    assert fetch.data_received("a", 0, bytes(length), now=0.0) == {"a"}
    assert fetch.next_requests("b", now=0.0) == [2, 3], "the liar's come last"
    bring(fetch, "b", 2, 3)
    assert fetch.next_requests("b", now=0.0) == [4, 5]
    bring(fetch, "b", 4, 5)
    assert sorted(fetch.next_requests("b", now=0.0)) == [0, 1]


# --- several peers ---------------------------------------------------------------------------


def test_peers_of_one_size_share_the_pieces() -> None:
    fetch = claimed("a", "b", "c", "d")
    assert [fetch.next_requests(peer, now=0.0) for peer in "abcd"] == [[0, 1], [2, 3], [4, 5], []]
    bring(fetch, "a", 0, 1)
    bring(fetch, "c", 4, 5)
    fetch.forget("b")
    assert fetch.next_requests("d", now=0.0) == [2, 3]
    bring(fetch, "d", 2, 3)
    assert fetch.metadata == INFO


def test_a_piece_that_is_late_is_asked_of_another_too() -> None:
    fetch = claimed("slow", "quick", "third")
    fetch.next_requests("slow", now=50.0)
    for numbers in ([2, 3], [4, 5]):
        assert fetch.next_requests("quick", now=50.0) == numbers
        bring(fetch, "quick", *numbers, now=50.0)
    late = 50.0 + DUPLICATE_AFTER
    assert fetch.next_requests("quick", now=late) == []
    assert fetch.next_requests("quick", now=late + 0.1) == [0, 1]
    assert fetch.next_requests("third", now=late + 0.2) == [0, 1]
    fetch.forget("third")
    assert fetch.next_requests("quick", now=late + 0.3) == [], "it is under way from two"
    bring(fetch, "quick", 0)
    bring(fetch, "slow", 0)
    assert fetch.progress == (5, 6)
    bring(fetch, "slow", 1)
    assert fetch.metadata == INFO


def test_a_refused_piece_is_asked_of_others_and_the_refuser_is_left_alone_for_a_while() -> None:
    fetch = claimed("a", "b")
    fetch.next_requests("a", now=100.0)
    fetch.rejected("a", 0)
    fetch.rejected("a", 0)
    fetch.rejected("a", 1)
    assert fetch.next_requests("a", now=100.0) == []
    assert fetch.next_requests("b", now=100.0) == [2, 3]
    bring(fetch, "b", 2, 3, now=100.0)
    assert fetch.next_requests("a", now=99.9 + REFUSAL_PAUSE) == []
    assert fetch.next_requests("a", now=100.0 + REFUSAL_PAUSE) == [4, 5]
    fetch.rejected("a", 4)
    assert fetch.next_requests("a", now=99.9 + 3 * REFUSAL_PAUSE) == []
    assert fetch.next_requests("a", now=100.0 + 3 * REFUSAL_PAUSE) == [0]


def test_what_a_peer_sends_makes_good_its_refusals() -> None:
    fetch = claimed("a")
    fetch.next_requests("a", now=0.0)
    fetch.rejected("a", 0)
    assert fetch.next_requests("a", now=REFUSAL_PAUSE) == [2]
    bring(fetch, "a", 1, now=REFUSAL_PAUSE + 1)
    fetch.rejected("a", 2)
    again = REFUSAL_PAUSE + 1 + REFUSAL_PAUSE
    assert fetch.next_requests("a", now=again - 0.1) == []
    assert fetch.next_requests("a", now=again) != []


def test_no_answer_counts_as_a_refusal() -> None:
    fetch = claimed("a")
    fetch.next_requests("a", now=0.0)
    fetch.handle_timer(now=REQUEST_TIMEOUT)
    assert fetch.next_requests("a", now=REQUEST_TIMEOUT) == []
    fetch.handle_timer(now=REQUEST_TIMEOUT + 0.1)
    assert fetch.next_requests("a", now=REQUEST_TIMEOUT + 0.1) == []
    later = REQUEST_TIMEOUT + 0.1 + REFUSAL_PAUSE
    assert fetch.next_requests("a", now=later - 0.1) == []
    assert fetch.next_requests("a", now=later) == [2, 3]
    bring(fetch, "a", 0, now=later)
    assert fetch.progress == (0, 6), "too late"


def test_a_peer_that_changes_its_claim_leaves_what_it_was_asked_for() -> None:
    fetch = claimed("a", "b")
    fetch.next_requests("a", now=0.0)
    fetch.claim("a", len(INFO))
    bring(fetch, "a", 0)
    assert fetch.progress == (1, 6), "a repeated claim changes nothing"
    assert fetch.next_requests("b", now=0.0) == [2, 3]
    fetch.claim("a", 7)
    bring(fetch, "b", 2, 3)
    fetch.next_requests("b", now=0.0)
    bring(fetch, "b", 4, 5)
    assert fetch.next_requests("b", now=0.0) == [1]


def test_those_who_have_it_are_counted() -> None:
    fetch = claimed("a", "b")
    fetch.claim("c", 0)
    assert fetch.num_claims == 2
    fetch.forget("a")
    assert fetch.num_claims == 1


def test_when_the_last_claimant_leaves_its_size_is_forgotten() -> None:
    fetch = claimed("a", "b")
    fetch.next_requests("a", now=0.0)
    bring(fetch, "a", 0)
    fetch.forget("a")
    assert fetch.progress == (1, 6), "b claims it too"
    fetch.forget("b")
    assert fetch.progress == (0, 0)
    fetch.claim("c", len(INFO))
    assert fetch.next_requests("c", now=0.0) == [0, 1]


def test_nothing_is_kept_of_a_peer_that_has_left() -> None:
    class Leaver:
        pass

    peer = Leaver()
    fetch = make()
    fetch.claim(peer, len(INFO))
    fetch.next_requests(peer, now=0.0)
    fetch.rejected(peer, 0)
    gone = weakref.ref(peer)
    fetch.forget(peer)
    del peer
    assert gone() is None


def test_a_size_that_nobody_claims_any_more_takes_no_turn() -> None:
    fetch = claimed("a")
    fetch.claim("liar", 10)
    fetch.claim("waiting", 20)
    for peer in ("a", "liar"):
        fetch.next_requests(peer, now=0.0)
    bring(fetch, "a", 0)
    fetch.forget("waiting")
    fetch.handle_timer(now=STALL)
    assert fetch.progress == (1, 6), "nobody waits"
    assert fetch.data_received("liar", 0, bytes(10), now=STALL) == {"liar"}
    fetch.claim("new", 30)
    assert fetch.next_requests("new", now=STALL) == [0]
    assert fetch.progress == (1, 6)


def test_progress_is_that_of_the_size_that_is_furthest() -> None:
    fetch = claimed("a")
    fetch.claim("b", 2 * P)
    for peer in ("a", "b"):
        fetch.next_requests(peer, now=0.0)
    bring(fetch, "a", 0)
    assert fetch.progress == (1, 6)
    fetch.data_received("b", 0, bytes(P), now=0.0)
    assert fetch.progress == (1, 2)


# --- after a mismatch ------------------------------------------------------------------------


def mixed() -> MetadataFetch:
    """Return a fetch of which a first attempt by three peers has failed."""
    fetch = claimed("liar", "honest", "idle")
    for peer, numbers in (("liar", [0, 1]), ("honest", [2, 3]), ("honest", [4, 5])):
        assert fetch.next_requests(peer, now=0.0) == numbers
        for number in numbers:
            data = part(number)
            guilty = fetch.data_received(
                peer, number, data if peer == "honest" else bytes(len(data)), now=0.0
            )
            assert guilty == set(), "it could have been any of them"
    return fetch


def test_after_a_mismatch_peers_are_asked_alone() -> None:
    fetch = mixed()
    assert [fetch.next_requests(peer, now=0.0) for peer in ("liar", "honest", "idle")] == [
        [0, 1],
        [0, 1],
        [],
    ]
    for number in range(0, 6, 2):
        for each in (number, number + 1):
            guilty = fetch.data_received("liar", each, bytes(len(part(each))), now=0.0)
            assert guilty == ({"liar"} if each == 5 else set())
        fetch.next_requests("liar", now=0.0)
    assert fetch.next_requests("idle", now=0.0) == [0, 1]
    bring(fetch, "honest", 0, 1)
    for number in (2, 4):
        fetch.next_requests("honest", now=0.0)
        bring(fetch, "honest", number, number + 1)
    assert fetch.metadata == INFO


def test_who_comes_after_a_mismatch_is_asked_alone_too() -> None:
    fetch = mixed()
    fetch.claim("new", len(INFO))
    assert fetch.next_requests("new", now=0.0) == []
    fetch.forget("liar")
    fetch.forget("honest")
    assert fetch.next_requests("new", now=0.0) == [0, 1]
    assert fetch.next_requests("idle", now=0.0) == [0, 1]


def test_a_loner_that_refuses_does_not_take_a_turn_while_it_rests() -> None:
    fetch = mixed()
    fetch.claim("new", len(INFO))
    fetch.next_requests("liar", now=0.0)
    fetch.rejected("liar", 0)
    fetch.handle_timer(now=1.0)
    fetch.handle_timer(now=1.0 + STALL)
    assert fetch.next_requests("idle", now=3.0) == [0, 1]
    fetch.forget("idle")
    fetch.handle_timer(now=4.0)
    assert fetch.next_requests("honest", now=4.0) == [0, 1]
    assert fetch.next_requests("liar", now=4.0) == []
    fetch.forget("new")
    assert fetch.next_requests("liar", now=REFUSAL_PAUSE) == [0, 1]


def test_peers_stay_alone_after_the_liar_was_found_and_not_after_all_have_left() -> None:
    fetch = mixed()
    for _ in range(3):
        for number in fetch.next_requests("liar", now=0.0):
            guilty = fetch.data_received("liar", number, bytes(len(part(number))), now=0.0)
    assert guilty == {"liar"}
    fetch.claim("new", len(INFO))
    fetch.forget("honest")
    assert [fetch.next_requests(peer, now=0.0) for peer in ("idle", "new")] == [[0, 1]] * 2
    fetch.forget("idle")
    fetch.forget("new")
    for peer in ("one", "two"):
        fetch.claim(peer, len(INFO))
    assert [fetch.next_requests(peer, now=0.0) for peer in ("one", "two")] == [[0, 1], [2, 3]]


def test_one_liar_among_several_claimants_does_not_spoil_the_size() -> None:
    fetch = claimed("liar", "honest")
    for _ in range(3):
        for number in fetch.next_requests("liar", now=0.0):
            guilty = fetch.data_received("liar", number, bytes(len(part(number))), now=0.0)
    assert guilty == {"liar"}
    assert fetch.next_requests("honest", now=0.0) == [0, 1]
    assert fetch.next_requests("other", now=0.0) == []


# --- turns -----------------------------------------------------------------------------------


def test_h7_two_sizes_at_a_time_and_the_next_when_a_turn_is_over() -> None:
    fetch = make()
    for size in (10, 20, 30, 40):
        fetch.claim(size, size)
    assert [fetch.next_requests(peer, now=0.0) for peer in (10, 20, 30, 40)] == [[0], [0], [], []]
    assert MAX_ATTEMPTS == 2
    fetch.handle_timer(now=STALL - 0.1)
    assert fetch.next_requests(30, now=STALL - 0.1) == []
    fetch.handle_timer(now=STALL)
    assert fetch.next_requests(30, now=STALL) == [0]
    assert fetch.next_requests(10, now=STALL) == []
    assert fetch.data_received(10, 0, bytes(10), now=STALL) == set(), "too late, and no proof"


def test_a_turn_ends_even_when_pieces_trickle_in_and_the_next_is_twice_as_long() -> None:
    """Two of four always wait."""
    fetch = make()
    lasted: dict[str, list[float]] = {"a": [], "b": [], "c": [], "d": []}
    began: dict[str, float] = {}
    for peer in lasted:
        fetch.claim(peer, 1999 * P + ord(peer))
    asked: dict[str, list[int]] = {peer: [] for peer in lasted}
    for step in range(2400):
        now = step / 4
        fetch.handle_timer(now=now)
        for peer, turns in lasted.items():
            if asked[peer] and step % 4 == 0:
                fetch.data_received(peer, asked[peer].pop(0), bytes(P), now=now)
            asked[peer] += fetch.next_requests(peer, now=now)
            is_on = (1999 * P + ord(peer), None) in fetch._attempts
            if is_on and peer not in began:
                began[peer] = now
            elif not is_on and peer in began:
                turns.append(now - began.pop(peer))
                asked[peer] = []
    for turns in lasted.values():
        assert turns[:7] == [3.0, 6.0, 12.0, 24.0, 48.0, 96.0, 96.0]
    assert TURN * MAX_PATIENCE == 96.0


def test_nobody_is_hurried_while_nobody_waits() -> None:
    fetch = claimed("a")
    fetch.claim("b", 7)
    fetch.next_requests("a", now=0.0)
    bring(fetch, "a", 0)
    fetch.claim("c", len(INFO))
    for now in range(1, 8):
        fetch.handle_timer(now=now)
    assert fetch.progress == (1, 6)


def test_a_size_whose_peers_were_not_asked_yet_begins_its_turn_with_the_timer() -> None:
    fetch = make()
    for size in (10, 20, 30):
        fetch.claim(size, size)
    fetch.next_requests(30, now=0.0)
    for now in (100.0, 100.0 + STALL):
        fetch.handle_timer(now=now)
    assert fetch.next_requests(30, now=102.0) == [0]


# --- the whole thing, in virtual time --------------------------------------------------------

RTT = 0.2


class Peer:
    """A peer of the simulation; ``answer`` gives the data for a piece, after how many seconds."""

    def __init__(self, length: int, answer: Callable[[int], tuple[float, bytes | None]]) -> None:
        self.length = length
        self.answer = answer
        self.is_banned = False


def honest(info: bytes) -> Peer:
    return Peer(len(info), lambda number: (RTT, part(number, info)))


def size_of(number: int, length: int) -> int:
    return max(0, min(P, length - number * P))


LIES: dict[str, Callable[[int], Peer]] = {
    "silent": lambda length: Peer(length, lambda _: (1e9, b"")),
    "refusing": lambda length: Peer(length, lambda _: (RTT, None)),
    "garbage": lambda length: Peer(length, lambda n: (RTT, b"x" * size_of(n, length))),
    "wrong length": lambda length: Peer(length, lambda _: (RTT, b"x")),
    "trickling": lambda length: Peer(length, lambda n: (1.9, b"x" * size_of(n, length))),
    "half": lambda length: Peer(
        length, lambda n: (RTT if 2 * n * P < length else 1e9, b"x" * size_of(n, length))
    ),
}


class Swarm:
    """Asks peers as the engine does: on every answer, and all of them once a second."""

    def __init__(self, info: bytes, peers: list[Peer]) -> None:
        self.info = info
        self.peers = peers
        self.fetch = make(info)
        self.num_guilty = 0
        self.num_outstanding: dict[Peer, int] = dict.fromkeys(peers, 0)
        self.largest = 0
        self._queue: list[tuple[float, int, Callable[[float], None]]] = []
        self._serial = itertools.count()

    def at(self, now: float, call: Callable[[float], None]) -> None:
        heapq.heappush(self._queue, (now, next(self._serial), call))

    def run(self, limit: float) -> float:
        """Return when the metadata was there."""
        for peer in self.peers:
            self.fetch.claim(peer, peer.length)
            self.ask(peer, 0.0)
        self.at(1.0, self.tick)
        while self.fetch.metadata is None:
            now, _, call = heapq.heappop(self._queue)
            assert now <= limit, "not in time"
            call(now)
            held = sum(map(len, itertools.chain(*self.held())))
            self.largest = max(self.largest, held)
        assert self.fetch.metadata == self.info
        return now

    def held(self) -> list[list[bytes]]:
        attempts = list(self.fetch._attempts.values())
        assert len(attempts) <= MAX_ATTEMPTS
        assert len({attempt.length for attempt in attempts}) <= 2
        return [list(attempt.pieces.values()) for attempt in attempts]

    def tick(self, now: float) -> None:
        self.fetch.handle_timer(now=now)
        for peer in self.peers:
            self.ask(peer, now)
        self.at(now + 1.0, self.tick)

    def ask(self, peer: Peer, now: float) -> None:
        for number in self.fetch.next_requests(peer, now=now):
            delay, data = peer.answer(number)
            self.at(now + delay, partial(self.answer, peer, number, data))

    def answer(self, peer: Peer, number: int, data: bytes | None, now: float) -> None:
        if peer.is_banned or self.fetch.metadata is not None:
            return
        if data is None:
            self.fetch.rejected(peer, number)
        else:
            for guilty in self.fetch.data_received(peer, number, data, now=now):
                assert isinstance(guilty, Peer)
                assert guilty.answer(0)[1] != part(0, self.info), "an honest peer is accused"
                guilty.is_banned = True
                self.num_guilty += 1
        self.ask(peer, now)


def liars(kind: str, *, includes_size: int | None = None) -> list[Peer]:
    """Fifty liars of one kind, or of all, with ten sizes."""
    sizes = [(number + 1) * 3 * P + number for number in range(9)]
    sizes.append(includes_size or MAX_METADATA_LENGTH)
    kinds = itertools.cycle([kind] if kind in LIES else LIES)
    return [LIES[next(kinds)](sizes[number % 10]) for number in range(50)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*LIES, "all kinds"])
@pytest.mark.parametrize("is_last", [True, False], ids=["last", "first"])
def test_h7_fifty_liars_with_ten_sizes_and_one_honest_peer(kind: str, is_last: bool) -> None:
    info = random.Random(1).randbytes(200_000)
    crowd = liars(kind)
    swarm = Swarm(info, [*crowd, honest(info)] if is_last else [honest(info), *crowd])
    assert swarm.run(30.0) <= 30.0
    assert swarm.largest <= 2 * MAX_METADATA_LENGTH


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*LIES, "all kinds"])
def test_h7_liars_that_claim_the_true_size(kind: str) -> None:
    """Each costs a turn or two."""
    info = random.Random(1).randbytes(200_000)
    swarm = Swarm(info, [*liars(kind, includes_size=len(info)), honest(info)])
    assert swarm.run(120.0) <= 120.0


@pytest.mark.slow
def test_h7_liars_that_keep_coming_back_with_new_sizes() -> None:
    info = random.Random(1).randbytes(100_000)
    swarm = Swarm(info, [*liars("silent"), honest(info)])
    sizes = itertools.count(1000)

    def come_back(now: float) -> None:
        for peer in swarm.peers[:50]:
            swarm.fetch.forget(peer)
            swarm.fetch.claim(peer, next(sizes))
            swarm.ask(peer, now)
        swarm.at(now + 0.9, come_back)

    swarm.at(0.9, come_back)
    assert swarm.run(120.0) <= 120.0


def test_a_large_dictionary_from_one_slow_peer_among_liars() -> None:
    """A turn that is too short comes again and is twice as long."""
    info = random.Random(1).randbytes(40 * P)
    slow = Peer(len(info), lambda number: (1.5, part(number, info)))
    swarm = Swarm(info, [LIES["silent"](P * size) for size in range(1, 6)] + [slow])
    assert swarm.run(600.0) > 40 / 2 * 1.5


@given(st.integers(0, 1 << 30), st.integers(1, 6), st.integers(0, 8), st.integers(1, 100_000))
@pytest.mark.slow
def test_any_crowd_of_liars_is_overcome(
    seed: int, num_honest: int, num_liars: int, length: int
) -> None:
    rng = random.Random(seed)
    info = rng.randbytes(length)
    peers = [honest(info) for _ in range(num_honest)]
    for _ in range(num_liars):
        size = rng.choice([length, rng.randrange(1, 10 * P)])
        peers.append(LIES[rng.choice(list(LIES))](size))
    rng.shuffle(peers)
    swarm = Swarm(info, peers)
    swarm.run(200.0)
    assert swarm.num_guilty <= num_liars


# --- serving ---------------------------------------------------------------------------------


def test_pieces_are_served_as_bep_9_cuts_them() -> None:
    server = MetadataServer(INFO)
    assert server.length == len(INFO)
    assert [server.piece(number) for number in range(6)] == [part(number) for number in range(6)]
    assert [server.admits("a", number, now=0.0) for number in range(7)] == [*[True] * 6, False]
    assert not MetadataServer(bytes(2 * P)).admits("a", 2, now=0.0)


def test_h7_a_peer_that_asks_too_often_is_refused_until_later() -> None:
    server = MetadataServer(INFO)
    answers = [server.admits("a", number % 6, now=50 + number / 100) for number in range(1000)]
    assert answers == [*[True] * MAX_SERVED_QUEUE, *[False] * (1000 - MAX_SERVED_QUEUE)]
    assert server.admits("b", 0, now=59.9)
    assert not server.admits("a", 0, now=50 + SERVED_WINDOW)
    later = 50 + SERVED_WINDOW + 0.1
    answers = [server.admits("a", number % 6, now=later) for number in range(MAX_SERVED_QUEUE + 1)]
    assert answers == [*[True] * MAX_SERVED_QUEUE, False]


def test_a_large_dictionary_can_be_fetched_in_one_go_and_once_more() -> None:
    server = MetadataServer(bytes(1000 * P))
    assert all(server.admits("a", number % 1000, now=0.0) for number in range(2000))
    assert not server.admits("a", 0, now=0.0)


def test_a_peer_that_left_is_forgotten() -> None:
    server = MetadataServer(INFO)
    for _ in range(MAX_SERVED_QUEUE):
        server.admits("a", 0, now=0.0)
    server.forget("a")
    server.forget("a")
    assert server.admits("a", 0, now=0.0)
