"""
Choke rounds of one torrent: the choker asked, its decisions carried out.

Sources: BEP 3 (choking, optimistic unchoke, anti-snubbing).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from bittern.engine.events import Event, PeerChoked, PeerUnchoked
from bittern.engine.peers.connection import PeerConnection
from bittern.engine.services import Services
from bittern.policy.choker import Choker, PeerStanding


class ChokeRounds:
    """
    Who is unchoked, over the connections of one torrent.

    Args:
        services: of the session.
        num_slots: peers unchoked at once; None for all that are interested.
        peers: the torrent's connections, which come and go.
        report: hears of every decision.
    """

    def __init__(
        self,
        services: Services,
        num_slots: int | None,
        peers: Iterable[PeerConnection],
        *,
        report: Callable[[Event], None] = lambda _: None,
    ) -> None:
        config = services.config
        self._loop = services.loop
        self._interval = config.choke_interval
        self._peers = peers
        self._report = report
        self._choker = Choker(
            services.rng,
            num_slots,
            choke_interval=config.choke_interval,
            optimistic_interval=config.optimistic_interval,
        )
        self._next_round_at = services.loop.time()
        self._is_seeding = False
        self._early_round: asyncio.Handle | None = None

    def set_num_slots(self, num_slots: int | None) -> None:
        """Change how many peers are unchoked at once, and hold a round soon."""
        if num_slots != self._choker.num_slots:
            self._choker.num_slots = num_slots
            self._next_round_at = self._loop.time()

    def tick(self, *, now: float, is_seeding: bool) -> None:
        """Hold a round when it is due."""
        self._is_seeding = is_seeding
        if now >= self._next_round_at:
            self._next_round_at = now + self._interval
            self._hold(now)

    def interest_changed(self, peer: PeerConnection, is_interested: bool, *, now: float) -> None:
        """Give a free slot to a peer that has become interested, or one that it leaves."""
        if is_interested:
            if peer.protocol.am_choking and self._choker.admit(peer, now=now):
                peer.protocol.unchoke()
                self._report(PeerUnchoked(peer.endpoint, is_optimistic=False))
        elif not peer.protocol.am_choking and self._early_round is None:
            self._early_round = self._loop.call_soon(self._hold_early)

    def _hold_early(self) -> None:
        self._early_round = None
        self._hold(self._loop.time())

    def _hold(self, now: float) -> None:
        decision = self._choker.decide(
            [self._standing(peer) for peer in self._peers if peer.is_open],
            now=now,
            is_seeding=self._is_seeding,
        )
        for peer in decision.choke:
            assert isinstance(peer, PeerConnection)
            self._report(PeerChoked(peer.endpoint, self._why_choked(peer)))
            peer.protocol.choke(now=now)
            peer.flush()
        for peer in decision.unchoke:
            assert isinstance(peer, PeerConnection)
            peer.protocol.unchoke()
            self._report(PeerUnchoked(peer.endpoint, peer is decision.optimistic))
            peer.flush()

    def _why_choked(self, peer: PeerConnection) -> str:
        """Return why a peer loses its slot, for people; see ``policy.choker``."""
        standing = self._standing(peer)
        if standing.is_upload_only:
            return "it downloads nothing"
        if not standing.peer_interested:
            return "it wants nothing from us"
        if standing.is_snubbing:
            return "it owes us blocks and sends none"
        if self._is_seeding:
            return "its turn is over and others wait"
        return "others give us more, or wait for their turn"

    def _standing(self, peer: PeerConnection) -> PeerStanding:
        protocol = peer.protocol
        return PeerStanding(
            key=peer,
            am_choking=protocol.am_choking,
            peer_interested=protocol.peer_interested,
            download_rate=peer.down.rate,
            upload_rate=peer.up.rate,
            is_snubbing=peer.is_snubbing,
            is_upload_only=peer.is_upload_only,
        )

    def forget(self, peer: PeerConnection) -> None:
        """Free the slot of a connection that is gone."""
        if not peer.protocol.am_choking and self._early_round is None:
            self._early_round = self._loop.call_soon(self._hold_early)
        self._choker.remove(peer)

    def stop(self) -> None:
        """Hold no further rounds."""
        if self._early_round is not None:
            self._early_round.cancel()
