"""
Peers in the local network that advertise their torrents as services: BEP 26, an option.

One discovery for all torrents of a session, off unless ``enable_zeroconf`` asks for it.
As with the other local discovery, ``policy.local_rounds`` says whose turn it is and one
timer serves all: in its turn a torrent is named to the network, and looked for unless it
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
from bittern.engine.events import SourceChanged
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.engine.sources.base import DiscoveringTorrent
from bittern.policy.local_limits import LocalLimits
from bittern.policy.local_rounds import LocalRounds

SOURCE = "zeroconf"
"""How peers from here are labelled."""
REFRESH_INTERVAL = 30.0
"""Seconds between two looks at which interfaces there are."""
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
        num_ignored: neighbours beyond the limits.
        num_reached: interfaces of the last round; None before the first, 0 when nobody can hear.
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
        self.num_ignored: int = 0
        self.num_reached: int | None = None
        self._network = network
        self._loop = loop
        self._port = port
        self._spawn = spawn
        self._rounds = LocalRounds(MAX_PER_ROUND)
        self._limits = LocalLimits(now=loop.time())
        self._torrents: dict[InfoHash, ZeroconfSource] = {}
        self._advertised: dict[InfoHash, None] = {}
        self._is_open = False
        self._timer: asyncio.TimerHandle | None = None
        self._refresh_at = 0.0

    async def open(self) -> None:
        """Open the network; torrents may join before, and are told of afterwards."""
        await self._network.open(self._is_wanted, self._heard)
        self._is_open = True
        self._refresh_at = self._loop.time() + REFRESH_INTERVAL
        self._schedule()

    # --- torrents ------------------------------------------------------------------------

    def join(self, torrent: DiscoveringTorrent) -> ZeroconfSource:
        """Return the source of one torrent, which takes part from ``start`` on."""
        return ZeroconfSource(self, torrent)

    def add(self, source: ZeroconfSource) -> None:
        """Take in a torrent, or make one due, also under a hash that it has learnt."""
        now = self._loop.time()
        for info_hash in source.info_hashes:
            if self._torrents.setdefault(info_hash, source) is source:
                self._rounds.add(info_hash, now=now)
        self._schedule()

    def remove(self, source: ZeroconfSource) -> None:
        """Forget a torrent and tell the network, unless it is private."""
        gone = [each for each in source.info_hashes if self._torrents.get(each) is source]
        for info_hash in gone:
            del self._torrents[info_hash]
            self._rounds.remove(info_hash)
        told = [each for each in gone if each in self._advertised]
        for info_hash in told:
            del self._advertised[info_hash]
        if told:
            self._network.withdraw(told, is_silent=source.is_private)
        self._schedule()

    def takes_part(self, source: ZeroconfSource) -> bool:
        """Tell whether a torrent was added and not removed."""
        return any(self._torrents.get(each) is source for each in source.info_hashes)

    def is_advertised(self, source: ZeroconfSource) -> bool:
        """Tell whether the network was told of a torrent."""
        return any(info_hash in self._advertised for info_hash in source.info_hashes)

    def due_at(self, source: ZeroconfSource) -> float | None:
        """Return from when on it is a torrent's turn; None when it has none."""
        instants = [self._rounds.due_at(info_hash) for info_hash in source.info_hashes]
        return min((at for at in instants if at is not None), default=None)

    # --- time ----------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_at = self._rounds.next_timer()
        if self._is_open and due_at is not None:
            self._timer = self._loop.call_at(min(due_at, self._refresh_at), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_INTERVAL
            self._spawn(self._refresh(), "look for interfaces")
        if info_hashes := self._rounds.take_round(now=now):
            self._tell(info_hashes, now)
        self._schedule()

    async def _refresh(self) -> None:
        if await self._network.refresh() and self._is_open:
            self._rounds.make_all_due(now=self._loop.time())
            self._schedule()

    def _tell(self, info_hashes: list[InfoHash], now: float) -> None:
        # A magnet link may have turned out to be private a moment ago.
        public = [each for each in info_hashes if not self._torrents[each].is_private]
        if not public:
            return
        port = self._port()
        named = [each for each in public if port and self._may_advertise(each)]
        asked = [each for each in public if not self._torrents[each].is_complete]
        self.num_reached = self._network.tell(port, named, asked)
        for source in dict.fromkeys(self._torrents[info_hash] for info_hash in public):
            source.told(now)

    def _may_advertise(self, info_hash: InfoHash) -> bool:
        if info_hash not in self._advertised and len(self._advertised) < MAX_ADVERTISED:
            self._advertised[info_hash] = None
        return info_hash in self._advertised

    # --- what others say -----------------------------------------------------------------

    def _is_wanted(self, info_hash: InfoHash) -> bool:
        source = self._torrents.get(info_hash)
        return source is not None and not source.is_private

    def _heard(self, endpoint: Endpoint, info_hashes: tuple[InfoHash, ...]) -> None:
        now = self._loop.time()
        if not self._limits.may_read(endpoint.host, now=now):
            self.num_ignored += 1
            return
        for source in dict.fromkeys(self._torrents.get(each) for each in info_hashes):
            if source is not None and not source.is_private:
                source.heard(endpoint, now)

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


class ZeroconfSource:
    """One torrent's part in the discovery; a ``PeerSource``."""

    __slots__ = ("_discovery", "_heard_at", "_num_found", "_told_at", "_torrent")

    def __init__(self, discovery: ZeroconfDiscovery, torrent: DiscoveringTorrent) -> None:
        self._discovery = discovery
        self._torrent = torrent
        self._told_at: float | None = None
        self._heard_at: float | None = None
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
        """Do nothing: from its next turn on the torrent is not looked for."""

    def ask_now(self) -> None:
        """Be due in the next round."""
        if self._discovery.takes_part(self):
            self._discovery.add(self)

    async def stop(self) -> None:
        """Take part no more."""
        self._discovery.remove(self)

    def told(self, now: float) -> None:
        """Note that it was the torrent's turn."""
        self._told_at = now
        self._torrent.report(SourceChanged(self._status()))

    def heard(self, endpoint: Endpoint, now: float) -> None:
        """Take a neighbour that advertises the torrent."""
        self._heard_at = now
        self._num_found += 1
        self._torrent.add_peers([endpoint], SOURCE, endpoint.host)
        self._torrent.report(SourceChanged(self._status()))

    def statuses(self) -> list[SourceStatus]:
        """Return how it stands."""
        return [self._status()]

    def _status(self) -> SourceStatus:
        state, message = SourceState.WORKING, None
        if self._told_at is not None and not self._discovery.num_reached:
            state, message = SourceState.FAILING, "no network interface takes multicast DNS"
        elif self._heard_at is None:
            state, message = SourceState.WAITING, "no neighbour has advertised this torrent yet"
            if self._told_at is not None and not self._discovery.is_advertised(self):
                message += "; it is not advertised, because we do not listen or have too many"
        return SourceStatus(
            kind=SourceKind.ZEROCONF,
            state=state,
            last_asked_at=self._told_at,
            last_answer_at=self._heard_at,
            num_peers=None if self._heard_at is None else 1,
            num_found=self._num_found,
            message=message,
            next_at=self._discovery.due_at(self),
        )
