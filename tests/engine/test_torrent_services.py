"""engine.torrent_services: what torrents themselves are lent, all of them the same."""

from __future__ import annotations

from pathlib import Path

from bittern.engine.config import TorrentConfig
from tests.engine.scene import Scene, in_scene


@in_scene()
async def test_torrents_share_sources_files_and_each_other(scene: Scene, tmp_path: Path) -> None:
    node = await scene.node(max_open_files=3)
    other = Scene(scene.loop, tmp_path / "second", files={"": 5_000})
    torrent = await node.session.add(other.raw, TorrentConfig(output=tmp_path / "o"))
    services = node.torrent._services
    assert torrent._services is services
    assert services.sources.tracker_client is None
    assert services.journal is None
    assert list(services.torrents()) == [node.torrent, torrent]
    assert list(services.active) == [node.torrent, torrent]
    # Asked once for each folder, whatever the number of torrents in it.
    assert set(services.folding) == {node.folder, tmp_path / "o"}
    await torrent.pause()
    await node.session.remove(torrent)
    assert list(services.torrents()) == [node.torrent]
