"""
What HTTP and UDP have in common: who may announce, what they are told.

Obeys the rules of level 2: no I/O, ``now`` is passed in. The shells turn bytes into a
call of ``announce`` or ``scrape`` and the result into bytes.

Limits: T2 (announces per source), T3 (numbers of peers and hashes), T4 (ports).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container
from typing import TypeAlias

from bittern.core.announce import Event
from bittern.core.errors import TrackerFailure
from bittern.tracker.swarm import LOOPBACK, Counts, Selection, SwarmTable, scope_of

DEFAULT_INTERVAL = 1_800
"""Seconds between announces that we ask for."""
DEFAULT_NUM_WANT = 50
"""Peers for those who do not say how many."""
MAX_NUM_WANT = 200
"""Limit: T3."""
MAX_SCRAPE_HASHES = 74
"""Limit: T3."""
MAX_SOURCE_RATE = 20_000
"""Limit: T2. Requests a minute from one IPv4 /24 or IPv6 /64; loopback is exempt."""
MAX_SOURCES = 65_536
"""Sources that are counted; while there are more, new ones are not."""
_LIFETIME_FACTOR = 1.5
"""A peer may miss half an interval before it is forgotten (T2: 45 min of 30)."""

Refused: TypeAlias = Callable[[str, str], None]
"""Hears whom a listener refused, an address, and why."""


def tell_nobody(_host: str, _reason: str) -> None:
    """Stand where nobody wants to hear of refusals."""


class Desk:
    """
    One tracker's rules over its table of swarms.

    Args:
        rng: for selections.
        interval: seconds between announces that we ask for.
        min_interval: seconds before which we want none.
        allowed: info hashes that are served; None for all.
        table: instead of a table made to fit ``interval``.
        max_source_rate: see ``MAX_SOURCE_RATE``.

    Attributes:
        num_announces, num_scrapes, num_refused: since the start.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        interval: int = DEFAULT_INTERVAL,
        min_interval: int = 60,
        allowed: Container[bytes] | None = None,
        table: SwarmTable | None = None,
        max_source_rate: int = MAX_SOURCE_RATE,
    ) -> None:
        lifetime = int(interval * _LIFETIME_FACTOR)
        self.table: SwarmTable = SwarmTable(rng, peer_lifetime=lifetime) if table is None else table
        self.interval = interval
        self.min_interval: int = min(min_interval, interval)
        self.num_announces: int = 0
        self.num_scrapes: int = 0
        self.num_refused: int = 0
        self._allowed = allowed
        self._max_source_rate = max_source_rate
        self._sources: dict[bytes, int] = {}
        self._minute = -1

    def announce(
        self,
        info_hash: bytes,
        address: bytes,
        port: int,
        *,
        left: int,
        event: Event,
        num_want: int | None,
        now: float,
        max_peers: int = MAX_NUM_WANT,
        both_families: bool = False,
    ) -> Selection:
        """
        Answer an announce.

        Args:
            info_hash: 20 bytes.
            address: where the peer is, packed.
            port: where it listens.
            left: bytes it lacks.
            event: why it announces.
            num_want: peers it wants; None for as many as we like.
            now: monotonic seconds.
            max_peers: what the answer has room for.
            both_families: whether it has room for both.

        Raises:
            TrackerFailure: it is refused; the text may be sent to it.
        """
        self._admit(address, now)
        if not 1 <= port <= 65535:
            raise self._refused("port must be in 1..65535")  # Limit: T4
        if self._allowed is not None and info_hash not in self._allowed:
            raise self._refused("torrent not registered with this tracker")
        self.num_announces += 1
        wanted = DEFAULT_NUM_WANT if num_want is None else num_want
        return self.table.announce(
            info_hash,
            address + port.to_bytes(2, "big"),
            left=left,
            event=event,
            num_want=min(wanted, max_peers, MAX_NUM_WANT),
            now=now,
            both_families=both_families,
        )

    def scrape(
        self, info_hashes: list[bytes], address: bytes, *, now: float
    ) -> list[tuple[bytes, Counts]]:
        """
        Answer a scrape, swarms in the order asked for; those not served have no peers.

        Raises:
            TrackerFailure: it is refused.
        """
        self._admit(address, now)
        if not info_hashes:
            raise self._refused("a full scrape is not available")
        if len(info_hashes) > MAX_SCRAPE_HASHES:
            raise self._refused(f"more than {MAX_SCRAPE_HASHES} info hashes")
        self.num_scrapes += 1
        scope = scope_of(address)
        return [(key, self.table.scrape(key, scope=scope)) for key in info_hashes]

    def expire(self, *, now: float) -> None:
        """Forget what is old; call it every few seconds."""
        self.table.expire(now=now)

    def _refused(self, reason: str) -> TrackerFailure:
        self.num_refused += 1
        return TrackerFailure(reason)

    def _admit(self, address: bytes, now: float) -> None:
        """Count a request of its source, and refuse it when there are too many."""
        minute = int(now // 60)
        if minute != self._minute:
            self._minute = minute
            self._sources = {}
        source = address[:8] if len(address) == 16 else address[:3]
        count = self._sources.get(source, 0)
        if count < self._max_source_rate:
            if count or len(self._sources) < MAX_SOURCES:
                self._sources[source] = count + 1
        elif scope_of(address) != LOOPBACK:
            self.num_refused += 1
            raise TrackerFailure("too many requests from your network", retry_after=60)
