"""
Peers that others announced to us.

One store holds one address family. A torrent's peers lie end to end in the form in
which answers carry them (``6:`` and 6 bytes, or ``18:`` and 18), so that an answer is a
slice and a peer costs 13 bytes. An address is there once per torrent (BEP 33), with its
last port.

When a torrent, or the store, is full, somebody has to go: a few entries are drawn at
random and the one from the most crowded network goes, so that one network cannot
displace all others, however much it announces (``fairness``; Limit: N3).

Sources: BEP 5 (storage), BEP 33 (filters), BEP 51 (samples).
"""

from __future__ import annotations

import random
from array import array

from bittern.codec.krpc_message import NODE_ID_LENGTH
from bittern.dht.address import network_of
from bittern.dht.bloom import make_filter
from bittern.dht.fairness import FairSet
from bittern.dht.limits import (
    EVICTION_SAMPLE,
    FILTER_INTERVAL,
    MAX_PEERS,
    MAX_SAMPLES,
    MAX_TORRENTS,
    PEER_LIFETIME,
    SAMPLE_INTERVAL,
)


class _Torrent:
    """
    The peers of one torrent.

    Attributes:
        values: records of equal length, an answer's ``values`` without the list around.
        seen: instant of each announce, whole seconds since the store was made.
        seeds: 1 for each peer that is a seed, else 0.
        oldest: not above any of ``seen``.
        filters: bloom filters of seeds and of others, as of ``filtered_at``.
    """

    __slots__ = ("filtered_at", "filters", "oldest", "seeds", "seen", "values")

    def __init__(self, now: int) -> None:
        self.values = bytearray()
        self.seen = array("I")
        self.seeds = bytearray()
        self.oldest = now
        self.filters: tuple[bytes, bytes] | None = None
        self.filtered_at = 0.0


class PeerStore:
    """
    Torrents and their announced peers, of one address family.

    Args:
        rng: source of chance.
        is_ipv6: the family.
        now: monotonic seconds.
        max_torrents: Limit: N3.
        max_peers: of one torrent, Limit: N3.
    """

    def __init__(
        self,
        *,
        rng: random.Random,
        is_ipv6: bool,
        now: float,
        max_torrents: int = MAX_TORRENTS,
        max_peers: int = MAX_PEERS,
    ) -> None:
        self.num_peers = 0
        self._rng = rng
        self._began_at = now
        self._max_torrents = max_torrents
        self._max_peers = max_peers
        self._prefix = b"18:" if is_ipv6 else b"6:"
        self._size = 21 if is_ipv6 else 8
        self._torrents: dict[bytes, _Torrent] = {}
        self._fair = FairSet(rng=rng)
        self._sample = b""
        self._sampled_at = -float(SAMPLE_INTERVAL)

    def __repr__(self) -> str:
        return f"<PeerStore {len(self._torrents)} torrents, {self.num_peers} peers>"

    def __contains__(self, info_hash: bytes) -> bool:
        return info_hash in self._torrents

    @property
    def num_torrents(self) -> int:
        """Torrents with at least one peer."""
        return len(self._torrents)

    # --- announcing --------------------------------------------------------------------------

    def add(self, info_hash: bytes, compact: bytes, *, is_seed: bool, now: float) -> None:
        """
        Note an announce.

        Args:
            info_hash: 20 bytes.
            compact: the peer's endpoint, of this store's family.
            is_seed: whether it says that it is a seed.
            now: monotonic seconds.
        """
        instant = int(now - self._began_at)
        torrent = self._torrents.get(info_hash)
        if torrent is None:
            torrent = self._add_torrent(info_hash, network_of(compact[:-2]), instant)
        index = self._find(torrent, compact)
        if index < 0:
            if len(torrent.seen) >= self._max_peers:
                self._drop_peer(torrent, self._choose_peer(torrent, network_of(compact[:-2])))
            index = len(torrent.seen)
            torrent.values += self._prefix + compact
            torrent.seen.append(instant)
            torrent.seeds.append(is_seed)
            self.num_peers += 1
            return
        size = self._size
        torrent.values[(index + 1) * size - 2 : (index + 1) * size] = compact[-2:]
        torrent.seen[index] = instant
        torrent.seeds[index] = is_seed

    def _find(self, torrent: _Torrent, compact: bytes) -> int:
        """Return the index of the peer with that address, whatever its port, or -1."""
        wanted = self._prefix + compact[:-2]
        at = torrent.values.find(wanted)
        while at >= 0 and at % self._size:
            at = torrent.values.find(wanted, at + 1)
        return at // self._size if at >= 0 else -1

    def _add_torrent(self, info_hash: bytes, network: bytes, instant: int) -> _Torrent:
        if len(self._torrents) >= self._max_torrents:
            self._drop_torrent(self._fair.choose_victim(network, worth=self._worth))
        self._fair.add(info_hash, network)
        torrent = self._torrents[info_hash] = _Torrent(instant)
        return torrent

    def _worth(self, info_hash: bytes) -> float:
        return len(self._torrents[info_hash].seen)

    def _choose_peer(self, torrent: _Torrent, newcomer: bytes) -> int:
        """Return the index of the peer that makes room for one from ``newcomer``."""
        num_peers = len(torrent.seen)
        drawn = [self._rng.randrange(num_peers) for _ in range(EVICTION_SAMPLE)]
        shares = {index: torrent.values.count(self._network_key(torrent, index)) for index in drawn}
        worst = max(drawn, key=shares.__getitem__)
        own_key = self._prefix + newcomer
        if torrent.values.count(own_key) <= shares[worst]:
            return worst
        at = torrent.values.find(own_key)
        return at // self._size

    def _network_key(self, torrent: _Torrent, index: int) -> bytes:
        start = index * self._size
        length = len(self._prefix)
        packed = bytes(torrent.values[start + length : start + self._size - 2])
        return self._prefix + network_of(packed)

    def _drop_peer(self, torrent: _Torrent, index: int) -> None:
        """Remove a peer; the last one takes its place."""
        size = self._size
        last = len(torrent.seen) - 1
        if index != last:
            torrent.values[index * size : (index + 1) * size] = torrent.values[last * size :]
            torrent.seen[index] = torrent.seen[last]
            torrent.seeds[index] = torrent.seeds[last]
        del torrent.values[last * size :], torrent.seen[last], torrent.seeds[last]
        self.num_peers -= 1

    def _drop_torrent(self, info_hash: bytes) -> None:
        self.num_peers -= len(self._torrents.pop(info_hash).seen)
        self._fair.remove(info_hash)

    # --- asking ------------------------------------------------------------------------------

    def values(self, info_hash: bytes, count: int, *, noseed: bool = False) -> bytes:
        """
        Return up to ``count`` peers in bencoded form, end to end.

        Where there are more, the run starts at a random place. ``noseed`` leaves seeds
        out while there are others (BEP 33).
        """
        torrent = self._torrents.get(info_hash)
        if torrent is None or count <= 0:
            return b""
        size = self._size
        num_peers = len(torrent.seen)
        if noseed and 1 in torrent.seeds and 0 in torrent.seeds:
            indices = [index for index in range(num_peers) if not torrent.seeds[index]]
            chosen = self._rng.sample(indices, min(count, len(indices)))
            return b"".join(torrent.values[at * size : (at + 1) * size] for at in chosen)
        if num_peers <= count:
            return bytes(torrent.values)
        start = int(self._rng.random() * num_peers)
        run = torrent.values[start * size : (start + count) * size]
        if start + count > num_peers:
            run += torrent.values[: (start + count - num_peers) * size]
        return bytes(run)

    def filters(self, info_hash: bytes, *, now: float) -> tuple[bytes, bytes] | None:
        """Return the bloom filters of seeds and of other peers, or None without peers."""
        torrent = self._torrents.get(info_hash)
        if torrent is None:
            return None
        if torrent.filters is None or now - torrent.filtered_at >= FILTER_INTERVAL:
            kinds: tuple[list[bytes], list[bytes]] = ([], [])
            start, size = len(self._prefix), self._size
            for index, is_seed in enumerate(torrent.seeds):
                at = index * size
                kinds[0 if is_seed else 1].append(bytes(torrent.values[at + start : at + size - 2]))
            torrent.filters = (make_filter(kinds[0]), make_filter(kinds[1]))
            torrent.filtered_at = now
        return torrent.filters

    def sample(self, *, now: float) -> bytes:
        """Return up to 20 info hashes end to end, the same ones for half an hour (BEP 51)."""
        count = min(MAX_SAMPLES, len(self._torrents))
        is_short = len(self._sample) < NODE_ID_LENGTH * count
        if is_short or now - self._sampled_at >= SAMPLE_INTERVAL:
            self._sample = b"".join(self._fair.sample(count))
            self._sampled_at = now
        return self._sample

    # --- time --------------------------------------------------------------------------------

    def expire(self, *, now: float) -> None:
        """Drop peers that have not announced for half an hour, and torrents without peers."""
        limit = int(now - self._began_at - PEER_LIFETIME)
        for info_hash in list(self._torrents):
            torrent = self._torrents[info_hash]
            if torrent.oldest >= limit:
                continue
            for index in range(len(torrent.seen) - 1, -1, -1):
                if torrent.seen[index] < limit:
                    self._drop_peer(torrent, index)
            if torrent.seen:
                torrent.oldest = min(torrent.seen)
            else:
                self._drop_torrent(info_hash)
