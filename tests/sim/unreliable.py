"""Disks, state folders, trackers and web servers on which nobody can rely."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import stat
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bittern.core.announce import AnnounceAnswer, AnnounceRequest
from bittern.core.errors import StorageError, TrackerUnreachable
from bittern.engine.session import Session
from bittern.testing.disk import CachedCalls
from bittern.testing.loop import VirtualLoop
from tests.engine.sources.fake_tracker import FakeClient
from tests.engine.web import Answer, Request, Web

_ERRORS = {
    "open": (errno.EIO, errno.EMFILE, errno.EACCES, errno.ENOSPC),
    "stat": (errno.EIO, errno.EACCES),
    "mkdir": (errno.EIO, errno.ENOSPC),
    "makedirs": (errno.EIO, errno.ENOSPC),
    "rename": (errno.EIO, errno.EXDEV, errno.EXDEV, errno.EXDEV),
    "unlink": (errno.EIO, errno.EACCES),
    "rmdir": (errno.EIO,),
    "ftruncate": (errno.EIO,),
    "fsync": (errno.EIO,),
    "fdatasync": (errno.EIO, errno.ENOSPC),
    "link": (errno.EIO, errno.EXDEV),
    "preadv": (errno.EIO,),
    "pwritev": (errno.EIO, errno.ENOSPC, errno.ENOSPC),
}


OF_MOVES = Counter(("rename", "unlink", "makedirs", "mkdir", "stat", "open"))
"""Where one of these fails, files may be where the torrent does not look for them."""


class UnreliableCalls(CachedCalls):
    """
    An operating system of which any call may fail or take long, with a chance.

    Args:
        loop: time passes on it; its chance decides.

    Attributes:
        fault_rate: how likely a call fails.
        slow_rate: how likely a write takes a tenth of a second.
        faults: how many calls of each name have failed.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self.fault_rate = 0.0
        self.slow_rate = 0.0
        self.faults: Counter[str] = Counter()
        self._loop = loop
        self._rng = random.Random(loop.random.random())
        self.fsync = self.fdatasync = lambda _: None  # they cost time and prove nothing
        for name, errors in _ERRORS.items():
            setattr(self, name, self._unreliable(name, getattr(self, name), errors))
        self.close: Callable[[int], None] = self._close

    def _fails(self, name: str) -> bool:
        fails = self._rng.random() < self.fault_rate
        self.faults[name] += fails
        return fails

    def _close(self, fd: int) -> None:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        os.close(fd)  # as in real life: also when it tells of an error
        if is_file and self._fails("close"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def spoil(self, session: Session) -> None:
        """Let a session's state folder fail as the disk does."""
        journal = session._services.journal
        assert journal is not None
        store = journal._store
        for name in ("load", "save", "mark_open", "commit_have", "forget"):
            setattr(store, name, self._failing(f"store.{name}", getattr(store, name)))

    def _failing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self._fails(name):
                raise StorageError("the state folder cannot be written")
            return function(*args, **options)

        return call

    def _unreliable(
        self, name: str, function: Callable[..., Any], errors: Sequence[int]
    ) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self._fails(name):
                number = self._rng.choice(errors)
                raise OSError(number, os.strerror(number))
            if name == "pwritev" and self._rng.random() < self.slow_rate:
                self._loop.block(0.1)
            return function(*args, **options)

        return call


class UnreliableTracker(FakeClient):
    """
    A tracker that answers late, or not at all.

    Args:
        loop: its chance decides.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._rng = random.Random(loop.random.random())

    async def announce(
        self,
        url: str,
        requests: Sequence[AnnounceRequest],
        *,
        answered: Callable[[AnnounceAnswer, str], None] = lambda answer, host: None,
    ) -> AnnounceAnswer:
        self.is_dead = False
        await asyncio.sleep(self._rng.choice([0.0, 0.5, 3.0, 20.0]))
        if self._rng.random() < 0.3:
            raise TrackerUnreachable("silent")
        return await super().announce(url, requests, answered=answered)


class UnreliableWeb(Web):
    """
    Web servers that now and then refuse, break off, or send other bytes.

    Args:
        loop: its chance decides.
        files: by URL.
    """

    def __init__(self, loop: VirtualLoop, files: Mapping[str, bytes]) -> None:
        rng = random.Random(loop.random.random())
        super().__init__(files, rate=100_000.0, has_ranges=rng.random() < 0.7)
        self._rng = rng
        self.lie = self._lie

    def _lie(self, _request: Request, answer: Answer) -> Answer | None:
        body = answer.body
        match self._rng.randrange(12):
            case 0:
                return Answer(503)
            case 1:
                half = body[: len(body) // 2]
                return Answer(answer.status, answer.headers, half, "the line was cut")
            case 2:
                return Answer(answer.status, answer.headers, bytes(len(body)))
            case _:
                return None
