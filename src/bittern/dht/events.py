"""
What a node tells its owner. Every request ends in exactly one event marked as its end.

Peers and nodes come from strangers: endpoints are plausible, not proven.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcFailure, QueryTimeout
from bittern.core.ids import InfoHash, NodeId
from bittern.dht.items import Item


@dataclass(frozen=True, slots=True)
class FoundNode:
    """A node that answered."""

    node_id: NodeId
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class NodesFound:
    """The end of ``find_nodes``: those closest to the target that answered, nearest first."""

    request_id: int
    nodes: tuple[FoundNode, ...]
    num_queries: int


@dataclass(frozen=True, slots=True)
class PeersFound:
    """Peers that one node named, without those it repeated."""

    request_id: int
    peers: tuple[Endpoint, ...]
    node: Endpoint


@dataclass(frozen=True, slots=True)
class PeersLookupEnded:
    """
    The end of ``get_peers`` and ``announce``.

    Args:
        num_peers: different peers that were named.
        num_seeds_estimate: seeds by bloom filters; None when none were asked for or given.
        num_leechers_estimate: other peers, as above (BEP 33).
        num_stored: nodes that took our announce; 0 when there was none to make.
        nodes: those closest to the info hash, nearest first.
    """

    request_id: int
    num_peers: int
    num_seeds_estimate: float | None
    num_leechers_estimate: float | None
    num_stored: int
    nodes: tuple[FoundNode, ...]
    num_queries: int


@dataclass(frozen=True, slots=True)
class ItemFound:
    """An item that is genuine, and newer than all before it in this request."""

    request_id: int
    item: Item
    node: Endpoint


@dataclass(frozen=True, slots=True)
class ItemLookupEnded:
    """
    The end of ``get_item`` and ``put_item``.

    Args:
        item: the newest one found, or the one that was stored.
        num_copies: nodes that had the newest item found.
        num_stored: nodes that took ours.
        refusals: what nodes said that did not take it.
    """

    request_id: int
    item: Item | None
    num_copies: int
    num_stored: int
    refusals: tuple[KrpcFailure, ...]
    num_queries: int


@dataclass(frozen=True, slots=True)
class Ponged:
    """The end of ``ping``: it answered."""

    request_id: int
    node: FoundNode
    version: bytes
    round_trip: float


@dataclass(frozen=True, slots=True)
class Sampled:
    """
    The end of ``sample``.

    Args:
        samples: info hashes that the node stores peers of.
        num: how many it has in all, as it says.
        interval: seconds in which it gives no others.
        nodes: nodes near the target that it named.
    """

    request_id: int
    node: FoundNode
    samples: tuple[InfoHash, ...]
    num: int
    interval: int
    nodes: tuple[FoundNode, ...]


@dataclass(frozen=True, slots=True)
class QueryFailed:
    """The end of ``ping`` and ``sample``: it did not answer, or refused."""

    request_id: int
    error: KrpcFailure | QueryTimeout


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """A try to bootstrap is over; without nodes another one follows by itself."""

    num_nodes: int


@dataclass(frozen=True, slots=True)
class AddressLearned:
    """Enough nodes agree on how the outside sees us; the node id now fits (BEP 42)."""

    host: str
    node_id: NodeId


@dataclass(frozen=True, slots=True)
class OtherFamilyHeard:
    """Somebody named nodes of the other address family, for the node that serves it (BEP 32)."""

    nodes: tuple[Endpoint, ...]


DhtEvent: TypeAlias = (
    NodesFound
    | PeersFound
    | PeersLookupEnded
    | ItemFound
    | ItemLookupEnded
    | Ponged
    | Sampled
    | QueryFailed
    | Bootstrapped
    | AddressLearned
    | OtherFamilyHeard
)
