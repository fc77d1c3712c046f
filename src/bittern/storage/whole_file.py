"""
Small files that are replaced as a whole, durably.

After a crash at any moment a file has all of its old or all of its new content.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """
    Replace a small file so that it has all of the old or all of the new content, durably.

    The file is for its owner only. May raise OSError; the old content stays then.
    """
    fresh = path.with_name(path.name + ".tmp")
    try:
        fd = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600
        )
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
