"""
The cases of the matrix: which transfers it is made of, and what came of each.

A case is a cell of one of three tables: clients, trackers, and the torrents of webtorrent-fixtures.
"""

from __future__ import annotations

import enum
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.interop.clients import CLIENTS, FOREIGN_CLIENTS, Client, Scheme, Transport
from tests.interop.pairing import Pair, transfer_by_tracker
from tests.interop.process import InteropError
from tests.interop.samples import FIXTURE_NAMES, Sample, load_fixture
from tests.interop.trackers import TRACKERS, Tracker

TABLES = ("clients", "magnets", "trackers", "fixtures")

# The client that the fixtures are exchanged with: the fastest one; and whom it meets itself.
_FIXTURE_PARTNER = CLIENTS["libtorrent"]
_OTHER_FIXTURE_PARTNER = CLIENTS["aria2"]


class Outcome(enum.Enum):
    """What came of a case; the value is its name in JSON."""

    PASSED = "passed"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"
    """A program is not installed here, or may not be run."""
    UNSUPPORTED = "unsupported"
    """One of the programs cannot do what the case asks for."""


@dataclass(frozen=True, slots=True)
class Case:
    """
    One transfer.

    Attributes:
        table: one of ``TABLES``.
        row: the program or torrent that the row is about.
        column: what the row's program does.
        pair: the two clients.
        find_sample: returns the torrent, or raises FileNotFoundError when it is not installed.
        tracker: where they meet; None is the harness's own tracker.
        scheme: how they reach it.
        version: of the torrent.
    """

    table: str
    row: str
    column: str
    pair: Pair
    find_sample: Callable[[], Sample]
    tracker: type[Tracker] | None = None
    scheme: Scheme = Scheme.HTTP
    version: str = "1"

    def unsupported(self) -> str | None:
        """Return why the case makes no sense, or None when it does."""
        for client in (self.pair.seed, self.pair.leech):
            if self.scheme not in client.schemes:
                return f"{client.name} cannot reach {self.scheme.value} trackers on its own"
            if not client.missing() and not client.knows(self.version):
                return f"{client.name} cannot read torrents of version {self.version}"
        return self.pair.unsupported()

    def missing(self) -> str | None:
        """Return why the case cannot be run on this machine, or None when it can."""
        return (self.tracker and self.tracker.missing()) or self.pair.missing()


@dataclass(frozen=True, slots=True)
class Result:
    """
    What came of a case.

    Attributes:
        seconds: duration of the download, and of the whole attempt when it failed.
        reason: why it did not pass; may have many lines.
    """

    case: Case
    outcome: Outcome
    seconds: float = 0.0
    reason: str = ""


async def run_case(case: Case, scratch: Path, *, timeout: float) -> Result:
    """Run one case to its end; nothing a foreign program does makes this raise."""
    if reason := case.unsupported():
        return Result(case, Outcome.UNSUPPORTED, reason=reason)
    if reason := case.missing():
        return Result(case, Outcome.UNAVAILABLE, reason=reason)
    started_at = time.monotonic()
    try:
        try:
            sample = case.find_sample()
        except FileNotFoundError as error:
            return Result(case, Outcome.UNAVAILABLE, reason=str(error))
        transfer = await transfer_by_tracker(
            case.pair,
            sample,
            scratch,
            tracker=case.tracker,
            scheme=case.scheme,
            timeout=timeout,
        )
    except (InteropError, OSError, ValueError) as error:
        seconds = time.monotonic() - started_at
        return Result(case, Outcome.FAILED, seconds, f"{type(error).__name__}: {error}")
    return Result(case, Outcome.PASSED, transfer.seconds)


def client_cases(
    left: type[Client],
    sample: Sample,
    *,
    transport: Transport,
    is_magnet: bool,
    tracker: type[Tracker] | None,
    scheme: Scheme,
    version: str = "1",
    table: str = "clients",
) -> Iterator[Case]:
    """Yield both directions between ``left`` and every foreign client."""
    for client in FOREIGN_CLIENTS:
        for column, pair in (
            (f"seeds to {left.name}", Pair(client, left, transport, is_magnet)),
            (f"leeches from {left.name}", Pair(left, client, transport, is_magnet)),
        ):
            yield Case(table, client.name, column, pair, lambda: sample, tracker, scheme, version)


def magnet_cases(
    left: type[Client], sample: Sample, *, transport: Transport, version: str
) -> Iterator[Case]:
    """Yield both directions again, where the leech gets a magnet link (BEP 9)."""
    yield from client_cases(
        left,
        sample,
        transport=transport,
        is_magnet=True,
        tracker=None,
        scheme=Scheme.HTTP,
        version=version,
        table="magnets",
    )


def tracker_cases(left: type[Client], sample: Sample, *, transport: Transport) -> Iterator[Case]:
    """Yield both schemes of every tracker, with ``left`` as seed and as leech."""
    pair = Pair(left, left, transport)
    for tracker in TRACKERS.values():
        for scheme in Scheme:
            column = f"serves {left.name} over {scheme.value.upper()}"
            yield Case("trackers", tracker.name, column, pair, lambda: sample, tracker, scheme)


def fixture_cases(left: type[Client], *, transport: Transport) -> Iterator[Case]:
    """Yield both directions of every torrent of webtorrent-fixtures."""
    partner = _OTHER_FIXTURE_PARTNER if left is _FIXTURE_PARTNER else _FIXTURE_PARTNER
    for stem in FIXTURE_NAMES:
        for column, pair in (
            (f"{partner.name} to {left.name}", Pair(partner, left, transport)),
            (f"{left.name} to {partner.name}", Pair(left, partner, transport)),
        ):
            yield Case("fixtures", stem, column, pair, functools.partial(load_fixture, stem))
