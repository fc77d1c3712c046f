"""
Which torrents of a state folder nobody will come back to.

Programs that fetch and end leave a record of each torrent. One is dropped when nobody has
opened the torrent for half a year and nothing of its content is left. That must be certain:
where the folder that held it is missing or empty, a disk may just not be there (Limit: F6), and
the record stays. What is dropped by mistake costs a recheck, and names that were chosen.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from bittern.storage.resume_rows import ResumeRecord

OPENED_STEP: Final = 30 * 86_400.0
"""Seconds to which it is known when a torrent was opened last: few starts have to write it."""

KEPT_FOR: Final = 182 * 86_400.0
"""Seconds since a torrent was opened for which its record stays in any case."""

LOOK_INTERVAL: Final = 30 * 86_400.0
"""Seconds from one look at all records to the next."""


def is_abandoned(record: ResumeRecord, *, now: float) -> bool:
    """
    Tell whether a record may be dropped.

    Args:
        record: of a torrent that is not open.
        now: seconds since 1970.
    """
    if now - record.opened_at < KEPT_FOR or not record.paths:
        return False
    names = {path[0] for path in record.paths if path}
    root = Path(record.save_path)
    try:
        found = os.listdir(root)  # noqa: PTH208  # names alone are compared
    except (OSError, ValueError):
        return False
    if not names or not found:
        return False
    # A file that is not complete may have a suffix; the volume may fold names.
    is_there = any(entry.startswith(name) for entry in found for name in names)
    return not is_there and not any(os.path.lexists(root / name) for name in names)
