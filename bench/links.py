"""
Downloads over lines as people have them: far, slow, and not all alike.

The seeds are libtorrent's, whoever downloads; between them and the leech lies a relay
(``bench.lines``). What counts is the time until all is there, beside that of libtorrent, and how
many bytes come twice. The line gives the least time that anybody could need.
"""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.lines import Line, Relay
from bench.processes import End, Material, make_material
from bench.report import Row, ratio, take_turns

MIB = 1 << 20

RATES = (50e3, 100e3, 200e3, 400e3, 800e3, 1.5e6, 2.5e6, 4e6)
DELAYS = (0.2, 0.01, 0.1, 0.025, 0.15, 0.05, 0.075, 0.02)
MIXED = tuple(Line(delay, rate) for delay, rate in zip(DELAYS, RATES, strict=True))
STALLING = tuple(
    Line(delay, rate, stalls=((1.0 + 0.25 * number, 20.0),) if number % 3 == 1 else ())
    for number, (delay, rate) in enumerate(zip(DELAYS, RATES, strict=True))
)
"""Three of the eight stop for 20 seconds, the fastest among them."""

CASES: tuple[tuple[str, int, tuple[Line, ...]], ...] = (
    ("1 seed, 100 ms there and back, 20 MB/s", 64, (Line(0.05, 20e6),)),
    ("8 seeds of 50 kB/s to 4 MB/s, 20 to 400 ms", 32, MIXED),
    ("the same, three of them stop for 20 s", 32, STALLING),
)
"""What, MiB of content, the lines."""


class Measured(NamedTuple):
    """Seconds until all was there, and bytes that came twice as a part of the content."""

    seconds: float
    twice: float


def run_once(program: str, material: Material, root: Path, lines: Sequence[Line]) -> Measured:
    """Download the material once from one seed behind each line."""
    out = root / "far-leech"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    with ExitStack() as stack:
        seeds = [
            stack.enter_context(End("libtorrent", "seed", material, material.folder, peers=[]))
            for _ in lines
        ]
        for seed in seeds:
            seed.go()
        ends = [(seed.port, line) for seed, line in zip(seeds, lines, strict=True)]
        relay = stack.enter_context(Relay(ends))
        leech = stack.enter_context(End(program, "leech", material, out, peers=relay.ports))
        leech.go()
        result = leech.read()
        leech.finish()
    if not filecmp.cmp(out / "content.bin", material.folder / "content.bin", shallow=False):
        raise RuntimeError(f"{program} delivered wrong bytes")
    return Measured(result["seconds"], result["num_bytes"] / material.length - 1)


def run(root: Path, *, is_quick: bool, runs: int) -> list[Row]:
    """Measure bittern and libtorrent in turn; return the rows of the table."""
    rows: list[Row] = []
    for title, num_mib, lines in CASES:
        length = num_mib * MIB // (4 if is_quick else 1)
        material = make_material(root, length=length, piece_length=MIB)
        run_one = partial(run_once, material=material, root=root, lines=lines)
        measured = take_turns(("bittern", "libtorrent"), runs, run_one)
        ours, theirs = (
            Measured(*(median(values) for values in zip(*results, strict=True)))
            for results in measured.values()
        )
        at_best = length / sum(line.rate for line in lines)
        rows += [
            Row(title, f"{ours.seconds:.1f} s", f"{theirs.seconds:.1f} s",
                ratio(ours.seconds, theirs.seconds), f"the lines carry it in {at_best:.1f} s"),
            Row("... bytes that came twice", f"{ours.twice:.1%}", f"{theirs.twice:.1%}", "", ""),
        ]  # fmt: skip
    return rows
