"""policy.pieces: who is asked for which block, what becomes of it, endgame, slow and bad peers."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from bittern.core.geometry import BLOCK_LENGTH, Geometry
from bittern.policy.open_piece import FREE, RECEIVED, REQUESTED, OpenPiece, PeerShare
from bittern.policy.picker import Picker
from bittern.policy.pieces import (
    ENDGAME_WAIT,
    EXTENT_LENGTH,
    KEPT_PIECE_SECONDS,
    MAX_ENDGAME_ASKERS,
    SEQUENTIAL_PIECE_SECONDS,
    SEQUENTIAL_WAIT,
    SLOW_PIECE_SECONDS,
    Pieces,
    Received,
    Run,
)

B = BLOCK_LENGTH
Request = tuple[int, int, int]


class Tape:
    """A hasher that remembers what it was fed."""

    def __init__(self) -> None:
        self.fed = b""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self.fed += bytes(data)


class Scene:
    """Pieces of four blocks each, the last piece a little shorter, fetched in order."""

    def __init__(
        self,
        num_pieces: int = 3,
        *,
        pad_blocks: Mapping[int, Sequence[int]] | None = None,
        blocks_per_piece: int = 4,
    ) -> None:
        length = num_pieces * blocks_per_piece * B - 100
        self.geometry = Geometry.contiguous(blocks_per_piece * B, length, length)
        self.picker = Picker(num_pieces, random.Random(0), sequential=True)
        self.pieces = Pieces(self.geometry, self.picker, lambda _: Tape(), pad_blocks or {})
        self.everything = self.picker.wanted

    def bits(self, *indices: int) -> int:
        return sum(1 << (self.picker.top - index) for index in indices)

    def plan(self, share: PeerShare, budget: int, *only: int) -> list[Run]:
        return self.pieces.plan(share, self.bits(*only) if only else self.everything, budget)

    def receive(self, share: PeerShare, *blocks: tuple[int, int]) -> Received:
        return self.pieces.receive(share, [self.block(*block) for block in blocks])

    def block(self, index: int, number: int) -> tuple[int, int, memoryview]:
        length = self.geometry.block_length(index, number * B)
        return index, number * B, memoryview(bytes([16 * index + number]) * length)

    def states(self, index: int) -> str:
        """Return the states of a piece as a string: . free, ? requested, # received."""
        return "".join(".?#"[state] for state in self.pieces.open[index].states)

    def joinable(self) -> set[int]:
        return {i for i in range(self.picker.num_pieces) if self.pieces.joinable & self.bits(i)}


def requests_of(scene: Scene, runs: Iterable[Run]) -> list[Request]:
    """Return the requests that a connection makes of runs."""
    return [
        (index, begin, scene.geometry.block_length(index, begin))
        for index, start, end in runs
        for begin in range(start, end, B)
    ]


def fetch(scene: Scene, share: PeerShare, index: int, num_blocks: int = 4) -> OpenPiece:
    """Receive a whole piece."""
    [piece] = scene.receive(share, *[(index, number) for number in range(num_blocks)]).finished
    return piece


# --- asking ----------------------------------------------------------------------------------


def test_a_peer_works_through_whole_pieces() -> None:
    scene, peer = Scene(), PeerShare("a")
    assert scene.plan(peer, 3) == [(0, 0, 3 * B)]
    assert scene.states(0) == "???."
    assert scene.plan(peer, 3) == [(0, 3 * B, 4 * B), (1, 0, 2 * B)]
    assert scene.plan(peer, 0) == []
    assert scene.plan(peer, 100) == [(1, 2 * B, 4 * B), (2, 0, 4 * B - 100)]
    assert scene.plan(peer, 100) == []
    assert scene.pieces.newly_opened == [0, 1, 2]


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_peer_is_given_a_row_only_if_nobody_else_needs_pieces(is_shared: bool) -> None:
    """Two who take the same row from one seed would stay together to its end."""
    scene, peer = Scene(num_pieces=200, blocks_per_piece=1), PeerShare("a")
    scene.picker.sequential = False
    scene.picker.set_have(scene.bits(*range(4)))
    scene.pieces.is_shared = is_shared
    taken = [index for index, _, _ in scene.plan(peer, 60)]
    num_rows = sum(after != before + 1 for before, after in itertools.pairwise(taken))
    assert (num_rows > 30) if is_shared else (num_rows < 5)


def test_peers_work_through_different_pieces() -> None:
    scene, a, b = Scene(), PeerShare("a"), PeerShare("b")
    assert scene.plan(a, 1) == [(0, 0, B)]
    assert scene.plan(b, 1) == [(1, 0, B)]
    assert scene.plan(a, 1) == [(0, B, 2 * B)]
    assert repr(scene.pieces.open[0]) == "<OpenPiece 0: 0/4>"


def test_a_peer_is_asked_only_for_what_it_has() -> None:
    scene, peer = Scene(), PeerShare("a")
    assert scene.plan(peer, 100, 1) == [(1, 0, 4 * B)]
    assert scene.plan(peer, 100, 1) == []


def test_a_peer_that_loses_the_piece_it_works_on_gives_it_back() -> None:
    scene, a, b = Scene(), PeerShare("a"), PeerShare("b")
    scene.plan(a, 2)
    assert scene.plan(a, 1, 2) == [(2, 0, B)]
    assert scene.joinable() == {0}
    assert scene.plan(b, 4, 0) == [(0, 2 * B, 4 * B)]


def test_pieces_follow_each_other_where_they_are_equally_rare() -> None:
    """Long runs of requests are cheaper on both sides."""
    scene, a = Scene(12, blocks_per_piece=64), PeerShare("a")
    scene.picker.sequential = False
    for index in range(4, 8):
        scene.picker.mark_have(index)
    first = scene.plan(a, 64, 0, 1, 2, 3, 8)[0][0]
    while first != 1:
        scene.pieces.close_bad(fetch(scene, a, first, 64), exclusive=False)
        first = scene.plan(a, 64, 0, 1, 2, 3, 8)[0][0]
    following = [scene.plan(a, 64)[0][0] for _ in range(2)]
    assert following == [2, 3]
    assert a.last_index == 3
    assert EXTENT_LENGTH == 4 * 64 * B, "an extent ends here"


def test_in_sequence_the_lowest_piece_goes_first_all_the_same() -> None:
    scene, a = Scene(12), PeerShare("a")
    scene.plan(a, 4)
    scene.pieces.close_bad(fetch(scene, a, 0), exclusive=False)
    assert scene.plan(a, 4) == [(0, 0, 4 * B)]


# --- receiving -------------------------------------------------------------------------------


def test_blocks_in_order_are_hashed_as_they_pass_and_written_in_runs() -> None:
    scene, peer = Scene(), PeerShare("a")
    scene.plan(peer, 100)
    result = scene.receive(peer, (0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (2, 1))
    first, second, third = (scene.pieces.open[index] for index in range(3))
    offsets = [(offset, len(run), pieces) for offset, run, pieces in result.writes]
    assert offsets == [(0, 5, [first, second]), (9 * B, 1, [third])]
    assert result.finished == [first]
    assert result.cancels == []
    assert result.num_wasted == 0
    assert first.is_complete
    assert isinstance(first.hasher, Tape)
    assert first.hasher.fed == b"".join(bytes([number]) * B for number in range(4))
    assert first.num_hashed == 4
    assert first.senders == ["a"] * 4
    assert (second.num_hashed, third.num_hashed) == (1, 0)
    assert third.received_blocks() == [1]


def test_a_run_names_each_of_its_pieces_once() -> None:
    scene, peer = Scene(), PeerShare("a")
    scene.plan(peer, 12)
    blocks = [(0, 3), *((1, number) for number in range(4)), *((2, number) for number in range(4))]
    received = scene.receive(peer, *blocks)
    [(position, buffers, pieces)] = received.writes
    assert (position, len(buffers)) == (3 * B, 9)
    assert [piece.index for piece in pieces] == [0, 1, 2]
    assert [piece.index for piece in received.finished] == [1, 2]


def test_blocks_that_are_not_to_be_hashed_here_leave_the_piece_to_be_read_back() -> None:
    scene, peer = Scene(), PeerShare("a")
    scene.plan(peer, 4)
    scene.pieces.receive(peer, [scene.block(0, 0)], hashes=False)
    scene.receive(peer, (0, 1))
    piece = scene.pieces.open[0]
    assert (piece.num_received, piece.num_hashed) == (2, 0)


def test_a_block_is_awaited_from_when_its_piece_is_begun_until_it_comes() -> None:
    scene, peer = Scene(), PeerShare("a")
    assert not scene.pieces.is_awaited(0, B)
    scene.plan(peer, 2)
    scene.receive(peer, (0, 1))
    assert [scene.pieces.is_awaited(0, n * B) for n in range(4)] == [True, False, True, True]


def test_a_piece_out_of_order_is_hashed_up_to_the_gap() -> None:
    scene, peer = Scene(), PeerShare("a")
    scene.plan(peer, 4)
    scene.receive(peer, (0, 0), (0, 2), (0, 1), (0, 3))
    piece = scene.pieces.open[0]
    assert piece.num_hashed == 2
    assert piece.is_complete
    piece.num_unwritten = 1
    assert not piece.is_complete


def test_blocks_that_are_there_or_not_wanted_are_waste() -> None:
    scene, peer = Scene(), PeerShare("a")
    scene.plan(peer, 4)
    scene.receive(peer, (0, 1))
    result = scene.receive(peer, (0, 1), (2, 3))
    assert result.num_wasted == B + B - 100
    assert not result.writes
    assert not result.finished


def test_a_late_block_is_taken_and_not_asked_for_again() -> None:
    scene, a, b = Scene(1), PeerShare("a"), PeerShare("b")
    runs = scene.plan(a, 4)
    scene.pieces.release(a, requests_of(scene, runs))
    scene.pieces.abandon(a)
    assert scene.states(0) == "...."
    scene.receive(a, (0, 1))
    assert scene.states(0) == ".#.."
    assert scene.plan(b, 4) == [(0, 0, B), (0, 2 * B, 4 * B - 100)]


def test_the_last_free_block_of_a_waiting_piece_may_come_late() -> None:
    scene, a, b = Scene(1), PeerShare("a"), PeerShare("b")
    runs = scene.plan(a, 4)
    scene.receive(a, (0, 0), (0, 1), (0, 2))
    scene.pieces.release(a, requests_of(scene, runs))
    assert scene.joinable() == {0}
    assert scene.receive(a, (0, 3)).finished == [scene.pieces.open[0]]
    assert scene.joinable() == set()
    assert scene.plan(b, 4) == []


def test_a_late_block_is_taken_back_from_who_has_been_asked_for_it_since() -> None:
    scene, late, asked = Scene(1), PeerShare("late"), PeerShare("asked")
    runs = scene.plan(late, 4)
    scene.pieces.release(late, requests_of(scene, runs))
    scene.plan(asked, 4)
    assert scene.receive(late, (0, 1)).cancels == [(asked, 0, B)]
    scene.pieces.abandon(late)
    scene.pieces.distrust("late")
    assert scene.plan(asked, 9) == [(0, B, 2 * B)], "asked once more, and owing it once"


# --- giving back -----------------------------------------------------------------------------


def test_who_goes_on_with_a_piece_has_it_alone() -> None:
    """Its blocks come in order then, and a bad one has one sender."""
    scene, first, second = Scene(), PeerShare("a"), PeerShare("b")
    scene.pieces.restore(1, [0])
    assert scene.joinable() == {1}
    assert scene.plan(first, 1) == [(1, B, 2 * B)]
    assert scene.joinable() == set()
    assert scene.plan(second, 2) == [(0, 0, 2 * B)]


def test_blocks_are_asked_for_around_those_that_came_and_those_under_way() -> None:
    scene, first, second = Scene(blocks_per_piece=8), PeerShare("a"), PeerShare("b")
    scene.pieces.restore(0, [2, 5])
    scene.plan(first, 2)
    scene.pieces.release(first, [(0, 0, B)])
    assert scene.states(0) == ".?#..#.."
    assert scene.plan(second, 5) == [(0, 0, B), (0, 3 * B, 5 * B), (0, 6 * B, 8 * B)]


def test_a_piece_had_from_elsewhere_is_asked_of_nobody_any_more() -> None:
    """As when another torrent has completed a file with the same content."""
    scene, owner, other = Scene(), PeerShare("a"), PeerShare("b")
    scene.plan(owner, 2)
    waiting = scene.pieces.restore(1, [0])
    scene.pieces.close_good([scene.pieces.open[0], waiting])
    assert scene.plan(owner, 2) == [(2, 0, 2 * B)]
    assert requests_of(scene, scene.plan(other, 9)) == [
        (2, 2 * B, B),
        (2, 3 * B, B - 100),
    ]


def test_what_a_peer_does_not_bring_goes_to_another() -> None:
    scene, a, b = Scene(), PeerShare("a"), PeerShare("b")
    scene.plan(a, 3)
    scene.receive(a, (0, 0))
    scene.pieces.release(a, [(0, B, B), (0, 2 * B, B)])
    assert scene.states(0) == "#..."
    assert scene.joinable() == {0}
    assert scene.plan(b, 2) == [(0, B, 3 * B)]
    assert scene.plan(b, 1) == [(0, 3 * B, 4 * B)]


def test_an_abandoned_piece_is_offered_with_the_blocks_that_are_still_free() -> None:
    scene, a, b = Scene(), PeerShare("a"), PeerShare("b")
    scene.plan(a, 3)
    scene.pieces.abandon(a)
    assert scene.states(0) == "???."
    assert scene.plan(b, 4) == [(0, 3 * B, 4 * B), (1, 0, 3 * B)]
    scene.pieces.release(a, [(0, 0, B)])
    assert scene.plan(a, 1) == [(0, 0, B)]


def test_giving_back_what_is_not_ones_own_changes_nothing() -> None:
    scene, a, b = Scene(), PeerShare("a"), PeerShare("b")
    scene.plan(a, 4)
    scene.receive(a, (0, 0))
    scene.pieces.release(b, [(0, 0, B), (0, B, B), (1, 0, B)])
    assert scene.states(0) == "#???"
    assert scene.joinable() == set()


def test_a_piece_in_two_hands_stays_with_its_owner() -> None:
    scene, a, b = Scene(1), PeerShare("a"), PeerShare("b")
    scene.plan(a, 1)
    a.rate = 1.0
    scene.pieces.share_slow_pieces()
    assert scene.plan(b, 1) == [(0, B, 2 * B)]
    scene.pieces.abandon(a)
    assert scene.pieces.open[0].owner is b
    assert scene.joinable() == {0}


@pytest.mark.parametrize("is_sequential", [False, True])
def test_slow_pieces_are_shared_and_quick_ones_are_not(is_sequential: bool) -> None:
    scene, slow, quick, idle = Scene(), PeerShare("slow"), PeerShare("quick"), PeerShare("idle")
    scene.picker.sequential = is_sequential
    seconds = SEQUENTIAL_PIECE_SECONDS if is_sequential else SLOW_PIECE_SECONDS
    scene.plan(slow, 1)
    scene.plan(quick, 1)
    scene.plan(idle, 1)
    scene.pieces.abandon(idle)
    slow.rate = 3 * B / seconds - 1
    quick.rate = 3 * B / seconds
    scene.pieces.share_slow_pieces()
    assert scene.joinable() == {0, 2}


def test_in_sequence_a_first_piece_that_is_not_fetched_but_mended_hastens_nobody() -> None:
    """It is open for the picker alone while it is being repaired or copied."""
    scene, peer = Scene(3), PeerShare("a")
    scene.picker.mark_open(0)
    peer.expected_wait = SEQUENTIAL_WAIT + 0.1
    assert scene.plan(peer, 1) == [(1, 0, B)]
    scene.pieces.share_slow_pieces()
    assert scene.plan(peer, 1) == [(1, B, 2 * B)]
    scene.picker.mark_closed(0)
    assert scene.plan(peer, 3) == [(1, 2 * B, 4 * B), (0, 0, B)]


def test_in_sequence_the_first_piece_does_not_wait_for_one_who_stalls() -> None:
    """What was asked of him is asked of others as well, while there is more to ask them for."""
    scene, stalled, quick = Scene(3), PeerShare("stalled"), PeerShare("quick")
    scene.plan(stalled, 2)
    stalled.expected_wait, stalled.rate = SEQUENTIAL_WAIT, 1e6
    scene.pieces.share_slow_pieces()
    assert scene.plan(quick, 1) == [(1, 0, B)]
    stalled.expected_wait += 0.1
    quick.expected_wait, quick.rate = 3.0, 1e6
    scene.pieces.share_slow_pieces()
    assert scene.plan(quick, 1) == [(0, 2 * B, 3 * B)]
    assert scene.plan(quick, 3) == [(0, 3 * B, 4 * B), (0, B, 2 * B), (0, 0, B)]
    assert scene.plan(quick, 1) == [(1, B, 2 * B)]
    assert scene.plan(stalled, 1) == [(2, 0, B)]
    fetch(scene, quick, 0)
    scene.pieces.close_good([scene.pieces.open[0]])
    assert scene.plan(quick, 1) == [(1, 2 * B, 3 * B)]


def test_the_first_piece_in_sequence_is_one_that_is_wanted_most() -> None:
    """One that was begun before others were chosen does not stand in front of them."""
    scene, stalled, quick = Scene(4), PeerShare("stalled"), PeerShare("quick")
    scene.plan(PeerShare("gone"), 4)
    scene.plan(stalled, 4, 1)
    scene.plan(stalled, 4, 2)
    stalled.expected_wait, stalled.rate, quick.rate = SEQUENTIAL_WAIT + 0.1, 1e6, 1e6
    scene.picker.set_priorities([0, 4, 4, 4])
    scene.pieces.share_slow_pieces()
    assert scene.plan(quick, 1) == [(1, 3 * B, 4 * B)]
    scene.picker.set_priorities([0, 4, 5, 4])
    scene.pieces.share_slow_pieces()
    assert scene.plan(quick, 1) == [(2, 3 * B, 4 * B)]
    scene.picker.set_priorities([0, 0, 0, 4])
    scene.pieces.share_slow_pieces()
    assert scene.plan(quick, 1) == [(3, 0, B)]


def test_in_sequence_who_has_nothing_else_helps_with_other_slow_pieces_too() -> None:
    scene, stalled, quick = Scene(3), PeerShare("stalled"), PeerShare("quick")
    scene.plan(stalled, 8)
    stalled.expected_wait, stalled.rate = SEQUENTIAL_WAIT + 0.1, 1e6
    scene.pieces.share_slow_pieces()
    asked = requests_of(scene, scene.plan(quick, 9, 0, 1))
    assert {index for index, _, _ in asked} == {0, 1}


def test_out_of_sequence_nothing_is_asked_for_twice_while_there_is_more() -> None:
    scene, stalled, quick = Scene(3), PeerShare("stalled"), PeerShare("quick")
    scene.picker.sequential = False
    asked = requests_of(scene, scene.plan(stalled, 2))
    make_slow(scene, stalled)
    assert not {*asked} & {*requests_of(scene, scene.plan(quick, 9))}


# --- endgame ---------------------------------------------------------------------------------


def test_in_the_endgame_free_blocks_of_others_are_asked_for() -> None:
    scene, a, b = Scene(1), PeerShare("a"), PeerShare("b")
    scene.plan(a, 1)
    assert scene.plan(b, 2) == [(0, B, 3 * B)]
    assert scene.plan(b, 9) == [(0, 3 * B, 4 * B - 100)]
    assert scene.plan(b, 9, 0) == []
    scene.pieces.abandon(a)
    assert scene.joinable() == set()
    assert scene.plan(a, 9) == []


def make_slow(scene: Scene, *shares: PeerShare) -> None:
    for share in shares:
        share.expected_wait = 10 * ENDGAME_WAIT
    scene.pieces.share_slow_pieces()


@pytest.mark.parametrize("budget", [1, 2, 3, 5])
def test_in_the_endgame_no_more_is_asked_for_than_the_budget(budget: int) -> None:
    """Neither of free blocks nor of those that another was asked for."""
    scene, quick = Scene(), PeerShare("quick")
    for index in range(3):
        scene.plan(PeerShare(index), 1, index)
    assert scene.joinable() == set()
    assert len(requests_of(scene, scene.plan(quick, budget))) == budget
    scene, slow, quick = Scene(), PeerShare("slow"), PeerShare("quick")
    scene.plan(slow, 12)
    make_slow(scene, slow)
    assert len(requests_of(scene, scene.plan(quick, budget))) == budget


def test_in_the_endgame_blocks_that_are_long_in_coming_are_asked_for_twice() -> None:
    scene, a, b, c, d, e = Scene(1), *map(PeerShare, "abcde")
    scene.plan(a, 4)
    assert scene.plan(b, 9) == []
    make_slow(scene, a)
    assert scene.plan(b, 2) == [(0, 3 * B, 4 * B - 100), (0, 2 * B, 3 * B)]
    assert scene.plan(c, 9) == [(0, at * B, min(at * B + B, 4 * B - 100)) for at in (3, 2, 1, 0)]
    assert scene.plan(d, 2) == [(0, 3 * B, 4 * B - 100), (0, 2 * B, 3 * B)]
    assert MAX_ENDGAME_ASKERS == 3
    assert scene.plan(e, 9) == [(0, B, 2 * B), (0, 0, B)]
    result = scene.receive(c, (0, 3), (0, 0))
    assert result.cancels == [(a, 0, 3 * B), (b, 0, 3 * B), (d, 0, 3 * B), (a, 0, 0), (e, 0, 0)]


def test_a_third_is_not_asked_for_what_one_who_serves_was_asked_for_too() -> None:
    """When a fast peer stalls, all that it owes goes to the others once and not three times."""
    scene, stalled, a, b = Scene(1), *map(PeerShare, "sab")
    scene.plan(stalled, 4)
    make_slow(scene, stalled)
    a.rate = 100.0 * B
    assert len(scene.plan(a, 2)) == 2
    assert scene.plan(b, 9) == [(0, B, 2 * B), (0, 0, B)]
    make_slow(scene, a)
    assert len(scene.plan(b, 9)) == 2


def test_a_helper_in_the_endgame_is_asked_for_no_more_than_it_has_sooner() -> None:
    """Each block that it is asked for makes the next one later."""
    scene, slow, helper = Scene(2), PeerShare("slow"), PeerShare("helper")
    scene.plan(slow, 8)
    slow.expected_wait, helper.expected_wait, helper.rate = 8.0, 1.0, float(B)
    scene.pieces.share_slow_pieces()
    assert len(scene.plan(helper, 9)) == 3
    assert helper.expected_wait == 4.0


def test_those_who_promise_and_never_serve_keep_no_block_from_others() -> None:
    scene, honest = Scene(1), PeerShare("honest")
    hostile = [PeerShare(str(number)) for number in range(4)]
    scene.plan(hostile[0], 4)
    for number in (1, 2, 3):
        make_slow(scene, *hostile[:number])
        assert len(scene.plan(hostile[number], 9)) == 4
    make_slow(scene, *hostile)
    assert len(scene.plan(honest, 9)) == 4


def test_nobody_is_asked_for_what_one_slower_or_as_slow_has_been_asked_for() -> None:
    scene, a, b = Scene(1), PeerShare("a"), PeerShare("b")
    scene.plan(a, 4)
    a.expected_wait, b.expected_wait = 10.0, 5.0
    scene.pieces.share_slow_pieces()
    assert scene.plan(b, 9) == []
    b.expected_wait = 4.9
    assert scene.plan(b, 9) == [], "looked at once in a round"
    scene.pieces.share_slow_pieces()
    assert len(scene.plan(b, 9)) == 4


def test_only_the_slow_one_of_two_in_a_piece_is_helped() -> None:
    scene, slow, quick, third = Scene(1), *map(PeerShare, "abc")
    scene.plan(quick, 2)
    scene.plan(slow, 2)
    make_slow(scene, slow)
    assert scene.plan(third, 9) == [(0, 3 * B, 4 * B - 100), (0, 2 * B, 3 * B)]


def owing(key: str, scene: Scene, rate: float, num_blocks: int) -> PeerShare:
    """Make a peer that was asked for blocks in order and keeps its rate, in blocks per second."""
    share = PeerShare(key)
    runs = scene.plan(share, num_blocks)
    share.queue = {index << 32 | begin: length for index, begin, length in requests_of(scene, runs)}
    share.rate, share.expected_wait = rate * B, len(share.queue) / rate
    return share


def asked_of(scene: Scene, share: PeerShare) -> list[tuple[int, int]]:
    """Let a peer be asked for up to 9 blocks; return their pieces and numbers."""
    return [(index, begin // B) for index, begin, _ in requests_of(scene, scene.plan(share, 9))]


def test_what_a_slow_peer_brings_sooner_than_another_would_is_not_asked_for_twice() -> None:
    """Its cancel would come too late."""
    scene, quick = Scene(2), PeerShare("quick")
    slow = owing("slow", scene, 2.0, 8)
    slow.delay, quick.rate, quick.delay = 0.2, 1000.0 * B, 2.0
    scene.pieces.share_slow_pieces()
    assert asked_of(scene, quick) == [(1, 3), (1, 2), (1, 1), (1, 0)]
    slow.silent_for = 2.0
    scene.pieces.share_slow_pieces()
    assert asked_of(scene, quick) == [(0, 3), (0, 2), (0, 1), (0, 0)], "it has stopped"


def test_what_a_slow_peer_brings_within_half_a_second_is_not_asked_for_twice() -> None:
    scene, quick = Scene(1), PeerShare("quick")
    owing("slow", scene, 2.0, 4)
    scene.pieces.share_slow_pieces()
    assert asked_of(scene, quick) == [(0, 3), (0, 2), (0, 1)]


def test_nobody_who_has_stopped_is_asked_for_what_another_brings_before_it_goes_on() -> None:
    scene, stopped = Scene(1), PeerShare("stopped")
    owing("slow", scene, 2.0, 4)
    stopped.rate, stopped.silent_for = 1000.0 * B, 1.5
    scene.pieces.share_slow_pieces()
    assert asked_of(scene, stopped) == [(0, 3)]


def test_a_third_is_asked_for_what_a_second_peer_has_stopped_to_bring() -> None:
    """It may have been quick: what was asked of it is no sooner there for that."""
    scene, first, second, third = Scene(1), *map(PeerShare, "abc")
    scene.plan(first, 4)
    make_slow(scene, first)
    second.rate = third.rate = 1000.0 * B
    asked = asked_of(scene, second)
    second.queue = dict.fromkeys([index << 32 | number * B for index, number in asked], B)
    make_slow(scene, first)
    assert asked_of(scene, third) == []
    second.silent_for = 2.5
    make_slow(scene, first)
    assert asked_of(scene, third) == asked


def test_who_lets_us_wait_longest_is_helped_first() -> None:
    scene, quick = Scene(3), PeerShare("quick")
    for rate, name in ((2.0, "slow"), (1.0, "slowest"), (3.0, "less slow")):
        owing(name, scene, rate, 4)
    scene.pieces.share_slow_pieces()
    quick.rate, quick.delay = 1000.0 * B, 0.1
    late = [(1, 3), (1, 2), (1, 1), (1, 0), (0, 3), (0, 2), (0, 1), (2, 3), (2, 2)]
    assert asked_of(scene, quick) == late


def test_of_one_peer_that_is_late_the_last_piece_is_asked_for_first() -> None:
    scene, quick = Scene(3), PeerShare("quick")
    owing("slow", scene, 2.0, 12)
    scene.pieces.share_slow_pieces()
    quick.rate, quick.delay = 1000.0 * B, 0.1
    assert [index for index, _, _ in scene.plan(quick, 6)] == [2, 2, 2, 2, 1, 1]


def test_a_block_asked_of_several_is_free_when_all_have_refused() -> None:
    scene, a, b, c = Scene(1), *map(PeerShare, "abc")
    scene.plan(a, 4)
    make_slow(scene, a)
    scene.plan(b, 1)
    scene.plan(c, 1)
    last = (0, 3 * B, B - 100)
    scene.pieces.release(a, [last])
    assert scene.states(0) == "????"
    scene.pieces.release(c, [last])
    assert scene.states(0) == "????"
    scene.pieces.release(c, [last])
    assert scene.states(0) == "????"
    scene.pieces.release(b, [last])
    assert scene.states(0) == "???."
    assert scene.receive(c, (0, 3)).cancels == []


def test_the_endgame_of_a_large_swarm_is_quick() -> None:
    """A peer that finds nothing looks at every block once a round, not at every wake-up."""
    scene = Scene(64, blocks_per_piece=64)
    shares = [PeerShare(number) for number in range(64)]
    for share in shares:
        scene.plan(share, 64)
        share.expected_wait = 10.0
    scene.pieces.share_slow_pieces()
    idle = PeerShare("idle")
    idle.expected_wait = 9.0
    began = time.perf_counter()
    for _ in range(1000):
        assert scene.plan(idle, 10) == []
    assert time.perf_counter() - began < 0.25


# --- the end of a piece ----------------------------------------------------------------------


def test_a_good_piece_is_there() -> None:
    scene, peer = Scene(), PeerShare("a")
    scene.plan(peer, 4)
    piece = fetch(scene, peer, 0)
    scene.pieces.close_good([piece])
    assert scene.picker.have == scene.bits(0)
    assert scene.pieces.open == {}
    assert scene.plan(peer, 1) == [(1, 0, B)]


def test_good_pieces_need_not_lie_side_by_side() -> None:
    scene, peer = Scene(5), PeerShare("a")
    scene.plan(peer, 20)
    good = [fetch(scene, peer, index) for index in (0, 2, 3)]
    scene.pieces.close_good(good)
    assert scene.picker.have == scene.bits(0, 2, 3)
    assert sorted(scene.pieces.open) == [1, 4]


def test_a_bad_piece_is_fetched_again() -> None:
    scene, peer = Scene(), PeerShare("a")
    scene.plan(peer, 4)
    scene.pieces.close_bad(fetch(scene, peer, 0), exclusive=False)
    assert scene.picker.have == scene.picker.open == 0
    assert scene.plan(peer, 5) == [(0, 0, 4 * B), (1, 0, B)]
    assert not scene.pieces.open[0].is_exclusive


def exclusive() -> tuple[Scene, PeerShare]:
    """Return a scene of one piece that has failed, and its new owner, who was asked for half."""
    scene, owner = Scene(1), PeerShare("owner")
    scene.plan(owner, 4)
    scene.pieces.close_bad(fetch(scene, owner, 0), exclusive=True)
    scene.plan(owner, 2)
    owner.rate, owner.expected_wait = 1e6, 1.0
    return scene, owner


def test_h4_a_failed_piece_is_kept_for_one_peer() -> None:
    scene, owner = exclusive()
    other = PeerShare("other")
    make_slow(scene)
    owner.expected_wait = KEPT_PIECE_SECONDS
    owner.rate = 0.0
    scene.pieces.share_slow_pieces()
    assert scene.plan(other, 9) == []
    assert scene.plan(owner, 9) == [(0, 2 * B, 4 * B - 100)]


def test_h4_a_block_that_the_owner_of_a_kept_piece_is_refused_does_not_go_to_two() -> None:
    scene, owner = exclusive()
    other, third = PeerShare("other"), PeerShare("third")
    scene.pieces.abandon(owner)
    assert scene.plan(other, 9) == [(0, 2 * B, 4 * B - 100)]
    scene.pieces.release(owner, [(0, 0, B)])
    scene.pieces.release(owner, [(0, B, B)])
    assert scene.plan(third, 9) == []
    assert scene.plan(other, 9) == [(0, 0, 2 * B)]


def test_h4_h5_a_slow_owner_cannot_keep_a_failed_piece_for_ever() -> None:
    scene, owner = exclusive()
    other = PeerShare("other")
    owner.expected_wait = KEPT_PIECE_SECONDS + 1
    owner.rate = 1.0
    scene.pieces.share_slow_pieces()
    assert requests_of(scene, scene.plan(other, 9)) == [
        (0, 2 * B, B),
        (0, 3 * B, B - 100),
        (0, B, B),
        (0, 0, B),
    ]


def test_h4_h5_nor_can_one_that_owes_a_block_of_it_and_is_its_owner_no_longer() -> None:
    scene, debtor = exclusive()
    scene.pieces.abandon(debtor)  # it chokes us, and keeps what it was asked for
    owner, other = PeerShare("owner"), PeerShare("other")
    assert scene.plan(owner, 9)
    assert scene.pieces.open[0].is_exclusive
    debtor.expected_wait = KEPT_PIECE_SECONDS + 1
    scene.pieces.share_slow_pieces()
    assert not scene.pieces.open[0].is_exclusive
    assert scene.plan(other, 9)


def test_a_piece_that_was_good_at_last_is_like_any_other() -> None:
    scene, owner = exclusive()
    scene.plan(owner, 9)
    scene.pieces.close_good([fetch(scene, owner, 0)])
    scene.picker.lose(0)
    assert not scene.pieces.open_piece(0).is_exclusive


def test_a_piece_that_closed_while_others_were_at_it_is_forgotten_by_all() -> None:
    scene, a, b, c = Scene(2), *map(PeerShare, "abc")
    scene.plan(a, 1, 0)
    scene.pieces.share_slow_pieces()
    scene.plan(b, 2, 0)
    scene.receive(c, (0, 1), (0, 2), (0, 3))
    [piece] = scene.receive(a, (0, 0)).finished
    scene.pieces.close_bad(piece, exclusive=False)
    reopened = scene.pieces.restore(0, [0])
    assert scene.plan(a, 1, 1) == [(1, 0, B)]
    assert scene.joinable() == {0}, "the old piece in a's list must not take the new one along"
    assert scene.plan(b, 9, 0) == [(0, B, 4 * B)]
    assert reopened.owner is b


def test_closing_forgets_who_was_asked_twice() -> None:
    scene, a, b = Scene(2), PeerShare("a"), PeerShare("b")
    scene.plan(a, 8)
    make_slow(scene, a)
    assert len(scene.plan(b, 8)) == 8
    piece = scene.pieces.open[0]
    scene.pieces.close_bad(piece, exclusive=False)
    assert scene.receive(b, (1, 3)).cancels == [(a, 1, 3 * B)]
    assert scene.receive(a, (1, 2)).cancels == [(b, 1, 2 * B)]
    scene.plan(b, 1)
    assert scene.receive(b, (0, 0)).cancels == []


# --- resume and padding ----------------------------------------------------------------------


def test_a_restored_piece_lacks_what_was_not_there() -> None:
    scene, peer = Scene(), PeerShare("a")
    piece = scene.pieces.restore(1, [0, 3, 3, 4, -1])
    assert scene.states(1) == "#..#"
    assert scene.plan(peer, 2) == [(1, B, 3 * B)]
    assert scene.receive(peer, (1, 1), (1, 2)).finished == [piece]
    assert piece.num_hashed == 0, "what was on disk has to be read back"
    assert piece.senders == [None, "a", "a", None]


def test_a_restored_piece_of_which_all_is_there_waits_for_one_block() -> None:
    """It is a block that finishes a piece; without one it would never be judged."""
    scene, peer = Scene(), PeerShare("a")
    piece = scene.pieces.restore(1, range(4))
    assert scene.states(1) == "###."
    assert scene.plan(peer, 1) == [(1, 3 * B, 4 * B)]
    assert scene.receive(peer, (1, 3)).finished == [piece]


def test_bad_blocks_of_a_piece_are_free_again_and_the_others_are_kept() -> None:
    scene = Scene()
    one, two = PeerShare("a"), PeerShare("b")
    scene.plan(one, 4, 0)
    piece = fetch(scene, one, 0)
    piece.is_exclusive = True
    before = piece.hasher
    scene.pieces.reopen(piece, [1, 3])
    assert scene.states(0) == "#.#."
    assert piece.senders == ["a", None, "a", None]
    assert (piece.num_free, piece.num_received, piece.num_hashed) == (2, 2, 0)
    assert piece.hasher is not before
    assert (piece.owner, piece.is_exclusive) == (None, False)
    assert scene.joinable() == {0}
    assert scene.plan(two, 9, 0) == [(0, B, 2 * B), (0, 3 * B, 4 * B)]
    assert scene.receive(two, (0, 1), (0, 3)).finished == [piece]


def test_what_a_banned_peer_sent_is_fetched_from_others() -> None:
    """H4. One of its blocks in a piece that it has not finished would make that one fail too."""
    scene = Scene(4)
    liar, other = PeerShare("a"), PeerShare("b")
    for index in range(3):
        scene.plan(liar, 4, index)
    whole = fetch(scene, liar, 0)
    scene.receive(liar, (1, 0), (1, 1), (2, 0))
    in_the_making, being_written = scene.pieces.open[1], scene.pieces.open[2]
    being_written.num_unwritten = 1
    scene.pieces.release(liar, [(1, n * B, B) for n in (2, 3)])
    scene.pieces.abandon(liar)
    assert scene.plan(other, 1, 1) == [(1, 2 * B, 3 * B)]
    scene.receive(other, (1, 2))
    before = in_the_making.hasher
    assert in_the_making.num_hashed == 3
    scene.pieces.distrust("a")
    assert scene.states(1) == "..#."
    assert in_the_making.senders == [None, None, "b", None]
    assert (in_the_making.num_free, in_the_making.num_received) == (3, 1)
    assert in_the_making.hasher is not before
    assert in_the_making.num_hashed == 0
    assert 1 in scene.joinable()
    # Whole ones are judged as they are, and an older write must not come after a newer one.
    assert scene.states(0) == "####"
    assert whole.num_hashed == 4
    assert being_written.senders[0] == "a"


def test_p12_padding_is_not_asked_for() -> None:
    scene = Scene(2, pad_blocks={0: (2, 3)})
    peer = PeerShare("a")
    assert scene.plan(peer, 3) == [(0, 0, 2 * B), (1, 0, B)]
    assert scene.receive(peer, (0, 0), (0, 1)).finished == [scene.pieces.open[0]]


def test_p12_a_piece_of_nothing_but_padding_comes_to_an_end_too() -> None:
    scene = Scene(2, pad_blocks={0: range(4), 1: range(4)})
    peer = PeerShare("a")
    assert scene.plan(peer, 9) == [(0, 3 * B, 4 * B), (1, 3 * B, 4 * B - 100)]
    assert scene.receive(peer, (0, 3)).finished == [scene.pieces.open[0]]


# --- a naive model ---------------------------------------------------------------------------

NUM_PEERS = 5
NUM_PIECES = 4
NUM_BLOCKS = 3
Key = tuple[int, int]
"""Index of a piece and number of a block."""

PEERS = st.integers(0, NUM_PEERS - 1)
PIECES = st.sets(st.integers(0, NUM_PIECES - 1))
KEYS = st.lists(st.integers(0, NUM_PIECES * NUM_BLOCKS - 1), min_size=1, max_size=6)
"""Places in a list of keys."""


class Peer:
    """One peer and what its connection would know."""

    def __init__(self, name: str, bits: int) -> None:
        self.share = PeerShare(name)
        self.bits = bits
        self.outstanding: dict[Key, None] = {}
        self.late: set[Key] = set()


def choose(keys: Iterable[Key], places: list[int]) -> list[Key]:
    """Return different ones of ``keys``, which are not none."""
    pool = list(keys)
    return list(dict.fromkeys(pool[place % len(pool)] for place in places))


class PiecesMachine(RuleBasedStateMachine):
    """
    Peers are asked, answer, refuse and make way for others; the model is sets of blocks.

    ``received`` and who was asked for what are counted here again, from the calls alone.
    Every rule can be applied at any time: one that is not is drawn again and again, and a run
    in which chance has left out all that can begin is for nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(NUM_PIECES, blocks_per_piece=NUM_BLOCKS)
        self.peers: list[Peer] = []
        self.num_joined = 0
        self.received: dict[Key, str | None] = {}
        self.have: set[int] = set()
        self.finished: list[OpenPiece] = []

    @initialize(
        is_random=st.booleans(),
        seed=st.integers(0, 100),
        pieces=st.lists(PIECES, min_size=NUM_PEERS, max_size=NUM_PEERS),
    )
    def begin(self, is_random: bool, seed: int, pieces: list[set[int]]) -> None:
        self.scene.picker = Picker(NUM_PIECES, random.Random(seed), sequential=not is_random)
        self.scene.pieces = Pieces(self.scene.geometry, self.scene.picker, lambda _: Tape(), {})
        for each in pieces:
            self.join(each)

    def join(self, pieces: set[int]) -> None:
        self.num_joined += 1
        self.peers.append(Peer(f"peer {self.num_joined}", self.scene.bits(*pieces)))

    # --- what happens --------------------------------------------------------------------

    @rule(who=PEERS, budget=st.integers(0, 8))
    def plan(self, who: int, budget: int) -> None:
        self.ask(self.peers[who], budget)

    def ask(self, peer: Peer, budget: int) -> None:
        open_before = set(self.scene.pieces.open)
        # Its own wait grows with what it is asked for; each block was judged by no less than this.
        patience = max(ENDGAME_WAIT, 2 * peer.share.expected_wait)
        runs = self.scene.pieces.plan(peer.share, peer.bits, budget)
        keys = [(index, begin // B) for index, begin, _ in requests_of(self.scene, runs)]
        assert len(keys) <= budget
        for index, start, end in runs:
            assert start % B == 0
            assert start < end <= self.scene.geometry.length_of(index)
        for key in keys:
            assert key not in peer.outstanding, "asked twice of one peer"
            assert key not in self.received
            assert key[0] not in self.have
            assert peer.bits & self.scene.bits(key[0]), "asked for what it does not have"
            others = [other for other in self.peers if key in other.outstanding]
            in_time = [other for other in others if other.share.expected_wait <= patience]
            assert len(in_time) < MAX_ENDGAME_ASKERS
            assert not others or len(in_time) < len(others), "nobody is late with it"
            peer.outstanding[key] = None
            peer.late.discard(key)
        if len(keys) < budget:
            left = set(range(NUM_PIECES)) - self.have - open_before - set(self.scene.pieces.open)
            assert not any(peer.bits & self.scene.bits(index) for index in left), "piece ignored"

    @rule(who=PEERS, is_late=st.booleans(), places=KEYS)
    def deliver(self, who: int, is_late: bool, places: list[int]) -> None:
        if able := [peer for peer in self.peers if (peer.late if is_late else peer.outstanding)]:
            peer = able[who % len(able)]
            keys = sorted(peer.late) if is_late else peer.outstanding
            self.bring(peer, choose(keys, places))

    def bring(self, peer: Peer, keys: list[Key]) -> None:
        cancels: list[tuple[PeerShare, int, int]] = []
        wasted, written, finished = 0, [], []
        for key in keys:
            peer.outstanding.pop(key, None)
            peer.late.discard(key)
            size = self.scene.geometry.block_length(key[0], key[1] * B)
            if key in self.received or key[0] not in self.scene.pieces.open:
                wasted += size
                continue
            self.received[key] = str(peer.share.key)
            written.append((key[0] * NUM_BLOCKS + key[1]) * B)
            if all((key[0], number) in self.received for number in range(NUM_BLOCKS)):
                finished.append(key[0])
        result = self.scene.receive(peer.share, *keys)
        assert result.num_wasted == wasted
        assert [piece.index for piece in result.finished] == finished
        at = []
        for offset, run, pieces in result.writes:
            ends = offset
            for view in run:
                at.append(ends)
                ends += len(view)
            touched = range(offset // (NUM_BLOCKS * B), (ends - 1) // (NUM_BLOCKS * B) + 1)
            assert [piece.index for piece in pieces] == list(touched)
        assert at == written
        cancels += result.cancels
        for share, index, begin in cancels:
            [other] = [other for other in self.peers if other.share is share]
            assert other is not peer
            if other.outstanding.pop((index, begin // B), 0) is None:
                other.late.add((index, begin // B))
        self.finished += result.finished

    @rule(who=PEERS, places=KEYS)
    def refuse(self, who: int, places: list[int]) -> None:
        if able := [peer for peer in self.peers if peer.outstanding]:
            peer = able[who % len(able)]
            self.give_back(peer, choose(peer.outstanding, places))

    def give_back(self, peer: Peer, keys: list[Key]) -> None:
        for key in keys:
            del peer.outstanding[key]
        block_length = self.scene.geometry.block_length
        self.scene.pieces.release(
            peer.share, [(index, at * B, block_length(index, at * B)) for index, at in keys]
        )

    @rule(who=PEERS, keeps_requests=st.booleans())
    def choke(self, who: int, keeps_requests: bool) -> None:
        """With the fast extension a choke leaves requests to be rejected one by one."""
        peer = self.peers[who]
        if not keeps_requests:
            peer.late |= set(peer.outstanding)
            self.give_back(peer, list(peer.outstanding))
        self.scene.pieces.abandon(peer.share)

    @rule(who=PEERS, is_banned=st.booleans(), pieces=PIECES)
    def leave(self, who: int, is_banned: bool, pieces: set[int]) -> None:
        """Another peer takes the place."""
        peer = self.peers.pop(who)
        self.give_back(peer, list(peer.outstanding))
        self.scene.pieces.abandon(peer.share)
        self.join(pieces)
        if is_banned:
            self.scene.pieces.distrust(peer.share.key)
            whole = [piece.index for piece in self.finished]
            self.received = {
                key: sender
                for key, sender in self.received.items()
                if sender != peer.share.key or key[0] in whole or key[0] in self.have
            }

    @rule(who=PEERS, index=st.integers(0, NUM_PIECES - 1))
    def lose_or_gain(self, who: int, index: int) -> None:
        self.peers[who].bits ^= self.scene.bits(index)

    @rule(
        paces=st.lists(
            st.tuples(st.sampled_from([0.0, 1.0, 1e6]), st.sampled_from([0.0, 1.5, 30.0])),
            min_size=NUM_PEERS,
            max_size=NUM_PEERS,
        )
    )
    def tick(self, paces: list[tuple[float, float]]) -> None:
        for peer, (rate, wait) in zip(self.peers, paces, strict=True):
            peer.share.rate, peer.share.expected_wait = rate, wait
        self.scene.pieces.share_slow_pieces()

    @rule(is_good=st.booleans(), exclusive=st.booleans())
    def judge(self, is_good: bool, exclusive: bool) -> None:
        if not self.finished:
            return
        piece = self.finished.pop(0)
        assert piece.is_complete
        senders = [self.received.pop((piece.index, number)) for number in range(NUM_BLOCKS)]
        assert piece.senders == senders
        assert isinstance(piece.hasher, Tape)
        fed = [self.scene.block(piece.index, number)[2] for number in range(piece.num_hashed)]
        assert piece.hasher.fed == b"".join(fed)
        if is_good:
            self.scene.pieces.close_good([piece])
            self.have.add(piece.index)
        else:
            self.scene.pieces.close_bad(piece, exclusive=exclusive)

    # --- what must hold ------------------------------------------------------------------

    @invariant()
    def books_balance(self) -> None:
        scene, pieces = self.scene, self.scene.pieces
        assert scene.picker.open == scene.bits(*pieces.open)
        assert scene.picker.have == scene.bits(*self.have)
        assert scene.joinable() <= pieces.open.keys()
        for index, piece in pieces.open.items():
            assert piece.index == index
            assert piece.num_free == piece.states.count(FREE)
            assert piece.num_received == piece.states.count(RECEIVED)
            for number, state in enumerate(piece.states):
                key = (index, number)
                asked = [peer for peer in self.peers if key in peer.outstanding]
                if key in self.received:
                    assert state == RECEIVED
                    assert not asked, "what is there was not taken back from others"
                elif asked:
                    assert state == REQUESTED
                    assert piece.askers[number] in [peer.share for peer in asked]
                else:
                    assert state == FREE
            if index in scene.joinable():
                assert piece.num_free
                assert not piece.is_exclusive or piece.owner is None
            elif piece.num_free:
                workers = [peer for peer in self.peers if piece in peer.share.assigned]
                assert workers, "nobody is at work on it, and nobody may join"
                assert not piece.is_exclusive or [w.share for w in workers] == [piece.owner]

    def teardown(self) -> None:
        """One seed that does what it is asked to must be enough, whatever happened before."""
        for peer in self.peers[:]:
            self.give_back(peer, list(peer.outstanding))
            self.scene.pieces.abandon(peer.share)
            self.peers.remove(peer)
        seed = Peer("seed", self.scene.everything)
        self.peers.append(seed)
        for _ in range(3 * NUM_PIECES * NUM_BLOCKS):
            while self.finished:
                self.judge(is_good=True, exclusive=False)
            self.ask(seed, 2)
            self.bring(seed, list(seed.outstanding))
            self.books_balance()
        assert self.have == set(range(NUM_PIECES))


TestPiecesMachine = pytest.mark.slow(PiecesMachine.TestCase)
TestPiecesMachine.settings = settings(
    max_examples=int(os.environ.get("BITTERN_FUZZ_RUNS", "25")), stateful_step_count=40
)
