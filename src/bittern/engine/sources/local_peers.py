"""
Peers in the local network, found by multicast: one discovery for all torrents of a session.

Every torrent that may use it joins with its hashes. ``policy.local_rounds`` says when
which of them are announced, one timer serves all, and a torrent at rest costs two entries
of dictionaries. What others announce is believed only from addresses in networks that we
are in ourselves, at a bounded pace; whoever announces a torrent of ours becomes a
candidate of it.

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
from bittern.engine.events import SourceChanged
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.engine.sources.base import DiscoveringTorrent
from bittern.policy.local_limits import LocalLimits
from bittern.policy.local_rounds import LocalRounds

GROUPS = (GROUP_V4, GROUP_V6)
REFRESH_INTERVAL = 30.0
"""Seconds between two looks at which interfaces there are."""
COOKIE_LENGTH = 8
"""Random bytes."""
SOURCE = "lsd"
"""How peers from here are labelled."""


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
        num_bad: datagrams that were no announces.
        num_ignored: announces beyond the limits.
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
        self.num_bad: int = 0
        self.num_ignored: int = 0
        self._network = network
        self._loop = loop
        self._rng = rng
        self._cookie = cookie.hex()
        self._port = port
        self._rounds = LocalRounds(min(max_info_hashes(g, self._cookie) for g in GROUPS))
        self._limits = LocalLimits(now=loop.time())
        self._torrents: dict[InfoHash, LocalSource] = {}
        self._is_open = False
        self._timer: asyncio.TimerHandle | None = None
        self._refresh_at = float("-inf")
        self.num_reached: int | None = None
        """Sent datagrams of the last round; None before the first, 0 when nobody can hear."""

    # --- torrents ------------------------------------------------------------------------

    def join(self, torrent: DiscoveringTorrent) -> LocalSource:
        """Return the source of one torrent, which takes part from ``start`` on."""
        return LocalSource(self, torrent)

    def add(self, source: LocalSource) -> None:
        """Announce a torrent from now on, and listen for it."""
        now = self._loop.time()
        for info_hash in source.info_hashes:
            self._torrents[info_hash] = source
            self._rounds.add(info_hash, now=now)
        if not self._is_open:
            self._is_open = True
            self._refresh_at = now + REFRESH_INTERVAL
            self._network.open(self._received)
        self._schedule()

    def remove(self, source: LocalSource) -> None:
        """Forget a torrent; the sockets stay open until ``close``."""
        for info_hash in source.info_hashes:
            if self._torrents.get(info_hash) is source:
                del self._torrents[info_hash]
                self._rounds.remove(info_hash)
        self._schedule()

    def ask_now(self, source: LocalSource) -> None:
        """Announce a torrent in the next round, also under a hash that it has learnt."""
        now = self._loop.time()
        if source in self._torrents.values():
            for info_hash in source.info_hashes:
                if self._torrents.setdefault(info_hash, source) is source:
                    self._rounds.add(info_hash, now=now)
        self._schedule()

    def due_at(self, source: LocalSource) -> float | None:
        """Return from when on a torrent may be announced; None when it is not to be."""
        if not self._port():
            return None
        instants = [self._rounds.due_at(info_hash) for info_hash in source.info_hashes]
        return min((at for at in instants if at is not None), default=None)

    # --- time ----------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_at = self._rounds.next_timer()
        if self._is_open and due_at is not None:
            at = min(due_at, self._refresh_at) if self._port() else self._refresh_at
            self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_INTERVAL
            if self._network.refresh():
                self._rounds.make_all_due(now=now)
        port = self._port()
        if port and (info_hashes := self._rounds.take_round(now=now)):
            self._announce(port, info_hashes, now)
        self._schedule()

    def _announce(self, port: int, info_hashes: list[InfoHash], now: float) -> None:
        # A magnet link may have turned out to be private a moment ago.
        info_hashes = [each for each in info_hashes if not self._torrents[each].is_private]
        if not info_hashes:
            return
        self._rng.shuffle(info_hashes)
        announce = LsdAnnounce(port, tuple(info_hashes), self._cookie)
        self.num_reached = self._network.send(
            {group: encode_lsd(announce, group) for group in GROUPS}
        )
        for source in dict.fromkeys(self._torrents[info_hash] for info_hash in info_hashes):
            source.announced(now)

    # --- what others say -----------------------------------------------------------------

    def _received(self, data: bytes, sender: Endpoint) -> None:
        now = self._loop.time()
        if not self._is_open:
            return
        if not self._limits.may_read(sender.host, now=now):
            self.num_ignored += 1
            return
        try:
            announce = decode_lsd(data)
        except LsdDecodeError:
            self.num_bad += 1
            return
        if announce.cookie == self._cookie:
            return
        found = (self._torrents.get(info_hash) for info_hash in announce.info_hashes)
        for source in dict.fromkeys(found):
            if source is not None and not source.is_private:
                source.heard(Endpoint(sender.host, announce.port), now)

    def close(self) -> None:
        """Leave the network; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_open:
            self._is_open = False
            self._network.close()


class LocalSource:
    """One torrent's part in the local discovery; a ``PeerSource``."""

    __slots__ = (
        "_announced_at",
        "_discovery",
        "_heard_at",
        "_num_found",
        "_torrent",
    )

    def __init__(self, discovery: LocalDiscovery, torrent: DiscoveringTorrent) -> None:
        self._discovery = discovery
        self._torrent = torrent
        self._announced_at: float | None = None
        self._heard_at: float | None = None
        self._num_found = 0

    def start(self, name: str) -> None:  # noqa: ARG002  # contract
        """Take part; ``name`` is not needed, since there is no task."""
        self._discovery.add(self)

    @property
    def info_hashes(self) -> tuple[InfoHash, ...]:
        """What it is announced as; the metadata may bring a second one (BEP 52)."""
        return self._torrent.all_hashes

    @property
    def is_private(self) -> bool:
        """True when the torrent has nothing to do here any more (BEP 27)."""
        return self._torrent.is_private

    def completed(self) -> None:
        """Do nothing: seeds and others announce alike."""

    def ask_now(self) -> None:
        """Announce in the next round."""
        self._discovery.ask_now(self)

    async def stop(self) -> None:
        """Take part no more; BEP 14 knows no goodbye."""
        self._discovery.remove(self)

    def announced(self, now: float) -> None:
        """Note that the network was told."""
        self._announced_at = now
        self._torrent.report(SourceChanged(self._status()))

    def heard(self, endpoint: Endpoint, now: float) -> None:
        """Take a neighbour that announced the torrent."""
        self._heard_at = now
        self._num_found += 1
        self._torrent.add_peers([endpoint], SOURCE, endpoint.host)
        self._torrent.report(SourceChanged(self._status()))

    def statuses(self) -> list[SourceStatus]:
        """Return how it stands."""
        return [self._status()]

    def _status(self) -> SourceStatus:
        state, message = SourceState.WORKING, None
        if self._announced_at is not None and not self._discovery.num_reached:
            state, message = SourceState.FAILING, "no network interface takes multicast"
        elif self._heard_at is None:
            state, message = SourceState.WAITING, "no neighbour has announced this torrent yet"
        return SourceStatus(
            kind=SourceKind.LSD,
            state=state,
            last_asked_at=self._announced_at,
            last_answer_at=self._heard_at,
            num_peers=None if self._heard_at is None else 1,
            num_found=self._num_found,
            message=message,
            next_at=self._discovery.due_at(self),
        )
