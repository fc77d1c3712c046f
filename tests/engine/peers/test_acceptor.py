"""engine.peers.acceptor: newcomers until they have said what they are for (Limits: H5, F14)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from bittern.codec import wire
from bittern.codec.wire import Reserved
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine.config import SessionConfig
from bittern.engine.peers.acceptor import Acceptor
from bittern.engine.peers.connection import PeerConnection
from bittern.net.stream import Stream
from bittern.testing.host import SimHost
from bittern.testing.loop import VirtualLoop
from bittern.testing.network import Link, SimNetwork
from bittern.testing.peer import ScriptedPeer
from tests.conftest import Simulate
from tests.engine.scene import FAST, PORT, Scene, in_scene
from tests.virtual_time import simulated

HANDSHAKE = wire.encode_handshake(b"h" * 20, b"p" * 20, FAST)


class Refusing:
    """A torrent that takes nobody and counts."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []

    def accept(self, stream: Stream, named: InfoHash, reserved: Reserved) -> PeerConnection | None:
        self.streams.append(stream)
        return None


class Door:
    """An acceptor on a simulated host."""

    def __init__(
        self,
        loop: VirtualLoop,
        *addresses: str,
        rouse: Callable[[InfoHash], bool] = lambda _: False,
        **config: object,
    ) -> None:
        self.network = SimNetwork(loop, link=Link(delay=0.01))
        self.host = self.network.add_host(*(addresses or ("10.0.0.1", "fd00::1")))
        self.torrent = Refusing()
        self.torrents: dict[InfoHash, Refusing] = {InfoHash(b"h" * 20): self.torrent}
        settings: dict[str, object] = {"listen_port": PORT, **config}
        self.acceptor = Acceptor(
            self.host,
            SessionConfig(**settings),  # type: ignore[arg-type]
            loop,
            find=self.torrents.get,
            rouse=rouse,
        )

    async def knock(self, host: SimHost) -> ScriptedPeer:
        address = self.host.address_towards(host.addresses[0])
        return await ScriptedPeer.connect(host, Endpoint(address, self.acceptor.port))


@simulated
async def test_it_listens_on_both_families_at_one_port(loop: VirtualLoop) -> None:
    for first in (PORT, 0):
        door = Door(loop, listen_port=first)
        door.acceptor.listen()
        assert door.acceptor.port == (PORT if first else door.acceptor.port)
        assert door.acceptor.port
        for address in ("10.0.0.9", "fd00::9"):
            peer = await door.knock(door.network.add_host(address))
            peer.close()
        await asyncio.sleep(0.1)
        door.acceptor.close()
        door.acceptor.close()
        assert door.acceptor.port == 0


ADDRESSES = ("10.0.0.1", "192.168.7.1", "fd00::1")


@pytest.mark.parametrize("first", [PORT, 0])
@simulated
async def test_several_addresses_have_one_port(loop: VirtualLoop, first: int) -> None:
    """Also when a port that is free on the first is taken on another."""
    door = Door(loop, *ADDRESSES, listen_host=ADDRESSES[::2], listen_port=first)
    probe = door.host.listen(ADDRESSES[0], 0, lambda stream: stream.close())
    taken = PORT if first else probe.endpoint.port + 1
    probe.close()
    blocking = door.host.listen(ADDRESSES[2], taken, lambda stream: stream.close())
    door.acceptor.listen()
    port = door.acceptor.port
    assert port > taken
    heard = [door.host.listener_at(Endpoint(address, port)) for address in ADDRESSES]
    assert [each is not None for each in heard] == [True, False, True]
    door.acceptor.close()
    blocking.close()


def test_an_address_that_is_not_ours_is_left_out(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(loop: VirtualLoop) -> None:
        door = Door(loop, listen_host=("10.9.9.9", "10.0.0.1"))
        door.acceptor.listen()
        assert door.acceptor.port == PORT
        assert door.host.listener_at(Endpoint("10.0.0.1", PORT)) is not None
        door.acceptor.close()

    simulate(main)
    assert f"not listening on 10.9.9.9 port {PORT}: cannot assign requested address" in caplog.text


def test_who_can_listen_nowhere_is_told_where_and_why(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(loop: VirtualLoop) -> None:
        door = Door(loop, listen_host="10.9.9.9", listen_port=0)
        door.acceptor.listen()
        assert door.acceptor.port == 0

    simulate(main)
    text = "nobody can connect to us: cannot listen on 10.9.9.9 port 0: cannot assign requested"
    assert text in caplog.text


@simulated
async def test_a_machine_without_ipv6_is_served(loop: VirtualLoop) -> None:
    door = Door(loop, "10.0.0.1")
    door.acceptor.listen()
    assert door.acceptor.port == PORT
    door.acceptor.close()


@pytest.mark.parametrize(
    ("taken", "tries", "found"),
    [(0, 10, PORT), (3, 10, PORT + 3), (11, 10, 0), (1, 0, 0)],
)
@simulated
async def test_the_next_port_is_tried(
    loop: VirtualLoop, taken: int, tries: int, found: int
) -> None:
    """Limit: F14."""
    door = Door(loop, listen_port_tries=tries)
    blocking = [
        door.host.listen("0.0.0.0", PORT + number, lambda stream: stream.close())
        for number in range(taken)
    ]
    door.acceptor.listen()
    assert door.acceptor.port == found
    door.acceptor.close()
    for listener in blocking:
        listener.close()


@simulated
async def test_ports_end_at_the_last_one(loop: VirtualLoop) -> None:
    door = Door(loop, listen_port=65_535)
    blocking = door.host.listen("0.0.0.0", 65_535, lambda stream: stream.close())
    door.acceptor.listen()
    assert door.acceptor.port == 0
    blocking.close()


@simulated
async def test_incoming_connections_can_be_switched_off(loop: VirtualLoop) -> None:
    door = Door(loop, enable_incoming=False)
    door.acceptor.listen()
    assert door.acceptor.port == 0


@simulated
async def test_a_place_is_given_back_by_whoever_leaves(loop: VirtualLoop) -> None:
    """Limit: H5. Four of one address, 64 in all, ten seconds for each."""
    door = Door(loop)
    door.acceptor.listen()
    host = door.network.add_host("10.0.1.1")
    peers = [await door.knock(host) for _ in range(5)]
    await peers[4].expect_closed(timeout=1)
    assert not any(peer.is_closed for peer in peers[:4])
    peers[0].close()
    await asyncio.sleep(0.1)
    peers.append(await door.knock(host))
    await asyncio.sleep(5)
    assert not peers[-1].is_closed
    await asyncio.sleep(5)
    assert [peer.is_closed for peer in peers[1:4]] == [True] * 3
    await peers[-1].expect_closed(timeout=6)
    assert not door.acceptor._per_address, "of addresses that have gone nothing is kept"
    door.acceptor.close()


@simulated
async def test_those_of_one_ipv6_network_count_as_one(loop: VirtualLoop) -> None:
    """Limit: H15: a /64 is one address."""
    door = Door(loop)
    door.acceptor.listen()
    hosts = [door.network.add_host(f"fd00:0:0:7::{number}") for number in range(1, 6)]
    peers = [await door.knock(host) for host in hosts]
    await peers[4].expect_closed(timeout=1)
    assert not peers[3].is_closed
    for peer in peers:
        peer.close()
    await asyncio.sleep(0.1)
    door.acceptor.close()


@simulated
async def test_loopback_is_exempt_from_the_limit_for_one_address(loop: VirtualLoop) -> None:
    door = Door(loop, "127.0.0.1")
    door.acceptor.listen()
    peers = [await door.knock(door.host) for _ in range(20)]
    await asyncio.sleep(1)
    assert not any(peer.is_closed for peer in peers)
    door.acceptor.close()
    await asyncio.sleep(1)
    assert all(peer.is_closed for peer in peers)


@simulated
async def test_64_and_then_the_oldest_makes_room(loop: VirtualLoop) -> None:
    """Limit: H5. Otherwise silent ones would keep all others out until their deadline."""
    door = Door(loop)
    door.acceptor.listen()
    peers = []
    for number in range(70):
        host = door.network.add_host(f"10.1.{number}.1")
        peers.append(await door.knock(host))
    await asyncio.sleep(1)
    assert [peer.is_closed for peer in peers] == [True] * 6 + [False] * 64
    door.acceptor.close()
    await asyncio.sleep(1)


@pytest.mark.parametrize("step", [1, 7, 48, 68])
@simulated
async def test_a_handshake_in_pieces_reaches_its_torrent(loop: VirtualLoop, step: int) -> None:
    door = Door(loop)
    door.acceptor.listen()
    peer = await door.knock(door.network.add_host("10.0.1.1"))
    for at in range(0, len(HANDSHAKE), step):
        peer.send(HANDSHAKE[at : at + step])
        await asyncio.sleep(0.02)
    await peer.expect_closed(timeout=1)
    assert len(door.torrent.streams) == 1
    door.acceptor.close()


@pytest.mark.parametrize(
    "start",
    [b"\x12", b"GET / HTTP/1.1\r\n", b"\x13BitTorrent protocoL", HANDSHAKE.replace(b"h", b"x")],
)
@simulated
async def test_strangers_are_closed_at_the_first_wrong_byte(
    loop: VirtualLoop, start: bytes
) -> None:
    door = Door(loop)
    door.acceptor.listen()
    peer = await door.knock(door.network.add_host("10.0.1.1"))
    peer.send(start)
    await peer.expect_closed(timeout=1)
    assert (peer.num_received, door.torrent.streams) == (0, [])
    door.acceptor.close()


@simulated
async def test_a_newcomer_waits_for_a_torrent_that_wakes_up(loop: VirtualLoop) -> None:
    roused: list[InfoHash] = []

    def rouse(info_hash: InfoHash) -> bool:
        roused.append(info_hash)
        return info_hash == b"h" * 20

    door = Door(loop, rouse=rouse)
    door.acceptor.listen()
    torrents = dict(door.torrents)
    door.torrents.clear()
    peer = await door.knock(door.network.add_host("10.0.1.1"))
    peer.send(HANDSHAKE)
    await asyncio.sleep(3)
    assert not peer.is_closed
    assert len(roused) > 1
    door.torrents.update(torrents)
    await peer.expect_closed(timeout=1)
    assert len(door.torrent.streams) == 1
    door.torrents.clear()
    # One that never wakes up costs the newcomer its ten seconds and nobody more.
    late = await door.knock(door.network.add_host("10.0.1.2"))
    late.send(HANDSHAKE)
    await asyncio.sleep(1)
    late.send(bytes(1 << 20))
    await asyncio.sleep(1)
    [newcomer] = door.acceptor._newcomers
    assert len(newcomer._data) == len(HANDSHAKE), "what follows waits unread"
    await late.expect_closed(timeout=11)
    gone = await door.knock(door.network.add_host("10.0.1.3"))
    gone.send(HANDSHAKE)
    await asyncio.sleep(1)
    gone.close()
    await asyncio.sleep(20)
    door.acceptor.close()


@in_scene()
async def test_what_follows_the_handshake_is_not_lost(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    peer = await scene.connect(seed)
    handshake = wire.encode_handshake(scene.info_hash, b"p" * 20, FAST)
    peer.send(handshake + wire.HAVE_NONE + wire.INTERESTED)
    await peer.expect_handshake()
    await peer.expect(wire.MessageId.UNCHOKE)
    await asyncio.sleep(15)
    assert not peer.is_closed, "its time for the handshake is no matter any more"
