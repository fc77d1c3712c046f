"""
One client for all trackers of a session: URL in, answer out.

Speaks http, https and udp. A tracker whose host has IPv4 and IPv6 addresses is
told over both, since it learns our address from where we come (BEP 7); the
announces run side by side, each answer is handed on as it comes, and the whole
counts as answered when one of them is. A family that stays silent holds the
other up no longer than ``FAMILY_GRACE``. Of several addresses of a UDP tracker in one
family, one that was silent is asked again after the others only; ``net.http`` sees to
those of the others.

At most ``MAX_HTTP_REQUESTS`` HTTP requests are under way in a session (Limit:
F11, libtorrent's figure too), few of them to one host; waiting for a place does not use up
a tracker's time.

Sources: BEP 3, BEP 7, BEP 15, BEP 31, BEP 41, BEP 48.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from bittern.codec.http_tracker import (
    announce_url,
    decode_announce,
    decode_scrape,
    scrape_url,
    tracker_url,
)
from bittern.codec.retry_after import parse_retry_after
from bittern.core.announce import AnnounceAnswer, AnnounceRequest, FailureAnswer, ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.errors import (
    FetchError,
    ResolveError,
    TrackerDecodeError,
    TrackerFailure,
    TrackerUnreachable,
)
from bittern.core.ids import InfoHash
from bittern.engine.sources.places import Places
from bittern.net.access import Access, AddressClass, classify
from bittern.net.dns import HostResolver
from bittern.net.http import HttpResponse
from bittern.net.udp_tracker import UdpTrackers

_T = TypeVar("_T")

MAX_HTTP_REQUESTS = 50
"""Limit: F11. HTTP announces and scrapes under way at once."""
MAX_HTTP_REQUESTS_PER_HOST = 8
"""Limit: F11. The same to one host, so that a dead one does not keep all others waiting."""
MAX_ANSWER_LENGTH = 1_048_576
"""Limit: N5. Bytes of an HTTP answer, after decompression."""
HTTP_TIMEOUT = 30.0
"""Limit: N5. Seconds for a whole HTTP request."""
UDP_TIMEOUT = 60.0
"""Seconds for a whole UDP request, connection id included."""
MAX_SILENT = 1_000
"""Addresses of which we remember that they were silent; the oldest are forgotten."""
FAMILY_GRACE = 5.0
"""Seconds that a second address family gets after the first has answered."""
MAX_RETRY_AFTER = 7 * 86_400
"""Longest ``Retry-After`` that is believed; seconds."""
_GONE = 410
_DEFAULT_UDP_PORT = 80


class HttpFetcher(Protocol):
    """What fetches documents; ``net.http.HttpClient`` or a fake."""

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
        """Return a whole answer, whatever its status; FetchError if there is none."""


class TrackerClient:
    """
    The client described in the module's text; belongs to one event loop.

    Args:
        http: for http and https trackers.
        udp: for udp trackers; None where there is no UDP.
        resolver: asked for the addresses of trackers.
    """

    def __init__(
        self,
        *,
        http: HttpFetcher,
        udp: UdpTrackers | None,
        resolver: HostResolver,
    ) -> None:
        self._http = http
        self._udp = udp
        self._resolver = resolver
        self._places = Places(MAX_HTTP_REQUESTS, MAX_HTTP_REQUESTS_PER_HOST)
        self._silent: dict[str, None] = {}
        """Addresses of UDP trackers that did not answer when last asked, the latest last."""

    async def announce(
        self,
        url: str,
        requests: Sequence[AnnounceRequest],
        *,
        answered: Callable[[AnnounceAnswer, str], None] = lambda _answer, _host: None,
    ) -> AnnounceAnswer:
        """
        Announce to the tracker at ``url``.

        Args:
            url: as the torrent gives it.
            requests: one for each info hash of the torrent (hybrid ones have two).
            answered: hears of each single answer as it comes, and from which address.

        Returns:
            All answers merged into one: the longest intervals, all peers, the highest counts.

        Raises:
            TrackerFailure: it refused; ``retry_after`` as it asked.
            TrackerUnreachable: it could not be reached, or not understood.
        """
        hosts = await self._hosts(url)

        async def one(request: AnnounceRequest, host: str) -> AnnounceAnswer:
            answer = await self._announce(url, request, host)
            answered(answer, host)
            return answer

        answers = await _first_and_friends(
            [one(request, host) for request in requests for host in hosts]
        )
        return merge_answers(answers)

    async def scrape(
        self, url: str, info_hashes: Sequence[InfoHash]
    ) -> dict[InfoHash, ScrapeEntry]:
        """
        Ask the tracker at ``url`` for the counts of some swarms; unknown ones are absent.

        Raises:
            TrackerFailure: it refused, or its URL has no scrape form.
            TrackerUnreachable: as for ``announce``.
        """
        host = (await self._hosts(url))[0]
        if urlsplit(_checked(url)).scheme == "udp":
            udp, endpoint, _ = self._udp_target(url, host)
            return await self._ask(udp.scrape(endpoint, info_hashes), host)
        asked = scrape_url(url, info_hashes)
        if asked is None:
            raise TrackerFailure(
                "this tracker cannot be scraped", retry_after=math.inf, is_ours=True
            )
        response = await self._fetch(asked, ipv6=":" in host)
        answer = _understood(decode_scrape, response)
        return {key: entry for key, entry in answer.items() if key in info_hashes}

    # --- inside ------------------------------------------------------------------------------

    async def _hosts(self, url: str) -> list[str]:
        """Return one address of the tracker for each family that it has."""
        host = urlsplit(_checked(url)).hostname or ""
        try:
            addresses = await self._resolver.resolve(host)
        except ResolveError as error:
            raise TrackerUnreachable(str(error)) from error
        by_family: dict[bool, str] = {}
        places = {address: place for place, address in enumerate(self._silent)}
        for address in sorted(addresses, key=lambda address: places.get(address, -1)):
            by_family.setdefault(":" in address, address)
        return list(by_family.values())

    async def _announce(self, url: str, request: AnnounceRequest, host: str) -> AnnounceAnswer:
        if urlsplit(_checked(url)).scheme == "udp":
            udp, endpoint, url_data = self._udp_target(url, host)
            return await self._ask(udp.announce(endpoint, request, url_data=url_data), host)
        response = await self._fetch(announce_url(url, request), ipv6=":" in host)
        return _understood(decode_announce, response)

    async def _ask(self, request: Coroutine[object, object, _T], host: str) -> _T:
        """Wait for the answer to a UDP request, and remember whether one came."""
        try:
            async with asyncio.timeout(UDP_TIMEOUT):
                answer = await request
        except (TimeoutError, TrackerUnreachable) as error:
            self._silent.pop(host, None)
            self._silent[host] = None
            if len(self._silent) > MAX_SILENT:
                del self._silent[next(iter(self._silent))]
            if isinstance(error, TrackerUnreachable):
                raise
            raise TrackerUnreachable("tracker is silent") from None
        self._silent.pop(host, None)
        return answer

    def _udp_target(self, url: str, host: str) -> tuple[UdpTrackers, Endpoint, bytes]:
        if self._udp is None:
            raise TrackerUnreachable("no UDP here")
        if classify(host) is AddressClass.FORBIDDEN:
            raise TrackerFailure(
                f"{host} is no address to connect to", retry_after=math.inf, is_ours=True
            )
        parts = urlsplit(_checked(url))
        url_data = parts.path + (f"?{parts.query}" if parts.query else "")
        endpoint = Endpoint(host, parts.port or _DEFAULT_UDP_PORT)
        return self._udp, endpoint, url_data.encode("ascii")

    async def _fetch(self, url: str, *, ipv6: bool) -> HttpResponse:
        async with self._places.at(urlsplit(url).hostname or ""):
            try:
                return await self._http.fetch(
                    url,
                    access=Access.TRACKER,
                    max_length=MAX_ANSWER_LENGTH,
                    timeout=HTTP_TIMEOUT,
                    ipv6=ipv6,
                )
            except FetchError as error:
                raise TrackerUnreachable(str(error)) from error


def _checked(url: str) -> str:
    """Return the URL in the form that is sent; one that never can be is a lasting failure."""
    try:
        return tracker_url(url)
    except TrackerDecodeError as error:
        raise TrackerFailure(str(error), retry_after=math.inf, is_ours=True) from error


def _understood(decode: Callable[[bytes], _T | FailureAnswer], response: HttpResponse) -> _T:
    """Return what an HTTP answer says; raise what it means if it says no."""
    answer: _T | FailureAnswer | None = None
    reason = f"HTTP status {response.status}"
    try:
        answer = decode(response.body)
    except TrackerDecodeError as error:
        if response.status == 200:
            reason = f"answer not understood: {error}"
    if isinstance(answer, FailureAnswer):
        raise TrackerFailure(answer.reason, retry_after=answer.retry_after)
    if response.status == _GONE:
        raise TrackerFailure("gone for good", retry_after=math.inf)  # Limit: N5
    if answer is not None and response.status == 200:
        return answer
    delay = parse_retry_after(response.headers)
    if delay is not None:
        raise TrackerFailure(reason, retry_after=min(delay, MAX_RETRY_AFTER))
    raise TrackerUnreachable(reason, is_silent=False)


async def _first_and_friends(
    announces: Sequence[Coroutine[object, object, AnnounceAnswer]],
) -> list[AnnounceAnswer]:
    """
    Run all, and return the answers of those that end soon after the first success.

    Raises:
        TrackerFailure: none succeeded and one was refused.
        TrackerUnreachable: none succeeded.
    """
    tasks = [asyncio.ensure_future(announce) for announce in announces]
    try:
        waiting = set(tasks)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if waiting and any(task.exception() is None for task in done):
                await asyncio.wait(waiting, timeout=FAMILY_GRACE)
                break
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    answers: list[AnnounceAnswer] = []
    error: BaseException = TrackerUnreachable("nobody was asked")
    for result in results:
        match result:
            case AnnounceAnswer():
                answers.append(result)
            case TrackerFailure():
                error = result  # says more than silence
            case TrackerUnreachable() | asyncio.CancelledError():
                error = error if isinstance(error, TrackerFailure) else result
            case _:
                raise result  # a bug of ours
    if not answers:
        raise error
    return answers


def merge_answers(answers: Sequence[AnnounceAnswer]) -> AnnounceAnswer:
    """Return at least one answer of one tracker as one answer."""
    first = answers[0]
    if len(answers) == 1:
        return first
    return AnnounceAnswer(
        interval=max(answer.interval for answer in answers),
        min_interval=max(answer.min_interval for answer in answers),
        peers=tuple(dict.fromkeys(peer for answer in answers for peer in answer.peers)),
        num_seeds=_highest([answer.num_seeds for answer in answers]),
        num_leechers=_highest([answer.num_leechers for answer in answers]),
        num_downloaded=_highest([answer.num_downloaded for answer in answers]),
        external_host=next((a.external_host for a in answers if a.external_host), None),
        tracker_id=next((a.tracker_id for a in answers if a.tracker_id), b""),
        warning=next((a.warning for a in answers if a.warning), None),
    )


def _highest(counts: Sequence[int | None]) -> int | None:
    return max((count for count in counts if count is not None), default=None)
