from __future__ import annotations

import io
import json
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.cli.output import (
    complain,
    encode_json,
    prepare_streams,
    print_json,
    print_json_line,
    print_line,
    print_table,
    printable,
)

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2028\u2029\ud800-\udfff]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name.mp4", "plain name.mp4"),
        ("gr\u00fc\u00df \u732b", "gr\u00fc\u00df \u732b"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("two\nlines", "two\\x0alines"),
        ("exe.\u202egpj", "exe.\\u202egpj"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_could_steer_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(codec=None)))
def test_nothing_active_is_ever_written(text: str) -> None:
    assert not CONTROL.search(printable(text))
    encoded = encode_json({text: [text]})
    assert encoded.isascii()
    assert not CONTROL.search(encoded)
    assert json.loads(encoded) == {text: [text]}


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1, None, "\x7f"]})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": [1, None, "\x7f"]}
    assert "\x7f" not in out
    assert err == ""


def test_a_json_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json_line({"a": "x\ny"})
    print_json_line([1])
    assert capsys.readouterr().out == '{"a": "x\\ny"}\n[1]\n'


def test_lines_and_tables_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("a\x07")
    print_table([("name", "x\x1b"), ("empty", ""), ("longer name", "y")])
    print_table([])
    assert capsys.readouterr().out == "a\\x07\nname         x\\x1b\nlonger name  y\n"


def test_complaints_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    complain("bad\nthing")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "bittern: bad\\x0athing\n"


class _Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_complaint_nobody_reads_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", _Gone())
    complain("x")


def test_text_that_the_terminal_cannot_encode_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    prepare_streams()
    print_line("\u732b")
    stream.flush()
    assert raw.getvalue() == b"\\u732b\n"
