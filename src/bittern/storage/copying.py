"""What is common to all who copy a file into another one."""

from __future__ import annotations

from typing import Final

from bittern.storage.base import skip
from bittern.storage.system import OsCalls

COPY_LENGTH: Final = 1 << 20
"""Bytes per read when a file is copied."""


def copy_content(reader: int, writer: int, calls: OsCalls) -> OSError | None:
    """
    Copy all of the content; in a file that was empty, runs of zeros become holes.

    Returns:
        Why the original could not be read to its end; None when it is copied.

    Raises:
        OSError: the copy cannot be written.
    """
    buffer = memoryview(bytearray(COPY_LENGTH))
    zeros = bytes(COPY_LENGTH)
    is_new = not calls.fstat(writer).st_size
    position = 0
    while True:
        try:
            length = calls.preadv(reader, [buffer], position)
        except OSError as error:
            return error
        if not length:
            break
        part = buffer[:length]
        if not is_new or part != zeros[:length]:
            done = 0
            while done < length:
                done += calls.pwritev(writer, skip([part], done), position + done)
        position += length
    calls.ftruncate(writer, position)
    return None
