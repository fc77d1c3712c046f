"""
What a program left behind on its loop, and where its tasks wait.

Used by ``bittern.testing.loop`` at the end of a run and in its error texts, and
by tests on a real loop. The order of everything reported is fixed, so that two
runs with one seed fail with the same words.
"""

from __future__ import annotations

import asyncio
import gc
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bittern.testing.loop import VirtualLoop

_ASYNCIO = os.path.dirname(asyncio.__file__)  # noqa: PTH120  # compared with co_filename


def ordered_tasks(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """Return the unfinished tasks of ``loop``, sorted by name and place."""
    return sorted(asyncio.all_tasks(loop), key=describe_task)


def describe_task(task: asyncio.Task[Any]) -> str:
    """Return a task's name and the innermost place outside asyncio where it waits."""
    frames = task.get_stack()
    awaited: Any = task.get_coro()
    while (awaited := getattr(awaited, "cr_await", None)) is not None:
        if (frame := getattr(awaited, "cr_frame", None)) is None:
            break
        frames.append(frame)
    if not frames:
        return task.get_name()
    ours = [frame for frame in frames if not frame.f_code.co_filename.startswith(_ASYNCIO)]
    place = (ours or frames)[-1]
    code = place.f_code
    return f"{task.get_name()} in {code.co_qualname} ({code.co_filename}:{place.f_lineno})"


def find_leaks(loop: VirtualLoop) -> list[str]:
    """
    Return what is left on a loop whose program has ended, one line each.

    Tasks that are not done, timers and callbacks that are still to run, what the
    loop's ``leak_checks`` find, and errors that nobody looked at.
    """
    found = [f"task {describe_task(task)}" for task in ordered_tasks(loop)]
    found += [f"timer {timer!r}" for timer in loop.pending_timers()]
    found += [f"callback {handle!r}" for handle in loop.pending_callbacks()]
    for check in loop.leak_checks:
        found += check()
    # The younger generations hold nearly everything a short program made, at a tenth of the cost.
    gc.collect(1)
    return found + loop.failures
