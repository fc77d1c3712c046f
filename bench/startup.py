"""How long the command line takes to answer: ``bittern --version`` and ``bittern info FILE``."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench.processes import make_material
from bench.report import Row


def _time(*arguments: str, runs: int) -> float:
    """Return the median milliseconds of whole processes, after one that warms the cache."""
    seconds = []
    for _ in range(runs + 1):
        started_at = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "bittern", *arguments], check=True, capture_output=True
        )
        seconds.append(time.perf_counter() - started_at)
    return median(seconds[1:]) * 1000


def run(root: Path, *, is_quick: bool, runs: int) -> list[Row]:
    """Measure; return the rows of the table."""
    material = make_material(root, length=(256 if is_quick else 1024) << 20, piece_length=1 << 20)
    count = max(5, runs)
    version = _time("--version", runs=count)
    info = _time("info", str(material.torrent), runs=count)
    return [
        Row("bittern --version", f"{version:.0f} ms", "-", "-", "<= 120 ms"),
        Row("bittern info FILE", f"{info:.0f} ms", "-", "-", "<= 200 ms"),
    ]
