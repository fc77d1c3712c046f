"""
Whether we want anything of peers: told to them, and acted on where neither side does.

Two that both want nothing have nothing to say to each other, and most clients close such a
connection. So who begins to want something again, because more files are chosen or a piece is
lost, says that as well, and those that were parted from are dialled anew.

Deviates from BEP 21: a super seed does not say that it wants nothing. Interop: libtorrent leaves
whoever says so and shows no piece that it lacks, as a super seed does between two pieces.

Source: BEP 21 (upload only).
"""

from __future__ import annotations

from bittern.engine.peers.connection import PeerConnection
from bittern.engine.peers.roster import Roster, exchange_flags
from bittern.engine.pieces.super_seeding import SuperSeeding
from bittern.policy.picker import Picker
from bittern.proto.extended import UPLOAD_ONLY


class UploadOnly:
    """
    What a swarm's peers are told of its wants.

    Args:
        picker: knows what is missing.
        roster: the connections.
        super_seeding: of the swarm.
    """

    __slots__ = ("_is_told", "_picker", "_roster", "_super_seeding", "_was_complete")

    def __init__(self, picker: Picker, roster: Roster, super_seeding: SuperSeeding) -> None:
        self._picker = picker
        self._roster = roster
        self._super_seeding = super_seeding
        self._is_told = self._is_on
        self._was_complete = picker.is_complete

    @property
    def _is_on(self) -> bool:
        return self._picker.is_complete and not self._super_seeding.is_on

    def has_completed(self) -> bool:
        """Tell, once, that the last of what is wanted has come."""
        was_complete, self._was_complete = self._was_complete, self._picker.is_complete
        return self._was_complete and not was_complete

    def greet(self, peer: PeerConnection) -> None:
        """Send our extended handshake to a newcomer."""
        self._roster.send_extended_handshake(peer, is_upload_only=self._is_on)

    def update(self) -> None:
        """Tell what has changed, and part from those with whom nothing is left to exchange."""
        is_on, self._was_complete = self._is_on, self._picker.is_complete
        if is_on is not self._is_told:
            self._is_told = is_on
            for peer in list(self._roster.peers):
                if peer.is_open:
                    if not peer.protocol.send_extension(UPLOAD_ONLY, bytes((is_on,))):
                        self.greet(peer)
                    peer.flush()
        for peer in list(self._roster.peers) if self._picker.is_complete else ():
            self.part_if_useless(peer)

    def part_if_useless(self, peer: PeerConnection) -> None:
        """Close a connection when both sides have all they want."""
        remote = peer.protocol.remote
        is_done = peer.is_upload_only or (remote is not None and remote.is_full)
        if is_done and self._picker.is_complete and not peer.is_closed:
            self._part(peer)

    def _part(self, peer: PeerConnection) -> None:
        """Others may hear of the peer (BEP 11), and it is dialled once we want something again."""
        roster = self._roster
        # Known to others only once the files have their names; a seed would be dialled till then.
        roster.candidates.is_seeding = True
        if peer.listen_endpoint is not None:
            roster.candidates.mark_seed(peer.listen_endpoint)
            if peer.is_open:
                roster.exchange.recent.note(peer.listen_endpoint, exchange_flags(peer))
        roster.parting = peer
        peer.close("both sides have everything")
        roster.parting = None
