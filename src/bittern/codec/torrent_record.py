"""
What a mutable torrent's publisher puts under a public key: which torrent is the newest.

The value of the DHT item is a bencoded dictionary:

    key  value
    ih   20 bytes: the v1 info hash, or that of a v2-only torrent cut to 20 bytes
    ih2  32 bytes: the v2 info hash, where the torrent has one; our addition

BEP 46 knows ``ih`` only. It is what handshakes, trackers and the DHT carry, so that
whoever reads no more than the BEP finds the swarm of every torrent, a v2-only one too.
``ih2`` lets readers check the metadata against all of a SHA-256, and start from both
hashes of a hybrid. Keys that we do not know are ignored, so that others can add theirs.

``Version`` is one signed item with such a value, in the form that a publisher and a
follower keep on disk: it can be put into the DHT again without the private key.

Whether a signature is right is not decided here; see ``bittern.dht.items``.

Sources: BEP 44 (items, sequence numbers), BEP 46, BEP 52 (truncated hash).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bittern.codec.bencode import MAX_INTEGER, Encodable, Limits, Value, decode, encode
from bittern.codec.magnet import MAX_SALT_LENGTH, Magnet
from bittern.core.errors import BencodeDecodeError, ConfigError, KrpcDecodeError
from bittern.core.ids import InfoHash, InfoHashV2

MAX_RECORD_LENGTH: Final = 1000
"""Limit: N3, BEP 44. Bytes of a value."""
PUBLIC_KEY_LENGTH: Final = 32
SIGNATURE_LENGTH: Final = 64
MAX_SEQ: Final = MAX_INTEGER
"""BEP 44: sequence numbers go from 0 to that of 64 bits."""

_RECORD_LIMITS = Limits(max_depth=10, max_tokens=500, max_length=MAX_RECORD_LENGTH)
_VERSION_LIMITS = Limits(max_depth=1, max_tokens=20, max_length=2048)


@dataclass(frozen=True, slots=True)
class TorrentRecord:
    """
    Which torrent is the newest.

    Args:
        info_hash: the v1 hash, or the v2 hash cut to 20 bytes.
        info_hash_v2: the v2 hash, where there is one and the publisher says it.
    """

    info_hash: InfoHash
    info_hash_v2: InfoHashV2 | None = None

    @classmethod
    def of(cls, v1: InfoHash | None, v2: InfoHashV2 | None) -> TorrentRecord:
        """Return the record of a torrent with one or both hashes; ConfigError without any."""
        if v1 is not None:
            return cls(v1, v2)
        if v2 is not None:
            return cls(v2.truncated, v2)
        raise ConfigError("a record needs an info hash")

    @property
    def v1(self) -> InfoHash | None:
        """The v1 hash; None for a torrent that has only v2, as far as the record says."""
        v2 = self.info_hash_v2
        return None if v2 is not None and v2.truncated == self.info_hash else self.info_hash

    def magnet(self, link: Magnet | None = None) -> Magnet:
        """Return a link to the torrent, with what ``link`` says beyond the hashes."""
        hints = link or Magnet()
        return Magnet(
            info_hash=self.v1,
            info_hash_v2=self.info_hash_v2,
            name=hints.name,
            trackers=hints.trackers,
            web_seeds=hints.web_seeds,
            peers=hints.peers,
            select_only=hints.select_only,
        )


def decode_record(value: bytes) -> TorrentRecord:
    """
    Read the bencoded value of an item.

    Raises:
        KrpcDecodeError: it names no torrent, or is not bencoded.

    Limit: N3. A malformed ``ih2`` is an error too: it was signed, so it is no accident.
    """
    record = _decode_dictionary(value, _RECORD_LIMITS, "torrent record")
    info_hash = _take(record, b"ih", InfoHash.SIZE)
    if info_hash is None:
        raise KrpcDecodeError("no torrent record: no info hash")
    info_hash_v2 = _take(record, b"ih2", InfoHashV2.SIZE)
    return TorrentRecord(
        InfoHash(info_hash), None if info_hash_v2 is None else InfoHashV2(info_hash_v2)
    )


def encode_record(record: TorrentRecord) -> bytes:
    """Return the bencoded value; ``decode_record`` reads the same back."""
    value: dict[bytes, Encodable] = {b"ih": record.info_hash}
    if record.info_hash_v2 is not None:
        value[b"ih2"] = record.info_hash_v2
    return encode(value)


@dataclass(frozen=True, slots=True)
class Version:
    """
    One signed state of what is under a key.

    Args:
        public_key: 32 bytes.
        salt: at most 64 bytes.
        seq: sequence number; the highest one counts.
        signature: 64 bytes.
        value: the bencoded record.
    """

    public_key: bytes
    salt: bytes
    seq: int
    signature: bytes
    value: bytes

    def is_superseded_by(self, seq: int, value: bytes) -> bool:
        """Tell whether an item replaces this one: it is newer, and says something else."""
        return seq > self.seq and value != self.value


def encode_version(version: Version) -> bytes:
    """
    Return what is kept on disk: a bencoded dictionary with the keys of a ``put`` (BEP 44).

    ``decode_version`` reads the same back.
    """
    return encode(
        {
            b"k": version.public_key,
            b"salt": version.salt,
            b"seq": version.seq,
            b"sig": version.signature,
            b"v": version.value,
        }
    )


def decode_version(data: bytes) -> Version:
    """
    Read what was kept on disk.

    Raises:
        KrpcDecodeError: it is something else, or was cut off.
    """
    found = _decode_dictionary(data, _VERSION_LIMITS, "kept version")
    public_key = _take(found, b"k", PUBLIC_KEY_LENGTH)
    signature = _take(found, b"sig", SIGNATURE_LENGTH)
    seq, salt, value = found.get(b"seq"), found.get(b"salt"), found.get(b"v")
    if (
        public_key is None
        or signature is None
        or not (isinstance(salt, bytes) and len(salt) <= MAX_SALT_LENGTH)
        or not (isinstance(value, bytes) and len(value) <= MAX_RECORD_LENGTH)
        or not (isinstance(seq, int) and 0 <= seq <= MAX_SEQ)
    ):
        raise KrpcDecodeError("no kept version: a part is missing or out of range")
    return Version(public_key, salt, seq, signature, value)


def choose_seq(value: bytes, known: Iterable[tuple[int, bytes]], *, clock: int) -> int:
    """
    Return the sequence number under which a publisher puts ``value``.

    The newest item known keeps its number if it says the same already: then it is only put
    again. Else the number is higher than all known ones, and at least the time of day, so
    that it rises even for a publisher that forgot and whose items have expired.

    Args:
        value: what is to be the newest.
        known: sequence numbers and values: what was kept, and what the DHT has.
        clock: seconds since 1970.

    Raises:
        ConfigError: there is no higher number.
    """
    pairs = list(known)
    highest = max((seq for seq, _ in pairs), default=0)
    if pairs and all(other == value for seq, other in pairs if seq == highest):
        return highest
    if highest >= MAX_SEQ:
        raise ConfigError("the highest sequence number there is has been used up")
    return min(max(highest + 1, clock), MAX_SEQ)


def _decode_dictionary(data: bytes, limits: Limits, what: str) -> dict[bytes, Value]:
    try:
        found = decode(data, limits=limits)
    except BencodeDecodeError as error:
        raise KrpcDecodeError(f"no {what}: {error}") from None
    if not isinstance(found, dict):
        raise KrpcDecodeError(f"no {what}: not a dictionary")
    return found


def _take(values: dict[bytes, Value], key: bytes, length: int) -> bytes | None:
    """Return a byte string of exactly that length, None if absent; KrpcDecodeError if wrong."""
    value = values.get(key)
    if value is None:
        return None
    if not isinstance(value, bytes) or len(value) != length:
        raise KrpcDecodeError(f"{key.decode()!r} is not {length} bytes")
    return value
