"""
What the verbs of ``bittern dht`` have in common: their options, a node, an end in time.

A verb that asks something and leaves is a read-only node (BEP 43): nobody needs to
remember it. It starts from the nodes of an earlier run if there are any, and from the
well-known ones otherwise; with ``--bootstrap`` from those alone.

Exit codes: 4 when no node could be reached, 3 when nobody has what was asked for, 7
when the time was up or a signal came before the answer.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bittern.cli.exits import CommandFailed, ExitCode, describe, exit_code_of
from bittern.cli.loop import StopSignal, before_end, run_loop
from bittern.cli.options import Addresses, Duration, Hosts, Port
from bittern.cli.output import complain
from bittern.cli.session import check_hosts, default_state_dir
from bittern.cli.source import is_magnet, load_info_hash, load_magnet
from bittern.cli.values import HostPort, format_duration
from bittern.core.endpoint import Endpoint
from bittern.core.errors import ResolveError, StorageError
from bittern.core.ids import InfoHash
from bittern.dht.limits import DhtConfig
from bittern.net.dht import Dht
from bittern.net.dht_host import EVERYWHERE, open_dht
from bittern.net.dns import Resolver

DEFAULT_TIMEOUT = 60.0
"""Seconds for a question, joining the network included."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class DhtOptions:
    """How a verb gets into the DHT."""

    bootstrap: Annotated[Addresses, Parameter(name=("--bootstrap", "--dht-bootstrap"))] = ()
    """Start from these nodes instead of the well-known ones; repeatable."""
    no_bootstrap: bool = False
    """Start from nobody, as the first node of a network of its own."""
    port: Port = None
    """UDP port; 0 takes any free one. Default: any; of "node" 6881."""
    bind: Hosts = ()
    """Address to send from; repeatable, each gets a node. Default: all."""
    timeout: Duration = None
    """Stop after this long. Default: 60s; none where it runs until it is stopped."""
    state_dir: Annotated[Path | None, Parameter(metavar="DIR")] = None
    """Folder with the nodes of an earlier run. Default: the platform's state folder."""


@asynccontextmanager
async def joined_dht(options: DhtOptions) -> AsyncIterator[Dht]:
    """
    Open a read-only node and join the network, for the length of a block.

    Raises:
        CommandFailed: no node could be reached, or no socket could be opened.
    """
    async with opened_dht(options) as dht:
        if not await dht.bootstrap():
            raise CommandFailed("no DHT node could be reached", ExitCode.UNREACHABLE)
        yield dht


@asynccontextmanager
async def opened_dht(
    options: DhtOptions, *, is_read_only: bool = True, bootstrap: Sequence[HostPort] | None = None
) -> AsyncIterator[Dht]:
    """
    Open a node for the length of a block; joining the network is the caller's affair.

    Args:
        options: of the verb.
        is_read_only: ask only, and answer nobody (BEP 43).
        bootstrap: start from these, instead of the nodes that the options say.

    Raises:
        ConfigError: an address is not of this machine.
        CommandFailed: no socket could be opened.
    """
    check_hosts(options.bind)
    nodes = [] if options.no_bootstrap else list(options.bootstrap or ()) or None
    state_dir = options.state_dir
    if state_dir is None and nodes is None and bootstrap is None:
        with suppress(StorageError):  # nobody remembers nodes then
            state_dir = default_state_dir()
    context = open_dht(
        hosts=tuple(dict.fromkeys(options.bind)) or EVERYWHERE,
        port=options.port or 0,
        bootstrap=nodes if bootstrap is None else bootstrap,
        state_dir=state_dir,
        config=DhtConfig(is_read_only=is_read_only),
    )
    async with AsyncExitStack() as stack:
        try:
            dht = await stack.enter_async_context(context)
        except OSError as error:
            what = f"UDP port {options.port}" if options.port else "a UDP socket"
            text = f"cannot open {what}: {describe(error)}"
            raise CommandFailed(text, exit_code_of(error)) from error
        yield dht


def run_question(
    options: DhtOptions, ask: Callable[[Dht], Awaitable[int]], *, joins: bool = True
) -> int:
    """
    Join the DHT, ask, and leave, all within ``options.timeout``.

    Args:
        options: of the verb.
        ask: asks and tells; returns the exit code.
        joins: join the network first; else only the socket is there.
    """
    limit = DEFAULT_TIMEOUT if options.timeout is None else options.timeout

    async def work() -> int:
        if joins:
            async with joined_dht(options) as dht:
                return await ask(dht)
        async with opened_dht(options, bootstrap=()) as dht:
            await dht.bootstrap()
            return await ask(dht)

    return run_loop(lambda stop: within(work(), stop, limit))


async def within(work: Awaitable[int], stop: StopSignal, timeout: float | None) -> int:
    """
    Return the exit code of ``work``, or that of being stopped before its end.

    Raises:
        CommandFailed: the time is up.
    """
    code = await before_end(work, stop, timeout)
    if code is not None:
        return code
    if stop.is_set():
        code = stop.exit_code(unfinished=True)
        complain("interrupted" if code is ExitCode.INTERRUPTED else "stopped")
        return code
    raise CommandFailed(f"no answer within {format_duration(timeout)}", ExitCode.UNFINISHED)


async def resolve_one(address: HostPort, dht: Dht) -> Endpoint:
    """
    Return the endpoint of a node, of a family that we have a socket for if it has one.

    Raises:
        CommandFailed: the name has no address.
    """
    resolver = Resolver()
    try:
        hosts = await resolver.resolve(address.host)
    except ResolveError as error:
        raise CommandFailed(str(error), ExitCode.NOT_FOUND) from error
    finally:
        await resolver.close()
    families = {stats.endpoint.is_ipv6 for stats in dht.stats()}
    endpoints = [Endpoint.make(host, address.port) for host in hosts]
    return next((each for each in endpoints if each.is_ipv6 in families), endpoints[0])


def parse_info_hash(text: str) -> InfoHash:
    """
    Read a v1 or v2 info hash, or a magnet link; a v2 hash is cut to its first 20 bytes.

    Raises:
        CommandFailed: it is none of these.
    """
    magnet = load_magnet(text) if is_magnet(text) else load_info_hash(text)
    if magnet.wire_hash is None:
        raise CommandFailed(f"{text}: the link names no info hash", ExitCode.USAGE)
    return magnet.wire_hash


def parse_hex(text: str, length: int) -> bytes | None:
    """Read that many bytes in hexadecimal; None if it is something else."""
    if re.fullmatch(f"[0-9a-fA-F]{{{2 * length}}}", text) is None:
        return None
    return bytes.fromhex(text)
