"""
Two bitterns find each other by multicast DNS alone (BEP 26).

Two network namespaces joined by a cable; every other source of peers is off. Needs Linux, iproute2
and root; where the first two are there but not the third, the test is skipped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.clients.bittern import ENVIRONMENT
from tests.interop.place import (
    Place,
    namespace_pair,
    namespaces_missing,
    run_ip,
    wait_multicast_v6,
)
from tests.interop.process import Program
from tests.interop.samples import make_sample
from tests.interop.test_local_discovery import is_event

pytestmark = [pytest.mark.interop, pytest.mark.slow]

TIMEOUT = 30.0
ALONE = ("--no-lsd", "--no-dht", "--no-pex", "--no-tracker", "--zeroconf", "--jsonl")


@pytest.fixture
def places() -> Iterator[tuple[Place, Place]]:
    if reason := namespaces_missing():
        if os.geteuid() != 0:
            pytest.skip(reason)
        pytest.fail(reason)
    with namespace_pair() as pair:
        yield pair


@pytest.mark.parametrize("family", [4, 6])
async def test_bittern_finds_bittern(
    family: int, places: tuple[Place, Place], tmp_path: Path
) -> None:
    for place in places:
        gone = place.address_v6 + "/64" if family == 4 else place.address + "/24"
        run_ip(place, "addr", "del", gone, "dev", "veth0")
        wait_multicast_v6(place, "veth0")
    sample = make_sample(tmp_path).announced_at(None, tmp_path / "local")
    out = tmp_path / "out"
    verbs = (
        ("seed", str(sample.torrent), "--data", str(sample.data_dir)),
        ("get", str(sample.torrent), "--output", str(out)),
    )
    programs: list[Program] = []
    try:
        for place, verb in zip(places, verbs, strict=True):
            state = tmp_path / f"state-{len(programs)}"
            program = await Program.start(
                [sys.executable, "-m", "bittern", *verb, *ALONE, "--state-dir", str(state)],
                place=place,
                log=tmp_path / f"{len(programs)}.log",
                environment=ENVIRONMENT,
            )
            programs.append(program)
            if len(programs) == 1:
                await program.wait_line(
                    lambda line: is_event(line, "torrent_completed"), timeout=TIMEOUT
                )
        await programs[1].wait_exit(timeout=TIMEOUT)
        assert sample.differences(out) == []
        said = [line for program in programs for line in program.lines]
        assert any(is_event(line, "peers_found", source="zeroconf") for line in said)
    finally:
        for program in programs:
            await program.stop()
