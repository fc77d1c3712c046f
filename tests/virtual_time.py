"""
Tests as coroutines in virtual time.

A test under ``@simulated`` is the program that ``bittern.testing.loop.run`` runs with the test's
seed: it must end, and leave nothing behind. It takes fixtures as any other test does.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Coroutine
from typing import Any, overload

from bittern.testing.loop import VirtualLoop

AsyncTest = Callable[..., Coroutine[Any, Any, None]]
Test = Callable[..., None]


@overload
def simulated(test: AsyncTest, /) -> Test: ...
@overload
def simulated(**options: Any) -> Callable[[AsyncTest], Test]: ...
def simulated(test: AsyncTest | None = None, /, **options: Any) -> Any:
    """
    Run a test in virtual time.

    Args:
        test: a coroutine function; its parameters are fixtures and what it is parametrized with,
            and ``loop``, if it has that one, the loop that it runs on.
        options: of ``bittern.testing.loop.run``, when it is called before it decorates.

    Returns:
        A test for pytest.
    """
    if test is None:
        return functools.partial(_simulate, options)
    return _simulate({}, test)


def _simulate(options: dict[str, Any], test: AsyncTest) -> Test:
    takes_loop = "loop" in inspect.signature(test).parameters

    def run(*, simulate: Callable[..., None], **arguments: Any) -> None:
        def main(loop: VirtualLoop) -> Coroutine[Any, Any, None]:
            return test(**arguments, **({"loop": loop} if takes_loop else {}))

        simulate(main, **options)

    shown: Test = stand_in(run, test, without={"loop"}, needs={"simulate"})
    return shown


def stand_in(
    runner: Callable[..., Any], test: AsyncTest, *, without: Collection[str], needs: Collection[str]
) -> Any:
    """
    Make a function that runs a test look like that test.

    Args:
        runner: called with keywords; they come from pytest.
        test: whose name, text, marks and parameters the runner shall show.
        without: parameters of the test that the runner itself gives.
        needs: parameters that the runner takes besides.

    Returns:
        The runner.
    """
    functools.update_wrapper(runner, test)
    theirs = [name for name in inspect.signature(test).parameters if name not in without]
    names = dict.fromkeys([*theirs, *sorted(needs)])
    signature = inspect.Signature([_parameter(name) for name in names])
    runner.__signature__ = signature  # type: ignore[attr-defined]  # what inspect asks for first
    return runner


def _parameter(name: str) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
