"""
What a peer connection tells its owner: the events of ``proto.peer``.

Sources: BEP 3, BEP 5, BEP 6, BEP 10, BEP 52, BEP 54.
"""

from __future__ import annotations

from dataclasses import dataclass

from bittern.codec.extension import ExtendedHandshake
from bittern.codec.wire import Handshake, HashRange
from bittern.core.bitfield import Bitfield

ReceivedBlock = tuple[int, int, memoryview]
"""Index, begin, payload; the payload is only valid while the receive buffer is."""
Request = tuple[int, int, int]
"""Index, begin, length."""


@dataclass(frozen=True, slots=True)
class PeerEvent:
    """Base of what a peer connection tells its owner."""


@dataclass(frozen=True, slots=True)
class HandshakeReceived(PeerEvent):
    """The peer's handshake arrived and names our torrent."""

    handshake: Handshake


@dataclass(frozen=True, slots=True)
class BlocksReceived(PeerEvent):
    """Blocks that were asked for, in order of arrival."""

    blocks: list[ReceivedBlock]


@dataclass(frozen=True, slots=True)
class UnexpectedBlockReceived(PeerEvent):
    """A block nobody asked for was thrown away; ``length`` bytes are wasted."""

    length: int


@dataclass(frozen=True, slots=True)
class Choked(PeerEvent):
    """The peer chokes us. ``dropped`` requests will not be answered (BEP 3, not BEP 6)."""

    dropped: list[Request]


@dataclass(frozen=True, slots=True)
class Unchoked(PeerEvent):
    """The peer no longer chokes us."""


@dataclass(frozen=True, slots=True)
class InterestChanged(PeerEvent):
    """The peer is, or is no longer, interested in what we have."""

    is_interested: bool


@dataclass(frozen=True, slots=True)
class BitfieldReceived(PeerEvent):
    """What the peer has; also from have all and have none (BEP 6)."""

    bitfield: Bitfield


@dataclass(frozen=True, slots=True, match_args=False)
class HavesReceived(PeerEvent):
    """
    The peer has more pieces, all of them new, from haves or a later bitfield.

    Many of them may wait in one wake-up, so each takes as much as its pieces, and not, as
    ``pieces`` does, as all pieces of the torrent.
    """

    __match_args__ = ("pieces",)

    num_pieces: int
    """Of the torrent."""
    indices: tuple[int, ...]
    """In the order in which they came."""

    @property
    def pieces(self) -> Bitfield:
        """The set of them, made anew each time."""
        return Bitfield.of(self.num_pieces, self.indices)


@dataclass(frozen=True, slots=True)
class DontHaveReceived(PeerEvent):
    """The peer lost a piece that it had (BEP 54)."""

    index: int


@dataclass(frozen=True, slots=True)
class RequestsReceived(PeerEvent):
    """``incoming`` has new requests."""


@dataclass(frozen=True, slots=True)
class RequestRejected(PeerEvent):
    """The peer will not serve a request of ours (BEP 6)."""

    request: Request


@dataclass(frozen=True, slots=True)
class PortReceived(PeerEvent):
    """The UDP port of the peer's DHT node (BEP 5)."""

    port: int


@dataclass(frozen=True, slots=True)
class ExtendedHandshakeReceived(PeerEvent):
    """The peer told its extensions; may come again, with all said so far (BEP 10)."""

    handshake: ExtendedHandshake


@dataclass(frozen=True, slots=True)
class ExtensionReceived(PeerEvent):
    """A message of an extension that we announced, by its name (BEP 10)."""

    name: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class HashesRequested(PeerEvent):
    """The peer asks for hashes of a file's tree (BEP 52)."""

    wanted: HashRange


@dataclass(frozen=True, slots=True)
class HashesReceived(PeerEvent):
    """Hashes of a file's tree, 32 bytes each, end to end, uncles last (BEP 52)."""

    what: HashRange
    hashes: bytes


@dataclass(frozen=True, slots=True)
class HashesRejected(PeerEvent):
    """The peer will not send these hashes (BEP 52)."""

    wanted: HashRange
