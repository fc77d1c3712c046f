from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bittern.cli import display as display_module
from bittern.cli.display import (
    MAX_ROWS,
    PLAIN_INTERVAL,
    LineDisplay,
    LiveDisplay,
    Meter,
    Row,
    figures,
    is_terminal,
    make_display,
    row_text,
    sum_up,
)

MIB = 1 << 20
ROW = Row(
    name="cat",
    state="downloading",
    progress=0.5,
    total_length=10 * MIB,
    download_rate=MIB,
    upload_rate=0,
    num_peers=1,
    eta=5,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            ROW,
            (
                "cat: downloading 50.0 %, 5.0 MiB of 10.0 MiB, "
                "down 1.0 MiB/s, up 0 B/s, 1 peer, 5s left"
            ),
        ),
        (
            replace(ROW, progress=0.99999, eta=None, num_peers=2),
            "cat: downloading 99.9 %, 10.0 MiB of 10.0 MiB, down 1.0 MiB/s, up 0 B/s, 2 peers",
        ),
        (
            replace(ROW, state="checking", is_checking=True, eta=None),
            "cat: checking 50.0 %, 5.0 MiB of 10.0 MiB",
        ),
        (
            replace(ROW, state="verifying", hash_rate=MIB, eta=None),
            "cat: verifying 50.0 %, 5.0 MiB of 10.0 MiB, 1.0 MiB/s",
        ),
        (
            Row(name="x", state="fetching metadata", progress=0, total_length=0, note="no peers"),
            "x: fetching metadata, down 0 B/s, up 0 B/s, 0 peers, no peers",
        ),
    ],
)
def test_a_row_is_one_line_in_a_log(row: Row, text: str) -> None:
    assert row_text(row) == text


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_without_a_terminal_a_line_comes_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(display_module, "time", clock)
    stream = io.StringIO()
    display = make_display(stream, quiet=False, plain=True)
    written = []
    for _ in range(12):
        clock.now += display.interval
        display.update([ROW])
        written.append(stream.getvalue().count("\n"))
    display.close()
    assert written == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(("quiet", "plain"), [(True, True), (False, False)])
def test_quiet_or_beside_json_there_are_lines_but_no_progress(quiet: bool, plain: bool) -> None:
    stream = io.StringIO()
    display = make_display(stream, quiet=quiet, plain=plain)
    for _ in range(3):
        display.update([ROW])
    display.line("a\x1bb")
    assert isinstance(display, LineDisplay)
    assert stream.getvalue() == "a\\x1bb\n"


def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    display = make_display(stream, quiet=False, plain=True)
    assert isinstance(display, LiveDisplay)
    display.update([replace(ROW, name="[bold]c\x1b[2Jat[/bold] " + "x" * 99)])
    display.line("piece [red]0[/red] \x07 :smile:")
    display.update([replace(ROW, progress=1.0, state="seeding", upload_rate=MIB)])
    display.update([replace(ROW, note="no [b]peers[/i] known")])
    display.close()
    display.close()
    text = stream.getvalue()
    assert "[bold]c\\x1b[2Jat" in text
    assert "piece [red]0[/red] \\x07 :smile:" in text
    assert "50.0 %" in text
    assert "seeding" in text
    assert "downloading: no [b]peers[/i] known" in text
    hidden, shown = text.rfind("\x1b[?25l"), text.find("\x1b[?25h")
    assert hidden < shown < text.index("50.0 %"), "whoever suspends us finds a cursor in the shell"


def test_a_terminal_that_was_never_drawn_on_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    make_display(stream, quiet=False, plain=True).close()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("stream", "term", "expected"),
    [
        (Terminal(), "xterm", True),
        (Terminal(), "dumb", False),
        (io.StringIO(), "xterm", False),
    ],
)
def test_what_counts_as_a_terminal(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, term: str, expected: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    assert is_terminal(stream) is expected


class Shown:
    """A display that notes its rows."""

    interval = 2.0

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def update(self, rows: Sequence[Row]) -> None:
        self.rows += rows

    def status(self, text: str) -> None: ...

    def line(self, text: str) -> None: ...

    def close(self) -> None: ...


def test_a_meter_shows_now_and_then_how_far_a_job_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(display_module, "time", clock)
    shown = Shown()
    meter = Meter(shown, "cat", "verifying", 1000)
    for done in range(0, 600, 100):
        meter.count(done)
        clock.now += 1
    assert [(row.progress, row.hash_rate, row.eta) for row in shown.rows] == [
        (0.2, 100.0, 8.0),
        (0.4, 100.0, 6.0),
    ]


def test_a_meter_of_nothing_divides_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(display_module, "time", clock)
    shown = Shown()
    meter = Meter(shown, "cat", "verifying", 0)
    clock.now += 3
    meter.count(0)
    assert [(row.progress, row.eta) for row in shown.rows] == [(1.0, None)]


def test_hashing_is_shown_on_a_terminal_without_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    display = make_display(stream, quiet=False, plain=True)
    display.update([replace(ROW, state="verifying", hash_rate=MIB)])
    display.close()
    assert "verifying 50.0 %  1.0 MiB/s  5s" in stream.getvalue()
    assert "peer" not in stream.getvalue()


def test_a_status_is_a_line_now_and_then_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(display_module, "time", clock)
    stream = io.StringIO()
    display = make_display(stream, quiet=False, plain=True)
    for text in ("1 node", "2 nodes", "2 nodes", "2 nodes", "3\x1b nodes"):
        display.status(text)
        clock.now += 3
    display.close()
    assert stream.getvalue() == "2 nodes\n3\\x1b nodes\n"


def test_a_status_is_replaced_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    display = make_display(stream, quiet=False, plain=True)
    display.status("1 node")
    display.status("2\x1b nodes")
    display.line("hello")
    display.status("3 nodes")
    display.close()
    clear = "\r\x1b[2K"
    assert stream.getvalue() == (f"{clear}1 node{clear}2\\x1b nodes{clear}hello\n{clear}3 nodes\n")


@pytest.mark.parametrize(
    ("room", "text"),
    [
        (80, "50.0 %  1 peer  ↓ 1.0 MiB/s  ↑ 2.0 MiB/s  5s"),
        (44, "50.0 %  1 peer  ↓ 1.0 MiB/s  ↑ 2.0 MiB/s  5s"),
        (42, "50.0 % 1 peer ↓ 1.0 MiB/s ↑ 2.0 MiB/s 5s"),
        (37, "50.0 % 1 peer ↓ 1.0 MiB/s ↑ 2.0 MiB/s"),
        (26, "50.0 % 1 peer ↓ 1.0 MiB/s"),
        (15, "50.0 %  1 peer"),
        (4, "50.…"),
    ],
)
def test_a_narrow_terminal_gets_what_matters_most(room: int, text: str) -> None:
    assert figures(replace(ROW, upload_rate=2 * MIB), room) == text
    assert len(figures(replace(ROW, note="no peers known yet"), room)) <= room
    assert len(figures(replace(ROW, state="hashing", hash_rate=MIB), room)) <= room


def test_a_bar_says_that_data_is_only_checked() -> None:
    assert figures(replace(ROW, state="checking", is_checking=True), 80) == "checking 50.0 %"


@pytest.mark.parametrize("columns", [40, 60, 80])
@pytest.mark.parametrize("name", ["a name that is much too long", "\u6f22" + "\u5b57" * 39])
def test_peers_are_seen_on_a_narrow_terminal(
    columns: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of letters that take two columns there are fewer; nothing is cut off but the name."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    display = make_display(stream, quiet=False, plain=True)
    display.update([replace(ROW, name=name, num_peers=12)])
    display.close()
    assert "50.0 %" in stream.getvalue()
    assert "12 peers" in stream.getvalue()
    assert stream.getvalue().count("\u2026") == stream.getvalue().count(name[:4]) > 0


def plain_lines(monkeypatch: pytest.MonkeyPatch, *rounds: list[Row]) -> list[str]:
    """Return what is written where there is no terminal, a round every few seconds."""
    clock, stream = Clock(), io.StringIO()
    monkeypatch.setattr(display_module, "time", clock)
    display = make_display(stream, quiet=False, plain=True)
    for rows in rounds:
        clock.now += PLAIN_INTERVAL
        display.update(rows)
    return stream.getvalue().splitlines()


def test_what_is_complete_is_told_of_only_when_something_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed = replace(ROW, progress=1.0, state="seeding", eta=None, download_rate=0)
    busy = replace(seed, upload_rate=MIB)
    lines = plain_lines(monkeypatch, [seed], [seed, ROW], [seed, ROW], [busy, ROW], [seed])
    assert lines == [
        *[row_text(seed), row_text(ROW), row_text(ROW)],
        *[row_text(busy), row_text(ROW), row_text(seed)],
    ]


def test_of_hundreds_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = replace(ROW, progress=1.0, state="seeding", upload_rate=MIB)
    few = [seed] * MAX_ROWS
    assert len(plain_lines(monkeypatch, few)) == MAX_ROWS
    line = (
        "21 torrents: 20 seeding, 1 downloading 97.6 %, 205.0 MiB of 210.0 MiB, "
        "down 21.0 MiB/s, up 20.0 MiB/s, 21 peers"
    )
    assert plain_lines(monkeypatch, [*few, ROW]) == [line]
    assert sum_up([*few, seed])[0].progress == 1.0
    empty = Row(name="x", state="opening", progress=0.0, total_length=0)
    assert sum_up([empty] * 30)[0].progress == 0.0
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    display = make_display(stream, quiet=False, plain=True)
    display.update([*few, ROW])
    display.close()
    assert "21 torren" in stream.getvalue()
    assert "cat" not in stream.getvalue()
