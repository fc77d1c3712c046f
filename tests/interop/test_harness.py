"""The harness's own promises: it sees every difference, leaves nothing running, and waits well."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.interop import web
from tests.interop.cases import Case, Outcome, Result
from tests.interop.clients import CLIENTS, Transport
from tests.interop.driver import find_program
from tests.interop.matrix import exit_code, format_tables
from tests.interop.pairing import Pair
from tests.interop.place import Place
from tests.interop.process import InteropError, Program
from tests.interop.rendezvous import rendezvous
from tests.interop.samples import Sample, make_sample

INFO_HASH = "%00" * 20


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(tmp_path_factory.mktemp("sample"))


def test_sample_is_always_the_same(sample: Sample, tmp_path: Path) -> None:
    assert make_sample(tmp_path).info_hash == sample.info_hash


def test_announce_url_does_not_change_the_info_hash(sample: Sample, tmp_path: Path) -> None:
    local = sample.announced_at("http://127.0.0.1:1/announce", tmp_path)
    assert b"http://127.0.0.1:1/announce" in local.torrent.read_bytes()
    assert local.info_hash == sample.info_hash
    assert local.differences(sample.data_dir) == []


def test_every_kind_of_difference_is_seen(sample: Sample, tmp_path: Path) -> None:
    copy = tmp_path / sample.name
    shutil.copytree(sample.data_dir / sample.name, copy)
    assert sample.differences(tmp_path) == []
    content = bytearray((copy / "nested" / "odd.bin").read_bytes())
    content[70_000] ^= 1
    (copy / "nested" / "odd.bin").write_bytes(content)
    (copy / "tail.bin").write_bytes(b"ab")
    (copy / "empty").unlink()
    (copy / "nested" / "stray").touch()
    found = sample.differences(tmp_path)
    assert [line.partition(": ")[2] for line in found] == [
        "missing",
        "differs from byte 70000 on",
        "2 bytes instead of 3",
        "not in the torrent",
    ]
    assert len(sample.differences(tmp_path, ignore_empty=True)) == 3


@pytest.mark.slow
async def test_stop_also_ends_grandchildren(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']);"
        "print(child.pid, flush=True); time.sleep(100)"
    )
    program = await Program.start(
        [sys.executable, "-c", script], place=Place(), log=tmp_path / "log"
    )
    grandchild = int(await program.wait_line(str.isdigit, timeout=20))
    await program.stop()
    await program.stop()
    assert program.exit_code is not None
    async with asyncio.timeout(20):
        while _is_running(grandchild):  # noqa: ASYNC110 (another process raises no event)
            await asyncio.sleep(0)


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    status = Path("/proc", str(process_id), "stat")
    # Killed, but not yet collected by the process that inherited it.
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


async def test_death_of_a_program_ends_every_wait(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; print('last words'); sys.exit(3)"]
    program = await Program.start(argv, place=Place(), log=tmp_path / "log")
    with pytest.raises(InteropError, match="ended before"):
        await program.wait_line(lambda line: line == "never", timeout=20)
    with pytest.raises(InteropError, match=r"exit code 3\nlast words"):
        await program.wait_exit(timeout=20)
    with pytest.raises(InteropError, match=r"exit code 3 too early\nlast words"):
        await program.guard(asyncio.Event().wait())
    await program.stop()


async def test_rendezvous_returns_the_other_peer(tmp_path: Path) -> None:
    async with rendezvous(Place()) as tracker:
        port = int(tracker.url.split(":")[2].split("/")[0])

        async def announce(name: str, listening: int, left: str) -> bytes:
            peer_id = name * 20
            target = f"/announce?info_hash={INFO_HASH}&peer_id={peer_id}&port={listening}"
            reply = await web.request(
                Place(), "GET", "127.0.0.1", port, f"{target}&left={left}&compact=1"
            )
            return reply.body

        assert b"5:peers0:" in await announce("a", 1, "0")
        await tracker.wait_seed(bytes(20), timeout=5)
        assert b"5:peers6:\x7f\x00\x00\x01\x00\x01" in await announce("b", 2, "")
        with pytest.raises(InteropError, match="no seed announced"):
            await tracker.wait_seed(b"x" * 20, timeout=0)


def test_programs_of_a_folder_go_before_those_of_the_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = tmp_path / "aria2c"
    chosen.touch()
    monkeypatch.delenv("BITTERN_INTEROP_PROGRAMS", raising=False)
    assert find_program("aria2c") == "aria2c"
    assert find_program("aria2c", "/opt/aria2c") == "/opt/aria2c"
    monkeypatch.setenv("BITTERN_INTEROP_PROGRAMS", str(tmp_path))
    assert find_program("aria2c", "/opt/aria2c") == str(chosen)
    assert find_program("rtorrent") == "rtorrent"


def test_place_finds_ports_for_tcp_and_udp() -> None:
    assert Place().free_port() in range(20_000, 32_000)


def test_matrix_reports_failures(sample: Sample) -> None:
    pair = Pair(CLIENTS["libtorrent"], CLIENTS["bittern"], Transport.TCP)
    case = Case("clients", "libtorrent", "seeds to bittern", pair, lambda: sample)
    passed = Result(case, Outcome.PASSED, 1.5)
    failed = Result(case, Outcome.FAILED, 2.0, "first line\nsecond line")
    absent = Result(case, Outcome.UNAVAILABLE, reason="not installed")
    assert exit_code([passed], is_strict=True) == 0
    assert exit_code([passed, failed], is_strict=False) == 1
    assert exit_code([passed, absent], is_strict=False) == 0
    assert exit_code([passed, absent], is_strict=True) == 1
    assert exit_code([absent], is_strict=False) == 1
    text = "\n".join(format_tables([failed]))
    assert "FAILED" in text
    assert "first line\n    second line" in text
