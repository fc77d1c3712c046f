"""
A mutable torrent from its publisher to its followers, all as programs of their own (BEP 46).

The DHT is two nodes of ours and one of libtorrent's, on this machine; there is no tracker, and no
peer is named: the link alone leads to the key's newest version, and that to its seeds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import content
from tests.interop.clients.bittern import ENVIRONMENT
from tests.interop.libtorrent_dht import LibtorrentNode
from tests.interop.place import Place
from tests.interop.process import Program

pytestmark = [pytest.mark.interop, pytest.mark.slow]

HOST = "127.0.0.1"
TIMEOUT = 40.0
PIECE_LENGTH = 16_384


class Cast:
    """The programs of one scene; ``run`` gives back what a program wrote as JSON."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options: list[str] = []
        self._programs: list[Program] = []

    async def start(self, name: str, *arguments: object) -> Program:
        program = await Program.start(
            [sys.executable, "-m", "bittern", *map(str, arguments)],
            place=Place(HOST),
            log=self.folder / f"{name}{len(self._programs)}.log",
            environment=ENVIRONMENT,
        )
        self._programs.append(program)
        return program

    async def run(self, name: str, *arguments: object) -> dict[str, Any]:
        program = await self.start(name, *arguments)
        await program.wait_exit(timeout=TIMEOUT)
        found: dict[str, Any] = json.loads("\n".join(program.lines))
        return found

    async def event(self, program: Program, kind: str, **fields: object) -> dict[str, Any]:
        """Wait for a line of ``--jsonl`` of a kind and with these fields."""

        def read(line: str) -> dict[str, Any]:
            try:
                found = json.loads(line)
            except ValueError:
                return {}
            return found if isinstance(found, dict) else {}

        def is_wanted(line: str) -> bool:
            found = read(line)
            return found.get("type") == kind and fields.items() <= found.items()

        return read(await program.wait_line(is_wanted, timeout=TIMEOUT))

    async def node(self, *where: str) -> int:
        """Start a DHT node and return its port."""
        state = self.folder / f"state{len(self._programs)}"
        place = ("--bind", HOST, "--port", "0", "--state-dir", state)
        program = await self.start("node", "dht", "node", "--jsonl", *place, *where)
        found = await self.event(program, "listening")
        return int(found["endpoint"].rpartition(":")[2])

    def client(self, name: str) -> list[str]:
        """Options of a client that has nothing but the DHT."""
        return [
            *("--bind", HOST, "--port", "0", "--no-lsd", "--no-pex", "--no-tracker"),
            *("--dht-bootstrap", self.options[1], "--state-dir", str(self.folder / f"s-{name}")),
        ]

    async def stop(self) -> None:
        for program in reversed(self._programs):
            await program.stop()


@pytest.fixture
async def cast(tmp_path: Path) -> AsyncIterator[Cast]:
    made = Cast(tmp_path)
    try:
        first = await made.node("--no-bootstrap")
        ports = [first, await made.node("--bootstrap", f"{HOST}:{first}")]
        other = LibtorrentNode(*ports)
        await other.joined(2)
        made.options = ["--bootstrap", f"{HOST}:{first}", "--bind", HOST]
        yield made
        other.close()
    finally:
        await made.stop()


def write_all(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def read_all(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


async def publish(cast: Cast, source: Path, kind: str, *more: str) -> dict[str, Any]:
    """Make a torrent of a folder, seed it, make it the newest under the key; returns the event."""
    torrent = source.with_suffix(".torrent")
    await cast.run("create", "create", source, "-o", torrent, kind, "--json",
                   "--piece-length", PIECE_LENGTH)  # fmt: skip
    seed = await cast.start("seed", "seed", torrent, "--data", source.parent, "--jsonl",
                            *cast.client(source.parent.name))  # fmt: skip
    await cast.event(seed, "state_changed", state="seeding")
    # It stays, as a publisher does; one that leaves costs the lookups of others a timeout.
    publisher = await cast.start(
        "publish", "publish", torrent, "--key", cast.folder / "key", "--jsonl",
        "--state-dir", cast.folder / "s-publish", *cast.options, *more,
    )  # fmt: skip
    link = await cast.event(publisher, "link")
    return {**await cast.event(publisher, "published"), "magnet": link["magnet"]}


@pytest.mark.parametrize(
    "kind",
    ["--hybrid", pytest.param("--v1", marks=pytest.mark.soak),
     pytest.param("--v2", marks=pytest.mark.soak)],
)  # fmt: skip
async def test_a_follower_fetches_only_what_changed(cast: Cast, kind: str) -> None:
    old = {
        "same.bin": content(300_000, 1),
        "changed.bin": content(400_000, 2),
        "moved.bin": content(350_000, 3),
        "gone.txt": b"not for long",
    }
    write_all(cast.folder / "one" / "site", old)
    first = await publish(cast, cast.folder / "one" / "site", kind, "--new-key")

    # The first version comes in full, ...
    mirror = cast.folder / "mirror"
    follower = await cast.start("follow", "follow", first["magnet"], "-o", mirror, "--interval",
                                "0.5", "--jsonl", *cast.client("follow"))  # fmt: skip
    done = await cast.event(follower, "version_complete", seq=first["seq"])
    assert done["downloaded"] >= sum(map(len, old.values()))
    assert read_all(mirror / "site") == old
    write_all(mirror / "site", {"mine.txt": b"of the folder's owner"})

    # ... and of the second one only the pieces that nobody had.
    changed = bytearray(old["changed.bin"])
    changed[200_000:200_010] = b"0123456789"  # in the middle of one piece
    new = {
        "same.bin": old["same.bin"],
        "changed.bin": bytes(changed),
        "elsewhere/moved.bin": old["moved.bin"],
        "fresh.bin": content(50_000, 4),
    }
    write_all(cast.folder / "two" / "site", new)
    second = await publish(cast, cast.folder / "two" / "site", kind)
    assert second["magnet"] == first["magnet"]
    assert second["seq"] > first["seq"]
    done = await cast.event(follower, "version_complete", seq=second["seq"])
    assert read_all(mirror / "site") == {**new, "mine.txt": b"of the folder's owner"}
    if kind == "--v2":
        assert done["downloaded"] == PIECE_LENGTH + 50_000
    elif kind == "--hybrid":  # padding between files counts as downloaded, as in every v1 client
        assert PIECE_LENGTH + 50_000 <= done["downloaded"] <= 5 * PIECE_LENGTH
    else:
        # Pieces run over the ends of files here: those at the ends of new content come too.
        assert PIECE_LENGTH + 50_000 <= done["downloaded"] <= 50_000 + 8 * PIECE_LENGTH
    assert not any((mirror / ".bittern").rglob("next/*"))

    # "get" with the same link takes the newest, once.
    got = await cast.run("get", "get", second["magnet"], "-o", cast.folder / "got", "--json",
                         "--timeout", TIMEOUT, *cast.client("get"))  # fmt: skip
    assert got["downloaded"] >= sum(map(len, new.values()))
    assert read_all(cast.folder / "got" / "site") == new
