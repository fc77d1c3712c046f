"""storage.hashing_child: what a process answers, here without one; its start in a real one."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import bittern
from bittern.codec.merkle import LEAF_LENGTH, block_hashes, piece_layer_of, piece_level, root_of
from bittern.core.geometry import BLOCK_LENGTH
from bittern.storage import hashing_child
from bittern.storage.hashing_child import REPLY, REQUEST, main, serve
from tests.storage.places import noise
from tests.storage.test_run_hashing import sha1s

PIECE = 4 * BLOCK_LENGTH


def ask(
    path: Path,
    position: int = 0,
    *,
    length: int,
    v1: int = 0,
    v2: int = 0,
    level: int | None = 2,
    identity: tuple[int, int] | None = None,
) -> bytes:
    if identity is None:
        status = path.stat()
        identity = status.st_dev, status.st_ino
    name = os.fsencode(path)
    number = -1 if level is None else level
    return REQUEST.pack(position, length, v1, v2, *identity, number, len(name)) + name


def answers(*requests: bytes) -> list[tuple[bytes, bytes] | None]:
    out = io.BytesIO()
    serve(io.BytesIO(b"".join(requests)), out, piece_length=PIECE)
    out.seek(0)
    found: list[tuple[bytes, bytes] | None] = []
    while header := out.read(REPLY.size):
        lengths = REPLY.unpack(header)
        v1, v2 = map(out.read, lengths)
        found.append((v1, v2) if any(lengths) else None)
    return found


@pytest.fixture(params=["mapped", "read"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "read":
        monkeypatch.setattr(hashing_child, "_NOWAIT", 0)
    elif not hasattr(os, "RWF_NOWAIT"):
        pytest.skip("files are never mapped here")
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file \N{SNOWMAN}\n"
    path.write_bytes(noise(5 * PIECE + 20_000))
    return path


@pytest.mark.usefixtures("how")
def test_runs_of_each_kind(path: Path) -> None:
    data = path.read_bytes()
    layer = piece_layer_of(block_hashes(data), PIECE)
    rest = len(data) % PIECE
    found = answers(
        ask(path, PIECE, length=3 * PIECE, v2=3 * PIECE),
        ask(path, 4 * PIECE, length=PIECE + rest, v2=PIECE + rest),
        ask(path, 5 * PIECE, length=rest, v2=rest, level=None),
        ask(path, 12_345, length=2 * PIECE + 1, v1=2 * PIECE + 1),
        ask(path, 4 * PIECE, length=PIECE + rest, v1=2 * PIECE, v2=PIECE + rest),
    )
    padded = data[4 * PIECE :] + bytes(PIECE - rest)
    assert found == [
        (b"", layer[32:128]),
        (b"", layer[128:]),
        (b"", root_of(block_hashes(data[5 * PIECE :]))),
        (sha1s(data[12_345 : 12_345 + 2 * PIECE + 1], PIECE), b""),
        (sha1s(padded, PIECE), layer[128:]),
    ]
    assert piece_level(PIECE) == 2


def test_what_is_mapped_is_let_go(path: Path) -> None:
    """A file stays mapped for no longer than it is hashed."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("the system does not tell")
    [found] = answers(ask(path, length=PIECE, v2=PIECE))
    assert found is not None
    assert str(path.parent) not in maps.read_text()


def test_long_pieces_are_read_in_steps(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit: P7."""
    monkeypatch.setattr(hashing_child, "MAX_MAPPED", PIECE - 1)
    monkeypatch.setattr(hashing_child, "mmap", None)
    [found] = answers(ask(path, length=PIECE, v2=PIECE))
    assert found == (b"", root_of(block_hashes(path.read_bytes()[:PIECE])))


@pytest.mark.parametrize(
    "error", [BlockingIOError(errno.EAGAIN, "not in memory"), OSError(errno.EOPNOTSUPP, "never")]
)
def test_what_is_not_in_memory_is_read(
    error: OSError, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags:
            raise error
        # A system may give less than it is asked for.
        return real(fd, [buffers[0][:10_000]], offset)

    monkeypatch.setattr(hashing_child, "_NOWAIT", 8)
    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(hashing_child, "mmap", None)
    [found] = answers(ask(path, length=PIECE, v2=PIECE))
    assert found == (b"", root_of(block_hashes(path.read_bytes()[:PIECE])))


@pytest.mark.usefixtures("how")
def test_a_file_that_is_too_short_is_refused_and_the_next_one_served(path: Path) -> None:
    length = path.stat().st_size
    assert answers(
        ask(path, length=length + 1, v1=length + 1),
        ask(path, 2 * length, length=10, v1=10),
        ask(path, length=10, v1=10),
    ) == [None, None, (sha1s(path.read_bytes()[:10], PIECE), b"")]


def test_a_file_that_is_another_one_is_not_even_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    wanted = other.stat()
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", None)
        assert answers(
            ask(path, length=10, v1=10, identity=(wanted.st_dev, wanted.st_ino)),
            ask(path.with_name("none"), length=10, v1=10, identity=(wanted.st_dev, wanted.st_ino)),
        ) == [None, None]


def test_a_file_that_is_replaced_while_it_is_opened_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(path, length=10, v1=10)
    real = os.open
    opened: list[int] = []

    def swap_and_open(name: bytes, flags: int) -> int:
        path.rename(path.with_name("away"))
        path.write_bytes(bytes(100))
        opened.append(real(name, flags))
        return opened[-1]

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", swap_and_open)
        assert answers(request) == [None]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


def test_no_descriptor_is_left(path: Path) -> None:
    before = os.dup(0)
    os.close(before)
    answers(
        ask(path, length=10, v1=10),
        ask(path, length=1 << 30, v1=1 << 30),
        ask(path, length=PIECE, v2=PIECE),
    )
    after = os.dup(0)
    os.close(after)
    assert after == before


def test_half_a_request_is_the_end(path: Path) -> None:
    assert answers(ask(path, length=10, v1=10)[: REQUEST.size - 1]) == []


def test_the_program_serves_its_standard_input(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    ends: list[int] = []
    request = io.BytesIO(ask(path, length=10, v1=10))
    monkeypatch.setattr(sys, "argv", ["hash", str(PIECE)])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=request))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=out))
    monkeypatch.setattr(os, "_exit", ends.append)
    main()
    assert out.getvalue() == REPLY.pack(20, 0) + sha1s(path.read_bytes()[:10], PIECE)
    assert ends == [0]


def test_a_leaf_is_a_block() -> None:
    """``codec.merkle`` has a number of its own, to be imported without ``core.geometry``."""
    assert LEAF_LENGTH == BLOCK_LENGTH


def test_it_imports_next_to_nothing() -> None:
    """Each process waits for its imports: ``typing`` alone would be half as much again."""
    root = Path(bittern.__file__).parents[1]
    program = (
        f"import sys; sys.path.append({str(root)!r}); import bittern.storage.hashing_child; "
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], check=True, capture_output=True, text=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"typing", "re", "collections", "socket", "subprocess", "threading"}
    assert {name for name in loaded if name.startswith("bittern")} == {
        "bittern",
        "bittern.codec",
        "bittern.codec.merkle",
        "bittern.storage",
        "bittern.storage.hashing_child",
        "bittern.storage.run_hashing",
    }
