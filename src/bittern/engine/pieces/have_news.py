"""
New pieces told to peers, many in one message (BEP 3).

Those who lack pieces themselves hear of them at the end of the wake-up that brought
them. Full seeds, who only show the number, hear once a second: of them a super seed
waits to hear of the very pieces that it showed us (BEP 16).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from bittern.codec import wire
from bittern.engine.peers.connection import PeerConnection


class HaveNews:
    """
    The news of one swarm.

    Args:
        peers: the swarm's connections, as they come and go.
        loop: ends the wake-up.
    """

    __slots__ = ("_for_leechers", "_for_seeds", "_loop", "_peers")

    def __init__(self, peers: Iterable[PeerConnection], *, loop: asyncio.AbstractEventLoop) -> None:
        self._peers = peers
        self._loop = loop
        self._for_leechers: list[int] = []
        self._for_seeds: list[int] = []

    def add(self, pieces: Iterable[int]) -> None:
        """Tell of new pieces, soon."""
        if not self._for_leechers:
            self._loop.call_soon(self._tell_leechers)
        self._for_leechers += pieces

    def _tell_leechers(self) -> None:
        haves, self._for_leechers = self._for_leechers, []
        self._for_seeds += haves
        self._tell_of(haves, to_seeds=False)

    def tell_seeds(self) -> None:
        """Tell full seeds of what came since the last time; to be called once a second."""
        if self._for_seeds:
            haves, self._for_seeds = self._for_seeds, []
            self._tell_of(haves, to_seeds=True)

    def _tell_of(self, haves: list[int], *, to_seeds: bool) -> None:
        message = b""
        for peer in list(self._peers):
            remote = peer.protocol.remote
            if peer.is_open and remote is not None and remote.is_full is to_seeds:
                message = message or wire.encode_haves(haves)
                peer.protocol.send_message(message)
                peer.flush()
