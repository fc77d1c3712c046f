"""engine.pieces.web_seeds: several servers at a time, and what is told of each."""

from __future__ import annotations

import asyncio

import pytest

from bittern.engine import events
from bittern.engine.pieces.web_seeds import choose_web_seeds
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.net.access import Access
from bittern.policy.web_seeds import FIRST_LENGTH
from tests.engine.scene import NAME, NUM_PIECES, Node, Scene, Watch, in_scene, until
from tests.engine.web import Answer, Web

MIRRORS = tuple(f"http://mirror{number}.example/{NAME}" for number in range(6))


def web_statuses(node: Node) -> dict[str, SourceStatus]:
    found = [each for each in node.torrent.sources() if each.kind is SourceKind.WEB_SEED]
    return {each.name: each for each in found}


def mirrors(scene: Scene, rate: float = 50_000) -> Web:
    """Serve a scene from every mirror."""
    return Web(dict.fromkeys(MIRRORS, scene.data), rate=rate)


@pytest.mark.parametrize("most", [1, 3])
@in_scene(web_seeds=MIRRORS)
async def test_so_many_are_asked_at_a_time_and_share_the_work(scene: Scene, most: int) -> None:
    web = mirrors(scene)
    node = await scene.node(make=web.session, max_web_seeds_per_torrent=most)
    await asyncio.sleep(2)
    stats = node.torrent.stats()
    assert stats.num_web_seeds == most == node.torrent.num_connections
    assert stats.num_peers == 0
    assert stats.download_rate == pytest.approx(most * 50_000, rel=0.3)
    assert most <= stats.availability < most + 1
    states = [status.state for status in web_statuses(node).values()]
    assert states.count(SourceState.WORKING) == most
    waiting = [s for s in web_statuses(node).values() if s.state is SourceState.WAITING]
    assert [status.message for status in waiting] == ["in reserve"] * (len(MIRRORS) - most)
    began_at = scene.loop.time() - 2
    await node.complete(within=60)
    assert node.has_content()
    assert web.most_open == most
    assert len(web.paths()) == most
    assert len(scene.data) / (scene.loop.time() - began_at) > 0.6 * most * 50_000
    # In the endgame they share what one of them was asked for, and meet half way.
    assert node.torrent.ledger.num_wasted < most * FIRST_LENGTH / 2


@in_scene(web_seeds=MIRRORS)
async def test_another_one_steps_in_for_one_that_fails(scene: Scene) -> None:
    web = mirrors(scene)
    good = MIRRORS[4]
    web.lie = lambda request, _: None if request.url == good else Answer(403)
    node = await scene.node(make=web.session, max_web_seeds_per_torrent=1)
    watch = Watch(node.torrent)
    await node.complete(within=60)
    assert node.has_content()
    told = [event.source for event in watch.of(events.SourceChanged)]
    assert {s.name for s in told if s.state is SourceState.FAILING} <= {*MIRRORS} - {good}
    mine = [(s.state, s.num_bytes > 0) for s in told if s.name == good]
    assert mine[-2:] == [(SourceState.WORKING, True)] * 2


@in_scene(web_seeds=MIRRORS)
async def test_the_limit_of_connections_holds_for_servers_too(scene: Scene) -> None:
    web = mirrors(scene)
    node = await scene.node(make=web.session, max_connections=2)
    await asyncio.sleep(3)
    assert web.most_open == node.torrent.num_connections == 2
    await node.complete(within=60)


@in_scene(web_seeds=MIRRORS[:1])
async def test_pieces_of_those_that_work_are_counted(scene: Scene) -> None:
    web = mirrors(scene)
    web.lie = lambda _request, _answer: (
        Answer(503) if len(web.requests) == 1 or node.torrent.num_left < 400_000 else None
    )
    node = await scene.node(make=web.session)
    swarm = node.swarm
    await asyncio.sleep(1)
    assert swarm.web_seeds.bits == 0
    assert node.torrent.diagnose().num_unavailable == NUM_PIECES
    await until(lambda: web.num_bytes > 0)
    assert swarm.web_seeds.bits.bit_count() == NUM_PIECES
    assert swarm.picker.distributed_copies() >= 1
    diagnosis = node.torrent.diagnose()
    assert diagnosis.num_unavailable == 0
    assert diagnosis.connections.num_web_seeds == 1
    await asyncio.sleep(2)
    [reason, *_] = node.torrent.diagnose().reasons
    assert str(reason).endswith("from 1 web seed.")
    await until(lambda: not swarm.web_seeds.bits)
    assert node.torrent.num_left
    assert swarm.picker.distributed_copies() < 1, "what it has counts no more"


@in_scene(web_seeds=MIRRORS[:2])
async def test_what_the_user_names_may_lead_anywhere(scene: Scene) -> None:
    web = mirrors(scene, rate=1e6)
    mine = (MIRRORS[1], MIRRORS[2])
    node = await scene.node(make=web.session, torrent={"web_seeds": mine})
    await node.complete(within=60)
    given = {request.url: request.access for request in web.requests}
    assert given == {
        MIRRORS[0]: Access.WEB_SEED,
        MIRRORS[1]: Access.ANY,
        MIRRORS[2]: Access.ANY,
    }


@in_scene(web_seeds=MIRRORS[:1])
async def test_a_ban_outlives_a_pause(scene: Scene) -> None:
    web = mirrors(scene, rate=1e6)
    web.files = dict.fromkeys(web.files, bytes(len(scene.data)))
    node = await scene.node(make=web.session)
    await until(lambda: web_statuses(node)[MIRRORS[0]].state is SourceState.FAILING)
    await asyncio.sleep(1)
    assert node.torrent.num_connections == 0
    assert node.torrent.stats().availability == 0
    num_asked = len(web.requests)
    await node.torrent.pause()
    await node.torrent.resume()
    await asyncio.sleep(100)
    assert len(web.requests) == num_asked
    status = web_statuses(node)[MIRRORS[0]]
    assert (status.state, status.message) == (SourceState.FAILING, "sent corrupt data")


@in_scene()
async def test_servers_come_and_go_while_it_runs(scene: Scene) -> None:
    web = mirrors(scene)
    node = await scene.node(make=web.session)
    torrent, swarm = node.torrent, node.torrent.swarm
    assert swarm is not None
    await asyncio.sleep(5)
    assert torrent.web_seeds() == []
    torrent.change(web_seeds=(MIRRORS[0].replace("mirror0", "MIRROR0"), MIRRORS[1]))
    assert torrent.config.web_seeds[1] == MIRRORS[1]
    await asyncio.sleep(2)
    infos = {info.url: info for info in torrent.web_seeds()}
    assert set(infos) == {*MIRRORS[:2]}
    for info in infos.values():
        assert info.state is SourceState.WORKING
        assert info.download_rate == pytest.approx(50_000, rel=0.4)
        assert info.downloaded >= 50_000
        assert (info.message, info.next_at) == ("", None)
    assert swarm.picker.distributed_copies() >= 2
    torrent.change(web_seeds=(MIRRORS[1], "ftp://h/x"))
    num_asked = len([each for each in web.requests if each.url == MIRRORS[0]])
    await asyncio.sleep(3)
    assert web.num_open == 1
    assert swarm.picker.distributed_copies() < 2
    kept, wrong = sorted(torrent.web_seeds(), key=lambda info: info.url, reverse=True)
    assert (kept.url, kept.downloaded > infos[MIRRORS[1]].downloaded) == (MIRRORS[1], True)
    assert (wrong.state, wrong.message) == (SourceState.FAILING, "URL has scheme 'ftp'")
    assert wrong.download_rate == 0
    await node.complete(within=60)
    assert node.has_content()
    assert len([each for each in web.requests if each.url == MIRRORS[0]]) == num_asked
    torrent.change(web_seeds=())
    assert torrent.web_seeds() == []


@in_scene(web_seeds=MIRRORS[:1])
async def test_what_the_torrent_names_cannot_be_taken_out(scene: Scene) -> None:
    """Nor has it lost anything by being named, and no longer named, by the user."""
    web = mirrors(scene)
    node = await scene.node(make=web.session, torrent={"web_seeds": MIRRORS[:2]})
    await asyncio.sleep(1)
    node.torrent.change(web_seeds=())
    assert [info.url for info in node.torrent.web_seeds()] == [MIRRORS[0]]
    await node.complete(within=60)
    assert {each.access for each in web.requests} == {Access.ANY, Access.WEB_SEED}


@in_scene(web_seeds=MIRRORS[:1])
async def test_changes_before_it_runs_hold_then(scene: Scene) -> None:
    web = mirrors(scene)
    node = await scene.node(make=web.session, torrent={"paused": True})
    node.torrent.change(web_seeds=MIRRORS[1:2])
    assert node.torrent.web_seeds() == []
    await node.torrent.resume()
    assert {info.url for info in node.torrent.web_seeds()} == {*MIRRORS[:2]}
    await node.torrent.pause()
    node.torrent.change(web_seeds=())
    await node.torrent.resume()
    assert [info.url for info in node.torrent.web_seeds()] == [MIRRORS[0]]


@in_scene(web_seeds=MIRRORS)
async def test_they_are_shown_in_the_order_in_which_they_are_named(scene: Scene) -> None:
    """They are asked in another one, so that not everybody begins with the first mirror."""
    web = mirrors(scene)
    orders = set()
    for _ in range(3):
        node = await scene.node(make=web.session, max_web_seeds_per_torrent=1)
        assert tuple(web_statuses(node)) == MIRRORS
        assert node.torrent.swarm is not None
        orders.add(tuple(node.torrent.swarm.web_seeds._seeds))
        user = f"http://user.example/{NAME}"
        node.torrent.change(web_seeds=(user, MIRRORS[2]))
        assert tuple(web_statuses(node)) == (user, MIRRORS[2], *MIRRORS[:2], *MIRRORS[3:])
        await node.close()
    assert len(orders) > 1


def test_urls_that_cannot_be_used_say_why() -> None:
    records = choose_web_seeds(
        {},
        ["http://A.example/x", "ftp://h/x"],
        ["http://a.example/x", "http:///", "HTTPS://b.example"],
    )
    assert [(each.url, each.is_trusted, each.is_out) for each in records.values()] == [
        ("http://a.example/x", True, False),
        ("ftp://h/x", True, True),
        ("http:///", False, True),
        ("https://b.example", False, False),
    ]
    assert records["ftp://h/x"].reason == "URL has scheme 'ftp'"
    assert records["http://a.example/x"].reason == ""


def test_what_is_known_of_a_server_stays_while_the_same_one_names_it() -> None:
    before = choose_web_seeds({}, ["http://a/", "http://b/"], ["http://c/", "http://d/"])
    after = choose_web_seeds(before, ["http://a/", "http://c/"], ["http://b/", "http://d/"])
    same = [url for url, record in after.items() if before[url] is record]
    assert same == ["http://a/", "http://d/"]
    assert [(each.url, each.is_trusted) for each in after.values()] == [
        ("http://a/", True),
        ("http://c/", True),
        ("http://b/", False),
        ("http://d/", False),
    ]
