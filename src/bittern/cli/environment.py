"""
The program's variables in the environment.

Every option ``--like-this`` may also be given as ``BITTERN_LIKE_THIS``; besides there is
``BITTERN_DEBUG``. Imported by every start of the program, so it imports next to nothing.
"""

from __future__ import annotations

import os

PREFIX = "BITTERN_"
"""What their names begin with."""


def variable_name(option: str) -> str:
    """Return the variable of an option, as ``BITTERN_STATE_DIR`` for ``state-dir``."""
    return PREFIX + option.upper().replace("-", "_")


def variable(option: str) -> str:
    """Return what an option's variable says; "" when it is not set."""
    return os.environ.get(variable_name(option), "")
