"""
Torrents whose volume is not mounted, with real mounts in a namespace of their own. Limit: F6.

The volume is a tmpfs that stays mounted elsewhere and is bound to its place, so that it has its
files still when it is bound again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import ALONE, content, single_file_torrent, write

pytestmark = pytest.mark.slow

UNSHARE = ("unshare", "--mount", "--propagation", "private")
DATA = content(100_000)


def in_namespace(folder: Path, script: str, *arguments: str) -> list[str]:
    """Run a script of the shell where mounts are nobody else's, and return its lines."""
    start = next((start for start in (UNSHARE, (*UNSHARE, "--map-root-user")) if may(*start)), None)
    if start is None:
        pytest.skip("mounts of one's own cannot be had here")
    command = [*start, "sh", "-eu", "-c", script, "sh", *arguments]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.splitlines()


def may(*start: str) -> bool:
    """Tell whether a namespace can be made like this, and something mounted in it."""
    if shutil.which("unshare") is None:
        return False
    probe = [*start, "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(probe, capture_output=True, timeout=20).returncode == 0


PROGRAM = """
python=$1; shift
bittern() { verb=$1; shift; code=0
  "$python" -m bittern $verb cat.torrent "$@" -q --state-dir state $options 2>&1 || code=$?
  echo "$verb: $code"; find usb -type f -printf 'there: %p\\n'; }
options="$*"
mkdir volume usb
mount -t tmpfs none volume
cp cat.mp4 volume/
attach() { mount --bind volume usb; }
"""


def test_a_mount_point_is_not_filled_in_place_of_its_volume(tmp_path: Path) -> None:
    write(tmp_path / "cat.torrent", single_file_torrent(b"cat.mp4", DATA))
    write(tmp_path / "cat.mp4", DATA)
    script = (
        PROGRAM
        + """
attach; bittern get -o usb
umount usb; bittern get -o usb --timeout 5s; bittern seed --data usb --timeout 5s
attach; bittern get -o usb --timeout 5s; rm volume/cat.mp4; bittern get -o usb --timeout 0.1s
umount usb; bittern get -o usb --timeout 0.1s --recheck
"""
    )
    lines = in_namespace(tmp_path, script, sys.executable, *ALONE)
    said = [line for line in lines if line.startswith("bittern: cat.mp4: ")]
    assert len(said) == 2
    assert all(f"is not mounted: '{tmp_path / 'usb'}'" in line for line in said)
    # Who wants to fetch has not finished in time, 7, or has reached nobody, 4.
    lines = [line.replace("get: 4", "get: 7") for line in lines]
    assert [line for line in lines if not line.startswith("bittern: ")] == [
        "get: 0", "there: usb/cat.mp4",
        "get: 3", "seed: 3",
        "get: 0", "there: usb/cat.mp4", "get: 7",
        "get: 7",
    ]  # fmt: skip


WAITING = """
import asyncio, subprocess, sys
from pathlib import Path
from bittern.engine import condition, events
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.session import Session

condition.RETRY_INTERVAL = 0.05

async def main():
    config = SessionConfig(
        listen_host="127.0.0.1", listen_port=0, enable_trackers=False, enable_dht=False,
        enable_lsd=False, state_dir=Path("state"),
    )
    async with Session(config) as session:
        torrent = await session.add(
            Path("cat.torrent").read_bytes(), TorrentConfig(output=Path("usb"), paused=True)
        )
        stream = torrent.events()
        await torrent.resume()
        print(torrent.state.value, [each.name for each in Path("usb").iterdir()])
        subprocess.run(["mount", "--bind", "volume", "usb"], check=True)
        async for event in stream:
            match event:
                case events.StateChanged(state):
                    print(state.value)
                    if torrent.is_complete:
                        return
                case events.CheckProgressed():
                    print("hashed")

asyncio.run(asyncio.wait_for(main(), 60))
"""


def test_a_torrent_goes_on_when_its_volume_is_mounted(tmp_path: Path) -> None:
    write(tmp_path / "cat.torrent", single_file_torrent(b"cat.mp4", DATA))
    write(tmp_path / "cat.mp4", DATA)
    write(tmp_path / "waiting.py", WAITING.encode())
    script = PROGRAM + 'attach; bittern get -o usb; umount usb; "$python" waiting.py'
    lines = in_namespace(tmp_path, script, sys.executable, *ALONE)
    assert lines == [
        "get: 0", "there: usb/cat.mp4",
        "error []", "checking", "error",
        "checking", "seeding",
    ]  # fmt: skip
