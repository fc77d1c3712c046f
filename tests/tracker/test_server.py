"""tracker.server: a whole tracker on loopback, against our own client."""

import asyncio

import pytest

from bittern.core.announce import AnnounceRequest, Event, ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.errors import ConfigError, TrackerFailure, TrackerUnreachable
from bittern.core.ids import InfoHash, PeerId
from bittern.engine.sources.tracker_client import TrackerClient
from bittern.net.dns import Resolver
from bittern.net.http import HttpClient
from bittern.net.udp import TRACKER_BYTES, UdpSocket
from bittern.net.udp_tracker import UdpTrackers
from bittern.testing.loop import VirtualLoop
from bittern.tracker.server import Tracker
from tests.virtual_time import simulated

ANY4, ANY6 = Endpoint("127.0.0.1", 0), Endpoint("::1", 0)
HASH = InfoHash(b"h" * 20)


class Client:
    """Our own client with everything real."""

    async def __aenter__(self) -> TrackerClient:
        self.http = HttpClient(resolver=Resolver(), user_agent="test")
        self.sockets = [UdpSocket.open("127.0.0.1", 0), UdpSocket.open("::1", 0)]
        self.udp = UdpTrackers(self.sockets)
        for sock in self.sockets:
            sock.add_receiver(TRACKER_BYTES, self.udp.receive)
        return TrackerClient(http=self.http, udp=self.udp, resolver=Resolver())

    async def __aexit__(self, *_: object) -> None:
        self.udp.close()
        for sock in self.sockets:
            sock.close()
        await self.http.close()
        await asyncio.sleep(0)


def request(port: int, *, left: int = 1, event: Event = Event.STARTED) -> AnnounceRequest:
    return AnnounceRequest(
        info_hash=HASH, peer_id=PeerId(b"p" * 20), port=port, left=left, event=event
    )


async def test_all_listeners_share_the_swarms() -> None:
    async with (
        Tracker(http=[ANY4, ANY6], udp=[ANY4, ANY6], interval=900) as tracker,
        Client() as client,
    ):
        assert [endpoint.host for endpoint in tracker.http_endpoints] == ["127.0.0.1", "::1"]
        assert [endpoint.host for endpoint in tracker.udp_endpoints] == ["127.0.0.1", "::1"]
        assert all(endpoint.port for endpoint in tracker.http_endpoints + tracker.udp_endpoints)
        for number, url in enumerate(tracker.announce_urls):
            answer = await client.announce(url, [request(number + 1)])
            assert answer.interval == 900
            assert (answer.num_seeds, answer.num_leechers) == (0, number + 1)
        http4, http6, udp4, udp6 = tracker.announce_urls
        found = await client.announce(http4, [request(1)])
        assert set(found.peers) == {
            Endpoint("::1", 2),
            Endpoint("127.0.0.1", 3),
            Endpoint("::1", 4),
        }
        assert (await client.announce(udp4, [request(3)])).peers == (Endpoint("127.0.0.1", 1),)
        assert (await client.announce(udp6, [request(4)])).peers == (Endpoint("::1", 2),)
        await client.announce(http6, [request(2, left=0, event=Event.COMPLETED)])
        for url in tracker.announce_urls:
            assert await client.scrape(url, [HASH]) == {HASH: ScrapeEntry(1, 1, 3)}
        assert repr(tracker) == "<Tracker 2 torrents>"


async def test_only_allowed_torrents() -> None:
    async with Tracker(http=[ANY4], udp=[ANY4], allowed=set()) as tracker, Client() as client:
        for url in tracker.announce_urls:
            with pytest.raises(TrackerFailure, match="not registered"):
                await client.announce(url, [request(1)])


async def test_the_end_closes_everything() -> None:
    async with Tracker(http=[ANY4], udp=[ANY4], lenient_ids=True) as tracker:
        endpoint = tracker.http_endpoints[0]
        reader, writer = await asyncio.open_connection(*endpoint)
        writer.write(b"GET /ann")
        await writer.drain()
        await asyncio.sleep(0.01)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
    async with Client() as client:
        with pytest.raises(TrackerUnreachable):
            await client.announce(f"http://{endpoint}/announce", [request(1)])


async def test_a_taken_address_is_an_error_and_nothing_is_left_open() -> None:
    async with Tracker(udp=[ANY4]) as tracker:
        second = Tracker(http=[ANY4], udp=tracker.udp_endpoints)
        with pytest.raises(OSError, match="in use"):
            await second.__aenter__()
        with pytest.raises(OSError, match=r"refused|failed"):
            await asyncio.open_connection(*second.http_endpoints[0])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"interval": 0}, "interval"),
        ({"interval": 86_401}, "interval"),
        ({"trusted": ["10.0.0.1/8"]}, "trusted network"),
        ({"trusted": ["example"]}, "trusted network"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Tracker(**options)  # type: ignore[arg-type]


@simulated
async def test_old_torrents_are_looked_for(loop: VirtualLoop) -> None:
    async with Tracker(interval=100) as tracker:
        await asyncio.sleep(1)
        tracker.desk.announce(
            HASH, b"\x08\0\0\1", 1, left=1, event=Event.NONE, num_want=0, now=loop.time()
        )
        await asyncio.sleep(149)
        assert tracker.desk.table.num_torrents == 1
        await asyncio.sleep(11)
        assert tracker.desk.table.num_torrents == 0
