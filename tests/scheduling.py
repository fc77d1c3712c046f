"""
Who runs what under ``pytest -n``: a worker takes a file at a time, and one takes all of interop.

A file's fixtures are then made once, and what is handed out is a few hundred units and not many
thousand, for which the stock schedulers need a process's time of their own. The last units should
be short ones, lest one worker ends long after the others: so files with slow tests come first.
"""

from __future__ import annotations

from collections import Counter

import pytest
from xdist.scheduler import LoadScopeScheduling

_INTEROP = "tests/interop/"


class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]  # without types
    """Hands out files in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        """Return the unit that a test belongs to."""
        path = nodeid.partition("::")[0]
        # Other programs and their ports, one after the other.
        return _INTEROP if path.startswith(_INTEROP) else path


def sort_files(items: list[pytest.Item]) -> None:
    """Bring interop to the front, then files by their number of slow tests."""
    num_slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (not item.nodeid.startswith(_INTEROP), -num_slow[item.path]))
