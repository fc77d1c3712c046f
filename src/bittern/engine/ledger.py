"""
What a torrent knows of its pieces and totals while no swarm does.

While a torrent runs, its swarm counts; when it stops or rests, the counts are
entered here. One small object: that everything is there, and everything wanted,
which is so of every torrent at rest, takes no memory per piece.
"""

from __future__ import annotations

from typing import Protocol

from bittern.core.bitfield import Bitfield
from bittern.policy.picker import Picker

MAX_SEEN = 10_000
"""Addresses that are counted as met; more are not told apart."""


class CountingSwarm(Protocol):
    """What is entered of a swarm."""

    picker: Picker
    num_downloaded: int
    num_uploaded: int
    num_wasted: int


class Ledger:
    """
    The one described in the module's text, of one torrent.

    Args:
        num_pieces: 0 while the metadata is unknown.

    Attributes:
        num_pieces: of the torrent.
        num_downloaded, num_uploaded: bytes of blocks in runs that are over.
        num_wasted: bytes of blocks received in vain in this session.
    """

    __slots__ = (
        "_have",
        "_seen",
        "_wanted",
        "num_downloaded",
        "num_pieces",
        "num_uploaded",
        "num_wasted",
    )

    def __init__(self, num_pieces: int) -> None:
        self.num_pieces: int = num_pieces
        self._have: int | None = 0 if num_pieces else None
        self._wanted: int | None = None
        self._seen: set[str] | None = None
        self.num_downloaded: int = 0
        self.num_uploaded: int = 0
        self.num_wasted: int = 0

    @property
    def have(self) -> int:
        """The pieces that are there, as bits of a ``Bitfield``."""
        return self._expand(self._have)

    @have.setter
    def have(self, bits: int) -> None:
        self._have = self._compact(bits)

    @property
    def wanted(self) -> int:
        """The pieces of wanted files, as bits of a ``Bitfield``; all until something is chosen."""
        return self._expand(self._wanted)

    @wanted.setter
    def wanted(self, bits: int | None) -> None:
        self._wanted = None if bits is None else self._compact(bits)

    def _expand(self, bits: int | None) -> int:
        return Bitfield.full(self.num_pieces).bits if bits is None else bits

    def _compact(self, bits: int) -> int | None:
        return None if bits.bit_count() == self.num_pieces else bits

    def learn(self, num_pieces: int) -> None:
        """Take note that the metadata has come: of so many pieces none is there."""
        self.num_pieces = num_pieces
        self.have = 0

    def enter(self, swarm: CountingSwarm) -> None:
        """Take over what a swarm has counted, once, when it ends."""
        self.num_downloaded += swarm.num_downloaded
        self.num_uploaded += swarm.num_uploaded
        self.num_wasted += swarm.num_wasted
        self.have, self.wanted = swarm.picker.have, swarm.picker.wanted

    def meet(self, address: str) -> None:
        """Count a peer's address, if it is new."""
        if self._seen is None:
            self._seen = set()
        if len(self._seen) < MAX_SEEN:
            self._seen.add(address)

    @property
    def num_seen(self) -> int:
        """How many addresses were met."""
        return 0 if self._seen is None else len(self._seen)
