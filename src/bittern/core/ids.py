"""
Identifiers of fixed size: info hashes, peer ids, node ids.

All are ``bytes`` with a checked length, so that they travel on the wire, key
dictionaries and compare without conversion. Sources: BEP 3 (info hash, peer
id), BEP 5 (node id, distance), BEP 9 (text forms of an info hash), BEP 20
(peer id prefix), BEP 52 (32-byte info hash, truncation).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import ClassVar, Self


class _FixedId(bytes):
    """``bytes`` of exactly ``SIZE`` bytes."""

    SIZE: ClassVar[int]

    def __new__(cls, value: bytes | bytearray | memoryview) -> Self:
        """Copy ``value``; ValueError unless it has ``SIZE`` bytes."""
        if len(value) != cls.SIZE:
            raise ValueError(f"{cls.__name__} takes {cls.SIZE} bytes, got {len(value)}")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the hexadecimal text form, upper or lower case; ValueError if it is not one."""
        if len(text) != 2 * cls.SIZE:
            raise ValueError(f"{cls.__name__} takes {2 * cls.SIZE} hexadecimal digits")
        try:
            return cls(binascii.unhexlify(text.encode("ascii")))
        except (binascii.Error, UnicodeEncodeError):
            raise ValueError(f"not hexadecimal: {text!r}") from None

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()!r})"


class InfoHash(_FixedId):
    """SHA-1 of a v1 info dictionary, or a v2 hash cut to 20 bytes (BEP 3, BEP 52)."""

    SIZE: ClassVar[int] = 20

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 40 hexadecimal digits or 32 base32 letters (BEP 9); ValueError otherwise."""
        if len(text) == 32:
            try:
                return cls(base64.b32decode(text, casefold=True))
            except (binascii.Error, ValueError):
                raise ValueError(f"not base32: {text!r}") from None
        return super().parse(text)


class InfoHashV2(_FixedId):
    """SHA-256 of a v2 info dictionary (BEP 52)."""

    SIZE: ClassVar[int] = 32

    @property
    def truncated(self) -> InfoHash:
        """The first 20 bytes: the form used in handshakes, trackers and the DHT (BEP 52)."""
        return InfoHash(self[:20])


class PeerId(_FixedId):
    """A peer's 20-byte name for itself (BEP 3, BEP 20)."""

    SIZE: ClassVar[int] = 20

    @classmethod
    def generate(cls, prefix: bytes, random_bytes: Callable[[int], bytes]) -> Self:
        """
        Make a fresh id with the given client prefix.

        Args:
            prefix: Azureus style, as ``b"-bt0100-"``; at most 20 bytes.
            random_bytes: gives that many unpredictable bytes, as ``secrets.token_bytes``.
        """
        return cls(prefix + random_bytes(cls.SIZE - len(prefix)))


class NodeId(_FixedId):
    """A DHT node's id, in the same space as info hashes (BEP 5)."""

    SIZE: ClassVar[int] = 20

    def distance(self, other: bytes) -> int:
        """XOR distance to ``other``, 20 bytes (BEP 5)."""
        return int.from_bytes(self, "big") ^ int.from_bytes(other, "big")
