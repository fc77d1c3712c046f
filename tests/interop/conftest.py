"""Two machines with nothing configured, and the programs that run on them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.interop.bench import Bench
from tests.interop.place import Place, namespace_pair, namespaces_missing


@pytest.fixture
def places() -> Iterator[tuple[Place, Place]]:
    """Two network namespaces joined by a cable; skipped where only root could make them."""
    if reason := namespaces_missing():
        if os.geteuid() != 0:
            pytest.skip(reason)
        pytest.fail(reason)
    with namespace_pair() as pair:
        yield pair


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Start programs that end with the test."""
    made = Bench(tmp_path)
    yield made
    await made.stop()
