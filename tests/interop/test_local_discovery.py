"""
Peers find each other on a network on which nothing is configured, with bittern and libtorrent.

Two network namespaces joined by a cable; no tracker, no DHT, no named peer. Needs Linux, iproute2
and root; where the first two are there but not the third, the tests are skipped.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bittern.codec.lsd import GROUP_V4, GROUP_V6
from bittern.core.endpoint import Endpoint
from bittern.net.interfaces import Interface, interfaces_for
from bittern.net.multicast import LocalNetwork
from tests.interop.bench import Bench, is_event, keep_family
from tests.interop.place import Place, run_ip, settle_at_once, wait_multicast_v6
from tests.interop.process import Program
from tests.interop.samples import Sample, make_sample

pytestmark = [pytest.mark.interop, pytest.mark.slow]

TIMEOUT = 30.0


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("sample")
    return make_sample(folder).announced_at(None, folder / "local")


async def completes(program: Program, folder: Path, sample: Sample) -> None:
    """Wait for the end of ``bittern get``, and compare every byte."""
    await program.wait_exit(timeout=TIMEOUT)
    assert sample.differences(folder) == []


@pytest.mark.parametrize("family", [4, 6])
async def test_bittern_finds_bittern(
    family: int, sample: Sample, bench: Bench, places: tuple[Place, Place], tmp_path: Path
) -> None:
    there, here = places
    keep_family(places, family)
    seed = await bench.bittern(there, "seed", str(sample.torrent), "--data", str(sample.data_dir))
    await seed.wait_line(lambda line: is_event(line, "torrent_completed"), timeout=TIMEOUT)
    out = tmp_path / "out"
    leech = await bench.bittern(here, "get", str(sample.torrent), "--output", str(out))
    await completes(leech, out, sample)
    said = [*seed.lines, *leech.lines]
    assert any(is_event(line, "peers_found", source="lsd") for line in said)


async def test_we_hear_libtorrent(
    sample: Sample, bench: Bench, places: tuple[Place, Place], tmp_path: Path
) -> None:
    there, here = places
    out = tmp_path / "out"
    leech = await bench.bittern(here, "get", str(sample.torrent), "--output", str(out))
    await leech.wait_line(
        lambda line: is_event(line, "state_changed", state="downloading"), timeout=TIMEOUT
    )
    await bench.libtorrent(
        there, str(sample.torrent), str(sample.data_dir), "--seed", "--address", there.address
    )
    await completes(leech, out, sample)
    assert any(is_event(line, "peers_found", source="lsd") for line in leech.lines)


async def test_libtorrent_hears_us(
    sample: Sample, bench: Bench, places: tuple[Place, Place], tmp_path: Path
) -> None:
    there, here = places
    out = tmp_path / "out"
    out.mkdir()
    leech = await bench.libtorrent(there, str(sample.torrent), str(out), "--address", there.address)
    await leech.wait_line(lambda line: is_event(line, "listen_succeeded"), timeout=TIMEOUT)
    await bench.bittern(here, "seed", str(sample.torrent), "--data", str(sample.data_dir))
    heard = await leech.wait_line(lambda line: is_event(line, "lsd_peer"), timeout=TIMEOUT)
    assert here.address in heard
    await leech.wait_line(lambda line: is_event(line, "complete"), timeout=TIMEOUT)
    await leech.stop()
    assert sample.differences(out) == []


# --- interfaces that come and go -------------------------------------------------------------


class Member:
    """A member of both groups in a place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.heard: list[tuple[bytes, str]] = []
        self._woken = asyncio.Event()
        self.network = LocalNetwork((GROUP_V4, GROUP_V6), 6771, find=self._find)
        with place.inside():
            self.network.open(self._receive)

    def _find(self, hosts: tuple[str, ...]) -> tuple[Interface, ...]:
        with self.place.inside():
            return interfaces_for(hosts)

    def _receive(self, data: bytes, source: Endpoint) -> None:
        self.heard.append((data, source.host))
        self._woken.set()

    def send(self, text: bytes) -> int:
        return self.network.send({GROUP_V4: text + b" 4", GROUP_V6: text + b" 6"})

    async def wait(self, *wanted: tuple[bytes, str]) -> None:
        async with asyncio.timeout(10):
            while not set(wanted) <= set(self.heard):
                self._woken.clear()
                await self._woken.wait()


async def test_every_interface_is_joined_also_one_that_comes_later(
    places: tuple[Place, Place],
) -> None:
    for place in places:
        wait_multicast_v6(place, "veth0")
    one, two = Member(places[0]), Member(places[1])
    assert one.send(b"first") == 2
    await two.wait((b"first 4", "10.77.0.1"), (b"first 6", "fd77::1"))
    # A second cable between the two.
    assert places[1].namespace is not None
    run_ip(
        places[0],
        *("link", "add", "veth1", "type", "veth"),
        *("peer", "name", "veth1", "netns", places[1].namespace),
    )
    for number, place in enumerate(places, start=1):
        run_ip(place, "addr", "add", f"10.78.0.{number}/24", "dev", "veth1")
        settle_at_once(place, "veth1")
        run_ip(place, "addr", "add", f"fd78::{number}/64", "dev", "veth1")
        run_ip(place, "link", "set", "veth1", "up")
    for place in places:
        wait_multicast_v6(place, "veth1")
    assert one.network.refresh()
    assert two.network.refresh()
    assert not two.network.refresh()
    assert one.send(b"second") == 4
    await two.wait(
        *((b"second 4", "10.77.0.1"), (b"second 6", "fd77::1")),
        *((b"second 4", "10.78.0.1"), (b"second 6", "fd78::1")),
    )
    # An address that is moved elsewhere is no neighbour's any more; the other cable still works.
    run_ip(places[1], "addr", "flush", "dev", "veth0")
    two.network.refresh()
    two.heard.clear()
    one.send(b"third")
    await two.wait((b"third 4", "10.78.0.1"), (b"third 6", "fd78::1"))
    assert {host for _, host in two.heard} == {"10.78.0.1", "fd78::1"}
    # And one that goes altogether.
    run_ip(places[0], "link", "del", "veth1")
    one.network.refresh()
    assert [interface.name for interface in one.network.interfaces] == ["veth0"]
    for member in (one, two):
        member.network.close()
