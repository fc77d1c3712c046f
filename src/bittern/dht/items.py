"""
Items: what can be stored, those that others store with us, and the rules for both.

An immutable item lies under the SHA-1 of its bencoded value; a mutable one under the
SHA-1 of its public key and salt, is signed, and only ever replaced by a higher sequence
number. Who makes room in a full store is decided by ``fairness``.

Source: BEP 44. Limit: N3.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from bittern.codec.bencode import MAX_INTEGER, Value, encode
from bittern.codec.krpc_message import ErrorCode, Put
from bittern.core.errors import ConfigError, KrpcFailure
from bittern.dht.fairness import FairSet
from bittern.dht.limits import (
    ITEM_LIFETIME,
    MAX_ITEMS,
    MAX_SALT_LENGTH,
    MAX_VALUE_LENGTH,
)

Verify = Callable[[bytes, bytes, bytes], bool]
"""``verify(key, signature, message)``: tells whether an Ed25519 signature is right."""


@dataclass(frozen=True, slots=True)
class Item:
    """
    What can be stored.

    Args:
        value: bencoded, at most 1,000 bytes.
        key: public key of a mutable item, 32 bytes; None for an immutable one.
        salt: at most 64 bytes; empty for none.
        seq: sequence number of a mutable item, from 0; 0 for an immutable one.
        signature: of a mutable item, 64 bytes; empty for an immutable one.
    """

    value: bytes
    key: bytes | None = None
    salt: bytes = b""
    seq: int = 0
    signature: bytes = b""

    @property
    def target(self) -> bytes:
        """Where the item lies, 20 bytes."""
        return (
            immutable_target(self.value)
            if self.key is None
            else mutable_target(self.key, self.salt)
        )


def immutable_target(value: bytes) -> bytes:
    """Return where an immutable item with that bencoded value lies."""
    return hashlib.sha1(value, usedforsecurity=False).digest()


def mutable_target(key: bytes, salt: bytes = b"") -> bytes:
    """Return where the mutable item of a public key and salt lies."""
    return hashlib.sha1(key + salt, usedforsecurity=False).digest()


def signed_message(value: bytes, seq: int, salt: bytes = b"") -> bytes:
    """Return the bytes that the signature of a mutable item covers."""
    start = b"4:salt%d:%b" % (len(salt), salt) if salt else b""
    return b"%b3:seqi%de1:v%b" % (start, seq, value)


def is_genuine(item: Item, target: bytes, verify: Verify) -> bool:
    """Tell whether an item that somebody gave us belongs to ``target`` and is signed rightly."""
    if item.target != target or len(item.value) > MAX_VALUE_LENGTH:
        return False
    if item.key is None:
        return True
    return verify(item.key, item.signature, signed_message(item.value, item.seq, item.salt))


def encode_value(value: Value) -> bytes:
    """Return the bencoded form of a value to be stored; ConfigError if it is too long."""
    encoded = encode(value)
    if len(encoded) > MAX_VALUE_LENGTH:
        raise ConfigError(
            f"a DHT item has at most {MAX_VALUE_LENGTH} bytes bencoded, not {len(encoded)}"
        )
    return encoded


def check_put(salt: bytes, seq: int | None) -> None:
    """Refuse a salt or a sequence number that no node would take; ConfigError."""
    if len(salt) > MAX_SALT_LENGTH:
        raise ConfigError(f"a salt has at most {MAX_SALT_LENGTH} bytes, not {len(salt)}")
    if not 0 <= (seq or 0) <= MAX_INTEGER:
        raise ConfigError(f"a sequence number is from 0 to {MAX_INTEGER}, not {seq}")


def next_seq(newest: Item | None, value: bytes, *, seq: int | None, cas: int | None) -> int:
    """
    Return the sequence number under which to store a value.

    Args:
        newest: item found under the same key and salt, if there is one.
        value: bencoded, that is to be stored.
        seq: what its owner wants; None for one more than that of ``newest``.
        cas: what ``newest`` must have; None for anything.

    Raises:
        KrpcFailure: as nodes would answer: 301, the number found is not ``cas``; 302, it is not
            lower than ``seq``.
        ConfigError: there is no higher number than that of ``newest``.
    """
    if newest is None:
        return seq or 0
    if cas is not None and newest.seq != cas:
        raise KrpcFailure(
            ErrorCode.CAS_MISMATCH, f"sequence number {newest.seq} is stored, not {cas}"
        )
    if seq is None:
        check_put(b"", newest.seq + 1)
        return newest.seq + 1
    if newest.seq > seq or (newest.seq == seq and newest.value != value):
        raise KrpcFailure(ErrorCode.SEQ_TOO_LOW, f"sequence number {newest.seq} is stored already")
    return seq


@dataclass(slots=True)
class _Stored:
    item: Item
    stored_at: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an item was not stored."""

    code: ErrorCode
    reason: str


class ItemStore:
    """
    Stored items by target.

    Args:
        rng: source of chance.
        max_items: Limit: N3.
    """

    def __init__(self, *, rng: random.Random, max_items: int = MAX_ITEMS) -> None:
        self._max_items = max_items
        self._items: dict[bytes, _Stored] = {}
        self._fair = FairSet(rng=rng)

    def __len__(self) -> int:
        return len(self._items)

    def get(self, target: bytes) -> Item | None:
        """Return the item stored under ``target``, or None."""
        stored = self._items.get(target)
        return None if stored is None else stored.item

    def check(self, put: Put) -> Refusal | None:
        """Return why a put is refused, or None; its signature is the caller's to check after."""
        if not put.is_canonical:
            return Refusal(ErrorCode.PROTOCOL, "keys are not sorted")
        if len(put.value) > MAX_VALUE_LENGTH:
            return Refusal(ErrorCode.VALUE_TOO_BIG, "value is longer than 1000 bytes")
        if len(put.salt) > MAX_SALT_LENGTH:
            return Refusal(ErrorCode.SALT_TOO_BIG, "salt is longer than 64 bytes")
        if put.key is None:
            return None
        stored = self.get(mutable_target(put.key, put.salt))
        if stored is None:
            return None
        if put.cas is not None and put.cas != stored.seq:
            return Refusal(ErrorCode.CAS_MISMATCH, "another sequence number is stored")
        seq = put.seq or 0
        if seq < stored.seq or (seq == stored.seq and put.value != stored.value):
            return Refusal(ErrorCode.SEQ_TOO_LOW, "sequence number is not higher")
        return None

    def put(self, item: Item, network: bytes, *, now: float) -> None:
        """
        Store an item that passed ``check`` and whose signature is right.

        Args:
            item: what to store; the same again starts its lifetime anew.
            network: of who sent it.
            now: monotonic seconds.
        """
        target = item.target
        stored = self._items.get(target)
        if stored is not None:
            stored.item = item
            stored.stored_at = now
            return
        if len(self._items) >= self._max_items:
            self._drop(self._fair.choose_victim(network))
        self._items[target] = _Stored(item, now)
        self._fair.add(target, network)

    def expire(self, *, now: float) -> None:
        """Drop items that nobody has stored anew for two hours."""
        limit = now - ITEM_LIFETIME
        for target in [key for key, stored in self._items.items() if stored.stored_at < limit]:
            self._drop(target)

    def _drop(self, target: bytes) -> None:
        del self._items[target]
        self._fair.remove(target)
