"""
Notices that a download stands still, and says why.

``events.Stalled`` comes once nothing has arrived for ``STALL_AFTER`` seconds, again
when the reasons have changed, and now and then while they have not;
``events.StallEnded`` when bytes arrive again.
"""

from __future__ import annotations

from typing import Protocol

from bittern.engine.events import Event, Stalled, StallEnded, TorrentState
from bittern.engine.reason import ReasonCode
from bittern.engine.reasons.diagnosis import Diagnosis

STALL_AFTER = 5.0
"""Seconds without a byte after which a download counts as standing still; also the shortest
time between two explanations."""
REPEAT_AFTER = 60.0
"""Seconds after which the same explanation is given again."""
_DOWNLOADING = (TorrentState.METADATA, TorrentState.DOWNLOADING)


class WatchedTorrent(Protocol):
    """What the watch asks of a torrent."""

    @property
    def state(self) -> TorrentState:
        """What it is doing."""

    @property
    def num_downloaded(self) -> int:
        """Bytes of blocks received."""

    def diagnose(self) -> Diagnosis:
        """Explain it."""

    def report(self, event: Event) -> None:
        """Tell the outside."""


class StallWatch:
    """The one described in the module's text, of one torrent."""

    __slots__ = ("_codes", "_since", "_state", "_told_at", "_total")

    def __init__(self) -> None:
        self._state: TorrentState | None = None
        self._total = 0
        self._since = 0.0
        """The last instant at which something moved."""
        self._told_at: float | None = None
        self._codes: tuple[ReasonCode, ...] = ()

    def tick(self, torrent: WatchedTorrent, *, now: float) -> None:
        """Look whether something moved; called about once a second while somebody listens."""
        state, total = torrent.state, torrent.num_downloaded
        if state is not self._state or total != self._total:
            self._state, self._total = state, total
            if self._told_at is not None:
                self._told_at = None
                torrent.report(StallEnded(now - self._since))
            self._since = now
        if state not in _DOWNLOADING or now - self._since < STALL_AFTER:
            return
        if self._told_at is not None and now - self._told_at < STALL_AFTER:
            return
        reasons = torrent.diagnose().reasons
        codes = tuple(reason.code for reason in reasons if reason.code is not ReasonCode.SOURCE)
        if self._told_at is None or codes != self._codes or now - self._told_at >= REPEAT_AFTER:
            self._told_at, self._codes = now, codes
            torrent.report(Stalled(now - self._since, reasons))
