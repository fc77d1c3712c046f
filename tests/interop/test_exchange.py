"""
Peer exchange with libtorrent both ways (BEP 11): three who have nothing, of whom two know one.

The one in the middle connects to the other end; whoever comes to it must hear of that one.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.interop.clients.bittern import ENVIRONMENT
from tests.interop.place import Place
from tests.interop.process import Program
from tests.interop.samples import Sample, make_sample
from tests.reference import need_libtorrent

pytestmark = [pytest.mark.interop, pytest.mark.slow]

TIMEOUT = 30.0
LIBTORRENT = Path(__file__).parent / "programs" / "libtorrent_peer.py"
HOSTS = {4: ("127.0.0.1", "127.0.0.2", "127.0.0.3"), 6: ("::1", "::1", "::1")}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("sample")
    return make_sample(folder).announced_at(None, folder / "local")


class Chain:
    """Leeches that are started one after the other and told of the one before."""

    def __init__(self, sample: Sample, folder: Path, family: int) -> None:
        self.programs: list[Program] = []
        self.endpoints: list[str] = []
        self._sample = sample
        self._folder = folder
        self._hosts = HOSTS[family]

    async def add(self, kind: str) -> Program:
        """Start one, at the next address."""
        number = len(self.programs)
        host, port = self._hosts[number], Place().free_port()
        out = self._folder / str(number)
        out.mkdir()
        bracketed = f"[{host}]" if ":" in host else host
        torrent = str(self._sample.torrent)
        if kind == "bittern":
            argv = [
                *("-m", "bittern", "get", torrent, "--output", str(out), "--bind", host),
                *("--jsonl", "--no-dht", "--no-lsd", "--no-tracker"),
                *("--state-dir", str(self._folder / f"state-{number}")),
            ]
            peers = self.endpoints[-1:]
        else:
            need_libtorrent()
            argv = [str(LIBTORRENT), torrent, str(out), "--address", bracketed]
            peers = [endpoint.replace("[", "").replace("]", "") for endpoint in self.endpoints[-1:]]
        argv += ["--port", str(port), *(f"--peer={peer}" for peer in peers)]
        program = await Program.start(
            [sys.executable, *argv],
            place=Place(),
            log=self._folder / f"{number}.log",
            environment=ENVIRONMENT,
        )
        self.programs.append(program)
        self.endpoints.append(f"{bracketed}:{port}")
        listening = {"bittern": '"listening"', "libtorrent": '"listen_succeeded"'}[kind]
        await program.wait_line(lambda line: listening in line, timeout=TIMEOUT)
        return program

    async def stop(self) -> None:
        for program in self.programs:
            await program.stop()


@pytest.fixture(params=[4, 6])
async def chain(
    request: pytest.FixtureRequest, sample: Sample, tmp_path: Path
) -> AsyncIterator[Chain]:
    made = Chain(sample, tmp_path, request.param)
    yield made
    await made.stop()


async def test_libtorrent_learns_of_a_peer_through_us(chain: Chain) -> None:
    end = await chain.add("bittern")
    await chain.add("bittern")
    await end.wait_line(lambda line: '"peer_connected"' in line, timeout=TIMEOUT)
    asker = await chain.add("libtorrent")
    await asker.wait_line(
        lambda line: '"peer_connect"' in line and chain.endpoints[0] in line, timeout=TIMEOUT
    )
    # And is let in by the one it was told of.
    await end.wait_line(lambda line: '"peer_connected"' in line and "LT" in line, timeout=TIMEOUT)


async def test_we_learn_of_a_peer_through_libtorrent(chain: Chain) -> None:
    end = await chain.add("libtorrent")
    await chain.add("libtorrent")
    await end.wait_line(
        lambda line: '"incoming_connection"' in line or '"peer_connect"' in line, timeout=TIMEOUT
    )
    asker = await chain.add("bittern")

    await asker.wait_line(lambda line: '"peers_found"' in line and '"pex"' in line, timeout=TIMEOUT)
    # The end has heard of us in the same way, so either may have been the one to connect.
    await asker.wait_line(
        lambda line: '"peer_connected"' in line and chain.endpoints[1] not in line,
        timeout=TIMEOUT,
    )
