"""Records of the state folder, and what is read back from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bittern.core.geometry import Geometry
from bittern.core.ids import InfoHash
from bittern.engine.store.records import (
    make_record,
    read_partial,
    read_renames,
    read_volume,
    with_partial,
    with_renames,
    with_volume,
)
from bittern.storage.resume import ResumeRecord


def test_blocks_in_progress_come_back() -> None:
    record = make_record(InfoHash(bytes(20)), "name", Path("/data"), [("name",)], 0.0, {0: "b"})
    geometry = Geometry.contiguous(65_536, 2 * 65_536, 2 * 65_536)
    with_blocks = with_partial(record, {1: [0, 3]})
    assert read_partial(with_blocks, geometry) == {1: [0, 3]}
    assert read_renames(with_blocks) == {0: "b"}
    assert read_partial(record, geometry) == {}


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        (None, {}),
        ([1], {}),
        ({"0": [0, 3]}, {0: [0, 3]}),
        ({"\u00b2": [0], "9" * 5000: [0]}, {}),
        ({"0": [0, 4, -1, "x"], "9": [0], "x": [0], "-1": [0], "1": 5}, {0: [0]}),
    ],
)
def test_nonsense_about_pieces_in_progress_is_left_out(stored: Any, found: Any) -> None:
    """Limit: F9."""
    record = make_record(InfoHash(bytes(20)), "name", Path("/data"), [("name",)], 0.0)
    geometry = Geometry.contiguous(65_536, 2 * 65_536, 2 * 65_536)
    assert read_partial(replace(record, options={"partial": stored}), geometry) == found


@pytest.mark.parametrize("stored", [None, "", 7, ["/"]])
def test_where_the_volume_is_mounted_comes_back_unless_it_is_nonsense(stored: Any) -> None:
    """Limit: F6, F9."""

    def record_of(volume: Path | None) -> ResumeRecord:
        place = Path("/usb/x")
        return make_record(InfoHash(bytes(20)), "n", place, [("a",)], 1.0, {0: "b"}, volume)

    record = record_of(Path("/usb"))
    assert read_volume(record) == Path("/usb")
    assert read_renames(record) == {0: "b"}
    assert with_volume(record.options, None) == record_of(None).options
    assert read_volume(replace(record, options={"volume": stored})) is None


# --- names of files ---------------------------------------------------------------------------


def test_names_that_a_person_gave_are_options_of_the_record() -> None:
    def record(renames: dict[int, str]) -> ResumeRecord:
        return make_record(InfoHash(bytes(20)), "n", Path("/x"), [("a",)], 1.0, renames)

    assert record({}).options == {}
    assert read_renames(record({0: "b/c", 7: "d"})) == {0: "b/c", 7: "d"}
    options = with_renames({"other": 1, "renames": {"0": "b"}}, {1: "c"})
    assert options == {"other": 1, "renames": {"1": "c"}}
    assert with_renames(options, {}) == {"other": 1}


@pytest.mark.parametrize(
    "stored",
    [
        None,
        [],
        "a",
        {"0": "../a"},
        {"0": 7},
        {"x": "a"},
        {"-1": "a"},
        {"٣": "a"},
        {"9" * 9: "a"},
        {"0": "good", "1": "/bad"},
    ],
)
def test_names_that_nobody_can_have_given_are_none(stored: Any) -> None:
    """Limit: P8, F9."""
    record = ResumeRecord(
        info_hash=InfoHash(bytes(20)), name="n", save_path="/x", options={"renames": stored}
    )
    assert read_renames(record) == {}
