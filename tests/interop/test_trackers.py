"""Our tracker client against opentracker, and other programs against our tracker."""

import asyncio
import contextlib
import functools
import hashlib
import random
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from pathlib import Path

import pytest
from bencode2 import bencode

from bittern.codec.bencode import Encodable, encode
from bittern.core.announce import AnnounceRequest, Event, ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.errors import TrackerFailure, TrackerUnreachable
from bittern.core.ids import InfoHash, PeerId
from bittern.engine import events
from bittern.engine.sources.announces import Announces
from bittern.engine.sources.tracker_client import TrackerClient
from bittern.engine.sources.trackers import TrackerAnnouncer
from bittern.net.dns import Resolver
from bittern.net.http import HttpClient
from bittern.net.udp import TRACKER_BYTES, UdpSocket
from bittern.net.udp_tracker import UdpTrackers
from bittern.policy.announcing import TrackerState
from bittern.tracker.server import Tracker
from tests.reference import lt

pytestmark = [pytest.mark.interop, pytest.mark.slow]

HOST = "127.0.0.1"
HASH, UNLISTED = InfoHash(b"\x00h%+&= \xff" + b"h" * 12), InfoHash(b"u" * 20)
PATIENCE = 20.0
"""Seconds that another program has for anything."""


def program(name: str) -> str:
    """Return the path of a program that must be there: a missing one fails the test."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/bin")
    assert found is not None, f"{name} is not installed; see tests/interop/setup.sh"
    return found


def free_port() -> int:
    """Return a port that is free for TCP and UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((HOST, 0))
            with contextlib.suppress(OSError):
                udp.bind(tcp.getsockname())
                return int(tcp.getsockname()[1])


@contextlib.asynccontextmanager
async def running(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture
async def opentracker(tmp_path: Path) -> AsyncIterator[int]:
    """Run opentracker for HASH alone; gives its port, for TCP and UDP."""
    tmp_path.chmod(0o755)
    (tmp_path / "whitelist").write_text(f"{HASH}\n")
    port = str(free_port())
    command = [program("opentracker"), "-i", HOST, "-p", port, "-P", port]
    async with running(*command, "-d", str(tmp_path), "-w", "/whitelist") as process:
        async with asyncio.timeout(PATIENCE), tracker_client() as client:
            while True:
                assert process.returncode is None, "opentracker ended at once"
                try:
                    # Who stops is welcome also where nothing is listed yet.
                    for event in (Event.STARTED, Event.STOPPED):
                        probe = request(1, event=event)
                        await client.announce(f"http://{HOST}:{port}/announce", [probe])
                    break
                except (TrackerFailure, TrackerUnreachable):
                    # It does not say when it listens, nor when it has read its list.
                    await asyncio.sleep(0.02)
        yield int(port)


@contextlib.asynccontextmanager
async def tracker_client() -> AsyncIterator[TrackerClient]:
    http = HttpClient(resolver=Resolver(), user_agent="bittern/test")
    sock = UdpSocket.open(HOST, 0)
    udp = UdpTrackers([sock])
    sock.add_receiver(TRACKER_BYTES, udp.receive)
    try:
        yield TrackerClient(http=http, udp=udp, resolver=Resolver())
    finally:
        udp.close()
        sock.close()
        await http.close()
        await asyncio.sleep(0)


def request(port: int, **fields: object) -> AnnounceRequest:
    values: dict[str, object] = {
        "info_hash": HASH,
        "peer_id": PeerId(b"-bt0100-%012d" % port),
        "port": port,
        "left": 1,
        "event": Event.STARTED,
        **fields,
    }
    return AnnounceRequest(**values)  # type: ignore[arg-type]


URLS = ["http://127.0.0.1:{}/announce", "udp://127.0.0.1:{}", "udp://127.0.0.1:{}/announce?k=1"]


@pytest.mark.parametrize("pattern", URLS)
async def test_opentracker_knows_our_announces_and_scrapes(pattern: str, opentracker: int) -> None:
    url = pattern.format(opentracker)
    async with tracker_client() as client:
        await client.announce(url, [request(1001, left=0)])
        answer = await client.announce(url, [request(1002)])
        assert Endpoint(HOST, 1001) in answer.peers
        assert (answer.num_seeds, answer.num_leechers) == (1, 1)
        assert 60 <= answer.min_interval <= answer.interval <= 3600
        assert await client.scrape(url, [HASH]) == {HASH: ScrapeEntry(1, 0, 1)}
        await client.announce(url, [request(1002, left=0, event=Event.COMPLETED)])
        assert await client.scrape(url, [HASH]) == {HASH: ScrapeEntry(2, 1, 0)}
        await client.announce(url, [request(1001, left=0, event=Event.STOPPED)])
        assert await client.scrape(url, [HASH]) == {HASH: ScrapeEntry(1, 1, 0)}


async def test_opentracker_brings_http_and_udp_together(opentracker: int) -> None:
    async with tracker_client() as client:
        for number, pattern in enumerate(URLS):
            await client.announce(pattern.format(opentracker), [request(2001 + number)])
        answer = await client.announce(URLS[0].format(opentracker), [request(2001)])
        assert {peer.port for peer in answer.peers} == {2001, 2002, 2003}


@pytest.mark.parametrize(
    ("pattern", "reason"), [(URLS[0], "not authorized"), (URLS[1], "without a reason")]
)
async def test_opentracker_refuses_unlisted_torrents(
    pattern: str, reason: str, opentracker: int
) -> None:
    async with tracker_client() as client:
        with pytest.raises(TrackerFailure, match=reason):
            await client.announce(pattern.format(opentracker), [request(1, info_hash=UNLISTED)])


class Torrent:
    """What an announcer needs of a torrent."""

    def __init__(self) -> None:
        self.left = 1
        self.wants_nothing = False
        self.is_private = False
        self.peers: set[Endpoint] = set()
        self.reports: list[events.Event] = []
        self.woken = asyncio.Event()

    def stats(self) -> tuple[int, int, int]:
        return 0, 0, self.left

    def add_peers(self, endpoints: Sequence[Endpoint], source: str, from_host: str) -> None:
        self.peers.update(endpoints)

    def address_told(self, host: str) -> None: ...

    def report(self, event: events.Event) -> None:
        if not isinstance(event, events.TrackerAsked):
            self.reports.append(event)
        self.woken.set()

    async def reported(self) -> events.Event:
        async with asyncio.timeout(PATIENCE):
            while not self.reports:
                self.woken.clear()
                await self.woken.wait()
        return self.reports.pop(0)


@pytest.mark.parametrize("pattern", URLS)
async def test_two_torrents_meet_at_opentracker(pattern: str, opentracker: int) -> None:
    """A whole life of an announcer: started, completed, stopped; a dead tracker is no obstacle."""
    url, dead = pattern.format(opentracker), f"http://{HOST}:{free_port()}/announce"
    torrents = [Torrent(), Torrent()]
    async with tracker_client() as client, asyncio.TaskGroup() as group:

        def spawn(job: Coroutine[object, object, None], name: str) -> None:
            group.create_task(job, name=name)

        announces = Announces(asyncio.get_running_loop(), spawn)
        announcers = [
            TrackerAnnouncer(
                [[dead], [url]],
                client=client,
                announces=announces,
                surroundings=torrent,
                info_hashes=[HASH],
                peer_id=PeerId(b"-bt0100-%012d" % number),
                port=functools.partial(int, 3001 + number),
                rng=random.Random(number),
            )
            for number, torrent in enumerate(torrents)
        ]
        for announcer, torrent in zip(announcers, torrents, strict=True):
            announcer.start()
            assert isinstance(await torrent.reported(), events.TrackerFailed)
            assert isinstance(await torrent.reported(), events.TrackerAnnounced)
        assert Endpoint(HOST, 3001) in torrents[1].peers
        torrents[0].left = 0
        announcers[0].completed()
        report = await torrents[0].reported()
        assert isinstance(report, events.TrackerAnnounced)
        assert (report.event, report.num_seeds) == ("completed", 1)
        assert await announcers[1].scrape() == {url: ScrapeEntry(1, 1, 1)}
        states = {status.url: status.state for status in announcers[0].trackers()}
        assert states == {dead: TrackerState.FAILING, url: TrackerState.WORKING}
        await asyncio.gather(*(announcer.stop() for announcer in announcers))
        assert await client.scrape(url, [HASH]) == {HASH: ScrapeEntry(0, 1, 0)}


# --- other programs at our tracker --------------------------------------------------------


class Watched:
    """Our tracker, and a way to wait for what its clients do."""

    def __init__(self, tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tracker = tracker
        self.heard: list[tuple[int, Event]] = []
        self._woken = asyncio.Event()
        real = tracker.desk.announce

        def announce(info_hash: bytes, address: bytes, port: int, **fields: object) -> object:
            event = fields["event"]
            assert isinstance(event, Event)
            self.heard.append((port, event))
            self._woken.set()
            return real(info_hash, address, port, **fields)  # type: ignore[arg-type]

        monkeypatch.setattr(tracker.desk, "announce", announce)

    async def wait_for(self, port: int, event: Event) -> None:
        async with asyncio.timeout(PATIENCE):
            while (port, event) not in self.heard:
                self._woken.clear()
                await self._woken.wait()


@pytest.fixture
async def watched(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    any_port = Endpoint(HOST, 0)
    async with Tracker(http=[any_port], udp=[any_port], interval=60) as tracker:
        yield Watched(tracker, monkeypatch)


def make_torrent(folder: Path, url: str) -> tuple[Path, InfoHash]:
    """Write a one-piece torrent and its data into ``folder``."""
    info: dict[bytes, Encodable] = {
        b"length": 4,
        b"name": b"data",
        b"piece length": 16384,
        b"pieces": bytes.fromhex("a17c9aaa61e80a1bf71d0d850af4e5baa9800bbd"),  # of b"data"
    }
    (folder / "data").write_bytes(b"data")
    path = folder / "data.torrent"
    path.write_bytes(encode({b"announce": url.encode(), b"info": info}))
    return path, InfoHash(hashlib.sha1(bencode(info)).digest())


async def test_aria2_announces_to_our_tracker(tmp_path: Path, watched: Watched) -> None:
    torrent, info_hash = make_torrent(tmp_path, watched.tracker.announce_urls[0])
    port = free_port()
    command = [
        *(program("aria2c"), "-q", "--no-conf", "--enable-dht=false", "--enable-dht6=false"),
        *("--bt-enable-lpd=false", "--bt-seed-unverified=true", "--seed-ratio=0.0"),
        *(f"--listen-port={port}", "-d", str(tmp_path), str(torrent)),
    ]
    async with running(*command) as process:
        await watched.wait_for(port, Event.STARTED)
        async with tracker_client() as client:
            url = watched.tracker.announce_urls[1]
            answer = await client.announce(url, [request(1, info_hash=info_hash)])
            assert answer.peers == (Endpoint(HOST, port),)
            assert answer.num_seeds == 1
        process.send_signal(signal.SIGINT)  # which it takes for a wish to leave in order
        await watched.wait_for(port, Event.STOPPED)
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    assert watched.tracker.desk.table.scrape(info_hash, scope=2).num_seeds == 0


@pytest.fixture
def lt_session() -> Iterator[tuple[lt.session, int]]:
    port = free_port()
    session = lt.session(
        {
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "listen_interfaces": f"{HOST}:{port}",
            "alert_mask": lt.alert.category_t.tracker_notification,
        }
    )
    yield session, port
    session.pause()


async def answered(session: lt.session) -> None:
    """Wait until libtorrent knows that its announce was answered; it says no goodbye before."""
    async with asyncio.timeout(PATIENCE):
        while True:
            await asyncio.to_thread(session.wait_for_alert, 500)
            alerts = session.pop_alerts()
            if any(isinstance(alert, lt.tracker_reply_alert) for alert in alerts):
                return


@pytest.mark.parametrize("kind", [0, 1], ids=["http", "udp"])
async def test_libtorrent_announces_to_our_tracker(
    kind: int, tmp_path: Path, watched: Watched, lt_session: tuple[lt.session, int]
) -> None:
    session, port = lt_session
    torrent, info_hash = make_torrent(tmp_path, watched.tracker.announce_urls[kind])
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(str(torrent))
    parameters.save_path = str(tmp_path)
    parameters.flags |= lt.torrent_flags.seed_mode
    parameters.flags &= ~lt.torrent_flags.auto_managed
    parameters.flags &= ~lt.torrent_flags.paused
    handle = session.add_torrent(parameters)
    await watched.wait_for(port, Event.STARTED)
    await answered(session)
    async with tracker_client() as client:
        url = watched.tracker.announce_urls[1 - kind]
        answer = await client.announce(url, [request(1, info_hash=info_hash)])
        assert answer.peers == (Endpoint(HOST, port),)
        assert answer.num_seeds == 1
    session.remove_torrent(handle)
    await watched.wait_for(port, Event.STOPPED)
    assert watched.tracker.desk.table.scrape(info_hash, scope=2).num_seeds == 0
