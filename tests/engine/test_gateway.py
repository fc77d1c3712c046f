"""engine.gateway: sockets that are shared, on loopback."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import pytest

from bittern.core.endpoint import Endpoint
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.gateway import _one_of_each_family, open_udp_sockets
from bittern.engine.session import Session
from bittern.engine.source_status import SourceKind, SourceState
from bittern.net.dht_host import open_dht
from bittern.storage.creator import create_torrent


def config(**settings: object) -> SessionConfig:
    usual = {"listen_host": "127.0.0.1", "listen_port": 0, "enable_lsd": False}
    return SessionConfig(**{**usual, **settings})  # type: ignore[arg-type]  # any setting


async def test_the_dht_has_the_port_of_our_listener() -> None:
    async with Session(config(dht_bootstrap=())) as session:
        assert session.dht is not None
        (shell,) = session.dht.shells
        assert shell.socket.endpoint == Endpoint("127.0.0.1", session.port)
        assert session._gateway.dht_port == session.port


async def test_without_dht_there_is_no_node() -> None:
    async with Session(config(enable_dht=False, enable_trackers=False)) as session:
        assert session.dht is None
        assert session._gateway.dht_port == 0
        session._gateway.dht_node_seen("127.0.0.1", 1)
        assert session._gateway._sockets is None


async def test_a_node_on_loopback_asks_no_well_known_router() -> None:
    async with Session(config()) as session:
        assert session.dht is not None
        await asyncio.sleep(0.05)
        assert session.dht.stats()[0].counters.num_sent == 0


async def test_a_session_joins_and_is_joined(tmp_path: Path) -> None:
    async with open_dht(hosts=("127.0.0.1",), bootstrap=()) as other:
        await other.bootstrap()
        port = other.shells[0].socket.endpoint.port
        async with Session(config(dht_bootstrap=(("localhost", port),))) as session:
            assert session.dht is not None
            async with asyncio.timeout(20):
                while not (session.dht.num_nodes and other.num_nodes):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)


async def test_the_dht_node_of_a_peer_is_asked() -> None:
    """BEP 5: a peer names it in a PORT message."""
    async with open_dht(hosts=("127.0.0.1",), bootstrap=()) as other:
        await other.bootstrap()
        port = other.shells[0].socket.endpoint.port
        async with Session(config(dht_bootstrap=())) as session:
            assert session.dht is not None
            session._gateway.dht_node_seen("127.0.0.1", port)
            async with asyncio.timeout(20):
                while not session.dht.num_nodes:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)


async def test_without_a_socket_there_is_no_node() -> None:
    async with Session(config(listen_host="192.0.2.1", dht_bootstrap=())) as session:
        assert session.dht is None
        assert list(session._gateway.sockets) == []


async def test_the_local_network_is_joined_and_left(tmp_path: Path) -> None:
    async with Session(config(enable_dht=False, enable_lsd=True, enable_zeroconf=True)) as session:
        torrent = await session.add("a" * 40, TorrentConfig(output=tmp_path))
        states = {each.kind: each.state for each in torrent.sources()}
        assert SourceState.OFF not in {states[SourceKind.LSD], states[SourceKind.ZEROCONF]}
        local, zeroconf = session._gateway.local, session._gateway.zeroconf
        assert local is not None
        assert zeroconf is not None
    assert torrent.sources() == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second loopback address")
async def test_several_addresses_serve_at_one_port(tmp_path: Path) -> None:
    """TCP, and UDP with a DHT node each (BEP 45)."""
    hosts = ("127.0.0.1", "127.0.0.2", "::1")
    (tmp_path / "content").write_bytes(b"x" * 100_000)
    raw = create_torrent(tmp_path / "content", num_threads=1)
    async with Session(config(listen_host=hosts, dht_bootstrap=())) as seed:
        await seed.add(raw, TorrentConfig(output=tmp_path))
        assert seed.dht is not None
        places = {each.endpoint for each in seed.dht.stats()}
        assert places == {Endpoint(host, seed.port) for host in hosts}
        for number, host in enumerate(hosts):
            async with Session(config(listen_host=host, enable_dht=False)) as session:
                torrent = await session.add(
                    raw,
                    TorrentConfig(
                        output=tmp_path / str(number), peers=(Endpoint(host, seed.port),)
                    ),
                )
                async with asyncio.timeout(20):
                    await torrent.wait_complete()


def test_trackers_hear_us_from_one_place_of_each_family() -> None:
    hosts = ["127.0.0.1", "::1", "10.0.0.1", "2001:db8::1", "10.0.0.2"]
    assert _one_of_each_family(hosts, str) == ["10.0.0.1", "2001:db8::1"]
    assert _one_of_each_family(hosts[:2], str) == ["127.0.0.1", "::1"]
    assert _one_of_each_family([], str) == []


async def test_one_http_client_serves_all() -> None:
    async with Session(config(enable_dht=False)) as session:
        assert session._gateway.http is session._gateway.http


async def test_another_port_where_ours_is_taken() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        (opened,) = open_udp_sockets(("127.0.0.1",), port)
        assert opened.endpoint.port not in (0, port)
        opened.close()
    assert open_udp_sockets(("192.0.2.1",), 0) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second loopback address")
@pytest.mark.parametrize(
    ("listen_host", "source"),
    [("127.0.0.9", "127.0.0.9"), ("0.0.0.0", "127.0.0.1"), ("localhost", "127.0.0.1")],
)
async def test_trackers_see_the_address_that_we_listen_at(listen_host: str, source: str) -> None:
    """They hand it out to others, whatever address the system would have chosen."""
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not seen.done():
            seen.set_result(writer.get_extra_info("peername")[0])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/announce"
    settings = SessionConfig(
        listen_host=listen_host,
        listen_port=0,
        enable_lsd=False,
        enable_dht=False,
        stop_timeout=0.1,
    )
    async with Session(settings) as session:
        await session.add("a" * 40, TorrentConfig(trackers=((url,),)))
        assert await asyncio.wait_for(seen, 10) == source
    server.close()
    await server.wait_closed()
