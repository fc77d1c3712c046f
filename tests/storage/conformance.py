"""
The promises of ``storage.base.Storage``, as a class of tests.

A backend's test module derives a class from ``StorageContract`` and says how to
make one. Everything here goes through the contract alone.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bittern.core.errors import FileVanished, MisuseError
from bittern.storage.base import Storage
from bittern.storage.layout import Layout
from tests.storage.places import aligned, contiguous, layouts, noise, paths_for

shared_folder = settings(
    # Each example deletes what it wrote; each class that inherits runs the same body.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    deadline=None,
    max_examples=60,
)


def read(storage: Storage, offset: int, length: int) -> bytes:
    """Read in one go, without hurry."""
    data = bytearray(b"\xee" * length)
    assert storage.read_into(offset, [memoryview(data)])
    return bytes(data)


class StorageContract:
    """Derive, and say how to make a storage."""

    def make(self, layout: Layout, folder: Path) -> Storage:
        """Return a storage whose output folder is below ``folder`` and not there yet."""
        raise AssertionError("a backend says how it is made")

    def ready(self, layout: Layout, folder: Path) -> Storage:
        storage = self.make(layout, folder)
        storage.prepare()
        return storage

    # --- reading and writing -------------------------------------------------------------

    def test_what_is_written_is_read_back(self, tmp_path: Path) -> None:
        storage = self.ready(contiguous(100, 50, 30), tmp_path)
        data = noise(180)
        storage.write(0, [data])
        assert read(storage, 0, 180) == data
        assert read(storage, 99, 2) == data[99:101]
        storage.close()

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_all_kinds_of_buffers(self, kind: type, tmp_path: Path) -> None:
        storage = self.ready(contiguous(100), tmp_path)
        storage.write(10, [kind(b"abc"), kind(b""), kind(b"defg")])
        assert read(storage, 10, 7) == b"abcdefg"
        storage.close()

    @pytest.mark.parametrize("lengths", [(5000,), (100, 4000, 900)])
    def test_more_buffers_than_the_system_takes_at_once(
        self, lengths: tuple[int, ...], tmp_path: Path
    ) -> None:
        storage = self.ready(contiguous(*lengths), tmp_path)
        data = noise(5000)
        storage.write(0, [data[at : at + 2] for at in range(0, 5000, 2)])
        filled = bytearray(5000)
        view = memoryview(filled)
        assert storage.read_into(0, [view[at : at + 2] for at in range(0, 5000, 2)])
        assert filled == data
        storage.close()

    def test_reading_fills_exactly_the_buffers(self, tmp_path: Path) -> None:
        storage = self.ready(contiguous(64), tmp_path)
        storage.write(0, [noise(64)])
        frame = bytearray(b"." * 40)
        view = memoryview(frame)
        assert storage.read_into(8, [view[3:13], view[20:30]])
        want = noise(64)
        assert frame == b"..." + want[8:18] + b"......." + want[18:28] + b".........."
        storage.close()

    def test_nothing_to_do(self, tmp_path: Path) -> None:
        storage = self.ready(contiguous(64), tmp_path)
        storage.write(5, [])
        storage.write(5, [b""])
        assert storage.read_into(5, [])
        assert storage.stat_file(0) is None
        storage.close()

    def test_padding_and_gaps_are_zeros_and_swallow_writes(self, tmp_path: Path) -> None:
        padded = self.ready(contiguous(10, 54, 20, pads=[1]), tmp_path / "v1")
        padded.write(0, [b"x" * 84])
        assert read(padded, 0, 84) == b"x" * 10 + bytes(54) + b"x" * 20
        assert padded.stat_file(1) is None
        assert read(padded, 20, 30) == bytes(30)
        padded.write(20, [b"y" * 30])
        assert read(padded, 20, 30) == bytes(30)
        padded.close()
        gapped = self.ready(aligned(10, 20), tmp_path / "v2")
        gapped.write(0, [b"x" * 128])
        assert read(gapped, 0, 128) == b"x" * 10 + bytes(54) + b"x" * 20 + bytes(44)
        gapped.close()

    @pytest.mark.parametrize(("offset", "length"), [(-1, 1), (128, 1), (127, 2), (0, 129)])
    def test_leaving_the_piece_space_is_misuse(
        self, offset: int, length: int, tmp_path: Path
    ) -> None:
        storage = self.ready(contiguous(100, 28), tmp_path)
        with pytest.raises(MisuseError):
            storage.write(offset, [bytes(length)])
        with pytest.raises(MisuseError):
            storage.read_into(offset, [memoryview(bytearray(length))])
        assert storage.stat_file(0) is None
        storage.close()

    def test_missing_and_short_files_are_said_so(self, tmp_path: Path) -> None:
        storage = self.ready(contiguous(100, 28), tmp_path)
        with pytest.raises(FileVanished):
            read(storage, 0, 10)
        storage.write(0, [bytes(50)])
        assert read(storage, 40, 10) == bytes(10)
        with pytest.raises(FileVanished):
            read(storage, 45, 10)
        storage.write(60, [b"x"])
        assert read(storage, 45, 16) == bytes(15) + b"x"
        with pytest.raises(FileVanished):
            read(storage, 90, 20)
        storage.close()

    def test_nowait_gives_the_bytes_or_says_no(self, tmp_path: Path) -> None:
        storage = self.ready(contiguous(100, 28), tmp_path)
        data = noise(128)
        storage.write(0, [data])
        got = bytearray(60)
        for _ in range(3):
            if storage.read_into(60, [memoryview(got)], nowait=True):
                assert got == data[60:120]
        assert read(storage, 60, 60) == data[60:120]
        storage.close()

    @shared_folder
    @given(data=st.data())
    def test_any_writes_and_reads_against_a_naive_model(
        self, data: st.DataObject, tmp_path: Path
    ) -> None:
        layout = data.draw(layouts())
        storage = self.ready(layout, tmp_path)
        try:
            self._compare_with_model(storage, layout, data)
        finally:
            storage.delete()
            storage.close()

    def _compare_with_model(self, storage: Storage, layout: Layout, data: st.DataObject) -> None:
        stored = [False] * layout.end
        for index, entry in enumerate(layout.files):
            if layout.is_stored(index):
                stored[entry.offset : entry.offset + entry.length] = [True] * entry.length
        for index, entry in enumerate(layout.files):
            if layout.is_stored(index) and entry.length:
                storage.write(entry.offset, [bytes(entry.length)])
        model = bytearray(layout.end)
        for number in range(data.draw(st.integers(0, 8))):
            start = data.draw(st.integers(0, layout.end))
            length = data.draw(st.integers(0, layout.end - start))
            if not length:
                continue
            written = noise(length, number)
            cuts = sorted(data.draw(st.lists(st.integers(0, length), max_size=4)))
            edges = [0, *cuts, length]
            storage.write(start, [written[a:b] for a, b in pairwise(edges)])
            for at in range(length):
                if stored[start + at]:
                    model[start + at] = written[at]
            start = data.draw(st.integers(0, layout.end - 1))
            length = data.draw(st.integers(1, layout.end - start))
            assert read(storage, start, length) == model[start : start + length]

    # --- making, looking, finishing ------------------------------------------------------

    def test_nothing_is_made_where_the_output_folder_is_missing(self, tmp_path: Path) -> None:
        storage = self.make(contiguous(100, 0), tmp_path)
        with pytest.raises(FileVanished):
            storage.write(0, [b"x"])
        assert storage.stat_file(0) is None
        storage.prepare()
        storage.write(0, [b"x"])
        assert read(storage, 0, 1) == b"x"
        storage.close()

    @pytest.mark.parametrize(
        "lengths", [(0, 5, 9), (5, 0, 9), (5, 9, 0), (0,), (0, 0, 5, 0, 0, 9, 0)]
    )
    def test_empty_files_are_made_and_shift_nothing(
        self, lengths: tuple[int, ...], tmp_path: Path
    ) -> None:
        storage = self.ready(contiguous(*lengths, piece_length=8), tmp_path)
        for index, length in enumerate(lengths):
            stamp = storage.stat_file(index)
            assert (stamp is None) == bool(length)
            assert stamp is None or stamp.length == 0
        total = sum(lengths)
        if total:
            storage.write(0, [noise(total)])
            assert read(storage, 0, total) == noise(total)
        for index, length in enumerate(lengths):
            stamp = storage.stat_file(index)
            assert stamp is not None
            assert stamp.length == length
        storage.close()

    def test_only_wanted_files_are_prepared(self, tmp_path: Path) -> None:
        storage = self.make(contiguous(0, 5, 0), tmp_path)
        storage.prepare({1, 2})
        assert storage.stat_file(0) is None
        assert storage.stat_file(2) is not None
        storage.close()

    def test_a_stamp_changes_with_the_content(self, tmp_path: Path) -> None:
        storage = self.ready(contiguous(100), tmp_path)
        assert storage.stat_file(0) is None
        storage.write(0, [b"abc"])
        first = storage.stat_file(0)
        assert first is not None
        assert first.length == 3
        assert storage.stat_file(0) == first
        storage.write(3, [b"d"])
        assert storage.stat_file(0) != first
        storage.close()

    def test_sync_and_finish(self, tmp_path: Path) -> None:
        layout = contiguous(100, 28, 0, pads=[1])
        storage = self.ready(layout, tmp_path)
        storage.sync()
        storage.write(0, [noise(100)])
        storage.sync()
        for _ in range(2):
            for index in range(3):
                storage.finish_file(index)
        assert read(storage, 0, 100) == noise(100)
        storage.sync()
        stamp = storage.stat_file(0)
        assert stamp is not None
        assert stamp.length == 100
        storage.close()

    def test_sync_of_files_that_somebody_else_has_written_to(self, tmp_path: Path) -> None:
        storage = self.ready(contiguous(100, 50, 0), tmp_path)
        storage.write(0, [noise(100)])
        storage.mark_unsynced([0, 1, 2])
        storage.sync()
        storage.close()

    def test_finishing_a_file_that_is_missing(self, tmp_path: Path) -> None:
        storage = self.ready(contiguous(100), tmp_path)
        with pytest.raises(FileVanished):
            storage.finish_file(0)
        storage.close()

    def test_closed_storage_opens_again(self, tmp_path: Path) -> None:
        storage = self.ready(contiguous(100), tmp_path)
        storage.close()
        storage.write(0, [b"abc"])
        storage.close()
        storage.close()
        assert read(storage, 0, 3) == b"abc"
        storage.close()

    # --- moving and deleting -------------------------------------------------------------

    def test_moved_content_is_the_same_content(self, tmp_path: Path) -> None:
        layout = contiguous(100, 28, 0, 30, pads=[1])
        storage = self.ready(layout, tmp_path / "a")
        storage.write(0, [noise(100)])
        storage.move(tmp_path / "b" / "c")
        assert read(storage, 0, 100) == noise(100)
        assert storage.stat_file(3) is None
        storage.write(128, [noise(30)])
        storage.sync()
        paths = [path and (*path[:-1], f"new-{path[-1]}") for path in paths_for(layout)]
        storage.move(tmp_path / "b" / "c", paths)
        assert read(storage, 0, 100) == noise(100)
        assert read(storage, 128, 30) == noise(30)
        storage.move(tmp_path / "b" / "c")
        assert read(storage, 0, 100) == noise(100)
        storage.close()

    def test_moving_needs_a_path_for_every_file(self, tmp_path: Path) -> None:
        storage = self.ready(contiguous(100, 28), tmp_path)
        with pytest.raises(MisuseError):
            storage.move(tmp_path, [("a",)])
        storage.close()

    def test_deleted_content_is_gone(self, tmp_path: Path) -> None:
        storage = self.ready(contiguous(100, 0), tmp_path)
        storage.write(0, [noise(100)])
        storage.delete()
        assert storage.stat_file(0) is None
        assert storage.stat_file(1) is None
        with pytest.raises(FileVanished):
            read(storage, 0, 1)
        storage.delete()
        storage.prepare()
        storage.write(0, [b"new"])
        assert read(storage, 0, 3) == b"new"
        storage.close()
