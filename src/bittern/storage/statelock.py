"""
One process per state folder.

The lock is the system's own on an open file, so it ends with the process,
however that ends, and none is ever stale. The file names the process for the
one that comes second. Where a file system has no locks, that name is all
there is: then the process is looked up, by its number and its start time,
since numbers are used again.

Limit: F18.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import Final

from bittern.core.errors import StorageError
from bittern.storage.base import storage_error

_NAME: Final = "lock"
_HELD: Final = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})


class StateLock:
    """
    A held lock on a state folder, which is made if it is missing, for its owner only.

    Args:
        folder: the state folder.

    Raises:
        StorageError: another process holds it, or the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        try:
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise storage_error(error, folder) from error
        try:
            self._take(folder)
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            os.write(self._fd, _identity(os.getpid()).encode())
        except OSError as error:
            self._close()
            raise storage_error(error, self._path) from error
        except BaseException:
            self._close()
            raise

    def _take(self, folder: Path) -> None:
        holder = os.read(self._fd, 100).decode("ascii", "replace").strip()
        try:
            _lock(self._fd)
        except OSError as error:
            if error.errno not in _HELD and not _is_running(holder):
                return
            process = holder.partition(" ")[0] or "unknown"
            raise StorageError(
                f"the state folder is in use by another bittern, process {process}",
                path=str(folder),
                errno=errno.EAGAIN,
            ) from error

    def release(self) -> None:
        """Let go. Idempotent."""
        if self._fd >= 0:
            # The file stays: removing it would let two later ones lock different files.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        with contextlib.suppress(OSError):  # on some volumes what failed before fails here anew
            os.close(fd)


def _lock(fd: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        # Windows locks bytes, and nobody else may read those: take one behind the text.
        os.lseek(fd, 4096, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _identity(pid: int) -> str:
    """Return the number and, where the system tells it, the start time of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{pid} {fields[19]}"
    except (OSError, IndexError):
        return str(pid)


def _is_running(holder: str) -> bool:
    """Tell whether the process that ``_identity`` described runs, not another of its number."""
    pid = holder.partition(" ")[0]
    if not (pid.isascii() and pid.isdigit()) or sys.platform == "win32":
        return False  # Windows always has locks
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it runs, as somebody else
    return _identity(int(pid)) == holder
