"""
Super seeding: which pieces to show to which peer next.

A super seed pretends to have nothing. Each peer is told of two pieces that
nobody has, if there are any, and of another only when it has one of them and
some other peer has it too: then it has been passed on, and the seed has spent
its upload on something new. A torrent spreads so with little more than one copy
sent.

Every method that can make a piece due returns *revelations*, pairs of a peer
and the index that the caller announces to it with a ``have`` message.

A peer that is heard of without having joined knows everything we have, as one
that came before super seeding began; what it has is counted and no more.

Deviates from BEP 16, as libtorrent does: two pieces, not one, so that who has
just got one has the other to go on with. And with a single peer there is nobody
to pass anything on to, so it is shown the next piece as soon as it has one.

Invariants: a peer is never shown a piece that it has or was shown before; no
piece is out at two peers while there is another that the peer lacks.

Source: BEP 16.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from bittern.core.bitfield import lowest_index
from bittern.policy.availability import Availability

NUM_SHOWN = 2
"""
Pieces that are out at one peer.

Interop: Transmission looks for what to request, and tells what it has got, twice a second, and
looks every ten seconds whether it wants anything: with one piece it gets one a second and then,
as it wants nothing at that moment, none for ten seconds.
"""

Revelation = tuple[Hashable, int]
"""A peer, and the piece to announce to it."""


@dataclass(slots=True)
class _Peer:
    has: int = 0
    shown: int = 0
    out: list[int] = field(default_factory=list)
    """The pieces shown to it that were not passed on yet, oldest first."""


class SuperSeeder:
    """
    What each peer of one torrent has been shown, and has.

    Args:
        num_pieces: of the torrent, all of which we have.
        num_shown: pieces that may be out at one peer.
    """

    __slots__ = ("_num_shown", "_out", "_peers", "_seen", "_showing")

    def __init__(self, num_pieces: int, num_shown: int = NUM_SHOWN) -> None:
        self._num_shown = num_shown
        self._seen = Availability(num_pieces)
        self._peers: dict[Hashable, _Peer] = {}
        self._showing: dict[int, list[Hashable]] = {}
        """By piece that is out: at whom."""
        self._out = 0
        """The pieces in ``_showing``."""

    def peer_joined(self, key: Hashable, bits: int = 0) -> list[Revelation]:
        """Take note of a peer and of what it has, as far as that is known."""
        self._peers[key] = _Peer()
        return [*self.bitfield_seen(key, bits), *self._show(key)]

    def bitfield_seen(self, key: Hashable, bits: int) -> list[Revelation]:
        """Take note of all that a peer has, where it is told after ``peer_joined``."""
        peer = self._known(key)
        new = bits & ~peer.has
        self._seen.add(new)
        peer.has |= bits
        due: list[Revelation] = []
        if had := [piece for piece in peer.out if self._is_set(new, piece)]:
            # It had these already, so nothing was spent on them.
            for piece in had:
                self._take_back(key, peer, piece)
            due += self._show(key)
        for piece in [piece for piece in self._showing if self._is_set(new, piece)]:
            due += self._passed_on(piece)
        return due

    def piece_seen(self, key: Hashable, index: int) -> list[Revelation]:
        """Take note that a peer has got a piece, from whomever."""
        peer = self._known(key)
        if self._is_set(peer.has, index):
            return []
        mask = 1 << (self._seen.top - index)
        peer.has |= mask
        self._seen.add(mask)
        return self._passed_on(index)

    def peer_left(self, key: Hashable) -> list[Revelation]:
        """Forget a peer. Unknown ones are ignored."""
        peer = self._peers.pop(key, None)
        if peer is None:
            return []
        for piece in list(peer.out):
            self._take_back(key, peer, piece)
        self._seen.remove(peer.has)
        if len(self._peers) != 1:
            return []
        return [due for piece in list(self._showing) for due in self._passed_on(piece)]

    def is_shown(self, key: Hashable, index: int) -> bool:
        """
        Tell whether a peer may know that we have a piece, so that we serve it.

        Who is not known here was there before super seeding began, and was told of everything.
        """
        peer = self._peers.get(key)
        return peer is None or self._is_set(peer.shown, index)

    def unshown(self, key: Hashable) -> int:
        """Return what a peer lacks and was not shown: to be announced when super seeding ends."""
        peer = self._peers.get(key)
        return 0 if peer is None else self._seen.full & ~(peer.has | peer.shown)

    @property
    def num_copies(self) -> int:
        """How many whole copies the peers hold among themselves; from 1 on we may stop."""
        return int(self._seen.distributed_copies())

    def _known(self, key: Hashable) -> _Peer:
        peer = self._peers.get(key)
        if peer is None:
            peer = self._peers[key] = _Peer(shown=self._seen.full)
        return peer

    def _passed_on(self, index: int) -> list[Revelation]:
        """Show another piece to those who have this one, if another peer has it too."""
        num_holders = self._seen.count(index)
        if num_holders < 2 and len(self._peers) > 1:
            return []
        due = []
        for key in list(self._showing.get(index, ())):
            peer = self._peers[key]
            if self._is_set(peer.has, index):
                self._take_back(key, peer, index)
                due += self._show(key)
        return due

    def _show(self, key: Hashable) -> list[Revelation]:
        """Show a peer as many pieces as it may have out."""
        peer = self._peers[key]
        due = []
        while len(peer.out) < self._num_shown and (pool := self.unshown(key)):
            best = self._seen.rarest(pool & ~self._out or pool)
            index = lowest_index(best, self._seen.top)
            mask = 1 << (self._seen.top - index)
            peer.out.append(index)
            peer.shown |= mask
            self._out |= mask
            self._showing.setdefault(index, []).append(key)
            due.append((key, index))
        return due

    def _take_back(self, key: Hashable, peer: _Peer, piece: int) -> None:
        peer.out.remove(piece)
        showing = self._showing[piece]
        showing.remove(key)
        if not showing:
            del self._showing[piece]
            self._out ^= 1 << (self._seen.top - piece)

    def _is_set(self, bits: int, index: int) -> bool:
        return bool(bits >> (self._seen.top - index) & 1)

    def __repr__(self) -> str:
        return f"<SuperSeeder {len(self._peers)} peers, {len(self._showing)} pieces out>"
