"""Who is asked next, and when a lookup is over (Limit: N2)."""

from __future__ import annotations

import random

import pytest

from bittern.core.endpoint import Endpoint
from bittern.dht.address import pack_endpoint, pack_host
from bittern.dht.limits import (
    BUCKET_SIZE,
    MAX_CANDIDATES,
    MAX_LOOKUP_QUERIES,
    NUM_PATHS,
)
from bittern.dht.lookup import Candidate, Lookup, State
from bittern.dht.security import make_node_id

TARGET = bytes(20)
OWN = b"\xff" * 20


def compact(number: int) -> bytes:
    """Return an address in a /24 of its own."""
    return bytes([20 + (number >> 16), number >> 8 & 255, number & 255, 1, 4, 0])


def node_id(distance: int) -> bytes:
    """Return the id at a distance from TARGET; ids with a 7 at the end fit no address here."""
    return distance.to_bytes(20, "big")


def info(distance: int, number: int | None = None) -> bytes:
    return node_id(distance) + compact(distance if number is None else number)


def local(number: int) -> bytes:
    """Return a local address: always verified, and in no network."""
    return bytes([127, 0, number >> 8 & 255, number & 255, 4, 0])


def start(*distances: int) -> Lookup:
    lookup = Lookup(TARGET, OWN)
    for distance in distances:
        lookup.add_start(node_id(distance), local(distance))
    return lookup


def take_all(lookup: Lookup) -> list[Candidate]:
    taken = []
    while (candidate := lookup.next_query()) is not None:
        taken.append(candidate)
    return taken


def distances(candidates: list[Candidate]) -> list[int]:
    return [candidate.distance for candidate in candidates]


def test_nothing_to_start_from_is_over_at_once() -> None:
    lookup = start()
    assert lookup.next_query() is None
    assert lookup.is_done
    assert lookup.closest() == []


def test_three_paths_start_with_different_nodes() -> None:
    lookup = start(10, 20, 30, 40, 50, 60)
    first = take_all(lookup)
    assert len(first) == NUM_PATHS
    assert distances(first) == [10, 20, 30]
    assert not lookup.is_done


def test_a_path_goes_on_with_its_own_nodes() -> None:
    lookup = start(100, 200, 300)
    first, _, _ = take_all(lookup)
    lookup.answered(first, first.node_id, info(50) + info(60), None)
    following = take_all(lookup)
    assert distances(following) == [50]
    assert following[0].path == first.path


def test_paths_join_for_the_nearest_eight() -> None:
    lookup = start(*range(1000, 1012))
    asked = 0
    while taken := take_all(lookup):
        for candidate in taken:
            asked += 1
            lookup.answered(candidate, candidate.node_id, b"", b"token")
    assert lookup.is_done
    assert distances(lookup.closest()) == list(range(1000, 1008))
    # What was under way when the eighth answer came.
    assert BUCKET_SIZE <= asked == lookup.num_queries < BUCKET_SIZE + NUM_PATHS


def test_at_most_three_are_under_way_and_slow_ones_do_not_count() -> None:
    lookup = start(*range(1000, 1030))
    taken = take_all(lookup)
    assert len(taken) == NUM_PATHS
    lookup.became_slow(taken[0])
    more = take_all(lookup)
    assert len(more) == 1
    # The slow one's answer is still welcome, and the lookup waits for it.
    for candidate in taken[1:] + more:
        lookup.answered(candidate, candidate.node_id, b"", None)
    while rest := take_all(lookup):
        for candidate in rest:
            lookup.answered(candidate, candidate.node_id, b"", None)
    assert not lookup.is_done
    lookup.answered(taken[0], taken[0].node_id, b"", None)
    assert lookup.is_done
    assert taken[0] in lookup.closest()


def test_a_slow_one_that_fails_is_no_longer_waited_for() -> None:
    lookup = start(10)
    (only,) = take_all(lookup)
    lookup.became_slow(only)
    assert not lookup.is_done
    lookup.failed(only)
    assert lookup.is_done
    assert lookup.closest() == []


def test_our_own_id_is_nobody_to_ask() -> None:
    lookup = start(10)
    (only,) = take_all(lookup)
    lookup.answered(only, only.node_id, OWN + compact(5), None)
    assert take_all(lookup) == []
    other = start(10)
    (only,) = take_all(other)
    other.answered(only, OWN, b"", None)
    assert only.state is State.FAILED
    assert other.is_done


def test_nodes_without_id_come_last_and_get_the_one_they_say() -> None:
    lookup = Lookup(TARGET, OWN)
    lookup.add_start(b"", local(1))
    lookup.add_start(node_id(5), local(2))
    taken = take_all(lookup)
    assert {candidate.node_id for candidate in taken} == {b"", node_id(5)}
    router = next(candidate for candidate in taken if not candidate.node_id)
    assert not router.is_verified
    lookup.answered(router, node_id(3), b"", b"t")
    assert distances(lookup.closest()) == [3]


def test_one_network_is_relied_on_once() -> None:
    """Limit: N2. A /24 that surrounds the target."""
    lookup = start(1000)
    (first,) = take_all(lookup)
    crowd = b"".join(node_id(number) + bytes([66, 6, 6, number, 4, 0]) for number in range(1, 8))
    lookup.answered(first, first.node_id, crowd + info(500), None)
    asked = take_all(lookup)
    assert distances(asked) == [1]
    lookup.answered(asked[0], asked[0].node_id, b"", None)
    (other,) = take_all(lookup)
    assert other.distance == 500
    lookup.answered(other, other.node_id, b"", None)
    assert take_all(lookup) == []
    assert distances(lookup.closest()) == [1, 500, 1000]


def test_a_network_is_free_again_when_its_node_fails() -> None:
    """A made-up node must not keep an honest neighbour out."""
    lookup = start(1000)
    (first,) = take_all(lookup)
    pair = node_id(1) + bytes([66, 6, 6, 1, 4, 0]) + node_id(2) + bytes([66, 6, 6, 2, 4, 0])
    lookup.answered(first, first.node_id, pair, None)
    (made_up,) = take_all(lookup)
    lookup.failed(made_up)
    assert distances(take_all(lookup)) == [2]


def test_who_names_the_dead_is_no_longer_believed() -> None:
    lookup = start(1000, 2000, 3000)
    liar, other, _ = take_all(lookup)
    lookup.answered(liar, liar.node_id, b"".join(info(n) for n in range(1, 9)), None)
    lookup.answered(other, other.node_id, info(8) + info(500), None)
    asked: list[int] = []
    while taken := take_all(lookup):
        for candidate in taken:
            asked.append(candidate.distance)
            lookup.failed(candidate)
    # Three of the liar's own suggestions, and what others vouch for.
    made_up = [distance for distance in asked if distance < 8]
    assert len(made_up) == 3
    assert 8 in asked
    assert 500 in asked


@pytest.mark.parametrize(("num_dead", "is_liar"), [(2, False), (4, False), (5, True)])
def test_who_names_some_of_the_dead_among_the_living_is_believed(
    num_dead: int, is_liar: bool
) -> None:
    """Nodes go, and everybody names some who have gone: up to two for one who answers."""
    lookup = start(1000)
    (namer,) = take_all(lookup)
    lookup.answered(namer, namer.node_id, b"".join(info(n) for n in range(1, 9)), None)
    living, under_way = 2, list[Candidate]()
    for number in range(living + num_dead):
        under_way += take_all(lookup)
        asked = under_way.pop(0)
        if number < living:
            lookup.answered(asked, asked.node_id, b"", None)
        else:
            lookup.failed(asked)
    assert lookup.liars() == [namer] * is_liar


def test_a_false_id_is_corrected_and_blamed() -> None:
    lookup = start(1000)
    (liar,) = take_all(lookup)
    lookup.answered(liar, liar.node_id, b"".join(info(n) for n in range(1, 6)), None)
    for _ in range(3):
        (false,) = take_all(lookup)
        lookup.answered(false, node_id(70_000 + false.distance), b"", b"t")
    assert take_all(lookup) == []
    assert distances(lookup.closest()) == [1000, 70_001, 70_002, 70_003]


def test_an_address_is_asked_once() -> None:
    lookup = start(1000)
    (first,) = take_all(lookup)
    names = b"".join(node_id(number) + compact(9) for number in range(1, 9))
    lookup.answered(first, first.node_id, names, None)
    assert len(take_all(lookup)) == 1
    # So is one that belongs to no network.
    lookup = start(1000)
    (first,) = take_all(lookup)
    names = b"".join(node_id(number) + local(9) for number in range(1, 9))
    lookup.answered(first, first.node_id, names, None)
    assert len(take_all(lookup)) == 1


def test_a_correction_may_meet_a_known_candidate() -> None:
    lookup = start(1000)
    (first,) = take_all(lookup)
    lookup.answered(first, first.node_id, node_id(1) + compact(9) + node_id(2) + compact(9), None)
    (false,) = take_all(lookup)
    lookup.answered(false, node_id(2), b"", b"t")
    assert distances(lookup.closest()) == [2, 1000]


def test_only_eight_nodes_of_an_answer_are_read() -> None:
    """Limit: N2."""
    lookup = start(1000)
    (first,) = take_all(lookup)
    lookup.answered(first, first.node_id, b"".join(info(n) for n in range(900, 800, -1)), None)
    assert min(candidate.distance for candidate in take_all(lookup)) == 893


def test_local_addresses_of_a_public_node_are_left_out() -> None:
    lookup = Lookup(TARGET, OWN)
    lookup.add_start(node_id(1000), compact(1000))
    (first,) = take_all(lookup)
    lookup.answered(first, first.node_id, node_id(1) + local(1) + info(2), None)
    assert distances(take_all(lookup)) == [2]


def test_a_liar_with_endless_nodes_is_bounded(rng: random.Random) -> None:
    """Limit: N2. Every answer names eight nearer nodes, and all of them answer."""
    lookup = start(1 << 159)
    nearest = 1 << 159
    number = 0
    while taken := take_all(lookup):
        for candidate in taken:
            nearest //= 2
            names = b""
            for _ in range(8):
                number += 1
                names += node_id(max(nearest, 1) + number) + compact(number)
            lookup.answered(candidate, candidate.node_id, names, None)
    assert lookup.num_queries <= MAX_LOOKUP_QUERIES
    assert len(lookup._candidates) <= MAX_CANDIDATES


def test_memory_of_candidates_is_bounded() -> None:
    lookup = start(*range(MAX_CANDIDATES + 100))
    assert len(lookup._candidates) == MAX_CANDIDATES


def test_unverified_nodes_do_not_end_a_lookup_early(rng: random.Random) -> None:
    """BEP 42: non-compliant nodes must not count for the end of a lookup."""
    lookup = Lookup(TARGET, OWN)
    verified = []
    for number in range(10):
        packed = pack_host(f"30.{number}.1.1")
        made = make_node_id(rng.randbytes, packed)
        verified.append(made)
        lookup.add_start(made, pack_endpoint(Endpoint(f"30.{number}.1.1", 1)))
    for number in range(1, 8):
        lookup.add_start(node_id(number), compact(number))
    while taken := take_all(lookup):
        for candidate in taken:
            lookup.answered(candidate, candidate.node_id, b"", b"token")
    writers = lookup.writers()
    assert sum(writer.is_verified for writer in writers) == BUCKET_SIZE
    # Those in between are written to as well: nobody loses while not all comply.
    assert len(writers) == BUCKET_SIZE + 7


def test_without_verified_nodes_there_is_an_end_too() -> None:
    lookup = Lookup(TARGET, OWN)
    for number in range(1, 60):
        lookup.add_start(node_id(number), compact(number))
    while taken := take_all(lookup):
        for candidate in taken:
            lookup.answered(candidate, candidate.node_id, b"", b"token")
    assert lookup.num_queries <= 2 * BUCKET_SIZE + NUM_PATHS


def far(rank: int, num_nodes: int) -> int:
    """Return the distance at which the node of that rank lies in a network of that size."""
    return rank * (1 << 160) // num_nodes


def clique(lookup: Lookup, num_nodes: int) -> None:
    """Let eight liars answer that name only each other, a fifth of the network's density."""
    liars = [far(5 * rank, num_nodes) for rank in range(1, 9)]
    names = b"".join(node_id(distance) + local(n) for n, distance in enumerate(liars))
    while taken := take_all(lookup):
        for candidate in taken:
            answer = names if candidate.compact[3] < 8 else b""
            lookup.answered(candidate, candidate.node_id, answer, b"t")


@pytest.mark.parametrize("num_nodes", [0, 1000])
def test_a_clique_that_is_too_thin_is_not_believed(num_nodes: int) -> None:
    """Limit: N2. Liars who name only each other are sparser than the network is."""
    lookup = Lookup(TARGET, OWN, num_nodes=num_nodes)
    lookup.add_start(node_id(far(5, 1000)), local(0))
    for number in range(20):  # from our own table, farther out
        lookup.add_start(node_id(far(100 + number, 1000)), local(100 + number))
    clique(lookup, 1000)
    others = lookup.num_queries - BUCKET_SIZE
    # Those that the paths began with, and twelve more if we know what to expect.
    extra = 12 if num_nodes else 0
    assert extra <= others <= extra + 4


def test_one_honest_node_among_them_is_enough() -> None:
    lookup = Lookup(TARGET, OWN, num_nodes=1000)
    lookup.add_start(node_id(far(5, 1000)), local(0))
    for number in range(20):
        lookup.add_start(node_id(far(100 + number, 1000)), local(100 + number))
    truth = [far(rank, 1000) + 1 for rank in range(1, 9)]
    liars = [far(5 * rank, 1000) for rank in range(1, 9)]
    names = b"".join(node_id(distance) + local(n) for n, distance in enumerate(liars))
    honest = b"".join(node_id(distance) + local(50 + n) for n, distance in enumerate(truth))
    while taken := take_all(lookup):
        for candidate in taken:
            number = candidate.compact[3]
            answer = names if number < 8 else honest if number in (50, 110) else b""
            lookup.answered(candidate, candidate.node_id, answer, b"t")
    found = distances(lookup.closest())
    assert sum(distance in truth for distance in found) >= 6
    assert lookup.estimate_nodes() > 700


def test_the_size_is_told_by_how_near_the_eighth_is() -> None:
    """Ids that lie evenly, a 1,024th of the space apart."""
    lookup = Lookup(TARGET, OWN)
    for number in range(1, 13):
        lookup.add_start(node_id(number << 150), local(number))
    while taken := take_all(lookup):
        for candidate in taken:
            lookup.answered(candidate, candidate.node_id, b"", None)
    assert lookup.estimate_nodes() == pytest.approx(1024, abs=1)


def test_the_size_is_unknown_without_eight_answers() -> None:
    assert start(1, 2).estimate_nodes() == 0


def test_what_is_covered_ends_at_the_eighth_nearest() -> None:
    assert start().covered_distance == -1
    for count, expected in ((1, (1 << 160) - 1), (7, (1 << 160) - 1), (9, 8)):
        lookup = start(*range(1, count + 1))
        while taken := take_all(lookup):
            for candidate in taken:
                lookup.answered(candidate, candidate.node_id, b"", None)
        assert lookup.covered_distance == expected


def test_suspects_are_not_asked() -> None:
    lookup = Lookup(TARGET, OWN, suspects={local(1), compact(5)})
    lookup.add_start(node_id(10), local(1))
    lookup.add_start(node_id(1000), compact(1000))
    (first,) = take_all(lookup)
    assert first.distance == 1000
    lookup.answered(first, first.node_id, info(5) + info(6), None)
    assert distances(take_all(lookup)) == [6]


def test_liars_are_told() -> None:
    lookup = start(1000, 2000)
    liar, honest = take_all(lookup)
    lookup.answered(liar, liar.node_id, b"".join(info(n) for n in range(1, 9)), None)
    lookup.answered(honest, honest.node_id, b"".join(info(n) for n in range(500, 508)), None)
    while taken := take_all(lookup):
        for candidate in taken:
            if candidate.distance < 10 or candidate.distance in (500, 501):
                lookup.failed(candidate)
            else:
                lookup.answered(candidate, candidate.node_id, b"", None)
    assert lookup.liars() == [liar]


def test_an_honest_lookup_is_not_checked() -> None:
    lookup = Lookup(TARGET, OWN, num_nodes=1000)
    for rank in range(1, 30):
        lookup.add_start(node_id(far(rank, 1000)), local(rank))
    while taken := take_all(lookup):
        for candidate in taken:
            lookup.answered(candidate, candidate.node_id, b"", b"t")
    assert lookup.num_queries < BUCKET_SIZE + NUM_PATHS


def test_slow_suggestions_count_against_who_made_them() -> None:
    """Until they answer."""
    lookup = start(1000)
    (liar,) = take_all(lookup)
    lookup.answered(liar, liar.node_id, b"".join(info(n) for n in range(1, 9)), None)
    slow = []
    for _ in range(3):
        (candidate,) = take_all(lookup)
        lookup.became_slow(candidate)
        slow.append(candidate)
    assert take_all(lookup) == []
    lookup.answered(slow[0], slow[0].node_id, b"", None)
    assert take_all(lookup)


def test_eight_writers_are_enough_where_their_ids_fit_their_addresses() -> None:
    """BEP 42. A local address fits any id."""
    lookup = start(*range(1000, 1003))
    while taken := take_all(lookup):
        for candidate in taken:
            names = b"".join(node_id(n) + local(n) for n in range(1003, 1011))
            lookup.answered(candidate, candidate.node_id, names, b"t")
    assert len(lookup.closest(99)) > BUCKET_SIZE
    assert distances(lookup.writers()) == list(range(1000, 1000 + BUCKET_SIZE))


def test_writers_are_those_with_a_token() -> None:
    lookup = start(*range(1, 12))
    while taken := take_all(lookup):
        for candidate in taken:
            token = None if candidate.distance == 2 else b"t"
            lookup.answered(candidate, candidate.node_id, b"", token)
    assert distances(lookup.writers()) == [1, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_a_lookup_finds_the_nearest_of_a_network(rng: random.Random, loss: float) -> None:
    """Against a naive model; of 3,000 networks with losses the mean was 7.4, one in 66 under 6."""
    found = [num_nearest_found(rng, loss) for _ in range(20)]
    assert sum(found) >= 20 * 6.75


def num_nearest_found(rng: random.Random, loss: float) -> int:
    """Look in a network where everybody knows random nodes and his neighbours; 8 is all."""
    numbers = sorted({rng.getrandbits(159) for _ in range(400)})
    where = {node_id(number): local(index + 1) for index, number in enumerate(numbers)}
    target = rng.randbytes(20)
    goal = int.from_bytes(target, "big")
    lookup = Lookup(target, OWN)
    for number in rng.sample(numbers, 8):
        lookup.add_start(node_id(number), where[node_id(number)])
    dead = {number for number in numbers if rng.random() < loss}
    while taken := take_all(lookup):
        for candidate in taken:
            number = int.from_bytes(candidate.node_id, "big")
            if number in dead:
                lookup.failed(candidate)
                continue
            # As a table would: a random choice of ever nearer parts of the id space.
            known = rng.sample(numbers, 60) + sorted(numbers, key=lambda n: n ^ number)[:20]
            best = sorted(set(known), key=lambda n: n ^ goal)[:8]
            nodes = b"".join(node_id(n) + where[node_id(n)] for n in best)
            lookup.answered(candidate, candidate.node_id, nodes, b"t")
    alive = [number for number in numbers if number not in dead]
    expected = {number ^ goal for number in sorted(alive, key=lambda n: n ^ goal)[:8]}
    assert lookup.num_queries < 40
    return len(expected.intersection(distances(lookup.closest())))


def test_reprs_are_one_line() -> None:
    lookup = start(5)
    (only,) = take_all(lookup)
    assert "1 queries" in repr(lookup)
    assert "ASKED" in repr(only)
