"""Power failures: what was synced stays, the rest may be lost in every permitted way."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bittern.storage.files import FileStorage
from bittern.testing.crash import SECTOR_LENGTH, CrashingCalls
from tests.storage.places import contiguous

LENGTH = 4 * SECTOR_LENGTH


class Machine:
    """A folder on a disk that may lose its power, again and again with other luck."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir()
        self.folder = folder
        self.calls = CrashingCalls(random.Random(seed))
        self.root = os.open(folder, os.O_RDONLY)

    def create(self, name: str, content: bytes = b"") -> int:
        fd = self.calls.open(name, os.O_RDWR | os.O_CREAT, 0o600, dir_fd=self.root)
        if content:
            self.calls.pwritev(fd, [content], 0)
        return fd

    def close(self, *fds: int) -> None:
        for fd in (*fds, self.root):
            os.close(fd)

    def names(self) -> set[str]:
        return {entry.name for entry in self.folder.iterdir()}


@pytest.fixture
def machines(tmp_path: Path, rng: random.Random) -> Iterator[Machine]:
    """Yield sixty machines with different luck."""
    return (Machine(tmp_path / str(n), rng.randrange(1 << 32)) for n in range(60))


def test_what_is_synced_stays(machines: Iterator[Machine]) -> None:
    for machine in machines:
        fd = machine.create("a", b"safe" * 100)
        machine.calls.fdatasync(fd)
        machine.calls.fsync(machine.root)
        assert machine.calls.num_unsynced == 0
        machine.calls.crash()
        assert (machine.folder / "a").read_bytes() == b"safe" * 100
        machine.close(fd)


def test_unsynced_writes_are_lost_in_every_combination(machines: Iterator[Machine]) -> None:
    """Two writes to a synced file: none, either or both survive, and some are torn."""
    seen = set()
    for machine in machines:
        fd = machine.create("a", b"." * 2 * LENGTH)
        machine.calls.fdatasync(fd)
        machine.calls.fsync(machine.root)
        machine.calls.pwritev(fd, [b"x" * LENGTH], 0)
        machine.calls.pwritev(fd, [b"y" * SECTOR_LENGTH, b"y" * (LENGTH - SECTOR_LENGTH)], LENGTH)
        assert machine.calls.num_unsynced == 2
        machine.calls.crash()
        content = (machine.folder / "a").read_bytes()
        assert len(content) == 2 * LENGTH
        first, second = content[:LENGTH], content[LENGTH:]
        for half, letter in ((first, b"x"), (second, b"y")):
            num_new = half.count(letter)
            assert half == letter * num_new + b"." * (LENGTH - num_new)
            assert num_new % SECTOR_LENGTH == 0
        seen.add((first.count(b"x"), second.count(b"y")))
        machine.close(fd)
    assert {(0, 0), (LENGTH, 0), (0, LENGTH), (LENGTH, LENGTH)} <= seen
    assert any(0 < a < LENGTH or 0 < b < LENGTH for a, b in seen)


def test_writes_past_the_end_and_new_lengths(machines: Iterator[Machine]) -> None:
    lengths = set()
    for machine in machines:
        fd = machine.create("a", b"abc")
        machine.calls.fdatasync(fd)
        machine.calls.fsync(machine.root)
        machine.calls.pwritev(fd, [b"z" * SECTOR_LENGTH], 1000)
        machine.calls.ftruncate(fd, 1200)
        machine.calls.crash()
        content = (machine.folder / "a").read_bytes()
        assert content[:3] == b"abc"
        assert set(content[3:1000]) <= {0}
        lengths.add(len(content))
        machine.close(fd)
    assert lengths >= {3, 1000 + SECTOR_LENGTH, 1200}


def test_new_names_vanish_unless_their_folder_is_synced(machines: Iterator[Machine]) -> None:
    seen = set()
    for machine in machines:
        first = machine.create("a", b"1")
        machine.calls.fdatasync(first)
        second = machine.create("b", b"2")
        again = machine.create("a")
        machine.calls.mkdir("folder", 0o700, dir_fd=machine.root)
        machine.calls.crash()
        seen.add("".join(sorted(machine.names())))
        machine.close(first, second, again)
    # Names survive in the order in which they were made.
    assert seen == {"", "a", "ab", "abfolder"}


def test_renames_and_removals_are_taken_back(machines: Iterator[Machine]) -> None:
    seen = set()
    for machine in machines:
        fds = [machine.create(name, name.encode() * 10) for name in ("old", "gone")]
        for fd in fds:
            machine.calls.fdatasync(fd)
        machine.calls.fsync(machine.root)
        machine.calls.pwritev(fds[0], [b"new"], 0)
        machine.calls.pwritev(fds[1], [b"new"], 0)
        machine.calls.rename("old", "new", src_dir_fd=machine.root, dst_dir_fd=machine.root)
        machine.calls.unlink("gone", dir_fd=machine.root)
        machine.calls.crash()
        seen.add("".join(sorted(machine.names())))
        for name in machine.names() & {"old", "new"}:
            assert (machine.folder / name).read_bytes()[3:] == b"oldoldoldoldoldoldoldoldold"
        if "gone" in machine.names():
            assert (machine.folder / "gone").read_bytes()[4:] == b"gone" * 9
        machine.close(*fds)
    assert seen == {"goneold", "gonenew", "new"}


def test_links_are_removed_without_following_them(machines: Iterator[Machine]) -> None:
    machine = next(machines)
    (machine.folder / "link").symlink_to("nowhere")
    machine.calls.unlink("link", dir_fd=machine.root)
    machine.calls.crash()
    assert machine.names() == set()
    machine.close()


def test_a_synced_thing_in_a_folder_that_is_not_keeps_the_folder(
    machines: Iterator[Machine],
) -> None:
    for machine in machines:
        machine.calls.mkdir(machine.folder / "sub")
        sub = os.open(machine.folder / "sub", os.O_RDONLY)
        fd = machine.calls.open("a", os.O_RDWR | os.O_CREAT, 0o600, dir_fd=sub)
        machine.calls.pwritev(fd, [b"safe"], 0)
        machine.calls.fdatasync(fd)
        machine.calls.fsync(sub)
        machine.calls.crash()
        assert (machine.folder / "sub" / "a").read_bytes() == b"safe"
        os.close(sub)
        machine.close(fd)


def test_a_volume_may_be_full_as_well(tmp_path: Path, rng: random.Random) -> None:
    calls = CrashingCalls(rng, room=100)
    storage = FileStorage(contiguous(50), tmp_path, [("a",)], os_calls=calls)
    storage.prepare()
    storage.write(0, [b"x" * 50])
    assert calls.room == 50
    storage.close()


@pytest.mark.slow
def test_a_storage_keeps_its_promise_about_sync(tmp_path: Path, rng: random.Random) -> None:
    """Everything written before the last successful ``sync`` is there after a crash (F8)."""
    layout = contiguous(3_000, 5_000, 2_000)
    for number in range(40):
        root = tmp_path / str(number)
        calls = CrashingCalls(random.Random(rng.randrange(1 << 32)))
        paths = [("a", "x"), ("a", "y"), ("z",)]
        storage = FileStorage(layout, root, paths, part_suffix=".part", os_calls=calls)
        storage.prepare()
        safe: dict[int, int] = {}
        written: dict[int, int] = {}
        for letter in range(1, 30):
            block = rng.randrange(10)
            if block not in written and block not in safe:
                storage.write(block * 1_000, [bytes([letter]) * 1_000])
                written[block] = letter
            if rng.random() < 0.2:
                storage.sync()
                safe |= written
                written.clear()
        if {0, 1, 2} <= safe.keys():
            storage.finish_file(0)
        storage.close()
        calls.crash()
        storage = FileStorage(layout, root, paths, part_suffix=".part")
        for block, letter in safe.items():
            found = bytearray(1_000)
            assert storage.read_into(block * 1_000, [memoryview(found)])
            assert found == bytes([letter]) * 1_000
        storage.close()
