"""
Thousands of torrents that have everything and nobody to talk to, at trackers of which most are
dead (F11, R22): how often those are asked, who is held up by them, and what starting again takes.

Reduced by default; ``-m soak`` runs ten thousand. Seconds are measured by ``bench/rest.py``.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from bittern.codec.bencode import Encodable, encode
from bittern.core.errors import FetchError
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.session import Session
from bittern.engine.sources.announces import MAX_PER_TRACKER, MAX_SILENCES, PROBE_INTERVAL
from bittern.engine.sources.tracker_client import MAX_HTTP_REQUESTS, TrackerClient
from bittern.net.access import Access
from bittern.net.http import HttpResponse
from bittern.net.udp_tracker import UdpTrackers
from bittern.policy.announcing import PATIENCE
from bittern.testing.disk import FaultyCalls, SimWorker
from bittern.testing.host import SimHost
from bittern.testing.loop import VirtualLoop
from bittern.testing.network import SimNetwork
from tests.virtual_time import simulated

pytestmark = pytest.mark.slow

LENGTH = 16_384
LIVE = "http://live.example/announce"
DEAD = ("http://dead.example/announce", "http://gone.example/announce")
DEAD_UDP = "udp://mute.example:80"
MUTE_HOST = "10.9.9.9"
INTERVAL = 1800
ANSWER_TIME = 0.1
MIN_PAUSE = 60.0
"""Limit: F11. A torrent asks the same tracker at most once in so many seconds."""
MAX_STOP_TIME = 10.0
"""Limit: F19. Seconds in which a session ends, whatever its trackers do."""
MAX_CALLS = 12
"""Calls of the operating system for a torrent that is there already."""

whole_and_reduced = pytest.mark.parametrize(
    "count", [200, pytest.param(10_000, marks=pytest.mark.soak)]
)


class Trackers:
    """All HTTP trackers, of which one lives: an ``HttpFetcher`` that notes who asks when."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.asked: dict[str, list[tuple[float, str]]] = defaultdict(list)
        """By URL: when, and for which info hash; goodbyes are left out."""
        self.num_goodbyes = 0
        self.most_at_once = 0
        self._num_at_once = 0
        self._loop = loop

    async def fetch(
        self,
        url: str,
        *,
        access: Access,
        max_length: int,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        ipv6: bool | None = None,
    ) -> HttpResponse:
        """Answer like a tracker that knows nobody else, or not at all."""
        del access, max_length, headers, ipv6
        name, _, query = url.partition("?")
        asked = parse_qs(query, encoding="latin-1")
        if asked.get("event") == ["stopped"]:
            self.num_goodbyes += 1
        else:
            self.asked[name].append((self._loop.time(), asked["info_hash"][0]))
        self._num_at_once += 1
        self.most_at_once = max(self.most_at_once, self._num_at_once)
        try:
            if name != LIVE:
                await asyncio.sleep(timeout)
                raise FetchError(f"no whole answer in {timeout:g} s")
            await asyncio.sleep(ANSWER_TIME)
        finally:
            self._num_at_once -= 1
        body = encode({b"interval": INTERVAL, b"complete": 1, b"incomplete": 0, b"peers": b""})
        return HttpResponse(200, {}, body, url)

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Be the name server as well."""
        return (MUTE_HOST if host == urlsplit(DEAD_UDP).hostname else "10.9.9.1",)


class CrowdedSession(Session):
    """A session with those trackers."""

    trackers: Trackers
    host: SimHost

    def _make_tracker_client(self) -> TrackerClient:
        socket = self.host.open_datagrams(self.host.addresses[0], 0, lambda _data, _source: None)
        self._sockets = AsyncExitStack()
        self._sockets.callback(socket.close)
        udp = UdpTrackers([socket], random_id=lambda: self._rng.getrandbits(32))
        self._sockets.callback(udp.close)
        return TrackerClient(http=self.trackers, udp=udp, resolver=self.trackers)

    async def end(self) -> None:
        """Leave everything."""
        await self.__aexit__(None, None, None)
        await self._sockets.aclose()


class House:
    """A machine with a state folder, many torrents of one small file, and their session."""

    def __init__(self, loop: VirtualLoop, folder: Path) -> None:
        self.loop = loop
        self.trackers = Trackers(loop)
        self.calls = FaultyCalls()
        self._folder = folder
        self._host = SimNetwork(loop).add_host("10.0.0.1")
        self._data = random.Random(1).randbytes(LENGTH)
        (folder / "content").write_bytes(self._data)

    def metainfo(self, number: int, tiers: list[list[str]]) -> bytes:
        """Return a .torrent like the others but for its number, and so its info hash."""
        info: dict[bytes, Encodable] = {
            b"length": LENGTH,
            b"name": b"content",
            b"number": number,
            b"piece length": LENGTH,
            b"pieces": hashlib.sha1(self._data).digest(),
        }
        urls: list[Encodable] = [[url.encode() for url in tier] for tier in tiers]
        return encode({b"announce-list": urls, b"info": info})

    async def open(self) -> CrowdedSession:
        """Start a session."""
        made = type("Made", (CrowdedSession,), {"trackers": self.trackers, "host": self._host})
        session: CrowdedSession = made(
            SessionConfig(
                listen_host=self._host.addresses[0],
                listen_port=6881,
                state_dir=self._folder / "state",
                enable_dht=False,
                enable_lsd=False,
            ),
            network=self._host,
            rng=random.Random(self.loop.random.random()),
            random_bytes=self.loop.random.randbytes,
            worker=SimWorker(self.loop, delay=0.0001),
            os_calls=self.calls,
            clock=self.loop.time,
        )
        await session.__aenter__()
        return session

    def kept(self) -> dict[str, tuple[int, bytes]]:
        """Return what is in the state folder, and when it was written."""
        return {
            str(path): (path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted((self._folder / "state").rglob("*"))
            if path.is_file()
        }

    async def fill(self, session: Session, sources: list[bytes]) -> None:
        """Add the torrents and wait until all are at rest."""
        for source in sources:
            await session.add(source, TorrentConfig(output=self._folder))
        while not all(torrent.is_resting for torrent in session.torrents):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def shortest_pause(asked: list[tuple[float, str]]) -> float:
    """Return the shortest time between two announces of one torrent to one tracker."""
    last: dict[str, float] = {}
    shortest = math.inf
    for at, info_hash in asked:
        shortest = min(shortest, at - last.get(info_hash, -math.inf))
        last[info_hash] = at
    return shortest


@whole_and_reduced
@simulated(limit=100_000)
async def test_dead_trackers_are_seldom_asked_and_hold_nobody_up(
    loop: VirtualLoop, count: int, tmp_path: Path
) -> None:
    """Limit: F11. Torrents with a dead tracker of either kind before the live one, or alone."""
    kinds = [[[DEAD[0]], [LIVE]], [[DEAD_UDP], [LIVE]], [[DEAD[0], DEAD[1]], [DEAD_UDP]], [[LIVE]]]
    house = House(loop, tmp_path)
    trackers = house.trackers
    sources = [house.metainfo(number, kinds[number % 4]) for number in range(count)]
    session = await house.open()
    await house.fill(session, sources)
    num_live = count * 3 // 4
    # They turn from the dead one in seconds, those in line as well, and then ask the live one, as
    # many at a time as it is asked by.
    await asyncio.sleep(PATIENCE + 3 + num_live / MAX_PER_TRACKER * ANSWER_TIME * 1.5)
    assert len({info_hash for _, info_hash in trackers.asked[LIVE]}) == num_live
    assert trackers.most_at_once <= MAX_HTTP_REQUESTS

    await asyncio.sleep(3600)
    num_timers = loop.num_timers
    await asyncio.sleep(2 * 3600)
    # A tick each second, and for each torrent little more than its announces.
    assert loop.num_timers - num_timers < 1.1 * 2 * 3600 + 12 * count
    for url in DEAD:
        seconds = loop.time() - trackers.asked[url][0][0]
        most = MAX_PER_TRACKER + MAX_SILENCES + seconds / PROBE_INTERVAL
        assert seconds / 120 < len(trackers.asked[url]) <= most
    heard = Counter(info_hash for _, info_hash in trackers.asked[LIVE])
    assert len(heard) == num_live
    assert set(heard.values()) <= {6, 7}, "once in half an hour, for three hours"
    for asked in trackers.asked.values():
        assert shortest_pause(asked) >= MIN_PAUSE
    assert all(torrent.is_resting for torrent in session.torrents)
    began = loop.time()
    await session.end()
    assert loop.time() - began <= MAX_STOP_TIME
    assert trackers.num_goodbyes >= min(num_live, MAX_HTTP_REQUESTS)


@whole_and_reduced
@simulated(limit=100_000)
async def test_starting_again_reads_nothing_of_what_is_there(
    loop: VirtualLoop, count: int, tmp_path: Path
) -> None:
    """R22. What was verified is not hashed again, and nothing is written of what is known."""
    house = House(loop, tmp_path)
    sources = [house.metainfo(number, [[LIVE]]) for number in range(count)]
    session = await house.open()
    await house.fill(session, sources)
    assert house.calls.log.count("preadv") == count
    await session.end()
    session = await house.open()
    kept = house.kept()
    num_calls = house.calls.num_calls
    await house.fill(session, sources)
    assert house.calls.log.count("preadv") == count
    assert house.calls.num_calls - num_calls <= MAX_CALLS * count
    assert house.kept() == kept
    await session.end()
