"""``bittern dht peers``, ``ping`` and ``sample`` in a network of a few nodes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from bittern.cli import dht_peers
from bittern.core.ids import InfoHash
from tests.cli.dht_network import DhtNetwork
from tests.cli.support import Program

KNOWN = InfoHash(b"\x11" * 20)
V2 = "11" * 20 + "22" * 12
"""Cut to 20 bytes it is ``KNOWN``."""


@pytest.fixture(scope="module")
def network() -> Iterator[DhtNetwork]:
    with DhtNetwork() as network:
        announced = network.run(lambda node: node.announce(KNOWN, 7000, is_seed=True).wait())
        assert announced.num_stored
        yield network


@pytest.mark.slow
@pytest.mark.parametrize("text", [str(KNOWN), V2, "1220" + V2, f"magnet:?xt=urn:btih:{KNOWN}"])
def test_peers_are_lines(bittern: Program, network: DhtNetwork, text: str) -> None:
    ran = bittern("dht", "peers", text, *network.options)
    assert (ran.code, ran.out, ran.err) == (0, "127.0.0.1:7000\n", "")


@pytest.mark.slow
def test_peers_as_json(bittern: Program, network: DhtNetwork) -> None:
    ran = bittern("dht", "peers", KNOWN, "--scrape", "--json", *network.options)
    assert ran.code == 0, ran.err
    assert ran.json["info_hash"] == str(KNOWN)
    assert ran.json["peers"] == ["127.0.0.1:7000"]
    assert (ran.json["num_seeds"], ran.json["num_leechers"]) == (1, 0)
    assert len(ran.json["nodes"]) == 4
    assert set(ran.json["nodes"][0]) == {"node_id", "endpoint"}
    assert ran.json["num_queries"] >= 4


@pytest.mark.slow
def test_scrape_tells_a_person_on_stderr(bittern: Program, network: DhtNetwork) -> None:
    ran = bittern("dht", "peers", KNOWN, "--scrape", *network.options)
    assert (ran.code, ran.out) == (0, "127.0.0.1:7000\n")
    assert ran.error == "about 1 seed and no leechers"


@pytest.mark.slow
def test_no_peers_is_not_found(bittern: Program, network: DhtNetwork) -> None:
    ran = bittern("dht", "peers", "00" * 20, *network.options)
    assert (ran.code, ran.out) == (3, "")
    assert ran.error == f"{'00' * 20}: no peers found"


@pytest.mark.slow
def test_a_node_that_is_there_answers(bittern: Program, network: DhtNetwork) -> None:
    ran = bittern("dht", "ping", network.endpoint, "--bind", "127.0.0.1")
    assert ran.code == 0, ran.err
    endpoint, node_id, delay, unit, *_ = ran.out.split()
    assert endpoint == str(network.endpoint)
    assert node_id == str(network.nodes[0].stats()[0].status.node_id)
    assert (float(delay) >= 0, unit) == (True, "ms")
    ran = bittern("dht", "ping", network.endpoint, "--bind", "127.0.0.1", "--json")
    assert ran.json["node_id"] == node_id
    assert set(ran.json) == {"endpoint", "node_id", "version", "round_trip"}


@pytest.mark.slow
@pytest.mark.usefixtures("impatient_dht")
def test_a_node_that_is_not_there_is_unreachable(bittern: Program) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        ran = bittern("dht", "ping", address, "--bind", "127.0.0.1")
        assert (ran.code, ran.error) == (4, f"{address}: no answer")
        ran = bittern("dht", "ping", address, "--bind", "127.0.0.1", "--timeout", "0.2")
        assert (ran.code, ran.error) == (7, "no answer within 0.2s")


@pytest.mark.slow
def test_samples_of_the_nodes_near_a_place(bittern: Program, network: DhtNetwork) -> None:
    storing = network.nodes[1].stats()[0].endpoint  # the one that announces stores nothing
    for where in ((), ("--target", "ff" * 20), (str(storing),)):
        ran = bittern("dht", "sample", *where, *network.options)
        assert (ran.code, ran.out) == (0, f"{KNOWN}\n"), ran.err
    ran = bittern("dht", "sample", "--json", *network.options)
    assert ran.json["info_hashes"] == [str(KNOWN)]
    assert len(ran.json["nodes"]) == 4
    assert sorted(node["num"] for node in ran.json["nodes"]) == [0, 1, 1, 1]


@pytest.mark.slow
@pytest.mark.usefixtures("impatient_dht")
def test_nodes_without_torrents_and_nodes_that_are_not_there(bittern: Program) -> None:
    with DhtNetwork(2) as network:
        ran = bittern("dht", "sample", *network.options)
        assert (ran.code, ran.error) == (3, "the nodes that were asked store no peers")
    ran = bittern("dht", "sample", network.endpoint, *network.options)
    assert (ran.code, ran.error) == (4, "no node gave samples")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["peers", "x"], "x: not an info hash"),
        (["peers", "0" * 41], "not an info hash"),
        (["peers", f"magnet:?xs=urn:btpk:{'0' * 64}"], "the link names no info hash"),
        (["peers"], "dht peers needs HASH"),
        (["ping", "nowhere"], "'nowhere' is not HOST:PORT"),
        (["ping", "nowhere:0"], "'nowhere:0' is not HOST:PORT"),
        (["sample", "--target", "xyz"], "not 40 hexadecimal digits"),
    ],
)
def test_wrong_usage_costs_no_network(bittern: Program, arguments: list[str], text: str) -> None:
    ran = bittern("dht", *arguments)
    assert ran.code == 2
    assert text in ran.error


@pytest.mark.parametrize(
    ("version", "text"),
    [(b"", ""), (b"bt01", "bt01"), (b"LT\x02\x01", "LT 2.1"), (b"\xff\0", "ff00")],
)
def test_versions(version: bytes, text: str) -> None:
    assert dht_peers._version_text(version) == text
