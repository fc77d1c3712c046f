"""
Sources of peers that are heard, not asked: the user, those who connect to us, peer exchange.

What each has named is counted where every endpoint passes, in
``policy.candidates``; here it becomes a status that a person can read.

Sources: BEP 9 (``x.pe``), BEP 11 (peer exchange).
"""

from __future__ import annotations

from collections.abc import Callable

from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.engine.sources.base import DiscoveringTorrent
from bittern.policy.candidates import Source
from bittern.proto.extended import UT_PEX


class _PassiveSource:
    """A source that nobody can ask."""

    __slots__ = ("_torrent",)

    def __init__(self, torrent: DiscoveringTorrent) -> None:
        self._torrent = torrent

    def start(self, name: str) -> None:
        """Do nothing: it speaks up by itself."""

    def completed(self) -> None:
        """Do nothing."""

    def ask_now(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    def _status(self, kind: SourceKind, source: Source, silence: str) -> SourceStatus:
        heard = self._torrent.candidates.heard(source)
        if heard is None:
            return SourceStatus(kind=kind, state=SourceState.WAITING, message=silence)
        return SourceStatus(
            kind=kind,
            state=SourceState.WORKING,
            last_answer_at=heard.at,
            num_peers=heard.num_last,
            num_found=heard.num_named,
        )


class GivenPeers(_PassiveSource):
    """Endpoints from the user and from a magnet link; silent when there are none."""

    __slots__ = ()

    def statuses(self) -> list[SourceStatus]:
        """Return how many were given, by each that gave any."""
        return [
            self._status(SourceKind(source), source, "")
            for source in (Source.USER, Source.LINK)
            if self._torrent.candidates.heard(source) is not None
        ]


class IncomingPeers(_PassiveSource):
    """
    Peers that found us.

    Args:
        torrent: whose they are.
        port: tells where we take connections; 0 for nowhere.
        is_enabled: False when the user wants none.
    """

    __slots__ = ("_is_enabled", "_port")

    def __init__(
        self, torrent: DiscoveringTorrent, *, port: Callable[[], int], is_enabled: bool
    ) -> None:
        super().__init__(torrent)
        self._port = port
        self._is_enabled = is_enabled

    def statuses(self) -> list[SourceStatus]:
        """Return who came, or why nobody can."""
        kind, port = SourceKind.INCOMING, self._port()
        if not port:
            reason = "no port could be opened" if self._is_enabled else "switched off"
            return [SourceStatus(kind=kind, state=SourceState.OFF, message=reason)]
        silence = f"nobody has connected to our port {port} yet"
        return [self._status(kind, Source.INCOMING, silence)]


class ExchangedPeers(_PassiveSource):
    """Endpoints that connected peers name (BEP 11); each speaks about once a minute."""

    __slots__ = ()

    def statuses(self) -> list[SourceStatus]:
        """Return what was named, or that nobody is connected who would."""
        roster = self._torrent.roster
        peers = [] if roster is None else [peer for peer in roster.peers if peer.is_open]
        count = sum(UT_PEX in peer.protocol.remote_extensions for peer in peers)
        if not peers:
            silence = "no peer is connected that could name others"
        elif not count:
            silence = f"none of {len(peers)} connected peers does peer exchange"
        else:
            silence = (
                f"{count} of {len(peers)} connected peers may name others, about once a minute"
            )
        return [self._status(SourceKind.PEX, Source.PEX, silence)]
