"""
Why a torrent does what it does, or nothing: a code for programs, a sentence for people.

Sentences may hold names and texts from strangers; escape them before showing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique


@unique
class ReasonCode(StrEnum):
    """What a reason is about. Codes are only ever added."""

    PAUSED = "paused"
    STOPPED = "stopped"
    CHECKING = "checking"
    ERROR = "error"
    DISK_FULL = "disk_full"
    VOLUME_MISSING = "volume_missing"
    """The volume that holds the files is not mounted."""
    DISK_SLOW = "disk_slow"
    MOVING = "moving"
    """Bytes move; nothing is wrong."""
    COMPLETE = "complete"
    """Everything wanted is there."""
    RATE_LIMIT = "rate_limit"
    CONNECTION_LIMIT = "connection_limit"
    HALF_OPEN_LIMIT = "half_open_limit"
    CONNECTING = "connecting"
    NO_PEERS_KNOWN = "no_peers_known"
    PEERS_UNREACHABLE = "peers_unreachable"
    PEERS_READY = "peers_ready"
    PEERS_WAIT = "peers_wait"
    PEERS_BANNED = "peers_banned"
    NO_METADATA = "no_metadata"
    FETCHING_METADATA = "fetching_metadata"
    FETCHING_HASHES = "fetching_hashes"
    """The piece layers of a v2 torrent from a magnet link are still to come (BEP 52)."""
    PIECES_MISSING = "pieces_missing"
    """No connected peer has them."""
    CHOKED = "choked"
    SNUBBED = "snubbed"
    ABOUT_TO_ASK = "about_to_ask"
    SOURCE = "source"
    """How one source of peers stands."""


@dataclass(frozen=True, slots=True)
class Reason:
    """
    One reason; ``str`` is the sentence.

    Args:
        code: for programs.
        text: for people.
    """

    code: ReasonCode
    text: str

    def __str__(self) -> str:
        return self.text
