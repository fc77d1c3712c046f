"""
One transfer between two programs: a seed, a leech, a place to meet, and the comparison.

The leech is started only once the seed has really announced itself, or accepts connections, so no
time is lost in waiting for a second announce and nothing depends on how fast a program starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.interop.clients.base import Client, Scheme, Transport
from tests.interop.place import Endpoint, Place, namespace_pair, namespaces_missing
from tests.interop.process import InteropError
from tests.interop.rendezvous import rendezvous
from tests.interop.samples import Sample
from tests.interop.trackers.base import Tracker

# How long a program may take from its start until it has announced itself or listens.
START_TIMEOUT = 40.0


@dataclass(frozen=True, slots=True)
class Pair:
    """
    What to run.

    Attributes:
        seed: the client that has everything.
        leech: the client that has nothing.
        transport: what both are told to use.
        is_magnet: the leech gets a magnet link and must fetch the info dictionary (BEP 9).
    """

    seed: type[Client]
    leech: type[Client]
    transport: Transport = Transport.TCP
    is_magnet: bool = False

    @property
    def needs_namespace(self) -> bool:
        """Whether one of the two refuses loopback addresses."""
        return self.seed.needs_namespace or self.leech.needs_namespace

    def unsupported(self) -> str | None:
        """Return why the pair makes no sense, or None when it can be run."""
        for client in (self.seed, self.leech):
            if self.transport not in client.transports:
                return f"{client.name} has no {self.transport.value}"
        return None

    def missing(self) -> str | None:
        """Return why the pair cannot be run on this machine, or None when it can."""
        reasons = [self.seed.missing(), self.leech.missing()]
        if self.needs_namespace:
            reasons.append(namespaces_missing())
        return next((reason for reason in reasons if reason), None)


@dataclass(frozen=True, slots=True)
class Transfer:
    """
    A transfer that succeeded.

    Attributes:
        seconds: from the start of the leech's program until it said that it was complete.
        total_length: bytes of the torrent.
    """

    seconds: float
    total_length: int


async def transfer_by_tracker(
    pair: Pair,
    sample: Sample,
    scratch: Path,
    *,
    tracker: type[Tracker] | None = None,
    scheme: Scheme = Scheme.HTTP,
    timeout: float = 60.0,
) -> Transfer:
    """
    Let the leech find the seed at a tracker, and compare every byte.

    Args:
        pair: the two clients.
        sample: the torrent; it is copied, so it can serve many transfers at once.
        scratch: an empty or absent folder for everything that arises.
        tracker: the tracker program; None is the harness's own (HTTP only).
        scheme: how the tracker is reached.
        timeout: seconds for the download itself.

    Raises:
        InteropError: anything went wrong; the text tells what and quotes both programs.
    """
    with _places(pair) as (seed_place, leech_place):
        async with _meeting(tracker, scheme, seed_place, sample, scratch) as (url, wait_seed):
            local = sample.announced_at(url, scratch)
            if not pair.seed.has_v2:
                local.write_pads()
            source = sample.magnet(url) if pair.is_magnet else str(local.torrent)
            async with (
                pair.seed(seed_place, scratch / "seed", transport=pair.transport) as seed,
                pair.leech(leech_place, scratch / "leech", transport=pair.transport) as leech,
            ):
                with _quoting(seed, leech):
                    await seed.seed(local.torrent, local.data_dir, port=seed_place.free_port())
                    await seed.program.guard(wait_seed())
                    return await _download(seed, leech, source, sample, scratch, timeout=timeout)


async def transfer_between_peers(
    pair: Pair, sample: Sample, scratch: Path, *, does_seed_dial: bool, timeout: float = 60.0
) -> Transfer:
    """
    Name one program's endpoint to the other, without any tracker, and compare every byte.

    Args:
        pair: the two clients; the one that dials must be able to be told a peer.
        sample: the torrent.
        scratch: an empty or absent folder.
        does_seed_dial: the seed connects to the leech instead of the other way round.
        timeout: seconds for the download itself.

    Raises:
        InteropError: anything went wrong.
    """
    assert (pair.seed if does_seed_dial else pair.leech).dials_peers
    with _places(pair) as (seed_place, leech_place):
        local = sample.announced_at(None, scratch)
        if not pair.seed.has_v2:
            local.write_pads()
        source = sample.magnet(None) if pair.is_magnet else str(local.torrent)
        seed_at = (seed_place.address, seed_place.free_port())
        async with (
            pair.seed(seed_place, scratch / "seed", transport=pair.transport) as seed,
            pair.leech(leech_place, scratch / "leech", transport=pair.transport) as leech,
        ):
            with _quoting(seed, leech):

                async def start_seed(*peers: Endpoint) -> None:
                    await seed.seed(local.torrent, local.data_dir, port=seed_at[1], peers=peers)

                if does_seed_dial:
                    return await _download(
                        seed, leech, source, sample, scratch, timeout=timeout, invite=start_seed
                    )
                await start_seed()
                await seed.program.guard(_wait_listening(seed_place, seed_at))
                return await _download(
                    seed, leech, source, sample, scratch, timeout=timeout, peers=[seed_at]
                )


async def _download(
    seed: Client,
    leech: Client,
    source: str,
    sample: Sample,
    scratch: Path,
    *,
    timeout: float,
    peers: Sequence[Endpoint] = (),
    invite: Callable[[Endpoint], Awaitable[None]] | None = None,
) -> Transfer:
    """Run the leech to its end; ``invite`` starts the seed with its endpoint once it listens."""
    download_dir = (scratch / "download").resolve()
    download_dir.mkdir(parents=True)
    endpoint = (leech.place.address, leech.place.free_port())
    started_at = time.monotonic()
    await leech.leech(source, download_dir, port=endpoint[1], peers=peers)
    if invite is not None:
        await leech.program.guard(_wait_listening(leech.place, endpoint))
        await invite(endpoint)
    await seed.program.guard(leech.wait_complete(timeout=timeout))
    seconds = time.monotonic() - started_at
    await leech.stop()
    if differences := sample.differences(download_dir, ignore_empty=not leech.creates_empty_files):
        raise InteropError(f"{leech.name} says it is complete, but:\n" + "\n".join(differences))
    return Transfer(seconds, sample.total_length)


@contextlib.contextmanager
def _places(pair: Pair) -> Iterator[tuple[Place, Place]]:
    if not pair.needs_namespace:
        # Interop: rtorrent keeps one peer for each address. When a tracker lists it among the
        # peers, it dials itself and forgets everybody else at its own address.
        has_many = sys.platform == "linux"
        yield Place("127.0.0.1"), Place("127.0.0.2" if has_many else "127.0.0.1")
        return
    with namespace_pair() as places:
        yield places


@contextlib.asynccontextmanager
async def _meeting(
    tracker: type[Tracker] | None, scheme: Scheme, place: Place, sample: Sample, scratch: Path
) -> AsyncIterator[tuple[str, Callable[[], Coroutine[None, None, None]]]]:
    """Run the tracker; yield its announce URL and a call that waits for the seed's announce."""
    if tracker is None:
        async with rendezvous(place) as meeting:

            async def wait_announce() -> None:
                await meeting.wait_seed(sample.info_hash, timeout=START_TIMEOUT)

            yield meeting.url, wait_announce
        return
    async with tracker(place, scratch / "tracker") as program:
        await program.start([sample.info_hash])

        async def wait_scrape() -> None:
            await program.wait_seed(sample.info_hash, timeout=START_TIMEOUT)

        yield program.announce_url(scheme), wait_scrape


@contextlib.contextmanager
def _quoting(*clients: Client) -> Iterator[None]:
    """Add the end of every program's output to an error."""
    try:
        yield
    except InteropError as error:
        text = str(error)
        outputs = [
            f"--- {client.name} ({client.scratch})\n{client.tail()}"
            for client in clients
            if client.tail() not in text
        ]
        raise InteropError("\n".join([text, *outputs])) from error


async def _wait_listening(place: Place, endpoint: Endpoint) -> None:
    """Wait until somebody accepts TCP connections there."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        with place.socket() as probe:
            # Both ends are on this machine: the kernel answers at once, so this does not block.
            if probe.connect_ex(endpoint) == 0:
                return
        if time.monotonic() > deadline:
            raise InteropError(f"nobody listens at {endpoint} after {START_TIMEOUT:g} s")
        await asyncio.sleep(0.05)
