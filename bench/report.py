"""The table that a benchmark run ends with."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Row(NamedTuple):
    """One line: what, ours, theirs, ours divided by theirs, what is demanded of it."""

    what: str
    ours: str
    theirs: str
    ratio: str
    must: str


def take_turns(names: Sequence[str], runs: int, run: Callable[[str], T]) -> dict[str, list[T]]:
    """
    Run programs in turn and return what each of their runs gave.

    A first round is not counted: it fetches memory from the machine that later ones find
    there. In each round somebody else begins, so that nobody always runs on what the same
    neighbour left behind.
    """
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(runs + 1):
        start = number % len(names)
        for name in (*names[start:], *names[:start]):
            result = run(name)
            if number:
                results[name].append(result)
    return results


def ratio(ours: float, theirs: float) -> str:
    """Return ours divided by theirs as text."""
    return f"{ours / theirs:.2f}" if theirs else "-"


def machine() -> str:
    """Return what the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        if names:
            model = f"{len(names)} x {names[0]}"
    return f"{model}, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def print_table(rows: list[Row]) -> None:
    """Print rows as a Markdown table."""
    print("| what | bittern | beside it | ratio | must |")
    print("|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
