"""
Peers in the local network, found by multicast: one discovery for all torrents of a session.

Every torrent that may use it joins with its hashes. ``engine.sources.neighbours`` says
which of them are announced when, one timer serves all, and a torrent at rest costs two
entries of dictionaries. What others announce is believed only from addresses in networks
that we are in ourselves, at a bounded pace; whoever announces a torrent of ours becomes
a candidate of it.

Two programs that announce the same port on one address are told apart from ourselves by
a cookie that is drawn for the session.

Sources: BEP 14; BEP 27 (private torrents never join); BEP 52 (a hybrid torrent announces
both hashes); threats.md N9.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Protocol

from bittern.codec.lsd import (
    GROUP_V4,
    GROUP_V6,
    LsdAnnounce,
    decode_lsd,
    encode_lsd,
    max_info_hashes,
)
from bittern.core.endpoint import Endpoint
from bittern.core.errors import LsdDecodeError
from bittern.core.ids import InfoHash
from bittern.engine.source_status import SourceKind, SourceState
from bittern.engine.sources.base import DiscoveringTorrent
from bittern.engine.sources.neighbours import REFRESH_INTERVAL, Neighbourhood, NeighbourSource

GROUPS = (GROUP_V4, GROUP_V6)
COOKIE_LENGTH = 8
"""Random bytes."""


class Multicast(Protocol):
    """What the discovery asks of the network; ``net.multicast.LocalNetwork``."""

    def open(self, receive: Callable[[bytes, Endpoint], object]) -> None:
        """Begin to hand over datagrams of neighbours."""

    def refresh(self) -> bool:
        """Look for interfaces; True when there is one on which nothing was sent yet."""

    def send(self, datagrams: Mapping[str, bytes]) -> int:
        """Send to each group what is meant for it, on every interface; how often it was."""

    def close(self) -> None:
        """Hand over nothing more."""


class LocalDiscovery:
    """
    The discovery described in the module's text; a ``SharedSource``.

    Args:
        network: the multicast groups; opened here with the first torrent.
        loop: of the session.
        rng: mixes the order within datagrams, of which older clients read the first hash only.
        cookie: random bytes.
        port: tells where we take connections; while that is 0 we only listen.

    Attributes:
        neighbourhood: the torrents that take part.
        num_bad: datagrams that were no announces.
    """

    kind = SourceKind.LSD

    def __init__(
        self,
        network: Multicast,
        *,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        cookie: bytes,
        port: Callable[[], int],
    ) -> None:
        self.neighbourhood: Neighbourhood = Neighbourhood(
            min(max_info_hashes(group, cookie.hex()) for group in GROUPS), now=loop.time()
        )
        self.num_bad: int = 0
        self._network = network
        self._loop = loop
        self._rng = rng
        self._cookie = cookie.hex()
        self._port = port
        self._is_open = False
        self._timer: asyncio.TimerHandle | None = None
        self._refresh_at = float("-inf")
        self._num_reached: int | None = None
        """Sent datagrams of the last round; None before the first, 0 when nobody can hear."""

    # --- torrents ------------------------------------------------------------------------

    def join(self, torrent: DiscoveringTorrent) -> NeighbourSource:
        """Return the source of one torrent, which takes part from ``start`` on."""
        return NeighbourSource(self, torrent)

    def add(self, source: NeighbourSource) -> None:
        """Announce a torrent from now on, and listen for it."""
        now = self._loop.time()
        self.neighbourhood.add(source, now=now)
        if not self._is_open:
            self._is_open = True
            self._refresh_at = now + REFRESH_INTERVAL
            self._network.open(self._received)
        self._schedule()

    def remove(self, source: NeighbourSource) -> None:
        """Forget a torrent, BEP 14 knows no goodbye; the sockets stay open until ``close``."""
        self.neighbourhood.remove(source)
        self._schedule()

    def ask_now(self, source: NeighbourSource) -> None:
        """Announce a torrent in the next round, also under a hash that it has learnt."""
        if self.neighbourhood.has(source):
            self.neighbourhood.add(source, now=self._loop.time())
        self._schedule()

    def missed(self, seconds: float) -> None:  # noqa: ARG002  # as every source
        """Announce all torrents again, on the interfaces that there are now."""
        self._refresh_at = self._loop.time()
        self.neighbourhood.rounds.make_all_due(now=self._refresh_at)
        self._schedule()

    def due_at(self, source: NeighbourSource) -> float | None:
        """Return from when on a torrent may be announced; None when it is not to be."""
        return self.neighbourhood.due_at(source) if self._port() else None

    def trouble(self, source: NeighbourSource) -> tuple[SourceState, str] | None:
        """Return why nobody can hear of a torrent, or that nobody was heard of."""
        if source.told_at is not None and not self._num_reached:
            return SourceState.FAILING, "no network interface takes multicast"
        if source.heard_at is None:
            return SourceState.WAITING, "no neighbour has announced this torrent yet"
        return None

    # --- time ----------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_at = self.neighbourhood.rounds.next_timer()
        if self._is_open and due_at is not None:
            at = min(due_at, self._refresh_at) if self._port() else self._refresh_at
            self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_INTERVAL
            if self._network.refresh():
                self.neighbourhood.rounds.make_all_due(now=now)
        port = self._port()
        if port and (info_hashes := self.neighbourhood.take_round(now=now)):
            self._announce(port, info_hashes, now)
        self._schedule()

    def _announce(self, port: int, info_hashes: list[InfoHash], now: float) -> None:
        self._rng.shuffle(info_hashes)
        announce = LsdAnnounce(port, tuple(info_hashes), self._cookie)
        self._num_reached = self._network.send(
            {group: encode_lsd(announce, group) for group in GROUPS}
        )
        self.neighbourhood.told(info_hashes, now=now)

    # --- what others say -----------------------------------------------------------------

    def _received(self, data: bytes, sender: Endpoint) -> None:
        now = self._loop.time()
        if not self._is_open or not self.neighbourhood.may_read(sender.host, now=now):
            return
        try:
            announce = decode_lsd(data)
        except LsdDecodeError:
            self.num_bad += 1
            return
        if announce.cookie != self._cookie:
            found = Endpoint(sender.host, announce.port)
            self.neighbourhood.heard(found, announce.info_hashes, now=now)

    def close(self) -> None:
        """Leave the network; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_open:
            self._is_open = False
            self._network.close()
