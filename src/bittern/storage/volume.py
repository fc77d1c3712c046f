"""
What a volume is like: which names fall together on it, and which it refuses.

A volume is asked, by files made for the purpose, whether it takes ``A`` for
``a`` and composed for decomposed letters, and ``?`` at all; the system's name
says too little, since every system can mount the volumes of the others: a
stick has the rules of Windows on each. Limit: P10.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path

from bittern.storage.file_paths import Folding, current_os, usual_folding
from bittern.storage.names import TargetOs

_OF_THE_MOMENT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO})
"""Errors that no name is to blame for."""
_LETTER = "\u00e9"
_DECOMPOSED = "e\u0301"


def probe_folding(root: Path, *, target_os: TargetOs | None = None) -> Folding:
    """
    Find out which names fall together in a folder.

    Args:
        root: the folder; a file is made in it and removed again. While it is not there, the
            first folder above it that is stands for it: it will be made on that volume.
        target_os: decides what cannot be asked, because the folder is read-only or has no such
            letters; None for this machine's.
    """
    usual = usual_folding(target_os or current_os())
    number = f"{os.getpid()}-{threading.get_ident()}"  # others ask at the same time
    places = (root, *root.absolute().parents)
    root = next((place for place in places if os.path.isdir(place)), root)  # noqa: PTH112 - no error
    for letter in (_LETTER, ""):
        name = f".bittern-probe-{letter}-{number}"
        try:
            _make(root / name)
        except (OSError, UnicodeEncodeError):
            continue
        try:
            return Folding(
                os.path.lexists(root / name.replace("bittern", "BITTERN")),
                os.path.lexists(root / name.replace(letter, _DECOMPOSED))
                if letter
                else usual.normalisation,
                _refuses(root / f"{name}?"),
            )
        finally:
            _remove(root / name)
    return usual


def _make(path: Path) -> None:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with contextlib.suppress(OSError):  # it is there, whatever closing says
        os.close(fd)


def _refuses(path: Path) -> bool:
    """Tell whether a file cannot have this name, beside one that can be made."""
    try:
        _make(path)
    except OSError as error:
        return error.errno not in _OF_THE_MOMENT
    _remove(path)
    return False


def _remove(path: Path) -> None:
    # Some volumes let nothing be removed, which is no reason not to write to them.
    with contextlib.suppress(OSError):
        path.unlink()
