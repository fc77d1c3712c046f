"""The tracker programs that are run against bittern, and bittern's own, behind one interface."""

from __future__ import annotations

from tests.interop.trackers.base import Tracker
from tests.interop.trackers.bittern import BitternTracker
from tests.interop.trackers.bittorrent_tracker import BittorrentTracker
from tests.interop.trackers.opentracker import Opentracker

TRACKERS: dict[str, type[Tracker]] = {
    tracker.name: tracker for tracker in (Opentracker, BittorrentTracker, BitternTracker)
}

__all__ = ["TRACKERS", "Tracker"]
