"""
The two handshakes of a connection, and what both sides say in them that they speak.

Ours goes out at once, under the first hash of the torrent. The peer's may name any of its
hashes; what it names and the bits of its reserved bytes tell which extensions may be used.

Limit: H15 (connections to ourselves). Sources: BEP 3 (handshake), BEP 6, BEP 10, BEP 52
(upgrade path).
"""

from __future__ import annotations

from bittern.codec import wire
from bittern.codec.wire import Handshake, Reserved
from bittern.core.errors import PeerViolation
from bittern.core.ids import InfoHash, PeerId


class Handshakes:
    """
    Those of one connection.

    Args:
        info_hashes: the 20-byte hashes under which the torrent is known; the first is the one
            that we send.
        peer_id: our own.
        reserved: what we announce.

    Attributes:
        remote: the peer's; None until it has come.
        has_fast: both sides speak the fast extension (BEP 6).
        has_extensions: both sides speak the extension protocol (BEP 10).
    """

    __slots__ = ("_info_hashes", "_local", "has_extensions", "has_fast", "remote")

    def __init__(
        self, info_hashes: tuple[InfoHash, ...], peer_id: PeerId, reserved: Reserved
    ) -> None:
        self.remote: Handshake | None = None
        self.has_fast: bool = False
        self.has_extensions: bool = False
        self._info_hashes = info_hashes
        self._local = Handshake(info_hashes[0], peer_id, reserved)

    def encode(self) -> bytes:
        """Return ours."""
        return wire.encode_handshake(
            self._local.info_hash, self._local.peer_id, self._local.reserved
        )

    def receive(self, view: memoryview) -> Handshake | None:
        """
        Take the peer's, the first ``wire.HANDSHAKE_LENGTH`` bytes; None while there are fewer.

        Raises:
            WireDecodeError: it is no handshake; that shows at the first wrong byte.
            PeerViolation: it names another torrent, or has our own id.
        """
        if len(view) < wire.HANDSHAKE_LENGTH:
            wire.check_handshake_start(view)
            return None
        remote, ours = wire.decode_handshake(view), self._local.reserved
        if remote.info_hash not in self._info_hashes:
            raise PeerViolation("handshake names another torrent")
        self.remote = remote
        if self.is_ourselves:
            # Limit: H15.
            raise PeerViolation("connected to ourselves")
        self.has_fast = ours.has_fast and remote.reserved.has_fast
        self.has_extensions = ours.has_extensions and remote.reserved.has_extensions
        return remote

    @property
    def is_ourselves(self) -> bool:
        """True when the peer has our own id: we have connected to ourselves."""
        return self.remote is not None and self.remote.peer_id == self._local.peer_id

    def has_v2(self, v2_hash: InfoHash | None) -> bool:
        """
        True when hashes may be asked for: each side has said that it speaks v2.

        Args:
            v2_hash: the torrent's, cut to 20 bytes; None when it has none that we know of.

        Source: BEP 52: by the bit of the handshake, or by naming the v2 hash in it.
        """
        remote, local = self.remote, self._local
        return (
            v2_hash is not None
            and remote is not None
            and (remote.reserved.has_v2 or remote.info_hash == v2_hash)
            and (local.reserved.has_v2 or local.info_hash == v2_hash)
        )
