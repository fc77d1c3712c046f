"""
The one HTTP client: trackers, web seeds, .torrent files by URL.

Everything fetched is somebody else's wish, so every fetch is guarded in the same
way, and there is no other way:

- http and https only; a host name is resolved once, its addresses are checked
  (``net.access``), and the connection goes to exactly such an address;
- redirects are followed by us, at most ``MAX_REDIRECTS``, and each is checked like
  the first; credentials stay with their origin and never go from https to http;
- certificates are always verified, TLS 1.2 at least; no switch turns that off;
- the body is cut off at a length, after decompression, and at a ratio
  (``codec.inflate``); times are limited, and cancelling closes the connection;
- no cookies, no proxies from the environment, no ``Referer``.

aiohttp does the wire. It is imported on first use, because that takes a quarter of
a second. URLs reach it encoded, since it would rewrite the escapes of an info hash.

Limits: N6, N7, P15. Sources: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote_to_bytes, urljoin, urlsplit, urlunsplit

from bittern.codec.inflate import PLAIN, Inflater
from bittern.codec.url import normalise_url
from bittern.core.errors import DecodeError, FetchError, MisuseError, ResolveError
from bittern.net.access import Access, AddressClass, classify, refusal
from bittern.net.dns import HostResolver
from bittern.net.words import words_of

if TYPE_CHECKING:
    import aiohttp

MAX_REDIRECTS = 5
"""Limit: N6."""
MAX_ADDRESS_TRIES = 3
"""Addresses of one host that are tried in turn."""
CONNECT_TIMEOUT = 10.0
"""Seconds for each of them, TLS included."""
READ_TIMEOUT = 20.0
"""Seconds without a byte after which a server counts as gone."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class HttpStream:
    """
    An answer whose body is read as it comes; made by ``HttpClient.open``.

    Attributes:
        status: of the answer.
        headers: names in lower case.
        url: what answered, normalised: where redirects have led.
        came_from_public: some hop was at a public address. Whoever goes to ``url`` by itself
            later must hold to that (``Access.PUBLIC``), as the redirect would have had to.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        url: str,
        max_length: int,
        *,
        came_from_public: bool,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        self.status: int = response.status
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items()
        }
        self.url = url
        self.came_from_public = came_from_public
        self._response = response
        self._max_length = max_length
        self._read_timeout = read_timeout
        self._length = 0
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        self._inflater = None if encoding in PLAIN else Inflater(encoding, max_length=max_length)

    async def read(self, limit: int | None = None) -> bytes:
        """
        Return the next part of the body, decompressed; empty at its end.

        Args:
            limit: bytes as they were sent, at most; None for all that is there.

        Raises:
            FetchError: the connection broke, or a limit was exceeded.
        """
        with _mapped_errors():
            while data := await self._read(limit):
                self._length += len(data)
                if self._length > self._max_length:
                    raise DecodeError("answer is too long", limit=self._max_length)
                if self._inflater is not None:
                    data = self._inflater.decode(data)
                if data:
                    return data
            if self._inflater is not None:
                self._inflater.finish()
            return b""

    async def _read(self, limit: int | None) -> bytes:
        # aiohttp closes the connection when a chunk is malformed, stops its clock with that, and
        # leaves whoever waits for more of the body to wait for ever.
        content = self._response.content
        async with asyncio.timeout(self._read_timeout):
            return await (content.readany() if limit is None else content.read(limit))


class HttpClient:
    """
    The client described in the module's text; belongs to one event loop.

    Args:
        resolver: asked for the addresses of host names.
        user_agent: what we call ourselves.
        ssl_context: instead of the system's certificates; it must verify.
        bind_hosts: our own address to use, at most one of each family.

    Raises:
        MisuseError: ``ssl_context`` does not verify (N7).
    """

    def __init__(
        self,
        *,
        resolver: HostResolver,
        user_agent: str,
        ssl_context: ssl.SSLContext | None = None,
        bind_hosts: tuple[str, ...] = (),
    ) -> None:
        if ssl_context is not None and not (
            ssl_context.verify_mode is ssl.CERT_REQUIRED and ssl_context.check_hostname
        ):
            raise MisuseError("a TLS context that does not verify")
        self._resolver = resolver
        self._user_agent = user_agent
        self._ssl_context = ssl_context
        self._bind_hosts = {":" in host: host for host in bind_hosts}
        self._sessions: dict[tuple[bool, bool], aiohttp.ClientSession] = {}

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
        """
        Return a whole answer, whatever its status.

        Args:
            url: http or https.
            access: what it is for, which decides where it may lead.
            max_length: bytes of the body, compressed as well as decompressed.
            timeout: seconds for everything: names, redirects, body.
            headers: sent as well.
            ipv6: connect over this family only; None for whichever works.

        Raises:
            FetchError: it could not be had, or was not permitted; the text says why.
        """
        try:
            async with (
                asyncio.timeout(timeout),
                self.open(
                    url, access=access, max_length=max_length, headers=headers, ipv6=ipv6
                ) as stream,
            ):
                parts = []
                while part := await stream.read():
                    parts.append(part)
                return HttpResponse(stream.status, stream.headers, b"".join(parts), stream.url)
        except TimeoutError:
            raise FetchError(f"no whole answer in {timeout:g} s") from None

    @contextlib.asynccontextmanager
    async def open(
        self,
        url: str,
        *,
        access: Access,
        max_length: int,
        headers: Mapping[str, str] | None = None,
        ipv6: bool | None = None,
        keep_alive: bool = False,
        read_timeout: float = READ_TIMEOUT,
    ) -> AsyncIterator[HttpStream]:
        """
        Ask, follow redirects, and let the caller read the body as it comes.

        Args:
            url: as for ``fetch``, and so are ``access``, ``max_length``, ``headers``, ``ipv6``.
            access: what it is for.
            max_length: bytes of the body.
            headers: sent as well; an ``Accept-Encoding`` of ours is replaced by theirs.
            ipv6: connect over this family only.
            keep_alive: let a later request use the connection. Trackers answer one.
            read_timeout: seconds without a byte.

        Raises:
            FetchError: it could not be had, or was not permitted.
        """
        request = _Request(url, dict(headers or {}))
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(MAX_REDIRECTS + 1):
                response = await self._ask(
                    stack, request, access, ipv6=ipv6, keep_alive=keep_alive, timeout=read_timeout
                )
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or location is None:
                    break
                response.close()
                request.follow(location)
            else:
                raise FetchError(f"more than {MAX_REDIRECTS} redirects")
            with _mapped_errors():
                stream = HttpStream(
                    response,
                    request.url,
                    max_length,
                    came_from_public=request.came_from_public,
                    read_timeout=read_timeout,
                )
            yield stream

    async def _ask(
        self,
        stack: contextlib.AsyncExitStack,
        request: _Request,
        access: Access,
        *,
        ipv6: bool | None,
        keep_alive: bool,
        timeout: float,
    ) -> aiohttp.ClientResponse:
        """Make one hop: resolve, check, connect to that very address."""
        import aiohttp
        import yarl

        addresses = await self._permitted(request, access, ipv6)
        parts = request.parts
        limits = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=timeout)
        failure = FetchError("no address")
        for address in addresses[:MAX_ADDRESS_TRIES]:
            host = f"[{address}]" if ":" in address else address
            target = parts._replace(netloc=f"{host}:{request.port}", path=parts.path or "/")
            try:
                with _mapped_errors():
                    response = await stack.enter_async_context(
                        self._session(":" in address, keep_alive).get(
                            yarl.URL(urlunsplit(target), encoded=True),
                            headers={"Accept-Encoding": "gzip", **request.sent_headers()},
                            allow_redirects=False,
                            timeout=limits,
                            ssl=self._context() if parts.scheme == "https" else True,
                            server_hostname=parts.hostname if parts.scheme == "https" else None,
                        )
                    )
            except FetchError as error:
                failure = error
                continue
            if classify(address) is AddressClass.PUBLIC:
                request.came_from_public = True
            return response
        raise failure

    async def _permitted(
        self, request: _Request, access: Access, ipv6: bool | None
    ) -> tuple[str, ...]:
        """Return the addresses that this hop may connect to, at least one."""
        host = request.parts.hostname or ""
        try:
            addresses = await self._resolver.resolve(host)
        except ResolveError as error:
            raise FetchError(str(error)) from error
        if ipv6 is not None:
            addresses = tuple(address for address in addresses if (":" in address) is ipv6)
        permitted = []
        reason = f"{host[:253]} has no {'IPv6' if ipv6 else 'IPv4'} address"
        for address in addresses:
            refused = refusal(
                access, address, request.url, came_from_public=request.came_from_public
            )
            if refused is None:
                permitted.append(address)
            else:
                reason = refused
        if not permitted:
            raise FetchError(reason)
        return tuple(permitted)

    def _context(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
            self._ssl_context.minimum_version = ssl.TLSVersion.TLSv1_2
        return self._ssl_context

    def _session(self, ipv6: bool, keep_alive: bool) -> aiohttp.ClientSession:
        session = self._sessions.get((ipv6, keep_alive))
        if session is None:
            import aiohttp

            host = self._bind_hosts.get(ipv6)
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=aiohttp.ThreadedResolver(),  # never asked: hosts are addresses
                    limit=0,
                    force_close=not keep_alive,
                    local_addr=None if host is None else (host, 0),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                headers={"User-Agent": self._user_agent},
            )
            self._sessions[ipv6, keep_alive] = session
        return session

    async def close(self) -> None:
        """Close idle connections; idempotent."""
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()


class _Request:
    """One request on its way through redirects."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.came_from_public = False
        self._headers = headers
        self.url = ""
        self.parts = SplitResult("", "", "", "", "")
        self._set_url(url)
        userinfo, at, _ = self.parts.netloc.rpartition("@")
        self._credentials = {
            name: value for name, value in headers.items() if name.lower() == "authorization"
        }
        if at and not self._credentials:
            token = b64encode(unquote_to_bytes(userinfo)).decode()
            self._credentials = {"Authorization": f"Basic {token}"}
        for name in self._credentials:
            self._headers.pop(name, None)

    @property
    def port(self) -> int:
        return self.parts.port or _DEFAULT_PORTS[self.parts.scheme]

    def _set_url(self, url: str) -> None:
        try:
            self.url = normalise_url(url)
        except DecodeError as error:
            raise FetchError(str(error)) from error
        self.parts = urlsplit(self.url)

    def _origin(self) -> tuple[str, str | None, int]:
        return self.parts.scheme, self.parts.hostname, self.port

    def follow(self, location: str) -> None:
        """Go on to where a redirect leads."""
        origin, was_https = self._origin(), self.parts.scheme == "https"
        try:
            target = urljoin(self.url, location)
        except ValueError as error:
            raise FetchError(f"malformed redirect: {error}") from None
        self._set_url(target)
        if self._origin() != origin and self._credentials:
            # Limit: N6. What was given for one place is not shown to another.
            if was_https and self.parts.scheme == "http":
                raise FetchError("redirect from https to http with credentials")
            self._credentials = {}

    def sent_headers(self) -> dict[str, str]:
        host = self.parts.netloc.rpartition("@")[2]
        return {**self._headers, **self._credentials, "Host": host}


@contextlib.contextmanager
def _mapped_errors() -> Iterator[None]:
    """Turn what aiohttp, TLS and the system raise into ``FetchError``."""
    import aiohttp

    try:
        yield
    except DecodeError as error:
        raise FetchError(str(error)) from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise FetchError(f"certificate not accepted: {error.certificate_error}") from error
    except (aiohttp.ClientConnectorSSLError, ssl.SSLError) as error:
        # Its number is none of the system's.
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorSSLError) else error
        reason = getattr(cause, "reason", None) or _first_line(str(cause))
        raise FetchError(f"no TLS connection: {reason.replace('_', ' ').lower()}") from error
    except (aiohttp.ServerTimeoutError, TimeoutError) as error:
        raise FetchError("server is silent") from error
    except aiohttp.ClientResponseError as error:
        # Its text has the URL in it, and that the passkey.
        raise FetchError(f"no HTTP answer: {_first_line(error.message)}") from error
    except aiohttp.ServerDisconnectedError as error:
        raise FetchError("server hung up without an answer") from error
    except aiohttp.ClientPayloadError as error:
        raise FetchError("answer is cut off or malformed") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        text = words_of(number) if number else _first_line(str(error))
        raise FetchError(text or type(error).__name__) from error


def _first_line(text: str) -> str:
    """Return what is worth reading of a library's message."""
    line = text.strip().partition("\n")[0].rstrip(":. ")[:100]
    return line[:1].lower() + line[1:]
