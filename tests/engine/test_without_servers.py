"""
All servers gone: what is left is a magnet link and an old routing table, on real sockets.

Reduced by default; ``-m soak`` runs twenty peers.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from bittern.codec.metainfo import decode_metainfo
from bittern.core.endpoint import Endpoint
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.session import Session
from bittern.engine.source_status import SourceKind, SourceState
from bittern.net.dht_host import open_dht
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.storage.dht_state import read_dht_state
from bittern.tracker.server import Tracker

NAME = "content.bin"


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_peers", [6, pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(300)])]
)
async def test_a_newcomer_needs_no_server(num_peers: int, tmp_path: Path) -> None:
    """
    A swarm that met at a tracker and a bootstrap node outlives both.

    The newcomer has an older routing table and a magnet link, whose tracker is dead.
    """
    source = tmp_path / "peer0" / NAME
    source.parent.mkdir()
    source.write_bytes(random.Random(1).randbytes(1_500_000))
    async with AsyncExitStack() as servers, AsyncExitStack() as peers:
        bootstrap = await servers.enter_async_context(open_dht(hosts=("127.0.0.1",), bootstrap=()))
        await bootstrap.bootstrap()
        names = (("127.0.0.1", bootstrap.shells[0].socket.endpoint.port),)
        tracker = await servers.enter_async_context(
            Tracker(http=[Endpoint("127.0.0.1", 0)], udp=[])
        )
        (url,) = tracker.announce_urls
        raw = create_torrent(
            source, options=CreateOptions(piece_length=65_536, trackers=((url,),)), num_threads=1
        )

        def settings(number: int, **options: object) -> SessionConfig:
            return SessionConfig(
                listen_host=f"127.0.0.{number + 2}",
                listen_port=0,
                enable_lsd=False,
                enable_pex=False,
                stop_timeout=1.0,
                **{"dht_bootstrap": names, **options},  # type: ignore[arg-type]
            )

        torrents = []
        for number in range(num_peers):
            session = await peers.enter_async_context(Session(settings(number)))
            torrents.append(
                await session.add(raw, TorrentConfig(output=tmp_path / f"peer{number}"))
            )
        async with asyncio.timeout(60):
            await asyncio.gather(*(torrent.wait_complete() for torrent in torrents))

        # Somebody was here once, for another torrent perhaps, and kept a routing table.
        state = tmp_path / "state"
        hosts = (f"127.0.0.{num_peers + 2}",)
        async with open_dht(hosts=hosts, bootstrap=names, state_dir=state) as earlier:
            await earlier.bootstrap()
            async with asyncio.timeout(30):
                while earlier.num_nodes < 4:  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(0.05)
            # Every peer has announced itself to somebody by now.
            async with asyncio.timeout(30):
                info_hash = torrents[0].all_hashes[0]
                while not (await earlier.get_peers(info_hash).wait()).num_peers:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
        assert read_dht_state(state) is not None

        await servers.aclose()

        newcomer = await peers.enter_async_context(Session(settings(num_peers, state_dir=state)))
        link = f"magnet:?xt=urn:btih:{decode_metainfo(raw).info.info_hash}&tr={url}"
        torrent = await newcomer.add(link, TorrentConfig(output=tmp_path / "newcomer"))
        async with asyncio.timeout(60):
            await torrent.wait_complete()
        assert (tmp_path / "newcomer" / NAME).read_bytes() == source.read_bytes()
        stands = {status.kind: status for status in torrent.sources()}
        assert stands[SourceKind.TRACKER].state is SourceState.FAILING
        assert stands[SourceKind.DHT].num_found >= 1
