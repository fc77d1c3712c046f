"""
What this machine is up to: a clock that goes on while it sleeps, and where it reaches others from.

``time.monotonic`` stands still in sleep on Linux and macOS; another of the system's clocks
does not. Where there is none (Windows), the usual one goes on by itself.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from typing import Final

_ANYWHERE: Final = (
    (socket.AF_INET, "192.0.2.1"),
    (socket.AF_INET6, "2001:db8::1"),
)
"""Addresses of nobody (RFC 5737, RFC 3849), the way to which is the way out."""
_PORT = 9


class LocalMachine:
    """
    The machine that we run on.

    Args:
        is_local: nobody beyond it is of interest, so it has no addresses.
    """

    def __init__(self, *, is_local: bool = False) -> None:
        self._is_local = is_local

    def time(self) -> float:
        """Return seconds that go on while the machine sleeps; setting the date moves them not."""
        if sys.platform == "linux":
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        if sys.platform == "darwin":
            return time.clock_gettime(time.CLOCK_MONOTONIC)
        return time.monotonic()

    def hosts(self) -> frozenset[str]:
        """Return our addresses, one of each family, on the way out; sends nothing."""
        found = set()
        for family, target in () if self._is_local else _ANYWHERE:
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, _PORT))
                found.add(str(probe.getsockname()[0]))
        return frozenset(found)
