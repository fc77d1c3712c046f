"""Hashes from peers: parts, proofs, liars, refusals (BEP 52; Limits: H10, P13)."""

from __future__ import annotations

import hashlib
import weakref
from dataclasses import replace

import pytest

from bittern.codec.merkle import (
    HASH_LENGTH,
    MAX_REQUEST_HASHES,
    HashTree,
    height_of,
    is_hash_request,
    layer_above,
    root_of,
)
from bittern.codec.wire import HashRange
from bittern.proto.hashes import (
    MAX_LOOKED_AT,
    MAX_OUTSTANDING,
    MAX_REFUSAL_PAUSE,
    READ_RATE,
    REFUSAL_PAUSE,
    REQUEST_TIMEOUT,
    RESERVE_AFTER,
    HashAnswer,
    HashFetch,
    Span,
)


class File:
    """A file of so many blocks, in pieces of ``1 << level`` blocks."""

    def __init__(self, num_leaves: int, level: int = 0) -> None:
        self.num_leaves = num_leaves
        self.leaves = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(num_leaves))
        self.root = root_of(self.leaves)
        self.level = level
        self.layer = layer_above(self.leaves, 0, level)

    def layer_span(self) -> Span:
        count = len(self.layer) // HASH_LENGTH
        height = height_of(self.num_leaves)
        return Span(self.root, self.num_leaves, self.level, 0, count, height, self.root)

    def blocks_span(self, piece: int) -> Span:
        first = piece << self.level
        count = min(1 << self.level, self.num_leaves - first)
        known = self.layer[piece * HASH_LENGTH :][:HASH_LENGTH]
        return Span(self.root, self.num_leaves, 0, first, count, self.level, known)

    def answer(self, wanted: HashRange) -> bytes:
        tree = HashTree(self.leaves)
        return tree.proof(wanted.base_layer, wanted.index, wanted.length, wanted.proof_layers)


def fetch_of(span: Span, key: object = "key") -> HashFetch:
    fetch = HashFetch()
    fetch.want(key, span, now=0.0)
    return fetch


@pytest.mark.parametrize(
    ("num_leaves", "level"),
    [
        *((number, 0) for number in (2, 3, 4, 5, 511, 512, 513, 1024, 1025, 1500)),
        *((number, 3) for number in (9, 16, 17, 4095, 4096, 4097, 5000)),
    ],
)
def test_a_layer_of_any_width(num_leaves: int, level: int) -> None:
    """Each part is a request that a server must take, and the parts make the layer."""
    file = File(num_leaves, level)
    fetch = fetch_of(file.layer_span())
    answers = []
    while requests := fetch.next_requests("peer", now=0.0):
        for wanted in requests:
            assert is_hash_request(
                wanted.base_layer,
                wanted.index,
                wanted.length,
                wanted.proof_layers,
                num_leaves=num_leaves,
            )
            answers.append(fetch.hashes_received("peer", wanted, file.answer(wanted), now=0.0))
    assert answers[-1] == HashAnswer(key="key", hashes=file.layer)
    assert answers[:-1] == [HashAnswer()] * (len(answers) - 1)
    assert not fetch


@pytest.mark.parametrize(
    ("num_leaves", "level", "piece"),
    [(9, 2, 0), (9, 2, 1), (9, 2, 2), (1025, 10, 0), (1025, 10, 1), (2049, 11, 0), (6, 1, 2)],
)
def test_the_blocks_of_a_piece(num_leaves: int, level: int, piece: int) -> None:
    """They lead to the hash of the piece, a short last one too; no more is asked for."""
    file = File(num_leaves, level)
    span = file.blocks_span(piece)
    fetch = fetch_of(span)
    found = b""
    for wanted in fetch.next_requests("peer", now=0.0):
        found = fetch.hashes_received("peer", wanted, file.answer(wanted), now=0.0).hashes
    first = piece << level
    assert found == file.leaves[first * HASH_LENGTH : (first + span.count) * HASH_LENGTH]


def damage(hashes: bytes, at: int) -> bytes:
    return hashes[:at] + bytes([hashes[at] ^ 1]) + hashes[at + 1 :]


def test_every_wrong_answer_is_a_lie_and_another_peer_is_asked() -> None:
    file = File(1200)
    right = file.answer(file.layer_span().parts()[1])
    wrong = [
        damage(right, 0),
        damage(right, len(right) - 1),
        right[:-32],
        right + bytes(32),
        bytes(len(right)),
        right[:32],
        b"",
    ]
    for lie in wrong:
        fetch = fetch_of(file.layer_span())
        asked = fetch.next_requests("liar", now=0.0)
        assert fetch.hashes_received("liar", asked[1], lie, now=0.0).is_lie
        assert fetch.next_requests("other", now=0.0) == asked


def test_pads_that_are_no_pads_are_a_lie() -> None:
    """Limit: P13."""
    file = File(5)
    fetch = fetch_of(file.layer_span())
    [wanted] = fetch.next_requests("peer", now=0.0)
    hashes = file.answer(wanted)
    assert hashes[-HASH_LENGTH:] == bytes(HASH_LENGTH)
    assert fetch.hashes_received("peer", wanted, damage(hashes, len(hashes) - 1), now=0.0).is_lie


def test_what_nobody_asked_for_is_ignored() -> None:
    file = File(4)
    fetch = fetch_of(file.layer_span())
    [wanted] = fetch.next_requests("peer", now=0.0)
    answer = file.answer(wanted)
    assert fetch.hashes_received("other", wanted, answer, now=0.0) == HashAnswer()
    assert fetch.hashes_received("peer", replace(wanted, index=2), answer, now=0.0) == HashAnswer()
    fetch.rejected("other", wanted, now=0.0)
    fetch.rejected("peer", replace(wanted, index=2), now=0.0)
    assert fetch.next_requests("other", now=0.0) == []
    assert fetch.hashes_received("peer", wanted, answer, now=0.0).key == "key"
    assert fetch.hashes_received("peer", wanted, answer, now=0.0) == HashAnswer()


def test_who_refuses_is_asked_again_later_and_each_time_later() -> None:
    fetch = fetch_of(File(4).layer_span())
    now, pauses = 0.0, []
    for _ in range(7):
        [wanted] = fetch.next_requests("peer", now=now)
        fetch.rejected("peer", wanted, now=now)
        refused_at = now
        while not fetch.next_requests("peer", now=now):
            now += 0.5
        pauses.append(now - refused_at)
        fetch.rejected("peer", wanted, now=now)
        while not fetch.next_requests("peer", now=now):
            now += 0.5
        fetch.rejected("peer", wanted, now=now)
        now += 200
    assert pauses[0] == REFUSAL_PAUSE
    assert max(pauses) == MAX_REFUSAL_PAUSE


def test_silence_is_a_refusal_and_a_late_answer_is_ignored() -> None:
    file = File(4)
    fetch = fetch_of(file.layer_span())
    [wanted] = fetch.next_requests("silent", now=0.0)
    fetch.handle_timer(now=REQUEST_TIMEOUT)
    assert fetch.next_requests("other", now=REQUEST_TIMEOUT) == []
    fetch.handle_timer(now=REQUEST_TIMEOUT + 1)
    assert fetch.hashes_received("silent", wanted, file.answer(wanted), now=0.0) == HashAnswer()
    assert fetch.next_requests("silent", now=REQUEST_TIMEOUT + 1) == []
    assert fetch.next_requests("other", now=REQUEST_TIMEOUT + 1) == [wanted]


def test_who_must_read_much_gets_the_time_for_it() -> None:
    file = File(2049, 11)
    fetch = fetch_of(replace(file.blocks_span(0), read_length=2 * READ_RATE))
    asked = fetch.next_requests("peer", now=0.0)
    fetch.handle_timer(now=REQUEST_TIMEOUT + 1.9)
    assert fetch.next_requests("other", now=REQUEST_TIMEOUT + 1.9) == []
    fetch.handle_timer(now=REQUEST_TIMEOUT + 2.1)
    assert fetch.next_requests("other", now=REQUEST_TIMEOUT + 2.1) == asked


def test_a_slow_peer_is_not_a_silent_one() -> None:
    """Its answers come one by one, the last long after it was asked for."""
    file = File(512 * 4)
    fetch = fetch_of(file.layer_span())
    now = 0.0
    for wanted in fetch.next_requests("slow", now=0.0):
        now += REQUEST_TIMEOUT - 1
        fetch.handle_timer(now=now)
        answer = fetch.hashes_received("slow", wanted, file.answer(wanted), now=now)
    assert answer.key == "key"


def test_so_many_are_under_way_to_one_peer() -> None:
    file = File(512 * (MAX_OUTSTANDING + 3))
    fetch = fetch_of(file.layer_span())
    first = fetch.next_requests("one", now=0.0)
    second = fetch.next_requests("two", now=0.0)
    assert (len(first), len(second)) == (MAX_OUTSTANDING, 3)
    assert not set(first) & set(second)
    fetch.hashes_received("one", first[0], file.answer(first[0]), now=0.0)
    assert fetch.next_requests("one", now=0.0) == []
    fetch.forget("two")
    assert fetch.next_requests("one", now=0.0) == second[:1]
    # What is not wanted any more frees its place.
    fetch.want("other", File(2).layer_span(), now=0.0)
    assert fetch.next_requests("one", now=0.0) == []
    fetch.drop("key")
    assert len(fetch.next_requests("one", now=0.0)) == 1


def test_a_reserve_is_asked_only_after_a_while() -> None:
    fetch = fetch_of(File(4).layer_span())
    assert fetch.next_requests("suspect", now=0.0, is_preferred=lambda _: False) == []
    later = RESERVE_AFTER
    assert len(fetch.next_requests("suspect", now=later, is_preferred=lambda _: False)) == 1


class CountingPeer:
    """Counts how often it is looked up: once for each part that is looked at for it."""

    num_looks = 0

    def __hash__(self) -> int:
        self.num_looks += 1
        return 1

    def __eq__(self, other: object) -> bool:
        return self is other


def test_who_refuses_the_layers_of_many_files_does_not_cost_their_square() -> None:
    """16,000 files took most of a minute for each peer that had none of their layers."""
    num_files = 3_000
    fetch, span = HashFetch(), File(4).layer_span()
    for number in range(num_files):
        root = number.to_bytes(32, "big")
        fetch.want(number, replace(span, pieces_root=root, top_hash=root), now=0.0)
    refuser = CountingPeer()
    asked: list[HashRange] = []
    while requests := fetch.next_requests(refuser, now=1.0):
        for wanted in requests:
            assert fetch.rejected(refuser, wanted, now=1.0)
            assert not fetch.rejected(refuser, wanted, now=1.0), "it is not asked any more"
        asked += requests
    assert len(asked) == len(set(asked)) == num_files
    assert refuser.num_looks < 10 * num_files
    # Those who come later are asked for all of it; what is not wanted any more is passed over.
    for number in range(1_000):
        fetch.drop(number)
    found: list[HashRange] = []
    for peer in range(-(-2_000 // MAX_OUTSTANDING)):
        found += fetch.next_requests(peer, now=1.0)
    assert sorted(found, key=str) == sorted(asked[1_000:], key=str)
    for number in range(1_000, 2_900):
        fetch.drop(number)
    assert fetch.next_requests("another", now=1.0) == []
    fetch.forget(2_000 // MAX_OUTSTANDING - 1)
    assert fetch.next_requests("another", now=1.0)


def test_one_look_for_a_peer_is_short_and_the_next_goes_on_behind_it() -> None:
    """Limit: H10. Otherwise each suspect would cost a walk over the layers of all files."""
    num_files = 3 * MAX_LOOKED_AT
    fetch, span = HashFetch(), File(4).layer_span()
    for number in range(num_files):
        fetch.want(number, replace(span, pieces_root=number.to_bytes(32, "big")), now=0.0)
    looks: list[object] = []

    def is_preferred(key: object) -> bool:
        looks.append(key)
        return key == num_files - 1

    for turn in range(2):
        assert fetch.next_requests("suspect", now=0.0, is_preferred=is_preferred) == []
        assert len(looks) == (turn + 1) * MAX_LOOKED_AT
    [wanted] = fetch.next_requests("suspect", now=0.0, is_preferred=is_preferred)
    assert wanted.pieces_root == (num_files - 1).to_bytes(32, "big")
    assert looks == list(range(num_files))


def test_what_is_done_with_does_not_make_the_next_dearer() -> None:
    num_hashed = 0

    class Root(bytes):
        def __hash__(self) -> int:
            nonlocal num_hashed
            num_hashed += 1
            return super().__hash__()

    file, fetch = File(4), HashFetch()
    span = replace(file.layer_span(), pieces_root=Root(file.root))
    for number in range(2 * MAX_LOOKED_AT):
        fetch.want(number, replace(span, pieces_root=number.to_bytes(32, "big")), now=0.0)
    for _ in range(4):
        fetch.next_requests("suspect", now=0.0, is_preferred=lambda _: False)
        fetch.next_requests("farther", now=0.0, is_preferred=lambda _: False)
        fetch.next_requests("suspect", now=0.0, is_preferred=lambda key: key == MAX_LOOKED_AT)
    for number in range(2 * MAX_LOOKED_AT):
        fetch.drop(number)
    fetch.want("last", span, now=0.0)
    assert fetch.next_requests("suspect", now=0.0, is_preferred=lambda _: False) == []
    num_hashed = 0
    assert len(fetch.next_requests("peer", now=0.0)) == 1
    assert num_hashed < 10


def test_nothing_is_kept_of_a_peer_that_has_left() -> None:
    class Peer:
        pass

    file, fetch = File(4), HashFetch()
    fetch.want("first", file.layer_span(), now=0.0)
    for number in range(MAX_LOOKED_AT):
        root = number.to_bytes(32, "big")
        fetch.want(number, replace(file.layer_span(), pieces_root=root), now=0.0)
    peer = Peer()
    first, *others = fetch.next_requests(peer, now=0.0)
    assert fetch.hashes_received(peer, first, file.answer(first), now=0.0).key == "first"
    assert fetch.rejected(peer, others[0], now=0.0)
    gone = weakref.ref(peer)
    fetch.forget(peer)
    del peer
    assert gone() is None
    idle = Peer()
    assert fetch.next_requests(idle, now=0.0, is_preferred=lambda _: False) == []
    gone = weakref.ref(idle)
    fetch.forget(idle)
    del idle
    assert gone() is None


def test_one_part_that_all_have_refused_leaves_no_hope_for_the_whole() -> None:
    fetch = fetch_of(File(2 * MAX_REQUEST_HASHES).layer_span())
    first, _ = fetch.next_requests("one", now=0.0)
    fetch.rejected("one", first, now=0.0)
    assert fetch.is_hopeless("key", ["one"])
    assert fetch.next_requests("one", now=REFUSAL_PAUSE) == [first]
    assert not fetch.is_hopeless("key", ["one"]), "it may have it by now"


def test_hope_ends_when_all_have_refused() -> None:
    fetch = fetch_of(File(4).layer_span())
    assert fetch.is_hopeless("key", [])
    assert not fetch.is_hopeless("key", ["one", "two"])
    for peer in ("one", "two"):
        [wanted] = fetch.next_requests(peer, now=0.0)
        assert not fetch.is_hopeless("key", ["one", "two"])
        fetch.rejected(peer, wanted, now=0.0)
    assert fetch.is_hopeless("key", ["one", "two"])
    assert not fetch.is_hopeless("key", ["one", "two", "three"])


def test_what_is_not_wanted_any_more() -> None:
    file = File(8, 1)
    fetch = fetch_of(file.layer_span(), "layer")
    fetch.want("blocks", file.blocks_span(0), now=0.0)
    fetch.want("blocks", file.blocks_span(0), now=0.0)
    asked = fetch.next_requests("peer", now=0.0)
    assert len(asked) == 2
    fetch.want("blocks", file.blocks_span(0), now=0.0)
    assert fetch.next_requests("other", now=0.0) == [], "it is on its way"
    fetch.want("unasked", file.blocks_span(1), now=0.0)
    fetch.handle_timer(now=1.0)
    fetch.drop("unasked")
    fetch.drop("layer")
    fetch.drop("nothing")
    assert fetch.hashes_received("peer", asked[0], file.answer(asked[0]), now=0.0) == HashAnswer()
    assert fetch.hashes_received("peer", asked[1], file.answer(asked[1]), now=0.0).key == "blocks"
    assert not fetch
