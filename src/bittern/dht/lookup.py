"""
An iterative lookup: which nodes are closest to a target?

Pure choice: who is asked next, and when it is over. It sends nothing and knows no time;
``operations`` carries it out.

Theory of operation. A candidate is a node that somebody named. It moves

    FRESH -> ASKED -> ANSWERED         and  ASKED -> SLOW -> ANSWERED or FAILED
    FRESH -> DROPPED when its network is represented already, or nobody believable
             vouches for it

A SLOW candidate no longer counts as under way, so another one is asked; its answer is
still welcome.

The lookup travels along three paths that share no node (Limit: N2): the nodes we start
from are dealt out in turn, and a node belongs to the path on which it was first named.
Each path has one query under way and ends when its nearest candidate is no nearer than
the nearest few that answered on it. Then the paths join: what is still nearer than the
eight nearest that answered is asked, whoever named it.

Against liars: from one network (/24, /64) one node is relied on; a node that named
several that do not answer loses the rest of its suggestions; nodes whose id does not fit
their address (BEP 42) do not count among the eight nearest, unless there are no others.
Liars who name only each other cannot be as dense as the whole network: when the eight
nearest lie much farther out than its size lets expect, a few more nodes are asked that
none of them has named.

Sources: BEP 5, BEP 42 (enforcement); disjoint paths as in S/Kademlia.
"""

from __future__ import annotations

import enum
from bisect import bisect
from collections.abc import Container

from bittern.core.endpoint import Endpoint
from bittern.dht.address import Reach, network_of, reach_of, read_nodes, unpack_endpoint
from bittern.dht.limits import BUCKET_SIZE, MAX_CANDIDATES, MAX_LOOKUP_QUERIES, NUM_PATHS
from bittern.dht.security import is_verified

_ID_BITS = 160
_PATH_WIDTH = 1
"""Nodes that must have answered nearer than a path's next candidate before it ends."""
_MAX_RESULTS = 2 * BUCKET_SIZE
"""Answers after which a lookup is over although few of them are from verified nodes."""
_MAX_VOUCHERS = 4
_MAX_MISSES = 3
"""Suggestions of one node that may fail before its other ones are doubted."""
_MAX_CHECKS = 12
"""Nodes asked because the nearest ones found are implausibly far out."""
_MAX_STRETCH = 2.0
"""
How many times farther than expected the eighth nearest may be. By chance it is so once in
a hundred lookups; if a fifth of a network lies, its eighth nearest is five times as far.
"""


class State(enum.Enum):
    """Where a candidate stands."""

    FRESH = enum.auto()
    ASKED = enum.auto()
    SLOW = enum.auto()
    ANSWERED = enum.auto()
    FAILED = enum.auto()


class Candidate:
    """
    A node that may be asked.

    Attributes:
        node_id: 20 bytes, or empty when only the address is known.
        distance: to the target; -1, so nearer than all others, as long as the id is not known.
        compact: address and port, 6 or 18 bytes.
        network: its /24 or /64, empty for a local address.
        path: the path it belongs to.
        token: what it gave us for writing, or None.
    """

    __slots__ = (
        "_endpoint",
        "_is_verified",
        "compact",
        "distance",
        "is_local",
        "network",
        "node_id",
        "num_hits",
        "num_misses",
        "path",
        "state",
        "token",
        "vouchers",
    )

    def __init__(self, node_id: bytes, compact: bytes, target: int, path: int) -> None:
        packed = compact[:-2]
        self.node_id = node_id
        self.compact = compact
        self.distance = int.from_bytes(node_id, "big") ^ target if node_id else -1
        self.is_local = reach_of(packed) is Reach.LOCAL
        self._is_verified: bool | None = None
        self.network = b"" if self.is_local else network_of(packed)
        self.path = path
        self.state = State.FRESH
        self.token: bytes | None = None
        self.vouchers: list[Candidate] = []
        self.num_hits = 0
        self.num_misses = 0
        self._endpoint: Endpoint | None = None

    def __repr__(self) -> str:
        return f"<Candidate {self.node_id.hex()[:8]} {self.endpoint} {self.state.name}>"

    @property
    def is_verified(self) -> bool:
        """Tell whether its id fits its address (BEP 42)."""
        if self._is_verified is None:
            self._is_verified = bool(self.node_id) and is_verified(self.node_id, self.compact[:-2])
        return self._is_verified

    @property
    def endpoint(self) -> Endpoint:
        """Where to ask it."""
        if self._endpoint is None:
            self._endpoint = unpack_endpoint(self.compact)
        return self._endpoint

    @property
    def is_liar(self) -> bool:
        """Tell whether it named too many nodes that do not answer."""
        return self.num_misses >= _MAX_MISSES and self.num_misses > 2 * self.num_hits

    @property
    def is_doubtful(self) -> bool:
        """Tell whether everybody who named it is a liar."""
        return bool(self.vouchers) and all(voucher.is_liar for voucher in self.vouchers)


class Lookup:
    """
    One lookup.

    Args:
        target: 20 bytes.
        own_id: our node id, which nobody needs to tell us about.
        num_nodes: how many nodes the network has, roughly; 0 when unknown.
        suspects: compact addresses of nodes that are not to be asked.
    """

    def __init__(
        self,
        target: bytes,
        own_id: bytes,
        *,
        num_nodes: int = 0,
        suspects: Container[bytes] = (),
    ) -> None:
        self.target = target
        self.num_queries = 0
        self._max_distance = 1 << _ID_BITS
        if num_nodes > 0:
            self._max_distance = int(_MAX_STRETCH * BUCKET_SIZE * (1 << _ID_BITS) / num_nodes)
        self._num_checks = 0
        self._number = int.from_bytes(target, "big")
        self._own_id = own_id
        self._suspects = suspects
        self._candidates: list[Candidate] = []
        self._distances: list[int] = []
        self._known: dict[bytes, Candidate] = {}
        self._asked: set[bytes] = set()
        self._networks: set[bytes] = set()
        self._num_waiting = [0] * NUM_PATHS
        self._num_slow = 0
        self._is_joined = False

    def __repr__(self) -> str:
        return f"<Lookup {self.target.hex()[:8]}, {self.num_queries} queries>"

    # --- candidates --------------------------------------------------------------------------

    def add_start(self, node_id: bytes, compact: bytes) -> None:
        """Add a node to start from; ``node_id`` is empty when it is not known."""
        self._add(node_id, compact, len(self._candidates) % NUM_PATHS, None)

    def _add(self, node_id: bytes, compact: bytes, path: int, voucher: Candidate | None) -> None:
        key = node_id + compact
        candidate = self._known.get(key)
        if candidate is None:
            if len(self._candidates) >= MAX_CANDIDATES or node_id == self._own_id:
                return
            if compact in self._suspects:
                return
            candidate = self._insert(node_id, compact, path)
            if voucher is not None:
                candidate.vouchers.append(voucher)
        elif voucher is not None and 0 < len(candidate.vouchers) < _MAX_VOUCHERS:
            candidate.vouchers.append(voucher)

    def _insert(self, node_id: bytes, compact: bytes, path: int) -> Candidate:
        candidate = self._known[node_id + compact] = Candidate(node_id, compact, self._number, path)
        place = bisect(self._distances, candidate.distance)
        self._distances.insert(place, candidate.distance)
        self._candidates.insert(place, candidate)
        return candidate

    # --- asking ------------------------------------------------------------------------------

    def next_query(self) -> Candidate | None:
        """
        Choose whom to ask now; None while others are under way, or at the end.

        The caller asks it and reports ``answered``, ``failed`` or ``became_slow``.
        """
        if self.num_queries >= MAX_LOOKUP_QUERIES:
            return None
        if not self._is_joined:
            for path, num_waiting in enumerate(self._num_waiting):
                if not num_waiting:
                    chosen = self._choose_on_path(path)
                    if chosen is not None:
                        return self._ask(chosen)
            # A path may still get new candidates from what is under way on it.
            if any(self._num_waiting):
                return None
            self._is_joined = True
        if sum(self._num_waiting) >= NUM_PATHS:
            return None
        chosen = self._choose()
        return None if chosen is None else self._ask(chosen)

    @property
    def is_done(self) -> bool:
        """Tell whether nothing is under way; true at the end, after ``next_query`` gave None."""
        return not any(self._num_waiting) and not self._num_slow

    def _ask(self, candidate: Candidate) -> Candidate:
        candidate.state = State.ASKED
        self.num_queries += 1
        self._num_waiting[candidate.path] += 1
        self._asked.add(candidate.compact)
        if candidate.network:
            self._networks.add(candidate.network)
        return candidate

    def _may_ask(self, candidate: Candidate) -> bool:
        return (
            candidate.state is State.FRESH
            and candidate.network not in self._networks
            and candidate.compact not in self._asked
            and not candidate.is_doubtful
        )

    def _choose_on_path(self, path: int) -> Candidate | None:
        num_answered = 0
        for candidate in self._candidates:
            if candidate.path != path:
                continue
            if candidate.state is State.ANSWERED:
                num_answered += 1
                if num_answered >= _PATH_WIDTH:
                    return None
            elif self._may_ask(candidate):
                return candidate
        return None

    def _choose(self) -> Candidate | None:
        nearest: list[Candidate] = []
        num_verified = 0
        for candidate in self._candidates:
            if candidate.state is State.ANSWERED:
                nearest.append(candidate)
                num_verified += candidate.is_verified
                if num_verified >= BUCKET_SIZE or len(nearest) >= _MAX_RESULTS:
                    return self._choose_check(nearest)
            elif self._may_ask(candidate):
                return candidate
        return None

    def _choose_check(self, nearest: list[Candidate]) -> Candidate | None:
        """Return a node that none of the nearest ones named, if those are too far out."""
        if nearest[-1].distance <= self._max_distance or self._num_checks >= _MAX_CHECKS:
            return None
        for candidate in self._candidates:
            if self._may_ask(candidate) and not any(
                voucher in nearest for voucher in candidate.vouchers
            ):
                self._num_checks += 1
                return candidate
        return None

    # --- what came of it ---------------------------------------------------------------------

    def answered(
        self, candidate: Candidate, node_id: bytes, nodes: bytes, token: bytes | None
    ) -> Candidate:
        """
        Take an answer.

        Args:
            candidate: who was asked.
            node_id: who answered.
            nodes: compact node infos of the candidate's family, end to end; at most
                eight are read.
            token: for writing, or None.

        Returns:
            Who answered: another candidate when the id is not the one it was named by.
        """
        if node_id == self._own_id:
            self.failed(candidate)
            return candidate
        self._end_wait(candidate)
        if candidate.state is State.SLOW:
            _blame(candidate, -1)
        if node_id != candidate.node_id:
            candidate = self._correct(candidate, node_id)
        candidate.state = State.ANSWERED
        candidate.token = token
        for voucher in candidate.vouchers:
            voucher.num_hits += 1
        packed_length = len(candidate.compact) - 2
        for named, compact in read_nodes(nodes, packed_length, from_local=candidate.is_local):
            self._add(named, compact, candidate.path, candidate)
        return candidate

    def failed(self, candidate: Candidate) -> None:
        """Note that a candidate did not answer, or not usefully."""
        self._end_wait(candidate)
        if candidate.state is not State.SLOW:
            _blame(candidate, 1)
        candidate.state = State.FAILED
        self._networks.discard(candidate.network)

    def became_slow(self, candidate: Candidate) -> None:
        """Note that a candidate takes long; it may still answer, but counts as silent so far."""
        candidate.state = State.SLOW
        _blame(candidate, 1)
        self._num_waiting[candidate.path] -= 1
        self._num_slow += 1

    def _end_wait(self, candidate: Candidate) -> None:
        if candidate.state is State.SLOW:
            self._num_slow -= 1
        else:
            self._num_waiting[candidate.path] -= 1

    def _correct(self, candidate: Candidate, node_id: bytes) -> Candidate:
        """Return the candidate under the id it really has; who named a false one is blamed."""
        candidate.state = State.FAILED
        _blame(candidate, 1)
        real = self._known.get(node_id + candidate.compact)
        return real or self._insert(node_id, candidate.compact, candidate.path)

    def closest(self, count: int = BUCKET_SIZE) -> list[Candidate]:
        """Return the nodes closest to the target that answered, nearest first."""
        answered = (each for each in self._candidates if each.state is State.ANSWERED)
        return [each for each, _ in zip(answered, range(count), strict=False)]

    def liars(self) -> list[Candidate]:
        """Return those who named too many nodes that do not answer."""
        return [each for each in self._candidates if each.is_liar]

    @property
    def covered_distance(self) -> int:
        """How far around the target all nodes are known now; -1 when nobody answered."""
        nearest = self.closest()
        if len(nearest) < BUCKET_SIZE:
            return (1 << _ID_BITS) - 1 if nearest else -1
        return nearest[-1].distance

    def estimate_nodes(self) -> int:
        """Return how many nodes the network has, by how near the eighth nearest is; 0 unknown."""
        nearest = self.closest()
        if len(nearest) < BUCKET_SIZE:
            return 0
        return BUCKET_SIZE * (1 << _ID_BITS) // (nearest[-1].distance + 1)

    def writers(self) -> list[Candidate]:
        """
        Return the nodes to store something with: those that gave a token, nearest first.

        BEP 42: eight whose id fits their address, and what lies between them.
        """
        chosen: list[Candidate] = []
        num_verified = 0
        for candidate in self.closest(_MAX_RESULTS):
            if candidate.token is not None:
                chosen.append(candidate)
                num_verified += candidate.is_verified
                if num_verified >= BUCKET_SIZE:
                    break
        return chosen


def _blame(candidate: Candidate, misses: int) -> None:
    """Count a candidate's silence against those who named it."""
    for voucher in candidate.vouchers:
        voucher.num_misses += misses
