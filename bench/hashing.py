"""
Recheck and creation over all cores, beside libtorrent and mktorrent.

Each run is a process of its own that prints the seconds of the work alone,
without starting the interpreter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.processes import Material, make_material
from bench.report import Row, ratio

GIB = 1 << 30


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
    """Check a complete torrent with bittern."""
    from bittern.codec.metainfo import decode_metainfo
    from bittern.storage.checker import check_pieces
    from bittern.storage.files import FileStorage
    from bittern.storage.hashing import PieceHashes
    from bittern.storage.layout import Layout

    metainfo = decode_metainfo(material.torrent.read_bytes())
    info = metainfo.info
    layout = Layout(info.files, info.geometry)
    storage = FileStorage(layout, material.folder, [(info.name,)])
    started_at = time.perf_counter()
    hashes = PieceHashes(info, metainfo.piece_layers)
    result = check_pieces(storage, layout, info.geometry, hashes)
    seconds = time.perf_counter() - started_at
    if not result.have.is_full:
        raise RuntimeError("bittern found bad pieces")
    return seconds


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


def create_bittern(path: Path, piece_length: int, version: str) -> float:
    """Create a torrent with bittern."""
    from bittern.codec.info import Version
    from bittern.storage.creator import CreateOptions, create_torrent

    options = CreateOptions(version=Version(version), piece_length=piece_length)
    started_at = time.perf_counter()
    create_torrent(path, options=options)
    return time.perf_counter() - started_at


def create_libtorrent(path: Path, piece_length: int, version: str) -> float:
    """Create a torrent with libtorrent; its Python call lets nobody set the hashing threads."""
    import libtorrent as lt

    flags = {"1": lt.create_torrent.v1_only, "2": lt.create_torrent.v2_only}[version]
    started_at = time.perf_counter()
    storage = lt.file_storage()
    lt.add_files(storage, str(path))
    creator = lt.create_torrent(storage, piece_length, flags)
    lt.set_piece_hashes(creator, str(path.parent))
    creator.generate()
    return time.perf_counter() - started_at


def create_mktorrent(path: Path, piece_length: int) -> float | None:
    """Create a torrent with ``mktorrent -t 2``; None where it is not installed."""
    program = shutil.which("mktorrent")
    if program is None:
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
    material = make_material(root, length=length, piece_length=1 << 20)
    path = material.folder / "content.bin"
    v2 = make_material(root, length=length, piece_length=1 << 20, version="2")
    rows: list[Row] = []
    for title, made in (("recheck v1 (SHA-1)", material), ("recheck v2 (SHA-256)", v2)):
        ours = median(_run("recheck-bittern", str(made.torrent), str(made.folder))
                      for _ in range(runs))  # fmt: skip
        theirs = median(_run("recheck-libtorrent", str(made.torrent), str(made.folder))
                        for _ in range(runs))  # fmt: skip
        rows.append(_row(title, length, ours, theirs, ">= 2"))
    for version, hash_name in (("1", "SHA-1"), ("2", "SHA-256")):
        ours = median(_run("create-bittern", str(path), version) for _ in range(runs))
        theirs = median(_run("create-libtorrent", str(path), version) for _ in range(runs))
        title = f"create v{version} ({hash_name})"
        rows.append(_row(title, length, ours, theirs, ">= 2"))
        times = [create_mktorrent(path, 1 << 20) for _ in range(runs)] if version == "1" else []
        beside = [seconds for seconds in times if seconds is not None]
        if beside:
            rows.append(_row("... beside mktorrent -t 2", length, ours, median(beside), ">= 1"))
    return rows


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
    else:
        create = create_bittern if work.endswith("bittern") else create_libtorrent
        print(create(Path(rest[0]), 1 << 20, rest[1]), flush=True)
    os._exit(0)  # a client's threads may take seconds to end, which nobody measures


if __name__ == "__main__":
    main()
