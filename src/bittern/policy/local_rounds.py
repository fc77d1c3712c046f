"""
When the local network hears of which swarms.

An announce is one datagram on every interface, and there is at most one a minute,
however many torrents there are, so that large networks are not flooded. A swarm is
due at once when it is new, again a minute later, since a datagram may get lost and
interfaces take time to come up, and from then on every five minutes. What is due
goes out in rounds of as many as fit; when that is not enough for all, those that
have waited longest come first and every swarm waits longer.

A swarm costs one entry of a dictionary and no timer.

Invariant: within each stage swarms stand in the order in which they become due.

Source: BEP 14; threats.md N9.
"""

from __future__ import annotations

from bittern.core.ids import InfoHash

MIN_ROUND_INTERVAL = 60.0
"""BEP 14: no more than one announce a minute."""
GATHERING_TIME = 0.5
"""Seconds that a new swarm waits for others, so that they share a datagram."""
_STAGES = (GATHERING_TIME, 60.0, 300.0)
"""Seconds until a swarm is due: when it is new, after its first announce, after later ones."""


class LocalRounds:
    """
    The schedule described in the module's text.

    Args:
        capacity: info hashes in one datagram.
    """

    __slots__ = ("_capacity", "_round_at", "_stages")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._round_at = float("-inf")
        self._stages: tuple[dict[InfoHash, float], ...] = tuple({} for _ in _STAGES)
        """By stage: since when each swarm waits."""

    def add(self, info_hash: InfoHash, *, now: float) -> None:
        """Take in a swarm, or make one that is known due again."""
        self.remove(info_hash)
        self._stages[0][info_hash] = now

    def remove(self, info_hash: InfoHash) -> None:
        """Forget a swarm; nothing happens if it is not known."""
        for stage in self._stages:
            stage.pop(info_hash, None)

    def make_all_due(self, *, now: float) -> None:
        """Begin anew with every swarm, because others may hear us now."""
        known = [info_hash for stage in reversed(self._stages) for info_hash in stage]
        for stage in self._stages:
            stage.clear()
        self._stages[0].update(dict.fromkeys(known, now))

    def take_round(self, *, now: float) -> list[InfoHash]:
        """Return what to announce now, counted as announced; empty when nothing may be."""
        if now < self._round_at + MIN_ROUND_INTERVAL:  # the same sum as in ``next_timer``
            return []
        chosen: list[tuple[int, InfoHash]] = []
        for number, (stage, delay) in enumerate(zip(self._stages, _STAGES, strict=True)):
            for info_hash, since in stage.items():
                if since + delay > now or len(chosen) >= self._capacity:
                    break
                chosen.append((number, info_hash))
        if not chosen:
            return []
        self._round_at = now
        for number, info_hash in chosen:
            del self._stages[number][info_hash]
            self._stages[min(number + 1, len(_STAGES) - 1)][info_hash] = now
        return [info_hash for _, info_hash in chosen]

    def next_timer(self) -> float | None:
        """Return the instant of the next round, or None without swarms."""
        due = [
            next(iter(stage.values())) + delay
            for stage, delay in zip(self._stages, _STAGES, strict=True)
            if stage
        ]
        return max(min(due), self._round_at + MIN_ROUND_INTERVAL) if due else None

    def due_at(self, info_hash: InfoHash) -> float | None:
        """Return from when on a swarm may be announced; None for one that is not known."""
        for stage, delay in zip(self._stages, _STAGES, strict=True):
            if info_hash in stage:
                return max(stage[info_hash] + delay, self._round_at + MIN_ROUND_INTERVAL)
        return None

    def __len__(self) -> int:
        return sum(map(len, self._stages))
