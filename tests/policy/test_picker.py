"""Scenes are strings with a character for each piece; a naive model stands beside the picker."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from bittern.core.bitfield import Bitfield
from bittern.core.errors import MisuseError
from bittern.policy.picker import RANDOM_FIRST_PIECES, Picker


def bits_of(drawn: str, wanted: str = "#") -> int:
    return Bitfield.of(len(drawn), (i for i, sign in enumerate(drawn) if sign in wanted)).bits


def indices(bits: int, num_pieces: int) -> list[int]:
    return list(Bitfield(num_pieces, bits))


def pick(
    picker: Picker, peer_bits: int, *, exclude: int = 0, preferred: int | None = None
) -> int | None:
    """The one piece that is chosen when no row is asked for."""
    row = picker.pick_row(peer_bits & ~exclude, preferred=preferred)
    assert len(row) <= 1
    return row[0] if row else None


def in_order(picker: Picker, peer_bits: int | None = None, exclude: int = 0) -> list[int]:
    """All pieces that can be picked from a peer, or a seed, one after another."""
    peer_bits = picker.swarm.full if peer_bits is None else peer_bits
    picked: list[int] = []
    while (index := pick(picker, peer_bits, exclude=exclude)) is not None:
        picked.append(index)
        exclude |= 1 << (picker.top - index)
    return picked


def scene(
    *,
    ours: str,
    peers: tuple[str, ...] = (),
    counts: str = "",
    priorities: str = "",
    seed: int = 0,
    sequential: bool = False,
) -> Picker:
    """
    A picker drawn as strings.

    ``ours``: ``#`` is there, ``o`` open, ``.`` missing. ``peers``: ``#`` is there.
    ``counts``: the availability of each piece as a digit, in addition to ``peers``.
    """
    picker = Picker(len(ours), random.Random(seed), sequential=sequential)
    picker.set_have(bits_of(ours))
    for index, sign in enumerate(ours):
        if sign == "o":
            picker.mark_open(index)
    for peer in peers:
        picker.add_peer(bits_of(peer))
    for index, digit in enumerate(counts):
        for _ in range(int(digit)):
            picker.add_have(picker.swarm.full & Bitfield(len(ours)).mask(index))
    if priorities:
        picker.set_priorities([int(digit) for digit in priorities])
    return picker


def possible(make: Callable[[int], Picker], peer: str, tries: int = 60) -> str:
    """Draw the set of pieces that ``pick`` returns over many seeds."""
    found = {pick(make(seed), bits_of(peer)) for seed in range(tries)}
    return "".join("#" if i in found else "." for i in range(len(peer)))


# --- what is picked ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "counts", "priorities", "peer", "expected"),
    [
        # rarest first once four pieces are there
        ("####....", "11112131", "", "########", ".....#.#"),
        ("####....", "11113333", "", "########", "....####"),
        ("####....", "11119876", "", "####.##.", "......#."),
        # nobody in the planes has it: availability 0 is the rarest of all
        ("####....", "00005550", "", "########", ".......#"),
        # random while fewer than four are there
        ("###.....", "11112131", "", "########", "...#####"),
        ("#.......", "99999991", "", "#.######", "..######"),
        # open pieces are not picked again
        ("####o...", "11111222", "", "########", ".....###"),
        # a higher priority beats rarity, 0 is never picked
        ("####....", "11111222", "44444474", "########", "......#."),
        ("####....", "11111222", "44440101", "########", ".....#.#"),
        ("####....", "11111222", "44440000", "########", "........"),
        ("........", "11111111", "12344321", "########", "...##..."),
        ("........", "11111111", "12344321", "#......#", "#......#"),
        # what the peer lacks is not picked
        ("####....", "11111222", "", "####...#", ".......#"),
        ("####....", "11111222", "", "####....", "........"),
        ("####....", "11111222", "", "........", "........"),
        ("########", "11111111", "", "########", "........"),
    ],
)
def test_pick_chooses_the_best_and_any_of_equals(
    ours: str, counts: str, priorities: str, peer: str, expected: str
) -> None:
    def make(seed: int) -> Picker:
        return scene(ours=ours, counts=counts, priorities=priorities, seed=seed)

    assert possible(make, peer) == expected


def test_among_equals_the_one_that_is_asked_for_is_chosen() -> None:
    """And never one that is more common, or that the peer lacks."""
    for seed in range(20):
        picker = scene(ours="####....", counts="11113334", seed=seed)
        assert pick(picker, bits_of("########"), preferred=5) == 5
        assert pick(picker, bits_of("########"), preferred=7) in (4, 5, 6)
        assert pick(picker, bits_of("#####.##"), preferred=5) in (4, 6)


@pytest.mark.parametrize(
    ("ours", "priorities", "peer", "expected"),
    [
        ("#..####.", "", "########", 1),
        ("........", "", "..######", 2),
        ("..#.....", "", "..######", 3),
        ("..o.....", "", "..######", 3),
        ("........", "44444474", "########", 6),
        ("........", "04444474", "######.#", 1),
        ("........", "", "........", None),
    ],
)
def test_sequential_mode_picks_the_lowest_index_of_the_highest_priority(
    ours: str, priorities: str, peer: str, expected: int | None
) -> None:
    picker = scene(ours=ours, priorities=priorities, counts="54321012", sequential=True)
    assert pick(picker, bits_of(peer)) == expected


def test_excluded_pieces_are_not_picked() -> None:
    picker = scene(ours="####....", counts="11111222")
    full = picker.swarm.full
    assert pick(picker, full) == 4
    assert pick(picker, full, exclude=bits_of("....###.")) == 7
    assert pick(picker, full, exclude=full) is None


def test_the_choice_spreads_over_equals() -> None:
    picker = scene(ours="####" + "." * 12, counts="1" * 16)
    counted = Counter(pick(picker, picker.swarm.full) for _ in range(1200))
    assert set(counted) == set(range(4, 16))
    assert all(count > 40 for count in counted.values())


@pytest.mark.parametrize("gaps", ["####.###########.####...#####.", "." * 5 + "#" * 200 + "."])
def test_gaps_make_no_piece_likelier(gaps: str) -> None:
    """Who comes after a gap would be everybody's choice, and a seed would send it to all."""
    picker = scene(ours=gaps, counts="1" * len(gaps))
    missing = [index for index, mark in enumerate(gaps) if mark == "."]
    counted = Counter(pick(picker, picker.swarm.full) for _ in range(300 * len(missing)))
    assert set(counted) == set(missing)
    assert all(200 < count < 400 for count in counted.values())


def test_seeds_do_not_change_which_piece_is_rarest() -> None:
    picker = scene(ours="####....", counts="11112122", peers=("########",) * 3)
    assert pick(picker, picker.swarm.full) == 5
    assert picker.swarm.num_seeds == 3


# --- one after another ---------------------------------------------------------------------


def test_the_rarest_class_comes_first_then_the_next() -> None:
    picked = in_order(scene(ours="####......", counts="1111322312"))
    assert picked[0] == 8
    assert sorted(picked[1:4]) == [5, 6, 9]
    assert sorted(picked[4:]) == [4, 7]


def test_priorities_come_before_rarity() -> None:
    picker = scene(ours="####....", counts="11111234", priorities="44441247")
    assert in_order(picker) == [7, 6, 5, 4]


# --- our own state -----------------------------------------------------------------------


def test_a_piece_goes_from_missing_to_open_to_there_and_may_be_lost() -> None:
    picker = scene(ours="########.", counts="111111111")
    full = picker.swarm.full
    assert (pick(picker, full), picker.is_endgame, picker.num_missing) == (8, False, 1)
    picker.mark_open(8)
    assert (pick(picker, full), picker.is_endgame, picker.num_missing) == (None, True, 1)
    assert picker.is_interesting(full)
    picker.mark_closed(8)
    assert pick(picker, full) == 8
    picker.mark_open(8)
    picker.mark_have(8)
    picker.mark_have(8)
    assert picker.is_complete
    assert picker.is_seed
    assert not picker.is_endgame
    assert not picker.is_interesting(full)
    assert (picker.num_have, picker.open, picker.have) == (9, 0, full)
    picker.mark_closed(8)
    assert pick(picker, full) is None
    picker.lose(3)
    picker.lose(3)
    assert (picker.num_have, pick(picker, full), picker.is_complete) == (8, 3, False)


def test_unwanted_pieces_may_be_missing_from_a_complete_torrent() -> None:
    picker = scene(ours="####....", priorities="44440000")
    assert picker.is_complete
    assert not picker.is_seed
    assert not picker.is_interesting(picker.swarm.full)
    picker.set_priorities(bytes([4, 4, 4, 4, 0, 0, 0, 1]))
    assert picker.is_interesting(bits_of("#######" + "#"))
    assert not picker.is_interesting(bits_of("#######."))
    assert picker.wanted == bits_of("####...#")
    picker.lose(0)
    assert picker.num_missing == 2


def test_a_lost_piece_that_nobody_wants_is_not_fetched_again() -> None:
    picker = scene(ours="########", priorities="44444440")
    picker.lose(7)
    assert picker.is_complete
    assert pick(picker, picker.swarm.full) is None


def test_a_piece_that_was_given_up_is_picked_after_new_priorities_too() -> None:
    picker = scene(ours="###.")
    picker.mark_open(3)
    assert picker.is_endgame
    picker.mark_closed(3)
    assert picker.open == 0
    picker.set_priorities([4, 4, 4, 7])
    assert not picker.is_endgame
    assert pick(picker, picker.swarm.full) == 3


def test_priorities_keep_open_pieces_open() -> None:
    picker = scene(ours="####oo..", counts="11111111", priorities="44447477")
    assert picker.open == bits_of("....oo..", "o")
    assert sorted(in_order(picker)) == [6, 7]
    picker.mark_closed(4)
    assert sorted(in_order(picker)) == [4, 6, 7]


@pytest.mark.parametrize(
    ("priorities", "says"),
    [
        ([4] * 7, "7 priorities for 8 pieces"),
        ([4] * 9, "9 priorities for 8 pieces"),
        ([4] * 7 + [8], "priority 8 of piece 7"),
        ([4, -1] + [4] * 6, "priority -1 of piece 1"),
        ([], "0 priorities"),
    ],
)
def test_bad_priorities_are_refused_and_change_nothing(priorities: list[int], says: str) -> None:
    picker = scene(ours="........")
    with pytest.raises(ValueError, match=says):
        picker.set_priorities(priorities)
    assert picker.wanted == picker.swarm.full


def test_indices_out_of_range_are_refused() -> None:
    picker = scene(ours="....")
    calls: list[Callable[[int], object]] = [
        picker.mark_have,
        picker.mark_open,
        picker.mark_closed,
        picker.lose,
    ]
    for call in calls:
        for index in (-1, 4, 1 << 40):
            with pytest.raises(IndexError, match=f"piece {index} of 4"):
                call(index)


# --- rows --------------------------------------------------------------------------------


def row(picker: Picker, peer: str, **options: int | None) -> list[int]:
    return list(picker.pick_row(bits_of(peer), **options))  # type: ignore[arg-type]


def test_a_row_begins_with_the_preferred_piece_and_ends_where_others_are_not_as_good() -> None:
    picker = scene(ours="####......o...", counts="11111111111121")
    every = "#" * 14
    assert row(picker, every, preferred=5, extent=14, limit=3) == [5, 6, 7]
    assert row(picker, every, preferred=5, extent=14, limit=14) == [5, 6, 7, 8, 9], "10 is open"
    assert row(picker, every, preferred=11, extent=14, limit=14) == [11], "12 is less rare"
    assert row(picker, "########.#####", preferred=5, extent=14, limit=14) == [5, 6, 7]
    assert row(picker, "########.#####", preferred=5, extent=14, limit=4) == [5, 6, 7]
    assert row(picker, every, preferred=5, extent=4, limit=14) == [5, 6, 7], "the extent ends"
    assert row(picker, every, preferred=13, extent=14, limit=14) == [13], "the torrent ends"


def test_without_a_preferred_piece_a_row_begins_with_the_first_of_its_extent() -> None:
    """A row from the midst of an extent would leave the pieces before it for many short ones."""
    first = {
        tuple(row(scene(ours="####" + "." * 12, seed=seed), "#" * 16, extent=8, limit=8))
        for seed in range(60)
    }
    assert first == {(4, 5, 6, 7), tuple(range(8, 16))}
    gaps = {
        tuple(row(scene(ours="####.o..o.......", seed=seed), "#" * 16, extent=8, limit=8))
        for seed in range(60)
    }
    assert gaps == {(4,), tuple(range(9, 16))}


def test_rows_keep_to_order() -> None:
    picker = scene(ours="#.....#.", sequential=True)
    assert row(picker, "########", extent=8, limit=3) == [1, 2, 3]
    assert row(picker, "#.....#.", extent=8, limit=3) == []


def test_a_row_is_opened_and_had_as_single_pieces_are() -> None:
    picker, alone = scene(ours="........"), scene(ours="........")
    picker.mark_open(2, 4)
    picker.mark_have(3, 2)
    picker.mark_have(4, 3)
    for index in range(2, 6):
        alone.mark_open(index)
    for index in range(3, 7):
        alone.mark_have(index)
    for kind in ("have", "open", "missing", "num_have", "num_missing"):
        assert getattr(picker, kind) == getattr(alone, kind), kind
    assert pick(picker, picker.swarm.full) == pick(alone, alone.swarm.full)
    with pytest.raises(IndexError):
        picker.mark_open(7, 2)


def test_opening_a_piece_that_is_there_is_misuse() -> None:
    with pytest.raises(MisuseError, match="piece 1"):
        scene(ours=".#").mark_open(1)


def test_a_torrent_without_pieces_is_complete() -> None:
    picker = Picker(0, random.Random(0))
    picker.add_peer(0)
    picker.set_priorities(b"")
    assert picker.is_complete
    assert picker.is_seed
    assert pick(picker, 0) is None
    assert picker.distributed_copies() == 0.0
    picker.remove_peer(0)
    assert picker.swarm.num_seeds == 0


def test_repr_is_one_line() -> None:
    assert repr(scene(ours="##o.")) == "<Picker 2/4, 2 missing, 1 open>"


@pytest.mark.parametrize(
    ("ours", "peers", "copies"),
    [
        ("....", (), 0.0),
        ("#...", (), 0.25),
        ("####", (), 1.0),
        ("....", ("####",), 1.0),
        ("#...", ("####", "##.."), 1.5),
        ("....", ("####", "####", "#..#"), 2.5),
        ("#.#.", ("##..", "..##"), 1.5),
        ("...#", ("###.", "###.", "###."), 1.75),
        ("....", ("##..", "..##", "#.#.", ".#.#"), 2.0),
        ("#...", ("##..", "..##", "###.", ".#.#"), 2.5),
    ],
)
def test_distributed_copies(ours: str, peers: tuple[str, ...], copies: float) -> None:
    assert scene(ours=ours, peers=peers).distributed_copies() == copies


# --- beside a naive model ----------------------------------------------------------------


class PickerMachine(RuleBasedStateMachine):
    """Random life of a torrent; every count is made again the slow way."""

    def __init__(self) -> None:
        super().__init__()
        self.peers: list[set[int]] = []
        self.have: set[int] = set()
        self.open: set[int] = set()
        self.priorities: list[int] = []

    @initialize(num_pieces=st.integers(1, 40), seed=st.integers(0, 99), sequential=st.booleans())
    def start(self, num_pieces: int, seed: int, sequential: bool) -> None:
        self.n = num_pieces
        self.picker = Picker(num_pieces, random.Random(seed), sequential=sequential)
        self.priorities = [4] * num_pieces

    def bits(self, members: set[int]) -> int:
        return Bitfield.of(self.n, members).bits

    def mask(self, index: int) -> int:
        return Bitfield(self.n).mask(index)

    @rule(data=st.data())
    def a_peer_joins(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(["seed", "none", "some"]))
        pieces = st.sets(st.integers(0, self.n - 1))
        peer = {"seed": set(range(self.n)), "none": set()}.get(kind)
        self.peers.append(data.draw(pieces) if peer is None else peer)
        self.picker.add_peer(self.bits(self.peers[-1]))

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def a_peer_leaves(self, data: st.DataObject) -> None:
        peer = self.peers.pop(data.draw(st.integers(0, len(self.peers) - 1)))
        self.picker.remove_peer(self.bits(peer))

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def a_peer_gets_pieces(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(self.peers))
        new = data.draw(st.sets(st.integers(0, self.n - 1))) - peer
        peer |= new
        self.picker.add_have(self.bits(new))

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def a_peer_loses_pieces(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(self.peers))
        lost = data.draw(st.sets(st.integers(0, self.n - 1))) & peer
        peer -= lost
        self.picker.remove_have(self.bits(lost))

    @rule(data=st.data())
    def a_piece_changes(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, self.n - 1))
        match data.draw(st.sampled_from(["have", "open", "close", "lose"])):
            case "have":
                self.picker.mark_have(index)
                self.have.add(index)
                self.open.discard(index)
            case "open" if index not in self.have:
                self.picker.mark_open(index)
                self.open.add(index)
            case "close":
                self.picker.mark_closed(index)
                self.open.discard(index)
            case "lose":
                self.picker.lose(index)
                self.have.discard(index)

    @rule(data=st.data())
    def priorities_change(self, data: st.DataObject) -> None:
        levels = st.sampled_from([0, 1, 4, 7])
        self.priorities = data.draw(st.lists(levels, min_size=self.n, max_size=self.n))
        self.picker.set_priorities(self.priorities)

    @rule(data=st.data())
    def a_check_ends(self, data: st.DataObject) -> None:
        self.have = data.draw(st.sets(st.integers(0, self.n - 1)))
        self.open = set()
        self.picker.set_have(self.bits(self.have))

    def naive_order(self, index: int) -> tuple[float, ...]:
        """What ``pick`` minimises; equal for pieces among which chance decides."""
        rarity = sum(index in peer for peer in self.peers)
        if self.picker.sequential:
            rarity = index
        elif len(self.have) < RANDOM_FIRST_PIECES:
            rarity = 0
        return (-self.priorities[index], rarity)

    @rule(data=st.data())
    def a_piece_is_picked(self, data: st.DataObject) -> None:
        peer = data.draw(st.sets(st.integers(0, self.n - 1)))
        exclude = data.draw(st.sets(st.integers(0, self.n - 1), max_size=3))
        pool = {i for i in peer - exclude - self.have - self.open if self.priorities[i]}
        orders = sorted(self.naive_order(i) for i in pool)
        picked = pick(self.picker, self.bits(peer), exclude=self.bits(exclude))
        if pool:
            assert picked in pool
            assert self.naive_order(picked) == orders[0]
        else:
            assert picked is None
        many = in_order(self.picker, self.bits(peer), self.bits(exclude))
        assert sorted(many) == sorted(pool)
        assert [self.naive_order(i) for i in many] == orders

    @invariant()
    def check_books(self) -> None:
        if not self.priorities:
            return
        picker, swarm = self.picker, self.picker.swarm
        wanted = {i for i in range(self.n) if self.priorities[i]}
        assert indices(picker.have, self.n) == sorted(self.have)
        assert indices(picker.open, self.n) == sorted(self.open)
        assert indices(picker.wanted, self.n) == sorted(wanted)
        assert indices(picker.missing, self.n) == sorted(wanted - self.have)
        assert picker.num_have == len(self.have)
        assert picker.num_missing == len(wanted - self.have)
        assert picker.is_complete == (wanted <= self.have)
        assert picker.is_endgame == bool(wanted - self.have and not wanted - self.have - self.open)
        counts = [sum(i in peer for peer in self.peers) for i in range(self.n)]
        assert [picker.swarm.count(i) for i in range(self.n)] == counts
        assert not swarm.planes or swarm.planes[-1]
        ours = [count + (i in self.have) for i, count in enumerate(counts)]
        above = sum(count > min(ours) for count in ours) / self.n
        assert picker.distributed_copies() == pytest.approx(min(ours) + above)
        for peer in self.peers:
            assert picker.is_interesting(self.bits(peer)) == bool(peer & wanted - self.have)


TestPickerMachine = pytest.mark.slow(PickerMachine.TestCase)
TestPickerMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
