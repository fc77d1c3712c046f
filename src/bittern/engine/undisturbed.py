"""
Work that must not be left half way, whoever waits for it.

Cancelling a coroutine ends it at the place where it waits, and what it was about to do next is
not done. Where files have moved, or half of a torrent has stopped, that is no state to be in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def undisturbed(job: Awaitable[None]) -> None:
    """
    Carry out a job to its end; whoever is cancelled while he waits for it is so when it is over.

    Args:
        job: must end by itself. What it raises is raised here, but for who is cancelled.
    """
    task = asyncio.ensure_future(job)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # Who would have heard of it has gone.
        raise cancelled
    task.result()
