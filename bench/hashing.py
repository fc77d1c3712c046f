"""
Recheck and creation over all cores, beside libtorrent, mktorrent and the hash limit.

Each run is a process of its own that prints the seconds of the work alone, without
starting the interpreter; programs take turns. Both clients recheck by adding a
torrent to a session, both create with one call. The data is in the page cache, brought
back before each run, as libtorrent's recheck drops a part of it. The
*hash limit* is two threads that do nothing but read and hash, for a hybrid with both
functions: no client can be much faster with the same ones (a twentieth, if mapping
files costs nothing), and where libtorrent is near it nobody can be twice as fast.
The time includes that of starting processes, 15 ms, of which longer content pays less.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from bench.processes import Material, make_material
from bench.report import Row, ratio

GIB = 1 << 30
READ_LENGTH = 2 << 20
HASHES = {"1": ("sha1",), "2": ("sha256",), "hybrid": ("sha1", "sha256")}


def _run(*arguments: str) -> float:
    """Run one of the workers below in a process of its own and return its seconds."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "bench.hashing", *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


def recheck_bittern(material: Material) -> float:
    """Check a complete torrent with bittern, by adding it to a session."""
    import bittern

    async def add() -> float:
        config = bittern.SessionConfig(
            listen_host="127.0.0.1",
            listen_port=0,
            enable_trackers=False,
            enable_dht=False,
            enable_lsd=False,
        )
        async with bittern.Session(config) as session:
            started_at = time.perf_counter()
            torrent = await session.add(
                material.torrent, bittern.TorrentConfig(output=material.folder)
            )
            seconds = time.perf_counter() - started_at
            if not torrent.is_complete:
                raise RuntimeError("bittern found bad pieces")
            return seconds

    return asyncio.run(add())


def recheck_libtorrent(material: Material) -> float:
    """Check a complete torrent with libtorrent and two hashing threads."""
    import libtorrent as lt

    session = lt.session(
        {
            "listen_interfaces": "",
            "enable_dht": False,
            "enable_lsd": False,
            "hashing_threads": 2,
            "checking_mem_usage": 2048,
        }
    )
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(str(material.torrent))
    params.save_path = str(material.folder)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    started_at = time.perf_counter()
    handle = session.add_torrent(params)
    while not handle.status().is_seeding:
        time.sleep(0.002)
    return time.perf_counter() - started_at


def read_and_hash(path: Path, version: str) -> float:
    """Read a file and hash it with two threads that take turns: the limit of any client."""
    count = path.stat().st_size // READ_LENGTH
    turn = itertools.count()

    def work() -> None:
        hashers = [hashlib.new(name) for name in HASHES[version]]
        view = memoryview(mmap.mmap(-1, READ_LENGTH))
        with path.open("rb", buffering=0) as file:
            while (number := next(turn)) < count:
                file.seek(number * READ_LENGTH)
                file.readinto(view)
                for hasher in hashers:
                    hasher.update(view)

    threads = [threading.Thread(target=work) for _ in range(2)]
    started_at = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started_at


def create_bittern(path: Path, piece_length: int, version: str) -> float:
    """Create a torrent with bittern."""
    from bittern.codec.info import Version
    from bittern.storage.creator import CreateOptions, create_torrent

    options = CreateOptions(version=Version(version), piece_length=piece_length)
    started_at = time.perf_counter()
    create_torrent(path, options=options)
    return time.perf_counter() - started_at


def create_libtorrent(path: Path, piece_length: int, version: str) -> float:
    """
    Create a torrent with libtorrent, which hashes in one thread.

    That is the default of its ``hashing_threads``, and of the overloads of ``set_piece_hashes``
    Python (2.1.1) has only those without settings.
    """
    import libtorrent as lt

    flags = {
        "1": lt.create_torrent.v1_only,
        "2": lt.create_torrent.v2_only,
        "hybrid": 0,
    }[version]
    started_at = time.perf_counter()
    storage = lt.file_storage()
    lt.add_files(storage, str(path))
    creator = lt.create_torrent(storage, piece_length, flags)
    lt.set_piece_hashes(creator, str(path.parent))
    creator.generate()
    return time.perf_counter() - started_at


def create_mktorrent(path: Path, piece_length: int, version: str) -> float | None:
    """Create a torrent with ``mktorrent -t 2``; None where it cannot or is not installed."""
    program = shutil.which("mktorrent")
    if program is None or version != "1":
        return None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "made.torrent"
        exponent = str(piece_length.bit_length() - 1)
        started_at = time.perf_counter()
        subprocess.run(
            [program, "-t", "2", "-l", exponent, "-o", str(out), str(path)],
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - started_at


def run(root: Path, *, is_quick: bool, runs: int) -> list[Row]:
    """Measure the cases of the table; return its rows."""
    length = GIB // 4 if is_quick else GIB
    path = make_material(root, length=length, piece_length=1 << 20).folder / "content.bin"
    rows: list[Row] = []
    for version, kib in (("1", 1024), ("1", 64), ("1", 16), ("2", 1024), ("2", 64)):
        made = make_material(root, length=length, piece_length=kib << 10, version=version)
        ours, theirs, limit = _take_turns(
            path,
            runs,
            partial(_run, "recheck-bittern", str(made.torrent), str(made.folder)),
            partial(_run, "recheck-libtorrent", str(made.torrent), str(made.folder)),
            partial(_run, "limit", str(path), version),
        )
        rows += _rows(f"recheck v{version}, {kib} KiB pieces", length, ours, theirs, limit)
    for version, kib in (("1", 1024), ("1", 64), ("2", 1024), ("hybrid", 1024)):
        ours, theirs, limit, other = _take_turns(
            path,
            runs,
            partial(_run, "create-bittern", str(path), str(kib << 10), version),
            partial(_run, "create-libtorrent", str(path), str(kib << 10), version),
            partial(_run, "limit", str(path), version),
            partial(create_mktorrent, path, kib << 10, version),
        )
        title = f"create {'v' * version.isdigit()}{version}, {kib} KiB pieces"
        rows += _rows(title, length, ours, theirs, limit)
        if other:
            rows.append(_row("... beside mktorrent -t 2", length, ours, other, ">= 1"))
    return rows


def _take_turns(path: Path, runs: int, *programs: Callable[[], float | None]) -> list[float]:
    """Run programs in turn; return the median seconds of each, 0 for one that is not there."""
    found = [[_run_warm(path, program) for program in programs] for _ in range(runs)]
    return [
        median([seconds for seconds in column if seconds is not None] or [0.0])
        for column in zip(*found, strict=True)
    ]


def _run_warm(path: Path, program: Callable[[], float | None]) -> float | None:
    """Run a program when all of a file is in the page cache."""
    buffer = bytearray(READ_LENGTH)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return program()


def _rows(title: str, length: int, ours: float, theirs: float, limit: float) -> list[Row]:
    return [
        _row(title, length, ours, theirs, ">= 2, or the limit"),
        _row("... beside the hash limit", length, ours, limit, "aim 1"),
    ]


def _row(title: str, length: int, ours: float, theirs: float, must: str) -> Row:
    our_rate, their_rate = (f"{length / each / 1e9:.2f} GB/s" for each in (ours, theirs))
    return Row(title, our_rate, their_rate, ratio(theirs, ours), must)


def main() -> None:
    """Do one piece of work and print its seconds."""
    work, *rest = sys.argv[1:]
    if work.startswith("recheck"):
        material = Material(Path(rest[0]), Path(rest[1]), 0)
        worker = recheck_bittern if work.endswith("bittern") else recheck_libtorrent
        print(worker(material), flush=True)
    elif work == "limit":
        print(read_and_hash(Path(rest[0]), rest[1]), flush=True)
    else:
        create = create_bittern if work.endswith("bittern") else create_libtorrent
        print(create(Path(rest[0]), int(rest[1]), rest[2]), flush=True)
    os._exit(0)  # a client's threads may take seconds to end, which nobody measures


if __name__ == "__main__":
    main()
