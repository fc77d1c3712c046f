"""Sizes, rates and durations as a person reads them."""

from __future__ import annotations


def format_size(length: float) -> str:
    """Write bytes for a person: ``512 B``, ``1.5 KiB``, ``10.0 MiB``."""
    value = float(length)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def format_rate(rate: float) -> str:
    """Write bytes per second for a person: ``1.5 MiB/s``."""
    return format_size(rate) + "/s"


def format_duration(seconds: float | None) -> str:
    """Write seconds for a person: ``12s``, ``3m 05s``, ``2h 10m``, ``4d 03h``; ``-`` for None."""
    if seconds is None or seconds == float("inf"):
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600:02d}h"
