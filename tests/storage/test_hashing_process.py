"""storage.hashing_process: real processes, and programs that are none of ours."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bittern.codec.merkle import block_hashes, piece_layer_of
from bittern.core.geometry import BLOCK_LENGTH
from bittern.storage import hashing_process
from bittern.storage.base import FilePlace, file_place
from bittern.storage.hashing_process import HashingProcess, can_start_processes
from tests.storage.places import noise
from tests.storage.test_run_hashing import sha1s

PIECE = 4 * BLOCK_LENGTH

pytestmark = pytest.mark.skipif(not can_start_processes(), reason="no processes here")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(noise(3 * PIECE + 7))
    return path


@pytest.fixture
def process() -> Iterator[HashingProcess]:
    process = HashingProcess(PIECE)
    yield process
    process.close()


def place(path: Path, position: int = 0) -> FilePlace:
    return file_place(path, position, path.stat())


def hash_v1(process: HashingProcess, path: Path) -> tuple[bytes, bytes] | None:
    return process.hash(place(path), 100, v1_length=100, v2_length=0, level=None)


def pid_of(process: HashingProcess) -> int:
    return process._process.pid


def test_it_hashes_run_after_run(path: Path, process: HashingProcess) -> None:
    data = path.read_bytes()
    layer = piece_layer_of(block_hashes(data), PIECE)
    assert not process.has_answered
    for first, length in ((0, 3 * PIECE + 7), (1, 2 * PIECE)):
        found = process.hash(
            place(path, first * PIECE), length, v1_length=length, v2_length=length, level=2
        )
        part = data[first * PIECE :][:length]
        assert found == (sha1s(part, PIECE), layer[first * 32 :][: -(-length // PIECE) * 32])
        assert process.has_answered
    assert process.is_alive


def test_a_refusal_is_an_answer(path: Path, process: HashingProcess) -> None:
    there = place(path)
    assert process.hash(there, 1 << 30, v1_length=1 << 30, v2_length=0, level=None) is None
    assert process.has_answered
    assert process.is_alive
    assert hash_v1(process, path) is not None


def test_a_process_that_was_killed_is_no_error(path: Path, process: HashingProcess) -> None:
    assert hash_v1(process, path) is not None
    process.kill()
    assert hash_v1(process, path) is None
    assert not process.is_alive
    assert hash_v1(process, path) is None
    process.close()
    process.close()


def test_closing_ends_it(
    path: Path, process: HashingProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing_process, "END_TIMEOUT", 60.0)
    assert hash_v1(process, path) is not None
    process.close()
    assert process._process.returncode == 0
    assert not process.is_alive


def test_one_that_does_not_end_is_killed(
    path: Path, process: HashingProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing_process, "END_TIMEOUT", 0.01)
    assert hash_v1(process, path) is not None
    os.kill(pid_of(process), signal.SIGSTOP)
    process.close()
    assert process._process.returncode == -signal.SIGKILL


def test_signals_of_the_terminal_do_not_reach_it(process: HashingProcess) -> None:
    assert os.getsid(pid_of(process)) == pid_of(process)


def test_a_file_that_is_cut_while_it_is_mapped_ends_the_process_alone(
    path: Path, process: HashingProcess
) -> None:
    """Limit: F5. The signal that a mapping brings goes to the process, as any other."""
    assert hash_v1(process, path) is not None
    os.kill(pid_of(process), signal.SIGBUS)
    assert hash_v1(process, path) is None
    process.close()
    assert process._process.returncode == -signal.SIGBUS


@pytest.mark.parametrize("words", ["", "this is no hash, whatever it is"])
def test_a_program_of_another_kind_is_not_asked_again(
    words: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nprintf '{words}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    process = HashingProcess(PIECE)
    assert hash_v1(process, path) is None
    assert not process.is_alive
    process.close()


def test_what_cannot_be_started_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        HashingProcess(PIECE)


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (os, "name", "nt"),
        (sys, "executable", ""),
        (sys, "executable", None),
        (sys, "frozen", True),
        (sys, "_is_gil_enabled", lambda: False),
    ],
)
def test_where_nothing_can_be_started_or_gained(
    module: object, name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert can_start_processes()
    with monkeypatch.context() as patched:
        patched.setattr(module, name, value, raising=False)
        assert not can_start_processes()


def test_where_nothing_reads_at_a_position_none_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS before 11."""
    monkeypatch.delattr(os, "preadv")
    assert not can_start_processes()
