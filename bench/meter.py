"""What an end of a measured transfer tells of itself, as lines of JSON."""

from __future__ import annotations

import json
import resource
import time


def say(**fields: object) -> None:
    """Print one line of JSON at once."""
    print(json.dumps(fields), flush=True)


def cpu_seconds() -> float:
    """Return the processor time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Meter:
    """Time, processor time and memory from ``start`` to ``report``."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = cpu_seconds()

    def report(self, num_bytes: int) -> None:
        """Print what was used."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        say(
            seconds=time.perf_counter() - self._wall,
            cpu=cpu_seconds() - self._cpu,
            num_bytes=num_bytes,
            rss=peak,
        )
