"""
What the discoveries of the local network have in common: members, turns, and what is heard.

A ``Neighbourhood`` knows the torrents that take part in one discovery, by their hashes:
``policy.local_rounds`` says whose turn it is, ``policy.local_limits`` how much of what
neighbours say is listened to. A ``NeighbourSource`` is the part of one torrent. How the
network is told, and when, is the discovery's own business.

A private torrent is left out here, in both directions, also in the moment between turning
out to be private and being removed.

Sources: BEP 14; BEP 26; BEP 27 (private torrents never take part); BEP 52 (a hybrid
torrent goes by both hashes); threats.md N9.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine.events import SourceChanged
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.engine.sources.base import DiscoveringTorrent
from bittern.policy.local_limits import LocalLimits
from bittern.policy.local_rounds import LocalRounds

REFRESH_INTERVAL = 30.0
"""Seconds between two looks at which interfaces there are."""


class NeighbourDiscovery(Protocol):
    """What a torrent's part asks of the discovery."""

    kind: SourceKind

    def add(self, source: NeighbourSource) -> None:
        """Let it take part from now on, and be due."""

    def ask_now(self, source: NeighbourSource) -> None:
        """Make it due, if it takes part."""

    def remove(self, source: NeighbourSource) -> None:
        """Let it take part no more."""

    def due_at(self, source: NeighbourSource) -> float | None:
        """Return when the network is told of it next; None when it is not."""

    def trouble(self, source: NeighbourSource) -> tuple[SourceState, str] | None:
        """Return what to say of it while nobody was heard, or nobody can hear."""


class NeighbourSource:
    """
    One torrent's part in a discovery of the local network; a ``PeerSource``.

    Attributes:
        told_at: when the network was told of it last; loop time, None for never.
        heard_at: when a neighbour was heard of last.
    """

    __slots__ = ("_discovery", "_num_found", "_torrent", "heard_at", "told_at")

    def __init__(self, discovery: NeighbourDiscovery, torrent: DiscoveringTorrent) -> None:
        self._discovery = discovery
        self._torrent = torrent
        self.told_at: float | None = None
        self.heard_at: float | None = None
        self._num_found = 0

    def start(self, name: str) -> None:  # noqa: ARG002  # contract
        """Take part; ``name`` is not needed, since there is no task."""
        self._discovery.add(self)

    @property
    def info_hashes(self) -> tuple[InfoHash, ...]:
        """What it is known as; the metadata may bring a second one (BEP 52)."""
        return self._torrent.all_hashes

    @property
    def is_private(self) -> bool:
        """True when the torrent has nothing to do here any more (BEP 27)."""
        return self._torrent.is_private

    @property
    def is_complete(self) -> bool:
        """True when nobody needs to be looked for."""
        return self._torrent.is_complete

    def completed(self) -> None:
        """Do nothing: seeds and others are told of alike."""

    def ask_now(self) -> None:
        """Be due in the next round, also under a hash that was learnt."""
        self._discovery.ask_now(self)

    async def stop(self) -> None:
        """Take part no more."""
        self._discovery.remove(self)

    def told(self, now: float) -> None:
        """Note that it was the torrent's turn."""
        self.told_at = now
        self._torrent.report(SourceChanged(self._status()))

    def heard(self, endpoint: Endpoint, now: float) -> None:
        """Take a neighbour that has the torrent."""
        self.heard_at = now
        self._num_found += 1
        self._torrent.add_peers([endpoint], self._discovery.kind.value, endpoint.host)
        self._torrent.report(SourceChanged(self._status()))

    def statuses(self) -> list[SourceStatus]:
        """Return how it stands."""
        return [self._status()]

    def _status(self) -> SourceStatus:
        state, message = self._discovery.trouble(self) or (SourceState.WORKING, None)
        return SourceStatus(
            kind=self._discovery.kind,
            state=state,
            last_asked_at=self.told_at,
            last_answer_at=self.heard_at,
            num_peers=None if self.heard_at is None else 1,
            num_found=self._num_found,
            message=message,
            next_at=self._discovery.due_at(self),
        )


class Neighbourhood:
    """
    The members of one discovery.

    Args:
        capacity: info hashes of one round.
        now: instant of creation.

    Attributes:
        rounds: whose turn it is.
        num_ignored: what was heard beyond the limits.
    """

    def __init__(self, capacity: int, *, now: float) -> None:
        self.rounds: LocalRounds = LocalRounds(capacity)
        self.num_ignored: int = 0
        self._limits = LocalLimits(now=now)
        self._sources: dict[InfoHash, NeighbourSource] = {}

    # --- members -------------------------------------------------------------------------

    def add(self, source: NeighbourSource, *, now: float) -> None:
        """Take in a torrent, or make one due again, also under a hash that it has learnt."""
        for info_hash in source.info_hashes:
            if self._sources.setdefault(info_hash, source) is source:
                self.rounds.add(info_hash, now=now)

    def remove(self, source: NeighbourSource) -> list[InfoHash]:
        """Forget a torrent; the hashes under which it took part."""
        gone = [each for each in source.info_hashes if self._sources.get(each) is source]
        for info_hash in gone:
            del self._sources[info_hash]
            self.rounds.remove(info_hash)
        return gone

    def has(self, source: NeighbourSource) -> bool:
        """Tell whether a torrent was added and not removed."""
        return any(self._sources.get(each) is source for each in source.info_hashes)

    # --- turns ---------------------------------------------------------------------------

    def due_at(self, source: NeighbourSource) -> float | None:
        """Return from when on it is a torrent's turn; None when it has none."""
        instants = [self.rounds.due_at(info_hash) for info_hash in source.info_hashes]
        return min((at for at in instants if at is not None), default=None)

    def take_round(self, *, now: float) -> list[InfoHash]:
        """Return what the network is told of now; empty when it is told nothing."""
        # A magnet link may have turned out to be private a moment ago.
        return [each for each in self.rounds.take_round(now=now) if self.is_wanted(each)]

    def is_complete(self, info_hash: InfoHash) -> bool:
        """Tell whether a member has everything."""
        return self._sources[info_hash].is_complete

    def told(self, info_hashes: Iterable[InfoHash], *, now: float) -> None:
        """Let members know that the network was told of them."""
        for source in dict.fromkeys(self._sources[info_hash] for info_hash in info_hashes):
            source.told(now)

    # --- what others say -----------------------------------------------------------------

    def may_read(self, host: str, *, now: float) -> bool:
        """Count something from an address and tell whether to listen to it (N9)."""
        may = self._limits.may_read(host, now=now)
        self.num_ignored += not may
        return may

    def is_wanted(self, info_hash: InfoHash) -> bool:
        """Tell whether neighbours with a torrent are of interest."""
        source = self._sources.get(info_hash)
        return source is not None and not source.is_private

    def heard(self, endpoint: Endpoint, info_hashes: Iterable[InfoHash], *, now: float) -> None:
        """Hand a neighbour to the members that it is about."""
        wanted = [self._sources[each] for each in info_hashes if self.is_wanted(each)]
        for source in dict.fromkeys(wanted):
            source.heard(endpoint, now)
