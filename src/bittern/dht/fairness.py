"""
Who has to go when a store is full.

Every entry belongs to the network (/24 or /64) that brought it. To make room, a few
entries are drawn at random and the one from the most crowded network goes; a newcomer
from a network that is more crowded than all drawn ones displaces one of its own. So a
single network cannot push out the others, however much it stores, and while networks
are equal the choice is random.

Limit: N3.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from bittern.dht.limits import EVICTION_SAMPLE


class FairSet:
    """
    Keys with the network that each belongs to.

    Args:
        rng: source of chance.

    Invariant: ``_order[_entries[key][0]] == key`` for every key.
    """

    def __init__(self, *, rng: random.Random) -> None:
        self._rng = rng
        self._entries: dict[bytes, tuple[int, bytes]] = {}
        self._order: list[bytes] = []
        self._shares: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, key: bytes, network: bytes) -> None:
        """Add a key that is not there yet."""
        self._entries[key] = (len(self._order), network)
        self._order.append(key)
        self._shares[network] += 1

    def remove(self, key: bytes) -> None:
        """Remove a key that is there."""
        place, network = self._entries.pop(key)
        last = self._order.pop()
        if last != key:
            self._order[place] = last
            self._entries[last] = (place, self._entries[last][1])
        self._shares[network] -= 1
        if not self._shares[network]:
            del self._shares[network]

    def sample(self, count: int) -> list[bytes]:
        """Return ``count`` keys drawn at random, or all."""
        return self._rng.sample(self._order, min(count, len(self._order)))

    def choose_victim(
        self, newcomer: bytes, *, worth: Callable[[bytes], float] | None = None
    ) -> bytes:
        """
        Return the key that should make room; there must be one.

        Args:
            newcomer: network of what comes instead.
            worth: how much a key is worth, above 0; 1 for all when None.
        """

        def burden(key: bytes) -> float:
            share = self._shares[self._entries[key][1]]
            return share if worth is None else share / worth(key)

        drawn = [self._rng.choice(self._order) for _ in range(EVICTION_SAMPLE)]
        worst = max(drawn, key=burden)
        if self._shares[newcomer] <= self._shares[self._entries[worst][1]]:
            return worst
        return next(key for key in self._order if self._entries[key][1] == newcomer)
