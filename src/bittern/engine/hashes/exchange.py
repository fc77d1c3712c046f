"""
Hash messages of a v2 or hybrid torrent that is awake, both ways.

Joins to the swarm who asks (``seeker``), who answers (``server``), who mends pieces with what
was learned (``engine.pieces.repair``) and who makes what nobody gives (``layer_maker``).

Sources: BEP 52; threats.md H10.
"""

from __future__ import annotations

from bittern.engine.hashes.layer_maker import LayerMaker
from bittern.engine.hashes.seeker import HashSeeker
from bittern.engine.hashes.server import HashServer
from bittern.engine.peers.connection import PeerConnection
from bittern.engine.pieces.repair import Repair
from bittern.proto import peer_events
from bittern.proto.peer_events import PeerEvent


class HashExchange:
    """
    Both sides for one swarm.

    Args:
        seeker: asks peers.
        server: answers them.
        repair: mends damaged pieces.
        maker: makes layers that no peer gives.
    """

    def __init__(
        self, seeker: HashSeeker, server: HashServer, repair: Repair, maker: LayerMaker
    ) -> None:
        self.seeker = seeker
        self._server = server
        self._repair = repair
        self._maker = maker

    def peer_opened(self, peer: PeerConnection) -> None:
        """Hear of a connection whose handshake is done."""
        self.seeker.peer_opened(peer)

    def piece_lost(self, index: int) -> None:
        """Hear that a piece we had is damaged on disk."""
        self._repair.add([index])

    def tick(self, *, now: float) -> None:
        """Do what is due; called about once a second."""
        self.seeker.tick(now=now)
        self._repair.tick(now=now)
        self._maker.tick()

    def peer_event(self, peer: PeerConnection, event: PeerEvent, *, now: float) -> None:
        """Act on a hash message; other events are none of its business."""
        match event:
            case peer_events.HashesRequested(wanted):
                self._server.requested(peer, wanted, now=now)
            case peer_events.HashesReceived(what, hashes):
                self.seeker.hashes_received(peer, what, hashes, now=now)
            case peer_events.HashesRejected(wanted):
                self.seeker.rejected(peer, wanted, now=now)
            case _:
                pass

    def forget(self, peer: PeerConnection) -> None:
        """Drop what is kept of a connection that is gone."""
        self.seeker.forget(peer)
        self._server.forget(peer)

    def stop(self) -> None:
        """Take no further part."""
        self._repair.stop()
        self.seeker.stop()
        self._server.stop()
        self._maker.stop()
