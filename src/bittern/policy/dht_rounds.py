"""
When each torrent is looked up in the DHT: one queue for all torrents of a session.

A torrent is announced when it joins and every quarter of an hour from then on, since
nodes forget a peer after half an hour. One that lacks peers is looked up more often in
between, with growing waits; a lookup finds peers without storing anything. What is due
is handed out as long as there is room, longest overdue first, so that ten thousand
torrents take turns instead of asking at once.

Whether a torrent lacks peers is asked when its turn comes: nothing is kept up to date
for torrents that are at rest.

Sources: BEP 5 (get_peers, announce_peer).
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

ANNOUNCE_INTERVAL = 900.0
"""Seconds; nodes keep a peer for 30 minutes, and one announce may get lost."""
SPREAD = 0.1
"""An announce comes up to this part of the interval earlier, so that they do not bunch."""
MIN_WAIT = 30.0
"""First wait between lookups of a torrent that lacks peers; doubled from then on."""
IDLE_WAIT = 60.0
"""Wait before it is asked again whether a torrent lacks peers."""
EMPTY_WAIT = 5.0
"""Wait after a lookup that knew no node to ask: it cost nothing."""
MAX_ACTIVE = 8
"""Torrents that are looked up at once; a node works on 16 lookups, a hybrid torrent is two."""

PACE = 0.2
"""
Limit: N1. Seconds between two beginnings. In a small network every torrent is kept by the
same few nodes, which answer five queries a second of ours.
"""

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(slots=True, eq=False)
class _Turn(Generic[_Key]):
    """Where one torrent stands; ``next_at`` is inf while it is looked up."""

    key: _Key | None
    """None once its torrent is gone: the queue keeps the turn until its instant comes."""
    next_at: float
    announce_at: float
    asked_at: float = -math.inf
    wait: float = MIN_WAIT


class DhtRounds(Generic[_Key]):
    """
    The queue described in the module's text.

    Args:
        rng: source of chance.
        lacks_peers: tells whether a torrent should be looked up although its announce is
            not due.
    """

    def __init__(self, rng: random.Random, lacks_peers: Callable[[_Key], bool]) -> None:
        self._rng = rng
        self._lacks_peers = lacks_peers
        self._turns: dict[_Key, _Turn[_Key]] = {}
        self._queue: list[tuple[float, int, _Turn[_Key]]] = []
        self._numbers = itertools.count()
        self._num_active = 0
        self._paced_at = -math.inf

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, key: _Key, *, now: float) -> None:
        """Take a torrent; its first announce is due at once."""
        turn = self._turns[key] = _Turn(key, now, now)
        self._enqueue(turn)

    def remove(self, key: _Key) -> None:
        """Forget a torrent; idempotent."""
        turn = self._turns.pop(key, None)
        if turn is not None:
            turn.key = None
            if turn.next_at == math.inf:
                self._num_active -= 1

    def hurry(self, key: _Key, *, now: float) -> None:
        """Announce a torrent as soon as there is room."""
        turn = self._turns.get(key)
        if turn is not None:
            turn.announce_at = now
            turn.wait = MIN_WAIT
            if turn.next_at != math.inf:
                turn.next_at = now
                self._enqueue(turn)

    def hurry_all(self, *, now: float) -> None:
        """Announce every torrent as soon as there is room."""
        for key in self._turns:
            self.hurry(key, now=now)

    def next_at(self, key: _Key) -> float | None:
        """Return when a torrent is looked at next; None while it is looked up."""
        turn = self._turns.get(key)
        return None if turn is None or turn.next_at == math.inf else turn.next_at

    def next_timer(self) -> float | None:
        """Return the instant of the next ``due`` that has something to do, or None."""
        self._drop_stale()
        if not self._queue or self._num_active >= MAX_ACTIVE:
            return None
        return max(self._queue[0][0], self._paced_at)

    def due(self, *, now: float) -> tuple[_Key, bool] | None:
        """
        Return what to look up now, one at most, and whether to announce it as well.

        The caller tells its end by ``ended``.
        """
        while self._num_active < MAX_ACTIVE and now >= self._paced_at:
            self._drop_stale()
            if not self._queue or self._queue[0][0] > now:
                break
            turn = heapq.heappop(self._queue)[2]
            key, is_announce = turn.key, now >= turn.announce_at
            assert key is not None, "stale turns were dropped"
            if is_announce or self._lacks_peers(key):
                turn.next_at, turn.asked_at = math.inf, now
                self._num_active += 1
                self._paced_at = now + PACE
                return key, is_announce
            turn.wait = MIN_WAIT
            turn.next_at = min(turn.announce_at, now + IDLE_WAIT)
            self._enqueue(turn)
        return None

    def ended(self, key: _Key, *, now: float, was_stored: bool, num_queries: int) -> None:
        """
        Hear that a lookup is over.

        Args:
            key: of the torrent.
            now: monotonic seconds.
            was_stored: nodes took the announce, or there is nothing to announce.
            num_queries: how many nodes were asked.
        """
        turn = self._turns.get(key)
        if turn is None or turn.next_at != math.inf:
            return
        self._num_active -= 1
        # One that was hurried meanwhile has something else to announce.
        if was_stored and turn.asked_at >= turn.announce_at:
            turn.announce_at = now + ANNOUNCE_INTERVAL * (1 - SPREAD * self._rng.random())
        if num_queries:
            wait, turn.wait = turn.wait, min(2 * turn.wait, ANNOUNCE_INTERVAL)
        else:
            wait = EMPTY_WAIT
        turn.next_at = now + wait
        if was_stored:
            turn.next_at = min(turn.next_at, turn.announce_at)
        self._enqueue(turn)

    def _enqueue(self, turn: _Turn[_Key]) -> None:
        heapq.heappush(self._queue, (turn.next_at, next(self._numbers), turn))

    def _drop_stale(self) -> None:
        """Drop entries of torrents that are gone, and of turns that were moved."""
        queue = self._queue
        while queue:
            at, _, turn = queue[0]
            if turn.key is not None and turn.next_at == at:
                return
            heapq.heappop(queue)
