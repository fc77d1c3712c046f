"""
Peer exchange bookkeeping: whom a peer already knows of, and how often it may speak.

Sources: BEP 11; threats.md H8.
"""

from __future__ import annotations

from collections.abc import Mapping
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


class PexState:
    """What one peer was told and what it has sent."""

    __slots__ = ("_read_at", "_received", "_sent_at", "_told")

    def __init__(self) -> None:
        self._told: dict[Endpoint, PexFlag] = {}
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

    def next_message(self, current: Mapping[Endpoint, PexFlag], *, now: float) -> PexMessage | None:
        """
        Return what to tell the peer now.

        Args:
            current: endpoints that we are connected to, but for the peer itself.
            now: monotonic seconds.

        Returns:
            None when it is too soon or there is nothing new; at most 50 added and
            50 dropped peers, the rest comes next time.
        """
        if now - self._sent_at < SEND_INTERVAL:
            return None
        added = tuple(
            islice(((e, f) for e, f in current.items() if e not in self._told), MAX_PEX_PEERS)
        )
        dropped = tuple(islice((e for e in self._told if e not in current), MAX_PEX_PEERS))
        if not added and not dropped:
            return None
        self._sent_at = now
        self._told.update(added)
        for endpoint in dropped:
            del self._told[endpoint]
        return PexMessage(added, dropped)
