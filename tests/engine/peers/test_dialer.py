"""engine.peers.dialer: attempts under way and per second (Limit: H8)."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Coroutine
from typing import Any

from bittern.core.endpoint import Endpoint
from bittern.core.errors import BitTorrentError, PeerTimeout
from bittern.engine.config import SessionConfig
from bittern.engine.peers.dialer import Dialer, reason_of
from bittern.net.stream import Stream
from bittern.testing.loop import VirtualLoop
from bittern.testing.network import Link, SimNetwork
from tests.virtual_time import simulated


class Wanting:
    """A torrent with endpoints to try."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.left = deque(endpoints)
        self.tried_at: list[float] = []
        self.streams: list[Stream] = []
        self.num_failed = 0
        self.reasons: list[str] = []

    def next_to_dial(self, *, now: float) -> Endpoint | None:
        if not self.left:
            return None
        self.tried_at.append(now)
        return self.left.popleft()

    def dialled(self, endpoint: Endpoint, stream: Stream) -> None:  # contract
        self.streams.append(stream)

    def dial_failed(self, endpoint: Endpoint, reason: str) -> None:  # contract
        self.num_failed += 1
        self.reasons.append(reason)


class Place:
    """A dialer on a host of its own."""

    def __init__(self, loop: VirtualLoop, *torrents: Wanting, **config: Any) -> None:
        self.network = SimNetwork(loop, link=Link(delay=0.05))
        self.host = self.network.add_host("10.0.0.1")
        self.tasks: list[asyncio.Task[None]] = []
        self.most = 0

        def spawn(job: Coroutine[object, object, None], name: str) -> None:
            task: asyncio.Task[None] = loop.create_task(job, name=name)
            self.tasks.append(task)
            self.most = max(self.most, sum(not task.done() for task in self.tasks))

        self.dialer = Dialer(
            self.host,
            SessionConfig(**config),
            loop,
            rosters=lambda: list(torrents),
            spawn=spawn,
        )


def dead(count: int, network: int = 9) -> list[Endpoint]:
    """Return endpoints where no machine is."""
    return [Endpoint(f"10.{network}.{n // 200}.{n % 200 + 1}", 80) for n in range(count)]


@simulated
async def test_twenty_at_a_time(loop: VirtualLoop) -> None:
    torrent = Wanting(dead(100))
    place = Place(loop, torrent, max_dials_per_second=1000)
    place.dialer.request()
    place.dialer.request()
    await asyncio.sleep(9)
    assert len(torrent.tried_at) == place.most == place.dialer.num_half_open == 20
    await asyncio.sleep(60)
    assert torrent.num_failed == 100
    assert place.most == 20


@simulated
async def test_twenty_per_second(loop: VirtualLoop) -> None:
    torrent = Wanting(dead(200))
    place = Place(loop, torrent, max_half_open=1000)
    place.dialer.request()
    await asyncio.sleep(30)
    assert len(torrent.tried_at) == 200
    for start in torrent.tried_at:
        assert sum(start <= at < start + 1 for at in torrent.tried_at) <= 41
    # A burst of one second's worth at the start, then the rate.
    assert 8.5 <= torrent.tried_at[-1] <= 9.5


@simulated
async def test_torrents_take_turns(loop: VirtualLoop) -> None:
    many, few = Wanting(dead(500)), Wanting(dead(3, 8))
    place = Place(loop, many, few)
    place.dialer.request()
    await asyncio.sleep(0.1)
    assert len(few.tried_at) == 3
    place.dialer.close()
    await asyncio.sleep(20)
    assert len(many.tried_at) == 17
    place.dialer.request()
    await asyncio.sleep(1)
    assert len(many.tried_at) == 17


@simulated
async def test_closed_while_it_waits_for_its_rate_it_leaves_no_timer(loop: VirtualLoop) -> None:
    torrent = Wanting(dead(100))
    place = Place(loop, torrent, max_dials_per_second=1, connect_timeout=0.1)
    place.dialer.request()
    await asyncio.sleep(5.5)
    assert 5 <= len(torrent.tried_at) <= 7
    assert place.dialer.num_half_open == 0
    place.dialer.close()


@simulated
async def test_success_and_refusal_are_told(loop: VirtualLoop) -> None:
    torrent = Wanting([])
    place = Place(loop, torrent)
    server = place.network.add_host("10.0.0.2")
    accepted: list[Stream] = []
    listener = server.listen("10.0.0.2", 80, accepted.append)
    # An address of a family that this machine does not have fails like any other.
    torrent.left.extend(
        [Endpoint("10.0.0.2", 80), Endpoint("10.0.0.2", 81), Endpoint("fd00::1", 80)]
    )
    place.dialer.request()
    await asyncio.sleep(1)
    assert (len(torrent.streams), len(accepted), torrent.num_failed) == (1, 1, 2)
    assert place.dialer.num_half_open == 0
    assert "connection refused" in torrent.reasons
    for stream in [*torrent.streams, *accepted]:
        stream.close()
    listener.close()


@simulated
async def test_an_attempt_that_is_cut_off_gives_its_place_back(loop: VirtualLoop) -> None:
    torrent = Wanting(dead(30))
    place = Place(loop, torrent, max_half_open=1, connect_timeout=2.0)
    place.dialer.request()
    await asyncio.sleep(1)
    place.tasks[0].cancel()
    await asyncio.sleep(0.1)
    assert len(torrent.tried_at) == 2
    place.dialer.close()
    await asyncio.sleep(3)
    assert len(torrent.tried_at) == 2


def test_reasons_are_words_without_the_endpoint() -> None:
    assert reason_of(PeerTimeout("no connection to 1.2.3.4:5 within 10 s")) == "no answer in time"
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('1.2.3.4', 5)")
    assert reason_of(refused) == "connection refused"
    assert reason_of(OSError("odd")) == "odd"
    assert reason_of(BitTorrentError()) == "BitTorrentError"
