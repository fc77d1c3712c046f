"""
What a session lends to every part of its torrents.

One value, so that a part asks for nothing global and can be moved to another
session. What torrents themselves get on top is in ``engine.torrent_services``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from bittern.core.endpoint import Endpoint
from bittern.core.ids import PeerId
from bittern.engine.config import SessionConfig
from bittern.engine.limits import SharedLimit
from bittern.engine.store.disk import Disk
from bittern.policy.bans import Bans


@dataclass(slots=True, kw_only=True)
class Services:
    """The session's means; owned by the session, lent to the parts of its torrents."""

    loop: asyncio.AbstractEventLoop
    config: SessionConfig
    rng: random.Random
    disk: Disk
    peer_id: PeerId
    download_limit: SharedLimit
    upload_limit: SharedLimit
    listen_port: Callable[[], int]
    """Where peers reach us; 0 when they cannot."""
    request_dial: Callable[[], None]
    """Says that a torrent would like to connect to somebody."""
    may_connect: Callable[[], bool]
    """Tells whether the session has room for one more connection."""
    num_connections: Callable[[], int]
    """Connections of all torrents, those in handshake too."""
    num_half_open: Callable[[], int]
    """Outgoing connections under way in the whole session."""
    bans: Bans
    """Who is not talked to for a while, whatever the torrent."""
    external: dict[bool, Endpoint]
    """Where we are as others see it, by ``is_ipv6``; of a family that is known."""
    address_told: Callable[[str], None]
    """Hears where a tracker sees us (BEP 24)."""
    spawn: Callable[[Coroutine[object, object, None], str], None]
    """Runs a coroutine as a supervised task of the session, under that name."""
    dht_port: Callable[[], int]
    """Where our DHT node is, for port messages; 0 when there is none."""
    dht_node_seen: Callable[[str, int], None]
    """Hears of a peer's DHT node (BEP 5)."""
