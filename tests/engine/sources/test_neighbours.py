"""engine.sources.neighbours: what holds of every discovery of the local network."""

from __future__ import annotations

import asyncio

import pytest

from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine.source_status import SourceState, SourceStatus
from bittern.policy.local_limits import MAX_BURST_OF_ONE
from bittern.testing.loop import VirtualLoop
from tests.engine.sources.local_scene import (
    NEIGHBOUR,
    OTHER,
    SEARCHED,
    FakeTorrent,
    MulticastEar,
    ServiceEar,
)
from tests.virtual_time import simulated

Ear = type[MulticastEar] | type[ServiceEar]

pytestmark = pytest.mark.parametrize("make", [MulticastEar, ServiceEar])


@simulated
async def test_how_it_stands(loop: VirtualLoop, make: Ear) -> None:
    ear = make(loop)
    torrent = FakeTorrent(SEARCHED)
    source = await ear.join(torrent)
    began = loop.time()
    assert source.statuses() == [
        SourceStatus(
            kind=ear.kind,
            state=SourceState.WAITING,
            message=ear.silence,
            next_at=began + 0.5,
        )
    ]
    await asyncio.sleep(1)
    assert ear.told == [{SEARCHED}]
    assert torrent.last_status.last_asked_at == began + 0.5
    assert torrent.last_status.next_at == began + 60.5
    assert torrent.last_status.state is SourceState.WAITING
    source.completed()
    ear.hear(NEIGHBOUR, SEARCHED, OTHER)
    assert torrent.last_status == SourceStatus(
        kind=ear.kind,
        state=SourceState.WORKING,
        last_asked_at=began + 0.5,
        last_answer_at=loop.time(),
        num_peers=1,
        num_found=1,
        next_at=began + 60.5,
    )
    await ear.close()


@simulated
async def test_a_neighbour_reaches_the_torrents_that_it_names(loop: VirtualLoop, make: Ear) -> None:
    ear = make(loop)
    mine, other = FakeTorrent(SEARCHED, InfoHash(b"2" * 20)), FakeTorrent(OTHER)
    sources = [await ear.join(mine), await ear.join(other)]
    ear.hear(NEIGHBOUR, InfoHash(b"x" * 20), *mine.all_hashes)
    found = (NEIGHBOUR, ear.kind.value, NEIGHBOUR.host)
    assert mine.found == [found], "once, however many of its hashes are named"
    assert other.found == []
    ear.hear(Endpoint(NEIGHBOUR.host, 7001), SEARCHED, OTHER)
    assert [endpoint.port for endpoint, _, _ in mine.found] == [7000, 7001]
    assert [endpoint.port for endpoint, _, _ in other.found] == [7001]
    for source in sources:
        await source.stop()
    ear.hear(NEIGHBOUR, SEARCHED)
    assert len(mine.found) == 2
    await ear.close()


@simulated
async def test_a_hash_that_is_learnt_takes_part_and_one_that_is_gone_does_not(
    loop: VirtualLoop, make: Ear
) -> None:
    """BEP 52."""
    ear = make(loop)
    torrent = FakeTorrent(SEARCHED)
    source = await ear.join(torrent)
    torrent.all_hashes = (SEARCHED, OTHER)
    source.ask_now()
    await asyncio.sleep(1)
    assert ear.told == [{SEARCHED, OTHER}]
    await source.stop()
    source.ask_now()
    await asyncio.sleep(400)
    assert len(ear.told) == 1
    await ear.close()


@simulated
async def test_a_flood_is_not_listened_to(loop: VirtualLoop, make: Ear) -> None:
    """N9."""
    ear = make(loop)
    torrent = FakeTorrent(SEARCHED)
    await ear.join(torrent)
    for port in range(1, 101):
        ear.hear(Endpoint(NEIGHBOUR.host, port), SEARCHED)
    assert len(torrent.found) == MAX_BURST_OF_ONE
    assert ear.discovery.neighbourhood.num_ignored == 100 - MAX_BURST_OF_ONE
    await ear.close()


@simulated
async def test_a_torrent_that_has_just_become_private_is_neither_told_of_nor_heard_of(
    loop: VirtualLoop, make: Ear
) -> None:
    """BEP 27: also in the moment before its source is stopped."""
    ear = make(loop)
    torrent = FakeTorrent(SEARCHED)
    await ear.join(torrent)
    torrent.is_private = True
    ear.hear(NEIGHBOUR, SEARCHED)
    await asyncio.sleep(100)
    assert not torrent.found
    assert not ear.told
    await ear.close()


@simulated
async def test_a_hash_that_two_torrents_have_is_the_first_ones(
    loop: VirtualLoop, make: Ear
) -> None:
    """A hybrid and the torrent of its v1 half. The second leaves the first alone as it goes."""
    ear = make(loop)
    mine, other = FakeTorrent(SEARCHED), FakeTorrent(OTHER, SEARCHED)
    first, second = await ear.join(mine), await ear.join(other)
    ear.hear(NEIGHBOUR, SEARCHED)
    assert (len(mine.found), len(other.found)) == (1, 0)
    await second.stop()
    ear.hear(Endpoint(NEIGHBOUR.host, 7001), SEARCHED, OTHER)
    assert (len(mine.found), len(other.found)) == (2, 0)
    await first.stop()
    await ear.close()
