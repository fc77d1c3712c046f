"""
Open files, few of them, shared by all torrents of a session.

A handle that is in use is pinned, so that the event loop and the worker can
use files at once and none is closed, and its number given to another file,
under somebody's read. Beyond the limit the handle that was unused for longest
is closed first.

Limit: F13.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from bittern.core.errors import StorageError

DEFAULT_MAX_OPEN_FILES: Final = 64
"""Limit: F13. libtorrent keeps 40, Transmission 32."""


HandleKey: TypeAlias = tuple[int, int]
"""Owner, as given by ``HandleCache.new_owner``, and index of the file."""


class Handle:
    """An open file; ``fd`` is valid between ``HandleCache.acquire`` and ``release``."""

    __slots__ = ("fd", "is_cached", "is_writable", "num_users")

    def __init__(self, fd: int, is_writable: bool) -> None:
        self.fd: int = fd
        self.is_writable: bool = is_writable
        self.num_users: int = 1
        self.is_cached: bool = True


class HandleCache:
    """
    Files kept open for reuse.

    Args:
        limit: handles kept; more are open only while more are in use at once.

    Safe to use from several threads.
    """

    def __init__(self, limit: int = DEFAULT_MAX_OPEN_FILES) -> None:
        self._limit = max(limit, 1)
        self._lock = threading.Lock()
        self._handles: OrderedDict[HandleKey, Handle] = OrderedDict()
        self._num_owners = 0

    def new_owner(self) -> int:
        """Return a number that no other user of this cache has."""
        with self._lock:
            self._num_owners += 1
            return self._num_owners

    def __len__(self) -> int:
        return len(self._handles)

    def find(self, key: HandleKey, writable: bool) -> Handle | None:
        """Return an open handle that allows this and pin it; None if there is none."""
        with self._lock:
            handle = self._handles.get(key)
            if handle is None or (writable and not handle.is_writable):
                return None
            handle.num_users += 1
            self._handles.move_to_end(key)
            return handle

    def add(self, key: HandleKey, fd: int, writable: bool, close: Callable[[int], None]) -> Handle:
        """
        Keep a file that was just opened, and pin it.

        Args:
            key: names the file.
            fd: its descriptor, which the cache closes from now on, with ``close``.
            writable: it was opened to read and write.
            close: what closes this and the handles that must make room for it.
        """
        handle = Handle(fd, writable)
        with self._lock:
            closing = self._drop([key])
            self._handles[key] = handle
            if len(self._handles) > self._limit:
                idle = (k for k, h in self._handles.items() if not h.num_users)
                oldest = next(idle, None)
                if oldest is not None:
                    closing += self._drop([oldest])
        try:
            _close_all(closing, close)
        except (OSError, StorageError):
            self.release(handle, close)  # nobody gets it who could
            raise
        return handle

    def release(self, handle: Handle, close: Callable[[int], None]) -> None:
        """Unpin a handle; it is closed if it was dropped meanwhile."""
        with self._lock:
            handle.num_users -= 1
            if handle.num_users or handle.is_cached:
                return
        close(handle.fd)

    def drop(self, key: HandleKey, close: Callable[[int], None]) -> None:
        """Close one handle; if it is in use, once it is released."""
        with self._lock:
            closing = self._drop([key])
        _close_all(closing, close)

    def drop_owner(self, owner: int, close: Callable[[int], None]) -> None:
        """
        Close all handles of one owner; those in use once they are released.

        Raises:
            OSError, StorageError: the first of ``close``; all are closed nevertheless.
        """
        with self._lock:
            closing = self._drop([key for key in self._handles if key[0] == owner])
        _close_all(closing, close)

    def make_room(self, close: Callable[[int], None]) -> bool:
        """Close half of the idle handles, at least one; False if none is idle (EMFILE)."""
        with self._lock:
            idle = [key for key, handle in self._handles.items() if not handle.num_users]
            closing = self._drop(idle[: (len(idle) + 1) // 2])
        _close_all(closing, close)
        return bool(closing)

    def _drop(self, keys: Iterable[HandleKey]) -> list[int]:
        """Forget handles and return the descriptors that can be closed now; under the lock."""
        closing = []
        for key in keys:
            handle = self._handles.pop(key, None)
            if handle is not None:
                handle.is_cached = False
                if not handle.num_users:
                    closing.append(handle.fd)
        return closing


def _close_all(fds: Iterable[int], close: Callable[[int], None]) -> None:
    """Close descriptors, each of them whatever becomes of the others; raise the first error."""
    first: OSError | StorageError | None = None
    for fd in fds:
        try:
            close(fd)
        except (OSError, StorageError) as error:
            first = first or error
    if first is not None:
        raise first
