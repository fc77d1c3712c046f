"""
The unfinished tasks of a loop, and where they wait.

Used by ``bittern.testing.loop`` in its reports. The order is fixed, so that two
runs with one seed fail with the same words.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

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
