"""
Peers in the local network that advertise their torrents as services: BEP 26, an option.

One discovery for all torrents of a session, off unless ``enable_zeroconf`` asks for it.
As with the other local discovery, ``engine.sources.neighbours`` says whose turn it is and
one timer serves all: in its turn a torrent is named to the network, and looked for unless it
is complete. Between turns the library answers whoever asks.

A torrent at rest stays advertised, so that neighbours find it and rouse it; it costs its
entry here and one record, and is not looked for, since it is complete. No more than
``MAX_ADVERTISED`` are advertised; those beyond it are still looked for.

Private torrents never join (BEP 27). A magnet link that turns out to be private is
withdrawn without a goodbye: no datagram names it any more, and neighbours forget it when
its record expires.

Sources: BEP 26; BEP 27; threats.md N9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Protocol

from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine.source_status import SourceKind, SourceState
from bittern.engine.sources.base import DiscoveringTorrent
from bittern.engine.sources.neighbours import REFRESH_INTERVAL, Neighbourhood, NeighbourSource

MAX_PER_ROUND = 64
"""Limit: N9. Torrents in the datagrams of one round: about three of 1,460 bytes to tell, and
three to ask, at most once a minute."""
MAX_ADVERTISED = 256
"""Limit: N9. Hashes advertised at once: whoever asks what services there are has all of them in
the answer, and each has a record in the cache of every machine of the network."""


class ServiceNetwork(Protocol):
    """What the discovery asks of the network; ``net.zeroconf.MulticastDns``."""

    async def open(
        self,
        is_wanted: Callable[[InfoHash], bool],
        heard: Callable[[Endpoint, tuple[InfoHash, ...]], object],
    ) -> None:
        """Begin to hand over neighbours that advertise what is wanted."""

    async def refresh(self) -> bool:
        """Look for interfaces; True when nothing that was told before holds any more."""

    def tell(self, port: int, advertised: Iterable[InfoHash], asked: Iterable[InfoHash]) -> int:
        """Name torrents and look for some; on how many interfaces."""

    def withdraw(self, info_hashes: Iterable[InfoHash], *, is_silent: bool) -> None:
        """Advertise torrents no more."""

    async def close(self) -> None:
        """Say goodbye and hand over nothing more."""


class ZeroconfDiscovery:
    """
    The discovery described in the module's text; a ``SharedSource``.

    Args:
        network: where services are advertised.
        loop: of the session.
        port: tells where we take connections; while that is 0 we only ask.
        spawn: runs a task of the session.

    Attributes:
        neighbourhood: the torrents that take part.
    """

    kind = SourceKind.ZEROCONF

    def __init__(
        self,
        network: ServiceNetwork,
        *,
        loop: asyncio.AbstractEventLoop,
        port: Callable[[], int],
        spawn: Callable[[Coroutine[object, object, None], str], None],
    ) -> None:
        self.neighbourhood: Neighbourhood = Neighbourhood(MAX_PER_ROUND, now=loop.time())
        self._network = network
        self._loop = loop
        self._port = port
        self._spawn = spawn
        self._advertised: dict[InfoHash, None] = {}
        self._is_open = False
        self._timer: asyncio.TimerHandle | None = None
        self._refresh_at = 0.0
        self._num_reached: int | None = None
        """Interfaces of the last round; None before the first, 0 when nobody can hear."""

    async def open(self) -> None:
        """Open the network; torrents may join before, and are told of afterwards."""
        await self._network.open(self.neighbourhood.is_wanted, self._heard)
        self._is_open = True
        self._refresh_at = self._loop.time() + REFRESH_INTERVAL
        self._schedule()

    # --- torrents ------------------------------------------------------------------------

    def join(self, torrent: DiscoveringTorrent) -> NeighbourSource:
        """Return the source of one torrent, which takes part from ``start`` on."""
        return NeighbourSource(self, torrent)

    def add(self, source: NeighbourSource) -> None:
        """Take in a torrent."""
        self.neighbourhood.add(source, now=self._loop.time())
        self._schedule()

    def ask_now(self, source: NeighbourSource) -> None:
        """Make a torrent due, also under a hash that it has learnt."""
        if self.neighbourhood.has(source):
            self.add(source)

    def remove(self, source: NeighbourSource) -> None:
        """Forget a torrent and tell the network, unless it is private."""
        gone = self.neighbourhood.remove(source)
        told = [each for each in gone if each in self._advertised]
        for info_hash in told:
            del self._advertised[info_hash]
        if told:
            self._network.withdraw(told, is_silent=source.is_private)
        self._schedule()

    def missed(self, seconds: float) -> None:  # noqa: ARG002  # as every source
        """Tell of all torrents again, on the interfaces that there are now."""
        self._refresh_at = self._loop.time()
        self.neighbourhood.rounds.make_all_due(now=self._refresh_at)
        self._schedule()

    def due_at(self, source: NeighbourSource) -> float | None:
        """Return from when on it is a torrent's turn; None when it has none."""
        return self.neighbourhood.due_at(source)

    def trouble(self, source: NeighbourSource) -> tuple[SourceState, str] | None:
        """Return why nobody can hear of a torrent, or that nobody was heard of."""
        if source.told_at is not None and not self._num_reached:
            return SourceState.FAILING, "no network interface takes multicast DNS"
        if source.heard_at is not None:
            return None
        message = "no neighbour has advertised this torrent yet"
        is_advertised = any(info_hash in self._advertised for info_hash in source.info_hashes)
        if source.told_at is not None and not is_advertised:
            message += "; it is not advertised, because we do not listen or have too many"
        return SourceState.WAITING, message

    # --- time ----------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_at = self.neighbourhood.rounds.next_timer()
        if self._is_open and due_at is not None:
            self._timer = self._loop.call_at(min(due_at, self._refresh_at), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_INTERVAL
            self._spawn(self._refresh(), "look for interfaces")
        if info_hashes := self.neighbourhood.take_round(now=now):
            self._tell(info_hashes, now)
        self._schedule()

    async def _refresh(self) -> None:
        if await self._network.refresh() and self._is_open:
            self.neighbourhood.rounds.make_all_due(now=self._loop.time())
            self._schedule()

    def _tell(self, info_hashes: list[InfoHash], now: float) -> None:
        port = self._port()
        named = [each for each in info_hashes if port and self._may_advertise(each)]
        asked = [each for each in info_hashes if not self.neighbourhood.is_complete(each)]
        self._num_reached = self._network.tell(port, named, asked)
        self.neighbourhood.told(info_hashes, now=now)

    def _may_advertise(self, info_hash: InfoHash) -> bool:
        if info_hash not in self._advertised and len(self._advertised) < MAX_ADVERTISED:
            self._advertised[info_hash] = None
        return info_hash in self._advertised

    # --- what others say -----------------------------------------------------------------

    def _heard(self, endpoint: Endpoint, info_hashes: tuple[InfoHash, ...]) -> None:
        now = self._loop.time()
        if self.neighbourhood.may_read(endpoint.host, now=now):
            self.neighbourhood.heard(endpoint, info_hashes, now=now)

    async def close(self, *, within: float) -> None:
        """Leave the network, within some seconds; idempotent."""
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            async with asyncio.timeout(within):
                await self._network.close()
        except TimeoutError:
            return
