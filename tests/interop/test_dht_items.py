"""
Items of the DHT between ``bittern dht`` and libtorrent, in one network of both.

The network is three nodes of ours and two of libtorrent's; the command line runs as a program.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bittern.net.signing import SigningKey
from bittern.storage.key_file import make_key_file
from tests.cli.dht_network import DhtNetwork
from tests.interop.clients.bittern import ENVIRONMENT
from tests.interop.libtorrent_dht import LibtorrentNode

pytestmark = [pytest.mark.interop, pytest.mark.slow]


class Scene:
    """The network, and the command line in it."""

    def __init__(self, network: DhtNetwork, nodes: list[LibtorrentNode]) -> None:
        self.one, self.other = nodes
        self._options = network.options

    async def dht(self, *arguments: object) -> Any:
        """Run ``bittern dht`` and return what it wrote as JSON."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bittern", "dht", *map(str, arguments)),
            *(*self._options, "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT},
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return json.loads(out)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    with DhtNetwork(3) as network:
        ports = [node.stats()[0].endpoint.port for node in network.nodes]
        nodes = [LibtorrentNode(*ports) for _ in range(2)]
        for node in nodes:
            await node.joined(3)
        yield Scene(network, nodes)
        for node in nodes:
            node.close()


async def test_immutable_items_both_ways(scene: Scene) -> None:
    target = await scene.other.put_immutable(b"from libtorrent")
    found = await scene.dht("get", target)
    assert (found["text"], found["value"]) == ("from libtorrent", b"15:from libtorrent".hex())
    ours = await scene.dht("put", "from bittern")
    assert ours["num_stored"] >= 4  # of five nodes, two of them libtorrent's
    assert await scene.one.get_immutable(ours["target"]) == b"from bittern"


@pytest.mark.parametrize("salt", ["", "some salt"])
async def test_mutable_items_both_ways(scene: Scene, tmp_path: Path, salt: str) -> None:
    path = tmp_path / "key"
    seed = make_key_file(path)
    key = SigningKey(seed).public_key
    seq = await scene.other.put_mutable(seed, key, b"first, from libtorrent", salt.encode())
    assert seq == 1
    found = await scene.dht("get", key.hex(), "--salt", salt)
    assert (found["text"], found["seq"]) == ("first, from libtorrent", 1)
    # We replace it under the same key, with the next number.
    ours = await scene.dht("put", "second, from bittern", "--key", path, "--salt", salt)
    assert (ours["target"], ours["seq"]) == (found["target"], 2)
    assert await scene.one.get_mutable(key, salt.encode(), seq=2) == b"second, from bittern"
