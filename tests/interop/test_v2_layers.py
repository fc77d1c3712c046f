"""
Piece layers of a hybrid of which only the v1 hash is known, beside libtorrent in this process.

Interop: libtorrent breaks off a connection that brings hash messages where v2 was not agreed on,
and one that announces v2 for a torrent that is v1 alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bittern.codec.info import Info, Version
from bittern.codec.metainfo import decode_metainfo
from bittern.core.endpoint import Endpoint
from bittern.engine import events
from bittern.engine.session import Session
from bittern.engine.torrent import Torrent
from tests.interop.content import digest_of
from tests.interop.test_v2_storage import HOST, PATIENCE, Libtorrent, add, made, quiet, until

__all__ = ["made"]

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(300)]

Made = Callable[..., bytes]


def link_of(info: Info, topic: str) -> str:
    """Return a link with one of the hashes of a hybrid."""
    urn = f"btih:{info.info_hash}" if topic == "btih" else f"btmh:1220{info.info_hash_v2}"
    return f"magnet:?xt=urn:{urn}"


def has_layers(torrent: Torrent, raw: bytes) -> bool:
    """Tell whether a torrent has the piece layers of its .torrent file."""
    found = torrent.metainfo
    return found is not None and found.piece_layers == decode_metainfo(raw).piece_layers != {}


async def test_from_libtorrent_and_on_to_libtorrent(tmp_path: Path, made: Made) -> None:
    """We get them before the data could make them, and give them to one that needs them."""
    raw = made(Version.HYBRID)
    info = decode_metainfo(raw).info
    for name in ("leech", "third"):
        (tmp_path / name).mkdir()
    with closing(Libtorrent(raw, tmp_path / "theirs")) as seed:
        await until(lambda: seed.handle.status().is_seeding)
        async with Session(quiet()) as session:
            torrent, seen = await add(
                session,
                link_of(info, "btih"),
                tmp_path / "leech",
                peers=(seed.endpoint,),
                max_download_rate=100_000,
            )
            await until(lambda: has_layers(torrent, raw))
            assert not torrent.have_bits
            # By its v2 hash alone: without layers it has nothing to judge a piece by.
            with closing(Libtorrent(link_of(info, "btmh"), tmp_path / "third")) as third:
                third.handle.connect_peer((HOST, session.port))
                await until(lambda: third.handle.status().has_metadata)
                torrent.change(max_download_rate=None)
                async with asyncio.timeout(PATIENCE):
                    await torrent.wait_complete()
                await until(lambda: third.handle.status().is_seeding)
                told = await third.counters()
    assert told["ses.num_outgoing_hash_request"] > 0
    assert not [each for each in seen if isinstance(each, events.PeerBanned | events.PieceFailed)]
    for name in ("leech", "third"):
        assert digest_of(tmp_path / name / "content") == digest_of(tmp_path / "theirs/content")


@pytest.mark.parametrize("version", [Version.HYBRID, Version.V1])
@pytest.mark.parametrize("does_seed_dial", [False, True])
async def test_libtorrent_gets_the_content_by_the_v1_hash(
    does_seed_dial: bool, version: Version, tmp_path: Path, made: Made
) -> None:
    """Whoever dials: it knows of no v2 half either until it has the metadata."""
    raw = made(version)
    (tmp_path / "leech").mkdir()
    link = link_of(decode_metainfo(raw).info, "btih")
    async with Session(quiet()) as session:
        torrent, seen = await add(session, raw, tmp_path / "ours")
        with closing(Libtorrent(link, tmp_path / "leech")) as leech:
            if does_seed_dial:
                await until(lambda: bool(leech.session.listen_port()))
                torrent.add_peers([Endpoint(HOST, leech.session.listen_port())], "user")
            else:
                leech.handle.connect_peer((HOST, session.port))
            await until(lambda: leech.handle.status().is_seeding)
    assert digest_of(tmp_path / "leech/content") == digest_of(tmp_path / "ours/content")
    assert not [each for each in seen if isinstance(each, events.PeerBanned)]


async def test_a_v1_torrent_by_its_link_from_libtorrent(tmp_path: Path, made: Made) -> None:
    """One connection: nothing is greeted anew where there is no v2 half."""
    raw = made(Version.V1)
    (tmp_path / "leech").mkdir()
    link = link_of(decode_metainfo(raw).info, "btih")
    with closing(Libtorrent(raw, tmp_path / "theirs")) as seed:
        await until(lambda: seed.handle.status().is_seeding)
        async with Session(quiet()) as session:
            torrent, seen = await add(session, link, tmp_path / "leech", peers=(seed.endpoint,))
            async with asyncio.timeout(PATIENCE):
                await torrent.wait_complete()
    assert digest_of(tmp_path / "leech/content") == digest_of(tmp_path / "theirs/content")
    assert len([each for each in seen if isinstance(each, events.PeerConnected)]) == 1
