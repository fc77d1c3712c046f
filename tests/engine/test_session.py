"""A session as a whole: what it takes, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.magnet import parse_magnet
from bittern.core.errors import ConfigError, MagnetError, MetainfoError, StorageError
from bittern.engine.config import TorrentConfig
from bittern.engine.events import TorrentState
from bittern.engine.session import Session
from bittern.testing.loop import VirtualLoop
from tests.engine.scene import Scene

Simulate = Callable[..., Any]


@pytest.mark.parametrize("form", ["path", "text", "bytes", "metainfo"])
def test_a_torrent_is_added_in_any_form(form: str, tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            path = tmp_path / "x.torrent"
            path.write_bytes(scene.raw)
            sources = {
                "path": path,
                "text": str(path),
                "bytes": scene.raw,
                "metainfo": scene.metainfo,
            }
            node = await scene.node(is_seed=True, source=sources[form])
            assert node.torrent.is_complete

    simulate(main)


@pytest.mark.parametrize("form", ["magnet", "link", "hash"])
def test_a_torrent_is_added_by_its_hash(form: str, tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            link = f"magnet:?xt=urn:btih:{scene.info_hash}"
            sources = {"magnet": parse_magnet(link), "link": link, "hash": str(scene.info_hash)}
            seed = await scene.node(is_seed=True)
            node = await scene.node(source=sources[form], peers=[seed])
            assert node.torrent.state is TorrentState.METADATA
            await node.complete(within=60)
            assert node.has_content()

    simulate(main)


def test_unusable_sources_are_refused_and_leave_nothing(tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            session = await scene.session(scene.add_host())
            with pytest.raises(MetainfoError, match="missing"):
                await session.add(tmp_path / "missing.torrent")
            with pytest.raises(MetainfoError):
                await session.add(b"no torrent")
            with pytest.raises(MagnetError):
                await session.add("magnet:?dn=nothing")
            config = TorrentConfig(output=tmp_path, files=frozenset({7}))
            with pytest.raises(ConfigError, match="no file 7"):
                await session.add(scene.raw, config)
            assert session.torrents == []

    simulate(main)


def test_one_torrent_is_added_once(tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            node = await scene.node()
            with pytest.raises(ConfigError, match="already"):
                await node.session.add(scene.raw)
            await node.session.remove(node.torrent)
            again = await node.session.add(scene.raw, TorrentConfig(output=node.folder))
            assert node.session.torrents == [again]

    simulate(main)


def test_removing_takes_the_data_along_only_when_told(tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            kept, deleted = await scene.node(is_seed=True), await scene.node(is_seed=True)
            await kept.session.remove(kept.torrent)
            await deleted.session.remove(deleted.torrent, delete_data=True)
            assert kept.has_content()
            assert not list(deleted.folder.rglob("content"))
            assert kept.torrent.state is TorrentState.STOPPED

    simulate(main)


def test_a_bug_in_one_task_is_logged_and_ends_only_that(
    tmp_path: Path, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    """Limit: F17."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            seed = await scene.node(is_seed=True)

            async def buggy() -> None:
                raise ZeroDivisionError

            seed.session._spawn(buggy(), "buggy task")
            leecher = await scene.node(peers=[seed])
            await leecher.complete(within=60)

    with caplog.at_level(logging.ERROR):
        simulate(main)
    assert "buggy task" in caplog.text


def test_two_sessions_do_not_share_a_state_folder(tmp_path: Path, simulate: Simulate) -> None:
    """Limit: F18."""

    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            await scene.session(scene.add_host(), state_dir=tmp_path / "state")
            with pytest.raises(StorageError):
                await scene.session(scene.add_host(), state_dir=tmp_path / "state")

    simulate(main)


def test_a_session_is_entered_once(tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            session = await scene.session(scene.add_host())
            assert session.port == 6881
            with pytest.raises(ConfigError, match="once"):
                await session.__aenter__()

    simulate(main)


def test_an_error_in_the_block_still_ends_the_session(tmp_path: Path, simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Scene(loop, tmp_path) as scene:
            seed = await scene.node(is_seed=True)
            scene.sessions.remove(seed.session)
            error = KeyError("user's own")
            await seed.session.__aexit__(KeyError, error, None)
            assert seed.torrent.state is TorrentState.STOPPED

    simulate(main)


async def test_a_real_loop_runs_it_too(tmp_path: Path) -> None:
    from bittern.engine.config import SessionConfig

    config = SessionConfig(listen_host="127.0.0.1", listen_port=0, enable_dht=False)
    async with Session(config) as session:
        assert session.port > 0
        await asyncio.sleep(0)
