"""
The newest version of each mutable torrent that was published or followed here.

One small file for each public key and salt, named by its target, in a folder of the
state folder. It keeps sequence numbers rising when the DHT has forgotten, keeps a
follower from going back to an older version, and can be put into the DHT again without
the private key.

A file that is damaged is as good as none: what it says is in the DHT as well.

Source: BEP 44 ("subscribers may also persist the values"), BEP 46.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bittern.codec.torrent_record import Version, decode_version, encode_version
from bittern.core.errors import KrpcDecodeError
from bittern.storage.base import storage_error
from bittern.storage.whole_file import write_whole

_FOLDER: Final = "mutable"
_MAX_LENGTH: Final = 4096


def read_version(state_dir: Path, target: bytes) -> Version | None:
    """Return the version kept for a target, None if there is none that can be read."""
    try:
        with _path_of(state_dir, target).open("rb") as file:
            return decode_version(file.read(_MAX_LENGTH))
    except (OSError, KrpcDecodeError):
        return None


def write_version(state_dir: Path, target: bytes, version: Version) -> None:
    """
    Keep a version in place of an older one.

    Raises:
        StorageError: it cannot be written; the older one stays.
    """
    path = _path_of(state_dir, target)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, encode_version(version))
    except OSError as error:
        raise storage_error(error, path) from error


def _path_of(state_dir: Path, target: bytes) -> Path:
    return state_dir / _FOLDER / target.hex()
