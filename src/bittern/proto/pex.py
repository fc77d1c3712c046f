"""
Peer exchange bookkeeping: whom a peer already knows of, and how often it may speak.

Sources: BEP 11; threats.md H8.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from itertools import islice

from bittern.codec.extension import MAX_PEX_PEERS, PexFlag, PexMessage
from bittern.core.endpoint import Endpoint
from bittern.core.errors import PeerViolation
from bittern.proto.incoming import WindowCounter

SEND_INTERVAL = 60.0
"""Seconds between two messages to one peer (BEP 11)."""
MIN_RECEIVE_INTERVAL = 45.0
"""Limit: H8. A message that comes sooner after the last is not read."""
MAX_PER_MINUTE = 6
"""Limit: H8. Messages within a minute before the connection is closed."""
MAX_RECENT = 25
"""BEP 11: peers of a family that are remembered after we have parted from them."""
ENOUGH_LIVE = 25
"""BEP 11: with so many connections of a family only those are named."""


class RecentPeers:
    """
    Peers from which we parted for a reason of our own, and that others may want all the same.

    As between seeds, who have nothing for each other: without this a swarm of seeds names nobody.
    Each is named once to every peer, and dropped with the message after.

    Source: BEP 11, "Filling underpopulated lists".
    """

    __slots__ = ("_families", "_number")

    def __init__(self) -> None:
        self._number = 0
        self._families: dict[bool, deque[tuple[int, Endpoint, PexFlag]]] = {}

    def note(self, endpoint: Endpoint, flags: PexFlag) -> None:
        """Remember a peer that was connected; the oldest of its family makes room."""
        self._number += 1
        family = self._families.setdefault(endpoint.is_ipv6, deque(maxlen=MAX_RECENT))
        family.append((self._number, endpoint, flags))

    @property
    def number(self) -> int:
        """How many have been noted so far."""
        return self._number

    def since(self, number: int, live: Mapping[Endpoint, PexFlag]) -> dict[Endpoint, PexFlag]:
        """Return those noted after the first ``number``, of families of which few are ``live``."""
        found: dict[Endpoint, PexFlag] = {}
        for is_ipv6, family in self._families.items():
            if sum(endpoint.is_ipv6 is is_ipv6 for endpoint in live) < ENOUGH_LIVE:
                found.update((e, f) for at, e, f in family if at > number and e not in live)
        return found


class PexState:
    """What one peer was told and what it has sent."""

    __slots__ = ("_num_recent", "_read_at", "_received", "_sent_at", "_told")

    def __init__(self) -> None:
        self._told: dict[Endpoint, PexFlag] = {}
        self._num_recent = 0
        self._sent_at = float("-inf")
        self._read_at = float("-inf")
        self._received = WindowCounter()

    def may_read(self, *, now: float) -> bool:
        """
        Count a message that arrived and tell whether to read it.

        Raises:
            PeerViolation: there are far too many of them.
        """
        if self._received.add(now=now) > MAX_PER_MINUTE:
            raise PeerViolation("floods us with peer exchange")
        if now - self._read_at < MIN_RECEIVE_INTERVAL:
            return False
        self._read_at = now
        return True

    def next_message(
        self,
        current: Mapping[Endpoint, PexFlag],
        *,
        now: float,
        recent: RecentPeers | None = None,
    ) -> PexMessage | None:
        """
        Return what to tell the peer now.

        Args:
            current: endpoints that we are connected to, but for the peer itself.
            now: monotonic seconds.
            recent: those we have parted from, to be named once where there are few others.

        Returns:
            None when it is too soon or there is nothing new; at most 50 added and
            50 dropped peers, the rest comes next time.
        """
        if now - self._sent_at < SEND_INTERVAL:
            return None
        named = dict(current)
        if recent is not None:
            named.update(recent.since(self._num_recent, current))
        added = tuple(
            islice(((e, f) for e, f in named.items() if e not in self._told), MAX_PEX_PEERS)
        )
        dropped = tuple(islice((e for e in self._told if e not in current), MAX_PEX_PEERS))
        if not added and not dropped:
            return None
        self._sent_at = now
        self._num_recent = 0 if recent is None else recent.number
        self._told.update(added)
        for endpoint in dropped:
            del self._told[endpoint]
        return PexMessage(added, dropped)


class ExchangeBook:
    """
    What the connections of one torrent were told of each other; outlives the metadata phase.

    Attributes:
        recent: those we have parted from.
    """

    __slots__ = ("_states", "recent")

    def __init__(self) -> None:
        self.recent: RecentPeers = RecentPeers()
        self._states: dict[Hashable, PexState] = {}

    def state(self, peer: Hashable) -> PexState:
        """Return what there is about a connection."""
        return self._states.setdefault(peer, PexState())

    def forget(self, peer: Hashable) -> None:
        """Drop a connection that is gone."""
        self._states.pop(peer, None)
