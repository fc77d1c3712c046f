"""
What the engine tells the outside.

Events are frozen values in the past tense. Those that a person wants to see
are always made; those marked *trace* describe single protocol messages and are
made only while somebody listens with ``trace=True``, since the data path must
not pay for them otherwise.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from bittern.core.endpoint import Endpoint
from bittern.core.errors import BitTorrentError, StorageError
from bittern.engine.reason import Reason
from bittern.engine.source_status import SourceStatus


class TorrentState(enum.Enum):
    """What a torrent is doing."""

    METADATA = "metadata"
    """Fetching the info dictionary from peers (BEP 9)."""
    CHECKING = "checking"
    DOWNLOADING = "downloading"
    SEEDING = "seeding"
    """Everything wanted is there."""
    PAUSED = "paused"
    ERROR = "error"
    """Our disk failed; ``Torrent.error`` says how."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """The torrent is doing something else now."""

    state: TorrentState


@dataclass(frozen=True, slots=True)
class MetadataReceived(Event):
    """The info dictionary is there and matches its hash: from peers, or kept by an earlier run."""

    name: str
    length: int


@dataclass(frozen=True, slots=True)
class CheckProgressed(Event):
    """A recheck went on; lengths are pieces."""

    num_checked: int
    num_pieces: int


@dataclass(frozen=True, slots=True)
class TrackerAsked(Event):
    """An announce went out; ``event`` is ``started``, ``completed``, or empty."""

    url: str
    event: str


@dataclass(frozen=True, slots=True)
class TrackerAnnounced(Event):
    """A tracker answered."""

    url: str
    event: str
    num_peers: int
    num_seeds: int | None
    num_leechers: int | None
    interval: float


@dataclass(frozen=True, slots=True)
class TrackerFailed(Event):
    """
    A tracker refused or could not be reached; ``retry_at`` is loop time.

    ``is_refusal`` tells that it did answer: ``reason`` is what it said.
    """

    url: str
    reason: str
    retry_at: float | None
    is_refusal: bool = False


@dataclass(frozen=True, slots=True)
class SourceChanged(Event):
    """A source of peers was asked, has answered, failed, or was switched on or off."""

    source: SourceStatus


@dataclass(frozen=True, slots=True)
class PeersFound(Event):
    """Peers are named by ``tracker``, ``dht``, ``pex``, ``lsd``, ``zeroconf``, ``link``, ``user``
    or ``resume``: those of a torrent that was there a moment ago.
    """

    source: str
    num_peers: int


@dataclass(frozen=True, slots=True)
class PeerDialled(Event):
    """A connection to a known peer is being tried."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class PeerUnreachable(Event):
    """A connection failed before its handshake; ``retry_at`` None: not tried again by itself."""

    endpoint: Endpoint
    reason: str
    retry_at: float | None


@dataclass(frozen=True, slots=True)
class PeerConnected(Event):
    """A connection finished its handshake."""

    endpoint: Endpoint
    is_outgoing: bool
    peer_id: bytes
    client: str


@dataclass(frozen=True, slots=True)
class PeerDisconnected(Event):
    """A connection that had finished its handshake ended."""

    endpoint: Endpoint
    reason: str


@dataclass(frozen=True, slots=True)
class PeerBanned(Event):
    """An address sent corrupt data and is not talked to for a while."""

    endpoint: Endpoint
    reason: str


@dataclass(frozen=True, slots=True)
class PeerUnchoked(Event):
    """We let a peer ask us for blocks; ``is_optimistic`` by chance and not for what it gives."""

    endpoint: Endpoint
    is_optimistic: bool


@dataclass(frozen=True, slots=True)
class PeerChoked(Event):
    """We stop serving a peer for now."""

    endpoint: Endpoint
    reason: str


@dataclass(frozen=True, slots=True)
class PieceVerified(Event):
    """A piece matches its hash and is handed to the operating system."""

    index: int
    num_have: int
    num_pieces: int


@dataclass(frozen=True, slots=True)
class PieceFailed(Event):
    """A piece did not match its hash; it will be fetched again."""

    index: int


@dataclass(frozen=True, slots=True)
class PieceLost(Event):
    """A piece we had is not on disk any more, or not as it was; it will be fetched again."""

    index: int


@dataclass(frozen=True, slots=True)
class PieceDamaged(Event):
    """A v2 piece on disk is damaged; it was found out where, and only that is fetched."""

    index: int
    num_bad: int
    num_blocks: int


@dataclass(frozen=True, slots=True)
class FileCompleted(Event):
    """
    The last piece of a file has come; empty files, and those that were there, make none.

    ``path`` is the torrent's own, not safe to use as one.
    """

    index: int
    path: str


@dataclass(frozen=True, slots=True)
class FileReused(Event):
    """
    A file was there already, elsewhere; ``how`` is ``copy``, ``reflink`` or ``hardlink``.

    ``length`` are the bytes taken: less than the file where some had been downloaded.
    """

    index: int
    path: str
    length: int
    source: str
    how: str


@dataclass(frozen=True, slots=True)
class TorrentCompleted(Event):
    """Everything wanted is there and verified."""


@dataclass(frozen=True, slots=True)
class StorageFailed(Event):
    """Our disk failed."""

    reason: str


@dataclass(frozen=True, slots=True)
class TorrentUnusable(Event):
    """The torrent itself is at fault, as a hybrid that contradicts itself; no peer is to blame."""

    reason: str


def failure(error: BitTorrentError) -> Event:
    """Return the event that tells of what stopped a torrent."""
    kind = StorageFailed if isinstance(error, StorageError) else TorrentUnusable
    return kind(str(error))


@dataclass(frozen=True, slots=True)
class Stalled(Event):
    """Nothing has moved for ``seconds``; the reasons are those of ``Torrent.diagnose``."""

    seconds: float
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class StallEnded(Event):
    """Bytes move again, after ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class MessageSent(Event):
    """*Trace.* A protocol message went out; ``text`` is a short form, ``raw`` its first bytes."""

    endpoint: Endpoint
    kind: str
    text: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class MessageReceived(Event):
    """*Trace.* A protocol message came in; ``text`` is a short form, ``raw`` its first bytes."""

    endpoint: Endpoint
    kind: str
    text: str
    raw: bytes
