"""
A complete BitTorrent system in pure Python.

The names below are loaded when they are first used, so that ``import bittern``
costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bittern.codec.magnet import Magnet, format_magnet, parse_magnet
    from bittern.codec.metainfo import Metainfo, decode_metainfo
    from bittern.core.endpoint import Endpoint
    from bittern.core.errors import BitTorrentError
    from bittern.engine.config import SessionConfig, TorrentConfig
    from bittern.engine.events import TorrentState
    from bittern.engine.session import Session
    from bittern.engine.stats import PeerInfo, TorrentStats
    from bittern.engine.torrent import Torrent
    from bittern.storage.adopt import ReuseHow
    from bittern.storage.creator import CreateOptions, create_torrent

_HOMES = {
    "BitTorrentError": "core.errors",
    "CreateOptions": "storage.creator",
    "Endpoint": "core.endpoint",
    "Magnet": "codec.magnet",
    "Metainfo": "codec.metainfo",
    "PeerInfo": "engine.stats",
    "ReuseHow": "storage.adopt",
    "Session": "engine.session",
    "SessionConfig": "engine.config",
    "Torrent": "engine.torrent",
    "TorrentConfig": "engine.config",
    "TorrentState": "engine.events",
    "TorrentStats": "engine.stats",
    "create_torrent": "storage.creator",
    "decode_metainfo": "codec.metainfo",
    "format_magnet": "codec.magnet",
    "parse_magnet": "codec.magnet",
}

__all__ = [
    "BitTorrentError",
    "CreateOptions",
    "Endpoint",
    "Magnet",
    "Metainfo",
    "PeerInfo",
    "ReuseHow",
    "Session",
    "SessionConfig",
    "Torrent",
    "TorrentConfig",
    "TorrentState",
    "TorrentStats",
    "create_torrent",
    "decode_metainfo",
    "format_magnet",
    "parse_magnet",
]


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'bittern' has no attribute {name!r}")
    value = getattr(import_module(f"bittern.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
