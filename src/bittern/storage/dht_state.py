"""
The DHT's state across runs: one small file in the state folder.

What is in it is the business of ``net.dht``; here it is bytes that are replaced as a
whole. A file that cannot be read is as good as none: the DHT is found again from the
well-known nodes.

Source: BEP 5 ("the routing table should be saved between invocations").
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bittern.storage.base import storage_error
from bittern.storage.whole_file import write_whole

NAME: Final = "dht"
MAX_LENGTH: Final = 1 << 20
"""Bytes that are read; 400 nodes of each of a few addresses are some tens of kilobytes."""


def read_dht_state(folder: Path) -> bytes | None:
    """Return what was saved in that folder; None if there is nothing usable."""
    try:
        with (folder / NAME).open("rb") as file:
            data = file.read(MAX_LENGTH + 1)
    except OSError:
        return None
    return data if len(data) <= MAX_LENGTH else None


def write_dht_state(folder: Path, data: bytes) -> None:
    """
    Replace what is saved in that folder, which is made if it is missing.

    Raises:
        StorageError: the folder or the file cannot be written; the old content stays.
    """
    path = folder / NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        raise storage_error(error, path) from error
