"""v2 beside libtorrent, in this process: single blocks, and hybrids that contradict themselves."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from bittern.codec import wire
from bittern.codec.bencode import decode, encode
from bittern.codec.info import Version
from bittern.codec.wire import HashRange
from bittern.core.endpoint import Endpoint
from bittern.core.errors import Inconsistent
from bittern.core.geometry import BLOCK_LENGTH
from bittern.engine import events
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.events import TorrentState
from bittern.engine.session import Session
from bittern.engine.torrent import Torrent
from bittern.storage.creator import CreateOptions, create_torrent
from tests.interop.content import Content, digest_of, random_data
from tests.interop.test_real_faults import Liar, running
from tests.reference import lt

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(300)]

HOST = "127.0.0.1"
PATIENCE = 120.0
PIECE_LENGTH = 1 << 20


class Libtorrent:
    """
    A session of libtorrent with one torrent, or with the link to one.

    It checks its data. Interop: one in seed mode refuses to give the hashes of blocks.
    """

    def __init__(self, raw: bytes | str, folder: Path) -> None:
        self.session = lt.session(
            {
                "listen_interfaces": f"{HOST}:0",
                "enable_dht": False,
                "enable_lsd": False,
                "enable_upnp": False,
                "enable_natpmp": False,
                "allow_multiple_connections_per_ip": True,
                "enable_outgoing_utp": False,
                "enable_incoming_utp": False,
                "in_enc_policy": 2,
                "out_enc_policy": 2,
            }
        )
        parameters = (
            lt.parse_magnet_uri(raw) if isinstance(raw, str) else lt.load_torrent_buffer(raw)
        )
        parameters.save_path = str(folder)
        parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
        self.handle = self.session.add_torrent(parameters)

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        return Endpoint(HOST, self.session.listen_port())

    async def counters(self) -> dict[str, int]:
        """Return what it has counted, by libtorrent's names."""
        self.session.post_session_stats()
        found: dict[str, int] = {}

        def is_told() -> bool:
            for alert in self.session.pop_alerts():
                if isinstance(alert, lt.session_stats_alert):
                    found.update(alert.values)
            return bool(found)

        await until(is_told)
        return found

    def close(self) -> None:
        """End it, with its threads."""
        self.session.pause()
        del self.handle, self.session


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; AssertionError after a while."""
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, "it did not come to that"
        await asyncio.sleep(0.02)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., bytes]:
    """Make the data, eight pieces less 5,000 bytes, and a torrent of a version of it."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()

    def make(version: Version, piece_length: int = PIECE_LENGTH, num_pieces: int = 8) -> bytes:
        with (tmp_path / "theirs/content").open("wb") as file:
            for data in random_data(random.Random(1), num_pieces * piece_length - 5000):
                file.write(data)
        shutil.copyfile(tmp_path / "theirs/content", tmp_path / "ours/content")
        options = CreateOptions(version=version, piece_length=piece_length)
        return create_torrent(tmp_path / "theirs" / "content", options=options)

    return make


@pytest.fixture
def clients() -> Iterator[list[Libtorrent]]:
    """Sessions that are closed after the test."""
    made: list[Libtorrent] = []
    yield made
    for client in made:
        client.close()


async def add(
    session: Session, raw: bytes | str, folder: Path, **config: Any
) -> tuple[Torrent, list[events.Event]]:
    """Add a torrent to a session of ours, and collect its events."""
    torrent = await session.add(raw, TorrentConfig(output=folder, paused=True, **config))
    seen: list[events.Event] = []

    async def collect() -> None:
        async for event in torrent.events():
            seen.append(event)  # noqa: PERF401 - they are looked at as they come

    session._spawn(collect(), "events")
    await torrent.resume()
    return torrent, seen


def quiet() -> SessionConfig:
    """Settings of a session that talks to nobody by itself."""
    return SessionConfig(
        listen_host=HOST,
        listen_port=0,
        enable_dht=False,
        enable_lsd=False,
        enable_trackers=False,
    )


@pytest.mark.parametrize(
    ("version", "piece_mib", "num_pieces"),
    [
        (Version.V2, 1, 8),
        (Version.HYBRID, 1, 8),
        (Version.V2, 16, 3),
        (Version.HYBRID, 32, 2),
        pytest.param(Version.V2, 256, 2, marks=pytest.mark.soak),
    ],
)
async def test_one_bad_block_costs_one_block(
    version: Version,
    piece_mib: int,
    num_pieces: int,
    tmp_path: Path,
    made: Callable[..., bytes],
    clients: list[Libtorrent],
) -> None:
    """A piece of which one block is bad, and one of which two are, however long they are."""
    piece_length = piece_mib << 20
    raw = made(version, piece_length, num_pieces)
    path = tmp_path / "ours/content"
    length, right = path.stat().st_size, digest_of(path)
    with path.open("r+b") as file:
        for offset in (5 * BLOCK_LENGTH, length - 1, length - 3 * BLOCK_LENGTH):
            flip(file, offset)
    clients.append(Libtorrent(raw, tmp_path / "theirs"))
    await until(lambda: clients[0].handle.status().is_seeding)
    async with Session(quiet()) as session:
        torrent, seen = await add(session, raw, tmp_path / "ours", peers=(clients[0].endpoint,))
        async with asyncio.timeout(PATIENCE):
            await torrent.wait_complete()
        assert torrent.num_downloaded <= 3 * BLOCK_LENGTH
        damaged = {e.index: e.num_bad for e in seen if isinstance(e, events.PieceDamaged)}
        assert damaged == {0: 1, num_pieces - 1: 2}
    assert digest_of(path) == right


async def test_one_bad_block_of_the_longest_piece(tmp_path: Path) -> None:
    """Of 512 MiB, which libtorrent does not take: 32,768 hashes in 64 parts, from one of ours."""
    length = (512 << 20) + BLOCK_LENGTH + 1
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "content").open("wb") as file:
            file.truncate(length)
            file.write(b"what is not all zeros")
    options = CreateOptions(version=Version.V2, piece_length=512 << 20)
    raw = create_torrent(tmp_path / "theirs/content", options=options)
    with (tmp_path / "ours/content").open("r+b") as file:
        flip(file, length // 2)
    async with Session(quiet()) as seed, Session(quiet()) as session:
        await add(seed, raw, tmp_path / "theirs")
        endpoint = Endpoint(HOST, seed.port)
        torrent, seen = await add(session, raw, tmp_path / "ours", peers=(endpoint,))
        async with asyncio.timeout(PATIENCE):
            await torrent.wait_complete()
        assert torrent.num_downloaded == BLOCK_LENGTH
        damaged = [e for e in seen if isinstance(e, events.PieceDamaged)]
        assert damaged == [events.PieceDamaged(0, 1, 32_768)]
    assert digest_of(tmp_path / "ours/content") == digest_of(tmp_path / "theirs/content")


def flip(file: BinaryIO, offset: int) -> None:
    """Change one bit of a file."""
    file.seek(offset)
    (byte,) = file.read(1)
    file.seek(offset)
    file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("piece_mib", [16, 32, pytest.param(128, marks=pytest.mark.soak)])
async def test_libtorrent_gets_the_hashes_of_all_blocks_of_a_piece(
    piece_mib: int,
    tmp_path: Path,
    made: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Interop: it asks for them at once, up to 8,192, when a piece has failed.

    It has a poisoner beside us. Of a file of one or two pieces it asks for more proof layers than
    there are, and breaks off where it gets them, so this one has three. Short pieces it may have
    of the poisoner whole, whom it bans then without a question.
    """
    raw = made(Version.V2, piece_mib << 20, 3)
    torrent_file, folder = tmp_path / "content.torrent", tmp_path / "theirs"
    torrent_file.write_bytes(raw)
    content = Content(torrent_file, folder, {Path(): digest_of(folder / "content")})
    liar = Liar("127.0.0.20", content, share=0.1)
    (tmp_path / "leech").mkdir()
    answered: list[HashRange] = []

    def encode(what: HashRange, hashes: Iterable[bytes]) -> bytes:
        answered.append(what)
        return encode_hashes(what, hashes)

    encode_hashes = wire.encode_hashes
    monkeypatch.setattr(wire, "encode_hashes", encode)
    async with running([liar]), Session(quiet()) as session:
        await add(session, raw, folder)
        with closing(Libtorrent(raw, tmp_path / "leech")) as client:
            client.handle.connect_peer(liar.endpoint)
            await until(lambda: liar.num_bad > 0)
            client.handle.connect_peer((HOST, session.port))
            await until(lambda: client.handle.status().is_seeding)
            told = await client.counters()
    assert content.differences(tmp_path / "leech") == []
    assert {what.length for what in answered} == {piece_mib << 6}
    num_asked = told["ses.num_outgoing_hash_request"]
    # Of longer pieces not three can be read in so short a time (H10).
    assert len(answered) == num_asked if piece_mib <= 16 else 0 < len(answered) <= num_asked


def contradiction(raw: bytes) -> bytes:
    """Return a hybrid of which the v1 hash of piece 1 is wrong."""
    value: Any = decode(raw)
    pieces = value[b"info"][b"pieces"]
    value[b"info"][b"pieces"] = pieces[:20] + bytes(20) + pieces[40:]
    return encode(value)


async def test_a_hybrid_that_contradicts_itself_stops_us_and_them(
    tmp_path: Path, made: Callable[..., bytes], clients: list[Libtorrent]
) -> None:
    """
    Limit: P13. Good in v2 and bad in v1: a clear error, and nobody is banned.

    The seed is ours and hashes nothing, since libtorrent would find it out by itself.
    """
    raw = contradiction(made(Version.HYBRID))
    for name in ("leech", "other"):
        (tmp_path / name).mkdir()
    settings = replace(quiet(), verify_before_upload=False)
    async with Session(settings) as seed, Session(quiet()) as session:
        await add(seed, raw, tmp_path / "ours", skip_check=True)
        endpoint = Endpoint(HOST, seed.port)
        torrent, seen = await add(session, raw, tmp_path / "leech", peers=(endpoint,))
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(Inconsistent, match="piece 1 matches its v2 hash and not its v1"):
                await torrent.wait_complete()
        assert torrent.state is TorrentState.ERROR
        await until(lambda: any(isinstance(e, events.TorrentUnusable) for e in seen))
        assert not [e for e in seen if isinstance(e, events.PeerBanned)]
        clients.append(Libtorrent(raw, tmp_path / "other"))
        clients[0].handle.connect_peer((HOST, seed.port))
        await until(lambda: clients[0].handle.status().errc.value() != 0)
        told = clients[0].handle.status().errc.message()
        assert "v1 and v2" in told
