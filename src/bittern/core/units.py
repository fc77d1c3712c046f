"""Sizes, rates and durations as a person reads them."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def format_size(length: float) -> str:
    """Write bytes for a person: ``512 B``, ``1.5 KiB``, ``10.0 MiB``."""
    value, power = float(length), 0
    while abs(value) >= 1024 and power < len(_UNITS) - 1:
        value /= 1024
        power += 1
    return f"{value:.{min(power, 1)}f} {_UNITS[power]}"


def format_rate(rate: float) -> str:
    """Write bytes per second for a person: ``1.5 MiB/s``."""
    return format_size(rate) + "/s"


def format_share(share: float) -> str:
    """Write a share from 0 to 1 in percent, 100 only when nothing is missing: ``99.9 %``."""
    return f"{int(share * 1000) / 10:.1f} %"


def format_duration(seconds: float | None) -> str:
    """
    Write seconds for a person: ``0.4s``, ``12s``, ``3m 05s``, ``2h 10m``, ``4d 03h``.

    None, and what never ends, is ``-``.
    """
    if seconds is None or seconds == float("inf"):
        return "-"
    if 0 < seconds < 0.95:
        return f"{max(seconds, 0.1):.1f}s"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600:02d}h"
