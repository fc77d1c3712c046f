from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.errors import DiskFull, FileVanished, StorageError, UnsafePath
from bittern.storage.base import skip, storage_error


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ENOSPC, DiskFull, "no room on the volume: '/d/f'"),
        (errno.EDQUOT, DiskFull, "quota exceeded: '/d/f'"),
        (errno.ENOENT, FileVanished, "file or folder is missing: '/d/f'"),
        (errno.ESTALE, FileVanished, "stale file handle: '/d/f'"),
        (errno.ELOOP, UnsafePath, "a symbolic link is in the way: '/d/f'"),
        (errno.EIO, StorageError, "the disk reports an error: '/d/f'"),
        (errno.EACCES, StorageError, "permission denied: '/d/f'"),
        (None, StorageError, "the disk reports an error: '/d/f'"),
    ],
)
def test_errors_of_the_system_have_one_translation(
    number: int | None, kind: type[StorageError], text: str
) -> None:
    error = OSError(number, os.strerror(number)) if number else OSError("odd")
    found = storage_error(error, "/d/f")
    assert type(found) is kind
    assert str(found) == text
    assert found.errno == (number or errno.EIO)


@given(st.lists(st.binary(max_size=9), max_size=6), st.integers(0, 60))
def test_skip_drops_exactly_that_much(buffers: list[bytes], length: int) -> None:
    assert b"".join(skip(buffers, length)) == b"".join(buffers)[length:]
