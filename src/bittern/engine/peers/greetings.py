"""
By which of a torrent's hashes peers are greeted, and whether it was the right one.

A hybrid has two, and each side of a connection names one in its handshake:

    who dials             the v1 hash; the v2 hash whom the v1 hash told nothing
    who is dialled        the hash that was named; but the v2 hash if the other speaks v2 as well

Hashes of v2 may be asked for only where both have said that they speak it. That a torrent of
which only the v1 hash is known has a v2 half shows with its metadata, after the handshakes with
those who gave it. Interop: libtorrent closes a connection that announces v2 for a torrent without
it, so that cannot be said in advance, and one that brings hash messages unannounced. So a few of
them are greeted once more.

Source: BEP 52 (upgrade path).
"""

from __future__ import annotations

from collections.abc import Iterable

from bittern.codec.wire import Reserved
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine.peers.connection import PeerConnection
from bittern.engine.shelf import Shelf

MAX_GREETED = 1_000
"""Endpoints of which we remember that they did not answer."""
MAX_GREETED_ANEW = 4
"""Connections that are made anew to speak v2: each of them can give all that is asked for."""


class Greetings:
    """
    The choice described in the module's text.

    Args:
        shelf: knows the hashes; metadata may bring another one.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._with_v2: dict[Endpoint, bool] = {}
        """Endpoints that did not answer one of our hashes, and whether the v2 hash is next."""
        self._wanted_again: set[PeerConnection] = set()
        """Connections that are being closed to be made anew at once."""

    @property
    def v2_hash(self) -> InfoHash | None:
        """The v2 hash cut to 20 bytes; None while the torrent has none that we know of."""
        return self._shelf.v2_hash

    def hash_for(self, endpoint: Endpoint) -> InfoHash:
        """Return the hash to greet with whom we dial."""
        v2_hash = self.v2_hash
        is_v2_next = v2_hash is not None and self._with_v2.get(endpoint)
        return v2_hash if v2_hash is not None and is_v2_next else self._shelf.all_hashes[0]

    def answer_to(self, named: InfoHash, reserved: Reserved) -> InfoHash:
        """Return the hash to greet with who has dialled us, and named one of ours (BEP 3)."""
        return self.v2_hash if self.v2_hash is not None and reserved.has_v2 else named

    def has_other(self, endpoint: Endpoint) -> bool:
        """
        Tell whether to dial a peer that did not answer our hash again at once, with the v2 one.

        It may know a hybrid by that hash only, as from a magnet link.
        """
        if self.v2_hash in (None, self._shelf.all_hashes[0]):
            return False
        was_v2 = self._with_v2.pop(endpoint, False)
        if len(self._with_v2) >= MAX_GREETED:
            del self._with_v2[next(iter(self._with_v2))]
        self._with_v2[endpoint] = not was_v2
        return not was_v2

    def begin_anew(self, peers: Iterable[PeerConnection]) -> None:
        """
        Close a few connections to peers that speak v2 and did not hear from us that we do.

        Whom ``is_wanted_again`` names while it is being closed is to be dialled at once. Who has
        connected to us stays: nobody knows whether he can be reached.
        """
        for peer in [peer for peer in peers if self._speaks_more(peer)][:MAX_GREETED_ANEW]:
            self._wanted_again.add(peer)
            peer.close("to be greeted anew, with v2")
            self._wanted_again.discard(peer)

    def is_wanted_again(self, peer: PeerConnection) -> bool:
        """Tell whether a connection is being closed to be made anew."""
        return peer in self._wanted_again

    def _speaks_more(self, peer: PeerConnection) -> bool:
        remote = peer.protocol.handshakes.remote
        speaks_v2 = remote is not None and remote.reserved.has_v2
        is_ready = peer.is_outgoing and peer.is_open and not peer.is_closed
        return is_ready and speaks_v2 and not peer.protocol.handshakes.has_v2(self.v2_hash)
