"""What libtorrent, in this process, makes of what we say of our wants (BEP 21)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from bittern.codec.info import Version
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.session import Session
from bittern.storage.creator import CreateOptions, create_torrent
from tests.interop.test_v2_storage import HOST, Libtorrent, until
from tests.reference import lt

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(300)]

PIECE_LENGTH = 1 << 18
FIRST = frozenset({0})


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    config = SessionConfig(
        listen_host=HOST,
        listen_port=0,
        enable_trackers=False,
        enable_dht=False,
        enable_lsd=False,
        enable_pex=False,
    )
    async with Session(config) as made:
        yield made


@pytest.fixture
def raw(tmp_path: Path) -> bytes:
    """Make two files of eight pieces each, and a torrent of them."""
    rng = random.Random(1)
    for name in ("a", "b"):
        path = tmp_path / "ours/content" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(8 * PIECE_LENGTH))
    options = CreateOptions(version=Version.V1, piece_length=PIECE_LENGTH)
    return create_torrent(tmp_path / "ours/content", options=options)


async def test_it_hears_when_we_want_something_again(
    session: Session, raw: bytes, tmp_path: Path
) -> None:
    (tmp_path / "ours/content/b").unlink()
    torrent = await session.add(
        raw, TorrentConfig(output=tmp_path / "ours", files=FIRST, max_upload_rate=50_000)
    )
    assert torrent.is_complete
    (tmp_path / "theirs").mkdir()
    with closing(Libtorrent(raw, tmp_path / "theirs")) as theirs:
        torrent.add_peers([theirs.endpoint], "user")

        def is_upload_only(*, said: bool) -> bool:
            peers = [peer for peer in theirs.handle.get_peer_info() if peer.client]
            return bool(peers) and bool(peers[0].flags & lt.peer_info.upload_only) is said

        for files, said in ((FIRST, True), (None, False), (FIRST, True), (None, False)):
            torrent.change(files=files)
            await until(lambda said=said: is_upload_only(said=said))  # type: ignore[misc]  # bound


async def test_it_stays_with_a_super_seed(session: Session, raw: bytes, tmp_path: Path) -> None:
    torrent = await session.add(
        raw, TorrentConfig(output=tmp_path / "ours", super_seeding=True, max_upload_rate=4_000_000)
    )
    (tmp_path / "theirs").mkdir()
    with closing(Libtorrent(raw, tmp_path / "theirs")) as theirs:
        torrent.add_peers([theirs.endpoint], "user")
        async with asyncio.timeout(30):  # It comes back a minute after each time that it leaves.
            await until(lambda: theirs.handle.status().is_seeding)
