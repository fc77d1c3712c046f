"""Options of the command line as settings of the engine."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar

from bittern.cli.exits import describe
from bittern.cli.loop import StopSignal, before_end
from bittern.cli.options import NetworkOptions
from bittern.cli.output import complain
from bittern.cli.values import HostPort
from bittern.core.endpoint import Endpoint
from bittern.core.errors import ConfigError, StorageError
from bittern.engine.config import SessionConfig
from bittern.net.dns import LOOKUP_TIMEOUT, Lookup, ThreadedLookup, literal_address
from bittern.storage.statelock import StateLock

RUNS_FOLDER = "runs"
"""Below the state folder: the state of runs that found it taken."""
MAX_CHOICES = 5
"""State folders that a run tries to take before it does without."""

T = TypeVar("T")


def session_config(network: NetworkOptions, state_dir: Path | None) -> SessionConfig:
    """
    Return the session's settings.

    Raises:
        ConfigError: a value is out of range, or an address is not of this machine.
    """
    defaults = SessionConfig()
    hosts = tuple(dict.fromkeys(network.bind))
    check_hosts(hosts)
    return SessionConfig(
        listen_host=hosts or None,
        listen_port=defaults.listen_port if network.port is None else network.port,
        enable_trackers=not network.no_tracker,
        enable_dht=not network.no_dht,
        enable_web_seeds=not network.no_web_seed,
        enable_pex=not network.no_pex,
        enable_lsd=not network.no_lsd,
        enable_zeroconf=network.zeroconf,
        dht_bootstrap=tuple((host, port) for host, port in network.dht_bootstrap)
        or defaults.dht_bootstrap,
        max_download_rate=network.max_download,
        max_upload_rate=network.max_upload,
        state_dir=state_dir,
    )


def check_hosts(hosts: Iterable[str]) -> None:
    """
    Refuse addresses that nothing could be sent from: it would look as if nobody were there.

    Raises:
        ConfigError: one of them is not of this machine.
    """
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((host, 0))
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}: {describe(error)}") from error


def state_key(place: Path, names: Iterable[str]) -> str:
    """Return a name for a run: the same for the same torrents in the same place."""
    text = "\0".join([str(place.absolute()), *sorted(names)])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def default_state_dir() -> Path:
    """
    Return the platform's place for state, whether it is there or not.

    Raises:
        StorageError: the user has no home folder, as in a container under a number without name.
    """
    from platformdirs import user_state_path

    problem = "there is no home folder to keep state in; --state-dir names another"
    try:
        folder = user_state_path("bittern", appauthor=False)
    except RuntimeError as error:
        raise StorageError(problem, errno=errno.ENOENT) from error
    if not folder.is_absolute():  # older versions of the library leave the "~" as it is
        raise StorageError(problem, errno=errno.ENOENT)
    return folder


def choose_state_dir(given: Path | None, key: str) -> Path | None:
    """
    Return the folder for resume data and DHT state, made if need be.

    A state folder belongs to one process at a time (Limit: F18), but several runs of the
    program at once are common. So whoever comes while it is taken gets a folder of its
    own below it, under ``key``, and finds it again next time.

    Args:
        given: ``--state-dir``; None for the platform's place.
        key: from ``state_key``.

    Returns:
        None if there is none that can be used; then we go on, but remember nothing.
    """
    try:
        return _find_free_dir(default_state_dir() if given is None else given, key)
    except StorageError as problem:
        complain(f"warning: {problem}; downloads will be checked anew next time")
        return None


def _find_free_dir(given: Path, key: str) -> Path:
    own = given / RUNS_FOLDER / key
    has_own = os.path.isdir(own)  # noqa: PTH112 - no error where we may not look
    first, second = (own, given) if has_own else (given, own)
    try:
        StateLock(first).release()
    except StorageError as error:
        if error.errno != errno.EAGAIN:
            raise
        StateLock(second).release()
        return second
    return first


async def with_state_dir(
    given: Path | None, key: str, work: Callable[[Path | None], Awaitable[T]]
) -> T:
    """
    Do work that takes a state folder; again with another one when somebody was quicker.

    Args:
        given: as for ``choose_state_dir``.
        key: as for ``choose_state_dir``.
        work: takes the folder, first of all, as a session does that is entered.

    Raises:
        StorageError: of ``work``, unless it is that the folder is taken.
    """
    for _ in range(MAX_CHOICES):
        folder = choose_state_dir(given, key)
        try:
            return await work(folder)
        except StorageError as error:
            # Between the look and the lock another run has taken it, as when many begin at once.
            if folder is None or error.errno != errno.EAGAIN or error.path != str(folder):
                raise
    complain("warning: others take every state folder; downloads will be checked anew next time")
    return await work(None)


def discard_run(folder: Path | None) -> None:
    """Remove the state of a run of its own, once there is nothing left to resume."""
    if folder is not None and folder.parent.name == RUNS_FOLDER:
        shutil.rmtree(folder, ignore_errors=True)


async def resolve_peers(peers: Iterable[HostPort], stop: StopSignal) -> tuple[Endpoint, ...]:
    """
    Look up the addresses of peers, all names at once.

    Returns:
        The addresses in the order of the peers; a name without one is complained about and left
        out. None at all once the program is told to stop, which nothing here delays.
    """
    lookup, named = ThreadedLookup().lookup, list(peers)
    lookups = asyncio.gather(*(_try(peer.host, lookup) for peer in named))
    found: dict[Endpoint, None] = {}
    for peer, hosts in zip(named, await before_end(lookups, stop, None) or (), strict=False):
        if isinstance(hosts, OSError):
            complain(f"warning: {peer}: {describe(hosts)}")
        else:
            found.update(dict.fromkeys(Endpoint.make(host, peer.port) for host in hosts))
    return tuple(found)


async def _try(name: str, lookup: Lookup) -> list[str] | OSError:
    """Return the addresses of a name, or why there are none."""
    try:
        return await look_up(name, lookup)
    except OSError as error:
        return error


async def look_up(name: str, lookup: Lookup) -> list[str]:
    """
    Return the addresses of a name, one at least; of an address itself.

    Raises:
        OSError: it has none, or nobody answered in time (Limit: F11).
    """
    literal = literal_address(name)
    if literal is not None:
        return [literal]
    async with asyncio.timeout(LOOKUP_TIMEOUT):
        found = [literal_address(host) for host in await lookup(name)]
    hosts = [host for host in found if host is not None]
    if not hosts:
        raise OSError("no address")
    return hosts
