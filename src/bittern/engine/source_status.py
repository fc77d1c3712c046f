"""
How a source of peers stands: what was asked, what came back, when it goes on.

A value for people and programs; what a source is and does is in
``engine.sources.base``. Instants are loop time (``loop.time()``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique


@unique
class SourceKind(StrEnum):
    """What sort of source; the names are those of ``events.PeersFound``."""

    TRACKER = "tracker"
    DHT = "dht"
    PEX = "pex"
    LSD = "lsd"
    ZEROCONF = "zeroconf"
    USER = "user"
    LINK = "link"
    """A magnet link (``x.pe``)."""
    INCOMING = "incoming"
    """Peers that connect to us."""
    WEB_SEED = "web_seed"


@unique
class SourceState(StrEnum):
    """How a source stands."""

    OFF = "off"
    """It is not used; ``message`` says why."""
    WAITING = "waiting"
    """Nothing was asked or heard yet; ``message`` says what it waits for, if for anything."""
    ASKING = "asking"
    WORKING = "working"
    """The last answer was good, also when it named nobody."""
    FAILING = "failing"
    """The last question failed; ``message`` says how, ``next_at`` is None if it was the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """
    One source of peers at one instant.

    Args:
        kind: what sort it is.
        name: which of its sort: the URL of a tracker, ``IPv4`` or ``IPv6`` of the DHT.
        state: how it stands.
        last_asked_at: when we asked last; None for one that is never asked.
        last_answer_at: when it answered, failed, or spoke up last.
        num_peers: endpoints in its last answer; None while there is none.
        num_found: endpoints in all its answers of this run, repeated ones too.
        num_bytes: that a web seed has sent.
        message: for people: the reason of a failure or of being off, a warning.
        next_at: when it is asked again; None when that is not planned.
    """

    kind: SourceKind
    name: str = ""
    state: SourceState
    last_asked_at: float | None = None
    last_answer_at: float | None = None
    num_peers: int | None = None
    num_found: int = 0
    num_bytes: int = 0
    message: str | None = None
    next_at: float | None = None
