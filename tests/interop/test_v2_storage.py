"""v2 beside libtorrent, in this process: single blocks, and hybrids that contradict themselves."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import libtorrent as lt
import pytest

from bittern.codec.bencode import decode, encode
from bittern.codec.info import Version
from bittern.core.endpoint import Endpoint
from bittern.core.errors import Inconsistent
from bittern.core.geometry import BLOCK_LENGTH
from bittern.engine import events
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.events import TorrentState
from bittern.engine.session import Session
from bittern.engine.torrent import Torrent
from bittern.storage.creator import CreateOptions, create_torrent

pytestmark = [pytest.mark.interop, pytest.mark.slow]

HOST = "127.0.0.1"
PATIENCE = 30.0
PIECE_LENGTH = 1 << 20
LENGTH = 8 * PIECE_LENGTH - 5000


class Libtorrent:
    """
    A session of libtorrent with one torrent.

    It checks its data. Interop: one in seed mode refuses to give the hashes of blocks.
    """

    def __init__(self, raw: bytes, folder: Path) -> None:
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
        parameters = lt.load_torrent_buffer(raw)
        parameters.save_path = str(folder)
        parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
        self.handle = self.session.add_torrent(parameters)

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        return Endpoint(HOST, self.session.listen_port())

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
def made(tmp_path: Path) -> Callable[[Version], bytes]:
    """Make the data, and a torrent of a version of it."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    data = random.Random(1).randbytes(LENGTH)
    for name in ("theirs", "ours"):
        (tmp_path / name / "content").write_bytes(data)

    def make(version: Version) -> bytes:
        options = CreateOptions(version=version, piece_length=PIECE_LENGTH)
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
    session: Session, raw: bytes, folder: Path, **config: Any
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


@pytest.mark.parametrize("version", [Version.V2, Version.HYBRID])
async def test_one_bad_block_costs_one_block(
    version: Version, tmp_path: Path, made: Callable[[Version], bytes], clients: list[Libtorrent]
) -> None:
    """A piece of 64 blocks of which one is bad, and one of which two are."""
    raw = made(version)
    right = (tmp_path / "ours/content").read_bytes()
    with (tmp_path / "ours/content").open("r+b") as file:
        for offset in (PIECE_LENGTH + 5 * BLOCK_LENGTH, LENGTH - 1, LENGTH - 3 * BLOCK_LENGTH):
            file.seek(offset)
            file.write(bytes([right[offset] ^ 1]))
    clients.append(Libtorrent(raw, tmp_path / "theirs"))
    await until(lambda: clients[0].handle.status().is_seeding)
    async with Session(quiet()) as session:
        torrent, seen = await add(session, raw, tmp_path / "ours", peers=(clients[0].endpoint,))
        async with asyncio.timeout(PATIENCE):
            await torrent.wait_complete()
        assert torrent.num_downloaded <= 3 * BLOCK_LENGTH
        damaged = {e.index: e.num_bad for e in seen if isinstance(e, events.PieceDamaged)}
        assert damaged == {1: 1, 7: 2}
    assert (tmp_path / "ours/content").read_bytes() == right


def contradiction(raw: bytes) -> bytes:
    """Return a hybrid of which the v1 hash of piece 1 is wrong."""
    value: Any = decode(raw)
    pieces = value[b"info"][b"pieces"]
    value[b"info"][b"pieces"] = pieces[:20] + bytes(20) + pieces[40:]
    return encode(value)


async def test_a_hybrid_that_contradicts_itself_stops_us_and_them(
    tmp_path: Path, made: Callable[[Version], bytes], clients: list[Libtorrent]
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
