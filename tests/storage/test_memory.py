from __future__ import annotations

from pathlib import Path

import pytest

from bittern.core.errors import DiskFull
from bittern.storage.layout import Layout
from bittern.storage.memory import MemoryStorage
from tests.storage.conformance import StorageContract, read
from tests.storage.places import contiguous, noise


class TestMemory(StorageContract):
    def make(self, layout: Layout, folder: Path) -> MemoryStorage:
        return MemoryStorage(layout)


def test_a_full_memory_keeps_what_fitted_and_goes_on_when_there_is_room() -> None:
    storage = MemoryStorage(contiguous(100, 100), capacity=150)
    storage.prepare()
    storage.write(0, [noise(100)])
    with pytest.raises(DiskFull):
        storage.write(100, [bytes(40), bytes(20)])
    assert read(storage, 0, 100) == noise(100)
    storage.write(0, [bytes(100)])
    storage.capacity = 200
    storage.write(100, [noise(100)])
    assert read(storage, 100, 100) == noise(100)


def test_finishing_cuts_what_is_too_long() -> None:
    storage = MemoryStorage(contiguous(10))
    storage.prepare()
    storage.write(0, [noise(10)])
    storage.files[0] += b"tail"
    storage.finish_file(0)
    assert storage.files[0] == noise(10)


def test_repr_says_what_is_there() -> None:
    storage = MemoryStorage(contiguous(10, 0))
    storage.prepare()
    assert repr(storage) == "<MemoryStorage 1 of 2 files>"
