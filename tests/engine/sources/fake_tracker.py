"""A tracker in the place of the client of all trackers, for sessions in a scene."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bittern.core.announce import AnnounceAnswer, AnnounceRequest, Event, ScrapeEntry
from bittern.core.endpoint import Endpoint
from bittern.core.errors import TrackerUnreachable
from bittern.core.ids import InfoHash
from bittern.engine.session import Session
from bittern.engine.sources.tracker_client import TrackerClient

URL = "http://tracker.example/announce"


class FakeClient(TrackerClient):
    """A tracker that names peers, or never answers."""

    def __init__(self) -> None:
        self.peers: tuple[Endpoint, ...] = ()
        self.external_host: str | None = None
        """Where it sees us."""
        self.host = "10.0.99.1"
        """Its own address."""
        self.is_dead = False
        self.counts = ScrapeEntry()
        """What it answers when it is scraped."""
        self.heard: list[tuple[str, Event, int]] = []
        self.hashes: list[set[InfoHash]] = []

    async def announce(
        self,
        url: str,
        requests: Sequence[AnnounceRequest],
        *,
        answered: Callable[[AnnounceAnswer, str], None] = lambda answer, host: None,
    ) -> AnnounceAnswer:
        self.heard.append((url, requests[0].event, requests[0].left))
        self.hashes.append({request.info_hash for request in requests})
        if self.is_dead:
            await asyncio.sleep(3600)
            raise TrackerUnreachable("silent")
        await asyncio.sleep(0.1)
        answer = AnnounceAnswer(peers=self.peers, external_host=self.external_host)
        answered(answer, self.host)
        return answer

    async def scrape(
        self, url: str, info_hashes: Sequence[InfoHash]
    ) -> dict[InfoHash, ScrapeEntry]:
        await asyncio.sleep(0.1)
        if self.is_dead:
            raise TrackerUnreachable("silent")
        return dict.fromkeys(info_hashes, self.counts)


class TrackedSession(Session):
    """A session whose trackers are played by ``client``."""

    client: FakeClient

    def _make_tracker_client(self) -> TrackerClient:
        return self.client


def tracked(client: FakeClient) -> type[Session]:
    """Return a session to be made in a scene, whose trackers are played by ``client``."""
    return type("Tracked", (TrackedSession,), {"client": client})
