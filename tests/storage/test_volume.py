from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bittern.storage.file_paths import Folding
from bittern.storage.volume import probe_folding


def test_a_linux_volume_keeps_names_apart_and_is_left_clean(tmp_path: Path) -> None:
    assert probe_folding(tmp_path) == Folding(case=False, normalisation=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", [False, True])
@pytest.mark.parametrize("normalisation", [False, True])
def test_a_folding_volume_is_found_out(
    case: bool, normalisation: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.path.lexists

    def lexists(path: Path) -> bool:
        text = str(path)
        if case:
            text = text.replace("BITTERN", "bittern")
        if normalisation:
            text = text.replace("e\u0301", "\u00e9")
        return real(text)

    monkeypatch.setattr(os.path, "lexists", lexists)
    assert probe_folding(tmp_path) == Folding(case, normalisation)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_still_to_be_made_is_like_the_one_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a volume that folds case, as a stick has it, also the first torrent finds that out."""
    monkeypatch.setattr(os.path, "lexists", lambda path: str(path).startswith(str(tmp_path)))
    assert probe_folding(tmp_path / "a/b") == Folding(case=True, normalisation=True)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.chdir(tmp_path)
    assert probe_folding(Path("new")) == Folding(case=True, normalisation=True)


@pytest.mark.parametrize(
    "error", [PermissionError("read-only"), UnicodeEncodeError("koi8-r", "\xe9", 0, 1, "no letter")]
)
def test_a_folder_that_cannot_be_asked_is_what_the_system_usually_has(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise error

    missing = tmp_path / "missing"
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        assert probe_folding(missing, target_os="posix") == Folding(False, False)
        assert probe_folding(missing, target_os="windows") == Folding(True, False)
        assert probe_folding(missing, target_os="darwin") == Folding(True, True)
    assert not missing.exists()


def test_a_folder_that_may_not_be_looked_at_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes there next says what is wrong."""

    def stat(path: object, **options: object) -> os.stat_result:
        raise PermissionError(13, "no", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", stat)
        assert probe_folding(tmp_path / "x", target_os="posix") == Folding(False, False)


@pytest.mark.parametrize(
    ("number", "refuses"),
    [(errno.EINVAL, True), (errno.EPERM, True), (errno.ENOENT, True), (errno.ENOSPC, False)],
)
def test_a_volume_that_refuses_names_is_found_out(
    number: int, refuses: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As sticks do on every system, each driver with another error."""
    real = os.open

    def open_(path: Path, *args: int) -> int:
        if "?" in path.name:
            raise OSError(number, os.strerror(number))
        return real(path, *args)

    monkeypatch.setattr(os, "open", open_)
    assert probe_folding(tmp_path) == Folding(False, False, refuses=refuses)
    assert list(tmp_path.iterdir()) == []


def test_a_volume_without_such_letters_is_asked_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def open_(path: Path, *args: int) -> int:
        if not path.name.isascii() or "?" in path.name:
            raise PermissionError(path)
        return real(path, *args)

    monkeypatch.setattr(os, "open", open_)
    assert probe_folding(tmp_path, target_os="posix") == Folding(False, False, refuses=True)
    assert probe_folding(tmp_path, target_os="darwin") == Folding(False, True, refuses=True)
    assert list(tmp_path.iterdir()) == []


def test_a_volume_where_nothing_can_be_removed_is_asked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "unlink", refuse)
    assert probe_folding(tmp_path) == Folding(False, False)


def test_what_closing_says_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.close

    def close(fd: int) -> None:
        real(fd)
        raise OSError(errno.EIO, "a share that is full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", close)
        assert probe_folding(tmp_path) == Folding(False, False)
    assert list(tmp_path.iterdir()) == []
