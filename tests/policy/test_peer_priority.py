from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.crc32c import crc32c
from bittern.core.endpoint import Endpoint
from bittern.policy.peer_priority import canonical_priority


@pytest.mark.parametrize(
    ("ours", "theirs", "hashed"),
    [
        # the two examples of BEP 40
        ("123.213.32.10:1", "98.76.54.32:2", "624C14007BD50000"),
        ("123.213.32.10:1", "123.213.32.234:2", "7BD5200A7BD520EA"),
        # the same /16, and differing in the first byte and in the second
        ("123.213.32.10:1", "123.213.33.99:2", "7BD520007BD52141"),
        ("255.255.255.255:1", "254.255.255.255:2", "FEFF5555FFFF5555"),
        ("1.2.255.255:1", "1.3.255.255:2", "0102555501035555"),
        # the same address: the ports
        ("1.2.3.4:6881", "1.2.3.4:80", "00501AE1"),
        ("[2001:db8::1]:2", "[2001:db8::1]:1", "00010002"),
        # IPv6: nothing, /48, /56 and all but the last byte in common
        (
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:1",
            "[eeee:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:1",
            "EEEEFFFFFFFF55555555555555555555FFFFFFFFFFFF55555555555555555555",
        ),
        (
            "[2001:db8:1:ffff:ffff:ffff:ffff:ffff]:1",
            "[2001:db8:1:eeff:ffff:ffff:ffff:ffff]:1",
            "20010DB80001EE55555555555555555520010DB80001FF555555555555555555",
        ),
        (
            "[2001:db8:1:ffff:ffff:ffff:ffff:ffff]:1",
            "[2001:db8:1:ffee:ffff:ffff:ffff:ffff]:1",
            "20010DB80001FFEE555555555555555520010DB80001FFFF5555555555555555",
        ),
        (
            "[2001:db8::1]:1",
            "[2001:db8::2]:1",
            "20010DB800000000000000000000000120010DB8000000000000000000000002",
        ),
    ],
)
def test_canonical_priority(ours: str, theirs: str, hashed: str) -> None:
    expected = crc32c(bytes.fromhex(hashed))
    assert canonical_priority(Endpoint.parse(ours), Endpoint.parse(theirs)) == expected
    assert canonical_priority(Endpoint.parse(theirs), Endpoint.parse(ours)) == expected


def test_the_values_of_bep_40() -> None:
    ours = Endpoint("123.213.32.10", 0)
    assert canonical_priority(ours, Endpoint("98.76.54.32", 0)) == 0xEC2D7224
    assert canonical_priority(ours, Endpoint("123.213.32.234", 0)) == 0x99568189


def test_families_do_not_mix() -> None:
    with pytest.raises(ValueError, match="different families"):
        canonical_priority(Endpoint("1.2.3.4", 1), Endpoint("2001:db8::1", 1))


@given(*[st.tuples(st.ip_addresses(v=4).map(str), st.integers(0, 65535))] * 2)
def test_both_ends_agree(one: tuple[str, int], other: tuple[str, int]) -> None:
    a, b = Endpoint(*one), Endpoint(*other)
    assert canonical_priority(a, b) == canonical_priority(b, a) < 1 << 32
