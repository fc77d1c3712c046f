"""``bittern tracker``: run a tracker over HTTP and UDP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bittern.cli.allowed import Allowed
from bittern.cli.exits import CommandFailed, ExitCode, describe, exit_code_of
from bittern.cli.loop import StopSignal, before_end, cancel, run_loop
from bittern.cli.options import Duration, Listeners, Networks, ReportOptions
from bittern.cli.report import Report
from bittern.cli.session import look_up
from bittern.cli.values import HostPort
from bittern.core.endpoint import Endpoint
from bittern.engine.reasons.phrases import count_of
from bittern.net.dns import ThreadedLookup
from bittern.tracker.desk import DEFAULT_INTERVAL, Refused
from bittern.tracker.server import Tracker

DEFAULT_PORT = 6969
STATUS_INTERVAL = 10.0
"""Seconds between two looks at the numbers, which are told when they have changed."""

MEMORY = "memory:"
"""The store that needs no server, and the only one there is."""


def tracker(
    *,
    http: Listeners = (),
    udp: Listeners = (),
    interval: Duration = None,
    store: Annotated[str, Parameter(metavar="URL")] = MEMORY,
    allow: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    trust: Networks = (),
    lenient_ids: bool = False,
    report: ReportOptions = ReportOptions(),  # noqa: B008 - immutable
) -> int:
    """
    Run a tracker, until told to stop. By default on port 6969 of all addresses.

    Args:
        http: Listen here for HTTP; repeatable. ":6969" is all addresses, port 0 any.
        udp: Listen here for UDP; repeatable.
        interval: What clients are told to wait between announces. Default: 30m.
        store: Where swarms are kept; "memory:" is the only store.
        allow: Serve only the info hashes in this file, one in hexadecimal a line. SIGHUP has it
            read again.
        trust: Believe the "ip=" of announces from this network; repeatable.
        lenient_ids: Accept UDP connection ids for ten minutes instead of two.
        report: How to tell about it.
    """
    if store != MEMORY:
        raise CommandFailed(f"--store {store}: only {MEMORY!r} is there", ExitCode.USAGE)
    if not http and not udp:
        http = udp = (HostPort("", DEFAULT_PORT),)
    allowed = None if allow is None else Allowed(allow)

    async def work(stop: StopSignal) -> int:
        places = asyncio.gather(resolve_listeners(http), resolve_listeners(udp))
        found = await before_end(places, stop, None)
        if found is None:
            return stop.exit_code(unfinished=False)

        def make(refused: Refused) -> Tracker:
            return Tracker(
                http=found[0],
                udp=found[1],
                interval=DEFAULT_INTERVAL if interval is None else round(interval),
                allowed=allowed,
                trusted=trust,
                lenient_ids=lenient_ids,
                refused=refused,
            )

        await _run(make, Report(report), stop, allowed)
        return stop.exit_code(unfinished=False)

    return run_loop(work, on_hangup=None if allowed is None else allowed.ask)


async def _run(
    make: Callable[[Refused], Tracker], told: Report, stop: StopSignal, allowed: Allowed | None
) -> None:
    """
    Run a tracker until it is told to stop, and tell of it.

    Raises:
        CommandFailed: it cannot listen.
        OSError: nobody can be told.
    """
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    parts = [broken]
    try:
        server = make(partial(_tell_refused, told, broken))
        if allowed is not None:
            parts.append(asyncio.ensure_future(allowed.keep(told)))
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(server)
            except OSError as error:
                text = f"cannot listen on {describe(error)}"
                raise CommandFailed(text, exit_code_of(error)) from error
            _tell_listening(server, told)
            await _serve(server, told, stop, parts)
        told.result([numbers_of(server)])
    finally:
        await cancel(*parts)  # asyncio would complain of an error that nobody has asked for
        told.close()


async def resolve_listeners(listeners: Sequence[HostPort]) -> list[Endpoint]:
    """
    Return the addresses to listen on; "all addresses" is one of each family.

    Raises:
        CommandFailed: a name has no address.
    """
    found: list[Endpoint] = []
    lookup = ThreadedLookup().lookup
    for host, port in listeners:
        if not host:
            found.append(Endpoint("0.0.0.0", port))  # noqa: S104 - it was asked for
            if port and _has_ipv6():
                found.append(Endpoint("::", port))
            continue
        try:
            found.append(Endpoint.make((await look_up(host, lookup))[0], port))
        except OSError as error:
            raise CommandFailed(f"{host}: {describe(error)}", ExitCode.NOT_FOUND) from error
    return found


def _has_ipv6() -> bool:
    """Tell whether this machine takes IPv6 sockets; having the code for it is not enough."""
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def numbers_of(server: Tracker) -> dict[str, int]:
    """Return what the tracker has counted."""
    desk = server.desk
    return {
        "num_torrents": desk.table.num_torrents,
        "num_peers": desk.table.num_peers,
        "num_announces": desk.num_announces,
        "num_scrapes": desk.num_scrapes,
        "num_refused": desk.num_refused,
    }


def _tell_listening(server: Tracker, told: Report) -> None:
    http = [url for url in server.announce_urls if url.startswith("http")]
    udp = [url for url in server.announce_urls if url.startswith("udp")]
    told.note("listening", "listening on " + ", ".join(http + udp), http=http, udp=udp)


def _tell_refused(told: Report, broken: asyncio.Future[None], host: str, reason: str) -> None:
    text = f"refused {host}: {reason}" if told.wants_events else ""
    try:
        told.note("refused", text, host=host, reason=reason)
    except OSError as error:  # no fault of whoever waits for our answer
        if not broken.done():
            broken.set_exception(error)


async def _serve(
    server: Tracker, told: Report, stop: StopSignal, parts: Sequence[asyncio.Future[None]]
) -> None:
    """Wait for the signal, and tell the numbers when they have changed; raise how a part ends."""
    before = numbers_of(server)
    signal = asyncio.ensure_future(stop.wait())
    try:
        while not (signal.done() or any(part.done() for part in parts)):
            done, _ = await asyncio.wait(
                (signal, *parts), timeout=STATUS_INTERVAL, return_when=asyncio.FIRST_COMPLETED
            )
            numbers = numbers_of(server)
            if not done and numbers != before:
                before = numbers
                told.note("progress", _text_of(numbers), **numbers)
    finally:
        await cancel(signal)
    for part in parts:
        if part.done():
            part.result()


def _text_of(numbers: Mapping[str, int]) -> str:
    parts = (
        count_of(numbers["num_torrents"], "torrent"),
        count_of(numbers["num_peers"], "peer"),
        count_of(numbers["num_announces"], "announce"),
        count_of(numbers["num_scrapes"], "scrape"),
        f"{numbers['num_refused']} refused",
    )
    return ", ".join(parts)
