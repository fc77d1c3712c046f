"""
Hashing the files of a new torrent with several threads.

The piece space is cut into *spans*: runs of whole pieces, or one piece where
pieces are longer. Threads take spans in turn, each with one buffer and one open
file (``run_hashing``). Reading and hashing release the interpreter lock, so they
run side by side; where there is much to hash, some have processes (``lanes``).

The calling thread works too. Between two spans it reports progress, and
whatever the report raises stops the work and is raised to the caller.

Source: BEP 3 (pieces), BEP 52 (piece layers). Limit: P7: memory does not grow
with the piece length.
"""

from __future__ import annotations

import io
import itertools
import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bittern.codec.file_list import FileEntry
from bittern.codec.info import Version
from bittern.codec.merkle import HASH_LENGTH, piece_level
from bittern.core.errors import FileVanished, StorageError
from bittern.storage.base import FilePlace, file_place
from bittern.storage.hashing import SHA1_LENGTH
from bittern.storage.lanes import Lanes
from bittern.storage.run_hashing import BUFFER_LENGTH
from bittern.storage.scan import SourceFile, storage_error
from bittern.storage.worker import start_threads

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class PieceDigests:
    """
    What hashing gives.

    Args:
        pieces: SHA-1 of each piece end to end; empty when v2 only.
        layers: for each file that was given, in order, its v2 piece layer; for a file of
            one piece that is its root, for an empty one nothing. Empty when v1 only.
    """

    pieces: bytes
    layers: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Span:
    """Whole pieces from ``first``: ``length`` bytes of files, then zeros up to ``v1_length``."""

    first: int
    offset: int
    length: int
    v1_length: int
    v2_length: int
    file_length: int
    """Bytes of the one file that it belongs to; not used in v1."""


class Hashing:
    """
    One run over the files of a torrent.

    Args:
        files: the sources with the entries that ``arrange_files`` made, without pads.
        version: which hashes to make.
        piece_length: bytes of a piece.
        has_tail_pad: the last piece of a hybrid is filled up with zeros too.
    """

    def __init__(
        self,
        files: Sequence[SourceFile],
        *,
        version: Version,
        piece_length: int,
        has_tail_pad: bool,
    ) -> None:
        self.files: list[SourceFile] = [file for file in files if file.entry.length]
        self.starts: list[int] = [file.entry.offset for file in self.files]
        self.total_length: int = sum(file.entry.length for file in self.files)
        self._all_files = files
        self._has_v1 = version is not Version.V2
        self._has_v2 = version is not Version.V1
        self._piece_length = piece_length
        self._end = max([_end_of(file.entry) for file in self.files], default=0)
        num_pieces = -(-self._end // piece_length)
        self._v1_end = num_pieces * piece_length if has_tail_pad else self._end
        self._pieces = bytearray(num_pieces * SHA1_LENGTH if self._has_v1 else 0)
        self._layers = bytearray(num_pieces * HASH_LENGTH if self._has_v2 else 0)
        self._spans: list[_Span] = []
        self._turn = itertools.count()
        self._num_done = 0
        self._failures: list[BaseException] = []

    def run(self, num_threads: int, progress: Progress | None) -> PieceDigests:
        """
        Hash everything.

        Args:
            num_threads: >= 1, the calling one included; fewer where the system starts no more.
            progress: called in the calling thread with bytes done and bytes in all; may raise.

        Raises:
            StorageError: a file cannot be read or is not what it was.
        """
        lanes = Lanes(
            self._piece_length,
            num_threads=num_threads,
            length=self.total_length,
            has_v2=self._has_v2,
        )
        step = lanes.longest_run * self._piece_length
        self._spans = self._cut_by_file(step) if self._has_v2 else self._cut(step)
        helpers = [
            threading.Thread(target=self._help, args=[lanes], name=f"hash-{number}")
            for number in range(min(num_threads, len(self._spans)) - 1)
        ]
        try:
            start_threads(helpers)
            self._work(lanes, progress)
        except BaseException as error:
            self._failures.append(error)
        finally:
            for helper in helpers:
                if helper.ident is not None:  # it was started
                    helper.join()
        if self._failures:
            raise self._failures[0]
        for file in self.files:
            _check_again(file)
        if progress is not None:
            progress(self.total_length, self.total_length)
        return PieceDigests(bytes(self._pieces), self._layers_by_file())

    def _cut(self, step: int) -> list[_Span]:
        """Cut a v1 piece space, in which files share pieces."""
        return [
            _Span(at // self._piece_length, at, length, length, 0, 0)
            for at in range(0, self._end, step)
            if (length := min(step, self._end - at))
        ]

    def _cut_by_file(self, step: int) -> list[_Span]:
        """Cut a v2 or hybrid piece space, in which a piece belongs to one file."""
        spans = []
        for file in self.files:
            end = _end_of(file.entry)
            padded_end = min(-(-end // self._piece_length) * self._piece_length, self._v1_end)
            spans += [
                _Span(
                    at // self._piece_length,
                    at,
                    min(step, end - at),
                    min(step, padded_end - at) if self._has_v1 else 0,
                    min(step, end - at),
                    file.entry.length,
                )
                for at in range(file.entry.offset, end, step)
            ]
        return spans

    def _help(self, lanes: Lanes) -> None:
        try:
            self._work(lanes, None)
        except BaseException as error:  # raised by run, in the calling thread
            self._failures.append(error)

    def _work(self, lanes: Lanes, progress: Progress | None) -> None:
        level = piece_level(self._piece_length) if self._has_v2 else 0
        with (
            _Reader(self.files, self.starts) as reader,
            lanes.open(reader.read, reader) as lane,
        ):
            while (number := next(self._turn)) < len(self._spans) and not self._failures:
                span = self._spans[number]
                v1, v2 = lane.hash(
                    span.offset,
                    v1_length=span.v1_length,
                    v2_length=span.v2_length,
                    level=level if span.file_length > self._piece_length else None,
                )
                begin = span.first * SHA1_LENGTH
                self._pieces[begin : begin + len(v1)] = v1
                begin = span.first * HASH_LENGTH
                self._layers[begin : begin + len(v2)] = v2
                self._num_done += span.length  # a lost update costs a little progress only
                if progress is not None:
                    progress(min(self._num_done, self.total_length), self.total_length)

    def _layers_by_file(self) -> tuple[bytes, ...]:
        if not self._has_v2:
            return ()
        layers = []
        for file in self._all_files:
            begin = file.entry.offset // self._piece_length
            end = begin - (-file.entry.length // self._piece_length)
            layers.append(bytes(self._layers[begin * HASH_LENGTH : end * HASH_LENGTH]))
        return tuple(layers)


def _end_of(entry: FileEntry) -> int:
    return entry.offset + entry.length


def check_unchanged(file: SourceFile, status: os.stat_result) -> None:
    """Raise StorageError when a file is not the one that ``scan`` found."""
    if status.st_size != file.entry.length or status.st_mtime_ns != file.modified_ns:
        raise StorageError("file changed while it was hashed", path=file.os_path)


def _check_again(file: SourceFile) -> None:
    try:
        check_unchanged(file, os.stat(file.os_path))  # noqa: PTH116
    except OSError as error:
        raise storage_error(error, file.os_path) from error


class _Reader:
    """One thread's open file."""

    def __init__(self, files: Sequence[SourceFile], starts: Sequence[int]) -> None:
        self._files = files
        self._starts = starts
        self._current = -1
        self._handle: io.FileIO | None = None
        self._at = 0

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def read(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` from the piece space: files, and zeros where none is."""
        index = bisect_right(self._starts, offset) - 1
        while view:
            file = self._files[index]
            begin = offset - file.entry.offset
            count = min(len(view), file.entry.length - begin)
            if count > 0:
                try:
                    self._read_file(index, begin, view[:count])
                except OSError as error:
                    raise storage_error(error, file.os_path) from error
            else:
                index += 1
                is_last = index == len(self._files)
                gap = len(view) if is_last else self._starts[index] - offset
                count = min(len(view), gap)
                view[:count] = bytes(count)
            offset += count
            view = view[count:]

    def place_of(self, offset: int, length: int) -> FilePlace | None:
        """Tell where bytes lie; see ``base.Placed``."""
        index = bisect_right(self._starts, offset) - 1
        file = self._files[index]
        begin = offset - file.entry.offset
        if begin + length > file.entry.length:
            return None
        try:
            return file_place(file.os_path, begin, os.fstat(self._open(index).fileno()))
        except OSError as error:
            raise storage_error(error, file.os_path) from error

    def _open(self, index: int) -> io.FileIO:
        if index == self._current and self._handle is not None:
            return self._handle
        file = self._files[index]
        self._close()
        self._current = -1
        self._handle = io.FileIO(file.os_path)
        if file.entry.length > BUFFER_LENGTH:  # for small files the check at the end will do
            check_unchanged(file, os.fstat(self._handle.fileno()))
        self._current = index
        self._at = 0
        return self._handle

    def _read_file(self, index: int, begin: int, view: memoryview) -> None:
        file = self._files[index]
        handle = self._open(index)
        if begin != self._at:
            handle.seek(begin)
        self._at = begin + len(view)
        while view:
            count = handle.readinto(view)
            if not count:
                raise FileVanished("file became shorter while it was hashed", path=file.os_path)
            view = view[count:]
