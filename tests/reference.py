"""
libtorrent, beside which many tests put bittern.

No wheel of it is for Python 3.14 or later, so that the dependency group leaves it out there. A
test is then skipped at the first thing that it asks of ``lt``; what comes before has been asserted.
On an older Python its absence is an error, like that of any other program.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import pytest

__all__ = ["lt", "need_libtorrent"]


class Absent:
    """What stands for the module where there is none."""

    def __init__(self, error: ImportError, *, may_be_absent: bool) -> None:
        self._error = error
        self._may_be_absent = may_be_absent

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # pytest looks at everything that a module holds
            raise AttributeError(name)
        if self._may_be_absent:
            pytest.skip("no libtorrent for this Python", allow_module_level=True)
        raise self._error


if TYPE_CHECKING:
    import libtorrent as lt
else:
    try:
        import libtorrent as lt
    except ImportError as error:
        lt = Absent(error, may_be_absent=sys.version_info >= (3, 14))


def need_libtorrent() -> None:
    """Skip the test whose programs need it, where it cannot be had."""
    _ = lt.session
