from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from bittern.cli.display import Row
from bittern.cli.options import ReportOptions
from bittern.cli.report import Report
from bittern.core.endpoint import Endpoint
from bittern.engine import events as ev

PEER = Endpoint("127.0.0.1", 6881)
VERIFIED = ev.PieceVerified(3, 4, 40)
SENT = ev.MessageSent(PEER, "interested", "", b"\x00\x00\x00\x01\x02")
ROW = Row(name="cat", state="downloading", progress=0.5, total_length=100)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Streams:
    """Both streams, put in place only when a report is made: pytest has its own before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.stdout, self.stderr = io.StringIO(), io.StringIO()

    def report(self, *, several: bool = False, **options: Any) -> Report:
        self._monkeypatch.setattr(sys, "stdout", self.stdout)
        self._monkeypatch.setattr(sys, "stderr", self.stderr)
        return Report(ReportOptions(**options), several=several)

    @property
    def out(self) -> str:
        return self.stdout.getvalue()

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    monkeypatch.setenv("TERM", "xterm")
    return Streams(monkeypatch)


def tell(report: Report) -> None:
    report.event("ab", "cat", VERIFIED)
    report.event("ab", "cat", SENT)
    report.event("ab", "cat", ev.TorrentCompleted())
    report.note("listening", "listening on 6881", port=6881)
    report.statistics("ab", {"progress": 0.5, "state": ev.TorrentState.DOWNLOADING})
    report.result([{"name": "cat"}], ["cat: complete", "in ."])


def test_a_person_hears_what_matters(streams: Streams) -> None:
    tell(streams.report())
    assert streams.out == "complete\nlistening on 6881\ncat: complete\nin .\n"
    assert streams.stderr.getvalue() == ""


def test_verbose_tells_every_event_with_its_time(streams: Streams) -> None:
    tell(streams.report(verbose=1))
    lines = streams.out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines[:3]] == [
        "piece 3 verified (4 of 40)",
        "complete",
        "listening on 6881",
    ]
    assert all(float(line.split()[0]) < 60 for line in lines[:3])


def test_very_verbose_tells_every_message(streams: Streams) -> None:
    report = streams.report(verbose=2)
    assert report.wants_trace
    report.event("ab", "cat", SENT)
    assert "127.0.0.1:6881 <- " in streams.out
    assert not streams.report(verbose=1).wants_trace


def test_quiet_says_nothing(streams: Streams) -> None:
    report = streams.report(quiet=True)
    tell(report)
    report.progress([ROW])
    assert streams.out == streams.stderr.getvalue() == ""


def test_lines_name_their_torrent_when_there_are_several(streams: Streams) -> None:
    streams.report(several=True).event("ab", "cat", ev.TorrentCompleted())
    assert streams.out == "cat: complete\n"


@pytest.mark.parametrize(
    ("several", "values", "expected"),
    [
        (False, [{"name": "cat"}], {"name": "cat"}),
        (True, [{"name": "cat"}], [{"name": "cat"}]),
        (True, [{"name": "a"}, {"name": "b"}], [{"name": "a"}, {"name": "b"}]),
    ],
)
def test_json_is_one_document_and_nothing_else(
    streams: Streams, several: bool, values: list[Mapping[str, str]], expected: object
) -> None:
    report = streams.report(json=True, verbose=2, several=several)
    report.event("ab", "cat", VERIFIED)
    report.note("listening", "listening")
    report.progress([ROW])
    report.result(values, ["text"])
    assert json.loads(streams.out) == expected
    assert streams.stderr.getvalue() == ""


def test_json_of_nothing_is_nothing(streams: Streams) -> None:
    streams.report(json=True).result([])
    assert streams.out == ""


def test_json_lines_are_every_event(streams: Streams) -> None:
    tell(streams.report(jsonl=True))
    lines = streams.lines
    assert [line["type"] for line in lines] == [
        "piece_verified",
        "message_sent",
        "torrent_completed",
        "listening",
        "progress",
        "result",
    ]
    assert all(isinstance(line["time"], float) for line in lines)
    assert lines[0]["torrent"] == "ab"
    assert lines[0]["index"] == 3
    assert lines[1]["raw"] == "0000000102"
    assert lines[3]["port"] == 6881
    assert lines[4]["state"] == "downloading"
    assert lines[5]["name"] == "cat"


def test_beside_json_a_terminal_shows_progress(streams: Streams) -> None:
    streams.stderr = Terminal()
    report = streams.report(json=True, verbose=1)
    report.event("ab", "cat", VERIFIED)
    report.progress([ROW])
    report.result([{}], ["text"])
    assert streams.out == "{}\n"
    assert "piece 3 verified" in streams.stderr.getvalue()
    assert "50.0 %" in streams.stderr.getvalue()
    report.close()


def test_events_without_words_are_not_told(streams: Streams) -> None:
    streams.report(verbose=1).event("ab", "cat", ev.CheckProgressed(1, 2))
    assert streams.out == ""


def test_a_terminal_is_redrawn_more_often(streams: Streams) -> None:
    assert streams.report().interval == 1.0
    streams.stdout = Terminal()
    assert streams.report().interval == 0.25


def test_a_status_is_for_persons(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bittern.cli.display.PLAIN_INTERVAL", 0.0)
    streams.report().status("fine")
    assert streams.out == "fine\n"
    streams.report(json=True).status("fine")
    streams.report(quiet=True).status("fine")
    assert streams.out == "fine\n"


def test_nobody_else_begins_a_line(streams: Streams) -> None:
    """Limit: W11. A line break in a name is shown as one."""
    report = streams.report(verbose=1)
    report.event("ab", "cat", ev.FileCompleted(0, "a\nb\u2028c"))
    report.result([{}], ["cat\r\n100 %: complete"])
    first, second = streams.out.splitlines()
    assert first.endswith(r"file complete: a\x0ab\u2028c")
    assert second == r"cat\x0d\x0a100 %: complete"
