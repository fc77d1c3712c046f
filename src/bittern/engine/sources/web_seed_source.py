"""
The web seeds of a torrent as a source, so that it can be asked how they stand.

They name no peers and are used by the swarm (``engine.pieces.web_seeds``); here it is
said what they are about, also while there is no swarm.

Source: BEP 19.
"""

from __future__ import annotations

from collections.abc import Sequence

from bittern.engine.services import Services
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.engine.sources.base import DiscoveringTorrent, switched_off_by


class WebSeedSource:
    """
    The web seeds of one running torrent.

    Args:
        torrent: whose they are.
        services: of the session.
        urls: as the torrent and the user give them; may be none.
        is_enabled: False when the user wants none.
    """

    __slots__ = ("_is_enabled", "_services", "_torrent", "_urls")

    def __init__(
        self,
        torrent: DiscoveringTorrent,
        services: Services,
        urls: Sequence[str],
        *,
        is_enabled: bool,
    ) -> None:
        self._is_enabled = is_enabled
        self._torrent = torrent
        self._services = services
        self._urls = tuple(urls)

    def set_urls(self, urls: Sequence[str]) -> None:
        """Have these from now on; the swarm is told by others."""
        self._urls = tuple(urls)
        self.ask_now()

    def start(self, name: str) -> None:  # noqa: ARG002  # as every source
        """Ask at once, where there is a swarm; later it does so by itself."""
        self.ask_now()

    def completed(self) -> None:
        """Do nothing."""

    def ask_now(self) -> None:
        """Ask those that may be asked."""
        if (swarm := self._torrent.swarm) is not None:
            swarm.web_seeds.ask(now=self._services.loop.time())

    def statuses(self) -> list[SourceStatus]:
        """Return one status for each web seed; none where there are none."""
        kind, swarm = SourceKind.WEB_SEED, self._torrent.swarm
        if not self._urls:
            return []
        if not self._is_enabled:
            reason = switched_off_by("enable_web_seeds")
            return [SourceStatus(kind=kind, state=SourceState.OFF, message=reason)]
        if swarm is not None:
            return swarm.web_seeds.statuses()
        reason = "nothing is missing" if self._torrent.is_complete else "the metadata is not known"
        return [
            SourceStatus(kind=kind, name=url, state=SourceState.WAITING, message=reason)
            for url in self._urls
        ]

    async def stop(self) -> None:
        """Do nothing: the swarm stops them."""
