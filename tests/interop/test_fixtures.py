"""
The torrents of webtorrent-fixtures without content, and the one that is broken, on the command
line. Those with content are transferred in the matrix.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.clients.bittern import ENVIRONMENT
from tests.interop.samples import FIXTURES, SETUP_HINT

pytestmark = [pytest.mark.interop, pytest.mark.soak]


def bittern(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    if not FIXTURES.is_dir():
        pytest.fail(f"webtorrent-fixtures is not installed; {SETUP_HINT}")
    return subprocess.run(
        [sys.executable, "-m", "bittern", *arguments],
        cwd=cwd,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("stem", "info_hash", "length", "num_pieces"),
    [
        ("bunny", "af8f10f30bf9aefecf3686922bfa0d5bd290a395", 434_839_491, 830),
        ("sintel", "c334138ef5bfc2d568ea7324e0e2a3a7ec229bdd", 5_490_455_272, 1_310),
    ],
)
def test_large_ones_are_read(
    stem: str, info_hash: str, length: int, num_pieces: int, tmp_path: Path
) -> None:
    ran = bittern("info", "--json", str(FIXTURES / f"{stem}.torrent"), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["info_hash"] == info_hash
    assert told["total_length"] == length
    assert told["num_pieces"] == num_pieces


@pytest.mark.parametrize("verb", [["info"], ["get", "--no-dht", "--no-lsd"]], ids=["info", "get"])
def test_the_corrupt_one_is_refused_in_a_line(verb: list[str], tmp_path: Path) -> None:
    ran = bittern(*verb, str(FIXTURES / "corrupt.torrent"), cwd=tmp_path)
    assert ran.returncode == 1
    assert "'name' is missing" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
