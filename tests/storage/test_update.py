"""From one version to the next: what is staged, what is promoted, what is left alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bittern.core.errors import StorageError, UnsafePath
from bittern.storage.rooted import RootedTree
from bittern.storage.system import OsCalls
from bittern.storage.update import promote_files, stage_files
from bittern.testing.disk import FaultyCalls


class Place:
    def __init__(self, root: Path, calls: OsCalls) -> None:
        self.calls = calls
        self.folder = RootedTree(root / "folder", calls)
        self.stage = RootedTree(root / "folder" / ".stage", calls)
        self.folder.make_root()
        self.stage.make_root()

    def write(self, tree: RootedTree, **files: str) -> None:
        for name, text in files.items():
            path = tree.root.joinpath(*name.split("_"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def content(self, tree: RootedTree) -> dict[str, str]:
        return {
            str(path.relative_to(tree.root)): path.read_text()
            for path in sorted(tree.root.rglob("*"))
            if path.is_file() and (tree is self.stage or ".stage" not in path.parts)
        }


@pytest.fixture(params=[False, True], ids=["native", "portable"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, OsCalls(portable=request.param))


def test_the_old_content_is_staged_once(place: Place) -> None:
    place.write(place.folder, a="old a", d_b="old b", d_c="old c")
    place.write(place.stage, a="half of new a")
    paths = [("a",), ("d", "b"), ("none",)]
    assert stage_files(place.folder, place.stage, paths, place.calls) == 1
    assert place.content(place.stage) == {"a": "half of new a", "d/b": "old b"}
    # It is a copy: what is written to it does not reach the present version.
    (place.stage.root / "d" / "b").write_text("new b")
    assert (place.folder.root / "d" / "b").read_text() == "old b"


def test_links_are_not_content(place: Place, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (place.folder.root / "a").symlink_to(tmp_path / "secret")
    (place.folder.root / "d").symlink_to(tmp_path)
    assert stage_files(place.folder, place.stage, [("a",), ("d", "secret")], place.calls) == 0
    assert place.content(place.stage) == {}


def test_the_next_version_takes_the_place_of_the_old_one(place: Place) -> None:
    place.write(place.folder, a="old a", d_b="old b", d_e_f="old f", mine="mine", d_mine="mine")
    place.write(place.stage, a="new a", n_x="new x")
    paths = [("a",), ("n", "x"), ("d", "b")]
    promote_files(place.stage, place.folder, paths, [("a",), ("d", "b"), ("d", "e", "f")])
    assert place.content(place.folder) == {
        "a": "new a",
        "d/b": "old b",
        "d/mine": "mine",
        "mine": "mine",
        "n/x": "new x",
    }
    assert not (place.folder.root / "d" / "e").exists()
    assert list(place.stage.root.iterdir()) == []


def test_a_folder_gives_way_to_a_file_and_the_other_way_round(place: Place) -> None:
    place.write(place.folder, a_b="old", c="old")
    place.write(place.stage, a="new a", c_d="new d")
    promote_files(place.stage, place.folder, [("a",), ("c", "d")], [("a", "b"), ("c",)])
    assert place.content(place.folder) == {"a": "new a", "c/d": "new d"}


def test_one_file_under_two_names(place: Place) -> None:
    place.write(place.folder, a="same")
    os.link(place.folder.root / "a", place.stage.root / "a")
    promote_files(place.stage, place.folder, [("a",)], [("a",)])
    assert place.content(place.folder) == {"a": "same"}
    assert place.content(place.stage) == {}


def test_what_belongs_to_others_is_not_replaced(place: Place, tmp_path: Path) -> None:
    place.write(place.folder, a_mine="mine")
    place.write(place.stage, a="new a")
    with pytest.raises(StorageError, match="in the way"):
        promote_files(place.stage, place.folder, [("a",)], [])
    assert place.content(place.folder) == {"a/mine": "mine"}
    (place.folder.root / "l").symlink_to(tmp_path)
    place.write(place.stage, l_x="x")
    with pytest.raises(UnsafePath):
        promote_files(place.stage, place.folder, [("l", "x")], [])
    assert not (tmp_path / "x").exists()


def test_an_interrupted_move_goes_on_wherever_it_was(tmp_path: Path) -> None:
    paths = [("a",), ("n", "x")]
    old_paths = [("a",), ("d", "b")]
    for number in range(200):
        calls = FaultyCalls()
        place = Place(tmp_path / str(number), calls)
        place.write(place.folder, a="old", d_b="old")
        place.write(place.stage, a="new", n_x="new")
        calls.fail_call(number, errno.EIO)
        try:
            promote_files(place.stage, place.folder, paths, old_paths)
            has_failed = False
        except StorageError:
            has_failed = True
        before = calls.num_calls
        calls.heal()
        promote_files(place.stage, place.folder, paths, old_paths)
        assert place.content(place.folder) == {"a": "new", "n/x": "new"}, number
        if not has_failed and before <= number:
            assert number > 5
            return
    raise AssertionError("it makes more calls than that?")
