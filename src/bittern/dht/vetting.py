"""
Who of a routing table has yet to be examined, who claimed what, and who has lied.

Bookkeeping for the examinations of ``upkeep``; what is credible is for ``trust`` to say.

Invariant: what is kept of nodes is kept of those in the table only, and suspects are at
most ``MAX_SUSPECTS``, so memory is bounded.

Limit: N2.
"""

from __future__ import annotations

from collections.abc import Callable

from bittern.core.endpoint import Endpoint
from bittern.dht.limits import MAX_SUSPECTS, SUSPICION_LIFETIME


class Vetting:
    """
    The state of all examinations.

    Attributes:
        suspects: compact addresses of nodes that have lied, and until when they are out;
            oldest first.
    """

    def __init__(self) -> None:
        self.suspects: dict[bytes, float] = {}
        self._untested: dict[Endpoint, bytes] = {}
        self._claims: dict[Endpoint, tuple[bytes, int]] = {}

    def __repr__(self) -> str:
        return f"<Vetting, {len(self._untested)} to examine, {len(self.suspects)} suspects>"

    def note_entry(self, node_id: bytes, endpoint: Endpoint) -> None:
        """Note that a node has come into the table, and is to be examined."""
        self._untested[endpoint] = node_id

    def note_exit(self, endpoint: Endpoint) -> None:
        """Forget a node that has left the table."""
        self._untested.pop(endpoint, None)
        self._claims.pop(endpoint, None)

    def take_untested(self) -> tuple[bytes, Endpoint] | None:
        """Return the id and endpoint of a node to examine, each once; None without one."""
        if not self._untested:
            return None
        endpoint = next(iter(self._untested))
        return self._untested.pop(endpoint), endpoint

    def note_claim(self, node_id: bytes, endpoint: Endpoint, size: int) -> None:
        """Note how many nodes the network has by the neighbours that a node of the table named."""
        self._untested.pop(endpoint, None)
        self._claims[endpoint] = node_id, size

    def retest(self, is_credible: Callable[[int], bool]) -> None:
        """Let those be examined again whose claim is no longer credible."""
        for endpoint, (node_id, size) in self._claims.items():
            if not is_credible(size):
                self._untested[endpoint] = node_id

    def suspect(self, compact: bytes, *, now: float) -> None:
        """Let a node into the table no more for 15 minutes; ``compact`` is its address."""
        self.suspects.pop(compact, None)
        if len(self.suspects) >= MAX_SUSPECTS:
            del self.suspects[next(iter(self.suspects))]
        self.suspects[compact] = now + SUSPICION_LIFETIME

    def forgive(self, *, now: float) -> None:
        """Forget lies that are long past."""
        while self.suspects:
            compact, until = next(iter(self.suspects.items()))
            if until > now:
                return
            del self.suspects[compact]
