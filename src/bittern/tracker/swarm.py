"""
Who is in which swarm: peers packed into arrays, counts, expiry, selection.

A tracker holds millions of peers, so a peer is no object: see ``tracker.pool``. A pool
holds the peers of one torrent, one address family and one scope.

The *scope* of an address is public, private or loopback. Peers of a narrower scope
are not shown to those of a wider one, who could not reach them (Limit: T4).

Torrents are kept in order of their last announce (to within ``REORDER_GAP``), so that
the oldest are found without a search. All limits drop the oldest instead of growing
(Limit: T2); seeds are not given to seeds.

Times are whole seconds from the table's first ``now``. No I/O; chance is injected.

Sources: BEP 3, BEP 7, BEP 23, BEP 48.
"""

from __future__ import annotations

import random
from itertools import islice
from typing import NamedTuple

from bittern.core.announce import Event
from bittern.tracker.pool import Pool

MAX_TORRENTS = 2_000_000
"""Limit: T2. Pools, to be exact: a torrent with IPv4 and IPv6 peers counts twice."""
MAX_PEERS_PER_TORRENT = 100_000
"""Limit: T2. Peers of one pool."""
PEER_LIFETIME = 2_700
"""Limit: T2. Seconds without an announce after which a peer is forgotten."""
REORDER_GAP = 300
"""Seconds between two moves of a torrent to the end of the order."""
MAX_EXPIRED = 10_000
"""Torrents looked at by one ``expire``."""

PUBLIC, PRIVATE, LOOPBACK = 0, 1, 2
_LOOPBACK_V6 = bytes(15) + b"\x01"


class Selection(NamedTuple):
    """Answer to an announce: counts of what the peer can reach, and packed peers."""

    num_seeds: int
    num_leechers: int
    num_downloaded: int
    peers: bytes
    """IPv4, 6 bytes each."""
    peers6: bytes
    """IPv6, 18 bytes each."""


class Counts(NamedTuple):
    """Answer to a scrape."""

    num_seeds: int
    num_downloaded: int
    num_leechers: int


def scope_of(peer: bytes) -> int:
    """Return the scope of a packed address, with or without a port behind it."""
    first, second = peer[0], peer[1]
    if len(peer) >= 16:
        if first & 0xFE == 0xFC or (first == 0xFE and second & 0xC0 == 0x80):
            return PRIVATE
        return LOOPBACK if peer[:16] == _LOOPBACK_V6 else PUBLIC
    if first == 127:
        return LOOPBACK
    if (
        first == 10
        or (first == 192 and second == 168)
        or (first == 172 and second & 0xF0 == 16)
        or (first == 100 and second & 0xC0 == 64)
        or (first == 169 and second == 254)
    ):
        return PRIVATE
    return PUBLIC


class SwarmTable:
    """
    All swarms of a tracker, as described in the module's text.

    Args:
        rng: for places and selections.
        max_torrents, max_peers_per_torrent: the oldest go when there are more.
        peer_lifetime: seconds without an announce.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        max_torrents: int = MAX_TORRENTS,
        max_peers_per_torrent: int = MAX_PEERS_PER_TORRENT,
        peer_lifetime: int = PEER_LIFETIME,
    ) -> None:
        self._rng = rng
        self._max_torrents = max_torrents
        self._max_peers = max_peers_per_torrent
        self._lifetime = peer_lifetime
        self._start: float | None = None
        self._pools: tuple[tuple[dict[bytes, Pool], ...], ...] = (({}, {}, {}), ({}, {}, {}))
        self._num_downloaded: dict[bytes, int] = {}

    def __repr__(self) -> str:
        return f"<SwarmTable {self.num_torrents} torrents>"

    @property
    def num_torrents(self) -> int:
        """How many pools there are: torrents, counted once for each family and scope."""
        return sum(len(pools) for family in self._pools for pools in family)

    @property
    def num_peers(self) -> int:
        """How many peers there are; O(torrents)."""
        return sum(
            len(pool) for family in self._pools for pools in family for pool in pools.values()
        )

    def announce(
        self,
        info_hash: bytes,
        peer: bytes,
        *,
        left: int,
        event: Event,
        num_want: int,
        now: float,
        both_families: bool = False,
    ) -> Selection:
        """
        Take note of a peer and choose others for it.

        Args:
            info_hash: 20 bytes.
            peer: its address and port, 6 or 18 bytes.
            left: bytes it lacks; 0 makes it a seed.
            event: ``STOPPED`` removes it and gets no peers.
            num_want: peers to return at most, the caller's cap included.
            now: monotonic seconds.
            both_families: fill up with peers of the other family (BEP 7).
        """
        time = self._time(now)
        is_ipv6 = len(peer) == 18
        scope = scope_of(peer)
        pools = self._pools[is_ipv6][scope]
        pool = pools.get(info_hash)
        slot = -1 if pool is None else pool.find(peer)
        is_seed = left == 0
        if event is Event.STOPPED:
            if pool is not None and slot >= 0:
                pool.remove(slot)
                self._drop_if_empty(info_hash, pools, pool)
            return self._answer(info_hash, is_ipv6, scope, None, -1, 0, is_seed, both_families)
        if pool is None:
            pool = pools[info_hash] = Pool(len(peer), time)
            if self.num_torrents > self._max_torrents:
                self._evict_torrents()
        elif time >= pool.sweep_at:
            pool.sweep(time - self._lifetime, time)
            slot = pool.find(peer)
        if event is Event.COMPLETED and is_seed and 0 <= slot < pool.num_leechers:
            self._num_downloaded[info_hash] = self._num_downloaded.get(info_hash, 0) + 1
        if slot < 0 and len(pool) >= self._max_peers:
            pool.evict(self._rng)
        slot = pool.put(peer, slot, is_seed=is_seed, now=time, chance=self._rng.random())
        pool.announced_at = time
        if time - pool.ordered_at >= REORDER_GAP:
            pools[info_hash] = pools.pop(info_hash)
            pool.ordered_at = time
        return self._answer(info_hash, is_ipv6, scope, pool, slot, num_want, is_seed, both_families)

    def scrape(self, info_hash: bytes, *, scope: int = PUBLIC) -> Counts:
        """Return the counts of one swarm as far as a peer of that scope can reach it."""
        num_peers = num_leechers = 0
        for family in self._pools:
            for pools in family[: scope + 1]:
                if pools and (pool := pools.get(info_hash)) is not None:
                    num_peers += len(pool)
                    num_leechers += pool.num_leechers
        num_downloaded = self._num_downloaded.get(info_hash, 0)
        return Counts(num_peers - num_leechers, num_downloaded, num_leechers)

    def expire(self, *, now: float) -> None:
        """Forget torrents that nobody announces any more; call it every few seconds."""
        time = self._time(now)
        before = time - self._lifetime
        for family in self._pools:
            for pools in family:
                silent = []
                for info_hash, pool in islice(pools.items(), MAX_EXPIRED):
                    if pool.ordered_at >= before:
                        break
                    if pool.announced_at < before:
                        silent.append(info_hash)
                for info_hash in silent:
                    del pools[info_hash]
                    self._forget_count(info_hash)

    # --- inside ------------------------------------------------------------------------------

    def _time(self, now: float) -> int:
        if self._start is None:
            # So that ``time - lifetime`` is never negative, which the arrays could not hold.
            self._start = now - self._lifetime
        return max(0, int(now - self._start))

    def _answer(
        self,
        info_hash: bytes,
        is_ipv6: bool,
        scope: int,
        own: Pool | None,
        own_slot: int,
        num_want: int,
        is_seed: bool,
        both_families: bool,
    ) -> Selection:
        rng = self._rng
        num_seeds, num_downloaded, num_leechers = self.scrape(info_hash, scope=scope)
        found = [b"", b""]
        for family in (is_ipv6, not is_ipv6) if both_families else (is_ipv6,):
            for nearness in range(scope, -1, -1):
                pool = self._pools[family][nearness].get(info_hash)
                if pool is not None and num_want > 0:
                    slot = own_slot if pool is own else -1
                    peers = pool.select(num_want, slot, is_seed=is_seed, rng=rng)
                    num_want -= len(peers) // (18 if family else 6)
                    found[family] += peers
        return Selection(num_seeds, num_leechers, num_downloaded, found[0], found[1])

    def _drop_if_empty(self, info_hash: bytes, pools: dict[bytes, Pool], pool: Pool) -> None:
        if not len(pool):
            del pools[info_hash]
            self._forget_count(info_hash)

    def _forget_count(self, info_hash: bytes) -> None:
        """Forget a torrent's downloads when its last pool has gone."""
        if info_hash in self._num_downloaded and not any(
            info_hash in pools for family in self._pools for pools in family
        ):
            del self._num_downloaded[info_hash]

    def _evict_torrents(self) -> None:
        """Make room: drop the oldest hundredth of the largest group."""
        pools = max((pools for family in self._pools for pools in family), key=len)
        for info_hash in list(islice(pools, max(1, self._max_torrents // 100))):
            del pools[info_hash]
            self._forget_count(info_hash)
