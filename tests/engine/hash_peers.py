"""Scripted peers that speak of hashes, for the tests of v2 in the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bittern.codec import wire
from bittern.codec.extension import (
    ExtendedHandshake,
    MetadataMessage,
    MetadataMessageType,
    decode_metadata_message,
    encode_extended_handshake,
    encode_metadata_message,
)
from bittern.codec.merkle import HashTree, block_hashes
from bittern.codec.wire import HashRange, MessageId, Reserved
from bittern.testing.host import SimHost
from bittern.testing.peer import ExpectationFailed, ScriptedPeer
from tests.engine.scene import Node, Scene, endpoint_of

V2 = Reserved(has_fast=True, has_extensions=True, has_v2=True)
UT_METADATA = 3
"""The id under which scripted peers take the messages."""


class Files:
    """The trees of a scene's files, for peers that answer rightly."""

    def __init__(self, scene: Scene) -> None:
        self.trees: dict[bytes, HashTree] = {}
        for entry in scene.metainfo.info.files:
            if entry.pieces_root is not None:
                name = "/".join(entry.path) if len(scene.files) > 1 else next(iter(scene.files))
                self.trees[entry.pieces_root] = HashTree(block_hashes(scene.files[name]))

    def answer(self, wanted: HashRange) -> bytes:
        tree = self.trees[wanted.pieces_root]
        return tree.proof(wanted.base_layer, wanted.index, wanted.length, wanted.proof_layers)


class HashPeer:
    """
    Listens, gives the metadata, and answers hash requests as ``answer`` says.

    Args:
        scene: whose torrent it has.
        answer: gives the hashes to send; None to reject, b"" to stay silent.
        does_metadata: whether it gives the info dictionary.
    """

    def __init__(
        self,
        scene: Scene,
        answer: Callable[[HashRange], bytes | None],
        *,
        does_metadata: bool = True,
        reserved: Reserved = V2,
        host: SimHost | None = None,
    ) -> None:
        self.scene = scene
        self.host = host or scene.add_host()
        self.endpoint = endpoint_of(self.host)
        self.asked: list[HashRange] = []
        self.num_connections = 0
        self._answer = answer
        self._does_metadata = does_metadata
        self._reserved = reserved
        self._listener = scene.listener(self.host)
        self._tasks = [asyncio.ensure_future(self._listen())]
        self._peers: list[ScriptedPeer] = []
        scene.at_end.append(self.close)

    async def _listen(self) -> None:
        while True:
            try:
                peer = await self._listener.accept(timeout=600)
            except AssertionError:
                return
            self.num_connections += 1
            self._peers.append(peer)
            self._tasks.append(asyncio.ensure_future(self._talk(peer)))

    async def _talk(self, peer: ScriptedPeer) -> None:
        raw = self.scene.metainfo.info.raw
        try:
            named = (await peer.expect_handshake()).info_hash
            peer.send_handshake(named, scene_peer_id(self.host), self._reserved)
            peer.send(wire.HAVE_ALL)
            extended = ExtendedHandshake(
                extensions={"ut_metadata": UT_METADATA} if self._does_metadata else {},
                metadata_length=len(raw) if self._does_metadata else None,
            )
            peer.send(wire.encode_extended(0, encode_extended_handshake(extended)))
            while True:
                message = await peer.expect(MessageId.HASH_REQUEST, MessageId.EXTENDED, timeout=600)
                if message.message_id == MessageId.HASH_REQUEST:
                    self._hash_request(peer, wire.decode_hash_range(message.payload))
                elif message.payload[0] == UT_METADATA:
                    asked = decode_metadata_message(message.payload[1:])
                    assert asked is not None
                    data = raw[asked.piece * 16_384 :][:16_384]
                    reply = MetadataMessage(MetadataMessageType.DATA, asked.piece, len(raw), data)
                    peer.send(wire.encode_extended(2, encode_metadata_message(reply)))
        except ExpectationFailed:
            return

    def _hash_request(self, peer: ScriptedPeer, wanted: HashRange) -> None:
        self.asked.append(wanted)
        hashes = self._answer(wanted)
        if hashes is None:
            peer.send(wire.encode_hash_request(wanted, MessageId.HASH_REJECT))
        elif hashes:
            peer.send(wire.encode_hashes(wanted, [hashes]))

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for peer in self._peers:
            peer.close()
        self._listener.close()


def scene_peer_id(host: SimHost) -> bytes:
    return b"-SC0000-" + host.addresses[0].encode().rjust(12, b"_")


async def ask(peer: ScriptedPeer, wanted: HashRange) -> bytes | None:
    """Ask for hashes and return them; None when the request is rejected."""
    peer.send(wire.encode_hash_request(wanted))
    message = await peer.expect(MessageId.HASHES, MessageId.HASH_REJECT)
    assert wire.decode_hash_range(message.payload) == wanted
    return message.payload[48:] if message.message_id == MessageId.HASHES else None


class BlockPeer:
    """
    Listens, has everything, serves blocks, and corrupts those for which ``is_bad`` says so.

    Args:
        scene: whose torrent it has.
        is_bad: told the number of the block among all that it has served, index and begin.
    """

    def __init__(self, scene: Scene, is_bad: Callable[[int, int, int], bool]) -> None:
        self.host = scene.add_host()
        self.endpoint = endpoint_of(self.host)
        self.bad: list[tuple[int, int]] = []
        self.num_served = 0
        self._scene = scene
        self._is_bad = is_bad
        self._listener = scene.listener(self.host)
        self._peers: list[ScriptedPeer] = []
        self._task = asyncio.ensure_future(self._listen())
        scene.at_end.append(self.close)

    async def _listen(self) -> None:
        while True:
            try:
                peer = await self._listener.accept(timeout=600)
                self._peers.append(peer)
                named = (await peer.expect_handshake()).info_hash
                peer.send_handshake(named, scene_peer_id(self.host), V2)
                peer.send(wire.HAVE_ALL + wire.UNCHOKE)
                await peer.serve(self._read)
            except ExpectationFailed:
                continue

    def _read(self, index: int, begin: int, length: int) -> bytes:
        self.num_served += 1
        at = index * self._scene.metainfo.info.piece_length + begin
        block = self._scene.data[at : at + length]
        if self._is_bad(self.num_served, index, begin):
            self.bad.append((index, begin))
            return bytes([block[0] ^ 1]) + block[1:]
        return block

    def close(self) -> None:
        self._task.cancel()
        for peer in self._peers:
            peer.close()
        self._listener.close()


async def connect_v2(scene: Scene, node: Node) -> ScriptedPeer:
    """Connect a scripted peer that speaks v2 to a node, and go through the handshake."""
    peer = await ScriptedPeer.connect(scene.add_host(), node.endpoint)
    scene.at_end.append(peer.close)
    peer.send_handshake(scene.info_hash, b"-SC0000-" + scene.loop.random.randbytes(12), V2)
    await peer.expect_handshake()
    return peer


async def connect_to_node(scene: Scene, **options: Any) -> tuple[Files, bytes, Node, ScriptedPeer]:
    """Start a node and connect to it; the right answers of the scene's one file, and its root."""
    files = Files(scene)
    [root] = files.trees
    node = await scene.node(**options)
    return files, root, node, await connect_v2(scene, node)
