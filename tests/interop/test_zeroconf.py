"""
Two bitterns find each other by multicast DNS alone (BEP 26).

Two network namespaces joined by a cable; every other source of peers is off. Needs Linux, iproute2
and root; where the first two are there but not the third, the test is skipped.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.bench import Bench, is_event, keep_family
from tests.interop.place import Place
from tests.interop.samples import make_sample

pytestmark = [pytest.mark.interop, pytest.mark.slow]

TIMEOUT = 30.0
ALONE = ("--no-lsd", "--no-dht", "--no-pex", "--no-tracker", "--zeroconf")


@pytest.mark.parametrize("family", [4, 6])
async def test_bittern_finds_bittern(
    family: int, bench: Bench, places: tuple[Place, Place], tmp_path: Path
) -> None:
    there, here = places
    keep_family(places, family)
    sample = make_sample(tmp_path).announced_at(None, tmp_path / "local")
    out = tmp_path / "out"
    torrent, data = str(sample.torrent), str(sample.data_dir)
    seed = await bench.bittern(there, "seed", torrent, "--data", data, *ALONE)
    await seed.wait_line(lambda line: is_event(line, "torrent_completed"), timeout=TIMEOUT)
    leech = await bench.bittern(here, "get", torrent, "--output", str(out), *ALONE)
    await leech.wait_exit(timeout=TIMEOUT)
    assert sample.differences(out) == []
    said = [*seed.lines, *leech.lines]
    assert any(is_event(line, "peers_found", source="zeroconf") for line in said)
