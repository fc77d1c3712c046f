"""
What a volume is like: which names fall together on it.

A volume is asked, by a file made for the purpose, whether it takes ``A`` for
``a`` and composed for decomposed letters; the system's name says too little,
since every system can mount the volumes of the others. Limit: P10.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from bittern.storage.file_paths import Folding, current_os, usual_folding
from bittern.storage.names import TargetOs

_PROBE = ".bittern-probe-\u00e9-{}"


def probe_folding(root: Path, *, target_os: TargetOs | None = None) -> Folding:
    """
    Find out which names fall together in a folder.

    Args:
        root: the folder; a file is made in it and removed again. While it is not there, the
            first folder above it that is stands for it: it will be made on that volume.
        target_os: decides where that cannot be asked, because it is read-only or knows no
            such letters; None for this machine's.
    """
    target_os = target_os or current_os()
    name = _PROBE.format(f"{os.getpid()}-{threading.get_ident()}")  # others ask at the same time
    places = (root, *root.absolute().parents)
    root = next((place for place in places if os.path.isdir(place)), root)  # noqa: PTH112 - no error
    probe = root / name
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except (OSError, UnicodeEncodeError):
        return usual_folding(target_os)
    try:
        return Folding(
            os.path.lexists(root / name.replace("bittern", "BITTERN")),
            os.path.lexists(root / name.replace("\u00e9", "e\u0301")),
        )
    finally:
        probe.unlink(missing_ok=True)
