"""No test of storage leaves a file open."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "linux":

    @pytest.fixture(autouse=True)
    def no_file_left_open() -> Iterator[None]:
        """Fail a test after which more descriptors are open, or others, than before."""
        before = _open_files()
        yield
        left = _open_files() - before
        if left:
            pytest.fail(f"left open: {sorted(left)}", pytrace=False)


def _open_files() -> set[tuple[int, str]]:
    found = set()
    for path in list(Path("/proc/self/fd").iterdir()):
        try:
            found.add((int(path.name), str(path.readlink())))
        except FileNotFoundError:  # the one that lists
            continue
    return found
