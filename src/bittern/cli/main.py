"""
The way in and the way out: arguments to a verb, its result to an exit code.

Every error ends here as one line on stderr; a traceback is shown only when the
environment has ``BITTERN_DEBUG``. Verbs are imported when they are called, the
argument parser only when the arguments need one.
"""

from __future__ import annotations

import os
import sys

from bittern.cli.environment import variable, variable_name
from bittern.cli.exits import ExitCode, Terminated, describe, exit_code_of, is_expected
from bittern.cli.output import complain, prepare_streams, write_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType


def run(arguments: Sequence[str]) -> int:
    """
    Carry out one command line.

    Args:
        arguments: what follows the program's name.

    Returns:
        The exit code. Never raises, whatever the verb ran into.
    """
    try:
        prepare_streams()
        code = _dispatch(arguments)
        write_text(sys.stdout, "")
    except BrokenPipeError:
        return _give_up_stdout()
    except BaseException as error:
        return _report(error)
    return code


def watch_signals() -> None:
    """Make SIGTERM unwind like Ctrl-C, so that unfinished files are cleaned up."""
    import signal

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)


def _dispatch(arguments: Sequence[str]) -> int:
    if _is_plain_info(arguments):
        from bittern.cli.info import info

        sources = [argument for argument in arguments[1:] if argument != "--json"]
        return info(sources[0], json="--json" in arguments)
    from bittern.cli.app import call

    return call(arguments)


def _is_plain_info(arguments: Sequence[str]) -> bool:
    """
    Tell whether this is ``info SOURCE [--json]``, which needs no argument parser.

    The parser takes 100 ms to import, and ``info`` is called in loops over files.
    """
    if not arguments or arguments[0] != "info" or variable_name("json") in os.environ:
        return False
    rest = [argument for argument in arguments[1:] if argument != "--json"]
    return len(rest) == 1 and len(arguments) <= 3 and (rest == ["-"] or rest[0][:1] != "-")


def _report(error: BaseException) -> int:
    """Write an error down, once, and return its exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        let_signals_kill()
    if variable("debug"):
        import traceback

        traceback.print_exception(error)
    hint = "" if is_expected(error) else f" (set {variable_name('debug')}=1 to see where)"
    complain(describe(error) + hint)
    try:
        sys.stdout.flush()
    except OSError:
        _give_up_stdout()
    return exit_code_of(error)


def let_signals_kill() -> None:
    """Give signals their own effect again: another Ctrl-C ends the program at once."""
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        except ValueError:  # not the main thread: nothing was changed there
            return


def _give_up_stdout() -> int:
    """Leave quietly when the reader of our output has gone, as ``| head`` does."""
    # Without this the interpreter flushes stdout once more and complains on its own.
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass  # not a real file, as in tests
    return ExitCode.ERROR
