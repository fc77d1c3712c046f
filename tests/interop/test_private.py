"""
Private torrents and every packet that is sent (BEP 27).

A seed and two leeches, each with one private and one public torrent in one session, with all
sources of peers switched on, meet at a tracker. Every packet of their network is recorded. The
public torrent is the control: it must be seen in both local discoveries, in the DHT and in peer
exchange, or the recording proves nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from bencode2 import bencode

from tests.interop.capture import Capture, Conversation
from tests.interop.clients.bittern import ENVIRONMENT
from tests.interop.place import Place, namespace_pair, namespaces_missing, run_ip
from tests.interop.process import Program
from tests.interop.rendezvous import rendezvous

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(400)]

LENGTH = 600_000
RATE = "100k"
"""Bytes a second of each leech, so that peers have time to tell of each other."""
TIMEOUT = 150.0
"""Seconds; a DHT node that was not heard at first is tried again after a minute or more."""


@dataclass(frozen=True)
class Torrent:
    """A torrent of one file."""

    name: str
    content: bytes
    path: Path
    info_hash: bytes


def make_torrent(name: str, announce: str, folder: Path, *, is_private: bool) -> Torrent:
    content = random.Random(name).randbytes(LENGTH)
    pieces = [content[at : at + 16_384] for at in range(0, LENGTH, 16_384)]
    info = {
        b"name": name.encode(),
        b"length": LENGTH,
        b"piece length": 16_384,
        b"pieces": b"".join(hashlib.sha1(piece).digest() for piece in pieces),
    }
    if is_private:
        info[b"private"] = 1
    path = folder / f"{name}.torrent"
    path.write_bytes(bencode({b"announce": announce.encode(), b"info": info}))
    return Torrent(name, content, path, hashlib.sha1(bencode(info)).digest())


@pytest.fixture
async def capture() -> AsyncIterator[Capture]:
    made = Capture()
    yield made
    made.close()


async def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not is_so():
        assert time.monotonic() < deadline, f"not within {TIMEOUT:g} s: {what}"
        await asyncio.sleep(0.1)


def seen_in_datagrams(capture: Capture, torrent: Torrent) -> set[str]:
    """Return where a torrent was named in datagrams."""
    found = set()
    for _, target, data in capture.datagrams:
        if torrent.info_hash in data:
            found.add("dht announce" if b"announce_peer" in data else "dht")
        if torrent.info_hash.hex().encode() in data.lower():
            found.add({6771: "lsd", 5353: "zeroconf"}.get(target[1], "somewhere"))
    return found


async def test_no_packet_of_a_private_torrent_goes_to_other_sources(
    capture: Capture, tmp_path: Path
) -> None:
    if reason := namespaces_missing():
        if os.geteuid() != 0:
            pytest.skip(reason)
        pytest.fail(reason)
    with namespace_pair() as (there, here):
        run_ip(here, "addr", "add", "10.77.0.3/24", "dev", "veth0")
        third = Place("10.77.0.3", here.namespace)
        for place, interface in ((there, "veth0"), (there, "lo"), (here, "lo")):
            capture.listen(place, interface)
        async with rendezvous(there) as tracker:
            torrents = [
                make_torrent(name, tracker.url, tmp_path, is_private=name == "private")
                for name in ("private", "public")
            ]
            programs = await _run(torrents, (there, here, third), tmp_path)
            try:
                await _live(capture, torrents, programs, tmp_path)
            finally:
                for program in programs:
                    await program.stop()
        private, _ = torrents
        assert seen_in_datagrams(capture, private) == set()
        spoken = capture.conversations(private.info_hash)
        assert len(spoken) >= 4
        for one in spoken:
            assert not one.exchanges
            assert not one.extensions & {b"ut_pex", b"ut_metadata"}
            assert not one.has_dht_bit
            assert not one.names_dht_port
        # Nobody was dialled but the tracker and those it named.
        port = int(tracker.url.rpartition(":")[2].partition("/")[0])
        named = {("10.77.0.1", port), *((f"10.77.0.{n}", 7000 + n) for n in (1, 2, 3))}
        assert capture.dialled <= named


async def _run(torrents: list[Torrent], places: tuple[Place, ...], folder: Path) -> list[Program]:
    programs = []
    for number, place in enumerate(places, start=1):
        out = folder / str(number)
        out.mkdir()
        if number == 1:
            for torrent in torrents:
                (out / torrent.name).write_bytes(torrent.content)
        program = await Program.start(
            [
                *(sys.executable, "-m", "bittern", "get", *(str(t.path) for t in torrents)),
                *("--seed", "--output", str(out), "--state-dir", str(folder / f"state-{number}")),
                *("--bind", place.address, "--port", str(7000 + number), "--jsonl"),
                "--zeroconf",
                *("--dht-bootstrap", "10.77.0.1:7001", "--max-download", RATE),
            ],
            place=place,
            log=folder / f"{number}.log",
            environment=ENVIRONMENT,
        )
        programs.append(program)
        if number == 1:
            await program.wait_line(lambda line: '"torrent_completed"' in line, timeout=TIMEOUT)
    return programs


async def _live(
    capture: Capture, torrents: list[Torrent], programs: list[Program], folder: Path
) -> None:
    """Wait until everybody has everything, and the public torrent was seen everywhere."""
    _, public = torrents

    def spoken(is_so: Callable[[Conversation], object]) -> bool:
        return any(is_so(one) for one in capture.conversations(public.info_hash))

    for place in ("lsd", "zeroconf", "dht"):
        await until(
            lambda place=place: place in seen_in_datagrams(capture, public),  # type: ignore[misc]
            place,
        )
    await until(lambda: spoken(lambda one: one.exchanges), "peer exchange")
    assert spoken(lambda one: b"ut_metadata" in one.extensions)
    assert spoken(lambda one: one.has_dht_bit)
    assert spoken(lambda one: one.names_dht_port)
    for number, program in enumerate(programs[1:], start=2):
        await until(lambda p=program: _completions(p) == len(torrents), "complete")  # type: ignore[misc]
        for torrent in torrents:
            assert (folder / str(number) / torrent.name).read_bytes() == torrent.content
    await until(lambda: "dht announce" in seen_in_datagrams(capture, public), "DHT announce")


def _completions(program: Program) -> int:
    return sum('"torrent_completed"' in line for line in program.lines)
