"""
What a torrent has, wants and has moved, whether it runs or not.

While a torrent runs, its swarm counts and the ledger asks it; when it stops or
rests, the counts are entered here. One small object: that everything is there,
and everything wanted, which is so of every torrent at rest, takes no memory per piece.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Protocol
from zlib import crc32

from bittern.core.bitfield import Bitfield
from bittern.policy.picker import Picker
from bittern.policy.web_seeds import WebSeedRecord

MAX_SEEN = 10_000
"""Addresses that are counted as met; more are not told apart."""


class CountingSwarm(Protocol):
    """What is asked and entered of a swarm."""

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
        web_seeds: what is known of each by URL; None for none yet.
        earlier: bytes of blocks received and sent in earlier runs.
    """

    __slots__ = (
        "_have",
        "_num_downloaded",
        "_num_uploaded",
        "_num_wasted",
        "_seen",
        "_swarm",
        "_wanted",
        "earlier",
        "num_pieces",
        "web_seeds",
    )

    def __init__(self, num_pieces: int) -> None:
        self.num_pieces: int = num_pieces
        self.web_seeds: dict[str, WebSeedRecord] | None = None
        self.earlier: tuple[int, int] = (0, 0)
        self._have: int | None = 0 if num_pieces else None
        self._wanted: int | None = None
        self._seen: array[int] | None = None
        """Checksums of addresses, in order: 4 bytes each, since there may be many torrents."""
        self._swarm: CountingSwarm | None = None
        self._num_downloaded = 0
        self._num_uploaded = 0
        self._num_wasted = 0

    # --- pieces --------------------------------------------------------------------------

    @property
    def have(self) -> int:
        """The pieces that are there, as bits of a ``Bitfield``."""
        return self._expand(self._have) if self._swarm is None else self._swarm.picker.have

    @have.setter
    def have(self, bits: int) -> None:
        self._have = self._compact(bits)

    @property
    def wanted(self) -> int:
        """The pieces of wanted files, as bits of a ``Bitfield``; all until something is chosen."""
        return self._expand(self._wanted) if self._swarm is None else self._swarm.picker.wanted

    @wanted.setter
    def wanted(self, bits: int | None) -> None:
        self._wanted = None if bits is None else self._compact(bits)

    @property
    def missing(self) -> int:
        """The pieces that are not there, wanted or not, as bits of a ``Bitfield``."""
        return self._expand(None) & ~self.have

    def _expand(self, bits: int | None) -> int:
        return Bitfield.full(self.num_pieces).bits if bits is None else bits

    def _compact(self, bits: int) -> int | None:
        return None if bits.bit_count() == self.num_pieces else bits

    def learn(self, num_pieces: int) -> None:
        """Take note that the metadata has come: of so many pieces none is there."""
        self.num_pieces = num_pieces
        self.have = 0

    # --- totals --------------------------------------------------------------------------

    @property
    def num_downloaded(self) -> int:
        """Bytes of blocks received in this and earlier runs."""
        swarm = self._swarm
        return self._num_downloaded + (0 if swarm is None else swarm.num_downloaded)

    @property
    def num_uploaded(self) -> int:
        """Bytes of blocks sent in this and earlier runs."""
        swarm = self._swarm
        return self._num_uploaded + (0 if swarm is None else swarm.num_uploaded)

    @property
    def num_wasted(self) -> int:
        """Bytes of blocks received in vain in this session."""
        swarm = self._swarm
        return self._num_wasted + (0 if swarm is None else swarm.num_wasted)

    def resume(self, *, downloaded: int, uploaded: int) -> None:
        """Add the totals of earlier sessions."""
        self.earlier = (downloaded, uploaded)
        self._num_downloaded += downloaded
        self._num_uploaded += uploaded

    # --- a swarm begins and ends ---------------------------------------------------------

    def open(self, swarm: CountingSwarm) -> None:
        """Leave counting to a swarm; what was set here it has been told."""
        self._swarm = swarm

    def close(self) -> None:
        """Enter what the swarm has counted; it has ended."""
        swarm, self._swarm = self._swarm, None
        if swarm is not None:
            self._num_downloaded += swarm.num_downloaded
            self._num_uploaded += swarm.num_uploaded
            self._num_wasted += swarm.num_wasted
            self.have, self.wanted = swarm.picker.have, swarm.picker.wanted

    # --- peers ---------------------------------------------------------------------------

    def meet(self, address: str) -> None:
        """Count a peer's address, if it is new."""
        seen = self._seen
        if seen is None:
            seen = self._seen = array("I")
        mark = crc32(address.encode())
        place = bisect_left(seen, mark)
        if len(seen) < MAX_SEEN and seen[place : place + 1] != array("I", [mark]):
            seen.insert(place, mark)

    @property
    def num_seen(self) -> int:
        """How many addresses were met."""
        return 0 if self._seen is None else len(self._seen)
