"""storage.copying: content that goes from one file into another."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bittern.storage.copying import COPY_LENGTH, copy_content
from bittern.storage.system import OsCalls
from tests.storage.faults import FailingCalls, ShortCalls
from tests.storage.places import noise

CONTENT = noise(1000) + bytes(2 * COPY_LENGTH) + noise(1000, 2)


def copy(folder: Path, calls: OsCalls, before: bytes = b"") -> OSError | None:
    (folder / "from").write_bytes(CONTENT)
    (folder / "to").write_bytes(before)
    with (folder / "from").open("rb") as reader, (folder / "to").open("r+b") as writer:
        return copy_content(reader.fileno(), writer.fileno(), calls)


@pytest.mark.parametrize("before", [b"", noise(COPY_LENGTH, 3), noise(5 * COPY_LENGTH, 4)])
def test_the_copy_has_the_content_whatever_was_there(before: bytes, tmp_path: Path) -> None:
    assert copy(tmp_path, ShortCalls(300_000), before) is None
    assert (tmp_path / "to").read_bytes() == CONTENT


def test_what_cannot_be_read_is_returned_and_what_cannot_be_written_is_raised(
    tmp_path: Path,
) -> None:
    reading = FailingCalls(names={"preadv"})
    reading.arm(1, errno.EIO)
    problem = copy(tmp_path, reading)
    assert problem is not None
    assert problem.errno == errno.EIO
    writing = FailingCalls(names={"pwritev"})
    writing.arm(1, errno.ENOSPC)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        copy(tmp_path, writing)
