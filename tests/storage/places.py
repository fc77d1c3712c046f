"""Layouts and metainfo for storage tests, and strategies that make them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import strategies as st

from bittern.core.geometry import Geometry
from bittern.storage import mounts
from bittern.storage.layout import Layout


@dataclass(frozen=True)
class Place:
    """A file entry with what storage looks at."""

    length: int
    offset: int = 0
    is_pad: bool = False
    is_executable: bool = False
    symlink_target: tuple[str, ...] | None = None
    path: tuple[str, ...] = ()


def contiguous(*lengths: int, piece_length: int = 64, pads: Sequence[int] = ()) -> Layout:
    """A v1 layout: files end to end; ``pads`` are the indices of padding."""
    places = []
    at = 0
    for index, length in enumerate(lengths):
        places.append(Place(length, at, index in pads))
        at += length
    return Layout(places, Geometry.contiguous(piece_length, at, at))


def aligned(*lengths: int, piece_length: int = 64) -> Layout:
    """A v2 layout: each file begins at a piece, with gaps behind."""
    places = []
    short = {}
    at = 0
    for length in lengths:
        places.append(Place(length, at))
        pieces = -(-length // piece_length)
        at += pieces * piece_length
        if length % piece_length:
            short[at // piece_length - 1] = length % piece_length
    geometry = Geometry(piece_length, at // piece_length, short, sum(lengths))
    return Layout(places, geometry)


def paths_for(layout: Layout) -> list[tuple[str, ...]]:
    """Paths with folders that several files share."""
    return [
        () if entry.is_pad else ("top", f"d{index % 3}", f"f{index}")
        for index, entry in enumerate(layout.files)
    ]


def noise(length: int, seed: int = 1) -> bytes:
    """Reproducible bytes without structure."""
    return random.Random(seed).randbytes(length)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Small layouts of both kinds, with empty files and padding anywhere."""
    lengths = draw(st.lists(st.integers(0, 200), min_size=1, max_size=7))
    piece_length = draw(st.sampled_from([16, 64, 100]))
    if draw(st.booleans()):
        return aligned(*lengths, piece_length=piece_length)
    pads = draw(st.sets(st.integers(0, len(lengths) - 1)))
    return contiguous(*lengths, piece_length=piece_length, pads=sorted(pads))


class Mounts(set[Path]):
    """The places where volumes are mounted, beside the root of all, as far as anybody can tell."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        monkeypatch.setattr(mounts, "is_mount_point", self._is_mount_point)

    def _is_mount_point(self, place: str) -> bool:
        return Path(place) in self or Path(place) == Path(Path(place).anchor)
