"""
Hashing what a torrent has on disk, in steps that outlive their program.

A check of terabytes takes hours. It is made in steps of ``CHECK_LENGTH``; every
``checkpoint_interval``, and when it is stopped, its maker hears how far it has come, and
a later one can go on behind that. What was not hashed is never said to be good.

Source: threats.md F7.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from bittern.core.bitfield import Bitfield
from bittern.core.geometry import Geometry
from bittern.engine.services import Services
from bittern.engine.store.content import Content
from bittern.storage.checker import CheckResult, check_pieces

CHECK_LENGTH = 4 << 30
"""Bytes of pieces in one step: seconds of a fast disk, half a minute of a slow one."""
CANCEL_TIMEOUT = 2.0
"""Seconds to wait for what has been begun when a check is cancelled."""
PROGRESS_INTERVAL = 0.1
"""Seconds between two reports of a check: each wakes the loop, and the threads that hash wait."""


@dataclass(frozen=True, slots=True)
class Checked:
    """
    What hashing has found.

    Args:
        have: the good pieces, as bits.
        damaged: see ``CheckResult``.
        rest: pieces that are not hashed yet; at the end, because the check was stopped.
        was_noted: the one who keeps it has heard of this, or less.
    """

    have: int
    damaged: tuple[int, ...]
    rest: Bitfield
    was_noted: bool = False


class Check:
    """
    Hashing of a torrent's pieces.

    Args:
        services: of the session.
        content: of the torrent.
        geometry: of the torrent.
        progress: told on the loop, now and then, how many pieces have been hashed.
        is_stopped: asked from threads; True ends hashing early.
        note: given what is found so far, to keep it; True when it was kept.
    """

    def __init__(
        self,
        services: Services,
        content: Content,
        geometry: Geometry,
        *,
        progress: Callable[[int], None],
        is_stopped: Callable[[], bool],
        note: Callable[[Checked], Awaitable[bool]],
    ) -> None:
        self._services = services
        self._content = content
        self._geometry = geometry
        self._progress = progress
        self._is_stopped = is_stopped
        self._note = note
        self._is_cancelled = False
        self._told_at = -math.inf

    async def run(self, pieces: Bitfield, *, num_before: int = 0) -> Checked:
        """
        Hash some pieces; when it is cancelled, what it has seen is noted as well.

        Args:
            pieces: to be hashed.
            num_before: how many were before this check, for the progress.

        Raises:
            StorageError: a file is there but cannot be read.
            Inconsistent: the halves of a hybrid want different bytes.
        """
        loop, config = self._services.loop, self._services.config
        wanted: Sequence[int] = range(pieces.num_pieces) if pieces.is_full else list(pieces)
        noted_at = loop.time()
        num_pieces = max(1, CHECK_LENGTH // self._geometry.piece_length)
        found = Checked(0, (), pieces)
        for at in range(0, len(wanted), num_pieces):
            part = wanted[at : at + num_pieces]
            result = await self._step(part, num_before + at, num_before + len(wanted))
            judged = Bitfield.of(pieces.num_pieces, part).bits & ~result.unchecked.bits
            rest = Bitfield(pieces.num_pieces, found.rest.bits & ~judged)
            have, damaged = found.have | result.have.bits, found.damaged + result.damaged
            found = Checked(have, damaged, rest, found.was_noted)
            is_late = loop.time() >= noted_at + config.checkpoint_interval
            if result.unchecked or self._is_cancelled or (rest and is_late):
                found = replace(found, was_noted=await self._note(found))
                noted_at = loop.time()
            if self._is_cancelled:
                raise asyncio.CancelledError
            if result.unchecked:
                break
        return found

    async def _step(self, part: Sequence[int], num_before: int, num_all: int) -> CheckResult:
        content = self._content

        def check() -> CheckResult:
            return check_pieces(
                content.storage,
                content.layout,
                self._geometry,
                content.hashes,
                pieces=part,
                num_threads=self._services.config.hashing_threads,
                progress=lambda num_checked: self._tell(num_before + num_checked, num_all),
                is_stopped=lambda: self._is_cancelled or self._is_stopped(),
            )

        job = self._services.loop.create_task(self._services.disk.run(check))
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            # Limit: F19. Threads notice in no time, but a disk may hang.
            self._is_cancelled = True
            await asyncio.wait([job], timeout=CANCEL_TIMEOUT)
            if job.cancel():
                raise
            return job.result()

    def _tell(self, num_checked: int, num_all: int) -> None:
        """Tell the progress from any thread, not too often."""
        loop = self._services.loop
        now = loop.time()
        if now < self._told_at + PROGRESS_INTERVAL and num_checked < num_all:
            return
        self._told_at = now
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._progress, num_checked)
