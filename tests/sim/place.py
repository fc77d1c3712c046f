"""
A swarm of whole sessions on one virtual-time loop, with simulated network and worker.

Everything that takes chances takes them from the loop, so a seed repeats a run. Files are real,
in the test's own folder: their calls take no virtual time, and whatever the machine has in its
page cache, they behave as if all of it were there.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bittern.codec.bencode import encode
from bittern.codec.metainfo import decode_metainfo
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.session import Session
from bittern.engine.torrent import Torrent
from bittern.testing.disk import CachedCalls, SimWorker
from bittern.testing.host import SimHost
from bittern.testing.loop import VirtualLoop
from bittern.testing.network import Link, SimNetwork

PORT = 6881
PIECE_LENGTH = 65_536
NAME = "content"


class Place:
    """
    Hosts with sessions, and one torrent for all of them.

    Args:
        loop: the loop of ``simulate``.
        folder: for the files of all sessions.
        num_pieces: of the torrent; each 64 KiB, the last one 1,000 bytes.
        link: between all hosts.
        is_traced: the network keeps what happens.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        folder: Path,
        *,
        num_pieces: int = 16,
        link: Link | None = None,
        is_traced: bool = False,
    ) -> None:
        self.loop = loop
        self.network = SimNetwork(loop, link=link or Link(delay=0.02), is_traced=is_traced)
        self.data = random.Random(1).randbytes((num_pieces - 1) * PIECE_LENGTH + 1_000)
        self.metainfo = make_metainfo(self.data)
        self.sessions: dict[SimHost, Session] = {}
        self._folder = folder

    @property
    def info_hash(self) -> InfoHash:
        return decode_metainfo(self.metainfo).info.all_hashes[0]

    def add_host(self, **options: Any) -> SimHost:
        """Add a machine with the next address."""
        number = len(self.network.hosts) + 1
        return self.network.add_host(f"10.0.{number // 200}.{number % 200 + 1}", **options)

    async def add(
        self,
        host: SimHost,
        *,
        is_seed: bool = False,
        peers: tuple[Endpoint, ...] = (),
        pieces: Iterable[int] = (),
        **config: Any,
    ) -> Torrent:
        """Run a session on ``host`` with the torrent in it, of which it has some pieces or all."""
        session = Session(
            SessionConfig(
                listen_host=host.addresses[0],
                listen_port=PORT,
                enable_trackers=False,
                enable_dht=False,
                enable_lsd=False,
                **config,
            ),
            network=host,
            rng=random.Random(self.loop.random.random()),
            random_bytes=self.loop.random.randbytes,
            worker=SimWorker(self.loop, delay=0.001),
            os_calls=CachedCalls(),
            clock=self.loop.time,
        )
        await session.__aenter__()
        self.sessions[host] = session
        folder = self.folder_of(host)
        folder.mkdir(parents=True, exist_ok=True)
        if is_seed:
            (folder / NAME).write_bytes(self.data)
        elif pieces:
            data = bytearray(len(self.data))
            for index in pieces:
                part = slice(index * PIECE_LENGTH, (index + 1) * PIECE_LENGTH)
                data[part] = self.data[part]
            (folder / NAME).write_bytes(data)
        return await session.add(self.metainfo, TorrentConfig(output=folder, peers=peers))

    async def end(self, host: SimHost) -> None:
        """End the session on a host; what it has stays there."""
        await self.sessions.pop(host).__aexit__(None, None, None)

    def folder_of(self, host: SimHost) -> Path:
        """Return where the files of a host's session are."""
        return self._folder / host.addresses[0]

    def has_content(self, host: SimHost) -> bool:
        """Tell whether a host's file is the torrent's, byte for byte."""
        return (self.folder_of(host) / NAME).read_bytes() == self.data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for host in list(self.sessions):
            await self.end(host)


def endpoint_of(host: SimHost) -> Endpoint:
    """Return where a host's session listens."""
    return Endpoint(host.addresses[0], PORT)


def make_metainfo(data: bytes) -> bytes:
    """Return a v1 .torrent of one file."""
    pieces = [data[at : at + PIECE_LENGTH] for at in range(0, len(data), PIECE_LENGTH)]
    return encode(
        {
            b"info": {
                b"length": len(data),
                b"name": NAME.encode(),
                b"piece length": PIECE_LENGTH,
                b"pieces": b"".join(hashlib.sha1(piece).digest() for piece in pieces),
            }
        }
    )


async def wait_all(*torrents: Torrent) -> None:
    """Wait until all are complete."""
    await asyncio.gather(*(torrent.wait_complete() for torrent in torrents))
