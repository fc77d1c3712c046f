"""
The operating system calls that storage makes, as one object that can be replaced.

``files.FileStorage`` and its helpers touch the disk only through an ``OsCalls``.
Its attributes are the functions of ``os`` themselves, so the detour costs one
attribute lookup; a test replaces attributes to make the N-th call fail, to
slow them down or to fill the disk.

Where a system lacks positional scatter I/O (Windows) the same is done by
seeking under a lock. Where it lacks calls relative to a folder handle, see
``rooted``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bittern.storage.base import Buffer

MAX_BUFFERS: Final = 1024
"""Buffers of one preadv or pwritev: IOV_MAX of Linux, macOS and the BSDs."""

_FICLONE: Final = 0x40049409
"""Linux: the ioctl that makes a file share another's blocks until either is written to."""


class OsCalls:
    """
    The functions of ``os`` that storage uses, under their own names.

    Args:
        portable: do without what Windows lacks; None for "where it is lacking".
    """

    def __init__(self, *, portable: bool | None = None) -> None:
        if portable is None:
            portable = not hasattr(os, "preadv") or os.open not in os.supports_dir_fd
        self.has_dir_fd: bool = not portable
        self.nowait_flag: int = 0 if portable else getattr(os, "RWF_NOWAIT", 0)
        """Flag for ``preadv`` that makes it fail instead of waiting for the disk; 0 for none."""
        self.open: Callable[..., int] = os.open
        self.close: Callable[[int], None] = os.close
        self.fstat: Callable[[int], os.stat_result] = os.fstat
        self.stat: Callable[..., os.stat_result] = os.stat
        self.mkdir: Callable[..., None] = os.mkdir
        self.makedirs: Callable[..., None] = os.makedirs
        self.rename: Callable[..., None] = os.rename
        self.unlink: Callable[..., None] = os.unlink
        self.rmdir: Callable[..., None] = os.rmdir
        self.symlink: Callable[..., None] = os.symlink
        self.readlink: Callable[..., str] = os.readlink  # pyright: ignore  # str of str
        self.link: Callable[..., None] = os.link
        self.clone: Callable[[int, int], None] = _clone
        self.ftruncate: Callable[[int, int], None] = os.ftruncate
        self.fchmod: Callable[[int, int], None] = getattr(os, "fchmod", _ignore_mode)
        self.fsync: Callable[[int], None] = _full_sync
        self.fdatasync: Callable[[int], None] = getattr(os, "fdatasync", _full_sync)
        self.preadv: Callable[..., int]
        self.pwritev: Callable[[int, Sequence[Buffer], int], int]
        if portable or sys.platform == "win32":
            seeking = _SeekingIO()
            self.preadv, self.pwritev = seeking.preadv, seeking.pwritev
        else:
            self.preadv, self.pwritev = os.preadv, os.pwritev
        self.allocate: Callable[[int, int, int], None] = getattr(os, "posix_fallocate", _allocate)
        self.free_bytes: Callable[[Path], int] = _free_bytes

    @property
    def is_replaced(self) -> bool:
        """True when reads must go through this object, as somebody put his own calls into it."""
        return self.preadv is not getattr(os, "preadv", None) or self.open is not os.open

    def drop_cache(self, fd: int) -> None:
        """Make the next reader of a file ask the disk, where the system can."""
        if sys.platform not in ("win32", "darwin") and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


class _SeekingIO:
    """``preadv`` and ``pwritev`` for systems without them; one call at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def preadv(self, fd: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        """Fill ``buffers`` as far as the file goes; ``flags`` must be 0."""
        assert flags == 0
        total = 0
        with self._lock:
            os.lseek(fd, offset, os.SEEK_SET)
            for buffer in buffers:
                data = os.read(fd, len(buffer))
                buffer[: len(data)] = data
                total += len(data)
                if len(data) < len(buffer):
                    break
        return total

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Write ``buffers`` as far as the system takes them."""
        total = 0
        with self._lock:
            os.lseek(fd, offset, os.SEEK_SET)
            for buffer in buffers:
                written = os.write(fd, buffer)
                total += written
                if written < len(buffer):
                    break
        return total


def _ignore_mode(fd: int, mode: int) -> None:
    """Do nothing: Windows keeps no executable bit."""


def _allocate(fd: int, offset: int, length: int) -> None:
    # Without posix_fallocate the best that can be had is a file of the right length.
    if os.fstat(fd).st_size < offset + length:
        os.ftruncate(fd, offset + length)


def _free_bytes(path: Path) -> int:
    """Return what may still be written to the volume of ``path``."""
    import shutil  # here, as it brings the compressors and few ask

    return shutil.disk_usage(path).free


def bytes_on_disk(status: os.stat_result) -> int:
    """Return what a file takes of its volume; its length where the system does not say."""
    blocks: int | None = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else 512 * blocks


def _clone(fd: int, source: int) -> None:
    """Make ``fd`` share the blocks of ``source`` (FICLONE); OSError where that cannot be had."""
    if sys.platform != "linux":
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    import fcntl

    fcntl.ioctl(fd, _FICLONE, source)


def _full_sync(fd: int) -> None:
    if sys.platform == "darwin":
        # fsync of macOS leaves the data in the drive's own cache.
        import fcntl

        # Volumes of the network, and some others, cannot do it; what fails in truth fails twice.
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def writable_flags() -> int:
    """Return the flags for opening a file to read and write."""
    return os.O_RDWR | _COMMON


def readable_flags() -> int:
    """Return the flags for opening a file to read."""
    return os.O_RDONLY | _COMMON


# O_NONBLOCK: opening a FIFO that somebody put in the way must not wait for its other end.
_COMMON: Final = (
    getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


def num_processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
