"""
Exit codes, and the one place where an exception becomes a code and a line of text.

Scripts rely on the numbers. Nothing here imports more than the error classes,
because every start of the program pays for it.
"""

from __future__ import annotations

import enum
import errno

from bittern.cli.wording import in_options
from bittern.core.errors import (
    BitTorrentError,
    ConfigError,
    DhtUnreachable,
    DiskFull,
    FetchError,
    FileVanished,
    Inconsistent,
    NotPublished,
    PeerTimeout,
    QueryTimeout,
    StorageError,
    TrackerUnreachable,
    UnsafePath,
    VolumeMissing,
)


class ExitCode(enum.IntEnum):
    """What the program's exit code says."""

    DONE = 0
    ERROR = 1
    """Any error that has no code of its own."""
    USAGE = 2
    """The command line is wrong."""
    NOT_FOUND = 3
    """A file, a folder or a document is not there."""
    UNREACHABLE = 4
    """No tracker, peer or server could be reached."""
    DISK = 5
    """The disk is full or cannot be written to."""
    MISMATCH = 6
    """Data does not match its hashes, or is not complete."""
    UNFINISHED = 7
    """Told to stop, by a signal or a timeout, before the work was done."""
    NOT_ALLOWED = 8
    """Permission was refused, or what was asked is not safe."""
    INTERRUPTED = 130
    """Ctrl-C."""


class CommandFailed(BitTorrentError):
    """
    A verb cannot do what it was asked to.

    Args:
        reason: what is wrong and where, one phrase; it is escaped when shown.
        code: what the program exits with.
    """

    def __init__(self, reason: str, code: ExitCode = ExitCode.ERROR) -> None:
        super().__init__(reason, code)
        self.reason = reason
        self.code = code

    def __str__(self) -> str:
        return self.reason


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived while work was under way."""


_WAY_BACK = "mount it and run this again, or have get --recheck fetch anew what is not here"
_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
_ABSENT_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
_REFUSED_ERRNOS = frozenset({errno.EACCES, errno.EPERM})
_NETWORK_ERRNOS = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ECONNREFUSED, errno.ETIMEDOUT}
)


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit code for an error; a group counts as its first member."""
    match error:
        case BaseExceptionGroup():
            return exit_code_of(_leaf(error))
        case CommandFailed():
            return error.code
        case Terminated():
            return ExitCode.UNFINISHED
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case ConfigError():
            return ExitCode.USAGE
        case Inconsistent():
            return ExitCode.MISMATCH
        case NotPublished():
            return ExitCode.NOT_FOUND
        case TrackerUnreachable() | PeerTimeout() | QueryTimeout() | DhtUnreachable():
            return ExitCode.UNREACHABLE
        case FetchError():
            return _code_of_status(error.status)
        case DiskFull():
            return ExitCode.DISK
        case FileVanished() | VolumeMissing():
            return ExitCode.NOT_FOUND
        case UnsafePath():
            return ExitCode.NOT_ALLOWED
        case StorageError():
            return _code_of_errno(error.errno)
        case TimeoutError() | ConnectionError():
            return ExitCode.UNREACHABLE
        case OSError():
            return _code_of_errno(error.errno)
    return ExitCode.ERROR


def describe(error: BaseException) -> str:
    """
    Say in one phrase what went wrong and where.

    The text may hold bytes from the network or a file: escape it before it is shown.
    """
    match error:
        case BaseExceptionGroup():
            return describe(_leaf(error))
        case Terminated():
            return "stopped"
        case KeyboardInterrupt():
            return "interrupted"
        case VolumeMissing():
            return f"{error}; {_WAY_BACK}"
        case BitTorrentError():
            text = str(error) or type(error).__name__
            return in_options(text) if isinstance(error, ConfigError) else text
        case OSError():
            return _describe_os_error(error)
        case MemoryError():
            return "out of memory"
    text = str(error)
    name = type(error).__name__
    return f"internal error: {name}: {text}" if text else f"internal error: {name}"


def is_expected(error: BaseException) -> bool:
    """Tell whether an error is one of those that input, disk or network can cause."""
    if isinstance(error, BaseExceptionGroup):
        return is_expected(_leaf(error))
    return isinstance(error, BitTorrentError | OSError | KeyboardInterrupt | MemoryError)


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the member that says most: a purposeful error before a bug of ours."""
    leaves: list[BaseException] = []
    todo: list[BaseException] = [group]
    while todo:
        error = todo.pop()
        if isinstance(error, BaseExceptionGroup):
            todo.extend(reversed(error.exceptions))
        else:
            leaves.append(error)
    return next((leaf for leaf in leaves if isinstance(leaf, BitTorrentError)), leaves[0])


def _code_of_status(status: int | None) -> ExitCode:
    if status is None:
        return ExitCode.UNREACHABLE
    if status in (404, 410):
        return ExitCode.NOT_FOUND
    if status in (401, 403, 407, 451):
        return ExitCode.NOT_ALLOWED
    return ExitCode.ERROR


def _code_of_errno(number: int | None) -> ExitCode:
    if number in _DISK_ERRNOS:
        return ExitCode.DISK
    if number in _ABSENT_ERRNOS:
        return ExitCode.NOT_FOUND
    if number in _REFUSED_ERRNOS:
        return ExitCode.NOT_ALLOWED
    # Failures of name lookup are OSErrors with a negative number.
    if number in _NETWORK_ERRNOS or (number is not None and number < 0):
        return ExitCode.UNREACHABLE
    return ExitCode.ERROR


def _describe_os_error(error: OSError) -> str:
    unnamed = "timed out" if isinstance(error, TimeoutError) else "failed without a reason"
    reason = error.strerror or str(error) or unnamed
    reason = reason[:1].lower() + reason[1:]
    if error.filename is None:
        return reason
    name = error.filename
    if isinstance(name, bytes):
        name = name.decode("utf-8", "surrogateescape")
    return f"{name}: {reason}"
