"""
What torrents at rest cost: memory for each of 1,024 pieces, processor, starting and stopping.

Torrents are added complete, with an HTTP and a UDP tracker that never answer, and left
alone until they rest. The growth of the resident set from the first ``NUM_FIRST``
torrents on is divided by the number of the others: what a client takes once, caches and
the memory of torrents that are just being added among it, counts for no torrent.

Then, of bittern alone: the processor time of a while, how long it takes to stop with all
those trackers dead, and to start again with what the state folder holds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.report import Row, ratio
from bittern.codec.bencode import Encodable, encode

NUM_PIECES = 1024
PIECE_LENGTH = 262_144
NUM_FIRST = 500
SETTLE_TIME = 3.0
"""Seconds after which nothing of the adding should be under way any more."""
CPU_TIME = 10.0
"""Seconds over which processor time is taken."""


def make_torrents(folder: Path, count: int, trackers: list[str]) -> list[Path]:
    """Write .torrent files of random hashes, and sparse files of the right length."""
    tiers: list[Encodable] = [[url.encode()] for url in trackers]
    paths = []
    for number in range(count):
        path = folder / f"{number}.torrent"
        paths.append(path)
        if path.exists():
            continue
        info: dict[bytes, Encodable] = {
            b"name": b"content-%d" % number,
            b"length": NUM_PIECES * PIECE_LENGTH,
            b"piece length": PIECE_LENGTH,
            b"pieces": os.urandom(20 * NUM_PIECES),
        }
        with (folder / f"content-{number}").open("wb") as content:
            content.truncate(NUM_PIECES * PIECE_LENGTH)
        path.write_bytes(encode({b"announce-list": tiers, b"info": info}))
    return paths


def resident() -> int:
    """Return the resident set of this process, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def silent_trackers() -> tuple[list[str], list[socket.socket]]:
    """Return URLs of trackers that take what they are sent and never answer, and their sockets."""
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    for each in (tcp, udp):
        each.bind(("127.0.0.1", 0))
    tcp.listen(1024)
    ports = [each.getsockname()[1] for each in (tcp, udp)]
    return [
        f"http://127.0.0.1:{ports[0]}/announce",
        f"udp://127.0.0.1:{ports[1]}/announce",
    ], [tcp, udp]


async def bittern_rest(paths: list[Path], folder: Path, *, is_again: bool) -> dict[str, float]:
    """Return what bittern takes: bytes per torrent, and seconds; see ``run``."""
    import bittern

    config = bittern.SessionConfig(
        listen_host="127.0.0.1",
        listen_port=0,
        state_dir=folder / "state",
        enable_dht=False,
        enable_lsd=False,
    )
    torrent_config = bittern.TorrentConfig(output=folder, skip_check=True)

    async def add(session: bittern.Session, some: list[Path]) -> None:
        for path in some:
            await session.add(path, torrent_config)
        while not all(torrent.is_resting for torrent in session.torrents):  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    async def settle() -> int:
        await asyncio.sleep(SETTLE_TIME)
        gc.collect()
        return resident()

    async with bittern.Session(config) as session:
        began_at = time.perf_counter()
        await add(session, paths[:NUM_FIRST])
        before = 0 if is_again else await settle()
        await add(session, paths[NUM_FIRST:])
        start = time.perf_counter() - began_at
        after = await settle()
        cpu = time.process_time()
        await asyncio.sleep(CPU_TIME)
        cpu = time.process_time() - cpu
        stopped_at = time.perf_counter()
    return {
        "each": (after - before) / (len(paths) - NUM_FIRST),
        "whole": after,
        "cpu": cpu / CPU_TIME * 100,
        "start": start,
        "stop": time.perf_counter() - stopped_at,
    }


def libtorrent_rest(paths: list[Path], folder: Path) -> dict[str, float]:
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
        while len(session.get_torrents()) < len(some):
            time.sleep(0.1)
        time.sleep(SETTLE_TIME)
        return resident()

    before = add(paths[:NUM_FIRST])
    return {"each": (add(paths[NUM_FIRST:]) - before) / (len(paths) - NUM_FIRST)}


def run(root: Path, *, is_quick: bool, runs: int) -> list[Row]:
    """Measure both; return the rows of the table."""
    del runs
    count = 1000 if is_quick else 5000
    trackers, sockets = silent_trackers()
    values: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=root) as folder:
        for program, number in (("libtorrent", 1000), ("bittern", count), ("bittern-again", count)):
            done = subprocess.run(
                [
                    sys.executable, "-W", "ignore", "-m", "bench.rest",
                    program, folder, str(number), *trackers,
                ],
                check=True,
                capture_output=True,
                text=True,
            )  # fmt: skip
            values[program] = json.loads(done.stdout)
    for each in sockets:
        each.close()
    ours, again = values["bittern"], values["bittern-again"]
    theirs = values["libtorrent"]["each"]
    total = f"{count + NUM_FIRST} at rest"
    return [
        Row(f"a torrent at rest, of {count}", f"{ours['each'] / 1000:.1f} kB",
            f"{theirs / 1000:.1f} kB", ratio(ours["each"], theirs), "<= 15 kB"),
        Row(f"{total}: processor", f"{again['cpu']:.1f} %", "-", "-", "< 5 %"),
        Row(f"{total}: all memory", f"{again['whole'] / 2**20:.0f} MiB", "-", "-", "< 1 GiB"),
        Row(f"{total}: start", f"{again['start']:.1f} s", "-", "-", "< 30 s"),
        Row(f"{total}, trackers dead: stop", f"{again['stop']:.1f} s", "-", "-", "<= 10 s"),
    ]  # fmt: skip


def main() -> None:
    """Measure one program and print what it takes."""
    program, folder, count, *trackers = sys.argv[1:]
    paths = make_torrents(Path(folder), NUM_FIRST + int(count), trackers)
    if program.startswith("bittern"):
        import uvloop

        is_again = program == "bittern-again"
        values = uvloop.run(bittern_rest(paths, Path(folder), is_again=is_again))
    else:
        values = libtorrent_rest(paths, Path(folder))
    print(json.dumps(values), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
