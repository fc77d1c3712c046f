"""What is kept across runs, and that nothing wrong in it hurts."""

from __future__ import annotations

import random

import pytest

from bittern.codec.bencode import decode, encode
from bittern.core.endpoint import Endpoint
from bittern.core.ids import NodeId
from bittern.dht.limits import MAX_SAVED_NODES
from bittern.dht.routing import Node
from bittern.dht.state import HostStates, SavedState, write_state, write_states

OWN = NodeId(b"o" * 20)


def nodes(count: int, rng: random.Random) -> list[Node]:
    return [
        Node(rng.randbytes(20), Endpoint(f"20.{n >> 8}.{n & 255}.1", 7), now=float(n))
        for n in range(count)
    ]


def test_round_trip(rng: random.Random) -> None:
    made = nodes(3, rng)
    made[1].num_failures = 1
    state = decode(encode(write_state(OWN, b"\x01\x02\x03\x04", made)))
    saved = SavedState.read(state, is_ipv6=False)
    assert saved.node_id == OWN
    assert saved.address == b"\x01\x02\x03\x04"
    # Those that answered last come first, and failing ones at the end.
    assert saved.nodes == tuple((made[i].node_id, made[i].endpoint) for i in (2, 0, 1))


def test_ipv6_round_trip(rng: random.Random) -> None:
    node = Node(rng.randbytes(20), Endpoint("2a00::1", 7), now=0.0)
    state = decode(encode(write_state(OWN, None, [node])))
    assert isinstance(state, dict)
    assert b"ip" not in state
    assert SavedState.read(state, is_ipv6=True).nodes == ((node.node_id, node.endpoint),)


def test_no_more_nodes_than_allowed(rng: random.Random) -> None:
    state = write_state(OWN, None, nodes(MAX_SAVED_NODES + 50, rng))
    assert len(SavedState.read(state, is_ipv6=False).nodes) == MAX_SAVED_NODES
    state[b"nodes"] = bytes.fromhex("ff" * 20 + "14010101" + "0007") * 1000
    assert len(SavedState.read(state, is_ipv6=False).nodes) == MAX_SAVED_NODES


@pytest.mark.parametrize(
    "state",
    [
        None,
        5,
        b"x",
        [],
        {},
        {b"id": 5, b"ip": [], b"nodes": {}},
        {b"id": b"short", b"ip": b"abc", b"nodes": b"x" * 25},
        {b"nodes": b"x" * 20 + b"\0\0\0\0\0\0" + b"x" * 20 + b"\xe0\0\0\1\0\1"},
    ],
)
def test_rubbish_is_as_good_as_nothing(state: object) -> None:
    assert SavedState.read(state, is_ipv6=False) == SavedState()  # type: ignore[arg-type]


def test_each_node_of_a_host_takes_its_own_state_or_the_nodes_of_its_family() -> None:
    v4, v6 = {b"id": b"4", b"nodes": b"n4"}, {b"id": b"6", b"nodes": b"n6"}
    states = HostStates.read(write_states([("20.0.0.1", {**v4}), ("2a00::1", {**v6})]))
    assert states.take(Endpoint("20.0.0.1", 1)) == {**v4, b"host": b"20.0.0.1"}
    assert states.take(Endpoint("2a00::1", 1)) == {**v6, b"host": b"2a00::1"}
    # An id belongs to one address (BEP 45).
    assert states.take(Endpoint("20.0.0.9", 1)) == {b"nodes": b"n4"}
    assert states.take(Endpoint("2a00::9", 1)) == {b"nodes": b"n6"}


@pytest.mark.parametrize(
    "data", [None, b"", b"x", b"i1e", b"li1ee", b"ld4:hosti1eee", b"ld2:idi1eee"]
)
def test_what_is_wrong_in_the_states_of_a_host_is_as_good_as_absent(data: bytes | None) -> None:
    assert HostStates.read(data).take(Endpoint("20.0.0.1", 1)) == {}
