"""Ends of transfers as child processes, and the material they work on."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from bittern.codec.info import Version
from bittern.storage.creator import CreateOptions, create_torrent

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: every end runs the code that this one belongs to."""


@dataclass(frozen=True)
class Material:
    """A file and its .torrent."""

    torrent: Path
    folder: Path
    length: int


def make_material(root: Path, *, length: int, piece_length: int, version: str = "1") -> Material:
    """Make a file of random bytes once, and a .torrent for it."""
    folder = root / f"data-{length}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "content.bin"
    if not path.exists() or path.stat().st_size != length:
        with path.open("wb") as out, Path("/dev/urandom").open("rb") as source:
            left = length
            while left:
                block = source.read(min(left, 1 << 22))
                out.write(block)
                left -= len(block)
    torrent = root / f"content-{length}-{piece_length}-{version}.torrent"
    if not torrent.exists():
        options = CreateOptions(version=Version(version), piece_length=piece_length)
        torrent.write_bytes(create_torrent(path, options=options))
    return Material(torrent, folder, length)


def warm_memory(length: int) -> None:
    """
    Let the machine have so many bytes of memory at hand, at most half of what is available.

    A virtual machine gives back what it does not use, and getting a page again costs up to ten
    times what it takes to fill it: 2 s a GiB, whoever writes it, and not in every run.
    """
    if not hasattr(mmap, "MAP_POPULATE"):
        return
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    program = "import mmap, sys; mmap.mmap(-1, int(sys.argv[1]), flags=int(sys.argv[2]))"
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    # A process of its own: what it had is free, and warm, when it has ended.
    size = str(min(length, available // 2))
    subprocess.run([sys.executable, "-I", "-S", "-c", program, size, str(flags)], check=True)


class End:
    """One process of ``bench.ends``; a context manager that always ends it."""

    def __init__(
        self, program: str, role: str, material: Material, folder: Path, *, peers: list[int]
    ) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable, "-W", "ignore", "-m", "bench.ends",
                program, role, str(material.torrent.absolute()), str(folder.absolute()), "0",
                *map(str, peers),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
                # A process that has just compiled all it imports is a slower one for a while.
                "PYTHONDONTWRITEBYTECODE": "",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        try:
            self.port = int(self.read()["ready"])
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def read(self) -> dict[str, Any]:
        """Return the next line that the process prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"an end died with {self._process.wait()}")
        fields: dict[str, Any] = json.loads(line)
        return fields

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def finish(self) -> dict[str, Any]:
        """End it and return its last line."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        last = self.read()
        # libtorrent says that it is done before its last write; its end says more.
        self._process.wait(timeout=60)
        return last

    def __enter__(self) -> End:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
