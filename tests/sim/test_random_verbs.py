"""
Sessions under random orders of several callers at once: see ``tests/sim/verbs.py``.

A few seeds by default, always the same; ``-m soak`` runs hundreds, others each time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bittern.testing.loop import run
from tests.sim.verbs import play

pytestmark = pytest.mark.slow

LIMIT = 20_000.0
"""Virtual seconds: peers that refuse are tried again later and later."""


@pytest.mark.parametrize("number", range(4))
def test_whatever_is_asked_of_a_session_all_completes_in_the_end(
    number: int, tmp_path: Path
) -> None:
    run(lambda loop: play(loop, tmp_path), seed=number, limit=LIMIT)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(500))
def test_the_same_with_other_orders_each_time(number: int, tmp_path: Path, seed: int) -> None:
    run(lambda loop: play(loop, tmp_path), seed=seed, limit=LIMIT)


def test_a_seed_repeats_all_of_it(tmp_path: Path) -> None:
    def lines(folder: Path) -> list[str]:
        found = run(lambda loop: play(loop, folder, num_lives=1), seed=7, limit=LIMIT)
        return [line.replace(str(folder), "") for line in found]

    first = lines(tmp_path / "first")
    assert len(first) > 50
    assert first == lines(tmp_path / "second")
