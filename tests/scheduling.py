"""
Who runs what under ``pytest -n``: a worker takes a file at a time, and two take all of interop.

A file's fixtures are then made once, and what is handed out is a few hundred units and not many
thousand, for which the stock schedulers need a process's time of their own. The last units should
be short ones, lest one worker ends long after the others: so files with slow tests come first.
"""

from __future__ import annotations

from collections import Counter

import pytest
from xdist.scheduler import LoadScopeScheduling

_INTEROP = "tests/interop/"
_HALF = (f"{_INTEROP}test_real_", f"{_INTEROP}test_v2")
"""Take as long as all else of interop."""


class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]  # without types
    """Hands out files in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        """Return the unit that a test belongs to."""
        path = nodeid.partition("::")[0]
        # Other programs take many cores if they can: only so many at a time.
        if path.startswith(_INTEROP):
            return _HALF[0] if path.startswith(_HALF) else _INTEROP
        return path


def sort_files(items: list[pytest.Item]) -> None:
    """Bring interop to the front, then files by their number of slow tests."""
    num_slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (not item.nodeid.startswith(_INTEROP), -num_slow[item.path]))
