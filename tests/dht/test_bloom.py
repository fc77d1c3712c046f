"""Bloom filters (BEP 33)."""

from __future__ import annotations

import random

import pytest

from bittern.dht.address import pack_host
from bittern.dht.bloom import (
    FILTER_LENGTH,
    estimate_members,
    join_filters,
    make_filter,
    may_contain,
)

VECTOR = bytes.fromhex(
    """
    F6C3F5EA A07FFD91 BDE89F77 7F26FB2B FF37BDB8 FB2BBAA2 FD3DDDE7 BACFFF75 EE7CCBAE
    FE5EEDB1 FBFAFF67 F6ABFF5E 43DDBCA3 FD9B9FFD F4FFD3E9 DFF12D1B DF59DB53 DBE9FA5B
    7FF3B8FD FCDE1AFB 8BEDD7BE 2F3EE71E BBBFE93B CDEEFE14 8246C2BC 5DBFF7E7 EFDCF24F
    D8DC7ADF FD8FFFDF DDFFF7A4 BBEEDF5C B95CE81F C7FCFF1F F4FFFFDF E5F7FDCB B7FD79B3
    FA1FC77B FE07FFF9 05B7B7FF C7FEFEFF E0B8370B B0CD3F5B 7F2BD93F EB4386CF DD6F7FD5
    BFAF2E9E BFFFFEEC D67ADBF7 C67F17EF D5D75EBA 6FFEBA7F FF47A91E B1BFBB53 E8ABFB57
    62ABE8FF 237279BF EFBFEEF5 FFC5FEBF DFE5ADFF ADFEE1FB 737FFFFB FD9F6AEF FEEE76B6
    FD8F72EF
    """
)


def vector_addresses() -> list[bytes]:
    return [pack_host(f"192.0.2.{number}") for number in range(256)] + [
        pack_host(f"2001:db8::{number:x}") for number in range(0x3E8)
    ]


def test_the_vector_of_bep_33() -> None:
    made = make_filter(vector_addresses())
    assert made == VECTOR
    assert estimate_members(made) == pytest.approx(1224.9308, abs=1e-4)


def test_a_union_is_the_filter_of_both() -> None:
    addresses = vector_addresses()
    halves = [make_filter(addresses[::2]), make_filter(addresses[1::2])]
    assert join_filters(halves) == VECTOR
    assert join_filters([]) == bytes(FILTER_LENGTH)


def test_members_are_found_and_most_others_are_not(rng: random.Random) -> None:
    members = {rng.randbytes(4) for _ in range(50)}
    made = make_filter(members)
    assert all(may_contain(made, member) for member in members)
    others = [rng.randbytes(4) for _ in range(500)]
    assert sum(may_contain(made, other) for other in others) < 20


@pytest.mark.parametrize("count", [0, 1, 10, 100, 1000, 3000])
def test_estimates_are_near(count: int, rng: random.Random) -> None:
    made = make_filter(rng.randbytes(4) for _ in range(count))
    assert estimate_members(made) == pytest.approx(count, rel=0.15, abs=1)


def test_a_full_filter_is_many_and_no_error() -> None:
    assert 7000 < estimate_members(b"\xff" * FILTER_LENGTH) < 9000
