"""
How many DHT nodes the peers of one address may name.

A peer names its node in a PORT message (BEP 5), as often as it likes, and each node is one of
a few hundred that wait to be examined. One peer has one node; a few behind the same address
have a few. A node that is named again, as on every connection of a client, costs nothing.

Invariant: at most ``MAX_NETWORKS`` addresses are remembered, the oldest go first.

Limit: N2.
"""

from __future__ import annotations

from bittern.core.endpoint import Endpoint, network_of

MAX_NODES = 4
"""Limit: N2. Nodes taken from one address, or /64 of IPv6, within the lifetime."""
LIFETIME = 900.0
"""Seconds until another may take a node's place: BEP 5 calls a node good for so long."""
MAX_NETWORKS = 1_000


class PortLimits:
    """The limit described in the module's text."""

    __slots__ = ("_named",)

    def __init__(self) -> None:
        self._named: dict[str, dict[Endpoint, float]] = {}

    def may_take(self, node: Endpoint, *, now: float) -> bool:
        """Note a node that a peer at its address has named, and tell whether to take it."""
        network = network_of(node.host)
        named = self._named.pop(network, {})
        named = {each: at for each, at in named.items() if now - at < LIFETIME}
        if len(self._named) >= MAX_NETWORKS:
            del self._named[next(iter(self._named))]
        self._named[network] = named
        if node not in named and len(named) >= MAX_NODES:
            return False
        named.setdefault(node, now)
        return True

    def __len__(self) -> int:
        return len(self._named)
