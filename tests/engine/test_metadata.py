"""engine.metadata: magnet links in virtual time, honest peers and liars (BEP 9, Limit: H7)."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import shutil
import sys
import time
from pathlib import Path

import pytest

from bittern.codec import wire
from bittern.codec.extension import (
    ExtendedHandshake,
    MetadataMessage,
    MetadataMessageType,
    PexFlag,
    PexMessage,
    decode_metadata_message,
    encode_extended_handshake,
    encode_metadata_message,
    encode_pex,
)
from bittern.codec.file_list import FileEntry
from bittern.codec.info import Version
from bittern.codec.magnet import parse_magnet
from bittern.codec.metainfo import decode_metainfo
from bittern.codec.wire import HashRange, MessageId
from bittern.core.endpoint import Endpoint
from bittern.core.errors import MetainfoError
from bittern.core.ids import InfoHash, InfoHashV2
from bittern.engine import events
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.events import TorrentState
from bittern.engine.metadata import KEEP_INTERVAL, matcher, metainfo_from, selection_of
from bittern.engine.session import Session
from bittern.engine.torrent import Torrent
from bittern.net.tcp import TcpNetwork
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.testing.loop import VirtualLoop
from bittern.testing.network import Link
from bittern.testing.peer import ExpectationFailed, ScriptedListener, ScriptedPeer
from tests.engine.hash_peers import Files, HashPeer, connect_v2
from tests.engine.scene import (
    FAST,
    GIVEN,
    NAME,
    NUM_PIECES,
    Scene,
    Stranger,
    Watch,
    endpoint_of,
    in_scene,
    until,
)
from tests.virtual_time import simulated

FILES = {"a": 100_000, "b": 200_000, "c": 150_000}
UT_METADATA = 3
"""The id under which scripted peers take the messages."""


@pytest.mark.parametrize("version", [Version.V1, Version.HYBRID])
@in_scene(files=FILES, version=GIVEN)
async def test_from_a_link_to_the_content(scene: Scene) -> None:
    seed = await scene.node(is_seed=True)
    leecher = await scene.node(peers=[seed], source=scene.link)
    assert leecher.torrent.state is TorrentState.METADATA
    assert leecher.torrent.num_left == 1
    watch = Watch(leecher.torrent)
    await leecher.complete(within=20)
    assert leecher.has_content()
    await asyncio.sleep(0)
    assert watch.of(events.MetadataReceived) == [
        events.MetadataReceived("content", len(scene.metainfo.info.raw))
    ]
    assert leecher.torrent.info.raw == scene.metainfo.info.raw
    # One connection served both.
    assert scene.network.attempts[seed.endpoint] == 1


@in_scene(files=FILES, version=Version.HYBRID)
async def test_a_hybrid_of_which_the_layers_are_unknown_rests_and_wakes(
    scene: Scene, tmp_path: Path
) -> None:
    """Its v1 hashes say enough; without the layers there is no .torrent file of it to put away."""
    seed = await scene.node(is_seed=True)
    node = await scene.node(
        peers=[seed], source=scene.link, state_dir=tmp_path / "s", rest_after=3.0
    )
    await node.complete()
    await asyncio.sleep(60)
    assert node.torrent.is_resting
    other = await scene.node(peers=[node])
    await other.complete()
    assert other.has_content()


@in_scene(files=FILES, version=Version.V2)
async def test_a_v2_torrent_whose_layers_nobody_gives_waits(scene: Scene) -> None:
    peer = HashPeer(scene, lambda _: None)
    node = await scene.node(source=scene.link, peers=[peer.endpoint])
    await asyncio.sleep(60)
    assert node.torrent.state is TorrentState.METADATA
    assert node.torrent.num_connections == 1
    assert len(peer.asked) > len(FILES)
    [reason, *_] = node.torrent.diagnose().reasons
    assert str(reason) == ("Piece hashes of 3 files are being asked of 1 of 1 connected peer.")


@pytest.mark.parametrize(
    ("version", "topic"),
    [
        (Version.V1, "v1"),
        (Version.V2, "v2"),
        (Version.HYBRID, "v1"),
        (Version.HYBRID, "v2"),
        (Version.HYBRID, "both"),
    ],
)
@in_scene(files=FILES, version=GIVEN)
async def test_metadata_that_was_here_once_is_asked_of_nobody(
    scene: Scene, topic: str, tmp_path: Path
) -> None:
    """A run that ends early, and one that knows nobody to ask."""
    info = scene.metainfo.info
    links = {"v1": scene.link_by("btih"), "v2": scene.link_by("btmh"), "both": scene.link}
    link = links[topic]
    seed = await scene.node(is_seed=True, max_upload_rate=2000)
    first = await scene.node(peers=[seed], source=link, state_dir=tmp_path / "s")
    await until(lambda: first.torrent.state is TorrentState.DOWNLOADING)
    # Who comes by the v1 hash alone makes the layers of a hybrid from its data, later.
    if topic != "v1":
        await until(lambda: has_layers(first.torrent))
    await first.close()
    again = await scene.node(source=link, state_dir=tmp_path / "s")
    assert again.torrent.state is TorrentState.DOWNLOADING
    assert again.torrent.info.raw == info.raw
    assert again.torrent.all_hashes == info.all_hashes
    assert topic == "v1" or has_layers(again.torrent)
    seed = await scene.node(is_seed=True)
    again.torrent.add_peers([seed.endpoint], "user")
    await again.complete()
    assert again.has_content()


def has_layers(torrent: Torrent) -> bool:
    return torrent.metainfo is not None and len(torrent.metainfo.piece_layers) == len(FILES)


@in_scene(files=FILES, version=Version.V2)
async def test_piece_layers_that_were_here_once_are_asked_of_nobody(
    scene: Scene, tmp_path: Path
) -> None:
    files = Files(scene)
    given, *rest = files.trees
    some = HashPeer(scene, lambda what: files.answer(what) * (what.pieces_root == given))
    first = await scene.node(source=scene.link, peers=[some.endpoint], state_dir=tmp_path / "s")
    await asyncio.sleep(KEEP_INTERVAL + 5)
    # Killed: what is on disk by now must do.
    shutil.copytree(tmp_path / "s", tmp_path / "later")
    await first.close()
    assert len(some.asked) > len(rest)
    others = HashPeer(scene, files.answer, does_metadata=False)
    again = await scene.node(
        source=scene.link, peers=[others.endpoint], state_dir=tmp_path / "later"
    )
    assert again.torrent.state is TorrentState.METADATA
    await until(lambda: again.torrent.state is TorrentState.DOWNLOADING)
    assert {what.pieces_root for what in others.asked} == set(rest)


@in_scene(files=FILES, version=Version.V2)
async def test_layers_are_kept_when_a_run_ends(scene: Scene, tmp_path: Path) -> None:
    files = Files(scene)
    given, *rest = files.trees
    some = HashPeer(scene, lambda what: files.answer(what) * (what.pieces_root == given))
    first = await scene.node(source=scene.link, peers=[some.endpoint], state_dir=tmp_path / "s")
    await asyncio.sleep(5)
    await first.close()
    others = HashPeer(scene, files.answer, does_metadata=False)
    again = await scene.node(source=scene.link, peers=[others.endpoint], state_dir=tmp_path / "s")
    await until(lambda: again.torrent.state is TorrentState.DOWNLOADING)
    assert {what.pieces_root for what in others.asked} == set(rest)


@in_scene(files=FILES)
async def test_a_choice_that_kept_metadata_does_not_fit(scene: Scene, tmp_path: Path) -> None:
    seed = await scene.node(is_seed=True)
    first = await scene.node(peers=[seed], source=scene.link, state_dir=tmp_path / "s")
    await first.complete()
    await first.close()
    again = await scene.node(source=scene.link, state_dir=tmp_path / "s", torrent={"files": {7}})
    assert again.torrent.state is TorrentState.ERROR
    assert "there is no file 7" in str(again.torrent.error)


@in_scene(files=FILES)
async def test_a_link_that_selects_files(scene: Scene) -> None:
    """BEP 53."""
    seed = await scene.node(is_seed=True)
    leecher = await scene.node(peers=[seed], source=scene.link + "&so=2")
    await leecher.complete(within=20)
    assert (leecher.folder / "content" / "c").read_bytes() == scene.files["c"]
    assert not (leecher.folder / "content" / "a").exists()


@in_scene()
async def test_two_who_know_nothing_get_it_from_a_third(scene: Scene) -> None:
    one = await scene.node(source=scene.link)
    two = await scene.node(source=scene.link, peers=[one])
    await asyncio.sleep(5)
    assert one.torrent.num_connections == 1
    seed = await scene.node(is_seed=True, peers=[one])
    await one.complete(within=90)
    await two.complete(within=90)
    assert one.has_content()
    assert two.has_content()
    assert seed.torrent.num_uploaded > 0


@in_scene()
async def test_a_link_that_ends_before_anybody_came(scene: Scene, tmp_path: Path) -> None:
    node = await scene.node(source=scene.link + "&dn=name", state_dir=tmp_path / "s")
    assert node.torrent.name == "name"
    await asyncio.sleep(100)
    assert node.torrent.state is TorrentState.METADATA
    await node.torrent.pause()
    await node.torrent.resume()
    assert node.torrent.state is TorrentState.METADATA


class Server(Stranger):
    """Serves metadata as it likes to whoever connects."""

    def __init__(self, scene: Scene, data: bytes, *, claim: int | None = None) -> None:
        super().__init__(scene)
        self.data = data
        self.claim = len(data) if claim is None else claim
        self.play(self._serve)

    async def _serve(self, peer: ScriptedPeer) -> None:
        extended = ExtendedHandshake(
            extensions={"ut_metadata": UT_METADATA}, metadata_length=self.claim
        )
        await self.scene.greet(peer, extended=extended)
        while True:
            message = await peer.expect(MessageId.EXTENDED, timeout=math.inf)
            if message.payload[0] != UT_METADATA:
                continue
            request = decode_metadata_message(message.payload[1:])
            if request is None or request.kind is not MetadataMessageType.REQUEST:
                continue
            at = request.piece * 16_384
            reply = MetadataMessage(
                MetadataMessageType.DATA,
                request.piece,
                self.claim,
                self.data[at : at + 16_384],
            )
            # Their id for us was 2 in the extended handshake.
            peer.send(wire.encode_extended(2, encode_metadata_message(reply)))


async def lie(
    listener: ScriptedListener, info_hash: InfoHash, length: int, has_lied: asyncio.Event
) -> None:
    """Serve garbage of the right size to whoever connects."""
    while True:
        peer = await listener.accept(timeout=1e6)
        try:
            peer.send_handshake(info_hash, b"-SC0000-" + random.randbytes(12), FAST)
            await peer.expect_handshake()
            peer.send(wire.HAVE_NONE)
            offer = ExtendedHandshake(
                extensions={"ut_metadata": UT_METADATA}, metadata_length=length
            )
            peer.send(wire.encode_extended(0, encode_extended_handshake(offer)))
            while True:
                message = await peer.expect(MessageId.EXTENDED, timeout=1e6)
                request = (
                    decode_metadata_message(message.payload[1:])
                    if message.payload[0] == UT_METADATA
                    else None
                )
                if request is not None and request.kind is MetadataMessageType.REQUEST:
                    part = min(16_384, length - request.piece * 16_384)
                    reply = MetadataMessage(
                        MetadataMessageType.DATA, request.piece, length, random.randbytes(part)
                    )
                    peer.send(wire.encode_extended(2, encode_metadata_message(reply)))
                    has_lied.set()
        except ExpectationFailed:
            pass
        finally:
            peer.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs many loopback addresses")
async def test_liars_among_honest_peers_cost_seconds_on_real_sockets(tmp_path: Path) -> None:
    """Limit: H7. Eight liars who are asked first, two seeds; the download completes."""
    (tmp_path / "there").mkdir()
    content = random.Random(3).randbytes(24 << 20)
    (tmp_path / "there/content").write_bytes(content)
    options = CreateOptions(version=Version.V1, piece_length=16_384)
    raw = create_torrent(tmp_path / "there/content", options=options, num_threads=1)
    info = decode_metainfo(raw).info
    assert len(info.raw) > 16_384, "more than one piece of metadata"
    network = TcpNetwork()
    listeners = [ScriptedListener(network, f"127.0.0.{20 + number}") for number in range(8)]
    has_lied = asyncio.Event()
    liars = [
        asyncio.create_task(lie(listener, info.wire_hash, len(info.raw), has_lied))
        for listener in listeners
    ]

    def settings(host: str) -> SessionConfig:
        return SessionConfig(
            listen_host=host,
            listen_port=0,
            enable_dht=False,
            enable_lsd=False,
            enable_trackers=False,
        )

    async with (
        Session(settings("127.0.0.11")) as one,
        Session(settings("127.0.0.12")) as two,
        Session(settings("127.0.0.13")) as session,
    ):
        for seed in (one, two):
            await seed.add(raw, TorrentConfig(output=tmp_path / "there", skip_check=True))
        peers = [listener.endpoint for listener in listeners]
        began = time.monotonic()
        torrent = await session.add(
            str(info.wire_hash), TorrentConfig(output=tmp_path / "here", peers=tuple(peers))
        )
        async with asyncio.timeout(60):
            await has_lied.wait()
            honest = Endpoint("127.0.0.11", one.port), Endpoint("127.0.0.12", two.port)
            torrent.add_peers(honest, "user")
            await torrent.wait_complete()
        assert time.monotonic() - began < 45
        assert (tmp_path / "here/content").read_bytes() == content
    for liar in liars:
        liar.cancel()
    await asyncio.gather(*liars, return_exceptions=True)
    for listener in listeners:
        listener.close()


@pytest.mark.slow
@in_scene()
async def test_fifty_liars_and_an_honest_one(scene: Scene) -> None:
    """Limit: H7. Ten claimed sizes; the metadata is there in time, and nobody honest is banned."""
    raw = scene.metainfo.info.raw
    liars = [
        Server(scene, scene.loop.random.randbytes(len(raw) + number % 10 * 16_384))
        for number in range(50)
    ]
    seed = await scene.node(is_seed=True)
    peers = [liar.endpoint for liar in liars]
    node = await scene.node(source=scene.link, peers=[*peers[:25], seed, *peers[25:]])
    watch = Watch(node.torrent)
    await node.complete(within=60)
    assert node.has_content()
    await asyncio.sleep(0)
    banned = {event.endpoint for event in watch.of(events.PeerBanned)}
    assert seed.endpoint not in banned


@in_scene()
async def test_a_liar_alone_is_banned(scene: Scene) -> None:
    liar = Server(scene, bytes(len(scene.metainfo.info.raw)))
    node = await scene.node(source=scene.link, peers=[liar])
    watch = Watch(node.torrent)
    await asyncio.sleep(60)
    assert [e.reason for e in watch.of(events.PeerBanned)] == ["sent wrong metadata"]
    assert node.torrent.num_connections == 0
    seed = await scene.node(is_seed=True)
    node.torrent.add_peers([seed.endpoint], "user")
    await node.complete()


@pytest.mark.parametrize("claim", [0, -1, 1 << 40])
@in_scene()
async def test_a_size_that_cannot_be_is_not_asked_for(scene: Scene, claim: int) -> None:
    liar = Server(scene, b"", claim=claim)
    node = await scene.node(source=scene.link, peers=[liar])
    await asyncio.sleep(20)
    assert node.torrent.state is TorrentState.METADATA


@in_scene()
async def test_what_a_peer_says_early_counts_later(scene: Scene) -> None:
    """Bitfield, haves and an unchoke that come before the metadata are not forgotten."""
    node = await scene.node(source=scene.link)
    bitfield = wire.encode_bitfield(b"\x00" * (NUM_PIECES // 8))
    early = await scene.scripted(node, bitfield=bitfield)
    early.send(wire.encode_have(7) + wire.UNCHOKE + wire.encode_port(6881))
    await asyncio.sleep(1)
    server = Server(scene, scene.metainfo.info.raw)
    node.torrent.add_peers([server.endpoint], "user")
    await early.expect(MessageId.INTERESTED)
    request = await early.expect(MessageId.REQUEST)
    assert request.numbers[0] == 7


@pytest.mark.parametrize("is_sequential", [False, True])
@in_scene(files=FILES, link=Link(delay=0.15))
async def test_the_first_block_is_one_round_trip_behind_the_metadata(
    scene: Scene, is_sequential: bool
) -> None:
    """Interest is told when the metadata is asked for, so the unchoke comes no later than it."""
    seed = await scene.node(is_seed=True)
    sequential = {"sequential": is_sequential}
    leecher = await scene.node(peers=[seed], source=scene.link, torrent=sequential)
    watch = Watch(leecher.torrent)
    await until(lambda: bool(watch.of(events.MetadataReceived)))
    known_at = scene.loop.time()
    await until(lambda: leecher.torrent.stats().downloaded > 0)
    assert scene.loop.time() - known_at < 0.35


@in_scene()
async def test_interest_in_who_turns_out_to_have_nothing_is_taken_back(scene: Scene) -> None:
    node = await scene.node(source=scene.link)
    offer = ExtendedHandshake(
        extensions={"ut_metadata": UT_METADATA}, metadata_length=len(scene.metainfo.info.raw)
    )
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE, extended=offer)
    await peer.expect(MessageId.INTERESTED)
    server = Server(scene, scene.metainfo.info.raw)
    node.torrent.add_peers([server.endpoint], "user")
    await peer.expect(MessageId.NOT_INTERESTED)


@in_scene()
async def test_who_has_nothing_says_so_first(scene: Scene) -> None:
    """BEP 6; to others a keep-alive says that no bitfield comes."""
    node = await scene.node(source=scene.link)
    peer = await scene.scripted(node)
    await peer.expect_next(MessageId.HAVE_NONE)
    await peer.expect_next(MessageId.EXTENDED)
    plain = await scene.scripted(node, reserved=wire.Reserved(has_fast=False))
    await plain.expect_next(None)
    await plain.expect_next(MessageId.EXTENDED)


@in_scene()
async def test_content_that_is_there_already_is_told_of(scene: Scene) -> None:
    """The connection that brought the metadata learns of every piece."""
    node = await scene.node(source=scene.link, is_seed=True)
    other = await scene.scripted(node, bitfield=wire.HAVE_NONE)
    server = Server(scene, scene.metainfo.info.raw)
    node.torrent.add_peers([server.endpoint], "user")
    told = {(await other.expect(MessageId.HAVE)).numbers[0] for _ in range(NUM_PIECES)}
    assert told == set(range(NUM_PIECES))
    assert node.torrent.is_complete


@pytest.mark.parametrize(
    "early",
    [
        pytest.param(wire.encode_bitfield(b"\xff" * 40), id="a bitfield of another length"),
        pytest.param(wire.encode_have(4_000), id="a have beyond the end"),
    ],
)
@in_scene()
async def test_what_turns_out_wrong_closes_the_peer(scene: Scene, early: bytes) -> None:
    node = await scene.node(source=scene.link)
    peer = await scene.scripted(node, bitfield=early)
    server = Server(scene, scene.metainfo.info.raw)
    node.torrent.add_peers([server.endpoint], "user")
    await peer.expect_closed()
    assert node.torrent.state is TorrentState.DOWNLOADING


@in_scene()
async def test_requests_and_garbage_before_the_metadata(scene: Scene) -> None:
    node = await scene.node(source=scene.link)
    extended = ExtendedHandshake(extensions={"ut_metadata": UT_METADATA})
    peer = await scene.scripted(node, extended=extended)
    ask = MetadataMessage(MetadataMessageType.REQUEST, 0)
    peer.send(wire.encode_extended(2, encode_metadata_message(ask)))
    while (message := await peer.expect(MessageId.EXTENDED)).payload[0] != UT_METADATA:
        pass
    reply = decode_metadata_message(message.payload[1:])
    assert reply == MetadataMessage(MetadataMessageType.REJECT, 0)
    other = MetadataMessage(MetadataMessageType.REJECT, 5)
    peer.send(wire.encode_extended(2, encode_metadata_message(other)))
    peer.send(wire.encode_extended(2, b"d8:msg_typei9e5:piecei0ee"))
    peer.send(wire.encode_extended(2, b"no bencode"))
    await peer.expect_closed()
    asker = await scene.scripted(node, reserved=FAST)
    asker.send(wire.encode_request(0, 0, 16_384))
    await asker.expect_closed()


def test_info_dictionaries_are_matched_by_every_hash_that_is_known() -> None:
    raw = b"d4:name1:xe"
    v1 = InfoHash(hashlib.sha1(raw).digest())
    v2 = InfoHashV2(hashlib.sha256(raw).digest())
    for hashes in ((v1, None), (None, v2), (v1, v2)):
        assert matcher(*hashes)(raw)
        assert not matcher(*hashes)(raw + b" ")
    assert not matcher(v1, InfoHashV2(bytes(32)))(raw)


@pytest.mark.parametrize(
    ("rest", "found"),
    [("", None), ("&so=1", set()), ("&so=0,1-9", {0, 2}), ("&so=7", set())],
)
def test_files_that_a_link_selects(rest: str, found: set[int] | None) -> None:
    magnet = parse_magnet("magnet:?xt=urn:btih:" + "a" * 40 + rest)
    files = [FileEntry(("a",), 5, 0), FileEntry((".pad",), 3, 5, is_pad=True)]
    files.append(FileEntry(("b",), 5, 8))
    assert selection_of(magnet, files) == (None if found is None else frozenset(found))


@simulated
async def test_metainfo_knows_what_the_link_knew(loop: VirtualLoop, tmp_path: Path) -> None:
    scene = Scene(loop, tmp_path)
    magnet = parse_magnet(scene.link + "&tr=http%3A%2F%2Ft.example%2Fa&ws=http%3A%2F%2Fw/")
    made = metainfo_from(magnet, scene.metainfo.info.raw)
    assert made.trackers == (("http://t.example/a",),)
    assert made.web_seeds == ("http://w/",)
    assert made.info.raw == scene.metainfo.info.raw


# --- connections before the metadata is known --------------------------------------------------


@in_scene()
async def test_a_second_connection_of_a_peer_is_closed_before_the_metadata_too(
    scene: Scene,
) -> None:
    node = await scene.node(source=scene.link)
    await scene.scripted(node, peer_id=b"-SC0000-the-very-one")
    second = await scene.scripted(node, peer_id=b"-SC0000-the-very-one")
    await second.expect_closed(timeout=1)
    assert len(node.torrent.peers()) == 1


@in_scene(version=Version.V2)
async def test_requests_for_hashes_are_rejected_until_there_are_some(scene: Scene) -> None:
    """BEP 52: each request is answered."""
    node = await scene.node(source=scene.link)
    peer = await connect_v2(scene, node)
    peer.send(wire.encode_hash_request(HashRange(bytes(32), 0, 0, 2, 0)))
    await peer.expect(MessageId.HASH_REJECT)


@in_scene()
async def test_metadata_that_matches_its_hash_and_is_no_torrent_stops(
    scene: Scene, tmp_path: Path
) -> None:
    """No peer is to blame: whoever made the link made it of this."""
    raw = b"d4:name1:xe"
    info_hash = hashlib.sha1(raw).digest()
    stranger = Stranger(scene)
    session = await scene.session(scene.add_host())
    torrent = await session.add(
        f"magnet:?xt=urn:btih:{info_hash.hex()}",
        TorrentConfig(output=tmp_path, peers=(stranger.endpoint,)),
    )
    watch = Watch(torrent)
    peer = await stranger.accept()
    await peer.expect_handshake()
    peer.send_handshake(info_hash, b"-SC0000-abcdefghijkl", FAST)
    offer = ExtendedHandshake(extensions={"ut_metadata": UT_METADATA}, metadata_length=len(raw))
    peer.send(wire.HAVE_ALL + wire.encode_extended(0, encode_extended_handshake(offer)))
    while True:
        message = await peer.expect(MessageId.EXTENDED)
        if message.payload[0] == UT_METADATA:
            break
    data = MetadataMessage(MetadataMessageType.DATA, 0, len(raw), raw)
    peer.send(wire.encode_extended(2, encode_metadata_message(data)))
    await peer.expect_closed(timeout=5)
    assert torrent.state is TorrentState.ERROR
    assert isinstance(torrent.error, MetainfoError)
    assert watch.of(events.PeerBanned) == []


@in_scene()
async def test_an_offer_may_come_in_parts_and_be_taken_back(scene: Scene) -> None:
    """BEP 10: a later handshake adds to an earlier one, or takes its part back."""
    node = await scene.node(source=scene.link)
    size = ExtendedHandshake(metadata_length=20_000)
    peer = await scene.scripted(node, bitfield=wire.HAVE_NONE, extended=size)
    await peer.expect(MessageId.EXTENDED)
    metadata = node.torrent.metadata_phase
    assert metadata is not None
    assert metadata.fetch.num_claims == 0
    peer.send(wire.encode_extended(0, b"d1:md11:ut_metadatai%deee" % UT_METADATA))
    request = await peer.expect(MessageId.EXTENDED)
    assert request.payload[0] == UT_METADATA
    assert metadata.fetch.num_claims == 1
    peer.send(wire.encode_extended(0, b"d1:md11:ut_metadatai0eee"))
    await asyncio.sleep(0.1)
    assert metadata.fetch.num_claims == 0


@in_scene()
async def test_a_full_roster_dials_nobody_and_messages_are_told(scene: Scene) -> None:
    node = await scene.node(source=scene.link, torrent={"max_connections": 1})
    watch = Watch(node.torrent, trace=True)
    await asyncio.sleep(0)
    await scene.scripted(node, bitfield=wire.HAVE_NONE)
    other = endpoint_of(scene.add_host())
    node.torrent.add_peers([other], "user")
    await asyncio.sleep(5)
    assert not scene.network.attempts[other]
    assert watch.of(events.MessageReceived)[0].kind == "handshake"
    assert watch.of(events.MessageSent)[0].kind == "handshake"


@in_scene(is_private=True)
async def test_nobody_is_named_by_peers_while_a_private_torrent_is_checked(scene: Scene) -> None:
    """BEP 27. They may have been told before that we take peers from them (BEP 11)."""
    seed = await scene.node(is_seed=True)
    seed.torrent.shelf.is_private = False  # so that it serves the metadata
    node = await scene.node(source=scene.link, worker_delay=100)
    (node.folder / NAME).write_bytes(bytes(len(scene.data)))
    talker = await scene.scripted(node, extended=ExtendedHandshake())
    node.torrent.add_peers([seed.endpoint], "user")
    await until(lambda: node.torrent.state is TorrentState.CHECKING, within=900)
    named = Endpoint("10.0.0.77", 7000)
    talker.send(wire.encode_extended(1, encode_pex(PexMessage(((named, PexFlag.NONE),)))))
    await asyncio.sleep(50)
    assert node.torrent.state is TorrentState.CHECKING
    assert named not in node.torrent.candidates
