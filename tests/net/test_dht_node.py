"""net.dht_node: one machine on one socket; timers, batches, handlers."""

from __future__ import annotations

import asyncio

from bittern.codec.krpc_encoding import encode_query
from bittern.codec.krpc_message import Ping
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.dht.events import DhtEvent, PeersFound, PeersLookupEnded, Ponged, QueryFailed
from bittern.dht.node import DhtNode
from bittern.net.dht_node import NodeShell
from bittern.testing.loop import VirtualLoop
from tests.net.dht_scene import DhtScene, feed, in_dht_scene
from tests.virtual_time import simulated

OWN = Endpoint("10.0.0.1", 6881)
OTHER = Endpoint("10.0.0.2", 6881)


class FakeSocket:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.endpoint = OWN
        self.sent: list[tuple[bytes, Endpoint]] = []

    def send(self, data: bytes, target: Endpoint) -> None:
        self.sent.append((data, target))


class Scene:
    """A shell with what it sent and heard."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.socket = FakeSocket()
        self.heard: list[DhtEvent] = []
        node = DhtNode(
            random_bytes=loop.random.randbytes,
            rng=loop.random,
            verify=lambda key, signature, message: False,
            now=loop.time(),
        )
        self.shell = NodeShell(self.socket, node, lambda _shell, event: self.heard.append(event))

    def ping(self, events: list[DhtEvent]) -> int:
        return self.shell.begin(lambda node, now: node.ping(OTHER, now=now), events.append)


def query(number: int = 0) -> bytes:
    return encode_query(b"t%03d" % number, b"n" * 20, Ping())


@simulated
async def test_a_batch_is_answered_when_it_ends(loop: VirtualLoop) -> None:
    scene = Scene(loop)
    for number in range(3):
        scene.shell.receive(memoryview(query(number)), OTHER)
    assert not scene.socket.sent
    scene.shell.flush()
    assert [target for _, target in scene.socket.sent] == [OTHER] * 3
    feed(scene.shell, query(3), OTHER)
    assert len(scene.socket.sent) == 4
    scene.shell.close()


@simulated
async def test_time_passes_from_start_to_close(loop: VirtualLoop) -> None:
    scene = Scene(loop)
    events: list[DhtEvent] = []
    await asyncio.sleep(100)
    assert not scene.heard
    scene.shell.start()
    assert scene.shell.is_started
    scene.ping(events)
    await asyncio.sleep(10)
    assert scene.heard  # it tried to bootstrap, without anybody
    assert [type(event) for event in events] == [QueryFailed]
    assert scene.shell.close() == []
    assert scene.shell.close() == []
    assert not scene.shell.is_started
    assert "10.0.0.1" in repr(scene.shell)


@simulated
async def test_handlers_hear_their_own_request_only(loop: VirtualLoop) -> None:
    scene = Scene(loop)
    other = Scene(loop)
    scene.shell.start()
    first: list[DhtEvent] = []
    second: list[DhtEvent] = []
    number = scene.ping(first)
    scene.ping(second)
    scene.shell.cancel(number)
    scene.shell.cancel(number)
    for data, _ in scene.socket.sent:
        feed(other.shell, data, OWN)
    for data, _ in other.socket.sent:
        feed(scene.shell, data, OTHER)
    assert first == []
    assert [type(event) for event in second] == [Ponged]
    scene.shell.close()
    other.shell.close()


@simulated
async def test_a_handler_may_make_the_next_request(loop: VirtualLoop) -> None:
    scene = Scene(loop)
    scene.shell.start()
    events: list[DhtEvent] = []

    def again(event: DhtEvent) -> None:
        events.append(event)
        if len(events) < 3:
            scene.shell.begin(lambda node, now: node.ping(OTHER, now=now), again)

    scene.shell.begin(lambda node, now: node.ping(OTHER, now=now), again)
    await asyncio.sleep(30)
    assert len(events) == 3
    assert len(scene.socket.sent) == 3
    scene.shell.close()


@simulated
async def test_closing_gives_back_who_still_waits(loop: VirtualLoop) -> None:
    scene = Scene(loop)
    events: list[DhtEvent] = []
    scene.shell.start()
    number = scene.ping(events)
    assert scene.shell.close() == [events.append]
    scene.shell.cancel(number)
    num_sent = len(scene.socket.sent)
    feed(scene.shell, query(), OTHER)
    await asyncio.sleep(30)
    assert len(scene.socket.sent) == num_sent


@in_dht_scene()
async def test_peers_are_handed_on_as_they_come_and_to_nobody_after_a_cancel(
    scene: DhtScene,
) -> None:
    dhts = await scene.add_network(4)
    info_hash = InfoHash(b"h" * 20)
    await dhts[1].announce(info_hash, 7000).wait()
    shell = dhts[2].shells[0]
    heard: list[DhtEvent] = []
    dropped: list[DhtEvent] = []

    def ask(node: DhtNode, now: float) -> int:
        return node.get_peers(info_hash, now=now)

    shell.begin(ask, heard.append)
    number = shell.begin(ask, dropped.append)
    shell.cancel(number)
    await asyncio.sleep(10)
    kinds = [type(event) for event in heard]
    assert PeersFound in kinds
    assert kinds[-1] is PeersLookupEnded
    assert dropped == []


@simulated
async def test_what_is_due_sooner_is_not_waited_for_longer(loop: VirtualLoop) -> None:
    """A node at rest has minutes until its next turn; a query that is lost has seconds."""
    scene = Scene(loop)
    scene.shell.start()
    await asyncio.sleep(60)
    events: list[DhtEvent] = []
    scene.ping(events)
    await asyncio.sleep(10)
    assert [type(event) for event in events] == [QueryFailed]
    scene.shell.close()
