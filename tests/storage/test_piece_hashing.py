"""Hashing with threads against plain hashing of the whole piece space."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bittern.codec.file_list import FileEntry
from bittern.codec.info import Version
from bittern.codec.info_builder import arrange_files
from bittern.codec.merkle import block_hashes, piece_layer_of, root_of
from bittern.core.errors import FileVanished, StorageError
from bittern.storage import run_hashing
from bittern.storage.piece_hashing import Hashing, PieceDigests, _Reader
from bittern.storage.scan import SourceFile, scan

BLOCK = 16_384


def _make(root: Path, lengths: list[int]) -> list[bytes]:
    root.mkdir()
    rng = random.Random(len(lengths))
    contents = [rng.randbytes(length) for length in lengths]
    for number, data in enumerate(contents):
        (root / f"{number:02}").write_bytes(data)
    return contents


def _sources(root: Path, version: Version, piece_length: int) -> list[SourceFile]:
    content = scan(root)
    entries = arrange_files(
        [file.entry for file in content.files], version=version, piece_length=piece_length
    )
    real = [entry for entry in entries if not entry.is_pad]
    return [replace(file, entry=entry) for file, entry in zip(content.files, real, strict=True)]


def _plain(
    contents: list[bytes], entries: list[FileEntry], version: Version, piece_length: int, pad: bool
) -> PieceDigests:
    """The same by laying out the whole piece space in memory."""
    space = bytearray()
    for data, entry in zip(contents, entries, strict=True):
        space += bytes(entry.offset - len(space)) + data if data else b""
    if pad:
        space += bytes(-len(space) % piece_length)
    pieces = b"".join(
        hashlib.sha1(space[at : at + piece_length]).digest()
        for at in range(0, len(space), piece_length)
    )
    layers = []
    for data in contents:
        if len(data) > piece_length:
            layers.append(piece_layer_of(block_hashes(data), piece_length))
        else:
            layers.append(root_of(block_hashes(data)) if data else b"")
    return PieceDigests(
        b"" if version is Version.V2 else pieces, () if version is Version.V1 else tuple(layers)
    )


LENGTHS = [
    [1],
    [BLOCK],
    [BLOCK + 1],
    [0, 5 * BLOCK + 7, 0],
    [3, 0, 4, 5, BLOCK - 12, 1],
    [4 * BLOCK, 2 * BLOCK, 1, 0],
    [100_000, 70_000, 16_383, 16_385, 65_536],
    [2_500_000, 3, 1_048_576],
]


@pytest.mark.parametrize("version", list(Version))
@pytest.mark.parametrize("piece_length", [BLOCK, 4 * BLOCK, 64 * BLOCK, 128 * BLOCK])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("num_threads", [1, 3])
def test_equals_plain_hashing(
    tmp_path: Path, lengths: list[int], piece_length: int, version: Version, num_threads: int
) -> None:
    contents = _make(tmp_path / "r", lengths)
    sources = _sources(tmp_path / "r", version, piece_length)
    pad = version is Version.HYBRID and len(lengths) > 1
    hashing = Hashing(sources, version=version, piece_length=piece_length, has_tail_pad=pad)
    digests = hashing.run(num_threads, None)
    entries = [source.entry for source in sources]
    assert digests == _plain(contents, entries, version, piece_length, pad)


@pytest.mark.parametrize("piece_length", [1, 7, 1000, 30_000, (1 << 20) + 1])
def test_v1_pieces_may_have_any_length(tmp_path: Path, piece_length: int) -> None:
    contents = _make(tmp_path / "r", [1000, 0, 2345])
    sources = _sources(tmp_path / "r", Version.V1, piece_length)
    hashing = Hashing(sources, version=Version.V1, piece_length=piece_length, has_tail_pad=False)
    entries = [source.entry for source in sources]
    assert hashing.run(2, None) == _plain(contents, entries, Version.V1, piece_length, False)


def _hashing(root: Path, piece_length: int = 1 << 20, version: Version = Version.V1) -> Hashing:
    sources = _sources(root, version, piece_length)
    return Hashing(sources, version=version, piece_length=piece_length, has_tail_pad=False)


def test_where_no_thread_can_be_started_one_does_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    contents = _make(tmp_path / "r", [100_000, 70_000])
    hashing = _hashing(tmp_path / "r", BLOCK)
    entries = [file.entry for file in hashing.files]
    assert hashing.run(3, None) == _plain(contents, entries, Version.V1, BLOCK, False)


def test_places_are_those_of_files_that_were_not_changed(tmp_path: Path) -> None:
    _make(tmp_path / "r", [100, 3_000_000])
    hashing = _hashing(tmp_path / "r")
    path = tmp_path / "r" / "01"
    status = path.stat()
    with _Reader(hashing.files, hashing.starts) as reader:
        assert reader.place_of(110, 2_000_000) == (
            str(path),
            10,
            status.st_dev,
            status.st_ino,
        )
        assert reader.place_of(90, 11) is None
    _touch(path)
    with (
        _Reader(hashing.files, hashing.starts) as reader,
        pytest.raises(StorageError, match="changed while"),
    ):
        reader.place_of(110, 2_000_000)
    _vanish(path)
    with (
        _Reader(hashing.files, hashing.starts) as reader,
        pytest.raises(FileVanished, match="no such file"),
    ):
        reader.place_of(110, 2_000_000)


class TestProgress:
    def test_rises_to_the_end(self, tmp_path: Path) -> None:
        _make(tmp_path / "r", [5_000_000, 10])
        seen: list[tuple[int, int]] = []
        _hashing(tmp_path / "r").run(1, lambda done, total: seen.append((done, total)))
        assert seen == [
            (2 << 20, 5_000_010),
            (4 << 20, 5_000_010),
            (5_000_010, 5_000_010),
            (5_000_010, 5_000_010),
        ]

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
    @pytest.mark.parametrize("num_threads", [1, 2])
    def test_what_it_raises_stops_the_work(
        self, tmp_path: Path, kind: type[BaseException], num_threads: int
    ) -> None:
        _make(tmp_path / "r", [3_000_000])
        calls: list[int] = []

        def progress(done: int, total: int) -> None:
            calls.append(done)
            raise kind("stop")

        with pytest.raises(kind, match="stop"):
            _hashing(tmp_path / "r").run(num_threads, progress)
        assert len(calls) == 1


def _shorten(path: Path) -> None:
    os.truncate(path, 1_500_000)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def _touch(path: Path) -> None:
    os.utime(path, (1, 1))


def _vanish(path: Path) -> None:
    path.unlink()


CHANGES: list[tuple[Callable[[Path], None], str]] = [
    (_shorten, "became shorter"),
    (_grow, "changed while"),
    (_touch, "changed while"),
    (_vanish, "no such file"),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES, ids=[row[1] for row in CHANGES])
def test_a_file_that_changes_on_the_way_is_named(
    tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    _make(tmp_path / "r", [3_000_000])
    path = tmp_path / "r" / "00"
    calls: list[int] = []

    def progress(done: int, total: int) -> None:
        if not calls:
            change(path)
        calls.append(done)

    with pytest.raises(StorageError, match=reason) as caught:
        _hashing(tmp_path / "r").run(1, progress)
    assert caught.value.path == str(path)


@pytest.mark.parametrize(("change", "reason"), CHANGES[1:], ids=[row[1] for row in CHANGES[1:]])
def test_a_file_that_changed_before_is_named_by_any_thread(
    tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    _make(tmp_path / "r", [10, 2_000_000, 10])
    hashing = _hashing(tmp_path / "r", BLOCK, Version.V2)
    change(tmp_path / "r" / "01")
    with pytest.raises(StorageError, match=reason) as caught:
        hashing.run(3, None)
    assert caught.value.path == str(tmp_path / "r" / "01")
    assert isinstance(caught.value, FileVanished) == (change is _vanish)


def test_memory_does_not_grow_with_the_piece_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece of 64 KiB through a buffer of one block gives the same."""
    _make(tmp_path / "r", [200_000, 5])
    for version in Version:
        expected = _hashing(tmp_path / "r", 4 * BLOCK, version).run(1, None)
        with monkeypatch.context() as patch:
            patch.setattr(run_hashing, "BUFFER_LENGTH", BLOCK)
            assert _hashing(tmp_path / "r", 4 * BLOCK, version).run(2, None) == expected
