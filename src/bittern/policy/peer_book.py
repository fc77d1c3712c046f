"""
The endpoints known of one torrent, how each has behaved, and who has to go when it is full.

Room is found by dropping endpoints that failed, and untried ones for those of a
more trustworthy source; by whoever seeds also seeds, which it never dials: they would
not fail, and in time there would be nobody else. Else what was useful stays, and in any
case what is active or comes from the user.

Invariants: at most ``limit`` endpoints are listed; one exchange partner has named
at most a tenth of them.

Source: threats.md H8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, unique

from bittern.core.endpoint import Endpoint

SHARE_OF_ONE_PEER = 10
"""Limit: H8. One exchange partner names at most the tenth part of all endpoints."""

_EVICTED_AT_ONCE = 20
"""Part of the list that goes when room is needed, so that a flood does not sort it each time."""


@unique
class Source(StrEnum):
    """Where an endpoint was named, the most trustworthy first."""

    USER = "user"
    LSD = "lsd"
    ZEROCONF = "zeroconf"
    LINK = "link"
    RESUME = "resume"
    TRACKER = "tracker"
    INCOMING = "incoming"
    DHT = "dht"
    PEX = "pex"


NEIGHBOURS = frozenset({Source.LSD, Source.ZEROCONF})
"""Sources of the local network; those they name say so over and over."""

_TRUST = {source: rank for rank, source in enumerate(Source)}


@dataclass(slots=True, eq=False)
class Candidate:
    """One endpoint of the book."""

    endpoint: Endpoint
    source: Source
    address: str
    """What counts as one address, for limits."""
    named_by: str | None
    """The address of the exchange partner that named it first."""
    priority: int
    """The higher the better (BEP 40)."""
    is_active: bool = False
    """It is being dialled or connected."""
    is_seed: bool = False
    was_useful: bool = False
    """A connection to it has lasted."""
    failures: int = 0
    """Since the last connection that lasted."""
    reason: str = ""
    """Of the last failure, for people."""
    connected_at: float | None = None
    next_at: float | None = None
    """When it may be dialled next; None while that depends on something else."""
    ticket: int = 0
    """Belongs to the ``DialQueue``."""

    @property
    def rank(self) -> tuple[int, int, int]:
        """The lower the sooner it is dialled."""
        is_close = self.source is Source.USER or self.source in NEIGHBOURS
        is_common = not (self.was_useful or is_close)
        return self.failures, int(is_common), -self.priority


class PeerBook:
    """
    The list described in the module's text.

    Args:
        limit: endpoints kept.
        removed: hears of every candidate that is dropped.
    """

    __slots__ = ("_full_for", "_is_seeding", "_limit", "_named_by", "_removed", "entries")

    def __init__(self, limit: int, removed: Callable[[Candidate], None]) -> None:
        self.entries: dict[Endpoint, Candidate] = {}
        """For reading."""
        self._limit = limit
        self._is_seeding = False
        self._removed = removed
        self._named_by: Counter[str] = Counter()
        self._full_for = len(_TRUST)
        """Sources of this trust or less found no room when it was last searched for."""

    @property
    def limit(self) -> int:
        """Endpoints kept; assigning less drops the worst."""
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        self._limit = value
        self._full_for = len(_TRUST)
        for entry in self._worst_first()[: max(0, len(self.entries) - value)]:
            self.remove(entry)

    @property
    def is_seeding(self) -> bool:
        """Whether we need nothing, so that seeds are of no use."""
        return self._is_seeding

    @is_seeding.setter
    def is_seeding(self, value: bool) -> None:
        self._is_seeding = value
        self.changed()

    def has_share(self, named_by: str | None) -> bool:
        """Tell whether an exchange partner may name one more; None stands for other sources."""
        return named_by is None or self._named_by[named_by] < self._limit // SHARE_OF_ONE_PEER

    def has_room(self, source: Source) -> bool:
        """Tell whether one more may be inserted, and drop others for it if need be."""
        return len(self.entries) < self._limit or self._evict(_TRUST[source])

    def insert(self, entry: Candidate) -> None:
        """List an endpoint that is not listed yet; only after ``has_room`` said yes."""
        self.entries[entry.endpoint] = entry
        if entry.named_by is not None:
            self._named_by[entry.named_by] += 1

    def remove(self, entry: Candidate) -> None:
        """Forget a listed endpoint."""
        del self.entries[entry.endpoint]
        self._full_for = len(_TRUST)
        if entry.named_by is not None:
            self._named_by[entry.named_by] -= 1
            if not self._named_by[entry.named_by]:
                del self._named_by[entry.named_by]
        self._removed(entry)

    def changed(self) -> None:
        """Note that an endpoint has failed, is idle or a seed now, so that it may have to go."""
        self._full_for = len(_TRUST)

    def _worst_first(self) -> list[Candidate]:
        idle = [e for e in self.entries.values() if not e.is_active and e.source != Source.USER]
        idle.sort(key=lambda e: (e.failures, not e.was_useful, _TRUST[e.source]), reverse=True)
        return idle

    def _evict(self, trust: int) -> bool:
        if trust >= self._full_for:
            return False
        victims = [
            e
            for e in self._worst_first()
            if e.failures
            or (e.is_seed and self._is_seeding)
            or (not e.was_useful and _TRUST[e.source] > trust)
        ]
        if not victims:
            self._full_for = trust
            return False
        for entry in victims[: self._limit // _EVICTED_AT_ONCE + 1]:
            self.remove(entry)
        return True
