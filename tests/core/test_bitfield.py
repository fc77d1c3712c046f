"""Bitfields against plain sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bittern.core.bitfield import Bitfield, lowest_index
from bittern.core.errors import WireDecodeError
from tests.strategies import bitfields

WIRE = [
    (0, [], ""),
    (1, [0], "80"),
    (1, [], "00"),
    (8, [0, 7], "81"),
    (9, [8], "0080"),
    (10, [0, 9], "8040"),
    (16, list(range(16)), "ffff"),
    (17, [16], "000080"),
]


@pytest.mark.parametrize(("num_pieces", "indices", "wire"), WIRE)
def test_wire_form_both_ways(num_pieces: int, indices: list[int], wire: str) -> None:
    made = Bitfield.of(num_pieces, indices)
    assert made.to_wire().hex() == wire
    for kind in (bytes, bytearray, memoryview):
        read = Bitfield.from_wire(kind(bytes.fromhex(wire)), num_pieces)
        assert read == made
        assert list(read) == indices


@pytest.mark.parametrize(
    ("num_pieces", "wire", "text"),
    [
        (8, "", "bitfield of 0 bytes for 8 pieces (limit 1)"),
        (8, "ffff", "bitfield of 2 bytes for 8 pieces (limit 1)"),
        (0, "00", "bitfield of 1 bytes for 0 pieces (limit 0)"),
        (9, "ff", "bitfield of 1 bytes for 9 pieces (limit 2)"),
        (1, "40", "bitfield has spare bits set at byte 0"),
        (9, "0001", "bitfield has spare bits set at byte 1"),
        (15, "0001", "bitfield has spare bits set at byte 1"),
    ],
)
def test_bad_wire_forms(num_pieces: int, wire: str, text: str) -> None:
    with pytest.raises(WireDecodeError) as caught:
        Bitfield.from_wire(bytes.fromhex(wire), num_pieces)
    assert str(caught.value) == text


@given(bitfields())
def test_decoding_inverts_encoding(field: Bitfield) -> None:
    assert Bitfield.from_wire(field.to_wire(), field.num_pieces) == field


@given(st.binary(max_size=12), st.integers(0, 100))
def test_what_is_accepted_is_canonical(wire: bytes, num_pieces: int) -> None:
    try:
        field = Bitfield.from_wire(wire, num_pieces)
    except WireDecodeError:
        return
    assert field.to_wire() == wire
    assert all(index < num_pieces for index in field)


@given(st.data(), st.integers(1, 70))
def test_algebra_is_that_of_sets(data: st.DataObject, num_pieces: int) -> None:
    a = data.draw(bitfields(num_pieces))
    b = data.draw(bitfields(num_pieces))
    assert set(a.missing_from(b)) == set(b) - set(a)
    assert (a == b) == (set(a) == set(b))
    assert len(a) == len(set(a))
    assert bool(a) == bool(set(a))
    assert a.is_full == (len(set(a)) == num_pieces)
    union = Bitfield(num_pieces, a.bits | b.bits)
    assert list(union) == sorted(set(a) | set(b))
    if a:
        assert lowest_index(a.bits, a.top) == min(a)


@pytest.mark.parametrize("num_pieces", [0, 1, 7, 8, 9, 1000])
def test_a_full_field_has_every_piece(num_pieces: int) -> None:
    full = Bitfield.full(num_pieces)
    assert list(full) == list(range(num_pieces))
    assert full.is_full
    assert full == Bitfield.from_wire(full.to_wire(), num_pieces)
    assert Bitfield(num_pieces).is_full == (num_pieces == 0)


@pytest.mark.parametrize("index", [-1, 10, 1 << 40])
def test_indices_out_of_range(index: int) -> None:
    field = Bitfield.full(10)
    assert index not in field
    with pytest.raises(IndexError, match=f"piece {index} of 10"):
        field.add(index)
    with pytest.raises(IndexError, match=f"piece {index} of 10"):
        field.discard(index)
    with pytest.raises(IndexError):
        Bitfield.of(10, [0, index])
    assert field.is_full


def test_iterating_survives_changes() -> None:
    field = Bitfield.full(20)
    for index in field:
        field.discard(19 - index)
    assert not field


def test_a_copy_is_independent_and_masks_are_single_bits() -> None:
    field = Bitfield.of(12, [3])
    twin = field.copy()
    twin.add(5)
    assert 5 not in field
    assert field.mask(3) == field.bits
    assert field.mask(5) | field.mask(3) == twin.bits


def test_comparing_hashing_and_showing() -> None:
    field = Bitfield.of(12, [3])
    assert field != Bitfield.of(13, [3])
    assert field != {3}
    with pytest.raises(TypeError, match="unhashable"):
        hash(field)
    assert repr(field) == "<Bitfield 1/12>"


class AgainstASet(RuleBasedStateMachine):
    """A bitfield and a set that live through the same changes."""

    @initialize(num_pieces=st.integers(1, 40))
    def begin(self, num_pieces: int) -> None:
        self.field = Bitfield(num_pieces)
        self.model: set[int] = set()

    @rule(number=st.integers(0, 1000))
    def add(self, number: int) -> None:
        self.field.add(number % self.field.num_pieces)
        self.model.add(number % self.field.num_pieces)

    @rule(number=st.integers(0, 1000))
    def discard(self, number: int) -> None:
        self.field.discard(number % self.field.num_pieces)
        self.model.discard(number % self.field.num_pieces)

    @rule()
    def travel(self) -> None:
        self.field = Bitfield.from_wire(self.field.to_wire(), self.field.num_pieces)

    @invariant()
    def same(self) -> None:
        assert list(self.field) == sorted(self.model)
        assert len(self.field) == len(self.model)
        assert all((index in self.field) == (index in self.model) for index in range(40))


TestAgainstASet = pytest.mark.slow(AgainstASet.TestCase)
