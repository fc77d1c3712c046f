"""What torrents tell of themselves, and whether it makes sense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bittern.engine import events
from bittern.engine.events import Event, TorrentState
from bittern.engine.listeners import EventStream
from bittern.engine.peers.range_reader import HttpOpener
from bittern.engine.torrent import Torrent
from tests.engine.sources.fake_tracker import TrackedSession

_S = TorrentState
_NEXT = {
    _S.PAUSED: {_S.CHECKING, _S.METADATA, _S.STOPPED, _S.ERROR},
    _S.METADATA: {_S.CHECKING, _S.PAUSED, _S.ERROR, _S.STOPPED},
    _S.CHECKING: {_S.DOWNLOADING, _S.SEEDING, _S.METADATA, _S.PAUSED, _S.ERROR, _S.STOPPED},
    _S.DOWNLOADING: {_S.SEEDING, _S.CHECKING, _S.PAUSED, _S.ERROR, _S.STOPPED},
    _S.SEEDING: {_S.DOWNLOADING, _S.CHECKING, _S.PAUSED, _S.ERROR, _S.STOPPED},
    _S.ERROR: {_S.CHECKING, _S.METADATA, _S.PAUSED, _S.STOPPED},
    _S.STOPPED: {_S.CHECKING, _S.METADATA, _S.ERROR, _S.PAUSED},
}
"""Which state may follow which. One that was not started yet is stopped as well."""


def check_events(told: Sequence[Event], first: TorrentState) -> None:
    """Prove that what a torrent has told of its life makes sense."""
    state, is_complete, is_last = first, False, False
    pieces: set[int] = set()
    files: set[int] = set()
    for event in told:
        match event:
            case events.StateChanged(new):
                assert new is not state, f"{new} twice"
                assert new in _NEXT[state], f"{state} -> {new}"
                assert not is_last or new is _S.STOPPED, "complete, and then something else"
                if new is _S.CHECKING or state is _S.SEEDING:  # it may have looked at rest
                    pieces.clear()
                    files.clear()
                if new is not _S.SEEDING:
                    is_complete = False
                state = new
            case events.PieceVerified(index, num_have, num_pieces):
                # In any other: one that is to stop goes on while it tells its trackers.
                assert state is not _S.METADATA, f"piece {index} while its hash is unknown"
                assert index not in pieces, f"piece {index} twice"
                assert num_have <= num_pieces
                pieces.add(index)
                is_complete = False
            case events.PieceLost(index):
                pieces.discard(index)
                files.clear()
                is_complete = False
            case events.FileCompleted(index, _):
                assert index not in files, f"file {index} twice"
                files.add(index)
            case events.TorrentCompleted():
                # One that is being removed does not change its state any more but to stop.
                is_last |= state is _S.DOWNLOADING
                assert is_last or state is _S.SEEDING, f"complete while {state}"
                assert not is_complete, "complete twice"
                is_complete = True
            case events.TorrentUnusable(reason) | events.StorageFailed(reason):
                assert "a bug" not in reason, reason
            case _:
                pass


class WatchedSession(TrackedSession):
    """A session of which every torrent is listened to from its beginning."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.web: HttpOpener
        """Web servers that it reaches."""
        self.ever: dict[Torrent, tuple[TorrentState, EventStream]] = {}
        """All torrents it ever had: the state in which each began, and what it tells."""
        self.believing: set[Torrent] = set()
        """Those that say they have what they were told they had, until it is checked."""

    def _http(self) -> HttpOpener:
        return self.web

    def _register(self, torrent: object) -> None:
        super()._register(torrent)
        assert isinstance(torrent, Torrent)
        if torrent not in self.ever:
            self.ever[torrent] = torrent.state, torrent.events()
            if torrent.config.skip_check:
                self.believing.add(torrent)


def short(event: Event) -> str:
    match event:
        case events.StateChanged(state):
            return state.name
        case events.PieceVerified(index):
            return f"+{index}"
        case events.PieceLost(index):
            return f"-{index}"
        case events.FileCompleted(index):
            return f"file{index}"
        case events.CheckProgressed():
            return "."
        case events.StorageFailed(reason):
            return f"failed({reason})"
        case _:
            return type(event).__name__
