"""core.announce: limits on intervals and text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.announce import clamp_interval, clean_text


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, 1800),
        (-1, 1800),
        (0, 1800),
        (1, 60),
        (59, 60),
        (60, 60),
        (61, 61),
        (1800, 1800),
        (86_400, 86_400),
        (86_401, 86_400),
        (2**63 - 1, 86_400),
    ],
)
def test_interval_stays_inside_its_limits(seconds: int | None, expected: int) -> None:
    assert clamp_interval(seconds) == expected


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", ""),
        (b"torrent not registered", "torrent not registered"),
        (b"two\r\nlines\x00", "two lines"),
        (b"\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("a\u202eb\u200bc\ufeffd".encode(), "a b c d"),
        ("\ue000private\u2028end".encode(), "private end"),
        (b"bad \xff\xfe", "bad \ufffd\ufffd"),
        ("pass\u00e9".encode(), "pass\u00e9"),
        (b"x" * 5000, "x" * 1024),
    ],
)
def test_text_is_cleaned(raw: bytes, text: str) -> None:
    assert clean_text(raw) == text


def test_text_limit_can_be_lower() -> None:
    assert clean_text(b"abcdef", limit=3) == "abc"


@given(st.binary(max_size=2000))
def test_clean_text_has_no_control_characters(raw: bytes) -> None:
    text = clean_text(raw)
    assert len(text) <= 1024
    assert all(unicodedata.category(char)[0] not in "CZ" or char == " " for char in text)
    assert clean_text(text.encode(), limit=10_000) == text
