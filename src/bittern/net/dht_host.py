"""
A DHT with sockets of its own, for programs that want nothing else.

A client shares its sockets between DHT, uTP and trackers and keeps its own state; see
``net.dht`` for the parts.

Sources: BEP 5, BEP 45.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bittern.core.errors import StorageError
from bittern.dht.limits import WELL_KNOWN_ROUTERS, DhtConfig, HostPort
from bittern.net.dht import Dht
from bittern.net.dns import HostResolver
from bittern.net.udp import DHT_BYTES, UdpSocket
from bittern.storage.dht_state import read_dht_state, write_dht_state

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  # the default of a node is to be reachable


@asynccontextmanager
async def open_dht(
    *,
    hosts: Sequence[str] = EVERYWHERE,
    port: int = 0,
    bootstrap: Iterable[HostPort] | None = None,
    state_dir: Path | None = None,
    config: DhtConfig | None = None,
    resolver: HostResolver | None = None,
) -> AsyncIterator[Dht]:
    """
    Open a DHT for the length of a block; its ``bootstrap`` is the caller's to await.

    Args:
        hosts: addresses to bind to, each gets a node; one that this machine does not
            have is left out as long as there is another.
        port: the same for all; 0 takes any free one.
        bootstrap: nodes to start from instead of the well-known ones; empty for none.
        state_dir: where the routing table is kept across runs; None keeps none.
        config: of every node.
        resolver: of names; one of our own otherwise.

    Raises:
        OSError: none of the sockets can be opened.

    Example::

        async with open_dht() as dht:
            await dht.bootstrap()
            async for endpoint in dht.get_peers(info_hash):
                print(endpoint)
    """
    sockets = open_sockets(hosts, port)
    try:
        dht = Dht(
            sockets,
            nodes=() if bootstrap is None else bootstrap,
            routers=WELL_KNOWN_ROUTERS if bootstrap is None else (),
            resolver=resolver,
            state=None if state_dir is None else read_dht_state(state_dir),
            config=config,
        )
        join_sockets(dht, sockets)
        try:
            yield dht
        finally:
            if state_dir is not None and dht.num_nodes:
                with contextlib.suppress(StorageError):  # the next run bootstraps anew
                    write_dht_state(state_dir, dht.save())
            dht.close()
    finally:
        for socket in sockets:
            socket.close()


def open_sockets(hosts: Sequence[str], port: int) -> list[UdpSocket]:
    """Open a socket on each address; on the same free port if ``port`` is 0."""
    sockets: list[UdpSocket] = []
    problem: OSError | None = None
    for host in hosts:
        try:
            sockets.append(UdpSocket.open(host, port))
        except OSError as error:
            problem = error
            continue
        port = sockets[0].endpoint.port
    if problem is not None and not sockets:
        raise problem
    return sockets


def join_sockets(dht: Dht, sockets: Iterable[UdpSocket]) -> None:
    """Hand what arrives at the sockets to the nodes that were made for them, in order."""
    for socket, shell in zip(sockets, dht.shells, strict=True):
        socket.add_receiver(DHT_BYTES, shell.receive, batch_ended=shell.flush)
