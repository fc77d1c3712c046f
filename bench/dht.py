"""
DHT nodes under load: answers a second, memory at 100,000 stored peers, cost of idling.

Each node is a process of its own with the rate caps of both programs lifted; it fills
its table from a crowd, then a third process asks it. Rates are medians of runs in turn.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.dht_load import NUM_TORRENTS, PEERS_EACH, Load
from bench.processes import ROOT
from bench.report import Row, ratio

LIFTED = 1_000_000_000
WARM_UP = 3.0
"""Seconds in which a node fills its table."""


async def bittern_node(crowd: int) -> None:
    """Be a node of ours until standard input ends."""
    from bittern.dht.limits import DhtConfig
    from bittern.net.dht_host import open_dht

    config = DhtConfig(max_upload_rate=LIFTED, queries_per_address=LIFTED)
    async with open_dht(
        hosts=("127.0.0.1",), bootstrap=[("127.1.0.1", crowd)], config=config
    ) as dht:
        await dht.bootstrap()
        print(dht.stats()[0].endpoint.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, os.read, 0, 1)


def libtorrent_node(crowd: int) -> None:
    """Be a node of libtorrent's until standard input ends."""
    import libtorrent as lt

    session = lt.session(
        {
            "listen_interfaces": "127.0.0.1:0",
            "enable_dht": True,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "dht_bootstrap_nodes": "",
            "dht_restrict_routing_ips": False,
            "dht_restrict_search_ips": False,
            "dht_prefer_verified_node_ids": False,
            "dht_ignore_dark_internet": False,
            "dht_block_ratelimit": LIFTED,
            "dht_upload_rate_limit": LIFTED,
            "alert_mask": 0,
        }
    )
    time.sleep(0.5)
    session.add_dht_node(("127.1.0.1", crowd))
    print(session.listen_port(), flush=True)
    os.read(0, 1)


class Node:
    """A node's process."""

    def __init__(self, program: str, crowd: int) -> None:
        self._process = _start("bench.dht", program, str(crowd))
        self.port = _read_port(self._process)
        time.sleep(WARM_UP)

    def resident(self) -> int:
        """Return its resident set, bytes."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu(self) -> float:
        """Return the seconds that it has computed."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def _start(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _read_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


@contextmanager
def crowd_port() -> Iterator[int]:
    """Run the crowd."""
    process = _start("bench.dht_load")
    try:
        yield _read_port(process)
    finally:
        process.kill()
        process.wait()


def measure(program: str, crowd: int, *, seconds: float, idle: float) -> dict[str, float]:
    """Return what one node does and costs."""
    node = Node(program, crowd)
    load = Load(node.port)
    try:
        cpu_before = node.cpu()
        time.sleep(idle)
        idle_share = (node.cpu() - cpu_before) / idle
        load.ask(0.5)
        before = node.resident()
        load.announce()
        time.sleep(1.0)
        grown = node.resident() - before
        cpu_before = node.cpu()
        rate = load.ask(seconds)
        cpu = (node.cpu() - cpu_before) / seconds
        return {
            "rate": rate,
            "cpu": cpu,
            "idle": idle_share,
            "grown": grown,
            "resident": node.resident(),
        }
    finally:
        load.close()
        node.close()


def run(root: Path, *, is_quick: bool, runs: int) -> list[Row]:
    """Measure both in turn; return the rows of the table."""
    del root
    results: dict[str, list[dict[str, float]]] = {"bittern": [], "libtorrent": []}
    with crowd_port() as crowd:
        for number in range(runs):
            for program, found in results.items():
                idle = 0.0 if number else 10.0 if is_quick else 30.0
                found.append(
                    measure(program, crowd, seconds=2.0 if is_quick else 5.0, idle=idle or 0.01)
                )
    ours, theirs = (
        {
            "rate": statistics.median(each["rate"] for each in found),
            "grown": statistics.median(each["grown"] for each in found),
            "resident": statistics.median(each["resident"] for each in found),
            "idle": found[0]["idle"],
        }
        for found in results.values()
    )
    count = NUM_TORRENTS * PEERS_EACH
    return [
        Row("DHT node: answers a second, get_peers and ping", f"{ours['rate']:,.0f}",
            f"{theirs['rate']:,.0f}", ratio(ours["rate"], theirs["rate"]), ">= 1"),
        Row(f"DHT node: memory for {count:,} stored peers", f"{ours['grown'] / 1e6:.1f} MB",
            f"{theirs['grown'] / 1e6:.1f} MB", ratio(ours["grown"], theirs["grown"]), "<= 1"),
        Row("DHT node: resident set with them", f"{ours['resident'] / 1e6:.1f} MB",
            f"{theirs['resident'] / 1e6:.1f} MB", ratio(ours["resident"], theirs["resident"]),
            ""),
        Row("DHT node: share of a core while idle", f"{ours['idle']:.2%}",
            f"{theirs['idle']:.2%}", ratio(ours["idle"], theirs["idle"]), "< 0.5 %"),
    ]  # fmt: skip


def main() -> None:
    """Be one node."""
    program, crowd = sys.argv[1:]
    if program == "libtorrent":
        libtorrent_node(int(crowd))
        return
    import uvloop

    gc.freeze()
    uvloop.run(bittern_node(int(crowd)))


if __name__ == "__main__":
    main()
