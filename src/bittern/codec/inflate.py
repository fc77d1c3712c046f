"""
Decompression that cannot be made to explode.

Output comes in bounded steps, its total is capped, and so is its ratio to the input,
because a few kilobytes can stand for gigabytes. Reads gzip (several members), zlib
and, since servers disagree about what ``deflate`` means, raw deflate.

Limit: P15. Sources: RFC 1950, RFC 1951, RFC 1952.
"""

from __future__ import annotations

import zlib

from bittern.core.errors import DecodeError

MAX_RATIO = 100
"""Limit: P15. Output per input once ``RATIO_FREE_LENGTH`` is exceeded."""
RATIO_FREE_LENGTH = 1_048_576
"""Limit: P15. Output up to here may have any ratio; bytes."""
MAX_MEMBERS = 16
"""Limit: P15. Members of one gzip stream."""

PLAIN = frozenset({"", "identity", "none"})
"""
What servers call a body that is not compressed. Interop: ``none`` is nobody's standard; scripts
say it to keep their server from compressing, and curl takes it, too.
"""

_GZIP = 31
_ZLIB = 15
_RAW = -15
_GZIP_START = 0x1F


class Inflater:
    """
    One compressed stream, fed in parts.

    Args:
        encoding: ``gzip`` (also ``x-gzip``) or ``deflate``.
        max_length: bytes of output in total.

    Raises:
        DecodeError: ``encoding`` is none of these.
    """

    __slots__ = (
        "_decoder",
        "_encoding",
        "_input_length",
        "_is_done",
        "_max_length",
        "_num_members",
        "_output_length",
    )

    def __init__(self, encoding: str, *, max_length: int) -> None:
        self._encoding = encoding.lower().removeprefix("x-")
        if self._encoding not in ("gzip", "deflate"):
            raise DecodeError(f"unknown compression {encoding[:40]!r}")
        self._decoder: zlib._Decompress | None = None
        self._max_length = max_length
        self._input_length = 0
        self._output_length = 0
        self._num_members = 0
        self._is_done = False

    def decode(self, data: bytes) -> bytes:
        """
        Return what the next part of the stream stands for.

        Raises:
            DecodeError: not what it claims to be, or a limit was exceeded. The stream
                is then of no use any more.
        """
        self._input_length += len(data)
        parts = []
        while data and not self._is_done:
            if self._decoder is None:
                if self._num_members and data[0] != _GZIP_START:
                    self._is_done = True  # padding, and passed over
                    break
                self._decoder = self._begin(data)
            room = self._room()
            try:
                part = self._decoder.decompress(data, room + 1)
            except zlib.error as error:
                raise DecodeError(f"not {self._encoding}: {error}") from None
            if len(part) > room:
                self._refuse()
            self._output_length += len(part)
            parts.append(part)
            data = self._decoder.unconsumed_tail
            if self._decoder.eof:
                data = self._decoder.unused_data
                self._decoder = None
                self._is_done = self._encoding != "gzip"
        return b"".join(parts)

    def finish(self) -> None:
        """
        Say that the stream ended.

        Raises:
            DecodeError: it ended too early.
        """
        if self._decoder is not None:
            raise DecodeError(f"{self._encoding} stream ends too early")

    def _begin(self, data: bytes) -> zlib._Decompress:
        self._num_members += 1
        if self._num_members > MAX_MEMBERS:
            raise DecodeError("too many gzip members", limit=MAX_MEMBERS)
        if self._encoding == "gzip":
            return zlib.decompressobj(_GZIP)
        # Interop: some servers send raw deflate. A zlib stream starts with method 8.
        return zlib.decompressobj(_ZLIB if data[0] & 0x0F == 8 else _RAW)

    def _room(self) -> int:
        by_ratio = max(RATIO_FREE_LENGTH, MAX_RATIO * self._input_length)
        return min(self._max_length, by_ratio) - self._output_length

    def _refuse(self) -> None:
        if self._output_length + self._room() == self._max_length:
            raise DecodeError("decompressed data is too long", limit=self._max_length)
        raise DecodeError("decompressed data is suspiciously long", limit=MAX_RATIO)
