from __future__ import annotations

import os
from pathlib import Path

import pytest

from bittern.cli.data import DataPlace, find_data, is_whole
from bittern.cli.exits import CommandFailed, ExitCode
from bittern.codec.metainfo import decode_metainfo
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.storage.file_paths import Folding
from tests.cli.support import folder_torrent, single_file_torrent, write

SINGLE = decode_metainfo(single_file_torrent(b"cat.mp4", b"abc")).info
FOLDER = decode_metainfo(
    folder_torrent(b"cats", [((b"a", b"one"), b"abc"), ((b"two",), b"defg"), ((b"none",), b"")])
).info


def test_a_single_file_is_found_in_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "cat.mp4", b"abc")
    assert find_data(SINGLE, tmp_path) == DataPlace(tmp_path)


def test_a_single_file_is_found_by_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "cat.mp4", b"abc")
    assert find_data(SINGLE, path) == DataPlace(tmp_path)


def test_a_single_file_may_have_another_name(tmp_path: Path) -> None:
    path = write(tmp_path / "renamed.mp4", b"abc")
    assert find_data(SINGLE, path) == DataPlace(tmp_path, path)


def test_a_relative_path_is_found_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "x.mp4", b"abc")
    monkeypatch.chdir(tmp_path)
    assert find_data(SINGLE, Path("x.mp4")) == DataPlace(tmp_path, tmp_path / "x.mp4")
    assert find_data(SINGLE, Path()) == DataPlace(Path())


def test_a_folder_is_found_in_the_one_above(tmp_path: Path) -> None:
    write(tmp_path / "cats/two", b"defg")
    assert find_data(FOLDER, tmp_path) == DataPlace(tmp_path)


@pytest.mark.parametrize(("name", "renamed"), [("cats", False), ("my cats", True)])
def test_a_folder_is_found_by_itself(tmp_path: Path, name: str, renamed: bool) -> None:
    folder = tmp_path / name
    write(folder / "a/one", b"abc")
    write(folder / "two", b"defg")
    assert find_data(FOLDER, folder) == DataPlace(tmp_path, folder if renamed else None)


def test_of_two_ways_the_one_with_more_data_wins(tmp_path: Path) -> None:
    outer = tmp_path / "cats"
    write(outer / "two", b"defg")
    write(outer / "cats/a/one", b"abc")
    assert find_data(FOLDER, outer) == DataPlace(tmp_path)
    write(outer / "cats/two", b"defg")
    assert find_data(FOLDER, outer) == DataPlace(outer)


def test_files_of_the_wrong_length_say_nothing(tmp_path: Path) -> None:
    write(tmp_path / "two", b"wrong length")
    assert find_data(FOLDER, tmp_path) == DataPlace(tmp_path)


def test_without_any_data_the_folder_is_the_one_above(tmp_path: Path) -> None:
    assert find_data(FOLDER, tmp_path) == DataPlace(tmp_path)


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no such file or folder") as caught:
        find_data(FOLDER, tmp_path / "gone")
    assert caught.value.code is ExitCode.NOT_FOUND


def test_a_file_cannot_hold_a_folder(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="the torrent holds a folder"):
        find_data(FOLDER, write(tmp_path / "cats", b"abc"))


def test_links_say_nothing_of_where_the_data_is(tmp_path: Path) -> None:
    (tmp_path / "source/cats").mkdir(parents=True)
    write(tmp_path / "source/cats/a", b"abc")
    (tmp_path / "source/cats/link").symlink_to("a")
    options = CreateOptions(keep_symlinks=True)
    raw = create_torrent(tmp_path / "source/cats", options=options, num_threads=1)
    info = decode_metainfo(raw).info
    assert [entry.symlink_target is not None for entry in info.files].count(True) == 1
    (tmp_path / "source/cats/link").unlink()
    assert find_data(info, tmp_path / "source") == DataPlace(tmp_path / "source")


def test_a_link_to_the_data_itself_is_taken_for_what_it_leads_to(tmp_path: Path) -> None:
    """One to the folder that holds it stays: a folder that holds data may be reached over links."""
    kept = tmp_path / "kept"
    write(kept / "cats/a", b"abc")
    raw = create_torrent(kept / "cats", num_threads=1)
    info = decode_metainfo(raw).info
    (tmp_path / "cats").symlink_to(kept / "cats")
    assert find_data(info, tmp_path / "cats") == DataPlace(kept)
    (tmp_path / "link").symlink_to(kept)
    assert find_data(info, tmp_path / "link") == DataPlace(tmp_path / "link")
    single = decode_metainfo(create_torrent(write(kept / "b", b"abc"), num_threads=1)).info
    (tmp_path / "b").symlink_to(kept / "other")
    write(kept / "other", b"abc")
    assert find_data(single, tmp_path / "b") == DataPlace(kept, kept / "other")


def test_a_name_that_the_locale_cannot_write_is_no_bug_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "two", b"defg")
    real = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        if path.name == "one":
            raise UnicodeEncodeError("koi8-r", "\xe9", 0, 1, "no letter")
        return real(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert find_data(FOLDER, tmp_path).output == tmp_path.parent


def test_data_is_whole_when_every_wanted_file_has_its_length(tmp_path: Path) -> None:
    write(tmp_path / "cats/a/one", b"abc")
    write(tmp_path / "cats/two", b"def")
    assert not is_whole(FOLDER, tmp_path, None)
    assert is_whole(FOLDER, tmp_path, frozenset({0}))
    assert not is_whole(FOLDER, tmp_path, frozenset({0, 1}))
    write(tmp_path / "cats/two", b"defg")
    assert not is_whole(FOLDER, tmp_path, None), "an empty file would have to be made"
    write(tmp_path / "cats/none", b"")
    assert is_whole(FOLDER, tmp_path, None)


def test_names_that_another_volume_demanded_are_found(tmp_path: Path) -> None:
    """What came from a stick, or from Windows, has other names than it would have here."""
    odd = [((b"a?",), b"abc"), ((b"A?",), b"defg"), ((b"plain",), b"x")]
    info = decode_metainfo(folder_torrent(b"cats", odd)).info
    write(tmp_path / "cats/plain", b"x")
    assert find_data(info, tmp_path) == DataPlace(tmp_path)
    write(tmp_path / "cats/a_", b"abc")
    write(tmp_path / "cats/A_ (1)", b"defg")
    rules = Folding(case=True, normalisation=False, refuses=True)
    assert find_data(info, tmp_path) == DataPlace(tmp_path, folding=rules)
    assert DataPlace(tmp_path, folding=rules).renames(info) == {0: "cats/a_", 1: "cats/A_ (1)"}
    assert DataPlace(tmp_path, tmp_path / "x", rules).renames(info) == {0: "x/a_", 1: "x/A_ (1)"}
    assert DataPlace(tmp_path).renames(info) == {0: "cats/a?", 1: "cats/A?"}
    assert find_data(info, tmp_path / "cats") == DataPlace(tmp_path, folding=rules)


def test_names_that_fall_together_on_some_volumes_are_not_given(tmp_path: Path) -> None:
    """On such a volume one of two files of a length looks like both."""
    alike = [((b"a",), b"abc"), ((b"A",), b"abc")]
    info = decode_metainfo(folder_torrent(b"cats", alike)).info
    assert DataPlace(tmp_path).renames(info) == {}
