from __future__ import annotations

import io

import pytest

from bittern.cli.dissect import Part
from bittern.cli.narrator import Narrator


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tell(narrator: Narrator) -> None:
    narrator.heading("A beginning")
    narrator.say("one two three four five six seven eight nine ten eleven", style="good")
    narrator.fact("name", "cat\x1b[2J")
    narrator.bytes("a -> b: hello", [Part(b"\x01", "one"), Part(bytes(25), "zeros")])
    narrator.heading("An end")


def test_off_the_terminal_it_is_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = io.StringIO()
    tell(Narrator(stream))
    assert stream.getvalue().splitlines() == [
        "",
        "1. A beginning",
        "   one two three four five six seven",
        "   eight nine ten eleven",
        "     name              cat\\x1b[2J",
        "   a -> b: hello",
        "     01                                                           one",
        "     00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  zeros",
        "     00 00 00 00 00",
        "",
        "2. An end",
    ]


@pytest.mark.parametrize(
    ("no_color", "term", "coloured"),
    [("", "xterm", True), ("1", "xterm", False), ("", "dumb", False)],
)
def test_colours_are_for_terminals(
    monkeypatch: pytest.MonkeyPatch, no_color: str, term: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    stream = Terminal()
    tell(Narrator(stream))
    assert ("\x1b[1;36m1. A beginning\x1b[0m" in stream.getvalue()) is coloured
    assert ("\x1b[" in stream.getvalue()) is coloured
    assert "cat\\x1b[2J" in stream.getvalue()


def test_a_silent_one_says_nothing() -> None:
    stream = io.StringIO()
    narrator = Narrator(stream, silent=True)
    tell(narrator)
    narrator.say("")
    narrator.bytes("nothing", [])
    assert stream.getvalue() == ""


def test_nothing_is_a_line_too() -> None:
    stream = io.StringIO()
    Narrator(stream).say("")
    Narrator(stream).bytes("nothing", [])
    assert stream.getvalue() == "   \n   nothing\n"


@pytest.mark.parametrize("columns", ["1", "3", "4"])
def test_a_tiny_terminal_gets_it_all(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    stream = io.StringIO()
    tell(Narrator(stream))
    assert "An end" in stream.getvalue()
