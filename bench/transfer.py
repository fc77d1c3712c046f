"""
One seed, or several, to one leech over TCP on loopback.

Both ends run the same program, have checked what they have beforehand, and the
leech verifies every piece and writes the file. Rate is that of the leech from
the moment it may connect until it is complete. Beside them, the same bytes are moved
by system calls alone, which shows how much of the processor time is the protocol's.
"""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.processes import End, Material, make_material, warm_memory
from bench.report import Row, ratio, take_turns

GIB = 1 << 30
PROGRAMS = ("bittern", "libtorrent", "tuned")
LIMIT = "bare"
"""Moves, writes and hashes without a protocol; see ``bench.bare``. Has one seed."""


class Measured(NamedTuple):
    """Medians of one program."""

    rate: float
    leech_cpu: float
    seed_cpu: float
    rss: float


def run_once(program: str, material: Material, root: Path, *, num_seeds: int = 1) -> Measured:
    """Transfer the material once; rate in bytes/s, processor time in s per GiB, RSS in MB."""
    out = root / "leech"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    seeds = [End(program, "seed", material, material.folder, peers=[]) for _ in range(num_seeds)]
    try:
        for seed in seeds:
            seed.go()
        with End(program, "leech", material, out, peers=[seed.port for seed in seeds]) as leech:
            warm_memory(3 * material.length)
            leech.go()
            result = leech.read()
            leech.finish()
        seed_cpu = sum(float(seed.finish()["cpu"]) for seed in seeds)
    finally:
        for seed in seeds:
            seed.__exit__(None, None, None)
    name = "content.bin"
    if not filecmp.cmp(out / name, material.folder / name, shallow=False):
        raise RuntimeError(f"{program} delivered wrong bytes")
    gib = material.length / GIB
    return Measured(
        material.length / result["seconds"], result["cpu"] / gib, seed_cpu / gib, result["rss"]
    )


def measure(
    root: Path, *, length: int, piece_length: int, num_seeds: int, runs: int
) -> dict[str, Measured]:
    """Run the programs in turn, ``runs`` times each, and return the medians."""
    material = make_material(root, length=length, piece_length=piece_length)
    programs = (*PROGRAMS, LIMIT) if num_seeds == 1 else PROGRAMS
    results = take_turns(
        programs, runs, lambda program: run_once(program, material, root, num_seeds=num_seeds)
    )
    return {
        program: Measured(*(median(values) for values in zip(*measured, strict=True)))
        for program, measured in results.items()
    }


def run(root: Path, *, is_quick: bool, runs: int) -> list[Row]:
    """Measure the cases of the table; return its rows."""
    length = GIB // 4 if is_quick else GIB
    rows: list[Row] = []
    for title, piece_length, num_seeds in (
        ("1 seed, 1 MiB pieces", 1 << 20, 1),
        ("1 seed, 64 KiB pieces", 1 << 16, 1),
        ("4 seeds, 1 MiB pieces", 1 << 20, 4),
    ):
        got = measure(
            root, length=length, piece_length=piece_length, num_seeds=num_seeds, runs=runs
        )
        ours, default, tuned = got["bittern"], got["libtorrent"], got["tuned"]
        rows += [
            Row(f"leech rate, {title}", f"{ours.rate / 1e6:.0f} MB/s",
                f"{default.rate / 1e6:.0f} MB/s", ratio(ours.rate, default.rate), ">= 2"),
            Row("... beside tuned libtorrent", f"{ours.rate / 1e6:.0f} MB/s",
                f"{tuned.rate / 1e6:.0f} MB/s", ratio(ours.rate, tuned.rate), ">= 1.6"),
            Row("leech CPU, s per GiB", f"{ours.leech_cpu:.2f}", f"{default.leech_cpu:.2f}",
                ratio(ours.leech_cpu, default.leech_cpu), "<= 0.7, or 1.6 x bare"),
            Row("seed CPU, s per GiB", f"{ours.seed_cpu:.2f}", f"{default.seed_cpu:.2f}",
                ratio(ours.seed_cpu, default.seed_cpu), "<= 0.4"),
            Row("leech peak RSS", f"{ours.rss:.0f} MB", f"{default.rss:.0f} MB",
                ratio(ours.rss, default.rss), "<= 80 MB"),
        ]  # fmt: skip
        if LIMIT in got:
            bare = got[LIMIT]
            rows += [
                Row("leech CPU beside bare moving, writing, hashing", f"{ours.leech_cpu:.2f}",
                    f"{bare.leech_cpu:.2f}", ratio(ours.leech_cpu, bare.leech_cpu), ""),
                Row("... which takes, beside libtorrent", f"{bare.leech_cpu:.2f}",
                    f"{default.leech_cpu:.2f}", ratio(bare.leech_cpu, default.leech_cpu), ""),
                Row("seed CPU beside bare reading, sending", f"{ours.seed_cpu:.2f}",
                    f"{bare.seed_cpu:.2f}", ratio(ours.seed_cpu, bare.seed_cpu), ""),
            ]  # fmt: skip
    return rows
