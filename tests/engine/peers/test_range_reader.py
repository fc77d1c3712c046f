"""
engine.peers.range_reader: ranges over real HTTP, from servers that do not behave (N8), and paced.

The servers are scripts: what is sent to each request, byte for byte. The client is the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from bittern.codec.bencode import encode
from bittern.codec.info import Info, decode_info
from bittern.core.errors import FetchError, WebSeedError, WebSeedLacksFile, WebSeedUseless
from bittern.engine.limits import RateGate, SharedLimit, make_bucket
from bittern.engine.peers import range_reader
from bittern.engine.peers.range_reader import RangeReader
from bittern.net.access import Access
from bittern.net.dns import Resolver
from bittern.net.http import HttpClient
from bittern.policy.web_seeds import WebSeedRecord
from bittern.testing.loop import VirtualLoop
from tests.conftest import Simulate
from tests.engine.web import Web
from tests.net.http_server import Server, serving
from tests.virtual_time import simulated

DATA = bytes(range(256)) * 400
"""The file: 102,400 bytes."""
START, STOP = 1_000, 51_000


def info_of(length: int) -> Info:
    pieces = b"h" * 20 * -(-length // 16_384)
    return decode_info(
        encode({b"name": b"f", b"length": length, b"piece length": 16_384, b"pieces": pieces})
    )


INFO = info_of(len(DATA))


class Script(Server):
    """Answers each request with the next of some bytes, the last one for ever."""

    def __init__(self, *answers: bytes, closes: bool = False) -> None:
        super().__init__(self._next, closes=closes)
        self.answers = list(answers)

    def _next(self, _path: str) -> bytes:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def head(status: str, **headers: str | int) -> bytes:
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join([*lines, "", ""])).encode("latin-1")


def partial(start: int = START, stop: int = STOP) -> bytes:
    """Return the right answer."""
    content_range = f"bytes {start}-{stop - 1}/{len(DATA)}"
    return (
        head("206 Partial Content", Content_Range=content_range, Content_Length=stop - start)
        + DATA[start:stop]
    )


@contextlib.asynccontextmanager
async def reading(
    script: Script, *, path: str = "/f", info: Info = INFO, is_trusted: bool = False
) -> AsyncIterator[tuple[RangeReader, WebSeedRecord]]:
    loop = asyncio.get_running_loop()
    bucket = make_bucket(None, now=loop.time())
    async with serving(script) as port:
        record = WebSeedRecord(f"http://127.0.0.1:{port}{path}", is_trusted=is_trusted)
        client = HttpClient(resolver=Resolver(), user_agent="test/1")
        reader = RangeReader(
            record,
            info,
            http=client,
            gate=RateGate(bucket, SharedLimit(bucket, loop=loop)),
            loop=loop,
            counted=lambda _: None,
        )
        try:
            yield reader, record
        finally:
            await client.close()


async def fetch(reader: RangeReader, start: int = START, stop: int = STOP) -> tuple[bool, bytes]:
    parts = []

    def receive(data: bytes) -> bool:
        parts.append(data)
        return True

    async with asyncio.timeout(5):
        is_done = await reader.fetch(0, start, stop, receive)
    return is_done, b"".join(parts)


async def test_ranges_are_fetched_over_one_connection() -> None:
    script = Script(partial(0, 10), partial(10, 60_000), partial(60_000, len(DATA)))
    async with reading(script) as (reader, record):
        got = [await fetch(reader, *span) for span in ((0, 10), (10, 60_000), (60_000, 102_400))]
        assert b"".join(data for _, data in got) == DATA
        assert script.num_connections == 1
        first = script.requests[0].lower()
        assert first.startswith("get /f http/1.1\r\n")
        assert "\r\nrange: bytes=0-9\r\n" in first
        assert "\r\naccept-encoding: identity\r\n" in first
        assert record.last_asked_at is not None


async def test_a_server_that_ends_each_connection_is_no_worse() -> None:
    script = Script(partial(0, 10), partial(10, 20), closes=True)
    async with reading(script) as (reader, _):
        assert [await fetch(reader, 0, 10), await fetch(reader, 10, 20)] == [
            (True, DATA[:10]),
            (True, DATA[10:20]),
        ]
        assert script.num_connections == 2


async def test_a_body_without_a_length_is_cut_by_what_was_asked() -> None:
    content_range = f"bytes 0-9/{len(DATA)}"
    chunked = head("206 Partial", Content_Range=content_range, Transfer_Encoding="chunked")
    chunked += b"4\r\n" + DATA[:4] + b"\r\n6\r\n" + DATA[4:10] + b"\r\n0\r\n\r\n"
    to_the_end = head("206 Partial", Content_Range=content_range, Connection="close") + DATA[:10]
    async with reading(Script(chunked)) as (reader, _):
        assert await fetch(reader, 0, 10) == (True, DATA[:10])
    async with reading(Script(to_the_end, closes=True)) as (reader, _):
        assert await fetch(reader, 0, 10) == (True, DATA[:10])


async def test_a_server_without_ranges_is_found_out() -> None:
    script = Script(head("200 OK", Content_Length=len(DATA)) + DATA)
    async with reading(script) as (reader, record):
        assert await fetch(reader) == (False, b"")
        assert not record.takes_ranges
        assert await fetch(reader, 0, len(DATA)) == (True, DATA)
        assert "range:" not in script.requests[1].lower()


async def test_a_whole_file_may_come_as_one() -> None:
    script = Script(head("200 OK", Content_Length=len(DATA)) + DATA)
    async with reading(script) as (reader, record):
        assert await fetch(reader, 0, len(DATA)) == (True, DATA)
        assert record.takes_ranges


async def test_redirects_are_followed_by_the_rules_of_all_fetches() -> None:
    target = Script(partial(0, 10))
    async with reading(target) as (_, _):
        found = head(
            "302 Found", Location=f"http://127.0.0.1:{target.port}/there", Content_Length=0
        )
        async with reading(Script(found)) as (reader, _):
            assert await fetch(reader, 0, 10) == (True, DATA[:10])
        with_query = head(
            "302 Found", Location=f"http://127.0.0.1:{target.port}/there?q", Content_Length=0
        )
        async with reading(Script(with_query)) as (reader, _):
            with pytest.raises(FetchError, match="loopback address"):
                await fetch(reader, 0, 10)
        async with reading(Script(with_query), is_trusted=True) as (reader, _):
            assert await fetch(reader, 0, 10) == (True, DATA[:10])
    async with reading(Script(head("302 Found", Location="/f", Content_Length=0))) as (reader, _):
        with pytest.raises(FetchError, match="redirects"):
            await fetch(reader)


def moved_to(port: int, path: str = "/there", host: str = "127.0.0.1") -> bytes:
    return head("302 Found", Location=f"http://{host}:{port}{path}", Content_Length=0)


async def test_the_target_of_a_redirect_is_asked_directly_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = Script(partial(0, 10))
    async with reading(target):
        own = Script(moved_to(target.port))
        async with reading(own) as (reader, _):
            for _ in range(3):
                assert await fetch(reader, 0, 10) == (True, DATA[:10])
                # It counts from the redirect; what is fetched there does not change it.
                monkeypatch.setattr(range_reader, "REDIRECT_LIFETIME", 0.0)
            assert (len(own.requests), len(target.requests)) == (1, 3)
        own = Script(moved_to(target.port))
        async with reading(own) as (reader, _):
            for _ in range(2):
                assert await fetch(reader, 0, 10) == (True, DATA[:10])
            assert len(own.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        head("403 Forbidden", Content_Length=0),
        head("404 Not Found", Content_Length=0),
        head("503 Busy", Content_Length=0, Retry_After=100),
        head("206 Partial", Content_Range="bytes 0-9/5", Content_Length=10) + DATA[:10],
        b"nonsense",
        b"",
    ],
)
async def test_whatever_goes_wrong_there_is_asked_of_the_server_itself(answer: bytes) -> None:
    """A link that was good for minutes has expired, or a mirror has gone: nobody is to blame."""
    target, other = Script(partial(0, 10), answer, closes=True), Script(partial(0, 10))
    async with reading(target), reading(other):
        own = Script(moved_to(target.port), moved_to(other.port))
        async with reading(own) as (reader, record):
            for _ in range(3):
                assert await fetch(reader, 0, 10) == (True, DATA[:10])
            assert (len(own.requests), len(target.requests), len(other.requests)) == (2, 2, 2)
            assert record.may_be_asked(now=0)


async def test_what_came_from_there_before_it_broke_off_is_not_asked_for_twice() -> None:
    cut = head("206 Partial", Content_Range=f"bytes 0-9/{len(DATA)}", Content_Length=10) + DATA[:4]
    target = Script(partial(0, 10), cut, closes=True)
    async with reading(target):
        own = Script(moved_to(target.port))
        async with reading(own) as (reader, record):
            assert await fetch(reader, 0, 10) == (True, DATA[:10])
            reader._counted = lambda num: setattr(record, "num_bytes", record.num_bytes + num)
            with pytest.raises(FetchError):
                await fetch(reader, 0, 10)
            assert len(own.requests) == 1


@pytest.mark.parametrize("is_in", ["url", "redirect"])
async def test_where_a_name_and_password_are_in_a_url_nothing_is_remembered(is_in: str) -> None:
    """N6: they are shown to nobody but the server that they are for, and to that each time."""
    target = Script(partial(0, 10))
    async with reading(target):
        host = "a:b@127.0.0.1" if is_in == "redirect" else "127.0.0.1"
        own = Script(moved_to(target.port, host=host))
        async with reading(own) as (reader, record):
            if is_in == "url":
                record.url = record.url.replace("127", "a:b@127")
            for _ in range(2):
                assert await fetch(reader, 0, 10) == (True, DATA[:10])
            assert len(own.requests) == 2
            assert not [asked for asked in target.requests if "authorization" in asked.lower()]


def test_what_a_public_server_named_stays_public(simulate: Simulate) -> None:
    """N6: its target may have a local address by the time that it is asked directly."""
    found: list[list[Access]] = []

    async def main(loop: VirtualLoop) -> None:
        for public in (set(), {"http://own.example/f"}):
            web = Web({"http://mirror.example/f": DATA}, rate=1e9)
            web.redirects = {"http://own.example/f": "http://mirror.example/f"}
            web.public = public
            bucket = make_bucket(None, now=loop.time())
            reader = RangeReader(
                WebSeedRecord("http://own.example/f", is_trusted=True),
                INFO,
                http=web,
                gate=RateGate(bucket, SharedLimit(bucket, loop=loop)),
                loop=loop,
                counted=lambda _: None,
            )
            for _ in range(2):
                assert await fetch(reader, 0, 10) == (True, DATA[:10])
            assert web.paths() == ["http://own.example/f", "http://mirror.example/f"]
            found.append([request.access for request in web.requests])

    simulate(main)
    assert found == [[Access.ANY, Access.ANY], [Access.ANY, Access.PUBLIC]]


@simulated
async def test_only_so_many_targets_are_remembered(loop: VirtualLoop) -> None:
    """Of a torrent of many files the last ones, which are asked for now."""
    number = range_reader.MAX_REDIRECTS_KEPT + 1
    fields: dict[bytes, Any] = {b"name": b"n", b"piece length": 16_384, b"pieces": b"h" * 20}
    fields[b"files"] = [{b"length": 10, b"path": [b"%d" % index]} for index in range(number)]
    info = decode_info(encode(fields))
    web = Web({f"http://m/{index}": DATA[:10] for index in range(number)}, rate=1e9)
    web.redirects = {f"http://own/n/{index}": f"http://m/{index}" for index in range(number)}
    bucket = make_bucket(None, now=loop.time())
    reader = RangeReader(
        WebSeedRecord("http://own/", is_trusted=False),
        info,
        http=web,
        gate=RateGate(bucket, SharedLimit(bucket, loop=loop)),
        loop=loop,
        counted=lambda _: None,
    )
    for index in (*range(number), number - 1, 1, 0):
        assert await reader.fetch(index, 0, 10, lambda _: True)
    asked = [request.url for request in web.requests[number:]]
    assert asked == [f"http://m/{number - 1}", "http://m/1", "http://own/n/0"]


async def test_what_a_torrent_names_may_not_ask_a_local_program_anything() -> None:
    """N6: a local server is asked for files, never with a query."""
    async with reading(Script(partial()), path="/f?do=it") as (reader, _):
        with pytest.raises(FetchError, match="not permitted"):
            await fetch(reader)
    async with reading(Script(partial()), path="/f?do=it", is_trusted=True) as (reader, _):
        assert await fetch(reader) == (True, DATA[START:STOP])


async def test_a_caller_may_have_enough() -> None:
    script = Script(head("206 P", Content_Range=RANGE, Content_Length=LENGTH) + BODY[:9], partial())
    async with reading(script) as (reader, _):
        assert await reader.fetch(0, START, STOP, lambda _: False)
        assert await fetch(reader) == (True, DATA[START:STOP])
        assert script.num_connections == 2, "what was not read is not read by the next request"


# --- misbehaviour ----------------------------------------------------------------------------

RANGE = f"bytes {START}-{STOP - 1}/{len(DATA)}"
BODY = DATA[START:STOP]
LENGTH = len(BODY)

LIES: dict[str, tuple[Sequence[bytes], type[Exception], str]] = {
    "no range": ([head("206 P", Content_Length=LENGTH) + BODY], WebSeedUseless, "which range"),
    "another range": (
        [head("206 P", Content_Range=f"bytes 0-{LENGTH - 1}/102400", Content_Length=LENGTH) + BODY],
        WebSeedUseless,
        "asked for bytes",
    ),
    "a shorter range": (
        [head("206 P", Content_Range="bytes 1000-1009/102400", Content_Length=10) + BODY[:10]],
        WebSeedUseless,
        "asked for bytes",
    ),
    "another file": (
        [head("206 P", Content_Range="bytes 1000-50999/102401", Content_Length=LENGTH) + BODY],
        WebSeedLacksFile,
        "102401 bytes there",
    ),
    "a length too short": (
        [head("206 P", Content_Range=RANGE, Content_Length=10) + BODY[:10]],
        WebSeedUseless,
        "length of 10",
    ),
    "a length too long": (
        [head("206 P", Content_Range=RANGE, Content_Length=LENGTH + 1) + BODY + b"x"],
        WebSeedUseless,
        f"length of {LENGTH + 1}",
    ),
    "no number for a length": (
        [head("206 P", Content_Range=RANGE, Content_Length="ten") + BODY],
        FetchError,
        "no HTTP answer",
    ),
    "two lengths": (
        [b"HTTP/1.1 206 P\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345"],
        FetchError,
        "no HTTP answer",
    ),
    "more without a length": (
        [head("206 P", Content_Range=RANGE, Connection="close") + BODY + b"x"],
        WebSeedUseless,
        "more than it was asked",
    ),
    "endless chunks": (
        [
            head("206 P", Content_Range=RANGE, Transfer_Encoding="chunked")
            + b"".join(b"%x\r\n%b\r\n" % (LENGTH, BODY) for _ in range(20))
        ],
        WebSeedUseless,
        "more than it was asked",
    ),
    "chunks that are none": (
        [head("206 P", Content_Range=RANGE, Transfer_Encoding="chunked") + b"zz\r\nnonsense\r\n"],
        FetchError,
        "no HTTP answer",
    ),
    "an end in the middle": (
        [head("206 P", Content_Range=RANGE, Content_Length=LENGTH) + BODY[:30_000]],
        FetchError,
        "cut off",
    ),
    "an end in the middle without a length": (
        [head("206 P", Content_Range=RANGE, Connection="close") + BODY[:30_000]],
        WebSeedError,
        "in the middle of a file",
    ),
    "an end before the body": (
        [head("206 P", Content_Range=RANGE, Content_Length=LENGTH)],
        FetchError,
        "cut off",
    ),
    "compression": (
        [
            head("206 P", Content_Range=RANGE, Content_Encoding="gzip", Content_Length=LENGTH)
            + gzip.compress(BODY)
        ],
        WebSeedLacksFile,
        "compressed",
    ),
    "compression of another kind": (
        [head("200 OK", Content_Encoding="br") + BODY],
        FetchError,
        "compression",
    ),
    "several ranges": (
        [
            head("206 P", Content_Type="multipart/byteranges; boundary=x", Content_Length=12)
            + b"--x\r\n\r\n--x--"
        ],
        WebSeedUseless,
        "which range",
    ),
    "a whole file of another length": (
        [head("200 OK", Content_Length=10) + DATA[:10]],
        WebSeedLacksFile,
        "10 bytes there",
    ),
    "a page that says sorry": (
        [head("200 OK", Content_Type="text/html", Content_Length=5) + b"sorry"],
        WebSeedLacksFile,
        "5 bytes there",
    ),
    "not found": ([head("404 Not Found", Content_Length=0)], WebSeedLacksFile, "404"),
    "gone": ([head("410 Gone", Content_Length=0)], WebSeedLacksFile, "410"),
    "no such range": ([head("416 No", Content_Length=0)], WebSeedLacksFile, "416"),
    "forbidden": ([head("403 No", Content_Length=0)], WebSeedUseless, "403"),
    "a password": ([head("401 Who", Content_Length=0)], WebSeedUseless, "401"),
    "an error": ([head("500 Oops", Content_Length=0)], WebSeedError, "500"),
    "busy": ([head("503 Busy", Retry_After=7, Content_Length=0)], WebSeedError, "503"),
    "no content": ([head("204 No Content")], WebSeedError, "204"),
    "a redirect to nowhere": ([head("302 Found", Content_Length=0)], WebSeedError, "302"),
    "a redirect to a file": (
        [head("302 Found", Location="file:///etc/passwd", Content_Length=0)],
        FetchError,
        "scheme",
    ),
    "a redirect to ftp": (
        [head("302 Found", Location="ftp://127.0.0.1/f", Content_Length=0)],
        FetchError,
        "scheme",
    ),
    "a redirect to the metadata of clouds": (
        [head("302 Found", Location="http://169.254.169.254/", Content_Length=0)],
        FetchError,
        "no address to connect to",
    ),
    "no HTTP": ([b"220 ftp ready\r\n"], FetchError, "no HTTP answer"),
    "garbage": ([b"\x00\x01\x02\x03\r\n\r\n"], FetchError, "no HTTP answer"),
    "nothing": ([b""], FetchError, "hung up"),
    "half a head": ([b"HTTP/1.1 206 Partial\r\nContent-Ra"], FetchError, "hung up|no HTTP|cut off"),
    "an endless head": (
        [b"HTTP/1.1 206 P\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"],
        FetchError,
        "no HTTP answer",
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_told_for_what_it_is(lie: str) -> None:
    answers, kind, reason = LIES[lie]
    async with reading(Script(*answers, closes=True)) as (reader, record):
        with pytest.raises((WebSeedError, FetchError), match=reason) as caught:
            await fetch(reader)
        assert type(caught.value) is kind
        assert record.takes_ranges


async def test_silence_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_reader, "READ_TIMEOUT", 0.05)
    part = head("206 P", Content_Range=RANGE, Content_Length=LENGTH) + BODY[:10]
    async with reading(Script(part)) as (reader, _):
        with pytest.raises(FetchError, match="silent"):
            await fetch(reader)


async def test_a_trap_of_zeros_is_not_unpacked() -> None:
    """P15: a compressed answer is refused by its head."""
    bomb = gzip.compress(bytes(50_000_000))
    script = Script(
        head("206 P", Content_Range=RANGE, Content_Encoding="gzip", Content_Length=len(bomb))
        + bomb,
        closes=True,
    )
    async with reading(script) as (reader, _):
        with pytest.raises(WebSeedError, match="compressed"):
            await fetch(reader)


# --- pace, in virtual time -------------------------------------------------------------------


def make_paced(loop: VirtualLoop, web: Web, rate: float | None) -> tuple[RangeReader, RateGate]:
    now = loop.time()
    gate = RateGate(make_bucket(rate, now=now), SharedLimit(make_bucket(None, now=now), loop=loop))
    reader = RangeReader(
        WebSeedRecord("http://web.example/f", is_trusted=True),
        info_of(1_000_000),
        http=web,
        gate=gate,
        loop=loop,
        counted=lambda _: None,
    )
    return reader, gate


def test_a_limit_is_shared_with_whoever_else_waits(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        reader, gate = make_paced(loop, Web({"http://web.example/f": bytes(1_000_000)}), 100_000)
        others = 0

        def other() -> None:
            nonlocal others
            others += 16_384
            gate.take(16_384)
            gate.wait(other)

        gate.wait(other)
        received = 0

        def receive(data: bytes) -> bool:
            nonlocal received
            received += len(data)
            return loop.time() < 10

        assert await reader.fetch(0, 0, 1_000_000, receive)
        gate.close()
        assert received + others == pytest.approx(1_000_000, rel=0.15)
        assert others > 150_000
        assert received > 150_000

    simulate(main)


def test_a_low_limit_is_kept_from_second_to_second(simulate: Simulate) -> None:
    async def main(loop: VirtualLoop) -> None:
        reader, _ = make_paced(loop, Web({"http://web.example/f": bytes(1_000_000)}), 20_000)
        received, began_at = 0, loop.time()

        def receive(data: bytes) -> bool:
            nonlocal received
            received += len(data)
            assert received <= 20_000 * (loop.time() - began_at) + 2 * 16_384
            return received < 400_000

        await reader.fetch(0, 0, 1_000_000, receive)
        assert received / (loop.time() - began_at) == pytest.approx(20_000, rel=0.1)

    simulate(main)


@pytest.mark.parametrize("way", ["limit", "disk"])
@simulated
async def test_a_reader_that_is_held_back_says_so_and_can_be_ended(
    loop: VirtualLoop, way: str
) -> None:
    web = Web({"http://web.example/f": bytes(1_000_000)})
    reader, gate = make_paced(loop, web, 1 if way == "limit" else None)
    receive: Callable[[bytes], bool] = lambda _: True  # noqa: E731
    assert not reader.is_held_back
    task = asyncio.ensure_future(reader.fetch(0, 0, 1_000_000, receive))
    if way == "disk":
        reader.set_reading(False)
    await asyncio.sleep(5)
    assert reader.is_held_back
    reader.stop()
    assert gate.num_waiting == 0
    task.cancel()
    await asyncio.wait([task])
    assert web.num_open == 0
    reader.set_reading(True)
    assert not reader.is_held_back
