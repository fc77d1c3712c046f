"""
The peers of one torrent, packed.

A peer is 6 or 18 bytes of address and port and 4 of time, in two arrays; leechers
stand in front, seeds behind:

    [ leecher ... leecher | seed ... seed ]
      0                     num_leechers   len

New peers go to a random place of their part, whose occupant moves to its end, so each
part is at all times in random order, and a random selection is a window at a random
place: one or two slices instead of hundreds of draws.

Invariant: each peer occurs once; with more than ``INDEX_FROM`` peers an index says where.

Times are whole seconds that fit 32 bits. No I/O; chance is passed in.
"""

from __future__ import annotations

import random
from array import array

SWEEP_GAP = 60
"""Seconds between two searches of a pool for peers to forget."""
INDEX_FROM = 64
"""Peers of a pool from which an index pays; below, searching the bytes is quicker."""
_EVICTION_SAMPLE = 16


class Pool:
    """Peers of one torrent, family and scope; all of ``size`` bytes."""

    __slots__ = (
        "_endpoints",
        "_index",
        "_seen_at",
        "_size",
        "announced_at",
        "num_leechers",
        "ordered_at",
        "sweep_at",
    )

    def __init__(self, size: int, now: int) -> None:
        self._size = size
        self._endpoints = bytearray()
        self._seen_at = array("I")
        self._index: dict[bytes, int] | None = None
        self.num_leechers: int = 0
        self.announced_at: int = now
        self.ordered_at: int = now
        self.sweep_at: int = now + SWEEP_GAP

    def __len__(self) -> int:
        return len(self._seen_at)

    def find(self, peer: bytes) -> int:
        """Return the slot of a packed peer, or -1."""
        if self._index is not None:
            return self._index.get(peer, -1)
        at = self._endpoints.find(peer)
        while at % self._size and at >= 0:  # matched across two peers
            at = self._endpoints.find(peer, at + 1)
        return -1 if at < 0 else at // self._size

    def put(self, peer: bytes, slot: int, *, is_seed: bool, now: int, chance: float) -> int:
        """
        Add or refresh a peer.

        Args:
            peer: packed.
            slot: where ``find`` found it, or -1.
            is_seed: into which part.
            now: seconds.
            chance: 0 <= chance < 1, decides about its place.

        Returns:
            Its slot now.
        """
        if slot >= 0:
            if (slot >= self.num_leechers) == is_seed:
                self._seen_at[slot] = now
                return slot
            self.remove(slot)
        end = len(self._seen_at)
        self._endpoints += peer
        self._seen_at.append(now)
        if is_seed:
            slot = self.num_leechers + int(chance * (end + 1 - self.num_leechers))
        else:
            # The first seed makes room at the end of the leechers.
            self._move(self.num_leechers, end)
            end = self.num_leechers
            self.num_leechers += 1
            slot = int(chance * self.num_leechers)
        self._move(slot, end)
        self._set(slot, peer, now)
        if self._index is None and len(self._seen_at) > INDEX_FROM:
            size = self._size
            self._index = {
                bytes(self._endpoints[i * size : (i + 1) * size]): i
                for i in range(len(self._seen_at))
            }
        return slot

    def remove(self, slot: int) -> None:
        """Remove the peer in ``slot``; others move."""
        if self._index is not None:
            at = slot * self._size
            del self._index[bytes(self._endpoints[at : at + self._size])]
        last = len(self._seen_at) - 1
        if slot < self.num_leechers:
            self.num_leechers -= 1
            self._move(self.num_leechers, slot)
            slot = self.num_leechers
        self._move(last, slot)
        del self._endpoints[last * self._size :]
        self._seen_at.pop()

    def _move(self, source: int, target: int) -> None:
        if source != target:
            at = source * self._size
            peer = bytes(self._endpoints[at : at + self._size])
            self._set(target, peer, self._seen_at[source])

    def _set(self, slot: int, peer: bytes, seen_at: int) -> None:
        at = slot * self._size
        self._endpoints[at : at + self._size] = peer
        self._seen_at[slot] = seen_at
        if self._index is not None:
            self._index[peer] = slot

    def sweep(self, before: int, now: int) -> None:
        """Forget peers that were last seen before an instant."""
        self.sweep_at = now + SWEEP_GAP
        stale = [slot for slot, seen_at in enumerate(self._seen_at) if seen_at < before]
        for slot in reversed(stale):
            self.remove(slot)
        if self._index is not None and len(self._seen_at) < INDEX_FROM // 2:
            self._index = None

    def evict(self, rng: random.Random) -> None:
        """Remove one of the oldest peers: the oldest of a few."""
        slots = [int(rng.random() * len(self._seen_at)) for _ in range(_EVICTION_SAMPLE)]
        self.remove(min(slots, key=self._seen_at.__getitem__))

    def select(self, number: int, own_slot: int, *, is_seed: bool, rng: random.Random) -> bytes:
        """
        Choose peers at random.

        Args:
            number: at most so many, >= 0.
            own_slot: of the peer who asks, left out; -1 if it is not in this pool.
            is_seed: the peer is a seed, and wants none.
            rng: decides.

        Returns:
            Packed peers.
        """
        num_peers, num_leechers = len(self._seen_at), self.num_leechers
        if is_seed:
            return self._window(0, num_leechers, number, own_slot, rng)
        if number >= num_peers:
            from_leechers = num_leechers
        else:  # both parts in proportion, rounded at random
            from_leechers = int(number * num_leechers / num_peers + rng.random())
        leechers = self._window(0, num_leechers, from_leechers, own_slot, rng)
        left = number - len(leechers) // self._size
        return leechers + self._window(num_leechers, num_peers, left, own_slot, rng)

    def _window(
        self, start: int, end: int, number: int, own_slot: int, rng: random.Random
    ) -> bytes:
        """Return ``number`` peers of the slots from ``start`` to ``end``, wrapping around."""
        length = end - start
        is_among_them = start <= own_slot < end
        number = min(number, length - is_among_them)
        if number <= 0:
            return b""
        offset = int(rng.random() * (length - is_among_them))
        first, place = offset, number
        if is_among_them:
            # Counted from the slot behind our own, so that it cannot favour its neighbour.
            first = (own_slot - start + 1 + offset) % length
            place = length - 1 - offset
        size, endpoints = self._size, self._endpoints
        last = first + number + (place < number)
        found = bytes(endpoints[(start + first) * size : (start + min(last, length)) * size])
        if last > length:
            found += endpoints[start * size : (start + last - length) * size]
        if place < number:
            return found[: place * size] + found[(place + 1) * size :]
        return found
