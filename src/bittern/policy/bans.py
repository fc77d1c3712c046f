"""
Addresses that nothing is exchanged with for a while.

The first ban lasts an hour, each further one twice as long as the one before,
up to a day; a day after the end of a ban its address is as good as new. An
address stands for itself, an IPv6 one for its /64. Several honest peers may
live behind one address, so one that has delivered good pieces is warned once.

Invariant: at most ``max_entries`` addresses are remembered, the oldest go first.

Source: threats.md H4.
"""

from __future__ import annotations

from dataclasses import dataclass

from bittern.core.endpoint import network_of

FIRST_BAN = 3_600.0
"""Limit: H4. Seconds of the first ban."""

LONGEST_BAN = 86_400.0
"""Limit: H4. Seconds of any ban, and of our memory after its end."""

GOOD_PIECES = 8
"""Limit: H4. Good pieces that earn an address one warning before a ban."""

MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Ban:
    """
    An address that nothing is exchanged with now.

    Args:
        address: of IPv4, or the /64 of IPv6.
        until: the instant at which it ends.
        reason: what it did.
    """

    address: str
    until: float
    reason: str


class Bans:
    """
    The banned addresses of a session, or of one torrent.

    Args:
        max_entries: addresses remembered.
    """

    __slots__ = ("_max_entries", "_records")

    def __init__(self, *, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._records: dict[str, tuple[float, float, str]] = {}
        """By address: when its ban ends, how long it is and why; the last one changed is last."""

    def ban(
        self, address: str, *, now: float, num_good_pieces: int = 0, reason: str = ""
    ) -> float | None:
        """
        Ban an address, for longer than the last time.

        Args:
            address: a host, or the network that ``network_of`` makes of it.
            now: monotonic seconds.
            num_good_pieces: verified pieces to which the address has contributed.
            reason: for people.

        Returns:
            The instant at which the ban ends, or None when it was only a warning.
        """
        network = _key(address)
        if len(self._records) >= self._max_entries:
            self._forget(now)
        known = self._records.pop(network, None)
        if known is not None and known[0] + LONGEST_BAN <= now:
            known = None
        if known is None and num_good_pieces >= GOOD_PIECES:
            self._records[network] = (now, 0.0, reason)
            return None
        length = FIRST_BAN if known is None else max(FIRST_BAN, min(2 * known[1], LONGEST_BAN))
        self._records[network] = (now + length, length, reason)
        return now + length

    def banned_until(self, address: str, *, now: float) -> float | None:
        """Return when the ban of an address ends, or None when there is none."""
        if not self._records:
            return None
        record = self._records.get(_key(address))
        return record[0] if record is not None and record[0] > now else None

    def current(self, *, now: float) -> list[Ban]:
        """Return the bans in force, the latest last."""
        return [
            Ban(address, until, reason)
            for address, (until, _, reason) in self._records.items()
            if until > now
        ]

    def _forget(self, now: float) -> None:
        """Drop what is over long since; if that is not enough, the oldest tenth."""
        kept = {key: r for key, r in self._records.items() if r[0] + LONGEST_BAN > now}
        if len(kept) >= self._max_entries:
            for key in list(kept)[: self._max_entries // 10 + 1]:
                del kept[key]
        self._records = kept

    def __len__(self) -> int:
        return len(self._records)


def _key(address: str) -> str:
    return address if "/" in address else network_of(address)
