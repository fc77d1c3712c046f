"""``bittern dht node`` and ``stats``: a node that serves others, and how it sees the network."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bittern.cli.dht import DhtOptions, opened_dht, run_question
from bittern.cli.exits import ExitCode
from bittern.cli.loop import StopSignal, run_loop
from bittern.cli.options import ReportOptions
from bittern.cli.output import complain, print_json, print_table
from bittern.cli.report import Report
from bittern.cli.session import state_key, with_state_dir
from bittern.core.ids import InfoHash, NodeId
from bittern.net.dht import Dht, NodeStats
from bittern.storage.statelock import StateLock

if TYPE_CHECKING:
    from bittern.cli.output import Json

DEFAULT_PORT = 6881
STATUS_INTERVAL = 1.0
"""Seconds between two looks at the numbers."""


def node(
    *,
    dht: DhtOptions = DhtOptions(),  # noqa: B008 - immutable
    report: ReportOptions = ReportOptions(),  # noqa: B008
) -> int:
    """
    Run a DHT node, until told to stop. By default on port 6881 of all addresses.

    Args:
        dht: How to get into the DHT; without --timeout there is no end.
        report: How to tell about it.
    """
    port = DEFAULT_PORT if dht.port is None else dht.port
    key = state_key(Path(), [f"dht node {' '.join(dht.bind) or 'everywhere'} {port}"])

    async def serve(told: Report, stop: StopSignal, state_dir: Path | None) -> None:
        settings = replace(dht, port=port, state_dir=state_dir)
        async with _held(state_dir), opened_dht(settings, is_read_only=False) as own:
            for each in own.stats():
                text = f"node {each.status.node_id} on {each.endpoint}"
                told.note("listening", text, endpoint=each.endpoint, node_id=each.status.node_id)
            await _serve(own, told, stop, dht.timeout)
            told.result([stats_json(own)])

    async def work(stop: StopSignal) -> int:
        told = Report(report)
        try:
            await with_state_dir(dht.state_dir, key, partial(serve, told, stop))
        finally:
            told.close()
        return stop.exit_code(unfinished=False)

    return run_loop(work)


@asynccontextmanager
async def _held(state_dir: Path | None) -> AsyncIterator[None]:
    """Keep a state folder to ourselves for the length of a block."""
    lock = None if state_dir is None else StateLock(state_dir)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


async def _serve(own: Dht, told: Report, stop: StopSignal, timeout: float | None) -> None:
    """Tell how it goes until a signal comes or the time is up."""
    ends_at = float("inf") if timeout is None else time.monotonic() + timeout
    joining = asyncio.ensure_future(own.bootstrap())
    try:
        before: dict[str, Json] = {}
        while not stop.is_set() and (left := ends_at - time.monotonic()) > 0:
            numbers = totals(own.stats())
            told.status(status_text(numbers))
            if numbers != before:
                told.note("progress", "", **numbers)
                before = numbers
            try:
                await asyncio.wait_for(stop.wait(), min(STATUS_INTERVAL, left))
            except TimeoutError:
                continue
    finally:
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)


def stats(
    *,
    json: bool = False,
    dht: DhtOptions = DhtOptions(),  # noqa: B008
) -> int:
    """
    Join the DHT, look around once, and tell how large it is and how it sees us.

    Args:
        json: Write one JSON object to stdout.
        dht: How to get into the DHT.
    """

    async def ask(own: Dht) -> int:
        # The estimate comes from how near to a random place the nearest nodes are.
        for _ in range(3):
            place = InfoHash(secrets.token_bytes(NodeId.SIZE))
            await own.get_peers(place, found=lambda _peers: None).wait()
        if json:
            print_json(stats_json(own))
            return ExitCode.DONE
        for each in own.stats():
            if not each.status.num_nodes and len(own.stats()) > 1:
                complain(f"no nodes were reached from {each.endpoint}")
                continue
            print_table(
                [
                    ("address", str(each.endpoint)),
                    ("seen as", each.status.host or "unknown"),
                    ("node id", str(each.status.node_id)),
                    ("nodes known", str(each.status.num_nodes)),
                    ("nodes in all", f"about {each.status.num_nodes_estimate}"),
                    ("queries", f"{each.counters.num_asked}, {each.counters.num_timeouts} failed"),
                ]
            )
        return ExitCode.DONE

    return run_question(dht, ask)


def stats_json(own: Dht) -> dict[str, Json]:
    """Return what ``dht stats --json`` and ``dht node --json`` write."""
    return {**totals(own.stats()), "nodes": [_node_json(each) for each in own.stats()]}


def totals(nodes: tuple[NodeStats, ...]) -> dict[str, Json]:
    """Return the numbers of all our nodes together; the estimate is that of the larger network."""
    return {
        "num_nodes": sum(each.status.num_nodes for each in nodes),
        "num_nodes_estimate": max((each.status.num_nodes_estimate for each in nodes), default=0),
        "num_torrents": sum(each.status.num_torrents for each in nodes),
        "num_peers": sum(each.status.num_peers for each in nodes),
        "num_items": sum(each.status.num_items for each in nodes),
        "num_received": sum(each.counters.num_received for each in nodes),
        "num_sent": sum(each.counters.num_sent for each in nodes),
        "num_answered": sum(each.counters.num_answered for each in nodes),
        "num_limited": sum(each.counters.num_limited for each in nodes),
        "num_malformed": sum(each.counters.num_malformed for each in nodes),
        "num_asked": sum(each.counters.num_asked for each in nodes),
        "num_timeouts": sum(each.counters.num_timeouts for each in nodes),
    }


def status_text(numbers: dict[str, Json]) -> str:
    """Return the numbers as a line for a person."""
    return (
        f"{numbers['num_nodes']} nodes known (about {numbers['num_nodes_estimate']} in all), "
        f"{numbers['num_peers']} peers of {numbers['num_torrents']} torrents, "
        f"{numbers['num_items']} items, {numbers['num_answered']} queries answered"
    )


def _node_json(each: NodeStats) -> Json:
    return {
        "endpoint": str(each.endpoint),
        "node_id": str(each.status.node_id),
        "host": each.status.host,
        "num_nodes": each.status.num_nodes,
        "num_nodes_estimate": each.status.num_nodes_estimate,
    }
