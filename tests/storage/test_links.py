from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.errors import StorageError
from bittern.storage.links import Link, make_links, plan_links, remove_links
from bittern.storage.rooted import FilePath, RootedTree
from bittern.storage.system import OsCalls


@dataclass(frozen=True)
class Entry:
    path: tuple[str, ...]
    symlink_target: tuple[str, ...] | None = None
    is_pad: bool = False


def files(*lines: str) -> list[Entry]:
    """``a/b`` is a file, ``a/l -> c`` a link, ``p!`` a pad."""
    made = []
    for line in lines:
        path, _, target = line.partition(" -> ")
        parts = tuple(path.rstrip("!").split("/"))
        is_link = " -> " in line
        made.append(Entry(parts, tuple(target.split("/")) if is_link else None, path.endswith("!")))
    return made


def plan(*lines: str) -> dict[int, Link]:
    entries = files(*lines)
    return plan_links(entries, [("T", *entry.path) for entry in entries])


@pytest.mark.parametrize(
    ("link", "text"),
    [
        ("l -> f", "f"),
        ("l -> d/e/g", "d/e/g"),
        ("d/l -> f", "../f"),
        ("d/l -> d/e/g", "e/g"),
        ("d/e/l -> d/e/g", "g"),
        ("x/y/z/l -> d/e/g", "../../../d/e/g"),
        ("f2/l -> f", "../f"),
    ],
)
def test_links_to_files_of_the_torrent(link: str, text: str) -> None:
    target = 0 if link.endswith(" f") else 1
    assert plan("f", "d/e/g", link) == {2: Link(target, text)}


def test_a_torrent_without_links_has_none() -> None:
    assert plan("f", "d/e/g", "pad!") == {}


@pytest.mark.parametrize(
    "target",
    ["", "..", "../f", "/etc/passwd", "d", "d/e", "missing", "other", "l", "pad", "f/", "./f"],
)
def test_links_to_anything_else_are_left_out(target: str) -> None:
    """Limit: P11: folders, the outside, nothing, links, chains, loops, pads."""
    assert plan("f", "d/e/g", "pad!", "other -> f", f"l -> {target}") == {3: Link(0, "f")}


def test_a_link_without_a_place_is_left_out() -> None:
    assert plan_links(files("f", "l -> f"), [("f",), ()]) == {}
    assert plan_links([Entry(("f",)), Entry(("l",), ())], [("f",), ("l",)]) == {}


def test_texts_follow_the_safe_paths_not_the_torrents() -> None:
    entries = [Entry(("..", "f")), Entry(("..", "l"), ("..", "f"))]
    paths: list[FilePath] = [("T", "__", "f"), ("T", "x", "l")]
    assert plan_links(entries, paths) == {1: Link(0, "../__/f")}


names = st.sampled_from("abc")


@given(st.lists(names, max_size=4), st.lists(names, max_size=4))
def test_texts_lead_to_their_file(folder: list[str], target_folder: list[str]) -> None:
    link, target = ("T", *folder, "link"), ("T", *target_folder, "file")
    entries = [Entry(("f",)), Entry(("l",), ("f",))]
    text = plan_links(entries, [target, link])[1].text
    walked: list[str] = list(link[:-1])
    for part in PurePosixPath(text).parts:
        if part == "..":
            walked.pop()
        else:
            walked.append(part)
    assert tuple(walked) == target


def test_links_are_made_where_there_is_room_and_removed_where_they_are_ours(
    tmp_path: Path,
) -> None:
    tree = RootedTree(tmp_path, OsCalls())
    entries = files("f", "gone", "l1 -> f", "l2 -> gone", "l3 -> f", "d/l4 -> f")
    paths: list[FilePath] = [entry.path for entry in entries]
    (tmp_path / "f").write_text("content")
    (tmp_path / "l3").write_text("mine")
    assert make_links(tree, entries, paths) == [2, 5]
    assert (tmp_path / "l1").read_text() == (tmp_path / "d/l4").read_text() == "content"
    (tmp_path / "l1").unlink()
    (tmp_path / "l1").symlink_to("elsewhere")
    assert remove_links(tree, entries, paths) == [("d", "l4")]
    assert (tmp_path / "l1").is_symlink()
    assert (tmp_path / "l3").read_text() == "mine"


def test_a_file_system_without_links_says_so(tmp_path: Path) -> None:
    calls = OsCalls()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    calls.symlink = refuse
    (tmp_path / "f").write_text("")
    with pytest.raises(StorageError, match="not permitted"):
        make_links(RootedTree(tmp_path, calls), files("f", "l -> f"), [("f",), ("l",)])
