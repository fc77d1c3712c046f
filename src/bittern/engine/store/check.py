"""
Hashing what a torrent has on disk, in steps that outlive their program.

A check of terabytes takes hours. It is made in steps of ``CHECK_LENGTH``; every
``checkpoint_interval``, and when it is stopped, its maker hears how far it has come, and
a later one can go on behind that. What was not hashed is never said to be good.

Source: threats.md F7.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
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

    services: Services
    content: Content
    geometry: Geometry
    progress: Callable[[int], None]
    is_stopped: Callable[[], bool]
    note: Callable[[Checked], Awaitable[bool]]

    async def run(self, pieces: Bitfield) -> Checked:
        """
        Hash some pieces.

        Raises:
            StorageError: a file is there but cannot be read.
            Inconsistent: the halves of a hybrid want different bytes.
        """
        loop, config = self.services.loop, self.services.config
        wanted: Sequence[int] = range(pieces.num_pieces) if pieces.is_full else list(pieces)
        tell = self._teller(len(wanted))
        noted_at = loop.time()
        num_pieces = max(1, CHECK_LENGTH // self.geometry.piece_length)
        found = Checked(0, (), pieces)
        for at in range(0, len(wanted), num_pieces):
            part = wanted[at : at + num_pieces]
            result = await self._step(part, at, tell)
            judged = Bitfield.of(pieces.num_pieces, part).bits & ~result.unchecked.bits
            rest = Bitfield(pieces.num_pieces, found.rest.bits & ~judged)
            have, damaged = found.have | result.have.bits, found.damaged + result.damaged
            found = Checked(have, damaged, rest, found.was_noted)
            is_late = loop.time() >= noted_at + config.checkpoint_interval
            if result.unchecked or (rest and is_late):
                found = replace(found, was_noted=await self.note(found))
                noted_at = loop.time()
            if result.unchecked:
                break
        return found

    async def _step(
        self, part: Sequence[int], num_before: int, tell: Callable[[int], None]
    ) -> CheckResult:
        content = self.content

        def check() -> CheckResult:
            return check_pieces(
                content.storage,
                content.layout,
                self.geometry,
                content.hashes,
                pieces=part,
                num_threads=self.services.config.hashing_threads,
                progress=lambda num_checked: tell(num_before + num_checked),
                is_stopped=self.is_stopped,
            )

        return await self.services.disk.run(check)

    def _teller(self, num_wanted: int) -> Callable[[int], None]:
        """Return what tells the progress from any thread, not too often."""
        loop = self.services.loop
        told_at = -math.inf

        def tell(num_checked: int) -> None:
            nonlocal told_at
            now = loop.time()
            if now < told_at + PROGRESS_INTERVAL and num_checked < num_wanted:
                return
            told_at = now
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.progress, num_checked)

        return tell
