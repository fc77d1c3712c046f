from __future__ import annotations

import errno
import socket

import pytest

from bittern.cli.exits import (
    CommandFailed,
    ExitCode,
    Terminated,
    describe,
    exit_code_of,
    is_expected,
)
from bittern.core.errors import (
    BencodeDecodeError,
    ConfigError,
    DhtUnreachable,
    DiskFull,
    FetchError,
    FileVanished,
    Inconsistent,
    MagnetError,
    MetainfoError,
    MisuseError,
    NotPublished,
    PeerTimeout,
    QueryTimeout,
    StorageError,
    TrackerFailure,
    TrackerUnreachable,
    UnsafePath,
    VolumeMissing,
)

CODES: list[tuple[BaseException, int]] = [
    (CommandFailed("x"), 1),
    (CommandFailed("x", ExitCode.MISMATCH), 6),
    (MetainfoError("x"), 1),
    (MagnetError("x"), 1),
    (BencodeDecodeError("x"), 1),
    (ConfigError("x"), 2),
    (FetchError("x"), 4),
    (FetchError("x", status=404), 3),
    (FetchError("x", status=410), 3),
    (FetchError("x", status=403), 8),
    (FetchError("x", status=500), 1),
    (TrackerUnreachable("x"), 4),
    (TrackerFailure("x"), 1),
    (PeerTimeout("x"), 4),
    (QueryTimeout("x"), 4),
    (DhtUnreachable("x"), 4),
    (NotPublished(b"k"), 3),
    (Inconsistent(3, "v1"), 6),
    (DiskFull("x"), 5),
    (FileVanished("x"), 3),
    (VolumeMissing("x"), 3),
    (UnsafePath("x"), 8),
    (StorageError("x"), 1),
    (StorageError("x", errno=errno.EROFS), 5),
    (StorageError("x", errno=errno.EIO), 1),
    (StorageError("x", errno=errno.EACCES), 8),
    (OSError(errno.ENOSPC, "No space left on device"), 5),
    (OSError(errno.EDQUOT, "Quota exceeded"), 5),
    (FileNotFoundError(errno.ENOENT, "No such file or directory"), 3),
    (NotADirectoryError(errno.ENOTDIR, "Not a directory"), 3),
    (PermissionError(errno.EACCES, "Permission denied"), 8),
    (OSError(errno.ENETUNREACH, "Network is unreachable"), 4),
    (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), 4),
    (TimeoutError(), 4),
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), 4),
    (OSError(errno.EADDRINUSE, "Address already in use"), 1),
    (OSError("odd"), 1),
    (KeyboardInterrupt(), 130),
    (Terminated(), 7),
    (MisuseError("x"), 1),
    (MemoryError(), 1),
    (ZeroDivisionError("x"), 1),
    (ExceptionGroup("g", [ValueError("bug"), ExceptionGroup("h", [DiskFull("x")])]), 5),
    (ExceptionGroup("g", [FileNotFoundError(errno.ENOENT, "gone"), ValueError("x")]), 3),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=repr)
def test_every_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code


TEXTS: list[tuple[BaseException, str]] = [
    (CommandFailed("a.torrent: bad"), "a.torrent: bad"),
    (FileNotFoundError(2, "No such file or directory", "x/y"), "x/y: no such file or directory"),
    (
        FileNotFoundError(2, "No such file or directory", b"\xff"),
        "\udcff: no such file or directory",
    ),
    (OSError(98, "Address already in use"), "address already in use"),
    (TimeoutError(), "timed out"),
    (OSError(), "failed without a reason"),
    (StorageError("disk is gone", path="/a"), "disk is gone: '/a'"),
    (MetainfoError(), "MetainfoError"),
    (ConfigError("enable_zeroconf needs a package"), "--zeroconf needs a package"),
    (KeyboardInterrupt(), "interrupted"),
    (Terminated(), "stopped"),
    (MemoryError(), "out of memory"),
    (ZeroDivisionError("division by zero"), "internal error: ZeroDivisionError: division by zero"),
    (AssertionError(), "internal error: AssertionError"),
    (ExceptionGroup("g", [ValueError("bug"), DiskFull("disk full")]), "disk full"),
]


@pytest.mark.parametrize(("error", "text"), TEXTS, ids=repr)
def test_every_error_is_described_in_one_phrase(error: BaseException, text: str) -> None:
    assert describe(error) == text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DiskFull("x"), True),
        (OSError(5, "I/O error"), True),
        (Terminated(), True),
        (MemoryError(), True),
        (KeyError("x"), False),
        (ExceptionGroup("g", [KeyError("x"), DiskFull("x")]), True),
        (ExceptionGroup("g", [KeyError("x")]), False),
    ],
    ids=repr,
)
def test_bugs_are_told_from_what_input_can_cause(error: BaseException, expected: bool) -> None:
    assert is_expected(error) is expected
