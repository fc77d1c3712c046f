"""Run the benchmarks and print one table; see ``--help``."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import dht, hashing, links, rest, startup, swarm, transfer, versions
from bench.report import Row, machine, print_table

BENCHMARKS: dict[str, Callable[..., list[Row]]] = {
    "transfer": transfer.run,
    "versions": versions.run,
    "swarm": swarm.run,
    "links": links.run,
    "hashing": hashing.run,
    "rest": rest.run,
    "dht": dht.run,
    "startup": startup.run,
}


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="a quarter of the data, one run")
    parser.add_argument("--runs", type=int, default=3, help="runs of each case (median; 3)")
    parser.add_argument("--dir", type=Path, help="where data goes (default: a temporary folder)")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(dir=chosen.dir, prefix="bittern-bench-") as folder:
        rows: list[Row] = []
        runs = 1 if chosen.quick else chosen.runs
        for name in chosen.names or BENCHMARKS:
            print(f"measuring {name} ...", flush=True)
            rows += BENCHMARKS[name](Path(folder), is_quick=chosen.quick, runs=runs)
    print(f"\n{machine()}; medians of {runs}\n")
    print_table(rows)


if __name__ == "__main__":
    main()
