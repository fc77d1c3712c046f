"""
Progress for a person: bars on a terminal, now and then a line elsewhere.

A display is fed with one ``Row`` per torrent, a few times a second, and decides
by itself what of it to show. rich is imported only for a terminal.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

from bittern.cli.output import printable, write_text
from bittern.cli.values import format_duration, format_rate, format_share, format_size

if TYPE_CHECKING:
    from rich.progress import TaskID

LIVE_INTERVAL = 0.25
"""Seconds between two updates of a terminal."""

PLAIN_INTERVAL = 5.0
"""Seconds between two lines about one torrent where there is no terminal."""

MAX_ROWS = 20
"""Torrents of which each has a line; more than fit on a screen are told of in one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is shown of one torrent; lengths in bytes, rates in bytes a second."""

    name: str
    state: str
    progress: float
    """0 to 1 of what is wanted."""
    total_length: int
    download_rate: float = 0.0
    upload_rate: float = 0.0
    num_peers: int = 0
    is_checking: bool = False
    """Data on disk is looked at; there is nothing to tell of rates and peers."""
    hash_rate: float | None = None
    """Set while data is only hashed; shown instead of rates and peers."""
    eta: float | None = None
    """Seconds left, or None when unknown or meaningless."""
    note: str = ""
    """Why nothing happens, when nothing happens."""

    @property
    def done_length(self) -> int:
        """Bytes of what is wanted that are there."""
        return int(self.total_length * self.progress)


class Display(Protocol):
    """Where progress and lines go."""

    interval: float
    """Seconds after which ``update`` should be called again, one at most."""

    def update(self, rows: Sequence[Row]) -> None:
        """Show the present state of all torrents."""

    def status(self, text: str) -> None:
        """Show one line that the next one replaces; ``text`` is escaped."""

    def line(self, text: str) -> None:
        """Write one line that stays; ``text`` is escaped."""

    def close(self) -> None:
        """Leave the terminal as it was; idempotent."""


def make_display(stream: TextIO, *, quiet: bool, plain: bool) -> Display:
    """
    Choose the display that suits a stream.

    Args:
        stream: where it writes.
        quiet: show no progress at all, only lines.
        plain: where ``stream`` is no terminal, write a line of progress now and then.
    """
    if quiet:
        return LineDisplay(stream, interval=float("inf"))
    if is_terminal(stream):
        return LiveDisplay(stream)
    return LineDisplay(stream, interval=PLAIN_INTERVAL if plain else float("inf"))


def is_terminal(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal on which a line can be redrawn."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def row_text(row: Row) -> str:
    """Return progress as one line, as logs have it."""
    if not row.total_length:
        parts = [f"{row.name}: {row.state}"]
    else:
        parts = [
            f"{row.name}: {row.state} {format_share(row.progress)}",
            f"{format_size(row.done_length)} of {format_size(row.total_length)}",
        ]
    if row.hash_rate is not None:
        parts.append(format_rate(row.hash_rate))
    elif not row.is_checking:
        parts.append(f"down {format_rate(row.download_rate)}")
        parts.append(f"up {format_rate(row.upload_rate)}")
        parts.append(f"{row.num_peers} {'peer' if row.num_peers == 1 else 'peers'}")
    if row.progress < 1 and row.eta is not None and row.eta != float("inf"):
        parts.append(f"{format_duration(row.eta)} left")
    if row.note:
        parts.append(row.note)
    return ", ".join(parts)


def sum_up(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the rows as they are, or one for all of them where there are too many to read."""
    if len(rows) <= MAX_ROWS:
        return rows
    states = Counter(row.state for row in rows)
    total = sum(row.total_length for row in rows)
    # Of torrents that are all complete, and may be empty, nothing is missing.
    progress = sum(row.done_length for row in rows) / total if total else 0.0
    if all(row.progress >= 1 for row in rows):
        progress = 1.0
    return [
        Row(
            name=f"{len(rows)} torrents",
            state=", ".join(f"{count} {state}" for state, count in states.most_common()),
            progress=min(progress, 1.0),
            total_length=total,
            download_rate=sum(row.download_rate for row in rows),
            upload_rate=sum(row.upload_rate for row in rows),
            num_peers=sum(row.num_peers for row in rows),
        )
    ]


class Meter:
    """
    Progress of a single job that hashes, counted in bytes.

    Args:
        display: where it is shown.
        name: what is being hashed.
        state: what is done to it.
        total_length: bytes of the whole job.
    """

    def __init__(self, display: Display, name: str, state: str, total_length: int) -> None:
        self._display = display
        self._name = name
        self._state = state
        self._total = total_length
        self._started_at = time.monotonic()
        self._next = self._started_at + display.interval

    def count(self, done: int) -> None:
        """Show that ``done`` bytes are done; most calls do nothing, so it may be called often."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._display.interval
        rate = done / (now - self._started_at)
        row = Row(
            name=self._name,
            state=self._state,
            progress=done / self._total if self._total else 1.0,
            total_length=self._total,
            hash_rate=rate,
            eta=(self._total - done) / rate if rate else None,
        )
        self._display.update([row])


class LineDisplay:
    """
    Lines without a terminal: one about each torrent every ``interval`` seconds.

    Args:
        stream: where it writes.
        interval: seconds between the lines; infinite for none.
    """

    def __init__(self, stream: TextIO, *, interval: float) -> None:
        self._stream = stream
        self._every = interval
        self._next = time.monotonic() + interval
        self._status = ""
        self._told: set[str] = set()
        self.interval: float = min(1.0, interval)

    def update(self, rows: Sequence[Row]) -> None:
        """Write the rows if the time has come."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every
        told, self._told = self._told, set()
        for row in sum_up(rows):
            text = row_text(row)
            self._told.add(text)
            # Of what is complete there may be nothing to tell for months.
            if row.progress < 1 or text not in told:
                self.line(text)

    def status(self, text: str) -> None:
        """Write the line if it says something else and the time has come."""
        now = time.monotonic()
        if text != self._status and now >= self._next:
            self._next = now + self._every
            self._status = text
            self.line(text)

    def line(self, text: str) -> None:
        """Write one line."""
        write_text(self._stream, printable(text) + "\n")

    def close(self) -> None:
        """Do nothing: a line leaves nothing behind."""


class LiveDisplay:
    """A bar per torrent, redrawn in place."""

    interval = LIVE_INTERVAL

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}", markup=False),
            console=self._console,
            expand=True,
            auto_refresh=False,
            redirect_stdout=False,  # JSON may go there while the bars are on stderr
            redirect_stderr=False,
        )
        self._tasks: dict[int, TaskID] = {}
        self._is_open = False
        self._has_status = False

    def update(self, rows: Sequence[Row]) -> None:
        """Redraw all bars."""
        if not self._is_open:
            self._progress.start()
            # It would be missing in the shell while we are suspended, and after we are killed.
            self._console.show_cursor(True)
            self._is_open = True
        from rich.cells import cell_len

        width = self._console.width
        for index, row in enumerate(sum_up(rows)):
            name = _shorten(printable(row.name), max(8, width // 4))
            task = self._tasks.get(index)
            if task is None:
                task = self._tasks[index] = self._progress.add_task(name, total=1.0, figures="")
            self._progress.update(
                task,
                description=name,
                completed=row.progress,
                # A bar of four at least.
                figures=printable(figures(row, width - cell_len(name) - 6)),
            )
        self._progress.refresh()

    def status(self, text: str) -> None:
        """Write the line over the one before."""
        shown = _shorten(printable(text), max(12, self._console.width - 1))
        self._console.file.write(f"\r\x1b[2K{shown}")
        self._console.file.flush()
        self._has_status = True

    def _end_status(self, end: str) -> None:
        if self._has_status:
            self._console.file.write(end)
            self._has_status = False

    def line(self, text: str) -> None:
        """Write one line above the bars."""
        self._end_status("\r\x1b[2K")
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last state of the bars on the screen and show the cursor again."""
        self._end_status("\n")
        if self._is_open:
            self._progress.stop()
            self._is_open = False


def figures(row: Row, room: int) -> str:
    """Return what stands right of a bar, without what matters least where there is little room."""
    if row.note:
        return _shorten(f"{row.state}: {row.note}", room)
    if row.hash_rate is not None:
        percent, rate = format_share(row.progress), format_rate(row.hash_rate)
        return _fit([f"{row.state} {percent}", rate, format_duration(row.eta)], room)
    if row.is_checking:
        return _fit([f"{row.state} {format_share(row.progress)}"], room)
    parts = [
        format_share(row.progress) if row.total_length else row.state,
        f"{row.num_peers} {'peer' if row.num_peers == 1 else 'peers'}",
    ]
    if row.download_rate or row.progress < 1:
        parts.append(f"\u2193 {format_rate(row.download_rate)}")
    if row.upload_rate or row.progress >= 1:
        parts.append(f"\u2191 {format_rate(row.upload_rate)}")
    parts.append(format_duration(row.eta) if row.progress < 1 else row.state)
    return _fit(parts, room)


def _fit(parts: list[str], room: int) -> str:
    """Join as many parts as there is room for, the first at least, which matter most."""
    while True:
        for space in ("  ", " "):
            text = space.join(parts)
            if len(text) <= room:
                return text
        if len(parts) == 1:
            return _shorten(text, room)
        parts = parts[:-1]


def _shorten(text: str, width: int) -> str:
    """Cut a text to columns of a terminal, of which a letter of Chinese takes two."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "\u2026"
