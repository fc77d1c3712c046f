"""
Write tokens: proof that who stores something can receive at its address.

A token is a keyed hash of the asker's address under a secret that changes every five
minutes; those of the secret before are still good. Nothing is stored per token.

Source: BEP 5. Limit: N2.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from bittern.dht.limits import TOKEN_INTERVAL, TOKEN_LENGTH

_SECRET_LENGTH = 16


class TokenMint:
    """
    Makes and checks tokens.

    Args:
        random_bytes: gives that many unpredictable bytes.
        now: monotonic seconds.
    """

    __slots__ = ("_changed_at", "_old_secret", "_random_bytes", "_secret")

    def __init__(self, random_bytes: Callable[[int], bytes], *, now: float) -> None:
        self._random_bytes = random_bytes
        self._secret = random_bytes(_SECRET_LENGTH)
        self._old_secret = random_bytes(_SECRET_LENGTH)
        self._changed_at = now

    def make(self, packed: bytes, *, now: float) -> bytes:
        """Return the token for an address, 8 bytes."""
        if now - self._changed_at >= TOKEN_INTERVAL:
            self._rotate(now)
        return _hash(packed, self._secret)

    @property
    def good_until(self) -> float:
        """The instant up to which ``make`` gives the same, as of the last call."""
        return self._changed_at + TOKEN_INTERVAL

    def is_valid(self, token: bytes, packed: bytes, *, now: float) -> bool:
        """Tell whether ``token`` was made for this address five to ten minutes ago or later."""
        if now - self._changed_at >= TOKEN_INTERVAL:
            self._rotate(now)
        return hmac.compare_digest(token, _hash(packed, self._secret)) or hmac.compare_digest(
            token, _hash(packed, self._old_secret)
        )

    def _rotate(self, now: float) -> None:
        # After a long silence both secrets are too old.
        is_recent = now - self._changed_at < 2 * TOKEN_INTERVAL
        self._old_secret = self._secret if is_recent else self._random_bytes(_SECRET_LENGTH)
        self._secret = self._random_bytes(_SECRET_LENGTH)
        self._changed_at = now


def _hash(packed: bytes, secret: bytes) -> bytes:
    return hashlib.blake2b(packed, key=secret, digest_size=TOKEN_LENGTH).digest()
