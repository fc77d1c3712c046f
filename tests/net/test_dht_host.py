"""net.dht_host: a DHT with sockets of its own, on loopback."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from pathlib import Path

import pytest

from bittern.codec.krpc_encoding import encode_query
from bittern.codec.krpc_message import (
    AnnouncePeer,
    Arguments,
    FindNode,
    Get,
    GetPeers,
    Ping,
    Put,
    SampleInfohashes,
    Want,
)
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.dht.limits import DhtConfig
from bittern.net.dht_host import open_dht, open_sockets
from bittern.net.signing import SigningKey
from bittern.storage.dht_state import read_dht_state
from tests.codec.fuzzing import mutate, num_runs

HASH = InfoHash(b"h" * 20)
UNHURRIED = DhtConfig(max_upload_rate=1e9)
QUERIES: list[Arguments] = [
    Ping(),
    FindNode(HASH, Want.V4 | Want.V6),
    GetPeers(HASH, scrape=True),
    AnnouncePeer(HASH, 1, b"token"),
    Get(HASH),
    Put(token=b"token", value=b"1:x", key=b"k" * 32, signature=b"s" * 64, seq=1, salt=b"s"),
    SampleInfohashes(HASH),
]
LOOPBACK = ("127.0.0.1", "::1")


async def test_both_families_on_one_port_from_peers_to_items(tmp_path: Path) -> None:
    async with (
        open_dht(hosts=LOOPBACK, bootstrap=(), state_dir=tmp_path) as first,
        open_dht(hosts=LOOPBACK, bootstrap=[("localhost", _port(first))]) as second,
    ):
        port = _port(second)
        assert [shell.socket.endpoint.port for shell in second.shells] == [port] * 2
        await first.bootstrap()
        assert await second.bootstrap() >= 1
        await second.announce(HASH, port, implied=True).wait()
        found = [endpoint async for endpoint in second.get_peers(HASH)]
        assert found
        assert set(found) <= {Endpoint("127.0.0.1", port), Endpoint("::1", port)}
        key = SigningKey(b"k" * 32)
        put = await second.put_mutable(key, b"value")
        assert put.item is not None
        assert (await second.get(put.item.target)).item == put.item
        async with asyncio.timeout(10):
            while not first.num_nodes:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.02)
    assert read_dht_state(tmp_path) is not None
    async with open_dht(hosts=LOOPBACK, bootstrap=(), state_dir=tmp_path) as again:
        assert {bytes(shell.node.table.own_id) for shell in again.shells} == {
            bytes(shell.node.table.own_id) for shell in first.shells
        }


async def test_a_host_that_is_not_ours_is_left_out() -> None:
    async with open_dht(hosts=("127.0.0.1", "192.0.2.1"), bootstrap=()) as dht:
        assert len(dht.shells) == 1
    with pytest.raises(OSError) as caught:
        open_sockets(("192.0.2.1",), 0)
    assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_a_fuzz_corpus_is_survived_at_the_socket(rng: random.Random) -> None:
    """Limit: N4. Whatever arrives, the node goes on answering."""
    loop = asyncio.get_running_loop()
    corpus = [encode_query(b"tt", b"n" * 20, arguments) for arguments in QUERIES]
    async with open_dht(hosts=("127.0.0.1",), bootstrap=(), config=UNHURRIED) as dht:
        await dht.bootstrap()
        (shell,) = dht.shells
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.bind(("127.0.0.1", 0))
            target = tuple(shell.socket.endpoint)
            for number in range(num_runs(2000)):
                await loop.sock_sendto(sender, mutate(rng.choice(corpus), rng), target)
                if not number % 50:
                    await asyncio.sleep(0)
        async with open_dht(hosts=("127.0.0.1",), bootstrap=()) as other:
            await other.bootstrap()
            assert (await other.ping(shell.socket.endpoint)).node.endpoint.port == target[1]
        counters = dht.stats()[0].counters
        assert counters.num_malformed > 100
        assert counters.num_answered > 100


async def test_several_addresses_are_several_nodes() -> None:
    """BEP 45."""
    async with open_dht(hosts=("127.0.0.1", "127.0.0.2"), bootstrap=()) as dht:
        ids = {bytes(shell.node.table.own_id) for shell in dht.shells}
        assert len(ids) == 2


async def test_a_state_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    async with open_dht(hosts=("127.0.0.1",), bootstrap=(), state_dir=blocked / "x") as dht:
        await dht.bootstrap()
        dht.shells[0].node.table.note_answer(b"n" * 20, Endpoint("127.0.0.1", 9), now=0.0)
        assert dht.num_nodes == 1


def _port(dht: object) -> int:
    port = dht.shells[0].socket.endpoint.port  # type: ignore[attr-defined]
    assert isinstance(port, int)
    return port
