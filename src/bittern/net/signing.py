"""
Ed25519, as mutable items of the DHT are signed with (BEP 44).

The library is loaded when the first signature is made or checked: most runs need none,
and loading it costs more than the rest of a start.
"""

from __future__ import annotations

from typing import Protocol

KEY_LENGTH = 32
SIGNATURE_LENGTH = 64


class Signer(Protocol):
    """Who can sign for a public key."""

    @property
    def public_key(self) -> bytes:
        """32 bytes."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes."""


class SigningKey:
    """
    A private key.

    Args:
        seed: 32 secret bytes, what RFC 8032 calls the private key.

    Raises:
        ValueError: not 32 bytes.
    """

    def __init__(self, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def public_key(self) -> bytes:
        """32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._key.sign(message)


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether a signature is right; never raises, whatever strangers send."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
