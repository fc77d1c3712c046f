"""
The state a torrent is in, who waits for its end, who calls it off, and what a failure comes to.

A full disk is no end: the torrent is started again after a while, and again, until there is
room or somebody pauses it. Nor is a volume that is not mounted, which is looked for as often. Every
other failure stands until the user does something. What starts by itself, after a failure or out of
rest, does so only if nobody has said otherwise meanwhile.

Finding out what is on disk may take hours, and whoever wants the torrent to do something else
calls it off and waits only until the threads have noticed. It goes on when the torrent is started
again, where a journal knows how far it had come; else it begins anew, and one that a person asked
for, which trusts nothing, is owed until it has come to its end.

Limit: F1 (disk full), F6 (volume missing).
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager

from bittern.core.errors import (
    BitTorrentError,
    ConfigError,
    DiskFull,
    InputError,
    StorageError,
    VolumeMissing,
)
from bittern.engine import events
from bittern.engine.events import Event, TorrentState
from bittern.engine.store.disk import Disk, failure_of
from bittern.engine.store.volumes import is_mended
from bittern.engine.undisturbed import undisturbed

RETRY_INTERVAL = 30.0
"""Limit: F1, F6. Seconds until a torrent that lacks room, or its volume, tries again by itself."""


def _nobody() -> None:
    """Try nothing again."""


class Condition:
    """
    The state described in the module's text.

    Args:
        report: tells the outside of changes and failures.
        disk: looks for a volume that is missing.
        is_paused: it begins so; else as one that has not been started.

    Attributes:
        state: what the torrent is at.
        error: what stopped it; None while nothing did.
        was_closed: it has left its session for good.
        lock: whoever starts the torrent, or ends what it is at, has it meanwhile.
    """

    __slots__ = (
        "_changed",
        "_disk",
        "_is_called_off",
        "_is_roused",
        "_num_leaving",
        "_owes_check",
        "_report",
        "_retry",
        "_try_again",
        "error",
        "lock",
        "state",
        "was_closed",
    )

    def __init__(self, report: Callable[[Event], None], disk: Disk, *, is_paused: bool) -> None:
        self.state: TorrentState = TorrentState.PAUSED if is_paused else TorrentState.STOPPED
        self.error: BitTorrentError | None = None
        self.was_closed: bool = False
        self.lock: asyncio.Lock = asyncio.Lock()
        self._report = report
        self._disk = disk
        self._changed: asyncio.Event | None = None
        """Made when somebody waits: there may be ten thousand torrents, and nobody does."""
        self._retry: asyncio.TimerHandle | None = None
        self._try_again: Callable[[], object] = _nobody
        self._num_leaving = 0
        """Those who wait for the lock, to end what the torrent is at."""
        self._is_called_off = False
        self._owes_check = False
        self._is_roused = False

    @property
    def is_complete(self) -> bool:
        """True when everything wanted is there."""
        return self.state is TorrentState.SEEDING

    @property
    def is_running(self) -> bool:
        """True for one that was started and that nothing has stopped."""
        return self.state not in (TorrentState.PAUSED, TorrentState.STOPPED, TorrentState.ERROR)

    @property
    def is_at_work(self) -> bool:
        """True while it moves pieces: what is wanted, or lost, may change its state."""
        return self.state in (TorrentState.DOWNLOADING, TorrentState.SEEDING)

    @property
    def retry_at(self) -> float | None:
        """When the torrent is started again by itself; None when it is not."""
        return None if self._retry is None else self._retry.when()

    def check_open(self) -> None:
        """Refuse to do more with a torrent that has left its session: ConfigError."""
        if self.was_closed:
            raise ConfigError("the torrent was removed from its session")

    def enter(self, state: TorrentState) -> None:
        """Be in a state from now on; the same one is no news, and who has left stays stopped."""
        if self.was_closed and state is not TorrentState.STOPPED:
            return
        if state is not self.state:
            self.state = state
            self._report(events.StateChanged(state))
        if self._changed is not None:
            self._changed.set()

    @asynccontextmanager
    async def leaving(self) -> AsyncIterator[None]:
        """
        Have the lock, to end what it is at; a check is called off for that.

        Who has it may begin something else before he lets go: whoever came after him, and wants
        the torrent to do another thing again, has the last word.
        """
        self._num_leaving += 1
        self._is_called_off = True
        try:
            await self.lock.acquire()
        finally:
            self._num_leaving -= 1
        try:
            yield
        finally:
            self.lock.release()

    async def start_again(self, start: Callable[[], Awaitable[None]]) -> None:
        """
        Have a torrent started whose disk was full, if that is still what it waits for.

        One whose volume is not there yet goes on waiting, and nobody hears of that.
        """
        error = self.error
        can_try = await is_mended(self._disk, error)  # which may take as long as a server is silent
        async with self.lock:
            if self.state is not TorrentState.ERROR or self.error is not error:
                return
            if can_try:
                await start()
            else:
                self._retry_later()

    async def rouse(self, start: Callable[[], Awaitable[None]]) -> None:
        """Have a torrent started that was at rest, unless somebody has stopped it meanwhile."""
        if self._is_roused:
            return  # Everybody who wants something of it asks again and again.
        self._is_roused = True
        try:
            async with self.lock:
                if self.is_running:
                    await start()
        finally:
            self._is_roused = False

    async def end(
        self, leave: Callable[[], Coroutine[object, object, None]], state: TorrentState
    ) -> None:
        """Have what the torrent is at left, all of it, and be in a state then."""

        async def leave_all() -> None:
            try:
                await leave()
            finally:  # Limit: F17. A bug does not leave a torrent that seems to run.
                self.end_retry()
                self.enter(state)

        await undisturbed(leave_all())

    @contextmanager
    def starting(self) -> Iterator[None]:
        """
        Start the torrent; if that is cancelled, so is its check, and it is left paused.

        Raises:
            StorageError: a bug (Limit: F17), which leaves no torrent being checked for ever.
        """
        try:
            yield
        except asyncio.CancelledError:
            self._is_called_off = True
            self.enter(TorrentState.PAUSED)
            raise
        except (StorageError, InputError):
            raise
        except Exception as error:
            raise failure_of(error) from error

    @property
    def is_called_off(self) -> bool:
        """Tell whether the check under way is to end early; asked from threads."""
        return self._is_called_off or self.was_closed

    def begin_check(self, *, is_forced: bool) -> bool:
        """Begin to find out what is on disk, and tell whether to trust nothing."""
        self._is_called_off = self._num_leaving > 0
        self._owes_check |= is_forced
        return self._owes_check

    def end_check(self, *, can_go_on: bool = False) -> bool:
        """
        Have found out, and tell whether it was called off; then the torrent goes no further.

        Args:
            can_go_on: the next check will know how far this one has come.
        """
        if can_go_on or not self.is_called_off:
            self._owes_check = False
        if self.is_called_off and not self._num_leaving:
            # Who called it off has been cancelled meanwhile.
            self.enter(TorrentState.PAUSED)
        return self.is_called_off

    def fail(self, error: BitTorrentError, *, try_again: Callable[[], object]) -> None:
        """
        Be in error.

        Args:
            error: what happened.
            try_again: called after ``RETRY_INTERVAL`` if a full disk, or a volume that is missing,
                is all that it was.
        """
        self.end_retry()
        # A copy has no traceback, whose frames keep alive all that was at work when it failed.
        self.error = copy.copy(error)
        self._report(events.failure(error))
        self.enter(TorrentState.ERROR)
        self._try_again = try_again
        if isinstance(error, DiskFull | VolumeMissing):
            self._retry_later()

    def _retry_later(self) -> None:
        if not self.was_closed:
            self._retry = asyncio.get_running_loop().call_later(RETRY_INTERVAL, self._try_again)

    def raise_error(self) -> None:
        """Raise what stopped the torrent, if anything did: BitTorrentError."""
        if self.error is not None:
            # Each time another one, or its traceback would grow by the frames of whoever asks.
            raise copy.copy(self.error)

    def begin(self) -> None:
        """Have nothing against running: no error, and no start to come."""
        self.error = None
        self.end_retry()

    def end_retry(self) -> None:
        """Do not start again by itself."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    async def wait_complete(self) -> None:
        """
        Wait until everything wanted is there and verified.

        Raises:
            BitTorrentError: what stopped the torrent.
            ConfigError: it was removed from its session.
        """
        while not self.is_complete:
            self.raise_error()
            if self.state is TorrentState.STOPPED:
                self.check_open()
            changed = self._changed = self._changed or asyncio.Event()
            changed.clear()
            await changed.wait()
