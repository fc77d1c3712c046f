"""
Items of the DHT between the command line, libtorrent and npm, in one network of all.

The network is three nodes of ours and two of libtorrent's; the command line runs as a program.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.torrent_record import TorrentRecord, decode_record
from bittern.core.ids import InfoHash
from bittern.net.signing import SigningKey
from bittern.storage.key_file import make_key_file
from tests.cli.dht_network import DhtNetwork
from tests.interop.clients.bittern import ENVIRONMENT
from tests.interop.libtorrent_dht import LibtorrentNode
from tests.interop.samples import CACHE

pytestmark = [pytest.mark.interop, pytest.mark.slow]


_MODULES = CACHE / "node_modules"


class Scene:
    """The network, and the command line in it."""

    def __init__(self, network: DhtNetwork, nodes: list[LibtorrentNode]) -> None:
        self.theirs = nodes
        self.port = network.endpoint.port
        self._options = network.options

    async def dht(self, *arguments: object) -> Any:
        """Run ``bittern dht`` and return what it wrote as JSON."""
        return await self.run("dht", *arguments)

    async def run(self, *arguments: object) -> Any:
        """Run ``bittern`` in this network and return what it wrote as JSON."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bittern", *map(str, arguments)),
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


@pytest.fixture
async def own_scene() -> AsyncIterator[Scene]:
    with DhtNetwork(4) as network:
        yield Scene(network, [])


async def test_immutable_items_both_ways(scene: Scene) -> None:
    target = await scene.theirs[1].put_immutable(b"from libtorrent")
    found = await scene.dht("get", target)
    assert (found["text"], found["value"]) == ("from libtorrent", b"15:from libtorrent".hex())
    ours = await scene.dht("put", "from bittern")
    assert ours["num_stored"] >= 4  # of five nodes, two of them libtorrent's
    assert await scene.theirs[0].get_immutable(ours["target"]) == b"from bittern"


@pytest.mark.parametrize("salt", ["", "some salt"])
async def test_mutable_items_both_ways(scene: Scene, tmp_path: Path, salt: str) -> None:
    path = tmp_path / "key"
    seed = make_key_file(path)
    key = SigningKey(seed).public_key
    seq = await scene.theirs[1].put_mutable(seed, key, b"first, from libtorrent", salt.encode())
    assert seq == 1
    found = await scene.dht("get", key.hex(), "--salt", salt)
    assert (found["text"], found["seq"]) == ("first, from libtorrent", 1)
    # We replace it under the same key, with the next number.
    ours = await scene.dht("put", "second, from bittern", "--key", path, "--salt", salt)
    assert (ours["target"], ours["seq"]) == (found["target"], 2)
    assert await scene.theirs[0].get_mutable(key, salt.encode(), seq=2) == b"second, from bittern"


# --- npm's bittorrent-dht ------------------------------------------------------------------

_PROGRAM = Path(__file__).parent / "programs" / "dht_items.cjs"


async def npm(scene: Scene, *arguments: object) -> Any:
    """Let bittorrent-dht do one thing and return what it printed as JSON."""
    process = await asyncio.create_subprocess_exec(
        *("node", str(_PROGRAM), str(_MODULES), str(scene.port), *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, (out.decode(), err.decode())
    return json.loads(out)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed: make interop")
@pytest.mark.skipif(
    not (_MODULES / "bittorrent-dht").is_dir(), reason="bittorrent-dht: make interop"
)
@pytest.mark.parametrize("salt", [pytest.param("", marks=pytest.mark.soak), "some salt"])
async def test_records_of_mutable_torrents_both_ways_with_npm(
    own_scene: Scene, tmp_path: Path, salt: str
) -> None:
    scene = own_scene
    key_file = tmp_path / "key"
    seed = make_key_file(key_file)
    key = SigningKey(seed).public_key
    v1, v2 = "ab" * 20, "cd" * 32
    ours = await scene.run(
        *("publish", f"magnet:?xt=urn:btih:{v1}&xt=urn:btmh:1220{v2}", "--once"),
        *("--key", key_file, "--salt", salt, "--state-dir", tmp_path / "state"),
    )
    # It reads our record, checks the signature, and finds the hash of the BEP ...
    found = await npm(scene, "get", ours["target"], salt.encode().hex())
    assert found == {"key": key.hex(), "seq": ours["seq"], "ih": v1, "ih2": v2}
    # ... and we read its, which knows no other.
    other = "ef" * 20
    theirs = await npm(scene, "put", seed.hex(), salt.encode().hex(), ours["seq"] + 1, other)
    assert theirs["target"] == ours["target"]
    item = await scene.dht("get", key.hex(), "--salt", salt)
    assert item["seq"] == ours["seq"] + 1
    assert decode_record(bytes.fromhex(item["value"])) == TorrentRecord(InfoHash.parse(other))
