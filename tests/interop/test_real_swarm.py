"""
Whole swarms of real processes on loopback, bittern and libtorrent together.

Reduced by default; ``make soak`` runs them whole.
"""

from __future__ import annotations

import filecmp
from contextlib import ExitStack
from pathlib import Path

import pytest
from bench.processes import End, Material, make_material

MIB = 1 << 20

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(600)]


def run_swarm(root: Path, material: Material, programs: list[str]) -> float:
    """Let every program complete; return how many copies the seed, a bittern, sent."""
    with ExitStack() as stack:
        seed = stack.enter_context(End("bittern", "seed", material, material.folder, peers=[]))
        seed.go()
        leeches: list[End] = []
        for number, program in enumerate(programs):
            out = root / f"leech-{number}"
            out.mkdir()
            known = [seed.port, *(leech.port for leech in leeches)]
            leech = End(program, "leech", material, out, peers=known)
            leeches.append(stack.enter_context(leech))
        for leech in leeches:
            leech.go()
        for leech in leeches:
            assert leech.read()["num_bytes"] >= material.length
        for leech in leeches:
            leech.finish()
        sent = int(seed.finish()["num_bytes"])
    for number in range(len(programs)):
        mine = root / f"leech-{number}" / "content.bin"
        assert filecmp.cmp(mine, material.folder / "content.bin", shallow=False)
    return sent / material.length


@pytest.mark.parametrize(
    ("length", "num_ours", "num_theirs"),
    [(32 * MIB, 3, 1), pytest.param(256 * MIB, 8, 2, marks=pytest.mark.soak)],
)
def test_a_mixed_swarm_completes_and_the_seed_sends_less_than_three_copies(
    length: int, num_ours: int, num_theirs: int, tmp_path: Path
) -> None:
    material = make_material(tmp_path, length=length, piece_length=256 << 10)
    programs = ["bittern"] * num_ours + ["libtorrent"] * num_theirs
    assert run_swarm(tmp_path, material, programs) < 3
