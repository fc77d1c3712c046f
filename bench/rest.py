"""
What a torrent at rest costs: resident memory per torrent of 1,024 pieces.

Torrents are added complete, with a tracker that does not answer, and left alone
until they rest. The growth of the resident set is divided by their number.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.report import Row, ratio

NUM_PIECES = 1024
PIECE_LENGTH = 262_144


def make_torrents(folder: Path, count: int) -> list[Path]:
    """Write .torrent files of random hashes."""
    from bittern.codec.bencode import encode

    paths = []
    for number in range(count):
        path = folder / f"{number}.torrent"
        info: dict[bytes, int | bytes] = {
            b"name": b"content-%d" % number,
            b"length": NUM_PIECES * PIECE_LENGTH,
            b"piece length": PIECE_LENGTH,
            b"pieces": os.urandom(20 * NUM_PIECES),
        }
        path.write_bytes(encode({b"announce": b"http://127.0.0.1:9/announce", b"info": info}))
        paths.append(path)
    return paths


def resident() -> int:
    """Return the resident set of this process, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def bittern_rest(paths: list[Path], folder: Path) -> float:
    """Return bytes per torrent in bittern."""
    import bittern

    config = bittern.SessionConfig(
        listen_host="127.0.0.1", listen_port=0, state_dir=folder / "state", enable_dht=False
    )
    torrent_config = bittern.TorrentConfig(output=folder, skip_check=True)
    async with bittern.Session(config) as session:
        for path in paths[:20]:
            await session.add(path, torrent_config)
        gc.collect()
        before = resident()
        for path in paths[20:]:
            await session.add(path, torrent_config)
        while not all(torrent.is_resting for torrent in session.torrents):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        gc.collect()
        return (resident() - before) / (len(paths) - 20)


def libtorrent_rest(paths: list[Path], folder: Path) -> float:
    """Return bytes per torrent in libtorrent."""
    import libtorrent as lt

    session = lt.session(
        {"listen_interfaces": "127.0.0.1:0", "enable_dht": False, "enable_lsd": False,
         "active_limit": -1, "active_seeds": -1}
    )  # fmt: skip

    def add(path: Path) -> None:
        params = lt.add_torrent_params()
        params.ti = lt.torrent_info(str(path))
        params.save_path = str(folder)
        params.flags |= lt.torrent_flags.seed_mode
        session.add_torrent(params)

    for path in paths[:20]:
        add(path)
    time.sleep(1)
    before = resident()
    for path in paths[20:]:
        add(path)
    while len(session.get_torrents()) < len(paths):
        time.sleep(0.1)
    time.sleep(2)
    return (resident() - before) / (len(paths) - 20)


def run(root: Path, *, is_quick: bool, runs: int) -> list[Row]:
    """Measure both; return the row of the table."""
    del runs
    count = 500 if is_quick else 5000
    values: dict[str, float] = {}
    for program in ("bittern", "libtorrent"):
        with tempfile.TemporaryDirectory(dir=root) as folder:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "bench.rest", program, folder, str(count)],
                check=True,
                capture_output=True,
                text=True,
            )
        values[program] = float(json.loads(done.stdout))
    ours, theirs = values["bittern"], values["libtorrent"]
    return [
        Row(f"a torrent at rest, of {count}", f"{ours / 1000:.1f} kB", f"{theirs / 1000:.1f} kB",
            ratio(ours, theirs), "<= 15 kB")
    ]  # fmt: skip


def main() -> None:
    """Measure one program and print bytes per torrent."""
    program, folder, count = sys.argv[1:]
    paths = make_torrents(Path(folder), int(count))
    if program == "bittern":
        value = asyncio.run(bittern_rest(paths, Path(folder)))
    else:
        value = libtorrent_rest(paths, Path(folder))
    print(json.dumps(value), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
