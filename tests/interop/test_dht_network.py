"""
One DHT of bittern's, libtorrent's and npm's nodes: what any of them announces, all find.

Reduced by default; ``-m soak`` runs 30 nodes of ours and 10 of libtorrent's.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.dht.limits import DhtConfig
from bittern.net.dht import Dht
from bittern.net.dht_host import open_dht
from tests.interop.libtorrent_dht import HOST, LibtorrentNode
from tests.interop.place import Place
from tests.interop.process import Program
from tests.interop.samples import CACHE

pytestmark = [pytest.mark.interop, pytest.mark.slow]

TIMEOUT = 60.0
_PROGRAM = Path(__file__).parent / "programs" / "dht_node.cjs"
_MODULES = CACHE / "node_modules"
CONFIG = DhtConfig(max_upload_rate=1e6)
"""All nodes share one processor, so nobody can be slowed by politeness."""


def hash_of(number: int) -> InfoHash:
    return InfoHash(hashlib.sha1(b"%d" % number).digest())


class Mixed:
    """Nodes of both kinds in one network."""

    def __init__(self) -> None:
        self.ours: list[Dht] = []
        self.theirs: list[LibtorrentNode] = []

    @property
    def port(self) -> int:
        """Of the node that all others start from."""
        return self.ours[0].stats()[0].endpoint.port


@asynccontextmanager
async def mixed_network(num_ours: int, num_theirs: int) -> AsyncIterator[Mixed]:
    """Run a network in which everybody knows somebody."""
    network = Mixed()
    async with AsyncExitStack() as stack:
        for _ in range(num_ours):
            nodes = [(HOST, network.port)] if network.ours else []
            dht = await stack.enter_async_context(
                open_dht(hosts=(HOST,), bootstrap=nodes, config=CONFIG)
            )
            await dht.bootstrap()
            network.ours.append(dht)
        ports = [dht.stats()[0].endpoint.port for dht in network.ours[:5]]
        for _ in range(num_theirs):
            node = LibtorrentNode(*ports)
            stack.callback(node.close)
            network.theirs.append(node)
        # The first node has met everybody, and names them to whoever asks.
        wanted = min(3, num_ours - 1)
        for node in network.theirs:
            await node.joined(wanted)
        async with asyncio.timeout(TIMEOUT):
            while min(dht.num_nodes for dht in network.ours) < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield network


async def found_by_all(ask: Callable[[int], Awaitable[bool]], numbers: range, *, what: str) -> None:
    """
    Ask for every number again and again, until all of them are found.

    Each that is found gives the next one its time: a lookup is 1 ms of work, but on a busy
    machine 40 of them have waited most of a minute for a processor.
    """
    missing = list(numbers)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(TIMEOUT) as limit:
            while missing:
                for number in list(missing):
                    if await ask(number):
                        missing.remove(number)
                        limit.reschedule(loop.time() + TIMEOUT)
                await asyncio.sleep(0.1 if missing else 0)
    except TimeoutError:
        pytest.fail(f"{what} did not find {missing}")


@pytest.mark.parametrize(
    ("num_ours", "num_theirs"),
    [(6, 2), pytest.param(30, 10, marks=[pytest.mark.soak, pytest.mark.timeout(600)])],
)
async def test_everybody_finds_what_anybody_announced(num_ours: int, num_theirs: int) -> None:
    async with mixed_network(num_ours, num_theirs) as network:
        total = num_ours + num_theirs
        for number, dht in enumerate(network.ours):
            result = await dht.announce(hash_of(number), 1000 + number).wait()
            assert result.num_stored >= 3
        for number, node in enumerate(network.theirs, num_ours):
            node.announce(hash_of(number), 1000 + number)

        for at, dht in enumerate(network.ours):

            async def find(number: int, dht: Dht = dht, at: int = at) -> bool:
                if number == at:
                    return True
                peers = [peer async for peer in dht.get_peers(hash_of(number))]
                return Endpoint(HOST, 1000 + number) in peers

            await found_by_all(find, range(total), what=f"bittern {at}")
        for at, node in enumerate(network.theirs):

            async def ask(number: int, node: LibtorrentNode = node, at: int = at) -> bool:
                if number == num_ours + at:
                    return True
                return (HOST, 1000 + number) in await node.find_peers(hash_of(number))

            await found_by_all(ask, range(total), what=f"libtorrent {at}")


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed: make interop")
@pytest.mark.skipif(
    not (_MODULES / "bittorrent-dht").is_dir(), reason="bittorrent-dht: make interop"
)
async def test_a_node_of_npm_joins_and_finds(tmp_path: Path) -> None:
    async with mixed_network(4, 1) as network:
        await network.ours[1].announce(hash_of(1), 1001).wait()
        network.theirs[0].announce(hash_of(2), 1002)
        place = Place()
        port = place.free_port()
        program = await Program.start(
            [
                *("node", str(_PROGRAM), str(_MODULES), str(port), str(network.port)),
                *(str(hash_of(3)), "1003", str(hash_of(1)), str(hash_of(2))),
            ],
            place=place,
            log=tmp_path / "npm.log",
        )
        try:
            await program.wait_line(lambda line: line == "announced", timeout=TIMEOUT)
            for number in (1, 2):
                wanted = f"peer {hash_of(number)} {HOST}:{1000 + number}"
                await program.wait_line(lambda line, wanted=wanted: line == wanted, timeout=TIMEOUT)  # type: ignore[misc]

            async def find(_number: int) -> bool:
                peers = [peer async for peer in network.ours[2].get_peers(hash_of(3))]
                return Endpoint(HOST, 1003) in peers

            await found_by_all(find, range(3, 4), what="bittern")
            # Not only what it stored with us: its own node answers us, too.
            ponged = await network.ours[3].ping(Endpoint(HOST, port))
            assert ponged.node.endpoint.port == port
        finally:
            await program.stop()
