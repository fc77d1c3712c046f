"""
Super seeding in one swarm: peers are shown a few pieces at a time, and served no others.

What is shown to whom next is decided in ``policy.superseed``; here it is told to connections.
It may begin and end while the swarm runs. Who was there before it began knows everything, and
whoever is there when it ends hears of all that was kept from him.

Source: BEP 16.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from bittern.core.bitfield import Bitfield
from bittern.engine.peers.connection import PeerConnection
from bittern.policy.picker import Picker
from bittern.policy.superseed import SuperSeeder


class SuperSeeding:
    """
    The one described in the module's text; does nothing while it is off.

    Args:
        picker: knows what we have.
        peers: the swarm's connections, as they come and go.
        is_on: whether to begin with it.
    """

    __slots__ = ("_peers", "_picker", "_seeder")

    def __init__(self, picker: Picker, peers: Iterable[PeerConnection], *, is_on: bool) -> None:
        self._picker = picker
        self._peers = peers
        self._seeder = SuperSeeder(picker.num_pieces) if is_on else None

    @property
    def is_on(self) -> bool:
        """True while pieces are shown one by one."""
        return self._seeder is not None

    def turn(self, is_on: bool) -> None:
        """Begin or end."""
        seeder = self._seeder
        if is_on and seeder is None:
            self._seeder = SuperSeeder(self._picker.num_pieces)
        elif seeder is not None and not is_on:
            self._seeder = None
            for peer in list(self._peers):
                shown_now = seeder.unshown(peer) & self._picker.have
                for index in Bitfield(self._picker.num_pieces, shown_now):
                    peer.protocol.send_have(index)
                peer.flush()

    def greet(self, peer: PeerConnection) -> bool:
        """Tell a newcomer that we have nothing, and show it pieces; False to tell what we have."""
        if self._seeder is None or not self._picker.is_seed:
            return False
        peer.protocol.send_bitfield(Bitfield(self._picker.num_pieces))
        _reveal(self._seeder.peer_joined(peer))
        return True

    def bitfield_seen(self, peer: PeerConnection, bits: int) -> None:
        """Hear all that a peer has."""
        if self._seeder is not None:
            _reveal(self._seeder.bitfield_seen(peer, bits))

    def pieces_seen(self, peer: PeerConnection, pieces: Iterable[int]) -> None:
        """Hear of pieces that a peer has got."""
        if self._seeder is not None:
            for index in pieces:
                _reveal(self._seeder.piece_seen(peer, index))

    def refuse_hidden(self, peer: PeerConnection) -> None:
        """Reject requests for pieces that the peer was not told of."""
        seeder, incoming = self._seeder, peer.protocol.incoming
        if seeder is not None:
            for index in {index for index, _, _ in incoming if not seeder.is_shown(peer, index)}:
                for request in incoming.drop_piece(index):
                    peer.protocol.reject(request)

    def forget(self, peer: PeerConnection) -> None:
        """Drop a connection that is gone."""
        if self._seeder is not None:
            _reveal(self._seeder.peer_left(peer))


def _reveal(revelations: Iterable[tuple[Hashable, int]]) -> None:
    for peer, index in revelations:
        assert isinstance(peer, PeerConnection)
        peer.protocol.send_have(index)
        peer.flush()
