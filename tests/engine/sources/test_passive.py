"""engine.sources.passive: what is heard of peers without asking, in virtual time."""

from __future__ import annotations

import asyncio

from bittern.codec import wire
from bittern.codec.extension import ExtendedHandshake, PexFlag, PexMessage, encode_pex
from bittern.core.endpoint import Endpoint
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from tests.engine.scene import PORT, Node, Scene, in_scene

STRANGER = Endpoint("10.0.88.1", 1)
EXCHANGES = ExtendedHandshake(extensions={"ut_pex": 4}, listen_port=7000)


def status(node: Node, kind: SourceKind) -> SourceStatus:
    """Return the one status of a kind."""
    (found,) = (status for status in node.torrent.sources() if status.kind is kind)
    return found


@in_scene()
async def test_peers_that_the_user_gave(scene: Scene) -> None:
    node = await scene.node()
    assert SourceKind.USER not in {s.kind for s in node.torrent.sources()}
    node.torrent.add_peers([STRANGER, Endpoint("10.0.88.2", 1)], "user")
    await asyncio.sleep(1)
    node.torrent.add_peers([STRANGER], "user")
    assert status(node, SourceKind.USER) == SourceStatus(
        kind=SourceKind.USER,
        state=SourceState.WORKING,
        last_answer_at=scene.loop.time(),
        num_peers=1,
        num_found=3,
    )


@in_scene()
async def test_peers_that_connect_to_us(scene: Scene) -> None:
    node = await scene.node()
    silent = status(node, SourceKind.INCOMING)
    assert silent.state is SourceState.WAITING
    assert silent.message == f"nobody has connected to our port {PORT} yet"
    await scene.scripted(node, extended=EXCHANGES)
    await asyncio.sleep(1)
    heard = status(node, SourceKind.INCOMING)
    assert (heard.state, heard.num_found, heard.message) == (SourceState.WORKING, 1, None)


@in_scene()
async def test_where_nobody_can_connect(scene: Scene) -> None:
    node = await scene.node(enable_incoming=False)
    off = status(node, SourceKind.INCOMING)
    assert (off.state, off.message) == (SourceState.OFF, "switched off")
    host = scene.add_host()
    others = [
        host.listen(host.addresses[0], PORT + number, lambda stream: stream.close())
        for number in range(2)
    ]
    crowded = await scene.node(host=host, listen_port_tries=1)
    off = status(crowded, SourceKind.INCOMING)
    assert (off.state, off.message) == (SourceState.OFF, "no port could be opened")
    for other in others:
        other.close()


@in_scene()
async def test_what_peers_name(scene: Scene) -> None:
    """BEP 11."""
    node = await scene.node()
    message = status(node, SourceKind.PEX).message
    assert message == "no peer is connected that could name others"
    await scene.scripted(node)
    await asyncio.sleep(1)
    message = status(node, SourceKind.PEX).message
    assert message == "none of 1 connected peers does peer exchange"
    peer = await scene.scripted(node, extended=EXCHANGES)
    await asyncio.sleep(1)
    waiting = status(node, SourceKind.PEX)
    assert waiting.state is SourceState.WAITING
    assert waiting.message is not None
    assert waiting.message.startswith("1 of 2 connected peers may name others")
    peer.send(wire.encode_extended(1, encode_pex(PexMessage(((STRANGER, PexFlag.NONE),)))))
    await asyncio.sleep(1)
    heard = status(node, SourceKind.PEX)
    assert (heard.state, heard.num_peers, heard.num_found) == (SourceState.WORKING, 1, 1)
    assert heard.last_answer_at is not None


@in_scene()
async def test_nothing_is_connected_while_there_is_no_roster(scene: Scene) -> None:
    seed = await scene.node(is_seed=True, state_dir=scene.state_dir, rest_after=1.0)
    await asyncio.sleep(10)
    assert seed.torrent.is_resting
    message = status(seed, SourceKind.PEX).message
    assert message == "no peer is connected that could name others"
