"""
Run bittern against every foreign client and tracker and print what works as a matrix.

Usage: python -m tests.interop.matrix [--only NAME]... [--left NAME] [--json] ...

The exit code is 0 when everything that could be run passed, 1 on any failure or when nothing could
be run, 2 for wrong usage. ``--left`` puts another client in bittern's role, which tests the harness
itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.interop.cases import (
    TABLES,
    Case,
    Outcome,
    Result,
    client_cases,
    fixture_cases,
    magnet_cases,
    run_case,
    tracker_cases,
)
from tests.interop.clients import CLIENTS, Client, Scheme, Transport
from tests.interop.samples import FIXTURE_NAMES, Sample, make_sample, make_v2_sample
from tests.interop.trackers import TRACKERS

_MARKS = {
    Outcome.PASSED: "ok",
    Outcome.FAILED: "FAILED",
    Outcome.UNAVAILABLE: "not run",
    Outcome.UNSUPPORTED: "-",
}


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; wrong usage exits with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.interop.matrix",
        description="Run bittern against other BitTorrent programs on this machine.",
    )
    rows = sorted({*CLIENTS, *TRACKERS, *FIXTURE_NAMES, *TABLES} - {"bittern"})
    add = parser.add_argument
    add("--only", action="append", choices=rows, metavar="NAME", help=f"one of {', '.join(rows)}")
    add("--left", choices=list(CLIENTS), default="bittern", help="who plays bittern's role")
    add("--transport", choices=[item.value for item in Transport], default="tcp")
    add("--magnet", action="store_true", help="leeches get a magnet link instead of a .torrent")
    add("--tracker", choices=list(TRACKERS), help="where clients meet; default: our own")
    add("--scheme", choices=[item.value for item in Scheme], default="http", help="for --tracker")
    add("--version", choices=["1", "2", "hybrid"], default="1", help="of the torrent for clients")
    add("--length", type=int, default=0, metavar="BYTES", help="add one file of this length")
    add("--timeout", type=float, default=60.0, help="seconds for one download")
    add("--strict", action="store_true", help="what is not installed counts as a failure")
    add("--keep", action="store_true", help="keep all folders and logs")
    add("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args(argv)
    if options.version != "1" and options.length:
        parser.error("--length is for torrents of version 1")
    if options.scheme != "http" and not options.tracker:
        parser.error("--scheme needs --tracker")
    return options


def choose_cases(options: argparse.Namespace, sample: Sample) -> list[Case]:
    """Return the cases that the options ask for, in the order of the tables."""
    left = CLIENTS[options.left]
    transport = Transport(options.transport)
    cases = [
        *client_cases(
            left,
            sample,
            transport=transport,
            is_magnet=options.magnet,
            tracker=TRACKERS[options.tracker] if options.tracker else None,
            scheme=Scheme(options.scheme),
            version=options.version,
        ),
        *(
            ()
            if options.magnet
            else magnet_cases(left, sample, transport=transport, version=options.version)
        ),
        *tracker_cases(left, sample, transport=transport),
        *fixture_cases(left, transport=transport),
    ]
    if options.only:
        cases = [case for case in cases if {case.row, case.table} & set(options.only)]
    return cases


async def run_all(cases: Sequence[Case], directory: Path, *, timeout: float) -> list[Result]:
    """Run one case after the other, with a line for each on standard error."""
    results = []
    for number, case in enumerate(cases):
        print(f"{case.row}: {case.column} ...", end=" ", file=sys.stderr, flush=True)
        scratch = directory / str(number)
        result = await run_case(case, scratch, timeout=timeout)
        print(format_cell(result), file=sys.stderr, flush=True)
        if result.outcome is Outcome.PASSED:
            shutil.rmtree(scratch)
        results.append(result)
    return results


def find_version(row: str) -> str:
    """Return the version of the program a row is about; empty for a torrent."""
    program = CLIENTS.get(row) or TRACKERS.get(row)
    if program is None:
        return ""
    return "not here" if program.missing() else program.version()


def format_cell(result: Result) -> str:
    """Return what stands in the matrix for one case."""
    mark = _MARKS[result.outcome]
    return f"{mark} {result.seconds:.1f} s" if result.outcome is Outcome.PASSED else mark


def format_tables(results: Sequence[Result]) -> Iterator[str]:
    """Yield the lines of all tables and then the reasons for what did not pass."""
    for table in dict.fromkeys(result.case.table for result in results):
        mine = [result for result in results if result.case.table == table]
        cells = {(result.case.row, result.case.column): format_cell(result) for result in mine}
        columns = list(dict.fromkeys(result.case.column for result in mine))
        rows = dict.fromkeys(result.case.row for result in mine)
        lines = [
            [table, "version", *columns],
            *(
                [row, find_version(row), *(cells.get((row, at), "") for at in columns)]
                for row in rows
            ),
        ]
        widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
        for line in lines:
            cells_of_line = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            yield "  ".join(cells_of_line).rstrip()
        yield ""
    for result in results:
        if result.reason:
            lead = f"{result.case.row} {result.case.column}: {result.outcome.value}: "
            yield lead + result.reason.replace("\n", "\n    ")


def to_json(options: argparse.Namespace, results: Sequence[Result]) -> dict[str, Any]:
    """Return everything as one JSON object."""
    return {
        "left": options.left,
        "left_version": CLIENTS[options.left].version(),
        "transport": options.transport,
        "magnet": options.magnet,
        "version": options.version,
        "tracker": options.tracker,
        "versions": {
            row: version
            for row in dict.fromkeys(result.case.row for result in results)
            if (version := find_version(row))
        },
        "results": [
            {
                "table": result.case.table,
                "row": result.case.row,
                "column": result.case.column,
                "seed": result.case.pair.seed.name,
                "leech": result.case.pair.leech.name,
                "outcome": result.outcome.value,
                "seconds": round(result.seconds, 3),
                "reason": result.reason,
            }
            for result in results
        ],
    }


def exit_code(results: Sequence[Result], *, is_strict: bool) -> int:
    """Return 0 when all is well, else 1."""
    outcomes = {result.outcome for result in results}
    bad = {Outcome.FAILED} | ({Outcome.UNAVAILABLE} if is_strict else set())
    return 1 if outcomes & bad or Outcome.PASSED not in outcomes else 0


async def run(options: argparse.Namespace) -> int:
    """Run the matrix in a temporary folder, print it and return the exit code."""
    # A terminated run must end its programs and namespaces as one that was interrupted does.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    directory = Path(tempfile.mkdtemp(prefix="interop-"))
    results: list[Result] = []
    try:
        if options.version == "1":
            sample = make_sample(directory / "sample", large_length=options.length)
        else:
            is_hybrid = options.version == "hybrid"
            sample = make_v2_sample(directory / "sample", is_hybrid=is_hybrid)
        cases = choose_cases(options, sample)
        results = await run_all(cases, directory, timeout=options.timeout)
    finally:
        has_failed = any(result.outcome is Outcome.FAILED for result in results)
        if options.keep or has_failed:
            print(f"logs are in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory)
    if options.json:
        print(json.dumps(to_json(options, results), indent=2))
    else:
        num_files, length = len(sample.files), sample.total_length
        version = CLIENTS[options.left].version()
        via = "magnet link" if options.magnet else ".torrent"
        print(f"\n{options.left} {version}, {options.transport}, ", end="")
        print(f"torrent of version {options.version}, {via}, ", end="")
        print(f"{length} bytes in {num_files} files\n")
        print("\n".join(format_tables(results)))
    return exit_code(results, is_strict=options.strict)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = parse_arguments(argv)
    left: type[Client] = CLIENTS[options.left]
    if reason := left.missing():
        print(f"{left.name}: {reason}", file=sys.stderr)
        return 1
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        return asyncio.run(run(options))
    return 130


if __name__ == "__main__":
    sys.exit(main())
