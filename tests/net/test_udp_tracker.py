"""net.udp_tracker: the asyncio shell of the UDP tracker client, in virtual time and on loopback."""

import asyncio
from collections.abc import Callable

import pytest

from bittern.codec.udp_tracker import (
    AnnounceQuery,
    ConnectQuery,
    ScrapeQuery,
    decode_query,
    encode_announce_reply,
    encode_connect_reply,
    encode_error,
    encode_scrape_reply,
)
from bittern.core.announce import AnnounceAnswer, AnnounceRequest, ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.errors import TrackerFailure, TrackerUnreachable
from bittern.core.ids import InfoHash, PeerId
from bittern.net.udp import TRACKER_BYTES, UdpSocket
from bittern.net.udp_tracker import UdpTrackers
from bittern.testing.loop import VirtualLoop
from tests.virtual_time import simulated

TRACKER = Endpoint("192.0.2.1", 6969)
NO_WAY = Endpoint("192.0.2.2", 6969)
V6 = Endpoint("2001:db8::1", 6969)
REQUEST = AnnounceRequest(info_hash=InfoHash(b"h" * 20), peer_id=PeerId(b"p" * 20), port=6881)
ANSWER = AnnounceAnswer(
    interval=900, peers=(Endpoint("192.0.2.9", 1),), num_seeds=1, num_leechers=2
)


def reply_to(data: bytes) -> bytes:
    match decode_query(data):
        case ConnectQuery(number):
            return encode_connect_reply(number, 5)
        case AnnounceQuery(_, number, _, b"/refuse"):
            return encode_error(number, "not you")
        case AnnounceQuery(_, number, _):
            return encode_announce_reply(number, ANSWER)
        case ScrapeQuery(_, number, hashes):
            return encode_scrape_reply(number, [ScrapeEntry(1, 2, 3)] * len(hashes))


class FakeSocket:
    """Carries datagrams to a scripted tracker and its answers back, a second later."""

    def __init__(self, host: str = "192.0.2.7", *, is_silent: bool = False) -> None:
        self.endpoint = Endpoint(host, 6881)
        self.is_silent = is_silent
        self.receive: Callable[[bytes, Endpoint], object] = lambda data, source: None
        self.sent: list[bytes] = []
        self.sent_at: list[float] = []

    def send(self, data: bytes, target: Endpoint) -> bool:
        loop = asyncio.get_running_loop()
        self.sent.append(data)
        self.sent_at.append(loop.time())
        if target == NO_WAY:
            return False
        if not self.is_silent:
            loop.call_later(1, self.receive, reply_to(data), target)
        return True


def make(socket: FakeSocket) -> UdpTrackers:
    trackers = UdpTrackers([socket])
    socket.receive = trackers.receive
    return trackers


@simulated
async def test_announce_and_scrape(loop: VirtualLoop) -> None:
    trackers = make(FakeSocket())
    assert await trackers.announce(TRACKER, REQUEST) == ANSWER
    assert loop.time() == 2
    found = await trackers.scrape(TRACKER, [REQUEST.info_hash])
    assert found == {REQUEST.info_hash: ScrapeEntry(1, 2, 3)}
    assert loop.time() == 3


@simulated
async def test_many_at_once_over_one_socket(loop: VirtualLoop) -> None:
    socket = FakeSocket()
    trackers = make(socket)
    found = await asyncio.gather(*(trackers.announce(TRACKER, REQUEST) for _ in range(200)))
    assert found == [ANSWER] * 200
    assert loop.time() == 2
    assert len(socket.sent_at) == 201


@simulated
async def test_refusal() -> None:
    trackers = make(FakeSocket())
    with pytest.raises(TrackerFailure, match="not you"):
        await trackers.announce(TRACKER, REQUEST, url_data=b"/refuse")


@simulated
async def test_silence_costs_three_packets_and_35_seconds(loop: VirtualLoop) -> None:
    socket = FakeSocket(is_silent=True)
    with pytest.raises(TrackerUnreachable, match="tracker is silent"):
        await make(socket).announce(TRACKER, REQUEST)
    assert socket.sent_at == [0, 5, 15]
    assert loop.time() == 35


@simulated
async def test_a_tracker_in_a_network_that_we_are_not_in_fails_at_once(loop: VirtualLoop) -> None:
    """As over IPv6 where there is none: the family that works would be waited for as well."""

    trackers = make(FakeSocket())
    results = await asyncio.gather(
        *(trackers.announce(NO_WAY, REQUEST) for _ in range(3)), return_exceptions=True
    )
    assert [str(result) for result in results] == ["network is unreachable"] * 3
    assert loop.time() == 0
    assert await trackers.announce(TRACKER, REQUEST) == ANSWER


@simulated
async def test_a_family_without_a_socket_fails_at_once() -> None:
    with pytest.raises(TrackerUnreachable, match="no IPv6 here"):
        await make(FakeSocket()).announce(V6, REQUEST)
    with pytest.raises(TrackerUnreachable, match="no IPv4 here"):
        await make(FakeSocket("2001:db8::7")).scrape(TRACKER, [])


@simulated
async def test_cancelling_forgets_the_request() -> None:
    socket = FakeSocket(is_silent=True)
    trackers = make(socket)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await trackers.announce(TRACKER, REQUEST)
    await asyncio.sleep(100)
    assert socket.sent_at == [0]


@simulated
async def test_an_answer_in_the_same_step_as_the_cancellation_is_lost_quietly() -> None:
    socket = FakeSocket(is_silent=True)
    trackers = make(socket)
    for query in (
        lambda: trackers.announce(TRACKER, REQUEST),
        lambda: trackers.announce(TRACKER, REQUEST, url_data=b"/refuse"),
        lambda: trackers.scrape(TRACKER, [REQUEST.info_hash]),
    ):
        task: asyncio.Future[object] = asyncio.ensure_future(query())
        await asyncio.sleep(0)
        if socket.sent[-1][8:12] == bytes(4):
            trackers.receive(reply_to(socket.sent[-1]), TRACKER)
        task.cancel()
        trackers.receive(reply_to(socket.sent[-1]), TRACKER)
        trackers.receive(b"\0\0\0", TRACKER)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert trackers.num_bad_datagrams == 3


@simulated
async def test_closing_fails_what_is_under_way(loop: VirtualLoop) -> None:
    trackers = make(FakeSocket(is_silent=True))
    tasks = [
        asyncio.ensure_future(trackers.announce(TRACKER, REQUEST)),
        asyncio.ensure_future(trackers.scrape(TRACKER, [REQUEST.info_hash])),
    ]
    await asyncio.sleep(1)
    trackers.close()
    trackers.close()
    for task in tasks:
        with pytest.raises(TrackerUnreachable, match="closed"):
            await task
    assert loop.time() == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_over_real_sockets(host: str) -> None:
    ours, theirs = UdpSocket.open(host, 0), UdpSocket.open(host, 0)
    peer = Endpoint(host, 1)
    answer = AnnounceAnswer(interval=900, peers=(peer,), num_seeds=0, num_leechers=1)

    def serve(data: memoryview, source: Endpoint) -> None:
        query = decode_query(bytes(data))
        if isinstance(query, ConnectQuery):
            theirs.send(encode_connect_reply(query.transaction_id, 2**63), source)
        else:
            theirs.send(encode_announce_reply(query.transaction_id, answer), source)

    theirs.add_receiver(range(256), serve)
    trackers = UdpTrackers([ours])
    ours.add_receiver(TRACKER_BYTES, trackers.receive)
    assert await trackers.announce(theirs.endpoint, REQUEST) == answer
    trackers.close()
    ours.close()
    theirs.close()
