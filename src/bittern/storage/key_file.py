"""
Files that hold the private key of a publisher (BEP 44, BEP 46).

A key file is PKCS #8 in PEM, as ``openssl genpkey -algorithm ed25519`` makes it. It is
made with mode 0600, never over another file, and is not read where others may read it
too: whoever has it can publish in its owner's name for ever.

Here a key is its seed, the 32 bytes that RFC 8032 calls the private key.

Source: RFC 8032 (Ed25519), RFC 8410 (its key files).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from bittern.core.errors import InputError, StorageError

MAX_KEY_FILE_LENGTH = 16_384
_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_key_file(path: Path) -> bytes:
    """
    Return the seed that a key file holds.

    Raises:
        StorageError: it cannot be read, or others can read it.
        InputError: it holds no Ed25519 key that we can use.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_KEY_FILE_LENGTH + 1)
    except OSError as error:
        raise _storage_error(error, path) from error
    if os.name == "posix" and stat.S_ISREG(mode) and mode & _FOR_OTHERS:
        raise StorageError(
            "others may read this key; chmod 600 it", path=str(path), errno=errno.EACCES
        )
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise InputError(f"{path}: the key is encrypted; only plain ones can be used") from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{path}: no private key in PEM form") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path}: a private key, but not one of Ed25519")
    return key.private_bytes_raw()


def make_key_file(path: Path) -> bytes:
    """
    Make a new key, write it to a file that nobody else can read, and return its seed.

    Raises:
        StorageError: there is such a file already, or it cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    try:
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _storage_error(error, path) from error
    return key.private_bytes_raw()


def _storage_error(error: OSError, path: Path) -> StorageError:
    text = (error.strerror or "cannot be used").lower()
    return StorageError(text, path=str(path), errno=error.errno)
