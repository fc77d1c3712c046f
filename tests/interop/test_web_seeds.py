"""
Web seeds (BEP 19): bittern and libtorrent download the same torrents from the same servers.

The torrents are made by libtorrent; nginx and Python's http.server serve them.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import bittern
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from tests.interop.content import NAME, digest_of
from tests.interop.test_v2_storage import Libtorrent, until
from tests.interop.web_servers import Nginx, PythonServer, WebServer
from tests.reference import lt

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(300)]

KIB, MIB = 1 << 10, 1 << 20
PATIENCE = 120.0
PIECE_LENGTH = 64 * KIB
FILES = {
    "one.bin": 700_001,
    "empty": 0,
    "sub folder/ü & #1?%.bin": 300_000,
    "sub folder/three+.bin": 65_536,
    "x.txt": 3,
    "z.bin": 1_000_000,
}
SINGLE = {"": 2_000_003}
FLAGS = {
    "v1": lt.create_torrent.v1_only,
    "v2": lt.create_torrent.v2_only,
    "hybrid": 0,
}

servers = pytest.mark.parametrize("kind", [Nginx, PythonServer])
versions = pytest.mark.parametrize("version", list(FLAGS))
shapes = pytest.mark.parametrize("lengths", [SINGLE, FILES], ids=["single", "folder"])


class Content:
    """Files in a folder that a server serves, and torrents of them by libtorrent."""

    def __init__(self, folder: Path, lengths: dict[str, int]) -> None:
        self.folder = folder
        self.lengths = lengths
        dice = random.Random(1)
        for name, length in lengths.items():
            path = folder / NAME / name if name else folder / NAME
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(dice.randbytes(length))

    def torrent(self, version: str, *urls: str, piece_length: int = PIECE_LENGTH) -> bytes:
        """Make a torrent that names web seeds."""
        flags = FLAGS[version]
        entries = lt.list_files(str(self.folder / NAME), lambda _: True, flags)
        made = lt.create_torrent(entries, piece_length, flags)
        for url in urls:
            made.add_url_seed(url)
        lt.set_piece_hashes(made, str(self.folder))
        return bytes(lt.bencode(made.generate()))

    def digests(self, folder: Path) -> dict[str, bytes]:
        """Return what a copy holds, by name; padding that libtorrent may write left out."""
        paths = {name: folder / NAME / name if name else folder / NAME for name in self.lengths}
        return {name: digest_of(path) for name, path in paths.items() if path.is_file()}

    def is_copied_to(self, folder: Path) -> bool:
        return self.digests(folder) == self.digests(self.folder)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[dict[str, int]], Content]:
    return lambda lengths: Content(tmp_path / "www", lengths)


def settings() -> bittern.SessionConfig:
    """Return those of a session that knows of nobody by itself."""
    return bittern.SessionConfig(
        listen_host="127.0.0.1",
        listen_port=0,
        enable_dht=False,
        enable_lsd=False,
        enable_trackers=False,
    )


def server_of(kind: type[WebServer], content: Content, root: Path) -> WebServer:
    if reason := kind.missing():
        pytest.skip(reason)
    return kind(content.folder, root / kind.__name__)


def statuses(torrent: bittern.Torrent) -> list[SourceStatus]:
    return [each for each in torrent.sources() if each.kind is SourceKind.WEB_SEED]


async def get(raw: bytes, folder: Path, **options: object) -> bittern.TorrentStats:
    """Download with bittern and return its last numbers."""
    folder.mkdir()
    async with bittern.Session(settings()) as session:
        torrent = await session.add(
            raw,
            bittern.TorrentConfig(output=folder, **options),  # type: ignore[arg-type]
        )
        async with asyncio.timeout(PATIENCE):
            await torrent.wait_complete()
        return torrent.stats()


async def get_theirs(raw: bytes, folder: Path) -> None:
    """Download with libtorrent."""
    folder.mkdir()
    theirs = Libtorrent(raw, folder)
    try:
        await until(lambda: theirs.handle.status().is_seeding)
    finally:
        theirs.close()


@servers
@versions
@shapes
async def test_everything_comes_from_a_server_alone(
    kind: type[WebServer],
    version: str,
    lengths: dict[str, int],
    make: Callable[[dict[str, int]], Content],
    tmp_path: Path,
) -> None:
    """Both programs, the same bytes; libtorrent only where there are ranges, which it needs."""
    content = make(lengths)
    async with server_of(kind, content, tmp_path) as server:
        raw = content.torrent(version, server.url)
        stats = await get(raw, tmp_path / "ours")
        assert content.is_copied_to(tmp_path / "ours")
        assert stats.wasted <= (0 if server.has_ranges else sum(lengths.values()))
        if isinstance(server, Nginx):
            # It writes a line only after the last byte has left.
            await until(lambda: server.num_sent() >= sum(lengths.values()))
            assert server.num_sent() == sum(lengths.values())
            log = server.log()
            assert {status for status, *_ in log} == {"206"}
            assert len({connection for *_, connection, _ in log}) == 1
            await get_theirs(raw, tmp_path / "theirs")
            assert content.is_copied_to(tmp_path / "theirs")


@servers
async def test_64_mib_from_a_server_alone(
    kind: type[WebServer], make: Callable[[dict[str, int]], Content], tmp_path: Path
) -> None:
    content = make({"": 70 * MIB + 1})
    async with server_of(kind, content, tmp_path) as server:
        raw = content.torrent("v1", server.url + NAME, piece_length=MIB)
        stats = await get(raw, tmp_path / "ours")
        assert content.is_copied_to(tmp_path / "ours")
        assert stats.wasted == 0
        assert stats.downloaded == 70 * MIB + 1
    shutil.rmtree(tmp_path)


async def test_a_redirect_leads_on(
    make: Callable[[dict[str, int]], Content], tmp_path: Path
) -> None:
    content = make(FILES)
    async with server_of(Nginx, content, tmp_path) as server:
        await get(content.torrent("hybrid", server.url + "away"), tmp_path / "ours")
        assert content.is_copied_to(tmp_path / "ours")


async def test_a_server_and_a_peer_share_the_work(
    make: Callable[[dict[str, int]], Content], tmp_path: Path
) -> None:
    content = make({"": 3 * MIB})
    server = server_of(Nginx, content, tmp_path)
    assert isinstance(server, Nginx)
    async with server:
        raw = content.torrent("v1", server.url + "slow/" + NAME)
        peer = Libtorrent(content.torrent("v1"), content.folder)
        peer.session.apply_settings({"upload_rate_limit": 400_000})
        peer.handle.set_upload_limit(400_000)
        try:
            await until(lambda: peer.handle.status().is_seeding)
            stats = await get(raw, tmp_path / "ours", peers=(peer.endpoint,))
            assert content.is_copied_to(tmp_path / "ours")
            assert peer.handle.status().total_payload_upload > MIB
            await until(lambda: server.num_sent() > 300 * KIB)
            assert stats.wasted < MIB
        finally:
            peer.close()


@versions
async def test_a_server_of_another_file_is_found_out_and_a_peer_finishes(
    version: str, make: Callable[[dict[str, int]], Content], tmp_path: Path
) -> None:
    content = make({"": 3 * MIB})
    shutil.copytree(content.folder, tmp_path / "good")
    raw_of_peer = content.torrent(version)
    damaged = content.folder / NAME
    data = bytearray(damaged.read_bytes())
    async with server_of(Nginx, content, tmp_path) as server:
        raw = content.torrent(version, server.url + NAME)
        for at in range(0, len(data), 10_000):
            data[at] ^= 1
        damaged.write_bytes(data)
        peer = Libtorrent(raw_of_peer, tmp_path / "good")
        peer.handle.set_upload_limit(1_000_000)
        try:
            await until(lambda: peer.handle.status().is_seeding)
            folder = tmp_path / "ours"
            folder.mkdir()
            async with bittern.Session(settings()) as session:
                torrent = await session.add(
                    raw, bittern.TorrentConfig(output=folder, peers=(peer.endpoint,))
                )
                async with asyncio.timeout(PATIENCE):
                    await torrent.wait_complete()
                [status] = statuses(torrent)
                assert status.message == "sent corrupt data"
                assert digest_of(folder / NAME) == digest_of(tmp_path / "good" / NAME)
                banned = torrent.diagnose().candidates.bans
                assert banned == ()
        finally:
            peer.close()


async def test_a_server_that_is_busy_is_left_alone(
    make: Callable[[dict[str, int]], Content], tmp_path: Path
) -> None:
    content = make(SINGLE)
    async with server_of(Nginx, content, tmp_path) as server:
        raw = content.torrent("v1", server.url + "busy/" + NAME)
        async with bittern.Session(settings()) as session:
            torrent = await session.add(raw, bittern.TorrentConfig(output=tmp_path / "ours"))
            await until(lambda: statuses(torrent)[0].state is SourceState.FAILING)
            [status] = statuses(torrent)
            assert status.message == "HTTP status 503"
            assert status.next_at is not None
            assert 3_590 < status.next_at - asyncio.get_running_loop().time() <= 3_600


async def test_a_link_with_a_web_seed_takes_the_metadata_from_a_peer(
    make: Callable[[dict[str, int]], Content], tmp_path: Path
) -> None:
    content = make({"": 3 * MIB})
    async with server_of(Nginx, content, tmp_path) as server:
        raw = content.torrent("v1")
        peer = Libtorrent(raw, content.folder)
        peer.handle.set_upload_limit(50_000)
        try:
            await until(lambda: peer.handle.status().is_seeding)
            info_hash = bittern.decode_metainfo(raw).info.info_hash
            link = f"magnet:?xt=urn:btih:{info_hash}&ws={server.url}{NAME}"
            folder = tmp_path / "ours"
            folder.mkdir()
            async with bittern.Session(settings()) as session:
                config = bittern.TorrentConfig(output=folder, peers=(peer.endpoint,))
                torrent = await session.add(link, config)
                async with asyncio.timeout(PATIENCE):
                    await torrent.wait_complete()
                assert content.is_copied_to(folder)
                assert statuses(torrent)[0].num_bytes > MIB
        finally:
            peer.close()
