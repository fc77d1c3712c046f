"""
What a node keeps across runs: its id, its address, and nodes that answered lately.

    key    value
    id     node id, 20 bytes
    ip     our address as the outside saw it, 4 or 16 bytes; absent when unknown
    nodes  compact node infos end to end

The state is a bencodable value; who keeps it where is the owner's business. A host that
has several nodes keeps a list of them, each with a further key:

    host   the address that the node's socket is bound to

A node takes the entry of its own address; without one it takes the nodes, and not the
id, of one of its family (BEP 45: an id belongs to one address). Reading takes anything:
what is wrong is as good as absent.

Sources: BEP 5 ("the routing table should be saved between invocations"), BEP 45.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from bittern.codec.bencode import Encodable, Limits, Value, decode, encode
from bittern.codec.krpc_message import NODE_ID_LENGTH, NODE_INFO_LENGTH, NODE_INFO_LENGTH_V6
from bittern.core.endpoint import Endpoint
from bittern.core.errors import BencodeDecodeError
from bittern.core.ids import NodeId
from bittern.dht.address import is_plausible, unpack_endpoint
from bittern.dht.limits import MAX_SAVED_NODES
from bittern.dht.routing import Node

_LIMITS = Limits(4, 10_000, 1 << 20)


@dataclass(frozen=True, slots=True)
class SavedState:
    """
    What was read.

    Args:
        node_id: None when there was none.
        address: our packed address, or None.
        nodes: ids and endpoints, those that answered last first.
    """

    node_id: NodeId | None = None
    address: bytes | None = None
    nodes: tuple[tuple[bytes, Endpoint], ...] = ()

    @classmethod
    def read(cls, state: Value | None, *, is_ipv6: bool) -> Self:
        """Read a state of one family."""
        if not isinstance(state, dict):
            return cls()
        node_id, address, nodes = state.get(b"id"), state.get(b"ip"), state.get(b"nodes")
        size = NODE_INFO_LENGTH_V6 if is_ipv6 else NODE_INFO_LENGTH
        packed_length = size - NODE_ID_LENGTH - 2
        found: list[tuple[bytes, Endpoint]] = []
        if isinstance(nodes, bytes):
            for at in range(0, min(len(nodes) // size, MAX_SAVED_NODES) * size, size):
                compact = nodes[at + NODE_ID_LENGTH : at + size]
                if is_plausible(compact, from_local=True):
                    found.append((nodes[at : at + NODE_ID_LENGTH], unpack_endpoint(compact)))
        return cls(
            NodeId(node_id)
            if isinstance(node_id, bytes) and len(node_id) == NODE_ID_LENGTH
            else None,
            address if isinstance(address, bytes) and len(address) == packed_length else None,
            tuple(found),
        )


def write_state(
    node_id: NodeId, address: bytes | None, nodes: Iterable[Node]
) -> dict[bytes, Value]:
    """Return what ``SavedState.read`` reads; at most 400 nodes, those that answered last first."""
    best = sorted(nodes, key=lambda node: (node.num_failures, -node.answered_at))
    state: dict[bytes, Value] = {
        b"id": bytes(node_id),
        b"nodes": b"".join(node.compact for node in best[:MAX_SAVED_NODES]),
    }
    if address is not None:
        state[b"ip"] = address
    return state


class HostStates:
    """
    The states of a host's nodes, for those of a new run to take.

    Args:
        by_host: bencodable states by the address of the node's socket.
    """

    def __init__(self, by_host: Mapping[str, dict[bytes, Value]]) -> None:
        self._by_host = by_host

    @classmethod
    def read(cls, data: bytes | None) -> Self:
        """Read what ``write_states`` returned; None, like rubbish, is no state at all."""
        try:
            states = decode(data or b"le", limits=_LIMITS)
        except BencodeDecodeError:
            return cls({})
        found = {}
        for state in states if isinstance(states, list) else []:
            host = state.get(b"host") if isinstance(state, dict) else None
            if isinstance(state, dict) and isinstance(host, bytes):
                found[host.decode("ascii", "replace")] = state
        return cls(found)

    def take(self, endpoint: Endpoint) -> dict[bytes, Value]:
        """Return the state for a node whose socket is bound to an address."""
        own = self._by_host.get(endpoint.host)
        if own is not None:
            return own
        for host, state in self._by_host.items():
            if (":" in host) == endpoint.is_ipv6:
                return {key: value for key, value in state.items() if key == b"nodes"}
        return {}


def write_states(states: Iterable[tuple[str, dict[bytes, Value]]]) -> bytes:
    """Return what ``HostStates.read`` reads, of addresses and what ``write_state`` returned."""
    found: list[Encodable] = [{**state, b"host": host.encode()} for host, state in states]
    return encode(found)
