"""
What a session lends to each of its torrents.

One value, so that a torrent asks for nothing global and can be moved to
another session.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bittern.core.ids import PeerId
from bittern.engine.config import SessionConfig
from bittern.engine.limits import SharedLimit
from bittern.engine.pieces.upload import SendBuffer
from bittern.engine.sources.announces import Announces
from bittern.engine.sources.base import SharedSource
from bittern.engine.sources.tracker_client import TrackerClient
from bittern.engine.store.disk import Disk
from bittern.engine.store.journal import Journal
from bittern.engine.store.reuse import Donor
from bittern.net.stream import Network
from bittern.policy.bans import Bans
from bittern.storage.handles import HandleCache
from bittern.storage.system import OsCalls
from bittern.storage.volume import Folding

if TYPE_CHECKING:
    from bittern.engine.torrent import Torrent


@dataclass(slots=True)
class Services:
    """The session's means; owned by the session, lent to its torrents."""

    loop: asyncio.AbstractEventLoop
    config: SessionConfig
    rng: random.Random
    random_bytes: Callable[[int], bytes]
    network: Network
    disk: Disk
    send_buffer: SendBuffer
    handles: HandleCache
    os_calls: OsCalls
    peer_id: PeerId
    download_limit: SharedLimit
    upload_limit: SharedLimit
    tracker_client: TrackerClient | None
    """None when trackers are switched off."""
    announces: Announces
    """When each torrent announces to its trackers."""
    listen_port: Callable[[], int]
    """Where peers reach us; 0 when they cannot."""
    request_dial: Callable[[], None]
    """Says that a torrent would like to connect to somebody."""
    may_connect: Callable[[], bool]
    """Tells whether the session has room for one more connection."""
    shared_sources: list[SharedSource]
    """The session's own sources of peers, which every torrent may use that is not private."""
    num_connections: Callable[[], int]
    """Connections of all torrents, those in handshake too."""
    num_half_open: Callable[[], int]
    """Outgoing connections under way in the whole session."""
    journal: Journal | None
    """None when nothing is kept beyond the session."""
    active: dict[Torrent, None]
    """The torrents that run, in the order in which they began; only they need looking after."""
    torrents: Callable[[], Sequence[Donor]]
    """All torrents of the session; a new one may take files that another has."""
    hashes_learned: Callable[[object], None]
    """Hears of a torrent that goes by more hashes than it did; ConfigError if one is taken."""
    bans: Bans
    spawn: Callable[[Coroutine[object, object, None], str], None]
    """Runs a coroutine as a supervised task of the session, under that name."""
    dht_port: Callable[[], int]
    """Where our DHT node is, for port messages; 0 when there is none."""
    dht_node_seen: Callable[[str, int], None]
    """Hears of a peer's DHT node (BEP 5)."""
    folding: dict[Path, Folding] = field(default_factory=dict)
    """By output folder, which names fall together there."""
