"""
Thousands of DHT nodes on a virtual clock, in plain Python.

A heap of deliveries and timers; no event loop, since 5,000 nodes exchange millions of
datagrams. Chance comes from one seed. Who is hostile answers as an attacker would; how,
is in ``Hostile``.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from bittern.codec.bencode import Value
from bittern.core.endpoint import Endpoint
from bittern.dht.address import Reach, format_packed, pack_host, reach_of
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
