"""
How long the containers are that can be reached from somewhere, by the attributes that lead there.

What grows with the age of a program is found exactly: the same walk at two equal points of its
cycle tells which container has more in it, and where it hangs.
"""

from __future__ import annotations

import asyncio
import types
import weakref
from collections import Counter, deque
from collections.abc import Iterator
from functools import partial

_LEAVES = (
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    types.CodeType,
    weakref.ref,
    str,
    bytes,
    int,
    float,
    type(None),
)
_CONTAINERS = (dict, list, set, frozenset, deque, bytearray)


def measure(*beyond: object, **roots: object) -> Counter[str]:
    """
    Add up the lengths of all containers below some objects.

    Args:
        beyond: objects that are not looked into, nor what only they lead to.
        roots: by the name that their paths begin with. What several lead to counts for the
            first, and on the shortest way.

    Returns:
        By path, as ``session.torrents[].shelf``, how much all containers there hold together.
    """
    lengths: Counter[str] = Counter()
    waiting = deque(roots.items())
    seen = {id(each): each for each in beyond}
    """By ``id``, and so that none of them gets another's."""
    while waiting:
        path, each = waiting.popleft()
        if isinstance(each, _LEAVES) or id(each) in seen:
            continue
        seen[id(each)] = each
        if isinstance(each, _CONTAINERS):
            lengths[path] += len(each)
        waiting.extend((path + step, child) for step, child in _below(each))
    return lengths


def _below(each: object) -> Iterator[tuple[str, object]]:
    """Return what an object leads to, and by which step."""
    match each:
        case dict():
            for key, value in list(each.items()):
                yield "{key}", key
                yield "{}", value
        case list() | tuple() | set() | frozenset() | deque():
            for child in list(each):
                yield "[]", child
        case types.MethodType():
            yield "()", each.__self__
        case types.FunctionType():
            for cell in each.__closure__ or ():
                yield "()", _content(cell)
        case partial():
            for child in (each.func, *each.args, *each.keywords.values()):
                yield "()", child
        case types.CoroutineType() | types.GeneratorType():
            frame = each.cr_frame if isinstance(each, types.CoroutineType) else each.gi_frame
            for name, child in frame.f_locals.items() if frame is not None else ():
                yield f"<{name}>", child
        case asyncio.Task():
            yield ".task", each.get_coro()
        case asyncio.TimerHandle():
            yield ".timer", each._args  # of what it will call
        case types.TracebackType():
            yield "", each.tb_next
            for name, child in each.tb_frame.f_locals.items():
                yield f"<{name}>", child
        case BaseException():
            for child in (each.args, each.__traceback__, each.__cause__, each.__context__):
                yield ".error", child
    yield from _attributes(each)


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # nothing yet
        return None


def _attributes(each: object) -> Iterator[tuple[str, object]]:
    for name, child in list(getattr(each, "__dict__", {}).items()):
        yield f".{name}", child
    for cls in type(each).__mro__:
        names = cls.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            own = f"_{cls.__name__.lstrip('_')}{name}" if name.startswith("__") else name
            child = getattr(each, own, None)
            if child is not None:
                yield f".{name}", child
