from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.bitfield import Bitfield
from bittern.core.errors import MisuseError
from bittern.policy.availability import Availability


def bits_of(drawn: str) -> int:
    return Bitfield.of(len(drawn), (i for i, sign in enumerate(drawn) if sign == "#")).bits


def counts_of(swarm: Availability) -> list[int]:
    return [swarm.count(i) for i in range(swarm.num_pieces)]


def test_a_seed_that_loses_a_piece_is_counted_exactly() -> None:
    swarm = Availability(5)
    swarm.add(swarm.full)
    swarm.add(swarm.full)
    swarm.add(bits_of("#.#.."))
    swarm.remove(bits_of(".#..."))
    assert [swarm.count(i) for i in range(5)] == [3, 1, 3, 2, 2]
    swarm.remove(bits_of("#.###"))
    assert [swarm.count(i) for i in range(5)] == [2, 1, 2, 1, 1]


def test_a_leecher_that_completed_leaves_as_a_seed() -> None:
    swarm = Availability(3)
    swarm.add(bits_of("##."))
    swarm.add(bits_of("..#"))
    swarm.remove(swarm.full)
    assert swarm.planes == []
    swarm.add(swarm.full)
    swarm.add(bits_of("##."))
    swarm.add(bits_of("..#"))
    swarm.remove(swarm.full)
    assert [swarm.count(i) for i in range(3)] == [1, 1, 1]


def test_counts_carry_and_borrow_over_all_planes() -> None:
    swarm = Availability(2)
    for turn in range(1, 10):
        swarm.add(bits_of("#."))
        assert [swarm.count(0), swarm.count(1)] == [turn, 0]
    assert len(swarm.planes) == 4
    for turn in range(8, -1, -1):
        swarm.remove(bits_of("#."))
        assert [swarm.count(0), swarm.count(1)] == [turn, 0]
    assert swarm.planes == []


def test_a_seed_that_loses_a_piece_is_folded_into_counts_that_others_have() -> None:
    swarm = Availability(2)
    swarm.add(bits_of("#."))
    swarm.add(swarm.full)
    swarm.remove(bits_of(".#"))
    assert (swarm.num_seeds, swarm.count(0), swarm.count(1)) == (0, 2, 0)


@pytest.mark.parametrize("peers", [(), ("#.#.",), ("#.#.", "#.#.", "..##")])
def test_taking_what_nobody_had_is_misuse_and_changes_nothing(peers: tuple[str, ...]) -> None:
    swarm = Availability(4)
    for peer in peers:
        swarm.add(bits_of(peer))
    before = list(swarm.planes)
    with pytest.raises(MisuseError):
        swarm.remove(bits_of("##.."))
    assert swarm.planes == before


def test_a_seed_is_folded_into_planes_that_have_room() -> None:
    swarm = Availability(3)
    for peer in ("##.", ".#.", "###"):
        swarm.add(bits_of(peer))
    swarm.remove(bits_of("..#"))
    assert counts_of(swarm) == [2, 3, 0]
    assert len(swarm.planes) == 2


def test_copies_count_the_rarest_piece_and_ours() -> None:
    swarm = Availability(4)
    for peer in ("####", "##..", "#..."):
        swarm.add(bits_of(peer))
    assert swarm.distributed_copies() == 1.5
    assert swarm.distributed_copies(ours=bits_of("..##")) == 2.25
    assert counts_of(swarm) == [3, 2, 1, 1]
    assert Availability(0).distributed_copies() == 0.0


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.data())
def test_rarest_is_the_set_of_the_lowest_count(counts: list[int], data: st.DataObject) -> None:
    num_pieces = len(counts)
    swarm = Availability(num_pieces)
    for height in range(9):
        swarm.add(
            Bitfield.of(num_pieces, (i for i in range(num_pieces) if counts[i] > height)).bits
        )
    assert counts_of(swarm) == counts
    among = data.draw(st.sets(st.integers(0, num_pieces - 1), min_size=1))
    low = min(counts[i] for i in among)
    rarest = Bitfield(num_pieces, swarm.rarest(Bitfield.of(num_pieces, among).bits))
    assert list(rarest) == sorted(i for i in among if counts[i] == low)
    totals = [count + (index in among) for index, count in enumerate(counts)]
    copies = swarm.distributed_copies(ours=Bitfield.of(num_pieces, among).bits)
    above = sum(total > min(totals) for total in totals)
    assert copies == pytest.approx(min(totals) + above / num_pieces)


peers_of_one_torrent = st.integers(1, 30).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.integers(0, (1 << n) - 1), max_size=20))
)


@given(peers_of_one_torrent, st.randoms())
def test_peers_that_leave_in_any_order_leave_nothing(
    swarm_of: tuple[int, list[int]], rng: Random
) -> None:
    num_pieces, raw = swarm_of
    peers = [bits << (-num_pieces % 8) for bits in raw]
    swarm = Availability(num_pieces)
    for bits in peers:
        swarm.add(bits)
    rng.shuffle(peers)
    while peers:
        swarm.remove(peers.pop())
        fields = [Bitfield(num_pieces, bits) for bits in peers]
        assert counts_of(swarm) == [sum(i in f for f in fields) for i in range(num_pieces)]
    assert swarm.planes == []
    assert swarm.num_seeds == 0
