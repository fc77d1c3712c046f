"""net.http: the guarded client (N5, N6, N7, P15). Servers are scripted, names are fake."""

import asyncio
import contextlib
import datetime
import gzip
import ipaddress
import os
import ssl
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bittern.core.errors import FetchError, MisuseError, ResolveError
from bittern.net import access as access_module
from bittern.net import http as http_module
from bittern.net.access import Access, AddressClass
from bittern.net.dns import literal_address
from bittern.net.http import HttpClient, HttpResponse, HttpStream
from tests.net.http_server import Server, serving

MIB = 1 << 20


class FakeNames:
    """Names to addresses; each answer in turn, the last one for ever."""

    def __init__(self, **table: Sequence[Sequence[str]]) -> None:
        self.table = {name.replace("_", "."): list(answers) for name, answers in table.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str) -> tuple[str, ...]:
        literal = literal_address(host)
        if literal is not None:
            return (literal,)
        self.asked.append(host)
        answers = self.table.get(host)
        if answers is None:
            raise ResolveError(host, "unknown")
        return tuple(answers.pop(0) if len(answers) > 1 else answers[0])


@contextlib.asynccontextmanager
async def client_of(
    names: FakeNames | None = None, context: ssl.SSLContext | None = None
) -> AsyncIterator[HttpClient]:
    client = HttpClient(resolver=names or FakeNames(), user_agent="test/1", ssl_context=context)
    try:
        yield client
    finally:
        await client.close()
        await client.close()
        await asyncio.sleep(0)


def ok(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    return (f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").encode(
        "latin-1"
    )


async def fetch(
    client: HttpClient,
    url: str,
    *,
    access: Access = Access.ANY,
    max_length: int = MIB,
    timeout: float = 5,
    headers: dict[str, str] | None = None,
    ipv6: bool | None = None,
) -> HttpResponse:
    return await client.fetch(
        url, access=access, max_length=max_length, timeout=timeout, headers=headers, ipv6=ipv6
    )


async def test_a_plain_fetch() -> None:
    server = Server(ok(b"body", "X-Thing: one"))
    async with serving(server) as port, client_of(FakeNames(t_example=[["127.0.0.1"]])) as client:
        url = f"http://t.example:{port}/announce?info_hash=%00%ff%2B+x"
        response = await fetch(client, url, headers={"Range": "bytes=0-3"})
        assert response == HttpResponse(200, response.headers, b"body", url)
        assert response.headers["x-thing"] == "one"
        [request] = server.requests
        assert request.startswith("GET /announce?info_hash=%00%ff%2B+x HTTP/1.1\r\n")
        lines = request.split("\r\n")
        assert f"Host: t.example:{port}" in lines
        assert "User-Agent: test/1" in lines
        assert "Accept-Encoding: gzip" in lines
        assert "Range: bytes=0-3" in lines
        assert "cookie" not in request.lower()
        assert "referer" not in request.lower()


async def test_status_is_the_callers_to_judge() -> None:
    server = Server(b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno")
    async with serving(server) as port, client_of() as client:
        response = await fetch(client, f"http://127.0.0.1:{port}/x")
        assert (response.status, response.body) == (404, b"no")


async def test_trackers_get_one_request_per_connection_and_web_seeds_may_keep_it() -> None:
    server = Server(ok(b"x"))
    async with serving(server) as port, client_of() as client:
        for _ in range(3):
            await fetch(client, f"http://127.0.0.1:{port}/")
        assert server.num_connections == 3
        for _ in range(3):
            async with client.open(
                f"http://127.0.0.1:{port}/", access=Access.ANY, max_length=10, keep_alive=True
            ) as stream:
                assert await stream.read() == b"x"
                assert await stream.read() == b""
        assert server.num_connections == 4


async def test_a_body_can_be_read_in_small_parts() -> None:
    async with serving(Server(ok(bytes(range(250))))) as port, client_of() as client:
        url = f"http://127.0.0.1:{port}/"
        async with client.open(url, access=Access.ANY, max_length=MIB) as stream:
            parts = []
            while part := await stream.read(100):
                assert len(part) <= 100
                parts.append(part)
        assert b"".join(parts) == bytes(range(250))


async def test_families_can_be_chosen() -> None:
    four, six = Server(ok(b"four")), Server(ok(b"six"))
    async with serving(four) as port:
        listener = await asyncio.start_server(six.serve, "::1", port)
        names = FakeNames(both=[["::1", "127.0.0.1"]], one=[["127.0.0.1"]])
        async with listener, client_of(names) as client:
            assert (await fetch(client, f"http://both:{port}/")).body == b"six"
            assert (await fetch(client, f"http://both:{port}/", ipv6=False)).body == b"four"
            assert (await fetch(client, f"http://both:{port}/", ipv6=True)).body == b"six"
            assert (await fetch(client, f"http://[::1]:{port}/")).body == b"six"
            with pytest.raises(FetchError, match="one has no IPv6 address"):
                await fetch(client, f"http://one:{port}/", ipv6=True)
        assert f"Host: [::1]:{port}" in six.requests[-1]


async def test_our_own_address_can_be_chosen() -> None:
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("peername")[0])
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ok(b""))
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = HttpClient(resolver=FakeNames(), user_agent="x", bind_hosts=("127.0.0.5",))
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        await fetch(client, f"http://127.0.0.1:{port}/")
    await client.close()
    assert seen == ["127.0.0.5"]


async def test_the_next_address_is_tried() -> None:
    server = Server(ok(b"x"))
    names = FakeNames(h=[["127.0.0.77", "127.0.0.1"]], bad=[["127.0.0.77", "127.0.0.78"] * 4])
    async with serving(server) as port, client_of(names) as client:
        assert (await fetch(client, f"http://h:{port}/")).body == b"x"
        with pytest.raises(FetchError, match="connection refused"):
            await fetch(client, f"http://bad:{port}/")


# --- redirects and addresses (N6) ---------------------------------------------------------


@pytest.fixture
def pretend_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 127.0.0.9 count as a public address, so that a test can connect to one."""
    real = access_module.classify

    def classify(host: str) -> AddressClass:
        return AddressClass.PUBLIC if host == "127.0.0.9" else real(host)

    monkeypatch.setattr(access_module, "classify", classify)
    monkeypatch.setattr(http_module, "classify", classify)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(status: int) -> None:
    server = Server(lambda path: ok(b"end") if path == "/b%20c?q" else redirect("b c?q#f", status))
    async with serving(server) as port, client_of() as client:
        response = await fetch(client, f"http://127.0.0.1:{port}/a")
        assert response.body == b"end"
        assert response.url == f"http://127.0.0.1:{port}/b%20c?q"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nContent-Length: 2\r\n\r\nhm",
        b"HTTP/1.1 304 Not\r\nLocation: /x\r\n\r\n",
        b"HTTP/1.1 300 Many\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_what_is_no_redirect_is_an_answer(answer: bytes) -> None:
    server = Server(answer)
    async with serving(server) as port, client_of() as client:
        assert (await fetch(client, f"http://127.0.0.1:{port}/a")).status in (300, 302, 304)
        assert len(server.requests) == 1


async def test_five_redirects_and_no_more() -> None:
    def answer(path: str) -> bytes:
        left = int(path[1:])
        return redirect(f"/{left - 1}") if left else ok(b"end")

    server = Server(answer)
    async with serving(server) as port, client_of() as client:
        assert (await fetch(client, f"http://127.0.0.1:{port}/5")).body == b"end"
        with pytest.raises(FetchError, match="more than 5 redirects"):
            await fetch(client, f"http://127.0.0.1:{port}/6")
        assert len(server.requests) == 6 + 6


TARGETS = [
    "http://127.0.0.1:{port}/announce",
    "http://[::1]:{port}/announce",
    "http://[::ffff:127.0.0.1]:{port}/announce",
    "http://[::127.0.0.1]:{port}/announce",
    "http://[64:ff9b::7f00:1]:{port}/announce",
    "http://0.0.0.0:{port}/announce",
    "http://[::]:{port}/announce",
    "http://169.254.169.254/latest/meta-data/announce",
    "http://10.0.0.1/announce",
    "http://172.16.0.1/announce",
    "http://192.168.0.1/announce",
    "http://100.64.0.1/announce",
    "http://[fd00::1]/announce",
    "http://[fe80::1]/announce",
    "http://224.0.0.1/announce",
    "http://255.255.255.255/announce",
    "http://2130706433:{port}/announce",
    "http://0x7f000001:{port}/announce",
    "http://0177.0.0.1:{port}/announce",
    "http://127.1:{port}/announce",
    "http://local.example:{port}/announce",
    "http://mixed.example:{port}/announce",
    "//127.0.0.1:{port}/announce",
    "file:///etc/passwd",
    "ftp://127.0.0.1/announce",
    "gopher://127.0.0.1:{port}/announce",
    "udp://127.0.0.1:{port}/announce",
    "javascript:alert(1)",
    "https://",
    "http://[::1/announce",
    "http://user@127.0.0.1:{port}/announce",
    "http://a\xff\xfeb/",
]


@pytest.mark.usefixtures("pretend_public")
@pytest.mark.parametrize("access", [Access.TRACKER, Access.ANY, Access.PUBLIC, Access.WEB_SEED])
@pytest.mark.parametrize("target", TARGETS)
async def test_a_public_server_cannot_send_us_into_the_local_network(
    target: str, access: Access
) -> None:
    """Limit: N6, whatever the request is for."""
    victim = Server(ok(b"secret"))
    names = FakeNames(
        local_example=[["127.0.0.1"]], mixed_example=[["127.0.0.1", "::1", "10.0.0.1"]]
    )
    async with serving(victim) as victim_port, client_of(names) as client:
        server = Server(redirect(target.format(port=victim_port)))
        async with serving(server, "127.0.0.9") as port:
            with pytest.raises(FetchError):
                await fetch(client, f"http://127.0.0.9:{port}/announce", access=access)
            assert len(server.requests) == 1
    assert victim.num_connections == 0


@pytest.mark.usefixtures("pretend_public")
async def test_public_to_public_is_followed_and_back_home_is_not() -> None:
    home = Server(ok(b"secret"))
    async with serving(home) as home_port, client_of() as client:
        target = [""]
        server = Server(lambda path: redirect(target[0]) if path == "/announce" else ok(b"end"))
        async with serving(server, "127.0.0.9") as port:
            target[0] = f"http://127.0.0.9:{port}/b"
            url = f"http://127.0.0.9:{port}/announce"
            assert (await fetch(client, url, access=Access.PUBLIC)).body == b"end"
            async with client.open(url, access=Access.PUBLIC, max_length=9) as stream:
                assert (stream.url, stream.came_from_public) == (target[0], True)
            local = f"http://127.0.0.1:{home_port}/announce"
            async with client.open(local, access=Access.TRACKER, max_length=9) as stream:
                assert (stream.url, stream.came_from_public) == (local, False)
            home.num_connections = 0
            start = Server(redirect(url))
            async with serving(start, "127.0.0.2") as start_port:
                # from a local tracker out, and from there back in
                target[0] = f"http://127.0.0.1:{home_port}/announce"
                with pytest.raises(FetchError, match="redirect from a public address"):
                    await fetch(
                        client, f"http://127.0.0.2:{start_port}/announce", access=Access.TRACKER
                    )
                assert len(start.requests) == 1
    assert home.num_connections == 0


@pytest.mark.usefixtures("pretend_public")
async def test_a_name_that_changes_its_mind_gains_nothing() -> None:
    """DNS rebinding: the checked address is the one that is connected to."""
    public, victim = Server(ok(b"public")), Server(ok(b"secret"))
    names = FakeNames(flip=[["127.0.0.9"], ["127.0.0.1"]])
    async with serving(public, "127.0.0.9") as port, client_of(names) as client:
        listener = await asyncio.start_server(victim.serve, "127.0.0.1", port)
        async with listener:
            response = await fetch(client, f"http://flip:{port}/", access=Access.PUBLIC)
            assert response.body == b"public"
            assert names.asked == ["flip"]
            with pytest.raises(FetchError, match="not permitted here"):
                await fetch(client, f"http://flip:{port}/", access=Access.PUBLIC)
    assert victim.num_connections == 0


@pytest.mark.parametrize(
    ("access", "path", "permitted"),
    [
        (Access.PUBLIC, "/announce", False),
        (Access.TRACKER, "/announce?x=1", True),
        (Access.TRACKER, "/scrape", True),
        (Access.TRACKER, "/admin", False),
        (Access.WEB_SEED, "/file", True),
        (Access.WEB_SEED, "/file?delete=all", False),
        (Access.ANY, "/x?y", True),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "here"])
async def test_local_servers_depend_on_the_purpose(
    host: str, access: Access, path: str, permitted: bool
) -> None:
    server = Server(ok(b"x"))
    async with serving(server) as port, client_of(FakeNames(here=[["127.0.0.1"]])) as client:
        url = f"http://{host}:{port}{path}"
        if permitted:
            assert (await fetch(client, url, access=access)).body == b"x"
        else:
            with pytest.raises(FetchError, match=r"address 127\.0\.0\.1 is not permitted"):
                await fetch(client, url, access=access)
            assert server.num_connections == 0


async def test_a_local_tracker_cannot_redirect_to_another_path() -> None:
    server = Server(redirect("/admin"))
    async with serving(server) as port, client_of() as client:
        with pytest.raises(FetchError, match="not permitted"):
            await fetch(client, f"http://127.0.0.1:{port}/announce", access=Access.TRACKER)
        assert server.paths == ["/announce"]


async def test_neither_proxies_nor_passwords_are_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Limit: N6. A password that is kept for a host is none of a tracker's on that host."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("no_proxy", raising=False)
    proxy, server = Server(ok(b"proxy")), Server(ok(b"x"))
    async with serving(proxy) as proxy_port, serving(server) as port, client_of() as client:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy_port}")
        assert (await fetch(client, f"http://127.0.0.1:{port}/")).body == b"x"
        assert proxy.requests == []
        assert "uthorization" not in server.requests[0]


async def test_credentials_stay_with_their_origin() -> None:
    other = Server(ok(b"x"))
    async with serving(other, "127.0.0.2") as other_port, client_of() as client:
        server = Server(
            lambda path: {
                "/same": redirect("/there"),
                "/away": redirect(f"http://127.0.0.2:{other_port}/"),
            }.get(path, ok(b"x"))
        )
        async with serving(server) as port:
            await fetch(client, f"http://us%65r:pass@127.0.0.1:{port}/same")
            assert all("Authorization: Basic dXNlcjpwYXNz" in text for text in server.requests)
            assert f"Host: 127.0.0.1:{port}\r\n" in server.requests[0]
            headers = {"authorization": "Bearer t", "X-Other": "1"}
            for url in (f"http://u:p@127.0.0.1:{port}/away", f"http://127.0.0.1:{port}/away"):
                await fetch(client, url, headers=headers)
                assert "authorization: Bearer t" in server.requests[-1]
                assert "Authorization: Basic" not in server.requests[-1]
                assert "uthorization" not in other.requests[-1]
                assert "X-Other: 1" in other.requests[-1]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "scheme"),
        ("ftp://h/", "scheme 'ftp'"),
        ("http://", "no usable host"),
        ("http://127.0.0.1:1/", "connection refused"),
        ("http://nowhere.example/", "cannot resolve 'nowhere.example': unknown"),
    ],
)
async def test_what_cannot_be_fetched(url: str, reason: str) -> None:
    async with client_of() as client:
        with pytest.raises(FetchError, match=reason):
            await fetch(client, url)


# --- sizes and times (N5, P15) ------------------------------------------------------------


def bomb(length: int) -> bytes:
    encoder = zlib.compressobj(9, wbits=31)
    return b"".join([encoder.compress(bytes(MIB)) for _ in range(length // MIB)]) + encoder.flush()


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (ok(gzip.compress(b"text", mtime=0), "Content-Encoding: gzip"), b"text"),
        (ok(zlib.compress(b"text"), "Content-Encoding: Deflate"), b"text"),
        (ok(b"text", "Content-Encoding: identity"), b"text"),
        (ok(b"text", "Content-Encoding: none"), b"text"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\n", b""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            b"abc",
        ),
    ],
)
async def test_bodies_come_in_many_forms(answer: bytes, body: bytes) -> None:
    async with serving(Server(answer)) as port, client_of() as client:
        assert (await fetch(client, f"http://127.0.0.1:{port}/")).body == body


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ok(b"x" * 1001), "answer is too long"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000, "answer is too long"),
        (
            ok(gzip.compress(b"x" * 1001, mtime=0), "Content-Encoding: gzip"),
            "decompressed data is too long",
        ),
        (ok(bomb(16 * MIB), "Content-Encoding: gzip"), "too long"),
        (ok(gzip.compress(b"", mtime=0) * 17, "Content-Encoding: gzip"), "too many gzip members"),
        (ok(b"plain", "Content-Encoding: gzip"), "not gzip"),
        (ok(gzip.compress(b"text", mtime=0)[:-4], "Content-Encoding: gzip"), "ends too early"),
        (ok(b"x", "Content-Encoding: br"), "unknown compression 'br'"),
        (ok(b"x", "Content-Encoding: gzip, gzip"), "unknown compression"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort", "."),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "."),
        (b"", "."),
        (b"not http at all\r\n\r\n", "."),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n", "."),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5_000 + b"\r\n", "."),
    ],
)
async def test_bad_bodies_are_errors(answer: bytes, reason: str) -> None:
    async with serving(Server(answer)) as port, client_of() as client:
        with pytest.raises(FetchError, match=reason):
            await fetch(client, f"http://127.0.0.1:{port}/", max_length=1000)


async def test_a_body_may_have_exactly_its_limit() -> None:
    async with serving(Server(ok(b"x" * 1000))) as port, client_of() as client:
        assert len((await fetch(client, f"http://127.0.0.1:{port}/", max_length=1000)).body) == 1000


async def read_all(client: HttpClient, url: str) -> None:
    async with client.open(url, access=Access.ANY, max_length=10, read_timeout=0.05) as stream:
        while await stream.read():
            pass


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx"])
async def test_silence_is_bounded(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener, client_of() as client:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
        with pytest.raises(FetchError, match=r"no whole answer in 0\.05 s"):
            await fetch(client, url, timeout=0.05)
        with pytest.raises(FetchError, match="server is silent"):
            await read_all(client, url)


async def test_a_chunk_that_is_malformed_later_on_is_not_waited_for() -> None:
    """Limit: N8. The library closes the connection by itself then, and says so to nobody."""
    was_read = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await was_read.wait()
        writer.write(b"no number\r\n")
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener, client_of() as client, asyncio.timeout(30):
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
        async with client.open(
            url, access=Access.ANY, max_length=10, keep_alive=True, read_timeout=0.2
        ) as stream:
            assert await stream.read() == b"x"
            was_read.set()
            with pytest.raises(FetchError):
                await stream.read()


async def test_cancelling_closes_the_connection() -> None:
    closed = asyncio.Event()
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        closed.set()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener, client_of() as client:
        task = asyncio.ensure_future(
            fetch(client, f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/")
        )
        await asyncio.wait_for(asked.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 5)


# --- TLS (N7) -----------------------------------------------------------------------------


class Authority:
    """A certificate authority for one test run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = self._sign(self.name, self.key.public_key(), authority=True)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        *,
        authority: bool = False,
        days: int = 1,
        names: Sequence[x509.GeneralName] = (),
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        signer: ec.EllipticCurvePrivateKey | None = None,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if signer else self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=5))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            # Python 3.13 wants certificates as RFC 5280 does.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    (signer or self.key).public_key()
                ),
                critical=False,
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=authority,
                    crl_sign=authority,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(signer or self.key, hashes.SHA256())

    def trusting(self) -> ssl.SSLContext:
        pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=pem)

    def server(
        self,
        *,
        names: Sequence[str] = ("t.example", "127.0.0.1"),
        days: int = 1,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        self_signed: bool = False,
    ) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")]),
            key.public_key(),
            days=days,
            names=[
                x509.IPAddress(ipaddress.ip_address(name))
                if name[0].isdigit()
                else x509.DNSName(name)
                for name in names
            ],
            usage=usage,
            signer=key if self_signed else None,
        )
        path = self._folder / f"{certificate.serial_number}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


NAMES = {"t_example": [["127.0.0.1"]], "other_example": [["127.0.0.1"]]}


@pytest.mark.parametrize("host", ["t.example", "127.0.0.1"])
async def test_a_good_certificate_is_accepted(authority: Authority, host: str) -> None:
    server = Server(ok(b"safe"))
    async with (
        serving(server, context=authority.server()) as port,
        client_of(FakeNames(**NAMES), authority.trusting()) as client,
    ):
        assert (await fetch(client, f"https://{host}:{port}/")).body == b"safe"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ({"days": -1}, "expired"),
        ({"names": ["wrong.example"]}, "mismatch"),
        ({"self_signed": True}, "self.signed"),
        ({"usage": ExtendedKeyUsageOID.CLIENT_AUTH}, "purpose|unsuitable"),
    ],
)
async def test_bad_certificates_are_refused(
    authority: Authority, kind: dict[str, object], reason: str
) -> None:
    """Limit: N7."""
    server = Server(ok(b"unsafe"))
    context = authority.server(**kind)  # type: ignore[arg-type]
    async with (
        serving(server, context=context) as port,
        client_of(FakeNames(**NAMES), authority.trusting()) as client,
    ):
        with pytest.raises(FetchError, match=f"certificate not accepted: .*({reason})"):
            await fetch(client, f"https://t.example:{port}/")
    assert server.requests == []


async def test_an_unknown_authority_is_refused(authority: Authority) -> None:
    """Limit: N7, with the system's own certificates."""
    async with (
        serving(Server(ok(b"unsafe")), context=authority.server()) as port,
        client_of(FakeNames(**NAMES)) as client,
    ):
        with pytest.raises(FetchError, match="certificate not accepted"):
            await fetch(client, f"https://t.example:{port}/")
        assert client._context().minimum_version is ssl.TLSVersion.TLSv1_2
        assert client._context() is client._context()


async def test_a_server_without_tls_is_named_as_one() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener, client_of() as client:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(FetchError, match=r"^no TLS connection: .*(version|record)"):
            await fetch(client, f"https://127.0.0.1:{port}/")


async def test_a_pooled_connection_belongs_to_its_name(authority: Authority) -> None:
    """Another name on the same address does not inherit a verified connection."""
    server = Server(ok(b"x"))
    async with (
        serving(server, context=authority.server()) as port,
        client_of(FakeNames(**NAMES), authority.trusting()) as client,
    ):
        async with client.open(
            f"https://t.example:{port}/", access=Access.ANY, max_length=10, keep_alive=True
        ) as stream:
            assert await stream.read() == b"x"
            await stream.read()
        with pytest.raises(FetchError, match="certificate not accepted"):
            async with client.open(
                f"https://other.example:{port}/", access=Access.ANY, max_length=10, keep_alive=True
            ):
                pass


async def test_credentials_never_go_from_https_to_http(authority: Authority) -> None:
    plain = Server(ok(b"x"))
    async with serving(plain) as plain_port:
        server = Server(redirect(f"http://t.example:{plain_port}/"))
        async with (
            serving(server, context=authority.server()) as port,
            client_of(FakeNames(**NAMES), authority.trusting()) as client,
        ):
            with pytest.raises(FetchError, match="redirect from https to http with credentials"):
                await fetch(client, f"https://u:p@t.example:{port}/")
            assert plain.num_connections == 0
            assert (await fetch(client, f"https://t.example:{port}/")).body == b"x"


async def test_from_https_to_https_elsewhere_credentials_stay_behind(authority: Authority) -> None:
    other = Server(ok(b"x"))
    async with serving(other, context=authority.server()) as other_port:
        server = Server(redirect(f"https://t.example:{other_port}/"))
        async with (
            serving(server, context=authority.server()) as port,
            client_of(FakeNames(**NAMES), authority.trusting()) as client,
        ):
            assert (await fetch(client, f"https://u:p@t.example:{port}/")).body == b"x"
            assert "Authorization" in server.requests[0]
            assert "uthorization" not in other.requests[0]


@pytest.mark.parametrize("weakness", ["mode", "host"])
def test_a_context_that_does_not_verify_is_a_bug(weakness: str) -> None:
    """Limit: N7. There is no way to an unverified connection."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if weakness == "mode":
        context.verify_mode = ssl.CERT_NONE
    with pytest.raises(MisuseError, match="does not verify"):
        HttpClient(resolver=FakeNames(), user_agent="x", ssl_context=context)


async def test_a_server_that_is_no_tls_server() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ok(b"x"))
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener, client_of() as client:
        with pytest.raises(FetchError):
            await fetch(client, f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}/")


class DripResponse:
    """Stands for aiohttp's response: a body that comes in given parts."""

    status = 200

    def __init__(self, encoding: str, parts: list[bytes]) -> None:
        self.headers = {"Content-Encoding": encoding}
        self.content = self
        self._parts = parts

    async def readany(self) -> bytes:
        return self._parts.pop(0) if self._parts else b""


async def test_parts_that_hold_no_text_yet_are_no_end() -> None:
    data = gzip.compress(b"text", mtime=0)
    response = DripResponse("gzip", [data[i : i + 1] for i in range(len(data))])
    stream = HttpStream(
        response,  # type: ignore[arg-type]
        "http://h/",
        100,
        came_from_public=False,
    )
    parts = []
    while part := await stream.read():
        parts.append(part)
    assert b"".join(parts) == b"text"


def test_aiohttp_is_not_imported_before_it_is_needed() -> None:
    program = "import sys, bittern.net.http; sys.exit('aiohttp' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, env=environment, check=False).returncode == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "server hung up without an answer"),
        (b"\x00\xff" * 200 + b"\r\n\r\n", "no HTTP answer: bad status line"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n", "no HTTP answer: "),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            "answer is cut off or malformed",
        ),
    ],
)
async def test_a_reason_is_short_and_tells_nothing_of_the_url(answer: bytes, reason: str) -> None:
    """URLs of trackers have passkeys in them."""
    async with serving(Server(answer)) as port, client_of() as client:
        with pytest.raises(FetchError, match=reason) as caught:
            await fetch(client, f"http://127.0.0.1:{port}/passkey/announce?secret=1")
    assert len(str(caught.value)) < 150
    assert "secret" not in str(caught.value)
    assert "passkey" not in str(caught.value)
