"""engine.services: what a session lends to its torrents, and that it is the same for all."""

from __future__ import annotations

from pathlib import Path

from bittern.engine.config import TorrentConfig
from tests.engine.scene import Scene, in_scene


@in_scene()
async def test_all_torrents_of_a_session_share_its_means(scene: Scene, tmp_path: Path) -> None:
    node = await scene.node(max_upload_rate=5_000, max_open_files=3)
    other = Scene(scene.loop, tmp_path / "second", files={"": 5_000})
    torrent = await node.session.add(other.raw, TorrentConfig(output=tmp_path / "o"))
    services = node.torrent._services
    assert torrent._services is services
    assert services.loop is scene.loop
    assert services.config is node.session.config
    assert services.peer_id.startswith(services.config.client_prefix)
    assert services.upload_limit.bucket.rate == 5_000
    assert services.download_limit.bucket.is_unlimited
    assert services.listen_port() == node.session.port == node.endpoint.port
    assert services.may_connect()
