"""
Which extensions a connection has, under which number on either side (BEP 10).

Each side chooses the numbers under which it wants to receive messages and tells them
in its extended handshake, which may be repeated: a later one adds, changes, or with
number 0 takes back. Whatever else it says stays until a later one names the same key.

Limit: H14 repeated handshakes. Source: BEP 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType

from bittern.codec import extension, wire
from bittern.codec.extension import ExtendedHandshake
from bittern.core.errors import PeerViolation

MAX_EXTENDED_HANDSHAKES = 10
"""Limit: H14."""
UT_METADATA = "ut_metadata"
UT_PEX = "ut_pex"
UT_HOLEPUNCH = "ut_holepunch"
LT_DONT_HAVE = "lt_donthave"
UPLOAD_ONLY = "upload_only"
"""
Interop: libtorrent's own message for what BEP 21 has in the handshake, one byte, 0 or 1. It says so
when its wants change, and heeds a 0 here alone: in a handshake it looks for a 1 only.
"""
LOCAL_EXTENSIONS: Mapping[str, int] = {
    UT_PEX: 1,
    UT_METADATA: 2,
    UPLOAD_ONLY: 3,
    LT_DONT_HAVE: 7,
}
"""Numbers under which we want to receive."""
NAMES: Mapping[int, str] = {number: name for name, number in LOCAL_EXTENSIONS.items()}
"""The same the other way round."""


class RemoteExtensions:
    """
    What one peer has told of its extensions.

    Attributes:
        numbers: under which it wants to receive, by name.
    """

    __slots__ = ("_num_handshakes", "_told", "numbers")

    def __init__(self) -> None:
        self.numbers: Mapping[str, int] = MappingProxyType({})
        self._told = ExtendedHandshake()
        self._num_handshakes = 0

    def receive_handshake(self, payload: memoryview) -> ExtendedHandshake:
        """
        Take an extended handshake, without its extension number.

        Returns:
            All that the peer has said so far, and of each key the newest.

        Raises:
            PeerViolation: it came too often.
            WireDecodeError: it is malformed.
        """
        self._num_handshakes += 1
        if self._num_handshakes > MAX_EXTENDED_HANDSHAKES:
            raise PeerViolation("repeats the extended handshake")
        handshake = extension.decode_extended_handshake(payload)
        merged = {**self.numbers, **handshake.extensions}
        self.numbers = MappingProxyType({name: each for name, each in merged.items() if each})
        self._told = replace(_update(self._told, handshake), extensions=self.numbers)
        return self._told

    def receive_upload_only(self, payload: memoryview) -> ExtendedHandshake:
        """Take an ``UPLOAD_ONLY`` as a handshake that says that alone; a wrong one is ignored."""
        if len(payload) == 1:
            self._told = replace(self._told, is_upload_only=payload[0] != 0)
        return self._told

    def encode(self, name: str, payload: bytes) -> bytes | None:
        """Return a message of an extension; None when the peer does not speak it."""
        number = self.numbers.get(name)
        return None if number is None else wire.encode_extended(number, payload)


def _update(old: ExtendedHandshake, new: ExtendedHandshake) -> ExtendedHandshake:
    """BEP 10: what a later handshake does not name stays as it was."""
    said = {each.name: getattr(new, each.name) for each in fields(new)}
    return replace(old, **{name: value for name, value in said.items() if value is not None})
