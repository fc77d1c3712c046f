"""
The routing table: nodes that answered us, in buckets by distance.

The id space is cut at its first five bits into 32 buckets; the one that holds our own
id is replaced by a chain of ever smaller ones, bucket ``n`` of which holds the nodes
that share exactly ``n`` leading bits with us. That is the table of BEP 5 with its first
splits made in advance, so that lookups start closer to their target.

Only nodes that answered a query of ours enter, and each is due for one more question
that shows whether it is to be believed (``trust``); who is not goes, and stays out for a
while (``vetting``). A full bucket keeps its old nodes, which
live longest, except that a failing node, and a node whose id does not fit its address
(BEP 42), gives way. Others wait as spares. One network has one place in a bucket.

Invariant: a bucket's ``_compact`` is the compact node info of its nodes that did not
fail lately, or None when it has to be made anew.

Sources: BEP 5 (routing table), BEP 32, BEP 42, BEP 45. Limit: N2.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

from bittern.codec.krpc_message import NODE_ID_LENGTH, NODE_INFO_LENGTH, NODE_INFO_LENGTH_V6
from bittern.core.endpoint import Endpoint
from bittern.core.ids import NodeId
from bittern.dht.address import Reach, network_of, pack_endpoint, pack_host, reach_of
from bittern.dht.limits import (
    BUCKET_SIZE,
    FRESH_LIFETIME,
    MAX_FAILURES,
    MAX_PER_NETWORK_IN_TABLE,
    MAX_SPARES,
    MAX_TRUST,
    TOP_BITS,
)
from bittern.dht.security import is_verified
from bittern.dht.vetting import Vetting

_ID_BITS = 160


class Node:
    """
    Another node.

    Attributes:
        node_id: 20 bytes.
        number: the same as an integer, for distances.
        endpoint: where it is.
        compact: its compact node info, 26 or 38 bytes.
        network: its /24 or /64; empty for a local address, which shares nothing.
        is_verified: its id fits its address (BEP 42).
        answered_at: when it last answered us.
        heard_at: when it last answered or asked us.
        num_failures: queries it has left unanswered since it last answered.
    """

    __slots__ = (
        "answered_at",
        "compact",
        "endpoint",
        "heard_at",
        "is_verified",
        "network",
        "node_id",
        "num_failures",
        "number",
    )

    def __init__(self, node_id: bytes, endpoint: Endpoint, *, now: float) -> None:
        packed = pack_host(endpoint.host)
        self.node_id = node_id
        self.number = int.from_bytes(node_id, "big")
        self.endpoint = endpoint
        self.compact = node_id + packed + endpoint.port.to_bytes(2, "big")
        self.network = b"" if reach_of(packed) is Reach.LOCAL else network_of(packed)
        self.is_verified = is_verified(node_id, packed)
        self.answered_at = now
        self.heard_at = now
        self.num_failures = 0

    def __repr__(self) -> str:
        return f"<Node {self.node_id.hex()[:8]} {self.endpoint}>"

    @property
    def stale_at(self) -> float:
        """
        Instant from which it has to be asked: 15 minutes after it was heard from (BEP 5).

        Queries alone keep a node for an hour only, since they can be forged.
        """
        return min(self.heard_at + FRESH_LIFETIME, self.answered_at + MAX_TRUST)


class Bucket:
    """
    Up to eight nodes of one part of the id space, and some that wait for a place.

    Attributes:
        changed_at: when a node was added, replaced, or answered.
        entry: what ``RoutingTable.usual_entry`` gave, as of ``entry_version`` of the table.
    """

    __slots__ = (
        "_compact",
        "changed_at",
        "entry",
        "entry_version",
        "nodes",
        "spares",
    )

    def __init__(self, now: float) -> None:
        self.nodes: list[Node] = []
        self.spares: list[Node] = []
        self.changed_at = now
        self._compact: bytes | None = b""
        self.entry = b""
        self.entry_version = -1

    def good_compact(self) -> bytes:
        """Return the compact node info of all nodes that did not fail lately."""
        if self._compact is None:
            self._compact = b"".join(node.compact for node in self.nodes if not node.num_failures)
        return self._compact

    def touch(self) -> None:
        """Note that the set of good nodes has changed."""
        self._compact = None


class RoutingTable:
    """
    All buckets of one address family.

    Args:
        own_id: our node id.
        is_ipv6: the family.
        now: monotonic seconds.

    Attributes:
        info_length: bytes of a compact node info of the family.
        vetting: who is to be examined, and who is out because it has lied.
    """

    def __init__(self, own_id: NodeId, *, is_ipv6: bool, now: float) -> None:
        self.vetting = Vetting()
        self.info_length = NODE_INFO_LENGTH_V6 if is_ipv6 else NODE_INFO_LENGTH
        self._entry_key = b"6:nodes6" if is_ipv6 else b"5:nodes"
        self._version = 0
        """Counts changes of what is named to others."""
        self._set_own_id(own_id, now)

    def _set_own_id(self, own_id: NodeId, now: float) -> None:
        self.own_id = own_id
        self._own_number = int.from_bytes(own_id, "big")
        self._own_top = self._own_number >> (_ID_BITS - TOP_BITS)
        self._top = [Bucket(now) for _ in range(1 << TOP_BITS)]
        self._chain = [Bucket(now) for _ in range(_ID_BITS - TOP_BITS)]
        self._chain_end = 0
        self._by_endpoint: dict[Endpoint, Node] = {}
        self._networks: Counter[bytes] = Counter()
        self._num_failing = 0
        self._version += 1
        self._stale_at = now
        """Before that instant no node that answers becomes stale."""

    def __len__(self) -> int:
        return len(self._by_endpoint)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._by_endpoint.values())

    def __repr__(self) -> str:
        return f"<RoutingTable of {self.own_id.hex()[:8]}, {len(self)} nodes>"

    # --- finding -----------------------------------------------------------------------------

    def get(self, endpoint: Endpoint) -> Node | None:
        """Return the node at an endpoint, or None; spares do not count."""
        return self._by_endpoint.get(endpoint)

    def _bucket_of(self, number: int) -> Bucket:
        """Return the bucket for an id, given as a number."""
        top = number >> (_ID_BITS - TOP_BITS)
        if top != self._own_top:
            return self._top[top]
        return self._chain[self._depth_of(number)]

    def _depth_of(self, number: int) -> int:
        """Return the place in the chain of an id that shares our first bits."""
        depth = _ID_BITS - TOP_BITS - (number ^ self._own_number).bit_length()
        return min(depth, len(self._chain) - 1)

    def closest_compact(self, target: bytes, max_length: int) -> bytes:
        """
        Return the compact node info of the good nodes closest to ``target``.

        Args:
            target: 20 bytes.
            max_length: the most bytes to return; room for eight nodes, or fewer where
                an answer must be short.

        The usual case, a full bucket and room for all of it, is one look-up.
        """
        number = int.from_bytes(target, "big")
        compact = self._bucket_of(number).good_compact()
        if len(compact) == BUCKET_SIZE * self.info_length <= max_length:
            return compact
        count = min(BUCKET_SIZE, max(0, max_length // self.info_length))
        return b"".join([node.compact for node in self.closest(number, count)])

    def usual_entry(self, target: bytes) -> bytes:
        """
        Return the entry of an answer with eight good nodes near a target.

        Those of the target's bucket, which are the closest where it is full; where it is
        not, it is filled up from the neighbouring buckets, the same for all targets in it.
        Empty when the target shares our first bits: then ``closest_compact`` knows more.
        Hot path: made once for each change of the table.
        """
        bucket = self._top[target[0] >> (8 - TOP_BITS)]
        if bucket.entry_version != self._version:
            bucket.entry_version = self._version
            bucket.entry = b""
            if target[0] >> (8 - TOP_BITS) != self._own_top:
                compact = self.closest_compact(target, BUCKET_SIZE * self.info_length)
                bucket.entry = b"%b%d:%b" % (self._entry_key, len(compact), compact)
        return bucket.entry

    def closest(self, number: int, count: int = BUCKET_SIZE) -> list[Node]:
        """Return the good nodes closest to an id, nearest first."""
        found: list[Node] = []
        for group in self._groups(number):
            nodes = [node for bucket in group for node in bucket.nodes if not node.num_failures]
            if len(nodes) > 1:
                nodes.sort(key=lambda node: node.number ^ number)
            found += nodes
            if len(found) >= count:
                break
        return found[:count]

    def _groups(self, number: int) -> Iterator[list[Bucket]]:
        """Yield groups of buckets; all ids of one are nearer to ``number`` than those after it."""
        top = number >> (_ID_BITS - TOP_BITS)
        chain = self._chain[: self._chain_end]
        for step in range(len(self._top)):
            if top ^ step != self._own_top:
                yield [self._top[top ^ step]]
            elif step:
                yield chain
            else:
                # The id's own bucket, then all deeper ones, then back outwards.
                depth = self._depth_of(number)
                yield chain[depth : depth + 1]
                yield chain[depth + 1 :]
                yield from ([bucket] for bucket in reversed(chain[:depth]))

    # --- what nodes did ----------------------------------------------------------------------

    def note_answer(self, node_id: bytes, endpoint: Endpoint, *, now: float) -> None:
        """
        Note that a node answered a query of ours, and take it in if there is a place for it.

        Args:
            node_id: 20 bytes, as it said.
            endpoint: where the answer came from, and where the query had gone.
            now: monotonic seconds.
        """
        node = self._by_endpoint.get(endpoint)
        if node is not None and node.node_id == node_id:
            bucket = self._bucket_of(node.number)
            bucket.changed_at = node.answered_at = node.heard_at = now
            if node.num_failures:
                node.num_failures = 0
                self._num_failing -= 1
                bucket.touch()
                self._version += 1
            return
        if node is not None:  # BEP 45: one address, two ids
            self._remove(node)
        if node_id != self.own_id:
            self._take_in(Node(node_id, endpoint, now=now))

    def note_query(self, node_id: bytes, endpoint: Endpoint, *, now: float) -> bool:
        """
        Note that somebody asked us something.

        Returns:
            True if it is not in the table and there would be a place for it, so that it
            is worth a ping.
        """
        node = self._by_endpoint.get(endpoint)
        if node is not None:
            if node.node_id == node_id:
                node.heard_at = now
            return False
        return self.has_place(node_id)

    def has_place(self, node_id: bytes, *, far_size: int = BUCKET_SIZE) -> bool:
        """Tell whether there is room for an id; a bucket far from us is to hold ``far_size``."""
        top = node_id[0] >> (8 - TOP_BITS)
        if top == self._own_top:
            bucket = self._bucket_of(int.from_bytes(node_id, "big"))
            return len(bucket.nodes) < BUCKET_SIZE and node_id != self.own_id
        return len(self._top[top].nodes) < far_size

    def note_failure(self, endpoint: Endpoint, *, may_remove: bool = True) -> None:
        """
        Note that a node left a query unanswered; the second time in a row it goes.

        Args:
            endpoint: whom we asked.
            may_remove: False while nobody answers, which is hardly everybody's fault.
        """
        node = self._by_endpoint.get(endpoint)
        if node is None:
            return
        self._num_failing += not node.num_failures
        node.num_failures += 1
        self._bucket_of(node.number).touch()
        self._version += 1
        if node.num_failures >= MAX_FAILURES and may_remove:
            self._remove(node)

    def _take_in(self, node: Node) -> None:
        if node.compact[NODE_ID_LENGTH:] in self.vetting.suspects:
            return
        bucket = self._bucket_of(node.number)
        bucket.spares = [spare for spare in bucket.spares if spare.endpoint != node.endpoint]
        if node.endpoint in self._by_endpoint:  # a spare that has taken another id since
            return
        rivals = [other for other in bucket.nodes if _is_rival(other, node)]
        if rivals:
            if all(_gives_way(other, node) for other in rivals):
                for other in rivals:
                    self._remove(other, promote=False)
                self._insert(bucket, node)
            return
        if self._networks[node.network] >= MAX_PER_NETWORK_IN_TABLE:
            return
        if len(bucket.nodes) >= BUCKET_SIZE:
            loser = max(bucket.nodes, key=lambda each: (each.num_failures, not each.is_verified))
            gives_way = _gives_way(loser, node)
            if gives_way:
                self._remove(loser, promote=False)
            spare = loser if gives_way else node
            if not spare.num_failures:
                bucket.spares = [*bucket.spares[-MAX_SPARES + 1 :], spare]
            if not gives_way:
                return
        self._insert(bucket, node)

    def _insert(self, bucket: Bucket, node: Node) -> None:
        bucket.nodes.append(node)
        if node.number >> (_ID_BITS - TOP_BITS) == self._own_top:
            self._chain_end = max(self._chain_end, self._depth_of(node.number) + 1)
        bucket.changed_at = node.answered_at
        bucket.touch()
        self._version += 1
        self._by_endpoint[node.endpoint] = node
        self.vetting.note_entry(node.node_id, node.endpoint)
        self._num_failing += node.num_failures > 0
        self._stale_at = min(self._stale_at, node.stale_at)
        if node.network:
            self._networks[node.network] += 1

    def _remove(self, node: Node, *, promote: bool = True) -> None:
        bucket = self._bucket_of(node.number)
        bucket.nodes.remove(node)
        bucket.touch()
        self._version += 1
        del self._by_endpoint[node.endpoint]
        self.vetting.note_exit(node.endpoint)
        self._num_failing -= node.num_failures > 0
        if node.network:
            self._networks[node.network] -= 1
            if not self._networks[node.network]:
                del self._networks[node.network]
        if promote and bucket.spares:
            best = max(bucket.spares, key=lambda spare: (spare.is_verified, spare.answered_at))
            self._take_in(best)

    def drop_liar(self, endpoint: Endpoint, *, now: float) -> None:
        """Drop a node that has lied, and let it in no more for 15 minutes."""
        node = self._by_endpoint.get(endpoint)
        if node is not None:
            self._remove(node)
        self.vetting.suspect(pack_endpoint(endpoint), now=now)

    # --- upkeep ------------------------------------------------------------------------------

    def num_good(self) -> int:
        """Return how many nodes answered the last query they got."""
        return len(self) - self._num_failing

    def estimate_nodes(self) -> int:
        """Return how many nodes the network probably has, by how near our nearest ones are."""
        nearest = self.closest(self._own_number)
        if len(nearest) < BUCKET_SIZE:
            return len(nearest)
        return BUCKET_SIZE * (1 << _ID_BITS) // ((nearest[-1].number ^ self._own_number) + 1)

    def stalest(self, *, now: float) -> Node | None:
        """Return the node that most needs to be asked whether it is still there, or None."""
        if now < self._stale_at and not self._num_failing:
            return None
        self._stale_at = min((node.stale_at for node in self), default=now + FRESH_LIFETIME)
        nodes = [node for node in self if node.num_failures or node.stale_at <= now]
        return min(nodes, key=lambda node: (-node.num_failures, node.heard_at), default=None)

    def stale_target(self, rng: random.Random, *, now: float) -> bytes | None:
        """
        Return a random id in the bucket that has been unchanged for longest, or None.

        BEP 5: a bucket without change for 15 minutes is refreshed by a lookup. The
        bucket counts as changed from now on.
        """
        parts = [(bucket.changed_at, top, -1) for top, bucket in enumerate(self._top)]
        parts[self._own_top] = (now, 0, 0)
        parts += [
            (bucket.changed_at, 0, at)
            for at, bucket in enumerate(self._chain[: self._chain_end + 1])
        ]
        changed_at, top, at = min(parts)
        if now - changed_at < FRESH_LIFETIME:
            return None
        if at < 0:
            self._top[top].changed_at = now
            number = top << (_ID_BITS - TOP_BITS) | rng.getrandbits(_ID_BITS - TOP_BITS)
        else:
            self._chain[at].changed_at = now
            num_free = _ID_BITS - TOP_BITS - at - 1
            number = (self._own_number >> num_free ^ 1) << num_free | rng.getrandbits(num_free)
        return number.to_bytes(NODE_ID_LENGTH, "big")

    def note_lookup(self, number: int, distance: int, *, now: float) -> None:
        """
        Count buckets as refreshed of which a lookup has found every node.

        Args:
            number: the target.
            distance: how far around it all nodes are known.
            now: monotonic seconds.

        In a small network one lookup does for most buckets.
        """
        low_bits = _ID_BITS - TOP_BITS
        width = distance + 1 >> low_bits
        top = number >> low_bits
        for step in range(width):
            self._top[top ^ step].changed_at = now
        for depth, bucket in enumerate(self._chain[: self._chain_end + 1]):
            num_free = _ID_BITS - TOP_BITS - depth - 1
            prefix = self._own_number >> num_free ^ 1
            if (prefix ^ number >> num_free) + 1 << num_free <= distance + 1:
                bucket.changed_at = now

    def move_to(self, own_id: NodeId, *, now: float) -> None:
        """Sort all nodes anew around another id of ours (BEP 42)."""
        nodes = list(self)
        for node in nodes:
            self.vetting.note_exit(node.endpoint)
        self._set_own_id(own_id, now)
        for node in nodes:
            if node.node_id != own_id:
                self._take_in(node)


def _is_rival(other: Node, node: Node) -> bool:
    """Tell whether two nodes cannot both be in a bucket: one id, or one network (Limit: N2)."""
    return other.number == node.number or (bool(node.network) and other.network == node.network)


def _gives_way(other: Node, node: Node) -> bool:
    """Tell whether a node of the table makes room for a new one."""
    return other.num_failures > 0 or (node.is_verified and not other.is_verified)
