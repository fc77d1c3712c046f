"""
A complete BitTorrent system in pure Python.

The names below are loaded when they are first used, so that ``import bittern``
costs next to nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING: bool = False
"""True for type checkers: ``typing`` itself takes longer to import than all that is needed here."""

if TYPE_CHECKING:
    from bittern.codec.info import Info, Version
    from bittern.codec.magnet import Magnet, format_magnet, parse_magnet
    from bittern.codec.metainfo import Metainfo, decode_metainfo
    from bittern.core.endpoint import Endpoint
    from bittern.core.errors import (
        BitTorrentError,
        ConfigError,
        FetchError,
        MagnetError,
        MetainfoError,
        StorageError,
    )
    from bittern.core.ids import InfoHash, InfoHashV2
    from bittern.engine import events
    from bittern.engine.config import SessionConfig, TorrentConfig
    from bittern.engine.events import Event, TorrentState
    from bittern.engine.listeners import EventStream
    from bittern.engine.reason import Reason, ReasonCode
    from bittern.engine.reasons.diagnosis import Diagnosis
    from bittern.engine.session import Session
    from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
    from bittern.engine.sources.trackers import TrackerStatus
    from bittern.engine.stats import PeerInfo, TorrentStats, WebSeedInfo
    from bittern.engine.torrent import Torrent
    from bittern.storage.adopt import ReuseHow
    from bittern.storage.creator import CreateOptions, create_torrent

_HOMES = {
    "BitTorrentError": "core.errors",
    "ConfigError": "core.errors",
    "CreateOptions": "storage.creator",
    "Diagnosis": "engine.reasons.diagnosis",
    "Endpoint": "core.endpoint",
    "Event": "engine.events",
    "EventStream": "engine.listeners",
    "FetchError": "core.errors",
    "Info": "codec.info",
    "InfoHash": "core.ids",
    "InfoHashV2": "core.ids",
    "Magnet": "codec.magnet",
    "MagnetError": "core.errors",
    "Metainfo": "codec.metainfo",
    "MetainfoError": "core.errors",
    "PeerInfo": "engine.stats",
    "Reason": "engine.reason",
    "ReasonCode": "engine.reason",
    "ReuseHow": "storage.adopt",
    "Session": "engine.session",
    "SessionConfig": "engine.config",
    "SourceKind": "engine.source_status",
    "SourceState": "engine.source_status",
    "SourceStatus": "engine.source_status",
    "StorageError": "core.errors",
    "Torrent": "engine.torrent",
    "TorrentConfig": "engine.config",
    "TorrentState": "engine.events",
    "TorrentStats": "engine.stats",
    "TrackerStatus": "engine.sources.trackers",
    "Version": "codec.info",
    "WebSeedInfo": "engine.stats",
    "create_torrent": "storage.creator",
    "decode_metainfo": "codec.metainfo",
    "format_magnet": "codec.magnet",
    "parse_magnet": "codec.magnet",
}
"""In which module each public name is."""

__all__ = [
    "BitTorrentError",
    "ConfigError",
    "CreateOptions",
    "Diagnosis",
    "Endpoint",
    "Event",
    "EventStream",
    "FetchError",
    "Info",
    "InfoHash",
    "InfoHashV2",
    "Magnet",
    "MagnetError",
    "Metainfo",
    "MetainfoError",
    "PeerInfo",
    "Reason",
    "ReasonCode",
    "ReuseHow",
    "Session",
    "SessionConfig",
    "SourceKind",
    "SourceState",
    "SourceStatus",
    "StorageError",
    "Torrent",
    "TorrentConfig",
    "TorrentState",
    "TorrentStats",
    "TrackerStatus",
    "Version",
    "WebSeedInfo",
    "create_torrent",
    "decode_metainfo",
    "events",
    "format_magnet",
    "parse_magnet",
]


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    from importlib import import_module

    if name == "events":
        return import_module("bittern.engine.events")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'bittern' has no attribute {name!r}")
    value = getattr(import_module(f"bittern.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
