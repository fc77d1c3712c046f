from __future__ import annotations

import hashlib
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bittern.codec.merkle import block_hashes, layer_above, root_of
from bittern.core.geometry import BLOCK_LENGTH
from bittern.storage.hash_process import (
    FIRST,
    LAST,
    NUM_SLOTS,
    ROOT_LEVEL,
    SLOT_LENGTH,
    WITH_V1,
    WITH_V2,
    HashProcess,
    Step,
    StepHasher,
    serve,
)
from tests.storage.places import noise

BOTH = WITH_V1 | WITH_V2
DATA = noise(6 * BLOCK_LENGTH + 100)


def sha1(data: bytes) -> bytes:
    return hashlib.sha1(data).digest()


# (steps, answer to them)
CASES: list[tuple[list[Step], bytes]] = [
    ([], b""),
    ([Step(FIRST | LAST | WITH_V1, 5, 70, 0, 0)], sha1(DATA[5:75])),
    (
        [Step(FIRST | LAST | WITH_V2, 0, len(DATA), len(DATA), ROOT_LEVEL)],
        root_of(block_hashes(DATA)),
    ),
    (
        [Step(FIRST | LAST | WITH_V2, 0, 3 * BLOCK_LENGTH, 3 * BLOCK_LENGTH, 3)],
        layer_above(block_hashes(DATA[: 3 * BLOCK_LENGTH]), 0, 3),
    ),
    (
        [Step(FIRST | LAST | BOTH, 0, 2000, 1500, ROOT_LEVEL)],
        sha1(DATA[:2000]) + root_of(block_hashes(DATA[:1500])),
    ),
    (
        [
            Step(FIRST | BOTH, 0, 2 * BLOCK_LENGTH, 2 * BLOCK_LENGTH, 2),
            Step(BOTH, 2 * BLOCK_LENGTH, BLOCK_LENGTH, BLOCK_LENGTH, 2),
            Step(LAST | BOTH, 3 * BLOCK_LENGTH, 500, 400, 2),
            Step(FIRST | LAST | WITH_V1, 1, 1, 0, 0),
        ],
        sha1(DATA[: 3 * BLOCK_LENGTH + 500])
        + layer_above(block_hashes(DATA[: 3 * BLOCK_LENGTH + 400]), 0, 2)
        + sha1(DATA[1:2]),
    ),
    # A piece that was given up is forgotten.
    (
        [Step(FIRST | BOTH, 0, 1, 1, 0), Step(FIRST | LAST | WITH_V1, 7, 9, 0, 0)],
        sha1(DATA[7:16]),
    ),
]


@pytest.mark.parametrize(("steps", "answer"), CASES, ids=range(len(CASES)))
def test_steps_in_place(steps: list[Step], answer: bytes) -> None:
    assert StepHasher(memoryview(DATA)).run(steps) == b"." + answer


def test_steps_go_on_in_the_next_request() -> None:
    steps, answer = CASES[5]
    hasher = StepHasher(memoryview(DATA))
    assert b"".join(hasher.run([step]).removeprefix(b".") for step in steps) == answer


@pytest.fixture
def process() -> Iterator[HashProcess]:
    made = HashProcess()
    yield made
    made.close()


def open_numbers() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def has_ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_process_gives_the_same_answers(process: HashProcess) -> None:
    process.memory[: len(DATA)] = DATA
    for steps, answer in CASES:
        process.submit(steps)
        assert process.answer(len(answer)) == answer
    second = SLOT_LENGTH * (NUM_SLOTS - 1)
    process.memory[second : second + 100] = DATA[:100]
    process.submit([Step(FIRST | LAST | WITH_V1, second, 100, 0, 0)])
    process.submit(CASES[1][0])
    assert process.answer(20) == sha1(DATA[:100])
    assert process.answer(20) == CASES[1][1]


def test_closing_ends_the_process_and_leaves_nothing_open() -> None:
    before = open_numbers()
    process = HashProcess()
    pid = process.pid
    assert not has_ended(pid)
    process.close()
    assert has_ended(pid)
    assert open_numbers() == before


def test_a_process_that_was_killed_is_an_error_and_can_be_closed() -> None:
    process = HashProcess()
    process.submit(CASES[1][0])
    os.kill(process.pid, signal.SIGKILL)
    process._child.wait()
    with pytest.raises(OSError, match="Broken pipe"):
        process.submit(CASES[5][0] * 10_000)
    with pytest.raises(OSError, match="ended"):
        process.answer(10_000)
    process.close()


def test_it_is_not_of_our_process_group(process: HashProcess) -> None:
    """Ctrl-C at the terminal is for us alone."""
    assert os.getpgid(process.pid) == process.pid


def test_systems_that_cannot_share_memory_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(OSError, match="no memory to share"):
        HashProcess()


def test_a_program_that_cannot_be_started_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = open_numbers()
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(OSError, match="nowhere"):
        HashProcess()
    assert open_numbers() == before


def test_the_child_serves_until_its_input_ends(
    process: HashProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same in this process, where one can look."""
    requests, answers = io.BytesIO(), io.BytesIO()
    with monkeypatch.context() as patched:
        patched.setattr(process, "_requests", requests)
        for steps, _ in CASES:
            process.submit(steps)
    memory_fd = os.memfd_create("test")
    os.ftruncate(memory_fd, SLOT_LENGTH * NUM_SLOTS)
    os.pwrite(memory_fd, DATA, 0)
    requests.seek(0)
    serve(memory_fd, requests, answers)
    assert answers.getvalue() == b"".join(b"." + answer for _, answer in CASES)

    class Gone(io.BytesIO):
        def write(self, data: object) -> int:
            raise BrokenPipeError

    requests.seek(0)
    serve(memory_fd, requests, Gone())
    assert requests.tell() < len(requests.getvalue())
    os.close(memory_fd)


def test_memory_that_is_still_looked_at_does_not_hinder_the_end() -> None:
    process = HashProcess()
    held = process.memory[:10]
    process.close()
    assert bytes(held) == bytes(10)
