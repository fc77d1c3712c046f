"""``bittern dht node`` and ``stats``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from bittern.cli import dht as dht_module
from bittern.cli import dht_node
from bittern.cli.dht_node import status_text
from bittern.net.dht import Dht
from bittern.storage.statelock import StateLock
from tests.cli.dht_network import DEADLINE, DhtNetwork
from tests.cli.support import Program, write

KEYS = {
    "num_nodes", "num_nodes_estimate", "num_torrents", "num_peers", "num_items", "num_received",
    "num_sent", "num_answered", "num_limited", "num_malformed", "num_asked", "num_timeouts",
    "nodes",
}  # fmt: skip


@pytest.fixture
def stopped_when_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGTERM once the node knows others."""
    open_node = dht_module.opened_dht

    async def watch(dht: Dht) -> None:
        until = asyncio.get_running_loop().time() + DEADLINE
        while not dht.num_nodes:
            assert asyncio.get_running_loop().time() < until
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    class Watched:
        def __init__(self, inner: AbstractAsyncContextManager[Dht]) -> None:
            self._inner = inner

        async def __aenter__(self) -> Dht:
            dht = await self._inner.__aenter__()
            self._task = asyncio.create_task(watch(dht))
            return dht

        async def __aexit__(self, *exc: Any) -> None:
            await self._task
            await self._inner.__aexit__(*exc)

    monkeypatch.setattr(dht_node, "STATUS_INTERVAL", 0.02)
    monkeypatch.setattr(
        dht_node, "opened_dht", lambda *args, **kwargs: Watched(open_node(*args, **kwargs))
    )


@pytest.mark.slow
@pytest.mark.usefixtures("stopped_when_joined")
def test_a_node_joins_tells_its_numbers_and_remembers(bittern: Program, tmp_path: Path) -> None:
    with DhtNetwork(2) as network:
        place = ("--bind", "127.0.0.1", "--port", "0", "--state-dir", tmp_path)
        ran = bittern("dht", "node", *place, "--bootstrap", network.endpoint, "--jsonl")
        assert ran.code == 0, ran.err
        lines = [json.loads(line) for line in ran.out.splitlines()]
        assert lines[0]["type"] == "listening"
        assert lines[0]["endpoint"].startswith("127.0.0.1:")
        assert lines[-1]["type"] == "result"
        assert lines[-1]["num_nodes"] >= 1
        assert {line["type"] for line in lines[1:-1]} == {"progress"}
        # It comes back under its id, with no other start than the nodes that it remembers.
        again = bittern("dht", "node", *place, "--bootstrap", "127.0.0.1:9", "--json")
        assert again.code == 0, again.err
        assert set(again.json) == KEYS
        [own] = again.json["nodes"]
        assert own["node_id"] == lines[0]["node_id"]
        assert own["num_nodes"] >= 1


@pytest.mark.slow
def test_a_node_without_others_ends_in_time(bittern: Program, tmp_path: Path) -> None:
    place = ("--bind", "127.0.0.1", "--port", "0", "--state-dir", tmp_path)
    ran = bittern("dht", "node", "--no-bootstrap", *place, "--timeout", "0.1")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("node ")
    assert " on 127.0.0.1:" in ran.out
    lock = StateLock(tmp_path)  # given back at the end
    lock.release()


@pytest.mark.slow
def test_a_state_folder_that_cannot_be_used_is_no_reason_to_end(
    bittern: Program, tmp_path: Path
) -> None:
    """Limit: F18. It remembers nothing, and says so."""
    write(tmp_path / "state", b"a file in the way")
    place = ("--bind", "127.0.0.1", "--port", "0", "--state-dir", tmp_path / "state")
    ran = bittern("dht", "node", "--no-bootstrap", *place, "--timeout", "0.1")
    assert ran.code == 0, ran.err
    assert ran.error.startswith("warning: ")
    assert (tmp_path / "state").read_bytes() == b"a file in the way"


@pytest.mark.slow
def test_numbers_are_told_when_they_change(
    bittern: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dht_node, "STATUS_INTERVAL", 0.01)
    place = ("--bind", "127.0.0.1", "--port", "0", "--state-dir", tmp_path)
    ran = bittern("dht", "node", "--no-bootstrap", *place, "--timeout", "0.3", "--jsonl")
    assert ran.code == 0, ran.err
    kinds = [json.loads(line)["type"] for line in ran.out.splitlines()]
    assert kinds == ["listening", "progress", "result"]


@pytest.mark.slow
def test_stats_name_the_socket_that_reached_nobody(
    bittern: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose IPv6 leads nowhere has a node of each family all the same."""
    with DhtNetwork(2) as network:
        ran = bittern("dht", "stats", "--bind", "::1", *network.options)
        assert ran.code == 0, ran.err
        assert ran.error.startswith("no nodes were reached from [::1]:")
        assert "nodes in all  about 2\n" in ran.out
        assert ran.out.count("node id") == 1


@pytest.mark.slow
def test_stats_tell_what_the_network_looks_like(bittern: Program) -> None:
    with DhtNetwork(4) as network:
        ran = bittern("dht", "stats", "--json", *network.options)
        assert ran.code == 0, ran.err
        assert set(ran.json) == KEYS
        assert ran.json["num_nodes"] == ran.json["num_nodes_estimate"] == 4
        ran = bittern("dht", "stats", *network.options)
        assert ran.code == 0
        assert "nodes in all  about 4\n" in ran.out


def test_the_status_of_a_node() -> None:
    numbers = dict.fromkeys(KEYS - {"nodes"}, 0)
    assert status_text({**numbers, "num_nodes": 7, "num_items": 2}) == (
        "7 nodes known (about 0 in all), 0 peers of 0 torrents, 2 items, 0 queries answered"
    )
