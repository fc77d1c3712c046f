"""Node ids tied to addresses (BEP 42)."""

from __future__ import annotations

import random

import pytest

from bittern.core.ids import NodeId
from bittern.dht.address import pack_host
from bittern.dht.security import is_verified, make_node_id

# The table of BEP 42.
VECTORS = [
    ("124.31.75.21", "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401"),
    ("21.75.31.124", "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256"),
    ("65.23.51.170", "a5d43220bc8f112a3d426c84764f8c2a1150e616"),
    ("84.124.73.14", "1b0321dd1bb1fe518101ceef99462b947a01ff41"),
    ("43.213.53.83", "e56f6cbf5b7c4be0237986d5243b87aa6d51305a"),
]


@pytest.mark.parametrize(("host", "node_id"), VECTORS)
def test_vectors(host: str, node_id: str) -> None:
    raw = bytes.fromhex(node_id)
    assert is_verified(raw, pack_host(host))
    # Any of the first 21 bits and of the last three counts, the others do not.
    for bit in range(160):
        changed = (int.from_bytes(raw, "big") ^ 1 << (159 - bit)).to_bytes(20, "big")
        assert is_verified(changed, pack_host(host)) is (21 <= bit < 157)


@pytest.mark.parametrize(
    "host", ["10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.3.4", "127.0.0.1"]
)
def test_local_addresses_are_exempt(host: str) -> None:
    assert is_verified(bytes(20), pack_host(host))


@pytest.mark.parametrize("host", ["84.124.73.14", "2a00:1450:4001:81b::200e"])
def test_made_ids_fit_their_address_and_no_other(host: str, rng: random.Random) -> None:
    packed = pack_host(host)
    others = (pack_host("8.8.8.8"), pack_host("2a01::1"))
    made = {make_node_id(rng.randbytes, packed) for _ in range(250)}
    assert len(made) == 250
    for node_id in made:
        assert is_verified(node_id, packed)
        assert not any(is_verified(node_id, other) for other in others)
    # BEP 42: eight different places for one address.
    assert len({int.from_bytes(node_id[:3], "big") >> 3 for node_id in made}) == 8


def test_only_the_first_half_of_an_ipv6_address_counts(rng: random.Random) -> None:
    node_id = make_node_id(rng.randbytes, pack_host("2a00:1450::1"))
    assert is_verified(node_id, pack_host("2a00:1450::2:3:4:5"))


def test_without_an_address_an_id_is_random(rng: random.Random) -> None:
    made = make_node_id(rng.randbytes)
    assert type(made) is NodeId
    assert made != make_node_id(rng.randbytes)
