"""
Thousands of DHT nodes on a virtual clock, in plain Python.

A heap of deliveries and timers; no event loop, since 5,000 nodes exchange millions of
datagrams. Chance comes from one seed. Hostile nodes answer as attackers would.
"""

from __future__ import annotations

import enum
import heapq
import random
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from bittern.codec.bencode import Value
from bittern.codec.krpc import decode
from bittern.codec.krpc_encoding import encode
from bittern.codec.krpc_message import FindNode, Get, GetPeers, Ping, Query, Response
from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcDecodeError
from bittern.core.ids import InfoHash
from bittern.dht.address import Reach, format_packed, pack_endpoint, pack_host, reach_of
from bittern.dht.events import PeersFound, PeersLookupEnded
from bittern.dht.limits import DhtConfig
from bittern.dht.node import DhtNode
from bittern.dht.security import make_node_id


class Machine(Protocol):
    """What lives at an address of the world."""

    def receive_datagram(self, data: bytes, source: Endpoint, *, now: float) -> None: ...

    def handle_timer(self, *, now: float) -> None: ...

    def next_timer(self) -> float: ...

    def datagrams_to_send(self) -> list[tuple[bytes, Endpoint]]: ...


class World:
    """
    All machines and the links between them.

    Args:
        seed: for everything.
        loss: chance that a datagram is lost.
        delay: seconds one way, drawn evenly between the two.
    """

    def __init__(
        self, seed: int, *, loss: float = 0.0, delay: tuple[float, float] = (0.01, 0.15)
    ) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.loss = loss
        self.delay = delay
        self.machines: dict[Endpoint, Machine] = {}
        self.num_datagrams = 0
        self.sent_lengths: Counter[tuple[Endpoint, Endpoint]] = Counter()
        self.is_metered = False
        self._networks: set[bytes] = set()
        self._queue: list[tuple[float, int, Endpoint, bytes | None, Endpoint | None]] = []
        self._num_queued = 0
        self._timers: dict[Endpoint, float] = {}

    # --- machines ----------------------------------------------------------------------------

    def draw_endpoint(self) -> Endpoint:
        """Return a public address in a /24 of its own."""
        while True:
            packed = self.rng.randbytes(4)
            if reach_of(packed) is Reach.PUBLIC and packed[:3] not in self._networks:
                self._networks.add(packed[:3])
                return Endpoint(format_packed(packed), self.rng.randrange(1024, 65536))

    def add(self, machine: Machine, endpoint: Endpoint) -> None:
        """Put a machine on the network."""
        self.machines[endpoint] = machine
        self.settle(endpoint)

    def add_node(
        self,
        endpoint: Endpoint | None = None,
        *,
        knows: tuple[Endpoint, ...] = (),
        config: DhtConfig | None = None,
    ) -> tuple[Endpoint, DhtNode]:
        """Add an honest node that starts with the nodes it ``knows``."""
        endpoint = endpoint or self.draw_endpoint()
        packed = pack_host(endpoint.host)
        state: dict[bytes, Value] = {
            b"id": bytes(make_node_id(self.rng.randbytes, packed)),
            b"ip": packed,
        }
        node = DhtNode(
            random_bytes=self.rng.randbytes,
            rng=random.Random(self.rng.getrandbits(64)),
            verify=lambda key, signature, message: True,
            now=self.now,
            is_ipv6=":" in endpoint.host,
            config=config,
            state=state,
        )
        node.add_nodes([(b"", each) for each in knows], now=self.now)
        self.add(node, endpoint)
        return endpoint, node

    def remove(self, endpoint: Endpoint) -> None:
        """Take a machine away without a word."""
        del self.machines[endpoint]
        self._timers.pop(endpoint, None)

    # --- time --------------------------------------------------------------------------------

    def settle(self, endpoint: Endpoint) -> None:
        """Send what a machine wants sent, and set its timer."""
        machine = self.machines[endpoint]
        for data, target in machine.datagrams_to_send():
            self.send(data, endpoint, target)
        due_at = machine.next_timer()
        armed_at = self._timers.get(endpoint)
        if armed_at is None or due_at < armed_at:
            self._timers[endpoint] = due_at
            self._push(max(due_at, self.now), endpoint, None, None)

    def send(self, data: bytes, source: Endpoint, target: Endpoint) -> None:
        """Put a datagram on its way."""
        self.num_datagrams += 1
        if self.is_metered:
            self.sent_lengths[source, target] += len(data)
        if self.rng.random() >= self.loss:
            low, high = self.delay
            self._push(self.now + low + (high - low) * self.rng.random(), target, data, source)

    def _push(
        self, at: float, endpoint: Endpoint, data: bytes | None, source: Endpoint | None
    ) -> None:
        self._num_queued += 1
        heapq.heappush(self._queue, (at, self._num_queued, endpoint, data, source))

    def run(self, seconds: float, *, until: Callable[[], bool] | None = None) -> None:
        """Let time pass; stop early once ``until`` holds."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            if until is not None and until():
                return
            at, _, endpoint, data, source = heapq.heappop(self._queue)
            self.now = at
            machine = self.machines.get(endpoint)
            if machine is None:
                continue
            if data is not None and source is not None:
                machine.receive_datagram(data, source, now=at)
            elif self._timers.get(endpoint) == at or (self._timers.get(endpoint, at) < at):
                del self._timers[endpoint]
                machine.handle_timer(now=at)
            else:
                continue
            self.settle(endpoint)
        if until is None or not until():
            self.now = end


class Lie(enum.Enum):
    """What a hostile node does to who asks it."""

    SILENCE = enum.auto()
    """Answers pings and nothing else."""
    PHANTOMS = enum.auto()
    """Names nodes beside the target that do not exist."""
    FRIENDS = enum.auto()
    """Names other hostile nodes, of all that are not silent those nearest to the target."""
    PEERS = enum.auto()
    """Gives peers that do not exist, and friends."""
    MASK = enum.auto()
    """Is honest about its own neighbours, by whom it is judged, and else names friends."""


def nearest_infos(infos: list[bytes], target: bytes) -> list[bytes]:
    """Return the eight of sorted compact node infos that are nearest to a target."""
    number = int.from_bytes(target, "big")
    found = infos
    # All that share a prefix with the target are next to each other.
    for num_free in range(159, 0, -1):
        first = number >> num_free << num_free
        low = bisect_left(infos, first.to_bytes(20, "big"))
        high = bisect_left(infos, (first + (1 << num_free) - 1).to_bytes(20, "big"), low)
        if high - low < 8:
            break
        found = infos[low:high]
    return sorted(found, key=lambda info: int.from_bytes(info[:20], "big") ^ number)[:8]


class HostileNode:
    """
    A node that joins like all others, takes announces and forgets them, and lies.

    Args:
        world: where it lives.
        node: what it does apart from answering.
        lie: how it answers.
        friends: all hostile nodes that answer, as sorted compact node infos.
    """

    def __init__(self, world: World, node: DhtNode, lie: Lie, friends: list[bytes]) -> None:
        self.node = node
        self._world = world
        self._lie = lie
        self._friends = friends
        self._answers: list[tuple[bytes, Endpoint]] = []

    def receive_datagram(self, data: bytes, source: Endpoint, *, now: float) -> None:
        """Take one datagram."""
        try:
            message = decode(data)
        except KrpcDecodeError:
            return
        if not isinstance(message, Query):
            self.node.receive_datagram(data, source, now=now)
            return
        match message.arguments:
            case Ping():
                self.node.receive_datagram(data, source, now=now)
            case FindNode(target) if self._lie is Lie.MASK and self._is_near(target):
                self.node.receive_datagram(data, source, now=now)
            case FindNode(target) | Get(target):
                self._answer(message, source, target)
            case GetPeers(target):
                self._answer(message, source, target)
            case _:
                # Takes an announce or an item, and throws it away.
                self._answer(message, source, None)

    def _answer(self, query: Query, source: Endpoint, target: bytes | None) -> None:
        if self._lie is Lie.SILENCE:
            return
        response = Response(
            transaction_id=query.transaction_id,
            node_id=self.node.table.own_id,
            nodes=None if target is None else self._nodes(target),
            token=None if target is None else b"trust me",
            values=self._peers() if self._lie is Lie.PEERS and target is not None else (),
            external=pack_endpoint(source),
        )
        self._answers.append((encode(response), source))

    def _is_near(self, target: bytes) -> bool:
        return target[:2] == self.node.table.own_id[:2]

    def _nodes(self, target: bytes) -> bytes:
        if self._lie is Lie.PHANTOMS:
            rng = self._world.rng
            return b"".join(
                target[:18] + rng.randbytes(2) + b"\x2d" + rng.randbytes(3) + b"\x1a\xe1"
                for _ in range(8)
            )
        return b"".join(nearest_infos(self._friends, target))

    def _peers(self) -> tuple[bytes, ...]:
        return tuple(b"\x2d" + self._world.rng.randbytes(3) + b"\x1a\xe1" for _ in range(20))

    def handle_timer(self, *, now: float) -> None:
        """Do what is due."""
        self.node.handle_timer(now=now)

    def next_timer(self) -> float:
        """Return the instant of the next ``handle_timer``."""
        return self.node.next_timer()

    def datagrams_to_send(self) -> list[tuple[bytes, Endpoint]]:
        """Return and forget what to send."""
        answers, self._answers = self._answers, []
        return answers + self.node.datagrams_to_send()


@dataclass(frozen=True, slots=True)
class Job:
    """A lookup to be made: from where, for what, and the port if it announces."""

    endpoint: Endpoint
    info_hash: InfoHash
    port: int = 0


@dataclass(slots=True)
class Outcome:
    """What came of a job."""

    began_at: float
    ended_at: float = 0.0
    peers: set[Endpoint] = field(default_factory=set)
    end: PeersLookupEnded | None = None

    @property
    def num_queries(self) -> int:
        """Queries that the lookup sent."""
        assert self.end is not None
        return self.end.num_queries


class Network:
    """
    A DHT in a world: joins, leaves, lookups, and what came of them.

    Args:
        world: where it lives.
        share_hostile: how many of all nodes are hostile, 0 to 1.
        lies: what these do, in turn.
    """

    def __init__(
        self, world: World, *, share_hostile: float = 0.0, lies: tuple[Lie, ...] = tuple(Lie)
    ) -> None:
        self.world = world
        self.honest: dict[Endpoint, DhtNode] = {}
        self._share_hostile = share_hostile
        self._lies = lies
        self._everybody: list[Endpoint] = []
        self._friends: list[bytes] = []
        self._num_hostile = 0

    def __len__(self) -> int:
        return len(self._everybody)

    def join(self) -> None:
        """Add a node that knows three others."""
        world = self.world
        known = tuple(world.rng.sample(self._everybody, min(5, len(self._everybody))))
        # The very first ones are honest: everybody can name a few nodes that are.
        wants_hostile = len(self) >= 10 and self._num_hostile < self._share_hostile * len(self)
        endpoint, node = world.add_node(knows=known)
        self._everybody.append(endpoint)
        if not wants_hostile:
            self.honest[endpoint] = node
            return
        lie = self._lies[self._num_hostile % len(self._lies)]
        self._num_hostile += 1
        if lie is not Lie.SILENCE:
            insort(self._friends, node.table.own_id + pack_endpoint(endpoint))
        world.machines[endpoint] = HostileNode(world, node, lie, self._friends)

    def leave(self) -> None:
        """Take a random honest node away, without a word."""
        endpoint = self.world.rng.choice(self._everybody)
        if endpoint in self.honest:
            self._everybody.remove(endpoint)
            del self.honest[endpoint]
            self.world.remove(endpoint)

    def grow(self, count: int, *, interval: float, settle_time: float = 60.0) -> None:
        """Let ``count`` nodes join, one each ``interval`` seconds."""
        for _ in range(count):
            self.join()
            self.world.run(interval)
        self.world.run(settle_time)

    def churn(self, seconds: float, *, share: float) -> None:
        """Let time pass during which a share of the nodes is replaced by new ones."""
        count = max(1, round(share * len(self)))
        for _ in range(count):
            self.leave()
            self.join()
            self.world.run(seconds / count)

    def share_of_liars(self) -> float:
        """Return how many of all entries in honest nodes' tables are hostile nodes."""
        named = [each.endpoint for node in self.honest.values() for each in node.table]
        machines = self.world.machines
        return sum(isinstance(machines.get(each), HostileNode) for each in named) / len(named)

    def draw(self) -> Endpoint:
        """Return a random honest node that has found others."""
        while True:
            endpoint = self.world.rng.choice(list(self.honest))
            if self.honest[endpoint].status.is_ready:
                return endpoint

    def announce(self, jobs: list[Job]) -> list[Outcome]:
        """Announce every job's torrent from its node; return what came of it, in order."""
        return self._run(
            jobs, lambda node, job: node.announce(job.info_hash, job.port, now=self.world.now)
        )

    def get_peers(self, jobs: list[Job]) -> list[Outcome]:
        """Look the peers of every job's torrent up from its node."""
        return self._run(jobs, lambda node, job: node.get_peers(job.info_hash, now=self.world.now))

    def _run(
        self, jobs: list[Job], start: Callable[[DhtNode, Job], int], *, interval: float = 0.2
    ) -> list[Outcome]:
        """Start a lookup each ``interval`` seconds and wait until all are over."""
        outcomes: dict[tuple[Endpoint, int], Outcome] = {}
        for job in jobs:
            node = self.honest[job.endpoint]
            node.events()
            outcomes[job.endpoint, start(node, job)] = Outcome(self.world.now)
            self.world.settle(job.endpoint)
            self.world.run(interval)
            self._collect(outcomes)
        for _ in range(600):
            if all(outcome.end is not None for outcome in outcomes.values()):
                return list(outcomes.values())
            self.world.run(0.5)
            self._collect(outcomes)
        raise AssertionError("a lookup did not end in five minutes")

    def _collect(self, outcomes: dict[tuple[Endpoint, int], Outcome]) -> None:
        for endpoint in {endpoint for endpoint, _ in outcomes}:
            for event in self.honest[endpoint].events():
                if not isinstance(event, PeersFound | PeersLookupEnded):
                    continue
                outcome = outcomes[endpoint, event.request_id]
                if isinstance(event, PeersFound):
                    outcome.peers.update(event.peers)
                else:
                    outcome.end = event
                    outcome.ended_at = self.world.now
