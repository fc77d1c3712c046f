"""Scripted peers that speak of hashes, for the tests of v2 in the engine."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from bittern.codec import wire
from bittern.codec.bencode import decode, encode
from bittern.codec.extension import (
    ExtendedHandshake,
    MetadataMessage,
    MetadataMessageType,
    decode_metadata_message,
    encode_extended_handshake,
    encode_metadata_message,
)
from bittern.codec.merkle import HashTree, block_hashes, piece_layer_of, root_of
from bittern.codec.wire import HashRange, MessageId, Reserved
from bittern.engine import events
from bittern.testing.host import SimHost
from bittern.testing.peer import ScriptedPeer
from tests.engine.scene import FAST, NAME, PIECE_LENGTH, Node, Scene, Stranger, Watch, until

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


class HashPeer(Stranger):
    """
    Gives the metadata, and answers hash requests as ``answer`` says.

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
        super().__init__(scene, host)
        self.asked: list[HashRange] = []
        self._answer = answer
        self._does_metadata = does_metadata
        self._reserved = reserved
        self.play(self._talk)

    async def _talk(self, peer: ScriptedPeer) -> None:
        raw = self.scene.metainfo.info.raw
        named = (await peer.expect_handshake()).info_hash
        peer.send_handshake(named, scene_peer_id(self.host), self._reserved)
        peer.send(wire.HAVE_ALL)
        extended = ExtendedHandshake(
            extensions={"ut_metadata": UT_METADATA} if self._does_metadata else {},
            metadata_length=len(raw) if self._does_metadata else None,
        )
        peer.send(wire.encode_extended(0, encode_extended_handshake(extended)))
        while True:
            message = await peer.expect(
                MessageId.HASH_REQUEST, MessageId.EXTENDED, timeout=math.inf
            )
            if message.message_id == MessageId.HASH_REQUEST:
                self._hash_request(peer, wire.decode_hash_range(message.payload))
            elif message.payload[0] == UT_METADATA:
                asked = decode_metadata_message(message.payload[1:])
                assert asked is not None
                data = raw[asked.piece * 16_384 :][:16_384]
                reply = MetadataMessage(MetadataMessageType.DATA, asked.piece, len(raw), data)
                peer.send(wire.encode_extended(2, encode_metadata_message(reply)))

    def _hash_request(self, peer: ScriptedPeer, wanted: HashRange) -> None:
        self.asked.append(wanted)
        hashes = self._answer(wanted)
        if hashes is None:
            peer.send(wire.encode_hash_request(wanted, MessageId.HASH_REJECT))
        elif hashes:
            peer.send(wire.encode_hashes(wanted, [hashes]))


def scene_peer_id(host: SimHost) -> bytes:
    return b"-SC0000-" + host.addresses[0].encode().rjust(12, b"_")


async def ask(peer: ScriptedPeer, wanted: HashRange) -> bytes | None:
    """Ask for hashes and return them; None when the request is rejected."""
    peer.send(wire.encode_hash_request(wanted))
    message = await peer.expect(MessageId.HASHES, MessageId.HASH_REJECT)
    assert wire.decode_hash_range(message.payload) == wanted
    return message.payload[48:] if message.message_id == MessageId.HASHES else None


class BlockPeer(Stranger):
    """
    Has everything, serves blocks, and corrupts those for which ``is_bad`` says so.

    Args:
        scene: whose torrent it has.
        is_bad: told the number of the block among all that it has served, index and begin.
    """

    def __init__(self, scene: Scene, is_bad: Callable[[int, int, int], bool]) -> None:
        super().__init__(scene)
        self.bad: list[tuple[int, int]] = []
        self.num_served = 0
        self._is_bad = is_bad
        self.play(self._talk)

    async def _talk(self, peer: ScriptedPeer) -> None:
        named = (await peer.expect_handshake()).info_hash
        peer.send_handshake(named, scene_peer_id(self.host), V2)
        peer.send(wire.HAVE_ALL + wire.UNCHOKE)
        await peer.serve(self._read)

    def _read(self, index: int, begin: int, length: int) -> bytes:
        self.num_served += 1
        at = index * self.scene.metainfo.info.piece_length + begin
        block = self.scene.data[at : at + length]
        if self._is_bad(self.num_served, index, begin):
            self.bad.append((index, begin))
            return bytes([block[0] ^ 1]) + block[1:]
        return block


async def connect_v2(scene: Scene, node: Node) -> ScriptedPeer:
    """Connect a scripted peer that speaks v2 to a node, and go through the handshake."""
    peer = await scene.connect(node)
    peer.send_handshake(scene.info_hash, b"-SC0000-" + scene.loop.random.randbytes(12), V2)
    await peer.expect_handshake()
    return peer


async def connect_to_node(scene: Scene, **options: Any) -> tuple[Files, bytes, Node, ScriptedPeer]:
    """Start a node and connect to it; the right answers of the scene's one file, and its root."""
    files = Files(scene)
    [root] = files.trees
    node = await scene.node(**options)
    return files, root, node, await connect_v2(scene, node)


async def mend_lost_piece(scene: Scene) -> tuple[Node, Watch]:
    """
    Let a node trust that it has everything, lose a piece at its first upload and fetch it again.

    Returns:
        The node, and what it told from its start on; the first block of piece 2 was bad.
    """
    seed = await scene.node(is_seed=True)
    node = await scene.node(damaged=[2 * PIECE_LENGTH], peers=[seed], torrent={"skip_check": True})
    watch = Watch(node.torrent)
    other = await scene.node(peers=[node])
    await until(lambda: bool(watch.of(events.PieceLost)))
    node.torrent.add_peers([seed.endpoint], "user")
    await other.complete()
    await node.complete()
    return node, watch


async def node_of_v1_link(scene: Scene, **options: Any) -> Node:
    """Run a node that starts from a link by the v1 hash, with a peer that knows nothing of v2."""
    old = HashPeer(scene, lambda _: None, reserved=FAST)
    return await scene.node(source=scene.link_by("btih"), peers=[old], **options)


def contradict(scene: Scene) -> bytes:
    """Give the torrent the v2 half of other data, its layer included; return that data."""
    other = random.Random(9).randbytes(len(scene.data))
    leaves = block_hashes(other)
    value: Any = decode(scene.raw)
    value[b"info"][b"file tree"][NAME.encode()][b""][b"pieces root"] = root_of(leaves)
    value[b"piece layers"] = {root_of(leaves): piece_layer_of(leaves, PIECE_LENGTH)}
    scene.raw = encode(value)
    return other
