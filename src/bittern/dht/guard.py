"""
Who gets an answer, and how long it may be.

UDP sources can be forged, so a node that answers at length is a weapon. An address is
proven once it has echoed one of our transaction ids or tokens; before that it gets at
most four times what it sent. Every address has a rate, and so has the whole node; of
IPv6 every public /64 has one, since a subscriber owns all of that.

Invariant: memory is bounded however many sources are forged: two generations of
``MAX_SOURCES``, the older dropped as a whole. Forged sources cannot push out proofs,
which only real addresses get.

Limit: N1.
"""

from __future__ import annotations

import math

from bittern.dht.address import (
    PACKED_LENGTH_V6,
    Reach,
    is_loopback,
    network_of,
    pack_host,
    reach_of,
)
from bittern.dht.limits import (
    MAX_ANSWER_LENGTH,
    MAX_SOURCES,
    MAX_STRANGER_FACTOR,
    PROOF_LIFETIME,
    QUERY_BURST,
)

_BURST_SECONDS = 1.0


def _is_shared(packed: bytes) -> bool:
    """Tell whether an address has its rate in common with its network; in a LAN it has not."""
    return len(packed) == PACKED_LENGTH_V6 and reach_of(packed) is Reach.PUBLIC


class Allowance:
    """
    Answers that may be had, by one address or by all of a /64.

    Attributes:
        level: queries that would be answered at ``updated_at``.
        updated_at: monotonic seconds.
    """

    __slots__ = ("level", "updated_at")

    def __init__(self, level: float, now: float) -> None:
        self.level = level
        self.updated_at = now


class Source:
    """
    What is known of one address.

    Attributes:
        packed: the address, 4 or 16 bytes.
        network: its /24 or /64.
        is_loopback: nobody outside this machine can have sent from it, and many nodes may
            share it, so it has no rate of its own.
        allowance: its own, or that of its network.
        proven_until: instant up to which the address counts as its own.
        token: entry of an answer with its write token, good until ``token_until``.
    """

    __slots__ = (
        "allowance",
        "is_loopback",
        "network",
        "packed",
        "proven_until",
        "token",
        "token_until",
    )

    def __init__(self, packed: bytes, network: bytes, allowance: Allowance) -> None:
        self.packed = packed
        self.network = network
        self.is_loopback = is_loopback(packed)
        self.allowance = allowance
        self.proven_until = -math.inf
        self.token = b""
        self.token_until = -math.inf


class Guard:
    """
    Rates and proofs of all addresses.

    Args:
        upload_rate: bytes a second for everything the node sends.
        query_rate: answers a second for one address, or one /64.
        now: monotonic seconds.
    """

    def __init__(self, *, upload_rate: float, query_rate: float, now: float) -> None:
        self._upload_rate = upload_rate
        self._query_rate = query_rate
        self._burst = query_rate * QUERY_BURST
        self._budget = upload_rate * _BURST_SECONDS
        self._updated_at = now
        self._sources: dict[str, Source] = {}
        self._old_sources: dict[str, Source] = {}
        self._allowances: dict[bytes, Allowance] = {}
        """Those of networks of IPv6 that have an address in ``_sources``."""
        self._proofs: dict[str, float] = {}
        self._old_proofs: dict[str, float] = {}

    def source(self, host: str, *, now: float) -> Source:
        """Return what is known of an address in text form; ValueError if it is none."""
        found = self._sources.get(host)
        if found is not None:
            return found
        found = self._old_sources.get(host)
        if found is None:
            found = self._make_source(pack_host(host), now)
            found.proven_until = self._proofs.get(host) or self._old_proofs.get(host, -math.inf)
        if len(self._sources) >= MAX_SOURCES:
            self._old_sources, self._sources = self._sources, {}
            self._allowances = {}
        self._sources[host] = found
        if _is_shared(found.packed):
            self._allowances.setdefault(found.network, found.allowance)
        return found

    def _make_source(self, packed: bytes, now: float) -> Source:
        network = network_of(packed)
        allowance = self._allowances.get(network) if _is_shared(packed) else None
        return Source(packed, network, allowance or Allowance(self._burst, now))

    def admits(self, source: Source, *, now: float) -> bool:
        """Take one query of ``source`` into account; False when it is not to be answered."""
        elapsed = now - self._updated_at
        if elapsed > 0:
            rate = self._upload_rate
            self._budget = min(rate * _BURST_SECONDS, self._budget + elapsed * rate)
            self._updated_at = now
        if self._budget <= 0:
            return False
        if source.is_loopback:
            return True
        allowance = source.allowance
        level = allowance.level + (now - allowance.updated_at) * self._query_rate
        allowance.updated_at = now
        if level < 1:
            allowance.level = level
            return False
        allowance.level = min(level, self._burst) - 1
        return True

    def admit(self, host: str, *, now: float) -> Source | None:
        """Take one query from an address into account; None when it is not to be answered."""
        source = self._sources.get(host)
        if source is None:
            source = self.source(host, now=now)
        elif source.is_loopback and now == self._updated_at:
            return source if self._budget > 0 else None
        return source if self.admits(source, now=now) else None

    def spend(self, length: int) -> None:
        """Count bytes that were sent, answers and queries alike."""
        self._budget -= length

    def max_answer(self, source: Source, query_length: int, *, now: float) -> int:
        """Return how long an answer to a query of that length may be."""
        if now < source.proven_until:
            return MAX_ANSWER_LENGTH
        return min(MAX_ANSWER_LENGTH, query_length * MAX_STRANGER_FACTOR)

    def prove(self, host: str, *, now: float) -> None:
        """Note that an address echoed something that only it can have received."""
        until = now + PROOF_LIFETIME
        if host not in self._proofs and len(self._proofs) >= MAX_SOURCES:
            self._old_proofs, self._proofs = self._proofs, {}
        self._proofs[host] = until
        found = self._sources.get(host) or self._old_sources.get(host)
        if found is not None:
            found.proven_until = until
