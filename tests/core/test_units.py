"""core.units: numbers as a person reads them."""

from __future__ import annotations

import pytest

from bittern.core.units import format_duration, format_rate, format_size


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (10_485_760, "10.0 MiB"),
        (1 << 30, "1.0 GiB"),
        (5 << 50, "5120.0 TiB"),
    ],
)
def test_sizes_are_written_for_people(length: int, text: str) -> None:
    assert format_size(length) == text
    assert format_rate(length) == text + "/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (float("inf"), "-"),
        (-3, "0s"),
        (0, "0s"),
        (0.01, "0.1s"),
        (0.44, "0.4s"),
        (0.96, "1s"),
        (59.4, "59s"),
        (60, "1m 00s"),
        (185, "3m 05s"),
        (3599, "59m 59s"),
        (3600, "1h 00m"),
        (86_399, "23h 59m"),
        (86_400, "1d 00h"),
        (7800, "2h 10m"),
        (4 * 86400 + 3 * 3600, "4d 03h"),
    ],
)
def test_durations_are_written_for_people(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text
