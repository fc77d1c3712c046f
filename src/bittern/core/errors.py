"""
Every exception that bittern raises on purpose.

The tree says who catches what: input errors reach the person who gave the
input, decode errors become one of the other kinds in the machine that asked
for the decoding, remote errors cost a peer, a tracker or a node, storage
errors pause one torrent, and a misuse error is a bug of ours. Errors carry
data; the text is made in ``__str__``. ``args`` are the positional arguments of
the constructor, so that errors can be copied and pickled.
"""

from __future__ import annotations


class BitTorrentError(Exception):
    """Root of all exceptions raised on purpose."""


class MisuseError(BitTorrentError):
    """Our own caller broke a contract: a bug, never the fault of input."""


# --- the user gave us something unusable -------------------------------------------------


class InputError(BitTorrentError):
    """The user gave us something unusable."""


class MetainfoError(InputError):
    """A .torrent file or info dictionary is unusable; the text says what and where."""


class Inconsistent(MetainfoError):
    """
    The two halves of a hybrid torrent want different bytes; nobody's peer is to blame (BEP 52).

    Args:
        index: the piece that matches one of its hashes and not the other.
        good: the half whose hash it matches, "v1" or "v2".
    """

    def __init__(self, index: int, good: str) -> None:
        super().__init__(index, good)
        self.index = index
        self.good = good

    def __str__(self) -> str:
        bad = "v2" if self.good == "v1" else "v1"
        return (
            f"inconsistent torrent: piece {self.index} matches its {self.good} hash and not its "
            f"{bad} hash; only whoever made it can mend that"
        )


class MagnetError(InputError):
    """A magnet link is unusable."""


class ConfigError(InputError):
    """A setting has an impossible value, or what was asked for cannot be as things are."""


# --- bytes break a format ----------------------------------------------------------------


class DecodeError(BitTorrentError):
    """
    Bytes break their format.

    Args:
        reason: what is wrong, one lower-case phrase without a full stop.
        offset: byte position in the decoded input, where known.
        limit: the limit that was exceeded, where one was.
    """

    def __init__(self, reason: str, *, offset: int | None = None, limit: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset
        self.limit = limit

    def __str__(self) -> str:
        text = self.reason
        if self.limit is not None:
            text += f" (limit {self.limit})"
        if self.offset is not None:
            text += f" at byte {self.offset}"
        return text


class BencodeDecodeError(DecodeError):
    """Bytes are not the bencoding that was asked for (BEP 3)."""


class WireDecodeError(DecodeError):
    """Bytes are no valid handshake or peer message (BEP 3, 6, 10, 52)."""


class KrpcDecodeError(DecodeError):
    """Bytes are no valid DHT message (BEP 5)."""


class TrackerDecodeError(DecodeError):
    """Bytes are no valid tracker answer (BEP 3, 15)."""


class LsdDecodeError(DecodeError):
    """Bytes are no announce to the local network (BEP 14)."""


# --- somebody else misbehaved ------------------------------------------------------------


class RemoteError(BitTorrentError):
    """Another party misbehaved or fell silent; costs that party only."""


class PeerViolation(RemoteError):
    """A peer broke the protocol; the connection is closed."""


class PeerTimeout(RemoteError):
    """A peer was silent for too long."""


class TrackerFailure(RemoteError):
    """
    A tracker answered with a failure.

    Args:
        reason: the tracker's own words, already cleaned for display.
        retry_after: seconds until the next try the tracker allows (BEP 31);
            ``inf`` means never; None when it did not say.
        is_ours: it was not asked at all, since we do not ask such a one.
    """

    def __init__(
        self, reason: str, *, retry_after: float | None = None, is_ours: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.is_ours = is_ours

    def __str__(self) -> str:
        return f"tracker refused: {self.reason}"


class TrackerUnreachable(RemoteError):
    """
    A tracker could not be reached or its answer could not be understood.

    Args:
        text: for people.
        is_silent: nothing came back at all; False for an answer that makes no sense.
    """

    def __init__(self, text: str, *, is_silent: bool = True) -> None:
        super().__init__(text)
        self.is_silent = is_silent


class KrpcFailure(RemoteError):
    """A DHT node answered with an error code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"DHT error {self.code}: {self.message}"


class QueryTimeout(RemoteError):
    """A DHT node did not answer in time."""


class DhtUnreachable(RemoteError):
    """No DHT node could be reached, so nobody could be asked."""


class NotPublished(RemoteError):
    """
    Nothing is stored in the DHT under a public key (BEP 46).

    Args:
        public_key: 32 bytes.
    """

    def __init__(self, public_key: bytes) -> None:
        super().__init__(public_key)
        self.public_key = public_key

    def __str__(self) -> str:
        return f"key {self.public_key.hex()}: nothing is published under it"


class ResolveError(RemoteError):
    """A host name has no address, or nobody said so in time."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(host, reason)
        self.host = host
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot resolve {self.host[:253]!r}: {self.reason}"


class FetchError(RemoteError):
    """A document could not be fetched over HTTP; ``status`` is set when a server answered."""

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status

    def __str__(self) -> str:
        return self.reason


class WebSeedError(RemoteError):
    """
    A web seed did not give what it was asked for; that may be over soon (BEP 19).

    Args:
        reason: one lower-case phrase.
        retry_after: seconds it asked us to wait, None if it did not.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.reason


class WebSeedLacksFile(WebSeedError):
    """A web seed does not have a file, or has another one in its place."""


class WebSeedUseless(WebSeedError):
    """A web seed does not do what is asked of it in a way that will not be over soon."""


# --- our disk failed ---------------------------------------------------------------------


class StorageError(BitTorrentError):
    """
    Our own disk failed; pauses one torrent.

    Args:
        reason: what happened, one lower-case phrase.
        path: the file or folder concerned, as text.
        errno: the operating system's error number, where there was one.
    """

    def __init__(self, reason: str, *, path: str | None = None, errno: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path
        self.errno = errno

    def __str__(self) -> str:
        if self.path is None:
            return self.reason
        shown = repr(self.path)
        if self.path[1:3] == ":\\" or self.path.startswith("\\\\"):
            # A path of Windows: these are its separators and nothing else.
            shown = shown.replace("\\\\", "\\")
        return f"{self.reason}: {shown}"


class DiskFull(StorageError):
    """No room, or no quota, on the volume."""


class UnsafePath(StorageError):
    """A path leads outside the torrent's folder, or over a link."""


class FileVanished(StorageError):
    """A file is missing or shorter than it was."""


class VolumeMissing(StorageError):
    """The volume that held a torrent's files is not mounted at ``path``; they may be on it yet."""
