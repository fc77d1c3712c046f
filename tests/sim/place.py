"""
A ``Scene`` in which sessions go by their hosts, and some begin with a part of the torrent.

Storage jobs take a millisecond.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bittern.core.endpoint import Endpoint
from bittern.engine.torrent import Torrent
from bittern.testing.host import SimHost
from bittern.testing.loop import VirtualLoop
from bittern.testing.network import Link
from tests.engine.scene import NAME, PIECE_LENGTH, Node, Scene


class Place(Scene):
    """
    Hosts with sessions, and one torrent for all of them.

    Args:
        loop: that it runs on.
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
        is_traced: bool = True,
    ) -> None:
        files = {"": (num_pieces - 1) * PIECE_LENGTH + 1_000}
        super().__init__(loop, folder, files=files, link=link, is_traced=is_traced)
        self._nodes: dict[SimHost, Node] = {}

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
        if pieces:
            data = bytearray(len(self.data))
            for index in pieces:
                data[index * PIECE_LENGTH : (index + 1) * PIECE_LENGTH] = self.piece(index)
            folder = self.folder_of(host)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / NAME).write_bytes(data)
        self._nodes[host] = await self.node(
            host=host, is_seed=is_seed, peers=peers, worker_delay=0.001, **config
        )
        return self._nodes[host].torrent

    async def end(self, host: SimHost) -> None:
        """End the session on a host; what it has stays there."""
        await self._nodes.pop(host).close()

    def has_content(self, host: SimHost) -> bool:
        """Tell whether a host's file is the torrent's, byte for byte."""
        return (self.folder_of(host) / NAME).read_bytes() == self.data


async def wait_all(*torrents: Torrent) -> None:
    """Wait until all are complete."""
    await asyncio.gather(*(torrent.wait_complete() for torrent in torrents))
