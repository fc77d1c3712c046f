"""Whole swarms in virtual time: everybody ends with every byte, and nothing is left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bittern.codec import wire
from bittern.engine.events import TorrentState
from bittern.testing.loop import VirtualLoop, run
from bittern.testing.network import Link
from tests.engine.scene import endpoint_of
from tests.sim.place import Place, wait_all
from tests.virtual_time import simulated

pytestmark = pytest.mark.slow


def test_a_swarm_shares_its_content_and_repeats_with_its_seed(tmp_path: Path, seed: int) -> None:
    async def main(loop: VirtualLoop, folder: Path) -> list[tuple[float, str]]:
        link = Link(delay=0.02, jitter=0.02)
        async with Place(loop, folder, num_pieces=64, link=link, is_traced=True) as place:
            hosts = [place.add_host(upload_rate=500_000) for _ in range(6)]
            first, *others = hosts
            await place.add(first, is_seed=True)
            everybody = tuple(endpoint_of(host) for host in hosts)
            torrents = [await place.add(host, peers=everybody) for host in others]
            await wait_all(*torrents)
            assert all(place.has_content(host) for host in others)
            alone = 5 * len(place.data) / 500_000
            assert loop.time() < 0.7 * alone, "they did not help each other"
            return place.network.trace

    traces = [
        run(lambda loop, n=number: main(loop, tmp_path / str(n)), seed=own)  # type: ignore[misc]
        for number, own in enumerate([seed, seed, seed + 1])
    ]
    assert len(traces[0]) > 500
    assert traces[0] == traces[1]
    assert traces[0] != traces[2]


@simulated
async def test_a_seed_that_vanishes_when_every_piece_is_out(
    loop: VirtualLoop, tmp_path: Path
) -> None:
    async with Place(loop, tmp_path) as place:
        hosts = [place.add_host(upload_rate=200_000) for _ in range(4)]
        first, *others = hosts
        await place.add(first, is_seed=True)
        everybody = tuple(endpoint_of(host) for host in hosts)
        torrents = [await place.add(host, peers=everybody) for host in others]

        def is_spread() -> bool:
            bits = 0
            for torrent in torrents:
                bits |= torrent.have_bits
            return bits.bit_count() == 16

        while not is_spread():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.1)
        assert not all(torrent.is_complete for torrent in torrents)
        first.vanish()
        await wait_all(*torrents)
        assert all(place.has_content(host) for host in others)


@simulated
async def test_a_cut_link_costs_time_and_nothing_else(loop: VirtualLoop, tmp_path: Path) -> None:
    async with Place(loop, tmp_path) as place:
        seed, leecher = place.add_host(upload_rate=100_000), place.add_host()
        await place.add(seed, is_seed=True)
        torrent = await place.add(leecher, peers=(endpoint_of(seed),))
        await asyncio.sleep(5)
        place.network.cut(seed, leecher)
        have = torrent.have_bits.bit_count()
        assert 0 < have < 16
        await asyncio.sleep(30)
        assert torrent.have_bits.bit_count() <= have + 1
        place.network.heal(seed, leecher)
        await torrent.wait_complete()
        assert place.has_content(leecher)
        assert loop.time() < 120


@simulated
async def test_a_peer_that_crashes_and_comes_back_is_found_again(
    loop: VirtualLoop, tmp_path: Path
) -> None:
    async with Place(loop, tmp_path) as place:
        seed, leecher = place.add_host(upload_rate=100_000), place.add_host()
        await place.add(seed, is_seed=True)
        torrent = await place.add(leecher, peers=(endpoint_of(seed),))
        await asyncio.sleep(5)
        for stream in list(seed.streams):
            stream.reset()
        await torrent.wait_complete()
        assert place.has_content(leecher)
        assert place.network.attempts[endpoint_of(seed)] >= 2


@simulated
async def test_a_limited_session_keeps_its_limit(loop: VirtualLoop, tmp_path: Path) -> None:
    async with Place(loop, tmp_path) as place:
        seed, leecher = place.add_host(), place.add_host()
        await place.add(seed, is_seed=True)
        torrent = await place.add(leecher, peers=(endpoint_of(seed),), max_download_rate=100_000)
        began = loop.time()
        await torrent.wait_complete()
        assert loop.time() - began == pytest.approx(len(place.data) / 100_000, rel=0.15)
        assert place.has_content(leecher)


@simulated(limit=10_000)
async def test_a_seed_at_rest_does_next_to_nothing(loop: VirtualLoop, tmp_path: Path) -> None:
    """An hour of a seeding session with one idle peer takes few timers."""
    async with Place(loop, tmp_path) as place:
        seed, other = place.add_host(), place.add_host()
        torrent = await place.add(seed, is_seed=True)
        await place.add(other, peers=(endpoint_of(seed),))
        await asyncio.sleep(60)
        assert torrent.state is TorrentState.SEEDING
        before = loop.num_timers
        await asyncio.sleep(3600)
        assert loop.num_timers - before < 2 * 3600 * 1.5


@simulated
async def test_a_peer_that_completes_and_is_closed_between_two_haves(
    loop: VirtualLoop, tmp_path: Path
) -> None:
    """What it said after the decision to close it was never counted, and is not taken back."""
    async with Place(loop, tmp_path) as place:
        seed, other = place.add_host(), place.add_host()
        torrent = await place.add(seed, is_seed=True)
        peer = await place.connect(seed, other)
        peer.send_handshake(place.info_hash)
        peer.send(wire.encode_bitfield(b"\xff\xfc"))
        await asyncio.sleep(1)
        peer.send(wire.encode_have(14) + wire.encode_have(15))
        await peer.expect_closed(timeout=5)
        assert torrent.peers() == []


@pytest.mark.soak
@simulated
async def test_fifty_peers_that_all_know_each_other(loop: VirtualLoop, tmp_path: Path) -> None:
    async with Place(loop, tmp_path, num_pieces=64) as place:
        hosts = [place.add_host(upload_rate=1_000_000) for _ in range(50)]
        await place.add(hosts[0], is_seed=True)
        torrents = [
            await place.add(
                host,
                peers=tuple(map(endpoint_of, loop.random.sample(hosts[:number], number)[:30])),
            )
            for number, host in enumerate(hosts)
            if number
        ]
        await wait_all(*torrents)
        assert all(place.has_content(host) for host in hosts)
        assert loop.time() < 12 * len(place.data) / 1_000_000
