"""storage.renaming: names that a person gives to files (P8, P9, P10)."""

from __future__ import annotations

import pytest

from bittern.core.errors import ConfigError
from bittern.storage import renaming
from bittern.storage.file_paths import Folding
from bittern.storage.names import MAX_DEPTH
from bittern.storage.renaming import parse_path, renamed_paths

PATHS = [("t", "a"), ("t", "b", "c"), (), ("t", "\u00e9")]
EXACT, LOOSE = Folding(False, False), Folding(True, True)


@pytest.mark.parametrize("text", ["a", "a/b c.txt", "...", "\u00e9/\u4e2d", " a", "a" * 255])
def test_what_is_safe_stays_as_it_is(text: str) -> None:
    assert parse_path(text) == tuple(text.split("/"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "'' is no safe name for a file; '_' would be one"),
        ("/etc/passwd", "'' is no"),
        ("a/../../b", "'..' is no"),
        ("a/./b", "'.' is no"),
        ("a//b", "'' is no"),
        ("a/", "'' is no"),
        ("a\\b", "'a_b' would be"),
        ("a\0b", "'a_b' would be"),
        ("a\nb", "'a_b' would be"),
        ("a\u202eb", "'ab' would be"),
        ("\udce9", "'_' would be"),
        ("a" * 256, "is no safe name"),
        ("/".join("a" * (MAX_DEPTH + 1)), f"limit {MAX_DEPTH}"),
    ],
)
def test_what_is_not_safe_is_refused(text: str, shown: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_path(text)
    assert shown in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a:b", "CON", "nul.txt", "a.", "a ", "a?"])
def test_other_systems_refuse_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_path(name) == (name,)
    monkeypatch.setattr(renaming, "current_os", lambda: "windows")
    with pytest.raises(ConfigError):
        parse_path(name)


def test_files_get_other_names_and_folders() -> None:
    assert renamed_paths(PATHS, {}, LOOSE) == PATHS
    changed = renamed_paths(PATHS, {0: "elsewhere/x", 1: "t/a"}, LOOSE)
    assert changed == [("elsewhere", "x"), ("t", "a"), (), ("t", "\u00e9")]
    assert renamed_paths(PATHS, {1: "t/b/C"}, LOOSE)[1] == ("t", "b", "C")
    assert renamed_paths([*PATHS, ()], {0: "x"}, LOOSE)[2:] == [(), PATHS[3], ()], "two pads"


@pytest.mark.parametrize(
    ("renames", "is_taken", "is_taken_when_folded"),
    [
        ({0: "t/b/c"}, True, True),
        ({0: "t/b"}, True, True),  # a folder
        ({0: "t/B"}, False, True),
        ({0: "t/b/c/d"}, True, True),  # through a file
        ({0: "t/B/C"}, False, True),
        ({0: "t/e\u0301"}, False, True),
        ({0: "x", 1: "x"}, True, True),
        ({0: "x", 1: "X/y"}, False, True),
    ],
)
def test_two_files_never_get_one_path(
    renames: dict[int, str], is_taken: bool, is_taken_when_folded: bool
) -> None:
    for folding, fails in ((EXACT, is_taken), (LOOSE, is_taken_when_folded)):
        if fails:
            with pytest.raises(ConfigError, match="of another file of this torrent"):
                renamed_paths(PATHS, renames, folding)
        else:
            renamed_paths(PATHS, renames, folding)


@pytest.mark.parametrize("index", [-1, 2, 4])
def test_what_has_no_place_on_disk_has_no_name(index: int) -> None:
    with pytest.raises(ConfigError, match="no place on disk"):
        renamed_paths(PATHS, {index: "x"}, EXACT)
