"""
Leeching v2 and hybrid torrents beside v1: the same bytes, the same ends, other hashes.

SHA-256 is a tenth slower than SHA-1, and v2 hashes each block of 16 KiB by itself; a
hybrid does both. What is beside ours is our own v1 rate, then libtorrent with v2.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

from bench.processes import make_material
from bench.report import Row, ratio
from bench.transfer import GIB, run_once

VERSIONS = ("1", "2", "hybrid")
PIECE_LENGTHS = (1 << 20, 1 << 16)


def run(root: Path, *, is_quick: bool, runs: int) -> list[Row]:
    """
    Measure the versions in turn; return the rows of the table.

    Many short runs: what differs is a tenth, and a disk that writes back in between hides that.
    """
    length = GIB // 4
    runs = runs if is_quick else 2 * runs + 1
    rows: list[Row] = []
    for piece_length in PIECE_LENGTHS:
        made = {
            version: make_material(root, length=length, piece_length=piece_length, version=version)
            for version in VERSIONS
        }
        rates: dict[str, list[float]] = {name: [] for name in (*VERSIONS, "libtorrent")}
        for _ in range(runs):
            for version in VERSIONS:
                rates[version].append(run_once("bittern", made[version], root).rate)
            rates["libtorrent"].append(run_once("libtorrent", made["2"], root).rate)
        rate = {name: median(values) for name, values in rates.items()}
        text = {name: f"{value / 1e6:.0f} MB/s" for name, value in rate.items()}
        pieces = f"{piece_length >> 10} KiB pieces"
        rows += [
            Row(f"leech rate, v2, {pieces}, beside our v1", text["2"], text["1"],
                ratio(rate["2"], rate["1"]), ">= 0.85"),
            Row("... hybrid beside our v1", text["hybrid"], text["1"],
                ratio(rate["hybrid"], rate["1"]), "-"),
            Row("... v2 beside libtorrent's v2", text["2"], text["libtorrent"],
                ratio(rate["2"], rate["libtorrent"]), ">= 2"),
        ]  # fmt: skip
    return rows
