"""engine.sources.web_seed_source: how web seeds stand, also while there is no swarm."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bittern.engine.events import TorrentState
from bittern.engine.source_status import SourceKind, SourceState
from tests.engine.scene import NAME, Node, Scene, in_scene
from tests.engine.web import BASE, Web


def states(node: Node) -> list[tuple[str, SourceState, str | None]]:
    found = [each for each in node.torrent.sources() if each.kind is SourceKind.WEB_SEED]
    return [(each.name, each.state, each.message) for each in found]


@in_scene()
async def test_a_torrent_without_any_says_nothing(scene: Scene) -> None:
    assert states(await scene.node()) == []


@pytest.mark.parametrize(
    "options",
    [{"enable_web_seeds": False}, {"torrent": {"enable_web_seeds": False}}],
    ids=["session", "torrent"],
)
@in_scene(web_seeds=(BASE,))
async def test_switched_off_means_nobody_is_asked(scene: Scene, options: dict[str, Any]) -> None:
    web = Web.of(scene)
    node = await scene.node(make=web.session, **options)
    await asyncio.sleep(10)
    reason = "switched off by the setting enable_web_seeds"
    assert states(node) == [("", SourceState.OFF, reason)]
    assert web.requests == []


@in_scene(web_seeds=(BASE,))
async def test_the_first_request_does_not_wait_for_a_second(scene: Scene) -> None:
    web = Web.of(scene)
    node = await scene.node(make=web.session)
    await asyncio.sleep(0)
    assert web.num_open == 1
    await node.complete(within=10)


@pytest.mark.parametrize("where", ["link", "settings"])
@in_scene()
async def test_a_link_waits_for_its_metadata(scene: Scene, where: str) -> None:
    """The peer that knows it uploads next to nothing; the data comes from the web (``ws=``)."""
    web = Web.of(scene)
    link = scene.link
    if where == "link":
        link += f"&ws={BASE}"
    node = await scene.node(
        make=web.session,
        source=link,
        torrent={"web_seeds": (BASE,)} if where == "settings" else {},
    )
    await asyncio.sleep(5)
    assert node.torrent.state is TorrentState.METADATA
    assert states(node) == [(BASE, SourceState.WAITING, "the metadata is not known")]
    assert web.requests == []
    seed = await scene.node(is_seed=True, max_upload_rate=20_000, peers=[node])
    await node.complete(within=30)
    assert node.has_content()
    assert web.paths() == [BASE + NAME]
    assert web.num_bytes > seed.torrent.num_uploaded


@in_scene(web_seeds=(BASE, "ftp://h/"))
async def test_at_rest_nothing_is_missing(scene: Scene) -> None:
    node = await scene.node(is_seed=True, make=Web.of(scene).session, state_dir=scene.state_dir)
    await asyncio.sleep(300)
    assert node.torrent.is_resting
    assert states(node) == [
        (BASE, SourceState.WAITING, "nothing is missing"),
        ("ftp://h/", SourceState.WAITING, "nothing is missing"),
    ]
    node.torrent.announce_now()


@in_scene()
async def test_web_seeds_that_are_added_and_taken_away(scene: Scene) -> None:
    """While it waits for its metadata, too; those of the settings only."""
    web = Web.of(scene)
    waiting = await scene.node(make=web.session, source=scene.link)
    waiting.torrent.change(web_seeds=(BASE,))
    assert states(waiting) == [(BASE, SourceState.WAITING, "the metadata is not known")]
    waiting.torrent.change(web_seeds=())
    assert states(waiting) == []
    assert web.requests == []
    node = await scene.node(make=web.session)
    assert states(node) == []
    node.torrent.change(web_seeds=(BASE,))
    await node.complete(within=10)
    assert node.has_content()
    assert [name for name, *_ in states(node)] == [BASE]


@in_scene(web_seeds=(BASE, "http:///"))
async def test_who_is_named_twice_is_listed_once(scene: Scene) -> None:
    """By the user and the torrent, in capitals or not; with a swarm and without."""
    web = Web.of(scene)
    other = BASE.replace("http://", "HTTP://")
    assert other != BASE
    node = await scene.node(
        is_seed=True,
        make=web.session,
        state_dir=scene.state_dir,
        torrent={"web_seeds": ("http://a.example/", other)},
    )
    urls = ["http://a.example/", BASE, "http:///"]
    assert [name for name, *_ in states(node)] == urls
    await asyncio.sleep(300)
    assert node.torrent.is_resting
    assert [name for name, *_ in states(node)] == urls
    assert [info.url for info in node.torrent.web_seeds()] == urls
