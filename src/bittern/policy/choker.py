"""
Whom to upload to: tit for tat, optimistic unchoke, rotation when seeding.

The owner calls ``decide`` every ``choke_interval`` with one ``PeerStanding`` for
each connected peer and carries out the answer; between two rounds it asks
``admit`` when a peer becomes interested, so that a free slot is never idle for
ten seconds.

How slots are given while downloading (BEP 3):

1. all but one go to the interested peers that send to us fastest; one that
   snubs us does not count as sending;
2. what is left over goes round among the other interested peers (below);
3. one slot is the optimistic unchoke: chosen by chance every
   ``optimistic_interval``, connections that never had a slot three times as
   likely. Who then sends fast enough moves to 1 and the next one is tried.

How while seeding (H16): all but one go round, first come first served. A slot
is kept for at most three rounds while others wait, and for one only if it was
not used. Speed earns nothing, so a few fast or greedy peers cannot shut others
out; connecting again earns nothing either, since the queue is joined at its end.
The optimistic unchoke stays, so that a newcomer to a long queue gets its chance.

Deviates from BEP 3: peers that send well but are not interested are choked
until ``admit``; that keeps the number of uploads exact.

Invariant: at most ``num_slots`` interested peers are unchoked after a round.

Sources: BEP 3 (choking); BEP 21 (upload only).
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

CHOKE_INTERVAL = 10.0
OPTIMISTIC_INTERVAL = 30.0

MAX_ROUNDS_HELD = 3
"""Limit: H16. Rounds that a peer keeps its turn while others wait."""

NEWCOMER_WEIGHT = 3
"""BEP 3: how much likelier a new connection is to become the optimistic unchoke."""

MIN_USEFUL_RATE = 100.0
"""Bytes per second below which a slot counts as unused and a peer as giving nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStanding:
    """
    What the choker knows of one peer at one instant.

    Rates are of payload, smoothed over a few seconds.
    """

    key: Hashable
    """Names the connection; a peer that comes back has a new one."""
    am_choking: bool
    peer_interested: bool
    download_rate: float
    """From the peer to us."""
    upload_rate: float
    """From us to the peer."""
    is_snubbing: bool = False
    """The peer owes us blocks and sends none."""
    is_upload_only: bool = False
    """The peer is a seed or says that it downloads nothing (BEP 21): never unchoked."""


@dataclass(frozen=True, slots=True)
class ChokeDecision:
    """Messages to send: first all of ``choke``, then all of ``unchoke``."""

    choke: list[Hashable]
    unchoke: list[Hashable]
    optimistic: Hashable | None
    """Who holds the optimistic unchoke now; for showing."""


class Choker:
    """
    The unchoke slots of one torrent.

    ``num_slots`` may be assigned at any time and counts from the next round.

    Args:
        rng: source of chance.
        num_slots: most interested peers unchoked at once, >= 1; None for all of them.
        choke_interval: seconds between two calls of ``decide``.
        optimistic_interval: seconds that the optimistic unchoke lasts.
    """

    __slots__ = (
        "_had_slot",
        "_optimistic",
        "_optimistic_at",
        "_rng",
        "_unchoked",
        "_waiting",
        "choke_interval",
        "num_slots",
        "optimistic_interval",
    )

    def __init__(
        self,
        rng: random.Random,
        num_slots: int | None = 8,
        *,
        choke_interval: float = CHOKE_INTERVAL,
        optimistic_interval: float = OPTIMISTIC_INTERVAL,
    ) -> None:
        self.num_slots: int | None = num_slots
        self.choke_interval: float = choke_interval
        self.optimistic_interval: float = optimistic_interval
        self._rng = rng
        self._unchoked: dict[Hashable, float] = {}
        """Since when each unchoked peer is so."""
        self._waiting: dict[Hashable, float] = {}
        """Since when each choked peer is interested."""
        self._had_slot: set[Hashable] = set()
        self._optimistic: Hashable | None = None
        self._optimistic_at = 0.0

    def decide(
        self, standings: Sequence[PeerStanding], *, now: float, is_seeding: bool
    ) -> ChokeDecision:
        """
        Hold a round.

        Args:
            standings: every connected peer once; the order breaks ties.
            now: monotonic seconds.
            is_seeding: we need nothing from anybody, so there is no tit for tat.

        Returns:
            Whom to choke and to unchoke. The caller carries out all of it.

        Source: BEP 3. O(peers log peers).
        """
        self._update(standings, now)
        wanting = [s for s in standings if s.peer_interested and not s.is_upload_only]
        if self.num_slots is None or len(wanting) <= self.num_slots:
            self._optimistic = None
            chosen = {s.key for s in wanting}
        else:
            chosen = self._allot(wanting, self.num_slots, now, is_seeding)
        choke = [
            s.key
            for s in standings
            if not s.am_choking
            and s.key not in chosen
            # Without a limit the unchoke of a peer that lost interest saves a round trip later.
            and (self.num_slots is not None or s.is_upload_only)
        ]
        unchoke = [s.key for s in wanting if s.am_choking and s.key in chosen]
        for key in choke:
            del self._unchoked[key]
        for s in wanting:
            if s.key not in chosen:
                self._waiting.setdefault(s.key, now)
        for key in unchoke:
            self._grant(key, now)
        return ChokeDecision(choke, unchoke, self._optimistic)

    def admit(self, key: Hashable, *, now: float) -> bool:
        """
        Tell whether to unchoke a peer at once that has just become interested.

        True takes a slot, and the caller sends the unchoke. False when no slot is
        free, when others have waited longer, or when the peer is unchoked already.
        """
        if key in self._unchoked:
            return False
        if self.num_slots is None or (not self._waiting and len(self._unchoked) < self.num_slots):
            self._grant(key, now)
            return True
        self._waiting.setdefault(key, now)
        return False

    def remove(self, key: Hashable) -> None:
        """Forget a peer that has left; its slot is free. Unknown keys are ignored."""
        self._unchoked.pop(key, None)
        self._waiting.pop(key, None)
        self._had_slot.discard(key)
        if self._optimistic == key:
            self._optimistic = None

    def _update(self, standings: Sequence[PeerStanding], now: float) -> None:
        """Bring our memory in line with what the connections say."""
        keys = {s.key for s in standings}
        for key in [*self._unchoked, *self._waiting]:
            if key not in keys:
                self.remove(key)
        for s in standings:
            if not s.am_choking:
                self._waiting.pop(s.key, None)
                self._unchoked.setdefault(s.key, now)
                self._had_slot.add(s.key)
                continue
            self._unchoked.pop(s.key, None)
            if s.peer_interested and not s.is_upload_only:
                self._waiting.setdefault(s.key, now)
            else:
                self._waiting.pop(s.key, None)

    def _grant(self, key: Hashable, now: float) -> None:
        self._waiting.pop(key, None)
        self._unchoked[key] = now
        self._had_slot.add(key)

    def _allot(
        self, wanting: list[PeerStanding], num_slots: int, now: float, is_seeding: bool
    ) -> set[Hashable]:
        """Give ``num_slots`` to more peers than that."""
        num_regular = max(num_slots - 1, 1)
        givers: list[PeerStanding] = []
        if not is_seeding:
            givers = [
                s for s in wanting if s.download_rate >= MIN_USEFUL_RATE and not s.is_snubbing
            ]
            givers.sort(key=lambda s: (-s.download_rate, s.am_choking))
        chosen = {s.key for s in givers[:num_regular]}

        lasts = now - self._optimistic_at < self.optimistic_interval - self.choke_interval / 2
        # A single slot goes by the other rules: optimism would take all of it.
        eligible = () if num_slots == 1 or not lasts else {s.key for s in wanting} - chosen
        current = self._optimistic if self._optimistic in eligible else None
        others = [s for s in wanting if s.key not in chosen and s.key != current]
        chosen.update(self._take_turns(others, num_regular - len(chosen), now))

        if num_slots > 1:
            if current is None:
                current = self._draw([s for s in others if s.key not in chosen])
                self._optimistic_at = now
            chosen.add(current)
        self._optimistic = current
        return chosen

    def _take_turns(self, pool: list[PeerStanding], count: int, now: float) -> list[Hashable]:
        """Limit: H16. Choose ``count`` so that everyone gets a turn and uses it."""
        slack = self.choke_interval / 2  # rounds are not held on the dot
        fresh: list[tuple[float, Hashable]] = []
        waiting: list[tuple[float, Hashable]] = []
        spent: list[tuple[float, Hashable]] = []
        for s in pool:
            since = self._unchoked.get(s.key)
            if since is None:
                waiting.append((self._waiting[s.key], s.key))
                continue
            held = now - since
            is_idle = held >= slack and s.upload_rate < MIN_USEFUL_RATE
            is_over = held >= MAX_ROUNDS_HELD * self.choke_interval - slack
            (spent if is_idle or is_over else fresh).append((-since, s.key))
        order: list[tuple[float, Hashable]] = []
        for group in (fresh, waiting, spent):
            group.sort(key=lambda entry: entry[0])
            order += group
        return [key for _, key in order[:count]]

    def _draw(self, pool: list[PeerStanding]) -> Hashable:
        """Choose the optimistic unchoke; who waits goes before who has a slot."""
        pool = [s for s in pool if s.am_choking] or pool
        weights = [1 if s.key in self._had_slot else NEWCOMER_WEIGHT for s in pool]
        return self._rng.choices(pool, weights)[0].key

    def __repr__(self) -> str:
        return (
            f"<Choker {len(self._unchoked)} of {self.num_slots} slots, {len(self._waiting)} wait>"
        )
