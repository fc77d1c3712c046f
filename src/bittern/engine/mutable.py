"""
Mutable torrents: which torrent is the newest under a public key, asked and told in the DHT.

A publisher signs a record under its key and puts it anew about once an hour, since nodes
forget items after two. A follower asks now and then, and puts what it found anew as well,
so that a key outlives its publisher's absence.

Sequence numbers only ever rise: a publisher goes above what it has kept and what the DHT
has, and a follower never goes back. Two publishers with one key both see the higher
number: the one that is behind stops.

Sources: BEP 44, BEP 46. The record's format is in ``codec.torrent_record``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from bittern.codec.magnet import Magnet
from bittern.codec.torrent_record import (
    TorrentRecord,
    Version,
    choose_seq,
    decode_record,
    encode_record,
)
from bittern.core.errors import ConfigError, DhtUnreachable, MagnetError, NotPublished
from bittern.dht.items import Item, is_genuine, mutable_target, signed_message
from bittern.engine.sources.base import switched_off_by
from bittern.net.dht_requests import ItemResult
from bittern.net.signing import Signer, verify

PUT_INTERVAL: Final = 3600.0
"""BEP 44: items should be announced anew once an hour."""
ENOUGH_COPIES: Final = 8
"""BEP 44: a subscriber that finds more copies need not put the item anew."""
_MAX_TRIES: Final = 3
"""Rounds of a publisher that another one with the same key overtakes at the same time."""


class ItemNetwork(Protocol):
    """What is asked of the DHT."""

    @property
    def num_nodes(self) -> int:
        """Nodes in all our tables."""

    async def get(self, target: bytes, salt: bytes = b"") -> ItemResult:
        """Find the newest item stored under ``target``."""

    async def put_item(self, item: Item, *, uses_cas: bool = False) -> ItemResult:
        """Store an item as it is; a newer one that is found is left alone."""


def no_dht(*, is_enabled: bool) -> ConfigError:
    """Return the error of who asks for what is under a key in a session without the DHT."""
    why = "has no UDP socket here" if is_enabled else f"is {switched_off_by('enable_dht')}"
    return ConfigError(f"what is under a public key is only known to the DHT, which {why}")


@dataclass(frozen=True, slots=True)
class Published:
    """
    What putting a version came to.

    Args:
        version: ours.
        num_stored: nodes that took it.
        newer: a version of somebody else with our key, which supersedes ours.
    """

    version: Version
    num_stored: int
    newer: Version | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """
    The newest version found.

    Args:
        version: as it is signed.
        record: what it says.
        num_copies: nodes that had it.
    """

    version: Version
    record: TorrentRecord
    num_copies: int


async def publish(
    dht: ItemNetwork,
    key: Signer,
    record: TorrentRecord,
    *,
    salt: bytes = b"",
    kept: Version | None = None,
    clock: int,
) -> Published:
    """
    Make a torrent the newest under a key.

    Args:
        dht: the network.
        key: signs it.
        record: names the torrent.
        salt: for several mutable torrents under one key.
        kept: what was published last, as far as it is remembered here.
        clock: seconds since 1970.

    Returns:
        The version to keep and to put anew; ``num_stored`` may be 0.

    Raises:
        ConfigError: there is no higher sequence number.
    """
    value = encode_record(record)
    target = mutable_target(key.public_key, salt)
    known = []
    if kept is not None and is_sound(kept, key.public_key, salt):
        known.append((kept.seq, kept.value))
    num_tries = 0
    while True:
        found = (await dht.get(target, salt)).item
        if found is not None:
            known.append((found.seq, found.value))
        seq = choose_seq(value, known, clock=clock)
        signature = key.sign(signed_message(value, seq, salt))
        done = await put_again(dht, Version(key.public_key, salt, seq, signature, value))
        num_tries += 1
        if done.newer is None or num_tries == _MAX_TRIES:
            return done
        known.append((done.newer.seq, done.newer.value))


async def put_again(dht: ItemNetwork, version: Version) -> Published:
    """Put a version anew; somebody's newer one is found, told and left alone."""
    result = await dht.put_item(item_of(version))
    found = result.item
    if found is None or not version.is_superseded_by(found.seq, found.value):
        return Published(version, result.num_stored)
    return Published(version, 0, version_of(found))


async def resolve(dht: ItemNetwork, public_key: bytes, salt: bytes = b"") -> Resolved:
    """
    Find the newest version under a key.

    Raises:
        NotPublished: nobody has one.
        DhtUnreachable: nobody could be asked.
        KrpcDecodeError: what is there names no torrent.
    """
    result = await dht.get(mutable_target(public_key, salt), salt)
    if result.item is None:
        if not dht.num_nodes:
            raise DhtUnreachable("no DHT node could be reached")
        raise NotPublished(public_key)
    return Resolved(version_of(result.item), decode_record(result.item.value), result.num_copies)


async def resolve_magnet(dht: ItemNetwork, magnet: Magnet) -> Magnet:
    """
    Return a link to the torrent that is the newest under the key in ``magnet``.

    Raises:
        MagnetError: there is no key in it.
        NotPublished, DhtUnreachable, KrpcDecodeError: as ``resolve``.
    """
    if magnet.public_key is None:
        raise MagnetError("magnet link: no public key")
    found = await resolve(dht, magnet.public_key, magnet.salt)
    return found.record.magnet(magnet)


def version_of(item: Item) -> Version:
    """Return a mutable item as a version."""
    assert item.key is not None
    return Version(item.key, item.salt, item.seq, item.signature, item.value)


def item_of(version: Version) -> Item:
    """Return a version as a mutable item."""
    return Item(version.value, version.public_key, version.salt, version.seq, version.signature)


def is_sound(version: Version, public_key: bytes, salt: bytes) -> bool:
    """Tell whether a version that was kept belongs to a key and salt and is signed rightly."""
    return is_genuine(item_of(version), mutable_target(public_key, salt), verify)
