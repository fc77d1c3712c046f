"""
What a running verb tells: events, progress and its result, in the form asked for.

For a person: progress and the lines that matter, on stdout. With ``--json``:
one object at the end. With ``--jsonl``: every event as it happens, each an
object with ``type``, ``time`` (seconds since 1970) and ``torrent``. Beside JSON
the progress goes to stderr, and only if that is a terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bittern.cli.display import Row, make_display
from bittern.cli.narration import event_json, event_lines, is_trace, plain
from bittern.cli.output import print_json, print_json_line
from bittern.engine import events

if TYPE_CHECKING:
    from bittern.cli.options import ReportOptions
    from bittern.cli.output import Json

_ALWAYS_TOLD = (
    events.MetadataReceived,
    events.PeerBanned,
    events.StorageFailed,
    events.TorrentUnusable,
    events.TorrentCompleted,
)
"""Events that a person hears of without asking for more."""


class Report:
    """
    One running verb's report.

    Args:
        wishes: the options.
        several: more than one torrent is told about, so lines name theirs.
    """

    def __init__(self, wishes: ReportOptions, *, several: bool = False) -> None:
        self._wishes = wishes
        self.several: bool = several
        self._started_at = time.monotonic()
        is_json = wishes.json or wishes.jsonl
        stream = sys.stderr if is_json else sys.stdout
        self._display = make_display(stream, quiet=wishes.quiet, plain=not is_json)
        self._tells_lines = not wishes.quiet and (not is_json or sys.stderr.isatty())

    @property
    def interval(self) -> float:
        """Seconds after which ``progress`` should be called again."""
        return self._display.interval

    @property
    def wants_events(self) -> bool:
        """True when a person wants to hear of every event."""
        return self._wishes.verbose >= 1

    @property
    def wants_trace(self) -> bool:
        """True when single protocol messages are to be told."""
        return self._wishes.verbose >= 2

    def event(self, torrent: str, name: str, event: events.Event) -> None:
        """
        Tell an event.

        Args:
            torrent: the info hash in hexadecimal.
            name: what the torrent is called.
            event: what happened.
        """
        if self._wishes.jsonl:
            self._json_line({**event_json(event), "torrent": torrent})
        if not self._is_wanted(event):
            return
        for line in event_lines(event):
            self._line(f"{name}: {line}" if self.several else line)

    def note(self, kind: str, text: str, **fields: object) -> None:
        """Tell something that is no engine event; ``fields`` go with it as JSON."""
        if self._wishes.jsonl:
            self._json_line({"type": kind} | {key: plain(value) for key, value in fields.items()})
        if text and self._tells_lines:
            self._line(text)

    def progress(self, rows: Sequence[Row]) -> None:
        """Show how far the torrents are."""
        self._display.update(rows)

    def status(self, text: str) -> None:
        """Show how it stands, on a line that the next call replaces."""
        if self._tells_lines:
            self._display.status(text)

    def statistics(self, torrent: str, fields: Mapping[str, object]) -> None:
        """Write a torrent's figures as a JSON line, where such lines are asked for."""
        if self._wishes.jsonl:
            values = {key: plain(value) for key, value in fields.items()}
            self._json_line({"type": "progress", "torrent": torrent, **values})

    def result(self, values: Sequence[Mapping[str, Json]], lines: Sequence[str] = ()) -> None:
        """
        Tell the end result.

        Args:
            values: an object per torrent; one alone is written without a list around it.
            lines: the same for a person, not yet escaped; none for nothing.
        """
        self.close()
        if self._wishes.jsonl:
            for value in values:
                self._json_line({"type": "result", **value})
        elif self._wishes.json:
            if values:
                print_json(values[0] if len(values) == 1 and not self.several else list(values))
        elif not self._wishes.quiet:
            for line in lines:
                self._display.line(line)

    def close(self) -> None:
        """Leave the terminal as it was; idempotent."""
        self._display.close()

    def _is_wanted(self, event: events.Event) -> bool:
        if not self._tells_lines:
            return False
        if is_trace(event):
            return self._wishes.verbose >= 2
        return self._wishes.verbose >= 1 or isinstance(event, _ALWAYS_TOLD)

    def _line(self, text: str) -> None:
        if self._wishes.verbose:
            text = f"{time.monotonic() - self._started_at:8.3f}  {text}"
        self._display.line(text)

    def _json_line(self, value: dict[str, Json]) -> None:
        head: dict[str, Json] = {"type": value["type"], "time": round(time.time(), 3)}
        print_json_line(head | value)
