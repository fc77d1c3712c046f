"""
What a client tells a tracker and what it hears back, whatever carries it.

The same values travel over HTTP (BEP 3, 7, 23, 48) and UDP (BEP 15), and the
announce policy speaks of them without knowing either.
"""

from __future__ import annotations

import enum
import unicodedata
from dataclasses import dataclass

from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash, PeerId

MIN_INTERVAL = 60
"""Limit: N5. Shortest time between announces that we take a tracker's word for; seconds."""
MAX_INTERVAL = 86_400
"""Limit: N5. Longest; seconds."""
DEFAULT_INTERVAL = 1_800
"""Limit: N5. Used when a tracker names none or nonsense; seconds."""
MAX_TEXT_LENGTH = 1_024
"""Limit: N5. Bytes of a tracker's words that we keep."""
MAX_TRACKER_ID_LENGTH = 256
"""Limit: N5. Bytes of a ``tracker id`` that we send back."""
MAX_ANSWER_PEERS = 2_000
"""Limit: N5. Peers taken from one answer."""


class Event(enum.Enum):
    """Why an announce is made; the value is its name on the wire (BEP 3, BEP 21)."""

    NONE = ""
    """One of those at regular intervals."""
    STARTED = "started"
    COMPLETED = "completed"
    STOPPED = "stopped"
    PAUSED = "paused"
    """Regular, from a partial seed (BEP 21); UDP has no number for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceRequest:
    """
    One announce.

    Args:
        port: where we take peer connections; 0..65535.
        uploaded, downloaded, left: bytes, 0 to 2**63 - 1.
        key: 32 random bits that stay the same for a torrent in a session, so that a
            tracker can match announces made from several addresses (BEP 7).
        numwant: peers asked for; None leaves it to the tracker, 0 asks for none.
        host: the address we claim to have; trackers ignore it unless they trust us.
        tracker_id: what this tracker called itself in an earlier answer.
    """

    info_hash: InfoHash
    peer_id: PeerId
    port: int
    uploaded: int = 0
    downloaded: int = 0
    left: int = 0
    event: Event = Event.NONE
    key: int | None = None
    numwant: int | None = None
    host: str | None = None
    tracker_id: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceAnswer:
    """
    A tracker's answer to an announce; intervals are already inside their limits.

    Args:
        interval: seconds to the next regular announce.
        min_interval: seconds before which the tracker wants no further one; at most
            ``interval``.
        num_seeds, num_leechers, num_downloaded: the swarm as the tracker sees it; None
            where it did not say.
        external_host: our own address as the tracker sees it (BEP 24).
        warning: the tracker's words, cleaned for display.
    """

    interval: int = DEFAULT_INTERVAL
    min_interval: int = MIN_INTERVAL
    peers: tuple[Endpoint, ...] = ()
    num_seeds: int | None = None
    num_leechers: int | None = None
    num_downloaded: int | None = None
    external_host: str | None = None
    tracker_id: bytes = b""
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class FailureAnswer:
    """
    A tracker's refusal.

    Args:
        reason: its words, cleaned for display.
        retry_after: seconds until it may be asked again (BEP 31), ``inf`` for never,
            None when it did not say.
    """

    reason: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class ScrapeEntry:
    """Counts of one swarm (BEP 48); None where the tracker did not say."""

    num_seeds: int | None = None
    num_downloaded: int | None = None
    num_leechers: int | None = None


def clamp_interval(seconds: int | None) -> int:
    """Return an announce interval inside its limits; nonsense gives the default (N5)."""
    if seconds is None or seconds <= 0:
        return DEFAULT_INTERVAL
    return min(max(seconds, MIN_INTERVAL), MAX_INTERVAL)


def clean_text(raw: bytes, *, limit: int = MAX_TEXT_LENGTH) -> str:
    """
    Return untrusted bytes as one line of harmless text.

    Bytes beyond ``limit`` are cut, bad UTF-8 is replaced; control, formatting
    (direction marks, zero-width characters), surrogate and private-use characters
    become spaces, and runs of spaces one.
    """
    text = raw[:limit].decode("utf-8", "replace")
    visible = (" " if unicodedata.category(char)[0] in "CZ" else char for char in text)
    return " ".join("".join(visible).split())
