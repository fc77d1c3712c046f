"""
A whole swarm: one seed and eight leeches, a process each, 256 MiB.

The leeches are told of the seed and of one another, as a tracker would tell
them. Wall time is that of the last leech; processor time is of all nine.
"""

from __future__ import annotations

import filecmp
import shutil
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.processes import End, Material, make_material, warm_memory
from bench.report import Row, ratio, take_turns

NUM_LEECHES = 8
MIB = 1 << 20


class Swarm(NamedTuple):
    """Seconds, processor seconds of all, copies that the seed sent."""

    seconds: float
    cpu: float
    copies: float


def run_once(program: str, material: Material, root: Path) -> Swarm:
    """Let one swarm complete."""
    with ExitStack() as stack:
        seed = stack.enter_context(End(program, "seed", material, material.folder, peers=[]))
        seed.go()
        leeches: list[End] = []
        for number in range(NUM_LEECHES):
            out = root / f"leech-{number}"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            known = [seed.port, *(leech.port for leech in leeches)]
            leech = End(program, "leech", material, out, peers=known)
            leeches.append(stack.enter_context(leech))
        warm_memory((NUM_LEECHES + 2) * material.length)
        for leech in leeches:
            leech.go()
        results = [leech.read() for leech in leeches]
        finals = [leech.finish() for leech in leeches]
        final = seed.finish()
    for number in range(NUM_LEECHES):
        path = root / f"leech-{number}" / "content.bin"
        if not filecmp.cmp(path, material.folder / "content.bin", shallow=False):
            raise RuntimeError(f"{program}: leech {number} has wrong bytes")
    return Swarm(
        max(result["seconds"] for result in results),
        sum(each["cpu"] for each in finals) + final["cpu"],
        final["num_bytes"] / material.length,
    )


def run(root: Path, *, is_quick: bool, runs: int) -> list[Row]:
    """Measure bittern and libtorrent in turn; return the rows of the table."""
    material = make_material(root, length=(64 if is_quick else 256) * MIB, piece_length=256 << 10)
    measured = take_turns(
        ("bittern", "libtorrent"), runs, lambda program: run_once(program, material, root)
    )
    ours, theirs = (
        Swarm(*(median(values) for values in zip(*results, strict=True)))
        for results in measured.values()
    )
    return [
        Row("swarm of 1 + 8, wall", f"{ours.seconds:.1f} s", f"{theirs.seconds:.1f} s",
            ratio(ours.seconds, theirs.seconds), "<= 0.7"),
        Row("swarm of 1 + 8, CPU of all", f"{ours.cpu:.1f} s", f"{theirs.cpu:.1f} s",
            ratio(ours.cpu, theirs.cpu), "<= 0.7"),
        Row("copies that the seed sent", f"{ours.copies:.2f}", f"{theirs.copies:.2f}",
            ratio(ours.copies, theirs.copies), "< 3"),
    ]  # fmt: skip
