"""
What a torrent at rest costs: resident memory per torrent of 1,024 pieces.

Torrents are added complete, with a tracker that refuses connections, and left alone
until they rest. The growth of the resident set from the first ``NUM_FIRST`` torrents
on is divided by the number of the others: what a client takes once, caches and the
memory of torrents that are just being added among it, counts for no torrent.
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
NUM_FIRST = 500
SETTLE_TIME = 5.0
"""Seconds after which nothing of the adding should be under way any more."""


def make_torrents(folder: Path, count: int) -> list[Path]:
    """Write .torrent files of random hashes, and sparse files of the right length."""
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
        with (folder / f"content-{number}").open("wb") as content:
            content.truncate(NUM_PIECES * PIECE_LENGTH)
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

        async def add(some: list[Path]) -> int:
            for path in some:
                await session.add(path, torrent_config)
            while not all(torrent.is_resting for torrent in session.torrents):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            await asyncio.sleep(SETTLE_TIME)
            gc.collect()
            return resident()

        before = await add(paths[:NUM_FIRST])
        return (await add(paths[NUM_FIRST:]) - before) / (len(paths) - NUM_FIRST)


def libtorrent_rest(paths: list[Path], folder: Path) -> float:
    """Return bytes per torrent in libtorrent."""
    import libtorrent as lt

    session = lt.session(
        {"listen_interfaces": "127.0.0.1:0", "enable_dht": False, "enable_lsd": False,
         "active_limit": -1, "active_seeds": -1}
    )  # fmt: skip

    def add(some: list[Path]) -> int:
        for path in some:
            params = lt.add_torrent_params()
            params.ti = lt.torrent_info(str(path))
            params.save_path = str(folder)
            params.flags |= lt.torrent_flags.seed_mode
            params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
            session.add_torrent(params)
        while not all(handle.status().is_seeding for handle in session.get_torrents()):
            time.sleep(0.1)
        time.sleep(SETTLE_TIME)
        return resident()

    before = add(paths[:NUM_FIRST])
    return (add(paths[NUM_FIRST:]) - before) / (len(paths) - NUM_FIRST)


def run(root: Path, *, is_quick: bool, runs: int) -> list[Row]:
    """Measure both; return the row of the table."""
    del runs
    count = 1000 if is_quick else 5000
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
    paths = make_torrents(Path(folder), NUM_FIRST + int(count))
    if program == "bittern":
        value = asyncio.run(bittern_rest(paths, Path(folder)))
    else:
        value = libtorrent_rest(paths, Path(folder))
    print(json.dumps(value), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
